//! Listings of merged directories.
//!
//! A directory of one part is read through: its positions are those of the file system. A
//! directory that has parts in lower layers is read as a whole, and its entries are given in the
//! order of a hash of their names: a position means the same before and after entries come and
//! go, after a copy-up, and without any state kept for the reader. The list is kept for the next
//! request and made anew when a reader starts over after a change.
//!
//! Positions: 0 the start, 1 behind `.`, 2 behind `..`, above it entries.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::sync::Ordering;
use crate::types::{Kind, Name, NodeId, Stat, name};
use crate::union::api::{DirSink, Tell};
use crate::union::body::{DirBody, LayerDir, Place, Stack, UPPER, is_plain};
use crate::union::layer::DirRef;
use crate::union::mark::{self, Mark, Marked};
use crate::union::plus::Told;
use crate::union::table::{Key, NewNode, Node};
use crate::union::{Entry, Union, dir_of, is_small_lower};

/// Most entries of a list that is kept.
const KEPT: usize = 100_000;

pub(super) struct Item {
    position: u64,
    pub(super) name: Name,
    ino: u64,
    pub(super) kind: Kind,
}

/// The entries of a merged directory at one time.
pub(super) struct Listing {
    version: u64,
    items: Vec<Item>,
}

/// Positions of a single directory are moved by two, so that none of them is taken for that behind
/// `.` or `..`. Those at the very end stay: ext4 puts the end there, and no entry.
const LAST: u64 = i64::MAX as u64 - 2;

const fn shown_position(position: u64) -> u64 {
    if position < LAST { position + 2 } else { position }
}

