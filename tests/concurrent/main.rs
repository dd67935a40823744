//! Two and three programs on one object, its parent and its links: the union over memory, with a
//! scheduler that decides at every lock and atomic which program is next.
//!
//! The results of the programs, the final tree and the tree of a new mount must be those of some
//! serial order of their system calls. Needs the feature `shuttle`:
//!
//! `cargo test -p laminafs --features shuttle --test concurrent`
//!
//! `LAMINA_MODEL_SECONDS` limits the time of a test (by default 60 s, and a number of cases). A
//! failure shows its start state, its scripts and its seed, with the order of the requests.
//! `LAMINA_MODEL_ONLY="START|SCRIPT|SCRIPT"` runs only the cases whose name starts with that text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod kernel;
mod ops;
mod registry;
mod search;
mod traced;
mod worlds;

use std::time::Duration;

use search::{Case, Search};
use worlds::{scripts, specs};

fn seconds() -> Duration {
    let text = std::env::var("LAMINA_MODEL_SECONDS").ok();
    Duration::from_secs(text.and_then(|text| text.parse().ok()).unwrap_or(60))
}

fn pairs(locks: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for spec in specs() {
        let scripts = scripts(&spec, locks);
        for (at, first) in scripts.iter().enumerate() {
            for second in &scripts[at..] {
                let scripts = vec![first.clone(), second.clone()];
                cases.push(Case { spec: spec.clone(), scripts, locks });
            }
        }
    }
    cases
}

/// Programs with one call, and programs with an open file, which cause most of the copy-ups.
fn triples() -> Vec<Case> {
    let names = [
        "write 0",
        "append",
        "chmod",
        "link",
        "unlink",
        "rename",
        "rename another over it",
        "rename parent",
        "replace",
        "open truncated",
        "read",
    ];
    let mut cases = Vec::new();
    for spec in specs() {
        let all = scripts(&spec, true);
        let some: Vec<_> = all.iter().filter(|script| names.contains(&script.name)).collect();
        for (a, first) in some.iter().enumerate() {
            for (b, second) in some.iter().enumerate().skip(a) {
                for third in &some[b..] {
                    let scripts = vec![(*first).clone(), (*second).clone(), (*third).clone()];
                    let case = Case { spec: spec.clone(), scripts, locks: true };
                    if case.units().iter().sum::<usize>() <= 5 {
                        cases.push(case);
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_pair_of_calls_has_an_order_that_explains_it() {
    Search::new("pairs", seconds()).run(pairs(true));
}

// The guarantees of the union beyond the VFS: lookups that revalidate, and file handles.
#[test]
#[ignore = "by hand: a lookup amid the copy-up of a file with two names counts a link too many"]
fn every_pair_of_calls_has_an_order_without_the_locks_of_the_vfs() {
    Search::new("pairs without locks", seconds()).run(pairs(false));
}

#[test]
fn triples_of_calls_have_an_order_that_explains_them() {
    Search::new("triples", seconds()).run(triples());
}
