//! Decides which entries of a part are marks, and which inode numbers the others show.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{Kind, Stat};
use crate::union::body::{DirBody, LayerDir, Place, Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::listing::item::{Item, Traits};
use crate::union::listing::lister::Lister;
use crate::union::mark::{self, Mark, Marked};
use crate::union::probe::is_plain;

impl Lister<'_> {
    pub(super) fn traits(&self, dir: &DirRef, layer: u16) -> Result<Traits> {
        let dev = dir.stat(None)?.dev;
        let stored = self.layers.stores_numbers(layer) && self.is_impure(dir)?;
        let marked = self.layers.may_hold_xattr_whiteouts(dir)?;
        Ok(Traits { layer, dev, stored, marked })
    }

    /// Whether an entry of a layer is a regular file that hides a name in the layers below.
    pub(super) fn is_aufs_mark(&self, dir: &DirRef, item: &Item) -> Result<bool> {
        Ok(mark::is_aufs_name(&item.name)
            && matches!(item.kind, Kind::File | Kind::Unknown)
            && !is_plain(dir, &item.name)?)
    }

    /// Whether an entry of a layer is a whiteout or a mark. `marked` is whether files of the
    /// directory may be xattr whiteouts.
    pub(super) fn is_hidden(
        &self,
        dir: &DirRef,
        layer: u16,
        item: &Item,
        marked: bool,
    ) -> Result<bool> {
        match item.kind {
            // Every link to that inode is a whiteout, so its number is enough.
            Kind::Char if self.layers.is_shared_whiteout(layer, item.ino) => Ok(true),
            Kind::Char | Kind::Unknown => {
                let stat = dir.stat(Some(&item.name))?;
                let shared = self.layers.is_shared_whiteout(layer, stat.ino);
                Ok(stat.is_whiteout_device() && (shared || !is_plain(dir, &item.name)?))
            }
            Kind::File if mark::is_aufs_name(&item.name) => Ok(!is_plain(dir, &item.name)?),
            Kind::File if marked => {
                let stat = dir.stat(Some(&item.name))?;
                Ok(mark::may_be_xattr_whiteout(&stat)
                    && Marked::from_names(&dir.xattr_names(Some(&item.name))?).whiteout)
            }
            _ => Ok(false),
        }
    }

    pub(super) fn is_impure(&self, dir: &DirRef) -> Result<bool> {
        Ok(dir.xattr(None, &self.layers.mark_key(Mark::Impure))?.is_some())
    }

    /// Returns the number that an entry of a part of a merged directory shows, and whether it may
    /// be a directory that shows the number of its lower part instead.
    pub(super) fn merged_ino(
        &self,
        stack: &Stack,
        dir: &DirRef,
        traits: Traits,
        item: &Item,
    ) -> Result<(u64, bool)> {
        if self.layers.stores_numbers(traits.layer) && item.kind == Kind::Dir {
            let marked = Marked::from_names(&dir.xattr_names(Some(&item.name))?);
            let ino = if marked.redirect || marked.opaque {
                self.number_of(stack, item)?
            } else {
                self.layers.show_ino_of(traits.dev, item.ino)
            };
            return Ok((ino, !marked.opaque && !marked.redirect));
        }
        if traits.stored {
            return Ok((self.entry_ino(dir, (traits.layer, traits.dev), item)?, false));
        }
        Ok((self.layers.show_ino_of(traits.dev, item.ino), false))
    }

    fn hides_below(&self, dir: &DirRef, entry: &[u8]) -> Result<bool> {
        let marked = Marked::from_names(&dir.xattr_names(Some(entry))?);
        Ok(marked.opaque || marked.redirect)
    }

    /// Returns the number of an entry by a lookup. An entry that a lookup refuses is listed.
    pub(super) fn number_of(&self, stack: &Stack, item: &Item) -> Result<u64> {
        match self.layers.resolve(stack, &item.name) {
            Ok(found) => Ok(found.map_or(item.ino, |found| found.ino)),
            Err(error) if error.is(Errno::PERM) => Ok(item.ino),
            Err(error) => Err(error),
        }
    }

    /// Returns the number that an entry of an impure part of the upper, or of a layer that was one,
    /// shows.
    pub(super) fn entry_ino(
        &self,
        dir: &DirRef,
        (layer, dev): (u16, u64),
        item: &Item,
    ) -> Result<u64> {
        if item.kind == Kind::Dir && self.hides_below(dir, &item.name)? {
            let mut stack = Stack::default();
            match layer {
                UPPER => stack.upper = Some(Arc::clone(dir)),
                layer => stack.lowers.push(LayerDir::new(layer, Arc::clone(dir))),
            }
            return self.number_of(&stack, item);
        }
        if item.kind == Kind::File || (item.kind != Kind::Dir && self.layers.marks_any_kind()) {
            let place = Place::new(layer, dir, &item.name);
            let marked = Marked { ino: true, ..Marked::default() };
            if let Some(stored) = self.layers.stored_ino(&place, marked, item.ino)? {
                return Ok(stored);
            }
        }
        // An entry without a stored number shows that of its node while the node is known.
        let key = self.layers.key(layer, &Stat { dev, ino: item.ino, ..Stat::default() });
        let known = self.table.find_key(key).and_then(|id| self.table.find(id));
        Ok(known.map_or_else(|| self.layers.show_ino_of(dev, item.ino), |node| node.ino))
    }

    // Removes the mark from a directory that was read as a whole and holds no entry that shows a
    // stored number. An entry that is added meanwhile marks the directory again.
    pub(super) fn clear_impure(&self, body: &DirBody, dir: &DirRef) -> Result<()> {
        let mut impure = body.impure.lock();
        let dev = dir.stat(None)?.dev;
        let mut items = Vec::new();
        dir.list(0, &mut |entry| {
            items.push(Item::new(0, entry));
            true
        })?;
        for item in items {
            match self.entry_ino(dir, (UPPER, dev), &item) {
                Ok(ino) if ino == self.layers.show_ino_of(dev, item.ino) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.is(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = dir.remove_xattr(None, &self.layers.mark_key(Mark::Impure)) {
            tracing::debug!(%error, "a directory stays marked as impure");
        }
        *impure = false;
        Ok(())
    }
}
