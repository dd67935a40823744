//! Progress of long commands: lines of JSON, or bars on a terminal, and a line of what was done.

use std::cell::RefCell;
use std::rc::Rc;

use laminafs::service::import::{OnProgress, Progress};
use laminafs::service::push::OnSent;
use laminafs::types::size;

use crate::commands::bar::{Bar, Clock};
use crate::commands::table::short;
use crate::report::{CliError, note, say};

/// Shows the progress of one command.
pub(in crate::commands) struct Shown {
    json: bool,
    clock: Clock,
    bar: Rc<RefCell<Bar>>,
    tally: Tally,
}

/// What was done.
#[derive(Default)]
struct Tally {
    layers: usize,
    kept: usize,
    /// Bytes of the layers before the current one, and of that one.
    read: u64,
    current: u64,
    downloaded: u64,
    sent: u64,
}

impl Shown {
    /// Begins to measure the time.
    pub(in crate::commands) fn new(json: bool) -> Self {
        let (bar, tally) = (Rc::default(), Tally::default());
        Self { json, clock: Clock::start(), bar, tally }
    }

    /// Receives the bytes of an upload.
    pub(in crate::commands) fn on_sent(&self) -> OnSent {
        let bar = Rc::clone(&self.bar);
        Rc::new(move |bytes| bar.borrow().set(bytes))
    }

    /// Shows the events of `work`.
    pub(in crate::commands) fn run<T, E>(
        &mut self,
        work: impl FnOnce(&mut OnProgress<'_>) -> Result<T, E>,
    ) -> Result<T, CliError>
    where
        CliError: From<E>,
    {
        let Self { json, bar, tally, .. } = self;
        let mut said = Ok(());
        let done = work(&mut |step| {
            tally.count(step);
            match serde_json::to_string(step) {
                Ok(line) if *json && said.is_ok() => said = say(&format!("{line}\n")),
                _ => show(&mut bar.borrow_mut(), step),
            }
        });
        bar.borrow_mut().end();
        let done = done?;
        said?;
        Ok(done)
    }

    /// Prints what was done, for people.
    pub(in crate::commands) fn close(&self, what: &str) {
        note(&format!("{what}: {} in {}", self.tally.text(), self.clock));
    }
}

impl Tally {
    fn count(&mut self, step: &Progress) {
        match step {
            Progress::Layer { .. } => {
                self.layers += 1;
                self.read += std::mem::take(&mut self.current);
            }
            Progress::Read { bytes } => self.current = *bytes,
            Progress::Kept { .. } => self.kept += 1,
            Progress::Downloaded { bytes } => self.downloaded = *bytes,
            Progress::Upload { size, .. } => self.sent += size,
            Progress::Download { .. } | Progress::Image { .. } => {}
        }
    }

    fn text(&self) -> String {
        let layers = if self.layers == 1 { "layer" } else { "layers" };
        let mut parts = vec![format!("{} {layers}", self.layers)];
        if self.kept > 0 {
            parts.push(format!("{} already there", self.kept));
        }
        for (bytes, verb) in [
            (self.downloaded, "downloaded"),
            (self.read + self.current, "read"),
            (self.sent, "written"),
        ] {
            if bytes > 0 {
                parts.push(format!("{} {verb}", size::shown(bytes)));
            }
        }
        parts.join(", ")
    }
}

fn show(bar: &mut Bar, step: &Progress) {
    let digits = |layer: &str| short(layer.rsplit(':').next().unwrap_or(layer)).to_owned();
    match step {
        Progress::Layer { number, of, layer, size } => {
            bar.begin(*size, format!("layer {number} of {of} {}", digits(layer)));
        }
        Progress::Download { layers, size } => {
            bar.begin(*size, format!("download of {layers} layers"));
        }
        Progress::Upload { layer, size } => bar.begin(*size, format!("upload {}", digits(layer))),
        Progress::Read { bytes } | Progress::Downloaded { bytes } => bar.set(*bytes),
        Progress::Kept { .. } | Progress::Image { .. } => {}
    }
}
