//! Layers with a part that is still in a registry.
//!
//! Such a layer has two more files. `present` holds a bit for each frame of the blob that is on the
//! disk (frame 0 is the lowest bit of the first byte). `origin` is a record of the place of the
//! others. A read of a missing frame fetches a span of frames, compares them with the digests of
//! the index and writes them to their places in `data`. The bits are written after the data is on
//! the disk. When all frames are there, both files are removed, and the layer is like any other.
//!
//! Several processes may fill one layer, since they write the same bytes. The bits are changed
//! under a lock (flock) on `present`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use super::error::{Result, StoreError};
use super::fetch::{Connect, Fetch, Origin};
use super::files::{DATA, open_dir, write_whole};
use super::room::Room;
use crate::error::{Errno, Error, FromHost};
use crate::format::codec;
use crate::format::index::Index;
use crate::format::layout::Frame;
use crate::sys;

const PRESENT: &str = "present";
const ORIGIN: &str = "origin";
const VERSION: u16 = 1;

/// Limit of compressed bytes that one read fetches: little at first, and more if the frame before
/// is already there.
const SPAN: u64 = 256 << 10;
const SPAN_ON: u64 = 1 << 20;
/// Compressed bytes of one request when the whole layer is fetched.
const SPAN_ALL: u64 = 2 << 20;
/// Limit of consecutive bytes that are already there and are fetched again, to save a request.
const GAP: u64 = 64 << 10;
/// The bits are written after this many new bytes or this much time.
const UNWRITTEN: u64 = 32 << 20;
const UNWRITTEN_FOR: Duration = Duration::from_secs(2);
/// The number of attempts for a span, and the pause before the second one.
const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(200);
/// The time for which no request is sent to a registry that failed.
const DOWN: Duration = Duration::from_secs(3);

/// Counters of the fetched data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteStats {
    /// The number of requests for parts of layers.
    pub requests: u64,
    /// The number of bytes received.
    pub bytes: u64,
    /// The number of failed requests.
    pub failed: u64,
}

/// The counters behind [`RemoteStats`].
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; 3]);

impl Counters {
    pub(super) fn stats(&self) -> RemoteStats {
        let [requests, bytes, failed] =
            self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        RemoteStats { requests, bytes, failed }
    }

    fn count(&self, done: std::result::Result<u64, ()>) {
        let [requests, bytes, failed] = &self.0;
        requests.fetch_add(1, Ordering::Relaxed);
        match done {
            Ok(len) => bytes.fetch_add(len, Ordering::Relaxed),
            Err(()) => failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// The missing parts of a layer, and the connection to their registry.
pub(super) struct Remote {
    dir: PathBuf,
    origin: Origin,
    /// The process that fetches the rest holds a lock on this file.
    record: File,
    /// Prepared before anything is mounted, since its files may lie below the mount.
    way: Box<dyn Fetch>,
    frames: u32,
    bits: Box<[AtomicU8]>,
    present: File,
    data: File,
    flights: Mutex<Flights>,
    landed: Condvar,
    /// All threads share the open file of `present`, so its lock does not exclude them.
    writing: Mutex<()>,
    /// A write or sync of the data failed, so the bits can no longer be trusted.
    unsure: AtomicBool,
    unwritten: AtomicU64,
    written: Mutex<Instant>,
}

#[derive(Default)]
struct Flights {
    spans: Vec<Range<u32>>,
    failed: Option<Instant>,
}

/// A span that is being fetched. Its waiters continue, however the fetch ends.
struct Flight<'a> {
    remote: &'a Remote,
    span: Range<u32>,
    fetched: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.remote.flights.lock();
        flights.spans.retain(|other| *other != self.span);
        flights.failed = (!self.fetched).then(Instant::now);
        self.remote.landed.notify_all();
    }
}

pub(super) fn is_partial(dir: &Path) -> bool {
    dir.join(PRESENT).exists()
}

/// Marks all frames of a new layer as missing.
pub(super) fn begin(dir: &Path, frames: usize, origin: &Origin) -> Result<()> {
    let path = dir.join(PRESENT);
    fs::write(&path, vec![0; frames.div_ceil(8)]).map_err(StoreError::io(&path))?;
    let path = dir.join(ORIGIN);
    let damaged =
        |error: Error| StoreError::Damaged { path: path.clone(), what: error.to_string() };
    let record = codec::encode(VERSION, origin).map_err(damaged)?;
    fs::write(&path, record).map_err(StoreError::io(&path))
}

/// Copies the origin of a new layer to the existing one, for every later open of it.
pub(super) fn take_origin(from: &Path, to: &Path) -> Result<()> {
    let from = from.join(ORIGIN);
    let record = fs::read(&from).map_err(StoreError::io(&from))?;
    write_whole(&to.join(ORIGIN), &record)
}

/// Marks a layer as complete.
pub(super) fn end(dir: &Path) -> Result<()> {
    for name in [PRESENT, ORIGIN] {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(StoreError::io(&path))?,
        }
    }
    sys::file::fsync(open_dir(dir)?.as_fd()).map_err(StoreError::host(dir))
}

