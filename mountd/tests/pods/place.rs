//! A data root with an image of busybox, a daemon, and `kubectl` as its client.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::busybox::{self, BUSYBOX};
use crate::port;
use crate::programs::has;
use crate::until::until;

/// For what should happen soon.
const WAIT: Duration = Duration::from_secs(90);
const KUBECTL: &str = "/usr/bin/kubectl";

/// A data root below /tmp. All pods are ended when it is dropped.
pub struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

impl Drop for Place {
    fn drop(&mut self) {
        let uids = fs::read_dir(self.at("root/pods")).into_iter().flatten().flatten();
        for uid in uids {
            for pid in self.supervisors(uid.file_name().to_str().unwrap()) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                    .unwrap_or_default();
            }
            busybox::end_all(&self.at("run/pods").join(uid.file_name()).join("state"));
        }
        busybox::unmount_below(self.dir.path());
    }
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

impl Place {
    /// A place with the image `busybox:1`, unless this host lacks a program.
    pub fn new() -> Option<Self> {
        if !(has(KUBECTL) && has(BUSYBOX) && has("/usr/bin/crun")) {
            return None;
        }
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let place = Self { dir, port: port::free() };
        let image = place.at("image");
        busybox::tree(&image);
        let image = image.to_str().unwrap();
        place.succeeds(&["image", "import", "--tag", "busybox:1", image]);
        Some(place)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a new directory, as text.
    pub fn directory(&self, name: &str) -> String {
        fs::create_dir_all(self.at(name)).unwrap();
        self.at(name).to_str().unwrap().to_owned()
    }

    fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        for name in ["LAMINA_ROOT", "LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.at("run")).stdin(Stdio::null());
        command.args(words).arg("--root").arg(self.at("root"));
        command
    }

    /// Starts a daemon, which runs pods if it is asked to, and waits until it listens.
    pub fn start(&self, runs: bool) -> Daemon {
        fs::write(self.at("lamina.toml"), format!("[kube]\nrun_pods = {runs}\n")).unwrap();
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = self.lamina(&["serve", "--kube", &address, "--node", "here"]);
        command.arg("--config").arg(self.at("lamina.toml")).stdout(Stdio::null()).stderr(log);
        let mut daemon = Daemon(command.spawn().unwrap());
        until("the start", || {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(self.at("log")).unwrap());
            TcpStream::connect(&address).is_ok() && self.write_kubeconfig()
        });
        daemon
    }

    fn write_kubeconfig(&self) -> bool {
        let server = format!("--server=https://127.0.0.1:{}", self.port);
        let output = self.lamina(&["kubeconfig", &server]).output().unwrap();
        if output.status.success() {
            fs::write(self.at("new-kubeconfig"), output.stdout).unwrap();
            fs::rename(self.at("new-kubeconfig"), self.at("kubeconfig")).unwrap();
        }
        output.status.success()
    }

    fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(KUBECTL);
        command.arg("--kubeconfig").arg(self.at("kubeconfig")).args(words);
        command.env("HOME", self.dir.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs kubectl with a manifest on its standard input.
    pub fn kubectl(&self, words: &[&str], manifest: &str) -> Output {
        let mut child = self.kubectl_command(words).spawn().unwrap();
        // A kubectl that reads no manifest may have ended.
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap_or_default();
        child.wait_with_output().unwrap()
    }

    /// Starts kubectl, which goes on.
    pub fn begin(&self, words: &str) -> Child {
        self.kubectl_command(&words.split(' ').collect::<Vec<_>>()).spawn().unwrap()
    }

    /// Runs kubectl and returns what it prints.
    #[track_caller]
    pub fn good(&self, words: &str) -> String {
        let output = self.kubectl(&words.split(' ').collect::<Vec<_>>(), "");
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl, which is refused, and returns what it says.
    #[track_caller]
    pub fn refused(&self, words: &str) -> String {
        let output = self.kubectl(&words.split(' ').collect::<Vec<_>>(), "");
        assert!(!output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let output = self.kubectl(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{manifest}: {output:?}");
    }

    /// A field of an object; empty if the object or the field is missing.
    #[track_caller]
    pub fn field(&self, object: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let words = ["get", object, "-o", &path, "--ignore-not-found"];
        let output = self.kubectl(&words, "");
        assert!(output.status.success(), "{object}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn until_field(&self, object: &str, path: &str, wanted: &str) {
        let mut found = String::new();
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            found = self.field(object, path);
            if found == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.at("log")).unwrap_or_default();
        panic!("{object} {path} is {found:?}, not {wanted:?}: {}{log}", self.good("describe pods"));
    }

    #[track_caller]
    pub fn until_phase(&self, object: &str, wanted: &str) {
        self.until_field(object, ".status.phase", wanted);
    }

    #[track_caller]
    pub fn until_gone(&self, object: &str) {
        self.until_field(object, ".metadata.name", "");
    }

    /// Waits until a pod has an event of a reason, and returns its message.
    #[track_caller]
    pub fn event(&self, pod: &str, reason: &str) -> String {
        let selector = format!("involvedObject.name={pod},reason={reason}");
        let mut found = String::new();
        until(&format!("event {reason} of {pod}"), || {
            found = self.good(&format!(
                "get events --field-selector {selector} -o jsonpath={{.items[*].message}}"
            ));
            !found.is_empty()
        });
        found
    }

    /// Runs a command of lamina and returns what it prints.
    #[track_caller]
    pub fn succeeds(&self, words: &[&str]) -> String {
        let output = self.lamina(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command of lamina, which is refused, and returns what it says.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.lamina(words).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts a command of lamina, which goes on.
    pub fn spawn(&self, words: &[&str]) -> Child {
        let mut command = self.lamina(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub fn uid(&self, pod: &str) -> String {
        self.field(&format!("pod/{pod}"), ".metadata.uid")
    }

    /// The processes that hold a pod: they have its lock open.
    pub fn supervisors(&self, uid: &str) -> Vec<i32> {
        let lock = self.at("root/pods").join(uid).join("lock");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            if open.flat_map(|fd| fs::read_link(fd.path())).any(|target| target == lock) {
                found.push(pid);
            }
        }
        found
    }

    /// What is mounted below a directory of the place.
    pub fn mounted(&self, below: &str) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.at(below).to_str().unwrap().to_owned();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter(|target| target.starts_with(&below)).map(str::to_owned).collect()
    }

    /// Mounts below the directory of a pod.
    pub fn mounts(&self, uid: &str) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.at("root/pods").join(uid);
        table.lines().filter(|line| line.contains(below.to_str().unwrap())).count()
    }
}
