//! A backup of a tree.
//!
//! Files from 256 KiB are cut by themselves. Smaller ones are put together to chunks, which end
//! after a file that its content chooses, so that a changed file changes one chunk. Files that did
//! not change since the last backup of the volume are not read.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::chunker::{CHUNK_MAX, Chunker, DATA, TREE};
use super::error::{BackupError, Result};
use super::lease::{Lease, Purpose};
use super::parent::Parent;
use super::pool::Sending;
use super::record::{Entry, PIECES_MAX, Piece, Record};
use super::remote::Traffic;
use super::repository::{Manifest, Repository, Subject, random_digits};
use super::seal::{Id, Sealer};
use crate::error::FromHost;
use crate::sys::file::{self, major, minor};
use crate::tree::error::{on_host, shown};
use crate::tree::notes::Notes;
use crate::tree::walk::{Found, Walk, next_data};
use crate::tree::{Meta, OnBytes};
use crate::types::{Kind, MODE_MASK};

/// Files below this length are put together.
const SMALL: u64 = DATA.min as u64;
/// Bytes of small files in a chunk: usual, and at most before the last file.
const PACK_USUAL: u64 = DATA.usual as u64;
const PACK_MAX: usize = CHUNK_MAX - SMALL as usize;
/// Records that wait for the chunk of a small file.
const WAITING_MAX: usize = 4096;
const STEP_BYTES: usize = 1 << 20;

/// What a backup is of.
#[derive(Debug, Clone)]
pub struct Task {
    /// The volume.
    pub volume: Subject,
    /// Labels of the backup.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Whether the content stays as it is meanwhile.
    pub still: bool,
}

/// A finished backup.
#[derive(Debug, Clone)]
pub struct Done {
    /// The backup.
    pub manifest: Manifest,
    /// Chunks that the repository did not have.
    pub new_chunks: u64,
    /// The bytes of files that were read.
    pub read_bytes: u64,
    /// Requests and bytes.
    pub traffic: Traffic,
    /// What is left out or incomplete.
    pub notes: Notes,
}

/// Makes a backup of a tree. The manifest is written last: before that nobody sees the backup, and
/// what was sent shortens the next one. `progress` receives the bytes of data that are done,
/// with those that are not read again.
///
/// # Errors
/// [`BackupError::Busy`] while chunks are pruned; errors of the tree and of requests.
pub fn backup(
    repository: &Arc<Repository>,
    tree: &Path,
    task: Task,
    progress: &mut OnBytes<'_>,
) -> Result<Done> {
    let lease = Lease::take(repository, Purpose::Backup)?;
    let known = repository.known()?;
    let parent = Parent::of(repository, &task.volume.id)?;
    let now = SystemTime::now();
    let started = humantime::format_rfc3339_millis(now).to_string();
    let id: String = started.chars().filter(|letter| !matches!(letter, '-' | ':' | '.')).collect();
    let id = format!("{id}-{}", random_digits(8)?);
    let written = std::thread::scope(|scope| {
        let sending = Sending::start(scope, repository, known);
        let mut writer = Writer::new(&repository.sealer, tree, parent, sending, progress);
        writer.tree().and_then(|()| writer.finish())
    })?;
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let manifest = Manifest {
        version: 1,
        id,
        volume: task.volume,
        labels: task.labels,
        started,
        started_seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        still: task.still,
        entries: written.entries,
        data_bytes: written.data_bytes,
        tree: written.tree.iter().map(Id::to_string).collect(),
    };
    lease.check()?;
    repository.write_manifest(&manifest)?;
    let (new_chunks, read_bytes) = (written.new_chunks, written.read_bytes);
    let (traffic, notes) = (repository.traffic(), written.notes);
    Ok(Done { manifest, new_chunks, read_bytes, traffic, notes })
}

#[derive(Default)]
struct Written {
    tree: Vec<Id>,
    entries: u64,
    data_bytes: u64,
    read_bytes: u64,
    new_chunks: u64,
    notes: Notes,
}

/// A small file in the chunk that is being filled: the record of its pieces.
struct InPack {
    record: usize,
    at: u64,
    from: u32,
    len: u32,
}

/// A file that is being cut.
struct Cut {
    chunker: Chunker,
    /// The places in the file of the data that is not in a chunk yet: offset and length.
    extents: VecDeque<(u64, u64)>,
    pieces: Vec<Piece>,
}

impl Cut {
    fn new(seed: u64) -> Self {
        let chunker = Chunker::new(DATA, seed);
        Self { chunker, extents: VecDeque::new(), pieces: Vec::new() }
    }
}

/// Whether a piece follows another one in the file and in the chunk.
fn continues(last: &Piece, piece: &Piece) -> bool {
    let len = u64::from(last.len);
    last.id == piece.id
        && last.at + len == piece.at
        && u64::from(last.from) + len == u64::from(piece.from)
}