const fn backing_position(position: u64) -> u64 {
    if position < LAST { position.saturating_sub(2) } else { position }
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
        let _entries = self.reading(body);
        if body.removed.get().is_some() {
            return Ok(());
        }
        let told = match tell {
            Tell::Names => Told::default(),
            Tell::Likely => self.plus.listing(&body.looked_up, offset == 0),
            Tell::All => self.plus.listing_ahead(offset == 0),
        };
        let plus = &told;
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
        let from = offset.max(2);
        let stack = body.stack();
        if offset == 0
            && self.options.dir_atime
            && tell != Tell::All
            && let Some(upper) = stack.upper.as_ref().filter(|_| stack.graft.is_none())
            && let Err(error) = upper.count_access(self.options.strict_atime)
        {
            tracing::debug!(%error, "an access time stays as it was");
        }
        if stack.has_lower() && self.listed_alone(&stack).is_none() {
            return self.list_merged(&node, body, &stack, from, plus, sink);
        }
        if plus.is_all()
            && let Some(lower) = stack.lowers.first()
            && self.list_told(&node, lower, from, plus, sink)?
        {
            return Ok(());
        }
        self.list_single(&node, body, &stack, from, plus, sink)
    }

    /// The only part of a directory, if that is of a lower layer and will stay so.
    pub(super) fn listed_alone<'a>(&self, stack: &'a Stack) -> Option<&'a LayerDir> {
        stack.lowers.first().filter(|_| self.is_read_only() && stack.lowers.len() == 1)
    }

    // Lists a directory of one lower layer that has attributes at hand. What has no further name
    // and nothing to say of other layers is entered as it comes.
    fn list_told(
        &self,
        node: &Node,
        lower: &LayerDir,
        offset: u64,
        plus: &Told,
        sink: &mut dyn DirSink,
    ) -> Result<bool> {
        let (layer, body) = (lower.layer, dir_of(node)?);
        let redirects = self.roots.last().is_some_and(|last| last.layer > layer);
        let grafted = body.has_grafts.load(Ordering::Acquire);
        let (mut device, mut failed) = (None, None);
        let told = lower.dir.list_stat(backing_position(offset), &mut |entry, stat| {
            if !sink.has_room(entry.name.len()) {
                return false;
            }
            let device = *device.get_or_insert_with(|| self.device(stat.dev));
            let (kind, position) = (stat.kind(), shown_position(entry.next));
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
            match self.is_hidden(&lower.dir, &item, false) {
                Ok(true) => true,
                Ok(false) => self.push(node, body, &item, wants, sink),
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

    fn push(
        &self,
        node: &Node,
        body: &DirBody,
        item: &Item,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> bool {
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

    fn list_single(
        &self,
        node: &Node,
        body: &DirBody,
        stack: &Stack,
        offset: u64,
        plus: &Told,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let dir = stack.top().ok_or(Errno::STALE)?;
        let dev = dir.stat(None)?.dev;
        let layer = if stack.upper.is_some() { UPPER } else { 1 };
        let raw = stack.graft.is_some();
        let stored = !raw && layer == UPPER && self.is_impure(dir)?;
        let marked = !raw && self.may_hold_xattr_whiteouts(dir)?;
        let mut failed = None;
        let mut next = backing_position(offset);
        let mut more = true;
        let mut pure = stored && offset <= 2;
        // Entries are taken in batches, since the sink may look them up in the same directory.
        while more && failed.is_none() {
            let mut batch = Vec::new();
            dir.list(next, &mut |entry| {
                batch.push(Item {
                    position: entry.next,
                    name: name(entry.name),
                    ino: entry.ino,
                    kind: entry.kind,
                });
                batch.len() < 256
            })?;
            more = batch.len() == 256;
            for mut item in batch {
                next = item.position;
                item.position = shown_position(next);
                if !raw && self.is_hidden(dir, &item, marked)? {
                    continue;
                }
                let own = self.show_ino_of(dev, item.ino);
                item.ino = if stored { self.entry_ino(dir, dev, &item)? } else { own };
                pure &= item.ino == own;
                if !self.push(node, body, &item, plus.wants(item.kind), sink) {
                    failed = Some(());
                    break;
                }
            }
        }
        if pure && failed.is_none() { self.clear_impure(body, dir) } else { Ok(()) }
    }

    // Takes the mark from a directory that was read as a whole and holds nothing that shows a
    // stored number. What comes while it is read again is marked afterwards, by its own change.
    fn clear_impure(&self, body: &DirBody, dir: &DirRef) -> Result<()> {
        let mut impure = body.impure.lock();
        let dev = dir.stat(None)?.dev;
        let mut items = Vec::new();
        dir.list(0, &mut |entry| {
            let (name, ino, kind) = (name(entry.name), entry.ino, entry.kind);
            items.push(Item { position: 0, name, ino, kind });
            true
        })?;
        for item in items {
            match self.entry_ino(dir, dev, &item) {
                Ok(ino) if ino == self.show_ino_of(dev, item.ino) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.is(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = dir.remove_xattr(None, &self.mark_key(Mark::Impure)) {
            tracing::debug!(%error, "a directory stays marked as impure");
        }
        *impure = false;
        Ok(())
    }

    fn list_merged(
        &self,
        node: &Node,
        body: &DirBody,
        stack: &Stack,
        offset: u64,
        plus: &Told,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let listing = self.listing(node.id, body, stack, offset <= 2)?;
        let start = listing.items.partition_point(|item| item.position <= offset);
        for item in listing.items.iter().skip(start) {
            if !self.push(node, body, item, plus.wants(item.kind), sink) {
                break;
            }
        }
        Ok(())
    }

    fn listing(
        &self,
        id: NodeId,
        body: &DirBody,
        stack: &Stack,
        fresh: bool,
    ) -> Result<Arc<Listing>> {
        let version = body.version.load(Ordering::Acquire);
        let kept = self.listings.lock().get(&id).cloned();
        if let Some(listing) = kept
            && (listing.version == version || !fresh)
        {
            return Ok(listing);
        }
        let listing = Arc::new(Listing { version, items: self.merge(stack)? });
        if listing.items.len() <= KEPT {
            self.listings.lock().put(id, Arc::clone(&listing));
        }
        Ok(listing)
    }

    /// What a merged directory shows, in the order of its listing.
    pub(super) fn merge(&self, stack: &Stack) -> Result<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let mut seen: HashMap<Name, Option<usize>> = HashMap::new();
        if let Some(upper) = &stack.upper {
            self.merge_part(stack, upper, UPPER, &mut items, &mut seen)?;
        }
        for lower in &stack.lowers {
            self.merge_part(stack, &lower.dir, lower.layer, &mut items, &mut seen)?;
        }
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        for item in &mut items {
            // 62 bits: a position is a signed offset of lseek(2), and 0 to 2 have a meaning.
            item.position = (hasher.hash_one(&item.name[..]) >> 2).max(3);
        }
        items.sort_unstable_by(|a, b| (a.position, &a.name).cmp(&(b.position, &b.name)));
        let mut last = 2;
        for item in &mut items {
            item.position = item.position.max(last + 1);
            last = item.position;
        }
        Ok(items)
    }

    // One part of a merged directory. `seen` says for each name whether it is shown (and where it
    // stands in the list) or hidden by a layer above.
    fn merge_part(
        &self,
        stack: &Stack,
        dir: &DirRef,
        layer: u16,
        items: &mut Vec<Item>,
        seen: &mut HashMap<Name, Option<usize>>,
    ) -> Result<()> {
        let dev = dir.stat(None)?.dev;
        let stored = layer == UPPER && self.is_impure(dir)?;
        let marked = self.may_hold_xattr_whiteouts(dir)?;
        let mut batch = Vec::new();
        dir.list(0, &mut |entry| {
            let (name, ino, kind) = (name(entry.name), entry.ino, entry.kind);
            batch.push(Item { position: 0, name, ino, kind });
            true
        })?;
        let mut whiteouts = Vec::new();
        for mut item in batch {
            if mark::is_aufs_name(&item.name)
                && matches!(item.kind, Kind::File | Kind::Unknown)
                && !is_plain(dir, &item.name)?
            {
                whiteouts.push(name(&item.name[mark::WH_PREFIX.len()..]));
                continue;
            }
            if let Some(above) = seen.get(&item.name) {
                // A directory of the upper that merges shows the number of its lower part.
                // Anything else, a whiteout too, ends the search for that.
                if let Some(shown) = above.and_then(|index| items.get_mut(index))
                    && shown.position == 1
                {
                    if item.kind == Kind::Dir {
                        shown.ino = self.show_ino_of(dev, item.ino);
                    }
                    shown.position = 0;
                }
                continue;
            }
            if self.is_hidden(dir, &item, marked)? {
                seen.insert(item.name, None);
                continue;
            }
            let mut merges = 0;
            item.ino = if layer == UPPER && item.kind == Kind::Dir {
                let marked = Marked::from_names(&dir.xattr_names(Some(&item.name))?);
                merges = u64::from(!marked.opaque && !marked.redirect);
                if marked.redirect || marked.opaque {
                    self.number_of(stack, &item)?
                } else {
                    self.show_ino_of(dev, item.ino)
                }
            } else if stored {
                self.entry_ino(dir, dev, &item)?
            } else {
                self.show_ino_of(dev, item.ino)
            };
            item.position = merges;
            seen.insert(item.name.clone(), Some(items.len()));
            items.push(item);
        }
        for whiteout in whiteouts {
            let above = *seen.entry(whiteout).or_insert(None);
            if let Some(shown) = above.and_then(|index| items.get_mut(index)) {
                shown.position = 0;
            }
        }
        Ok(())
    }

    fn hides_below(&self, dir: &DirRef, entry: &[u8]) -> Result<bool> {
        let marked = Marked::from_names(&dir.xattr_names(Some(entry))?);
        Ok(marked.opaque || marked.redirect)
    }

    /// States whether an entry of a layer is a whiteout or a mark; `marked`, whether files of the
    /// directory may be xattr whiteouts.
    fn is_hidden(&self, dir: &DirRef, item: &Item, marked: bool) -> Result<bool> {
        match item.kind {
            Kind::Char | Kind::Unknown => {
                let stat = dir.stat(Some(&item.name))?;
                Ok(stat.is_whiteout_device()
                    && (self.is_shared_whiteout(&stat) || !is_plain(dir, &item.name)?))
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

    // The number of an entry that a lookup has to find. One that a lookup refuses is listed.
    fn number_of(&self, stack: &Stack, item: &Item) -> Result<u64> {
        match self.resolve(stack, &item.name) {
            Ok(found) => Ok(found.map_or(item.ino, |found| found.ino)),
            Err(error) if error.is(Errno::PERM) => Ok(item.ino),
            Err(error) => Err(error),
        }
    }

    // Only a directory marked `opaque=x` holds xattr whiteouts (`ovl_xattr_get_first_x`).
    pub(super) fn may_hold_xattr_whiteouts(&self, dir: &DirRef) -> Result<bool> {
        for key in mark::keys(Mark::Opaque) {
            if dir.xattr(None, &key)?.as_deref() == Some(b"x") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_impure(&self, dir: &DirRef) -> Result<bool> {
        Ok(dir.xattr(None, &self.mark_key(Mark::Impure))?.is_some())
    }

    fn entry_ino(&self, dir: &DirRef, dev: u64, item: &Item) -> Result<u64> {
        if item.kind == Kind::Dir && self.hides_below(dir, &item.name)? {
            let stack = Stack { upper: Some(Arc::clone(dir)), ..Stack::default() };
            return self.number_of(&stack, item);
        }
        if item.kind == Kind::File || (item.kind != Kind::Dir && self.marks_any_kind()) {
            let place = Place::new(UPPER, dir, &item.name);
            let marked = Marked { ino: true, ..Marked::default() };
            if let Some(stored) = self.stored_ino(&place, marked, item.ino)? {
                return Ok(stored);
            }
        }
        // What has no number stored shows that of its node for as long as that is known.
        let key = self.key(UPPER, &Stat { dev, ino: item.ino, ..Stat::default() });
        let known = self.table.find_key(key).and_then(|id| self.table.find(id));
        Ok(known.map_or_else(|| self.show_ino_of(dev, item.ino), |node| node.ino))
    }

    /// States whether a merged directory shows nothing.
    pub(super) fn is_empty(&self, stack: &Stack) -> Result<bool> {
        Ok(self.merge(stack)?.is_empty())
    }

    /// Names of the entries of a merged directory.
    pub(super) fn entries(&self, stack: &Stack) -> Result<Vec<Name>> {
        Ok(self.merge(stack)?.into_iter().map(|item| item.name).collect())
    }
}
