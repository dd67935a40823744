//! A container as the OCI runtime gets it.
//!
//! All containers use the network of the host. Mounts, processes, System V objects and the name of
//! the host are their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::env::Variables;
use super::fault::Fault;
use super::plan::{Container, Plan};
use super::user::User;
use super::volumes::Bind;
use crate::kube::meta::{set, text};

/// The most bytes of command, arguments and variables together. The kernel takes as many
/// (execve(2)); variables that many arguments name would otherwise grow without a bound.
const WORDS_MAX: usize = 2 << 20;
/// What a word takes besides its bytes: its end and its address.
const WORD: usize = 9;
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
/// Those that a container has if its pod does not change them, as with other engines.
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
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The period of processor quotas, in microseconds.
const PERIOD: u64 = 100_000;

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
    /// How soon the kernel ends it when memory is short.
    pub badness: i32,
}

fn flag(container: &Container, name: &str) -> Option<bool> {
    container.spec.pointer(&format!("/securityContext/{name}")).and_then(Value::as_bool)
}

fn list(object: &Value, pointer: &str) -> Option<Vec<String>> {
    let list = object.pointer(pointer)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// What is left of [`WORDS_MAX`].
struct Room(usize);

impl Room {
    /// Takes room for a word; without one, it has outgrown what is left.
    fn take(&mut self, word: Option<String>) -> Result<String, Fault> {
        let many = "command, args and variables have more than";
        let many = || Fault::new(format!("{many} {WORDS_MAX} bytes: the kernel takes no more"));
        let word = word.ok_or_else(many)?;
        self.0 = self.0.checked_sub(word.len() + WORD).ok_or_else(many)?;
        Ok(word)
    }

    fn take_all(&mut self, words: Vec<String>) -> Result<Vec<String>, Fault> {
        words.into_iter().map(|word| self.take(Some(word))).collect()
    }
}

/// Command and arguments: those of the pod, where it has them, else those of the image.
///
/// # Errors
/// There are none, or they grow beyond what is left for them.
fn command(
    container: &Container,
    image: &Value,
    variables: &Variables,
    room: &mut Room,
) -> Result<Vec<String>, Fault> {
    let own = |name| list(&container.spec, name).filter(|list| !list.is_empty());
    let (own_command, own_args) = (own("/command"), own("/args"));
    let of_image = |name| list(image, name).unwrap_or_default();
    let mut words = Vec::new();
    let expanded = |words: &[String], room: &mut Room| -> Result<Vec<_>, Fault> {
        words.iter().map(|word| room.take(variables.expand_within(word, room.0))).collect()
    };
    match &own_command {
        Some(command) => words.extend(expanded(command, room)?),
        None => words.extend(room.take_all(of_image("/config/Entrypoint"))?),
    }
    match (&own_args, &own_command) {
        (Some(args), _) => words.extend(expanded(args, room)?),
        (None, None) => words.extend(room.take_all(of_image("/config/Cmd"))?),
        (None, Some(_)) => {}
    }
    if words.is_empty() {
        return Err(Fault::new("no command specified"));
    }
    Ok(words)
}

/// The capabilities that this process has and can give.
fn own_capabilities() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
    };
    mask("CapPrm:") & mask("CapBnd:")
}

/// The capabilities of a container: a subset of `own`, since nobody can give more.
fn capabilities(container: &Container, has_cgroup: bool, own: u64) -> Vec<String> {
    let of = |name: &str| -> Vec<String> {
        let listed = list(&container.spec, &format!("/securityContext/capabilities/{name}"));
        let listed = listed.unwrap_or_default().into_iter();
        listed.map(|one| one.trim_start_matches("CAP_").to_uppercase()).collect()
    };
    let (added, dropped) = (of("add"), of("drop"));
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let is_whole = flag(container, "privileged") == Some(true) || has(&added, "ALL");
    let is_given = |name: &str| {
        let is_usual = USUAL.contains(&name) && (has_cgroup || name != MKNOD);
        let is_dropped = has(&dropped, name) || (has(&dropped, "ALL") && !is_whole);
        has(&added, name) || ((is_whole || is_usual) && !is_dropped)
    };
    let all = ALL.iter().enumerate().filter(|(bit, _)| own >> bit & 1 == 1);
    all.map(|(_, name)| (*name).to_owned()).filter(|name| is_given(name)).collect()
}

