//! Writes the data blob of a layer: frames of at most 128 KiB, one after the other.
//!
//! Small files share frames, in the order in which they arrive; a larger file has its own frames.
//! Content that was written before is not written again. Runs of zeroes of 64 KiB and more that
//! begin and end on a page boundary become holes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::error::StoreError;
use super::pack::{Packed, Packer};
use super::room::Room;
use crate::error::FromHost;
use crate::format::layout::{BLOB_HEAD_LEN, Extent, FRAME_LEN, Frame, INLINE_MAX, blob_head};
use crate::format::tables::Tables;

const PAGE: usize = 4096;
/// Zeroes of at least this length become a hole.
const HOLE_MIN: u64 = 64 << 10;

/// The location of the content of a file. Equal contents share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Inline(Vec<u8>),
    Extents { extents: Vec<Extent>, digest: u32 },
}

pub(super) struct BlobWriter {
    path: PathBuf,
    file: BufWriter<File>,
    room: Room,
    packer: Packer,
    /// A spare buffer for the content of a frame.
    spare: Vec<u8>,
    packed: Vec<u8>,
    waiting: Vec<usize>,
    data: Vec<Data>,
    known: HashMap<[u8; 32], usize>,
}

impl BlobWriter {
    pub(super) fn new(path: PathBuf) -> Result<Self, StoreError> {
        let begin = || -> io::Result<_> {
            let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&path)?);
            file.write_all(&blob_head())?;
            Ok(file)
        };
        let file = begin().map_err(StoreError::io(&path))?;
        let packed = Vec::with_capacity(FRAME_LEN);
        let room = Room::new(path.parent().unwrap_or(&path))?;
        let (spare, waiting, data, known) = Default::default();
        Ok(Self { path, file, room, packer: Packer::new(), spare, packed, waiting, data, known })
    }

    /// The content with a number.
    pub(super) fn data(&self, number: usize) -> Option<&Data> {
        self.data.get(number)
    }

    /// The extents of the content with this digest, if it was written and is not stored in the
    /// index.
    pub(super) fn extents(&self, digest: &[u8; 32]) -> Option<&[Extent]> {
        match self.data(*self.known.get(digest)?)? {
            Data::Extents { extents, .. } => Some(extents),
            Data::Inline(_) => None,
        }
    }

    /// Writes the content of a file of `size` bytes and returns its number.
    pub(super) fn write(
        &mut self,
        tables: &mut Tables,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<usize, StoreError> {
        if size > FRAME_LEN as u64 {
            return self.write_large(tables, size, reader);
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(FRAME_LEN)];
        reader.read_exact(&mut content).map_err(cut_off)?;
        if content.len() <= INLINE_MAX {
            return Ok(self.add(Data::Inline(content)));
        }
        let digest = *blake3::hash(&content).as_bytes();
        if let Some(number) = self.known.get(&digest) {
            return Ok(*number);
        }
        if self.packed.len() + content.len() > FRAME_LEN {
            self.flush(tables)?;
        }
        let extent = Extent {
            start: 0.into(),
            len: size.into(),
            frame: u32::MAX.into(),
            frame_offset: (self.packed.len() as u32).into(),
        };
        self.packed.extend_from_slice(&content);
        let number = self.add_digested(tables, vec![extent], digest);
        self.waiting.push(number);
        Ok(number)
    }

    fn add(&mut self, data: Data) -> usize {
        self.data.push(data);
        self.data.len() - 1
    }

    fn add_digested(
        &mut self,
        tables: &mut Tables,
        extents: Vec<Extent>,
        digest: [u8; 32],
    ) -> usize {
        tables.content_digests.push(digest);
        let number = (tables.content_digests.len() - 1) as u32;
        let place = self.add(Data::Extents { extents, digest: number });
        self.known.insert(digest, place);
        place
    }

    /// Ends the current frame of small files.
    pub(super) fn flush(&mut self, tables: &mut Tables) -> Result<(), StoreError> {
        if self.packed.is_empty() {
            return Ok(());
        }
        let mut packed = std::mem::take(&mut self.packed);
        let frame = self.frame(tables, &mut packed)?;
        self.packed = packed;
        for number in self.waiting.drain(..) {
            if let Some(Data::Extents { extents, .. }) = self.data.get_mut(number)
                && let Some(extent) = extents.first_mut()
            {
                extent.frame = frame.into();
            }
        }
        Ok(())
    }

    /// The number that the next frame will get.
    fn next_frame(&self, tables: &Tables) -> u32 {
        (tables.frames.len() + self.packer.in_flight()) as u32
    }

    // Takes the bytes of `content` and leaves it empty.
    fn frame(&mut self, tables: &mut Tables, content: &mut Vec<u8>) -> Result<u32, StoreError> {
        if self.packer.is_full() {
            self.land(tables)?;
        }
        let number = self.next_frame(tables);
        if number == u32::MAX {
            let what = "a layer of more than 4,294,967,295 frames".to_owned();
            return Err(StoreError::TooLarge { what });
        }
        let full = std::mem::replace(content, std::mem::take(&mut self.spare));
        self.packer.send(full).map_err(StoreError::io(&self.path))?;
        Ok(number)
    }

    // Writes the oldest frame that is being compressed. Returns whether there was one.
    fn land(&mut self, tables: &mut Tables) -> Result<bool, StoreError> {
        let mut write = || -> io::Result<bool> {
            let Some(Packed { stored, digest, mut content }) = self.packer.take()? else {
                return Ok(false);
            };
            let offset = end_of(&tables.frames);
            self.room.take(stored.len() as u64)?;
            self.file.write_all(&stored)?;
            tables.frame_digests.push(digest);
            tables.frames.push(Frame {
                offset: offset.into(),
                stored: (stored.len() as u32).into(),
                len: (content.len() as u32).into(),
            });
            tables.blob_len = offset + stored.len() as u64;
            content.clear();
            self.spare = content;
            Ok(true)
        };
        write().map_err(StoreError::io(&self.path))
    }

    fn write_large(
        &mut self,
        tables: &mut Tables,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<usize, StoreError> {
        let before = self.next_frame(tables);
        let mut hasher = blake3::Hasher::new();
        let mut run = Run::default();
        let mut block = vec![0; FRAME_LEN];
        let mut left = size;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(FRAME_LEN).min(FRAME_LEN);
            let content = block.get_mut(..len).unwrap_or_default();
            reader.read_exact(content).map_err(cut_off)?;
            hasher.update(content);
            for page in content.chunks(PAGE) {
                self.page(tables, &mut run, page)?;
            }
            left -= len as u64;
        }
        self.end_run(tables, &mut run)?;
        let digest = *hasher.finalize().as_bytes();
        if let Some(known) = self.known.get(&digest) {
            let known = *known;
            self.take_back(tables, before)?;
            return Ok(known);
        }
        Ok(self.add_digested(tables, run.extents, digest))
    }

    // Removes the frames again: the same content was already in the blob.
    fn take_back(&mut self, tables: &mut Tables, frames: u32) -> Result<(), StoreError> {
        while self.land(tables)? {}
        tables.frames.truncate(frames as usize);
        tables.frame_digests.truncate(frames as usize);
        tables.blob_len = end_of(&tables.frames);
        let mut cut = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(tables.blob_len))?;
            self.file.get_ref().set_len(tables.blob_len)
        };
        cut().map_err(StoreError::io(&self.path))
    }

    fn page(&mut self, tables: &mut Tables, run: &mut Run, page: &[u8]) -> Result<(), StoreError> {
        if page.iter().all(|byte| *byte == 0) {
            run.zeroes += page.len() as u64;
            return Ok(());
        }
        self.end_zeroes(tables, run)?;
        self.take(tables, run, page)
    }

    // A short run of zeroes is stored as data; a long one ends the extent.
    fn end_zeroes(&mut self, tables: &mut Tables, run: &mut Run) -> Result<(), StoreError> {
        if run.zeroes >= HOLE_MIN {
            self.end_extent(tables, run)?;
            run.offset += run.zeroes;
            run.zeroes = 0;
        }
        while run.zeroes > 0 {
            let zeroes = [0; PAGE];
            let len = usize::try_from(run.zeroes).unwrap_or(PAGE).min(PAGE);
            run.zeroes -= len as u64;
            self.take(tables, run, zeroes.get(..len).unwrap_or_default())?;
        }
        Ok(())
    }

    // Takes at most a page: frames are whole pages, so a page never straddles two frames.
    fn take(&mut self, tables: &mut Tables, run: &mut Run, page: &[u8]) -> Result<(), StoreError> {
        if run.frame.is_empty() && run.open.is_none() {
            let frame = self.next_frame(tables).into();
            let (start, len) = (run.offset.into(), 0.into());
            run.open = Some(Extent { start, len, frame, frame_offset: 0.into() });
        }
        run.frame.extend_from_slice(page);
        run.offset += page.len() as u64;
        if run.frame.len() >= FRAME_LEN {
            self.frame(tables, &mut run.frame)?;
        }
        Ok(())
    }

    fn end_extent(&mut self, tables: &mut Tables, run: &mut Run) -> Result<(), StoreError> {
        if !run.frame.is_empty() {
            self.frame(tables, &mut run.frame)?;
        }
        if let Some(mut extent) = run.open.take() {
            extent.len = (run.offset - extent.start.get()).into();
            run.extents.push(extent);
        }
        Ok(())
    }

    fn end_run(&mut self, tables: &mut Tables, run: &mut Run) -> Result<(), StoreError> {
        if run.zeroes < HOLE_MIN {
            self.end_zeroes(tables, run)?;
        }
        self.end_extent(tables, run)
    }

    /// Writes the frames that are still pending.
    pub(super) fn finish(&mut self, tables: &mut Tables) -> Result<(), StoreError> {
        self.flush(tables)?;
        while self.land(tables)? {}
        tables.blob_len = tables.blob_len.max(BLOB_HEAD_LEN as u64);
        self.file.flush().map_err(StoreError::io(&self.path))
    }
}

/// The part of a large file that is not written yet.
#[derive(Default)]
struct Run {
    extents: Vec<Extent>,
    open: Option<Extent>,
    frame: Vec<u8>,
    offset: u64,
    zeroes: u64,
}

fn end_of(frames: &[Frame]) -> u64 {
    let end = |frame: &Frame| frame.offset.get() + u64::from(frame.stored.get());
    frames.last().map_or(BLOB_HEAD_LEN as u64, end)
}

fn cut_off(source: io::Error) -> StoreError {
    StoreError::Stream { what: "the content of a file".to_owned(), source }
}
