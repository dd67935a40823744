//! Places of directories, and how a directory is opened from its place.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::types::{Name, Stat, name as owned};
use crate::union::layer::Dir;

use super::cache::{DirFd, FdCache, ROOT};
use super::names::{ITSELF, component};
use super::tree::{Tree, Uuid};

/// Deepest place: far deeper than a path can express; it ends a walk in a circle.
const DEPTH_MAX: usize = 1 << 16;

/// How long a walk is retried that finds another directory than expected, or none: while a
/// directory is moved, the places beneath it are outdated for a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of retries before the walk sleeps between two of them.
const EAGER: u32 = 64;

/// A directory of the host, as a place.
///
/// It holds no descriptor. Making and dropping it costs no system call unless it was opened.
pub struct HostDir {
    id: u64,
    tree: Arc<Tree>,
    this: Weak<Self>,
    /// `None` for the root.
    place: Mutex<Option<Place>>,
    /// Device and inode number, once they are known.
    known: OnceLock<(u64, u64)>,
}

#[derive(Clone)]
struct Place {
    parent: Arc<HostDir>,
    name: Name,
}

/// Returns a directory as one of this implementation. `EXDEV` for any other.
pub(super) fn peer(dir: &dyn Dir) -> Result<&HostDir> {
    dir.as_any().downcast_ref::<HostDir>().ok_or(Error::Rule(Errno::XDEV))
}

