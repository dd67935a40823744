//! The content of a tree, to compare two of them.
//!
//! Values that a union may change are left out: times and link counts of directories, and the
//! attributes of overlayfs and Lamina.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

/// An object of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    /// The digest of a file, or the target of a link.
    content: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// `None` for a directory.
    inode: Option<Inode>,
}

/// Further properties of an object that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inode {
    size: u64,
    modified_ns: i128,
    links: u64,
    /// Its first name in the tree.
    first: PathBuf,
}

/// The objects by path below the root.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree {
    objects: BTreeMap<PathBuf, Object>,
}

impl Tree {
    /// Reads a whole tree, including its root.
    pub fn read(root: impl AsRef<Path>) -> Self {
        let mut reader =
            Reader { root: root.as_ref(), links: HashMap::new(), tree: Self::default() };
        reader.visit(Path::new("")).unwrap_or_else(|error| panic!("{error}"));
        reader.tree
    }

    /// Like [`Tree::read`], without the root itself, whose mode podman changes.
    pub fn below(root: impl AsRef<Path>) -> Self {
        let mut tree = Self::read(root);
        tree.objects.remove(Path::new(""));
        tree
    }

    /// The first paths that differ, with both objects.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let paths = self.objects.keys().chain(other.objects.keys());
        let mut paths: Vec<&PathBuf> = paths.collect();
        paths.sort();
        paths.dedup();
        let differ =
            paths.into_iter().filter(|path| self.objects.get(*path) != other.objects.get(*path));
        let text = |path: &PathBuf| {
            let (own, others) = (self.objects.get(path), other.objects.get(path));
            format!("{}: {own:?} and {others:?}", path.display())
        };
        differ.take(5).map(text).collect()
    }

    /// The first objects of this tree with another type or content in the other tree.
    pub fn other_contents(&self, other: &Self) -> Vec<PathBuf> {
        let kind = |object: &Object| (object.mode & 0o170_000, object.content.clone());
        let differs = |(path, object): &(&PathBuf, &Object)| {
            other.objects.get(*path).map(kind) != Some(kind(object))
        };
        self.objects.iter().filter(differs).take(5).map(|(path, _)| path.clone()).collect()
    }
}

struct Reader<'a> {
    root: &'a Path,
    links: HashMap<u64, PathBuf>,
    tree: Tree,
}

impl Reader<'_> {
    fn visit(&mut self, name: &Path) -> io::Result<()> {
        let path =
            if name.as_os_str().is_empty() { self.root.into() } else { self.root.join(name) };
        let info = fs::symlink_metadata(&path)?;
        let mut object = Object {
            mode: info.mode(),
            owner: (info.uid(), info.gid()),
            device: info.rdev(),
            content: content(&path, &info)?,
            attributes: attributes(&path)?,
            inode: None,
        };
        if info.is_dir() {
            self.tree.objects.insert(name.to_owned(), object);
            let entries: io::Result<Vec<_>> =
                fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect();
            let mut entries = entries?;
            entries.sort();
            return entries.into_iter().try_for_each(|entry| self.visit(&name.join(entry)));
        }
        let first = match info.nlink() {
            1 => name.to_owned(),
            _ => self.links.entry(info.ino()).or_insert_with(|| name.to_owned()).clone(),
        };
        let modified_ns = i128::from(info.mtime()) * 1_000_000_000 + i128::from(info.mtime_nsec());
        object.inode = Some(Inode { size: info.size(), modified_ns, links: info.nlink(), first });
        self.tree.objects.insert(name.to_owned(), object);
        Ok(())
    }
}

fn content(path: &Path, info: &fs::Metadata) -> io::Result<Vec<u8>> {
    let kind = info.file_type();
    if kind.is_symlink() {
        return Ok(fs::read_link(path)?.as_os_str().as_bytes().to_vec());
    }
    if !kind.is_file() || kind.is_fifo() {
        return Ok(Vec::new());
    }
    file_digest(path)
}

/// SHA-256 of a file.
pub fn file_digest(path: &Path) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().to_vec())
}

fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 1 << 16];
    let len = llistxattr(path, &mut names[..])?;
    let is_own = |name: &&[u8]| {
        let name = String::from_utf8_lossy(name);
        !name.is_empty() && !name.contains(".overlay.") && !name.contains(".lamina.")
    };
    let mut found = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(is_own) {
        let mut value = vec![0; 1 << 16];
        let len = lgetxattr(path, name, &mut value[..])?;
        found.push((name.to_vec(), value[..len].to_vec()));
    }
    found.sort();
    Ok(found)
}

/// All regular files below a directory, except those in unreadable directories.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
