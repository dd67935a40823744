//! Writing objects, and trimming the log.

use super::read::{find, state};
use super::{
    CatalogError, Key, LOG_BYTES, LOG_CHANGES, NewObject, Object, Outcome, Result, Writing, params,
    signed, unsigned,
};
use crate::catalog::database::OptionalExtension;

/// What errors call an object.
const KIND: &str = "object";

/// The texts before and after a change.
type Texts<'a> = (Option<&'a str>, Option<&'a str>);

impl Writing<'_> {
    /// Adds an object and returns its version.
    ///
    /// # Errors
    /// [`CatalogError::Exists`], [`CatalogError::Database`].
    pub fn create(&self, new: &NewObject<'_>) -> Result<u64> {
        let NewObject { key, uid, text, .. } = *new;
        self.database.outcome((|| {
            if find(self.transaction, key)?.is_some() {
                return Err(CatalogError::Exists { kind: KIND, name: key.name.clone() }.into());
            }
            let version = self.log(key, (None, Some(text)))?;
            let sql = "INSERT INTO object (kind, namespace, name, uid, version, text)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let mut statement = self.transaction.prepare_cached(sql)?;
            statement.execute(params![
                key.kind,
                key.namespace,
                key.name,
                uid,
                signed(version),
                text
            ])?;
            self.own(new)?;
            Ok(version)
        })())
    }

    /// Replaces an object, if it has an expected version, and returns its new version.
    ///
    /// # Errors
    /// [`CatalogError::Missing`], [`CatalogError::Changed`] if its version is another one,
    /// [`CatalogError::Database`].
    pub fn replace(&self, new: &NewObject<'_>, expected: u64) -> Result<u64> {
        let NewObject { key, text, .. } = *new;
        self.database.outcome((|| {
            let old = self.expect(key, expected)?;
            let version = self.log(key, (Some(&old.text), Some(text)))?;
            let sql = "UPDATE object SET version = ?4, text = ?5
                       WHERE kind = ?1 AND namespace = ?2 AND name = ?3";
            let mut statement = self.transaction.prepare_cached(sql)?;
            let version_now = signed(version);
            statement.execute(params![key.kind, key.namespace, key.name, version_now, text])?;
            self.disown(key)?;
            self.own(new)?;
            Ok(version)
        })())
    }

    /// Removes an object, if it has an expected version, and returns the version of the removal.
    ///
    /// # Errors
    /// As [`Writing::replace`].
    pub fn remove(&self, key: &Key, expected: u64) -> Result<u64> {
        self.database.outcome((|| {
            let old = self.expect(key, expected)?;
            let version = self.log(key, (Some(&old.text), None))?;
            let sql = "DELETE FROM object WHERE kind = ?1 AND namespace = ?2 AND name = ?3";
            let mut statement = self.transaction.prepare_cached(sql)?;
            statement.execute(params![key.kind, key.namespace, key.name])?;
            self.disown(key)?;
            Ok(version)
        })())
    }

    fn expect(&self, key: &Key, expected: u64) -> Outcome<Object> {
        let name = key.name.clone();
        let Some(found) = find(self.transaction, key)? else {
            return Err(CatalogError::Missing { kind: KIND, name }.into());
        };
        if found.version != expected {
            return Err(CatalogError::Changed { kind: KIND, name }.into());
        }
        Ok(found)
    }

    fn own(&self, new: &NewObject<'_>) -> Outcome<()> {
        let sql = "INSERT OR IGNORE INTO object_owner (owner, kind, namespace, name)
                   VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.transaction.prepare_cached(sql)?;
        for owner in new.owners {
            statement.execute(params![owner, new.key.kind, new.key.namespace, new.key.name])?;
        }
        Ok(())
    }

    fn disown(&self, key: &Key) -> Outcome<()> {
        let sql = "DELETE FROM object_owner WHERE kind = ?1 AND namespace = ?2 AND name = ?3";
        let mut statement = self.transaction.prepare_cached(sql)?;
        statement.execute(params![key.kind, key.namespace, key.name])?;
        Ok(())
    }

    /// Takes the next version and logs a change under it.
    fn log(&self, key: &Key, (old, new): Texts<'_>) -> Outcome<u64> {
        let len = |text: Option<&str>| text.map_or(0, str::len);
        let bytes = i64::try_from(len(old) + len(new)).unwrap_or(i64::MAX);
        let count = i64::from(new.is_some()) - i64::from(old.is_some());
        let sql = "UPDATE object_state
                   SET version = version + 1, bytes = bytes + ?1, count = count + ?2
                   RETURNING version, bytes";
        let (version, total): (i64, i64) = self
            .transaction
            .prepare_cached(sql)?
            .query_row(params![bytes, count], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let sql = "INSERT INTO object_change (version, kind, namespace, name, old, new, total)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let before = total - bytes;
        self.transaction.prepare_cached(sql)?.execute(params![
            version,
            key.kind,
            key.namespace,
            key.name,
            old,
            new,
            before
        ])?;
        self.trim(version, total)?;
        Ok(unsigned(version))
    }

    fn trim(&self, version: i64, total: i64) -> Outcome<()> {
        // The first change that stays; the last one always does.
        let sql = "SELECT version FROM object_change
                   WHERE version > ?1 AND total >= ?2 ORDER BY version LIMIT 1";
        let bounds = params![version - LOG_CHANGES, total - LOG_BYTES];
        let mut statement = self.transaction.prepare_cached(sql)?;
        let first = statement.query_row(bounds, |row| row.get(0)).optional()?.unwrap_or(version);
        let forgotten = first - 1;
        if unsigned(forgotten) > state(self.transaction)?.forgotten {
            let sql = "DELETE FROM object_change WHERE version <= ?1";
            self.transaction.prepare_cached(sql)?.execute(params![forgotten])?;
            let sql = "UPDATE object_state SET forgotten = ?1";
            self.transaction.prepare_cached(sql)?.execute(params![forgotten])?;
        }
        Ok(())
    }
}
