//! Random content for lower layers, in every form in use.

use laminafs::types::{AttrChange, Owner, SetTime, Time, XattrFlags};
use laminafs::union::DirRef;
use laminafs_testing::memory::MemoryTree;
use proptest::prelude::*;

use super::flatten::{OPAQUE_KEYS, WHITEOUT_KEYS};

/// The names in all tests: few, so that operations meet.
pub const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b".wh.a"];
/// Names in layers; `.wh.` names are only made as markers.
const LAYER_NAMES: usize = 4;
/// A layer's own modification times are before the clock of the mount.
const LAYER_TIME: i64 = 100;

/// The object or mark that an item makes at its path.
#[derive(Clone, Debug)]
pub enum What {
    File {
        len: usize,
        mode: u32,
    },
    Dir {
        mode: u32,
    },
    Symlink,
    Fifo,
    Device(u64),
    /// A hard link to the last file made in the layer.
    Link,
    Xattr,
    WhiteoutDevice,
    WhiteoutAufs,
    WhiteoutXattr(usize),
    OpaqueXattr(usize),
    OpaqueAufs,
}

/// One object or mark of a layer.
#[derive(Clone, Debug)]
pub struct Item {
    path: Vec<usize>,
    pub what: What,
    owner: u32,
}

pub fn layer() -> impl Strategy<Value = Vec<Item>> {
    let what = prop_oneof![
        6 => (prop_oneof![Just(0), 1..20usize, Just(9000)], mode()).prop_map(|(len, mode)| {
            What::File { len, mode }
        }),
        6 => prop_oneof![Just(0o755), Just(0o2775), Just(0o700)]
            .prop_map(|mode| What::Dir { mode }),
        1 => Just(What::Symlink),
        1 => Just(What::Fifo),
        1 => Just(What::Device(0x103)),
        2 => Just(What::Link),
        1 => Just(What::Xattr),
        2 => Just(What::WhiteoutDevice),
        2 => Just(What::WhiteoutAufs),
        1 => (0..WHITEOUT_KEYS.len()).prop_map(What::WhiteoutXattr),
        2 => (0..OPAQUE_KEYS.len()).prop_map(What::OpaqueXattr),
        1 => Just(What::OpaqueAufs),
    ];
    let item =
        (prop::collection::vec(0..LAYER_NAMES, 1..4), what, prop_oneof![Just(0), Just(7u32)])
            .prop_map(|(path, what, owner)| Item { path, what, owner });
    prop::collection::vec(item, 0..12)
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0o644), Just(0o600), Just(0o4755), Just(0o6755)]
}

/// Adds items to a directory; items that cannot be made there are left out.
pub fn build(tree: &MemoryTree, root: &DirRef, items: &[Item]) {
    let mut last_file = None;
    for (count, item) in items.iter().enumerate() {
        tree.set_time(Time { secs: count as i64, nanos: 7 });
        let Some((name, parents)) = item.path.split_last() else { continue };
        let mut dir = root.clone();
        let mut fits = true;
        for parent in parents {
            let name = NAMES[*parent];
            let made = dir.mkdir(name, 0o755, Owner::default());
            fits &= made.is_ok() || dir.dir(name).stat(None).is_ok();
            dir = dir.dir(name);
        }
        if fits {
            put(&dir, NAMES[*name], item, count, &mut last_file);
        }
    }
    tree.set_time(Time { secs: LAYER_TIME, nanos: 0 });
    tree.sync();
}

fn put(dir: &DirRef, name: &[u8], item: &Item, count: usize, last: &mut Option<(DirRef, Vec<u8>)>) {
    let owner = Owner { uid: item.owner, gid: item.owner };
    let plain = XattrFlags::default();
    // An error means that another object is already there; the layer keeps it.
    let _made = match &item.what {
        What::File { len, mode } => dir.create(name, *mode, owner).map(|file| {
            let data: Vec<u8> = (0..*len).map(|at| (at + count) as u8 | 1).collect();
            file.write_at(&data, 0).unwrap();
            let mtime = Some(SetTime::At(Time { secs: -5, nanos: count as u32 }));
            let change = AttrChange { mtime, ..AttrChange::default() };
            dir.set_attr(Some(name), &change).unwrap();
            *last = Some((dir.clone(), name.to_vec()));
        }),
        What::Dir { mode } => dir.mkdir(name, *mode, owner),
        What::Symlink => dir.symlink(name, format!("target{count}").as_bytes(), owner),
        What::Fifo => dir.mknod(name, 0o010_644, 0, owner),
        What::Device(rdev) => dir.mknod(name, 0o020_600, *rdev, owner),
        What::Link => match last {
            Some((from, file)) => from.link(file, &**dir, name),
            None => Ok(()),
        },
        What::Xattr => dir.set_xattr(Some(name), b"user.layer", &[count as u8], plain),
        What::WhiteoutDevice => dir.mknod(name, 0o020_000, 0, owner),
        What::WhiteoutAufs => dir.create(&[b".wh.", name].concat(), 0o444, owner).map(drop),
        // Such whiteouts need a mark on their directory, which an opaque directory cannot have.
        What::WhiteoutXattr(key) => {
            let form = WHITEOUT_KEYS[*key].strip_suffix(b"whiteout").unwrap();
            let opaque = [form, b"opaque"].concat();
            let create = XattrFlags { create: true, replace: false };
            match dir.set_xattr(None, &opaque, b"x", create) {
                Err(_) if dir.xattr(None, &opaque).unwrap().as_deref() != Some(b"x") => Ok(()),
                _ => dir.create(name, 0o444, owner).map(|_| {
                    dir.set_xattr(Some(name), WHITEOUT_KEYS[*key], b"", plain).unwrap();
                }),
            }
        }
        What::OpaqueXattr(key) if dir.dir(name).stat(None).is_ok() => {
            let create = XattrFlags { create: true, replace: false };
            dir.set_xattr(Some(name), OPAQUE_KEYS[*key], b"y", create)
        }
        What::OpaqueXattr(_) => Ok(()),
        What::OpaqueAufs => dir.create(b".wh..wh..opq", 0o444, owner).map(drop),
    };
}
