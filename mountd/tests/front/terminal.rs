//! What a person at a terminal sees of a long command, and what a script sees.

use std::process::Command;

use crate::place::{Place, Program};

/// Long commands, what the bar is called, and what the last line on the standard error begins with.
const LONG: &[(&str, &str, &str)] = &[
    ("lamina image import big.tar -t big", "layer 1 of 1", "lamina: imported big.tar: 1 layer, "),
    ("lamina image export big -o out.tar", "layer 1 of 1", "lamina: exported big: 1 layer, "),
    ("lamina image verify", "layer 1 of", "lamina: verified, no damage: 2 layers, "),
    ("lamina image commit ./up -t made", "layer 1 of 1", "lamina: committed ./up: 1 layer, "),
    (
        "lamina volume import big.tar big --driver union",
        "import of big.tar",
        "lamina: imported big: ",
    ),
    ("lamina volume export big -o v.tar", "export of big", "lamina: exported big: "),
    ("lamina volume backup big file://$PWD/repo", "backup of big", "lamina: backup of big: "),
    (
        "id=$(lamina volume backup ls -q file://$PWD/repo)
         lamina volume restore file://$PWD/repo r --id $id",
        "restore of r",
        "lamina: restored r: ",
    ),
    (
        "lamina volume snapshot create filled s",
        "snapshot of filled",
        "lamina: snapshot s of filled",
    ),
    ("lamina image gc", "removal of layers", "lamina: 1 layer of "),
];

fn on_terminal(place: &Place, command: &str) -> String {
    let mut shell = Command::new("script");
    shell.args(["-qec", &format!("stty cols 120; {command}"), "/dev/null"]);
    shell.envs(place.shell("").get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = shell.env("TERM", "xterm").current_dir(place.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}");
    text
}

#[test]
fn a_terminal_shows_rate_and_time_left_and_a_pipe_one_line() {
    let program = Program::new();
    let (seen, piped) = (Place::new(&program), Place::new(&program));
    for place in [&seen, &piped] {
        place.good("head -c 3000000 /dev/urandom >up/new");
        place.good(
            "lamina volume create filled -q --driver image --size 64M
             lamina image import layer.tar -t gone; lamina image rm gone app",
        );
    }
    for (command, title, line) in LONG {
        let shown = on_terminal(&seen, command);
        assert!(shown.contains(title) && shown.contains("/s "), "{command}: {shown:?}");
        let output = piped.run(command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
        assert!(stderr.starts_with(line) && stderr.contains(" in "), "{command}: {stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            stdout.lines().count(),
            usize::from(!command.contains("verify")),
            "{command}: {stdout}"
        );
    }
    for command in
        ["create a -q", "snapshot create u s -q", "clone u c -q", "import layer.tar i -q"]
    {
        if command.starts_with("snapshot") {
            piped.good("lamina volume create u --driver union -q");
        }
        let output = piped.run(&format!("lamina volume {command}"));
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    }
}

#[test]
fn a_short_name_of_an_image_shows_what_it_stands_for() {
    let place = Place::new(&Program::new());
    place.good("lamina image tag app localhost/short:latest");
    for (command, is_said) in [
        ("lamina mount --image short --ephemeral at; lamina umount at", true),
        ("lamina mount --image localhost/short --ephemeral at; lamina umount at", false),
        ("lamina mount --image app --ephemeral at; lamina umount at", false),
        ("lamina container create short", true),
        ("lamina container create app", false),
        ("lamina image tag short other", true),
        ("lamina image tag --json short third", false),
        ("lamina volume create --driver union --from short a", true),
        ("lamina volume create --driver union --from short b -q", false),
    ] {
        let output = place.run(command);
        let line =
            if is_said { "lamina: resolved \"short\" as localhost/short:latest\n" } else { "" };
        assert!(output.status.success(), "{command}: {output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), line, "{command}");
    }
}

#[test]
fn a_trial_removes_nothing_and_names_what_it_would() {
    let place = Place::new(&Program::new());
    place.good("lamina volume create u --driver union -q; lamina volume snapshot create u s -q");
    let listed = place.good("lamina volume ls -q; lamina volume snapshot ls -q");
    assert_eq!(listed, "data\nu\nu@s\n");
    assert_eq!(place.good("lamina volume rm --dry-run data u"), "data\nu\n");
    assert_eq!(place.good("lamina volume snapshot rm --dry-run u@s"), "u@s\n");
    assert_eq!(place.good("lamina volume prune --all --dry-run -q"), "data\nu\n");
    assert_eq!(place.good("lamina volume ls -q; lamina volume snapshot ls -q"), listed);
    place.good("lamina volume rm data");
    assert_eq!(place.good("lamina volume ls --trash -q"), "data\n");
    assert_eq!(place.good("lamina volume prune --trash --dry-run -q"), "data (in the trash)\n");
    assert_eq!(place.good("lamina volume ls --trash -q"), "data\n");
}
