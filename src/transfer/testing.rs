//! Helpers for the tests of imports: a sink that records its calls, and hand-made tars.

use std::io::Write;

use super::error::TransferError;
use super::path::joined;
use super::tar::layer_from_tar;
use crate::store::error::StoreError;
use crate::store::sink::{Body, Meta, Sink};
use crate::types::Name;

/// Records the objects of an import, one line each.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) lines: Vec<String>,
    pub(super) metas: std::collections::BTreeMap<String, Meta>,
    pub(super) contents: std::collections::BTreeMap<String, Vec<u8>>,
}

fn shown(path: &[Name]) -> String {
    format!("/{}", joined(path).escape_ascii())
}

impl Sink for Recorder {
    fn put(&mut self, path: &[Name], meta: Meta, body: Body<'_>) -> Result<(), StoreError> {
        let path = shown(path);
        let line = match body {
            Body::Dir => format!("dir {path}"),
            Body::File { size, data } => {
                let mut content = Vec::new();
                let read = data.read_to_end(&mut content);
                read.map_err(|source| StoreError::Stream { what: "sink".to_owned(), source })?;
                assert_eq!(content.len() as u64, size, "{path}");
                self.contents.insert(path.clone(), content);
                format!("file {path} {size}")
            }
            Body::Symlink { target } => format!("symlink {path} {}", target.escape_ascii()),
            Body::Char { major, minor } => format!("char {path} {major}:{minor}"),
            Body::Block { major, minor } => format!("block {path} {major}:{minor}"),
            Body::Fifo => format!("fifo {path}"),
            Body::Socket => format!("socket {path}"),
        };
        self.lines.push(line);
        self.metas.insert(path, meta);
        Ok(())
    }

    fn link(&mut self, path: &[Name], to: &[Name]) -> Result<(), StoreError> {
        self.lines.push(format!("link {} {}", shown(path), shown(to)));
        Ok(())
    }

    fn whiteout(&mut self, path: &[Name]) -> Result<(), StoreError> {
        self.lines.push(format!("whiteout {}", shown(path)));
        Ok(())
    }

    fn opaque(&mut self, path: &[Name]) -> Result<(), StoreError> {
        self.lines.push(format!("opaque {}", shown(path)));
        Ok(())
    }
}

/// A tar that is put together by hand, so that it may be invalid.
#[derive(Default, Clone)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    /// Adds a header with a valid checksum, and blocks of data.
    pub(super) fn raw(mut self, mut header: ::tar::Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a member of a type.
    pub(super) fn member(self, kind: u8, name: &str, data: &[u8]) -> Self {
        self.raw(header(kind, name.as_bytes(), data.len() as u64), data)
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(b'0', name, data)
    }

    pub(super) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        let mut header = header(kind, name.as_bytes(), 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    /// Adds a PAX header for the next member.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.member(b'x', "pax", &pax(records))
    }

    /// Ends the archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(super) fn import(self) -> Result<Recorder, TransferError> {
        import(&self.end())
    }
}

/// Formats PAX records.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (rest..).find(|len| rest + len.to_string().len() == *len).unwrap();
        write!(all, "{len} {key}=").unwrap();
        all.extend_from_slice(value);
        all.push(b'\n');
    }
    all
}

/// Returns a ustar header.
pub(super) fn header(kind: u8, name: &[u8], size: u64) -> ::tar::Header {
    let mut header = ::tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(::tar::EntryType::new(kind));
    header.as_old_mut().linkflag = [kind];
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    if matches!(kind, b'3' | b'4') {
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
    }
    header
}

pub(super) fn import(tar: &[u8]) -> Result<Recorder, TransferError> {
    let mut recorder = Recorder::default();
    layer_from_tar(tar, &mut recorder)?;
    Ok(recorder)
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(plain: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(plain, 1).unwrap()
}
