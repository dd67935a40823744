//! Numbers as the mount shows them: inode numbers unique over several file systems, and owners.

use crate::error::{Errno, Error, Result};
use crate::types::{AttrChange, Kind, Owner, Stat};
use crate::union::api::Caller;
use crate::union::body::{Body, FIRST_GRAFT, Place, UPPER};
use crate::union::config::{IdMap, Marks, WhiteoutForm};
use crate::union::layers::Layers;
use crate::union::layers::found::Found;
use crate::union::layers::proof::{Proof, name_number};
use crate::union::mark::{self, Mark, Marked};
use crate::union::table::{Key, Node};

/// Shown for an id that is not in the map (`/proc/sys/fs/overflowuid`).
const OVERFLOW_ID: u32 = 65534;

impl IdMap {
    /// Whether every id is shown as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.ranges.is_empty() && self.squash.is_none()
    }

    /// Returns an id of the layers as the mount shows it.
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

    /// Returns an id of the mount as the layers store it; `None` if the map has none.
    #[must_use]
    pub fn store(&self, id: u32) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(id);
        }
        let range = self.ranges.iter().find(|range| id.wrapping_sub(range.shown) < range.len)?;
        Some(range.disk.wrapping_add(id.wrapping_sub(range.shown)))
    }
}

impl Layers {
    /// Returns the number of a device.
    pub(in crate::union) fn device(&self, dev: u64) -> u16 {
        self.devices.number(dev)
    }

    /// Returns the inode number shown for inode `ino` of the device with this number.
    pub(in crate::union) fn compose_ino(&self, device: u16, ino: u64) -> u64 {
        self.devices.compose(device, ino)
    }

    /// Returns the inode number shown for an object of a layer.
    pub(in crate::union) fn show_ino(&self, stat: &Stat) -> u64 {
        let device = self.device(stat.dev);
        self.compose_ino(device, stat.ino)
    }

    /// Returns the inode number shown for an entry of a listing.
    pub(in crate::union) fn show_ino_of(&self, dev: u64, ino: u64) -> u64 {
        let device = self.device(dev);
        self.compose_ino(device, ino)
    }

    /// Returns the key of an object.
    pub(in crate::union) fn key_of(&self, found: &Found) -> Key {
        match found.split {
            Some(name) => Key::split(found.place.layer, name),
            None => self.key(found.place.layer, &found.stat),
        }
    }

    /// Returns the key of the object in `layer` with these attributes.
    pub(in crate::union) fn key(&self, layer: u16, stat: &Stat) -> Key {
        let key = Key::new(layer, self.device(stat.dev), stat.ino);
        if layer < FIRST_GRAFT {
            return key;
        }
        // Others may remove an object of a graft, and a new object may get its number.
        let born = stat.btime.unwrap_or_default();
        let birth = born.secs.cast_unsigned() << 32 ^ u64::from(born.nanos);
        let kind = u64::from(stat.mode >> 12);
        Key { ino: key.ino ^ (birth ^ kind << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15), ..key }
    }

    /// Whether objects of a layer may show a stored number: it is the upper, or was one.
    pub(in crate::union) fn stores_numbers(&self, layer: u16) -> bool {
        self.proof_of(layer).is_some()
    }

    fn proof_of(&self, layer: u16) -> Option<&Proof> {
        if layer == UPPER {
            return Some(&self.proof);
        }
        self.proofs.iter().find(|(number, _)| *number == layer).map(|(_, proof)| proof)
    }

    /// Returns the number that was stored when the object, inode `ino` of its layer, was copied up.
    pub(in crate::union) fn stored_ino(
        &self,
        place: &Place,
        marked: Marked,
        ino: u64,
    ) -> Result<Option<u64>> {
        let Some(proof) = self.proof_of(place.layer).filter(|_| marked.ino) else {
            return Ok(None);
        };
        let value = self.read_mark(place, Mark::Ino)?;
        Ok(value.and_then(|value| proof.stored_number(&value, ino)))
    }

