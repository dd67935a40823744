//! What goes through all of a file, or of a layer.

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

/// After how long a registry that failed is asked for the rest again.
const AGAIN: Duration = Duration::from_secs(30);

impl Layer {
    /// The frames of a file, as far as they lie one behind the other.
    fn frames_of(&self, inode: &Inode) -> std::ops::Range<u32> {
        let Content::Extents(extents) = self.index.content(inode) else { return 0..0 };
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { return 0..0 };
        let end = u64::from(last.frame.get()) + last.frame_count();
        let first = first.frame.get();
        first..u32::try_from(end).unwrap_or(u32::MAX).max(first)
    }

    /// Bytes of the blob that are still in a registry.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.remote.as_ref().map_or(0, |remote| remote.missing(&self.index))
    }

    /// Fetches all that is missing; `goes_on` receives how many bytes that is.
    ///
    /// # Errors
    /// `EIO` where the registry does not give it; as pwrite(2).
    pub fn complete(&self, goes_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        match &self.remote {
            Some(remote) => remote.complete(&self.index, &self.reading.fetched, goes_on),
            None => Ok(()),
        }
    }

    /// Writes down what came of layers that are in part in a registry, as far as they are in use.
    pub fn write_down(layers: &[Weak<Self>]) {
        let used = layers.iter().filter_map(Weak::upgrade);
        used.for_each(|layer| layer.remote.iter().for_each(Remote::write_down));
    }

    /// Fetches missing parts of layers while nothing is read, if they were pulled so: by one thread
    /// that ends with their last user.
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

    /// The length of the blob and the count of frames that an index states.
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
        // As every builder writes it: there is nothing but frames.
        if end != Some(index.blob_len()) {
            return Err(damaged("the blob has room between its frames".to_owned()));
        }
        Ok((index.blob_len(), index.frames().len()))
    }

    /// Reads everything again and compares it with what the index says; answers what differs,
    /// with the files that it belongs to.
    #[must_use]
    pub fn verify(&self) -> Vec<Damage> {
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
        }
        damage
    }

    /// What of the blob is not what was put there, the first part of it. Frames are compared with
    /// their digests, and not decompressed.
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

    /// The paths of the files that a frame holds something of.
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
        // Of several processes one fetches, and the others look whether it is done.
        if open.remote.as_ref().is_none_or(Remote::fetches_rest) {
            // One user is this thread.
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
