//! Tests of host directories, on a temporary directory of the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::types::{S_ISGID, Seek, SetTime, Time};

const PLAIN: RenameFlags = RenameFlags { noreplace: false, exchange: false, whiteout: false };
const PUNCH_AND_KEEP_SIZE: u32 = 3;

/// A temporary directory as a tree of the host.
struct Host {
    directory: tempfile::TempDir,
    cache: Arc<FdCache>,
    root: DirRef,
}

impl Host {
    fn new() -> Self {
        Self::with_cache(FdCache::DEFAULT_CAPACITY)
    }

    fn with_cache(capacity: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = FdCache::new(capacity);
        let root = HostTree::open(directory.path(), Submounts::Shown, &cache).unwrap();
        Self { directory, cache, root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The ids with which this process makes files.
    fn own(&self) -> Owner {
        let stat = self.root.stat(None).unwrap();
        Owner { uid: stat.uid, gid: stat.gid }
    }

    /// Whether tests that need root are run.
    fn has_root(&self) -> bool {
        if self.own().uid == 0 {
            return true;
        }
        assert!(std::env::var_os("LAMINA_NO_SKIP").is_none(), "this test needs root");
        eprintln!("SKIPPED: needs root");
        false
    }

    /// The number of descriptors of this process that lie in the tree.
    fn descriptors(&self) -> usize {
        let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.starts_with(self.directory.path())).count()
    }
}

#[track_caller]
fn refused<T>(result: Result<T>, errno: Errno) {
    assert_eq!(result.err().map(|error| error.errno()), Some(errno));
}

fn names(dir: &dyn Dir, from: u64) -> Vec<(Vec<u8>, u64)> {
    let mut seen = Vec::new();
    let collect = &mut |entry: crate::types::RawEntry<'_>| {
        seen.push((entry.name.to_vec(), entry.next));
        true
    };
    dir.list(from, collect).unwrap();
    seen
}

fn content(dir: &dyn Dir, name: &[u8]) -> Vec<u8> {
    let file = dir.open(name, Access::Read).unwrap();
    let mut data = vec![0; usize::try_from(file.stat().unwrap().size).unwrap() + 1];
    let len = file.read_at(&mut data, 0).unwrap();
    data.truncate(len);
    data
}

#[test]
fn cache_bounds_the_open_directories() {
    let host = Host::with_cache(4);
    let mut dirs = Vec::new();
    for number in 0..40 {
        let path = format!("{}/deep/deeper", number);
        fs::create_dir_all(host.at(&path)).unwrap();
        fs::write(host.at(&path).join("file"), path.as_bytes()).unwrap();
        dirs.push(host.root.dir(number.to_string().as_bytes()).dir(b"deep").dir(b"deeper"));
    }
    for _ in 0..2 {
        for (number, dir) in dirs.iter().enumerate() {
            let wanted = format!("{number}/deep/deeper").into_bytes();
            assert_eq!(content(&**dir, b"file"), wanted, "after eviction too");
            assert!(host.cache.len() <= 4, "{} directories in the cache", host.cache.len());
            assert!(host.descriptors() <= 5, "{} descriptors", host.descriptors());
        }
    }
    host.cache.clear();
    assert_eq!((host.cache.len(), host.descriptors()), (0, 1), "the root alone stays open");
    drop(dirs);
    drop(host.root);
    assert!(host.cache.is_empty());
}

#[test]
fn moved_directory_is_found_again_after_relocate() {
    let host = Host::new();
    fs::create_dir_all(host.at("a/b/c")).unwrap();
    fs::create_dir(host.at("x")).unwrap();
    fs::write(host.at("a/b/c/file"), "content").unwrap();
    let moved = host.root.dir(b"a").dir(b"b");
    let below = moved.dir(b"c");
    assert_eq!(content(&*below, b"file"), b"content");
    let to = host.root.dir(b"x");
    host.root.dir(b"a").rename(b"b", &*to, b"y", PLAIN).unwrap();
    assert_eq!(content(&*below, b"file"), b"content", "an open directory stays right");
    moved.relocate(&to, b"y");
    host.cache.clear();
    assert_eq!(content(&*below, b"file"), b"content", "walked by the new name");
    assert_eq!(moved.stat(None).unwrap().ino, fs::metadata(host.at("x/y")).unwrap().ino());
    host.cache.clear();
    fs::create_dir_all(host.at("a/b/c")).unwrap();
    assert_eq!(content(&*below, b"file"), b"content", "not by the old one");
}

