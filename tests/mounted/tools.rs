//! Helpers that keep the cases short.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// A user without privilege, and its group.
pub const USER: u32 = 41_001;
/// A second user.
pub const OTHER: u32 = 41_002;

/// Writes a whole file.
#[track_caller]
pub fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::write(path.as_ref(), bytes).unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()));
}

/// Reads a whole file.
#[track_caller]
pub fn get(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()))
}

/// Makes a directory and its parents.
#[track_caller]
pub fn dir(path: impl AsRef<Path>) {
    fs::create_dir_all(path.as_ref())
        .unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()));
}

/// Appends to a file.
#[track_caller]
pub fn append(path: impl AsRef<Path>, bytes: &[u8]) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().append(true).open(path.as_ref()).expect("opens");
    file.write_all(bytes).expect("appends");
}

/// The result of `lstat`.
#[track_caller]
pub fn stat(path: impl AsRef<Path>) -> Stat {
    try_stat(path.as_ref()).unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()))
}

/// The result of `lstat`, or its errno.
pub fn try_stat(path: impl AsRef<Path>) -> rustix::io::Result<Stat> {
    rustix::fs::statat(CWD, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Permission bits of a path.
#[track_caller]
pub fn mode(path: impl AsRef<Path>) -> u32 {
    stat(path).st_mode & 0o7777
}

/// Sets the permission bits of a path.
#[track_caller]
pub fn chmod(path: impl AsRef<Path>, bits: u32) {
    fs::set_permissions(path.as_ref(), fs::Permissions::from_mode(bits))
        .unwrap_or_else(|error| panic!("chmod {:?}: {error}", path.as_ref()));
}

/// Sets owner and group of a path, not following a link.
#[track_caller]
pub fn chown(path: impl AsRef<Path>, user: u32, group: u32) {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    rustix::fs::chownat(CWD, path.as_ref(), user, group, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|error| panic!("chown {:?}: {error}", path.as_ref()));
}

/// Whether a name exists.
#[track_caller]
pub fn exists(path: impl AsRef<Path>) -> bool {
    match try_stat(path.as_ref()) {
        Ok(_) => true,
        Err(Errno::NOENT) => false,
        Err(error) => panic!("{:?}: {error}", path.as_ref()),
    }
}

/// Opens with flags; a new file gets mode 0644.
pub fn open(path: impl AsRef<Path>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path.as_ref(), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
}

/// The names of a directory, sorted.
#[track_caller]
pub fn names(path: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path.as_ref())
        .unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()))
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Asserts that a call failed with exactly this errno.
#[track_caller]
pub fn fails<T>(result: rustix::io::Result<T>, errno: Errno) {
    match result {
        Ok(_) => panic!("succeeded, expected {errno:?}"),
        Err(found) => assert_eq!(found, errno),
    }
}

/// Asserts that a call of std failed with exactly this errno.
#[track_caller]
pub fn fails_io<T>(result: io::Result<T>, errno: Errno) {
    match result {
        Ok(_) => panic!("succeeded, expected {errno:?}"),
        Err(found) => assert_eq!(found.raw_os_error(), Some(errno.raw_os_error()), "{found}"),
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited too long: {what}");
        std::thread::yield_now();
    }
}

/// `rename(2)`.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> rustix::io::Result<()> {
    rustix::fs::renameat(CWD, from.as_ref(), CWD, to.as_ref())
}

/// `link(2)`.
pub fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> rustix::io::Result<()> {
    rustix::fs::linkat(CWD, from.as_ref(), CWD, to.as_ref(), AtFlags::empty())
}

/// `mknod(2)`.
pub fn mknod(
    path: impl AsRef<Path>,
    kind: FileType,
    major: u32,
    minor: u32,
) -> rustix::io::Result<()> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path.as_ref(), kind, Mode::from_raw_mode(0o644), device)
}

/// Sets an extended attribute, not following a link.
pub fn set_xattr(path: impl AsRef<Path>, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(path.as_ref(), name, value, rustix::fs::XattrFlags::empty())
}

/// Reads an extended attribute, not following a link.
pub fn xattr(path: impl AsRef<Path>, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0u8; 65_536];
    let len = rustix::fs::lgetxattr(path.as_ref(), name, value.as_mut_slice())?;
    value.truncate(len);
    Ok(value)
}

/// The names of all extended attributes, sorted.
#[track_caller]
pub fn xattr_names(path: impl AsRef<Path>) -> Vec<String> {
    let mut list = vec![0u8; 65_536];
    let len = rustix::fs::llistxattr(path.as_ref(), list.as_mut_slice()).expect("lists");
    let mut names: Vec<String> = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    names
}

/// Runs `work` as a user without privilege, in its own thread.
pub fn as_user<T: Send>(user: u32, work: impl FnOnce() -> T + Send) -> T {
    as_ids(user, user, &[user], work)
}

/// Runs `work` with a user, a group and further groups, in its own thread.
pub fn as_ids<T: Send>(
    user: u32,
    group: u32,
    groups: &[u32],
    work: impl FnOnce() -> T + Send,
) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::thread::set_thread_groups(&groups).expect("setgroups");
            rustix::thread::set_thread_res_gid(group, group, group).expect("setresgid");
            rustix::thread::set_thread_res_uid(user, user, user).expect("setresuid");
            work()
        });
        match worker.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Drops the caches of the kernel: names, inodes and their pages.
pub fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drops caches");
}

/// Clears the immutable and append-only flags of a tree so that it can be removed.
pub fn make_removable(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if !(meta.is_dir() || meta.is_file()) {
        return;
    }
    if let Ok(file) = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
    {
        let fixed = rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::APPEND;
        if flags.intersects(fixed) && rustix::fs::ioctl_setflags(&file, flags - fixed).is_err() {
            eprintln!("cannot clear the flags of {}", path.display());
        }
    }
    if meta.is_dir() && meta.nlink() > 0 {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            make_removable(&entry.path());
        }
    }
}

/// Bytes that differ from position to position.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// The output of `lamina status` for the mount, as JSON.
pub fn status(s: &crate::harness::Site) -> String {
    let output = std::process::Command::new(crate::harness::program())
        .args(["status", "--json"])
        .output()
        .unwrap();
    let all = String::from_utf8(output.stdout).unwrap();
    let target = format!("\"target\": \"{}\"", s.mnt().display());
    let (_, own) = all.split_once(&target).expect("the mount answers");
    own.split_once("\"target\"").map_or(own, |(own, _)| own).to_owned()
}

/// A number in that output.
pub fn number(status: &str, key: &str) -> u64 {
    let (_, rest) = status.split_once(&format!("\"{key}\": ")).unwrap();
    rest.split(|end: char| !end.is_ascii_digit()).next().unwrap().parse().unwrap()
}
