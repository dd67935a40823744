//! A layer of the store: its mapped index, and its blob, which is read through the cache.

mod id_check;
mod whole;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use smallvec::SmallVec;

use self::id_check::IdCheck;
use super::ahead::{Frames, Runs, Walk};
use super::error::StoreError;
use super::files::{DATA, INDEX};
use super::id::LayerId;
use super::material::Source;
use super::reading::Reading;
use super::remote::Remote;
use crate::cache::{Block, Buffer, Key};
use crate::error::{Errno, Error, FromHost, Result};
use crate::format::index::{Content, Index};
use crate::format::layout::{Extent, FRAME_LEN, Frame, INLINE_MAX, Inode};
use crate::sys;
use crate::types::Seek;

/// Zeroes, as many as a frame holds.
static ZEROES: [u8; FRAME_LEN] = [0; FRAME_LEN];

static NUMBERS: AtomicU32 = AtomicU32::new(0);

/// The usual maximum of parts of one read: a MiB, with one more frame if it is not aligned.
const PARTS: usize = 10;
/// The limit of parts; a read of a file with more holes makes a copy.
const PARTS_MAX: usize = 64;

/// A part of the result of a read, as it is in memory.
enum Part {
    Data(Block, std::ops::Range<usize>),
    Zeroes(usize),
}

type Parts = SmallVec<[Part; PARTS]>;

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Data(block, range) => block.get(range.clone()).unwrap_or_default(),
            Self::Zeroes(len) => ZEROES.get(..*len).unwrap_or_default(),
        }
    }
}

