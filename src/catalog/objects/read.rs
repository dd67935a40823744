//! Reading objects, lists at a version, and the log of changes.

use std::collections::BTreeMap;

use super::{
    Change, Connection, Key, Limits, Object, Objects, Outcome, Page, Query, Result, Row, Writing,
    params, signed, unsigned,
};
use crate::catalog::database::{OptionalExtension, RowResult};

const COLUMNS: &str = "kind, namespace, name, uid, version, text";

/// Of each object that changed after a version: its text at that version.
type Before = BTreeMap<(String, String), Option<String>>;

pub(super) struct State {
    pub(super) version: u64,
    pub(super) forgotten: u64,
    pub(super) count: u64,
}

pub(super) fn state(connection: &Connection) -> Outcome<State> {
    let sql = "SELECT version, forgotten, count FROM object_state";
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (version, forgotten, count) = (unsigned(row.0), unsigned(row.1), unsigned(row.2));
    Ok(State { version, forgotten, count })
}

fn key(row: &Row<'_>, from: usize) -> RowResult<Key> {
    Ok(Key { kind: row.get(from)?, namespace: row.get(from + 1)?, name: row.get(from + 2)? })
}

fn object(row: &Row<'_>) -> RowResult<Object> {
    let version: i64 = row.get(4)?;
    let (uid, text) = (row.get(3)?, row.get(5)?);
    Ok(Object { key: key(row, 0)?, uid, version: unsigned(version), text })
}

fn change(row: &Row<'_>) -> RowResult<Change> {
    let version: i64 = row.get(0)?;
    let (old, new) = (row.get(4)?, row.get(5)?);
    Ok(Change { version: unsigned(version), key: key(row, 1)?, old, new })
}

pub(super) fn find(connection: &Connection, key: &Key) -> Outcome<Option<Object>> {
    let sql =
        format!("SELECT {COLUMNS} FROM object WHERE kind = ?1 AND namespace = ?2 AND name = ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row(params![key.kind, key.namespace, key.name], object);
    Ok(found.optional()?)
}

/// What a list has at an earlier version instead of the rows of now.
fn before(connection: &Connection, query: &Query<'_>, at: u64) -> Outcome<Before> {
    let sql = "SELECT namespace, name, old FROM object_change
               WHERE version > ?1 AND kind = ?2 AND (?3 IS NULL OR namespace = ?3)
               ORDER BY version";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![signed(at), query.kind, query.namespace])?;
    let mut before = Before::new();
    while let Some(row) = rows.next()? {
        before.entry((row.get(0)?, row.get(1)?)).or_insert(row.get(2)?);
    }
    Ok(before)
}

fn rows(connection: &Connection, query: &Query<'_>, limit: usize) -> Outcome<Vec<Object>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM object
         WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2) AND (namespace, name) > (?3, ?4)
         ORDER BY namespace, name LIMIT ?5"
    );
    let (namespace, name) = query.after.unwrap_or_default();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let found = params![query.kind, query.namespace, namespace, name, limit];
    let rows = statement.query_map(found, object)?;
    Ok(rows.collect::<RowResult<_>>()?)
}

fn count(connection: &Connection, query: &Query<'_>, last: Option<&Key>) -> Outcome<u64> {
    let sql = "SELECT count(*) FROM object
               WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2) AND (namespace, name) > (?3, ?4)";
    let Some(last) = last else { return Ok(0) };
    let mut statement = connection.prepare_cached(sql)?;
    let found = params![query.kind, query.namespace, last.namespace, last.name];
    Ok(unsigned(statement.query_row(found, |row| row.get(0))?))
}

/// Lays the texts of an earlier version over the rows of now.
fn restore(objects: Vec<Object>, before: Before, query: &Query<'_>, at: u64) -> Vec<Object> {
    let (namespace, name) = query.after.unwrap_or_default();
    let mut all: BTreeMap<(String, String), Object> = objects
        .into_iter()
        .map(|object| ((object.key.namespace.clone(), object.key.name.clone()), object))
        .collect();
    for (place, text) in before {
        let comes_after = (place.0.as_str(), place.1.as_str()) > (namespace, name);
        let uid = all.remove(&place).map(|object| object.uid).unwrap_or_default();
        if let (true, Some(text)) = (comes_after, text) {
            let (namespace, name) = place.clone();
            let key = Key { kind: query.kind.to_owned(), namespace, name };
            all.insert(place, Object { key, uid, version: at, text });
        }
    }
    all.into_values().collect()
}

pub(super) fn list(connection: &Connection, query: &Query<'_>) -> Outcome<Option<Page>> {
    let state = state(connection)?;
    let version = query.at.unwrap_or(state.version);
    if version < state.forgotten || version > state.version {
        return Ok(None);
    }
    let limit = query.limit.unwrap_or(usize::MAX);
    let mut objects;
    let mut rest = 0;
    let before = before(connection, query, version)?;
    if before.is_empty() {
        objects = rows(connection, query, limit)?;
        if objects.len() == limit {
            rest = count(connection, query, objects.last().map(|object| &object.key))?;
        }
    } else {
        // All of them: a list that goes on after changes is rare.
        objects = restore(rows(connection, query, usize::MAX)?, before, query, version);
        rest = u64::try_from(objects.len().saturating_sub(limit)).unwrap_or_default();
        objects.truncate(limit);
    }
    Ok(Some(Page { objects, version, rest }))
}

