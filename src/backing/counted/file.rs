//! Files of a counted tree.

use std::any::Any;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::Tree;
use super::account::Account;
use super::blocks::{BLOCK, Blocks, touched};
use super::scan::{data_blocks, each_data};
use crate::error::{Errno, Result};
use crate::types::{Access, AttrChange, FsXattr, Seek, Stat};
use crate::union::layer::{File, FileRef};

/// The most ranges of data of a file that are remembered. Beyond it the file system is asked.
const RANGES_MAX: usize = 4096;

/// Bytes of zeroes that are written at once.
const ZEROES: usize = 1 << 20;

/// `FALLOC_FL_*` of linux/falloc.h.
const KEEP_SIZE: u32 = 0x01;
const PUNCH_HOLE: u32 = 0x02;
const COLLAPSE_RANGE: u32 = 0x08;
const ZERO_RANGE: u32 = 0x10;
const INSERT_RANGE: u32 = 0x20;

/// What is known of the data of an inode.
enum Known {
    /// Nothing yet.
    Nothing,
    /// All blocks that hold data.
    Blocks(Blocks),
    /// Their number; they are too many parts.
    Count(u64),
}

/// The state of an inode: one for all that have it open.
pub(super) struct Tracked {
    account: Arc<Account>,
    state: Mutex<State>,
}

pub(super) struct State {
    known: Known,
    /// The inode has lost its last name.
    gone: bool,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.gone {
            self.account.give(state.known.count(), 1);
        }
    }
}

impl Tracked {
    /// An inode without known data.
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self::with(account, Known::Nothing)
    }

    /// An inode without data.
    pub(super) fn empty(account: &Arc<Account>) -> Self {
        Self::with(account, Known::Blocks(Blocks::default()))
    }

    fn with(account: &Arc<Account>, known: Known) -> Self {
        Self { account: Arc::clone(account), state: Mutex::new(State { known, gone: false }) }
    }

    /// Locks the data and the link count of the inode.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether the inode has lost its last name, as far as that was counted.
    pub(super) fn is_gone(&self) -> bool {
        self.state.try_lock().is_some_and(|state| state.gone)
    }

    /// Reads which blocks hold data, unless that is known. A file that had lost its last name
    /// before anything was counted is counted from now on until its last user is gone.
    ///
    /// # Errors
    /// As lseek(2) and fstat(2).
    fn load(&self, state: &mut State, file: &dyn File) -> Result<()> {
        if !matches!(state.known, Known::Nothing) {
            return Ok(());
        }
        state.load_again(file)?;
        if !state.gone && file.stat()?.nlink == 0 {
            self.account.adopt(state.known.count());
            state.gone = true;
        }
        Ok(())
    }

    /// Sets the size by `set`, and gives back what is cut off.
    ///
    /// # Errors
    /// Those of `set`.
    pub(super) fn resize(
        &self,
        state: &mut State,
        file: &dyn File,
        (len, set): (u64, &dyn Fn() -> Result<()>),
    ) -> Result<()> {
        if !self.account.counts() {
            return set();
        }
        self.load(state, file)?;
        let before = state.known.count();
        let done = set();
        match (&done, &mut state.known) {
            (Ok(()), Known::Blocks(blocks)) => blocks.remove(&(len.div_ceil(BLOCK)..u64::MAX)),
            // A part of it may be done.
            _ => state.load_again(file)?,
        }
        self.account.correct(before, state.known.count());
        done
    }

    /// Does something to the data that only the file system knows the result of.
    fn change(
        &self,
        state: &mut State,
        file: &dyn File,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let before = state.known.count();
        let done = change();
        state.load_again(file)?;
        self.account.correct(before, state.known.count());
        done
    }
}

impl Known {
    const fn count(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Blocks(blocks) => blocks.count(),
            Self::Count(count) => *count,
        }
    }
}

impl State {
    fn load_again(&mut self, file: &dyn File) -> Result<()> {
        let mut blocks = Blocks::default();
        each_data(file, 0..u64::MAX, &mut |range| {
            blocks.insert(&range);
            blocks.ranges() <= RANGES_MAX
        })?;
        self.known = match blocks.ranges() <= RANGES_MAX {
            true => Known::Blocks(blocks),
            false => Known::Count(data_blocks(file)?),
        };
        Ok(())
    }

