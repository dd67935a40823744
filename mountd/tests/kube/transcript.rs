//! Sessions of kubectl, as people type them, with both versions: `transcripts/*.golden`.
//!
//! ```text
//! $ COMMAND            a line for the shell, in which `kubectl` is the version under test
//! | TEXT               its standard input
//! % KIND NAME PHASE    waits until an object has a phase
//!   TEXT               what the command prints; `! TEXT` on standard error, `? N`: its exit code
//!   -- 1.20            what follows is printed by kubectl 1.20 instead
//! ```
//!
//! `LAMINA_UPDATE=1` writes anew what is printed. Ages, times, ids, versions and ports are shown as
//! the same words in each run, columns are two blanks apart, and empty lines are left out.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cases::{Address, for_each};
use crate::client::Client;
use crate::daemon;
use crate::kubectl::versions;
use crate::until::until;

/// The older version, whose outputs may be others.
const OLD: &str = "1.20";

/// A command, and what it prints.
#[derive(Default)]
struct Entry {
    /// The lines before the command: comments, waits.
    before: Vec<String>,
    command: String,
    input: String,
    new: String,
    old: Option<String>,
}

fn entries(text: &str) -> (Vec<Entry>, Vec<String>) {
    let mut entries: Vec<Entry> = Vec::new();
    let mut before: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let before = std::mem::take(&mut before);
            entries.push(Entry { before, command: command.to_owned(), ..Entry::default() });
            continue;
        }
        match entries.last_mut() {
            Some(entry) if line.starts_with("| ") || line == "|" => {
                entry.input.push_str(line.get(2..).unwrap_or_default());
                entry.input.push('\n');
            }
            Some(entry) if line.starts_with("  -- ") => entry.old = Some(String::new()),
            Some(entry) if line.starts_with("  ") => {
                let into = entry.old.as_mut().unwrap_or(&mut entry.new);
                writeln!(into, "{}", &line[2..]).unwrap();
            }
            _ => before.push(line.to_owned()),
        }
    }
    (entries, before)
}

fn show(entries: &[Entry], behind: &[String]) -> String {
    let mut text = String::new();
    for entry in entries {
        entry.before.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        writeln!(text, "$ {}", entry.command).unwrap();
        let lines = |into: &mut String, from: &str, mark: &str| {
            for line in from.lines() {
                writeln!(into, "{}", format!("{mark} {line}").trim_end()).unwrap();
            }
        };
        lines(&mut text, &entry.input, "|");
        lines(&mut text, &entry.new, " ");
        if let Some(old) = &entry.old {
            writeln!(text, "  -- {OLD}").unwrap();
            lines(&mut text, old, " ");
        }
    }
    behind.iter().for_each(|line| writeln!(text, "{line}").unwrap());
    text
}

