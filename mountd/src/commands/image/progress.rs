//! Progress of long commands: lines of JSON, or bars on a terminal.

use laminafs::service::Refusal;
use laminafs::service::import::{OnProgress, Progress};

use crate::commands::bar::Bar;
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
        _ => show(&mut bar, step),
    });
    bar.end();
    let done = done?;
    said?;
    Ok(done)
}

fn show(bar: &mut Bar, step: &Progress) {
    match step {
        Progress::Layer { number, of, layer, size } => {
            let digits = layer.rsplit(':').next().unwrap_or(layer);
            bar.begin(*size, format!("layer {number} of {of} {}", short(digits)));
        }
        Progress::Download { layers, size } => {
            bar.begin(*size, format!("download of {layers} layers"));
        }
        Progress::Read { bytes } | Progress::Downloaded { bytes } => bar.set(*bytes),
        Progress::Kept { .. } | Progress::Image { .. } => {}
    }
}
