//! Materialised files: whole contents as files of the host, which the kernel reads directly.
//!
//! The blob is authoritative; materialised files are a cache of it. They are named by the BLAKE3 of
//! the content, below `materials/BOOT/` of the data root, where `BOOT` is the boot id of the host.
//! A file is linked to its name after all of it is written and compared with its digest. Nothing
//! waits for the disk: files of an earlier boot are compared again before use, so a power cut
//! cannot leave a wrong file in use.
//!
//! A user of a file holds a shared flock(2) on it, and the kernel keeps that lock for as long as
//! the file is registered for passthrough. So the least recently used files are removed when the
//! budget is spent, and never one that any process uses.
//!
//! A disk may later refuse data that memory accepted. So a file is synced some time after it was
//! written and then gets the mode [`SYNCED`]. A file without it is compared once by each process
//! that finds it.

mod idle_queue;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use self::idle_queue::{IdleQueue, Task};
use super::ahead::Prefetch;
use super::damage::Damage;
use super::files::make_dir;
use crate::cache::BlockCache;
use crate::format::layout::Inode;
use crate::sys;
use crate::types::hex;

/// Files of at least this size are materialised; a smaller one is read faster through the cache.
const SIZE_MIN: u64 = 128 << 10;
/// Files up to this size are materialised while OPEN waits; larger ones in the background.
const SIZE_AT_ONCE: u64 = 4 << 20;
/// The default budget: a tenth of the file system, at most 10 GiB.
const BUDGET_MAX: u64 = 10 << 30;
/// One part in this many of the file system stays free.
const FREE_PART: u64 = 20;
/// The time for which a process trusts its last scan of the directory.
const TRUST: Duration = Duration::from_secs(10);
/// The granularity of the time of the last use.
const USE_STEP: Duration = Duration::from_secs(60);
/// Mode of a new file.
const NEW: u32 = 0o400;
/// Mode of a file that is known to be on the disk.
const SYNCED: u32 = 0o440;
/// Counters of materialised files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MaterialStats {
    /// The number of files written.
    pub made: u64,
    /// The number of bytes written.
    pub made_bytes: u64,
    /// The number of times that a file was already there.
    pub found: u64,
    /// The number of files removed to make room for others.
    pub evicted: u64,
}

/// The materialised files of a data root.
pub struct Materials {
    dir: PathBuf,
    budget: Option<u64>,
    boot: OnceLock<Option<Boot>>,
    room: Mutex<Room>,
    coming: Mutex<HashSet<[u8; 32]>>,
    /// The digests of files that this process compared or wrote.
    trusted: Mutex<HashSet<[u8; 32]>>,
    later: IdleQueue,
    /// Counts the reads, to find out when there are none.
    cache: Arc<BlockCache>,
    stopped: AtomicBool,
    made: AtomicU64,
    made_bytes: AtomicU64,
    found: AtomicU64,
    evicted: AtomicU64,
}

/// The directories of the files, of this boot and of earlier ones.
struct Boot {
    dir: PathBuf,
    earlier: Vec<PathBuf>,
}

#[derive(Default)]
struct Room {
    used: u64,
    known: Option<Instant>,
}

/// A materialised file on the disk.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// A layer that supplies the content of files.
pub(super) trait Source: Send + Sync {
    /// A number that is unique among the open layers of the process.
    fn number(&self) -> u32;

    /// The BLAKE3 of the whole content of a file, if it can be materialised.
    fn digest(&self, inode: &Inode) -> Option<&[u8; 32]>;

    /// The number of bytes of a file that are not holes.
    fn allocated(&self, inode: &Inode) -> u64;

    /// Records that a whole file is wanted; `waits` is whether a caller waits for it. Returns the
    /// frames that the read-ahead thread may fetch in the meantime.
    fn walk_to(&self, inode: &Inode, waits: bool) -> Prefetch;

    /// Writes the whole content to an empty file, with holes as holes, and returns the BLAKE3 of
    /// it. Frames are taken out of the cache, since later readers have the file. `share` holds the
    /// frames for the read-ahead thread, if a caller waits.
    ///
    /// # Errors
    /// `EIO` if the blob differs from its digests; as pwrite(2).
    fn write_to(
        &self,
        inode: &Inode,
        to: BorrowedFd<'_>,
        share: Option<Prefetch>,
    ) -> crate::error::Result<[u8; 32]>;
}

