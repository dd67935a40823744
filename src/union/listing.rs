//! Listings of merged directories.
//!
//! A directory of one part is read through: its positions are those of the file system. A
//! directory that has parts in lower layers is read as a whole, and its entries are given in the
//! order of a hash of their names: a position means the same before and after entries come and
//! go, after a copy-up, and without any state kept for the reader. The list is kept for the next
//! request and made anew when a reader starts over after a change.
//!
//! Positions: 0 the start, 1 behind `.`, 2 behind `..`, above it entries.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Errno, Result};
use crate::types::{Kind, Name, NodeId, Stat, name};
use crate::union::api::DirSink;
use crate::union::body::{DirBody, Place, Stack, UPPER, is_plain};
use crate::union::layer::DirRef;
use crate::union::mark::{self, Mark, Marked};
use crate::union::table::Node;
use crate::union::{Union, dir_of};

/// Directories in a row that are told with attributes after lookups were seen to follow; each
/// look that sees them again doubles the run.
const PLUS_RUN: i32 = 16;
const PLUS_RUN_MAX: i32 = 512;
/// Directories that are told with attributes in a listing by names, for each request.
const DIRS_TOLD: u32 = 64;
/// Lookups after a listing by names that show that attributes are wanted.
const PLUS_AFTER: u32 = 3;
/// Most entries of a list that is kept.
const KEPT: usize = 100_000;

struct Item {
    position: u64,
    name: Name,
    ino: u64,
    kind: Kind,
}

/// The entries of a merged directory at one time.
pub(super) struct Listing {
    version: u64,
    items: Vec<Item>,
}

