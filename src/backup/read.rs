//! The restore of a backup to a directory.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::error::{BackupError, Result};
use super::pool::{Fetching, Slot};
use super::record::{Entry, Piece, Record, Records};
use super::repository::{Manifest, Repository};
use super::seal::Id;
use crate::sys::file::makedev;
use crate::tree::OnBytes;
use crate::tree::error::TreeError;
use crate::tree::make::{Maker, NewFile, Node};
use crate::tree::notes::Notes;
use crate::types::Kind;

/// Chunks that are fetched ahead or kept.
const AHEAD: usize = 16;
/// Pieces and entries that wait for their chunks.
const ITEMS: usize = 4096;

/// What was restored.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The number of objects.
    pub entries: u64,
    /// The bytes of data of files.
    pub data_bytes: u64,
    /// What could not be set.
    pub notes: Notes,
}

/// Restores a backup into a directory that nobody else sees. After an error a part of the content
/// is there. `progress` receives the bytes of data that are written.
///
/// # Errors
/// [`BackupError::File`] with [`BackupError::Damaged`] or [`BackupError::Missing`] for a chunk;
/// errors of requests and of the host.
pub fn restore(
    repository: &Repository,
    manifest: &Manifest,
    into: &Path,
    progress: &mut OnBytes<'_>,
) -> Result<Restored> {
    let maker = Maker::new(into)?;
    let tree = manifest.tree()?;
    std::thread::scope(|scope| {
        let fetching = Fetching::start(scope, repository);
        let mut records = Records::new(tree, |id| repository.fetch(id));
        let mut ahead = Ahead { fetching, items: VecDeque::new(), recent: VecDeque::new(), new: 0 };
        let mut target = Target { maker, file: None, done: Restored::default(), progress };
        let mut ended = false;
        loop {
            while !ended && ahead.has_room() {
                match records.next()? {
                    Some(record) => ahead.add(record),
                    None => ended = true,
                }
            }
            let Some(item) = ahead.next() else { break };
            target.take(item)?;
        }
        target.finish()
    })
}

/// An entry, or a piece with the chunk that holds it.
enum Item {
    Entry(Box<Entry>),
    /// Without a slot the chunk is not requested yet. The last value says whether the piece counts
    /// among the chunks that are fetched ahead.
    Piece(Piece, Option<Arc<Slot>>, bool),
}

struct Ahead {
    fetching: Fetching,
    items: VecDeque<Item>,
    recent: VecDeque<(Id, Arc<Slot>)>,
    /// Chunks that were requested for items that wait.
    new: usize,
}

impl Ahead {
    fn has_room(&self) -> bool {
        self.new < AHEAD && self.items.len() < ITEMS
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => self.items.push_back(Item::Entry(entry)),
            Record::Pieces(pieces) => pieces.into_iter().for_each(|piece| self.piece(piece)),
            Record::End(_) => {}
        }
    }

    fn piece(&mut self, piece: Piece) {
        let recent = self.recent.iter().find(|(id, _)| *id == piece.id);
        if let Some(slot) = recent.map(|(_, slot)| Arc::clone(slot)) {
            self.items.push_back(Item::Piece(piece, Some(slot), false));
            return;
        }
        self.items.push_back(Item::Piece(piece, None, true));
        self.new += 1;
    }

    fn next(&mut self) -> Option<Item> {
        self.request();
        let item = self.items.pop_front()?;
        if let Item::Piece(_, _, true) = item {
            self.new = self.new.saturating_sub(1);
        }
        Some(item)
    }

    /// Requests the chunks of the first items: a record of pieces may name more than fit into
    /// memory.
    fn request(&mut self) {
        let mut left = AHEAD;
        for item in &mut self.items {
            let Item::Piece(piece, slot, is_new) = item else { continue };
            if left == 0 {
                return;
            }
            if !*is_new {
                continue;
            }
            left -= 1;
            if slot.is_some() {
                continue;
            }
            let recent = self.recent.iter().find(|(id, _)| *id == piece.id);
            if let Some((_, found)) = recent {
                *slot = Some(Arc::clone(found));
                continue;
            }
            let fetched = self.fetching.fetch(piece.id);
            *slot = Some(Arc::clone(&fetched));
            self.recent.push_back((piece.id, fetched));
            if self.recent.len() > AHEAD {
                self.recent.pop_front();
            }
        }
    }
}

struct Target<'a, 'p> {
    progress: &'a mut OnBytes<'p>,
    maker: Maker<'a>,
    file: Option<(NewFile, Box<Entry>)>,
    done: Restored,
}

impl Target<'_, '_> {
    fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Entry(entry) => {
                self.end_file()?;
                self.done.entries += 1;
                self.entry(entry)
            }
            Item::Piece(piece, slot, _) => self.piece(piece, slot.as_deref()),
        }
    }

    fn entry(&mut self, entry: Box<Entry>) -> Result<()> {
        if let Some(first) = &entry.link {
            return Ok(self.maker.link(&entry.path, first)?);
        }
        let node = match entry.kind {
            Kind::File => {
                self.file = Some((self.maker.begin_file(&entry.path)?, entry));
                return Ok(());
            }
            Kind::Dir => Node::Dir,
            Kind::Symlink => Node::Symlink(&entry.target),
            Kind::Unknown => {
                return Err(TreeError::entry(&entry.path, "its kind is unknown").into());
            }
            kind => Node::Special(kind, makedev(entry.device.0, entry.device.1)),
        };
        Ok(self.maker.put(&entry.path, node, &entry.meta)?)
    }

    fn piece(&mut self, piece: Piece, slot: Option<&Slot>) -> Result<()> {
        let (Some((file, entry)), Some(slot)) = (&self.file, slot) else {
            let (object, what) =
                ("the list of objects".to_owned(), "data without a file".to_owned());
            return Err(BackupError::Damaged { object, what });
        };
        let content = slot.wait().map_err(|error| error.of(&entry.path))?;
        let (from, len) = (piece.from as usize, piece.len as usize);
        let part = content.get(from..from.saturating_add(len));
        let fits = piece.at.checked_add(len as u64).is_some_and(|end| end <= entry.size);
        let Some(part) = part.filter(|_| fits) else {
            let what = "a piece is outside of its chunk or file".to_owned();
            let object = "the list of objects".to_owned();
            return Err(BackupError::Damaged { object, what }.of(&entry.path));
        };
        self.maker.write(file, part, piece.at)?;
        self.done.data_bytes += len as u64;
        (self.progress)(self.done.data_bytes);
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        let Some((file, entry)) = self.file.take() else { return Ok(()) };
        Ok(self.maker.end_file(file, entry.size, &entry.meta)?)
    }

    fn finish(mut self) -> Result<Restored> {
        self.end_file()?;
        self.done.notes = self.maker.finish()?;
        Ok(self.done)
    }
}
