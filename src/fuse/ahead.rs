//! Lists directories before a walk requests them.
//!
//! A walk through a tree with attributes spends most of its time in the kernel: the kernel makes an
//! inode and a name for each entry, on the processor of the walking process. So a thread of ours
//! walks ahead of the reader through a private clone of the mount and lists directories with all
//! attributes; the reader finds them in the kernel's caches. The two share the work: the thread
//! leaves to the reader the directory that the reader is about to request, and one directory of
//! each `MARK`, whose request shows how far the reader has come.
//!
//! The thread is a client of the mount that its own process serves. No other thread of the process
//! waits for it. It has its own table of descriptors, which does not hold the device: if the
//! process is killed during a request of the thread, the device is closed all the same, the kernel
//! ends the request, and the thread can exit. The thread holds the clone only while there is work,
//! so that an unmount finds the mount free and the session ends soon after.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Errno, Result};
use crate::fuse::counters::Counters;
use crate::fuse::gate::Gate;
use crate::sys;
use crate::types::NodeId;
use crate::union::Union;
use crate::union::walk::{Step, Walk};

/// The largest number of directories that the thread is ahead of the reader.
const WINDOW: u64 = 64;
/// One directory of this many is left to the reader.
const MARK: u64 = 16;
/// Directories elsewhere that readers have to list before the thread goes there. The number doubles
/// each time that no reader came to where the thread had gone.
const STRAYS: u32 = 4;
const STRAYS_MAX: u32 = 1024;
/// Entries of the directories that are listed ahead, above which the thread waits for the reader.
const ENTRIES: usize = 8192;
/// How long the thread works, and keeps the clone of the mount, without a reader.
const KEEP: Duration = Duration::from_millis(25);

/// State that the serving threads share with the thread that walks ahead.
pub struct Ahead {
    target: PathBuf,
    /// The file system of the mount.
    device: u64,
    held: Mutex<Option<Resources>>,
    counters: Arc<Counters>,
    thread: OnceLock<Option<Thread>>,
    /// The directory that a reader listed last; 0 once the thread has taken it.
    at: AtomicU64,
    sleeps: AtomicBool,
    ended: AtomicBool,
    /// The thread's number as requests carry it.
    own: AtomicU32,
    /// Whether a request of the thread was served.
    seen: AtomicBool,
}

/// Values that own descriptors of the process. The thread uses them under the lock and never drops
/// them: that would close descriptors of its own table.
struct Resources {
    union: Arc<Gate>,
    plan: Plan,
}

enum Event {
    None,
    At(NodeId),
    Ended,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Ahead {
    /// For the mount on `target`. The thread starts at the first walk.
    ///
    /// # Errors
    /// As statx(2) of the target.
    pub fn new(target: PathBuf, union: &Arc<Gate>, counters: &Arc<Counters>) -> Result<Arc<Self>> {
        let mount = sys::file::find_directory(&target)?;
        Ok(Arc::new(Self {
            target,
            device: sys::file::device(mount.as_fd())?,
            held: Mutex::new(Some(Resources { union: Arc::clone(union), plan: Plan::default() })),
            counters: Arc::clone(counters),
            thread: OnceLock::new(),
            at: AtomicU64::new(0),
            sleeps: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            own: AtomicU32::new(0),
            seen: AtomicBool::new(false),
        }))
    }

    /// Whether a request comes from the thread itself.
    pub fn is_own(&self, pid: u32) -> bool {
        let own = pid != 0 && self.own.load(Ordering::Relaxed) == pid;
        if own {
            self.seen.store(true, Ordering::Relaxed);
        }
        own
    }

    /// Notes that a reader of attributes lists a directory.
    pub fn reached(self: &Arc<Self>, dir: NodeId) {
        self.at.store(dir.0, Ordering::SeqCst);
        let thread = self.thread.get_or_init(|| self.start());
        if self.sleeps.swap(false, Ordering::SeqCst)
            && let Some(thread) = thread
        {
            thread.unpark();
        }
    }

    /// Ends the thread, without waiting for it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(self.held.lock().take());
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }

    fn start(self: &Arc<Self>) -> Option<Thread> {
        // A dump waits for all threads, and this thread may wait for one that is being dumped.
        sys::process::dump_no_core().ok()?;
        let ahead = Arc::clone(self);
        let run = move || {
            if let Err(error) = ahead.run() {
                tracing::debug!(%error, "directories are not listed ahead");
            }
            ahead.own.store(0, Ordering::SeqCst);
        };
        let started = thread::Builder::new().name("fuse-ahead".to_owned()).spawn(run);
        started.ok().map(|handle| handle.thread().clone())
    }

