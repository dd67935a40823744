//! Decodes requests.
//!
//! [`decode`] takes the bytes of one read(2) of `/dev/fuse` and returns the header and an
//! [`Operation`] that borrows names and data from them. Arguments are copied out of the bytes, so
//! alignment does not matter. Operations that the front end never serves become
//! [`Operation::Unsupported`].

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::error::Errno;
use crate::fuse::wire::abi::{self, InHeader};
use crate::types::NAME_MAX;

/// The longest target of a symbolic link, in bytes (`PATH_MAX` without its terminator).
const TARGET_MAX: usize = 4095;

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The caller, the node, and the number of the request.
    pub header: InHeader,
    /// The operation.
    pub op: Operation<'a>,
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The header is incomplete, or its length is not that of the read: no reply is possible.
    #[error("request of {got} bytes without a consistent header")]
    Header {
        /// The number of bytes read.
        got: usize,
    },
    /// The arguments contradict the header.
    #[error("malformed arguments of operation {opcode}: {errno}")]
    Arguments {
        /// The number of the request to reply to.
        unique: u64,
        /// Its operation.
        opcode: u32,
        /// The errno of the reply.
        errno: Errno,
    },
}

/// The arguments of a request, named as the operations of `fuse.h`.
#[derive(Debug)]
#[allow(missing_docs)] // fields are the kernel's arguments, described at their structures
pub enum Operation<'a> {
    Lookup { name: &'a [u8] },
    Forget { nlookup: u64 },
    BatchForget { items: &'a [u8] },
    GetAttr,
    Statx,
    SetAttr(abi::SetAttrIn),
    ReadLink,
    Symlink { name: &'a [u8], target: &'a [u8] },
    Mknod { arg: abi::MknodIn, name: &'a [u8] },
    Mkdir { arg: abi::MkdirIn, name: &'a [u8] },
    Unlink { name: &'a [u8] },
    Rmdir { name: &'a [u8] },
    Rename { new_parent: u64, flags: u32, name: &'a [u8], new_name: &'a [u8] },
    Link { node: u64, name: &'a [u8] },
    Open(abi::OpenIn),
    Create { arg: abi::CreateIn, name: &'a [u8] },
    Tmpfile(abi::CreateIn),
    OpenDir,
    ReleaseDir,
    Flush(abi::FlushIn),
    FindLock(abi::LkIn),
    SetLock { arg: abi::LkIn, waits: bool },
    Interrupt { unique: u64 },
    Release(abi::ReleaseIn),
    Read(abi::ReadIn),
    Write { arg: abi::WriteIn, data: &'a [u8] },
    StatFs,
    Fsync { data_only: bool },
    FsyncDir { data_only: bool },
    SyncFs,
    SetXattr { key: &'a [u8], value: &'a [u8], flags: u32, kill_sgid: bool },
    GetXattr { key: &'a [u8], size: u32 },
    ListXattr { size: u32 },
    RemoveXattr { key: &'a [u8] },
    ReadDir { arg: abi::ReadIn, plus: bool },
    Fallocate(abi::FallocateIn),
    Lseek(abi::LseekIn),
    CopyFileRange { arg: abi::CopyFileRangeIn, wide: bool },
    Ioctl { arg: abi::IoctlIn, data: &'a [u8] },
    Destroy,
    Unsupported,
}

/// Decodes one request. `xattr_ext` is whether `FUSE_SETXATTR_EXT` was negotiated.
///
/// # Errors
/// [`Malformed`].
pub fn decode(bytes: &[u8], xattr_ext: bool) -> Result<Request<'_>, Malformed> {
    let broken = Malformed::Header { got: bytes.len() };
    let Ok((header, body)) = InHeader::read_from_prefix(bytes) else {
        return Err(broken);
    };
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(broken);
    }
    let arguments =
        |errno| Malformed::Arguments { unique: header.unique, opcode: header.opcode, errno };
    let extensions = usize::from(header.total_extlen) * 8;
    let plain = body.len().checked_sub(extensions).and_then(|len| body.get(..len));
    let mut args = Args { rest: plain.ok_or_else(|| arguments(Errno::INVAL))? };
    let op = operation(header.opcode, &mut args, xattr_ext).map_err(arguments)?;
    Ok(Request { header, op })
}

fn operation<'a>(
    opcode: u32,
    args: &mut Args<'a>,
    xattr_ext: bool,
) -> Result<Operation<'a>, Errno> {
    Ok(match opcode {
        abi::LOOKUP => Operation::Lookup { name: args.name()? },
        abi::FORGET => Operation::Forget { nlookup: args.take::<abi::ForgetIn>()?.nlookup },
        abi::BATCH_FORGET => batch_forget(args)?,
        abi::GETATTR => Operation::GetAttr,
        abi::STATX => Operation::Statx,
        abi::SETATTR => Operation::SetAttr(args.take()?),
        abi::READLINK => Operation::ReadLink,
        abi::SYMLINK => Operation::Symlink { name: args.name()?, target: args.target()? },
        abi::MKNOD => Operation::Mknod { arg: args.take()?, name: args.name()? },
        abi::MKDIR => Operation::Mkdir { arg: args.take()?, name: args.name()? },
        abi::UNLINK => Operation::Unlink { name: args.name()? },
        abi::RMDIR => Operation::Rmdir { name: args.name()? },
        abi::RENAME => {
            let arg: abi::RenameIn = args.take()?;
            rename(arg.newdir, 0, args)?
        }
        abi::RENAME2 => {
            let arg: abi::Rename2In = args.take()?;
            rename(arg.newdir, arg.flags, args)?
        }
        abi::LINK => {
            let arg: abi::LinkIn = args.take()?;
            Operation::Link { node: arg.oldnodeid, name: args.name()? }
        }
        abi::CREATE => Operation::Create { arg: args.take()?, name: args.name()? },
        abi::TMPFILE => Operation::Tmpfile(args.take()?), // its name means nothing
        abi::STATFS => Operation::StatFs,
        abi::SYNCFS => Operation::SyncFs,
        abi::DESTROY => Operation::Destroy,
        abi::SETXATTR => set_xattr(args, xattr_ext)?,
        abi::GETXATTR => {
            let arg: abi::GetXattrIn = args.take()?;
            Operation::GetXattr { key: args.key()?, size: arg.size }
        }
        abi::LISTXATTR => Operation::ListXattr { size: args.take::<abi::GetXattrIn>()?.size },
        abi::REMOVEXATTR => Operation::RemoveXattr { key: args.key()? },
        _ => return file_operation(opcode, args),
    })
}

/// Operations on open files and directories.
fn file_operation<'a>(opcode: u32, args: &mut Args<'a>) -> Result<Operation<'a>, Errno> {
    Ok(match opcode {
        abi::OPEN => Operation::Open(args.take()?),
        abi::RELEASE => Operation::Release(args.take()?),
        abi::OPENDIR => Operation::OpenDir,
        abi::RELEASEDIR => Operation::ReleaseDir,
        abi::FLUSH => Operation::Flush(args.take()?),
        abi::GETLK => Operation::FindLock(args.take()?),
        abi::SETLK => Operation::SetLock { arg: args.take()?, waits: false },
        abi::SETLKW => Operation::SetLock { arg: args.take()?, waits: true },
        abi::INTERRUPT => Operation::Interrupt { unique: args.take::<abi::InterruptIn>()?.unique },
        abi::READ => Operation::Read(args.take()?),
        abi::WRITE => {
            let arg: abi::WriteIn = args.take()?;
            Operation::Write { arg, data: args.bytes(arg.size)? }
        }
        abi::FSYNC => Operation::Fsync { data_only: args.data_only()? },
        abi::FSYNCDIR => Operation::FsyncDir { data_only: args.data_only()? },
        abi::READDIR => Operation::ReadDir { arg: args.take()?, plus: false },
        abi::READDIRPLUS => Operation::ReadDir { arg: args.take()?, plus: true },
        abi::FALLOCATE => Operation::Fallocate(args.take()?),
        abi::LSEEK => Operation::Lseek(args.take()?),
        abi::COPY_FILE_RANGE => Operation::CopyFileRange { arg: args.take()?, wide: false },
        abi::COPY_FILE_RANGE_64 => Operation::CopyFileRange { arg: args.take()?, wide: true },
        abi::IOCTL => {
            let arg: abi::IoctlIn = args.take()?;
            Operation::Ioctl { arg, data: args.bytes(arg.in_size)? }
        }
        _ => Operation::Unsupported,
    })
}

fn batch_forget<'a>(args: &mut Args<'a>) -> Result<Operation<'a>, Errno> {
    let head: abi::BatchForgetIn = args.take()?;
    let one = size_of::<abi::ForgetOne>();
    let len = usize::try_from(head.count).ok().and_then(|count| count.checked_mul(one));
    let items = len.and_then(|len| args.rest.get(..len)).ok_or(Errno::INVAL)?;
    Ok(Operation::BatchForget { items })
}

fn rename<'a>(new_parent: u64, flags: u32, args: &mut Args<'a>) -> Result<Operation<'a>, Errno> {
    let name = args.name()?;
    let new_name = args.name()?;
    Ok(Operation::Rename { new_parent, flags, name, new_name })
}

fn set_xattr<'a>(args: &mut Args<'a>, ext: bool) -> Result<Operation<'a>, Errno> {
    let arg = if ext {
        args.take::<abi::SetXattrIn>()?
    } else {
        let old: abi::SetXattrCompatIn = args.take()?;
        abi::SetXattrIn { size: old.size, flags: old.flags, ..Default::default() }
    };
    let key = args.key()?;
    Ok(Operation::SetXattr {
        key,
        value: args.bytes(arg.size)?,
        flags: arg.flags,
        kill_sgid: arg.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0,
    })
}

