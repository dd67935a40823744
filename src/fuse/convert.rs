//! Values of the union to structures of the protocol and back.

use crate::fuse::wire::abi::{
    self, Attr, AttrOut, EntryOut, FsXattrData, InHeader, OpenOut, SetAttrIn, StatfsOut, Statx,
    StatxOut, SxTime,
};
use crate::sys::fuse::{FMODE_EXEC, O_ACCMODE, O_APPEND, O_RDONLY, O_TRUNC};
use crate::types::{AttrChange, FsXattr, MODE_MASK, SetTime, Stat, StatFs, Time};
use crate::union::{Caller, Entry, OpenFlags, OpenMode, Opened};

/// How long the kernel may use an entry or attributes, and a file handle, without a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    secs: u64,
    nanos: u32,
    session: u32,
}

impl Lifetime {
    /// For ever: more than the kernel's clock of jiffies holds; the kernel cuts it off.
    pub const INFINITE: Self = Self { secs: u64::MAX / 4, nanos: 0, session: 0 };

    /// A number of seconds; `None`, or a number too large to count, is for ever.
    #[must_use]
    pub fn from_secs(secs: Option<f64>) -> Self {
        let duration = secs.map(|secs| std::time::Duration::try_from_secs_f64(secs.max(0.0)));
        match duration {
            Some(Ok(time)) if time.as_secs() < Self::INFINITE.secs => {
                Self { secs: time.as_secs(), nanos: time.subsec_nanos(), session: 0 }
            }
            _ => Self::INFINITE,
        }
    }

    /// This lifetime in the session with this number. The number is sent as the generation of every
    /// node, so that a file handle of another session, whose nodes have the same numbers, fails
    /// with `ESTALE`.
    #[must_use]
    pub const fn in_session(self, session: u32) -> Self {
        Self { session, ..self }
    }

    /// The number of the session.
    #[must_use]
    pub const fn session(self) -> u32 {
        self.session
    }

    /// The reply of [`Lifetime::entry`] with attributes that the kernel does not keep.
    #[must_use]
    pub fn entry_live(self, entry: &Entry) -> EntryOut {
        EntryOut { attr_valid: 0, attr_valid_nsec: 0, ..self.entry(entry) }
    }

    /// The kernel keeps nothing.
    pub const NONE: Self = Self { secs: 0, nanos: 0, session: 0 };

    /// The reply to LOOKUP and to operations that make an object.
    #[must_use]
    pub fn entry(self, entry: &Entry) -> EntryOut {
        EntryOut {
            nodeid: entry.node.0,
            generation: self.session.into(),
            attr: attr(&entry.stat),
            ..self.absent()
        }
    }

    /// The reply for a name that does not exist, which the kernel keeps like an entry.
    #[must_use]
    pub fn absent(self) -> EntryOut {
        EntryOut {
            entry_valid: self.secs,
            entry_valid_nsec: self.nanos,
            attr_valid: self.secs,
            attr_valid_nsec: self.nanos,
            ..Default::default()
        }
    }

    /// The reply to GETATTR and SETATTR.
    #[must_use]
    pub fn attr(self, stat: &Stat) -> AttrOut {
        AttrOut { attr_valid: self.secs, attr_valid_nsec: self.nanos, dummy: 0, attr: attr(stat) }
    }

    /// The reply to STATX.
    #[must_use]
    pub fn statx(self, stat: &Stat) -> StatxOut {
        StatxOut {
            attr_valid: self.secs,
            attr_valid_nsec: self.nanos,
            stat: statx(stat),
            ..Default::default()
        }
    }
}

/// The kernel takes 32 bits of a device number: 12 bits of major and 20 of minor, laid out as in
/// the low half of the C library's encoding.
#[allow(clippy::cast_possible_truncation)]
const fn device(rdev: u64) -> u32 {
    rdev as u32
}

