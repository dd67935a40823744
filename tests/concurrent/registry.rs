//! Files that the kernel serves by itself (passthrough), and violations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use laminafs::error::{Errno, Result};
use laminafs::types::NodeId;
use laminafs::union::{File, FileRef, Kernel as Served};
use laminafs_testing::memory::MemoryTree;

/// Violations that must not happen in any order.
#[derive(Default)]
pub struct Wrongs(std::sync::Mutex<BTreeSet<String>>);

impl Wrongs {
    pub fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().insert(text.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().cloned().collect()
    }
}

/// Registered files by id, each with the number of open files that it serves.
type Files = BTreeMap<u32, (FileRef, u32)>;

/// The files that the kernel reads and writes by itself.
#[derive(Default)]
pub struct Registry {
    files: std::sync::Mutex<(u32, Files)>,
    wrongs: Arc<Wrongs>,
}

impl Registry {
    pub fn new(wrongs: &Arc<Wrongs>) -> Arc<Self> {
        Arc::new(Self { wrongs: Arc::clone(wrongs), ..Self::default() })
    }

    pub fn using(&self, id: u32) -> Option<FileRef> {
        let mut files = self.files.lock().unwrap();
        let Some((file, users)) = files.1.get_mut(&id) else {
            self.wrongs.note("an open is answered with a backing id that was released");
            return None;
        };
        *users += 1;
        Some(Arc::clone(file))
    }

    pub fn done(&self, id: u32) {
        if let Some((_, users)) = self.files.lock().unwrap().1.get_mut(&id) {
            *users -= 1;
        }
    }
}

impl Served for Registry {
    fn register(&self, file: &dyn File) -> Result<u32> {
        let file = MemoryTree::reopen(file).ok_or(Errno::BADF)?;
        let mut files = self.files.lock().unwrap();
        files.0 += 1;
        let id = files.0;
        files.1.insert(id, (file, 0));
        Ok(id)
    }

    fn release(&self, backing_id: u32) {
        let gone = self.files.lock().unwrap().1.remove(&backing_id);
        match gone {
            None => self.wrongs.note("a backing id is released twice"),
            Some((_, users)) if users > 0 => {
                self.wrongs.note("a backing id is released while files are served by it");
            }
            Some(_) => {}
        }
    }

    fn store(&self, _node: NodeId, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}
