//! The union against the reference: random layers, random operations, remounts between.

use std::sync::Arc;

use laminafs::backing::counted::{Account, Counter, Scan, Used};
use laminafs::types::{Limits, Owner, Time};
use laminafs::union::{DirRef, Marks, Options, Union, WhiteoutForm, empty_dir};
use laminafs_testing::memory::MemoryTree;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};

use super::flatten::flatten;
use super::layers::{self, Item, What};
use super::ops::{self, Op, Run};
use laminafs_testing::driver::{Mount, UPPER_DIRS, compare, config, prepare_upper};
use laminafs_testing::reference::Tree;

/// The clock of the mount starts after that of the layers.
const START: i64 = 1000;

#[derive(Clone, Debug)]
struct Case {
    layers: Vec<Vec<Item>>,
    one_file_system: bool,
    cached: bool,
    options: Options,
    ops: Vec<Op>,
}

fn options() -> impl Strategy<Value = Options> {
    let marks = prop_oneof![3 => Just(Marks::Trusted), 1 => Just(Marks::User)];
    let form = prop_oneof![3 => Just(WhiteoutForm::Device), 1 => Just(WhiteoutForm::Aufs)];
    let often = || prop::bool::weighted(0.8);
    (marks, form, often(), often()).prop_map(|(marks, whiteouts, metacopy, redirect)| Options {
        marks,
        whiteouts,
        metacopy,
        redirect,
        ..Options::default()
    })
}

fn case() -> impl Strategy<Value = Case> {
    let layers = prop::collection::vec(layers::layer(), 1..5);
    let ops = prop::collection::vec(ops::op(), 0..40);
    (layers, any::<bool>(), any::<bool>(), options(), ops).prop_map(
        |(layers, one_file_system, cached, options, ops)| Case {
            layers,
            one_file_system,
            cached,
            options,
            ops,
        },
    )
}

/// The layers of a case and the tree that they show.
struct Stage {
    lowers: Vec<DirRef>,
    upper: MemoryTree,
    options: Options,
    uppers_made: u64,
    /// The number of times that the upper of the present file system became a layer.
    frozen: usize,
    /// Counts what the uppers of the present file system hold.
    counter: Option<(Arc<Account>, Counter)>,
}

/// What a check does beside comparing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    /// The upper becomes a layer while files are open, not between two mounts.
    Freezes,
    /// What the upper holds is counted, and is what a scan finds.
    Counts,
}

impl Stage {
    fn new(case: &Case) -> Self {
        let shared = MemoryTree::new(100);
        let mut lowers = Vec::new();
        for (number, items) in case.layers.iter().enumerate() {
            let tree = if case.one_file_system {
                shared.clone()
            } else {
                MemoryTree::new(number as u64 + 1)
            };
            let name = format!("layer{number}");
            tree.root().mkdir(name.as_bytes(), 0o755, Owner::default()).unwrap();
            let root = tree.root().dir(name.as_bytes());
            layers::build(&tree, &root, items);
            lowers.push(root);
        }
        let upper = new_upper(0);
        let options = case.options.clone();
        Self { lowers, upper, options, uppers_made: 1, frozen: 0, counter: None }
    }

    /// What a scan of all uppers finds.
    fn scan(&self) -> Used {
        let mut scan = Scan::default();
        self.all_upper_dirs().iter().for_each(|dir| scan.add(dir).unwrap());
        scan.used()
    }

    fn all_upper_dirs(&self) -> Vec<DirRef> {
        (0..=self.frozen).flat_map(|number| self.upper_dirs_of(number)).collect()
    }

    fn count(&mut self) {
        let account = Arc::new(Account::new(Limits::default(), self.scan()));
        self.counter = Some((Arc::clone(&account), Counter::new(account)));
    }

    fn check_count(&self) {
        if let Some((account, _)) = &self.counter {
            assert_eq!(account.used(), self.scan());
        }
    }

    fn counted(&self, dirs: [DirRef; 3]) -> [DirRef; 3] {
        match &self.counter {
            Some((_, counter)) => dirs.map(|dir| counter.wrap(dir)),
            None => dirs,
        }
    }

    /// The tree that the mount must show; the upper, still empty, gives the root its attributes.
    fn flatten(&self) -> Tree {
        let mut layers = vec![self.upper.root().dir(b"upper")];
        layers.extend(self.lowers.iter().cloned());
        flatten(&layers)
    }

    fn mount(&mut self) -> Mount {
        let dirs = self.upper_dirs();
        empty_dir(&dirs[1]).unwrap();
        if self.counter.is_some() {
            self.count();
        }
        let mut config = config(&self.lowers, Some(self.counted(dirs)), &self.options);
        config.lowers.iter_mut().take(self.frozen).for_each(|lower| lower.was_upper = true);
        Mount::new(Union::new(config).unwrap())
    }

    /// The directories of the upper, which a mount made with others before it became a layer.
    fn upper_dirs(&self) -> [DirRef; 3] {
        self.upper_dirs_of(self.frozen)
    }