/// Notes that an object was looked up in a directory: after a listing by names alone it tells
/// that attributes should have come with it.
pub(super) fn note_lookup(union: &Union, body: &DirBody) {
    let seen = body.looked_up.load(Ordering::Relaxed);
    if seen >= PLUS_AFTER {
        return;
    }
    body.looked_up.store(seen + 1, Ordering::Relaxed);
    if seen + 1 == PLUS_AFTER {
        let run = union.plus_run.load(Ordering::Relaxed).clamp(PLUS_RUN, PLUS_RUN_MAX);
        union.plus_credit.store(run, Ordering::Relaxed);
        union.plus_run.store(run * 2, Ordering::Relaxed);
    }
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

/// Which entries are told with their attributes.
#[derive(Default)]
struct Plus {
    all: bool,
    /// So many directories more.
    dirs: Cell<u32>,
}

impl Plus {
    // A walk through a tree looks up each directory that it goes on to.
    fn wants(&self, kind: Kind) -> bool {
        let left = self.dirs.get();
        if self.all || kind != Kind::Dir || left == 0 {
            return self.all;
        }
        self.dirs.set(left - 1);
        true
    }
}

impl Union {
    /// Gives the entries of a directory behind a position until the sink is full. With `plus`
    /// the reader can take attributes too.
    ///
    /// # Errors
    /// As getdents(2).
    pub fn readdir(
        &self,
        id: NodeId,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let node = self.node(id)?;
        let body = dir_of(&node)?;
        if body.removed.get().is_some() {
            return Ok(());
        }
        let plus = match (plus, plus && self.wants_plus(body, offset)) {
            (false, _) => Plus::default(),
            (true, false) => Plus { all: false, dirs: Cell::new(DIRS_TOLD) },
            (true, true) => Plus { all: true, dirs: Cell::new(0) },
        };
        let plus = &plus;
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
        if stack.has_lower() && !(self.is_read_only() && stack.lowers.len() == 1) {
            return self.list_merged(&node, body, &stack, from, plus, sink);
        }
        self.list_single(&node, body, &stack, from, plus, sink)
    }

    // Attributes cost a lookup for each entry and bring nothing to a reader of names. Every so
    // often one directory is given by names to see whether lookups still follow.
    fn wants_plus(&self, body: &DirBody, offset: u64) -> bool {
        let credit = self.plus_credit.load(Ordering::Relaxed);
        if credit > 0 {
            if offset == 0 {
                self.plus_credit.fetch_sub(1, Ordering::Relaxed);
            }
            return true;
        }
        if offset == 0 {
            body.looked_up.store(0, Ordering::Relaxed);
            // The second in a row: nothing followed the first.
            if credit < 0 {
                self.plus_run.store(PLUS_RUN, Ordering::Relaxed);
            } else {
                self.plus_credit.store(-1, Ordering::Relaxed);
            }
        }
        false
    }

    fn push(
        &self,
        node: &Node,
        body: &DirBody,
        item: &Item,
        plus: &Plus,
        sink: &mut dyn DirSink,
    ) -> bool {
        if !sink.has_room(item.name.len()) {
            return false;
        }
        let plus = plus.wants(item.kind);
        let grafted = body.has_grafts.load(Ordering::Acquire);
        if plus || (grafted && self.is_graft_place(node.id, &item.name)) {
            // What vanished meanwhile, or cannot be read, is told by name: its lookup will say.
            if let Ok(Some(entry)) = self.lookup_listed(node, &item.name) {
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

    fn lookup_listed(&self, node: &Node, entry: &[u8]) -> Result<Option<super::Entry>> {
        let body = dir_of(node)?;
        if let Some(found) = self.find_graft(node, body, entry)? {
            return self.enter(node.id, entry, found).map(Some);
        }
        match self.resolve(&body.stack(), entry)? {
            Some(found) => self.enter(node.id, entry, found).map(Some),
            None => Ok(None),
        }
    }

    fn list_single(
        &self,
        node: &Node,
        body: &DirBody,
        stack: &Stack,
        offset: u64,
        plus: &Plus,
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
                if !raw && self.is_hidden(dir, layer, &item, marked)? {
                    continue;
                }
                item.ino = if stored {
                    self.entry_ino(dir, dev, &item)?
                } else {
                    self.show_ino_of(dev, item.ino)
                };
                if !self.push(node, body, &item, plus, sink) {
                    failed = Some(());
                    break;
                }
            }
        }
        Ok(())
    }

    fn list_merged(
        &self,
        node: &Node,
        body: &DirBody,
        stack: &Stack,
        offset: u64,
        plus: &Plus,
        sink: &mut dyn DirSink,
    ) -> Result<()> {
        let listing = self.listing(node.id, body, stack, offset <= 2)?;
        let start = listing.items.partition_point(|item| item.position <= offset);
        for item in listing.items.iter().skip(start) {
            if !self.push(node, body, item, plus, sink) {
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

    fn merge(&self, stack: &Stack) -> Result<Vec<Item>> {
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
            let aufs = mark::is_aufs_name(&item.name) && self.reads_aufs(layer);
            if aufs
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
            if self.is_hidden(dir, layer, &item, marked)? {
                seen.insert(item.name, None);
                continue;
            }
            let mut merges = 0;
            item.ino = if layer == UPPER && item.kind == Kind::Dir {
                let marked = Marked::from_names(&dir.xattr_names(Some(&item.name))?);
                merges = u64::from(!marked.opaque && !marked.redirect);
                if marked.redirect || marked.opaque {
                    self.resolve(stack, &item.name)?.map_or(item.ino, |found| found.ino)
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

    fn reads_aufs(&self, layer: u16) -> bool {
        layer != UPPER || self.writes_aufs_whiteouts()
    }

    fn hides_below(&self, dir: &DirRef, entry: &[u8]) -> Result<bool> {
        let marked = Marked::from_names(&dir.xattr_names(Some(entry))?);
        Ok(marked.opaque || marked.redirect)
    }

    /// States whether an entry of a layer is a whiteout or a mark; `marked`, whether files of the
    /// directory may be xattr whiteouts.
    fn is_hidden(&self, dir: &DirRef, layer: u16, item: &Item, marked: bool) -> Result<bool> {
        match item.kind {
            Kind::Char | Kind::Unknown => {
                let stat = dir.stat(Some(&item.name))?;
                Ok(stat.is_whiteout_device()
                    && (self.is_shared_whiteout(&stat) || !is_plain(dir, &item.name)?))
            }
            Kind::File if mark::is_aufs_name(&item.name) && self.reads_aufs(layer) => {
                Ok(!is_plain(dir, &item.name)?)
            }
            Kind::File if marked => {
                let stat = dir.stat(Some(&item.name))?;
                Ok(mark::may_be_xattr_whiteout(&stat)
                    && Marked::from_names(&dir.xattr_names(Some(&item.name))?).whiteout)
            }
            _ => Ok(false),
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
        if item.kind == Kind::Dir || (item.kind != Kind::File && !self.marks_any_kind()) {
            let place = Place::new(UPPER, dir, &item.name);
            if item.kind == Kind::Dir && self.hides_below(dir, &item.name)? {
                let stack = Stack { upper: Some(Arc::clone(dir)), ..Stack::default() };
                let found = self.resolve(&stack, &place.name)?;
                return Ok(found.map_or(item.ino, |found| found.ino));
            }
            // What cannot carry a mark shows the number of its node for as long as that is known.
            let key = self.key(UPPER, &Stat { dev, ino: item.ino, ..Stat::default() });
            let known = self.table.find_key(key).and_then(|id| self.table.find(id));
            return Ok(known.map_or_else(|| self.show_ino_of(dev, item.ino), |node| node.ino));
        }
        let place = Place::new(UPPER, dir, &item.name);
        let stored = self.stored_ino(&place, Marked { ino: true, ..Marked::default() })?;
        Ok(stored.unwrap_or_else(|| self.show_ino_of(dev, item.ino)))
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
