//! A bar with rate and time left on a terminal, nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use laminafs::service::Refusal;
use laminafs::service::volumes::OnProgress;

/// The bar of the step under way.
#[derive(Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Begins a step of `size` bytes, after the end of the last one.
    pub(super) fn begin(&mut self, size: u64, message: String) {
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

    /// Shows how many bytes of the step are done.
    pub(super) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// Ends the step.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish();
        }
    }

    /// Shows how many bytes are done of an estimate, which may be too low.
    fn set_of(&self, bytes: u64, of: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(of.max(bytes));
            bar.set_position(bytes);
        }
    }
}

/// Shows the progress of `work`. It is not asked for where nobody sees it: the total costs a walk.
pub(super) fn with_bar<T>(
    message: String,
    work: impl FnOnce(Option<&mut OnProgress<'_>>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if !std::io::stderr().is_terminal() {
        return work(None);
    }
    let mut bar = Bar::default();
    bar.begin(0, message);
    let done = work(Some(&mut |bytes, of| bar.set_of(bytes, of)));
    bar.end();
    done
}
