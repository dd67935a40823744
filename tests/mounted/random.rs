//! The same random operations on a plain directory, on the kernel's overlayfs and on a Lamina
//! mount: the results must be equal, and so must the trees at the end and after a remount.
//!
//! A failure shows the seed and the step; a seed always makes the same operations.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, FileType, OFlags, RenameFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::{KERNEL_OPTIONS, Site};
use crate::tools::*;
use crate::tree;

judged!(lamina:
    few_names_and_many_collisions,
    deep_trees_and_renames,
    contents_and_holes,
    attributes_and_links,
    all_operations_over_many_remounts,
);

/// Pseudo-random numbers that are equal on each run (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit as u64).expect("a small number")
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A path of up to `depth` components from a few names.
    fn path(&mut self, names: usize, depth: usize) -> String {
        let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let parts: Vec<&str> = (0..=self.below(depth)).map(|_| all[self.below(names)]).collect();
        parts.join("/")
    }
}

/// Makes random changes in a directory. `seed` is that of the next ones then.
pub fn disturb(root: &Path, seed: &mut u64, count: usize) {
    let mut random = Random(*seed);
    for _ in 0..count {
        // Many of them fail, as those of users do.
        drop(Op::random(&mut random, ALL, 5, 3).run(root));
    }
    *seed = random.0;
}

#[derive(Debug, Clone)]
enum Op {
    Create(String),
    Write(String, usize, usize),
    Append(String, usize),
    Truncate(String, usize),
    Punch(String, usize, usize),
    Unlink(String),
    Mkdir(String),
    Rmdir(String),
    RemoveAll(String),
    Rename(String, String),
    Exchange(String, String),
    NoReplace(String, String),
    Link(String, String),
    Symlink(String),
    Fifo(String),
    Chmod(String, u32),
    Chown(String, u32),
    SetXattr(String, u8),
    RemoveXattr(String),
    Times(String, u64),
    ReadDir(String),
}

/// A kind of operation, by its position in the list.
const KINDS: usize = 21;
const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

impl Op {
    fn random(random: &mut Random, kinds: &[usize], names: usize, depth: usize) -> Self {
        let mut path = || random.path(names, depth);
        let (one, two) = (path(), path());
        let sizes = [0, 1, 100, 4095, 4096, 10_000, 70_000, 200_000];
        let (at, len) = (*random.pick(&sizes), *random.pick(&sizes));
        let bits = *random.pick(&[0o600, 0o644, 0o755, 0o4711, 0o2775, 0o1777, 0o000]);
        match *random.pick(kinds) % KINDS {
            0 => Self::Create(one),
            1 => Self::Write(one, at, len),
            2 => Self::Append(one, len),
            3 => Self::Truncate(one, len),
            4 => Self::Punch(one, at, len.max(1)),
            5 => Self::Unlink(one),
            6 => Self::Mkdir(one),
            7 => Self::Rmdir(one),
            8 => Self::RemoveAll(one),
            9 => Self::Rename(one, two),
            10 => Self::Exchange(one, two),
            11 => Self::NoReplace(one, two),
            12 => Self::Link(one, two),
            13 => Self::Symlink(one),
            14 => Self::Fifo(one),
            15 => Self::Chmod(one, bits),
            16 => Self::Chown(one, [0, USER, OTHER][random.below(3)]),
            17 => Self::SetXattr(one, bits.to_le_bytes()[0]),
            18 => Self::RemoveXattr(one),
            19 => Self::Times(one, at as u64),
            _ => Self::ReadDir(one),
        }
    }

