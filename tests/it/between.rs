//! Actions of a second client between two calls of a request.
//!
//! The test `concurrent` searches for such moments. Each one that it found has a test here at that
//! exact call, without a search.

use std::sync::{Arc, Mutex};

use laminafs::types::NodeId;
use laminafs::union::{DirRef, OpenFlags, Options, Union};
use laminafs_testing::driver::mount;
use laminafs_testing::shell::Fixture;
use laminafs_testing::watch::{Answered, Call, Watcher, watch};

const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, truncate: false, kill_priv: false, execute: false };

type Act = Box<dyn FnOnce() + Send>;

/// Runs an action on another thread, once, after the first matching call on an entry of a layer.
struct Between {
    at: (Call, &'static str, &'static str),
    act: Mutex<Option<Act>>,
}

impl Watcher for Between {
    fn after(&self, answered: &Answered<'_>) {
        let (call, path, name) = self.at;
        if (answered.call, answered.path) != (call, path) || answered.names != [name.as_bytes()] {
            return;
        }
        if let Some(act) = self.act.lock().unwrap().take() {
            std::thread::spawn(act).join().unwrap();
        }
    }
}

/// A mount of a fixture, with the action of a second client.
struct Stage {
    fixture: Fixture,
    union: Arc<Union>,
    between: Arc<Between>,
}

impl Stage {
    fn new(lower: &[&str], at: (Call, &'static str, &'static str)) -> Self {
        let options = Options { index: true, metacopy: true, ..Options::default() };
        let fixture = Fixture::new(&[lower]).with(options);
        let between = Arc::new(Between { at, act: Mutex::new(None) });
        let watcher: Arc<dyn Watcher> = Arc::clone(&between) as Arc<dyn Watcher>;
        let upper = watch(fixture.upper.root(), "", &watcher);
        let lowers: Vec<DirRef> = fixture.lowers.iter().map(|tree| tree.root()).collect();
        let union = Arc::new(mount(&lowers, Some(&upper), &fixture.options).unwrap());
        Self { fixture, union, between }
    }

    fn find(&self, parent: NodeId, name: &str) -> NodeId {
        self.union.lookup(parent, name.as_bytes()).unwrap().unwrap().node
    }

    /// Makes a second client write to a file at that call.
    fn then_write(&self, node: NodeId, text: &'static str) {
        let union = Arc::clone(&self.union);
        let write = move || {
            let opened = union.open(node, WRITE).unwrap();
            union.write(node, opened.fh, text.as_bytes(), 0, false).unwrap();
            union.release(node, opened.fh);
        };
        *self.between.act.lock().unwrap() = Some(Box::new(write));
    }

    fn is_done(&self) -> bool {
        self.between.act.lock().unwrap().is_none()
    }

    /// The content of a file, and its link count.
    fn shows(union: &Union, path: [&str; 2]) -> (Vec<u8>, u32) {
        let dir = union.lookup(NodeId::ROOT, path[0].as_bytes()).unwrap().unwrap().node;
        let node = union.lookup(dir, path[1].as_bytes()).unwrap().unwrap().node;
        let stat = union.getattr(node).unwrap();
        let mut data = vec![0; stat.size as usize];
        union.read_with(node, |file| file.read_at(&mut data, 0)).unwrap();
        (data, stat.nlink)
    }

    /// The tree, now and in the next mount.
    fn judge(self, path: [&str; 2], text: &str, links: u32) {
        let expected = (text.as_bytes().to_vec(), links);
        assert_eq!(Self::shows(&self.union, path), expected);
        self.union.shutdown().unwrap();
        drop(self.union);
        let next = self.fixture.mount();
        assert_eq!(Self::shows(&next.union, path), expected, "after a remount");
    }
}

#[test]
fn removed_name_that_a_copy_up_made_meanwhile_is_counted_off_once() {
    let lower = ["d/f=old", "e/other>d/f", "e/x="];
    let stage = Stage::new(&lower, (Call::Stat, "/upper/e", "other"));
    let e = stage.find(NodeId::ROOT, "e");
    let other = stage.find(e, "other");
    // The directory is already in the upper.
    stage.union.unlink(e, b"x").unwrap();
    stage.then_write(other, "new");
    stage.union.unlink(e, b"other").unwrap();
    assert!(stage.is_done());
    stage.judge(["d", "f"], "new", 1);
}

#[test]
fn replaced_name_that_a_copy_up_made_meanwhile_is_counted_off_once() {
    let lower = ["d/f=old", "e/other>d/f", "e/x="];
    let stage = Stage::new(&lower, (Call::Stat, "/upper/e", "other"));
    let e = stage.find(NodeId::ROOT, "e");
    let (other, _) = (stage.find(e, "other"), stage.find(e, "x"));
    stage.then_write(other, "new");
    stage.union.rename(e, b"x", e, b"other", Default::default()).unwrap();
    assert!(stage.is_done());
    stage.judge(["d", "f"], "new", 1);
}

#[test]
fn name_of_a_metacopy_that_is_completed_meanwhile_is_found() {
    for call in [Call::Stat, Call::XattrNames] {
        let stage = Stage::new(&["d/f=old", "d/also="], (call, "/upper/d", "also2"));
        let d = stage.find(NodeId::ROOT, "d");
        let f = stage.find(d, "f");
        let linked = stage.union.link(f, d, b"also2").unwrap();
        stage.then_write(f, "new");
        assert_eq!(stage.find(d, "also2"), linked.node, "{call:?}");
        assert!(stage.is_done());
        stage.judge(["d", "also2"], "new", 2);
    }
}
