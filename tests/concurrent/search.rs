//! The search: first the serial orders, then schedules, until the time is over.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::kernel::{Handle, Kernel};
use super::ops::{Program, Script, Sys};
use super::worlds::{Spec, World, observe};

/// The number of schedules of a case in one run.
const ROUND: usize = 8;
/// The limit of steps: a run with more is an endless loop.
const STEPS: usize = 60_000;
/// The number of failures of a kind that a message shows in full.
const TRACED: usize = 12;
/// The number of names of failures that a message shows, for each kind.
const SHOWN: usize = 40;
/// A prime larger than the number of cases, so that each case occurs once in a round.
const STRIDE: usize = 1_000_003;

/// Scripts that run at the same time on one start state.
#[derive(Clone)]
pub struct Case {
    pub spec: Spec,
    pub scripts: Vec<Script>,
    pub locks: bool,
}

impl Case {
    /// The number of calls of each script that can be distinguished from the one before.
    pub fn units(&self) -> Vec<usize> {
        let counts = |call: &&Sys| !matches!(call, Sys::Close);
        let units = |script: &Script| script.calls.iter().filter(counts).count();
        self.scripts.iter().map(units).collect()
    }

    /// Whether a path may be walked, step by step, past a directory that moves. On every file
    /// system a call on such a path can then have an effect that no order of whole calls has.
    /// Cached names are walked at once.
    fn walks_past_moves(&self) -> bool {
        let moves = |script: &Script| ["rename parent", "exchange parents"].contains(&script.name);
        !self.spec.caches && self.scripts.iter().any(moves)
    }

    pub fn name(&self) -> String {
        let names: Vec<&str> = self.scripts.iter().map(|script| script.name).collect();
        format!("{}|{}", self.spec.name, names.join("|"))
    }
}

/// The result of one run.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome(Vec<String>);

type Slots = Mutex<Vec<Option<Handle>>>;

fn runner(scheduler: impl Scheduler + 'static) -> Runner<impl Scheduler> {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    Runner::new(scheduler, config)
}

/// Ends a run: the remaining tree is read, mounted again and read again.
fn finish(world: &World, kernel: &Kernel, held: &Slots, programs: Vec<Program>) -> Outcome {
    let mut lines = Vec::new();
    for (number, mut program) in programs.into_iter().enumerate() {
        program.end(kernel);
        lines.push(format!(
            "{} answers {}",
            (b'A' + number as u8) as char,
            program.answers.join(", ")
        ));
    }
    for handle in std::mem::take(&mut *held.lock().unwrap()).into_iter().flatten() {
        kernel.close(handle);
    }
    world.judge_orphans();
    let seen = observe(kernel);
    lines.extend(seen.lines.iter().map(|(path, line)| format!("{path} {line}")));
    kernel.unmount();
    world.judge_leftovers();
    let again = world.mount(false, false);
    let kept = observe(&again);
    again.unmount();
    for (path, line) in &seen.lines {
        if kept.lines.get(path) != Some(line) {
            lines.push(format!("after a remount {path} {:?}", kept.lines.get(path)));
        }
    }
    for path in kept.lines.keys().filter(|path| !seen.lines.contains_key(*path)) {
        lines.push(format!("after a remount there is {path}"));
    }
    for (path, ino) in &seen.inos {
        if kept.inos.get(path).is_some_and(|kept| kept != ino) {
            lines.push(format!("after a remount {path} has another inode number"));
        }
    }
    Outcome(lines)
}

/// One run in the order `order`: the number of a script for each call.
fn serial(case: &Case, order: &[usize]) -> (Outcome, Vec<String>) {
    let world = World::new(&case.spec);
    let kernel = world.mount(case.locks, false);
    let held = Mutex::new(world.start(&kernel));
    let mut programs: Vec<Program> = case.scripts.iter().map(|_| Program::default()).collect();
    let mut at = vec![0; case.scripts.len()];
    for script in order {
        let calls = &case.scripts[*script].calls;
        programs[*script].run(&kernel, &held, calls[at[*script]]);
        at[*script] += 1;
        // The time of a close is not visible.
        while let Some(Sys::Close) = calls.get(at[*script]) {
            programs[*script].run(&kernel, &held, Sys::Close);
            at[*script] += 1;
        }
    }
    let outcome = finish(&world, &kernel, &held, programs);
    (outcome, world.wrongs.all())
}

