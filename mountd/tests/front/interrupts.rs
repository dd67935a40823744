//! Interrupts (SIGINT, as ^C sends it) at many moments of long commands.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, Program};

/// Milliseconds from the start of a command to the interrupt.
const MOMENTS: [u64; 14] = [0, 4, 8, 12, 16, 20, 26, 34, 46, 60, 90, 150, 250, 400];
const INTERRUPTED: i32 = 130;

/// A long command: its words, how what it makes is found, and how that is removed.
struct Long {
    words: &'static [&'static str],
    found: &'static str,
    remove: &'static str,
}

const LONG: &[Long] = &[
    Long {
        words: &["image", "import", "big.tar", "-t", "big"],
        found: "lamina image inspect big",
        remove: "lamina image rm big",
    },
    Long {
        words: &["image", "export", "app", "-o", "out.tar"],
        found: "test -e out.tar",
        remove: "rm out.tar",
    },
    Long {
        words: &["image", "export", "app", "--format", "oci-dir", "-o", "out"],
        found: "test -e out",
        remove: "rm -r out",
    },
    Long {
        words: &["image", "commit", "./up", "-t", "made"],
        found: "lamina image inspect made",
        remove: "lamina image rm made",
    },
    Long { words: &["image", "verify"], found: "false", remove: "" },
    Long { words: &["image", "gc"], found: "false", remove: "" },
    Long {
        words: &["volume", "snapshot", "create", "copied", "s"],
        found: "lamina volume snapshot ls copied -q | grep -q @s",
        remove: "lamina volume snapshot rm copied@s",
    },
    Long {
        words: &["volume", "clone", "copied", "made"],
        found: "lamina volume inspect made",
        remove: "lamina volume rm --purge made",
    },
    Long {
        words: &["volume", "import", "big.tar", "made"],
        found: "lamina volume inspect made",
        remove: "lamina volume rm --purge made",
    },
    Long {
        words: &["volume", "export", "filled", "-o", "out.tar"],
        found: "test -e out.tar",
        remove: "rm out.tar",
    },
    Long {
        words: &["volume", "restore", "file://repo", "made", "--id", "LAST"],
        found: "lamina volume inspect made",
        remove: "lamina volume rm --purge made",
    },
];

/// Paths below a place, as far as they are the same when nothing is left. Ids are hidden.
fn paths(place: &Place) -> Vec<String> {
    let listed = place.good("find . -mindepth 1 | grep -v -e catalog.db -e root/packed");
    let is_id = |part: &str| part.len() == 32 && part.bytes().all(|one| one.is_ascii_hexdigit());
    let plain = |part: &str| if is_id(part) { "ID".to_owned() } else { part.to_owned() };
    let plain = |line: &str| line.split('/').map(plain).collect::<Vec<_>>().join("/");
    let mut all: Vec<String> = listed.lines().map(plain).collect();
    all.sort();
    all
}

/// What is in one list and not, or less often, in another one.
fn beyond(list: &[String], other: &[String]) -> Vec<String> {
    let count = |of: &[String], one: &String| of.iter().filter(|path| *path == one).count();
    let more = |one: &&String| count(list, one) > count(other, one);
    list.iter().filter(more).cloned().collect()
}

fn interrupt(child: &mut Child, after: u64) -> Option<i32> {
    std::thread::sleep(Duration::from_millis(after));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    if child.try_wait().unwrap().is_none() {
        kill_process(pid, Signal::INT).unwrap();
    }
    child.wait().unwrap().code()
}

