//! Where a pod of this host has its files.
//!
//! | path | what it is |
//! | --- | --- |
//! | `ROOT/pods/UID/lock` | locked by the one process that holds the pod |
//! | `ROOT/pods/UID/started` | the pod was started, and has not ended in order |
//! | `ROOT/pods/UID/stop` | asks that process to end the pod; its text is the grace in seconds |
//! | `ROOT/pods/UID/held` | the names of the volumes of this host that it holds |
//! | `ROOT/pods/UID/volumes/NAME/_data` | the content of a volume that belongs to the pod |
//! | `ROOT/pods/UID/roots/CONTAINER` | the root of a container, mounted |
//! | `ROOT/pods/UID/parts/CONTAINER-N` | a subpath of a volume, mounted |
//! | `ROOT/pods/UID/files/CONTAINER` | `/etc/hosts` and the like, and its last message |
//! | `ROOT/pods/UID/logs/CONTAINER/N.log` | the output of the N-th run of a container |
//! | `RUNTIME/pods/UID/...` | bundles, and the state of the OCI runtime |
//!
//! The identifier of the pod names its directory, so that a pod of the same name that comes later
//! has nothing of it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use laminafs::service::hostpath;

use super::mounts;
use crate::container::files::make_dir;
use crate::container::lock::{Locked, is_locked, lock};

/// How often a lock is tried whose file another process removes.
const TRIES: usize = 64;

/// The directories of a pod.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    dir: PathBuf,
    run: PathBuf,
}

/// The right to run a pod. It ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct Held(File);

fn is_uid(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_part)
}

