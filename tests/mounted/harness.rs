//! The site of a case: layers, a mount point, and the file system mounted there.
//!
//! Every case runs in a thread with its own mount namespace and its own temporary directory. After
//! the case the site checks that no mount, daemon or descriptor is left.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::calls;

/// A file system that a case is judged on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// A directory of the host's file system.
    Plain,
    /// The kernel's overlayfs with all its features on.
    Kernel,
    /// The program under test.
    Lamina,
    /// The program under test, with the lower layers as blobs in a store.
    Blobs,
}

/// The directory of libmount's table.
const LIBMOUNT: &str = "/run/mount";
/// The time limit of a case, after which its daemon is killed so that the other cases can run.
const CASE_LIMIT: Duration = Duration::from_secs(90);
/// The time limit for a daemon to end after its mount is gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);
/// The options that give the kernel's overlayfs equal semantics.
pub const KERNEL_OPTIONS: &str = "metacopy=on,redirect_dir=on,index=on,xino=on";

/// Runs a case on a judge in a fresh site.
pub fn run(judge: Judge, case: fn(&mut Site)) {
    if !host_can(judge) {
        return;
    }
    calls::private_mounts().expect("a private mount namespace");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private propagation");
    if Path::new(LIBMOUNT).exists() {
        // Mounts write rows into the table there.
        rustix::mount::mount("libmount", LIBMOUNT, "tmpfs", MountFlags::empty(), None)
            .expect("a table of its own");
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut site = Site::new(judge);
    let guard = Watchdog::start(site.root().to_owned());
    case(&mut site);
    site.finish();
    drop(guard);
}

fn host_can(judge: Judge) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if matches!(judge, Judge::Lamina | Judge::Blobs) && !Path::new("/dev/fuse").exists() {
        "/dev/fuse"
    } else {
        return true;
    };
    assert!(std::env::var_os("LAMINA_NO_SKIP").is_none(), "this tier needs {missing}");
    eprintln!("SKIPPED: needs {missing}");
    false
}

/// The program under test: `LAMINA_BIN`, or the one that `cargo build -p lamina` makes.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("LAMINA_BIN") {
            return fs::canonicalize(&path).expect("LAMINA_BIN names a program");
        }
        let test = std::env::current_exe().expect("the test's own path");
        let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "lamina", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(profile.parent().expect("a target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo starts").success(), "the program builds");
        profile.join("lamina")
    })
}

/// Layers, a mount point, and the current mount.
pub struct Site {
    judge: Judge,
    directory: tempfile::TempDir,
    mounted: bool,
    /// Names of the lower layers, topmost first.
    lowers: Vec<String>,
    /// Options of the mount, without those for the layers.
    pub options: String,
    /// Further arguments of `lamina mount`.
    pub words: Vec<String>,
    /// Whether mounts have no upper.
    pub read_only: bool,
}

impl Site {
    fn new(judge: Judge) -> Self {
        let directory =
            tempfile::Builder::new().prefix("lamina-mounted-").tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("0755");
        let site = Self {
            judge,
            directory,
            mounted: false,
            lowers: vec!["lower".to_owned()],
            options: String::new(),
            words: Vec::new(),
            read_only: false,
        };
        for name in ["lower", "upper", "work", "mnt"] {
            fs::create_dir(site.root().join(name)).expect("a layer");
        }
        site
    }

    /// The current judge.
    pub const fn judge(&self) -> Judge {
        self.judge
    }

    /// Whether the judge is a union and so has layers.
    pub fn is_union(&self) -> bool {
        self.judge != Judge::Plain
    }

    /// The site's own directory.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The mount point.
    pub fn mnt(&self) -> PathBuf {
        self.root().join("mnt")
    }

    /// A path inside the mount.
    pub fn at(&self, path: &str) -> PathBuf {
        self.mnt().join(path)
    }