/// All orders in which the calls can follow each other.
fn orders(left: &[usize]) -> Vec<Vec<usize>> {
    if left.iter().all(|calls| *calls == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for script in (0..left.len()).filter(|script| left[*script] > 0) {
        let mut rest = left.to_vec();
        rest[script] -= 1;
        for mut order in orders(&rest) {
            order.insert(0, script);
            all.push(order);
        }
    }
    all
}

/// One run under the scheduler.
fn parallel(case: &Case, traced: bool) -> (Outcome, Vec<String>, Vec<String>) {
    let world = Arc::new(World::new(&case.spec));
    let lower = world.lower();
    let kernel = Arc::new(world.mount(case.locks, traced));
    let held = Arc::new(Mutex::new(world.start(&kernel)));
    kernel.clear_trace();
    let spawn = |(number, script): (usize, &Script)| {
        let (kernel, held, calls) = (Arc::clone(&kernel), Arc::clone(&held), script.calls.clone());
        shuttle::thread::spawn(move || {
            let mut program = Program::default();
            for call in calls {
                program.run(&kernel, &held, call);
                let who = (b'A' + number as u8) as char;
                kernel.log(|| format!("{who} answered {:?}", program.answers.last()));
            }
            program
        })
    };
    let threads: Vec<_> = case.scripts.iter().enumerate().map(spawn).collect();
    let programs = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let trace = kernel.trace();
    let outcome = finish(&world, &kernel, &held, programs);
    if world.lower() != lower {
        world.wrongs.note("the lower layer changed");
    }
    (outcome, world.wrongs.all(), trace)
}

/// The limit of cases of an ordinary run: somewhat less than two processors try in a minute.
const MOST: usize = 3000;

/// A failure: the violation and the run that led to it.
struct Failure {
    kind: String,
    text: String,
}

/// The allowed outcomes of a case, computed once.
struct Allowed(BTreeSet<Outcome>);

impl Allowed {
    fn of(case: &Case) -> Result<Self, Failure> {
        let found = Arc::new(Mutex::new((BTreeSet::new(), BTreeSet::new())));
        let (case_too, into) = (case.clone(), Arc::clone(&found));
        let orders = orders(&case.units());
        let count = orders.len();
        let next = AtomicUsize::new(0);
        let run = move || {
            let order = &orders[next.fetch_add(1, Ordering::Relaxed)];
            let (outcome, wrongs) = serial(&case_too, order);
            let mut found = into.lock().unwrap();
            found.1.extend(wrongs);
            found.0.insert(outcome);
        };
        let scheduler = RandomScheduler::new_from_seed(1, count);
        let done = catch_unwind(AssertUnwindSafe(|| runner(scheduler).run(run)));
        let (outcomes, wrongs) = std::mem::take(&mut *found.lock().unwrap());
        let fail = |kind: String| Failure { text: format!("one after the other: {kind}"), kind };
        if let Err(panic) = done {
            return Err(fail(format!("panic: {}", message(&panic))));
        }
        match wrongs.into_iter().next() {
            Some(wrong) => Err(fail(wrong)),
            None => Ok(Self(outcomes)),
        }
    }

    fn judge(&self, outcome: &Outcome) -> Option<(String, String)> {
        if self.0.contains(outcome) {
            return None;
        }
        let missing = |other: &Outcome| {
            let differs = |line: &&String| !outcome.0.contains(line);
            other.0.iter().filter(differs).cloned().collect::<Vec<_>>()
        };
        let nearest = self.0.iter().min_by_key(|other| missing(other).len())?;
        let extra: Vec<_> =
            outcome.0.iter().filter(|line| !nearest.0.contains(line)).cloned().collect();
        let mut text = String::new();
        writeln!(text, "no order of {} explains it; the nearest lacks", self.0.len()).unwrap();
        extra.iter().for_each(|line| writeln!(text, "    - {line}").unwrap());
        writeln!(text, "  and has").unwrap();
        missing(nearest).iter().for_each(|line| writeln!(text, "    + {line}").unwrap());
        let answers = |lines: &[String]| lines.iter().any(|line| line.contains(" answers "));
        let remount = extra.iter().any(|line| line.starts_with("after a remount"));
        let kind = match (answers(&extra), remount) {
            (_, true) => "the remount differs",
            (true, _) => "an answer that no order gives",
            _ => "a tree that no order leaves",
        };
        Some((kind.to_owned(), text))
    }
}

fn message(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// Runs a case under several schedules of one seed; `until` traces only the run with that number.
fn explore(
    case: &Case,
    allowed: &Arc<Allowed>,
    seed: u64,
    until: Option<usize>,
) -> Option<(usize, Failure)> {
    let found: Arc<Mutex<Option<(usize, Failure)>>> = Arc::default();
    let (case_too, allowed, into) = (case.clone(), Arc::clone(allowed), Arc::clone(&found));
    let number = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&number);
    let run = move || {
        let at = counter.fetch_add(1, Ordering::Relaxed);
        if into.lock().unwrap().is_some() {
            return;
        }
        let (outcome, wrongs, trace) = parallel(&case_too, until == Some(at));
        let wrong = wrongs.into_iter().next().map(|wrong| (wrong.clone(), wrong + "\n"));
        let judged = || {
            if case_too.walks_past_moves() { None } else { allowed.judge(&outcome) }
        };
        if let Some((kind, mut text)) = wrong.or_else(judged) {
            trace.iter().for_each(|line| writeln!(text, "  {line}").unwrap());
            *into.lock().unwrap() = Some((at, Failure { kind, text }));
        }
    };
    let rounds = until.map_or(ROUND, |until| until + 1);
    // Few preemptions find most failures; many, at random, find the rest.
    let done = catch_unwind(AssertUnwindSafe(|| match seed % 8 {
        0 => runner(RandomScheduler::new_from_seed(seed, rounds)).run(run),
        depth => runner(PctScheduler::new_from_seed(seed, depth as usize % 3 + 2, rounds)).run(run),
    }));
    if let Err(panic) = done {
        let at = number.load(Ordering::Relaxed).saturating_sub(1);
        let kind = format!("panic: {}", message(&panic));
        return Some((at, Failure { text: kind.clone(), kind }));
    }
    found.lock().unwrap().take()
}

/// A search over cases.
pub struct Search {
    name: &'static str,
    time: Duration,
    /// The limit of cases: an ordinary run tries the same ones each time.
    most: usize,
    only: Option<String>,
}

impl Search {
    pub fn new(name: &'static str, time: Duration) -> Self {
        let by_hand = std::env::var_os("LAMINA_MODEL_SECONDS").is_some();
        let most = if by_hand { usize::MAX } else { MOST };
        Self { name, time, most, only: std::env::var("LAMINA_MODEL_ONLY").ok() }
    }

    /// Tries every case, and again with other seeds while there is time; panics with the failures.
    pub fn run(&self, mut cases: Vec<Case>) {
        if let Some(only) = &self.only {
            cases.retain(|case| case.name().starts_with(&only[..]));
        }
        let (next, runs) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failures: Mutex<Vec<(String, Failure)>> = Mutex::default();
        let allowed: Vec<std::sync::OnceLock<Option<Arc<Allowed>>>> =
            cases.iter().map(|_| std::sync::OnceLock::new()).collect();
        let end = Instant::now() + self.time;
        // The report shows the panic once.
        std::panic::set_hook(Box::new(|_| {}));
        let work = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if cases.is_empty() || Instant::now() > end || number >= self.most {
                return;
            }
            // Neighbours are similar: with a stride, a search that ends early has tried all kinds.
            let (at, round) = (number.wrapping_mul(STRIDE) % cases.len(), number / cases.len());
            let case = &cases[at];
            let allowed = allowed[at].get_or_init(|| match Allowed::of(case) {
                Ok(allowed) => Some(Arc::new(allowed)),
                Err(failure) => {
                    failures.lock().unwrap().push((case.name(), failure));
                    None
                }
            });
            let Some(allowed) = allowed else { continue };
            let fixed = std::env::var("LAMINA_MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
            let seed = fixed.unwrap_or((round as u64) << 20 | (at + round) as u64 & 0xf_ffff);
            runs.fetch_add(ROUND, Ordering::Relaxed);
            if let Some((run, failure)) = explore(case, allowed, seed, None) {
                let again = explore(case, allowed, seed, Some(run));
                let mut failure = again.map_or(failure, |(_, again)| again);
                failure.text = format!("seed {seed}, run {run}: {}", failure.text);
                failures.lock().unwrap().push((case.name(), failure));
            }
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
        drop(std::panic::take_hook());
        let failures = failures.into_inner().unwrap();
        let (count, tried, runs) =
            (cases.len(), next.into_inner().min(cases.len()), runs.into_inner());
        let failed = failures.len();
        eprintln!("{}: {tried} of {count} cases, {runs} schedules, {failed} failed", self.name);
        assert!(failures.is_empty(), "{}", report(&failures));
    }
}

/// Some failures of each kind, with the names of the others.
fn report(failures: &[(String, Failure)]) -> String {
    let mut text = String::new();
    let kinds: BTreeSet<&str> = failures.iter().map(|(_, failure)| &failure.kind[..]).collect();
    for kind in kinds.into_iter() {
        let mut same: Vec<_> =
            failures.iter().filter(|(_, failure)| failure.kind == kind).collect();
        writeln!(text, "\n== {kind}: {} times", same.len()).unwrap();
        same.sort_by_key(|(_, failure)| failure.text.len());
        for (name, failure) in same.iter().take(TRACED) {
            writeln!(text, "{name}\n  {}", failure.text).unwrap();
        }
        let mut names: Vec<&str> = same.iter().map(|(name, _)| &name[..]).collect();
        names.dedup();
        names.iter().take(SHOWN).for_each(|name| writeln!(text, "  also {name}").unwrap());
    }
    text
}