/// Thousandths of a processor.
fn milli(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(number) => number.parse().ok(),
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((text, ""));
            let part: String = format!("{part}000").chars().take(3).collect();
            Some(whole.parse::<u64>().ok()?.saturating_mul(1000) + part.parse::<u64>().ok()?)
        }
    }
}

/// Limits of memory and processors.
fn resources(container: &Container) -> Value {
    let amount = |pointer: &str| container.spec.pointer(pointer).and_then(Value::as_str);
    let mut found = json!({});
    let bytes = super::files::limit(&container.spec, "/resources/limits/memory");
    if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
        set(&mut found, "memory", Some(json!({"limit": bytes})));
    }
    let mut cpu = json!({});
    if let Some(quota) = amount("/resources/limits/cpu").and_then(milli) {
        set(&mut cpu, "quota", Some(json!((quota.saturating_mul(PERIOD) / 1000).max(1000))));
        set(&mut cpu, "period", Some(json!(PERIOD)));
    }
    if let Some(shares) = amount("/resources/requests/cpu").and_then(milli) {
        set(
            &mut cpu,
            "shares",
            Some(json!((shares.saturating_mul(1024) / 1000).clamp(2, 262_144))),
        );
    }
    set(&mut found, "cpu", Some(cpu));
    found
}

impl Launch {
    /// Describes a container whose root is mounted.
    ///
    /// # Errors
    /// No command, or one that is too long.
    pub fn new(
        (plan, container): (&Plan, &Container),
        image: &Value,
        (variables, user): (&Variables, User),
        (root, id): (&Path, String),
        has_cgroup: bool,
    ) -> Result<Self, Fault> {
        let spec = |pointer: &str| plan.object.pointer(pointer).and_then(Value::as_bool);
        let hostname = match text(&plan.object, "/spec/hostname") {
            "" => &plan.name,
            name => name,
        };
        let cwd = [text(&container.spec, "/workingDir"), text(image, "/config/WorkingDir"), "/"];
        let mut env = variables.lines();
        let has = |name: &str, env: &[String]| env.iter().any(|one| one.starts_with(name));
        if !has("PATH=", &env) {
            env.push(PATH.to_owned());
        }
        if !has("HOME=", &env) {
            env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
        }
        if !has("HOSTNAME=", &env) {
            env.push(format!("HOSTNAME={hostname}"));
        }
        let mut room = Room(WORDS_MAX);
        let env = room.take_all(env)?;
        let args = command(container, image, variables, &mut room)?;
        let is_privileged = flag(container, "privileged") == Some(true);
        Ok(Self {
            id,
            root: root.to_owned(),
            args,
            env,
            cwd: cwd.into_iter().find(|cwd| !cwd.is_empty()).unwrap_or("/").to_owned(),
            user,
            hostname: hostname.chars().take(63).collect(),
            binds: Vec::new(),
            read_only: flag(container, "readOnlyRootFilesystem") == Some(true),
            may_gain: flag(container, "allowPrivilegeEscalation") != Some(false),
            is_privileged,
            capabilities: capabilities(container, has_cgroup, own_capabilities()),
            of_host: ["/spec/hostPID", "/spec/hostIPC"].map(|at| spec(at) == Some(true)),
            resources: resources(container),
            badness: match text(&plan.object, "/status/qosClass") {
                "Guaranteed" => 0,
                "Burstable" => 500,
                _ => 1000,
            },
        })
    }

    /// Adds a file of the host, unless a volume has its place.
    pub fn add_file(&mut self, source: PathBuf, target: &str) {
        if !self.binds.iter().any(|bind| bind.target == target) {
            let (target, propagation) = (target.to_owned(), "rprivate");
            self.binds.push(Bind { source, target, read_only: false, propagation });
        }
    }

