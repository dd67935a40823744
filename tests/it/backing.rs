//! Layers over other layers: attribute layers over memory, the host compared with memory.

use std::sync::Arc;

use laminafs::backing::host::{FdCache, HostTree, Submounts};
use laminafs::backing::stated::{Form, form_of, switch_on, wrap};
use laminafs::error::{Errno, Error, Result};
use laminafs::sys::file::makedev;
use laminafs::types::{Access, AttrChange, Kind, Owner, RenameFlags, XattrFlags};
use laminafs::union::DirRef;
use laminafs_testing::memory::MemoryTree;

const OWN: Owner = Owner { uid: 7, gid: 7 };
const USER: Owner = Owner { uid: 1000, gid: 100 };

fn stated(form: Form) -> (DirRef, DirRef) {
    let inner = MemoryTree::new(1).root();
    switch_on(&inner, form).unwrap();
    assert_eq!(form_of(&inner).unwrap(), Some(form));
    (wrap(Arc::clone(&inner), form, OWN), inner)
}

#[track_caller]
fn refused<T>(result: Result<T>, errno: Errno) {
    assert_eq!(result.err().map(|error| error.errno()), Some(errno));
}

#[test]
fn owner_and_mode_stand_in_the_attribute() {
    let (dir, inner) = stated(Form::Containers);
    let file = dir.create(b"f", 0o4751, USER).unwrap();
    let stat = dir.stat_new(b"f", &file).unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (1000, 100, 0o104_751));
    let raw = inner.stat(Some(b"f")).unwrap();
    assert_eq!((raw.uid, raw.mode), (7, 0o100_751));
    let change = AttrChange { gid: Some(3), ..AttrChange::default() };
    dir.set_attr(Some(b"f"), &change).unwrap();
    let stat = dir.stat(Some(b"f")).unwrap();
    assert_eq!((stat.gid, stat.mode), (3, 0o100_751), "chown takes set-user-ID away");
    let change = AttrChange { mode: Some(0), ..AttrChange::default() };
    dir.set_attr(Some(b"f"), &change).unwrap();
    assert_eq!(dir.stat(Some(b"f")).unwrap().mode, 0o100_000);
    assert_eq!(inner.stat(Some(b"f")).unwrap().mode, 0o100_600);
    assert!(dir.xattr_names(Some(b"f")).unwrap().is_empty());
}

#[test]
fn a_set_group_id_directory_hands_its_group_down() {
    let (dir, _) = stated(Form::Containers);
    dir.mkdir(b"d", 0o2775, USER).unwrap();
    let d = dir.dir(b"d");
    d.mkdir(b"e", 0o755, OWN).unwrap();
    d.create(b"f", 0o644, OWN).unwrap();
    let (e, f) = (d.stat(Some(b"e")).unwrap(), d.stat(Some(b"f")).unwrap());
    assert_eq!((e.uid, e.gid, e.mode), (7, 100, 0o042_755));
    assert_eq!((f.uid, f.gid, f.mode), (7, 100, 0o100_644));
}

#[test]
fn special_files_are_files_below_and_whiteouts_stay() {
    let (dir, inner) = stated(Form::Containers);
    let mode = Kind::Block.mode_bits() | 0o660;
    dir.mknod(b"b", mode, makedev(8, 1), USER).unwrap();
    dir.mknod(b"w", Kind::Char.mode_bits(), 0, OWN).unwrap();
    let stat = dir.stat(Some(b"b")).unwrap();
    assert_eq!((stat.mode, stat.rdev, stat.uid), (mode, makedev(8, 1), 1000));
    assert_eq!(inner.stat(Some(b"b")).unwrap().kind(), Kind::File);
    assert!(inner.stat(Some(b"w")).unwrap().is_whiteout_device());
    let mut kinds = Vec::new();
    dir.list(0, &mut |entry| {
        kinds.push(entry.kind);
        true
    })
    .unwrap();
    kinds.sort_by_key(|kind| *kind as u8);
    assert_eq!(kinds, [Kind::Char, Kind::Block]);
}

#[test]
fn capabilities_are_kept_where_users_may_set_them() {
    let (dir, inner) = stated(Form::Containers);
    dir.create(b"f", 0o755, USER).unwrap();
    let key: &[u8] = b"security.capability";
    dir.set_xattr(Some(b"f"), key, b"caps", XattrFlags::default()).unwrap();
    assert_eq!(dir.xattr(Some(b"f"), key).unwrap().as_deref(), Some(&b"caps"[..]));
    assert_eq!(dir.xattr_names(Some(b"f")).unwrap(), [key]);
    assert_eq!(inner.xattr(Some(b"f"), key).unwrap(), None);
    dir.remove_xattr(Some(b"f"), key).unwrap();
    assert_eq!(dir.xattr(Some(b"f"), key).unwrap(), None);
}

#[test]
fn a_value_that_says_nothing_is_an_error_and_no_other_owner() {
    let (dir, inner) = stated(Form::Privileged);
    dir.create(b"f", 0o644, USER).unwrap();
    for bad in [&b"0:0"[..], b"0:0:755:dir"] {
        let key = b"security.fuseoverlayfs.override_stat";
        inner.set_xattr(Some(b"f"), key, bad, XattrFlags::default()).unwrap();
        assert!(matches!(dir.stat(Some(b"f")), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn the_host_copies_to_another_implementation_and_moves_nothing_there() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("from"), "head").unwrap();
    let root = HostTree::open(directory.path(), Submounts::Shown, &FdCache::new(4)).unwrap();
    let source = root.open(b"from", Access::Read).unwrap();
    let other = MemoryTree::new(9).root();
    let memory = other.create(b"m", 0o644, Owner::default()).unwrap();
    assert_eq!(source.copy_range(0, &*memory, 2, 4).unwrap(), 4);
    assert_eq!(memory.stat().unwrap().size, 6);
    refused(source.clone_to(&*memory), Errno::XDEV);
    refused(root.rename(b"from", &*other, b"x", RenameFlags::default()), Errno::XDEV);
}