    /// Runs the operation below `root`. Returns the errno of a failure.
    fn run(&self, root: &Path) -> Result<Vec<String>, i32> {
        let at = |path: &String| root.join(path);
        let done = match self {
            Self::Create(path) => {
                open(at(path), OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW)
                    .map(drop)
            }
            Self::Write(path, offset, len) => return write(&at(path), *offset as u64, *len),
            Self::Append(path, len) => {
                let size = try_stat(at(path)).map_or(0, |meta| meta.st_size);
                return write(&at(path), size.unsigned_abs(), *len);
            }
            Self::Truncate(path, len) => regular(&at(path)).and_then(|()| {
                let file = open(at(path), OFlags::WRONLY | OFlags::NOFOLLOW)?;
                rustix::fs::ftruncate(file, *len as u64)
            }),
            Self::Punch(path, offset, len) => regular(&at(path)).and_then(|()| {
                let file = open(at(path), OFlags::WRONLY | OFlags::NOFOLLOW)?;
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, mode, *offset as u64, *len as u64)
            }),
            Self::Unlink(path) => rustix::fs::unlink(at(path)),
            Self::Mkdir(path) => rustix::fs::mkdir(at(path), 0o755.into()),
            Self::Rmdir(path) => rustix::fs::rmdir(at(path)),
            Self::RemoveAll(path) => return plain(fs::remove_dir_all(at(path))),
            Self::Rename(from, to) => rename(at(from), at(to)),
            Self::Exchange(from, to) => {
                rustix::fs::renameat_with(CWD, at(from), CWD, at(to), RenameFlags::EXCHANGE)
            }
            Self::NoReplace(from, to) => {
                rustix::fs::renameat_with(CWD, at(from), CWD, at(to), RenameFlags::NOREPLACE)
            }
            Self::Link(from, to) => link(at(from), at(to)),
            Self::Symlink(path) => return plain(symlink("a/b", at(path))),
            Self::Fifo(path) => mknod(at(path), FileType::Fifo, 0, 0),
            Self::Chmod(path, bits) => {
                no_link(&at(path)).and_then(|()| rustix::fs::chmod(at(path), (*bits).into()))
            }
            Self::Chown(path, user) => {
                return plain(std::os::unix::fs::lchown(at(path), Some(*user), Some(*user)));
            }
            Self::SetXattr(path, value) => set_xattr(at(path), "user.random", &[*value]),
            Self::RemoveXattr(path) => rustix::fs::lremovexattr(at(path), "user.random"),
            Self::Times(path, secs) => regular(&at(path)).and_then(|()| {
                let file = open(at(path), OFlags::RDONLY | OFlags::NOFOLLOW)?;
                let time = UNIX_EPOCH + Duration::new(*secs, 7);
                fs::File::from(file).set_modified(time).expect("the owner sets times");
                Ok(())
            }),
            Self::ReadDir(path) => {
                return no_link(&at(path)).map_err(|errno| errno.raw_os_error()).and_then(|()| {
                    let entries = fs::read_dir(at(path)).map_err(|error| errno_of(&error))?;
                    let mut names: Vec<String> = entries
                        .map(|entry| entry.expect("an entry").file_name().into_string().unwrap())
                        .collect();
                    names.sort();
                    Ok(names)
                });
            }
        };
        done.map(|()| Vec::new()).map_err(|errno| errno.raw_os_error())
    }
}

fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

fn plain(result: std::io::Result<()>) -> Result<Vec<String>, i32> {
    result.map(|()| Vec::new()).map_err(|error| errno_of(&error))
}

/// Links are not followed: their targets would be in another tree.
fn no_link(path: &Path) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(try_stat(path)?.st_mode) {
        FileType::Symlink => Err(rustix::io::Errno::LOOP),
        _ => Ok(()),
    }
}

/// Only files are opened: a FIFO would block.
fn regular(path: &Path) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(try_stat(path)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(rustix::io::Errno::INVAL),
    }
}

fn write(path: &Path, offset: u64, len: usize) -> Result<Vec<String>, i32> {
    regular(path).map_err(|errno| errno.raw_os_error())?;
    let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ offset.to_le_bytes()[0]).collect();
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.map_err(|error| errno_of(&error))?;
    plain(file.write_all_at(&data, offset))
}

/// The three places where every operation runs.
struct Places {
    plain: PathBuf,
    kernel: PathBuf,
    lamina: PathBuf,
}

impl Places {
    fn run(&self, op: &Op, text: &str) {
        let plain = op.run(&self.plain);
        for (name, root) in [("kernel", &self.kernel), ("lamina", &self.lamina)] {
            assert_eq!(op.run(root), plain, "{name} is no plain directory: {text}: {op:?}");
        }
    }

    fn compare(&self, text: &str) {
        let wanted = below(tree::without_times(tree::read(&self.plain)));
        for (name, root) in [("kernel", &self.kernel), ("lamina", &self.lamina)] {
            let seen = below(tree::without_times(tree::read(root)));
            tree::assert_same(&format!("plain ({text})"), &wanted, name, &seen);
        }
    }
}

