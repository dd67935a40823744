//! An index of any bytes is refused or safe to read. The length and the digests that it states are
//! made right first, so that what lies behind them is reached.
#![no_main]

use std::hint::black_box;

use laminafs::format::index::Index;
use laminafs::format::layout::HEAD_LEN;
use libfuzzer_sys::fuzz_target;

const LEN: std::ops::Range<usize> = 32..40;
const DIGEST: std::ops::Range<usize> = 48..80;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() >= HEAD_LEN {
        let len = bytes.len() as u64;
        bytes[LEN].copy_from_slice(&len.to_le_bytes());
        let digest = blake3::hash(&bytes[HEAD_LEN..]);
        bytes[DIGEST].copy_from_slice(digest.as_bytes());
    }
    let Ok(index) = Index::open(Box::new(bytes)) else { return };
    for (number, inode) in (0..).zip(index.inodes()) {
        for entry in index.entries(number) {
            let name = index.name(entry);
            assert!(index.find(number, name).is_some(), "an entry is found by its name");
            if let Some(object) = entry.object() {
                assert!(index.inode(object).is_some(), "an entry leads to an object");
            }
        }
        black_box((index.target(inode), index.content(inode), index.content_digest(inode)));
        for (name, value) in index.xattrs(inode) {
            black_box((name, value));
        }
    }
});
