//! Key files: 32 random bytes in a file that only its owner reads.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::{BackupError, Result};
use crate::error::FromHost;
use crate::types::hex;

/// Begins a key file; the number is the version.
const HEAD: &str = "lamina-backup-key-1 ";
/// No key file is longer.
const LONGEST: u64 = 256;

/// The key of a repository.
#[derive(Clone)]
pub struct Key(pub(super) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Makes a key file of mode 0600.
    ///
    /// # Errors
    /// As open(2); an existing file stays.
    pub fn create(path: &Path) -> Result<Self> {
        let key = crate::sys::process::random().map_err(BackupError::host(path))?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(BackupError::io(path))?;
        let text = format!("{HEAD}{}\n", hex::encode(&key));
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(BackupError::io(path))?;
        Ok(Self(key))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`BackupError::Key`] for a file that others may read, or that holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |what: &str| BackupError::Key { path: path.to_owned(), what: what.to_owned() };
        let file = File::open(path).map_err(BackupError::io(path))?;
        let found = file.metadata().map_err(BackupError::io(path))?;
        if !found.is_file() {
            return Err(bad("it is not a regular file"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(bad("others may read it: chmod 600"));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(BackupError::io(path))?;
        let digits = text.trim_end().strip_prefix(HEAD).ok_or_else(|| bad("it holds no key"))?;
        unhex(digits).map(Self).ok_or_else(|| bad("it holds no key of 64 hexadecimal digits"))
    }
}

/// The 32 bytes of 64 hexadecimal digits in lower case.
pub(super) fn unhex(digits: &str) -> Option<[u8; 32]> {
    if !hex::is_hex(digits, 64) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Key::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Key::read(&path).unwrap().0, key.0);
        assert!(Key::create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Key::read(&path).unwrap_err().to_string().contains("chmod 600"));
        let other = dir.path().join("other");
        Key::create(&other).unwrap();
        std::fs::write(&other, "lamina-backup-key-1 abc\n").unwrap();
        assert!(matches!(Key::read(&other), Err(BackupError::Key { .. })));
    }
}
