//! A host whose daemon serves claims.

use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kubectl::{Daemon, Host};
use crate::manifests::{claim, class, pod};
use crate::until::until;

/// A data root below /tmp, where directories of volumes may be deleted.
pub struct Place(Host);

impl Deref for Place {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
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
    /// A place, unless there is no kubectl.
    pub fn new() -> Option<Self> {
        Host::new().map(Self)
    }

    pub fn start(&self) -> Daemon {
        self.start_with("")
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

    /// Waits until a field has a value, and returns it. The daemon may be killed meanwhile.
    #[track_caller]
    pub fn awaited(&self, object: &str, path: &str) -> String {
        let words = ["get", object, "-o", &format!("jsonpath={{{path}}}")];
        let mut found = Vec::new();
        until(path, || {
            let output = self.kubectl(&words, "");
            found = output.stdout;
            output.status.success() && !found.is_empty()
        });
        String::from_utf8(found).unwrap()
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

    /// The volumes of the data root.
    #[track_caller]
    pub fn volumes(&self) -> Vec<Value> {
        self.json(&["volume", "ls", "--json"])
    }

    /// What a command of lamina prints as a list.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        serde_json::from_str(&self.succeeds(words)).unwrap()
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
    place.start_node("aaa", "", &[]).end();
    let _daemon = place.start();
    place.apply(&class("delayed", "lamina.dev/volume", delayed));
    place.apply(&(claim("data", "1Gi", "storageClassName: delayed") + &pod("web", "data")));
    place.until_field("pod/web", ".spec.nodeName", "here");
    let has_id = fs::read_to_string("/etc/machine-id").is_ok_and(|id| !id.trim().is_empty());
    let wanted = if has_id { "Unknown" } else { "True" };
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    assert_eq!(place.field("node/aaa", ready), wanted);
}
