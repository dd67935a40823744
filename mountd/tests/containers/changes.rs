//! Images and lists of the changes in containers.

use serde_json::Value;

use crate::place::Place;

#[test]
fn a_container_is_committed_and_compared_while_it_runs() {
    let Some(place) = Place::new() else { return };
    let script = "mkdir /new; echo 1 > /new/a; rm /etc/group; echo ready; sleep 1000";
    place.good(&["container", "run", "-d", "--name", "c", "busybox:1", "sh", "-c", script]);
    crate::until::until("the changes", || place.good(&["container", "logs", "c"]) == "ready\n");
    for round in 0..2 {
        let changes = place.good(&["container", "diff", "c"]);
        for line in ["A /new", "A /new/a", "D /etc/group"] {
            assert!(changes.lines().any(|one| one == line), "{round} {line}: {changes}");
        }
        assert!(!changes.contains("hostname") && !changes.contains("/proc"), "{changes}");
        let tag = format!("made:{round}");
        place.good(&["container", "commit", "c", "-t", &tag]);
        assert_eq!(place.run(&[&tag, "cat", "/new/a"]), (0, "1\n".to_owned()));
        assert_ne!(place.run(&[&tag, "cat", "/etc/group"]).0, 0);
        // It still runs, and writes to the layer above.
        let more = place.output(&["container", "exec", "c", "sh", "-c", "echo 2 > /new/b"]);
        assert!(more.status.success(), "{more:?}");
    }
    assert_eq!(place.run(&["made:1", "cat", "/new/b"]), (0, "2\n".to_owned()));
    place.good(&["container", "stop", "--time", "0", "c"]);
    place.good(&["container", "commit", "c", "made:stopped"]);
    assert_eq!(place.run(&["made:stopped", "cat", "/new/b"]), (0, "2\n".to_owned()));
    let all: Value =
        serde_json::from_str(&place.good(&["container", "diff", "--json", "c"])).unwrap();
    assert_eq!(all["/new/b"], "A");
}

#[test]
fn a_commit_has_one_moment() {
    let Some(place) = Place::new() else { return };
    // Each file is there before its mark; an image with a mark has the file.
    let script = "i=0; while :; do i=$((i + 1)); echo $i > /f$i; echo $i > /m$i; sleep 0.02; done";
    place.good(&["container", "run", "-d", "--name", "c", "busybox:1", "sh", "-c", script]);
    let begun = "until test -e /m3; do sleep 0.02; done";
    place.good(&["container", "exec", "c", "sh", "-c", begun]);
    for round in 0..3 {
        let tag = format!("made:{round}");
        place.good(&["container", "commit", "c", "-t", &tag]);
        let check = "n=0; for m in /m*; do n=$((n + 1)); i=${m#/m}; \
                     test \"$(cat /f$i)\" = $i || echo bad $i; done; test $n -gt 1 || echo few";
        assert_eq!(place.run(&[&tag, "sh", "-c", check]), (0, String::new()), "{round}");
    }
    place.good(&["container", "rm", "-f", "c"]);
}
