//! Operations on a whole file or a whole layer.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Layer, ZEROES};
use crate::cache::Key;
use crate::error::{Errno, FromHost, Result};
use crate::format::index::{Content, Index};
use crate::format::layout::{BLOB_HEAD_LEN, Extent, FRAME_LEN, Inode, blob_head};
use crate::store::ahead::{Frames, Prefetch};
use crate::store::damage::Damage;
use crate::store::error::StoreError;
use crate::store::files::INDEX;
use crate::store::material::Source;
use crate::store::remote::Remote;
use crate::sys;

/// The pause before a registry that failed is asked for the rest again.
const AGAIN: Duration = Duration::from_secs(30);

impl Layer {
    /// The frames of a file, from its first to its last.
    fn frames_of(&self, inode: &Inode) -> std::ops::Range<u32> {
        let Content::Extents(extents) = self.index.content(inode) else { return 0..0 };
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { return 0..0 };
        let end = u64::from(last.frame.get()) + last.frame_count();
        let first = first.frame.get();
        first..u32::try_from(end).unwrap_or(u32::MAX).max(first)
    }

    /// The number of bytes of the blob that are still in a registry.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.remote.as_ref().map_or(0, |remote| remote.missing(&self.index))
    }

    /// The bytes of data in the layer, before compression.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.index.frames().iter().map(|frame| u64::from(frame.len.get())).sum()
    }

    /// Fetches all missing frames; `goes_on` receives the number of missing bytes.
    ///
    /// # Errors
    /// `EIO` if the registry does not send a frame; as pwrite(2).
    pub fn complete(&self, goes_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        match &self.remote {
            Some(remote) => remote.complete(&self.index, &self.reading.fetched, goes_on),
            None => Ok(()),
        }
    }

    /// Records the frames that arrived of the layers that are still in use and partly in a
    /// registry.
    pub fn write_down(layers: &[Weak<Self>]) {
        let used = layers.iter().filter_map(Weak::upgrade);
        used.for_each(|layer| layer.remote.iter().for_each(Remote::write_down));
    }

    /// Fetches the missing parts of layers that were pulled with a background fetch, in one thread
    /// that ends with the last user of the layers.
    pub fn complete_beside(layers: &[Arc<Self>]) {
        let wants = |layer: &&Arc<Self>| {
            layer.remote.as_ref().is_some_and(|remote| remote.origin().background)
        };
        let wanted: Vec<Weak<Self>> = layers.iter().filter(wants).map(Arc::downgrade).collect();
        if wanted.is_empty() {
            return;
        }
        let body = move || {
            if let Err(error) = sys::process::yield_to_others() {
                tracing::debug!(%error, "at the priority of others");
            }
            wanted.iter().for_each(complete_while_used);
        };
        if let Err(error) = std::thread::Builder::new().name("fetch-rest".to_owned()).spawn(body) {
            tracing::warn!(%error, "the rest of the layers is fetched when it is read");
        }
    }

    /// The length of the blob and the number of frames, from the index.
    pub(in crate::store) fn extent(dir: &Path) -> std::result::Result<(u64, usize), StoreError> {
        let path = dir.join(INDEX);
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        let map = sys::map::Map::new(&file).map_err(|error| damaged(error.to_string()))?;
        let index = Index::open_known(Box::new(super::Shared(Arc::new(map))));
        let index = index.map_err(|error| damaged(error.to_string()))?;
        let end = index.frames().iter().try_fold(BLOB_HEAD_LEN as u64, |end, frame| {
            let next = end + u64::from(frame.stored.get());
            (frame.offset.get() == end).then_some(next)
        });
        // Every builder writes frames without gaps.
        if end != Some(index.blob_len()) {
            return Err(damaged("the blob has room between its frames".to_owned()));
        }
        Ok((index.blob_len(), index.frames().len()))
    }

    /// Reads the whole layer again and compares it with the index. Returns the differences and the
    /// files that they affect.
    #[must_use]
    pub fn verify(&self) -> Vec<Damage> {
        self.verify_with(&mut |_| {})
    }

    /// As [`Layer::verify`]; `on_bytes` receives the number of bytes of the blob that were read.
    pub fn verify_with(&self, on_bytes: &mut dyn FnMut(u64)) -> Vec<Damage> {
        let mut damage = Vec::new();
        let mut head = [0; 64];
        let read = sys::file::pread(self.data.as_fd(), &mut head, 0);
        if read != Ok(head.len()) || head != blob_head() {
            damage.push(Damage {
                what: "the head of the blob differs".to_owned(),
                files: Vec::new(),
            });
        }
        if let Err(error) = self.checked(Ok(())) {
            damage.push(Damage { what: error.to_string(), files: Vec::new() });
        }
        let (frames, digests) = (self.index.frames(), self.index.frame_digests());
        for (number, (frame, digest)) in frames.iter().zip(digests).enumerate() {
            if self.remote.as_ref().is_some_and(|remote| !remote.has(number as u32)) {
                continue;
            }
            if let Err(error) = self.read_frame(frame, digest) {
                let files = self.files_in(number as u32);
                damage.push(Damage { what: error.to_string(), files });
            }
            on_bytes(frame.offset.get() + u64::from(frame.stored.get()));
        }
        damage
    }

    /// The first part of the blob that differs from the index. Frames are compared with their
    /// digests and not decompressed.
    pub(in crate::store) fn first_difference(&self) -> Option<&'static str> {
        let mut head = [0; 64];
        let read = sys::file::pread(self.data.as_fd(), &mut head, 0);
        if read != Ok(head.len()) || head != blob_head() {
            return Some("the head of the blob differs");
        }
        let mut stored = Vec::new();
        let frames = self.index.frames().iter().zip(self.index.frame_digests());
        for (number, (frame, digest)) in (0..).zip(frames) {
            if self.remote.as_ref().is_some_and(|remote| !remote.has(number)) {
                continue;
            }
            stored.resize(frame.stored.get() as usize, 0);
            let read = sys::file::pread(self.data.as_fd(), &mut stored, frame.offset.get());
            if read != Ok(stored.len()) || blake3::hash(&stored) != blake3::Hash::from(*digest) {
                return Some("a frame differs from its digest");
            }
        }
        None
    }

    /// The paths of the files with data in a frame.
    fn files_in(&self, frame: u32) -> Vec<String> {
        let touches = |extent: &Extent| {
            let first = u64::from(extent.frame.get());
            (first..first + extent.frame_count()).contains(&frame.into())
        };
        let mut found = Vec::new();
        let mut open = vec![(crate::format::index::ROOT, String::new())];
        while let Some((dir, path)) = open.pop() {
            for entry in self.index.entries(dir) {
                let name = String::from_utf8_lossy(self.index.name(entry));
                let path = format!("{path}/{name}");
                let Some((ino, inode)) =
                    entry.object().and_then(|ino| Some((ino, self.index.inode(ino)?)))
                else {
                    continue;
                };
                match inode.kind() {
                    crate::types::Kind::Dir => open.push((ino, path)),
                    crate::types::Kind::File => {
                        if let Content::Extents(extents) = self.index.content(inode)
                            && extents.iter().any(touches)
                        {
                            found.push(path);
                        }
                    }
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }
}

impl Source for Layer {
    fn number(&self) -> u32 {
        self.number
    }

    fn digest(&self, inode: &Inode) -> Option<&[u8; 32]> {
        self.content_digest(inode)
    }

    fn allocated(&self, inode: &Inode) -> u64 {
        Self::allocated(self, inode)
    }

    fn walk_to(&self, inode: &Inode, waits: bool) -> Prefetch {
        let count = self.index.frames().len() as u32;
        let file = self.frames_of(inode);
        let cache = self.reading.cache.capacity() / FRAME_LEN;
        let most = u32::try_from(cache / 4).unwrap_or(u32::MAX).min(count.saturating_sub(file.end));
        self.walk.note(&file, if waits { most } else { 0 })
    }

    fn write_to(
        &self,
        inode: &Inode,
        to: BorrowedFd<'_>,
        share: Option<Prefetch>,
    ) -> Result<[u8; 32]> {
        let done = share.as_ref().map(|share| Arc::clone(&share.done)).unwrap_or_default();
        if let Some(share) = share {
            let layer: Weak<dyn Frames> = self.itself.clone();
            self.reading.ahead.share(&layer, share);
        }
        let mut hasher = blake3::Hasher::new();
        let extents = match self.index.content(inode) {
            Content::Extents(extents) => extents,
            Content::Inline(_) => return Err(Errno::INVAL.into()),
        };
        let mut at = 0;
        for extent in extents {
            skip(&mut hasher, extent.start.get() - at);
            at = extent.start.get();
            let mut frame = extent.frame.get();
            let mut within = extent.frame_offset.get() as usize;
            while at < extent.end() {
                done.store(frame + 1, Ordering::Relaxed);
                let key = Key { layer: self.number, frame };
                let there = self.reading.cache.take(key);
                let block = there.map_or_else(|| self.fetch(frame), Ok)?;
                let left = usize::try_from(extent.end() - at).unwrap_or(usize::MAX);
                let data = block.get(within..).unwrap_or_default();
                let data = data.get(..left.min(data.len())).unwrap_or_default();
                if data.is_empty() {
                    return Err(Errno::IO.into());
                }
                hasher.update(data);
                write_all(to, data, at)?;
                (at, frame, within) = (at + data.len() as u64, frame + 1, 0);
            }
        }
        skip(&mut hasher, inode.size.get().saturating_sub(at));
        sys::file::ftruncate(to, inode.size.get())?;
        self.checked(Ok(()))?;
        Ok(*hasher.finalize().as_bytes())
    }
}

fn complete_while_used(layer: &Weak<Layer>) {
    while let Some(open) = layer.upgrade() {
        // One of several processes fetches; the others check whether it is done.
        if open.remote.as_ref().is_none_or(Remote::fetches_rest) {
            // One of the references is that of this thread.
            match open.complete(&mut |_| layer.strong_count() > 1) {
                Err(error) if !error.is(Errno::NOSPC) => {}
                _ => return,
            }
        }
        drop(open);
        std::thread::sleep(AGAIN);
    }
}

fn skip(hasher: &mut blake3::Hasher, len: u64) {
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(FRAME_LEN).min(FRAME_LEN);
        hasher.update(ZEROES.get(..part).unwrap_or_default());
        left -= part as u64;
    }
}

fn write_all(to: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        done += match sys::file::pwrite(to, rest, offset + done as u64)? {
            0 => return Err(Errno::IO.into()),
            written => written,
        };
    }
    Ok(())
}