    fn event(&self, patience: Option<Duration>) -> Event {
        loop {
            if self.ended.load(Ordering::SeqCst) {
                return Event::Ended;
            }
            match self.at.swap(0, Ordering::SeqCst) {
                0 => {}
                at => return Event::At(NodeId(at)),
            }
            if patience == Some(Duration::ZERO) {
                return Event::None;
            }
            self.sleeps.store(true, Ordering::SeqCst);
            let idle = self.at.load(Ordering::SeqCst) == 0 && !self.ended.load(Ordering::SeqCst);
            match patience {
                Some(patience) if idle => thread::park_timeout(patience),
                None if idle => thread::park(),
                _ => {}
            }
            self.sleeps.store(false, Ordering::SeqCst);
            if patience.is_some() && self.at.load(Ordering::SeqCst) == 0 {
                return Event::None;
            }
        }
    }

    // The body of the thread. An error ends it, which does no harm.
    fn run(&self) -> Result<()> {
        sys::process::leave_descriptors()?;
        sys::process::replace_standard(sys::process::open_null()?.as_fd())?;
        self.own.store(sys::process::thread_id(), Ordering::SeqCst);
        let mut tree = None;
        loop {
            let event = self.event(tree.is_some().then_some(KEEP));
            match event {
                Event::Ended => return Ok(()),
                Event::None => tree = None,
                Event::At(at) => {
                    let tree = match &mut tree {
                        Some(tree) => tree,
                        none => none.insert(self.open()?),
                    };
                    if !self.follow(at, tree) {
                        return Ok(());
                    }
                }
            }
        }
    }

    // Lists until the window is full or the reader is gone. Returns false at the end of the
    // session.
    fn follow(&self, at: NodeId, tree: &OwnedFd) -> bool {
        let (mut event, mut seen) = (Event::At(at), Instant::now());
        loop {
            let (step, room) = {
                let mut held = self.held.lock();
                let Some(Resources { union, plan }) = &mut *held else { return false };
                match event {
                    Event::Ended => return false,
                    Event::At(at) => {
                        plan.reach(&union.enter(), at);
                        seen = Instant::now();
                    }
                    Event::None if seen.elapsed() > KEEP => return true,
                    Event::None => {}
                }
                (plan.next(&union.enter()), plan.room)
            };
            let Some(step) = step else { return true };
            // A directory that cannot be listed is skipped.
            if let Ok(entries) = list(tree, &step.path, room) {
                self.counters.listed_ahead();
                if let Some(held) = &mut *self.held.lock() {
                    held.plan.room -= entries;
                }
            }
            event = self.event(Some(Duration::ZERO));
        }
    }

    fn open(&self) -> Result<OwnedFd> {
        let tree = sys::mount::clone_mount_at(&self.target)?;
        // Another file system may be mounted there by now; it receives no request.
        if sys::file::device(tree.as_fd())? != self.device {
            return Err(Errno::XDEV.into());
        }
        self.seen.store(false, Ordering::SeqCst);
        sys::file::statx_fresh(tree.as_fd())?;
        if self.seen.load(Ordering::SeqCst) {
            return Ok(tree);
        }
        Err(Errno::XDEV.into())
    }
}

// Lists a directory, up to `room` entries, and returns the number of entries listed.
fn list(tree: &OwnedFd, path: &[u8], room: usize) -> Result<usize> {
    let dir = sys::file::open_listing(tree.as_fd(), path)?;
    let mut entries = 0;
    sys::dir::getdents(dir.as_fd(), &mut |_| {
        entries += 1;
        entries < room
    })?;
    Ok(entries.min(room))
}

/// The next directories of the walk, and the position of the reader among them.
#[derive(Default)]
struct Plan {
    walk: Option<Walk>,
    /// Inode numbers of the directories from the reader's on, in the order of the walk.
    steps: VecDeque<u64>,
    /// The reader's place in the walk.
    reader: u64,
    strays: u32,
    /// The number of strays after which the walk starts anew.
    patience: u32,
    /// The number of entries that may still be listed before the reader is seen again.
    room: usize,
}

impl Plan {
    fn reach(&mut self, union: &Union, at: NodeId) {
        let Some(ino) = union.ino(at) else { return };
        if let Some(passed) = self.steps.iter().position(|step| *step == ino) {
            self.steps.drain(..passed);
            self.reader += passed as u64;
            self.room = ENTRIES;
            if passed > 0 {
                (self.strays, self.patience) = (0, STRAYS);
            }
            return;
        }
        self.strays += 1;
        if self.strays > self.patience {
            self.patience = (self.patience * 2).clamp(STRAYS, STRAYS_MAX);
            self.room = ENTRIES;
            self.walk = union.walk_from(at).ok();
            self.steps = VecDeque::from([ino]);
            (self.reader, self.strays) = (0, 0);
        }
    }

    /// Returns the next directory to list ahead.
    fn next(&mut self, union: &Union) -> Option<Step> {
        while self.steps.len() as u64 <= WINDOW && self.room > 0 {
            let step = union.walk_on(self.walk.as_mut()?)?;
            let place = self.reader + self.steps.len() as u64;
            self.steps.push_back(step.ino);
            if place > self.reader + 1 && !place.is_multiple_of(MARK) {
                return Some(step);
            }
        }
        None
    }
}
