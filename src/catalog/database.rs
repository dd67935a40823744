//! The catalogue: one SQLite file below the data root, `catalog.db`.
//!
//! Several processes use it at once. It is in WAL mode with `synchronous=FULL`, so that a committed
//! transaction survives a power cut, and a process that is killed leaves nothing half done. A
//! transaction that writes takes the lock of the file first (`BEGIN IMMEDIATE`): all that it reads
//! is read under it.
//!
//! Each user holds a shared lock (flock(2)) on the data root, so that the catalogue of a root that
//! a failed mount had made is removed only while it is unused.
//!
//! One connection writes, and others read at the same time: in WAL mode a reader waits for no
//! writer. A read that begins after a commit sees it, whichever connection it has.
//!
//! The schema has one version (`PRAGMA user_version`). An earlier one is upgraded in place, in one
//! transaction; a later one is refused.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
pub(super) use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params};
use rusqlite::{ErrorCode, OpenFlags, TransactionBehavior};

use super::error::{CatalogError, Result};
use super::schema::STEPS;
use crate::error::{Errno, FromHost};
use crate::store::files::{make_dir, open_dir};
use crate::sys;

/// The file of the catalogue in the data root.
pub(super) const FILE: &str = "catalog.db";
/// The version of the schema that this program reads and writes.
const VERSION: i64 = STEPS.len() as i64;
/// `PRAGMA application_id` of the file: "lmna".
const APPLICATION: i64 = 0x6c6d_6e61;
/// The most connections that read. Each takes three descriptors and [`READER_CACHE_KIB`].
const READERS: usize = 8;
/// The pages that a connection that reads keeps.
const READER_CACHE_KIB: i64 = 512;
/// How long a transaction waits for those of other processes.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two attempts where SQLite itself does not wait.
const PAUSE: Duration = Duration::from_millis(5);

/// An open catalogue.
pub struct Database {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Readers,
    _root: OwnedFd,
}

/// The connections that read. They are opened when they are needed.
#[derive(Default)]
struct Readers {
    state: Mutex<ReaderState>,
    freed: Condvar,
}

#[derive(Default)]
struct ReaderState {
    idle: Vec<Connection>,
    /// Those that exist, idle or not.
    count: usize,
}

/// A connection that reads, in use.
struct Reader<'a> {
    readers: &'a Readers,
    /// `None` where it could not be opened.
    connection: Option<Connection>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut state = self.readers.state.lock();
        match self.connection.take() {
            Some(connection) => state.idle.push(connection),
            None => state.count -= 1,
        }
        drop(state);
        self.readers.freed.notify_one();
    }
}

/// A result of SQLite, before the path of the catalogue is added.
pub(super) type Outcome<T> = std::result::Result<T, Interrupted>;

/// The result of a function that reads a row.
pub(super) type RowResult<T> = rusqlite::Result<T>;