impl Objects {
    /// The last version.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn version(&self) -> Result<u64> {
        self.database.read(|connection| Ok(state(connection)?.version))
    }

    /// An object.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn find(&self, key: &Key) -> Result<Option<Object>> {
        self.database.read(|connection| find(connection, key))
    }

    /// A list; `None` where its version is forgotten or still to come. In a list at an earlier
    /// version, objects that changed since carry the version of the list, and those that are gone
    /// no id.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn list(&self, query: &Query<'_>) -> Result<Option<Page>> {
        self.database.read(|connection| {
            // One transaction: all statements see one version.
            let transaction = connection.unchecked_transaction()?;
            list(&transaction, query)
        })
    }

    /// The changes after a version, oldest first: as many as the limits allow, and at least one.
    /// `None` where that version is forgotten. A version that is still to come has no changes.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn changes(&self, since: u64, limits: Limits) -> Result<Option<Vec<Change>>> {
        self.database.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            if since < state(&transaction)?.forgotten {
                return Ok(None);
            }
            let sql = "SELECT version, kind, namespace, name, old, new FROM object_change
                       WHERE version > ?1 ORDER BY version LIMIT ?2";
            let count = i64::try_from(limits.count).unwrap_or(i64::MAX);
            let mut statement = transaction.prepare_cached(sql)?;
            let mut changes = Vec::new();
            let mut left = limits.bytes;
            for row in statement.query_map(params![signed(since), count], change)? {
                let change = row?;
                let len = change.text_bytes();
                if len > left && !changes.is_empty() {
                    break;
                }
                left = left.saturating_sub(len);
                changes.push(change);
            }
            Ok(Some(changes))
        })
    }
}

impl Writing<'_> {
    /// An object.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn find(&self, key: &Key) -> Result<Option<Object>> {
        self.database.outcome(find(self.transaction, key))
    }

    /// All objects of a kind, in one namespace or in all.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> Result<Vec<Object>> {
        let query = Query { kind, namespace, ..Query::default() };
        self.database.outcome(rows(self.transaction, &query, usize::MAX))
    }

    /// The names of some objects of a namespace, each with its place in the order in which they
    /// were made: at most `limit` after a place. The first place is above 0.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn names_within(
        &self,
        namespace: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Key)>> {
        let sql = "SELECT rowid, kind, namespace, name FROM object
                   WHERE namespace = ?1 AND rowid > ?2 ORDER BY rowid LIMIT ?3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = || -> Outcome<Vec<(i64, Key)>> {
            let mut statement = self.transaction.prepare_cached(sql)?;
            let found = params![namespace, after, limit];
            let rows = statement.query_map(found, |row| Ok((row.get(0)?, key(row, 1)?)))?;
            Ok(rows.collect::<RowResult<_>>()?)
        };
        self.database.outcome(read())
    }

    /// Whether a namespace has an object.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn has_within(&self, namespace: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM object WHERE namespace = ?1)";
        let read = || -> Outcome<bool> {
            let mut statement = self.transaction.prepare_cached(sql)?;
            Ok(statement.query_row(params![namespace], |row| row.get(0))?)
        };
        self.database.outcome(read())
    }

    /// Whether an object owns another one than itself, by its id and its name.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn owns_any(&self, uid: &str, own: &Key) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM object_owner
                   WHERE owner = ?1 AND (kind, namespace, name) <> (?2, ?3, ?4))";
        let read = || -> Outcome<bool> {
            let mut statement = self.transaction.prepare_cached(sql)?;
            let found = params![uid, own.kind, own.namespace, own.name];
            Ok(statement.query_row(found, |row| row.get(0))?)
        };
        self.database.outcome(read())
    }

    /// The objects that an object owns, by its id.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn owned_by(&self, uid: &str) -> Result<Vec<Object>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM object JOIN object_owner USING (kind, namespace, name)
             WHERE owner = ?1 ORDER BY kind, namespace, name"
        );
        self.several(&sql, uid)
    }

    fn several(&self, sql: &str, value: &str) -> Result<Vec<Object>> {
        let read = || -> Outcome<Vec<Object>> {
            let mut statement = self.transaction.prepare_cached(sql)?;
            let rows = statement.query_map(params![value], object)?;
            Ok(rows.collect::<RowResult<_>>()?)
        };
        self.database.outcome(read())
    }

    /// The number of objects.
    ///
    /// # Errors
    /// [`super::CatalogError::Database`].
    pub fn count(&self) -> Result<u64> {
        self.database.outcome(state(self.transaction).map(|state| state.count))
    }
}
