//! Snapshots of a volume under a database that is written to: each of them starts as a database.
//!
//! pgbench changes four tables in one transaction. So their sums are equal in every state that the
//! database was in, and differ in a mixture of two.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{self, Background, Done, Site};
use crate::lamina::{Lamina, RootBy};
use crate::usage;

const SNAPSHOTS: usize = 20;
/// Between two snapshots, in which hundreds of transactions end.
const PAUSE: Duration = Duration::from_millis(300);
const START_LIMIT: Duration = Duration::from_secs(60);
/// As the user of the database, with its programs on the path.
const AS: &str = "cd /tmp; export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; \
     exec setpriv --reuid postgres --regid postgres --init-groups";
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts), \
     (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), \
     (select coalesce(sum(delta), 0) from pgbench_history), (select count(*) from pgbench_history)";

/// A mount of the tree with the programs, over a volume at `/data`.
struct Database<'a> {
    lamina: &'a Lamina,
    at: String,
    server: Option<Background>,
}

impl<'a> Database<'a> {
    fn mount(site: &Site, lamina: &'a Lamina, tree: &str, volume: &str) -> Self {
        let at = site.directory(&format!("db-{volume}"));
        let graft = format!("{volume}:/data");
        let words = ["mount", "--lower", tree, "--ephemeral", "--volume", &graft, &at];
        lamina.run(&words).expect();
        harness::call("mount", &["--bind", "/dev", &format!("{at}/dev")]).expect();
        Self { lamina, at, server: None }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("chroot");
        command.args([&self.at, "/bin/sh", "-c", &format!("{AS} {line}")]);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Done {
        harness::run(&mut self.command(line))
    }

    fn start(&mut self, site: &Site) -> bool {
        let log = site.at("postgres.log");
        let line = "postgres -D /data/db -k /tmp -h ''";
        self.server = Some(Background::start(&mut self.command(line), Path::new(&log)));
        harness::until(START_LIMIT, || self.query("select 1").is_ok())
    }

    fn query(&self, sql: &str) -> Done {
        self.run(&format!("psql -h /tmp -d postgres -Atc \"{sql}\""))
    }

    /// Ends the server, and the mount.
    fn end(mut self) {
        if let Some(mut server) = self.server.take() {
            server.end(Signal::INT);
        }
        harness::call("umount", &[&format!("{}/dev", self.at)]).expect();
        let (at, lamina) = (&self.at, self.lamina);
        assert!(
            harness::until(START_LIMIT, || lamina.run(&["umount", at]).is_ok()),
            "{at} is busy"
        );
    }
}

pub fn run(site: &mut Site) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/debian-tree");
    let tree = harness::run(Command::new(script).arg("postgresql")).expect();
    let tree = tree.trim_end().to_owned();
    let lamina = Lamina::new(site, "root", RootBy::Environment);
    lamina.run(&["volume", "create", "--driver", "union", "v"]).expect();
    let mut database = Database::mount(site, &lamina, &tree, "v");
    harness::call("chroot", &[&database.at, "chown", "postgres:", "/data"]).expect();
    database.run("initdb -A trust -D /data/db").expect();
    site.holds("starts", database.start(site), "the database does not start");
    site.succeeds("fills", &database.run("pgbench -h /tmp -i -q -s 2 postgres"));
    let times = snapshots_under_load(site, &database, &lamina);
    database.end();
    let mut before = 0;
    for number in 0..SNAPSHOTS {
        let count = starts(site, &lamina, &tree, number);
        site.holds("follows", count >= before, format!("{count} after {before}"));
        before = count;
    }
    site.holds("has_history", before > 0, "no transaction was in a snapshot");
    let mut sorted = times;
    sorted.sort();
    let (median, longest) = (sorted[SNAPSHOTS / 2], sorted[SNAPSHOTS - 1]);
    println!("# snapshots::times median {median:?}, longest {longest:?}");
    for number in 0..SNAPSHOTS {
        lamina.run(&["volume", "snapshot", "rm", &format!("v@s{number}")]).expect();
    }
    site.succeeds("removes", &lamina.run(&["volume", "rm", "--purge", "v"]));
    usage::nothing_left(site, &harness::program());
}

fn snapshots_under_load(
    site: &mut Site,
    database: &Database<'_>,
    lamina: &Lamina,
) -> Vec<Duration> {
    let log = site.at("pgbench.log");
    let line = "pgbench -h /tmp -c 4 -j 2 -T 3600 postgres";
    let mut load = Background::start(&mut database.command(line), Path::new(&log));
    let history = || database.query("select count(*) from pgbench_history").text();
    let is_written = harness::until(START_LIMIT, || history().parse::<u64>().is_ok_and(|n| n > 50));
    site.holds("is_written", is_written, history());
    let times = (0..SNAPSHOTS)
        .map(|number| {
            std::thread::sleep(PAUSE);
            let begun = Instant::now();
            let done = lamina.run(&["volume", "snapshot", "create", "v", &format!("s{number}")]);
            site.succeeds("snapshot", &done);
            begun.elapsed()
        })
        .collect();
    site.holds("goes_on", load.is_running(), "pgbench has ended");
    load.end(Signal::INT);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    site.holds("no_errors", !said.contains("ERROR") && !said.contains("aborted"), said);
    times
}

/// Starts the database of a snapshot, and returns how many transactions are in it.
fn starts(site: &mut Site, lamina: &Lamina, tree: &str, number: usize) -> u64 {
    let (snapshot, clone) = (format!("v@s{number}"), format!("c{number}"));
    lamina.run(&["volume", "clone", &snapshot, &clone]).expect();
    let mut database = Database::mount(site, lamina, tree, &clone);
    let is_up = database.start(site);
    site.holds("snapshot_starts", is_up, format!("{snapshot} does not start"));
    let text = database.query(SUMS).text();
    let sums: Vec<&str> = text.split('|').collect();
    let is_one = sums.len() == 5 && sums[..4].iter().all(|sum| *sum == sums[0]);
    site.holds("snapshot_is_one_state", is_one, format!("{snapshot}: {text}"));
    let checked = database.query("select count(*) from pgbench_accounts where aid is null");
    site.succeeds("snapshot_is_whole", &checked);
    let count = sums.last().and_then(|count| count.parse().ok()).unwrap_or(0);
    database.end();
    lamina.run(&["volume", "rm", "--purge", &clone]).expect();
    count
}
