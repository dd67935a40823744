//! Rows in the table of libmount, `/run/mount/utab`, for umount(8) by root.
//!
//! umount(8) asks statfs(2) for the type of a mount, gets `fuse`, and calls no helper. If the table
//! has a row for the mount point, umount(8) reads the type from the kernel's mount table instead
//! (`has_utab_entry()` in libmount/src/context_umount.c of util-linux). That type is `fuse.lamina`,
//! so it calls the helper `umount.fuse.lamina`, which takes bound grafts down with the mount.
//!
//! A row has only `TARGET` and `ATTRS`. Without `SRC`, libmount neither merges the row with a mount
//! nor takes it for the row that mount(8) writes. `ATTRS` is free for applications. Lamina stores
//! the daemon, the file system and the mounts of the grafts there, to distinguish the grafts of a
//! killed daemon from other mounts beneath.
//!
//! The table is replaced by rename(2) under the lock of libmount; rows of other programs stay as
//! they are. A stale row does no harm: umount(8) only looks into the mount table without a result.
//! No failure here fails the mount.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{holders, mounts};
use crate::error::{Errno, Error};
use crate::sys::file::{self, OFlags};
use crate::sys::process::Watched;

/// The directory of the table. libmount creates it; if it is missing, no program reads the table.
const DIR: &str = "/run/mount";
const TABLE: &str = "utab";
const LOCK: &str = "utab.lock";
/// The new table. Only the holder of the lock writes it.
const NEXT: &str = "utab.lamina";
/// The mode of the table and of its lock, as in libmount.
const MODE: u32 = 0o644;
/// The time limit for the lock, which libmount holds while it writes the table.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// A row of Lamina.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The mount point.
    pub(super) target: PathBuf,
    /// The process id of the daemon.
    pub(super) pid: u32,
    /// The number of the file system, `MAJOR:MINOR`.
    pub(super) device: String,
    /// The mounts of its grafts.
    pub(super) grafts: Vec<Bound>,
}

/// The mount of a graft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// The number of the mount.
    pub(super) mount: u64,
    /// Whether the mounts beneath it belong to the graft.
    pub(super) recursive: bool,
}

/// The row of a mount of this process, removed on drop.
#[derive(Debug)]
pub(super) struct Entry(Row);

impl Drop for Entry {
    fn drop(&mut self) {
        let is_own = |row: &Row| (row.pid, &row.device) == (self.0.pid, &self.0.device);
        log(change(Path::new(DIR), |row| is_own(row) || is_stale(row), None));
    }
}

/// Writes the row of a mount of this process, and removes stale ones. Returns `None` if the table
/// cannot be written.
pub(super) fn enter(target: &Path, device: &str, grafts: Vec<Bound>) -> Option<Entry> {
    // A table inside the mount ends with it, and the daemon would wait for itself.
    if Path::new(DIR).starts_with(target) {
        return None;
    }
    let (target, device, pid) = (target.to_owned(), device.to_owned(), std::process::id());
    let row = Row { target, pid, device, grafts };
    // The number of the file system is now ours, whichever mount had it before.
    let is_old = |other: &Row| other.device == row.device || is_stale(other);
    log(change(Path::new(DIR), is_old, Some(&row))).then_some(Entry(row))
}

/// Finds the row of a file system.
pub(super) fn of(device: &str) -> Option<Row> {
    let table = read(open_dir(Path::new(DIR)).ok()?.as_fd()).ok()?.0;
    lines(&table).filter_map(Row::parse).find(|row| row.device == device)
}

/// Removes the rows of mounts that are gone and whose daemons have ended.
pub(super) fn sweep() {
    let dir = Path::new(DIR);
    let stale = open_dir(dir)
        .and_then(|dir| read(dir.as_fd()))
        .map(|(table, _)| lines(&table).filter_map(Row::parse).any(|row| is_stale(&row)));
    if stale.is_ok_and(|stale| stale) {
        log(change(dir, is_stale, None));
    }
}