/// The tree without its root, which was made with the place.
fn below(mut tree: tree::Tree) -> tree::Tree {
    tree.remove(Path::new(""));
    tree
}

/// Builds the same tree in the lower and in the plain directory.
fn fill(root: &Path, random: &mut Random, names: usize, depth: usize) {
    for _ in 0..60 {
        // Files and directories first; items that cannot be made are left out in both places alike.
        let op = Op::random(random, &[0, 1, 1, 6, 6, 6, 12, 13, 15, 16, 17], names, depth);
        match op.run(root) {
            Ok(_) | Err(_) => {}
        }
    }
}

/// The kernel's mount of its own upper over the lower of the site.
fn mount_kernel(s: &Site, target: &Path) {
    let root = s.root().display().to_string();
    let data = format!(
        "lowerdir={root}/lower,upperdir={root}/kernel-upper,workdir={root}/kernel-work,\
         {KERNEL_OPTIONS}"
    );
    let data = CString::new(data).unwrap();
    let flags = MountFlags::empty();
    rustix::mount::mount("overlay", target, "overlay", flags, Some(data.as_c_str())).unwrap();
}

/// Unmounts; a program that another test starts holds our descriptors until it executes.
fn unmount_kernel(target: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(errno) = rustix::mount::unmount(target, UnmountFlags::empty()) {
        assert!(errno == rustix::io::Errno::BUSY && Instant::now() < deadline, "{errno}");
        std::thread::yield_now();
    }
}

fn compete(s: &mut Site, seed: u64, kinds: &[usize], (names, depth): (usize, usize)) {
    for name in ["plain", "kernel", "kernel-upper", "kernel-work"] {
        dir(s.root().join(name));
    }
    let places =
        Places { plain: s.root().join("plain"), kernel: s.root().join("kernel"), lamina: s.mnt() };
    fill(&s.lower(""), &mut Random(seed), names, depth);
    fill(&places.plain, &mut Random(seed), names, depth);
    mount_kernel(s, &places.kernel);
    s.mount();
    places.compare(&format!("seed {seed}, before"));
    let mut random = Random(seed ^ 0x5eed);
    for step in 0..240 {
        let op = Op::random(&mut random, kinds, names, depth);
        places.run(&op, &format!("seed {seed}, step {step}"));
        if step % 60 == 59 {
            places.compare(&format!("seed {seed}, step {step}"));
            let (kernel, lamina) = (tree::read(&places.kernel), tree::read(&places.lamina));
            unmount_kernel(&places.kernel);
            mount_kernel(s, &places.kernel);
            s.remount();
            tree::assert_same("kernel", &kernel, "remounted", &tree::read(&places.kernel));
            tree::assert_same("lamina", &lamina, "remounted", &tree::read(&places.lamina));
        }
    }
    s.unmount();
    unmount_kernel(&places.kernel);
    for name in ["upper", "work", "lower", "plain", "kernel-upper", "kernel-work"] {
        fs::remove_dir_all(s.root().join(name)).unwrap();
        dir(s.root().join(name));
    }
}

fn few_names_and_many_collisions(s: &mut Site) {
    for seed in 1..5 {
        compete(s, seed, &[0, 1, 5, 5, 6, 6, 7, 8, 9, 9, 9, 10, 11, 12, 13, 15], (2, 2));
    }
}

fn deep_trees_and_renames(s: &mut Site) {
    for seed in 11..15 {
        compete(s, seed, &[0, 1, 5, 6, 6, 6, 8, 9, 9, 9, 9, 10, 20], (3, 4));
    }
}

fn contents_and_holes(s: &mut Site) {
    for seed in 21..24 {
        compete(s, seed, &[0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 12, 9], (4, 1));
    }
}

fn attributes_and_links(s: &mut Site) {
    for seed in 31..35 {
        compete(s, seed, &[0, 6, 12, 12, 12, 15, 15, 16, 16, 17, 17, 18, 19, 5, 9, 1], (4, 2));
    }
}

fn all_operations_over_many_remounts(s: &mut Site) {
    for seed in 41..46 {
        compete(s, seed, ALL, (4, 3));
    }
}
