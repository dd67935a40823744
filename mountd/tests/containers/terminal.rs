//! Containers with a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::place::Place;
use crate::until::until;

/// For what a program is to print.
const WAIT: Duration = Duration::from_secs(20);

/// A terminal, what it showed, and a command on it.
struct Terminal {
    side: File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    fn run(place: &Place, words: &[&str]) -> Self {
        let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&side).unwrap();
        unlockpt(&side).unwrap();
        tcsetwinsize(&side, size(30, 90)).unwrap();
        let name = ptsname(&side, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = place.lamina(words);
        command.stdin(open()).stdout(open()).stderr(Stdio::from(open()));
        let child = command.spawn().unwrap();
        drop(command);
        let side = File::from(side);
        let shown = Arc::<Mutex<String>>::default();
        let (mut from, to) = (side.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(read) = from.read(&mut buf) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..read]));
            }
        });
        Self { side, shown, child }
    }

    #[track_caller]
    fn type_in(&mut self, keys: &str, awaited: &str) {
        self.side.write_all(keys.as_bytes()).unwrap();
        self.await_text(awaited);
    }

    #[track_caller]
    fn await_text(&self, awaited: &str) {
        let shown = Arc::clone(&self.shown);
        let deadline = Instant::now() + WAIT;
        while !shown.lock().unwrap().contains(awaited) {
            assert!(Instant::now() < deadline, "{awaited:?} is not in {:?}", shown.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_shell_has_a_terminal_of_the_size_of_the_users() {
    let Some(place) = Place::new() else { return };
    let words = ["container", "run", "--rm", "-it", "--name", "t", "busybox:1", "sh"];
    let mut terminal = Terminal::run(&place, &words);
    terminal.type_in("tty; stty size\n", "30 90");
    terminal.await_text("/dev/");
    tcsetwinsize(&terminal.side, size(40, 120)).unwrap();
    let pid = rustix::process::Pid::from_raw(terminal.child.id().try_into().unwrap()).unwrap();
    // The command does not lead a session with this terminal, so the kernel does not tell it.
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    let shown = Arc::clone(&terminal.shown);
    until("the new size", || {
        terminal.side.write_all(b"stty size\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        shown.lock().unwrap().contains("40 120")
    });
    // Ctrl-C reaches the program in the foreground, and neither the shell nor the command.
    terminal.type_in("sleep 1000; echo code=$?\n", "sleep 1000");
    std::thread::sleep(Duration::from_millis(500));
    terminal.type_in("\x03", "^C");
    terminal.type_in("echo still $((40 + 2))\n", "still 42");
    terminal.side.write_all(b"exit 5\n").unwrap();
    assert_eq!(terminal.child.wait().unwrap().code(), Some(5));
    assert!(place.names().is_empty());
}

#[test]
fn a_user_leaves_a_terminal_and_comes_back() {
    let Some(place) = Place::new() else { return };
    let words = ["container", "run", "-it", "--name", "t", "busybox:1", "sh"];
    let mut terminal = Terminal::run(&place, &words);
    terminal.type_in("echo $((1 + 1))one\n", "2one");
    terminal.type_in("\x10\x11", "goes on");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    let mut again = Terminal::run(&place, &["container", "attach", "t"]);
    again.type_in("echo $((2 + 2))two; exit 3\n", "4two");
    assert_eq!(again.child.wait().unwrap().code(), Some(3));
    assert!(place.good(&["container", "logs", "t"]).contains("4two"));
    let words = ["container", "run", "-d", "--name", "u", "busybox:1", "sleep", "1000"];
    place.good(&words);
    let mut exec = Terminal::run(&place, &["container", "exec", "-it", "u", "sh"]);
    exec.type_in("tty; echo $((3 + 3))six; exit 4\n", "6six");
    assert_eq!(exec.child.wait().unwrap().code(), Some(4));
    place.good(&["container", "rm", "-f", "u"]);
}