    /// The configuration of the OCI runtime. With `cgroup` the container gets one of that name.
    pub fn config(&self, cgroup: Option<&str>) -> Value {
        let capabilities: Vec<String> =
            self.capabilities.iter().map(|one| format!("CAP_{one}")).collect();
        let held = json!({
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
        });
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
                "terminal": false,
                "user": {
                    "uid": self.user.uid,
                    "gid": self.user.gid,
                    "additionalGids": self.user.groups,
                },
                "args": self.args,
                "env": self.env,
                "cwd": self.cwd,
                "capabilities": held,
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
        let all = [("mount", true), ("uts", true), ("pid", !pid), ("ipc", !ipc)];
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

/// Writes the files of a container that its pod makes: names of hosts, and the place of its last
/// message. The container can write to them, so they are beside its volumes and not in memory.
///
/// # Errors
/// As write(2).
pub fn write_files(dir: &Path, hostname: &str, address: &str) -> io::Result<()> {
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts = format!("{}{address}\t{hostname}\n", host("/etc/hosts"));
    let all = [
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", host("/etc/resolv.conf")),
        ("termination-log", String::new()),
    ];
    for (name, content) in all {
        let at = dir.join(name);
        fs::write(&at, content)?;
        let mode = if name == "termination-log" { 0o666 } else { 0o644 };
        fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(spec: Value) -> Container {
        let pod = json!({"spec": {"containers": [spec]}});
        Plan::of(pod).containers.remove(0)
    }

    #[test]
    fn the_command_of_the_pod_replaces_that_of_the_image() {
        let image = json!({"config": {"Entrypoint": ["e"], "Cmd": ["c"]}});
        let variables = Variables::default();
        let of = |spec: Value| {
            let mut room = Room(WORDS_MAX);
            command(&container(spec), &image, &variables, &mut room).unwrap().join(" ")
        };
        assert_eq!(of(json!({})), "e c");
        assert_eq!(of(json!({"args": ["a"]})), "e a");
        assert_eq!(of(json!({"command": ["x"]})), "x");
        assert_eq!(of(json!({"command": ["x"], "args": ["a"]})), "x a");
        command(&container(json!({})), &json!({}), &variables, &mut Room(9)).unwrap_err();
    }

    #[test]
    fn all_words_of_a_command_share_one_bound() {
        let mut variables = Variables::default();
        variables.set("A", "x".repeat(900_000)).unwrap();
        let of = |count: usize| {
            let spec = json!({"command": ["x"], "args": vec!["$(A)"; count]});
            command(&container(spec), &json!({}), &variables, &mut Room(WORDS_MAX))
        };
        assert_eq!(of(2).unwrap().len(), 3);
        let error = of(400).unwrap_err().to_string();
        assert!(error.contains("more than 2097152 bytes"), "{error}");
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let of = |context: Value, has_cgroup, own| {
            let container = container(json!({"securityContext": context}));
            capabilities(&container, has_cgroup, own)
        };
        assert!(of(json!({}), true, u64::MAX).contains(&MKNOD.to_owned()));
        assert!(!of(json!({}), false, u64::MAX).contains(&MKNOD.to_owned()));
        let some = json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NONSENSE"]}});
        assert_eq!(of(some, true, u64::MAX), ["NET_ADMIN"]);
        assert_eq!(of(json!({"privileged": true}), false, u64::MAX).len(), 41);
        // CAP_CHOWN and CAP_NET_ADMIN alone.
        assert_eq!(of(json!({"privileged": true}), true, 1 << 12 | 1), ["CHOWN", "NET_ADMIN"]);
        assert_eq!(of(json!({}), true, 1 << 12 | 1), ["CHOWN"]);
    }

    #[test]
    fn processors_are_read_in_thousandths() {
        let cases = [("500m", Some(500)), ("2", Some(2000)), ("0.25", Some(250)), ("x", None)];
        for (text, wanted) in cases {
            assert_eq!(milli(text), wanted, "{text}");
        }
    }
}