    /// The blocks of data are those of a file with these attributes, which `open` opens.
    ///
    /// # Errors
    /// As open(2) and lseek(2).
    pub(super) fn load_by(
        &mut self,
        stat: &Stat,
        open: impl FnOnce() -> Result<FileRef>,
    ) -> Result<()> {
        match self.known {
            Known::Nothing if stat.size == 0 => self.known = Known::Count(0),
            Known::Nothing => self.known = Known::Count(data_blocks(open()?.as_ref())?),
            _ => {}
        }
        Ok(())
    }

    /// Notes that the inode has lost its last name. The account gets it back with its last user.
    pub(super) const fn set_gone(&mut self) {
        self.gone = true;
    }

    /// The parts of a range without data.
    fn gaps(&self, file: &dyn File, range: &Range<u64>) -> Result<Vec<Range<u64>>> {
        if let Known::Blocks(blocks) = &self.known {
            return Ok(blocks.gaps(range));
        }
        let mut found = Blocks::default();
        each_data(file, range.clone(), &mut |range| {
            found.insert(&range);
            true
        })?;
        Ok(found.gaps(range))
    }

    /// Notes blocks that hold data from now on, and did not.
    fn add(&mut self, range: &Range<u64>) {
        match &mut self.known {
            Known::Blocks(blocks) => {
                blocks.insert(range);
                if blocks.ranges() > RANGES_MAX {
                    self.known = Known::Count(blocks.count());
                }
            }
            Known::Count(count) => *count += range.end.saturating_sub(range.start),
            Known::Nothing => {}
        }
    }
}

fn sum(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The parts of ranges before a block.
fn until(ranges: Vec<Range<u64>>, end: u64) -> impl Iterator<Item = Range<u64>> {
    let cut = ranges.into_iter().map(move |range| range.start..range.end.min(end));
    cut.filter(|range| !range.is_empty())
}

/// The block at which more than `blocks` would be needed.
fn reach(gaps: &[Range<u64>], blocks: u64) -> u64 {
    let mut left = blocks;
    for gap in gaps {
        let len = gap.end - gap.start;
        if len > left {
            return gap.start + left;
        }
        left -= len;
    }
    u64::MAX
}

/// An open file whose data is counted. It has no descriptor for the kernel then, which would write
/// without being counted.
pub(super) struct CountedFile {
    inner: FileRef,
    tracked: Arc<Tracked>,
    tree: Arc<Tree>,
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        if self.tracked.is_gone() {
            self.tree.forget_with(&self.tracked);
        }
    }
}

impl CountedFile {
    pub(super) fn wrap(inner: FileRef, tracked: Arc<Tracked>, tree: &Arc<Tree>) -> FileRef {
        Arc::new(Self { inner, tracked, tree: Arc::clone(tree) })
    }

    fn counts(&self) -> bool {
        self.tracked.account.counts()
    }

    fn write(&self, len: u64, offset: u64, write: impl FnOnce(u64) -> Result<u64>) -> Result<u64> {
        let (file, account) = (self.inner.as_ref(), &self.tracked.account);
        let mut state = self.tracked.lock();
        self.tracked.load(&mut state, file)?;
        let gaps = state.gaps(file, &touched(offset, len))?;
        let taken = account.take(sum(&gaps));
        let fits = reach(&gaps, taken).saturating_mul(BLOCK).saturating_sub(offset).min(len);
        if fits == 0 && len > 0 {
            account.give(taken, 0);
            return Err(Errno::NOSPC.into());
        }
        let done = write(fits).inspect_err(|_| account.give(taken, 0))?;
        let mut filled = 0;
        for range in until(gaps, touched(offset, done).end) {
            filled += range.end - range.start;
            state.add(&range);
        }
        account.give(taken - filled, 0);
        Ok(done)
    }

    /// fallocate(2): the blocks are written, so that they are data from now on.
    fn fill(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let (file, account) = (self.inner.as_ref(), &self.tracked.account);
        let mut state = self.tracked.lock();
        self.tracked.load(&mut state, file)?;
        let size = file.stat()?.size;
        let mut end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        if mode & KEEP_SIZE != 0 && end > size {
            if mode & ZERO_RANGE == 0 {
                return Err(Errno::OPNOTSUPP.into());
            }
            end = size.max(offset);
        }
        let gaps = state.gaps(file, &touched(offset, end - offset))?;
        let taken = sum(&gaps);
        account.take_all(taken)?;
        let write = || -> Result<()> {
            match mode & ZERO_RANGE {
                0 => gaps.iter().try_for_each(|gap| {
                    zeroes(file, gap.start * BLOCK, (gap.end * BLOCK).min(end.max(size)))
                })?,
                _ => zeroes(file, offset, end)?,
            }
            if end > size { file.set_len(end) } else { Ok(()) }
        };
        let done = write();
        if done.is_err() {
            if file.stat()?.size > size {
                file.set_len(size)?;
            }
            let before = state.known.count();
            state.load_again(file)?;
            account.correct(before + taken, state.known.count());
            return done;
        }
        gaps.iter().for_each(|gap| state.add(gap));
        Ok(())
    }
}

