//! Downloads of blobs to files below `ROOT/downloads`, which an interrupted pull continues.
//!
//! `sha256-HEX` holds the first bytes of the blob with that digest. Its writer holds a lock (flock)
//! on it; a second pull waits for it and finds the file complete. The file is removed when the
//! image is in the store, or by a collection when no process writes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::Registry;
use super::pace::{LEAST, Paced};
use crate::error::FromHost;
use crate::store::files::make_dir;
use crate::store::room::Room;
use crate::sys;
use crate::transfer::error::{Result, TransferError};
use crate::types::Digest;

/// Limit of consecutive attempts without new data.
const ATTEMPTS: u32 = 5;
/// Limit of all attempts.
const ATTEMPTS_MAX: u32 = 100;
/// The pause before the second attempt, which doubles each time.
const PAUSE: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 128 << 10;

/// The directory of the downloads of a data root.
#[must_use]
pub fn directory(root: &Path) -> PathBuf {
    root.join("downloads")
}

fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.to_string().replace(':', "-"))
}

/// The download of a blob, with a counter of the received bytes.
pub struct Transfer<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// The directory of the downloads.
    pub dir: &'a Path,
    /// Set when the pull ends: the download then fails at the next block.
    pub ended: &'a AtomicBool,
    /// Called with the number of bytes that are there, including those of an earlier attempt;
    /// negative if bytes are discarded.
    pub progress: &'a (dyn Fn(i64) + Sync),
}

/// Whether another attempt may help.
enum Failure {
    Passing(TransferError),
    Final(TransferError),
}