impl Materials {
    /// The materialised files of a data root. A budget of 0 bytes disables them; the default
    /// depends on the file system.
    pub(super) fn new(root: &Path, budget: Option<u64>, cache: &Arc<BlockCache>) -> Arc<Self> {
        Arc::new(Self {
            dir: root.join("materials"),
            budget,
            boot: OnceLock::new(),
            room: Mutex::default(),
            coming: Mutex::default(),
            trusted: Mutex::default(),
            later: IdleQueue::default(),
            cache: Arc::clone(cache),
            stopped: AtomicBool::new(false),
            made: AtomicU64::new(0),
            made_bytes: AtomicU64::new(0),
            found: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// Stops making and finding files for the kernel.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Syncs the files written so far, at the end of a process. If that takes too long, the next
    /// process compares them instead.
    pub(super) fn settle(&self) {
        self.later.finish();
    }

    pub(super) fn stats(&self) -> MaterialStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MaterialStats {
            made: read(&self.made),
            made_bytes: read(&self.made_bytes),
            found: read(&self.found),
            evicted: read(&self.evicted),
        }
    }

    fn boot(&self) -> Option<&Boot> {
        let find = || -> io::Result<Boot> {
            let id = sys::process::boot_id()?;
            let dir = self.dir.join(&id);
            make_dir(&dir).map_err(io::Error::other)?;
            let mut earlier = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                if path != dir && path.is_dir() {
                    earlier.push(path);
                }
            }
            Ok(Boot { dir, earlier })
        };
        let found = self.boot.get_or_init(|| {
            find().inspect_err(|error| tracing::info!(%error, "no file is materialised")).ok()
        });
        found.as_ref()
    }

    /// Returns the file with this content of `size` bytes, if there is one. It is not removed while
    /// it is open. A file that must be compared first is used only if it has at most `compare`
    /// bytes.
    pub(super) fn find(&self, digest: &[u8; 32], size: u64, compare: u64) -> Option<File> {
        if self.budget == Some(0) {
            return None;
        }
        let boot = self.boot()?;
        let name = hex::encode(digest);
        let path = boot.dir.join(&name);
        let found = use_file(&path).or_else(|| {
            let old = boot.earlier.iter().map(|dir| dir.join(&name));
            let old = old
                .into_iter()
                .find(|old| old.metadata().is_ok_and(|meta| meta.len() <= compare))?;
            take_over(&old, &path, digest).then(|| use_file(&path)).flatten()
        })?;
        let meta = found.metadata().ok()?;
        if meta.len() != size {
            let len = meta.len();
            let path = path.display();
            tracing::warn!(%path, len, size, "a materialised file is not as long as it was");
            drop(fs::remove_file(boot.dir.join(&name)));
            return None;
        }
        let known = meta.mode() & 0o777 == SYNCED;
        if !known && !self.trusted.lock().contains(digest) {
            if meta.len() > compare {
                return None;
            }
            if !hash(&found).is_ok_and(|hash| hash == *digest) {
                tracing::warn!(path = %path.display(), "removing a damaged materialised file");
                drop(fs::remove_file(&path));
                return None;
            }
            self.trusted.lock().insert(*digest);
        }
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// Returns the content of a file of a layer as a file of the host. `None` if it is not
    /// worthwhile, if there is no room, or while the file is written in the background.
    pub(super) fn get(self: &Arc<Self>, layer: &Arc<dyn Source>, inode: &Inode) -> Option<File> {
        let digest = layer.digest(inode)?;
        let size = inode.size.get();
        // A sparse file has little data, but all of its bytes must be hashed.
        let sparse = size > SIZE_AT_ONCE && size / 8 > layer.allocated(inode);
        if size < SIZE_MIN || sparse || self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(found) = self.find(digest, size, SIZE_AT_ONCE) {
            return Some(found);
        }
        if self.budget == Some(0) {
            return None;
        }
        let share = layer.walk_to(inode, size <= SIZE_AT_ONCE);
        if size > SIZE_AT_ONCE {
            self.later.add(self, Task::Make(Arc::clone(layer), *inode));
            return None;
        }
        self.make(layer, inode, Some(share))
    }

    /// Writes a file, unless another thread is writing it.
    fn make(
        self: &Arc<Self>,
        layer: &Arc<dyn Source>,
        inode: &Inode,
        share: Option<Prefetch>,
    ) -> Option<File> {
        let digest = *layer.digest(inode)?;
        if !self.coming.lock().insert(digest) {
            return None;
        }
        let made = self.write(layer.as_ref(), inode, &digest, share);
        self.coming.lock().remove(&digest);
        made.inspect_err(|error| tracing::debug!(%error, "a file was not materialised")).ok()?;
        use_file(&self.boot()?.dir.join(hex::encode(&digest)))
    }

    fn write(
        self: &Arc<Self>,
        layer: &dyn Source,
        inode: &Inode,
        digest: &[u8; 32],
        share: Option<Prefetch>,
    ) -> io::Result<()> {
        let boot = self.boot().ok_or(io::ErrorKind::NotFound)?;
        let size = layer.allocated(inode);
        if !self.make_room(size)? {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let refused = |error: crate::error::Error| io::Error::from_raw_os_error(error.errno().0);
        let file = sys::file::unnamed(&boot.dir, NEW).map_err(refused)?;
        let waited = share.is_some();
        let written = layer.write_to(inode, file.as_fd(), share).map_err(refused)?;
        if written != *digest {
            return Err(io::Error::other("the content differs from its digest"));
        }
        // Without a waiting caller the file is synced at once: the next process could not compare a
        // file of this size while OPEN waits.
        if !waited {
            file.sync_data()?;
            file.set_permissions(fs::Permissions::from_mode(SYNCED))?;
        }
        let path = boot.dir.join(hex::encode(digest));
        match sys::file::link(file.as_fd(), &path) {
            // Another process wrote it too.
            Err(error) if error.is(crate::error::Errno::EXIST) => return Ok(()),
            linked => linked.map_err(refused)?,
        }
        self.room.lock().used += size;
        self.made.fetch_add(1, Ordering::Relaxed);
        self.made_bytes.fetch_add(size, Ordering::Relaxed);
        self.trusted.lock().insert(*digest);
        if waited {
            self.later.add(self, Task::Sync(path));
        }
        Ok(())
    }

    /// Makes room for a number of bytes. Returns whether there is enough.
    fn make_room(&self, bytes: u64) -> io::Result<bool> {
        let dir = sys::file::open_path(&self.dir, sys::file::OFlags::PATH);
        let space = dir.and_then(|dir| sys::file::fstatfs(dir.as_fd()));
        let space = space.map_err(|error| io::Error::from_raw_os_error(error.errno().0))?;
        let unit = u64::from(space.frsize.max(1));
        let total = space.blocks.saturating_mul(unit);
        let part = if total == 0 { BUDGET_MAX } else { total / 10 };
        let budget = self.budget.unwrap_or(BUDGET_MAX.min(part));
        if bytes > budget {
            return Ok(false);
        }
        let free = space.bavail.saturating_mul(unit).saturating_sub(total / FREE_PART);
        let mut room = self.room.lock();
        let fresh = room.known.is_some_and(|known| known.elapsed() < TRUST);
        if fresh && room.used + bytes <= budget && (bytes <= free || space.blocks == 0) {
            return Ok(true);
        }
        let mut kept = self.all()?;
        let mut used: u64 = kept.iter().map(|kept| kept.bytes).sum();
        // Some file systems report no block counts: assume that there is room.
        let lacking = if space.blocks == 0 { 0 } else { bytes.saturating_sub(free) };
        let mut needed = (used + bytes).saturating_sub(budget).max(lacking);
        if needed > used {
            // Removing all files would not be enough.
            return Ok(false);
        }
        kept.sort_by_key(|kept| kept.used);
        for kept in kept {
            if needed == 0 {
                break;
            }
            if discard(&kept.path) {
                used -= kept.bytes;
                needed = needed.saturating_sub(kept.bytes);
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        *room = Room { used, known: Some(Instant::now()) };
        Ok(needed == 0)
    }

    /// All files, of every boot. Removes empty directories of earlier boots.
    fn all(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        let dirs = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            dirs => dirs?,
        };
        let current = sys::process::boot_id()?;
        for dir in dirs {
            let dir = dir?;
            if !dir.file_type()?.is_dir() {
                continue;
            }
            let before = found.len();
            for entry in fs::read_dir(dir.path())? {
                let entry = entry?;
                let Ok(meta) = entry.metadata() else { continue };
                let (bytes, used) = (meta.blocks() * 512, meta.modified()?);
                found.push(Kept { path: entry.path(), bytes, used });
            }
            if found.len() == before && dir.file_name().to_string_lossy() != current {
                // This fails if another process put a file there.
                drop(fs::remove_dir(dir.path()));
            }
        }
        Ok(found)
    }

    /// The bytes of each file, and whether a process uses it.
    pub(super) fn usage(&self) -> io::Result<Vec<(u64, bool)>> {
        let is_used = |path: &Path| {
            File::open(path).is_ok_and(|file| sys::file::try_flock(file.as_fd()).is_err())
        };
        Ok(self.all()?.into_iter().map(|kept| (kept.bytes, is_used(&kept.path))).collect())
    }

    /// Removes the files that no process uses. Returns their bytes.
    pub(super) fn drop_unused(&self) -> io::Result<u64> {
        let gone = self.all()?.into_iter().filter(|kept| discard(&kept.path));
        Ok(gone.map(|kept| kept.bytes).sum())
    }

    /// Compares every file with its digest. Removes a file that differs, unless it is in use.
    pub(super) fn verify(&self) -> io::Result<Vec<Damage>> {
        let mut damage = Vec::new();
        for kept in self.all()? {
            let name = kept.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let same = File::open(&kept.path).and_then(|file| hash(&file));
            if same.is_ok_and(|hash| hex::encode(&hash) == name) {
                continue;
            }
            let done = if discard(&kept.path) { "removed" } else { "in use, and stays" };
            let what = format!("materialised file {name} differs from its digest: {done}");
            damage.push(Damage { what, files: Vec::new() });
        }
        Ok(damage)
    }

    /// Removes the files whose content is not in `needed`. Returns their number.
    pub(super) fn collect(&self, needed: &HashSet<String>) -> io::Result<usize> {
        let mut removed = 0;
        for kept in self.all()? {
            let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
            if !needed.contains(name.as_ref()) && discard(&kept.path) {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Opens a file with a lock against removal, and records the time.
fn use_file(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    sys::file::try_flock_shared(file.as_fd()).ok()?;
    let meta = file.metadata().ok()?;
    if meta.nlink() == 0 {
        return None;
    }
    let now = SystemTime::now();
    let old = meta.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|d| d > USE_STEP));
    if old && let Err(error) = file.set_modified(now) {
        tracing::debug!(%error, "the use of a materialised file is not noted");
    }
    Some(file)
}

/// Removes a file that is not in use. Returns whether it did.
fn discard(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    if sys::file::try_flock(file.as_fd()).is_err() {
        return false;
    }
    // The name may lead to another file by now.
    let same = match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    };
    same && fs::remove_file(path).is_ok()
}

fn hash(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    file.rewind()?;
    Ok(*hasher.finalize().as_bytes())
}

/// Moves a file of an earlier boot to the current one if it is intact; otherwise removes it.
fn take_over(old: &Path, new: &Path, digest: &[u8; 32]) -> bool {
    let Ok(file) = File::open(old) else { return false };
    if sys::file::try_flock(file.as_fd()).is_err() {
        return false;
    }
    if hash(&file).is_ok_and(|hash| hash == *digest) {
        let mark = fs::Permissions::from_mode(SYNCED);
        return file.set_permissions(mark).is_ok() && fs::rename(old, new).is_ok();
    }
    tracing::warn!(path = %old.display(), "removing a damaged materialised file");
    drop(fs::remove_file(old));
    false
}

#[cfg(test)]
mod tests;
