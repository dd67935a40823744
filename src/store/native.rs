//! Layers in their own form in the world outside: two blobs of OCI each, the index (zstd) and the
//! data as they are in the store, so that a layer need not be built, and not be there as a whole.
//!
//! What an index says of itself is proved by its digest. Nothing proves that it holds what the
//! diff ID of its image names, so nothing is found in the store by the diff ID of such a layer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::Store;
use super::error::{Result, StoreError};
use super::fetch::Origin;
use super::files::{DATA, INDEX, discard};
use super::id::LayerId;
use super::remote;
use super::room::Room;
use crate::error::FromHost;
use crate::format::index::Index;
use crate::format::layout::{HEAD_LEN, blob_head};
use crate::types::Digest;
use crate::types::hashing::{Hashing, drain};

const STEP: usize = 128 << 10;
/// Longest index: of 16 million objects it has some 2 GiB.
pub(crate) const INDEX_MAX: u64 = 4 << 30;
/// What an index may become when it is decompressed: that whatever it is, then so many times its
/// length. One of equal files in one directory is a thirtieth.
const INDEX_FREE: u64 = 16 << 20;
const INDEX_TIMES: u64 = 256;

/// A stream and the digest that it has to have.
pub struct Stream<'a> {
    /// Where it is read.
    pub from: &'a mut dyn Read,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its length, as the image states it.
    pub size: u64,
}

/// Where the data of a layer is.
pub enum Data<'a> {
    /// Here; it is opened only if it is needed.
    Whole {
        /// Opens it.
        open: &'a mut dyn FnMut() -> Result<Box<dyn Read + 'a>>,
        /// Its digest.
        digest: &'a Digest,
        /// Its length, as the image states it.
        size: u64,
    },
    /// In a registry, so many bytes: it is fetched when it is read.
    Remote(&'a Origin, u64),
}

impl Data<'_> {
    const fn size(&self) -> u64 {
        match self {
            Self::Whole { size, .. } | Self::Remote(_, size) => *size,
        }
    }
}

/// Reads a stream to its end, and compares all that was read with its digest.
fn expect(mut hashing: Hashing<impl Read>, digest: &Digest) -> Result<()> {
    let drained = drain(&mut hashing);
    drained.map_err(|source| StoreError::Stream { what: digest.to_string(), source })?;
    let found = hashing.finish();
    if found == *digest {
        return Ok(());
    }
    Err(StoreError::OtherBlob { digest: digest.clone(), found })
}

impl Store {
    /// Takes a layer in its own form; one that is there already stays, and is completed.
    ///
    /// # Errors
    /// [`StoreError::OtherBlob`] and [`StoreError::Contradiction`] for what is not what was
    /// announced, [`StoreError::Damaged`] for an index that is none or data that does not belong to
    /// it; what the host answers.
    pub fn adopt(&self, index: Stream<'_>, data: Data<'_>) -> Result<LayerId> {
        let (dir, _lock) = self.begin()?;
        let done = self.adopt_in(&dir, index, data);
        if done.is_err() {
            discard(&dir);
        }
        done
    }

    fn adopt_in(&self, dir: &Path, index: Stream<'_>, data: Data<'_>) -> Result<LayerId> {
        let mut hashing = Hashing::new(index.from);
        let path = dir.join(INDEX);
        let mut room = Room::new(dir)?;
        let mut unpacked = plain(&mut hashing)?;
        let (head, left) = declared(&mut unpacked, index.size, data.size())?;
        let mut whole = io::Cursor::new(head).chain(unpacked.take(left + 1));
        let id = write(&mut whole, &path, &mut room)?;
        if whole.get_ref().1.limit() == 0 {
            return Err(contradicts("it is longer than its head says".to_owned()));
        }
        drop(whole);
        expect(hashing, index.digest)?;
        if self.is_whole(&id) {
            discard(dir);
            return Ok(id);
        }
        let (len, frames) = super::layer::Layer::extent(dir)?;
        match data {
            Data::Whole { open, digest, size } => {
                let mut hashing = Hashing::new(open()?.take(size + 1));
                write(&mut hashing, &dir.join(DATA), &mut room)?;
                expect(hashing, digest)?;
            }
            Data::Remote(origin, _) => {
                let path = dir.join(DATA);
                let mut data = File::create_new(&path).map_err(StoreError::io(&path))?;
                data.write_all(&blob_head()).map_err(StoreError::io(&path))?;
                data.set_len(len).map_err(StoreError::io(&path))?;
                // One without data is there as a whole.
                if frames > 0 {
                    remote::begin(dir, frames, origin)?;
                }
            }
        }
        self.check(dir, &id)?;
        self.name(dir, &id)?;
        Ok(id)
    }

