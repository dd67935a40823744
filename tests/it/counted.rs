//! A counted tree under random changes: what is counted is what a scan finds, and never more than
//! the limit. Nothing is refused that fits.

use std::sync::Arc;

use laminafs::backing::counted::{Account, BLOCK, Counter, Scan};
use laminafs::error::{Errno, Result};
use laminafs::types::{Access, AttrChange, Limits, Owner, RenameFlags};
use laminafs::union::{DirRef, FileRef};
use laminafs_testing::memory::MemoryTree;
use proptest::prelude::*;

const FILES: usize = 4;
const BLOCKS: u64 = 24;
const INODES: u64 = 6;

/// `FALLOC_FL_*` of linux/falloc.h.
const KEEP_SIZE: u32 = 1;
const PUNCH: u32 = 2 | KEEP_SIZE;
const ZERO: u32 = 0x10;

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Open(usize),
    Close(usize),
    Write(usize, u64, usize),
    Truncate(usize, u64),
    TruncateOpen(usize, u64),
    Allocate(usize, u32, u64, u64),
    Clone(usize, usize),
    Link(usize, usize),
    Unlink(usize),
    Rename(usize, usize),
    Symlink(usize),
    Resize(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..FILES;
    let at = || prop_oneof![0..BLOCK * 8, (0..12_u64).prop_map(|block| block * BLOCK)];
    let mode =
        prop_oneof![Just(0), Just(KEEP_SIZE), Just(PUNCH), Just(ZERO), Just(ZERO | KEEP_SIZE)];
    prop_oneof![
        2 => file().prop_map(Step::Create),
        2 => file().prop_map(Step::Open),
        1 => file().prop_map(Step::Close),
        6 => (file(), at(), 0..20_000_usize).prop_map(|(file, at, len)| Step::Write(file, at, len)),
        2 => (file(), at()).prop_map(|(file, len)| Step::Truncate(file, len)),
        2 => (file(), at()).prop_map(|(file, len)| Step::TruncateOpen(file, len)),
        3 => (file(), mode, at(), 1..30_000_u64)
            .prop_map(|(file, mode, at, len)| Step::Allocate(file, mode, at, len)),
        1 => (file(), file()).prop_map(|(from, to)| Step::Clone(from, to)),
        1 => (file(), file()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => file().prop_map(Step::Unlink),
        1 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => file().prop_map(Step::Symlink),
        1 => (1..BLOCKS * 2).prop_map(Step::Resize),
    ]
}

struct Run {
    raw: DirRef,
    dir: DirRef,
    account: Arc<Account>,
    open: [Option<FileRef>; FILES],
    limit: u64,
}

fn entry(file: usize) -> Vec<u8> {
    format!("f{file}").into_bytes()
}

impl Run {
    fn new() -> Self {
        let tree = MemoryTree::new(7);
        tree.root().mkdir(b"upper", 0o755, Owner::default()).unwrap();
        let raw = tree.root().dir(b"upper");
        let limits = Limits { size_bytes: Some(BLOCKS * BLOCK), inodes: Some(INODES) };
        let account = Arc::new(Account::new(limits, Default::default()));
        let dir = Counter::new(Arc::clone(&account)).wrap(DirRef::clone(&raw));
        Self { raw, dir, account, open: Default::default(), limit: BLOCKS }
    }

    fn with_open(&self, file: usize, act: impl FnOnce(&FileRef) -> Result<()>) -> Result<()> {
        self.open[file].as_ref().map_or(Ok(()), act)
    }

    fn apply(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Create(file) => {
                self.open[file] = Some(self.dir.create(&entry(file), 0o600, Owner::default())?);
                Ok(())
            }
            Step::Open(file) => {
                self.open[file] = Some(self.dir.open(&entry(file), Access::Write)?);
                Ok(())
            }
            Step::Close(file) => {
                self.open[file] = None;
                Ok(())
            }
            Step::Write(file, at, len) => self.with_open(file, |open| {
                let written = open.write_at(&vec![1; len], at)?;
                // A short write has filled what was left.
                assert!(written == len || self.account.used().blocks == self.limit);
                Ok(())
            }),
            Step::Truncate(file, len) => {
                let change = AttrChange { size: Some(len), ..AttrChange::default() };
                self.dir.set_attr(Some(&entry(file)), &change)
            }
            Step::TruncateOpen(file, len) => self.with_open(file, |open| open.set_len(len)),
            Step::Allocate(file, mode, at, len) => {
                self.with_open(file, |open| open.allocate(mode, at, len))
            }
            Step::Clone(from, to) => {
                let source = self.dir.open(&entry(from), Access::Read)?;
                let to = self.dir.create(&entry(to), 0o600, Owner::default())?;
                laminafs::union::copy_data(source.as_ref(), source.stat()?.size, to.as_ref())
            }
            Step::Link(from, to) => self.dir.link(&entry(from), self.dir.as_ref(), &entry(to)),
            Step::Unlink(file) => {
                self.open[file] = None;
                self.dir.unlink(&entry(file))
            }
            Step::Rename(from, to) => {
                self.open[to] = None;
                let flags = RenameFlags::default();
                self.dir.rename(&entry(from), self.dir.as_ref(), &entry(to), flags)
            }
            Step::Symlink(file) => self.dir.symlink(&entry(file), b"target", Owner::default()),
            Step::Resize(blocks) => {
                let limits = Limits { size_bytes: Some(blocks * BLOCK), inodes: Some(INODES) };
                match self.account.resize(limits) {
                    Ok(()) => self.limit = blocks,
                    Err(used) => assert!(used.blocks > blocks || used.inodes > INODES),
                }
                Ok(())
            }
        }
    }

    fn check(&self, step: &Step, done: Result<()>) {
        let mut scan = Scan::default();
        scan.add(&self.raw).unwrap();
        let (used, found) = (self.account.used(), scan.used());
        // An open file without a name still has its data.
        let nameless = |open: &&FileRef| open.stat().is_ok_and(|stat| stat.nlink == 0);
        if !self.open.iter().flatten().any(|open| nameless(&open)) {
            assert_eq!(used, found, "after {step:?}");
        }
        assert!(used.blocks <= self.limit && used.inodes <= INODES, "{used:?} after {step:?}");
        let full = done.is_err_and(|error| error.is(Errno::NOSPC));
        match step {
            Step::Create(_) | Step::Symlink(_) if full => assert_eq!(used.inodes, INODES),
            Step::Write(..) if full => assert_eq!(used.blocks, self.limit),
            Step::Allocate(_, _, at, len) if full => {
                assert!(used.blocks + (at + len).div_ceil(BLOCK) - at / BLOCK > self.limit);
            }
            Step::Clone(..) => {}
            _ => assert!(!full, "{step:?} needs no space"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_counted_is_there_and_within_the_limit(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        for step in &steps {
            let done = run.apply(step);
            run.check(step, done);
        }
    }
}

#[test]
fn writers_of_one_tree_fill_it_exactly() {
    let run = Run::new();
    let limits = Limits { size_bytes: Some(1000 * BLOCK), inodes: None };
    run.account.resize(limits).unwrap();
    let written: u64 = std::thread::scope(|scope| {
        let fill = |number: usize| {
            let dir = &run.dir;
            scope.spawn(move || {
                let file = dir.create(&entry(number), 0o600, Owner::default()).unwrap();
                let mut at = 0;
                loop {
                    match file.write_at(&[7; 10_000], at) {
                        Ok(len) => at += len as u64,
                        Err(error) => {
                            assert!(error.is(Errno::NOSPC), "{error}");
                            return at.div_ceil(BLOCK);
                        }
                    }
                }
            })
        };
        let all: Vec<_> = (0..4).map(fill).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let mut scan = Scan::default();
    scan.add(&run.raw).unwrap();
    assert_eq!((written, scan.used().blocks, run.account.used().blocks), (1000, 1000, 1000));
}

#[test]
fn counting_may_begin_while_files_are_open() {
    let tree = MemoryTree::new(7);
    tree.root().mkdir(b"upper", 0o755, Owner::default()).unwrap();
    let raw = tree.root().dir(b"upper");
    let account = Arc::new(Account::idle());
    let dir = Counter::new(Arc::clone(&account)).wrap(DirRef::clone(&raw));
    let data = |blocks: u64| vec![1; (blocks * BLOCK) as usize];
    let make = |file: usize, blocks: u64| {
        let made = dir.create(&entry(file), 0o600, Owner::default()).unwrap();
        made.write_at(&data(blocks), 0).unwrap();
        made
    };
    let (kept, gone, unused) = (make(0, 3), make(1, 2), make(2, 4));
    dir.unlink(&entry(1)).unwrap();
    dir.unlink(&entry(2)).unwrap();
    let scan = || {
        let mut scan = Scan::default();
        scan.add(&raw).unwrap();
        scan.used()
    };
    assert_eq!(account.used(), Default::default());
    let limits = |blocks: u64| Limits { size_bytes: Some(blocks * BLOCK), inodes: None };
    assert_eq!(account.begin(limits(2), scan()), Err(scan()));
    kept.write_at(&data(1), 3 * BLOCK).unwrap();
    account.begin(limits(8), scan()).unwrap();
    let used = || (account.used().blocks, account.used().inodes);
    assert_eq!(used(), (4, 1));
    // A file without a name counts from its next write on, until its last user is gone.
    gone.write_at(&data(1), 2 * BLOCK).unwrap();
    assert_eq!(used(), (7, 2));
    assert_eq!(kept.write_at(&data(3), 4 * BLOCK).unwrap() as u64, BLOCK);
    assert_eq!(used(), (8, 2));
    drop((gone, unused));
    assert_eq!(used(), (5, 1));
    assert_eq!(account.used(), scan());
    dir.unlink(&entry(0)).unwrap();
    drop(kept);
    assert_eq!(used(), (0, 0));
}