/// Logs an error. Returns whether there was none.
fn log(done: io::Result<()>) -> bool {
    done.inspect_err(|error| tracing::debug!(%error, "the table of libmount stays as it is"))
        .is_ok()
}

fn is_stale(row: &Row) -> bool {
    !row.is_served() && holders::mounts_of(&row.device).is_empty()
}

impl Row {
    /// Whether the daemon, or a process that got its number since, is running.
    pub(super) fn is_served(&self) -> bool {
        Watched::open(self.pid).is_ok_and(|daemon| !daemon.ends_within(Duration::ZERO))
    }

    /// The graft with this mount.
    pub(super) fn graft(&self, mount: u64) -> Option<&Bound> {
        self.grafts.iter().find(|graft| graft.mount == mount)
    }

    /// Formats the row as a line of the table.
    fn line(&self) -> Vec<u8> {
        let mut line = b"TARGET=".to_vec();
        for byte in self.target.as_os_str().as_bytes() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => line.extend(format!("\\{byte:03o}").bytes()),
                byte => line.push(*byte),
            }
        }
        line.extend(format!(" ATTRS=lamina={}:{}", self.pid, self.device).bytes());
        for graft in &self.grafts {
            let word = if graft.recursive { "rbind" } else { "bind" };
            line.extend(format!(",{word}={}", graft.mount).bytes());
        }
        line.push(b'\n');
        line
    }

    /// Parses a line of the table. Returns `None` for a line of another program.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\n'));
        let target = fields.clone().find_map(|field| field.strip_prefix(b"TARGET="))?;
        let target = PathBuf::from(std::ffi::OsString::from_vec(mounts::unescape(target)));
        let words = fields.find_map(|field| field.strip_prefix(b"ATTRS="))?;
        let mut words = std::str::from_utf8(words).ok()?.split(',');
        let (pid, device) = words.next()?.strip_prefix("lamina=")?.split_once(':')?;
        let graft = |word: &str| {
            let (kind, mount) = word.split_once('=')?;
            Some(Bound { mount: mount.parse().ok()?, recursive: kind == "rbind" })
        };
        let grafts = words.filter_map(graft).collect();
        Some(Self { target, pid: pid.parse().ok()?, device: device.to_owned(), grafts })
    }
}

/// The lines of a table, with their line ends.
fn lines(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    table.split_inclusive(|byte| *byte == b'\n')
}

fn refused(error: Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno().0)
}

fn open_dir(dir: &Path) -> io::Result<std::os::fd::OwnedFd> {
    file::open_path(dir, OFlags::RDONLY | OFlags::DIRECTORY).map_err(refused)
}

/// A user and a group.
type Owner = (u32, u32);

