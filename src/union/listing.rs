//! Listings of directories.
//!
//! A directory of one part is read through: its positions are those of the file system. One that
//! has parts in lower layers is read part by part (`scan`), so that its size does not matter: the
//! lower parts first, where a position is a count of entries, then the upper, where it is that of
//! the file system (`position`). So a position means the same before and after entries come and
//! go and after a copy-up, for several readers, and when nothing is known of the directory any
//! more. Of a small one all entries are kept (`whole`), in the same order and with the same
//! positions; of a large one what saves work (`large`). `kept` limits both in bytes.

mod hidden;
mod kept;
mod large;
mod names;
mod position;
mod scan;
mod whole;

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{Kind, Name, NodeId, RawEntry, Stat, name};
use crate::union::api::{DirSink, Tell};
use crate::union::body::{DirBody, LayerDir, Stack, UPPER};
use crate::union::mark;
use crate::union::plus::Told;
use crate::union::table::{Key, NewNode, Node};
use crate::union::{Entry, Union, dir_of, is_small_lower};

pub(super) use kept::Kept;
use kept::Merged;
use position::Place;
use scan::Scan;

/// Entries that are taken at once, since the sink may look them up in the same directory.
const BATCH: u64 = 256;

/// An entry of a listing.
#[derive(Clone)]
pub(super) struct Item {
    position: u64,
    pub(super) name: Name,
    ino: u64,
    pub(super) kind: Kind,
}

impl Item {
    fn new(position: u64, entry: RawEntry<'_>) -> Self {
        Self { position, name: name(entry.name), ino: entry.ino, kind: entry.kind }
    }
}

/// Memory that a list of entries takes.
fn bytes_of(items: &Vec<Item>) -> usize {
    let spilled = items.iter().filter(|item| item.name.spilled());
    items.capacity() * size_of::<Item>() + spilled.map(|item| item.name.len()).sum::<usize>()
}

/// What a request asks of a directory.
#[derive(Clone, Copy)]
struct Reading<'a> {
    node: &'a Node,
    body: &'a DirBody,
    stack: &'a Stack,
    /// The position behind which it goes on, 2 or above.
    from: u64,
    told: &'a Told,
}

