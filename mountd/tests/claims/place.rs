//! A data root with a daemon, and `kubectl` as its client.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::manifests::{claim, class, pod};
use crate::port;
use crate::programs::has;
use crate::until::until;

/// For what should happen soon.
const WAIT: Duration = Duration::from_secs(60);
const KUBECTL: &str = "/usr/bin/kubectl";

/// A data root below /tmp, where directories of volumes may be deleted.
pub struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

/// A running daemon. It is killed when it is dropped.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

impl Daemon {
    /// The processor time that it has used.
    fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name of the program, in parentheses, may have blanks. utime and stime are the 14th
        // and the 15th field, in hundredths of a second.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Ends in order.
    pub fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Place {
    /// A place, unless this host has no kubectl. To have none is a failure where nothing may be
    /// skipped.
    pub fn new() -> Option<Self> {
        if !has(KUBECTL) {
            return None;
        }
        let dir = tempfile::tempdir_in("/tmp").unwrap();
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

    /// Starts a daemon with this configuration, and waits until it listens.
    pub fn start_with(&self, config: &str) -> Daemon {
        self.start_node("here", config, &[])
    }

    /// Starts a daemon on the node of this host, whatever its name is.
    pub fn start_anywhere(&self) -> Daemon {
        self.start_node("", "", &[])
    }

    /// Starts a daemon that serves the CSI driver too, and metrics.
    pub fn start_csi(&self) -> Daemon {
        let [csi, metrics] = ["csi.sock", "metrics.sock"].map(|name| self.at(name));
        let (csi, metrics) = (csi.to_str().unwrap(), format!("unix:{}", metrics.to_str().unwrap()));
        self.start_node("here", "", &["--csi", csi, "--metrics", &metrics])
    }

    /// Starts a daemon on a node of a name.
    fn start_as(&self, node: &str) -> Daemon {
        self.start_node(node, "", &[])
    }

    fn start_node(&self, node: &str, config: &str, more: &[&str]) -> Daemon {
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
            assert!(ended.is_none(), "{}", fs::read_to_string(self.at("log")).unwrap());
            TcpStream::connect(&address).is_ok() && self.write_kubeconfig()
        });
        daemon
    }

