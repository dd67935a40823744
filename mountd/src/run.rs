//! Runs a mount: to the background, served, ended by unmount or signal. Also reads the environment
//! of the process.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LAMINA_LOG` | what is logged, as `tracing` filters take it (`lamina=debug`) |
//! | `LAMINA_LOG_FILE` | where to, with `LAMINA_LOG` |
//! | `LAMINA_ROOT` | the data root |
//! | `LAMINA_HOLDER` | `required`: only `lamina volume holder` starts the processes of volumes |
//! | `LAMINA_RUNTIME_DIR` | where mounts answer `lamina status` |
//! | `FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT` | whiteouts are written as `.wh.` files |

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use laminafs::service::Failure;
use laminafs::service::background::{self, Ready, Role};
use laminafs::service::ending::Helper;
use laminafs::service::mount::Prepared;
use laminafs::service::process::{self, EndSignals};
use laminafs::service::spec::MountSpec;

use crate::report::CliError;

/// The umask that the program was started with.
static UMASK: std::sync::OnceLock<rustix::fs::Mode> = std::sync::OnceLock::new();

/// Sets a umask that excludes all other users.
pub fn close_umask() {
    let closed = rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO;
    UMASK.get_or_init(|| rustix::process::umask(closed));
}

/// Restores the umask that the program was started with, for files that the user gets.
pub fn open_umask() {
    if let Some(umask) = UMASK.get() {
        rustix::process::umask(*umask);
    }
}

/// Excludes all other users again.
pub fn close_umask_again() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

fn is_host_root(path: &str) -> bool {
    // Root of a user namespace sees the directories of the host as those of another user.
    std::fs::metadata(path).is_ok_and(|meta| meta.uid() == 0) && process::is_root()
}

fn home(variable: &str, below: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    set.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(below)))
}

/// The data root. An existing one is closed to other users.
pub fn data_root(given: Option<PathBuf>) -> PathBuf {
    let set = given.or_else(|| std::env::var_os("LAMINA_ROOT").map(PathBuf::from));
    // A daemon leaves the directory in which it was started.
    let set = set.map(|root| std::path::absolute(&root).unwrap_or(root));
    let root = set.unwrap_or_else(|| {
        if is_host_root("/var/lib") {
            return PathBuf::from("/var/lib/lamina");
        }
        let data = home("XDG_DATA_HOME", ".local/share");
        data.map_or_else(|| PathBuf::from("/var/lib/lamina"), |data| data.join("lamina"))
    });
    if let Err(error) = laminafs::service::root::close(&root)
        && error.kind() != std::io::ErrorKind::NotADirectory
    {
        tracing::warn!(%error, root = %root.display(), "others may look into the data root");
    }
    root
}

/// The data root, for a command that only reads: a root that was given must exist.
///
/// # Errors
/// [`CliError::NoRoot`].
pub fn existing_root(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let is_named = given.is_some() || std::env::var_os("LAMINA_ROOT").is_some();
    let root = data_root(given);
    if is_named && !root.is_dir() { Err(CliError::NoRoot(root)) } else { Ok(root) }
}

/// Signals that end the process, held back until their handling is known.
pub struct Ending(EndSignals);

impl Ending {
    /// Holds these signals. Must be called before anything is made that could be left behind.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn hold() -> Result<Self, CliError> {
        let held = EndSignals::block();
        Ok(Self(held.map_err(|error| Failure::System { what: "blocking signals", error })?))
    }

    /// When a signal requests the end of the process, gives up what [`making`] made,
    /// and replaces the program by one that removes what is unfinished in a data root
    /// (`lamina volume tidy`).
    ///
    /// # Errors
    /// Errors of starting a thread.
    pub fn tidy(self, root: &Path) -> Result<(), CliError> {
        let root = root.to_owned();
        self.clean(move || {
            within_patience(|| {
                let all =
                    std::mem::take(&mut *LEAVING.lock().unwrap_or_else(PoisonError::into_inner));
                all.into_iter().for_each(|leave| leave());
            });
            let _settled = laminafs::service::import::settled();
            let mut command = std::process::Command::new("/proc/self/exe");
            command.arg0("lamina").args(["volume", "tidy", "--root"]).arg(&root);
            command.env_remove("LAMINA_LOG");
            // It returns only if the program cannot be started; then the rest stays for the next
            // command.
            let error = command.exec();
            tracing::warn!(%error, "what is unfinished stays");
        })
    }

    /// Calls a function when a signal requests the end of the process, before it ends.
    ///
    /// # Errors
    /// Errors of starting a thread.
    pub fn clean(self, act: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
        let watch = std::thread::Builder::new().name("signals".to_owned());
        let started = watch.spawn(move || {
            self.0.wait();
            ENDING.store(true, Ordering::SeqCst);
            crate::report::interrupted();
            act();
            std::process::exit(i32::from(crate::report::INTERRUPTED));
        });
        let failed = |error| CliError::Io { what: "starting a thread".to_owned(), error };
        started.map(drop).map_err(failed)
    }
}

