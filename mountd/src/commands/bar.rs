//! A bar with rate and time left on a terminal, nothing elsewhere; and the time that a command
//! took.

use std::fmt;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use laminafs::service::Refusal;
use laminafs::service::volumes::{OnProgress, VolumeService};

/// A step with a known size, and one without.
const SIZED: &str = "{msg} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_bar}";
const UNSIZED: &str = "{msg} {bytes} {bytes_per_sec} {elapsed}";

/// The bar of the step under way.
#[derive(Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Begins a step of `size` bytes, after the end of the last one. The size may be too low; 0
    /// means that it is not known.
    pub(super) fn begin(&mut self, size: u64, message: String) {
        self.end();
        // Drawn to the standard error, and only if that is a terminal.
        let bar = ProgressBar::new(size);
        let form = if size == 0 { UNSIZED } else { SIZED };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(message);
        self.0 = Some(bar);
    }

    /// Shows how many bytes of the step are done.
    pub(super) fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(bar.length().unwrap_or(0).max(bytes));
            bar.set_position(bytes);
        }
    }

    /// Ends the step.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish();
        }
    }

    /// Begins a step unless one is under way.
    fn begin_once(&mut self, message: &str) {
        if self.0.is_none() {
            self.begin(1, message.to_owned());
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
    // The estimate comes with the first report.
    bar.begin(1, message);
    let done = work(Some(&mut |bytes, of| bar.set_of(bytes, of)));
    bar.end();
    done
}

/// As [`with_bar`], for work that may have nothing to do: the bar appears with the first report.
pub(super) fn with_late_bar<T>(
    message: &str,
    work: impl FnOnce(&mut OnProgress<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let mut bar = Bar::default();
    let done = work(&mut |bytes, of| {
        bar.begin_once(message);
        bar.set_of(bytes, of);
    });
    bar.end();
    done
}

/// The time between two drawings of [`Copies`].
const DRAWN: Duration = Duration::from_millis(100);

/// The bar of copies of images: it appears with the first report of one, so that a snapshot which
/// shares blocks shows none.
///
/// A thread of its own draws it. The users of a volume wait while it is copied, and must not wait
/// for a terminal that is stopped.
pub(super) struct Copies {
    copied: Arc<Copied>,
    /// The drawing thread ends with the sender.
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The bytes that are copied, and about how many there are.
#[derive(Default)]
struct Copied {
    bytes: AtomicU64,
    of: AtomicU64,
}

impl Copied {
    fn draw(&self, bar: &mut Bar, message: &str) {
        let of = self.of.load(Ordering::Relaxed);
        if of > 0 {
            bar.begin_once(message);
            bar.set_of(self.bytes.load(Ordering::Relaxed), of);
        }
    }
}

impl Copies {
    /// A bar with this message.
    pub(super) fn new(message: String) -> Self {
        let copied = Arc::<Copied>::default();
        let drawing = std::io::stderr().is_terminal().then(|| {
            let (sender, end) = channel();
            let drawn = Arc::clone(&copied);
            let draw = move || {
                let mut bar = Bar::default();
                while end.recv_timeout(DRAWN) == Err(RecvTimeoutError::Timeout) {
                    drawn.draw(&mut bar, &message);
                }
                drawn.draw(&mut bar, &message);
                bar.end();
            };
            (sender, std::thread::spawn(draw))
        });
        Self { copied, drawing }
    }

    /// Volumes that show their copies here.
    pub(super) fn of(&self, service: VolumeService) -> VolumeService {
        let copied = Arc::clone(&self.copied);
        service.reporting(Arc::new(move |bytes, of| {
            copied.bytes.store(bytes, Ordering::Relaxed);
            copied.of.store(of, Ordering::Relaxed);
        }))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let Some((sender, thread)) = self.drawing.take() else { return };
        drop(sender);
        if thread.join().is_err() {
            tracing::debug!("drawing a bar failed");
        }
    }
}

/// A reader that shows how much was read.
pub(super) struct Watched<R> {
    inner: R,
    bytes: u64,
    bar: Bar,
}

impl<R: Read> Watched<R> {
    /// Begins a step of `size` bytes; 0 means that it is not known.
    pub(super) fn new(inner: R, size: u64, message: String) -> Self {
        let mut bar = Bar::default();
        bar.begin(size, message);
        Self { inner, bytes: 0, bar }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.bytes += len as u64;
        self.bar.set(self.bytes);
        Ok(len)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        self.bar.end();
    }
}

/// The time since a command began, as its last line shows it.
pub(super) struct Clock(Instant);

impl Clock {
    /// Begins to measure.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.elapsed().as_secs_f64();
        match seconds < 100.0 {
            true => write!(f, "{seconds:.1} s"),
            false => write!(f, "{} min {:.0} s", seconds as u64 / 60, seconds % 60.0),
        }
    }
}
