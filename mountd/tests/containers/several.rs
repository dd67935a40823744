//! Two users of one name, one volume, one container.

use std::fs;

use crate::place::{Place, text};
use crate::until::until;

#[test]
fn of_two_runs_of_one_name_one_is_refused() {
    let Some(place) = Place::new() else { return };
    for round in 0..5 {
        let name = format!("c{round}");
        let words = ["container", "run", "--name", &name, "busybox:1", "echo", "x"];
        let both = [place.spawn_piped(&words), place.spawn_piped(&words)];
        let mut codes = both.map(|child| child.wait_with_output().unwrap().status.code().unwrap());
        codes.sort_unstable();
        assert_eq!(codes, [0, 125], "{round}");
        assert_eq!(place.good(&["container", "logs", &name]), "x\n");
    }
}

#[test]
fn of_two_starts_one_is_refused() {
    let Some(place) = Place::new() else { return };
    place.good(&["container", "run", "--name", "c", "busybox:1", "sleep", "0"]);
    for _ in 0..5 {
        let words = ["container", "start", "c"];
        let both = [place.spawn_piped(&words), place.spawn_piped(&words)];
        let done = both.map(|child| child.wait_with_output().unwrap());
        let started = done.iter().filter(|one| one.status.success()).count();
        // The second one may come after the end of the first.
        assert!(started >= 1, "{done:?}");
        until("the end", || place.holders().is_empty());
        assert_eq!(place.field("c", "/run/exit_code"), 0);
    }
}

#[test]
fn a_volume_is_shared_by_two_containers() {
    let Some(place) = Place::new() else { return };
    let host = place.path("host");
    fs::create_dir(&host).unwrap();
    let bind = format!("{host}:/h:ro");
    let words =
        ["container", "run", "-d", "--name", "a", "-v", "data:/v", "-v", &bind, "busybox:1"];
    place.good(&[&words[..], &["sleep", "1000"]].concat());
    let words = ["-v", "data:/v", "busybox:1", "sh", "-c", "echo hello > /v/f"];
    assert_eq!(place.run(&words).0, 0);
    let seen = place.output(&["container", "exec", "a", "cat", "/v/f"]);
    assert_eq!(text(&seen.stdout), "hello\n");
    fs::write(place.at("host/f"), "of the host").unwrap();
    let seen = place.output(&["container", "exec", "a", "cat", "/h/f"]);
    assert_eq!(text(&seen.stdout), "of the host");
    let refused = place.output(&["container", "exec", "a", "touch", "/h/g"]);
    assert!(!refused.status.success() && !place.at("host/g").exists());
    let long =
        ["--mount", "type=volume,source=data,target=/w,readonly", "busybox:1", "cat", "/w/f"];
    assert_eq!(place.run(&long), (0, "hello\n".to_owned()));
    place.good(&["container", "rm", "-f", "a"]);
    assert!(
        place.at("root/volumes").exists() && place.good(&["volume", "ls", "-q"]).contains("data")
    );
}