    /// A path inside the upper.
    pub fn upper(&self, path: &str) -> PathBuf {
        self.root().join("upper").join(path)
    }

    /// A path inside the topmost lower; with a plain directory, inside that directory.
    pub fn lower(&self, path: &str) -> PathBuf {
        match self.judge {
            Judge::Plain => self.at(path),
            _ => self.root().join(&self.lowers[0]).join(path),
        }
    }

    /// Adds a new layer under the existing lowers and returns its directory.
    pub fn add_lower(&mut self, name: &str) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir(&path).expect("a layer");
        self.lowers.push(name.to_owned());
        path
    }

    /// Removes a layer from the mount.
    pub fn leave_out(&mut self, name: &str) {
        self.lowers.retain(|lower| lower != name);
    }

    /// The directories of the lowers, topmost first.
    pub fn lower_paths(&self) -> Vec<PathBuf> {
        self.lowers.iter().map(|name| self.root().join(name)).collect()
    }

    /// Mounts with the current judge.
    pub fn mount(&mut self) {
        match self.judge {
            Judge::Plain => {}
            Judge::Kernel => self.mount_kernel().expect("overlayfs mounts"),
            Judge::Lamina | Judge::Blobs => {
                let output = self.try_lamina();
                assert!(output.status.success(), "lamina mount: {output:?}");
                assert_eq!(output.stderr, b"", "silent on success");
                assert!(self.is_mounted(), "mounted when the command returns");
            }
        }
        self.mounted = self.is_union();
    }

    /// Mounts the layers with the kernel's overlayfs, for any judge.
    pub fn mount_kernel(&mut self) -> rustix::io::Result<()> {
        let lowers: Vec<String> =
            self.lower_paths().iter().map(|path| path.display().to_string()).collect();
        let mut data = format!("lowerdir={}", lowers.join(":"));
        if !self.read_only {
            let (upper, work) = (self.root().join("upper"), self.root().join("work"));
            data += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        if self.options.contains("userxattr") {
            data += ",userxattr,index=on";
        } else {
            data += &format!(",{KERNEL_OPTIONS}");
        }
        let data = std::ffi::CString::new(data).expect("no NUL");
        rustix::mount::mount(
            "overlay",
            self.mnt(),
            "overlay",
            MountFlags::empty(),
            Some(data.as_c_str()),
        )?;
        self.mounted = true;
        Ok(())
    }

    /// Runs `lamina mount` on the layers and returns its output.
    pub fn try_lamina(&mut self) -> Output {
        let mut command = Command::new(program());
        command.arg("mount");
        for lower in self.lower_paths() {
            if self.judge == Judge::Blobs {
                command.arg("--image").arg(self.import(&lower));
            } else {
                command.arg("--lower").arg(lower);
            }
        }
        if self.judge == Judge::Blobs {
            // As with the other judges, devices and set-id programs work.
            command.arg("--root").arg(self.store()).args(["-o", "dev,suid"]);
        }
        if !self.read_only {
            command.arg("--upper").arg(self.root().join("upper"));
            command.arg("--work").arg(self.root().join("work"));
        }
        command.args(&self.words);
        if !self.options.is_empty() {
            command.arg("-o").arg(&self.options);
        }
        command.arg(self.mnt()).stdin(Stdio::null());
        let output = command.output().expect("lamina starts");
        self.mounted = output.status.success();
        output
    }

    fn store(&self) -> PathBuf {
        self.root().join("store")
    }

    /// Makes a blob from a layer directory. Returns the name of its image.
    fn import(&self, lower: &Path) -> String {
        let name = lower.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let mut command = Command::new(program());
        command.args(["image", "import", "-t", name, "--root"]).arg(self.store()).arg(lower);
        let output = command.stdin(Stdio::null()).output().expect("lamina starts");
        assert!(output.status.success(), "lamina image import: {output:?}");
        // In a pipe there is no bar: one line says what was done.
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.starts_with("lamina: imported ") && said.lines().count() == 1, "{said:?}");
        name.to_owned()
    }

    /// Mounts the layers with Lamina, for any judge.
    pub fn mount_lamina(&mut self) {
        let output = self.try_lamina();
        assert!(output.status.success(), "lamina mount: {output:?}");
    }

    /// Unmounts; nothing to do on a plain directory.
    pub fn unmount(&mut self) {
        if self.mounted {
            // A process that another case starts holds our descriptors until it executes its
            // program.
            let deadline = Instant::now() + LEAVE_LIMIT;
            // Like `umount --recursive`: bound grafts first.
            for place in mount_points_below(&self.mnt()).iter().rev() {
                loop {
                    match rustix::mount::unmount(place, UnmountFlags::NOFOLLOW) {
                        Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => {
                            std::thread::yield_now();
                        }
                        done => break done.expect("unmounts"),
                    }
                }
            }
            self.mounted = false;
        }
    }

    /// Records that a case has mounted by itself.
    pub const fn mount_done(&mut self) {
        self.mounted = true;
    }

    /// Records that a case has unmounted by itself.
    pub const fn unmounted(&mut self) {
        self.mounted = false;
    }

    /// Unmounts and mounts again, which must not change anything.
    pub fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    fn is_mounted(&self) -> bool {
        !mounts_below(self.root()).is_empty()
    }

    fn finish(mut self) {
        self.unmount();
        let root = self.root().to_owned();
        assert_eq!(mounts_below(&root), Vec::<String>::new(), "no mount is left");
        let deadline = Instant::now() + LEAVE_LIMIT;
        while !daemons_of(&root).is_empty() {
            assert!(Instant::now() < deadline, "the daemon left: {:?}", daemons_of(&root));
            std::thread::yield_now();
        }
        assert_eq!(descriptors_below(&root), Vec::<PathBuf>::new(), "no descriptor is left");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a failure: a directory with mounts in it must not be removed.
        for place in mount_points_below(self.root()).iter().rev() {
            if let Err(error) = rustix::mount::unmount(place, UnmountFlags::DETACH) {
                eprintln!("unmount after a failure: {error}");
            }
        }
        if std::thread::panicking() {
            kill_daemons(self.root());
        }
        crate::tools::make_removable(self.root());
    }
}

