//! Recipes: how a tar was written, so that it can be written again to the byte.
//!
//! A layer holds the meaning of a tar. The same files can be written in many ways, and the digest
//! in an image belongs to one of them. `recipes/DIFFID` of the data root keeps the rest: everything
//! of the stream except the contents of files, which are named by their BLAKE3 and come from the
//! layer. The output is compared with the digest of the tar, so a damaged recipe is detected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::build::Written;
use super::error::{Result, StoreError};
use super::files::{NEW, listed, make_dir};
use super::id::DiffId;
use super::layer::Layer;
use super::room::Room;
use super::sink::TarRecorder;
use crate::error::{Errno, FromHost};
use crate::format::layout::{INLINE_MAX, Inode};
use crate::sys;
use crate::types::Digest;
use crate::types::hex;

const MAGIC: [u8; 8] = *b"LMNTAR1\0";
/// Followed by a `u32` length and the bytes.
const LITERAL: u8 = 0;
/// Followed by the BLAKE3 of a whole file of the layer.
const CONTENT: u8 = 1;
/// The end of the recipe.
const END: u8 = 2;
/// The maximum length of a literal.
const LITERAL_MAX: usize = 1 << 20;
const LEVEL: i32 = 3;

/// The recipes of a data root.
pub struct Recipes {
    dir: PathBuf,
}

/// A recipe that is being written.
pub struct RecipeWriter {
    path: PathBuf,
    out: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    lock: File,
    literal: Vec<u8>,
    content: Content,
    named: BTreeMap<[u8; 32], u64>,
    room: Room,
    failed: Option<io::Error>,
}

/// A complete recipe without a name; it is removed unless it gets one.
pub struct NewRecipe {
    path: PathBuf,
    _lock: File,
    named: BTreeMap<[u8; 32], u64>,
}

#[derive(Default)]
struct Content {
    /// The first bytes: a short content is stored in the recipe itself.
    head: Vec<u8>,
    hasher: Option<blake3::Hasher>,
    len: u64,
}

fn file_of(diff_id: &DiffId) -> Option<&str> {
    diff_id.tar().filter(|digest| digest.is_sha256()).map(Digest::hex)
}

/// Returns the tar whose recipe has this file name.
fn tar_of(file: &str) -> Option<DiffId> {
    Digest::parse(&format!("sha256:{file}")).ok().map(DiffId::Tar)
}

/// The files of a layer by the BLAKE3 of their content.
fn contents(layer: &Layer) -> HashMap<&[u8; 32], &Inode> {
    let inodes = layer.index().inodes().iter();
    inodes.filter_map(|inode| Some((layer.content_digest(inode)?, inode))).collect()
}

impl Recipes {
    /// Opens the recipes of a data root and creates a missing directory.
    ///
    /// # Errors
    /// As mkdir(2), with the path.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("recipes");
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Starts a recipe.
    ///
    /// # Errors
    /// As open(2).
    pub fn begin(&self) -> Result<RecipeWriter> {
        let random = sys::process::random().map_err(StoreError::host(&self.dir))?;
        let random = hex::encode(&random);
        let path = self.dir.join(format!("{NEW}{}-{random}", std::process::id()));
        let open = || -> io::Result<_> {
            let file = File::create_new(&path)?;
            let lock = file.try_clone()?;
            let mut file = BufWriter::new(file);
            file.write_all(&MAGIC)?;
            let mut out = zstd::stream::write::Encoder::new(file, LEVEL)?;
            // With the checksum, a reader detects changes on the disk.
            out.include_checksum(true)?;
            Ok((out, lock))
        };
        let (out, lock) = open().map_err(StoreError::io(&self.dir))?;
        // The lock keeps a collection from removing it.
        sys::file::flock_shared(lock.as_fd()).map_err(StoreError::host(&path))?;
        let (literal, content, named) = Default::default();
        let room = Room::new(&self.dir)?;
        Ok(RecipeWriter { path, out, lock, literal, content, named, room, failed: None })
    }

    /// Names a recipe after the tar that it makes from a layer. Where an archive has a name twice,
    /// the layer holds the last content; the recipe itself receives the others.
    ///
    /// # Errors
    /// As rename(2); errors of reading the layer.
    pub fn keep(
        &self,
        recipe: NewRecipe,
        diff_id: &DiffId,
        layer: &Layer,
        written: &Written,
    ) -> Result<()> {
        let Some(file) = file_of(diff_id) else { return Ok(()) };
        let recipe = self.fill(recipe, layer, written)?;
        let to = self.dir.join(file);
        fs::rename(&recipe.path, &to).map_err(StoreError::io(&to))
    }

