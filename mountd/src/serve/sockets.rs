//! Sockets on which front ends listen.
//!
//! A unix socket appears at its path with mode 0600, under a lock on its directory, so that of two
//! daemons that start at once one wins. No other file is made, since orchestrators watch such
//! directories. A client that is earlier than listen(2) is refused, as by a stale socket. A socket
//! file that nobody listens on is replaced; one with a listener, and any other file, is an error.
//! At the end the file is removed if it is still ours. A socket of the service manager (socket
//! activation) keeps its file.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::net::{self as net, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::config::{Address, Config};
use crate::report::CliError;

/// Connections that wait to be accepted; the host has a limit of its own.
const QUEUE: i32 = 4096;
/// How long a socket may have a listener and no daemon: a process that was just started has it
/// until it runs its program, though the daemon that started it was killed.
const HANDED_DOWN: Duration = Duration::from_millis(500);

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// A socket, with the file that is removed at the end.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: Listener,
    /// Where it listens, for the log.
    pub place: String,
    file: Option<SocketFile>,
}

/// A socket file of this process.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The file, held so that its inode number is given to no other while it is compared.
    held: File,
}

/// The sockets of all front ends.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Of the volume plugin.
    pub docker: Option<Bound>,
    /// Of metrics and health.
    pub metrics: Option<Bound>,
    /// Of the API of Kubernetes.
    pub kube: Option<TcpListener>,
    /// Of the Container Storage Interface.
    pub csi: Option<Bound>,
}

impl Bound {
    /// The path of a socket that this process made.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    fn activated(listener: Listener) -> Self {
        Self { listener, place: "a socket of the service manager".to_owned(), file: None }
    }

    /// Separates the socket from the guard that removes its file.
    #[must_use]
    pub fn split(self) -> (Listener, Removal) {
        (self.listener, Removal(self.file))
    }
}

/// Removes a socket file when it is dropped, if it is still that of this process.
#[derive(Debug)]
pub struct Removal(Option<SocketFile>);

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.remove()
        {
            tracing::warn!(%error, path = %file.path.display(), "the socket file stays");
        }
    }
}