impl Transfer<'_> {
    /// Downloads a blob, or its missing end. Returns the whole file, verified and at its start.
    ///
    /// # Errors
    /// [`TransferError::Registry`], after several attempts; errors of the host.
    pub fn fetch(&self, digest: &Digest, size: u64) -> Result<File> {
        make_dir(self.dir)?;
        let mut room = Room::new(self.dir)?;
        let path = path_of(self.dir, digest);
        let (mut file, whole) = open(&path).map_err(TransferError::io(&path))?;
        sys::file::flock(file.as_fd()).map_err(TransferError::host(&path))?;
        let mut have = file.metadata().map_err(TransferError::io(&path))?.len();
        if have > size {
            self.restart(&mut file, &mut have).map_err(TransferError::io(&path))?;
        }
        (self.progress)(i64::try_from(have).unwrap_or(i64::MAX));
        // If the bytes of an earlier pull turn out to be wrong, start again once.
        let mut resumed = have > 0;
        loop {
            self.complete(&mut file, &mut room, &mut have, (digest, size))?;
            let found = digest_of(&mut file).map_err(TransferError::io(&path))?;
            if found == *digest {
                break;
            }
            self.restart(&mut file, &mut have).map_err(TransferError::io(&path))?;
            if !std::mem::take(&mut resumed) {
                remove(&path)?;
                let what = format!("blob {digest} is damaged: its bytes have the digest {found}");
                return Err(self.registry.error(what));
            }
        }
        Ok(whole)
    }

    fn restart(&self, file: &mut File, have: &mut u64) -> io::Result<()> {
        (self.progress)(-i64::try_from(*have).unwrap_or(i64::MAX));
        *have = 0;
        file.set_len(0)
    }

    fn complete(
        &self,
        file: &mut File,
        room: &mut Room,
        have: &mut u64,
        blob: (&Digest, u64),
    ) -> Result<()> {
        // Progress means more bytes than ever before: a download that starts again has none yet.
        let (mut idle, mut most, mut tries) = (0, *have, 0);
        let mut since = Instant::now();
        while *have < blob.1 {
            match self.attempt((&mut *file, &mut *room), have, blob) {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => {
                    if *have >= most + LEAST {
                        (idle, since) = (0, Instant::now());
                    } else {
                        idle += 1;
                    }
                    (most, tries) = (most.max(*have), tries + 1);
                    if idle >= ATTEMPTS
                        || (idle > 1 && since.elapsed() >= self.registry.patience)
                        || tries >= ATTEMPTS_MAX
                        || self.ended.load(Ordering::Relaxed)
                    {
                        return Err(error);
                    }
                    tracing::debug!(%error, digest = %blob.0, "another attempt");
                    std::thread::sleep(PAUSE * 2u32.pow(idle));
                }
            }
        }
        Ok(())
    }

    fn attempt(
        &self,
        (file, room): (&mut File, &mut Room),
        have: &mut u64,
        (digest, size): (&Digest, u64),
    ) -> std::result::Result<(), Failure> {
        let host = |error: io::Error| {
            Failure::Final(self.registry.error(format!("file of blob {digest}: {error}")))
        };
        let range = format!("bytes={have}-");
        let answer = self.registry.get(&format!("blobs/{digest}"), ("range", &range));
        let answer = answer.map_err(Failure::Passing)?;
        let start = answer.headers().get("content-range").and_then(|value| value.to_str().ok());
        let continues = start.is_some_and(|text| text.starts_with(&format!("bytes {have}-")));
        match answer.status().as_u16() {
            206 if continues => {}
            // The server has no ranges, or sends another range: take all of it.
            200 => self.restart(file, have).map_err(host)?,
            206 | 416 => {
                self.restart(file, have).map_err(host)?;
                return Err(Failure::Passing(self.registry.refused(answer)));
            }
            408 | 429 | 500.. => return Err(Failure::Passing(self.registry.refused(answer))),
            _ => return Err(Failure::Final(self.registry.refused(answer))),
        }
        file.seek(SeekFrom::Start(*have)).map_err(host)?;
        let mut body = Paced::new(answer.into_body().into_reader(), self.registry.patience);
        let mut buffer = vec![0; READ_BYTES];
        while *have < size {
            let passing = |what| Failure::Passing(self.registry.error(what));
            if self.ended.load(Ordering::Relaxed) {
                return Err(passing("the pull has ended".to_owned()));
            }
            let rest = usize::try_from(size - *have).unwrap_or(READ_BYTES).min(READ_BYTES);
            let space = buffer.get_mut(..rest).unwrap_or_default();
            let len = match body.read(space) {
                Ok(0) => return Err(passing(format!("blob {digest} ends after {have} bytes"))),
                Ok(len) => len,
                Err(error) => return Err(passing(format!("blob {digest}: {error}"))),
            };
            room.take(len as u64).map_err(host)?;
            file.write_all(space.get(..len).unwrap_or_default()).map_err(host)?;
            *have += len as u64;
            (self.progress)(i64::try_from(len).unwrap_or(0));
        }
        Ok(())
    }
}

/// Opens a file to write, which takes the lock, and again to read, without a lock.
fn open(path: &Path) -> io::Result<(File, File)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    loop {
        let (file, whole) = (options.open(path)?, File::open(path)?);
        // Another pull may have ended and removed the file between the two calls.
        if file.metadata()?.ino() == whole.metadata()?.ino() {
            return Ok((file, whole));
        }
    }
}

fn digest_of(file: &mut File) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_sha256(&hash.finalize().into())),
            Ok(len) => hash.update(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(TransferError::io(path)),
    }
}

/// Removes the file of a blob whose layer is in the store.
///
/// # Errors
/// As unlink(2).
pub fn forget(dir: &Path, digest: &Digest) -> Result<()> {
    remove(&path_of(dir, digest))
}

/// Removes all downloads that no process writes. Returns their number.
///
/// # Errors
/// As readdir(3) and unlink(2).
pub fn sweep(dir: &Path) -> Result<usize> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(TransferError::io(dir))?,
    };
    let mut swept = 0;
    for entry in entries {
        let path = entry.map_err(TransferError::io(dir))?.path();
        let Ok(file) = File::open(&path) else { continue };
        if sys::file::try_flock(file.as_fd()).is_ok() {
            remove(&path)?;
            swept += 1;
        }
    }
    Ok(swept)
}
