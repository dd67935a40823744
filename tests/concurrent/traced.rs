//! Layers that record each call of the union in the trace of a failure.

use std::sync::{Arc, Mutex};

use laminafs::union::DirRef;
use laminafs_testing::watch::{Answered, Call, Watcher, watch};

/// The recorded lines, if a trace is wanted.
#[derive(Clone, Default)]
pub struct Trace(pub Option<Arc<Mutex<Vec<String>>>>);

impl Trace {
    pub fn new(on: bool) -> Self {
        Self(on.then(Arc::default))
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            lines.lock().unwrap().push(text());
        }
    }
}

/// The number of the running program.
pub fn task() -> usize {
    shuttle::current::get_current_task().map_or(0, usize::from)
}

/// Calls that are too frequent to record and rarely matter.
const SILENT: [Call; 7] = [
    Call::Readlink,
    Call::OpenSelf,
    Call::Xattr,
    Call::XattrNames,
    Call::Statfs,
    Call::Handle,
    Call::SyncFs,
];

impl Watcher for Trace {
    fn after(&self, answered: &Answered<'_>) {
        let Answered { call, path, names, errno } = *answered;
        if SILENT.contains(&call) {
            return;
        }
        let (who, names) = (task(), String::from_utf8_lossy(&names.join(&b' ')).into_owned());
        let answer = errno.map_or("ok".to_owned(), |errno| format!("{errno:?}"));
        self.log(|| format!("      [{who}] {call:?} {path}/{names} = {answer}"));
    }
}

/// Records the calls on a directory and on everything reached through it.
pub fn traced(inner: DirRef, path: &str, log: &Trace) -> DirRef {
    if log.0.is_none() {
        return inner;
    }
    let watcher: Arc<dyn Watcher> = Arc::new(log.clone());
    watch(inner, path, &watcher)
}