impl HostDir {
    /// The root of a tree.
    pub(super) fn root(tree: Arc<Tree>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: ROOT,
            tree,
            this: this.clone(),
            place: Mutex::new(None),
            known: OnceLock::new(),
        })
    }

    /// A subdirectory, with its device and inode number if they are known.
    pub(super) fn child(&self, name: &[u8], known: Option<(u64, u64)>) -> Arc<Self> {
        // The caller holds a reference, so the upgrade succeeds; otherwise a root stands in.
        let parent = self.this.upgrade().unwrap_or_else(|| Self::root(Arc::clone(&self.tree)));
        Arc::new_cyclic(|this| Self {
            id: self.tree.cache.number(),
            tree: Arc::clone(&self.tree),
            this: this.clone(),
            place: Mutex::new(Some(Place { parent, name: owned(name) })),
            known: known.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    pub(super) fn move_to(&self, parent: &Self, name: &[u8]) {
        let Some(parent) = parent.this.upgrade() else { return };
        let former = match &mut *self.place.lock() {
            Some(place) => std::mem::replace(place, Place { parent, name: owned(name) }),
            None => return, // a root has no place
        };
        drop(former);
    }

    pub(super) fn cache(&self) -> &FdCache {
        &self.tree.cache
    }

    /// Whether the tree is a clone of its mount, through which no device can be opened.
    pub(super) fn is_cloned(&self) -> bool {
        self.tree.cloned
    }

    fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    /// Returns the open directory, if it is open already.
    fn cached(&self) -> Option<Arc<DirFd>> {
        if self.id == ROOT {
            return Some(Arc::clone(&self.tree.root));
        }
        self.tree.cache.find(self.id)
    }

    /// The tree that the directory belongs to.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the open directory.
    pub(super) fn opened(&self) -> Result<Arc<DirFd>> {
        if let Some(dir) = self.cached() {
            return Ok(dir);
        }
        let mut until = None;
        for tries in 0.. {
            let moves = self.tree.moves();
            let error = match self.walk() {
                Ok(dir) => return Ok(dir),
                Err(error) => error,
            };
            let lost = [Errno::NOENT, Errno::NOTDIR, Errno::STALE].contains(&error.errno());
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if !lost || self.tree.is_still(moves) || Instant::now() > until {
                return Err(error);
            }
            if tries < EAGER {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Err(Errno::STALE.into())
    }

    /// Opens this directory from the nearest parent that is open, and caches the directories that
    /// it opens. `ESTALE` if a name leads to another directory than the known one.
    fn walk(&self) -> Result<Arc<DirFd>> {
        let mut below: Vec<(Arc<Self>, Name)> = Vec::new();
        let mut at = self.this.upgrade().ok_or(Errno::STALE)?;
        let mut dir = loop {
            let Some(Place { parent, name }) = at.place() else {
                break Arc::clone(&self.tree.root);
            };
            below.push((at, name));
            if let Some(dir) = parent.cached() {
                break dir;
            }
            if below.len() > DEPTH_MAX {
                return Err(Errno::LOOP.into());
            }
            at = parent;
        };
        while let Some((at, name)) = below.pop() {
            let name = component(&name)?;
            let opened = self.tree.cache.with_room(|| DirFd::open(dir.fd(), name))?;
            at.check(&sys::file::statx(opened.fd(), ITSELF)?)?;
            dir = Arc::new(opened);
            // Only directories near the end of a long path are kept: the others would displace the
            // path to a place in another layer, which is used in turn with this one.
            if below.len() < self.tree.cache.way() {
                self.tree.cache.keep(at.id, &dir);
            }
        }
        Ok(dir)
    }

    // Checks that these attributes are those of this directory.
    fn check(&self, stat: &Stat) -> Result<()> {
        let found = (stat.dev, stat.ino);
        if *self.known.get_or_init(|| found) == found { Ok(()) } else { Err(Errno::STALE.into()) }
    }

    /// Returns the attributes of the directory, without opening it.
    pub(super) fn stat_self(&self) -> Result<Stat> {
        if let Some(dir) = self.cached() {
            return sys::file::statx(dir.fd(), ITSELF);
        }
        if let Some(place) = self.place() {
            let found = place.parent.opened().and_then(|parent| {
                let stat = sys::file::statx(parent.fd(), component(&place.name)?)?;
                self.check(&stat).map(|()| stat)
            });
            if found.is_ok() {
                return found;
            }
        }
        sys::file::statx(self.opened()?.fd(), ITSELF)
    }

    /// Runs `act` on an entry or on the directory itself. The directory is not opened: its name in
    /// its parent is used, unless a directory is moved meanwhile.
    pub(super) fn look<T>(
        &self,
        name: Option<&[u8]>,
        act: impl Fn(&DirFd, &[u8]) -> Result<T>,
    ) -> Result<T> {
        if let Some(name) = name {
            return act(&*self.opened()?, component(name)?);
        }
        if let Some(dir) = self.cached() {
            return act(&dir, ITSELF);
        }
        let moves = self.tree.moves();
        if let Some(place) = self.place() {
            let found = act(&*place.parent.opened()?, component(&place.name)?);
            if found.is_ok() && self.tree.is_still(moves) {
                return found;
            }
        }
        act(&*self.opened()?, ITSELF)
    }

    /// Opens another descriptor of the directory, with a position of its own.
    pub(super) fn open_again(&self, dir: &DirFd) -> Result<OwnedFd> {
        self.cache().with_room(|| DirFd::open_to_read(dir.fd(), b"."))
    }

    /// Returns the UUID of the file system.
    pub(super) fn fs_uuid(&self) -> Result<Uuid> {
        let (dev, _) = match self.known.get() {
            Some(known) => *known,
            None => {
                let stat = self.stat_self()?;
                (stat.dev, stat.ino)
            }
        };
        self.tree.uuid(dev, || self.read_uuid())
    }

    fn read_uuid(&self) -> Result<Uuid> {
        let dir = self.opened()?;
        if sys::file::is_fuse(dir.fd())? {
            return Ok(None);
        }
        if dir.is_readable() {
            return uuid_of(dir.fd()).map(Some);
        }
        let own = self.open_again(&dir)?;
        uuid_of(std::os::fd::AsFd::as_fd(&own)).map(Some)
    }
}

fn uuid_of(dir: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let unknown = |error: &Error| error.is(Errno::NOTTY) || error.is(Errno::OPNOTSUPP);
    match sys::ioctl::fs_uuid(dir) {
        Err(error) if unknown(&error) => {}
        found => return found,
    }
    match sys::ioctl::ext4_uuid(dir) {
        Err(error) if unknown(&error) || error.is(Errno::INVAL) => Ok([0; 16]),
        found => found,
    }
}

impl Drop for HostDir {
    // One loop instead of one stack frame for each parent that is dropped too.
    fn drop(&mut self) {
        if self.id != ROOT {
            self.tree.cache.forget(self.id);
        }
        let mut next = self.place.get_mut().take();
        while let Some(Place { parent, .. }) = next {
            next = Arc::into_inner(parent).and_then(|mut parent| parent.place.get_mut().take());
        }
    }
}
