//! Listings while entries change: entries that exist during a whole reading are listed exactly
//! once.

use std::collections::{BTreeMap, BTreeSet};

use laminafs::types::{AttrChange, Kind, NodeId, Owner, RenameFlags};
use laminafs::union::{Caller, Options, WhiteoutForm};
use laminafs_testing::memory::MemoryTree;
use proptest::prelude::*;

use laminafs_testing::driver::{self, Mount, UPPER_DIRS};

/// The number of names in the directory.
const NAMES: u8 = 48;
const DIR: &[u8] = b"d";

fn name(number: u8) -> Vec<u8> {
    format!("n{number:02}").into_bytes()
}

#[derive(Clone, Debug)]
enum Step {
    /// A reader reads this many more entries; one that is at the end starts again.
    Read(usize, usize),
    /// A reader saves its position, and goes back to it later.
    Seek(usize),
    Toggle(u8),
    /// Copied up, with data or attributes alone.
    Change(u8, bool),
    Rename(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..9_usize).prop_map(|(reader, room)| Step::Read(reader, room)),
        1 => (0..3_usize).prop_map(Step::Seek),
        3 => (0..NAMES).prop_map(Step::Toggle),
        2 => (0..NAMES, any::<bool>()).prop_map(|(name, data)| Step::Change(name, data)),
        2 => (0..NAMES, 0..NAMES).prop_map(|(from, to)| Step::Rename(from, to)),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    /// For each layer, the upper first: the names that it has, and those that it hides.
    layers: Vec<(BTreeSet<u8>, BTreeSet<u8>)>,
    options: Options,
    steps: Vec<Step>,
}

fn case() -> impl Strategy<Value = Case> {
    let names = || prop::collection::btree_set(0..NAMES, 0..40);
    let layers = prop::collection::vec((names(), names()), 1..4);
    let form = prop_oneof![Just(WhiteoutForm::Device), Just(WhiteoutForm::Aufs)];
    // As a list, part by part, and part by part without room for hashes.
    let limits =
        prop_oneof![Just((4096, 1 << 20)), Just((0, 1 << 20)), Just((0, 0)), Just((60, 64))];
    let steps = prop::collection::vec(step(), 0..150);
    (layers, form, limits, steps).prop_map(|(layers, whiteouts, (entries, bytes), steps)| {
        let options = Options {
            whiteouts,
            listing_entries: entries,
            listing_bytes: bytes,
            ..Options::default()
        };
        Case { layers, options, steps }
    })
}

fn build(case: &Case) -> Mount {
    let owner = Owner::default();
    let mut lowers = Vec::new();
    for (number, (names, hidden)) in case.layers.iter().enumerate() {
        let root = MemoryTree::new(number as u64 + 1).root();
        root.mkdir(DIR, 0o755, owner).unwrap();
        let dir = root.dir(DIR);
        for number in names {
            let mode = 0o644 | Kind::File.mode_bits();
            dir.mknod(&name(*number), mode, 0, owner).unwrap();
        }
        for number in hidden {
            let (form, mode) = match number % 2 {
                0 if names.contains(number) => continue,
                0 => (name(*number), 0o600 | Kind::Char.mode_bits()),
                _ => ([b".wh.", &name(*number)[..]].concat(), 0o600 | Kind::File.mode_bits()),
            };
            dir.mknod(&form, mode, 0, owner).unwrap();
        }
        lowers.push(root);
    }
    let upper = MemoryTree::new(100);
    driver::prepare_upper(&upper);
    upper.root().dir(UPPER_DIRS[0]);
    Mount::new(driver::mount(&lowers, Some(&upper.root()), &case.options).unwrap())
}

/// A reading of the directory.
#[derive(Default)]
struct Reader {
    from: u64,
    /// The entries that existed since its start.
    stable: BTreeSet<Vec<u8>>,
    /// The entries that existed at any time since its start.
    ever: BTreeSet<Vec<u8>>,
    told: BTreeMap<Vec<u8>, u32>,
}

struct Run {
    mount: Mount,
    dir: NodeId,
    there: BTreeSet<Vec<u8>>,
    readers: [Reader; 3],
    /// The limit of bytes for kept listings.
    limit: u64,
}

impl Run {
    fn new(case: &Case) -> Self {
        let mut mount = build(case);
        let dir = mount.walk(&[DIR.to_vec()]).unwrap();
        let names = (0..NAMES).map(name);
        let there = names.filter(|name| mount.lookup(dir, name).is_ok()).collect();
        let limit = case.options.listing_bytes as u64;
        let mut run = Self { mount, dir, there, readers: Default::default(), limit };
        (0..3).for_each(|reader| run.start(reader));
        run
    }

    fn start(&mut self, reader: usize) {
        let (stable, ever) = (self.there.clone(), self.there.clone());
        self.readers[reader] = Reader { stable, ever, ..Reader::default() };
    }

    fn read(&mut self, reader: usize, room: usize) {
        let from = self.readers[reader].from;
        let (piece, next) = self.mount.list_piece(self.dir, from, false, room).unwrap();
        assert!(self.mount.union.stats().listing_bytes <= self.limit);
        let ended = piece.is_empty();
        let state = &mut self.readers[reader];
        state.from = next;
        for (name, _) in piece {
            *state.told.entry(name).or_default() += 1;
        }
        if ended {
            for name in &state.stable {
                assert_eq!(state.told.get(name), Some(&1), "{}", String::from_utf8_lossy(name));
            }
            for name in state.told.keys().filter(|name| !name.starts_with(b".")) {
                assert!(state.ever.contains(name), "{}", String::from_utf8_lossy(name));
            }
            self.start(reader);
        }
    }