/// Reads the table and its owner. A missing table is empty.
fn read(dir: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<Owner>)> {
    let mut file = match file::openat(dir, TABLE.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(error) if error.is(Errno::NOENT) => return Ok((Vec::new(), None)),
        file => File::from(file.map_err(refused)?),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut table = Vec::new();
    file.read_to_end(&mut table)?;
    Ok((table, Some((meta.uid(), meta.gid()))))
}

/// Removes the rows of Lamina for which `is_old` returns true, and adds one.
fn change(dir: &Path, is_old: impl Fn(&Row) -> bool, add: Option<&Row>) -> io::Result<()> {
    let fd = open_dir(dir)?;
    let _lock = lock(fd.as_fd())?;
    let (old, owner) = read(fd.as_fd())?;
    let stays = |line: &&[u8]| !Row::parse(line).is_some_and(|row| is_old(&row));
    let mut new: Vec<u8> = lines(&old).filter(stays).flatten().copied().collect();
    if let Some(row) = add {
        if new.last().is_some_and(|byte| *byte != b'\n') {
            new.push(b'\n');
        }
        new.extend(row.line());
    }
    if new == old {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let next = file::openat_with_mode(fd.as_fd(), NEXT.as_bytes(), flags, MODE);
    let mut next = File::from(next.map_err(refused)?);
    let written = (|| {
        next.write_all(&new)?;
        next.set_permissions(Permissions::from_mode(MODE))?;
        if let Some((user, group)) = owner {
            fchown(&next, Some(user), Some(group))?;
        }
        fs::rename(dir.join(NEXT), dir.join(TABLE))
    })();
    if written.is_err() {
        drop(fs::remove_file(dir.join(NEXT)));
    }
    written
}

/// Takes the lock of the table, as libmount does.
fn lock(dir: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CREATE;
    let lock = file::openat_with_mode(dir, LOCK.as_bytes(), flags, MODE).map_err(refused)?;
    let lock = File::from(lock);
    if lock.metadata()?.permissions().mode() & MODE != MODE {
        lock.set_permissions(Permissions::from_mode(MODE))?;
    }
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match file::try_flock(lock.as_fd()) {
            Err(error) if error.is(Errno::AGAIN) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            locked => return locked.map(|()| lock).map_err(refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: &str, pid: u32) -> Row {
        let grafts =
            vec![Bound { mount: 812, recursive: false }, Bound { mount: 813, recursive: true }];
        Row { target: PathBuf::from(target), pid, device: "0:53".to_owned(), grafts }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = row("/mnt/a b\\c", 4711);
        let line = row.line();
        let text = "TARGET=/mnt/a\\040b\\134c ATTRS=lamina=4711:0:53,bind=812,rbind=813\n";
        assert_eq!(String::from_utf8_lossy(&line), text);
        assert_eq!(Row::parse(&line), Some(row.clone()));
        // libmount writes a blank after the last field.
        let again = text.replace('\n', " \n");
        assert_eq!(Row::parse(again.as_bytes()), Some(row));
        for other in ["SRC=a TARGET=/b ROOT=/ OPTS=user=me\n", "TARGET=/b ATTRS=x=1\n", "\n", ""] {
            assert_eq!(Row::parse(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn rows_of_others_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join(TABLE);
        let others = "SRC=/dev/a TARGET=/a ROOT=/ OPTS=_netdev\n# a comment\nSRC=b TARGET=/m";
        fs::write(&table, others).unwrap();
        let (one, two) = (row("/m", 1), row("/n", 2));
        change(dir.path(), |_| false, Some(&one)).unwrap();
        change(dir.path(), |_| false, Some(&two)).unwrap();
        let read = fs::read_to_string(&table).unwrap();
        assert!(read.starts_with(&format!("{others}\n")), "{read}");
        let rows = |read: &str| read.lines().filter_map(|line| Row::parse(line.as_bytes())).count();
        assert_eq!(rows(&read), 2);
        change(dir.path(), |row| row.pid == 1, None).unwrap();
        let read = fs::read_to_string(&table).unwrap();
        assert!(rows(&read) == 1 && read.contains("TARGET=/n "), "{read}");
        change(dir.path(), |_| true, None).unwrap();
        assert_eq!(fs::read_to_string(&table).unwrap(), format!("{others}\n"));
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode(TABLE), mode(LOCK)), (MODE, MODE));
        assert!(!dir.path().join(NEXT).exists());
    }

    #[test]
    fn no_table_is_made_where_libmount_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("mount");
        assert!(change(&missing, |_| false, Some(&row("/m", 1))).is_err());
        assert!(!missing.exists());
        // A symbolic link may lead anywhere.
        std::os::unix::fs::symlink("/nowhere", dir.path().join(TABLE)).unwrap();
        assert!(change(dir.path(), |_| false, Some(&row("/m", 1))).is_err());
        assert!(fs::symlink_metadata(dir.path().join(TABLE)).unwrap().is_symlink());
    }

    #[test]
    fn a_mount_over_the_table_has_no_row() {
        for target in ["/", "/run", DIR] {
            assert!(enter(Path::new(target), "0:0", Vec::new()).is_none(), "{target}");
        }
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        let held = lock(fd.as_fd()).unwrap();
        let start = Instant::now();
        assert!(change(dir.path(), |_| false, Some(&row("/m", 1))).is_err());
        assert!(start.elapsed() >= LOCK_WITHIN);
        drop(held);
        change(dir.path(), |_| false, Some(&row("/m", 1))).unwrap();
    }
}