/// The items of [`Operation::BatchForget`].
pub fn forgets(items: &[u8]) -> impl Iterator<Item = abi::ForgetOne> + '_ {
    let one = size_of::<abi::ForgetOne>();
    items.chunks_exact(one).filter_map(|bytes| abi::ForgetOne::read_from_bytes(bytes).ok())
}

/// The rest of the arguments.
struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Args<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| Errno::INVAL)?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: u32) -> Result<&'a [u8], Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Bytes up to a terminator, which is consumed.
    fn string(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
        let (string, rest) = self.rest.split_at_checked(end).ok_or(Errno::INVAL)?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(string)
    }

    /// One component of a path.
    fn name(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.string()?;
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if name.is_empty() || name.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }

    fn target(&mut self) -> Result<&'a [u8], Errno> {
        let target = self.string()?;
        match target.len() {
            0 => Err(Errno::NOENT),
            1..=TARGET_MAX => Ok(target),
            _ => Err(Errno::NAMETOOLONG),
        }
    }

    /// The name of an extended attribute (`XATTR_NAME_MAX` is 255 too).
    fn key(&mut self) -> Result<&'a [u8], Errno> {
        match self.string()? {
            [] => Err(Errno::INVAL),
            key if key.len() > NAME_MAX => Err(Errno::RANGE),
            key => Ok(key),
        }
    }

    fn data_only(&mut self) -> Result<bool, Errno> {
        let arg: abi::FsyncIn = self.take()?;
        Ok(arg.fsync_flags & abi::FSYNC_FDATASYNC != 0)
    }
}

#[cfg(test)]
mod tests;
