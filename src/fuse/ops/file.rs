//! OPEN to RELEASE, and all operations on the data of an open file.

use super::call::Call;
use crate::error::{Errno, Result};
use crate::fuse::convert;
use crate::fuse::wire::abi::{
    CopyFileRangeIn, CopyFileRangeOut, CreateIn, CreateOut, FallocateIn, LseekIn, LseekOut,
    MAX_WRITE, OpenIn, ReadIn, ReleaseIn, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};
use crate::sys::fuse::{O_APPEND, O_EXCL};
use crate::types::{Kind, MODE_MASK, NodeId, Seek};
use crate::union::{Entry, Kill, OpenFlags, OpenMode, Opened};

/// `SEEK_DATA` and `SEEK_HOLE` of lseek(2); the kernel resolves the other kinds by itself.
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// The reply to COPY_FILE_RANGE counts in 32 bits; callers continue a longer copy.
const NARROW_COPY_MAX: u64 = 1 << 30;

pub(super) fn open(call: &Call<'_>, arg: &OpenIn) {
    let flags = convert::open_flags(arg.flags, arg.open_flags);
    match call.union.open(call.node(), flags) {
        Ok(opened) => {
            // The kernel's attributes are outdated after the next write that it makes by itself.
            if flags.write && matches!(opened.mode, OpenMode::Passthrough { .. }) {
                call.reply.forget_attributes(call.node());
            }
            if !call.reply.body(&convert::open(opened, call.locks.is_some())) {
                call.union.release(call.node(), opened.fh);
            }
        }
        Err(error) => call.done(Err(error)),
    }
}

pub(super) fn create(call: &Call<'_>, arg: &CreateIn, name: &[u8]) {
    let flags = convert::open_flags(arg.flags, arg.open_flags);
    let (caller, mode) = (call.caller(arg.umask), arg.mode & MODE_MASK);
    let made = match call.union.create(&caller, call.node(), name, mode, flags) {
        // Another client made the file after the kernel's lookup.
        Err(error) if error.is(Errno::EXIST) && arg.flags & O_EXCL == 0 => {
            open_known(call, name, flags)
        }
        made => made,
    };
    created(call, made);
}

fn open_known(call: &Call<'_>, name: &[u8], flags: OpenFlags) -> Result<(Entry, Opened)> {
    let entry = call.union.lookup(call.node(), name)?.ok_or(Errno::STALE)?;
    match entry.stat.kind() {
        Kind::File => call.union.open(entry.node, flags),
        // The kernel looks the name up again and acts on what it finds.
        _ => Err(Errno::STALE.into()),
    }
    .map(|opened| (entry, opened))
    .inspect_err(|_| call.union.forget(entry.node, 1))
}

pub(super) fn tmpfile(call: &Call<'_>, arg: &CreateIn) {
    let flags = convert::open_flags(arg.flags, arg.open_flags);
    let (caller, mode) = (call.caller(arg.umask), arg.mode & MODE_MASK);
    created(call, call.union.tmpfile(&caller, call.node(), mode, flags));
}

fn created(call: &Call<'_>, result: Result<(Entry, Opened)>) {
    match result {
        Ok((entry, opened)) => {
            let open = convert::open(opened, call.locks.is_some());
            if !call.reply.body(&CreateOut { entry: call.entry_out(&entry), open }) {
                call.union.release(entry.node, opened.fh);
                call.union.forget(entry.node, 1);
            }
        }
        Err(error) => call.done(Err(error)),
    }
}

pub(super) fn release(call: &Call<'_>, arg: &ReleaseIn) {
    if let Some(locks) = call.locks {
        locks.release(call.node(), arg.fh);
    }
    call.union.release(call.node(), arg.fh);
    call.reply.ok();
}

