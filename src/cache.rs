//! Blocks of layers in memory: a cache, limited in bytes, that evicts the least recently used.
//!
//! Sharded; no lock is held while a block is fetched. A request for a block that is being fetched
//! waits for that one fetch. A failed fetch is not kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::error::Result;

const SHARDS: usize = 16;

/// A block: shared bytes that never change.
pub type Block = Arc<Buffer>;

/// The largest number of idle buffers.
const IDLE: usize = 32;
/// Size of a reused buffer in bytes: that of a full frame. Memory of this size goes back to the
/// system when it is freed, and would be mapped anew, page by page, for each block.
const REUSED: usize = 128 << 10;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The bytes of a block; their memory is reused for another block.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Makes an empty buffer with room for `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        // A shorter one would hold more memory than is counted.
        let reused = (len > REUSED * 3 / 4 && len <= REUSED).then(|| POOL.lock().pop());
        match reused {
            Some(Some(bytes)) => Self(bytes),
            Some(None) => Self(Vec::with_capacity(REUSED)),
            None => Self(Vec::with_capacity(len)),
        }
    }

    /// Bytes of memory that the buffer takes.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.0.capacity()
    }

    /// The vector that receives the bytes.
    pub const fn room(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() != REUSED {
            return;
        }
        let mut bytes = std::mem::take(&mut self.0);
        let mut pool = POOL.lock();
        if pool.len() < IDLE {
            bytes.clear();
            pool.push(bytes);
        }
    }
}

/// Names a block by its layer and frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Number of the layer in this process.
    pub layer: u32,
    /// Number of the frame.
    pub frame: u32,
}

/// The counters of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheStats {
    /// Blocks found.
    pub hits: u64,
    /// Blocks fetched.
    pub misses: u64,
    /// Blocks evicted for others.
    pub evicted: u64,
    /// Bytes held.
    pub bytes: u64,
}

struct Shard {
    blocks: LruCache<Key, Block>,
    bytes: usize,
    coming: HashMap<Key, Arc<Mutex<Option<Block>>>>,
}

/// The cache.
pub struct BlockCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
}

impl BlockCache {
    /// The size without an option: 64 MiB.
    pub const DEFAULT_BYTES: usize = 64 << 20;

    /// Makes a cache of at most `bytes` bytes, and of one block at least in each of its 16 parts.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let shard = || Shard { blocks: LruCache::unbounded(), bytes: 0, coming: HashMap::new() };
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            shard_bytes: bytes / SHARDS,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        let mixed =
            (u64::from(key.layer) << 32 | u64::from(key.frame)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The top four bits of 64 are below 16.
        #[allow(clippy::indexing_slicing)]
        &self.shards[(mixed >> 60) as usize & (SHARDS - 1)]
    }

    /// Returns a block, fetched if the cache does not hold it.
    ///
    /// # Errors
    /// The error of `fetch`.
    pub fn get(&self, key: Key, fetch: impl FnOnce() -> Result<Block>) -> Result<Block> {
        let shard = self.shard(key);
        let coming = {
            let mut shard = shard.lock();
            if let Some(block) = shard.blocks.get(&key) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(Arc::clone(block));
            }
            Arc::clone(shard.coming.entry(key).or_default())
        };
        let mut slot = coming.lock();
        if let Some(block) = &*slot {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(block));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let fetched = fetch();
        let mut shard = shard.lock();
        shard.coming.remove(&key);
        let block = fetched?;
        *slot = Some(Arc::clone(&block));
        self.keep(&mut shard, key, &block);
        Ok(block)
    }

    /// Removes a block and returns it; waits if it is being fetched.
    pub fn take(&self, key: Key) -> Option<Block> {
        let shard = self.shard(key);
        let give_up = || {
            let mut shard = shard.lock();
            let block = shard.blocks.pop(&key)?;
            shard.bytes -= block.held();
            Some(block)
        };
        if let Some(block) = give_up() {
            return Some(block);
        }
        let coming = shard.lock().coming.get(&key).map(Arc::clone)?;
        let block = coming.lock().clone();
        drop(give_up());
        block
    }

    /// The number of requests for blocks.
    pub fn requests(&self) -> u64 {
        self.hits.load(Ordering::Relaxed) + self.misses.load(Ordering::Relaxed)
    }

    fn keep(&self, shard: &mut Shard, key: Key, block: &Block) {
        shard.bytes += block.held();
        if let Some(old) = shard.blocks.put(key, Arc::clone(block)) {
            shard.bytes -= old.held();
        }
        while shard.bytes > self.shard_bytes && shard.blocks.len() > 1 {
            let Some((_, old)) = shard.blocks.pop_lru() else { break };
            shard.bytes -= old.held();
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of bytes that the cache may hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.shard_bytes * SHARDS
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            bytes: self.shards.iter().map(|shard| shard.lock().bytes as u64).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Errno;

    const fn key(frame: u32) -> Key {
        Key { layer: 1, frame }
    }

    #[test]
    fn a_block_is_fetched_once_whoever_asks() {
        let cache = BlockCache::new(1 << 20);
        let fetched = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let block = cache.get(key(7), || {
                        fetched.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(Arc::new(Buffer::from(&[1_u8, 2][..])))
                    });
                    assert_eq!(block.unwrap()[..], [1, 2]);
                });
            }
        });
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
        assert_eq!(cache.stats().hits, 7);
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        let failed = cache.get(key(1), || Err(Errno::IO.into()));
        assert!(failed.unwrap_err().is(Errno::IO));
        assert!(cache.get(key(1), || Ok(Arc::new(Buffer::from(&[3_u8][..])))).is_ok());
    }

    #[test]
    fn a_block_that_is_taken_is_no_longer_there() {
        let cache = BlockCache::new(1 << 20);
        assert!(cache.take(key(1)).is_none());
        cache.get(key(1), || Ok(Arc::new(Buffer::from(&[3_u8][..])))).unwrap();
        assert_eq!(cache.take(key(1)).unwrap()[..], [3]);
        assert_eq!((cache.stats().bytes, cache.requests()), (0, 1));
        assert!(cache.take(key(1)).is_none());
    }

    #[test]
    fn whoever_takes_a_block_waits_for_its_fetch() {
        let cache = BlockCache::new(1 << 20);
        let (begun, begins) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let cache = &cache;
            scope.spawn(move || {
                cache.get(key(1), || {
                    begun.send(()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    Ok(Arc::new(Buffer::from(&[3_u8][..])))
                })
            });
            begins.recv().unwrap();
            assert_eq!(cache.take(key(1)).unwrap()[..], [3]);
        });
        assert_eq!(cache.stats().misses, 1);
    }

    #[test]
    fn bytes_stay_below_the_cap() {
        let cache = BlockCache::new(SHARDS * 1000);
        for frame in 0..1000 {
            cache.get(key(frame), || Ok(Arc::new(Buffer::from(&[0_u8; 400][..])))).unwrap();
        }
        let stats = cache.stats();
        assert!(stats.bytes <= 16_000, "{stats:?}");
        assert_eq!(stats.evicted + stats.bytes / 400, 1000);
    }
}
