//! The process of a scenario: namespaces, a time limit, a scratch directory, a log.
//!
//! `unshare` starts `sh` as the first process of the namespaces, which collects orphaned processes,
//! and `sh` starts this program again. When the scenario ends, or is killed at its limit, or this
//! program is killed, its processes and mounts end with the namespaces. A shell outside of them
//! then removes the scratch directory.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{self, Site};
use crate::scenarios::Scenario;

/// The first argument of a scenario's process; its name, scratch directory and tree follow.
pub const FLAG: &str = "--inside";
/// The time limit of a scenario.
const LIMIT: Duration = Duration::from_secs(600);
/// The directory of libmount's table.
const LIBMOUNT: &str = "/run/mount";
/// Remains the first process of its namespaces while the program runs.
const FIRST_PROCESS: &str = "\"$0\" \"$@\"; exit $?";

/// Removes a directory when its standard input ends, even after a signal to all processes.
/// Processes of the scenario may still be ending.
const REMOVE: &str = "trap '' INT TERM HUP; read -r _; for _ in $(seq 200); do \
                      rm -rf --one-file-system \"$0\" && exit 0; sleep 0.1; done; exit 1";

/// State that all scenarios share.
pub struct Place {
    logs: PathBuf,
    tree: String,
}

/// Checks that scenarios can run on this host, and makes the Debian tree.
pub fn prepare() -> Result<Place, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root, for mounts and users".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("needs /dev/fuse".to_owned());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
    let logs = target.join("clients");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/debian-tree");
    let made = Command::new(script).stderr(Stdio::inherit()).output();
    let made = made.map_err(|error| format!("{script}: {error}"))?;
    let tree = String::from_utf8_lossy(&made.stdout).trim_end().to_owned();
    if !made.status.success() || !Path::new(&tree).is_dir() {
        return Err(format!("{script} makes no Debian tree"));
    }
    Ok(Place { logs, tree })
}

impl Place {
    /// Runs a scenario and prints its checks. Returns whether all of them hold.
    pub fn run(&self, scenario: &Scenario) -> bool {
        println!("# {}", scenario.name);
        let parent = std::env::var_os("LAMINA_SCRATCH").map_or_else(std::env::temp_dir, Into::into);
        let scratch = tempfile::Builder::new().prefix("lamina-").tempdir_in(parent);
        let scratch = scratch.expect("a scratch directory").keep();
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).expect("0755");
        let mut remover = Command::new("sh")
            .args(["-c", REMOVE])
            .arg(&scratch)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let log = self.logs.join(format!("{}.log", scenario.name));
        let mut child = self.start(scenario, &scratch, &log);
        let ended = wait(&mut child, LIMIT);
        let text = String::from_utf8_lossy(&fs::read(&log).expect("a log")).into_owned();
        let is_check = |line: &&str| line.starts_with("ok ") || line.starts_with("FAIL ");
        text.lines().filter(is_check).for_each(|line| println!("{line}"));
        let failed = text.lines().any(|line| line.starts_with("FAIL "));
        let last = text.lines().last().unwrap_or_default();
        match ended {
            None => {
                println!("FAIL {}: not done after {} s: {last}", scenario.name, LIMIT.as_secs())
            }
            Some(false) if !failed => println!("FAIL {}: ended early: {last}", scenario.name),
            Some(_) => {}
        }
        drop(remover.stdin.take());
        let removed = remover.wait().expect("a child").success();
        if !removed {
            println!("FAIL {}: {} cannot be removed", scenario.name, scratch.display());
        }
        ended == Some(true) && !failed && removed
    }

    fn start(&self, scenario: &Scenario, scratch: &Path, log: &Path) -> Child {
        let log = File::create(log).expect("a log");
        let own = std::env::current_exe().expect("the path of the test");
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", FIRST_PROCESS])
            .arg(own)
            .args([FLAG, scenario.name])
            .arg(scratch)
            .arg(&self.tree)
            .env_remove("LD_LIBRARY_PATH")
            .env("LAMINA_BIN", harness::program())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("setpriv starts")
    }
}

/// Waits for a process and kills it at the limit. Returns whether it succeeded, if it ended in
/// time.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let deadline = Instant::now() + limit;
    let mut status = None;
    harness::until(limit, || {
        status = child.try_wait().expect("a child");
        status.is_some() || Instant::now() >= deadline
    });
    if status.is_none() {
        child.kill().expect("a child is killed");
        child.wait().expect("a killed child ends");
    }
    status.map(|status| status.success())
}

/// Runs a scenario in this process, which has namespaces of its own.
pub fn inside(scenario: &Scenario, scratch: &str, tree: &str) -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut site = Site::new(scenario.prefix, scratch, tree);
    if Path::new(LIBMOUNT).exists() {
        // Mounts write rows into the table there.
        harness::run(Command::new("mount").args(["-t", "tmpfs", "libmount", LIBMOUNT])).expect();
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut site))) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        println!("FAIL {}: ended early: {}", scenario.name, text.replace('\n', " "));
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::from(site.failed() > 0))
}