impl Union {
    /// Gives the entries of a directory behind a position until the sink is full.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn readdir(
        &self,
        id: NodeId,
        offset: u64,
        tell: Tell,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let node = self.node(id)?;
        let body = dir_of(&node)?;
        let is_mixed = {
            let _entries = self.reading(body);
            if body.removed.get().is_some() {
                return Ok(());
            }
            let version = body.version.load(Ordering::Acquire);
            if offset == 0 {
                body.readers.begin(version);
            }
            self.list(&node, body, (offset, tell), sink)?;
            sink.is_empty() && body.readers.end(version)
        };
        // Before the answer that says so: then nothing is added to it any more.
        if is_mixed && let Some(kernel) = self.kernel.get() {
            kernel.drop_listing(id);
        }
        Ok(())
    }

    fn list(
        &self,
        node: &Node,
        body: &DirBody,
        (offset, tell): (u64, Tell),
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let told = match tell {
            Tell::Names => Told::default(),
            Tell::Likely => self.plus.listing(&body.looked_up, offset == 0),
            Tell::All => self.plus.listing_ahead(offset == 0),
        };
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
            && self.options.dir_atime
            && tell != Tell::All
            && let Some(upper) = stack.upper.as_ref().filter(|_| stack.graft.is_none())
            && let Err(error) = upper.count_access(self.options.strict_atime)
        {
            tracing::debug!(%error, "an access time stays as it was");
        }
        let (from, told) = (offset.max(2), &told);
        let reading = Reading { node, body, stack: &stack, from, told };
        if stack.has_lower() && self.listed_alone(&stack).is_none() {
            return self.list_merged(reading, sink);
        }
        if told.is_all()
            && let Some(lower) = stack.lowers.first()
            && self.list_told(reading, lower, sink)?
        {
            return Ok(());
        }
        self.list_single(reading, sink)
    }

    /// The only part of a directory, if that is of a lower layer and will stay so.
    pub(super) fn listed_alone<'a>(&self, stack: &'a Stack) -> Option<&'a LayerDir> {
        stack.lowers.first().filter(|_| self.is_read_only() && stack.lowers.len() == 1)
    }

    // Lists a directory of one lower layer that has attributes at hand. What has no further name
    // and nothing to say of other layers is entered as it comes.
    fn list_told(&self, at: Reading<'_>, lower: &LayerDir, sink: &mut dyn DirSink) -> Result<bool> {
        let Reading { node, body, from, told: plus, .. } = at;
        let layer = lower.layer;
        let redirects = self.roots.last().is_some_and(|last| last.layer > layer);
        let grafted = body.has_grafts.load(Ordering::Acquire);
        let (mut device, mut failed) = (None, None);
        let told = lower.dir.list_stat(position::backing(from), &mut |entry, stat| {
            if !sink.has_room(entry.name.len()) {
                return false;
            }
            let device = *device.get_or_insert_with(|| self.device(stat.dev));
            let (kind, position) = (stat.kind(), position::shown(entry.next));
            let item = Item {
                position,
                name: name(entry.name),
                ino: self.compose_ino(device, stat.ino),
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
            match self.is_hidden(&lower.dir, layer, &item, false) {
                Ok(true) => true,
                Ok(false) => self.push(at, &item, wants, sink),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(told), Err)
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
        let (node, ino) = self.table.tell(new)?;
        Some(Entry { node, stat: self.show_as(layer, ino, *stat) })
    }

    fn push(&self, at: Reading<'_>, item: &Item, plus: bool, sink: &mut dyn DirSink) -> bool {
        let Reading { node, body, .. } = at;
        if !sink.has_room(item.name.len()) {
            return false;
        }
        let grafted = body.has_grafts.load(Ordering::Acquire);
        if plus || (grafted && self.is_graft_place(node.id, &item.name)) {
            // What vanished meanwhile, or cannot be read, is told by name: its lookup will say.
            if let Ok(Some(entry)) = self.lookup_in(node, &item.name) {
                let kind = entry.stat.kind();
                let told = plus.then_some(&entry);
                sink.push(&item.name, entry.stat.ino, kind, item.position, told);
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
        let stored = merges && self.is_impure(dir)?;
        let marked = !raw && self.may_hold_xattr_whiteouts(dir)?;
        let mut next = match position::place(at.from) {
            _ if !merges => position::backing(at.from),
            Place::Upper(position) => position,
            // Of the time before all that was below was copied up: twice is better than never.
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
                if !raw && self.is_hidden(dir, layer, &item, marked)? {
                    continue;
                }
                let own = self.show_ino_of(dev, item.ino);
                item.ino = if stored { self.entry_ino(dir, dev, &item)? } else { own };
                pure &= item.ino == own;
                if !self.push(at, &item, at.told.wants(item.kind), sink) {
                    return Ok(());
                }
            }
        }
        if pure { self.clear_impure(at.body, dir) } else { Ok(()) }
    }

    fn list_merged(&self, at: Reading<'_>, sink: &mut dyn DirSink) -> Result<()> {
        // Before anything is read of the upper.
        let version = at.body.version.load(Ordering::Acquire);
        let merged = self.merged(at, version)?;
        let mut given = 0_u64;
        let mut give = |item: &Item| {
            given += 1;
            self.push(at, item, at.told.wants(item.kind), sink)
        };
        let (own, large) = match &*merged {
            Merged::Whole(whole) => {
                if let Some(items) = whole.behind(at.from) {
                    items.iter().all(give);
                    return Ok(());
                }
                (Some(self.large(at.stack)?), None)
            }
            Merged::Large(large) => (None, Some(large)),
        };
        let Some(large) = large.or(own.as_ref()) else { return Ok(()) };
        let scan = Scan { stack: at.stack, large, version };
        let ended = self.scan(scan, position::place(at.from), &mut give)?;
        if ended && given == 0 {
            large.close();
        }
        self.listings.lock().count(at.node.id);
        Ok(())
    }

    /// What is kept of a merged directory, or is from now on.
    fn merged(&self, at: Reading<'_>, version: u64) -> Result<Arc<Merged>> {
        let fresh = at.from <= 2;
        let kept = self.listings.lock().find(at.node.id);
        if let Some(merged) = kept {
            match &*merged {
                Merged::Whole(whole) if fresh && whole.version != version => {}
                Merged::Whole(_) => return Ok(merged),
                Merged::Large(large) => {
                    if fresh {
                        large.open();
                    }
                    return Ok(merged);
                }
            }
        }
        let whole = match self.seems_large(at.stack)? {
            true => None,
            false => self.list_whole(at.stack, version)?,
        };
        let merged = Arc::new(match whole {
            Some(whole) => Merged::Whole(whole),
            None => {
                let large = self.large(at.stack)?;
                large.open();
                Merged::Large(large)
            }
        });
        self.listings.lock().keep(at.node.id, &merged);
        Ok(merged)
    }

    /// Gives what a merged directory shows, in the order of its listing.
    pub(super) fn each(&self, stack: &Stack, sink: &mut dyn FnMut(&Item) -> bool) -> Result<()> {
        if let Some(whole) = self.list_whole(stack, 0)? {
            whole.items().iter().all(sink);
            return Ok(());
        }
        let scan = Scan { stack, large: &self.large(stack)?, version: 0 };
        self.scan(scan, Place::Lower(0), sink).map(|_| ())
    }

    /// Whether a merged directory shows nothing.
    pub(super) fn is_empty(&self, stack: &Stack) -> Result<bool> {
        let mut empty = true;
        self.each(stack, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Names of the entries of a merged directory.
    pub(super) fn entries(&self, stack: &Stack) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        self.each(stack, &mut |item| {
            names.push(item.name.clone());
            true
        })?;
        Ok(names)
    }
}