fn zeroes(file: &dyn File, mut at: u64, end: u64) -> Result<()> {
    let block = vec![0; ZEROES.min(usize::try_from(end.saturating_sub(at)).unwrap_or(ZEROES))];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(ZEROES).min(ZEROES);
        let written = file.write_at(block.get(..len).unwrap_or(&block), at)?;
        if written == 0 {
            return Err(Errno::NOSPC.into());
        }
        at += written as u64;
    }
    Ok(())
}

impl File for CountedFile {
    fn as_any(&self) -> &dyn Any {
        if self.counts() { self } else { self.inner.as_any() }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.counts() { None } else { self.inner.fd() }
    }

    fn stat(&self) -> Result<Stat> {
        self.inner.stat()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn read_shared(&self, len: usize, offset: u64, take: &mut dyn FnMut(&[&[u8]])) -> Result<bool> {
        self.inner.read_shared(len, offset, take)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        if !self.counts() {
            return self.inner.write_at(data, offset);
        }
        let done = self.write(data.len() as u64, offset, |len| {
            let len = usize::try_from(len).unwrap_or(data.len());
            let written = self.inner.write_at(data.get(..len).unwrap_or(data), offset)?;
            Ok(written as u64)
        })?;
        Ok(usize::try_from(done).unwrap_or(data.len()))
    }

    fn again(&self, access: Access) -> Result<FileRef> {
        let inner = self.inner.again(access)?;
        Ok(Self::wrap(inner, Arc::clone(&self.tracked), &self.tree))
    }

    fn set_attr(&self, change: &AttrChange) -> Result<()> {
        let Some(len) = change.size else { return self.inner.set_attr(change) };
        let mut state = self.tracked.lock();
        let set = || self.inner.set_attr(change);
        self.tracked.resize(&mut state, self.inner.as_ref(), (len, &set))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.tracked.lock();
        let set = || self.inner.set_len(len);
        self.tracked.resize(&mut state, self.inner.as_ref(), (len, &set))
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let file = self.inner.as_ref();
        if !self.counts() {
            return file.allocate(mode, offset, len);
        }
        if mode & (PUNCH_HOLE | COLLAPSE_RANGE | INSERT_RANGE) != 0 {
            let mut state = self.tracked.lock();
            self.tracked.load(&mut state, file)?;
            return self.tracked.change(&mut state, file, || file.allocate(mode, offset, len));
        }
        if mode & !(KEEP_SIZE | ZERO_RANGE) != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.fill(mode, offset, len)
    }

    fn seek(&self, offset: u64, whence: Seek) -> Result<u64> {
        self.inner.seek(offset, whence)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.inner.sync(data_only)
    }

    fn copy_range(&self, from: u64, to: &dyn File, to_offset: u64, len: u64) -> Result<u64> {
        self.inner.copy_range(from, to, to_offset, len)
    }

    fn clone_to(&self, to: &dyn File) -> Result<()> {
        self.inner.clone_to(to)
    }

    fn take_clone(&self, source: &dyn File) -> Result<()> {
        let (file, account) = (self.inner.as_ref(), &self.tracked.account);
        if !self.counts() {
            return source.clone_to(file);
        }
        let needed = data_blocks(source)?;
        let mut state = self.tracked.lock();
        self.tracked.load(&mut state, file)?;
        account.take_all(needed)?;
        let before = state.known.count() + needed;
        let done = source.clone_to(file);
        state.load_again(file)?;
        account.correct(before, state.known.count());
        done
    }

    fn flags(&self) -> Result<u32> {
        self.inner.flags()
    }

    fn set_flags(&self, flags: u32) -> Result<()> {
        self.inner.set_flags(flags)
    }

    fn fsxattr(&self) -> Result<FsXattr> {
        self.inner.fsxattr()
    }

    fn set_fsxattr(&self, value: &FsXattr) -> Result<()> {
        self.inner.set_fsxattr(value)
    }
}
