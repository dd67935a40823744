//! Cases over the rules of binding and of the controller, as tables in `cases/*.case`; each runs
//! against a daemon of its own, through HTTPS, and again with daemons that are killed at commits of
//! the catalogue.
//!
//! | variable | effect |
//! | --- | --- |
//! | `LAMINA_CASES=TEXT` | only the cases whose names have the text |
//! | `LAMINA_KILL_ALL=1` | a run of each case for each of its commits |
//! | `LAMINA_KILL_SEED=N` | the commits of another run; they change with the day |

mod language;
mod life;
mod look;
mod manifest;
mod run;
mod state;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::language::{Case, parse};
use self::life::{Life, Template};
pub use self::manifest::{Place as Address, merge};
use self::run::Run;
use self::state::State;

/// Cases at the same time: they wait more than they compute.
const WORKERS: usize = 6;
/// The commit of no daemon.
const NEVER: u64 = 0;
/// Kills of a case if not all commits are taken.
const KILLS: usize = 2;

fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/cases");
    let wanted = std::env::var("LAMINA_CASES").unwrap_or_default();
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let files = files.iter().filter(|path| path.extension().is_some_and(|end| end == "case"));
    let parsed = files.flat_map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        parse(name, &fs::read_to_string(path).unwrap())
    });
    parsed.filter(|case| case.name.contains(&wanted)).collect()
}

/// Numbers without a pattern.
struct Chance(u64);

impl Chance {
    fn of_run() -> Self {
        let set = std::env::var("LAMINA_KILL_SEED").ok().and_then(|text| text.parse().ok());
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86400;
        let seed: u64 = set.unwrap_or(day);
        eprintln!("LAMINA_KILL_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// From 1 to `limit`.
    fn up_to(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1) + 1
    }
}

/// Calls for each item on several threads; the results, in order.
pub fn for_each<T: Sync, R: Send>(items: &[T], call: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = std::ptr::from_ref(item) as usize;
                    let result = call(item);
                    results.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A case under kills at some commits: what it comes to, its commits, and the kills.
fn carry_out(
    template: &Template,
    case: &Case,
    (kills, calm): (&[u64], Option<&State>),
) -> Result<(State, u64, usize), String> {
    let mut run = Run::new(Life::new(template, kills), !kills.is_empty());
    let done = catch_unwind(AssertUnwindSafe(|| run.carry_out(case, calm)));
    let done = done.unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    });
    match done {
        Ok(state) => Ok((state, run.life().commits(), run.life().ends)),
        Err(error) => {
            let (name, log) = (&case.name, run.life().log());
            let log = log.lines().rev().take(5).collect::<Vec<_>>().join("\n    ");
            Err(format!("{name} (kills at {kills:?})\n  {error}\n  log:\n    {log}"))
        }
    }
}

#[track_caller]
fn assert_none(failures: &[String], of: usize) {
    let text = failures.join("\n\n");
    assert!(failures.is_empty(), "{} of {of} failed:\n\n{text}", failures.len());
}

#[test]
fn cases_come_to_the_states_that_kubernetes_gives() {
    let (cases, begin) = (cases(), Instant::now());
    let is_whole = std::env::var_os("LAMINA_CASES").is_none();
    assert!(cases.len() >= 150 || !is_whole, "{} cases", cases.len());
    let template = Template::new();
    let results = for_each(&cases, |case| carry_out(&template, case, (&[], None)).map(drop));
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    eprintln!("{} cases in {:?}", cases.len(), begin.elapsed());
    assert_none(&failures, cases.len());
}

#[test]
fn cases_come_to_the_same_states_when_the_daemon_is_killed_at_its_commits() {
    let (cases, begin) = (cases(), Instant::now());
    let template = Template::new();
    let is_all = std::env::var_os("LAMINA_KILL_ALL").is_some();
    let chance = Mutex::new(Chance::of_run());
    let results = for_each(&cases, |case| {
        // A failure without kills is the other test's.
        let calm = carry_out(&template, case, (&[NEVER], None));
        let Ok((calm, commits, _)) = calm else {
            return Vec::new();
        };
        let plans: Vec<Vec<u64>> = if is_all {
            (1..=commits).map(|at| vec![at]).collect()
        } else {
            let mut chance = chance.lock().unwrap();
            vec![(0..KILLS).map(|_| chance.up_to(commits / 2)).collect()]
        };
        let runs = plans
            .iter()
            .map(|plan| carry_out(&template, case, (plan, Some(&calm))).map(|(_, _, ends)| ends));
        runs.collect()
    });
    let results: Vec<Result<usize, String>> = results.into_iter().flatten().collect();
    let kills: usize = results.iter().flatten().sum();
    let (count, took) = (results.len(), begin.elapsed());
    eprintln!("{} cases, {count} runs, {kills} kills in {took:?}", cases.len());
    assert!(kills * 2 > count, "only {kills} kills in {count} runs");
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert_none(&failures, count);
}
