//! The last backup of the same volume: files that did not change since need not be read.

use super::error::Result;
use super::record::{Entry, Piece, Record, Records, walk_order};
use super::repository::{Manifest, Repository};
use crate::tree::walk::Found;
use crate::types::Kind;

/// Backups that are looked at, the last ones.
const LOOKED_AT: usize = 64;
/// A file that changed less than this before the last backup began may have changed again within
/// the same tick of the clock of its file system.
const TICK_SECONDS: i64 = 2;

type Fetch<'a> = Box<dyn FnMut(super::seal::Id) -> Result<Vec<u8>> + 'a>;

/// The objects of a backup, in the order of a walk.
pub(super) struct Parent<'a> {
    records: Records<Fetch<'a>>,
    current: Option<(Entry, Vec<Piece>)>,
    next: Option<Entry>,
    began: i64,
}

impl<'a> Parent<'a> {
    /// The last backup of a volume, if there is one that can be read.
    pub(super) fn of(repository: &'a Repository, volume: &str) -> Result<Option<Self>> {
        for id in repository.ids()?.iter().rev().take(LOOKED_AT) {
            let manifest = match repository.manifest(id) {
                Ok(manifest) if manifest.volume.id == volume => manifest,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "an earlier backup is not used");
                    continue;
                }
            };
            return Ok(Some(Self::new(repository, &manifest)?));
        }
        Ok(None)
    }

    fn new(repository: &'a Repository, manifest: &Manifest) -> Result<Self> {
        let fetch: Fetch<'a> = Box::new(|id| repository.fetch(id));
        let records = Records::new(manifest.tree()?, fetch);
        Ok(Self { records, current: None, next: None, began: manifest.started_seconds })
    }

    /// The pieces of a file that did not change since. Files must come in the order of a walk.
    pub(super) fn pieces(&mut self, found: &Found) -> Result<Option<Vec<Piece>>> {
        while self
            .current
            .as_ref()
            .is_none_or(|(entry, _)| walk_order(&entry.path, &found.path).is_lt())
        {
            if !self.advance()? {
                return Ok(None);
            }
        }
        let Some((entry, pieces)) = &self.current else { return Ok(None) };
        let stat = &found.stat;
        let is_same = entry.path == found.path
            && entry.kind == Kind::File
            && entry.link.is_none()
            && (entry.size, entry.ino) == (stat.size, stat.ino)
            && (entry.meta.mtime, entry.ctime) == (stat.mtime, stat.ctime)
            && stat.ctime.secs.saturating_add(TICK_SECONDS) < self.began;
        Ok(is_same.then(|| pieces.clone()))
    }

    /// Reads the next object with all its pieces; false at the end.
    fn advance(&mut self) -> Result<bool> {
        let mut current = self.next.take().map(|entry| (entry, Vec::new()));
        loop {
            match (self.records.next()?, &mut current) {
                (Some(Record::Pieces(more)), Some((_, pieces))) => pieces.extend(more),
                (Some(Record::Entry(entry)), None) => current = Some((*entry, Vec::new())),
                (Some(Record::Entry(entry)), Some(_)) => {
                    self.next = Some(*entry);
                    break;
                }
                (Some(_), _) => {}
                (None, None) => return Ok(false),
                (None, Some(_)) => break,
            }
        }
        self.current = current;
        Ok(true)
    }
}