#[test]
fn symbolic_links_are_never_followed() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let mode = fs::metadata(outside.path()).unwrap().mode();
    symlink(outside.path(), host.at("link")).unwrap();
    symlink(outside.path().join("secret"), host.at("file")).unwrap();
    for _ in 0..2 {
        refused(host.root.dir(b"link").stat(None), Errno::NOTDIR);
        let through = host.root.dir(b"link").stat(Some(b"secret"));
        let errno = through.unwrap_err().errno();
        assert!([Errno::NOTDIR, Errno::LOOP].contains(&errno), "{errno:?}");
        host.cache.clear();
    }
    refused(host.root.open(b"file", Access::Read), Errno::LOOP);
    refused(host.root.open(b"file", Access::Write), Errno::LOOP);
    assert_eq!(host.root.stat(Some(b"file")).unwrap().kind(), Kind::Symlink);
    let chmod = AttrChange { mode: Some(0o777), ..AttrChange::default() };
    refused(host.root.set_attr(Some(b"link"), &chmod), Errno::OPNOTSUPP);
    let time = Some(SetTime::At(Time { secs: 5, nanos: 6 }));
    let touch = AttrChange { mtime: time, ..AttrChange::default() };
    host.root.set_attr(Some(b"link"), &touch).unwrap();
    assert_eq!(host.root.stat(Some(b"link")).unwrap().mtime, Time { secs: 5, nanos: 6 });
    let after = fs::metadata(outside.path()).unwrap();
    assert_eq!(after.mode(), mode);
    assert_ne!(after.mtime(), 5);
    assert_eq!(host.root.xattr_names(Some(b"file")).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn directory_replaced_by_a_link_is_not_entered_again() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    fs::create_dir(host.at("d")).unwrap();
    fs::write(host.at("d/file"), "inside").unwrap();
    let dir = host.root.dir(b"d");
    assert_eq!(content(&*dir, b"file"), b"inside");
    fs::rename(host.at("d"), host.at("e")).unwrap();
    symlink(outside.path(), host.at("d")).unwrap();
    host.cache.clear();
    assert!(dir.open(b"file", Access::Read).is_err());
    assert!(dir.mkdir(b"new", 0o755, host.own()).is_err());
    assert!(!outside.path().join("new").exists());
}

#[test]
fn new_objects_belong_to_whom_was_asked() {
    let host = Host::new();
    let foreign = Owner { uid: 41_001, gid: 41_002 };
    let owners = if host.has_root() { vec![host.own(), foreign] } else { vec![host.own()] };
    for (number, owner) in owners.into_iter().enumerate() {
        let dir_name = format!("d{number}").into_bytes();
        host.root.mkdir(&dir_name, 0o755, owner).unwrap();
        let dir = host.root.dir(&dir_name);
        dir.create(b"file", 0o4755, owner).unwrap().write_at(b"x", 0).unwrap();
        dir.mknod(b"fifo", Kind::Fifo.mode_bits() | 0o644, 0, owner).unwrap();
        dir.symlink(b"link", b"target", owner).unwrap();
        for name in [None, Some(&b"file"[..]), Some(b"fifo"), Some(b"link")] {
            let stat = dir.stat(name).unwrap();
            assert_eq!((stat.uid, stat.gid), (owner.uid, owner.gid), "{name:?}");
        }
        assert_eq!(dir.readlink(b"link").unwrap(), b"target");
        refused(dir.create(b"file", 0o644, owner), Errno::EXIST);
    }
}

#[test]
fn set_group_directory_hands_down_its_group() {
    let host = Host::new();
    if !host.has_root() {
        return;
    }
    let (group, maker) = (Owner { uid: 0, gid: 41_003 }, Owner { uid: 41_001, gid: 41_002 });
    host.root.mkdir(b"d", 0o755, group).unwrap();
    let dir = host.root.dir(b"d");
    dir.set_attr(None, &AttrChange { mode: Some(0o2777), ..AttrChange::default() }).unwrap();
    dir.create(b"file", 0o644, maker).unwrap();
    dir.mkdir(b"sub", 0o755, maker).unwrap();
    let (file, sub) = (dir.stat(Some(b"file")).unwrap(), dir.stat(Some(b"sub")).unwrap());
    assert_eq!((file.uid, file.gid), (41_001, 41_003));
    assert_eq!((sub.gid, sub.mode & S_ISGID), (41_003, S_ISGID));
}

