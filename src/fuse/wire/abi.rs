//! Structures, operation numbers and flags of the kernel's FUSE protocol.
//!
//! Fields have the names and the order of `include/uapi/linux/fuse.h`, which documents them. All
//! are of native byte order: the protocol never leaves the machine. Tests check the sizes; the
//! layout has no implicit padding (`zerocopy` refuses to derive otherwise).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest data of one WRITE, and of one READ: 256 pages, the most that the kernel offers without a
/// change of `fs.fuse.max_pages_limit`.
pub const MAX_WRITE: u32 = 1 << 20;

/// `FUSE_LOOKUP`.
pub const LOOKUP: u32 = 1;
/// `FUSE_FORGET`; has no reply.
pub const FORGET: u32 = 2;
/// `FUSE_GETATTR`.
pub const GETATTR: u32 = 3;
/// `FUSE_SETATTR`.
pub const SETATTR: u32 = 4;
/// `FUSE_READLINK`.
pub const READLINK: u32 = 5;
/// `FUSE_SYMLINK`.
pub const SYMLINK: u32 = 6;
/// `FUSE_MKNOD`.
pub const MKNOD: u32 = 8;
/// `FUSE_MKDIR`.
pub const MKDIR: u32 = 9;
/// `FUSE_UNLINK`.
pub const UNLINK: u32 = 10;
/// `FUSE_RMDIR`.
pub const RMDIR: u32 = 11;
/// `FUSE_RENAME`.
pub const RENAME: u32 = 12;
/// `FUSE_LINK`.
pub const LINK: u32 = 13;
/// `FUSE_OPEN`.
pub const OPEN: u32 = 14;
/// `FUSE_READ`.
pub const READ: u32 = 15;
/// `FUSE_WRITE`.
pub const WRITE: u32 = 16;
/// `FUSE_STATFS`.
pub const STATFS: u32 = 17;
/// `FUSE_RELEASE`.
pub const RELEASE: u32 = 18;
/// `FUSE_FSYNC`.
pub const FSYNC: u32 = 20;
/// `FUSE_SETXATTR`.
pub const SETXATTR: u32 = 21;
/// `FUSE_GETXATTR`.
pub const GETXATTR: u32 = 22;
/// `FUSE_LISTXATTR`.
pub const LISTXATTR: u32 = 23;
/// `FUSE_REMOVEXATTR`.
pub const REMOVEXATTR: u32 = 24;
/// `FUSE_FLUSH`.
pub const FLUSH: u32 = 25;
/// `FUSE_OPENDIR`.
pub const OPENDIR: u32 = 27;
/// `FUSE_READDIR`.
pub const READDIR: u32 = 28;
/// `FUSE_RELEASEDIR`.
pub const RELEASEDIR: u32 = 29;
/// `FUSE_FSYNCDIR`.
pub const FSYNCDIR: u32 = 30;
/// `FUSE_GETLK`.
pub const GETLK: u32 = 31;
/// `FUSE_SETLK`.
pub const SETLK: u32 = 32;
/// `FUSE_SETLKW`.
pub const SETLKW: u32 = 33;
/// `FUSE_CREATE`.
pub const CREATE: u32 = 35;
/// `FUSE_INTERRUPT`; has no reply.
pub const INTERRUPT: u32 = 36;
/// `FUSE_DESTROY`.
pub const DESTROY: u32 = 38;
/// `FUSE_IOCTL`.
pub const IOCTL: u32 = 39;
/// `FUSE_BATCH_FORGET`; has no reply.
pub const BATCH_FORGET: u32 = 42;
/// `FUSE_FALLOCATE`.
pub const FALLOCATE: u32 = 43;
/// `FUSE_READDIRPLUS`.
pub const READDIRPLUS: u32 = 44;
/// `FUSE_RENAME2`.
pub const RENAME2: u32 = 45;
/// `FUSE_LSEEK`.
pub const LSEEK: u32 = 46;
/// `FUSE_COPY_FILE_RANGE`.
pub const COPY_FILE_RANGE: u32 = 47;
/// `FUSE_SYNCFS`.
pub const SYNCFS: u32 = 50;
/// `FUSE_TMPFILE`.
pub const TMPFILE: u32 = 51;
/// `FUSE_STATX`.
pub const STATX: u32 = 52;
/// `FUSE_COPY_FILE_RANGE_64`, of protocol 7.45.
pub const COPY_FILE_RANGE_64: u32 = 53;

