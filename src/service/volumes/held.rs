//! Volumes that recorded holders use: engines and orchestrators, and pods.

use std::path::PathBuf;

use parking_lot::Mutex;

use super::{
    Refusal, Result, Volume, VolumeService, is_device, parts, place, require_files, settle,
};
use crate::catalog::error::CatalogError;
use crate::catalog::volumes::Locked;
use crate::types::VolumeName;

/// How many volumes are taken into use at once after a start.
const RESUMING: usize = 16;

impl VolumeService {
    /// Whether an engine or an orchestrator holds a volume.
    ///
    /// # Errors
    /// [`CatalogError::Database`].
    pub fn is_held(&self, volume: &Volume) -> Result<bool> {
        Ok(self.volumes.is_held(volume)?)
    }

    /// Takes the state lock of a volume, unless another volume has its name by now.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub(super) fn lock_same(&self, volume: &Volume) -> Result<Locked> {
        let locked = self.volumes.lock(&volume.name)?;
        if locked.volume().id == volume.id {
            return Ok(locked);
        }
        Err(CatalogError::Missing { kind: "volume", name: volume.name.to_string() }.into())
    }

    /// Mounts a volume for a holder, and returns the directory of its content. A holder is a member
    /// of a set, which is recorded: it counts once, and after a restart too.
    ///
    /// # Errors
    /// [`CatalogError::Missing`]; [`IsDevice`](crate::volume::VolumeError::IsDevice); those of the
    /// driver.
    pub fn publish(&self, name: &VolumeName, holder: &str) -> Result<PathBuf> {
        let locked = self.volumes.lock(name)?;
        let volume = locked.volume();
        require_files(volume)?;
        let (driver, spec) = parts(volume)?;
        driver.mount(&place(volume), &spec)?;
        let held = self.volumes.add_holder(&locked, holder).map_err(Refusal::from);
        match held.and_then(|_| self.hold(&locked)) {
            Ok(()) => Ok(volume.mountpoint.clone()),
            Err(error) => {
                settle(&locked)?;
                Err(error)
            }
        }
    }

    /// Ends the use of a volume by a holder. The last one unmounts it, or detaches its device. An
    /// unknown holder or volume is not an error.
    ///
    /// # Errors
    /// [`Refusal::Catalog`]; those of the driver.
    pub fn unpublish(&self, name: &VolumeName, holder: &str) -> Result<()> {
        let locked = match self.volumes.lock(name) {
            Err(CatalogError::Missing { .. }) => return Ok(()),
            locked => locked?,
        };
        if self.volumes.remove_holder(&locked, holder)? > 0 {
            return Ok(());
        }
        self.held.lock().remove(&locked.volume().id);
        settle(&locked)
    }

    /// The holders of a volume.
    ///
    /// # Errors
    /// [`Refusal::Catalog`].
    pub fn holders(&self, volume: &Volume) -> Result<Vec<String>> {
        Ok(self.volumes.holders(volume)?)
    }

    /// Takes the volumes of the recorded holders into use again, after a start of the process that
    /// serves them. What fails is logged. One that hangs keeps one thread of several.
    ///
    /// # Errors
    /// [`Refusal::Catalog`] where the holders cannot be read.
    pub fn resume(&self) -> Result<()> {
        let held = Mutex::new(self.volumes.held()?.into_iter());
        let next = || held.lock().next();
        let resume = || {
            while let Some(volume) = next() {
                if let Err(error) = self.resume_one(&volume) {
                    tracing::error!(%error, name = %volume.name, "a volume in use is not mounted");
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..RESUMING {
                scope.spawn(resume);
            }
        });
        Ok(())
    }

    fn resume_one(&self, volume: &Volume) -> Result<()> {
        let locked = match self.lock_same(volume) {
            Err(error) if error.is_missing() => return Ok(()),
            locked => locked?,
        };
        // Its last holder may have ended since the holders were read; none does while it is locked.
        if !self.volumes.is_held(locked.volume())? {
            return Ok(());
        }
        if is_device(locked.volume()) {
            return self.attach_for(&locked, None).map(drop);
        }
        let (driver, spec) = parts(locked.volume())?;
        driver.mount(&place(locked.volume()), &spec)?;
        self.hold(&locked)
    }

    pub(super) fn hold(&self, locked: &Locked) -> Result<()> {
        let id = locked.volume().id.clone();
        if self.held.lock().contains_key(&id) {
            return Ok(());
        }
        let open = locked.open()?;
        self.held.lock().insert(id, open);
        Ok(())
    }

    /// Ends the mounts of unused volumes, as processes that were killed leave them. A volume with
    /// holders is in use, also before the process that serves them took it up.
    ///
    /// # Errors
    /// [`Refusal::Catalog`] where the volumes cannot be read.
    pub fn settle(&self) -> Result<()> {
        for volume in self.volumes.list()? {
            if let Err(error) = self.settle_one(&volume) {
                tracing::warn!(%error, name = %volume.name, "a volume without users stays mounted");
            }
        }
        Ok(())
    }

    fn settle_one(&self, volume: &Volume) -> Result<()> {
        match self.volumes.try_lock(&volume.name)? {
            Some(locked) if !self.volumes.is_held(locked.volume())? => {
                // Another process may have ended the last use of it.
                self.held.lock().remove(&locked.volume().id);
                settle(&locked)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::super::{NewVolume, Removal};
    use super::*;

    #[test]
    fn a_start_leaves_a_volume_whose_last_holder_ended_meanwhile() {
        let site = tempfile::tempdir().unwrap();
        let root = site.path().join("root");
        let name: VolumeName = "v".parse().unwrap();
        let orchestrator = VolumeService::open(&root).unwrap();
        orchestrator.create(NewVolume::new(name.clone())).unwrap();
        orchestrator.publish(&name, "one").unwrap();
        let started = VolumeService::open(&root).unwrap();
        std::thread::scope(|scope| {
            let locked = orchestrator.volumes.lock(&name).unwrap();
            let resumed = scope.spawn(|| started.resume().unwrap());
            // One of its threads reads the holders and waits for the lock.
            let deadline = Instant::now() + Duration::from_secs(20);
            while !is_awaited(&root) {
                assert!(Instant::now() < deadline, "no thread waits for the lock");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(orchestrator.volumes.remove_holder(&locked, "one").unwrap(), 0);
            orchestrator.held.lock().clear();
            drop(locked);
            resumed.join().unwrap();
        });
        assert!(started.held.lock().is_empty(), "nothing would end this use");
        orchestrator.erase(&name).unwrap();
    }

    #[test]
    fn a_volume_whose_daemon_is_down_is_still_held() {
        let site = tempfile::tempdir().unwrap();
        let root = site.path().join("root");
        let name: VolumeName = "v".parse().unwrap();
        let daemon = VolumeService::open(&root).unwrap();
        let volume = daemon.create(NewVolume::new(name.clone())).unwrap();
        daemon.publish(&name, "one").unwrap();
        drop(daemon);
        let user = VolumeService::open(&root).unwrap();
        let snapshot = "s".parse().unwrap();
        assert!(user.roll_back(&name, &snapshot).unwrap_err().is_in_use());
        assert!(user.rename(&name, &snapshot).unwrap_err().is_in_use());
        assert!(user.remove(&name, Removal::default()).unwrap_err().is_in_use());
        assert!(user.erase_unheld(&volume).unwrap_err().is_in_use());
        user.unpublish(&name, "one").unwrap();
        assert!(user.roll_back(&name, &snapshot).unwrap_err().is_missing());
        user.remove(&name, Removal::default()).unwrap();
    }

    #[test]
    fn a_new_volume_of_the_name_stays() {
        let site = tempfile::tempdir().unwrap();
        let name: VolumeName = "v".parse().unwrap();
        let service = VolumeService::open(&site.path().join("root")).unwrap();
        let old = service.create(NewVolume::new(name.clone())).unwrap();
        service.erase(&name).unwrap();
        let new = service.create(NewVolume::new(name.clone())).unwrap();
        assert!(service.erase_unheld(&old).unwrap_err().is_missing());
        service.erase_made(&old).unwrap();
        assert_eq!(service.inspect(&name).unwrap().id, new.id);
    }

    /// Whether a thread waits for the state lock of a volume of a data root.
    fn is_awaited(root: &Path) -> bool {
        let locks = std::fs::read_dir(root.join("volumes/.locks")).unwrap().flatten();
        let inodes: Vec<String> =
            locks.map(|it| it.metadata().unwrap().ino().to_string()).collect();
        let table = std::fs::read_to_string("/proc/locks").unwrap();
        // proc(5): the waiting process, and then `major:minor:inode`.
        let mut waiting = table.lines().filter(|line| line.contains("-> FLOCK"));
        let is_ours = |line: &str| inodes.iter().any(|inode| line.contains(&format!(":{inode} ")));
        waiting.any(is_ours)
    }
}