    // After a position the same stable entries follow as when it was returned.
    fn seek(&mut self, reader: usize) {
        let from = self.readers[reader].from;
        let first = self.rest(from);
        let again = self.rest(from);
        assert_eq!(first, again);
        let state = &self.readers[reader];
        for name in &state.stable {
            let told = state.told.get(name).copied().unwrap_or(0);
            let after = first.iter().filter(|other| *other == name).count() as u32;
            assert_eq!(told + after, 1, "{}", String::from_utf8_lossy(name));
        }
    }

    fn rest(&mut self, mut from: u64) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        loop {
            let (piece, next) = self.mount.list_piece(self.dir, from, false, 5).unwrap();
            if piece.is_empty() {
                return names;
            }
            names.extend(piece.into_iter().map(|(name, _)| name));
            from = next;
        }
    }

    fn came(&mut self, name: Vec<u8>) {
        for reader in &mut self.readers {
            reader.ever.insert(name.clone());
        }
        self.there.insert(name);
    }

    fn went(&mut self, name: &[u8]) {
        for reader in &mut self.readers {
            reader.stable.remove(name);
        }
        self.there.remove(name);
    }

    fn step(&mut self, step: &Step) {
        let caller = Caller { umask: 0o022, ..Caller::default() };
        match *step {
            Step::Read(reader, room) => self.read(reader, room),
            Step::Seek(reader) => self.seek(reader),
            Step::Toggle(number) => {
                let name = name(number);
                if self.there.contains(&name) {
                    self.mount.union.unlink(self.dir, &name).unwrap();
                    self.went(&name);
                } else {
                    let mode = 0o644 | Kind::File.mode_bits();
                    let made = self.mount.union.mknod(&caller, self.dir, &name, mode, 0).unwrap();
                    self.mount.enter(&made);
                    self.came(name);
                }
            }
            Step::Change(number, data) => {
                let Ok(entry) = self.mount.lookup(self.dir, &name(number)) else { return };
                let change = match data {
                    true => AttrChange { size: Some(7), ..AttrChange::default() },
                    false => AttrChange { mode: Some(0o600), ..AttrChange::default() },
                };
                self.mount.union.setattr(entry.node, &change, false).unwrap();
            }
            Step::Rename(from, to) => {
                let (from, to) = (name(from), name(to));
                if from == to || !self.there.contains(&from) {
                    return;
                }
                let flags = RenameFlags::default();
                self.mount.union.rename(self.dir, &from, self.dir, &to, flags).unwrap();
                // A replaced entry may be listed or not, and so may its replacement.
                self.went(&from);
                self.went(&to);
                self.came(to);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn what_stays_is_told_exactly_once(case in case()) {
        let mut run = Run::new(&case);
        case.steps.iter().for_each(|step| run.step(step));
        for reader in 0..3 {
            while run.readers[reader].from != 0 {
                run.read(reader, 7);
            }
        }
    }

    #[test]
    fn a_small_and_a_large_directory_list_alike(case in case()) {
        let list = |entries| {
            let options = Options { listing_entries: entries, ..case.options.clone() };
            let mut mount = build(&Case { options, ..case.clone() });
            let dir = mount.walk(&[DIR.to_vec()]).unwrap();
            let (first, second) = (mount.list(dir, false, 7), mount.list(dir, true, 3));
            (first.unwrap(), second.unwrap())
        };
        assert_eq!(list(4096), list(0));
    }
}

/// Directories with this many entries, and the data kept after each was listed.
fn kept(entries: u64, options: &Options) -> Vec<(u64, u64)> {
    let owner = Owner::default();
    let root = MemoryTree::new(1).root();
    for number in 0..8_u8 {
        let entry = [b'a' + number];
        root.mkdir(&entry, 0o755, owner).unwrap();
        for number in 0..entries {
            let name = format!("{number:020}");
            root.dir(&entry)
                .mknod(name.as_bytes(), 0o644 | Kind::File.mode_bits(), 0, owner)
                .unwrap();
        }
    }
    let upper = MemoryTree::new(100);
    driver::prepare_upper(&upper);
    let mut mount = Mount::new(driver::mount(&[root], Some(&upper.root()), options).unwrap());
    let list = |number: u8| {
        let dir = mount.walk(&[vec![b'a' + number]]).unwrap();
        let listed = mount.list(dir, false, 100).unwrap();
        assert_eq!(listed.len() as u64, entries + 2);
        let stats = mount.union.stats();
        (stats.listings, stats.listing_bytes)
    };
    (0..8).map(list).collect()
}

#[test]
fn what_is_kept_of_directories_has_a_budget_in_bytes() {
    let all = kept(500, &Options::default());
    assert_eq!(all.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    let each = all[0].1;
    assert!(each > 500 * 20, "{each}");
    assert_eq!(all[7].1, each * 8);
    let options = Options { listing_bytes: each as usize * 3, ..Options::default() };
    let few = kept(500, &options);
    assert_eq!(few[7], (3, each * 3));
}

#[test]
fn little_is_kept_of_a_large_directory() {
    let options = Options { listing_entries: 100, ..Options::default() };
    let (count, bytes) = kept(10_000, &options)[0];
    assert_eq!(count, 1);
    assert!(bytes < 10_000, "{bytes}");
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}