    fn upper_dirs_of(&self, frozen: usize) -> [DirRef; 3] {
        UPPER_DIRS.map(|name| {
            let number = if frozen > 0 { frozen.to_string() } else { String::new() };
            self.upper.root().dir(&[name, number.as_bytes()].concat())
        })
    }

    /// Makes the upper of a running mount a layer.
    fn freeze(&mut self, mount: &mut Mount) {
        let [root, _, _] = self.upper_dirs();
        self.frozen += 1;
        for name in UPPER_DIRS {
            let name = [name, self.frozen.to_string().as_bytes()].concat();
            self.upper.root().mkdir(&name, 0o755, Owner::default()).unwrap();
        }
        mount.union.name_indexed().unwrap();
        let dirs = self.counted(self.upper_dirs());
        let upper = config(&[], Some(dirs), &self.options).upper.unwrap();
        mount.union.freeze(&upper, || Ok(())).unwrap();
        self.lowers.insert(0, root);
    }

    fn restack(&mut self) {
        self.lowers.insert(0, self.upper_dirs()[0].clone());
        self.frozen = 0;
        self.upper = new_upper(self.uppers_made);
        self.uppers_made += 1;
    }
}

fn new_upper(number: u64) -> MemoryTree {
    let upper = MemoryTree::new(200 + number);
    upper.set_time(Time { secs: START - 1, nanos: 0 });
    prepare_upper(&upper);
    upper
}

/// Compares a mount with the reference.
fn check(case: &Case, with: With) {
    let mut stage = Stage::new(case);
    let freezes = with != With::Nothing;
    if with == With::Counts {
        stage.count();
    }
    stage.options.freezes = freezes;
    if freezes {
        stage.options.marks = Marks::Trusted;
    }
    let mut run = Run::new(stage.flatten());
    run.cached = case.cached;
    run.aufs = case.options.whiteouts == WhiteoutForm::Aufs;
    run.user_marks = stage.options.marks == Marks::User;
    // Once the upper is a lower, without its index, a lower file counts removed names again.
    let linked = case.layers.iter().flatten().any(|item| matches!(item.what, What::Link));
    let mut union = stage.mount();
    compare(&mut union, &run.tree, &mut run.inos, false);
    for (step, op) in case.ops.iter().enumerate() {
        run.step = step;
        run.tree.now = Time { secs: START + step as i64, nanos: 3 };
        stage.upper.set_time(run.tree.now);
        match op {
            Op::ForgetAll if !run.has_open() => union.forget_all(&run.tree),
            Op::Restack if freezes => {
                if hides_links(&run.tree) {
                    continue;
                }
                stage.freeze(&mut union);
                compare(&mut union, &run.tree, &mut run.inos, step % 2 == 0);
            }
            Op::Remount | Op::Restack => {
                run.close_all(&mut union);
                union.union.shutdown().unwrap();
                if matches!(op, Op::Restack) && !linked && !shows_links(&run.tree) {
                    stage.restack();
                    run.inos.clear();
                    let root = flatten(&[stage.upper.root().dir(b"upper")]);
                    let keep = std::mem::take(&mut run.tree.node_mut(0).children);
                    *run.tree.node_mut(0) = root.node(0).clone();
                    run.tree.node_mut(0).children = keep;
                }
                run.forget_unmarked();
                union = stage.mount();
                compare(&mut union, &run.tree, &mut run.inos, step % 2 == 0);
            }
            _ => run.apply(&mut union, op),
        }
        stage.check_count();
    }
    compare(&mut union, &run.tree, &mut run.inos, true);
    run.close_all(&mut union);
    union.union.shutdown().unwrap();
    stage.check_count();
    run.forget_unmarked();
    let mut again = stage.mount();
    compare(&mut again, &run.tree, &mut run.inos, false);
}

/// Hard links are kept in the index of an upper, which is not part of a layer.
fn shows_links(tree: &Tree) -> bool {
    tree.nodes.values().any(|node| node.kind != laminafs::types::Kind::Dir && node.nlink > 1)
}

/// Whether a file counts names that a layer hides. They are no names of the layer it moves to.
fn hides_links(tree: &Tree) -> bool {
    let mut names = std::collections::BTreeMap::new();
    tree.paths().iter().for_each(|(_, id)| *names.entry(*id).or_insert(0) += 1);
    tree.nodes.iter().any(|(id, node)| {
        let count = names.get(id).copied().unwrap_or(0);
        node.kind != laminafs::types::Kind::Dir && node.nlink != count
    })
}

proptest! {
    #![proptest_config(Config {
        cases: cases(),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..Config::default()
    })]

    #[test]
    fn union_equals_the_reference(case in case()) {
        check(&case, With::Nothing);
    }

    #[test]
    fn an_upper_that_becomes_a_layer_equals_the_reference(case in case()) {
        check(&case, With::Freezes);
    }

    #[test]
    fn what_is_counted_equals_a_scan(case in case()) {
        check(&case, With::Counts);
    }
}

/// The number of cases: a few seconds' worth, or `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}
