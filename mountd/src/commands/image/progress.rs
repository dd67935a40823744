//! Progress of long commands: lines of JSON, or bars on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use laminafs::service::Refusal;
use laminafs::service::import::{OnProgress, Progress};

use crate::commands::table::short;
use crate::report::{CliError, say};

/// Shows the events of `work`.
pub(super) fn with_progress<T>(
    json: bool,
    work: impl FnOnce(&mut OnProgress<'_>) -> Result<T, Refusal>,
) -> Result<T, CliError> {
    let mut said = Ok(());
    let mut bar = Bar::default();
    let done = work(&mut |step| match serde_json::to_string(step) {
        Ok(line) if json && said.is_ok() => said = say(&format!("{line}\n")),
        _ => bar.show(step),
    });
    bar.end();
    let done = done?;
    said?;
    Ok(done)
}

/// A bar with rate and time left on a terminal, nothing elsewhere.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn show(&mut self, step: &Progress) {
        match step {
            Progress::Layer { number, of, layer, size } => {
                let digits = layer.rsplit(':').next().unwrap_or(layer);
                self.begin(*size, format!("layer {number} of {of} {}", short(digits)));
            }
            Progress::Download { layers, size } => {
                self.begin(*size, format!("download of {layers} layers"));
            }
            Progress::Read { bytes } | Progress::Downloaded { bytes } => {
                if let Some(bar) = &self.0 {
                    bar.set_position(*bytes);
                }
            }
            Progress::Kept { .. } | Progress::Image { .. } => {}
        }
    }

    fn begin(&mut self, size: u64, message: String) {
        self.end();
        // Drawn to the standard error, and only if that is a terminal.
        let form = "{msg} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_bar}";
        let bar = ProgressBar::new(size);
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(message);
        self.0 = Some(bar);
    }

    fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish();
        }
    }
}
