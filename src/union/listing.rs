//! Listings of directories.
//!
//! A directory of one part is read through: its positions are those of the file system. A directory
//! with parts in lower layers is read part by part (`scan`), so that its size does not matter:
//! first the lower parts, where a position is a count of entries, then the upper, where it is that
//! of the file system (`position`). So a position keeps its meaning when entries come and go, after
//! a copy-up, for several readers, and when all state of the directory has been dropped. Of a small
//! directory all entries are kept (`whole`), in the same order and with the same positions; of a
//! large one only data that saves work (`large`). `kept` limits both in bytes.

mod hidden;
mod item;
pub(super) mod kept;
mod large;
mod lister;
mod names;
mod position;
mod scan;
mod whole;

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{Kind, NodeId, Stat, name};
use crate::union::Union;
use crate::union::api::{Detail, DirSink, Entry};
use crate::union::body::{DirBody, LayerDir, Stack, UPPER};
use crate::union::handles::is_small_lower;
use crate::union::mark;
use crate::union::plus::Selection;
use crate::union::table::{Key, NewNode, Node};

use item::Item;
use kept::Merged;
use lister::Lister;
use position::Place;
use scan::Scan;

/// Entries that are read at once, since the sink may look them up in the same directory.
const BATCH: u64 = 256;

/// A request for entries of a directory.
#[derive(Clone, Copy)]
struct Reading<'a> {
    node: &'a Node,
    body: &'a DirBody,
    stack: &'a Stack,
    /// The version of the directory, read before its parts.
    version: u64,
    /// The position behind which the listing continues, 2 or above.
    from: u64,
    selection: &'a Selection,
}

