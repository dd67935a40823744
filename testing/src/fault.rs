//! Counts the changes that a mount makes beneath it, and makes them fail.
//!
//! [`wrap`] puts any directory of a layer behind a [`Faults`]. Every call that changes something
//! gets the next number; a [`Plan`] determines from which number on, or at which one, calls fail.
//! With [`Plan::StopAt`] the calls behind the stop fail with `EIO` and change nothing: the state
//! below is that of a daemon that was killed there. A write at the stop is torn in half.
//!
//! Calls that read pass through unchanged and uncounted.

use std::sync::Arc;

use laminafs::error::Errno;
use laminafs::sync::Mutex;
use laminafs::union::layer::DirRef;

use crate::watch::{Call, Stop, Watcher, watch};

/// Which calls fail. Calls are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// None.
    #[default]
    Pass,
    /// The call of this number and all behind it, with `EIO`.
    StopAt(usize),
    /// The call of this number alone.
    FailAt(usize, Errno),
    /// Every call of this kind.
    FailKind(Call, Errno),
}

/// The count of changes and the plan of one mount.
#[derive(Default)]
pub struct Faults {
    state: Mutex<(Plan, Vec<Call>)>,
}

impl Faults {
    /// Makes a counter under which every call passes.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Sets the plan and starts counting anew.
    pub fn start(&self, plan: Plan) {
        *self.state.lock() = (plan, Vec::new());
    }

    /// Returns the calls since [`Faults::start`], those that failed by the plan included.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().1.clone()
    }

    /// The number of calls of one kind.
    #[must_use]
    pub fn count(&self, kind: Call) -> usize {
        self.state.lock().1.iter().filter(|call| **call == kind).count()
    }

    fn enter(&self, call: Call) -> Result<(), Stop> {
        let mut state = self.state.lock();
        state.1.push(call);
        let number = state.1.len();
        match state.0 {
            Plan::StopAt(at) if number >= at => Err(Stop { errno: Errno::IO, torn: number == at }),
            Plan::FailAt(at, errno) if number == at => Err(Stop { errno, torn: false }),
            Plan::FailKind(kind, errno) if kind == call => Err(Stop { errno, torn: false }),
            _ => Ok(()),
        }
    }
}

impl Watcher for Faults {
    fn before(&self, call: Call) -> Result<(), Stop> {
        if call.is_change() { self.enter(call) } else { Ok(()) }
    }
}

/// Puts a directory, and all that is reached through it, behind `faults`.
#[must_use]
pub fn wrap(inner: DirRef, faults: &Arc<Faults>) -> DirRef {
    let watcher: Arc<dyn Watcher> = faults.clone();
    watch(inner, "", &watcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTree;
    use laminafs::error::Result;
    use laminafs::types::{Owner, RenameFlags};

    fn errno<T>(result: Result<T>) -> Option<Errno> {
        result.err().map(|error| error.errno())
    }

    #[test]
    fn stop_ends_all_changes_and_tears_the_write_it_meets() {
        let (tree, faults) = (MemoryTree::new(1), Faults::new());
        let root = wrap(tree.root(), &faults);
        faults.start(Plan::StopAt(2));
        let file = root.create(b"f", 0o644, Owner::default()).unwrap();
        assert_eq!(errno(file.write_at(b"abcd", 0)), Some(Errno::IO));
        assert_eq!(errno(root.unlink(b"f")), Some(Errno::IO));
        assert_eq!(root.stat(Some(b"f")).unwrap().size, 2);
        assert_eq!(faults.calls(), [Call::Create, Call::WriteAt, Call::Unlink]);
    }

    #[test]
    fn one_call_fails_and_the_next_passes() {
        let faults = Faults::new();
        let root = wrap(MemoryTree::new(1).root(), &faults);
        faults.start(Plan::FailAt(1, Errno::NOSPC));
        assert_eq!(errno(root.mkdir(b"d", 0o755, Owner::default())), Some(Errno::NOSPC));
        assert_eq!(errno(root.mkdir(b"d", 0o755, Owner::default())), None);
        faults.start(Plan::FailKind(Call::Rmdir, Errno::DQUOT));
        assert_eq!(errno(root.rmdir(b"d")), Some(Errno::DQUOT));
        assert_eq!(faults.count(Call::Rmdir), 1);
    }

    #[test]
    fn wrapped_and_plain_directories_of_a_tree_mix() {
        let (tree, faults) = (MemoryTree::new(1), Faults::new());
        let root = wrap(tree.root(), &faults);
        root.mkdir(b"d", 0o755, Owner::default()).unwrap();
        root.mknod(b"f", 0o100644, 0, Owner::default()).unwrap();
        root.link(b"f", &*tree.root().dir(b"d"), b"g").unwrap();
        let dir = root.dir(b"d");
        root.rename(b"d", &*root, b"e", RenameFlags::default()).unwrap();
        dir.relocate(&root, b"e");
        assert_eq!(dir.stat(Some(b"g")).unwrap().nlink, 2);
    }
}
