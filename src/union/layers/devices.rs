//! The file systems of a mount, each with a number of its own.

use crate::error::Result;
use crate::sync::RwLock;
use crate::types::Stat;
use crate::union::config::{Config, GraftRoot};

/// The number of bits above an inode number for its file system, enough for 255 file systems.
const FEW_DEVICES: u32 = 8;
/// The number of bits with more file systems.
const MANY_DEVICES: u32 = 16;

/// Devices by number. Number 0 is the device of the upper (or of the topmost lower), so that its
/// inode numbers are shown as they are; the others follow in the order of the layers.
pub(super) struct Devices {
    known: RwLock<Vec<u64>>,
    bits: u32,
}

impl Devices {
    /// Numbers the devices of the roots; `root` has the attributes of the root of the mount.
    ///
    /// # Errors
    /// As stat(2).
    pub(super) fn of(config: &Config, root: &Stat) -> Result<Self> {
        let mut known = vec![root.dev];
        for lower in &config.lowers {
            let dev = lower.root.stat(None)?.dev;
            if !known.contains(&dev) {
                known.push(dev);
            }
        }
        for graft in &config.grafts {
            let dev = match &graft.root {
                GraftRoot::Dir(dir) => dir.stat(None)?.dev,
                GraftRoot::Entry { dir, name } => dir.stat(Some(name))?.dev,
            };
            if !known.contains(&dev) {
                known.push(dev);
            }
        }
        let bits = if known.len() < 1 << FEW_DEVICES { FEW_DEVICES } else { MANY_DEVICES };
        Ok(Self { known: RwLock::new(known), bits })
    }

    /// Returns the number of a device, and assigns a new one to a new device.
    pub(super) fn number(&self, dev: u64) -> u16 {
        let known = self.known.read().iter().position(|known| *known == dev);
        let index = known.unwrap_or_else(|| {
            let mut devices = self.known.write();
            devices.iter().position(|known| *known == dev).unwrap_or_else(|| {
                devices.push(dev);
                devices.len() - 1
            })
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    /// Returns an inode number with the number of its device above it.
    pub(super) fn compose(&self, device: u16, ino: u64) -> u64 {
        if device == 0 {
            return ino;
        }
        let ino_bits = u64::BITS - self.bits;
        let device = u64::from(device).min((1 << self.bits) - 1);
        if ino >> ino_bits == 0 {
            return (device << ino_bits) | ino;
        }
        // Larger inode numbers than any disk file system has: mixed, but not unique by
        // construction.
        let mixed = (ino ^ (ino >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (device << ino_bits) | (mixed >> self.bits)
    }
}
