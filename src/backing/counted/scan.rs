//! What a tree holds.

use std::collections::HashSet;
use std::ops::Range;

use super::account::Used;
use super::blocks::{BLOCK, touched};
use crate::error::{Errno, Result};
use crate::types::{Access, Kind, Name, Seek, Stat, name};
use crate::union::layer::{DirRef, File};

/// Passes the blocks of a range that hold data, until `each` returns false. A file system without
/// holes shows all of a file as data.
///
/// # Errors
/// As lseek(2).
pub(super) fn each_data(
    file: &dyn File,
    range: Range<u64>,
    each: &mut dyn FnMut(Range<u64>) -> bool,
) -> Result<()> {
    let end = range.end.saturating_mul(BLOCK);
    let mut at = range.start.saturating_mul(BLOCK);
    while at < end {
        let start = match file.seek(at, Seek::Data) {
            Ok(start) if start < end => start,
            Ok(_) => return Ok(()),
            // No data behind it.
            Err(error) if error.is(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        let hole = file.seek(start, Seek::Hole)?.min(end);
        let blocks = touched(start, hole.saturating_sub(start));
        at = hole.max(blocks.end.saturating_mul(BLOCK));
        if !each(blocks) {
            return Ok(());
        }
    }
    Ok(())
}

/// The number of blocks that hold data.
///
/// # Errors
/// As lseek(2).
pub(super) fn data_blocks(file: &dyn File) -> Result<u64> {
    let mut count = 0;
    each_data(file, 0..u64::MAX, &mut |range| {
        count += range.end - range.start;
        true
    })?;
    Ok(count)
}

/// Counts trees with hard links between them; their roots do not count.
#[derive(Default)]
pub struct Scan {
    used: Used,
    linked: HashSet<(u64, u64)>,
}

impl Scan {
    /// What was counted.
    #[must_use]
    pub const fn used(&self) -> Used {
        self.used
    }

    /// Counts what is below a directory.
    ///
    /// # Errors
    /// As listing it, and open(2) and lseek(2) of its files.
    pub fn add(&mut self, root: &DirRef) -> Result<()> {
        let mut left = vec![DirRef::clone(root)];
        while let Some(dir) = left.pop() {
            let mut names: Vec<Name> = Vec::new();
            dir.list(0, &mut |entry| {
                names.push(name(entry.name));
                true
            })?;
            for entry in names {
                let stat = match dir.stat(Some(&entry)) {
                    Err(error) if error.is(Errno::NOENT) => continue,
                    stat => stat?,
                };
                if stat.kind() == Kind::Dir {
                    left.push(dir.dir_known(&entry, &stat));
                }
                self.one(&dir, &entry, &stat)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, dir: &DirRef, entry: &[u8], stat: &Stat) -> Result<()> {
        if stat.is_whiteout_device() {
            return Ok(());
        }
        let linked = stat.kind() != Kind::Dir && stat.nlink > 1;
        if linked && !self.linked.insert((stat.dev, stat.ino)) {
            return Ok(());
        }
        self.used.inodes += 1;
        if stat.kind() == Kind::File && stat.size > 0 {
            self.used.blocks += data_blocks(dir.open(entry, Access::Read)?.as_ref())?;
        }
        Ok(())
    }
}
