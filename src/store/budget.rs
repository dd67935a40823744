//! The limit on the memory that names and attributes of a layer may take while it is built.
//!
//! An archive of a few MiB can contain millions of names and attributes. The memory that each of
//! them takes until the index is written, including copies in the tables and in the index, is added
//! up. The sum is compared with the memory that the host and the limits of the process allow.

use std::fs;
use std::mem::size_of;
use std::path::Path;

use super::error::StoreError;
use crate::sys;
use crate::types::Name;

/// The budget on a host with much memory: some five million objects.
const MOST: u64 = 4 << 30;
/// The minimum budget.
const LEAST: u64 = 64 << 20;
/// An import may take the available memory divided by this.
const PART: u64 = 2;

/// Bytes per object, in the builder, in the tables and in the index.
pub(super) const OBJECT: u64 = 600;
/// Additional bytes for a name or target of the given length.
pub(super) const fn text(len: usize) -> u64 {
    64 + 5 * len as u64
}
/// Bytes per set of attributes, without the attributes: a node of a tree.
pub(super) const SET: u64 = 700;
/// Bytes per content, per extent and per frame.
pub(super) const CONTENT: u64 = 256;
pub(super) const EXTENT: u64 = 96;
pub(super) const FRAME: u64 = 112;
/// Bytes per component of a path that is kept.
pub(super) const COMPONENT: u64 = size_of::<Name>() as u64 + 16;

/// The memory budget of a layer, in bytes.
pub(super) struct Budget {
    all: u64,
    left: u64,
}

impl Budget {
    pub(super) const fn new(bytes: u64) -> Self {
        Self { all: bytes, left: bytes }
    }

    /// The budget that suits the host.
    pub(super) fn of_host() -> Self {
        let limits = [available(), of_groups(), sys::process::memory_limit()];
        let least = limits.into_iter().flatten().min().unwrap_or(MOST);
        Self::new((least / PART).clamp(LEAST, MOST))
    }

    /// Takes a number of bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if fewer bytes are left.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), StoreError> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                let mib = self.all >> 20;
                let what = format!(
                    "names and attributes of the layer take more than {mib} MiB of memory, which \
                     is the limit on this host"
                );
                return Err(StoreError::TooLarge { what });
            }
        }
        Ok(())
    }
}

/// The available memory of the host.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// The memory limit of the control groups of the process (cgroup v2, `memory.max`).
fn of_groups() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let limit = |dir: &Path| -> Option<u64> {
        fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok()
    };
    let place = root.join(own);
    let all = place.ancestors().take_while(|dir| dir.starts_with(root));
    all.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let mut budget = Budget::new(100);
        budget.take(60).unwrap();
        assert!(budget.take(41).unwrap_err().to_string().contains("0 MiB"));
        budget.take(40).unwrap();
        assert!(budget.take(1).is_err());
        let host = Budget::of_host();
        assert!((LEAST..=MOST).contains(&host.left), "{}", host.left);
    }
}
