//! Exit codes, words, variables, users, signals.

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, text};
use crate::until::until;

#[test]
fn the_exit_code_is_that_of_the_program() {
    let Some(place) = Place::new() else { return };
    assert_eq!(place.run(&["busybox:1", "echo", "hello", "-e", "--rm"]).1, "hello -e --rm\n");
    for code in [0, 1, 2, 125, 255] {
        assert_eq!(place.run(&["busybox:1", "sh", "-c", &format!("exit {code}")]).0, code);
    }
    // A child of the shell: the first process of a container gets no signal that it does not await.
    assert_eq!(place.run(&["busybox:1", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).0, 137);
    assert_eq!(place.run(&["busybox:1", "nosuch"]).0, 127);
    assert_eq!(place.run(&["busybox:1", "/no/such"]).0, 127);
    assert_eq!(place.run(&["busybox:1", "/etc/passwd"]).0, 126);
    assert_eq!(place.run(&["busybox:1", "/etc"]).0, 126);
    let said = place.refused(&["container", "run", "none:2", "true"], 125);
    assert!(said.contains("none:2"), "{said}");
    let said = place.refused(&["container", "run", "--rm", "-u", "eve", "busybox:1", "true"], 125);
    assert!(said.contains("no such user \"eve\""), "{said}");
    let said = place.refused(&["container", "run", "--rm", "busybox:1"], 125);
    assert!(said.contains("no command"), "{said}");
    assert_eq!(place.names(), Vec::<String>::new(), "--rm removes all of them");
    assert_eq!(place.mounts(), 0);
}

#[test]
fn wrong_arguments_have_the_exit_code_of_a_program_that_was_not_started() {
    let Some(place) = Place::new() else { return };
    let root = place.path("root");
    for (words, code) in [
        (&["container", "run", "--nosuch", "busybox:1"][..], 125),
        (&["container", "run"], 125),
        (&["container", "--root", &root, "exec", "-x", "c", "true"], 125),
        (&["container", "exec", "c"], 125),
        (&["container", "--root", "run", "ls", "--nosuch"], 2),
        (&["container", "rm", "--nosuch", "run"], 2),
    ] {
        let said = place.refused(words, code);
        assert!(
            said.starts_with("lamina: ") && said.contains("\n  try: lamina container "),
            "{said}"
        );
    }
    assert_eq!(place.output(&["container", "run", "--help"]).status.code(), Some(0));
}

#[test]
fn what_the_kernel_does_not_execute_is_named_once() {
    let Some(place) = Place::new() else { return };
    let script =
        "printf '\\177ELFxxx' > /bad; echo '#!/missing' > /none; chmod 755 /bad /none; /bin/ls /";
    place.good(&["container", "run", "--name", "c", "busybox:1", "sh", "-c", script]);
    place.good(&["container", "commit", "c", "odd"]);
    for (program, code) in [("/bad", 126), ("/none", 127), ("nosuch", 127)] {
        let output = place.output(&["container", "run", "--rm", "odd", program]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert_eq!(said.lines().filter(|line| line.contains(program)).count(), 1, "{said}");
        assert!(said.starts_with("lamina: container"), "{said}");
    }
}

#[test]
fn words_variables_user_and_directory_are_those_of_the_user() {
    let Some(place) = Place::new() else { return };
    let (_, env) = place.run(&["-e", "A=1", "-e", "B=x y", "--hostname", "h", "busybox:1", "env"]);
    for line in ["A=1", "B=x y", "HOSTNAME=h", "HOME=/root"] {
        assert!(env.lines().any(|one| one == line), "{line}: {env}");
    }
    let script = "id -u; id -g; id -G; pwd; echo $HOME; hostname";
    let words = ["-u", "bob", "-w", "/tmp", "--hostname", "h", "busybox:1", "sh", "-c", script];
    assert_eq!(place.run(&words).1, "1000\n1001\n1001 10\n/tmp\n/home/bob\nh\n");
    let words = ["-u", "7:8", "busybox:1", "sh", "-c", "id -u; id -g"];
    assert_eq!(place.run(&words).1, "7\n8\n");
    assert_eq!(place.run(&["--entrypoint", "echo", "busybox:1", "a"]).1, "a\n");
    let words = ["--entrypoint", "[\"echo\",\"a\"]", "busybox:1", "b"];
    assert_eq!(place.run(&words).1, "a b\n");
    let words = ["--read-only", "--tmpfs", "/tmp", "busybox:1", "sh", "-c"];
    let (code, _) = place.run(&[&words[..], &["touch /tmp/x && ! touch /x"]].concat());
    assert_eq!(code, 0);
    let words = ["--network", "none", "busybox:1", "sh", "-c", "ls /sys/class/net | cat"];
    assert_eq!(place.run(&words).1.trim(), "lo");
}

#[test]
fn input_is_passed_on_if_it_is_asked_for() {
    let Some(place) = Place::new() else { return };
    let big: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let words = ["container", "run", "--rm", "-i", "busybox:1", "cat"];
    let output = place.fed(&words, &big);
    assert!(output.status.success(), "{:?}", text(&output.stderr));
    assert!(output.stdout == big, "{} bytes", output.stdout.len());
    let output = place.fed(&["container", "run", "--rm", "busybox:1", "cat"], b"");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b""[..]));
    let script = "echo out; echo err >&2";
    let output = place.output(&["container", "run", "--rm", "busybox:1", "sh", "-c", script]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
}

const TRAP: &str = "trap 'echo term; exit 7' TERM; trap 'echo int; exit 8' INT; echo ready; \
                    while :; do sleep 0.1; done";

#[test]
fn signals_reach_the_program() {
    let Some(place) = Place::new() else { return };
    for (signal, code) in [(Signal::TERM, 7), (Signal::INT, 8)] {
        let words = ["container", "run", "--rm", "--name", "s", "busybox:1", "sh", "-c", TRAP];
        let mut child = place.spawn_piped(&words);
        until("the start", || place.output(&["container", "logs", "s"]).stdout == b"ready\n");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_detached_container_goes_on_is_entered_and_is_stopped() {
    let Some(place) = Place::new() else { return };
    let words = ["container", "run", "-d", "--name", "web", "-e", "A=1", "busybox:1", "sh", "-c"];
    assert_eq!(place.good(&[&words[..], &[TRAP]].concat()), "web\n");
    let listed = place.good(&["container", "ls"]);
    assert!(listed.contains("running") && listed.contains("busybox:1"), "{listed}");
    assert!(place.refused(&["container", "rm", "web"], 1).contains("runs"));
    assert!(place.refused(&["container", "start", "web"], 125).contains("runs already"));
    let exec = |words: &[&str]| place.output(&[&["container", "exec"], words].concat());
    assert_eq!(text(&exec(&["web", "sh", "-c", "echo $A"]).stdout), "1\n");
    let output =
        exec(&["-e", "A=2", "-u", "bob", "-w", "/etc", "web", "sh", "-c", "echo $A $(id -u) $PWD"]);
    assert_eq!(text(&output.stdout), "2 1000 /etc\n");
    let codes = [
        exec(&["web", "sh", "-c", "exit 9"]),
        exec(&["web", "nosuch"]),
        exec(&["web", "/etc/passwd"]),
        exec(&["web", "sh", "-c", "kill -9 $$"]),
    ];
    assert_eq!(codes.map(|one| one.status.code().unwrap()), [9, 127, 126, 137]);
    assert_eq!(place.fed(&["container", "exec", "-i", "web", "cat"], b"in").stdout, b"in");
    assert_eq!(place.good(&["container", "stop", "web"]), "web\n");
    assert_eq!(place.mounts(), 0);
    assert_eq!(place.field("web", "/run/exit_code"), 7);
    assert!(place.refused(&["container", "exec", "web", "true"], 125).contains("does not run"));
    assert_eq!(place.good(&["container", "logs", "web"]), "ready\nterm\n");
    place.good(&["container", "start", "web"]);
    place.good(&["container", "rm", "-f", "web"]);
    assert_eq!((place.names().len(), place.mounts()), (0, 0));
}

#[test]
fn a_program_that_does_not_end_is_killed_after_a_time() {
    let Some(place) = Place::new() else { return };
    place.good(&["container", "run", "-d", "--name", "c", "busybox:1", "sleep", "1000"]);
    place.good(&["container", "stop", "--time", "1", "c"]);
    assert_eq!(place.field("c", "/run/exit_code"), 137);
    assert_eq!(place.good(&["container", "wait", "c"]), "137\n");
}
