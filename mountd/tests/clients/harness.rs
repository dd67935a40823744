//! Checks that continue after a failure, and commands with their exit codes and output.

use std::fmt::{Debug, Display};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The exit code of a request that failed, see docs/OPERATIONS.md.
pub const FAILED: i32 = 1;
/// The exit code of wrong arguments.
pub const USAGE: i32 = 2;
/// The interval between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(10);
/// The length of a command, or of its output, in the log.
const LOGGED_CHARS: usize = 1000;

/// The program under test: `LAMINA_BIN`, or the one that cargo built.
pub fn program() -> PathBuf {
    let named = std::env::var_os("LAMINA_BIN").unwrap_or(env!("CARGO_BIN_EXE_lamina").into());
    std::fs::canonicalize(named).expect("LAMINA_BIN names a program")
}

/// Waits until a condition holds. Returns whether it did within the limit.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The directory of a scenario, and the number of its failures.
pub struct Site {
    prefix: &'static str,
    scratch: String,
    tree: String,
    failed: usize,
}

impl Site {
    pub fn new(prefix: &'static str, scratch: &str, tree: &str) -> Self {
        Self { prefix, scratch: scratch.to_owned(), tree: tree.to_owned(), failed: 0 }
    }

    /// A path below the scratch directory.
    pub fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.scratch)
    }

    /// The scratch directory, which all users may enter.
    pub fn scratch(&self) -> &str {
        &self.scratch
    }

    /// The Debian tree, which no scenario changes.
    pub fn tree(&self) -> &str {
        &self.tree
    }

    /// Makes a directory below the scratch directory.
    pub fn directory(&self, name: &str) -> String {
        let path = self.at(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// Writes a file below the scratch directory.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.at(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The number of failed checks.
    pub const fn failed(&self) -> usize {
        self.failed
    }

    pub fn pass(&self, name: &str) {
        println!("ok {}::{name}", self.prefix);
    }

    pub fn fail(&mut self, name: &str, reason: impl Display) {
        println!("FAIL {}::{name}: {}", self.prefix, format!("{reason}").replace('\n', " "));
        self.failed += 1;
    }

    /// Checks a statement; `reason` is printed if it is false.
    pub fn holds(&mut self, name: &str, is_true: bool, reason: impl Display) {
        if is_true { self.pass(name) } else { self.fail(name, reason) }
    }

    /// Checks a value.
    pub fn equal<A: PartialEq<B> + Debug, B: Debug>(&mut self, name: &str, got: A, expected: B) {
        self.holds(name, got == expected, format!("expected {expected:?} got {got:?}"));
    }

    /// Checks that a command succeeded.
    pub fn succeeds(&mut self, name: &str, done: &Done) {
        let reason = format!("expected code 0 got {}: {}", done.code, done.last_line());
        self.holds(name, done.is_ok(), reason);
    }

    /// Checks that a request failed, and that its error names all of these.
    pub fn refused(&mut self, name: &str, done: &Done, words: &[&str]) {
        self.ended_with(name, FAILED, done, words);
    }

    /// Checks that a command failed, whatever its error is.
    pub fn fails(&mut self, name: &str, done: &Done) {
        self.holds(name, !done.is_ok(), "expected a failure got success");
    }

    /// Checks the exit code of a command, and that its error names all of these.
    pub fn ended_with(&mut self, name: &str, code: i32, done: &Done, words: &[&str]) {
        let all = done.code == code && words.iter().all(|word| done.err.contains(word));
        let reason = format!(
            "expected code {code} with {words:?} got code {} with {:?}",
            done.code, done.err
        );
        self.holds(name, all, reason);
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    /// The exit code, or 128 and the number of the signal.
    pub code: i32,
    /// The standard output.
    pub out: Vec<u8>,
    /// The standard error.
    pub err: String,
}

impl Done {
    pub const fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// The standard output of a command that must succeed for the scenario to continue.
    #[track_caller]
    pub fn expect(&self) -> String {
        assert!(self.is_ok(), "code {}: {}", self.code, self.last_line());
        self.text()
    }

    /// The standard output without its trailing line feeds.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end_matches('\n').to_owned()
    }

    /// The words of the standard output, with one space between them.
    pub fn words(&self) -> String {
        self.text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The words of the standard output and of the standard error.
    pub fn all_words(&self) -> String {
        let text = format!("{} {}", self.text(), self.err);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.expect();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The last line of the error, or else of the output.
    pub fn last_line(&self) -> String {
        let text = if self.err.trim().is_empty() { self.text() } else { self.err.clone() };
        text.trim_end().lines().last().unwrap_or_default().to_owned()
    }
}

/// Runs a command to its end, without input. Daemons that it starts may keep its output open.
pub fn run(command: &mut Command) -> Done {
    let mut out = tempfile::tempfile().expect("a file");
    let mut err = tempfile::tempfile().expect("a file");
    command.stdin(Stdio::null());
    command.stdout(out.try_clone().expect("a file")).stderr(err.try_clone().expect("a file"));
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let err = String::from_utf8_lossy(&content(&mut err)).into_owned();
    let done = Done { code: code(status), out: content(&mut out), err };
    println!("  {} -> {}", cut(&format!("{command:?}")), done.code);
    let shown = match std::str::from_utf8(&done.out) {
        Ok(text) if !text.contains('\0') => cut(text),
        _ => format!("{} bytes", done.out.len()),
    };
    for line in shown.lines().chain(done.err.lines()) {
        println!("    {line}");
    }
    done
}

/// Runs a program with arguments.
pub fn call(program: &str, args: &[&str]) -> Done {
    run(Command::new(program).args(args))
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file");
    file.read_to_end(&mut bytes).expect("a file");
    bytes
}

fn cut(text: &str) -> String {
    text.chars().take(LOGGED_CHARS).collect()
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Runs a command and kills it after a time. Returns whether it ended before.
pub fn killed_after(limit: Duration, command: &mut Command) -> bool {
    let mut child = Background::start(command, Path::new("/dev/null"));
    let ended = until(limit, || !child.is_running());
    child.end(rustix::process::Signal::KILL);
    ended
}

/// A process that runs in parallel to the scenario.
pub struct Background(Child);

impl Background {
    /// Starts a command; its output is appended to a file.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// Waits for the end. Returns whether it succeeded.
    pub fn wait(mut self) -> bool {
        self.0.wait().expect("a child").success()
    }

    /// Sends a signal, unless the process ended.
    pub fn signal(&mut self, signal: rustix::process::Signal) {
        if self.is_running() {
            let pid = rustix::process::Pid::from_child(&self.0);
            rustix::process::kill_process(pid, signal).expect("a child takes signals");
        }
    }

    /// Sends a signal, unless the process has ended, and waits for its end.
    pub fn end(&mut self, signal: rustix::process::Signal) {
        if self.is_running() {
            let pid = rustix::process::Pid::from_child(&self.0);
            rustix::process::kill_process(pid, signal).expect("a child takes signals");
            self.0.wait().expect("a child");
        }
    }
}
