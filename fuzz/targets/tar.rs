//! An archive of any bytes is a layer or an error, whatever it says of lengths: what it gives is
//! within the limits that the sink was promised.
#![no_main]

use std::io::{self, Read};

use laminafs::store::error::StoreError;
use laminafs::store::sink::{Body, Meta, Sink};
use laminafs::transfer::tar::layer_from_tar;
use laminafs::types::Name;
use libfuzzer_sys::fuzz_target;

/// Holes may make a short archive long; more of one file than this is not read.
const READ_MAX: u64 = 1 << 20;

struct Checked;

fn check(path: &[Name]) {
    for name in path {
        assert!(!name.is_empty() && name.len() <= 255);
        assert!(!matches!(name.as_slice(), b"." | b".."));
        assert!(!name.contains(&b'/') && !name.contains(&0));
    }
}

impl Sink for Checked {
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> Result<(), StoreError> {
        check(path);
        assert!(meta.mode & !0o7777 == 0 && meta.mtime.nanos < 1_000_000_000);
        match body {
            Body::File { size, data } => {
                let wanted = size.min(READ_MAX);
                let read = io::copy(&mut data.take(wanted), &mut io::sink());
                let failed = |source| StoreError::Stream { what: "sink".to_owned(), source };
                assert_eq!(read.map_err(failed)?, wanted);
            }
            Body::Symlink { target } => assert!(!target.is_empty() && target.len() <= 4095),
            _ => {}
        }
        Ok(())
    }

    fn link(&mut self, path: &[Name], to: &[Name]) -> Result<(), StoreError> {
        check(path);
        check(to);
        assert!(path != to);
        Ok(())
    }

    fn whiteout(&mut self, path: &[Name]) -> Result<(), StoreError> {
        check(path);
        assert!(!path.is_empty());
        Ok(())
    }

    fn opaque(&mut self, path: &[Name]) -> Result<(), StoreError> {
        check(path);
        Ok(())
    }
}

/// Makes the checksums of all blocks right that look like headers; chance finds none.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    if let Ok(outcome) = layer_from_tar(&sealed(data)[..], &mut Checked) {
        assert!(outcome.entries <= data.len() as u64 / 512 || data.len() < 512 || is_packed(data));
    }
});

fn is_packed(data: &[u8]) -> bool {
    data.starts_with(&[0x1f, 0x8b])
        || data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || data.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
}
