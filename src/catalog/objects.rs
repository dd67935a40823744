//! Objects of a cluster's storage interface: texts under a kind, a namespace and a name.
//!
//! All objects share one version, which each write raises by one; an object has the version of its
//! last write. A log keeps the last changes with the text before and after, for those who follow
//! them, and for lists that go on at the version at which they began. Versions before the log are
//! forgotten: who asks for them starts anew.
//!
//! What the texts hold is the matter of the front end. It reads, judges and writes within one
//! transaction ([`Objects::write`]), so that no other process comes between.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use super::database::{Connection, Database, Outcome, Row, Transaction, params};
use super::error::{CatalogError, Result};
use super::volumes;
use crate::error::FromHost;

/// The most bytes of a text.
pub const TEXT_MAX: usize = 3 << 19;
/// The most objects of a catalogue.
pub const OBJECTS_MAX: u64 = 200_000;
/// The most changes that the log keeps.
const LOG_CHANGES: i64 = 20_000;
/// The most bytes of texts that the log keeps.
const LOG_BYTES: i64 = 64 << 20;

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind, as the front end spells it.
    pub kind: String,
    /// The namespace; empty for an object of none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// An object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// Its id, which no other object ever had.
    pub uid: String,
    /// The version of its last write.
    pub version: u64,
    /// Its text.
    pub text: String,
}

/// An object that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewObject<'a> {
    /// Its name.
    pub key: &'a Key,
    /// Its id. A replacement keeps that of the object.
    pub uid: &'a str,
    /// Its text, of at most [`TEXT_MAX`] bytes.
    pub text: &'a str,
    /// The ids of the objects that own it.
    pub owners: &'a [String],
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// The object.
    pub key: Key,
    /// The text before; `None` for a new object.
    pub old: Option<String>,
    /// The text after; `None` for a removed object.
    pub new: Option<String>,
}

impl Change {
    /// The bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        [&self.old, &self.new].into_iter().flatten().map(String::len).sum()
    }
}

/// How many changes are read at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most changes.
    pub count: usize,
    /// The most bytes of their texts.
    pub bytes: usize,
}

/// Which objects a list has.
#[derive(Debug, Clone, Default)]
pub struct Query<'a> {
    /// Their kind.
    pub kind: &'a str,
    /// Their namespace; `None` for all.
    pub namespace: Option<&'a str>,
    /// The version at which they are listed; `None` for the last one.
    pub at: Option<u64>,
    /// The namespace and the name after which the list begins.
    pub after: Option<(&'a str, &'a str)>,
    /// The most objects; `None` for all.
    pub limit: Option<usize>,
}

/// A part of a list, sorted by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// The version at which they were listed.
    pub version: u64,
    /// How many objects come after them.
    pub rest: u64,
}

/// The objects of a catalogue.
pub struct Objects {
    database: Database,
}

/// A transaction that writes.
pub struct Writing<'a> {
    database: &'a Database,
    transaction: &'a Transaction<'a>,
}

impl Objects {
    /// Opens the objects of a data root. The catalogue is made if it is missing.
    ///
    /// # Errors
    /// [`CatalogError::Database`], [`CatalogError::Newer`].
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(CatalogError::io(root))?;
        Ok(Self { database: volumes::open_database(&root)? })
    }

    /// Reads and writes in one transaction. An error undoes it, also one of the caller.
    ///
    /// # Errors
    /// Those of `act`, and [`CatalogError::Database`] where the transaction cannot begin or end.
    /// A crash leaves all of it or nothing.
    pub fn write<T, E: From<CatalogError>>(
        &self,
        act: impl FnOnce(&Writing<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.database.attempt(|transaction| act(&Writing { database: &self.database, transaction }))
    }
}

/// A number of SQLite that is never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
