//! A whole tree as a value for comparisons.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::tools::{stat, xattr};

/// The visible properties of one object, except its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub mode: u32,
    pub owner: (u32, u32),
    pub device: u64,
    pub size: i64,
    pub mtime: (i64, u64),
    pub links: u64,
    /// The first path, in order, of the same inode: distinguishes hard links from copies.
    pub first: PathBuf,
    pub content: Content,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The content of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Data(u64),
    Target(PathBuf),
    Other,
}

/// A tree: relative path to object.
pub type Tree = BTreeMap<PathBuf, Object>;

/// Reads everything below `root`, including `root` itself.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut seen = BTreeMap::new();
    visit(root, Path::new(""), &mut tree, &mut seen);
    tree
}

fn visit(root: &Path, below: &Path, tree: &mut Tree, seen: &mut BTreeMap<u64, PathBuf>) {
    let path = if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) };
    let meta = stat(&path);
    let kind = FileType::from_raw_mode(meta.st_mode);
    let first = seen.entry(meta.st_ino).or_insert_with(|| below.to_owned()).clone();
    let content = match kind {
        FileType::RegularFile => Content::Data(digest(&path)),
        FileType::Symlink => Content::Target(fs::read_link(&path).expect("a link")),
        _ => Content::Other,
    };
    let directory = kind == FileType::Directory;
    let object = Object {
        mode: meta.st_mode,
        owner: (meta.st_uid, meta.st_gid),
        device: meta.st_rdev,
        size: if directory { 0 } else { meta.st_size },
        mtime: (meta.st_mtime, meta.st_mtime_nsec),
        links: if directory { 0 } else { meta.st_nlink },
        first,
        content,
        xattrs: all_xattrs(&path),
    };
    tree.insert(below.to_owned(), object);
    if directory {
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort_by(|left, right| left.as_bytes().cmp(right.as_bytes()));
        for name in names {
            visit(root, &below.join(name), tree, seen);
        }
    }
}

fn digest(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}")).hash(&mut hasher);
    hasher.finish()
}

fn all_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let names = crate::tools::xattr_names(path).into_iter();
    names.map(|name| (name.clone().into_bytes(), xattr(path, &name).expect("its value"))).collect()
}

/// Removes modification times, for trees that were made by different calls.
pub fn without_times(mut tree: Tree) -> Tree {
    for object in tree.values_mut() {
        object.mtime = (0, 0);
    }
    tree
}

/// Asserts that two trees are equal and shows the differences.
#[track_caller]
pub fn assert_same(left_name: &str, left: &Tree, right_name: &str, right: &Tree) {
    let mut report = String::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        let (ours, theirs) = (left.get(path), right.get(path));
        if ours != theirs {
            report += &format!("{path:?}\n  {left_name}: {ours:?}\n  {right_name}: {theirs:?}\n");
        }
    }
    assert!(report.is_empty(), "trees differ:\n{report}");
}
