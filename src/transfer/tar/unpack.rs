//! A tree of the host from a tar.
//!
//! Names like `.wh.x` mean nothing here, as to tar(1). A name that leads upwards, an entry below a
//! link and a link to an object that did not come before are refused. Memory does not grow with
//! the archive.

use std::io::{self, BufReader, Read};
use std::path::Path;

use super::entry::TARGET_MAX;
use super::members::{Data, Member, Members, Source, Streamed};
use crate::sys::file::makedev;
use crate::transfer::error::TransferError;
use crate::transfer::limits::{ENTRIES_MAX, READ_BYTES};
use crate::transfer::path::{self, joined, refused};
use crate::transfer::stream::{self, Packing};
use crate::tree::Meta;
use crate::tree::make::{Maker, Node};
use crate::tree::notes::Notes;
use crate::types::Kind;

/// What was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The number of members.
    pub entries: u64,
    /// The bytes of data of files.
    pub data_bytes: u64,
    /// What could not be set.
    pub notes: Notes,
}

/// Reads a tar, plain or compressed with gzip or zstd, into a directory that nobody else sees.
/// After an error a part of the content is there.
///
/// # Errors
/// [`TransferError::Malformed`], [`TransferError::Damaged`] and [`TransferError::Truncated`] if the
/// stream is not a tar, is damaged or ends too early, also between two members;
/// [`TransferError::Entry`] for a member that cannot be made; errors of the host.
pub fn unpack(mut reader: impl Read, into: &Path) -> Result<Unpacked, TransferError> {
    let head = stream::head(&mut reader).map_err(|error| stream::failed("archive", error))?;
    let packing = Packing::of(&head)?;
    let mut plain = stream::decoder(packing, io::Cursor::new(head).chain(reader))?;
    let buffered = BufReader::with_capacity(READ_BYTES, &mut plain);
    let mut members = Members::new(Streamed::new(buffered)).with_any_holes();
    let mut maker = Maker::new(into)?;
    let mut done = Unpacked::default();
    while let Some(member) = members.next()? {
        if done.entries == ENTRIES_MAX {
            let what = format!("archive has more than {ENTRIES_MAX} members");
            return Err(TransferError::TooLarge { what });
        }
        done.entries += 1;
        done.data_bytes += object(&mut members, member, &mut maker)?;
    }
    if !members.end_marked() {
        let what = "the archive is truncated or empty: no block of zeros follows its last member";
        return Err(TransferError::malformed(what));
    }
    // The digest of a compressed stream is at its end.
    members.drain().map_err(|error| stream::failed("archive", error))?;
    done.notes = maker.finish()?;
    Ok(done)
}

fn object<S: Source>(
    members: &mut Members<S>,
    member: Member,
    maker: &mut Maker<'_>,
) -> Result<u64, TransferError> {
    let refuse = refused(&member.name);
    let place = joined(&path::components(&member.name).map_err(&refuse)?);
    let given = |what| TransferError::Entry { name: path::shown(&member.name), what };
    let meta = Meta {
        mode: member.meta.mode,
        uid: member.meta.uid,
        gid: member.meta.gid,
        mtime: member.meta.mtime,
        atime: None,
        xattrs: member.xattrs.clone(),
    };
    let rdev = makedev(member.device.0, member.device.1);
    let node = match member.kind {
        b'0' => return file(members, &member, &place, &meta, maker),
        b'1' => {
            let to = joined(&path::components(&member.link).map_err(&refuse)?);
            maker.link(&place, &to)?;
            return Ok(0);
        }
        b'2' if member.link.is_empty() || member.link.len() > TARGET_MAX => {
            return Err(refuse("its target is empty or longer than 4095 bytes"));
        }
        b'2' => Node::Symlink(&member.link),
        b'3' => Node::Special(Kind::Char, rdev),
        b'4' => Node::Special(Kind::Block, rdev),
        b'5' => Node::Dir,
        b'6' => Node::Special(Kind::Fifo, 0),
        other => {
            return Err(given(format!("its type `{}` is not supported", [other].escape_ascii())));
        }
    };
    maker.put(&place, node, &meta)?;
    Ok(0)
}

fn file<S: Source>(
    members: &mut Members<S>,
    member: &Member,
    place: &[u8],
    meta: &Meta,
    maker: &mut Maker<'_>,
) -> Result<u64, TransferError> {
    let new = maker.begin_file(place)?;
    let mut data = members.data();
    let mut buffer = vec![0; READ_BYTES];
    let (mut at, mut written) = (0, 0);
    loop {
        at += data.skip_hole();
        let read = match read(&mut data, &mut buffer) {
            Ok(read) => read,
            Err(error) => {
                return Err(data.failure().unwrap_or_else(|| stream::failed("archive", error)));
            }
        };
        if read == 0 {
            break;
        }
        maker.write(&new, buffer.get(..read).unwrap_or_default(), at)?;
        at += read as u64;
        written += read as u64;
    }
    data.end();
    maker.end_file(new, member.size, meta)?;
    Ok(written)
}

fn read<S: Source>(data: &mut Data<'_, S>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match data.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
