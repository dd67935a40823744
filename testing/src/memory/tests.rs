//! Tests of memory trees.

use super::*;
use laminafs::types::{MODE_MASK, SetTime};

fn tree() -> (MemoryTree, DirRef) {
    let tree = MemoryTree::new(7);
    let root = tree.root();
    (tree, root)
}

fn put(dir: &DirRef, name: &[u8], data: &[u8]) -> FileRef {
    let file = dir.create(name, 0o644, Owner::default()).unwrap();
    file.write_at(data, 0).unwrap();
    file
}

fn names(dir: &DirRef, from: u64) -> Vec<(String, u64)> {
    let mut seen = Vec::new();
    let collect = &mut |entry: RawEntry<'_>| {
        seen.push((String::from_utf8_lossy(entry.name).into_owned(), entry.next));
        true
    };
    dir.list(from, collect).unwrap();
    seen
}

fn errno<T>(result: Result<T>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

const PLAIN: RenameFlags = RenameFlags { noreplace: false, exchange: false, whiteout: false };

#[test]
fn hard_links_share_one_inode_and_count() {
    let (_tree, root) = tree();
    put(&root, b"a", b"data");
    root.mkdir(b"d", 0o755, Owner::default()).unwrap();
    root.link(b"a", &*root.dir(b"d"), b"b").unwrap();
    let (a, b) = (root.stat(Some(b"a")).unwrap(), root.dir(b"d").stat(Some(b"b")).unwrap());
    assert_eq!((a.ino, a.nlink), (b.ino, 2));
    root.unlink(b"a").unwrap();
    assert_eq!(root.dir(b"d").stat(Some(b"b")).unwrap().nlink, 1);
    assert_eq!(errno(root.link(b"d", &*root, b"e")), Some(Errno::PERM));
}

#[test]
fn unlinked_file_lives_until_it_is_closed() {
    let (tree, root) = tree();
    let file = put(&root, b"a", b"data");
    root.unlink(b"a").unwrap();
    let mut buf = [0; 9];
    assert_eq!(file.read_at(&mut buf, 1), Ok(3));
    assert_eq!(file.stat().unwrap().nlink, 0);
    assert_eq!(tree.shared.tree.lock().inodes.len(), 2);
    drop(file);
    assert_eq!(tree.shared.tree.lock().inodes.len(), 1);
}

#[test]
fn listing_resumes_while_entries_come_and_go() {
    let (_tree, root) = tree();
    for name in [b"a", b"b", b"c", b"d"] {
        put(&root, name, b"");
    }
    let first = names(&root, 0);
    let behind_b = first[1].1;
    root.unlink(b"b").unwrap();
    root.unlink(b"c").unwrap();
    put(&root, b"c", b"");
    let rest: Vec<_> = names(&root, behind_b).into_iter().map(|(name, _)| name).collect();
    assert_eq!(rest, ["d", "c"]);
}

#[test]
fn rename_with_whiteout_leaves_a_device() {
    let (_tree, root) = tree();
    put(&root, b"a", b"x");
    root.rename(b"a", &*root, b"b", RenameFlags { whiteout: true, ..PLAIN }).unwrap();
    assert!(root.stat(Some(b"a")).unwrap().is_whiteout_device());
    assert_eq!(root.stat(Some(b"b")).unwrap().size, 1);
}

#[test]
fn rename_refuses_what_linux_refuses() {
    let (tree, root) = tree();
    put(&root, b"f", b"");
    root.mkdir(b"d", 0o755, Owner::default()).unwrap();
    root.dir(b"d").mkdir(b"e", 0o755, Owner::default()).unwrap();
    let below = root.dir(b"d").dir(b"e");
    let rename =
        |from: &[u8], to: &DirRef, name: &[u8], flags| errno(root.rename(from, &**to, name, flags));
    let exchange = RenameFlags { exchange: true, ..PLAIN };
    assert_eq!(rename(b"d", &below, b"x", PLAIN), Some(Errno::INVAL));
    assert_eq!(rename(b"f", &root, b"d", PLAIN), Some(Errno::ISDIR));
    assert_eq!(rename(b"d", &root, b"f", PLAIN), Some(Errno::NOTDIR));
    assert_eq!(
        rename(b"f", &root, b"f", RenameFlags { noreplace: true, ..PLAIN }),
        Some(Errno::EXIST)
    );
    assert_eq!(rename(b"f", &root, b"x", exchange), Some(Errno::NOENT));
    assert_eq!(errno(below.rename(b"x", &*root, b"d", PLAIN)), Some(Errno::NOENT));
    put(&below, b"g", b"");
    assert_eq!(errno(below.rename(b"g", &*root, b"d", exchange)), Some(Errno::INVAL));
    assert_eq!(rename(b"f", &MemoryTree::new(8).root(), b"f", PLAIN), Some(Errno::XDEV));
    assert_eq!(rename(b"d", &root, b"f", exchange), None);
    assert_eq!(root.stat(Some(b"d")).unwrap().kind(), Kind::File);
    assert_eq!(root.stat(None).unwrap().nlink, 3);
    assert!(tree.shared.tree.lock().inodes.len() > 3);
}

#[test]
fn relocated_directory_and_what_is_below_stay_reachable() {
    let (_tree, root) = tree();
    root.mkdir(b"d", 0o755, Owner::default()).unwrap();
    let dir = root.dir(b"d");
    dir.mkdir(b"e", 0o755, Owner::default()).unwrap();
    let below = dir.dir(b"e");
    put(&below, b"f", b"");
    root.rename(b"d", &*root, b"moved", PLAIN).unwrap();
    assert_eq!(errno(below.stat(Some(b"f"))), Some(Errno::NOENT));
    dir.relocate(&root, b"moved");
    assert!(below.stat(Some(b"f")).is_ok());
}

#[test]
fn attributes_follow_linux() {
    let (tree, root) = tree();
    put(&root, b"f", b"");
    tree.set_time(Time { secs: 50, nanos: 1 });
    let change = AttrChange { mode: Some(0o6755), ..AttrChange::default() };
    root.set_attr(Some(b"f"), &change).unwrap();
    root.set_xattr(Some(b"f"), b"security.capability", b"x", XattrFlags::default()).unwrap();
    let change = AttrChange { uid: Some(5), atime: Some(SetTime::Now), ..AttrChange::default() };
    root.set_attr(Some(b"f"), &change).unwrap();
    let stat = root.stat(Some(b"f")).unwrap();
    assert_eq!((stat.mode & MODE_MASK, stat.uid, stat.gid), (0o755, 5, 0));
    assert_eq!((stat.atime.secs, stat.mtime.secs), (50, 0));
    assert_eq!(root.xattr(Some(b"f"), b"security.capability"), Ok(None));
}

#[test]
fn xattrs_are_refused_where_linux_refuses_them() {
    let (_tree, root) = tree();
    root.symlink(b"l", b"target", Owner::default()).unwrap();
    let set = |key: &[u8], flags| errno(root.set_xattr(Some(b"l"), key, b"v", flags));
    let plain = XattrFlags::default();
    assert_eq!(set(b"user.a", plain), Some(Errno::PERM));
    assert_eq!(set(b"trusted.a", XattrFlags { replace: true, create: false }), Some(Errno::NODATA));
    assert_eq!(set(b"trusted.a", plain), None);
    assert_eq!(set(b"trusted.a", XattrFlags { create: true, replace: false }), Some(Errno::EXIST));
    assert_eq!(set(b"other.a", plain), Some(Errno::OPNOTSUPP));
    assert_eq!(root.xattr_names(Some(b"l")), Ok(vec![b"trusted.a".to_vec()]));
    assert_eq!(errno(root.remove_xattr(Some(b"l"), b"trusted.b")), Some(Errno::NODATA));
}

#[test]
fn directories_inherit_setgid() {
    let (_tree, root) = tree();
    root.mkdir(b"d", 0o2755, Owner { uid: 1, gid: 2 }).unwrap();
    root.dir(b"d").mkdir(b"e", 0o700, Owner { uid: 3, gid: 2 }).unwrap();
    let stat = root.dir(b"d").stat(Some(b"e")).unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid), (0o042700, 3, 2));
}