/// Why a transaction ended without a commit.
pub(super) enum Interrupted {
    Sql(rusqlite::Error),
    Catalog(CatalogError),
}

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<CatalogError> for Interrupted {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl Database {
    /// Opens the catalogue of a data root, and creates it if it is missing. `fill` runs in the
    /// transaction that creates it.
    ///
    /// # Errors
    /// [`CatalogError::Newer`], [`CatalogError::Database`]. A crash leaves no catalogue or a whole
    /// one.
    pub(super) fn open(
        root: &Path,
        fill: impl FnOnce(&Transaction<'_>) -> Outcome<()>,
    ) -> Result<Self> {
        let lock = lock_root(root)?;
        let path = root.join(FILE);
        create_file(&path)?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
            use_log(&connection)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            Ok(connection)
        };
        let writer = Mutex::new(open().map_err(|error| refused(&path, &error))?);
        let database = Self { path, writer, readers: Readers::default(), _root: lock };
        database.create(fill)?;
        Ok(database)
    }

    fn create(&self, fill: impl FnOnce(&Transaction<'_>) -> Outcome<()>) -> Result<()> {
        if self.version()? == VERSION {
            return Ok(());
        }
        self.write(|transaction| {
            // Another process may have created or upgraded it since.
            let found = version(transaction)?;
            let steps = usize::try_from(found).ok().and_then(|done| STEPS.get(done..));
            let Some(steps) = steps else {
                let (path, known) = (self.path.clone(), VERSION);
                return Err(CatalogError::Newer { path, found, known }.into());
            };
            for step in steps {
                transaction.execute_batch(step)?;
            }
            if found == 0 {
                fill(transaction)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            Ok(())
        })
    }

    fn version(&self) -> Result<i64> {
        self.outcome(version(&self.writer.lock()).map_err(Interrupted::from))
    }

    /// Reads. Each statement sees the commits before it.
    pub(super) fn read<T>(&self, act: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T> {
        let mut reader = self.reader();
        let connection = match &mut reader.connection {
            Some(connection) => connection,
            none => {
                let opened = connect_reader(&self.path).map_err(|e| refused(&self.path, &e))?;
                none.insert(opened)
            }
        };
        self.outcome(act(connection))
    }

    /// A connection that reads, or the right to open one. Waits while all are in use.
    fn reader(&self) -> Reader<'_> {
        let readers = &self.readers;
        let mut state = readers.state.lock();
        while state.idle.is_empty() && state.count >= READERS {
            readers.freed.wait(&mut state);
        }
        let connection = state.idle.pop();
        state.count += usize::from(connection.is_none());
        Reader { readers, connection }
    }

    /// Reads and writes in one transaction. An error undoes it.
    pub(super) fn write<T>(&self, act: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Result<T> {
        let mut connection = self.writer.lock();
        let run = || -> Outcome<T> {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = act(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        self.outcome(run())
    }

    /// Reads and writes in one transaction, which an error of the caller undoes too.
    pub(super) fn attempt<T, E: From<CatalogError>>(
        &self,
        act: impl FnOnce(&Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let failed = |error| E::from(refused(&self.path, &error));
        let mut connection = self.writer.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = transaction.map_err(failed)?;
        let done = act(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(done)
    }

    pub(super) fn outcome<T>(&self, outcome: Outcome<T>) -> Result<T> {
        outcome.map_err(|error| match error {
            Interrupted::Sql(error) => refused(&self.path, &error),
            Interrupted::Catalog(error) => error,
        })
    }

    /// A row that holds something that this program does not write.
    pub(super) fn damaged(&self, what: impl Display) -> CatalogError {
        let (path, what) = (self.path.clone(), what.to_string());
        CatalogError::Database { path, what, is_damage: true }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags
        | OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(connection)
}

/// Has all that is written go to a log first (WAL). The first time the file itself is rewritten,
/// for which SQLite does not wait: of several processes that make a catalogue, one does it.
fn use_log(connection: &Connection) -> rusqlite::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(rusqlite::Error::SqliteFailure(failure, _))
                if failure.code == ErrorCode::DatabaseBusy && Instant::now() < end =>
            {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// The index of the log is shared memory that readers write too, so that none is read-only.
fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", "ON")?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Takes the shared lock of a data root, which is made if it is missing.
fn lock_root(root: &Path) -> Result<OwnedFd> {
    loop {
        make_dir(root)?;
        let lock = open_dir(root)?;
        sys::file::flock_shared(lock.as_fd()).map_err(CatalogError::host(root))?;
        let found = sys::file::statx_fresh(lock.as_fd()).map_err(CatalogError::host(root))?;
        // It was removed before the lock was taken.
        if found.nlink > 0 {
            return Ok(lock);
        }
    }
}

/// Creates the file for its owner alone: SQLite gives its other files the same mode.
fn create_file(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop).map_err(CatalogError::io(path)),
    }
}

/// Removes a catalogue without volumes, and the data root if nothing else is in it, unless another
/// process uses the catalogue.
///
/// # Errors
/// As open(2) and unlink(2).
pub(super) fn discard(root: &Path) -> Result<()> {
    let lock = open_dir(root)?;
    match sys::file::try_flock(lock.as_fd()) {
        Err(error) if error.is(Errno::AGAIN) => return Ok(()),
        locked => locked.map_err(CatalogError::host(root))?,
    }
    // Nobody holds a lock of a volume without using the catalogue.
    let volumes = root.join("volumes");
    match sys::remove::remove_dir_all(&volumes.join(".locks")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(CatalogError::io(&volumes))?,
    }
    // The directory of a volume keeps all of it.
    if fs::remove_dir(&volumes).is_err() && volumes.exists() {
        return Ok(());
    }
    for suffix in ["", "-wal", "-shm"] {
        let file = root.join(format!("{FILE}{suffix}"));
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(CatalogError::io(&file))?,
        }
    }
    match fs::remove_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed.map_err(CatalogError::io(root)),
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn refused(path: &Path, error: &rusqlite::Error) -> CatalogError {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
        return CatalogError::Locked { path: path.to_owned() };
    }
    let is_damage = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    CatalogError::Database { path: path.to_owned(), what: error.to_string(), is_damage }
}

/// The file without the checks of [`Database::open`].
#[cfg(test)]
pub(super) fn raw(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn names(database: &Database) -> Vec<String> {
        let read = |connection: &Connection| -> Outcome<Vec<String>> {
            let mut statement = connection.prepare_cached("SELECT holder FROM holder")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        };
        database.read(read).unwrap()
    }

    fn add(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<usize> {
        let row = "INSERT INTO holder (volume, holder, since) VALUES ('v', ?1, 0)";
        transaction.execute(row, params![name])
    }

    fn open(root: &Path) -> Database {
        let volume = "INSERT INTO volume (id, name, dir, driver, state, created, changed, options, \
                      labels) VALUES ('v', 'v', 'v', 'local', 1, 0, 0, '{}', '{}')";
        Database::open(root, |transaction| {
            transaction.execute(volume, [])?;
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn a_reader_waits_for_no_writer_and_sees_each_commit() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(dir.path());
        let (begun, read) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let write = |transaction: &Transaction<'_>| -> Outcome<()> {
                    add(transaction, "a")?;
                    begun.wait();
                    read.wait();
                    Ok(())
                };
                database.write(write).unwrap();
            });
            begun.wait();
            // The transaction is open.
            assert_eq!(names(&database), Vec::<String>::new());
            read.wait();
        });
        assert_eq!(names(&database), ["a"]);
        for number in 0..100 {
            database.write(|transaction| Ok(add(transaction, &number.to_string())?)).unwrap();
            assert_eq!(names(&database).len(), number + 2);
        }
    }

    #[test]
    fn many_make_one_catalogue_at_once() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let begun = Barrier::new(4);
            let open = || {
                begun.wait();
                assert_eq!(open(dir.path()).version().unwrap(), VERSION);
            };
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(open);
                }
            });
        }
    }

    #[test]
    fn connections_that_read_are_few_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(dir.path());
        let full = Barrier::new(READERS);
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    let read = |_: &Connection| -> Outcome<()> {
                        full.wait();
                        Ok(())
                    };
                    database.read(read).unwrap();
                    for _ in 0..50 {
                        names(&database);
                    }
                });
            }
            for _ in 0..READERS {
                scope.spawn(|| names(&database));
            }
        });
        let state = database.readers.state.lock();
        assert_eq!((state.count, state.idle.len()), (READERS, READERS));
    }

    #[test]
    fn a_reader_that_fails_leaves_its_place_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(dir.path());
        let file = dir.path().join(FILE);
        let away = dir.path().join("away");
        fs::rename(&file, &away).unwrap();
        for _ in 0..2 * READERS {
            let read = database.read(|connection| Ok(version(connection)?));
            assert!(matches!(read, Err(CatalogError::Database { .. })), "{read:?}");
        }
        fs::rename(&away, &file).unwrap();
        assert_eq!(names(&database), Vec::<String>::new());
        // A statement that fails costs no connection, and nothing can be written.
        for _ in 0..2 * READERS {
            let row = "DELETE FROM volume";
            assert!(database.read(|connection| Ok(connection.execute(row, [])?)).is_err());
        }
        assert_eq!(database.readers.state.lock().count, 1);
    }
}
