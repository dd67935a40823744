//! The index: hard links of a lower layer stay one file when it is copied up.
//!
//! The form is that of the kernel (`fs/overlayfs/namei.c`, `ovl_get_index_name`): the index
//! directory has a hard link to the upper file, named by the hexadecimal origin of the lower file.
//! Every lower name of that file then leads to it. The link count shown is that of the upper file
//! plus the difference kept in the `nlink` mark, `U+n` or `U-n`.

use crate::error::{Errno, Error, Result};
use crate::types::{Kind, Stat, XattrFlags, name};
use crate::union::body::{FileState, Place, UPPER};
use crate::union::layer::DirRef;
use crate::union::layers::Layers;
use crate::union::layers::found::Found;
use crate::union::layers::stage::tolerate;
use crate::union::mark::{self, Mark};
use crate::union::probe::is_plain;

impl Layers {
    /// Finds the file in the index for a lower file with several names, whose data are at `data`.
    pub(in crate::union) fn find_indexed(
        &self,
        lower: &Place,
        stat: &Stat,
        data: &Place,
    ) -> Result<Option<Found>> {
        let Some(index) = self.index() else {
            return Ok(None);
        };
        let Some(origin) = self.origin(lower, stat)? else { return Ok(None) };
        let place = Place::new(UPPER, index, &mark::index_name(&origin));
        let stat = match place.stat() {
            Ok(stat) if self.is_index_entry(&place, &stat)? => stat,
            Ok(_) => return Ok(None),
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::NAMETOOLONG) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let marked = self.marked(UPPER, &place.dir.xattr_names(Some(&place.name))?);
        let stat = match marked.protattr {
            true => self.with_kept_flags(&place, stat)?,
            false => stat,
        };
        let data = if marked.metacopy { Some(data.clone()) } else { None };
        let ino =
            self.stored_ino(&place, marked, stat.ino)?.unwrap_or_else(|| self.show_ino(&stat));
        let indexed = Some(self.read_nlink_diff(&place, &stat)?);
        Ok(Some(Found { stat, place, ino, stack: None, data, indexed, split: None }))
    }

    /// Whether an entry of the index is a file with names. The kernel leaves whiteouts there; a
    /// device 0:0 that a user made is marked.
    pub(in crate::union) fn is_index_entry(&self, place: &Place, stat: &Stat) -> Result<bool> {
        if !self.can_index(stat.kind()) {
            return Ok(false);
        }
        Ok(!stat.is_whiteout_device() || is_plain(&place.dir, &place.name)?)
    }

    /// Returns the place in the index of an upper file that has one, by its origin mark: another
    /// name of the same inode.
    pub(in crate::union) fn index_place(&self, place: &Place) -> Result<Option<Place>> {
        let Some(index) = self.index() else {
            return Ok(None);
        };
        let Some(origin) = self.read_mark(place, Mark::Origin)? else { return Ok(None) };
        let indexed = Place::new(UPPER, index, &mark::index_name(&origin));
        match indexed.stat() {
            Ok(stat) => Ok((stat.ino == place.stat()?.ino).then_some(indexed)),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a file in the index has names in the upper other than the one about to be removed
    /// (`named`). The stored count is not used: it is wrong if the layers changed while they were
    /// not mounted.
    pub(in crate::union) fn keeps_names(&self, state: &FileState, named: bool) -> Result<bool> {
        match &state.place {
            Some(place) if state.indexed => Ok(place.stat()?.nlink > 1 + u32::from(named)),
            _ => Ok(false),
        }
    }

    /// Removes entries from the index to which no name leads any more: the last name was removed
    /// while the layers were not mounted (`ovl_indexdir_cleanup()` in fs/overlayfs/readdir.c).
    pub(in crate::union) fn sweep_index(&self) -> Result<()> {
        let Some(index) = self.index() else {
            return Ok(());
        };
        let mut entries = Vec::new();
        index.list(0, &mut |entry| {
            if !matches!(entry.kind, Kind::Dir | Kind::Char) {
                entries.push(name(entry.name));
            }
            true
        })?;
        for entry in entries {
            let place = Place::new(UPPER, index, &entry);
            let stat = place.stat()?;
            if stat.nlink == 1 && self.read_nlink_diff(&place, &stat)? < 0 {
                // A leftover does no harm but takes space.
                if let Err(error) = index.unlink(&entry) {
                    let name = String::from_utf8_lossy(&entry);
                    tracing::warn!(%error, %name, "an entry of the index without names stays");
                }
            }
        }
        Ok(())
    }

    /// Returns the difference between the link count shown and that of the upper file.
    pub(in crate::union) fn read_nlink_diff(&self, place: &Place, stat: &Stat) -> Result<i64> {
        let Some(value) = self.read_mark(place, Mark::Nlink)? else { return Ok(0) };
        let corrupt = || Error::Corrupt {
            what: format!(
                "link count {:?} of {:?}",
                String::from_utf8_lossy(&value),
                String::from_utf8_lossy(&place.name)
            ),
        };
        let text = std::str::from_utf8(&value).map_err(|_| corrupt())?;
        let number = text.get(1..).and_then(|digits| digits.parse::<i64>().ok());
        match (text.as_bytes().first(), number) {
            (Some(b'U'), Some(diff)) => {
                let whole = self.whole_count(place, text)?;
                Ok(whole.map_or(diff, |whole| whole - i64::from(stat.nlink)))
            }
            // Relative to the lower file: one name of it less or more. The count of that file is
            // not at hand. The kernel writes this form before a copy-up, so that the upper count
            // is taken, but at least 2.
            (Some(b'L'), Some(_)) => Ok(i64::from(stat.nlink == 1)),
            _ => Err(corrupt()),
        }
    }

    /// Stores with a copy that will stand in the index alone how many names the file has. The whole
    /// count holds until the relative one is written anew, after the copy got its second name: a
    /// stop between the two would make the sum wrong.
    pub(in crate::union) fn count_links(
        &self,
        dir: &DirRef,
        entry: &[u8],
        nlink: u32,
    ) -> Result<()> {
        let relative = format!("U{:+}", i64::from(nlink) - 1);
        let whole = format!("{nlink} {relative}");
        for (mark, value) in [(Mark::Links, whole), (Mark::Nlink, relative)] {
            let flags = XattrFlags::default();
            dir.set_xattr(Some(entry), &self.mark_key(mark), value.as_bytes(), flags)?;
        }
        Ok(())
    }

    // Returns the whole count, if it belongs to the relative one.
    fn whole_count(&self, place: &Place, relative: &str) -> Result<Option<i64>> {
        let Some(value) = self.read_mark(place, Mark::Links)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&value);
        let pair = text.split_once(' ').filter(|(_, beside)| *beside == relative);
        Ok(pair.and_then(|(count, _)| count.parse().ok()))
    }

    /// Stores the difference between the link count shown and that of the upper file.
    pub(in crate::union) fn write_nlink_diff(
        &self,
        state: &mut FileState,
        diff: i64,
    ) -> Result<()> {
        let Some(place) = state.place.clone() else { return Ok(()) };
        state.nlink_diff = diff;
        let value = format!("U{diff:+}");
        let key = self.mark_key(Mark::Nlink);
        let entry = Some(&place.name[..]);
        place.dir.set_xattr(entry, &key, value.as_bytes(), XattrFlags::default())?;
        let removed = place.dir.remove_xattr(entry, &self.mark_key(Mark::Links));
        tolerate(removed, &[Errno::NODATA])
    }
}