    /// Returns attributes as the mount shows them.
    pub(in crate::union) fn show(&self, node: &Node, stat: Stat) -> Stat {
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

    /// Returns the attributes of an object that is not a directory as the mount shows them, with
    /// its number.
    pub(in crate::union) fn show_as(&self, layer: u16, ino: u64, mut stat: Stat) -> Stat {
        stat.ino = ino;
        if self.maps_ids(layer) {
            stat.uid = self.options.uid_map.show(stat.uid);
            stat.gid = self.options.gid_map.show(stat.gid);
        }
        self.with_group(layer, stat)
    }

    /// Whether the ids of a layer are mapped by us.
    fn maps_ids(&self, layer: u16) -> bool {
        layer < FIRST_GRAFT && !self.shifted.contains(&layer)
    }

    /// Returns the attributes of a lower object with its owner as the upper stores it.
    pub(in crate::union) fn stored_stat(&self, layer: u16, stat: Stat) -> Result<Stat> {
        if !self.shifted.contains(&layer) {
            return Ok(stat);
        }
        let (uid, gid) = (self.store_uid(stat.uid)?, self.store_gid(stat.gid)?);
        Ok(Stat { uid, gid, ..stat })
    }

    /// Returns the owner that a new object of a caller has in a layer.
    pub(in crate::union) fn owner(&self, caller: &Caller, layer: u16) -> Result<Owner> {
        if layer >= FIRST_GRAFT {
            return Ok(Owner { uid: caller.uid, gid: caller.gid });
        }
        // For example root of the host, in a mount that shows the ids of a container.
        let (uids, gids) = (&self.options.uid_map, &self.options.gid_map);
        let uid = uids.store(caller.uid).unwrap_or(OVERFLOW_ID);
        let gid = gids.store(caller.gid).unwrap_or(OVERFLOW_ID);
        Ok(Owner { uid, gid })
    }

    /// Returns a user of the mount as the layers store it. `EOVERFLOW` if the map has none.
    pub(in crate::union) fn store_uid(&self, uid: u32) -> Result<u32> {
        self.options.uid_map.store(uid).ok_or(Error::Rule(Errno::OVERFLOW))
    }

    /// Returns a group of the mount as the layers store it. `EOVERFLOW` if the map has none.
    pub(in crate::union) fn store_gid(&self, gid: u32) -> Result<u32> {
        self.options.gid_map.store(gid).ok_or(Error::Rule(Errno::OVERFLOW))
    }

    /// Whether whiteouts are written in the AUFS form.
    pub(in crate::union) fn writes_aufs_whiteouts(&self) -> bool {
        self.options.whiteouts == WhiteoutForm::Aufs
    }

    /// Whether every kind of object can carry our marks.
    pub(in crate::union) fn marks_any_kind(&self) -> bool {
        self.options.marks == Marks::Trusted
    }

    /// Whether the index keeps names of one object of this kind together: that needs a mark on the
    /// object.
    pub(in crate::union) fn can_index(&self, kind: Kind) -> bool {
        kind == Kind::File || (kind != Kind::Dir && self.marks_any_kind())
    }

    /// Whether a mark of absence counts in a layer. In the upper only the namespace in which this
    /// mount writes its marks counts; users may write anything in the other one.
    pub(in crate::union) fn honours(&self, layer: u16, key: &[u8]) -> bool {
        layer != UPPER || self.leads(layer, key)
    }

    /// Whether a mark that leads to another object counts in a layer. If marks are in `trusted.`,
    /// only that namespace counts: the owner of a file may set `user.` attributes, and could read
    /// through them what another layer hides from that user.
    pub(in crate::union) fn leads(&self, layer: u16, key: &[u8]) -> bool {
        match self.options.marks {
            Marks::Trusted => key.starts_with(b"trusted."),
            Marks::User => layer != UPPER || key.starts_with(b"user."),
        }
    }

    /// Returns the marks that the attribute names of an object of a layer announce.
    pub(in crate::union) fn marked(&self, layer: u16, names: &[Vec<u8>]) -> Marked {
        Marked::read(names, |key| self.leads(layer, key))
    }

    /// The key under which a mark is written.
    pub(in crate::union) fn mark_key(&self, mark: Mark) -> Vec<u8> {
        mark.key(self.options.marks)
    }

    /// Returns the origin mark of a lower object, if its handle is an origin.
    pub(in crate::union) fn origin(&self, place: &Place, stat: &Stat) -> Result<Option<Vec<u8>>> {
        let entry = (!place.name.is_empty()).then_some(&place.name[..]);
        if !self.has_origin(place.layer, stat) {
            return Ok(None);
        }
        Ok(place.dir.handle(entry)?.as_ref().and_then(mark::encode_origin))
    }

    /// Returns a change of attributes as the layer of an object stores it.
    pub(in crate::union) fn stored_change(
        &self,
        node: &Node,
        change: &AttrChange,
    ) -> Result<AttrChange> {
        let mut stored = *change;
        if node.key.layer() < FIRST_GRAFT {
            if let Some(uid) = change.uid {
                stored.uid = Some(self.store_uid(uid)?);
            }
            if let Some(gid) = change.gid {
                stored.gid = Some(self.store_gid(gid)?);
            }
        }
        if let Some(mode) = change.mode {
            stored.mode = Some(mode & crate::types::MODE_MASK);
        }
        Ok(stored)
    }

    /// Whether the handle of an object is an origin.
    pub(in crate::union) fn has_origin(&self, layer: u16, stat: &Stat) -> bool {
        self.proof.is_origin(layer, stat.dev)
    }

    /// Whether the index keeps the names of a lower object together.
    pub(in crate::union) fn is_indexed(&self, layer: u16, stat: &Stat) -> bool {
        self.index().is_some() && self.can_index(stat.kind()) && self.has_origin(layer, stat)
    }

    /// Returns the key of one name of a lower object, if copy-up would separate it from the others.
    pub(in crate::union) fn split(&self, place: &Place, stat: &Stat) -> Result<Option<u64>> {
        let lower = place.layer != UPPER && place.layer < FIRST_GRAFT;
        let several = stat.nlink > 1 && stat.kind() != Kind::Dir;
        if !(lower && several) || self.is_read_only() || self.is_indexed(place.layer, stat) {
            return Ok(None);
        }
        let dir = place.dir.stat(None)?;
        Ok(Some(name_number(&dir, &place.name)))
    }
}