/// `FATTR_MODE` of [`SetAttrIn::valid`].
pub const FATTR_MODE: u32 = 1 << 0;
/// `FATTR_UID`.
pub const FATTR_UID: u32 = 1 << 1;
/// `FATTR_GID`.
pub const FATTR_GID: u32 = 1 << 2;
/// `FATTR_SIZE`.
pub const FATTR_SIZE: u32 = 1 << 3;
/// `FATTR_ATIME`.
pub const FATTR_ATIME: u32 = 1 << 4;
/// `FATTR_MTIME`.
pub const FATTR_MTIME: u32 = 1 << 5;
/// `FATTR_ATIME_NOW`.
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
/// `FATTR_MTIME_NOW`.
pub const FATTR_MTIME_NOW: u32 = 1 << 8;
/// `FATTR_KILL_SUIDGID`.
pub const FATTR_KILL_SUIDGID: u32 = 1 << 11;

/// `FUSE_WRITE_CACHE` of [`WriteIn::write_flags`]: pages of the cache.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `FUSE_WRITE_KILL_SUIDGID` of [`WriteIn::write_flags`].
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_OPEN_KILL_SUIDGID` of [`OpenIn::open_flags`] and [`CreateIn::open_flags`].
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `FUSE_SETXATTR_ACL_KILL_SGID` of [`SetXattrIn::setxattr_flags`].
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC` of [`FsyncIn::fsync_flags`].
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

/// `FOPEN_DIRECT_IO` of [`OpenOut::open_flags`]: bypass the page cache.
pub const FOPEN_DIRECT_IO: u32 = 1 << 0;
/// `FOPEN_CACHE_DIR`: a listing may be kept.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
/// `FOPEN_KEEP_CACHE` of [`OpenOut::open_flags`].
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_NOFLUSH`: no FLUSH when a descriptor closes.
pub const FOPEN_NOFLUSH: u32 = 1 << 5;
/// `FOPEN_PASSTHROUGH`: the kernel serves the file from [`OpenOut::backing_id`].
pub const FOPEN_PASSTHROUGH: u32 = 1 << 7;

/// `FUSE_NOTIFY_INVAL_INODE`: a notification, in the place of an errno.
pub const NOTIFY_INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_STORE`.
pub const NOTIFY_STORE: i32 = 4;

/// `STATX_BASIC_STATS` of [`Statx::mask`].
pub const STATX_BASIC_STATS: u32 = 0x7ff;
/// `STATX_BTIME`.
pub const STATX_BTIME: u32 = 0x800;

macro_rules! wire_structs {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(
                Debug, Clone, Copy, Default, PartialEq, Eq,
                FromBytes, IntoBytes, Immutable, KnownLayout,
            )]
            #[allow(missing_docs)] // the fields are the kernel's
            pub struct $name { $(pub $field: $type,)* }
        )*
    };
}

