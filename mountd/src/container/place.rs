//! Files and directories of a container that is run.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use laminafs::service::containers::ContainerInfo;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use super::crun::Crun;
use super::files::make_dir;
use super::lock::{Locked, is_locked, lock};

/// The digits of an id that name its directory of the runtime: paths of sockets are short.
const DIGITS: usize = 16;

/// The directories of a container.
#[derive(Debug, Clone)]
pub struct Place {
    id: String,
    dir: PathBuf,
    run: PathBuf,
}

impl Place {
    /// The directories of a container. Without a runtime directory its part is beside the upper.
    pub fn new(of: &ContainerInfo, runtime: Option<&Path>) -> Self {
        let dir = of.directory().to_owned();
        let short = of.id.get(..DIGITS).unwrap_or(&of.id);
        let run = runtime.map_or_else(|| dir.join("run"), |at| at.join("containers").join(short));
        Self { id: of.id.clone(), dir, run }
    }

    /// Takes the right to run the container.
    ///
    /// # Errors
    /// As open(2) and flock(2).
    pub fn lock(&self) -> io::Result<Locked> {
        lock(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("hold")
    }

    /// Whether a process holds the container.
    pub fn is_held(&self) -> bool {
        is_locked(&self.lock_path())
    }

    /// Holds the container, unless another process does, or it is gone.
    ///
    /// # Errors
    /// As [`Place::lock`].
    pub fn try_hold(&self) -> io::Result<Option<File>> {
        Ok(match self.lock()? {
            Locked::Taken(file) => Some(file),
            Locked::Busy | Locked::Gone => None,
        })
    }

    /// The file that is there while a command has the container mounted for itself.
    fn temporary(&self) -> PathBuf {
        self.dir.join("temporary")
    }

    /// Whether a command has the container mounted for itself, or was killed meanwhile.
    pub fn is_temporary(&self) -> bool {
        self.temporary().exists()
    }

    /// Notes that a command, which holds the container, mounts it for itself.
    ///
    /// # Errors
    /// As open(2).
    pub fn mark_temporary(&self, _held: &File) -> io::Result<()> {
        File::create(self.temporary()).map(drop)
    }

    /// Notes that the mount of a command has ended.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn unmark_temporary(&self) -> io::Result<()> {
        match std::fs::remove_file(self.temporary()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The runtime, with the states of this container alone.
    pub fn crun(&self) -> Crun {
        Crun::new(self.run.join("state"))
    }

    /// The id of the container, also for the runtime.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The output.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The files that the container gets of its host.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// The bundle of the runtime.
    pub fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// The directory that the tree of the container is mounted in.
    fn tree(&self) -> PathBuf {
        self.run.join("tree")
    }

    /// Makes the mount point of the container. The mount above it is shared with the mount
    /// namespaces that copy it, as those of runtimes do: so the end of the mount ends the copies,
    /// and no other container that runs keeps its process.
    ///
    /// # Errors
    /// As mkdir(2) and mount(2).
    pub fn make_mount_point(&self) -> io::Result<PathBuf> {
        let (tree, at) = (self.tree(), self.tree().join("root"));
        make_dir(&tree)?;
        mount_bind(&tree, &tree)?;
        mount_change(&tree, MountPropagationFlags::PRIVATE)?;
        mount_change(&tree, MountPropagationFlags::SHARED)?;
        make_dir(&at)?;
        Ok(at)
    }

    /// Removes the mount point of the container, which is not mounted any more.
    ///
    /// # Errors
    /// As umount2(2).
    pub fn end_mount_point(&self) -> io::Result<()> {
        loop {
            match unmount(self.tree(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                // Nothing is mounted there, or there is none.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The socket of the process that holds the container.
    pub fn socket(&self) -> PathBuf {
        self.run.join("attach")
    }

    /// The socket over which the runtime passes the terminal on.
    pub fn console(&self) -> PathBuf {
        self.run.join("console")
    }

    /// The part of the runtime directory.
    pub fn run(&self) -> &Path {
        &self.run
    }
}