#[test]
fn names_have_limits() {
    let (_tree, root) = tree();
    let make = |name: &[u8]| errno(root.mkdir(name, 0o755, Owner::default()));
    assert_eq!(make(&[b'x'; 256]), Some(Errno::NAMETOOLONG));
    assert_eq!(make(&[b'x'; 255]), None);
    assert_eq!(make(b"a/b"), Some(Errno::INVAL));
    assert_eq!(make(b""), Some(Errno::NOENT));
}

#[test]
fn power_cut_keeps_names_and_loses_unsynced_bytes() {
    let (tree, root) = tree();
    put(&root, b"safe", b"safe").sync(true).unwrap();
    put(&root, b"lost", b"lost");
    root.rename(b"lost", &*root, b"safe2", PLAIN).unwrap();
    let left = tree.power_cut(Loss::Empty).root();
    assert_eq!(left.stat(Some(b"safe")).unwrap().size, 4);
    assert_eq!(left.stat(Some(b"safe2")).unwrap().size, 0);
    let left = tree.power_cut(Loss::Holes).root();
    assert_eq!(left.stat(Some(b"safe2")).unwrap().size, 4);
    let mut buf = [1; 4];
    left.open(b"safe2", Access::Read).unwrap().read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [0; 4]);
    tree.sync();
    assert_eq!(tree.power_cut(Loss::Empty).root().stat(Some(b"safe2")).unwrap().size, 4);
}

#[test]
fn reflink_shares_content_within_a_tree() {
    let tree = MemoryTree::with_traits(9, Traits { reflink: true, ..Traits::default() });
    let root = tree.root();
    let from = put(&root, b"a", b"shared");
    let to = put(&root, b"b", b"");
    from.clone_to(&*to).unwrap();
    from.write_at(b"S", 0).unwrap();
    let mut buf = [0; 6];
    to.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"shared");
}

#[test]
fn the_number_of_a_freed_inode_goes_to_the_next_with_another_handle() {
    let (_tree, root) = tree();
    drop(put(&root, b"a", b""));
    drop(put(&root, b"b", b""));
    let (old, handle) = (root.stat(Some(b"a")).unwrap().ino, root.handle(Some(b"a")).unwrap());
    let open = root.open(b"a", Access::Read).unwrap();
    root.unlink(b"a").unwrap();
    drop(put(&root, b"c", b""));
    assert_ne!(root.stat(Some(b"c")).unwrap().ino, old, "it is open");
    drop(open);
    drop(put(&root, b"d", b""));
    assert_eq!(root.stat(Some(b"d")).unwrap().ino, old, "the lowest that is free");
    assert_ne!(root.handle(Some(b"d")).unwrap(), handle);
}