wire_structs! {
    /// `struct fuse_in_header`, in front of every request.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// `struct fuse_out_header`, in front of every reply.
    OutHeader { len: u32, error: i32, unique: u64, }
    /// `struct fuse_attr`; times before 1970 are negative seconds.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        blksize: u32, flags: u32,
    }
    /// `struct fuse_entry_out`; `nodeid` 0 is a negative entry.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    /// `struct fuse_forget_in`.
    ForgetIn { nlookup: u64, }
    /// `struct fuse_forget_one`.
    ForgetOne { nodeid: u64, nlookup: u64, }
    /// `struct fuse_batch_forget_in`.
    BatchForgetIn { count: u32, dummy: u32, }
    /// `struct fuse_attr_out`.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// `struct fuse_sx_time`.
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32, }
    /// `struct fuse_statx`.
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64, atime: SxTime,
        btime: SxTime, ctime: SxTime, mtime: SxTime, rdev_major: u32, rdev_minor: u32,
        dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// `struct fuse_statx_out`.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, }
    /// `struct fuse_mknod_in`.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// `struct fuse_mkdir_in`.
    MkdirIn { mode: u32, umask: u32, }
    /// `struct fuse_rename_in`.
    RenameIn { newdir: u64, }
    /// `struct fuse_rename2_in`.
    Rename2In { newdir: u64, flags: u32, padding: u32, }
    /// `struct fuse_link_in`.
    LinkIn { oldnodeid: u64, }
    /// `struct fuse_setattr_in`.
    SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: i64, mtime: i64,
        ctime: i64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32,
        uid: u32, gid: u32, unused5: u32,
    }
    /// `struct fuse_open_in`.
    OpenIn { flags: u32, open_flags: u32, }
    /// `struct fuse_create_in`.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// `struct fuse_open_out`.
    OpenOut { fh: u64, open_flags: u32, backing_id: u32, }
    /// The reply to CREATE and TMPFILE: entry and open file in one.
    CreateOut { entry: EntryOut, open: OpenOut, }
    /// `struct fuse_release_in`.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// `struct fuse_file_lock`.
    FileLock { start: u64, end: u64, kind: u32, pid: u32, }
    /// `struct fuse_lk_in`.
    LkIn { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32, }
    /// `struct fuse_lk_out`.
    LkOut { lk: FileLock, }
    /// `struct fuse_flush_in`.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// `struct fuse_interrupt_in`.
    InterruptIn { unique: u64, }
    /// `struct fuse_read_in`; READDIR and READDIRPLUS use it too.
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// `struct fuse_write_in`.
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// `struct fuse_write_out`.
    WriteOut { size: u32, padding: u32, }
    /// `struct fuse_statfs_out`.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `struct fuse_fsync_in`.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32, }
    /// `struct fuse_setxattr_in` before `FUSE_SETXATTR_EXT`.
    SetXattrCompatIn { size: u32, flags: u32, }
    /// `struct fuse_setxattr_in`.
    SetXattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32, }
    /// `struct fuse_getxattr_in`; LISTXATTR uses it too.
    GetXattrIn { size: u32, padding: u32, }
    /// `struct fuse_getxattr_out`: the reply to a probe of the size.
    GetXattrOut { size: u32, padding: u32, }
    /// `struct fuse_ioctl_in`.
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32, }
    /// `struct fuse_ioctl_out`.
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32, }
    /// `struct fuse_fallocate_in`.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// `struct fuse_lseek_in`.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// `struct fuse_lseek_out`.
    LseekOut { offset: u64, }
    /// `struct fuse_copy_file_range_in`.
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    /// `struct fuse_copy_file_range_out`, the reply to [`COPY_FILE_RANGE_64`].
    CopyFileRangeOut { bytes_copied: u64, }
    /// `struct fuse_notify_inval_inode_out`.
    NotifyInvalInodeOut { ino: u64, off: i64, len: i64, }
    /// `struct fuse_notify_store_out`; the data follows.
    NotifyStoreOut { nodeid: u64, offset: u64, size: u32, padding: u32, }
    /// The head of `struct fuse_dirent`; the name follows, padded to 8 bytes.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32, }
    /// `struct fsxattr` of FS_IOC_FSGETXATTR.
    FsXattrData {
        xflags: u32, extsize: u32, nextents: u32, projid: u32, cowextsize: u32, pad: [u8; 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<InHeader>(), 40);
        assert_eq!(size_of::<OutHeader>(), 16);
        assert_eq!(size_of::<Attr>(), 88);
        assert_eq!(size_of::<EntryOut>(), 128);
        assert_eq!(size_of::<AttrOut>(), 104);
        assert_eq!(size_of::<Statx>(), 256);
        assert_eq!(size_of::<StatxOut>(), 288);
        assert_eq!(size_of::<MknodIn>(), 16);
        assert_eq!(size_of::<SetAttrIn>(), 88);
        assert_eq!(size_of::<CreateIn>(), 16);
        assert_eq!(size_of::<OpenOut>(), 16);
        assert_eq!(size_of::<CreateOut>(), 144);
        assert_eq!(size_of::<ReleaseIn>(), 24);
        assert_eq!(size_of::<LkIn>(), 48);
        assert_eq!(size_of::<LkOut>(), 24);
        assert_eq!(size_of::<FlushIn>(), 24);
        assert_eq!(size_of::<ReadIn>(), 40);
        assert_eq!(size_of::<WriteIn>(), 40);
        assert_eq!(size_of::<StatfsOut>(), 80);
        assert_eq!(size_of::<SetXattrIn>(), 16);
        assert_eq!(size_of::<IoctlIn>(), 32);
        assert_eq!(size_of::<FallocateIn>(), 32);
        assert_eq!(size_of::<LseekIn>(), 24);
        assert_eq!(size_of::<CopyFileRangeIn>(), 56);
        assert_eq!(size_of::<Dirent>(), 24);
        assert_eq!(size_of::<FsXattrData>(), 28);
    }
}
