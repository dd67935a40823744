//! Processes: going to the background, signals, limits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Resource, Rlimit, WaitOptions};

use crate::error::Result;
use crate::sys::{last, refused};

/// Which side of a fork(2) this is.
#[derive(Debug)]
pub enum Side {
    /// The calling process, with the number of its child.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Splits the process. It must have one thread: locks of others would stay taken in the child.
///
/// # Errors
/// As fork(2).
pub fn fork() -> Result<Side> {
    // SAFETY: the caller has one thread, so the child may go on as an ordinary process: no lock
    // of the allocator or of ours is held by a thread that does not exist there.
    match unsafe { libc::fork() } {
        -1 => Err(last("fork")),
        0 => Ok(Side::Child),
        pid => Pid::from_raw(pid).map(Side::Parent).ok_or_else(|| last("fork")),
    }
}

/// Starts a session of its own, without a terminal.
///
/// # Errors
/// As setsid(2).
pub fn setsid() -> Result<()> {
    rustix::process::setsid().map(drop).map_err(refused("setsid"))
}

/// Waits for the end of a child and returns its exit code, 128 and more for a signal.
///
/// # Errors
/// As waitpid(2).
pub fn wait_for(child: Pid) -> Result<u8> {
    Ok(waited(child, WaitOptions::empty())?.unwrap_or(1))
}

/// As [`wait_for`], without waiting: `None` while the child runs.
///
/// # Errors
/// As waitpid(2).
pub fn try_wait_for(child: Pid) -> Result<Option<u8>> {
    waited(child, WaitOptions::NOHANG)
}

fn waited(child: Pid, options: WaitOptions) -> Result<Option<u8>> {
    let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), options));
    let Some((_, status)) = waited.map_err(refused("waitpid"))? else { return Ok(None) };
    let code = status.exit_status();
    let code = code.or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Waits until a child has ended, and returns its number; it stays for [`wait_for`]. `None` if this
/// process has no child.
///
/// # Errors
/// As waitid(2).
pub fn await_ended() -> Result<Option<Pid>> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: waitid writes one siginfo_t, which lives until it returns; zeroes are valid.
        let (done, info) = unsafe {
            let options = libc::WEXITED | libc::WNOWAIT;
            let done = libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options);
            (done, info.assume_init())
        };
        if done == 0 {
            // SAFETY: waitid has filled in the fields of SIGCHLD, among them this number.
            return Ok(Pid::from_raw(unsafe { info.si_pid() }));
        }
        let error = last("waitid");
        if error.is(crate::error::Errno(libc::ECHILD)) {
            return Ok(None);
        }
        if !error.is(crate::error::Errno(libc::EINTR)) {
            return Err(error);
        }
    }
}

/// Makes this process the parent of its descendants whose parents end.
///
/// # Errors
/// As prctl(2) with `PR_SET_CHILD_SUBREAPER`.
pub fn adopt_orphans() -> Result<()> {
    let own = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(own).map_err(refused("prctl"))
}

/// A pipe, closed on exec: its end for reading and its end for writing.
///
/// # Errors
/// As pipe2(2).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(refused("pipe2"))
}

/// Replaces standard input, output and error with `fd`.
///
/// # Errors
/// As dup2(2).
pub fn replace_standard(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::stdio::dup2_stdin(fd).map_err(refused("dup2"))?;
    rustix::stdio::dup2_stdout(fd).map_err(refused("dup2"))?;
    rustix::stdio::dup2_stderr(fd).map_err(refused("dup2"))
}

/// Opens `/dev/null`.
///
/// # Errors
/// As open(2).
pub fn open_null() -> Result<OwnedFd> {
    crate::sys::file::open_path(std::path::Path::new("/dev/null"), rustix::fs::OFlags::RDWR)
}

/// Makes `/` the working directory.
///
/// # Errors
/// As chdir(2).
pub fn chdir_root() -> Result<()> {
    rustix::process::chdir(c"/").map_err(refused("chdir"))
}

/// Clears the file creation mask: each request brings its own.
pub fn clear_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// Raises the limit of open descriptors to what the process may have.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open descriptors stays");
    }
}

/// The limit of open descriptors.
#[must_use]
pub fn open_files_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The bytes of memory that the limits of the process allow (`RLIMIT_AS`, `RLIMIT_DATA`), if any.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let limits = [Resource::As, Resource::Data].map(rustix::process::getrlimit);
    limits.into_iter().filter_map(|limit| limit.current).min()
}

