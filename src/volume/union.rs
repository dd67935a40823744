//! The driver `union`: layers and an upper, shown by a mount of our own.
//!
//! The content of a volume is a list of layers, and an upper where it is written. A snapshot makes
//! the upper a layer and begins an empty one; it takes the same time whatever the volume holds.
//! Snapshots and clones share the layers. All layers of a data root lie in one pool beside the
//! volumes, each in a directory of its own, and never move.
//!
//! The mount is served by a process of its own, which outlives the one that mounted it.

pub mod pool;
mod served;
pub mod stack;
pub mod wire;

use std::path::Path;

use super::driver::{Driver, Limits, Place, Spec, Usage};
use super::error::{Result, VolumeError};
use super::{mounted, tree};
use crate::error::FromHost;
use pool::Pool;
use stack::Stack;

pub use served::set_program;

const NAME: &str = "union";

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnionDriver;

/// The pool of a volume.
fn pool(place: &Place) -> Pool {
    Pool::of(place.directory())
}

impl UnionDriver {
    /// Makes what was written so far a layer, if there is an upper.
    fn freeze(self, place: &Place, spec: &Spec) -> Result<()> {
        if self.freeze_at_rest(place)? {
            return Ok(());
        }
        let was_mounted = mounted::is_mounted(place)?;
        if !was_mounted {
            self.mount(place, spec)?;
        }
        let pool = pool(place);
        let frozen = pool.share().and_then(|_shared| {
            let layer = pool.make()?;
            served::freeze(place, &layer).inspect_err(|_| pool.discard(&layer))
        });
        if !was_mounted {
            self.unmount(place, spec)?;
        }
        frozen
    }
}

impl UnionDriver {
    /// [`UnionDriver::freeze`] where nobody serves the volume and no file waits for its names.
    fn freeze_at_rest(self, place: &Place) -> Result<bool> {
        let stack = stack::read(place.directory())?;
        let Some(upper) = stack.upper else {
            if stack.layers.is_empty() {
                // Nobody wrote anything yet.
                let pool = pool(place);
                let _shared = pool.share()?;
                let stack = Stack { upper: None, layers: vec![pool.make()?] };
                stack::write(place.directory(), &stack)?;
            }
            return Ok(true);
        };
        if mounted::is_mounted(place)? {
            return Ok(false);
        }
        served::await_end(place)?;
        let index = pool(place).work(&upper).join("index");
        match std::fs::read_dir(&index).map(|mut entries| entries.next().is_none()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(VolumeError::io(&index)(error));
            }
            Ok(false) => return Ok(false),
            _ => {}
        }
        let layers = std::iter::once(upper).chain(stack.layers).collect();
        stack::write(place.directory(), &Stack { upper: None, layers })?;
        Ok(true)
    }
}

impl Driver for UnionDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        if let Some((key, value)) = spec.options.iter().next() {
            let (key, value) = (key.clone(), value.clone());
            let reason = "unknown option: the driver has none".to_owned();
            return Err(VolumeError::Option { driver: NAME, key, value, reason });
        }
        if spec.limits == Limits::default() {
            return Ok(());
        }
        let reason = "use --driver image".to_owned();
        Err(VolumeError::Unsupported { driver: NAME, verb: "a size", reason })
    }

    fn create(&self, place: &Place, _: &Spec) -> Result<()> {
        stack::write(place.directory(), &Stack::default())
    }

    fn mount(&self, place: &Place, _: &Spec) -> Result<()> {
        if mounted::is_mounted(place)? {
            if !served::is_dead(place) {
                return Ok(());
            }
            // Its users have an error for every call; new ones get a mount that works.
            mounted::unmount(place, true)?;
        }
        served::start(place)
    }

    fn unmount(&self, place: &Place, _: &Spec) -> Result<()> {
        mounted::unmount(place, false)?;
        served::await_end(place)
    }

    fn is_private(&self) -> bool {
        true
    }

    fn usage(&self, place: &Place, _: &Spec) -> Result<Usage> {
        let (stack, pool) = (stack::read(place.directory())?, pool(place));
        let mut all = Usage { used_inodes: Some(0), ..Usage::default() };
        for layer in stack.upper.iter().chain(&stack.layers) {
            let one = tree::usage(&pool.content(layer))?;
            all.used_bytes += one.used_bytes;
            all.host_bytes += one.host_bytes;
            all.used_inodes = all.used_inodes.zip(one.used_inodes).map(|(all, one)| all + one);
        }
        Ok(all)
    }

    fn resize(&self, _: &Place, spec: &Spec, limits: Limits) -> Result<()> {
        self.check(&Spec { limits, ..spec.clone() })
    }

    fn copy(&self, place: &Place, spec: &Spec, to: &Place) -> Result<()> {
        self.freeze(place, spec)?;
        let pool = pool(place);
        pool.sync()?;
        let _shared = pool.share()?;
        let stack = stack::read(place.directory())?;
        stack::write(to.directory(), &Stack { upper: None, ..stack })
    }

    fn replace(&self, place: &Place, _: &Spec, from: &Place) -> Result<()> {
        let pool = pool(place);
        let shared = pool.share()?;
        let stack = stack::read(from.directory())?;
        stack::write(place.directory(), &Stack { upper: None, ..stack })?;
        drop(shared);
        pool.collect().map(drop)
    }

    fn settle(&self, volumes: &Path) -> Result<usize> {
        Pool::beside(volumes).collect()
    }
}
