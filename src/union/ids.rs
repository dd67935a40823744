//! Numbers as the mount shows them: inode numbers unique over several file systems, and owners.

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::types::{Kind, Owner, Stat};
use crate::union::Union;
use crate::union::api::Caller;
use crate::union::body::{Body, FIRST_GRAFT, Life, Place, UPPER};
use crate::union::config::{Config, GraftRoot, IdMap, Marks, WhiteoutForm};
use crate::union::mark::{self, Mark, Marked};
use crate::union::resolve::Found;
use crate::union::table::{Key, Node};

/// Bits above an inode number that say its file system, where 255 file systems suffice.
const FEW_DEVICES: u32 = 8;
/// The same with more of them.
const MANY_DEVICES: u32 = 16;
/// Shown for an id that the map does not know (`/proc/sys/fs/overflowuid`).
const OVERFLOW_ID: u32 = 65534;

impl IdMap {
    /// States whether every id is shown as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.ranges.is_empty() && self.squash.is_none()
    }

    /// An id of the layers as the mount shows it.
    #[must_use]
    pub fn show(&self, id: u32) -> u32 {
        if let Some(squash) = self.squash {
            return squash;
        }
        if self.ranges.is_empty() {
            return id;
        }
        let range = self.ranges.iter().find(|range| id.wrapping_sub(range.disk) < range.len);
        range.map_or(OVERFLOW_ID, |range| range.shown.wrapping_add(id.wrapping_sub(range.disk)))
    }

    /// An id of the mount as the layers keep it; `None` if it has no place there.
    #[must_use]
    pub fn store(&self, id: u32) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(id);
        }
        let range = self.ranges.iter().find(|range| id.wrapping_sub(range.shown) < range.len)?;
        Some(range.disk.wrapping_add(id.wrapping_sub(range.shown)))
    }
}

/// How many bits above an inode number say its file system, with so many known at the mount.
pub(super) const fn device_bits(devices: usize) -> u32 {
    if devices < 1 << FEW_DEVICES { FEW_DEVICES } else { MANY_DEVICES }
}

/// The file systems of a mount. That of the upper (or of the topmost lower) is number 0, so that
/// its inode numbers are shown as they are; the others follow in the order of the layers.
pub(super) fn devices(config: &Config, root: &Stat) -> Result<Vec<u64>> {
    let mut devices = vec![root.dev];
    for lower in &config.lowers {
        let dev = lower.root.stat(None)?.dev;
        if !devices.contains(&dev) {
            devices.push(dev);
        }
    }
    for graft in &config.grafts {
        let dev = match &graft.root {
            GraftRoot::Dir(dir) => dir.stat(None)?.dev,
            GraftRoot::Entry { dir, name } => dir.stat(Some(name))?.dev,
        };
        if !devices.contains(&dev) {
            devices.push(dev);
        }
    }
    Ok(devices)
}