/// Makes the table of descriptors large enough for `count` of them. If it grows later, while the
/// process has several threads, the kernel waits for a grace period of some 10 ms
/// (`expand_fdtable()` in fs/file.c).
///
/// # Errors
/// As fcntl(2) with `F_DUPFD_CLOEXEC`; `EINVAL` for more than the limit.
pub fn grow_descriptors(count: u64) -> Result<()> {
    let last = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
    let place = open_null()?;
    rustix::io::fcntl_dupfd_cloexec(&place, last).map(drop).map_err(refused("fcntl"))
}

/// Gives the calling thread a table of descriptors of its own that holds only the standard ones.
/// The thread must not use descriptors that were opened before.
///
/// # Errors
/// As close_range(2) with `CLOSE_RANGE_UNSHARE`; `ENOSYS` before Linux 5.9.
pub fn leave_descriptors() -> Result<()> {
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: no memory is touched. Descriptors are closed in this thread's own table only, so that
    // those that other threads hold stay valid.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(last("close_range")) }
}

/// Gives the calling thread a table of descriptors of its own that holds only the standard ones and
/// `kept`.
///
/// # Errors
/// As [`leave_descriptors`].
pub fn leave_other_descriptors(kept: &[BorrowedFd<'_>]) -> Result<()> {
    use std::os::fd::AsRawFd;
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let close = |first: u32, last: u32, flags: u32| {
        // SAFETY: as above.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        if done == 0 { Ok(()) } else { Err(super::last("close_range")) }
    };
    // Unshares the table first, and closes nothing.
    close(u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    let mut from = 3;
    for fd in kept {
        if fd > from {
            close(from, fd - 1, 0)?;
        }
        from = from.max(fd + 1);
    }
    close(from, u32::MAX, 0)
}

/// Makes a signal that ends the process leave no core.
///
/// # Errors
/// As prctl(2) with `PR_SET_DUMPABLE`.
pub fn dump_no_core() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(refused("prctl"))
}

/// The number of the calling thread in its process namespace.
#[must_use]
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Gives the calling thread the lowest ordinary priority.
///
/// # Errors
/// As setpriority(2).
pub fn yield_to_others() -> Result<()> {
    // On Linux the priority belongs to a thread, and `None` is the calling one.
    rustix::process::setpriority_process(None, 19).map_err(refused("setpriority"))
}

/// Returns the value of a variable of the environment, if it is set.
#[must_use]
pub fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns unpredictable bytes.
///
/// # Errors
/// As getrandom(2).
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(refused("getrandom"))?;
    Ok(bytes)
}

/// Returns the identifier of this boot of the host.
///
/// # Errors
/// As read(2) of /proc/sys/kernel/random/boot_id.
pub fn boot_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// The architecture of this host, as images name it (`GOARCH`).
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        "mips64" => "mips64le",
        other => other,
    }
}

/// Effective user and group of the process.
#[must_use]
pub fn effective_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A process of the host that is watched until it ends; its number may be reused then.
#[derive(Debug)]
pub struct Watched(OwnedFd);

impl Watched {
    /// Watches a process.
    ///
    /// # Errors
    /// As pidfd_open(2); `ESRCH` for one that has ended.
    pub fn open(pid: u32) -> Result<Self> {
        let missing = crate::error::Error::os("pidfd_open", crate::error::Errno(libc::ESRCH));
        let pid = Pid::from_raw(pid.cast_signed()).ok_or(missing)?;
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(pid, flags).map(Self).map_err(refused("pidfd_open"))
    }

    /// Waits for the end of the process. Returns false if it still runs after `patience`.
    pub fn ends_within(&self, patience: std::time::Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(patience).ok();
        poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// Ends a child at once.
///
/// # Errors
/// As kill(2).
pub fn kill(child: Pid) -> Result<()> {
    rustix::process::kill_process(child, rustix::process::Signal::KILL).map_err(refused("kill"))
}

/// Ends this process without running anything else, for the child of a fork(2).
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes a number and does not return; nothing of this process runs after it.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Signals that request the end of a daemon.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Signals that would end or stop a process and that request nothing of a daemon. The remaining
/// signals report faults, and two cannot be ignored (signal(7)).
const IGNORED: [i32; 14] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The signals that request the end of the daemon.
pub struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks `SIGTERM`, `SIGINT`, `SIGHUP` and `SIGQUIT` for this thread and all threads that it
    /// starts later, and ignores every other signal that ends or stops a process without being a
    /// fault.
    ///
    /// # Errors
    /// As pthread_sigmask(3) and signal(2).
    pub fn block() -> Result<Self> {
        for signal in IGNORED.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            // SAFETY: signal takes two numbers here, since SIG_IGN is not a function that is
            // called; the numbers are those of signals that the C library leaves to its user.
            if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(last("signal"));
            }
        }
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that it is given, the other calls change it;
        // pthread_sigmask only reads it and takes a null pointer for "the old mask is not wanted".
        let (set, done) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in ENDING {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let set = set.assume_init();
            let done = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            (set, done)
        };
        if done == 0 { Ok(Self(set)) } else { Err(last("pthread_sigmask")) }
    }

    /// Waits for one of them.
    pub fn wait(&self) {
        let mut signal = 0;
        // SAFETY: sigwait reads the set and writes one int; both live until it returns.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
    }
}