    /// What was taken is a layer, as far as it is there.
    fn check(&self, dir: &Path, id: &LayerId) -> Result<()> {
        let layer = super::layer::Layer::open(dir, id.clone(), &self.reading)?;
        layer.confirm()?;
        match layer.verify().into_iter().next() {
            Some(damage) => Err(StoreError::Contradiction { what: damage.what }),
            None => Ok(()),
        }
    }

    /// The two files of a layer, to be sent.
    ///
    /// # Errors
    /// As open(2).
    pub fn files(&self, id: &LayerId) -> Result<[File; 2]> {
        let open = |name| {
            let path = self.layers.join(id.as_str()).join(name);
            File::open(&path).map_err(StoreError::io(&path))
        };
        Ok([open(INDEX)?, open(DATA)?])
    }

    /// Whether a layer is there as a whole, and is what was put there.
    #[must_use]
    pub fn is_whole(&self, id: &LayerId) -> bool {
        let dir = self.layers.join(id.as_str());
        dir.exists() && !remote::is_partial(&dir) && self.is_sound(id)
    }
}

/// An index as it was.
fn plain<'a>(packed: &'a mut dyn Read) -> Result<impl Read + 'a> {
    let bad = |source| StoreError::Stream { what: "the index of a layer".to_owned(), source };
    Ok(zstd::stream::read::Decoder::new(packed).map_err(bad)?.take(INDEX_MAX))
}

fn contradicts(what: String) -> StoreError {
    StoreError::Contradiction { what: format!("the index of a layer: {what}") }
}

/// Reads the head of an index, and compares what it states with what the image states of the
/// layer, before anything of it is written. Answers the head, and how many bytes follow it.
fn declared(from: &mut dyn Read, packed: u64, data: u64) -> Result<([u8; HEAD_LEN], u64)> {
    let mut head = [0; HEAD_LEN];
    let read = from.read_exact(&mut head);
    read.map_err(|source| StoreError::Stream { what: "the index of a layer".to_owned(), source })?;
    let (len, blob) = Index::declared(&head).map_err(|error| contradicts(error.to_string()))?;
    if blob != data {
        return Err(contradicts(format!("its data have {blob} bytes, and those named {data}")));
    }
    let most = INDEX_FREE.max(packed.saturating_mul(INDEX_TIMES)).min(INDEX_MAX);
    if len > most {
        return Err(contradicts(format!("{packed} bytes become {len}; {most} is the limit")));
    }
    Ok((head, len - HEAD_LEN as u64))
}

/// The id of the layer with this index, as it is sent.
///
/// # Errors
/// [`StoreError::Stream`] for what cannot be read.
pub fn id_of(packed: &mut dyn Read) -> Result<LayerId> {
    let mut hasher = blake3::Hasher::new();
    let what = "the index of a layer".to_owned();
    io::copy(&mut plain(packed)?, &mut hasher)
        .map_err(|source| StoreError::Stream { what, source })?;
    hasher.finalize().to_hex().parse()
}

/// Writes a stream to a new file; answers the BLAKE3 of it as an id.
fn write(from: &mut dyn Read, path: &Path, room: &mut Room) -> Result<LayerId> {
    let mut file = File::create_new(path).map_err(StoreError::io(path))?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; STEP]);
    loop {
        let read = from.read(&mut buffer);
        let source = |source| StoreError::Stream { what: "a blob of a layer".to_owned(), source };
        let bytes = match read.map_err(source)? {
            0 => return hasher.finalize().to_hex().parse(),
            len => buffer.get(..len).unwrap_or_default(),
        };
        room.take(bytes.len() as u64).map_err(StoreError::io(path))?;
        hasher.update(bytes);
        file.write_all(bytes).map_err(StoreError::io(path))?;
    }
}