impl Union {
    pub(super) fn device(&self, dev: u64) -> u16 {
        let known = self.devices.read().iter().position(|known| *known == dev);
        let index = known.unwrap_or_else(|| {
            let mut devices = self.devices.write();
            devices.iter().position(|known| *known == dev).unwrap_or_else(|| {
                devices.push(dev);
                devices.len() - 1
            })
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    /// The inode number shown for an object of a layer.
    pub(super) fn show_ino(&self, stat: &Stat) -> u64 {
        let device = self.device(stat.dev);
        self.compose_ino(device, stat.ino)
    }

    /// The inode number shown for an entry of a listing, in the file system of `sibling`.
    pub(super) fn show_ino_of(&self, dev: u64, ino: u64) -> u64 {
        let device = self.device(dev);
        self.compose_ino(device, ino)
    }

    pub(super) fn compose_ino(&self, device: u16, ino: u64) -> u64 {
        if device == 0 {
            return ino;
        }
        let ino_bits = u64::BITS - self.device_bits;
        let device = u64::from(device).min((1 << self.device_bits) - 1);
        if ino >> ino_bits == 0 {
            return (device << ino_bits) | ino;
        }
        // Larger numbers than any disk file system gives: spread, not unique by construction.
        let mixed = (ino ^ (ino >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (device << ino_bits) | (mixed >> self.device_bits)
    }

    /// The key of an object.
    pub(super) fn key_of(&self, found: &Found) -> Key {
        match found.split {
            Some(name) => Key::split(found.place.layer, name),
            None => self.key(found.place.layer, &found.stat),
        }
    }

    /// The key of the object in `layer` with these attributes.
    pub(super) fn key(&self, layer: u16, stat: &Stat) -> Key {
        let key = Key::new(layer, self.device(stat.dev), stat.ino);
        if layer < FIRST_GRAFT {
            return key;
        }
        // Others remove objects of grafts, and the file system gives the number to a new one.
        let born = stat.btime.unwrap_or_default();
        let birth = born.secs.cast_unsigned() << 32 ^ u64::from(born.nanos);
        let kind = u64::from(stat.mode >> 12);
        Key { ino: key.ino ^ (birth ^ kind << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15), ..key }
    }

    /// The number that was stored when the object, inode `ino` of the upper, was copied up.
    pub(super) fn stored_ino(
        &self,
        place: &Place,
        marked: Marked,
        ino: u64,
    ) -> Result<Option<u64>> {
        if !marked.ino {
            return Ok(None);
        }
        let value = self.read_mark(place, Mark::Ino)?;
        Ok(value.and_then(|value| self.proof.stored_number(&value, ino)))
    }

    /// Attributes as the mount shows them.
    pub(super) fn show(&self, node: &Node, stat: Stat) -> Stat {
        let mut stat = self.show_as(node.key.layer(), node.ino, stat);
        if stat.kind() == Kind::Dir && stat.nlink != 0 {
            let body = node.body.as_deref().and_then(Body::dir);
            let merged = body.is_some_and(|body| {
                let stack = body.stack();
                stack.lowers.len() + usize::from(stack.upper.is_some()) > 1
            });
            if merged || self.options.static_nlink {
                stat.nlink = 1;
            }
        }
        stat
    }

    /// Attributes of what is no directory as the mount shows them, with its number.
    pub(super) fn show_as(&self, layer: u16, ino: u64, mut stat: Stat) -> Stat {
        stat.ino = ino;
        if self.maps_ids(layer) {
            stat.uid = self.options.uid_map.show(stat.uid);
            stat.gid = self.options.gid_map.show(stat.gid);
        }
        stat
    }

    /// States whether the ids of a layer are mapped by us.
    fn maps_ids(&self, layer: u16) -> bool {
        layer < FIRST_GRAFT && !self.shifted.contains(&layer)
    }

    /// Attributes of a lower object with its owner as the upper keeps it.
    pub(super) fn stored_stat(&self, layer: u16, stat: Stat) -> Result<Stat> {
        if !self.shifted.contains(&layer) {
            return Ok(stat);
        }
        let (uid, gid) = (self.store_uid(stat.uid)?, self.store_gid(stat.gid)?);
        Ok(Stat { uid, gid, ..stat })
    }

    /// Attributes of an object that was just found, as the mount shows them.
    pub(super) fn show_found(&self, node: &Node, found: &Found) -> Result<Stat> {
        if node.body.as_deref().and_then(Body::file).is_none() {
            return Ok(self.show(node, found.stat));
        }
        self.with_file(node.id, |held| {
            let state = &held.state;
            let same = held.node.key == self.key_of(found);
            let plain = same && !state.indexed && state.data.is_none();
            if plain && state.life == Life::Linked {
                return Ok(self.show(&held.node, found.stat));
            }
            Ok(self.show(&held.node, self.stat_state(&held.node, state)?))
        })
    }

    /// The owner that a new object of a caller has in a layer.
    pub(super) fn owner(&self, caller: &Caller, layer: u16) -> Result<Owner> {
        if layer >= FIRST_GRAFT {
            return Ok(Owner { uid: caller.uid, gid: caller.gid });
        }
        // Root of the host, say, in a mount that shows the ids of a container.
        let (uids, gids) = (&self.options.uid_map, &self.options.gid_map);
        let uid = uids.store(caller.uid).unwrap_or(OVERFLOW_ID);
        let gid = gids.store(caller.gid).unwrap_or(OVERFLOW_ID);
        Ok(Owner { uid, gid })
    }

    /// A user of the mount as the layers keep it. `EOVERFLOW` for one that has no place there.
    pub(super) fn store_uid(&self, uid: u32) -> Result<u32> {
        self.options.uid_map.store(uid).ok_or(Error::Rule(Errno::OVERFLOW))
    }

    /// A group of the mount as the layers keep it. `EOVERFLOW` for one that has no place there.
    pub(super) fn store_gid(&self, gid: u32) -> Result<u32> {
        self.options.gid_map.store(gid).ok_or(Error::Rule(Errno::OVERFLOW))
    }

    /// States whether whiteouts are written in the AUFS form.
    pub(super) fn writes_aufs_whiteouts(&self) -> bool {
        self.options.whiteouts == WhiteoutForm::Aufs
    }

    /// States whether every kind of object can carry our marks.
    pub(super) fn marks_any_kind(&self) -> bool {
        self.options.marks == Marks::Trusted
    }

    /// States whether names of one object of this kind are kept together by the index: it needs
    /// a mark on the object.
    pub(super) fn can_index(&self, kind: Kind) -> bool {
        kind == Kind::File || (kind != Kind::Dir && self.marks_any_kind())
    }

    /// Whether a mark that says that something is absent counts in a layer. The upper is written by
    /// us in one namespace; in the other one its users may write what they like.
    pub(super) fn honours(&self, layer: u16, key: &[u8]) -> bool {
        layer != UPPER || self.leads(layer, key)
    }

    /// Whether a mark that leads to another object counts in a layer. With marks in `trusted.`
    /// only those do, since an owner of a file sets `user.` attributes and would read through them
    /// what another layer keeps from that user.
    pub(super) fn leads(&self, layer: u16, key: &[u8]) -> bool {
        match self.options.marks {
            Marks::Trusted => key.starts_with(b"trusted."),
            Marks::User => layer != UPPER || key.starts_with(b"user."),
        }
    }

    /// What the names of the attributes of an object of a layer say.
    pub(super) fn marked(&self, layer: u16, names: &[Vec<u8>]) -> Marked {
        Marked::read(names, |key| self.leads(layer, key))
    }

    /// The key under which a mark is written.
    pub(super) fn mark_key(&self, mark: Mark) -> Vec<u8> {
        mark.key(self.options.marks)
    }

    /// The origin mark of a lower object, where its handle is one.
    pub(super) fn origin(&self, place: &Place, stat: &Stat) -> Result<Option<Vec<u8>>> {
        let entry = (!place.name.is_empty()).then_some(&place.name[..]);
        if !self.has_origin(place.layer, stat) {
            return Ok(None);
        }
        Ok(place.dir.handle(entry)?.as_ref().and_then(mark::encode_origin))
    }

    /// The directory of a node, with its upper part.
    pub(super) fn body_of(node: &Node) -> Result<Arc<Body>> {
        node.body.clone().ok_or(Error::Rule(Errno::NOTDIR))
    }
}
