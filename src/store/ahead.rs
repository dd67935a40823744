//! Read-ahead: a separate thread decompresses frames that are likely to be read next.
//!
//! Small files lie in a blob in the order of their directories, and large files are contiguous. So
//! a walk through a tree and the reading of one file both read frame after frame. Two requests for
//! neighbouring frames make a run, and the next frames of a run are fetched into the cache ahead of
//! the reader. A reader that needs a frame under way waits for it: no frame is fetched twice.
//!
//! While OPEN waits for a file to be materialised, the thread takes the second half of its frames.
//! Two such files, one right after the other in the blob, make a walk. In a walk the thread also
//! fetches the frames after the file, since the next file is likely to be opened as well.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

/// Runs that are tracked per layer, to serve several readers at once.
const RUNS: usize = 8;
/// Number of frames that are fetched ahead of a run.
const WINDOW: u32 = 2;
/// Limit of queued ranges of frames; a range that does not fit is not fetched ahead.
const QUEUE: usize = 64;
/// Number of frames after a file that are fetched in a walk: as many as OPEN ever waits for.
const STRIDE: u32 = 32;
/// Number of frames of small files that may lie between two files of a walk.
const STEP: u32 = 16;
/// A file with fewer frames is materialised faster by one thread.
const SHARED_MIN: u32 = 4;

/// A layer that supplies frames.
pub(super) trait Frames: Send + Sync {
    /// Puts a frame into the cache. An error is dropped; the read of the frame returns it again.
    fn warm(&self, number: u32);
}

/// The queue of the read-ahead thread, which the first task starts.
#[derive(Default)]
pub(super) struct Ahead(OnceLock<Option<SyncSender<Task>>>);

struct Task {
    layer: Weak<dyn Frames>,
    frames: Range<u32>,
    /// Frames before this one are no longer needed.
    done: Option<Arc<AtomicU32>>,
}

impl Ahead {
    /// Queues frames of a layer to be fetched.
    pub(super) fn fetch(&self, layer: Weak<dyn Frames>, frames: Range<u32>) {
        self.send(Task { layer, frames, done: None });
    }

    /// Queues the prefetch for a file that another thread reads from its first frame on.
    pub(super) fn share(&self, layer: &Weak<dyn Frames>, share: Prefetch) {
        for frames in share.frames.into_iter().filter(|frames| !frames.is_empty()) {
            let done = Some(Arc::clone(&share.done));
            self.send(Task { layer: Weak::clone(layer), frames, done });
        }
    }

    fn send(&self, task: Task) {
        let start = || {
            let (sender, receiver) = sync_channel::<Task>(QUEUE);
            let body = move || receiver.into_iter().for_each(|task| task.run());
            let thread = std::thread::Builder::new().name("read-ahead".to_owned());
            thread.spawn(body).ok().map(|_| sender)
        };
        let Some(queue) = self.0.get_or_init(start) else { return };
        if queue.try_send(task).is_err() {
            tracing::trace!("not fetched ahead");
        }
    }
}

impl Task {
    fn run(self) {
        for frame in self.frames {
            let Some(layer) = self.layer.upgrade() else { return };
            let done = self.done.as_ref().map_or(0, |done| done.load(Ordering::Relaxed));
            if frame >= done {
                layer.warm(frame);
            }
        }
    }
}

/// The frames that the read-ahead thread may fetch while a file is materialised.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    /// The second half of the file, and the frames after it.
    frames: [Range<u32>; 2],
    /// The first frame that is still needed; the caller raises it after each frame that it used.
    pub(super) done: Arc<AtomicU32>,
}

/// Detects files of a layer that are materialised one after the other.
#[derive(Default)]
pub(super) struct Walk(Mutex<Step>);

#[derive(Default)]
struct Step {
    /// The first frame after the last file.
    end: u32,
    /// The first frame that was not fetched ahead.
    ahead: u32,
    done: Arc<AtomicU32>,
}

impl Walk {
    /// Records that the file in these frames is being materialised, and returns the frames for the
    /// read-ahead thread: the second half of the file and, in a walk, at most `most` frames after
    /// it. The caller reads the first half itself.
    pub(super) fn note(&self, file: &Range<u32>, most: u32) -> Prefetch {
        let mut step = self.0.lock();
        let on = file.start >= step.end && file.start - step.end <= STEP && step.end > 0;
        if !on {
            *step = Step { ahead: file.start, ..Step::default() };
        }
        step.end = file.end;
        step.done.store(file.start, Ordering::Relaxed);
        let half = if file.end - file.start < SHARED_MIN {
            file.end
        } else {
            file.start + (file.end - file.start) / 2
        };
        // Extents may lie anywhere, so this is limited to the frames of a file for which OPEN
        // waits.
        let end = file.end.min(file.start.saturating_add(2 * STRIDE));
        let own = half.max(step.ahead).min(end)..end;
        step.ahead = step.ahead.max(file.end);
        let until = file.end.saturating_add(most.min(STRIDE));
        let behind = if on { step.ahead..until } else { 0..0 };
        step.ahead = step.ahead.max(behind.end);
        Prefetch { frames: [own, behind], done: Arc::clone(&step.done) }
    }
}

/// Tracks the runs of requests for frames of a layer.
#[derive(Default)]
pub(super) struct Runs(Mutex<[Run; RUNS]>);

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The frame that would continue the run.
    next: u32,
    /// The first frame that was not fetched ahead for the run.
    ahead: u32,
}

impl Runs {
    /// Records a request for a frame, and returns the frames before `end` to fetch ahead.
    pub(super) fn note(&self, frame: u32, end: u32) -> Range<u32> {
        let mut runs = self.0.lock();
        let known = runs.iter().position(|run| run.next == frame || run.next == frame + 1);
        let Some(at) = known else {
            // Replace the oldest run.
            runs.rotate_right(1);
            if let Some(first) = runs.first_mut() {
                *first = Run { next: frame + 1, ahead: frame + 1 };
            }
            return 0..0;
        };
        let Some(run) = runs.get_mut(at) else { return 0..0 };
        // A repeated request for the last frame.
        if run.next == frame + 1 {
            return 0..0;
        }
        run.next = frame + 1;
        let from = run.ahead.max(frame + 1);
        let to = (frame + 1 + WINDOW).min(end);
        run.ahead = to.max(from);
        runs.get_mut(..=at).into_iter().for_each(|used| used.rotate_right(1));
        from..to.max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_over_large_files_fetches_what_comes_next() {
        let walk = Walk::default();
        assert_eq!(walk.note(&(3..13), 64).frames, [8..13, 0..0], "half of it");
        assert_eq!(walk.note(&(100..102), 64).frames, [102..102, 0..0], "short, and elsewhere");
        let share = walk.note(&(104..114), 64);
        assert_eq!(share.frames, [109..114, 114..146], "two in a row");
        assert_eq!(share.done.load(Ordering::Relaxed), 104);
        assert_eq!(walk.note(&(115..121), 64).frames, [121..121, 146..153], "each frame once");
        assert_eq!(share.done.load(Ordering::Relaxed), 115, "what is before is not needed");
        assert_eq!(walk.note(&(121..200), 0).frames, [160..185, 200..200], "nothing behind");
        assert_eq!(walk.note(&(200..220), 7).frames, [210..220, 220..227], "as much as is let");
        assert_eq!(walk.note(&(3..13), 64).frames, [8..13, 0..0], "no walk goes back");
    }

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
