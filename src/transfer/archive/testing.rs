//! Helpers for the tests of image archives.

use std::fs::File;
use std::io::Write;

use super::*;
use crate::transfer::stream;
use crate::transfer::tar::layer_from_tar;
use crate::transfer::testing::Recorder;
pub(super) use crate::transfer::testing::{Tar, gzip, zstd};
use crate::types::Digest;

/// The SHA-256 of bytes, as hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Digest::sha256(bytes).hex().to_owned()
}

/// A layer with one file that holds its own name.
pub(super) fn layer_tar(name: &str) -> Vec<u8> {
    Tar::default().file(name, name.as_bytes()).end()
}

/// A configuration with these layers.
pub(super) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<_> = layers.iter().map(|layer| format!("\"sha256:{}\"", sha256(layer))).collect();
    let ids = ids.join(",");
    format!(r#"{{"architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#)
        .into_bytes()
}

/// Opens an archive of these bytes.
pub(super) fn opened(bytes: &[u8]) -> Result<ImageSource, TransferError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive");
    File::create(&path).unwrap().write_all(bytes).unwrap();
    match open_input(&path, dir.path())? {
        Input::Images(source) => Ok(source),
        // Treated as images, whatever its kind is.
        Input::Layer { .. } => {
            let plain = stream::decoder(stream::Packing::of(bytes)?, bytes)?;
            let copy = spool::Spool::new(plain, dir.path())?.finish()?;
            Ok(ImageSource { parts: Parts::tar(copy)? })
        }
        Input::Directory => Ok(ImageSource { parts: Parts::directory(&path)? }),
    }
}

/// The objects of a layer, after its digests are checked.
pub(super) fn imported(source: &ImageSource, layer: &FoundLayer) -> Vec<String> {
    let mut recorder = Recorder::default();
    let outcome = layer_from_tar(source.layer(layer).unwrap(), &mut recorder).unwrap();
    let mut bytes = Vec::new();
    source.layer(layer).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, layer.size);
    assert_eq!(layer.diff_id, outcome.diff_id);
    assert_eq!(outcome.compressed_digest.hex(), sha256(&bytes));
    recorder.lines
}
