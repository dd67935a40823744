//! The driver `union`: layers and an upper, shown by a mount of our own.
//!
//! The content of a volume is a list of layers, and an upper where it is written. A snapshot makes
//! the upper a layer and begins an empty one; it takes the same time whatever the volume holds.
//! Snapshots and clones share the layers. All layers of a data root lie in one pool beside the
//! volumes, each in a directory of its own, and never move.
//!
//! The mount is served by a process of its own, which outlives the one that mounted it.

pub mod delta;
pub mod holder;
mod options;
pub mod pool;
pub mod running;
mod served;
pub mod stack;
pub mod wire;

use std::collections::HashSet;
use std::path::Path;

use super::driver::{Driver, Freezing, Limits, OnCopied, Place, Spec, Usage};
use super::error::{Result, VolumeError};
use super::image::room;
use super::{mounted, tree};
use crate::error::FromHost;
use crate::types::size;
use options::Options;
use pool::Pool;
use stack::Stack;

pub use served::{is_answering, require_holder, resize, set_program, start_for};

/// The name of the driver.
pub const NAME: &str = "union";
/// The smallest size.
const SIZE_MIN: u64 = 1 << 20;

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnionDriver;

/// Makes the layers of an image, the lowest first, the first content of a volume that was just
/// created. The caller keeps them until this returns; then the volume does.
///
/// # Errors
/// As [`stack::write`].
pub fn set_image(place: &Place, layers: Vec<String>) -> Result<()> {
    let _shared = pool(place).share()?;
    stack::write(place.directory(), &Stack { image: layers, ..Stack::default() })
}

/// The layers of images that volumes need, by their ids in the store. No volume passes them on
/// while the first value lives.
///
/// # Errors
/// Errors of reading a stack.
pub fn image_layers(volumes: &Path) -> Result<(Option<pool::Alone>, HashSet<String>)> {
    let Some((alone, stacks)) = Pool::beside(volumes).stacks()? else {
        return Ok((None, HashSet::new()));
    };
    Ok((Some(alone), stacks.into_iter().flat_map(|stack| stack.image).collect()))
}

/// Whether a process serves a volume. A mount whose process has died is ended: its users have an
/// error for every call.
fn is_served(place: &Place) -> Result<bool> {
    served::await_start(place)?;
    if !mounted::is_mounted(place)? {
        return Ok(false);
    }
    if mounted::is_dead(place) {
        mounted::unmount(place, true)?;
        return Ok(false);
    }
    Ok(true)
}

/// The pool of a volume.
fn pool(place: &Place) -> Pool {
    Pool::of(place.directory())
}

/// The bytes that a volume takes on the host.
fn taken_bytes(place: &Place) -> Result<u64> {
    let (stack, pool) = (stack::read_any(place.directory())?, pool(place));
    let layers = stack.upper.iter().chain(&stack.layers);
    layers.map(|layer| pool.taken_bytes(layer)).sum()
}

impl UnionDriver {
    fn member(self, place: &Place, spec: &Spec) -> Member {
        let (place, spec) = (place.clone(), spec.clone());
        Member { driver: self, place, spec, served: None, is_mounted_here: false }
    }

    /// Makes what was written so far a layer, where nobody serves the volume and no file waits for
    /// its names. Returns whether it did.
    fn freeze_at_rest(self, place: &Place) -> Result<bool> {
        let stack = stack::read(place.directory())?;
        let Some(upper) = &stack.upper else {
            if stack.layers.is_empty() && stack.image.is_empty() {
                // Nobody wrote anything yet.
                let pool = pool(place);
                let _shared = pool.share()?;
                let stack = Stack { layers: vec![pool.make()?], ..stack };
                stack::write(place.directory(), &stack)?;
            }
            return Ok(true);
        };
        if is_served(place)? {
            return Ok(false);
        }
        served::await_end(place)?;
        if pool(place).is_unwritten(&stack)? {
            return Ok(true);
        }
        let index = pool(place).work(upper).join("index");
        match std::fs::read_dir(&index).map(|mut entries| entries.next().is_none()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(VolumeError::io(&index)(error));
            }
            Ok(false) => return Ok(false),
            _ => {}
        }
        stack::write(place.directory(), &stack.frozen(None))?;
        Ok(true)
    }
}

/// A volume whose content is about to become a snapshot.
struct Member {
    driver: UnionDriver,
    place: Place,
    spec: Spec,
    /// The process that serves the volume; `None` for a volume at rest, which is frozen already.
    served: Option<served::Freeze>,
    is_mounted_here: bool,
}

impl Freezing for Member {
    fn prepare(&mut self) -> Result<()> {
        if self.driver.freeze_at_rest(&self.place)? {
            return Ok(());
        }
        if !is_served(&self.place)? {
            self.driver.mount(&self.place, &self.spec)?;
            self.is_mounted_here = true;
        }
        self.served = Some(served::Freeze::prepare(self.place.directory(), pool(&self.place))?);
        Ok(())
    }

    fn hold(&mut self) -> Result<()> {
        self.served.as_mut().map_or(Ok(()), served::Freeze::hold)
    }