/// What is gone already needs no removal.
fn removed(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Home {
    /// The directories of a pod of a data root. Without a runtime directory its part is in the
    /// data root too.
    ///
    /// # Errors
    /// `InvalidInput` for an identifier that is none.
    pub fn new(root: &Path, runtime: Option<&Path>, uid: &str) -> io::Result<Self> {
        if !is_uid(uid) {
            let text = format!("{uid:?} is not the UID of a pod");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        let dir = root.join("pods").join(uid);
        let run = runtime.map_or_else(|| dir.join("run"), |at| at.join("pods").join(uid));
        Ok(Self { root: root.to_owned(), dir, run })
    }

    /// The pods of a data root that have directories.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn all(root: &Path, runtime: Option<&Path>) -> io::Result<Vec<(String, Self)>> {
        let entries = match fs::read_dir(root.join("pods")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let Ok(uid) = entry?.file_name().into_string() else { continue };
            if let Ok(home) = Self::new(root, runtime, &uid) {
                found.push((uid, home));
            }
        }
        Ok(found)
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the pod has a directory: a process that holds it makes one before it reads the pod.
    pub fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// Takes the right to run the pod. `None` while another process has it.
    ///
    /// # Errors
    /// As mkdir(2), open(2) and flock(2).
    pub fn lock(&self) -> io::Result<Option<Held>> {
        let path = self.dir.join("lock");
        for _ in 0..TRIES {
            make_dir(&self.dir)?;
            match lock(&path)? {
                Locked::Taken(file) => return Ok(Some(Held(file))),
                Locked::Busy => return Ok(None),
                // Another process removes the directory.
                Locked::Gone => {}
            }
        }
        Ok(None)
    }

    /// Whether a process holds the pod.
    pub fn is_held(&self) -> bool {
        is_locked(&self.dir.join("lock"))
    }

    /// The content of a volume that belongs to the pod.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.dir.join("volumes").join(name).join("_data")
    }

    /// The root of a container.
    pub fn container(&self, name: &str) -> PathBuf {
        self.dir.join("roots").join(name)
    }

    /// The place of a subpath.
    pub fn part(&self, container: &str, number: usize) -> PathBuf {
        self.dir.join("parts").join(format!("{container}-{number}"))
    }

    /// The logs of a container.
    pub fn logs(&self, container: &str) -> PathBuf {
        self.dir.join("logs").join(container)
    }

    /// The files of a container that its pod makes.
    pub fn files(&self, container: &str) -> PathBuf {
        self.dir.join("files").join(container)
    }

    /// The bundle of a container.
    pub fn bundle(&self, container: &str) -> PathBuf {
        self.run.join("bundles").join(container)
    }

    /// Where the OCI runtime keeps the state of the pod's containers.
    pub fn runtime(&self) -> PathBuf {
        self.run.join("state")
    }

    /// The file with the names of the volumes that are held for the pod.
    pub fn held(&self) -> PathBuf {
        self.dir.join("held")
    }

    /// The file that asks for the end of the pod.
    pub fn stop(&self) -> PathBuf {
        self.dir.join("stop")
    }

    /// The grace of a request to stop the pod; `None` inside for that of the pod.
    #[allow(clippy::option_option, reason = "no request, and a request without a number")]
    pub fn stop_grace(&self) -> Option<Option<Duration>> {
        let text = fs::read_to_string(self.stop()).ok()?;
        Some(text.trim().parse().ok().map(Duration::from_secs))
    }

    /// Forgets a request to stop the pod: one that was obeyed, or that was for an earlier run.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn forget_stop(&self) -> io::Result<()> {
        removed(fs::remove_file(self.stop()))
    }

    /// Asks the process that holds the pod to end it.
    ///
    /// # Errors
    /// As write(2).
    pub fn ask_to_stop(&self, grace: Option<u64>) -> io::Result<()> {
        let new = self.dir.join("stop.new");
        fs::write(&new, grace.map(|grace| grace.to_string()).unwrap_or_default())?;
        fs::rename(new, self.stop())
    }

    /// Notes that the pod was started, with the name of its runtime: who finds it without a process
    /// goes on with it.
    ///
    /// # Errors
    /// As write(2).
    pub fn note_start(&self, runtime: &str) -> io::Result<()> {
        fs::write(self.dir.join("started"), runtime)
    }

    /// The runtime with which the pod was started; empty if it was not.
    pub fn started_by(&self) -> String {
        fs::read_to_string(self.dir.join("started")).unwrap_or_default()
    }

    /// Whether the pod was started or mounted, and not ended since.
    pub fn is_used(&self) -> bool {
        ["started", "roots", "volumes"].iter().any(|name| self.dir.join(name).exists())
    }

    /// Whether there is output of containers.
    pub fn has_logs(&self) -> bool {
        self.dir.join("logs").exists()
    }

    /// Whether the pod was started and has not ended in order.
    pub fn was_started(&self) -> bool {
        self.dir.join("started").exists()
    }

    /// Ends all mounts of the pod, but those of its volumes where these are kept.
    ///
    /// # Errors
    /// As umount2(2).
    pub fn unmount(&self, keeps_volumes: bool) -> io::Result<()> {
        if !keeps_volumes {
            return mounts::unmount_below(&self.dir);
        }
        mounts::unmount_below(&self.dir.join("parts"))?;
        mounts::unmount_below(&self.dir.join("roots"))
    }

    /// Removes what belongs to a pod that has ended, but for its logs. Nothing is mounted there.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn clear(&self, _held: &Held) -> io::Result<()> {
        self.unmount(false)?;
        for name in ["files", "parts", "roots", "volumes"] {
            hostpath::remove_own(&self.dir.join(name))?;
        }
        hostpath::remove_own(&self.run)?;
        // The request goes last: while the pod counts as started, who finds none asks again.
        removed(fs::remove_file(self.dir.join("started")))?;
        self.forget_stop()
    }

    /// Removes all that belongs to a pod whose object is gone.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn remove(&self, held: Held) -> io::Result<()> {
        self.clear(&held)?;
        hostpath::remove_own(&self.dir.join("logs"))?;
        // The lock goes last: until then no other process makes anything here.
        hostpath::remove_own(&self.dir)?;
        drop(held.0);
        Ok(())
    }
}

/// Whether a pod of a data root has directories on this host: a process holds it, or held it.
#[must_use]
pub fn has_home(root: &Path, uid: &str) -> bool {
    Home::new(root, None, uid).is_ok_and(|home| home.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_pod_also_when_its_directory_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), None, "a-1").unwrap();
        assert!(!home.exists() && !home.is_held());
        let held = home.lock().unwrap().unwrap();
        assert!(home.is_held() && home.lock().unwrap().is_none());
        home.remove(held).unwrap();
        assert!(!home.exists() && !home.is_held());
        let again = home.lock().unwrap();
        assert!(again.is_some() && home.is_held());
        for bad in ["", "..", "a/b", "a b"] {
            Home::new(dir.path(), None, bad).unwrap_err();
        }
    }
}