#[test]
fn attributes_change_in_order() {
    let host = Host::new();
    host.root.create(b"f", 0o644, host.own()).unwrap().write_at(b"0123456789", 0).unwrap();
    let owner = if host.has_root() { Owner { uid: 7, gid: 8 } } else { host.own() };
    let change = AttrChange {
        mode: Some(0o6711),
        uid: Some(owner.uid),
        gid: Some(owner.gid),
        size: Some(4),
        atime: Some(SetTime::At(Time { secs: -3, nanos: 9 })),
        mtime: Some(SetTime::At(Time { secs: 1 << 31, nanos: 999_999_999 })),
    };
    host.root.set_attr(Some(b"f"), &change).unwrap();
    let stat = host.root.stat(Some(b"f")).unwrap();
    assert_eq!(stat.mode & 0o7777, 0o6711, "set after the owner, whose change clears set-id bits");
    assert_eq!((stat.uid, stat.gid, stat.size), (owner.uid, owner.gid, 4));
    assert_eq!(stat.mtime, Time { secs: 1 << 31, nanos: 999_999_999 }, "set after the size");
    assert_eq!(stat.atime, Time { secs: -3, nanos: 9 });
    host.root.mkdir(b"d", 0o755, host.own()).unwrap();
    let dir = host.root.dir(b"d");
    let size = AttrChange { size: Some(0), ..AttrChange::default() };
    refused(dir.set_attr(None, &size), Errno::ISDIR);
    dir.set_attr(None, &AttrChange { mode: Some(0o1700), ..AttrChange::default() }).unwrap();
    assert_eq!(fs::metadata(host.at("d")).unwrap().permissions().mode() & 0o7777, 0o1700);
}

#[test]
fn extended_attributes_of_every_kind() {
    let host = Host::new();
    let (create, replace) =
        (XattrFlags { create: true, replace: false }, XattrFlags { create: false, replace: true });
    host.root.create(b"f", 0o644, host.own()).unwrap();
    host.root.symlink(b"l", b"f", host.own()).unwrap();
    for name in [None, Some(&b"f"[..])] {
        assert_eq!(host.root.xattr(name, b"user.a"), Ok(None));
        refused(host.root.set_xattr(name, b"user.a", b"1", replace), Errno::NODATA);
        host.root.set_xattr(name, b"user.a", b"1", create).unwrap();
        refused(host.root.set_xattr(name, b"user.a", b"2", create), Errno::EXIST);
        host.root.set_xattr(name, b"user.a", b"", replace).unwrap();
        assert_eq!(host.root.xattr(name, b"user.a"), Ok(Some(Vec::new())));
        assert_eq!(host.root.xattr_names(name), Ok(vec![b"user.a".to_vec()]));
        host.root.remove_xattr(name, b"user.a").unwrap();
        refused(host.root.remove_xattr(name, b"user.a"), Errno::NODATA);
    }
    refused(host.root.set_xattr(Some(b"l"), b"user.a", b"1", create), Errno::PERM);
    if host.has_root() {
        let key = b"trusted.lamina.test";
        host.root.set_xattr(Some(b"l"), key, b"link", create).unwrap();
        assert_eq!(host.root.xattr(Some(b"l"), key), Ok(Some(b"link".to_vec())));
        assert_eq!(host.root.xattr(Some(b"f"), key), Ok(None), "not of what the link names");
        host.root.remove_xattr(Some(b"l"), key).unwrap();
    }
}

#[test]
fn copy_of_ranges_keeps_holes() {
    let host = Host::new();
    let source = host.root.create(b"from", 0o644, host.own()).unwrap();
    source.write_at(b"head", 0).unwrap();
    source.write_at(b"tail", 8 << 20).unwrap();
    let hole = source.seek(0, Seek::Hole).unwrap();
    assert!(hole < 1 << 20, "the hole starts at {hole}");
    assert_eq!(source.seek(hole, Seek::Data).unwrap(), 8 << 20);
    refused(source.seek((8 << 20) + 4, Seek::Data), Errno::NXIO);
    let target = host.root.create(b"to", 0o644, host.own()).unwrap();
    target.set_len((8 << 20) + 4).unwrap();
    assert_eq!(source.copy_range(0, &*target, 0, 4).unwrap(), 4);
    assert_eq!(source.copy_range(8 << 20, &*target, 8 << 20, 100).unwrap(), 4, "up to the end");
    assert_eq!(source.copy_range(9 << 20, &*target, 9 << 20, 100).unwrap(), 0);
    assert_eq!(content(&*host.root, b"to"), content(&*host.root, b"from"));
    assert!(host.root.stat(Some(b"to")).unwrap().blocks <= 64, "the hole was not filled");
    source.allocate(PUNCH_AND_KEEP_SIZE, 8 << 20, 4).unwrap();
    assert_eq!(&content(&*host.root, b"from")[8 << 20..], [0; 4]);
}

#[test]
fn handles_name_objects_and_their_file_system() {
    let host = Host::new();
    host.root.create(b"a", 0o644, host.own()).unwrap();
    host.root.create(b"c", 0o644, host.own()).unwrap();
    host.root.link(b"a", &*host.root, b"b").unwrap();
    let handle = |name| host.root.handle(name).unwrap().expect("a file system with handles");
    let (a, b, c) = (handle(Some(b"a")), handle(Some(b"b")), handle(Some(b"c")));
    assert_eq!(a, b, "two names of one file");
    assert_ne!(a, c);
    assert_ne!(a, handle(None));
    assert_eq!(a.uuid, c.uuid);
    assert!(!a.bytes.is_empty());
}