impl SocketFile {
    fn remove(&self) -> io::Result<()> {
        let _lock = lock(&self.path)?;
        let own = self.held.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => {
                fs::remove_file(&self.path)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Keeps other daemons from changing the socket of this path.
fn lock(path: &Path) -> io::Result<File> {
    let dir = File::open(directory(path))?;
    flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

/// Whether the path is free, or has a socket on which nobody listens.
fn is_free(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let text = "a file that is not a socket is in the way";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        // A full queue of connections has a listener too.
        Ok(_) | Err(_) => Ok(false),
    }
}

/// Listens at a path.
///
/// # Errors
/// [`CliError::Io`] with the path; `AddrInUse` if another process listens there.
pub fn bind(path: &Path) -> Result<Bound, CliError> {
    let failed = |error| CliError::Io { what: format!("socket {}", path.display()), error };
    let place = path.display().to_string();
    let (listener, file) = bind_file(path).map_err(failed)?;
    Ok(Bound { listener: Listener::Unix(listener), place, file: Some(file) })
}

fn bind_file(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let dir = directory(path);
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let _lock = lock(path)?;
    let deadline = Instant::now() + HANDED_DOWN;
    while !is_free(path)? {
        if Instant::now() > deadline {
            let text = "another process listens there";
            return Err(io::Error::new(ErrorKind::AddrInUse, text));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = create(path)?;
    let listening = held(path).and_then(|held| {
        net::listen(&socket, QUEUE)?;
        Ok(SocketFile { path: path.to_owned(), held })
    });
    if listening.is_err() {
        fs::remove_file(path)?;
    }
    Ok((UnixListener::from(socket), listening?))
}

/// The file of a socket, not to be read.
fn held(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Makes a socket, with its file. The file has the mode of the socket at once (unix_bind_bsd of
/// net/unix/af_unix.c), less the umask.
fn create(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket =
        net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Listens for metrics.
///
/// # Errors
/// [`CliError::Io`].
fn bind_address(address: &Address) -> Result<Bound, CliError> {
    match address {
        Address::Socket(path) => bind(path),
        Address::Loopback(address) => {
            let failed = |error| CliError::Io { what: format!("address {address}"), error };
            let listener = TcpListener::bind(address).map_err(failed)?;
            let place = listener.local_addr().map_err(failed)?.to_string();
            Ok(Bound { listener: Listener::Tcp(listener), place, file: None })
        }
    }
}

impl Sockets {
    /// Takes the sockets of the service manager, and binds those that are still missing. A socket
    /// of the service manager starts its front end, whatever the configuration names.
    ///
    /// To be called while the process has one thread: it changes the environment.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn open(config: &Config) -> Result<Self, CliError> {
        let mut sockets = Self::activated()?;
        if let (None, Some(path)) = (&sockets.docker, &config.docker) {
            sockets.docker = Some(bind(path)?);
        }
        if let (None, Some(address)) = (&sockets.metrics, &config.metrics) {
            sockets.metrics = Some(bind_address(address)?);
        }
        if let (None, Some(address)) = (&sockets.kube, config.kube.address) {
            let failed = |error| CliError::Io { what: format!("address {address}"), error };
            sockets.kube = Some(TcpListener::bind(address).map_err(failed)?);
        }
        if let (None, Some(path)) = (&sockets.csi, &config.csi.socket) {
            sockets.csi = Some(bind(path)?);
        }
        let has_socket = sockets.docker.is_some() || sockets.csi.is_some();
        if !has_socket && sockets.metrics.is_none() && sockets.kube.is_none() {
            let text = "no front end to serve: use --docker, --metrics, --kube or --csi, or name \
                        one in the configuration file";
            return Err(CliError::Usage(text.to_owned()));
        }
        Ok(sockets)
    }

    fn activated() -> Result<Self, CliError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut given = listenfd::ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..given.len() {
            let name = names.get(index).copied().unwrap_or_default();
            let failed =
                |error| CliError::Io { what: format!("socket {name:?} of systemd"), error };
            if name == "kube" {
                sockets.kube = given.take_tcp_listener(index).map_err(failed)?;
                continue;
            }
            let place = match name {
                "docker" => &mut sockets.docker,
                "metrics" => &mut sockets.metrics,
                "csi" => &mut sockets.csi,
                _ => {
                    tracing::warn!(
                        name,
                        "unknown socket: FileDescriptorName= is docker, metrics, kube or csi"
                    );
                    continue;
                }
            };
            let listener = match given.take_unix_listener(index) {
                Err(_) if name == "metrics" => loopback(&mut given, index)?,
                taken => taken.map_err(failed)?.map(Listener::Unix),
            };
            *place = listener.map(Bound::activated);
        }
        Ok(sockets)
    }
}

fn loopback(given: &mut listenfd::ListenFd, index: usize) -> Result<Option<Listener>, CliError> {
    let failed = |error| CliError::Io { what: "socket \"metrics\" of systemd".to_owned(), error };
    let Some(listener) = given.take_tcp_listener(index).map_err(failed)? else { return Ok(None) };
    let address = listener.local_addr().map_err(failed)?;
    if address.ip().is_loopback() {
        return Ok(Some(Listener::Tcp(listener)));
    }
    let text = format!("{address} is not a loopback address");
    Err(failed(io::Error::new(ErrorKind::InvalidInput, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_socket_is_private_and_goes_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/lamina.sock");
        let (_listener, removal) = bind(&path).unwrap().split();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(removal);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lamina.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, removal) = bind(&path).unwrap().split();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        drop(listener);
        let (_other, _kept) = bind(&path).unwrap().split();
        drop(removal);
        assert!(path.exists(), "the file of another daemon stays");
    }

    #[test]
    fn the_mode_is_right_before_anybody_can_connect_and_no_other_file_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let socket = create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A daemon that was killed here leaves a stale socket.
        drop(socket);
        drop(bind(&path).unwrap());
    }

    #[test]
    fn a_directory_sees_the_socket_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let watch = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK).unwrap();
        let events =
            rustix::fs::inotify::WatchFlags::CREATE | rustix::fs::inotify::WatchFlags::MOVED_TO;
        rustix::fs::inotify::add_watch(&watch, dir.path(), events).unwrap();
        let path = dir.path().join("csi.sock");
        drop(UnixListener::bind(&path).unwrap());
        let _bound = bind(&path).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = rustix::fs::inotify::Reader::new(&watch, &mut space);
        let mut seen = Vec::new();
        while let Ok(event) = reader.next() {
            seen.push(event.file_name().unwrap().to_str().unwrap().to_owned());
        }
        // Equal events in a row are one.
        seen.dedup();
        assert_eq!(seen, ["csi.sock"]);
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lamina.sock");
        fs::write(&path, "text").unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_many_daemons_that_start_at_once_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lamina.sock");
        drop(UnixListener::bind(&path).unwrap());
        let bound = std::thread::scope(|scope| {
            let start = || scope.spawn(|| bind(&path).ok());
            let all: Vec<_> = (0..8).map(|_| start()).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(bound.len(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
