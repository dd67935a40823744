//! A tree of the host as a tar in PAX format, for any reader of tars.
//!
//! Names like `.wh.x` mean nothing here, as in a tar of tar(1). Sockets are left out, since a tar
//! has no form for them. A file that changes meanwhile has the length that it had when it was
//! opened: what it gained is left out, and what it lost is filled with zeroes and noted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use ::tar::EntryType;

use super::member::{Attributes, Head, MemberWriter, refuse};
use crate::error::FromHost;
use crate::sys::file::{self, major, minor};
use crate::transfer::error::{Result, TransferError};
use crate::tree::OnBytes;
use crate::tree::error::{on_host, shown};
use crate::tree::notes::Notes;
use crate::tree::walk::{Found, Walk, next_data};
use crate::types::Kind;

/// Bytes that one step of a copy takes.
const STEP_BYTES: usize = 256 << 10;
/// A file with more parts is written without its holes: readers have a limit.
const PARTS_MAX: usize = 1 << 18;

/// What was written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The number of members.
    pub entries: u64,
    /// The bytes of data of files, holes left out.
    pub data_bytes: u64,
    /// What is left out or incomplete.
    pub notes: Notes,
}

/// Writes a tree as a tar. `progress` receives the bytes of data that are written.
///
/// # Errors
/// [`TransferError::Host`] for an error of the host; [`TransferError::Entry`] for an object that no
/// tar can hold; errors of `out`.
pub fn export_tree(
    path: &Path,
    out: &mut dyn Write,
    progress: &mut OnBytes<'_>,
) -> Result<Exported> {
    let mut walk = Walk::new(path)?;
    let (to, done) = (MemberWriter { out }, Exported::default());
    let mut writer = TreeWriter { base: path, to, done, copied: 0, progress };
    while let Some(found) = walk.next()? {
        writer.object(&found)?;
    }
    writer.to.end()?;
    writer.done.notes.append(walk.into_notes());
    Ok(writer.done)
}

struct TreeWriter<'a, 'p> {
    base: &'a Path,
    to: MemberWriter<'a>,
    done: Exported,
    copied: u64,
    progress: &'a mut OnBytes<'p>,
}

impl TreeWriter<'_, '_> {
    fn object(&mut self, found: &Found) -> Result<()> {
        let path = match (found.path.as_slice(), found.kind()) {
            (b"", _) => b"./".to_vec(),
            (path, Kind::Dir) => [path, b"/"].concat(),
            (path, _) => path.to_vec(),
        };
        let kind = match (found.kind(), &found.link) {
            (Kind::Socket, _) => {
                self.done.notes.add(format!("{}: a socket is left out", shown(&path)));
                return Ok(());
            }
            (_, Some(_)) => EntryType::Link,
            (Kind::Dir, _) => EntryType::Directory,
            (Kind::File, _) => EntryType::Regular,
            (Kind::Symlink, _) => EntryType::Symlink,
            (Kind::Char, _) => EntryType::Char,
            (Kind::Block, _) => EntryType::Block,
            (Kind::Fifo, _) => EntryType::Fifo,
            (Kind::Unknown, _) => return Err(refuse(&path, "a tar has no form for it")),
        };
        self.done.entries += 1;
        let stat = &found.stat;
        let (mode, uid, gid, mtime) = (stat.mode, stat.uid, stat.gid, stat.mtime);
        let mut head = Head::new(kind, Attributes { mode, uid, gid, mtime });
        if let Some(first) = &found.link {
            head.link_name(first);
            return self.to.head(head, &path, 0);
        }
        for (key, value) in &found.xattrs {
            head.xattr(&path, key, value)?;
        }
        match kind {
            EntryType::Symlink => head.link_name(&found.target),
            EntryType::Char | EntryType::Block => {
                head.device(&path, major(stat.rdev), minor(stat.rdev))?;
            }
            EntryType::Regular => return self.file(head, &path, found),
            _ => {}
        }
        self.to.head(head, &path, 0)
    }

    fn file(&mut self, head: Head, path: &[u8], found: &Found) -> Result<()> {
        let size = found.stat.size;
        let mut parts = parts(found).map_err(TransferError::host(&on_host(self.base, path)))?;
        let data = if matches!(parts.as_slice(), [(0, len)] if *len == size) || size == 0 {
            self.to.head(head, path, size)?;
            size
        } else {
            self.to.sparse(head, path, &mut parts, size)?
        };
        for (start, len) in parts {
            self.copy(path, found, start, len)?;
        }
        self.done.data_bytes += data;
        self.to.pad(data, &[])
    }

    fn copy(&mut self, path: &[u8], found: &Found, start: u64, len: u64) -> Result<()> {
        let Some(from) = &found.file else { return Ok(()) };
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(STEP_BYTES).min(STEP_BYTES)];
        let (mut at, end) = (start, start + len);
        while at < end {
            let rest = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(buffer.len());
            let part = buffer.get_mut(..rest).unwrap_or_default();
            let read = file::pread(from.as_fd(), part, at)
                .map_err(TransferError::host(&on_host(self.base, path)))?;
            if read == 0 {
                self.done.notes.add(format!("{}: it shrank while it was read", shown(path)));
                return self.zeroes(end - at);
            }
            self.to.put(part.get(..read).unwrap_or_default())?;
            at += read as u64;
            self.copied += read as u64;
            (self.progress)(self.copied);
        }
        Ok(())
    }

    fn zeroes(&mut self, len: u64) -> Result<()> {
        let copied = io::copy(&mut io::Read::take(io::repeat(0), len), &mut self.to.out);
        copied.map(drop).map_err(|error| crate::store::recipe::written(error).into())
    }
}

/// The parts of a file with data: start and length.
fn parts(found: &Found) -> crate::error::Result<Vec<(u64, u64)>> {
    let size = found.stat.size;
    let Some(file) = found.file.as_ref().filter(|_| size > 0) else { return Ok(Vec::new()) };
    if found.stat.blocks.saturating_mul(512) >= size {
        return Ok(vec![(0, size)]);
    }
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = next_data(file.as_fd(), at, size)? {
        if parts.len() == PARTS_MAX {
            return Ok(vec![(0, size)]);
        }
        parts.push((start, end - start));
        at = end;
    }
    Ok(parts)
}
