//! System calls as a program makes them, and the scripts that run against each other.

use laminafs::error::Errno;
use laminafs::types::{AttrChange, NodeId, RenameFlags, SetTime, Time, XattrFlags};
use laminafs::union::OpenFlags;

use super::kernel::{Answer, CALLER, Handle, Kernel, Pins};

/// The flags of a rename.
#[derive(Clone, Copy)]
pub enum How {
    Over,
    Exchange,
    NoReplace,
}

/// The mode in which a file is opened.
#[derive(Clone, Copy)]
pub enum Mode {
    Read,
    Write,
    Truncate,
}

/// The number of retries of a program.
const RETRIES: usize = 3;

/// One system call.
#[derive(Clone, Copy)]
pub enum Sys {
    /// Takes over a file that was already open.
    Held(usize),
    Open(&'static str, Mode),
    Create(&'static str),
    Tmpfile(&'static str),
    Pwrite(u64, &'static str),
    Append(&'static str),
    Read,
    Fstat,
    Ftruncate(u64),
    Fsync,
    Fallocate(u64),
    LinkOpen(&'static str),
    Close,
    Chmod(&'static str, u32),
    Chown(&'static str, u32),
    Utimes(&'static str, i64),
    Truncate(&'static str, u64),
    SetXattr(&'static str, &'static str),
    RemoveXattr(&'static str, &'static str),
    GetXattr(&'static str, &'static str),
    Link(&'static str, &'static str),
    Unlink(&'static str),
    Rename(&'static str, &'static str, How),
    Mkdir(&'static str),
    Rmdir(&'static str),
    Stat(&'static str),
    List(&'static str, bool),
    Prune,
}

/// The calls of one program, under a short name.
#[derive(Clone)]
pub struct Script {
    pub name: &'static str,
    pub calls: Vec<Sys>,
}

/// A program.
#[derive(Default)]
pub struct Program {
    pub answers: Vec<String>,
    file: Option<Handle>,
}

/// A short form of content: its head, its length and a sum.
pub fn brief(data: &[u8]) -> String {
    let head: String = String::from_utf8_lossy(&data[..data.len().min(12)]).replace('\0', ".");
    let sum = data.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(*byte));
    format!("{head}:{}:{sum:x}", data.len())
}

impl Program {
    /// Makes one call and records its result.
    pub fn run(&mut self, kernel: &Kernel, held: &std::sync::Mutex<Vec<Option<Handle>>>, sys: Sys) {
        let mut done = self.call(kernel, held, sys, false);
        // A path may lead to a file that loses its last name before it is linked: link(2) then
        // returns ENOENT on every file system. A program tries again.
        for _ in 0..RETRIES {
            match (&done, sys) {
                (Err(Errno::NOENT), Sys::Link(..)) => {}
                _ => break,
            }
            done = self.call(kernel, held, sys, false);
        }
        let by_path = !matches!(sys, Sys::Read | Sys::Fstat | Sys::Ftruncate(_) | Sys::Pwrite(..));
        if by_path && done == Err(Errno::STALE) {
            // Like `retry_estale()` in fs/namei.c.
            kernel.log(|| "  again, since ESTALE".to_owned());
            done = self.call(kernel, held, sys, true);
        }
        if done == Err(Errno::STALE) {
            kernel.wrongs.note(format!("ESTALE from {}", word(sys)));
        }
        self.answers.push(match done {
            Ok(text) => text,
            Err(errno) => format!("{errno:?}"),
        });
    }

    fn call(
        &mut self,
        kernel: &Kernel,
        held: &std::sync::Mutex<Vec<Option<Handle>>>,
        sys: Sys,
        again: bool,
    ) -> Answer<String> {
        let pins = Pins::new(kernel);
        match sys {
            Sys::Held(slot) => self.file = held.lock().unwrap()[slot].take(),
            Sys::Open(path, mode) => {
                let node = kernel.walk(&pins, path, again)?;
                self.file = Some(kernel.open(node, open_flags(mode))?);
            }
            Sys::Create(path) => {
                let at = kernel.walk_parent(&pins, path, again)?;
                let file = kernel.in_dir(&pins, at, |found| match found {
                    Some(_) => Err(Errno::EXIST),
                    None => kernel.create(&pins, at),
                })?;
                self.file = Some(file);
            }
            Sys::Tmpfile(path) => {
                let dir = kernel.walk(&pins, path, again)?;
                self.file = Some(kernel.tmpfile(&pins, dir)?);
            }
            Sys::Close => {
                if let Some(file) = self.file.take() {
                    kernel.close(file);
                }
            }
            Sys::Prune => kernel.prune(),
            Sys::Pwrite(..)
            | Sys::Append(_)
            | Sys::Read
            | Sys::Fstat
            | Sys::Ftruncate(_)
            | Sys::Fsync
            | Sys::Fallocate(_)
            | Sys::LinkOpen(_) => {
                return self.on_file(kernel, &pins, sys);
            }
            _ => return on_path(kernel, &pins, sys, again),
        }
        Ok("ok".to_owned())
    }

    fn on_file(&mut self, kernel: &Kernel, pins: &Pins<'_>, sys: Sys) -> Answer<String> {
        let Some(file) = &self.file else { return Ok("no file".to_owned()) };
        let node = file.node;
        match sys {
            Sys::Pwrite(at, data) => kernel.write(file, data.as_bytes(), Some(at))?,
            Sys::Append(data) => kernel.write(file, data.as_bytes(), None)?,
            Sys::Read => return Ok(brief(&kernel.read(file)?)),
            Sys::Fstat => return stat(kernel, node),
            Sys::Ftruncate(size) => set(kernel, node, AttrChange { size: Some(size), ..CHANGE })?,
            Sys::Fsync => kernel.change(node, "FSYNC", || kernel.union.fsync(node, false))?,
            Sys::Fallocate(len) => kernel.change(node, "FALLOCATE", || {
                kernel.union.fallocate(node, 0, 0, len, laminafs::union::Kill::Nothing)
            })?,
            Sys::LinkOpen(path) => link(kernel, pins, node, (path, false))?,
            _ => {}
        }
        Ok("ok".to_owned())
    }

    /// The open file.
    pub fn take(&mut self) -> Option<Handle> {
        self.file.take()
    }

    /// Closes what the script left open.
    pub fn end(&mut self, kernel: &Kernel) {
        if let Some(file) = self.file.take() {
            kernel.close(file);
        }
    }
}

const CHANGE: AttrChange =
    AttrChange { mode: None, uid: None, gid: None, size: None, atime: None, mtime: None };

fn open_flags(mode: Mode) -> OpenFlags {
    OpenFlags {
        write: matches!(mode, Mode::Write | Mode::Truncate),
        truncate: matches!(mode, Mode::Truncate),
        ..OpenFlags::default()
    }
}

fn word(sys: Sys) -> &'static str {
    match sys {
        Sys::Open(_, Mode::Read) => "open for reading",
        Sys::Open(..) => "open for writing",
        Sys::Create(_) => "create",
        Sys::Tmpfile(_) => "open without a name",
        Sys::Pwrite(..) | Sys::Append(_) => "write",
        Sys::Read => "read",
        Sys::Fstat | Sys::Stat(_) => "stat",
        Sys::Ftruncate(_) | Sys::Truncate(..) => "truncate",
        Sys::Fsync => "fsync",
        Sys::Fallocate(_) => "fallocate",
        Sys::LinkOpen(_) | Sys::Link(..) => "link",
        Sys::Chmod(..) | Sys::Chown(..) | Sys::Utimes(..) => "chmod",
        Sys::SetXattr(..) | Sys::RemoveXattr(..) | Sys::GetXattr(..) => "xattr",
        Sys::Unlink(_) => "unlink",
        Sys::Rename(..) => "rename",
        Sys::Mkdir(_) => "mkdir",
        Sys::Rmdir(_) => "rmdir",
        Sys::List(..) => "readdir",
        Sys::Held(_) | Sys::Close | Sys::Prune => "close",
    }
}

fn set(kernel: &Kernel, node: NodeId, change: AttrChange) -> Answer<()> {
    kernel.change(node, "SETATTR", || kernel.union.setattr(node, &change, false)).map(drop)
}

fn stat(kernel: &Kernel, node: NodeId) -> Answer<String> {
    let stat = kernel.plain(node, "GETATTR", || kernel.union.getattr(node))?;
    let dir = stat.kind() == laminafs::types::Kind::Dir;
    let (nlink, size) = if dir { (1, 0) } else { (stat.nlink, stat.size) };
    Ok(format!("{:o} {}:{} n{nlink} s{size}", stat.mode, stat.uid, stat.gid))
}

fn link(kernel: &Kernel, pins: &Pins<'_>, node: NodeId, to: (&str, bool)) -> Answer<()> {
    let at = kernel.walk_parent(pins, to.0, to.1)?;
    kernel.in_dir(pins, at, |found| {
        if found.is_some() {
            return Err(Errno::EXIST);
        }
        let what = format!("LINK to {}", to.0);
        let entry =
            kernel.change(node, &what, || kernel.union.link(node, at.0, at.1.as_bytes()))?;
        kernel.made(pins, at, &entry);
        Ok(())
    })
}

fn on_path(kernel: &Kernel, pins: &Pins<'_>, sys: Sys, again: bool) -> Answer<String> {
    let walk = |path: &str| kernel.walk(pins, path, again);
    let parent = |path: &'static str| kernel.walk_parent(pins, path, again);
    match sys {
        Sys::Chmod(path, mode) => {
            set(kernel, walk(path)?, AttrChange { mode: Some(mode), ..CHANGE })?
        }
        Sys::Chown(path, uid) => {
            set(kernel, walk(path)?, AttrChange { uid: Some(uid), gid: Some(uid), ..CHANGE })?;
        }
        Sys::Utimes(path, secs) => {
            let time = Some(SetTime::At(Time { secs, nanos: 0 }));
            set(kernel, walk(path)?, AttrChange { atime: time, mtime: time, ..CHANGE })?;
        }
        Sys::Truncate(path, size) => {
            set(kernel, walk(path)?, AttrChange { size: Some(size), ..CHANGE })?;
        }
        Sys::SetXattr(path, key) => {
            let (node, flags) = (walk(path)?, XattrFlags::default());
            kernel.change(node, "SETXATTR", || {
                kernel.union.setxattr(node, key.as_bytes(), b"set", flags, false)
            })?;
        }
        Sys::RemoveXattr(path, key) => {
            let node = walk(path)?;
            kernel
                .change(node, "REMOVEXATTR", || kernel.union.removexattr(node, key.as_bytes()))?;
        }
        Sys::GetXattr(path, key) => {
            let node = walk(path)?;
            let value =
                kernel.plain(node, "GETXATTR", || kernel.union.getxattr(node, key.as_bytes()))?;
            return Ok(brief(&value));
        }
        Sys::Link(path, to) => link(kernel, pins, walk(path)?, (to, again))?,
        Sys::Unlink(path) => kernel.remove(pins, parent(path)?, false)?,
        Sys::Rmdir(path) => kernel.remove(pins, parent(path)?, true)?,
        Sys::Rename(from, to, how) => {
            let flags = RenameFlags {
                noreplace: matches!(how, How::NoReplace),
                exchange: matches!(how, How::Exchange),
                whiteout: false,
            };
            kernel.rename(pins, parent(from)?, parent(to)?, flags)?;
        }
        Sys::Mkdir(path) => {
            let at = parent(path)?;
            kernel.in_dir(pins, at, |found| {
                if found.is_some() {
                    return Err(Errno::EXIST);
                }
                let make = || kernel.union.mkdir(&CALLER, at.0, at.1.as_bytes(), 0o755);
                let entry = kernel.plain(at.0, "MKDIR", make)?;
                kernel.made(pins, at, &entry);
                Ok(())
            })?;
        }
        Sys::Stat(path) => {
            let text = stat(kernel, walk(path)?)?;
            // Between the path walk and the stat a name may appear or go, even the last one.
            // Without an index, a copy-up alone separates a file from its other names.
            let links = |word: &&str| !word.starts_with('n');
            return Ok(text.split(' ').filter(links).collect::<Vec<_>>().join(" "));
        }
        Sys::List(path, plus) => return Ok(kernel.list(pins, walk(path)?, plus)?.join(" ")),
        _ => {}
    }
    Ok("ok".to_owned())
}
