//! Publications of several processes, some of which are killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use laminafs::service::publication::{Publication, Publications};
use laminafs::service::volumes::serve_by;

use crate::harness::{Site, daemons_of, program};
use crate::publication::{Stage, mounts_on, records, stage};
use crate::tools::*;

judged!(host:
    processes_share_a_target,
    a_killed_process_leaves_what_the_next_call_finishes,
    a_killed_process_leaves_views_that_the_next_call_ends,
);

/// The variable that makes [`worker`] work: the data root, the source, the directory of targets and
/// the group, by lines.
const WORK: &str = "LAMINA_TEST_PUBLICATIONS";
/// The targets of all workers.
const TARGETS: [&str; 2] = ["one", "two"];

/// A process of its own that publishes and unpublishes until it is killed. Otherwise nothing.
#[test]
fn worker() {
    let Ok(work) = std::env::var(WORK) else { return };
    serve_by(program().to_owned());
    let mut lines = work.lines();
    let mut path = || PathBuf::from(lines.next().unwrap());
    let publications = Publications::open(&path()).unwrap();
    let (source, targets) = (path(), path());
    let group = lines.next().and_then(|group| group.parse().ok());
    loop {
        for name in TARGETS {
            let target = targets.join(name);
            let wanted = Publication {
                target: target.clone(),
                source: source.clone(),
                group,
                ..Publication::default()
            };
            publications.publish(&wanted).unwrap();
            publications.unpublish(&target, |_| Ok(()), |_| Ok(())).unwrap();
        }
    }
}

fn start(s: &Site, stage: &Stage, group: Option<u32>) -> Child {
    let root = s.root().join("store");
    let group = group.map(|group| group.to_string()).unwrap_or_default();
    let (source, targets) = (stage.source.display(), stage.targets.display());
    let work = format!("{}\n{source}\n{targets}\n{group}", root.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "publication_killed::worker", "--test-threads", "1"]);
    command.env(WORK, work).env("LAMINA_BIN", program());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    // One that has ended by itself has failed.
    assert_eq!(child.try_wait().unwrap(), None, "a worker failed");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn settles(s: &Site, stage: &Stage) {
    for name in TARGETS {
        let target = stage.targets.join(name);
        stage.end(&target).unwrap();
        assert_eq!((mounts_on(&target), exists(&target)), (0, false), "{name}");
    }
    assert_eq!(names(&stage.targets), Vec::<String>::new());
    let left: Vec<String> = records(s).into_iter().filter(|name| name != "views").collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(get(stage.source.join("f")), b"content");
}

fn processes_share_a_target(s: &mut Site) {
    let stage = stage(s);
    let workers: Vec<Child> = (0..3).map(|_| start(s, &stage, None)).collect();
    let deadline = Instant::now() + Duration::from_secs(3);
    while Instant::now() < deadline {
        let wanted = stage.plain("one");
        stage.publications.publish(&wanted).unwrap();
        assert!(mounts_on(&wanted.target) <= 1);
        stage.end(&wanted.target).unwrap();
    }
    workers.into_iter().for_each(kill);
    settles(s, &stage);
}

fn a_killed_process_leaves_what_the_next_call_finishes(s: &mut Site) {
    let stage = stage(s);
    for round in 0..40_u64 {
        let worker = start(s, &stage, None);
        let began = Instant::now();
        while records(s).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "the worker does not start");
            std::thread::yield_now();
        }
        // Other steps in each round.
        std::thread::sleep(Duration::from_micros(round * 137));
        kill(worker);
        if round % 2 == 0 {
            let wanted = stage.plain(TARGETS[0]);
            stage.publications.publish(&wanted).unwrap();
            assert_eq!((mounts_on(&wanted.target), get(wanted.target.join("f")).len()), (1, 7));
        }
        settles(s, &stage);
    }
}

fn a_killed_process_leaves_views_that_the_next_call_ends(s: &mut Site) {
    let stage = stage(s);
    serve_by(program().to_owned());
    for round in 0..12_u64 {
        let worker = start(s, &stage, Some(7000));
        let began = Instant::now();
        while records(s).len() < 2 {
            assert!(began.elapsed() < Duration::from_secs(20), "the worker does not start");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(round * 9));
        kill(worker);
        if round % 2 == 0 {
            let wanted = Publication { group: Some(7000), ..stage.plain(TARGETS[0]) };
            stage.publications.publish(&wanted).unwrap();
            assert_eq!(stat(wanted.target.join("f")).st_gid, 7000);
        }
        settles(s, &stage);
        // One that was killed after its record was gone leaves the file of a lock.
        let mut left = names(s.root().join("store/publications/views"));
        left.retain(|name| !name.ends_with(".lock"));
        assert_eq!(left, Vec::<String>::new());
        eventually("no process serves", || daemons_of(s.root()).is_empty());
    }
}
