//! The output of containers.

use std::fs;

use crate::place::{Place, text};
use crate::until::until;

#[test]
fn a_log_is_followed_cut_and_dated() {
    let Some(place) = Place::new() else { return };
    let script = "for i in $(seq 20); do echo line $i; done; sleep 1; echo last >&2";
    place.good(&["container", "run", "-d", "--name", "c", "busybox:1", "sh", "-c", script]);
    let followed = place.good(&["container", "logs", "-f", "c"]);
    assert_eq!(followed.lines().count(), 21, "{followed}");
    assert!(followed.ends_with("line 20\nlast\n"), "{followed}");
    assert_eq!(place.good(&["container", "logs", "--tail", "2", "c"]), "line 20\nlast\n");
    assert_eq!(place.good(&["container", "logs", "--since", "1h", "c"]), followed);
    assert_eq!(place.good(&["container", "logs", "--since", "2999-01-01T00:00:00Z", "c"]), "");
    let dated = place.good(&["container", "logs", "-t", "--tail", "1", "c"]);
    let (time, line) = dated.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && line == "last\n", "{dated}");
    place.refused(&["container", "logs", "--since", "yesterday", "c"], 2);
}

#[test]
fn a_log_has_a_bound_and_an_end() {
    let Some(place) = Place::new() else { return };
    // Some 60 MB; 10 MiB are kept twice at most.
    let script = "yes 0123456789012345678901234567890123456789 | dd bs=4096 count=15000; echo end";
    let words = ["container", "run", "-d", "--name", "c", "busybox:1", "sh", "-c", script];
    place.good(&words);
    place.good(&["container", "wait", "c"]);
    let id = place.field("c", "/id");
    let logs = place.at("root/containers").join(id.as_str().unwrap()).join("logs");
    let sizes = fs::read_dir(logs).unwrap().map(|one| one.unwrap().metadata().unwrap().len());
    let size: u64 = sizes.sum();
    assert!((10 << 20..22 << 20).contains(&size), "{size}");
    assert!(place.good(&["container", "logs", "--tail", "1", "c"]).ends_with("end\n"));
}

#[test]
fn a_closed_pipe_ends_the_command() {
    let Some(place) = Place::new() else { return };
    let words = ["container", "run", "--name", "c", "busybox:1", "yes"];
    let mut child = place.spawn_piped(&words);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    until("the program", || place.field("c", "/run/state") == "running");
    assert!(text(&place.output(&["container", "rm", "-f", "c"]).stdout).contains('c'));
}
