//! The host of a scenario: users, `/dev/fuse`, processes, mounts.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{self, Site};

/// The user of the scenarios without root.
pub const USER: &str = "lamina-test";
const USER_ID: u32 = 60_001;
/// The time limit for daemons to end.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// A user that exists only in this mount namespace.
#[derive(Debug, Clone)]
pub struct User {
    pub id: u32,
    pub home: String,
    /// The directories of programs.
    pub path: String,
}

impl User {
    /// Adds the user to `/etc/passwd` and related files, with 65,536 subordinate ids.
    pub fn add(site: &Site) -> Self {
        let home = site.directory("home/lamina-test");
        let (id, first) = (USER_ID, USER_ID * 65_536);
        let rows = [
            ("passwd", format!("{USER}:x:{id}:{id}::{home}:/bin/bash")),
            ("group", format!("{USER}:x:{id}:")),
            ("shadow", format!("{USER}:*:19000::::::")),
            ("subuid", format!("{USER}:{first}:65536")),
            ("subgid", format!("{USER}:{first}:65536")),
        ];
        for (name, row) in rows {
            let real = format!("/etc/{name}");
            fs::File::options().create(true).append(true).open(&real).expect("a table of users");
            harness::call("cp", &["-a", &real, site.scratch()]).expect();
            let text = fs::read_to_string(&real).expect("a table of users");
            let is_other = |line: &&str| !line.starts_with(&format!("{USER}:"));
            let mut lines: Vec<&str> = text.lines().filter(is_other).collect();
            lines.push(&row);
            let own = site.write(name, lines.join("\n") + "\n");
            harness::call("mount", &["--bind", &own, &real]).expect();
        }
        let run = site.directory("home/lamina-test/run");
        for path in [&home, &run] {
            chown(path, Some(id), Some(id)).expect("a directory of the user");
        }
        Self { id, home, path: std::env::var("PATH").expect("PATH") }
    }

    /// A command of this user, without root's environment.
    pub fn command(&self, variables: &[(&'static str, String)], program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--reset-env", "env"]);
        command.arg(format!("HOME={}", self.home)).arg(format!("USER={USER}"));
        command.arg(format!("XDG_RUNTIME_DIR={}/run", self.home));
        command.arg(format!("PATH={}", self.path));
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program).current_dir(&self.home);
        command
    }
}

/// Gives all users access to `/dev/fuse`, and hides the half-migrated cgroup hierarchy, which crun
/// refuses; only in this mount namespace.
pub fn allow_rootless(site: &Site) {
    let dev = site.directory("dev");
    harness::call("mount", &["-t", "tmpfs", "-o", "mode=755", "dev", &dev]).expect();
    let fuse = format!("{dev}/fuse");
    harness::call("mknod", &["-m", "666", &fuse, "c", "10", "229"]).expect();
    harness::call("mount", &["--bind", &fuse, "/dev/fuse"]).expect();
    let unified = "/sys/fs/cgroup/unified";
    if mounts().iter().any(|mount| mount.target == unified) {
        harness::call("umount", &[unified]).expect();
    }
}

/// Gives a directory and its content to the user.
pub fn give(user: &User, path: &str) {
    harness::call("chown", &["-R", &format!("{0}:{0}", user.id), path]).expect();
}

/// A mount of this namespace.
pub struct Mounted {
    pub target: String,
    pub kind: String,
}

/// The mounts of this namespace.
pub fn mounts() -> Vec<Mounted> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    let mount = |line: &str| {
        let (places, kinds) = line.split_once(" - ")?;
        let (target, kind) = (places.split(' ').nth(4)?, kinds.split(' ').next()?);
        Some(Mounted { target: target.to_owned(), kind: kind.to_owned() })
    };
    table.lines().filter_map(mount).collect()
}

/// The FUSE mounts below a directory.
pub fn fuse_mounts(below: &str) -> Vec<String> {
    let is_fuse = |mount: &Mounted| mount.kind == "fuse" || mount.kind.starts_with("fuse.");
    let found = mounts().into_iter().filter(|mount| is_fuse(mount));
    found.map(|mount| mount.target).filter(|target| target.contains(below)).collect()
}

/// The arguments of the processes of this namespace whose name or arguments contain a text.
fn processes(is_wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("the processes").flatten() {
        let directory = entry.path();
        let read = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
        let name = String::from_utf8_lossy(&read("comm")).trim_end().to_owned();
        // A process that has ended and was not yet collected has no arguments.
        let args = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        if !args.is_empty() && is_wanted(&name, &args) {
            found.push(args);
        }
    }
    found
}

/// Waits until no process of a program is left. Returns those that are.
pub fn left_of(program: &Path) -> Vec<String> {
    let name = program.file_name().expect("a program").to_string_lossy();
    // The kernel keeps only 15 characters.
    let name: String = name.chars().take(15).collect();
    left(|process, _| process == name)
}

/// Waits until no process with a text in its arguments is left. Returns those that are.
pub fn left_with(text: &str) -> Vec<String> {
    left(|_, args| args.contains(text))
}

fn left(is_wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    harness::until(LEAVE_LIMIT, || {
        found = processes(&is_wanted);
        found.is_empty()
    });
    found
}
