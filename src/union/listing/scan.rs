//! Reads large merged directories part by part, without a list of their entries.
//!
//! The lower parts come first, then the upper. A name of a lower part, even if it is hidden there
//! or by a layer above, has its position in the topmost lower part that has it, and nowhere else.
//! Lower parts never change, so each name keeps its position while entries come and go, are copied
//! up or replaced. The object of a name is determined when the entry is passed to the reader, by
//! `Layers::resolve` if a part above has the name too.

use crate::error::{Errno, Result};
use crate::types::Name;
use crate::union::body::{LayerDir, Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::listing::item::{Item, Traits};
use crate::union::listing::large::{Above, Large, Mark, STEP, Step};
use crate::union::listing::lister::Lister;
use crate::union::listing::position::{self, Place};
use crate::union::probe::exists;

/// Entries of the upper that are read at once.
const BATCH: u64 = 256;

/// A large merged directory at the time of a request.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) stack: &'a Stack,
    pub(super) large: &'a Large,
    /// The version of the directory, read before the upper.
    pub(super) version: u64,
}

/// Receives entries; returns whether it wants more.
type ItemSink<'a> = dyn FnMut(&Item) -> bool + 'a;

impl Lister<'_> {
    /// Passes the entries behind a place to `sink`; returns whether the end was reached.
    pub(super) fn scan(&self, at: Scan<'_>, from: Place, sink: &mut ItemSink<'_>) -> Result<bool> {
        let position = match from {
            Place::Lower(count) if !self.scan_lowers(at, count, sink)? => return Ok(false),
            Place::Lower(_) => 0,
            Place::Upper(position) => position,
        };
        match &at.stack.upper {
            Some(upper) => self.scan_upper(at, upper, position, sink),
            None => Ok(true),
        }
    }

    fn scan_lowers(&self, at: Scan<'_>, from: u64, sink: &mut ItemSink<'_>) -> Result<bool> {
        let mut mark = at.large.start(from);
        while let Some(lower) = at.stack.lowers.get(mark.part) {
            let part = mark.part;
            let step = at.large.step(mark, || take(lower, mark))?;
            mark = step.next;
            at.large.pass(mark);
            let upper = self.names_of_upper(at.stack, (at.large, at.version))?;
            let above = self.names_of_lowers(at.stack, at.large, part)?;
            let behind = position::shown_lower(from)?;
            let before = step.items.partition_point(|item| item.position <= behind);
            for mut item in step.items.iter().skip(before).cloned() {
                if self.shows_lower(at, part, &mut item, (&upper, &above))? && !sink(&item) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    // Decides whether an entry of a lower part is shown, and completes it.
    fn shows_lower(
        &self,
        at: Scan<'_>,
        part: usize,
        item: &mut Item,
        (upper, above): (&Above, &Above),
    ) -> Result<bool> {
        let (Some(lower), Some(traits)) = (at.stack.lowers.get(part), at.large.traits(part)) else {
            return Ok(false);
        };
        let Traits { layer, dev, marked, .. } = traits;
        let in_upper = self.may_be_in_upper(at, upper, &item.name)?;
        let in_lowers = self.may_be_in_lowers(at, (above, part), &item.name)?;
        if !in_upper && !in_lowers {
            if self.is_aufs_mark(&lower.dir, item)?
                || self.is_hidden(&lower.dir, layer, item, marked)?
            {
                return Ok(false);
            }
            let (ino, merges) = self.merged_ino(at.stack, &lower.dir, traits, item)?;
            item.ino = if merges { self.number_of(at.stack, item)? } else { ino };
            return Ok(true);
        }
        if in_lowers && is_in(at.stack.lowers.get(..part), &item.name)? {
            return Ok(false);
        }
        if in_upper && is_whiteout(at.stack, upper, &item.name)? {
            return Ok(false);
        }
        match self.layers.resolve(at.stack, &item.name) {
            Ok(Some(found)) => (item.ino, item.kind) = (found.ino, found.stat.kind()),
            Ok(None) => return Ok(false),
            // An entry that a lookup refuses is listed.
            Err(error) if error.is(Errno::PERM) => {
                item.ino = self.layers.show_ino_of(dev, item.ino)
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn may_be_in_upper(&self, at: Scan<'_>, names: &Above, name: &Name) -> Result<bool> {
        match (names, &at.stack.upper) {
            (Above::Names(names), _) => Ok(names.has(name, 1)),
            (Above::Lookups, Some(upper)) => {
                at.large.asked(1, 0);
                Ok(exists(upper, name)? || self.layers.upper_hides(at.stack, name)?)
            }
            _ => Ok(false),
        }
    }

    fn may_be_in_lowers(
        &self,
        at: Scan<'_>,
        (names, parts): (&Above, usize),
        name: &Name,
    ) -> Result<bool> {
        match names {
            Above::None => Ok(false),
            Above::Names(names) => Ok(names.has(name, u16::try_from(parts).unwrap_or(u16::MAX))),
            Above::Lookups => {
                at.large.asked(0, parts as u64);
                for lower in at.stack.lowers.iter().take(parts) {
                    if exists(&lower.dir, name)? || lower.hides(name)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    fn scan_upper(
        &self,
        at: Scan<'_>,
        upper: &DirRef,
        mut position: u64,
        sink: &mut ItemSink<'_>,
    ) -> Result<bool> {
        let traits = self.traits(upper, UPPER)?;
        let names = self.names_of_upper(at.stack, (at.large, at.version))?;
        if position == 0 {
            at.large.expect();
        }
        loop {
            let mut items = Vec::new();
            upper.list_about(position, BATCH, &mut |entry| {
                items.push(Item::new(entry.next, entry));
                (items.len() as u64) < BATCH
            })?;
            let more = items.len() as u64 == BATCH;
            let below = self.names_of_lowers(at.stack, at.large, at.stack.lowers.len())?;
            for mut item in items {
                position = item.position;
                item.position = position::shown_upper(position)?;
                if names.is_whiteout(item.ino) {
                    continue;
                }
                if self.shows_upper(at, (upper, traits), &mut item, &below)? && !sink(&item) {
                    return Ok(false);
                }
            }
            if !more {
                return Ok(true);
            }
        }
    }

    // Decides whether an entry of the upper is shown, and completes it.
    fn shows_upper(
        &self,
        at: Scan<'_>,
        (upper, traits): (&DirRef, Traits),
        item: &mut Item,
        below: &Above,
    ) -> Result<bool> {
        if self.is_aufs_mark(upper, item)? || self.is_hidden(upper, UPPER, item, traits.marked)? {
            return Ok(false);
        }
        let parts = at.stack.lowers.len();
        let may_be = match below {
            Above::None => false,
            Above::Names(names) => names.has(&item.name, u16::try_from(parts).unwrap_or(u16::MAX)),
            Above::Lookups => {
                at.large.asked(0, parts as u64);
                true
            }
        };
        if may_be && is_in(Some(&at.stack.lowers), &item.name)? {
            return Ok(false);
        }
        item.ino = self.merged_ino(at.stack, upper, traits, item)?.0;
        Ok(true)
    }

    /// Passes the entries that a merged directory shows to `sink`, in the order of its listing.
    pub(in crate::union) fn each(
        &self,
        stack: &Stack,
        sink: &mut dyn FnMut(&Item) -> bool,
    ) -> Result<()> {
        if let Some(whole) = self.list_whole(stack, 0)? {
            whole.items().iter().all(sink);
            return Ok(());
        }
        let scan = Scan { stack, large: &self.large(stack)?, version: 0 };
        self.scan(scan, Place::Lower(0), sink).map(|_| ())
    }

    /// Whether a merged directory shows no entries.
    pub(in crate::union) fn is_empty(&self, stack: &Stack) -> Result<bool> {
        let mut empty = true;
        self.each(stack, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Returns the names of the entries of a merged directory.
    pub(in crate::union) fn entries(&self, stack: &Stack) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        self.each(stack, &mut |item| {
            names.push(item.name.clone());
            true
        })?;
        Ok(names)
    }
}

/// Reads the entries from a place to the next step or the end of the part.
fn take(lower: &LayerDir, from: Mark) -> Result<Step> {
    let (mut at, mut items, mut failed) = (from, Vec::new(), None);
    let end = (from.count / STEP + 1) * STEP;
    lower.dir.list_about(from.position, end - from.count, &mut |entry| {
        at.count += 1;
        at.position = entry.next;
        match position::shown_lower(at.count) {
            Ok(position) => items.push(Item::new(position, entry)),
            Err(error) => failed = Some(error),
        }
        at.count < end && failed.is_none()
    })?;
    if at.count < end {
        (at.part, at.position) = (from.part + 1, 0);
    }
    failed.map_or(Ok(Step { from, next: at, items }), Err)
}

/// Whether the upper has a whiteout of the usual inode under a name.
fn is_whiteout(stack: &Stack, names: &Above, name: &[u8]) -> Result<bool> {
    let (Above::Names(known), Some(upper)) = (names, &stack.upper) else { return Ok(false) };
    if known.whiteout.is_none() {
        return Ok(false);
    }
    match upper.stat(Some(name)) {
        Ok(stat) => Ok(names.is_whiteout(stat.ino)),
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether one of these directories has a name.
fn is_in(dirs: Option<&[LayerDir]>, name: &[u8]) -> Result<bool> {
    for lower in dirs.unwrap_or_default() {
        if exists(&lower.dir, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}