    /// Adds the contents to a recipe that no file of the layer has.
    fn fill(&self, recipe: NewRecipe, layer: &Layer, written: &Written) -> Result<NewRecipe> {
        let there = contents(layer);
        if recipe.named.keys().all(|digest| there.contains_key(digest)) {
            return Ok(recipe);
        }
        let mut new = self.begin()?;
        let mut ops = Ops::open(File::open(&recipe.path), &recipe.path)?;
        loop {
            match ops.next()? {
                Op::Literal(bytes) => new.literal(bytes),
                Op::Content(digest) if there.contains_key(&digest) => new.name(digest, 0),
                Op::Content(digest) => {
                    let size = recipe.named.get(&digest).copied().unwrap_or(0);
                    let lost = || ops.damaged("it names what was never written");
                    let extents = written.extents(&digest).ok_or_else(lost)?;
                    let mut read = |part: &mut [u8], at| layer.read_extents(extents, part, at);
                    for_each_part(0..size, &mut read, &mut |part| {
                        new.literal(part);
                        Ok(())
                    })?;
                }
                Op::End => break,
            }
        }
        new.finish()
    }

    /// Writes the tar with this digest, if there is a recipe. Returns whether there is. The caller
    /// compares the output with the digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for an invalid recipe or one that needs a file that is not in the
    /// layer; errors of `out` and of reading the layer.
    pub fn write(&self, diff_id: &DiffId, layer: &Layer, out: &mut dyn Write) -> Result<bool> {
        let Some(file) = file_of(diff_id) else { return Ok(false) };
        let path = self.dir.join(file);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(StoreError::io(&path))?,
        };
        let mut ops = Ops::open(Ok(file), &path)?;
        let there = contents(layer);
        loop {
            match ops.next()? {
                Op::Literal(bytes) => out.write_all(bytes).map_err(written)?,
                Op::Content(digest) => match there.get(&digest) {
                    Some(inode) => copy_content(layer, inode, out)?,
                    None => return Err(ops.damaged("it names a file that is not there")),
                },
                Op::End => return ops.end().map(|()| true),
            }
        }
    }

    /// Removes the recipes of tars that are not in `needed`, and the remains of crashes.
    ///
    /// # Errors
    /// As readdir(3) and unlink(2).
    pub fn collect(&self, needed: &BTreeSet<DiffId>) -> Result<usize> {
        let mut removed = 0;
        let entries = fs::read_dir(&self.dir).map_err(StoreError::io(&self.dir))?;
        for entry in entries {
            let entry = entry.map_err(StoreError::io(&self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_new = || name.starts_with(NEW) && is_locked(&entry.path());
            if !tar_of(&name).is_some_and(|tar| needed.contains(&tar)) && !is_new() {
                fs::remove_file(entry.path()).map_err(StoreError::io(&entry.path()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The directory of the recipes.
    pub(super) fn directory(&self) -> &Path {
        &self.dir
    }

    /// Whether there is a recipe of a tar.
    #[must_use]
    pub fn has(&self, diff_id: &DiffId) -> bool {
        file_of(diff_id).is_some_and(|file| self.dir.join(file).exists())
    }

    /// Whether the recipe of a tar can be read and all its files are in the layer, or there is no
    /// recipe. Only writing the tar shows whether the result is right.
    #[must_use]
    pub fn is_readable(&self, diff_id: &DiffId, layer: &Layer) -> bool {
        let check = || -> Result<()> {
            let Some(path) = file_of(diff_id).map(|file| self.dir.join(file)) else {
                return Ok(());
            };
            if !path.exists() {
                return Ok(());
            }
            let (mut ops, there) = (Ops::open(File::open(&path), &path)?, contents(layer));
            loop {
                match ops.next()? {
                    Op::Content(digest) if !there.contains_key(&digest) => {
                        return Err(ops.damaged("it names a file that is not there"));
                    }
                    Op::Content(_) | Op::Literal(_) => {}
                    Op::End => return ops.end(),
                }
            }
        };
        check().inspect_err(|error| tracing::warn!(%error, "a recipe is damaged")).is_ok()
    }

    /// The tars that have a recipe.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn all(&self) -> Result<Vec<DiffId>> {
        Ok(listed(&self.dir)?.iter().filter_map(|file| tar_of(file)).collect())
    }
}

fn is_locked(path: &Path) -> bool {
    let locked = File::open(path).map(|file| sys::file::try_flock(file.as_fd()));
    locked.is_ok_and(|locked| locked.is_err_and(|error| error.is(Errno::AGAIN)))
}

/// A part of a recipe.
enum Op<'a> {
    Literal(&'a [u8]),
    Content([u8; 32]),
    End,
}

/// Reads a recipe.
struct Ops<'a> {
    path: &'a Path,
    stream: zstd::stream::read::Decoder<'static, BufReader<File>>,
    literal: Vec<u8>,
}

impl<'a> Ops<'a> {
    fn open(file: io::Result<File>, path: &'a Path) -> Result<Self> {
        let mut raw = BufReader::new(file.map_err(StoreError::io(path))?);
        let mut magic = [0; 8];
        if raw.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(StoreError::Damaged { path: path.to_owned(), what: "no recipe".into() });
        }
        let stream = zstd::stream::read::Decoder::with_buffer(raw).map_err(StoreError::io(path))?;
        Ok(Self { path, stream, literal: Vec::new() })
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.to_owned(), what: what.to_owned() }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.read_exact(bytes).map_err(|_| self.damaged("it is cut off"))
    }

    /// Checks the end of the recipe: no bytes may follow, and the checksum must match.
    fn end(&mut self) -> Result<()> {
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(self.damaged("it does not end at its stated end")),
        }
    }

    fn next(&mut self) -> Result<Op<'_>> {
        let mut op = [0];
        self.fill(&mut op)?;
        match op {
            [LITERAL] => {
                let mut len = [0; 4];
                self.fill(&mut len)?;
                let len = u32::from_le_bytes(len) as usize;
                if len > LITERAL_MAX {
                    return Err(self.damaged("it has an invalid length"));
                }
                let mut literal = std::mem::take(&mut self.literal);
                literal.resize(len, 0);
                self.fill(&mut literal)?;
                self.literal = literal;
                Ok(Op::Literal(&self.literal))
            }
            [CONTENT] => {
                let mut digest = [0; 32];
                self.fill(&mut digest)?;
                Ok(Op::Content(digest))
            }
            [END] => Ok(Op::End),
            _ => Err(self.damaged("it holds something else")),
        }
    }
}

