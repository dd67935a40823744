//! A data root with a daemon that serves objects of Kubernetes, and `kubectl` as its client.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::port;
use crate::programs::has;
use crate::until::{LIMIT, until};

const KUBECTL: &str = "/usr/bin/kubectl";

/// A data root below /tmp, and what its daemons need.
pub struct Host {
    dir: tempfile::TempDir,
    port: u16,
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon(pub Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

impl Host {
    /// An empty one, unless there is no kubectl.
    pub fn new() -> Option<Self> {
        let dir = has(KUBECTL).then(|| tempfile::tempdir_in("/tmp").unwrap())?;
        Some(Self { dir, port: port::free() })
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a new directory, as text.
    pub fn directory(&self, name: &str) -> String {
        fs::create_dir_all(self.at(name)).unwrap();
        self.at(name).to_str().unwrap().to_owned()
    }

    /// A command of lamina.
    pub fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        for name in ["LAMINA_ROOT", "LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.at("run")).stdin(Stdio::null());
        command.args(words).arg("--root").arg(self.at("root"));
        command
    }

    /// Runs a command of lamina, and returns what it prints.
    #[track_caller]
    pub fn succeeds(&self, words: &[&str]) -> String {
        let output = self.lamina(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command of lamina, which is refused, and returns its error.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.lamina(words).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts a daemon on a node of this name with this configuration, and waits until it listens.
    pub fn start_node(&self, node: &str, config: &str, more: &[&str]) -> Daemon {
        fs::write(self.at("lamina.toml"), config).unwrap();
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        let address = format!("127.0.0.1:{}", self.port);
        let mut words = vec!["serve", "--kube", &address];
        if !node.is_empty() {
            words.extend(["--node", node]);
        }
        words.extend(more);
        let mut command = self.lamina(&words);
        command.arg("--config").arg(self.at("lamina.toml")).stdout(Stdio::null()).stderr(log);
        let mut daemon = Daemon(command.spawn().unwrap());
        until("the start", || {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            TcpStream::connect(&address).is_ok() && self.write_kubeconfig()
        });
        daemon
    }

    /// What the daemons logged.
    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
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

    /// Starts kubectl.
    pub fn spawn_kubectl(&self, words: &[&str]) -> Child {
        let mut command = Command::new(KUBECTL);
        command.arg("--kubeconfig").arg(self.at("kubeconfig")).args(words);
        command.env("HOME", self.dir.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs kubectl with a manifest on its standard input.
    pub fn kubectl(&self, words: &[&str], manifest: &str) -> Output {
        let mut child = self.spawn_kubectl(words);
        // A kubectl that reads no manifest may have ended.
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap_or_default();
        child.wait_with_output().unwrap()
    }

    /// Runs kubectl and returns what it prints.
    #[track_caller]
    pub fn good(&self, words: &str) -> String {
        let output = self.kubectl(&words.split(' ').collect::<Vec<_>>(), "");
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl with a manifest, which is refused, and returns its error.
    #[track_caller]
    pub fn refused(&self, words: &str, manifest: &str) -> String {
        let output = self.kubectl(&words.split(' ').collect::<Vec<_>>(), manifest);
        assert!(!output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let output = self.kubectl(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{manifest}: {output:?}");
    }

    fn look(&self, object: &str, path: &str) -> Output {
        let path = format!("jsonpath={{{path}}}");
        self.kubectl(&["get", object, "-o", &path, "--ignore-not-found"], "")
    }

    /// A field of an object; empty if the object or the field is missing.
    #[track_caller]
    pub fn field(&self, object: &str, path: &str) -> String {
        let output = self.look(object, path);
        assert!(output.status.success(), "{object}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a field has a value. The daemon may be started again meanwhile.
    #[track_caller]
    pub fn until_field(&self, object: &str, path: &str, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let output = self.look(object, path);
            let found = String::from_utf8(output.stdout).unwrap();
            if output.status.success() && found == wanted {
                return;
            }
            if Instant::now() > deadline {
                let all = self.kubectl(&["describe", "pv,pvc,pods"], "");
                let (all, log) = (String::from_utf8_lossy(&all.stdout), self.log());
                panic!("{object} {path} is {found:?}, not {wanted:?}: {all}{log}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[track_caller]
    pub fn until_phase(&self, object: &str, wanted: &str) {
        self.until_field(object, ".status.phase", wanted);
    }

    #[track_caller]
    pub fn until_gone(&self, object: &str) {
        self.until_field(object, ".metadata.name", "");
    }

    /// Waits until an object (`pod/NAME`) has an event of a reason, and returns its message.
    #[track_caller]
    pub fn event(&self, object: &str, reason: &str) -> String {
        let (_, name) = object.split_once('/').unwrap();
        let selector = format!("involvedObject.name={name},reason={reason}");
        let mut found = String::new();
        until(&format!("event {reason} of {object}"), || {
            found = self.good(&format!(
                "get events --field-selector {selector} -o jsonpath={{.items[*].message}}"
            ));
            !found.is_empty()
        });
        found
    }
}
