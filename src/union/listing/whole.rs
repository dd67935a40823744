//! Merged directories of few entries: the list is made at once and kept until the directory
//! changes.

use std::collections::HashMap;

use crate::error::Result;
use crate::types::{Kind, Name, name};
use crate::union::body::{Stack, UPPER};
use crate::union::layer::DirRef;
use crate::union::listing::item::{Item, bytes_of};
use crate::union::listing::lister::Lister;
use crate::union::listing::position::{self, Place};
use crate::union::mark;

/// The largest size of an entry with a usual name in common file systems: tmpfs counts 20 bytes,
/// ext4 and XFS 16 to 40.
const ENTRY_BYTES: u64 = 40;

/// All entries of a merged directory at one time.
pub(super) struct Whole {
    pub(super) version: u64,
    /// The entries with a name in a lower part, in the order of those parts; then the others.
    items: Vec<Item>,
    lower_len: usize,
}

/// An entry of a merged directory while the list is made.
struct Draft {
    item: Item,
    /// Whether it is a directory of the upper that shows the number of its lower part, if it has
    /// one.
    merges: bool,
    /// Whether its position is that of a lower part.
    placed: bool,
}

/// Entries found so far, and for each name whether it is shown (and where) or hidden by a layer.
#[derive(Default)]
struct Drafts {
    drafts: Vec<Draft>,
    seen: HashMap<Name, Option<usize>>,
}

impl Whole {
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the entries behind a position; `None` if only the upper itself can determine them.
    pub(super) fn behind(&self, offset: u64) -> Option<&[Item]> {
        let (lowers, others) = self.items.split_at_checked(self.lower_len)?;
        if let Place::Lower(count) = position::place(offset) {
            let position = position::shown_lower(count).ok()?;
            return self.items.get(lowers.partition_point(|item| item.position <= position)..);
        }
        let at = others.iter().position(|item| item.position == offset)?;
        others.get(at + 1..)
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.items)
    }
}

impl Drafts {
    fn shown(&mut self, above: Option<usize>) -> Option<&mut Draft> {
        self.drafts.get_mut(above?)
    }

    fn finish(self, version: u64) -> Whole {
        let (mut lowers, others): (Vec<_>, Vec<_>) =
            self.drafts.into_iter().partition(|draft| draft.placed);
        lowers.sort_unstable_by_key(|draft| draft.item.position);
        let lower_len = lowers.len();
        let items = lowers.into_iter().chain(others).map(|draft| draft.item).collect();
        Whole { version, items, lower_len }
    }
}

impl Lister<'_> {
    /// Whether the size of a part suggests more entries than the limit.
    pub(super) fn seems_large(&self, stack: &Stack) -> Result<bool> {
        let most = (self.layers.options().listing_entries as u64).saturating_mul(ENTRY_BYTES);
        for dir in stack.upper.iter().chain(stack.lowers.iter().map(|lower| &lower.dir)) {
            if dir.stat(None)?.size > most {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns all entries of a merged directory; `None` if its parts have more than the limit.
    pub(super) fn list_whole(&self, stack: &Stack, version: u64) -> Result<Option<Whole>> {
        let Some(parts) = gather(stack, self.layers.options().listing_entries)? else {
            return Ok(None);
        };
        let mut drafts = Drafts::default();
        let uppers = stack.upper.iter().map(|dir| (dir, UPPER));
        let lowers = stack.lowers.iter().map(|lower| (&lower.dir, lower.layer));
        for ((dir, layer), items) in uppers.chain(lowers).zip(parts) {
            self.merge_part(stack, (dir, layer), items, &mut drafts)?;
        }
        Ok(Some(drafts.finish(version)))
    }

    fn merge_part(
        &self,
        stack: &Stack,
        (dir, layer): (&DirRef, u16),
        items: Vec<Item>,
        to: &mut Drafts,
    ) -> Result<()> {
        let traits = self.traits(dir, layer)?;
        let mut whiteouts = Vec::new();
        for mut item in items {
            if self.is_aufs_mark(dir, &item)? {
                whiteouts.extend(item.name.strip_prefix(mark::WH_PREFIX).map(name));
                continue;
            }
            if let Some(above) = to.seen.get(&item.name).copied() {
                if let Some(draft) = to.shown(above) {
                    if !draft.placed {
                        draft.item.position = item.position;
                        draft.placed = true;
                    }
                    // A merged directory of the upper shows the number of its lower part. Any other
                    // object, a whiteout too, ends the search for that number.
                    let below = match draft.merges && item.kind == Kind::Dir {
                        true => Some(self.merged_ino(stack, dir, traits, &item)?),
                        false => None,
                    };
                    (draft.item.ino, draft.merges) = below.unwrap_or((draft.item.ino, false));
                }
                continue;
            }
            if self.is_hidden(dir, layer, &item, traits.marked)? {
                to.seen.insert(item.name, None);
                continue;
            }
            let (ino, merges) = self.merged_ino(stack, dir, traits, &item)?;
            item.ino = ino;
            to.seen.insert(item.name.clone(), Some(to.drafts.len()));
            to.drafts.push(Draft { item, merges, placed: layer != UPPER });
        }
        for whiteout in whiteouts {
            let above = *to.seen.entry(whiteout).or_insert(None);
            if let Some(draft) = to.shown(above) {
                draft.merges = false;
            }
        }
        Ok(())
    }
}

/// Returns the entries of all parts with their positions, the upper first.
fn gather(stack: &Stack, limit: usize) -> Result<Option<Vec<Vec<Item>>>> {
    let (mut parts, mut total) = (Vec::new(), 0);
    let mut lower_count = 0;
    let uppers = stack.upper.iter().map(|dir| (dir, true));
    for (dir, is_upper) in uppers.chain(stack.lowers.iter().map(|lower| (&lower.dir, false))) {
        let (mut items, mut failed) = (Vec::new(), None);
        dir.list(0, &mut |entry| {
            total += 1;
            lower_count += u64::from(!is_upper);
            let shown = if is_upper {
                position::shown_upper(entry.next)
            } else {
                position::shown_lower(lower_count)
            };
            match shown {
                Ok(position) => items.push(Item::new(position, entry)),
                Err(error) => failed = Some(error),
            }
            failed.is_none() && total <= limit
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if total > limit {
            return Ok(None);
        }
        parts.push(items);
    }
    Ok(Some(parts))
}