    fn freeze(&mut self, _: &Place, _: &OnCopied) -> Result<()> {
        self.served.as_mut().map_or(Ok(()), |served| served.freeze().map(drop))
    }

    fn give(&self, to: &Place) -> Result<()> {
        let pool = pool(&self.place);
        pool.sync()?;
        let _shared = pool.share()?;
        let stack = stack::read(self.place.directory())?;
        stack::write(to.directory(), &Stack { upper: None, ..stack })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.served = None;
        if self.is_mounted_here
            && let Err(error) = self.driver.unmount(&self.place, &self.spec)
        {
            tracing::warn!(%error, "a volume without users stays mounted");
        }
    }
}

impl Driver for UnionDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        Options::new(spec)?;
        let is_small = |size: u64| size < SIZE_MIN;
        if let Some(bytes) = spec.limits.size_bytes.filter(|size| is_small(*size)) {
            let (given, least) = (size::shown(bytes), size::shown(SIZE_MIN));
            let what = format!("{given} is too small for a volume: use {least} or more");
            return Err(VolumeError::TooSmall { what });
        }
        Ok(())
    }

    fn create(&self, place: &Place, spec: &Spec) -> Result<()> {
        if let (Some(bytes), false) = (spec.limits.size_bytes, Options::new(spec)?.overcommit) {
            room::check(place, spec, bytes, 0)?;
        }
        stack::write(place.directory(), &Stack::default())
    }

    fn mount(&self, place: &Place, spec: &Spec) -> Result<()> {
        if is_served(place)? {
            return Ok(());
        }
        served::start(place, spec.limits, Options::new(spec)?.speed)
    }

    fn unmount(&self, place: &Place, _: &Spec) -> Result<()> {
        served::await_start(place)?;
        mounted::unmount(place, false)?;
        served::await_end(place)
    }

    fn is_private(&self, _: &Spec) -> bool {
        true
    }

    fn usage(&self, place: &Place, spec: &Spec) -> Result<Usage> {
        let (stack, pool) = (stack::read(place.directory())?, pool(place));
        let mut all = Usage { used_inodes: Some(0), ..Usage::default() };
        for layer in stack.upper.iter().chain(&stack.layers) {
            let one = tree::usage(&pool.content(layer))?;
            all.used_bytes += one.used_bytes;
            all.host_bytes += one.host_bytes;
            all.used_inodes = all.used_inodes.zip(one.used_inodes).map(|(all, one)| all + one);
        }
        if spec.limits != Limits::default()
            && mounted::is_mounted(place)?
            && !mounted::is_dead(place)
            && let Some(used) = served::used(place)?
        {
            // As df(1) shows it.
            (all.used_bytes, all.used_inodes) = (used.bytes, Some(used.inodes));
        }
        Ok(all)
    }

    fn promised_bytes(&self, place: &Place, spec: &Spec) -> Result<u64> {
        let Some(size) = spec.limits.size_bytes else { return Ok(0) };
        if Options::new(spec)?.overcommit {
            return Ok(0);
        }
        // Its process may just start, end, or hang.
        let used = match mounted::is_mounted(place)?.then(|| served::used_soon(place)) {
            Some(Ok(Some(used))) => used.bytes,
            _ => taken_bytes(place)?,
        };
        Ok(size.saturating_sub(used))
    }

    fn resize(&self, place: &Place, spec: &Spec, limits: Limits) -> Result<()> {
        let new = Spec { limits, ..spec.clone() };
        self.check(&new)?;
        if let (Some(bytes), false) = (limits.size_bytes, Options::new(spec)?.overcommit) {
            // What has no size yet was promised nothing, and may hold something.
            let old = spec.limits.size_bytes.map_or_else(|| taken_bytes(place), Ok)?;
            if bytes > old {
                room::check(place, spec, bytes, old)?;
            }
        }
        if !is_served(place)? {
            // Its process counts, and says whether the content fits.
            self.mount(place, &new)?;
            let resized = resize(place.directory(), limits);
            return self.unmount(place, spec).and(resized);
        }
        resize(place.directory(), limits)
    }

    fn throttle(&self, place: &Place, spec: &Spec) -> Result<()> {
        let speed = Options::new(spec)?.speed;
        if is_served(place)? { served::throttle(place, speed) } else { Ok(()) }
    }

    fn copy(&self, place: &Place, spec: &Spec, to: &Place, on_copied: &OnCopied) -> Result<()> {
        let mut freeze = self.member(place, spec);
        freeze.prepare()?;
        freeze.hold()?;
        freeze.freeze(to, on_copied)?;
        freeze.give(to)
    }

    fn freezing(&self, place: &Place, spec: &Spec) -> Result<Option<Box<dyn Freezing>>> {
        Ok(Some(Box::new(self.member(place, spec))))
    }

    fn replace(&self, place: &Place, _: &Spec, from: &Place, _: &OnCopied) -> Result<()> {
        let _shared = pool(place).share()?;
        let stack = stack::read(from.directory())?;
        stack::write(place.directory(), &Stack { upper: None, ..stack })
    }

    fn settle(&self, volumes: &Path) -> Result<usize> {
        Pool::beside(volumes).collect()
    }
}