fn mounts_below(root: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let root = root.to_str().expect("a plain path");
    table.lines().filter(|line| line.contains(root)).map(str::to_owned).collect()
}

/// The mounts on a path and beneath it, parents first.
pub fn mount_points_below(path: &Path) -> Vec<PathBuf> {
    let table = mounts_below(path);
    let places = table.iter().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut places: Vec<PathBuf> = places.filter(|place| place.starts_with(path)).collect();
    places.sort();
    places
}

pub fn daemons_of(root: &Path) -> Vec<i32> {
    let needle = root.as_os_str().as_encoded_bytes();
    let own = i32::try_from(std::process::id()).expect("a pid");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        if pid != own && words.windows(needle.len()).any(|part| part == needle) {
            found.push(pid);
        }
    }
    found
}

fn kill_daemons(root: &Path) {
    for pid in daemons_of(root).into_iter().filter_map(rustix::process::Pid::from_raw) {
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            eprintln!("kill {pid:?}: {error}");
        }
    }
}

fn descriptors_below(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc/self/fd").flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.starts_with(root)).collect()
}

/// Kills the daemon of a case that takes too long, so that the case fails instead of hanging.
struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
}

impl Watchdog {
    fn start(root: PathBuf) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if stopped.recv_timeout(CASE_LIMIT) == Err(RecvTimeoutError::Timeout) {
                let notice = format!("too slow, daemon killed: {}\n", root.display());
                if std::io::stderr().write_all(notice.as_bytes()).is_ok() {
                    kill_daemons(&root);
                }
            }
        });
        Self { stop: Some(stop) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