/// A mapping that the index shares with [`Layer`] and [`IdCheck`].
struct Shared(Arc<sys::map::Map>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// An open layer.
pub struct Layer {
    id: LayerId,
    number: u32,
    index: Index,
    /// The mapping of the index.
    map: Arc<sys::map::Map>,
    is_torn: AtomicBool,
    data: File,
    /// The missing part of the blob, if any.
    remote: Option<Remote>,
    _lock: File,
    reading: Arc<Reading>,
    id_check: IdCheck,
    runs: Runs,
    walk: Walk,
    itself: Weak<Layer>,
}

/// Buffers that a thread reuses to read frames.
struct Tools {
    stored: Vec<u8>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

thread_local! {
    static TOOLS: RefCell<Tools> =
        const { RefCell::new(Tools { stored: Vec::new(), decompressor: None }) };
}

impl Layer {
    /// Opens the layer in a directory of the store and checks its index, except for the digest, for
    /// which [`Layer::confirm`] waits.
    pub(super) fn open(
        dir: &Path,
        id: LayerId,
        reading: &Arc<Reading>,
    ) -> std::result::Result<Arc<Self>, StoreError> {
        let path = dir.join(INDEX);
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        // Held while the layer is open, so that it cannot be removed.
        sys::file::flock_shared(file.as_fd())
            .map_err(|error| damaged(format!("cannot be locked: {error}")))?;
        if !path.exists() {
            return Err(StoreError::Missing { kind: "layer", name: id.to_string() });
        }
        let map = sys::map::Map::new(&file).map_err(|error| damaged(error.to_string()))?;
        let map = Arc::new(map);
        // The id is the digest of the whole index, so the digest of the body need not be compared
        // too.
        let id_check = IdCheck::begin(path.clone(), &map, &id);
        // If the id is wrong, that is the cause of every other error: report it first.
        let first = |other| if id_check.is_right() { other } else { id_check.refusal() };
        let index = Index::open_known(Box::new(Shared(Arc::clone(&map))));
        let index = index.map_err(|error| first(damaged(error.to_string())))?;
        let path = dir.join(DATA);
        let data = File::open(&path).map_err(StoreError::io(&path))?;
        let len = data.metadata().map_err(StoreError::io(&path))?.len();
        if len != index.blob_len() {
            let what = format!("{len} bytes, and {} are expected", index.blob_len());
            return Err(first(StoreError::Damaged { path, what }));
        }
        let remote = Remote::open(dir, index.frames().len(), &reading.connect)?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (reading, runs, walk) = (Arc::clone(reading), Runs::default(), Walk::default());
        Ok(Arc::new_cyclic(|itself| {
            let itself = Weak::clone(itself);
            Self {
                id,
                number,
                index,
                map,
                is_torn: AtomicBool::new(false),
                data,
                remote,
                _lock: file,
                reading,
                id_check,
                runs,
                walk,
                itself,
            }
        }))
    }

    /// Waits until the index is compared with the id of the layer.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn confirm(&self) -> std::result::Result<(), StoreError> {
        if self.id_check.is_right() { Ok(()) } else { Err(self.id_check.refusal()) }
    }

    /// The id of the layer.
    #[must_use]
    pub const fn id(&self) -> &LayerId {
        &self.id
    }

    /// A number that is unique among the open layers of the process.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The index of the layer.
    #[must_use]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Returns what was found in the index, unless a part of its file is gone. Then the result is
    /// invalid, whether an entry was found or not.
    ///
    /// # Errors
    /// `EIO` if the file of the index was truncated or the disk cannot read it.
    pub fn checked<T>(&self, found: Result<T>) -> Result<T> {
        if self.map.is_whole() {
            return found;
        }
        if !self.is_torn.swap(true, Ordering::Relaxed) {
            self.reading.damaged.fetch_add(1, Ordering::Relaxed);
        }
        let what = "its index was truncated, or the disk cannot read it";
        Err(Error::Corrupt { what: format!("layer {}: {what}", self.id) })
    }

    /// Reads the content of a file. Returns fewer bytes than requested only at its end.
    ///
    /// # Errors
    /// `EIO` if the blob differs from its digests.
    pub fn read(&self, inode: &Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let size = inode.size.get();
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let buf = buf.get_mut(..len).unwrap_or_default();
        match self.index.content(inode) {
            Content::Inline(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = bytes.get(from..).unwrap_or_default();
                buf.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            }
            Content::Extents(extents) => self.read_extents(extents, buf, offset)?,
        }
        self.checked(Ok(len))
    }

    /// Passes the bytes that [`Layer::read`] would read to `take`, in parts and without a copy.
    /// Returns false for a file with too many holes.
    ///
    /// # Errors
    /// As [`Layer::read`].
    pub fn read_shared(
        &self,
        inode: &Inode,
        len: usize,
        offset: u64,
        take: &mut dyn FnMut(&[&[u8]]),
    ) -> Result<bool> {
        let size = inode.size.get();
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        match self.index.content(inode) {
            Content::Inline(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = bytes.get(from..).unwrap_or_default();
                // Copied, then checked: the copy can no longer change.
                let bytes: SmallVec<[u8; INLINE_MAX]> =
                    SmallVec::from_slice(bytes.get(..len.min(bytes.len())).unwrap_or_default());
                self.checked(Ok(()))?;
                take(&[&bytes]);
            }
            Content::Extents(extents) => {
                let mut parts = Parts::new();
                if !self.gather(extents, len, offset, &mut parts)? {
                    return Ok(false);
                }
                self.checked(Ok(()))?;
                let slices: SmallVec<[&[u8]; PARTS]> = parts.iter().map(Part::bytes).collect();
                take(&slices);
            }
        }
        Ok(true)
    }

    /// Collects the parts of a range. Returns false if there are too many.
    fn gather(&self, extents: &[Extent], len: usize, offset: u64, to: &mut Parts) -> Result<bool> {
        let (mut at, end) = (offset, offset + len as u64);
        let mut next = extents.partition_point(|extent| extent.end() <= offset);
        while at < end {
            if to.len() >= PARTS_MAX {
                return Ok(false);
            }
            let extent = extents.get(next);
            let start = extent.map_or(u64::MAX, |extent| extent.start.get()).min(end);
            if at < start {
                let hole = usize::try_from(start - at).unwrap_or(FRAME_LEN).min(FRAME_LEN);
                to.push(Part::Zeroes(hole));
                at += hole as u64;
                continue;
            }
            let Some(extent) = extent else { break };
            let from = at - start + u64::from(extent.frame_offset.get());
            let frame = u64::from(extent.frame.get()) + from / FRAME_LEN as u64;
            let block = self.block(u32::try_from(frame).unwrap_or(u32::MAX), extent)?;
            let within = (from % FRAME_LEN as u64) as usize;
            let left = usize::try_from(extent.end().min(end) - at).unwrap_or(usize::MAX);
            let until = block.len().min(within.saturating_add(left));
            if until <= within {
                return Err(Errno::IO.into());
            }
            at += (until - within) as u64;
            to.push(Part::Data(block, within..until));
            if at == extent.end() {
                next += 1;
            }
        }
        Ok(true)
    }

    /// Reads from extents. Holes and the range after the last extent are zeroes.
    pub(super) fn read_extents(
        &self,
        extents: &[Extent],
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        let mut next = extents.partition_point(|extent| extent.end() <= offset);
        while !rest.is_empty() {
            let extent = extents.get(next);
            let start = extent.map_or(u64::MAX, |extent| extent.start.get());
            if at < start {
                let hole = usize::try_from(start - at).unwrap_or(usize::MAX).min(rest.len());
                let (zeroes, behind) = rest.split_at_mut(hole);
                zeroes.fill(0);
                (rest, at) = (behind, at + hole as u64);
                continue;
            }
            let Some(extent) = extent else { break };
            let len = usize::try_from(extent.end() - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            self.read_run(extent, part, at - start)?;
            (rest, at, next) = (behind, at + len as u64, next + 1);
        }
        Ok(())
    }

    // Reads from a run of frames; all of them except the last are full.
    fn read_run(&self, extent: &Extent, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut from = offset + u64::from(extent.frame_offset.get());
        let mut rest = buf;
        while !rest.is_empty() {
            let frame = u64::from(extent.frame.get()) + from / FRAME_LEN as u64;
            let block = self.block(u32::try_from(frame).unwrap_or(u32::MAX), extent)?;
            let within = (from % FRAME_LEN as u64) as usize;
            let data = block.get(within..).unwrap_or_default();
            let len = data.len().min(rest.len());
            if len == 0 {
                return Err(Errno::IO.into());
            }
            let (part, behind) = rest.split_at_mut(len);
            part.copy_from_slice(data.get(..len).unwrap_or_default());
            (rest, from) = (behind, from + len as u64);
        }
        Ok(())
    }

    fn block(&self, number: u32, extent: &Extent) -> Result<Block> {
        // A file with its own frames is read ahead to its end; after it comes unrelated data.
        let end = match extent.frame_count() {
            1 => self.index.frames().len() as u64,
            count => u64::from(extent.frame.get()) + count,
        };
        let ahead = self.runs.note(number, u32::try_from(end).unwrap_or(u32::MAX));
        if !ahead.is_empty() {
            let layer: Weak<dyn Frames> = self.itself.clone();
            self.reading.ahead.fetch(layer, ahead);
        }
        self.cached(number)
    }

    fn cached(&self, number: u32) -> Result<Block> {
        let key = Key { layer: self.number, frame: number };
        self.reading.cache.get(key, || self.fetch(number))
    }

    /// Reads a frame and checks its digest before the decompressor sees it.
    fn fetch(&self, number: u32) -> Result<Block> {
        let at = number as usize;
        let (Some(frame), Some(digest)) =
            (self.index.frames().get(at), self.index.frame_digests().get(at))
        else {
            return Err(Errno::IO.into());
        };
        if let Some(remote) = &self.remote {
            remote.need(&self.index, number, &self.reading.fetched)?;
            // A frame that the disk lost is still in the registry.
            if let Ok(block) = self.read_frame(frame, digest) {
                return Ok(block);
            }
            remote.lost(number);
            remote.need(&self.index, number, &self.reading.fetched)?;
        }
        self.read_frame(frame, digest)
    }

    fn read_frame(&self, frame: &Frame, digest: &[u8; 32]) -> Result<Block> {
        TOOLS.with_borrow_mut(|tools| self.read_frame_with(tools, frame, digest))
    }

    fn read_frame_with(
        &self,
        tools: &mut Tools,
        frame: &Frame,
        digest: &[u8; 32],
    ) -> Result<Block> {
        let (offset, stored) = (frame.offset.get(), frame.stored.get() as usize);
        if tools.stored.len() < stored {
            tools.stored.resize(stored, 0);
        }
        let stored = tools.stored.get_mut(..stored).unwrap_or_default();
        let got = sys::file::pread(self.data.as_fd(), stored, offset);
        let got = got.map_err(|error| self.broken(offset, &format!("cannot be read: {error}")))?;
        if got != stored.len() || blake3::hash(stored) != blake3::Hash::from(*digest) {
            return Err(self.broken(offset, "differs from its digest"));
        }
        if tools.decompressor.is_none() {
            let made = zstd::bulk::Decompressor::new();
            tools.decompressor = Some(made.map_err(|_| Errno::NOMEM)?);
        }
        let len = frame.len.get() as usize;
        let mut content = Buffer::new(len);
        let done = tools
            .decompressor
            .as_mut()
            .map(|decompressor| decompressor.decompress_to_buffer(stored, content.room()));
        match done {
            Some(Ok(got)) if got == len => Ok(Block::new(content)),
            _ => Err(self.broken(offset, "does not decompress to its length")),
        }
    }

    /// The BLAKE3 of the whole content of a file, if the content is stored in frames.
    #[must_use]
    pub fn content_digest(&self, inode: &Inode) -> Option<&[u8; 32]> {
        self.index.content_digests().get(inode.digest.get() as usize)
    }

    /// The content of a file as a file of the host that never changes, for passthrough.
    #[must_use]
    pub fn material(&self, inode: &Inode) -> Option<File> {
        let layer: Arc<dyn Source> = self.itself.upgrade()?;
        let found = self.reading.materials.get(&layer, inode);
        self.checked(Ok(found)).ok()?
    }

    /// Stops making such files: the kernel does not accept files of their file system.
    pub fn stop_materials(&self) {
        self.reading.materials.stop();
    }

    /// The materialised file of an inode, if there is one that need not be compared first.
    #[must_use]
    pub fn material_at_hand(&self, inode: &Inode) -> Option<File> {
        let digest = self.content_digest(inode)?;
        let found = self.reading.materials.find(digest, inode.size.get(), 0);
        self.checked(Ok(found)).ok()?
    }

    fn broken(&self, offset: u64, what: &str) -> Error {
        self.reading.damaged.fetch_add(1, Ordering::Relaxed);
        Error::Corrupt { what: format!("layer {}: the frame at byte {offset} {what}", self.id) }
    }

    /// Returns the next data or hole at or after an offset.
    ///
    /// # Errors
    /// `ENXIO` at or after the end of the file, and for data after the last extent.
    pub fn seek(&self, inode: &Inode, offset: u64, whence: Seek) -> Result<u64> {
        let size = inode.size.get();
        if offset >= size {
            return Err(Errno::NXIO.into());
        }
        let Content::Extents(extents) = self.index.content(inode) else {
            return Ok(if whence == Seek::Data { offset } else { size });
        };
        let next = extents.partition_point(|extent| extent.end() <= offset);
        let rest = extents.get(next..).unwrap_or_default();
        match whence {
            Seek::Data => {
                let extent = rest.first().ok_or(Errno::NXIO)?;
                Ok(extent.start.get().max(offset))
            }
            Seek::Hole => {
                let mut end = offset;
                for extent in rest {
                    if extent.start.get() > end {
                        break;
                    }
                    end = extent.end();
                }
                Ok(end)
            }
        }
    }

    /// The number of bytes of a file that are not holes.
    #[must_use]
    pub fn allocated(&self, inode: &Inode) -> u64 {
        match self.index.content(inode) {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Extents(extents) => extents.iter().map(|extent| extent.len.get()).sum(),
        }
    }
}

impl Frames for Layer {
    fn warm(&self, number: u32) {
        drop(self.cached(number));
    }
}
