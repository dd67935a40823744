//! A data root with its driver, and all of the host that belongs to it: mounts, loop devices,
//! processes and descriptors.

use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::until::until;
use crate::wire::ProbeRequest;

/// For what should happen soon.
const WAIT: Duration = Duration::from_secs(30);
pub const NODE: &str = "here";
pub const NAME: &str = "csi.lamina.dev";
pub const NODE_KEY: &str = "csi.lamina.dev/node";
pub const MIB: u64 = 1 << 20;

/// A data root below /tmp, and its driver. Mounts and processes end when it is dropped.
pub struct Host {
    // The order in which they are dropped.
    dir: tempfile::TempDir,
    at: PathBuf,
    role: String,
    runtime: Runtime,
    driver: Mutex<Option<Child>>,
    _ground: Arc<Ground>,
}

/// What a driver uses of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub mounts: Vec<PathBuf>,
    pub loops: Vec<String>,
    pub processes: Vec<String>,
}

/// A file system on which files share blocks, as a snapshot of a device in use needs it. All hosts
/// of the process use it, and the last one removes it.
struct Ground {
    image: PathBuf,
    at: PathBuf,
}

static GROUND: Mutex<Weak<Ground>> = Mutex::new(Weak::new());

impl Ground {
    fn get() -> Arc<Self> {
        let mut ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = ground.upgrade() {
            return there;
        }
        let new = Arc::new(Self::new());
        *ground = Arc::downgrade(&new);
        new
    }

    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let at = PathBuf::from(format!("/tmp/lamina-csi-{}-{number}", std::process::id()));
        let image = at.with_extension("xfs");
        File::create_new(&image).unwrap().set_len(64 << 30).unwrap();
        fs::create_dir(&at).unwrap();
        let run = |program: &str, words: &[&str]| {
            let done = Command::new(program).args(words).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        let (file, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mkfs.xfs", &["-q", "-K", "-m", "reflink=1", file]);
        run("mount", &["-o", "loop", file, place]);
        Self { image, at }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A process that was just killed may have a file open.
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH).ok();
        drop(fs::remove_dir(&self.at));
        drop(fs::remove_file(&self.image));
    }
}

/// Whether the tests can run: they mount. Not to be able to is a failure where nothing may be
/// skipped.
pub fn can_run() -> bool {
    let programs = ["mkfs.ext4", "mkfs.xfs"].map(|name| Path::new("/usr/sbin").join(name));
    let files = programs.into_iter().chain(["/dev/fuse", "/dev/loop-control"].map(PathBuf::from));
    let missing: Vec<PathBuf> = files.filter(|file| !file.exists()).collect();
    let can = missing.is_empty() && rustix::process::geteuid().is_root();
    let is_strict = std::env::var_os("LAMINA_NO_SKIP").is_some();
    assert!(can || !is_strict, "needs root and {missing:?}");
    if !can {
        eprintln!("SKIPPED: needs root and {missing:?}");
    }
    can
}

impl Host {
    /// A host whose driver offers all services, unless this one lacks something.
    pub fn new() -> Option<Self> {
        Self::with_role("all")
    }

    pub fn with_role(role: &str) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let ground = Ground::get();
        let dir = tempfile::tempdir_in(&ground.at).unwrap();
        let at = fs::canonicalize(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let role = role.to_owned();
        let host = Self { dir, at, role, runtime, driver: Mutex::new(None), _ground: ground };
        host.write_config("");
        fs::create_dir(host.at("kubelet")).unwrap();
        host.start();
        Some(host)
    }

