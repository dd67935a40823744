//! A container as the OCI runtime gets it.
//!
//! Mounts, processes, System V objects and the name of the host are its own; the network is that of
//! the host unless it is asked for one without devices.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::user::User;
use crate::kube::meta::set;

/// All capabilities, by their numbers in the kernel (capabilities(7)).
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    MKNOD,
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Those that a container has unless its user changes them, as with other engines.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    MKNOD,
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// It is only given where a cgroup keeps the container from the devices of the host.
const MKNOD: &str = "MKNOD";
/// The search path of a container whose image has none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The file or directory of the host.
    pub source: PathBuf,
    /// The path in the container.
    pub target: String,
    /// Whether the container cannot write to it.
    pub read_only: bool,
    /// How later mounts spread: `rprivate`, `rslave` or `rshared`.
    pub propagation: &'static str,
}

/// A container to be run.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its name for the runtime.
    pub id: String,
    /// Its root.
    pub root: PathBuf,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Variables.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// Whom it runs as.
    pub user: User,
    /// The name of its host.
    pub hostname: String,
    /// What it gets of volumes and files.
    pub binds: Vec<Bind>,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Whether programs can gain rights.
    pub may_gain: bool,
    /// Whether it has the rights of the host.
    pub is_privileged: bool,
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Whether it sees the processes of the host, and its System V objects.
    pub of_host: [bool; 2],
    /// Limits, in the form of the OCI runtime.
    pub resources: Value,
    /// Whether it has a network of its own, without devices.
    pub is_offline: bool,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// How soon the kernel ends it when memory is short.
    pub badness: i32,
}

/// The capabilities that this process has and can give.
pub fn own_capabilities() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
    };
    mask("CapPrm:") & mask("CapBnd:")
}

/// The capabilities of `own` that a container gets. The function decides by the name and by whether
/// a container has it by default.
pub fn capabilities(
    has_cgroup: bool,
    own: u64,
    is_given: impl Fn(&str, bool) -> bool,
) -> Vec<String> {
    let is_usual = |name: &str| USUAL.contains(&name) && (has_cgroup || name != MKNOD);
    let all = ALL.iter().enumerate().filter(|(bit, _)| own >> bit & 1 == 1);
    let given = all.map(|(_, name)| *name).filter(|name| is_given(name, is_usual(name)));
    given.map(str::to_owned).collect()
}

/// Capabilities of a program, in the form of the OCI runtime.
pub fn held(capabilities: &[String]) -> Value {
    let all: Vec<String> = capabilities.iter().map(|one| format!("CAP_{one}")).collect();
    json!({"bounding": all, "effective": all, "permitted": all})
}

impl Launch {
    /// Adds a file of the host, unless a volume has its place.
    pub fn add_file(&mut self, source: PathBuf, target: &str) {
        if !self.binds.iter().any(|bind| bind.target == target) {
            let (target, propagation) = (target.to_owned(), "rprivate");
            self.binds.push(Bind { source, target, read_only: false, propagation });
        }
    }

    /// The configuration of the OCI runtime. With `cgroup` the container gets one of that name.
    pub fn config(&self, cgroup: Option<&str>) -> Value {
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "rootfsPropagation": self.propagation(),
        });
        if !self.is_privileged {
            set(&mut linux, "maskedPaths", Some(json!(MASKED)));
            set(&mut linux, "readonlyPaths", Some(json!(READ_ONLY)));
        }
        if let Some(path) = cgroup {
            let mut resources = self.resources.clone();
            set(
                &mut resources,
                "devices",
                Some(json!([{"allow": self.is_privileged, "access": "rwm"}])),
            );
            set(&mut linux, "resources", Some(resources));
            set(&mut linux, "cgroupsPath", Some(json!(path)));
        }
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": self.has_terminal,
                "user": self.user.of_runtime(),
                "args": self.args,
                "env": self.env,
                "cwd": self.cwd,
                "capabilities": held(&self.capabilities),
                "noNewPrivileges": !self.may_gain,
                "oomScoreAdj": self.badness,
            },
            "root": {"path": self.root, "readonly": self.read_only},
            "hostname": self.hostname,
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    fn namespaces(&self) -> Vec<Value> {
        let [pid, ipc] = self.of_host;
        let all = [
            ("mount", true),
            ("uts", true),
            ("pid", !pid),
            ("ipc", !ipc),
            ("network", self.is_offline),
        ];
        all.into_iter().filter(|(_, own)| *own).map(|(name, _)| json!({"type": name})).collect()
    }

    /// How mounts spread between the container and the host: as far as any of its volumes asks.
    fn propagation(&self) -> &'static str {
        let has = |how: &str| self.binds.iter().any(|bind| bind.propagation == how);
        if has("rshared") {
            "rshared"
        } else if has("rslave") {
            "rslave"
        } else {
            "rprivate"
        }
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |target: &str, kind: &str, options: &[&str]| {
            json!({
                "destination": target, "type": kind, "source": kind, "options": options,
            })
        };
        let closed = ["nosuid", "noexec", "nodev"];
        let sys: &[&str] = match self.is_privileged {
            true => &["nosuid", "noexec", "nodev", "rw"],
            false => &["nosuid", "noexec", "nodev", "ro"],
        };
        let mut all = vec![mount("/proc", "proc", &closed)];
        if self.is_privileged {
            let options = ["rbind", "rslave"];
            all.push(json!({
                "destination": "/dev", "type": "bind", "source": "/dev", "options": options,
            }));
        } else {
            let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
            all.push(mount("/dev", "tmpfs", &dev));
            let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
            all.push(mount("/dev/pts", "devpts", &pts));
            let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
            all.push(mount("/dev/shm", "tmpfs", &shm));
            all.push(mount("/dev/mqueue", "mqueue", &closed));
        }
        all.push(mount("/sys", "sysfs", sys));
        for bind in &self.binds {
            let access = if bind.read_only { "ro" } else { "rw" };
            all.push(json!({
                "destination": bind.target,
                "type": "bind",
                "source": bind.source,
                "options": ["rbind", access, bind.propagation],
            }));
        }
        all
    }
}

/// What a container does not see of the kernel.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// What it cannot write.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