pub(super) fn read(call: &mut Call<'_>, arg: &ReadIn) {
    let size = usize::try_from(arg.size.min(MAX_WRITE)).unwrap_or(0);
    let reply = call.reply;
    let data = &mut call.scratch.data;
    let done = call.union.read_with(NodeId(call.header.nodeid), |file| {
        let mut take = |parts: &[&[u8]]| {
            reply.parts(parts);
        };
        if file.read_shared(size, arg.offset, &mut take)? {
            return Ok(());
        }
        if data.len() < size {
            data.resize(size, 0);
        }
        let len = file.read_at(data.get_mut(..size).unwrap_or_default(), arg.offset)?;
        reply.bytes(data.get(..len.min(size)).unwrap_or_default());
        Ok(())
    });
    if let Err(error) = done {
        reply.error(&error);
    }
}

pub(super) fn write(call: &Call<'_>, arg: &WriteIn, data: &[u8]) {
    let kill_priv = arg.write_flags & WRITE_KILL_SUIDGID != 0;
    // The offset is the end of the file as the kernel knows it; others may have moved it.
    let appended = match arg.flags & O_APPEND != 0 && call.union.is_shared(call.node()) {
        true => call.union.append(call.node(), data, kill_priv),
        false => Ok(None),
    };
    let written = appended.and_then(|appended| match appended {
        Some(len) => Ok(len),
        None if arg.write_flags & WRITE_CACHE != 0 => write_back(call, arg, data),
        None => call.union.write(call.node(), arg.fh, data, arg.offset, kill_priv),
    });
    match written {
        Ok(len) => {
            if kill_priv {
                call.reply.forget_attributes(call.node());
            }
            let size = u32::try_from(len).unwrap_or(arg.size);
            call.reply.body(&WriteOut { size, padding: 0 })
        }
        Err(error) => call.reply.error(&error),
    };
}

/// Writes pages of the cache. The kernel takes a short write of them for a whole one
/// (`fuse_writepage_end()` in fs/fuse/file.c), and what is missing would be lost without an error.
fn write_back(call: &Call<'_>, arg: &WriteIn, data: &[u8]) -> Result<usize> {
    let kill_priv = arg.write_flags & WRITE_KILL_SUIDGID != 0;
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let offset = arg.offset.saturating_add(done as u64);
        match call.union.write(call.node(), arg.fh, rest, offset, kill_priv)? {
            0 => return Err(Errno::IO.into()),
            len => done += len,
        }
    }
    Ok(done)
}

pub(super) fn fallocate(call: &Call<'_>, arg: &FallocateIn) {
    let FallocateIn { offset, length, mode, .. } = *arg;
    let kill = call.kills(call.node());
    let done = call.union.fallocate(call.node(), mode, offset, length, kill);
    // The kernel drops size and times by itself, but keeps the mode, which was cleared.
    if kill != Kill::Nothing {
        call.reply.forget_attributes(call.node());
    }
    call.done(done);
}

pub(super) fn lseek(call: &Call<'_>, arg: &LseekIn) {
    let whence = match arg.whence {
        SEEK_DATA => Seek::Data,
        SEEK_HOLE => Seek::Hole,
        _ => return call.done(Err(Errno::INVAL.into())),
    };
    match call.union.lseek(call.node(), arg.offset, whence) {
        Ok(offset) => call.reply.body(&LseekOut { offset }),
        Err(error) => call.reply.error(&error),
    };
}

/// COPY_FILE_RANGE, and with `wide` its newer form with a reply of 64 bits.
pub(super) fn copy_file_range(call: &Call<'_>, arg: &CopyFileRangeIn, wide: bool) {
    if arg.flags != 0 {
        return call.done(Err(Errno::INVAL.into()));
    }
    let to = NodeId(arg.nodeid_out);
    let len = if wide { arg.len } else { arg.len.min(NARROW_COPY_MAX) };
    let kill = call.kills(to);
    let copied = call.union.copy_file_range(call.node(), arg.off_in, to, arg.off_out, len, kill);
    if kill != Kill::Nothing {
        call.reply.forget_attributes(to);
    }
    match copied {
        Ok(bytes_copied) if wide => call.reply.body(&CopyFileRangeOut { bytes_copied }),
        Ok(bytes_copied) => {
            let size = u32::try_from(bytes_copied).unwrap_or(0);
            call.reply.body(&WriteOut { size, padding: 0 })
        }
        Err(error) => call.reply.error(&error),
    };
}
