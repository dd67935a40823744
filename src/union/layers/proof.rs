//! Decides which stored numbers and origins of the upper are still valid.
//!
//! For each copied-up object the upper stores the number shown (`lamina.ino`) and the lower object
//! (`origin`, the names in the index). Both refer to the lower layers, and layers may be restored
//! elsewhere, made anew, or mounted by programs that number their files anew. So a stored number
//! counts only with the layers over which it was stored, on the inode with which it was stored. A
//! file handle is an origin only if it means the same object in every mount: in a file system with
//! handles of its own and a UUID that no other layer has. FUSE has no such handles: its handles are
//! numbers of one mount.
//!
//! If the index cannot keep the names of one lower object together, they are separate objects from
//! the start, and a name that is copied up takes the number of its copy, as in the kernel
//! (`ovl_getattr()` in fs/overlayfs/inode.c): two objects never share a number.

use crate::error::Result;
use crate::types::{Handle, Stat, Time};
use crate::union::body::{LayerDir, UPPER};

/// Types of btrfs handles, which distinguish subvolumes of one UUID (`FILEID_BTRFS_*` in the
/// kernel's include/linux/exportfs.h).
const BTRFS: std::ops::RangeInclusive<u8> = 0x4d..=0x4f;

/// Identities of the lower layers of a mount.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// The number of the topmost layer.
    first: u16,
    /// The file system of each layer, the topmost first, if its handles are origins.
    devices: Vec<Option<u64>>,
    /// A hash that identifies all lower layers; `None` if a layer cannot be identified.
    layers: Option<u64>,
}

/// FNV-1a, 64 bits. Values stored with it are no longer trusted if it ever changes.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    fn time(self, time: Time) -> Self {
        self.bytes(&time.secs.to_le_bytes()).bytes(&time.nanos.to_le_bytes())
    }

    fn handle(self, handle: &Handle) -> Self {
        let len = handle.bytes.len() as u64;
        self.bytes(&handle.uuid).bytes(&[handle.kind]).number(len).bytes(&handle.bytes)
    }
}

impl Proof {
    /// Reads the roots of the lower layers.
    pub(super) fn of(roots: &[LayerDir]) -> Result<Self> {
        let mut found = Vec::with_capacity(roots.len());
        for root in roots {
            found.push((root.dir.stat(None)?, root.dir.handle(None)?));
        }
        let is_ambiguous = |stat: &Stat, handle: &Handle| {
            !BTRFS.contains(&handle.kind)
                && found.iter().any(|(other, other_handle)| {
                    let uuid = other_handle.as_ref().map(|other| other.uuid);
                    other.dev != stat.dev && uuid == Some(handle.uuid)
                })
        };
        let device = |(stat, handle): &(Stat, Option<Handle>)| {
            let handle = handle.as_ref()?;
            (!is_ambiguous(stat, handle)).then_some(stat.dev)
        };
        let layers = found.iter().try_fold(Hash::new(), |hash, (stat, handle)| {
            // Restoring a layer in place changes its root.
            Some(hash.handle(handle.as_ref()?).number(stat.ino).time(stat.ctime))
        });
        let first = roots.first().map_or(0, |root| root.layer);
        let devices = found.iter().map(device).collect();
        Ok(Self { first, devices, layers: layers.map(|hash| hash.0) })
    }

    /// Whether a handle of an object of a layer is an origin.
    pub(super) fn is_origin(&self, layer: u16, dev: u64) -> bool {
        let index = layer.checked_sub(self.first).filter(|_| layer != UPPER).map(usize::from);
        index.and_then(|index| self.devices.get(index)) == Some(&Some(dev))
    }

    /// Returns the proof that is stored with a number on the inode `ino` of the upper; `None` if no
    /// number can be stored.
    fn beside(&self, ino: u64) -> Option<u64> {
        Some(Hash(self.layers?).number(ino).0)
    }

    /// Returns the value that stores a number with the inode `ino` of the upper.
    pub(super) fn number_to_store(&self, number: u64, ino: u64) -> Option<[u8; 16]> {
        let mut value = [0; 16];
        let (first, second) = value.split_at_mut(8);
        first.copy_from_slice(&number.to_le_bytes());
        second.copy_from_slice(&self.beside(ino)?.to_le_bytes());
        Some(value)
    }

    /// Returns the number in such a value, if it was stored over these layers with this inode.
    pub(super) fn stored_number(&self, value: &[u8], ino: u64) -> Option<u64> {
        let (number, beside) = value.split_first_chunk::<8>()?;
        let right = beside == self.beside(ino)?.to_le_bytes();
        Some(u64::from_le_bytes(*number)).filter(|number| right && *number != 0)
    }
}

/// Returns a number for one name of a lower object, in the directory with these attributes.
pub(super) fn name_number(dir: &Stat, name: &[u8]) -> u64 {
    Hash::new().number(dir.dev).number(dir.ino).bytes(name).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_with_its_layers_and_its_inode() {
        let proof = Proof { layers: Some(3), ..Proof::default() };
        let value = proof.number_to_store(7, 100).unwrap();
        assert_eq!(proof.stored_number(&value, 100), Some(7));
        assert_eq!(proof.stored_number(&value, 101), None, "a copy of the file with its marks");
        for layers in [Some(4), None] {
            let other = Proof { layers, ..Proof::default() };
            assert_eq!(other.stored_number(&value, 100), None);
        }
        for wrong in [&b""[..], &7_u64.to_le_bytes(), &value[..15], &[value, value].concat()] {
            assert_eq!(proof.stored_number(wrong, 100), None);
        }
        assert_eq!(Proof::default().number_to_store(7, 100), None);
    }

    #[test]
    fn a_handle_is_an_origin_in_the_file_system_of_its_layer() {
        let proof = Proof { first: 1, devices: vec![Some(5), None], layers: None };
        assert!(proof.is_origin(1, 5));
        for (layer, dev) in [(1, 6), (2, 5), (3, 5), (UPPER, 5)] {
            assert!(!proof.is_origin(layer, dev), "{layer} {dev}");
        }
    }
}
