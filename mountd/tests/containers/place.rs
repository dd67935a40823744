//! A data root with an image of busybox.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::busybox::{self, BUSYBOX};
use crate::programs::has;

/// A data root below /tmp. All containers are ended when it is dropped.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.holders() {
            kill(pid);
        }
        for run in fs::read_dir(self.at("run/containers")).into_iter().flatten().flatten() {
            busybox::end_all(&run.path().join("state"));
        }
        busybox::unmount_below(self.dir.path());
    }
}

/// Kills a process.
pub fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap_or_default();
}

/// The text of an output.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Place {
    /// A place with the image `busybox:1`, unless this host lacks a program.
    pub fn new() -> Option<Self> {
        if !(has(BUSYBOX) && has("/usr/bin/crun")) {
            return None;
        }
        let place = Self { dir: tempfile::tempdir_in("/tmp").unwrap() };
        let image = place.at("image");
        busybox::tree(&image);
        let passwd = "root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n";
        fs::write(image.join("etc/passwd"), passwd).unwrap();
        fs::write(image.join("etc/group"), "bob:x:1001:\nwheel:x:10:bob\n").unwrap();
        place.good(&["image", "import", "--tag", "busybox:1", image.to_str().unwrap()]);
        Some(place)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path of the place, as text.
    pub fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// A command of lamina, not started yet.
    pub fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        command.env_remove("LAMINA_LOG").env("LAMINA_RUNTIME_DIR", self.at("run"));
        command.env("LAMINA_ROOT", self.at("root")).stdin(Stdio::null()).args(words);
        command
    }

    pub fn output(&self, words: &[&str]) -> Output {
        self.lamina(words).output().unwrap()
    }

    /// Runs a command with a standard input.
    pub fn fed(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn_piped(words);
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            child.wait_with_output().unwrap()
        })
    }

    pub fn spawn_piped(&self, words: &[&str]) -> Child {
        let mut command = self.lamina(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a command and returns what it prints.
    #[track_caller]
    pub fn good(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        text(&output.stdout)
    }

    /// Runs a command that ends with an exit code, and returns what it says.
    #[track_caller]
    pub fn refused(&self, words: &[&str], code: i32) -> String {
        let output = self.output(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        text(&output.stderr)
    }

    /// Runs a program in a new container, and returns the exit code and what it prints.
    pub fn run(&self, words: &[&str]) -> (i32, String) {
        let words = [&["container", "run", "--rm"], words].concat();
        let output = self.output(&words);
        (output.status.code().unwrap(), text(&output.stdout))
    }

    /// A field of a container, as JSON shows it.
    pub fn field(&self, name: &str, pointer: &str) -> Value {
        let shown: Value =
            serde_json::from_str(&self.good(&["container", "inspect", name])).unwrap();
        shown[0].pointer(pointer).cloned().unwrap_or_default()
    }

    pub fn names(&self) -> Vec<String> {
        self.good(&["container", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// The processes that hold containers: they have a lock open.
    pub fn holders(&self) -> Vec<i32> {
        let containers = self.at("root/containers");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let mut open = open.flat_map(|fd| fs::read_link(fd.path()));
            if open.any(|at| at.starts_with(&containers) && at.ends_with("hold")) {
                found.push(pid);
            }
        }
        found
    }

    /// The number of mounts below the place.
    pub fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.path("");
        table.lines().filter(|line| line.contains(&below)).count()
    }
}