fn start(place: &Place, words: &[String]) -> Child {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = place.lamina(&words);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Interrupts a command at a moment. Returns whether it was still at work.
fn check(place: &Place, long: &Long, after: u64) -> bool {
    let before = paths(place);
    let repo = format!("file://{}/repo", place.path().display());
    let last = place.good("lamina volume backup ls -q file://$PWD/repo");
    let word = |word: &&str| word.replace("file://repo", &repo).replace("LAST", last.trim_end());
    let words: Vec<String> = long.words.iter().map(word).collect();
    let code = interrupt(&mut start(place, &words), after);
    let what = format!("{} after {after} ms: {code:?}", words.join(" "));
    // Before the program holds the signals, one ends it as any program.
    assert!(matches!(code, None | Some(0 | INTERRUPTED)), "{what}");
    if place.run(&format!("{} >/dev/null 2>&1", long.found)).status.success() {
        // It was complete already.
        place.good(long.remove);
    } else {
        assert_ne!((code, long.found), (Some(0), "lamina volume inspect made"), "{what}");
    }
    place.good("lamina image gc 2>/dev/null");
    let after = paths(place);
    assert_eq!(beyond(&after, &before), [""; 0], "{what}: left");
    assert_eq!(beyond(&before, &after), [""; 0], "{what}: lost");
    code == Some(INTERRUPTED)
}

#[test]
fn an_interrupt_at_any_moment_leaves_nothing_and_loses_nothing() {
    let program = Program::new();
    let place = Place::new(&program);
    place.good(
        "head -c 3000000 /dev/urandom >up/new
         lamina volume import -q big.tar filled
         lamina volume create -q copied --driver union
         lamina volume snapshot create -q copied first; lamina volume snapshot rm copied@first
         lamina volume backup -q filled file://$PWD/repo
         id=$(lamina volume backup ls -q file://$PWD/repo)
         lamina volume restore -q file://$PWD/repo once --id $id
         lamina volume rm --purge once
         lamina image gc",
    );
    let mut all = 0;
    for long in LONG {
        let hits = MOMENTS.iter().filter(|after| check(&place, long, **after)).count();
        let words = long.words.join(" ");
        eprintln!("{words}: {hits} of {} interrupts came in time", MOMENTS.len());
        all += hits;
    }
    assert!(all >= LONG.len(), "{all} interrupts came in time");
    place.good(
        "lamina image verify 2>/dev/null; lamina volume backup check --read-data file://$PWD/repo",
    );
}

#[test]
fn an_interrupted_backup_gives_up_its_lease() {
    let program = Program::new();
    let place = Place::new(&program);
    place.good(
        "lamina volume import -q big.tar filled; lamina volume backup -q data file://$PWD/repo",
    );
    let url = format!("file://{}/repo", place.path().display());
    let words = ["volume", "backup", "filled", &url].map(str::to_owned);
    let mut hits = 0;
    for after in MOMENTS {
        let code = interrupt(&mut start(&place, &words), after);
        hits += usize::from(code == Some(INTERRUPTED));
        let leases = place.good("find repo -path '*lease*' -type f; find repo -name '*#*'");
        assert_eq!(leases, "", "after {after} ms: {code:?}");
        place.good("lamina volume backup prune --grace 0 file://$PWD/repo");
        let snapshots = place.good("lamina volume snapshot ls -q");
        assert_eq!(snapshots, "", "after {after} ms: {code:?}");
    }
    assert!(hits > 0, "no interrupt came in time");
    place.good("lamina volume backup check --read-data file://$PWD/repo");
}

#[test]
fn a_command_that_waits_for_a_registry_is_interrupted() {
    let program = Program::new();
    let place = Place::new(&program);
    // It accepts connections and never answers.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("127.0.0.1:{}/app", server.local_addr().unwrap().port());
    let before = paths(&place);
    for words in [["image", "pull", &name, "-q"], ["image", "push", "app", &name]] {
        let words: Vec<String> =
            words.iter().filter(|word| **word != "-q").map(|word| (*word).to_owned()).collect();
        let mut child = start(&place, &words);
        let (_connection, _) = server.accept().unwrap();
        assert_eq!(interrupt(&mut child, 10), Some(INTERRUPTED), "{words:?}");
        let left = beyond(&paths(&place), &before);
        assert!(left.iter().all(|path| Path::new(path).ends_with("downloads")), "{left:?}");
    }
}