fn attr(stat: &Stat) -> Attr {
    Attr {
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: stat.atime.secs,
        mtime: stat.mtime.secs,
        ctime: stat.ctime.secs,
        atimensec: stat.atime.nanos,
        mtimensec: stat.mtime.nanos,
        ctimensec: stat.ctime.nanos,
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: device(stat.rdev),
        blksize: stat.blksize,
        flags: 0,
    }
}

fn statx(stat: &Stat) -> Statx {
    let birth = stat.btime.map_or(0, |_| abi::STATX_BTIME);
    let rdev = device(stat.rdev);
    Statx {
        mask: abi::STATX_BASIC_STATS | birth,
        blksize: stat.blksize,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        mode: (stat.mode & 0xffff) as u16,
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: sx_time(stat.atime),
        btime: sx_time(stat.btime.unwrap_or_default()),
        ctime: sx_time(stat.ctime),
        mtime: sx_time(stat.mtime),
        rdev_major: (rdev >> 8) & 0xfff,
        rdev_minor: (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
        ..Default::default()
    }
}

const fn sx_time(time: Time) -> SxTime {
    SxTime { tv_sec: time.secs, tv_nsec: time.nanos, reserved: 0 }
}

/// The reply to OPEN. FLUSH is needed only where it releases locks: a write is in the backing file
/// before its reply is sent. `FOPEN_KEEP_CACHE` may not accompany passthrough.
#[must_use]
pub const fn open(opened: Opened, locks: bool) -> OpenOut {
    let (how, backing_id) = match opened.mode {
        OpenMode::Cached { keep_cache: true } => (abi::FOPEN_KEEP_CACHE, 0),
        OpenMode::Cached { keep_cache: false } => (0, 0),
        OpenMode::Direct => (abi::FOPEN_DIRECT_IO, 0),
        OpenMode::Passthrough { backing_id } => (abi::FOPEN_PASSTHROUGH, backing_id),
    };
    let flush = if locks { 0 } else { abi::FOPEN_NOFLUSH };
    OpenOut { fh: opened.fh, open_flags: flush | how, backing_id }
}

/// The reply to STATFS.
#[must_use]
pub fn statfs(stat: &StatFs) -> StatfsOut {
    StatfsOut {
        blocks: stat.blocks,
        bfree: stat.bfree,
        bavail: stat.bavail,
        files: stat.files,
        ffree: stat.ffree,
        bsize: stat.bsize,
        namelen: stat.namelen,
        frsize: stat.frsize,
        ..Default::default()
    }
}

/// The change that SETATTR requests. The change time of the request is ignored: it follows from the
/// change.
#[must_use]
pub fn change(arg: &SetAttrIn) -> AttrChange {
    let asked = |bit| arg.valid & bit != 0;
    let time = |bit, now, secs, nanos| match (asked(bit), asked(now)) {
        (false, _) => None,
        (true, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::At(Time { secs, nanos })),
    };
    AttrChange {
        mode: asked(abi::FATTR_MODE).then_some(arg.mode & MODE_MASK),
        uid: asked(abi::FATTR_UID).then_some(arg.uid),
        gid: asked(abi::FATTR_GID).then_some(arg.gid),
        size: asked(abi::FATTR_SIZE).then_some(arg.size),
        atime: time(abi::FATTR_ATIME, abi::FATTR_ATIME_NOW, arg.atime, arg.atimensec),
        mtime: time(abi::FATTR_MTIME, abi::FATTR_MTIME_NOW, arg.mtime, arg.mtimensec),
    }
}

/// The flags of OPEN, from those of open(2) and of FUSE.
#[must_use]
pub const fn open_flags(flags: u32, fuse_flags: u32) -> OpenFlags {
    OpenFlags {
        write: flags & O_ACCMODE != O_RDONLY,
        truncate: flags & O_TRUNC != 0,
        append: flags & O_APPEND != 0,
        execute: flags & FMODE_EXEC != 0,
        kill_priv: fuse_flags & abi::OPEN_KILL_SUIDGID != 0,
    }
}

/// The caller of a request.
#[must_use]
pub const fn caller(header: &InHeader, umask: u32) -> Caller {
    Caller { uid: header.uid, gid: header.gid, pid: header.pid, umask }
}

/// The data of FS_IOC_FSGETXATTR.
#[must_use]
pub fn fsxattr_out(value: &FsXattr) -> FsXattrData {
    FsXattrData {
        xflags: value.xflags,
        extsize: value.extsize,
        nextents: value.nextents,
        projid: value.projid,
        cowextsize: value.cowextsize,
        pad: [0; 8],
    }
}

/// The data of FS_IOC_FSSETXATTR.
#[must_use]
pub const fn fsxattr_in(data: &FsXattrData) -> FsXattr {
    FsXattr {
        xflags: data.xflags,
        extsize: data.extsize,
        nextents: data.nextents,
        projid: data.projid,
        cowextsize: data.cowextsize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    #[test]
    fn passthrough_never_keeps_the_cache() {
        let through = OpenMode::Passthrough { backing_id: 6 };
        let out = open(Opened { fh: 3, mode: through }, false);
        assert_eq!((out.fh, out.backing_id), (3, 6));
        assert_eq!(out.open_flags, abi::FOPEN_PASSTHROUGH | abi::FOPEN_NOFLUSH);
        let out = open(Opened { fh: 3, mode: OpenMode::Cached { keep_cache: true } }, false);
        assert_eq!(out.open_flags, abi::FOPEN_KEEP_CACHE | abi::FOPEN_NOFLUSH);
        let out = open(Opened { fh: 3, mode: OpenMode::Direct }, true);
        assert_eq!(out.open_flags, abi::FOPEN_DIRECT_IO);
    }

    #[test]
    fn setattr_takes_times_before_1970_and_now() {
        let change = change(&SetAttrIn {
            valid: abi::FATTR_ATIME | abi::FATTR_MTIME | abi::FATTR_MTIME_NOW | abi::FATTR_MODE,
            atime: -5,
            atimensec: 7,
            mode: 0o104_755,
            size: 99,
            ..Default::default()
        });
        assert_eq!(change.atime, Some(SetTime::At(Time { secs: -5, nanos: 7 })));
        assert_eq!(change.mtime, Some(SetTime::Now));
        assert_eq!((change.mode, change.size, change.uid), (Some(0o4755), None, None));
    }

    #[test]
    fn lifetimes_are_finite_only_when_asked() {
        assert_eq!(Lifetime::from_secs(None), Lifetime::INFINITE);
        assert_eq!(Lifetime::from_secs(Some(f64::INFINITY)), Lifetime::INFINITE);
        assert_eq!(Lifetime::from_secs(Some(1e300)), Lifetime::INFINITE);
        assert_eq!(Lifetime::from_secs(Some(-1.0)), Lifetime::NONE);
        let lifetime = Lifetime::from_secs(Some(1.5));
        assert_eq!(lifetime, Lifetime { secs: 1, nanos: 500_000_000, session: 0 });
        let entry = Entry { node: NodeId(4), stat: Stat { ino: 9, ..Default::default() } };
        let out = lifetime.entry(&entry);
        assert_eq!((out.nodeid, out.attr.ino, out.entry_valid), (4, 9, 1));
        assert_eq!((out.attr_valid_nsec, lifetime.absent().nodeid), (500_000_000, 0));
    }

    #[test]
    fn statx_splits_the_device_number() {
        let rdev = 0x0123_4567_u64; // major 0x345, minor 0x01267
        let out = statx(&Stat { rdev, btime: Some(Time::default()), ..Default::default() });
        assert_eq!((out.rdev_major, out.rdev_minor), (0x345, 0x01267));
        assert_eq!(out.mask, 0xfff);
        assert_eq!(statx(&Stat::default()).mask, 0x7ff);
    }
}
