//! The kept state of a large merged directory: places in its lower parts, and hashes of names.
//!
//! Both only save work. The places are found again by counting, and without a hash the part itself
//! is checked for the name. Hashes are collected once enough names were checked that collecting is
//! cheaper, and again only after that many more checks: however often a directory changes and
//! whatever was dropped, the work of a listing stays in proportion to the entries it reads.

use std::sync::Arc;

use crate::error::Result;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::union::body::{Stack, UPPER};
use crate::union::listing::item::Traits;
use crate::union::listing::item::{Item, bytes_of};
use crate::union::listing::lister::Lister;
use crate::union::listing::names::{Collector, Names};

/// One place in the lower parts is kept for each `STEP` entries.
pub(super) const STEP: u64 = 256;
/// Collecting a name costs an eighth of checking one.
const CHEAPER: u64 = 8;
/// Names are collected only after at least this many checks.
const LOOKUPS_MAX: u64 = 256;
/// The divisor of the budget for the names of one directory's upper or lower parts.
const SHARE: usize = 4;

/// A place in the lower parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of entries before it.
    pub(super) count: u64,
    pub(super) part: usize,
    /// The position in that part.
    pub(super) position: u64,
}

/// Hashes of names, as of a version of the directory.
#[derive(Default)]
struct Filter {
    names: Mutex<Option<(u64, Arc<Names>)>>,
    /// The last number of names.
    len: AtomicUsize,
    /// The number of checks without the names since they were collected.
    asked: AtomicU64,
}

impl Filter {
    fn find(&self, version: u64) -> Option<Arc<Names>> {
        let names = self.names.lock();
        names.as_ref().filter(|(of, _)| *of == version).map(|(_, names)| Arc::clone(names))
    }

    fn bytes(&self) -> usize {
        self.names.lock().as_ref().map_or(0, |(_, names)| names.bytes())
    }

    /// Returns the names, if they are kept or collecting them pays off now.
    fn names(
        &self,
        version: u64,
        (known, limit): (u64, usize),
        collect: impl FnOnce(&mut Collector) -> Result<(bool, Option<u64>)>,
    ) -> Result<Option<Arc<Names>>> {
        if let Some(names) = self.find(version) {
            return Ok(Some(names));
        }
        let len = known.max(self.len.load(Ordering::Relaxed) as u64);
        if self.asked.load(Ordering::Relaxed) < LOOKUPS_MAX.max(len / CHEAPER) {
            return Ok(None);
        }
        self.asked.store(0, Ordering::Relaxed);
        let mut collector = Collector::new(limit);
        let (fits, whiteout) = collect(&mut collector)?;
        let names = Arc::new(collector.finish(whiteout));
        self.len.store(names.len(), Ordering::Relaxed);
        if !fits {
            return Ok(None);
        }
        *self.names.lock() = Some((version, Arc::clone(&names)));
        Ok(Some(names))
    }
}

/// The entries of a lower part from one place to the next.
pub(super) struct Step {
    pub(super) from: Mark,
    pub(super) next: Mark,
    pub(super) items: Vec<Item>,
}

/// The kept state of a large merged directory.
pub(super) struct Large {
    traits: Vec<Traits>,
    marks: Mutex<Vec<Mark>>,
    /// The step that was read last: a request uses a part of it.
    step: Mutex<Option<Arc<Step>>>,
    upper: Filter,
    lowers: Filter,
}

/// How to find out whether a part above has a name.
pub(super) enum Above {
    /// There is no such part.
    None,
    Names(Arc<Names>),
    /// The parts are checked for each name.
    Lookups,
}

impl Above {
    /// Whether an inode of the upper is known as that of the whiteouts.
    pub(super) fn is_whiteout(&self, ino: u64) -> bool {
        matches!(self, Self::Names(names) if names.whiteout == Some(ino))
    }
}

impl Step {
    fn bytes(&self) -> usize {
        bytes_of(&self.items)
    }
}

impl Large {
    /// The properties that the entries of a lower part share.
    pub(super) fn traits(&self, part: usize) -> Option<Traits> {
        self.traits.get(part).copied()
    }