#[test]
fn names_that_are_no_component_are_refused() {
    let host = Host::new();
    fs::create_dir_all(host.at("a/b")).unwrap();
    fs::write(host.at("a/b/f"), "x").unwrap();
    let dir = host.root.dir(b"a");
    for name in [&b""[..], b".", b"..", b"b/f", b"/etc/passwd", b"../a", b"b/"] {
        let own = host.own();
        refused(dir.stat(Some(name)), Errno::INVAL);
        refused(dir.open(name, Access::Read), Errno::INVAL);
        refused(dir.create(name, 0o644, own).map(drop), Errno::INVAL);
        refused(dir.mkdir(name, 0o755, own), Errno::INVAL);
        refused(dir.symlink(name, b"x", own), Errno::INVAL);
        refused(dir.readlink(name), Errno::INVAL);
        refused(dir.unlink(name), Errno::INVAL);
        refused(dir.rmdir(name), Errno::INVAL);
        refused(dir.rename(b"b", &*host.root, name, PLAIN), Errno::INVAL);
        refused(dir.link(name, &*host.root, b"new"), Errno::INVAL);
        refused(dir.xattr(Some(name), b"user.a"), Errno::INVAL);
        refused(dir.dir(name).stat(None), Errno::INVAL);
    }
    assert_eq!(fs::read(host.at("a/b/f")).unwrap(), b"x");
    refused(dir.stat(Some(b"nul\0")), Errno::INVAL);
}

#[test]
fn only_files_are_opened_and_nothing_blocks() {
    let host = Host::new();
    host.root.mknod(b"fifo", Kind::Fifo.mode_bits() | 0o644, 0, host.own()).unwrap();
    host.root.mkdir(b"d", 0o755, host.own()).unwrap();
    refused(host.root.open(b"fifo", Access::Read), Errno::NXIO);
    refused(host.root.open(b"fifo", Access::Write), Errno::NXIO);
    refused(host.root.open(b"d", Access::Read), Errno::ISDIR);
    assert!(host.root.open(b"fifo", Access::Path).unwrap().fd().is_some());
    refused(HostTree::open(&host.at("fifo"), Submounts::Shown, &host.cache), Errno::NOTDIR);
}

#[test]
fn listing_resumes_and_two_listings_do_not_meet() {
    let host = Host::new();
    for number in 0..300 {
        fs::write(host.at(&format!("file{number}")), "").unwrap();
    }
    let all = names(&*host.root, 0);
    assert_eq!(all.len(), 300, "without . and ..");
    let mut seen = 0;
    host.root
        .list(0, &mut |_| {
            if seen == 150 {
                assert_eq!(names(&*host.root, all[200].1), all[201..]);
            }
            seen += 1;
            true
        })
        .unwrap();
    assert_eq!(seen, 300);
}

/// A tmpfs on a directory until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn over(path: &'a Path) -> Self {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-t", "tmpfs", "test"]).arg(path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.0).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "unmounts");
    }
}

#[test]
fn submounts_are_hidden_or_shown() {
    let host = Host::new();
    for name in ["early", "late"] {
        fs::create_dir(host.at(name)).unwrap();
        fs::write(host.at(name).join("beneath"), "").unwrap();
    }
    if !host.has_root() {
        return;
    }
    let (early, late) = (host.at("early"), host.at("late"));
    let _early = Mounted::over(&early);
    let hidden = HostTree::open(host.directory.path(), Submounts::Hidden, &host.cache).unwrap();
    let _late = Mounted::over(&late);
    for name in [&b"early"[..], b"late"] {
        host.cache.clear();
        assert_eq!(names(&*host.root.dir(name), 0), [], "the mount is seen");
        assert_eq!(names(&*hidden.dir(name), 0).len(), 1, "the directory beneath is seen");
    }
}

#[test]
fn trees_opened_together_are_one_mount() {
    let host = Host::new();
    for name in ["upper", "work"] {
        fs::create_dir(host.at(name)).unwrap();
    }
    let (upper, work) = (host.at("upper"), host.at("work"));
    let roots = HostTree::open_together(&[&upper, &work], Default::default(), &host.cache).unwrap();
    roots[1].create(b"staged", 0o644, host.own()).unwrap();
    roots[1].rename(b"staged", &*roots[0], b"named", PLAIN).unwrap();
    roots[0].link(b"named", &*roots[1], b"again").unwrap();
    assert_eq!(fs::metadata(upper.join("named")).unwrap().nlink(), 2);
}