    pub fn start(&self) -> Daemon {
        self.start_with("")
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

    /// Runs kubectl with a manifest on its standard input.
    pub fn kubectl(&self, words: &[&str], manifest: &str) -> Output {
        let mut command = Command::new(KUBECTL);
        command.arg("--kubeconfig").arg(self.at("kubeconfig")).args(words);
        command.env("HOME", self.dir.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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

    /// Runs kubectl, which is refused, and returns what it says.
    #[track_caller]
    pub fn refused(&self, words: &[&str], manifest: &str) -> String {
        let output = self.kubectl(words, manifest);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let output = self.kubectl(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{manifest}: {output:?}");
    }

    /// A field of an object; empty if the object, the field or the daemon is missing.
    pub fn field(&self, object: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let words = ["get", object, "-o", &path, "--ignore-not-found"];
        String::from_utf8(self.kubectl(&words, "").stdout).unwrap()
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
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("{object} {path} is {found:?}, not {wanted:?}: {}", self.good("describe pv,pvc"));
    }

    #[track_caller]
    pub fn until_phase(&self, object: &str, wanted: &str) {
        self.until_field(object, ".status.phase", wanted);
    }

    #[track_caller]
    pub fn until_gone(&self, object: &str) {
        self.until_field(object, ".metadata.name", "");
    }

    /// Waits until an object has an event of a reason, and returns its message.
    #[track_caller]
    pub fn event(&self, object: &str, reason: &str) -> String {
        let (kind, name) = object.split_once('/').unwrap();
        let selector = format!("involvedObject.name={name},reason={reason}");
        let mut found = String::new();
        until(&format!("event {reason} of {kind} {name}"), || {
            found = self.good(&format!(
                "get events --field-selector {selector} -o jsonpath={{.items[*].message}}"
            ));
            !found.is_empty()
        });
        found
    }

    /// The version of all objects.
    #[track_caller]
    fn version(&self) -> String {
        let list: Value = serde_json::from_str(&self.good("get --raw /api/v1/events")).unwrap();
        list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    /// Waits until nothing is written any more, and checks that the daemon is idle then.
    #[track_caller]
    fn check_idle(&self, daemon: &Daemon) {
        let mut version = self.version();
        until("the last write", || {
            std::thread::sleep(Duration::from_millis(500));
            let before = std::mem::replace(&mut version, self.version());
            before == version
        });
        let used = daemon.processor_time();
        std::thread::sleep(Duration::from_secs(2));
        let used = daemon.processor_time().saturating_sub(used);
        assert!(used < Duration::from_millis(300), "{used:?} of processor time in 2 s");
        assert_eq!(self.version(), version, "something was written: {}", self.good("get events"));
    }

    /// Runs a command of lamina with a manifest on its standard input.
    pub fn lamina_with(&self, words: &[&str], manifest: &str) -> Output {
        let mut command = self.lamina(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that reads no manifest may have ended.
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap_or_default();
        child.wait_with_output().unwrap()
    }

    /// Applies a manifest with lamina, and returns what it prints.
    #[track_caller]
    pub fn applies(&self, manifest: &str) -> String {
        let output = self.lamina_with(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "{manifest}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command of lamina, and returns what it prints.
    #[track_caller]
    pub fn prints(&self, words: &[&str]) -> String {
        let output = self.lamina_with(words, "");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The path of a new file, as text.
    pub fn file(&self, name: &str, content: &str) -> String {
        fs::write(self.at(name), content).unwrap();
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Runs a command of lamina.
    #[track_caller]
    pub fn succeeds(&self, words: &[&str]) {
        let output = self.lamina(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    /// Runs a command of lamina, which is refused, and returns what it says.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.lamina(words).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The volumes of the data root.
    #[track_caller]
    pub fn volumes(&self) -> Vec<Value> {
        self.json(&["volume", "ls", "--json"])
    }

    /// What a command of lamina prints as a list.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        let output = self.lamina(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn pods_that_cannot_be_placed_leave_the_daemon_idle() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    let delayed = "volumeBindingMode: WaitForFirstConsumer";
    place.apply(&class("delayed", "kubernetes.io/no-provisioner", delayed));
    place.apply(&claim("unbound", "1Gi", "storageClassName: \"\""));
    place.apply(&claim("delayed", "1Gi", "storageClassName: delayed"));
    place.apply(&claim("lonely", "1Gi", "storageClassName: delayed"));
    let held = pod("held", "missing").replace("{name: held}", "{name: held, finalizers: [a/b]}");
    place.apply(&held);
    for name in ["missing", "unbound", "delayed"] {
        place.apply(&pod(&format!("needs-{name}"), name));
        place.event(&format!("pod/needs-{name}"), "FailedScheduling");
    }
    place.event("pvc/lonely", "WaitForFirstConsumer");
    place.good("delete pod held --wait=false");
    place.check_idle(&daemon);
    // Nobody waits for a held pod: it goes with its finalizer.
    place.good("patch pod held --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    place.until_gone("pod/held");
    place.apply(&pod("late", "missing"));
    place.event("pod/late", "FailedScheduling");
    place.good("cordon here");
    place.check_idle(&daemon);
}

#[test]
fn a_host_with_a_new_name_serves_claims_that_wait_for_a_pod() {
    let Some(place) = Place::new() else { return };
    let delayed = "volumeBindingMode: WaitForFirstConsumer";
    place.start_as("aaa").end();
    let _daemon = place.start();
    place.apply(&class("delayed", "lamina.dev/volume", delayed));
    place.apply(&(claim("data", "1Gi", "storageClassName: delayed") + &pod("web", "data")));
    place.until_field("pod/web", ".spec.nodeName", "here");
    let has_id = fs::read_to_string("/etc/machine-id").is_ok_and(|id| !id.trim().is_empty());
    let wanted = if has_id { "Unknown" } else { "True" };
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    assert_eq!(place.field("node/aaa", ready), wanted);
}