    /// Returns the last known place at or before `count` entries.
    pub(super) fn start(&self, count: u64) -> Mark {
        let marks = self.marks.lock();
        let at = usize::try_from(count / STEP).unwrap_or(usize::MAX);
        marks.get(at.min(marks.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// Returns the entries from one place to the next: those read last, or read now.
    pub(super) fn step(
        &self,
        from: Mark,
        read: impl FnOnce() -> Result<Step>,
    ) -> Result<Arc<Step>> {
        let kept = self.step.lock().as_ref().filter(|step| step.from == from).map(Arc::clone);
        if let Some(step) = kept {
            return Ok(step);
        }
        let step = Arc::new(read()?);
        *self.step.lock() = Some(Arc::clone(&step));
        Ok(step)
    }

    /// Notes a place at the end of a step.
    pub(super) fn pass(&self, mark: Mark) {
        let mut marks = self.marks.lock();
        if mark.count == marks.len() as u64 * STEP {
            marks.push(mark);
        }
    }

    /// Notes that all names of the upper will be checked in lower parts, whose names are collected
    /// now if that is cheaper and was not done before.
    pub(super) fn expect(&self) {
        let expected = self.upper.len.load(Ordering::Relaxed) as u64;
        if self.lowers.len.load(Ordering::Relaxed) == 0 {
            self.lowers.asked.fetch_max(expected, Ordering::Relaxed);
        }
    }

    /// Counts names that were checked in the upper and in lower parts.
    pub(super) fn asked(&self, upper: u64, lowers: u64) {
        self.upper.asked.fetch_add(upper, Ordering::Relaxed);
        self.lowers.asked.fetch_add(lowers, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        let marks = self.marks.lock().capacity() * size_of::<Mark>();
        let step = self.step.lock().as_ref().map_or(0, |step| step.bytes());
        size_of::<Self>() + marks + step + self.upper.bytes() + self.lowers.bytes()
    }

    pub(super) fn drop_names(&self) {
        drop(self.step.lock().take());
        drop(self.upper.names.lock().take());
        drop(self.lowers.names.lock().take());
    }
}

impl Lister<'_> {
    /// Returns the state of a large merged directory without kept entries.
    pub(super) fn large(&self, stack: &Stack) -> Result<Large> {
        let traits = stack.lowers.iter().map(|lower| self.traits(&lower.dir, lower.layer));
        let upper = Filter { asked: AtomicU64::new(u64::MAX / 2), ..Filter::default() };
        Ok(Large {
            traits: traits.collect::<Result<_>>()?,
            marks: Mutex::new(vec![Mark::default()]),
            step: Mutex::default(),
            upper,
            lowers: Filter::default(),
        })
    }

    /// Returns how names of the upper are found.
    pub(super) fn names_of_upper(&self, stack: &Stack, at: (&Large, u64)) -> Result<Above> {
        let (large, version) = at;
        let Some(upper) = &stack.upper else { return Ok(Above::None) };
        let limit = self.layers.options().listing_bytes / SHARE;
        let names = large.upper.names(version, (0, limit), |to| {
            let fits = to.add(upper, 0)?;
            let Some(device) = to.device.take() else { return Ok((fits, None)) };
            let hides = self.is_hidden(upper, UPPER, &device, false)?;
            Ok((fits, hides.then_some(device.ino)))
        })?;
        Ok(names.map_or(Above::Lookups, Above::Names))
    }

    /// Returns how names of the first `parts` lower parts are found.
    pub(super) fn names_of_lowers(
        &self,
        stack: &Stack,
        large: &Large,
        parts: usize,
    ) -> Result<Above> {
        if parts == 0 {
            return Ok(Above::None);
        }
        let known = (large.marks.lock().len() as u64 - 1) * STEP;
        let limit = self.layers.options().listing_bytes / SHARE;
        // Lower parts never change.
        let names = large.lowers.names(0, (known, limit), |to| {
            for (lower, part) in stack.lowers.iter().zip(0..u16::MAX) {
                if !to.add(&lower.dir, part)? {
                    return Ok((false, None));
                }
            }
            Ok((true, None))
        })?;
        Ok(names.map_or(Above::Lookups, Above::Names))
    }
}