/// Whether a signal is ending the process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Waits for the end of the process if a signal is ending it: what it gives up makes the command
/// fail, and that failure says nothing.
pub fn await_end() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Gives something up.
type Leave = Box<dyn FnOnce() + Send>;

/// What a signal gives up before it ends the process.
static LEAVING: Mutex<Vec<Leave>> = Mutex::new(Vec::new());

/// Makes something that a signal gives up before it ends the process, as a file that is unfinished
/// until the end of the command. `leaving` returns what gives it up.
///
/// # Errors
/// Those of `make`.
pub fn making<T, E, L: FnOnce() + Send + 'static>(
    make: impl FnOnce() -> Result<T, E>,
    leaving: impl FnOnce(&T) -> L,
) -> Result<T, E> {
    // A signal waits until what is made is known. After it gave up the others, nothing is made.
    let mut all = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDING.load(Ordering::SeqCst) {
        drop(all);
        await_end();
        all = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
    }
    let made = make()?;
    all.push(Box::new(leaving(&made)));
    Ok(made)
}

/// Calls a function, and waits some time for its end: it may talk to a server.
fn within_patience(act: impl FnOnce() + Send + 'static) {
    let (done, end) = channel();
    let thread = std::thread::Builder::new().name("leaving".to_owned());
    let started = thread.spawn(move || {
        act();
        drop(done);
    });
    if started.is_ok() {
        let waited: Result<(), RecvTimeoutError> = end.recv_timeout(Duration::from_secs(10));
        if waited == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("what was given up is not gone: its server does not answer");
        }
    }
}

/// The directory of the status sockets of mounts.
pub fn runtime_dir() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("LAMINA_RUNTIME_DIR") {
        return Some(PathBuf::from(set));
    }
    if is_host_root("/run") {
        return Some(PathBuf::from("/run/lamina"));
    }
    let dir: Option<OsString> = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    dir.map(|dir| Path::new(&dir).join("lamina"))
}

/// Whether only the holder may start processes that serve volumes.
pub fn requires_holder() -> bool {
    std::env::var_os("LAMINA_HOLDER").is_some_and(|value| value == "required")
}

/// Whether whiteouts are to be files.
pub fn wants_aufs_whiteouts() -> bool {
    std::env::var_os("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT").is_some_and(|value| !value.is_empty())
}

/// Mounts, and returns when the mount is live, or with `foreground` when it has ended.
///
/// # Errors
/// [`Failure`].
pub fn mount(spec: &MountSpec, foreground: bool) -> Result<ExitCode, CliError> {
    let spec = &MountSpec { log: crate::log::place(foreground), ..spec.clone() };
    let ready = if foreground {
        Ready::nobody()
    } else {
        match background::split()? {
            Role::Starter(code) => return Ok(ExitCode::from(code)),
            Role::Daemon(ready) => ready,
        }
    };
    let signals =
        EndSignals::block().map_err(|error| Failure::System { what: "blocking signals", error })?;
    let helper = Helper::start()?;
    process::shed();
    // The union applies the umask of each caller instead.
    process::clear_umask();
    process::return_memory();
    let live = Prepared::new(spec)?.mount()?;
    let ender = live.ender(helper);
    live.seal();
    if !foreground {
        crate::log::detach();
    }
    if let Err(failure) = ready.report() {
        ender.end()?;
        return Err(failure.into());
    }
    let watch = std::thread::Builder::new().name("signals".to_owned());
    let watching = watch.spawn(move || {
        // Users of the mount are still served; a further signal has no effect.
        loop {
            signals.wait();
            if let Err(failure) = ender.end() {
                tracing::error!(%failure, "unmounting after a signal");
            }
        }
    });
    if let Err(error) = watching {
        return Err(CliError::Io { what: "starting a thread".to_owned(), error });
    }
    live.wait()?;
    Ok(ExitCode::SUCCESS)
}