/// Wraps an error of the output.
pub(crate) fn written(source: io::Error) -> StoreError {
    StoreError::Stream { what: "the output".to_owned(), source }
}

/// Writes the content of a file of a layer, holes as zeroes.
pub(crate) fn copy_content(layer: &Layer, inode: &Inode, out: &mut dyn Write) -> Result<()> {
    copy_range(layer, inode, 0..inode.size.get(), out)
}

/// Writes a range of the content of a file.
pub(crate) fn copy_range(
    layer: &Layer,
    inode: &Inode,
    range: Range<u64>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut read = |part: &mut [u8], at| layer.read(inode, part, at).map(drop);
    for_each_part(range, &mut read, &mut |part| out.write_all(part).map_err(written))
}

/// Reads a range in parts of at most [`LITERAL_MAX`] bytes.
fn for_each_part(
    range: Range<u64>,
    read: &mut dyn FnMut(&mut [u8], u64) -> crate::error::Result<()>,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut block = vec![0; LITERAL_MAX];
    let mut at = range.start;
    while at < range.end {
        let step = usize::try_from(range.end - at).unwrap_or(LITERAL_MAX).min(LITERAL_MAX);
        let part = block.get_mut(..step).unwrap_or_default();
        read(part, at).map_err(|error| {
            let what = "reading a layer".to_owned();
            StoreError::Stream { what, source: io::Error::other(error.to_string()) }
        })?;
        take(part)?;
        at += step as u64;
    }
    Ok(())
}

impl RecipeWriter {
    fn put(&mut self, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        if self.failed.is_none() {
            let mut write = || parts.iter().try_for_each(|part| self.out.write_all(part));
            self.failed = self.room.take(len).and_then(|()| write()).err();
        }
    }

    fn flush_literal(&mut self) {
        let literal = std::mem::take(&mut self.literal);
        if !literal.is_empty() {
            self.put(&[&[LITERAL], &(literal.len() as u32).to_le_bytes(), &literal]);
        }
        self.literal = literal;
        self.literal.clear();
    }

    /// Adds a reference to a content of `len` bytes.
    fn name(&mut self, digest: [u8; 32], len: u64) {
        self.flush_literal();
        self.put(&[&[CONTENT], &digest]);
        self.named.insert(digest, len);
    }

    /// Ends the recipe.
    ///
    /// # Errors
    /// The first error of a write.
    pub fn finish(mut self) -> Result<NewRecipe> {
        self.flush_literal();
        self.put(&[&[END]]);
        let new = NewRecipe { path: self.path, _lock: self.lock, named: self.named };
        let done = match self.failed {
            Some(error) => Err(error),
            // On the disk before it has its name, whichever process publishes the layer.
            None => self.out.finish().and_then(|mut out| {
                out.flush()?;
                out.get_ref().sync_data()
            }),
        };
        // The temporary name says nothing to the user.
        done.map_err(StoreError::io(new.path.parent().unwrap_or(&new.path)))?;
        Ok(new)
    }
}

impl Drop for NewRecipe {
    fn drop(&mut self) {
        // A recipe that got its name is no longer at this path.
        drop(fs::remove_file(&self.path));
    }
}

impl TarRecorder for RecipeWriter {
    fn literal(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(LITERAL_MAX / 2) {
            self.literal.extend_from_slice(part);
            if self.literal.len() >= LITERAL_MAX / 2 {
                self.flush_literal();
            }
        }
    }

    fn content(&mut self, bytes: &[u8]) {
        self.content.len += bytes.len() as u64;
        if let Some(hasher) = &mut self.content.hasher {
            hasher.update(bytes);
            return;
        }
        if self.content.head.len() + bytes.len() <= INLINE_MAX {
            self.content.head.extend_from_slice(bytes);
            return;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&std::mem::take(&mut self.content.head)).update(bytes);
        self.content.hasher = Some(hasher);
    }

    fn end_content(&mut self) {
        let Content { head, hasher, len } = std::mem::take(&mut self.content);
        let Some(hasher) = hasher else { return self.literal(&head) };
        let digest = *hasher.finalize().as_bytes();
        self.name(digest, len);
    }
}