/// Reads one byte, which means "ready": `None` if the other side closed without sending it.
///
/// # Errors
/// As read(2).
pub fn read_byte(fd: &OwnedFd) -> Result<Option<u8>> {
    let mut byte = [0];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut byte));
    Ok((read.map_err(refused("read"))? == 1).then_some(byte[0]))
}

/// Writes one byte.
///
/// # Errors
/// As write(2).
pub fn write_byte(fd: &OwnedFd, byte: u8) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(fd.as_fd(), &[byte]))
        .map(drop)
        .map_err(refused("write"))
}

/// Makes a socket that listens on a path; only its owner may connect.
///
/// # Errors
/// As socket(2), fchmod(2), bind(2), listen(2).
pub fn listen(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The name gets the mode that the socket has now (`unix_bind()` in net/unix/af_unix.c).
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// A capability that a caller may have (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// `CAP_FSETID`.
    FSetId = 4,
    /// `CAP_SYS_ADMIN`.
    SysAdmin = 21,
    /// `CAP_SYS_RESOURCE`.
    SysResource = 24,
}

/// Whether a thread has a capability in effect; false if it cannot be determined.
#[must_use]
pub fn has_capability(thread: u32, capability: Capability) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return false };
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << capability as u64) != 0)
}

/// Whether a thread has a capability over the host, where file systems require it (`capable()` in
/// the kernel's kernel/capability.c): root of another user namespace has none. False if it cannot
/// be determined.
#[must_use]
pub fn has_host_capability(thread: u32, capability: Capability) -> bool {
    /// `PROC_USER_INIT_INO` of the kernel's include/linux/proc_ns.h.
    const FIRST: &str = "user:[4026531837]";
    let first = match std::fs::read_link(format!("/proc/{thread}/ns/user")) {
        Ok(namespace) => namespace.as_os_str() == FIRST,
        // The namespace may not be read: only root of the host makes a map of all ids.
        Err(_) => std::fs::read_to_string(format!("/proc/{thread}/uid_map"))
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"])),
    };
    first && has_capability(thread, capability)
}

/// Whether a thread is in the user namespace of this process, or in one with the same ids, which
/// gives the same rights over files. The links that name namespaces are not read: that takes a
/// capability that the daemon gives up.
#[must_use]
pub fn is_in_own_user_namespace(thread: u32) -> bool {
    let map = |of: &str, kind: &str| std::fs::read(format!("/proc/{of}/{kind}")).ok();
    ["uid_map", "gid_map"].iter().all(|kind| {
        map(&thread.to_string(), kind).is_some_and(|its| Some(its) == map("self", kind))
    })
}

/// Makes large blocks of memory go back to the system when they are freed, and limits the arenas of
/// the C library. By default the C library raises the size from which a block is mapped by itself
/// to that of the largest block freed so far, so that the tables of a million inodes would stay.
pub fn return_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 64 << 10),
        (libc::M_TRIM_THRESHOLD, 128 << 10),
        (libc::M_ARENA_MAX, 2),
    ] {
        // SAFETY: mallopt takes two numbers and may be called at any time.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            tracing::debug!(parameter, "the C library refused a parameter");
        }
    }
}

/// Whether a thread is in a group, by its file system group or a supplementary one; false if it
/// cannot be determined.
#[must_use]
pub fn is_of_group(thread: u32, gid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return false };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    // The last of four numbers is the one for files.
    let own = field("Gid:").split_whitespace().next_back();
    let mut all = field("Groups:").split_whitespace().chain(own);
    all.any(|group| group.parse() == Ok(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_descriptors_grows_without_any_being_open() {
        grow_descriptors(900).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= 900, "{size}");
        assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() < 900);
    }
}