impl Union {
    /// Returns the lister of this mount.
    pub(super) const fn lister(&self) -> Lister<'_> {
        Lister::new(&self.layers, &self.table)
    }

    /// Passes the entries of a directory behind a position to `sink` until it is full.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn readdir(
        &self,
        id: NodeId,
        offset: u64,
        detail: Detail,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let node = self.table.node(id)?;
        let body = node.dir()?;
        let is_mixed = {
            let _entries = body.reading();
            if body.removed.get().is_some() {
                return Ok(());
            }
            let version = body.version.load(Ordering::Acquire);
            if offset == 0 {
                body.readers.begin(version);
            }
            self.list(&node, body, (offset, detail, version), sink)?;
            sink.is_empty() && body.readers.end(version)
        };
        // Dropped before the reply that ends the listing: after it nothing is added to the cache.
        if is_mixed && let Some(kernel) = self.handles.kernel() {
            kernel.drop_listing(id);
        }
        Ok(())
    }

    fn list(
        &self,
        node: &Node,
        body: &DirBody,
        (offset, detail, version): (u64, Detail, u64),
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let selection = self.listings.selection(detail, &body.looked_up, offset == 0);
        if offset < 1 {
            if !sink.has_room(1) {
                return Ok(());
            }
            sink.push(b".", node.ino, Kind::Dir, 1, None);
        }
        if offset < 2 {
            if !sink.has_room(2) {
                return Ok(());
            }
            let parent = self.table.find(node.parent).map_or(node.ino, |parent| parent.ino);
            sink.push(b"..", parent, Kind::Dir, 2, None);
        }
        let stack = body.stack();
        if offset == 0
            && self.layers.options().dir_atime
            && detail != Detail::All
            && let Some(upper) = stack.upper.as_ref().filter(|_| stack.graft.is_none())
            && let Err(error) = upper.count_access(self.layers.options().strict_atime)
        {
            tracing::debug!(%error, "an access time stays as it was");
        }
        let (from, selection) = (offset.max(2), &selection);
        let reading = Reading { node, body, stack: &stack, version, from, selection };
        if stack.has_lower() && self.lister().listed_alone(&stack).is_none() {
            return self.list_merged(reading, sink);
        }
        if selection.is_all()
            && let Some(lower) = stack.lowers.first()
            && self.list_detailed(reading, lower, sink)?
        {
            return Ok(());
        }
        self.list_single(reading, sink)
    }

    // Lists a directory of one lower layer that has attributes at hand. An entry with one name and
    // no mark is entered in the table as it comes.
    fn list_detailed(
        &self,
        at: Reading<'_>,
        lower: &LayerDir,
        sink: &mut dyn DirSink,
    ) -> Result<bool> {
        let Reading { node, body, from, selection: plus, .. } = at;
        let layer = lower.layer;
        let redirects = self.layers.has_below(layer);
        let grafted = body.has_grafts.load(Ordering::Acquire);
        let (mut device, mut failed) = (None, None);
        let listed = lower.dir.list_stat(position::backing(from), &mut |entry, stat| {
            if !sink.has_room(entry.name.len()) {
                return false;
            }
            let device = *device.get_or_insert_with(|| self.layers.device(stat.dev));
            let (kind, position) = (stat.kind(), position::shown(entry.next));
            let item = Item {
                position,
                name: name(entry.name),
                ino: self.layers.compose_ino(device, stat.ino),
                kind,
            };
            let wants = plus.wants(kind);
            let marks = match kind {
                Kind::File => {
                    redirects || mark::may_be_xattr_whiteout(stat) || mark::is_aufs_name(entry.name)
                }
                kind => matches!(kind, Kind::Dir | Kind::Char | Kind::Unknown),
            };
            if wants
                && !(marks || grafted || stat.nlink > 1)
                && let Some(entry) = self.enter_plain(node.id, layer, device, &item, stat)
            {
                sink.push(&item.name, entry.stat.ino, kind, position, Some(&entry));
                return true;
            }
            match self.lister().is_hidden(&lower.dir, layer, &item, false) {
                Ok(true) => true,
                Ok(false) => self.push(at, &item, wants, sink),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(listed), Err)
    }

    fn enter_plain(
        &self,
        parent: NodeId,
        layer: u16,
        device: u16,
        item: &Item,
        stat: &Stat,
    ) -> Option<Entry> {
        let (kind, ino) = (item.kind, item.ino);
        let small = is_small_lower(layer, stat);
        let key = Key::new(layer, device, stat.ino);
        let new = NewNode { parent, name: item.name.clone(), key, ino, kind, small };
        let (node, ino) = self.table.enter_plain(new)?;
        Some(Entry { node, stat: self.layers.show_as(layer, ino, *stat) })
    }

    fn push(&self, at: Reading<'_>, item: &Item, plus: bool, sink: &mut dyn DirSink) -> bool {
        let Reading { node, body, .. } = at;
        if !sink.has_room(item.name.len()) {
            return false;
        }
        let grafted = body.has_grafts.load(Ordering::Acquire);
        if plus || (grafted && self.layers.is_graft_place(node.id, &item.name)) {
            // An entry that vanished or cannot be read is listed by name: its lookup returns the
            // error.
            if let Ok(Some(entry)) = self.lookup_in(node, &item.name) {
                let kind = entry.stat.kind();
                let detail = plus.then_some(&entry);
                sink.push(&item.name, entry.stat.ino, kind, item.position, detail);
                if !plus {
                    self.forget(entry.node, 1);
                }
                return true;
            }
        }
        sink.push(&item.name, item.ino, item.kind, item.position, None);
        true
    }

    fn list_single(&self, at: Reading<'_>, sink: &mut dyn DirSink) -> Result<()> {
        let dir = at.stack.top().ok_or(Errno::STALE)?;
        let layer = if at.stack.upper.is_some() { UPPER } else { 1 };
        let raw = at.stack.graft.is_some();
        let merges = !raw && layer == UPPER;
        let dev = dir.stat(None)?.dev;
        let stored = merges && self.lister().is_impure(dir)?;
        let marked = !raw && self.layers.may_hold_xattr_whiteouts(dir)?;
        let mut next = match position::place(at.from) {
            _ if !merges => position::backing(at.from),
            Place::Upper(position) => position,
            // A position from before all lower parts were copied up: entries are repeated, but none
            // is lost.
            Place::Lower(_) => 0,
        };
        let mut pure = stored && at.from <= 2;
        let mut more = true;
        while more {
            let mut batch = Vec::new();
            dir.list_about(next, BATCH, &mut |entry| {
                batch.push(Item::new(entry.next, entry));
                (batch.len() as u64) < BATCH
            })?;
            more = batch.len() as u64 == BATCH;
            for mut item in batch {
                next = item.position;
                item.position =
                    if merges { position::shown_upper(next)? } else { position::shown(next) };
                if !raw && self.lister().is_hidden(dir, layer, &item, marked)? {
                    continue;
                }
                let own = self.layers.show_ino_of(dev, item.ino);
                item.ino =
                    if stored { self.lister().entry_ino(dir, (layer, dev), &item)? } else { own };
                pure &= item.ino == own;
                if !self.push(at, &item, at.selection.wants(item.kind), sink) {
                    return Ok(());
                }
            }
        }
        if pure { self.lister().clear_impure(at.body, dir) } else { Ok(()) }
    }

    fn list_merged(&self, at: Reading<'_>, sink: &mut dyn DirSink) -> Result<()> {
        let merged = self.merged(at)?;
        let mut given = 0_u64;
        let mut give = |item: &Item| {
            given += 1;
            self.push(at, item, at.selection.wants(item.kind), sink)
        };
        let (own, large) = match &*merged {
            Merged::Whole(whole) => {
                if let Some(items) = whole.behind(at.from) {
                    items.iter().all(give);
                    return Ok(());
                }
                if at.stack.upper.is_none() {
                    // A position from before the upper became a layer: entries are repeated, but
                    // none is lost.
                    whole.items().iter().all(give);
                    return Ok(());
                }
                (Some(self.lister().large(at.stack)?), None)
            }
            Merged::Large(large) => (None, Some(large)),
        };
        let Some(large) = large.or(own.as_ref()) else { return Ok(()) };
        let scan = Scan { stack: at.stack, large, version: at.version };
        let from = match position::place(at.from) {
            Place::Upper(_) if at.stack.upper.is_none() => Place::Lower(0),
            place => place,
        };
        let ended = self.lister().scan(scan, from, &mut give)?;
        // Without another reader the names are of no use now.
        if ended && given == 0 && at.body.readers.is_last() {
            large.drop_names();
        }
        self.listings.kept().count(at.node.id);
        Ok(())
    }

    /// Returns the kept state of a merged directory, and makes and keeps it if there is none.
    fn merged(&self, at: Reading<'_>) -> Result<Arc<Merged>> {
        let fresh = at.from <= 2;
        let kept = self.listings.kept().find(at.node.id);
        if let Some(merged) = kept {
            match &*merged {
                Merged::Whole(whole) if fresh && whole.version != at.version => {}
                Merged::Whole(_) => return Ok(merged),
                Merged::Large(_) => return Ok(merged),
            }
        }
        let whole = match self.lister().seems_large(at.stack)? {
            true => None,
            false => self.lister().list_whole(at.stack, at.version)?,
        };
        let merged = Arc::new(match whole {
            Some(whole) => Merged::Whole(whole),
            None => Merged::Large(self.lister().large(at.stack)?),
        });
        self.listings.kept().keep(at.node.id, &merged);
        Ok(merged)
    }
}
