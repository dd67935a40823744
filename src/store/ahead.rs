//! Read-ahead: frames that are likely to be asked for next, decompressed by a thread of its own.
//!
//! Small files lie in a blob in the order of their directories and large files as they are, so a
//! walk through a tree and the reading of one file both ask for frame after frame. Two requests
//! for neighbours make a run; of a run, the next frames are fetched into the cache before they are
//! asked for. Whoever needs one that is under way waits for it: no frame is fetched twice.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{OnceLock, Weak};

use parking_lot::Mutex;

use super::layer::Layer;

/// Runs that a layer keeps apart, as of several readers at once.
const RUNS: usize = 8;
/// Frames that are fetched before they are asked for.
const WINDOW: u32 = 2;
/// Frames that wait at most; what does not fit is not fetched ahead.
const QUEUE: usize = 64;

/// The thread, and the way to it.
#[derive(Default)]
pub(super) struct Ahead(OnceLock<Option<SyncSender<Task>>>);

type Task = (Weak<Layer>, u32);

impl Ahead {
    /// Has frames of a layer fetched soon.
    pub(super) fn fetch(&self, layer: &Weak<Layer>, frames: std::ops::Range<u32>) {
        let start = || {
            let (sender, receiver) = sync_channel::<Task>(QUEUE);
            let body = move || {
                for (layer, frame) in receiver {
                    if let Some(layer) = layer.upgrade() {
                        layer.warm(frame);
                    }
                }
            };
            let thread = std::thread::Builder::new().name("read-ahead".to_owned());
            thread.spawn(body).ok().map(|_| sender)
        };
        let Some(queue) = self.0.get_or_init(start) else { return };
        for frame in frames {
            if queue.try_send((Weak::clone(layer), frame)).is_err() {
                return;
            }
        }
    }
}

/// The runs of requests for frames of a layer.
#[derive(Default)]
pub(super) struct Runs(Mutex<[Run; RUNS]>);

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The frame that continues it.
    next: u32,
    /// The first frame that was not fetched for it.
    ahead: u32,
}

impl Runs {
    /// Notes that a frame is asked for; answers which ones before `end` to fetch ahead.
    pub(super) fn note(&self, frame: u32, end: u32) -> std::ops::Range<u32> {
        let mut runs = self.0.lock();
        let known = runs.iter().position(|run| run.next == frame || run.next == frame + 1);
        let Some(at) = known else {
            // The oldest run goes.
            runs.rotate_right(1);
            if let Some(first) = runs.first_mut() {
                *first = Run { next: frame + 1, ahead: frame + 1 };
            }
            return 0..0;
        };
        let Some(run) = runs.get_mut(at) else { return 0..0 };
        // The same frame again.
        if run.next == frame + 1 {
            return 0..0;
        }
        run.next = frame + 1;
        let from = run.ahead.max(frame + 1);
        let to = (frame + 1 + WINDOW).min(end);
        run.ahead = to.max(from);
        runs[..=at].rotate_right(1);
        from..to.max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_make_a_run_and_each_frame_is_fetched_once() {
        let runs = Runs::default();
        assert_eq!(runs.note(10, 100), 0..0);
        assert_eq!(runs.note(10, 100), 0..0);
        assert_eq!(runs.note(11, 100), 12..14);
        assert_eq!(runs.note(50, 100), 0..0, "another reader");
        assert_eq!(runs.note(12, 100), 14..15);
        assert_eq!(runs.note(51, 100), 52..54);
        assert_eq!(runs.note(13, 100), 15..16);
        assert_eq!(runs.note(97, 100), 0..0);
        assert_eq!(runs.note(98, 100), 99..100, "no further than the end");
        assert!(runs.note(99, 100).is_empty());
    }

    #[test]
    fn no_order_fetches_nothing() {
        let runs = Runs::default();
        for frame in [5, 90, 3, 60, 17, 33, 71, 9, 44, 28] {
            assert!(runs.note(frame, 100).is_empty(), "{frame}");
        }
    }
}
