//! The service manager: messages, and sockets that it hands over.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::Client;
use crate::daemon::{Place, WAIT};
use crate::until::until;

/// Waits for a message with this line.
#[track_caller]
fn message(socket: &UnixDatagram, line: &str) -> String {
    let mut buffer = [0; 4096];
    for _ in 0..1000 {
        let len = match socket.recv(&mut buffer) {
            // signal(7): a read with a time limit is not restarted after a stop.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if text.lines().any(|found| found == line) {
            return text;
        }
    }
    panic!("no {line}");
}

#[test]
fn the_manager_is_told_of_each_step() {
    let place = Place::new();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let docker = place.at("plugins/lamina.sock");
    let mut command = place.command();
    command.arg("--docker").arg(docker).env("NOTIFY_SOCKET", path);
    command.env("WATCHDOG_USEC", "30000");
    let mut daemon = place.start_command(&mut command);
    message(&socket, "READY=1");
    message(&socket, "WATCHDOG=1");
    message(&socket, "WATCHDOG=1");
    daemon.signal(Signal::HUP);
    assert!(message(&socket, "RELOADING=1").contains("MONOTONIC_USEC="));
    message(&socket, "READY=1");
    daemon.signal(Signal::TERM);
    message(&socket, "STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn a_socket_of_the_manager_is_served_and_stays() {
    let place = Place::new();
    let path = place.at("handed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=docker \
                  exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_lamina")]);
    let mut command = place.dress(shell);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    let mut child = command.spawn().unwrap();
    // It queues until the daemon is ready.
    assert!(Client::new(&path).activates());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    until("the end", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    assert!(path.exists(), "the file is the manager's");
}
