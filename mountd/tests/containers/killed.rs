//! Processes of Lamina that are killed in the midst.

use std::process::Child;

use crate::place::{Place, kill};
use crate::until::until;

const WRITES: &str = "echo ready; while :; do echo x >> /f; sleep 0.05; done";

fn begun(place: &Place, words: &[&str]) -> Child {
    let head = ["container", "run", "--name", "c"];
    let child = place.spawn_piped(&[&head[..], words, &["busybox:1", "sh", "-c", WRITES]].concat());
    until("the start", || place.output(&["container", "logs", "c"]).stdout == b"ready\n");
    child
}

#[test]
fn a_program_goes_on_when_its_command_is_killed() {
    let Some(place) = Place::new() else { return };
    let mut child = begun(&place, &["--rm"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.field("c", "/run/state"), "running");
    assert!(place.output(&["container", "exec", "c", "test", "-s", "/f"]).status.success());
    place.good(&["container", "stop", "--time", "0", "c"]);
    assert_eq!((place.names().len(), place.mounts()), (0, 0), "--rm holds all the same");
}

#[test]
fn the_next_command_ends_what_a_killed_process_left() {
    let Some(place) = Place::new() else { return };
    for words in [&["--rm"][..], &[]] {
        let mut child = begun(&place, words);
        let holders = place.holders();
        assert_eq!(holders.len(), 1);
        kill(holders[0]);
        assert_eq!(child.wait().unwrap().code(), Some(125));
        until("the end of the holder", || place.holders().is_empty());
        let listed = place.good(&["container", "ls"]);
        assert_eq!(place.mounts(), 0, "{listed}");
        if words.is_empty() {
            assert!(listed.contains("exited (137)"), "{listed}");
            assert_eq!(place.field("c", "/run/error"), "the process that held it was killed");
            // What was written stays, and the container runs again.
            place.good(&["container", "start", "c"]);
            place.good(&["container", "rm", "-f", "c"]);
        }
        assert!(place.names().is_empty(), "{listed}");
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_leaves_what_the_next_command_repairs() {
    let Some(place) = Place::new() else { return };
    for step in 0..12_u64 {
        let name = format!("k{step}");
        let words = ["container", "run", "--name", &name, "busybox:1", "sleep", "1000"];
        let mut child = place.spawn_piped(&words);
        std::thread::sleep(std::time::Duration::from_millis(step * 25));
        for pid in place.holders() {
            kill(pid);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // A process that was on its way to hold the container may still begin.
        let remove = ["container", "rm", "-f", &name];
        until("the removal", || {
            let output = place.output(&remove);
            let said = String::from_utf8_lossy(&output.stderr);
            output.status.success()
                || said.contains("no container")
                || !place.names().contains(&name)
        });
    }
    until("the end of all holders", || place.holders().is_empty());
    until("the end of all mounts", || {
        place.output(&["container", "ls"]);
        for name in place.names() {
            place.output(&["container", "rm", "-f", &name]);
        }
        place.mounts() == 0
    });
    assert!(place.names().is_empty());
}