impl Remote {
    /// Opens the missing parts of a layer. Returns `None` for a complete layer.
    pub(super) fn open(dir: &Path, frames: usize, connect: &Connect) -> Result<Option<Self>> {
        let path = dir.join(PRESENT);
        let present = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io(&path))?,
        };
        let mut bits = vec![0; frames.div_ceil(8)];
        let len = present.metadata().map_err(StoreError::io(&path))?.len();
        if len != bits.len() as u64 {
            let what = format!("{len} bytes for {frames} frames");
            return Err(StoreError::Damaged { path, what });
        }
        present.read_exact_at(&mut bits, 0).map_err(StoreError::io(&path))?;
        let path = dir.join(ORIGIN);
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let mut record = match File::open(&path) {
            // Another process has just completed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io(&path))?,
        };
        let mut bytes = Vec::new();
        record.read_to_end(&mut bytes).map_err(StoreError::io(&path))?;
        let origin: Origin =
            codec::decode(VERSION, &bytes).map_err(|error| damaged(error.to_string()))?;
        let way = connect(&origin)?;
        let path = dir.join(DATA);
        let data = File::options().write(true).open(&path).map_err(StoreError::io(&path))?;
        Ok(Some(Self {
            dir: dir.to_owned(),
            origin,
            record,
            way,
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            bits: bits.into_iter().map(AtomicU8::new).collect(),
            present,
            data,
            flights: Mutex::default(),
            landed: Condvar::new(),
            writing: Mutex::default(),
            unsure: AtomicBool::new(false),
            unwritten: AtomicU64::new(0),
            written: Mutex::new(Instant::now()),
        }))
    }

    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn has(&self, frame: u32) -> bool {
        let byte = self.bits.get(frame as usize / 8);
        byte.is_some_and(|byte| byte.load(Ordering::Acquire) & (1 << (frame % 8)) != 0)
    }

    /// Whether this process fetches the rest.
    pub(super) fn fetches_rest(&self) -> bool {
        sys::file::try_flock(self.record.as_fd()).is_ok()
    }

    /// Marks a frame as damaged, so that it is fetched again.
    pub(super) fn lost(&self, frame: u32) {
        if let Some(byte) = self.bits.get(frame as usize / 8) {
            byte.fetch_and(!(1 << (frame % 8)), Ordering::AcqRel);
        }
        self.unsure.store(true, Ordering::Release);
    }

    fn set(&self, frame: u32) {
        if let Some(byte) = self.bits.get(frame as usize / 8) {
            byte.fetch_or(1 << (frame % 8), Ordering::AcqRel);
        }
    }

    // Another process may have fetched the frame in the meantime.
    fn is_brought(&self, frame: u32) -> bool {
        if self.unsure.load(Ordering::Acquire) {
            return false;
        }
        let mut byte = [0];
        let read = self.present.read_exact_at(&mut byte, u64::from(frame / 8));
        let whole = self.present.metadata().is_ok_and(|found| found.nlink() == 0);
        let brought = whole || (read.is_ok() && byte[0] & (1 << (frame % 8)) != 0);
        if brought {
            self.set(frame);
        }
        brought
    }

    /// The number of bytes of the blob that are missing.
    pub(super) fn missing(&self, index: &Index) -> u64 {
        let is_missing = |(frame, _): &(u32, &Frame)| !self.has(*frame);
        (0..)
            .zip(index.frames())
            .filter(is_missing)
            .map(|(_, frame)| u64::from(frame.stored.get()))
            .sum()
    }

    /// Fetches a frame, and some of the frames after it, if it is missing.
    ///
    /// # Errors
    /// `EIO` if the registry does not send the frame or sends other bytes; as pwrite(2).
    pub(super) fn need(
        &self,
        index: &Index,
        frame: u32,
        counters: &Counters,
    ) -> crate::error::Result<()> {
        let on = frame.checked_sub(1).is_some_and(|before| self.has(before));
        self.need_span(index, frame, if on { SPAN_ON } else { SPAN }, counters)
    }

    fn need_span(
        &self,
        index: &Index,
        frame: u32,
        most: u64,
        counters: &Counters,
    ) -> crate::error::Result<()> {
        if self.has(frame) {
            return Ok(());
        }
        let mut flights = self.flights.lock();
        while flights.spans.iter().any(|span| span.contains(&frame)) {
            self.landed.wait(&mut flights);
        }
        if self.has(frame) || self.is_brought(frame) {
            return Ok(());
        }
        if flights.failed.is_some_and(|at| at.elapsed() < DOWN) {
            return Err(Errno::IO.into());
        }
        let span = self.span(index, frame, most, &flights.spans);
        flights.spans.push(span.clone());
        drop(flights);
        let mut flight = Flight { remote: self, span, fetched: false };
        let brought = self.bring(index, &flight.span, counters, &mut flight.fetched);
        drop(flight);
        // The error may belong to another frame of the span.
        if self.has(frame) { Ok(()) } else { brought.and(Err(Errno::IO.into())) }
    }

    // Missing frames from `first` on, with short gaps between them, that no other thread fetches.
    fn span(&self, index: &Index, first: u32, most: u64, taken: &[Range<u32>]) -> Range<u32> {
        let (mut end, mut gap, mut start) = (first + 1, 0, None);
        for (number, frame) in (first..).zip(index.frames().iter().skip(first as usize)) {
            let (offset, stored) = (frame.offset.get(), u64::from(frame.stored.get()));
            // An index may have gaps between frames.
            let bytes = offset + stored - *start.get_or_insert(offset);
            gap = if self.has(number) { gap + stored } else { 0 };
            let is_taken = taken.iter().any(|span| span.contains(&number));
            if is_taken || gap > GAP || (bytes > most && number > first) {
                break;
            }
            if gap == 0 {
                end = number + 1;
            }
        }
        first..end
    }

    fn bring(
        &self,
        index: &Index,
        span: &Range<u32>,
        counters: &Counters,
        came: &mut bool,
    ) -> crate::error::Result<()> {
        let range = span.start as usize..span.end as usize;
        let frames = index.frames().get(range.clone()).ok_or(Errno::IO)?;
        let digests = index.frame_digests().get(range).ok_or(Errno::IO)?;
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Err(Errno::IO.into());
        };
        let from = first.offset.get();
        let len = last.offset.get() + u64::from(last.stored.get()) - from;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::NOMEM)?];
        let fetched = self.fetch(from, &mut bytes);
        counters.count(fetched.as_ref().map(|()| len).map_err(drop));
        if let Err(error) = fetched {
            tracing::error!(%error, layer = %self.dir.display(), "fetching part of a layer failed");
            return Err(Errno::IO.into());
        }
        *came = true;
        let unwritten = self.unwritten.fetch_add(len, Ordering::Relaxed) + len;
        let mut brought = Ok(());
        for ((number, frame), digest) in span.clone().zip(frames).zip(digests) {
            let start = usize::try_from(frame.offset.get() - from).unwrap_or(usize::MAX);
            let stored =
                bytes.get(start..).and_then(|rest| rest.get(..frame.stored.get() as usize));
            let stored = stored.ok_or(Errno::IO)?;
            if blake3::hash(stored) != blake3::Hash::from(*digest) {
                let (layer, at) = (self.dir.display(), frame.offset.get());
                let what =
                    format!("{layer}: what the registry sent for byte {at} is another frame");
                tracing::error!("{what}");
                brought = Err(Error::Corrupt { what });
                continue;
            }
            let written = self.data.write_all_at(stored, frame.offset.get());
            written.map_err(|error| Errno(error.raw_os_error().unwrap_or(Errno::IO.0)))?;
            self.set(number);
        }
        let written = *self.written.lock();
        if unwritten > UNWRITTEN || written.elapsed() > UNWRITTEN_FOR {
            self.write_bits();
        }
        brought
    }

    fn fetch(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let mut tries = 0;
        loop {
            let done = self.way.part(&self.origin.digest, from, to);
            tries += 1;
            match done {
                Err(error) if tries < TRIES => {
                    tracing::debug!(%error, "another attempt");
                    // The token may have expired or the connection may be broken.
                    self.way.renew();
                    std::thread::sleep(PAUSE * tries);
                }
                done => return done,
            }
        }
    }

    /// Syncs the data, then writes the bits. A layer with all bits set is marked as complete.
    fn write_bits(&self) {
        self.unwritten.store(0, Ordering::Relaxed);
        *self.written.lock() = Instant::now();
        let bits: Vec<u8> = self.bits.iter().map(|byte| byte.load(Ordering::Acquire)).collect();
        if let Err(error) = self.write(bits) {
            // The frames are fetched again later.
            tracing::warn!(%error, layer = %self.dir.display(), "what came is not noted");
        }
    }

    fn write(&self, mut bits: Vec<u8>) -> Result<()> {
        let _one = self.writing.lock();
        let synced = self.data.sync_data();
        if synced.is_err() {
            // The next sync would return success although data is lost.
            self.unsure.store(true, Ordering::Release);
        }
        synced.map_err(StoreError::io(&self.dir))?;
        if self.unsure.load(Ordering::Acquire) {
            return Ok(());
        }
        sys::file::flock(self.present.as_fd()).map_err(StoreError::host(&self.dir))?;
        let merged = merge(&self.present, &mut bits);
        let is_whole = bits.iter().map(|byte| byte.count_ones()).sum::<u32>() == self.frames;
        let ended = match merged {
            Ok(true) if is_whole && self.is_named() => end(&self.dir),
            Ok(_) => Ok(()),
            Err(error) => Err(StoreError::io(&self.dir)(error)),
        };
        sys::file::unlock(self.present.as_fd()).map_err(StoreError::host(&self.dir))?;
        ended
    }

    /// Whether the layer still has its name: a damaged one may have been replaced in the meantime.
    fn is_named(&self) -> bool {
        let named = fs::metadata(self.dir.join(PRESENT)).map(|found| found.ino());
        let own = self.present.metadata().map(|found| found.ino());
        own.is_ok_and(|own| named.is_ok_and(|named| named == own))
    }

    /// Writes the bits of frames that arrived since the last time.
    pub(super) fn write_down(&self) {
        if self.unwritten.load(Ordering::Relaxed) > 0 {
            self.write_bits();
        }
    }

    /// Fetches all missing frames while `goes_on`, called with the missing bytes, returns true.
    ///
    /// # Errors
    /// As [`Remote::need`].
    pub(super) fn complete(
        &self,
        index: &Index,
        counters: &Counters,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> crate::error::Result<()> {
        let mut room = Room::new(&self.dir).map_err(|_| Errno::IO)?;
        let mut wrong = None;
        for frame in 0..self.frames {
            if self.has(frame) {
                continue;
            }
            let missing = self.missing(index);
            if !goes_on(missing) {
                return Ok(());
            }
            if let Err(error) = room.take(SPAN_ALL.min(missing)) {
                tracing::warn!(%error, layer = %self.dir.display(), "the rest stays where it is");
                return Err(Errno::NOSPC.into());
            }
            match self.need_span(index, frame, SPAN_ALL, counters) {
                Ok(()) => {}
                // The frames after it may be right.
                Err(error @ Error::Corrupt { .. }) => wrong = Some(error),
                Err(error) => return Err(error),
            }
        }
        self.write_bits();
        wrong.map_or(Ok(()), Err)
    }
}

/// Merges bits with those in a file, in both directions. Returns whether the file still has a name.
fn merge(file: &File, bits: &mut [u8]) -> io::Result<bool> {
    let mut known = vec![0; bits.len()];
    file.read_exact_at(&mut known, 0)?;
    bits.iter_mut().zip(known).for_each(|(own, known)| *own |= known);
    file.write_all_at(bits, 0)?;
    file.sync_data()?;
    Ok(file.metadata()?.nlink() > 0)
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.write_down();
    }
}

#[cfg(test)]
mod tests;
