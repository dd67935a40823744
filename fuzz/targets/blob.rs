//! A frame of any bytes is content of the length that the index states, or an error: its digest is
//! the right one, as that of a layer which somebody made up is.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use laminafs::cache::BlockCache;
use laminafs::format::layout::{
    BLOB_HEAD_LEN, Dirent, Extent, FRAME_LEN, Frame, Inode, NO_DIGEST, blob_head,
};
use laminafs::format::tables::Tables;
use laminafs::store::{LayerId, Store};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use zerocopy::FromZeros;

static ROOT: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A layer of one file, which is all of one frame.
fn index(stored: &[u8], len: u32) -> Vec<u8> {
    let mut tables = Tables::default();
    let blob_len = (BLOB_HEAD_LEN + stored.len()) as u64;
    tables.frames = vec![Frame {
        offset: (BLOB_HEAD_LEN as u64).into(),
        stored: (stored.len() as u32).into(),
        len: len.into(),
    }];
    tables.frame_digests = vec![*blake3::hash(stored).as_bytes()];
    tables.blob_len = blob_len;
    let (start, file_len) = (0.into(), u64::from(len).into());
    let extent = Extent { start, len: file_len, frame: 0.into(), frame_offset: 0.into() };
    tables.extents = vec![extent];
    let (name, name_len) = (tables.string(b"f").unwrap().into(), 1.into());
    tables.dirents = vec![Dirent { name, ino: 1.into(), name_len, kind: 8, reserved: 0 }];
    let bare = |mode: u32, nlink: u32| Inode {
        mode: mode.into(),
        nlink: nlink.into(),
        b: 1.into(),
        digest: NO_DIGEST.into(),
        ..Inode::new_zeroed()
    };
    tables.inodes = vec![bare(0o040_755, 2), Inode { size: file_len, ..bare(0o100_644, 1) }];
    tables.encode()
}

fuzz_target!(|data: &[u8]| {
    let Some((head, stored)) = data.split_first_chunk::<2>() else { return };
    let len = (u32::from(u16::from_le_bytes(*head)) * 2 + 1).min(FRAME_LEN as u32);
    if stored.is_empty() || stored.len() > FRAME_LEN {
        return;
    }
    let index = index(stored, len);
    let id = LayerId::of(&index);
    let store = Store::open(ROOT.path(), BlockCache::new(1 << 20)).unwrap();
    let dir = ROOT.path().join("layers").join(id.as_str());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("index"), &index).unwrap();
    fs::write(dir.join("data"), [&blob_head()[..], stored].concat()).unwrap();
    let layer = store.layer(&id).expect("the index is right");
    let inode = layer.index().inode(1).unwrap();
    let mut bytes = vec![0; len as usize + 1];
    if let Ok(read) = layer.read(inode, &mut bytes, 0) {
        assert_eq!(read, len as usize);
    }
    layer.verify();
    fs::remove_dir_all(&dir).unwrap();
});