    /// A path beside the data root.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.at("csi.sock")
    }

    pub fn write_config(&self, text: &str) {
        fs::write(self.at("lamina.toml"), text).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    /// A client with a new connection.
    pub fn client(&self) -> Client {
        Client::new(self.runtime.handle(), &self.socket())
    }

    /// A client of another socket.
    pub fn client_of(&self, socket: &Path) -> Client {
        Client::new(self.runtime.handle(), socket)
    }

    fn driver(&self) -> MutexGuard<'_, Option<Child>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `lamina ..` on the data root, not started yet.
    pub fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        for name in ["LAMINA_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS"] {
            command.env_remove(name);
        }
        command.env("LAMINA_RUNTIME_DIR", self.at("run")).env("LAMINA_ROOT", self.at("root"));
        command.args(words).stdin(Stdio::null());
        command
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(self.at("log")).unwrap();
        let socket = format!("unix://{}", self.socket().display());
        let mut command = self.lamina(&["serve", "--csi", &socket, "--csi-role", &self.role]);
        command.args(["--node", NODE, "--root"]).arg(self.at("root"));
        command.arg("--config").arg(self.at("lamina.toml")).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts the driver and waits until it answers.
    pub fn start(&self) {
        let mut driver = self.driver();
        assert!(driver.is_none(), "it runs already");
        let child = driver.insert(self.command().spawn().unwrap());
        let client = self.client();
        until("the start", || {
            assert!(child.try_wait().unwrap().is_none(), "{}", self.log());
            client.probe(ProbeRequest {}).is_ok()
        });
    }

    /// Starts a second driver for the same socket, which ends, and returns what it says.
    pub fn refused_driver(&self) -> String {
        let output = self.command().stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success(), "a second driver took the socket");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn end_by(&self, signal: Signal) -> std::process::ExitStatus {
        let mut child = self.driver().take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut status = None;
        until("the end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Ends the driver in order.
    pub fn end(&self) {
        let status = self.end_by(Signal::TERM);
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn kill(&self) {
        self.end_by(Signal::KILL);
    }

    /// Kills the driver and starts it again.
    pub fn restart(&self) {
        self.kill();
        self.start();
    }

    pub fn pid(&self) -> u32 {
        self.driver().as_ref().unwrap().id()
    }

    /// The mount points below the host, the last one first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read("/proc/self/mountinfo").unwrap();
        let lines = table.split(|byte| *byte == b'\n');
        let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        let points =
            points.map(|text| PathBuf::from(std::ffi::OsString::from_vec(unescaped(text))));
        let mut points: Vec<PathBuf> = points.filter(|at| at.starts_with(&self.at)).collect();
        points.reverse();
        points
    }

    pub fn is_mounted(&self, path: &Path) -> bool {
        self.mounts().iter().any(|at| at == path)
    }

    /// The processes of the host, but the driver.
    fn processes(&self) -> Vec<(i32, String)> {
        let own = std::process::id();
        let driver = self.driver().as_ref().map(Child::id);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid.filter(|pid| *pid != own && Some(*pid) != driver) else { continue };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(self.at.to_str().unwrap()) {
                found.push((i32::try_from(pid).unwrap(), words));
            }
        }
        found
    }

    /// What is used of the host now.
    pub fn usage(&self) -> Usage {
        let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let files = blocks.map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")));
        let mut loops: Vec<String> = files.flatten().collect();
        loops.retain(|file| Path::new(file.trim_end()).starts_with(&self.at));
        let mut mounts = self.mounts();
        let mut processes: Vec<String> = self.processes().into_iter().map(|one| one.1).collect();
        loops.sort();
        mounts.sort();
        processes.sort();
        Usage { mounts, loops, processes }
    }

    /// Waits until no more is used than before.
    #[track_caller]
    pub fn until_usage(&self, before: &Usage) {
        let deadline = Instant::now() + WAIT;
        while self.usage() != *before {
            assert!(
                Instant::now() < deadline,
                "something stays: {:#?}\nbefore: {before:#?}\n{}",
                self.usage(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until there is no mount, no device and no process but the driver.
    #[track_caller]
    pub fn until_nothing(&self) {
        self.until_usage(&Usage { mounts: vec![], loops: vec![], processes: vec![] });
    }

    /// The descriptors of the driver.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The threads of the driver.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// A new directory, with all above it.
    pub fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Takes away what a test left that failed.
    fn sweep(&self) {
        for (pid, _) in self.processes() {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap_or_default();
        }
        // A mount that appears when another one is taken away is taken away too.
        for _ in 0..10 {
            for point in self.mounts() {
                rustix::mount::unmount(&point, UnmountFlags::DETACH).unwrap_or_default();
            }
        }
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let file = fs::read_to_string(entry.path().join("loop/backing_file"));
            if file.is_ok_and(|file| Path::new(&file).starts_with(&self.at)) {
                let device = Path::new("/dev").join(entry.file_name());
                Command::new("losetup").arg("--detach").arg(device).output().unwrap();
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.driver().take() {
            child.kill().unwrap_or_default();
            child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.dir.path().display(), self.log());
        }
        self.sweep();
    }
}

/// A path of mountinfo: `\040` is a space.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digits = text.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(octal) if *byte == b'\\' => {
                found.push(octal);
                at += 4;
            }
            _ => {
                found.push(*byte);
                at += 1;
            }
        }
    }
    found
}

/// Ends threads when it is dropped, also after a failure: a scope waits for its threads.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Numbers without a pattern.
pub struct Chance(u64);

impl Chance {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers of a run. `LAMINA_CSI_SEED` repeats those of another one.
    pub fn of_run() -> Self {
        let set = std::env::var("LAMINA_CSI_SEED").ok().and_then(|text| text.parse().ok());
        let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let seed = set.unwrap_or(u64::try_from(time % u128::from(u64::MAX)).unwrap()).max(1);
        eprintln!("LAMINA_CSI_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
