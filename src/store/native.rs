//! Layers in Lamina's own form, outside the store: each is two OCI blobs, the index (compressed
//! with zstd) and the data as in the store. Such a layer need not be rebuilt, and need not be
//! present as a whole.
//!
//! The digest of an index proves its content. Nothing proves that it holds the content that the
//! diff ID of the image names, so the store never finds such a layer by its diff ID.

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
/// The longest index: 16 million objects take some 2 GiB.
pub(crate) const INDEX_MAX: u64 = 4 << 30;
/// The limit for a decompressed index: the first number in any case, and the compressed length
/// times the second. The index of equal files in one directory compresses to a thirtieth.
const INDEX_FREE: u64 = 16 << 20;
const INDEX_TIMES: u64 = 256;

/// A stream and its expected digest.
pub struct Stream<'a> {
    /// The source of the bytes.
    pub from: &'a mut dyn Read,
    /// The expected digest.
    pub digest: &'a Digest,
    /// The length that the image states.
    pub size: u64,
}

/// The place of the data of a layer.
pub enum Data<'a> {
    /// On this host; it is opened only if it is needed.
    Whole {
        /// Opens the stream.
        open: &'a mut dyn FnMut() -> Result<Box<dyn Read + 'a>>,
        /// The expected digest.
        digest: &'a Digest,
        /// The length that the image states.
        size: u64,
    },
    /// In a registry, with its length; it is fetched when it is read.
    Remote(&'a Origin, u64),
}

impl Data<'_> {
    const fn size(&self) -> u64 {
        match self {
            Self::Whole { size, .. } | Self::Remote(_, size) => *size,
        }
    }
}

/// Reads a stream to its end and compares its digest.
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
    /// Adds a layer in Lamina's own form. If the layer already exists, it stays and is completed.
    ///
    /// # Errors
    /// [`StoreError::OtherBlob`] and [`StoreError::Contradiction`] if a blob differs from what the
    /// image states, [`StoreError::Damaged`] for an invalid index or data that does not belong to
    /// it; errors of the host.
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
                // A layer without frames is already complete.
                if frames > 0 {
                    remote::begin(dir, frames, origin)?;
                }
            }
        }
        self.check(dir, &id)?;
        self.name(dir, &id)?;
        Ok(id)
    }

    /// Checks that the files are a valid layer, as far as the data is there.
    fn check(&self, dir: &Path, id: &LayerId) -> Result<()> {
        let layer = super::layer::Layer::open(dir, id.clone(), &self.reading)?;
        layer.confirm()?;
        match layer.verify().into_iter().next() {
            Some(damage) => Err(StoreError::Contradiction { what: damage.what }),
            None => Ok(()),
        }
    }

    /// Opens the two files of a layer, to be sent.
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

    /// Whether a layer is present as a whole and undamaged.
    #[must_use]
    pub fn is_whole(&self, id: &LayerId) -> bool {
        let dir = self.layers.join(id.as_str());
        dir.exists() && !remote::is_partial(&dir) && self.is_sound(id)
    }
}

/// Decompresses an index.
fn plain<'a>(packed: &'a mut dyn Read) -> Result<impl Read + 'a> {
    let bad = |source| StoreError::Stream { what: "the index of a layer".to_owned(), source };
    Ok(zstd::stream::read::Decoder::new(packed).map_err(bad)?.take(INDEX_MAX))
}

fn contradicts(what: String) -> StoreError {
    StoreError::Contradiction { what: format!("the index of a layer: {what}") }
}

/// Reads the head of an index and compares it with the sizes that the image states, before anything
/// is written. Returns the head and the number of bytes after it.
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

/// Returns the id of the layer with this compressed index.
///
/// # Errors
/// [`StoreError::Stream`] if the index cannot be read.
pub fn id_of(packed: &mut dyn Read) -> Result<LayerId> {
    let mut hasher = blake3::Hasher::new();
    let what = "the index of a layer".to_owned();
    io::copy(&mut plain(packed)?, &mut hasher)
        .map_err(|source| StoreError::Stream { what, source })?;
    hasher.finalize().to_hex().parse()
}

/// Writes a stream to a new file. Returns its BLAKE3 as an id.
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