/// Whether a line is of kubectl's own log, such as `W1130 03:04:42.570699 ..`.
fn is_log(line: &str) -> bool {
    let digits = line.strip_prefix(['I', 'W', 'E']).and_then(|line| line.get(..4));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_age(word: &str) -> bool {
    let units = word.trim_start_matches(|one: char| one.is_ascii_digit());
    let has_digits = units.len() < word.len();
    has_digits && matches!(units, "s" | "m" | "h" | "ms") || word == "<invalid>"
}

fn is_time(word: &str) -> bool {
    word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

fn is_id(word: &str) -> bool {
    word.len() == 36
        && word.matches('-').count() == 4
        && word.starts_with(|one: char| one.is_ascii_hexdigit())
}

/// A word without what differs from run to run.
fn steady_word(word: &str) -> String {
    let plain = word.trim_matches(|one: char| "\"',:;()".contains(one));
    let id = plain.strip_prefix("pvc-").unwrap_or(plain);
    let other = match id {
        age if is_age(age) => "AGE",
        time if is_time(time) => "TIME",
        uid if is_id(uid) => "ID",
        _ => return word.to_owned(),
    };
    word.replace(id, other)
}

/// A line without what differs from run to run.
fn steady(line: &str, address: &str) -> String {
    let line = line.replace(address, "ADDRESS");
    for name in ["resourceVersion: ", "\"resourceVersion\": ", "Resource Version:"] {
        if let Some((before, _)) = line.split_once(name) {
            return format!("{before}{name} N");
        }
    }
    if let Some((before, rest)) = line.split_once("CreationTimestamp:")
        && !rest.trim().is_empty()
    {
        return format!("{before}CreationTimestamp: TIME");
    }
    let indent = line.len() - line.trim_start().len();
    let mut text = line[..indent].to_owned();
    let mut blanks = 0;
    for word in line[indent..].split(' ') {
        if word.is_empty() {
            blanks += 1;
            continue;
        }
        if text.len() > indent {
            text.push_str(if blanks > 0 { "  " } else { " " });
        }
        blanks = 0;
        text.push_str(&steady_word(word));
    }
    // How often an event happened depends on the speed of the host.
    if let Some((before, rest)) = text.split_once(" (x")
        && let Some((_, behind)) = rest.split_once(" over AGE)")
    {
        return format!("{before}{behind}");
    }
    text
}

/// A home with one version of kubectl.
struct Home<'a> {
    place: &'a daemon::Place,
    address: String,
    client: Client,
}

impl<'a> Home<'a> {
    fn new(place: &'a daemon::Place, daemon: &daemon::Daemon, program: &Path) -> Self {
        fs::create_dir_all(place.at("bin")).unwrap();
        symlink(program, place.at("bin/kubectl")).unwrap();
        fs::write(place.at("kubeconfig"), &daemon.config).unwrap();
        let server = daemon.config.lines().find_map(|line| line.trim().strip_prefix("server: "));
        let address = server.unwrap().trim_matches('"').trim_start_matches("https://").to_owned();
        Self { place, address, client: daemon.client() }
    }

    /// Waits for the phases that lines name.
    fn wait(&mut self, lines: &[String]) {
        for line in lines.iter().filter_map(|line| line.strip_prefix("% ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = Address::new(words[0], words[1]).path();
            until(line, || match words[2] {
                "gone" => self.client.get(&path).code == 404,
                phase => self.client.get(&path).json()["status"]["phase"] == phase,
            });
        }
    }

    /// What a command prints.
    fn run(&self, entry: &Entry) -> String {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(&entry.command).current_dir(self.place.at(""));
        command.env("PATH", format!("{}:{path}", self.place.at("bin").display()));
        command.env("HOME", self.place.at("")).env("KUBECONFIG", self.place.at("kubeconfig"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may have ended.
        child.stdin.take().unwrap().write_all(entry.input.as_bytes()).unwrap_or_default();
        let done = child.wait_with_output().unwrap();
        let mut text = String::new();
        for (mark, output) in [("", done.stdout), ("! ", done.stderr)] {
            let output = String::from_utf8(output).unwrap();
            for line in output.lines().filter(|line| !line.trim().is_empty() && !is_log(line)) {
                writeln!(text, "{mark}{}", steady(line, &self.address).trim_end()).unwrap();
            }
        }
        match done.status.code().unwrap() {
            0 => text,
            code => text + &format!("? {code}\n"),
        }
    }
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/transcripts");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs a session; the differences.
fn session(file: &Path, version: &str, program: &Path) -> String {
    let place = daemon::Place::new();
    let daemon = place.start();
    let mut home = Home::new(&place, &daemon, program);
    let (mut entries, behind) = entries(&fs::read_to_string(file).unwrap());
    let is_update = std::env::var_os("LAMINA_UPDATE").is_some();
    let mut differences = String::new();
    for entry in &mut entries {
        home.wait(&entry.before);
        let found = home.run(entry);
        let is_old = version.starts_with(OLD);
        let wanted = match &entry.old {
            Some(old) if is_old => old,
            _ => &entry.new,
        };
        if found == *wanted {
            continue;
        }
        let command = &entry.command;
        writeln!(differences, "$ {command}\nwanted\n{wanted}found\n{found}").unwrap();
        if is_old {
            entry.old = Some(found);
        } else {
            entry.new = found;
            entry.old = None;
        }
    }
    home.wait(&behind);
    if is_update {
        fs::write(file, show(&entries, &behind)).unwrap();
    }
    differences
}

#[test]
fn sessions_of_kubectl_print_what_they_print_with_a_cluster() {
    let versions = versions();
    let mut all = String::new();
    // One version after the other: an update of the older one builds on that of the newer one.
    for (version, program) in &versions {
        let files = files();
        let differences = for_each(&files, |file| session(file, version, program));
        for (file, text) in files.iter().zip(differences).filter(|(_, text)| !text.is_empty()) {
            writeln!(all, "{} with {version}:\n{text}", file.display()).unwrap();
        }
    }
    assert!(all.is_empty(), "LAMINA_UPDATE=1 takes these over:\n{all}");
}