struct Writer<'a, 'p> {
    sealer: &'a Sealer,
    base: &'a Path,
    progress: &'a mut OnBytes<'p>,
    parent: Option<Parent<'a>>,
    sending: Sending,
    list: Chunker,
    pack: Vec<u8>,
    in_pack: Vec<InPack>,
    waiting: Vec<Record>,
    done: Written,
}

impl<'a, 'p> Writer<'a, 'p> {
    fn new(
        sealer: &'a Sealer,
        base: &'a Path,
        parent: Option<Parent<'a>>,
        sending: Sending,
        progress: &'a mut OnBytes<'p>,
    ) -> Self {
        Self {
            sealer,
            base,
            progress,
            parent,
            sending,
            list: Chunker::new(TREE, sealer.seed()),
            pack: Vec::new(),
            in_pack: Vec::new(),
            waiting: Vec::new(),
            done: Written::default(),
        }
    }

    fn tree(&mut self) -> Result<()> {
        let mut walk = Walk::new(self.base)?;
        while let Some(found) = walk.next()? {
            self.object(&found)?;
            (self.progress)(self.done.data_bytes);
        }
        self.done.notes.append(walk.into_notes());
        Ok(())
    }

    fn finish(&mut self) -> Result<Written> {
        self.end_pack()?;
        self.record(&Record::End(self.done.entries))?;
        while let Some(chunk) = self.list.rest() {
            self.list_chunk(chunk)?;
        }
        self.done.new_chunks = self.sending.finish()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn object(&mut self, found: &Found) -> Result<()> {
        self.done.entries += 1;
        if self.waiting.len() >= WAITING_MAX {
            self.end_pack()?;
        }
        self.queue(Record::Entry(Box::new(entry(found))))?;
        if found.kind() != Kind::File || found.link.is_some() || found.stat.size == 0 {
            return Ok(());
        }
        if let Some(pieces) = self.unchanged(found)? {
            self.done.data_bytes += pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>();
            for part in pieces.chunks(PIECES_MAX) {
                self.queue(Record::Pieces(part.to_vec()))?;
            }
            return Ok(());
        }
        match found.stat.size < SMALL {
            true => self.small(found),
            false => self.large(found),
        }
    }

    /// The pieces of a file that did not change since the last backup and whose chunks are there.
    fn unchanged(&mut self, found: &Found) -> Result<Option<Vec<Piece>>> {
        let Some(parent) = &mut self.parent else { return Ok(None) };
        match parent.pieces(found) {
            Ok(Some(pieces)) if pieces.iter().all(|piece| self.sending.has(piece.id)) => {
                Ok(Some(pieces))
            }
            Ok(_) => Ok(None),
            Err(error @ (BackupError::Damaged { .. } | BackupError::Missing { .. })) => {
                tracing::warn!(%error, "the last backup is damaged: all files are read");
                self.parent = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn small(&mut self, found: &Found) -> Result<()> {
        let start = self.pack.len();
        let record = self.waiting.len();
        let mut at = 0;
        while let Some((from, end)) = self.next_data(found, at)? {
            let len = usize::try_from(end - from).unwrap_or(usize::MAX);
            let mut data = vec![0; len];
            let read = self.read(found, &mut data, from)?;
            data.truncate(read);
            let (begin, len) = (narrow(self.pack.len()), narrow(read));
            self.in_pack.push(InPack { record, at: from, from: begin, len });
            self.pack.extend(data);
            at = end;
        }
        let data = self.pack.get(start..).unwrap_or_default();
        let len = data.len() as u64;
        if len == 0 {
            return Ok(());
        }
        self.done.data_bytes += len;
        // The name depends on the key, so that the ends do not show a known file.
        let first = self.sealer.id(data).0.first_chunk().copied().unwrap_or_default();
        let chosen = u64::from_le_bytes(first);
        self.waiting.push(Record::Pieces(Vec::new()));
        // A file of this length ends a chunk as often as a byte in PACK_USUAL is chosen.
        let ends = chosen / (u64::MAX / PACK_USUAL) < len;
        if ends || self.pack.len() > PACK_MAX { self.end_pack() } else { Ok(()) }
    }

    fn next_data(&self, found: &Found, at: u64) -> Result<Option<(u64, u64)>> {
        let Some(opened) = &found.file else { return Ok(None) };
        let place = on_host(self.base, &found.path);
        next_data(opened.as_fd(), at, found.stat.size).map_err(BackupError::host(&place))
    }

    /// Cuts a file. Its data is one stream without the holes, so that many short parts do not
    /// become many chunks.
    fn large(&mut self, found: &Found) -> Result<()> {
        let mut cut = Cut::new(self.sealer.seed());
        let mut buffer = vec![0; STEP_BYTES];
        let mut next = self.next_data(found, 0)?;
        while let Some((start, end)) = next {
            let rest = usize::try_from(end - start).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let part = buffer.get_mut(..rest).unwrap_or_default();
            let read = self.read(found, part, start)?;
            cut.chunker.push(part.get(..read).unwrap_or_default());
            cut.extents.push_back((start, read as u64));
            // A file that shrank has a hole there.
            let to = if read < rest { end } else { start + read as u64 };
            next = if to < end { Some((to, end)) } else { self.next_data(found, end)? };
            while let Some(chunk) = cut.chunker.cut() {
                self.chunk(&mut cut, chunk)?;
            }
        }
        while let Some(chunk) = cut.chunker.rest() {
            self.chunk(&mut cut, chunk)?;
        }
        match cut.pieces.is_empty() {
            true => Ok(()),
            false => self.queue(Record::Pieces(cut.pieces)),
        }
    }

    /// Sends a chunk of a file, and notes where its parts belong.
    fn chunk(&mut self, cut: &mut Cut, chunk: Vec<u8>) -> Result<()> {
        let (id, len) = (self.sealer.id(&chunk), chunk.len() as u64);
        self.sending.send(id, chunk)?;
        self.done.data_bytes += len;
        (self.progress)(self.done.data_bytes);
        let mut from = 0;
        while from < len {
            let Some((at, extent)) = cut.extents.pop_front() else { break };
            let taken = extent.min(len - from);
            if taken < extent {
                cut.extents.push_front((at + taken, extent - taken));
            }
            let piece = Piece { at, len: narrow64(taken), id, from: narrow64(from) };
            from += taken;
            match cut.pieces.last_mut() {
                Some(last) if continues(last, &piece) => last.len += piece.len,
                _ => cut.pieces.push(piece),
            }
        }
        if cut.pieces.len() >= PIECES_MAX {
            // The list of a long file does not stay in memory.
            self.end_pack()?;
            for part in std::mem::take(&mut cut.pieces).chunks(PIECES_MAX) {
                self.queue(Record::Pieces(part.to_vec()))?;
            }
        }
        Ok(())
    }

    /// Reads up to the end of the buffer or of the file.
    fn read(&mut self, found: &Found, buffer: &mut [u8], at: u64) -> Result<usize> {
        let Some(opened) = &found.file else { return Ok(0) };
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = file::pread(opened.as_fd(), rest, at + filled as u64);
            let read = read.map_err(BackupError::host(&on_host(self.base, &found.path)))?;
            if read == 0 {
                let path = shown(&found.path);
                self.done.notes.add(format!("{path}: it shrank while it was read"));
                break;
            }
            filled += read;
        }
        self.done.read_bytes += filled as u64;
        Ok(filled)
    }

    /// Writes a record, behind those that wait.
    fn queue(&mut self, record: Record) -> Result<()> {
        if self.in_pack.is_empty() {
            return self.record(&record);
        }
        self.waiting.push(record);
        Ok(())
    }

    /// Sends the chunk of small files, and writes the records that wait for it.
    fn end_pack(&mut self) -> Result<()> {
        if self.in_pack.is_empty() {
            return Ok(());
        }
        let pack = std::mem::take(&mut self.pack);
        let id = self.sealer.id(&pack);
        for InPack { record, at, from, len } in std::mem::take(&mut self.in_pack) {
            if len > 0
                && let Some(Record::Pieces(pieces)) = self.waiting.get_mut(record)
            {
                pieces.push(Piece { at, len, id, from });
            }
        }
        if !pack.is_empty() {
            self.sending.send(id, pack)?;
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().try_for_each(|record| self.record(record))
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.list.push(&record.encode()?);
        while let Some(chunk) = self.list.cut() {
            self.list_chunk(chunk)?;
        }
        Ok(())
    }

    fn list_chunk(&mut self, chunk: Vec<u8>) -> Result<()> {
        let id = self.sealer.id(&chunk);
        self.done.tree.push(id);
        self.sending.send(id, chunk)
    }
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn narrow64(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn entry(found: &Found) -> Entry {
    let stat = &found.stat;
    let is_device = matches!(found.kind(), Kind::Char | Kind::Block);
    Entry {
        path: found.path.clone(),
        kind: found.kind(),
        meta: Meta {
            mode: stat.mode & MODE_MASK,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            atime: Some(stat.atime),
            xattrs: found.xattrs.clone(),
        },
        ctime: stat.ctime,
        ino: stat.ino,
        device: if is_device { (major(stat.rdev), minor(stat.rdev)) } else { (0, 0) },
        size: if found.kind() == Kind::File { stat.size } else { 0 },
        target: found.target.clone(),
        link: found.link.clone(),
    }
}
