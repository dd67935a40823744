//! The objects: reading, listing, and the transactions in which they are written.
//!
//! A request reads, judges and writes in one transaction of the catalogue, so that a check of an
//! expected version, of a namespace or of an owner holds until the write, whatever other processes
//! do. A dry run is such a transaction that is undone. Only the content of a namespace that
//! ends goes in several transactions.

mod delete;
mod rules;
#[cfg(test)]
mod tests;
mod write;

use std::cell::RefCell;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use laminafs::service::CatalogError;
use laminafs::service::objects::{
    Key, NewObject, OBJECTS_MAX, Object, Objects, Query, TEXT_MAX, Writing,
};
use serde_json::{Value, json};

use super::feed::Feed;
use super::kinds::Kind;
use super::meta::{self, set, set_meta, text};
use super::seam::{FieldProblem, value_name};
use super::select::Filter;
use super::status::{Answer, Failure};

pub use delete::DeleteOptions;
pub use write::Part;

/// Objects of one page where the client gives no limit.
const PAGE: usize = 10_000;

/// Which object.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace; empty for a kind without.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Target<'_> {
    fn key(&self) -> Key {
        let (namespace, name) = (self.namespace.to_owned(), self.name.to_owned());
        Key { kind: self.kind.resource().to_string(), namespace, name }
    }
}

/// What is done with fields that a kind does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing.
    Ignore,
    /// The client is warned.
    #[default]
    Warn,
    /// The request is refused.
    Refuse,
}

/// How a request writes.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Nothing is stored.
    pub is_dry_run: bool,
    /// Who changes fields.
    pub manager: String,
    /// Whether fields are taken from other managers.
    pub is_forced: bool,
    /// Whether the object comes from a server-side apply, which records the manager itself.
    pub is_applied: bool,
    /// Unknown fields.
    pub unknown: Unknown,
    /// Fields that the body has twice.
    pub duplicates: Vec<FieldProblem>,
}

/// A written object.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object.
    pub object: Value,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// Whether it is new.
    pub is_new: bool,
}

/// Which objects a list has, and from where.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Namespace and selectors.
    pub filter: Filter,
    /// The most objects; 0 for all.
    pub limit: usize,
    /// The token of the page before.
    pub token: String,
    /// The version that the client knows; empty for none.
    pub version: String,
    /// `Exact`, `NotOlderThan`, or empty.
    pub version_match: String,
}

/// A page of a list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The objects.
    pub items: Vec<Value>,
    /// The version.
    pub version: u64,
    /// The token of the next page; empty after the last one.
    pub token: String,
    /// How many objects come after it, where that is known.
    pub rest: Option<u64>,
}

/// The version of a list, and the namespace and the name after which it begins.
type Start = (Option<u64>, Option<(String, String)>);

/// The objects of a data root.
pub struct Store {
    pub(super) objects: Objects,
    pub(super) feed: Feed,
}

/// An object that was read, with its record.
pub(super) struct Stored {
    key: Key,
    uid: String,
    version: u64,
    kind: &'static Kind,
    /// The object, with its resource version.
    pub(super) object: Value,
}

/// A transaction.
pub(super) struct Act<'a> {
    writing: &'a Writing<'a>,
    /// The namespace whose content goes, a part of it in this transaction.
    emptied: Option<&'a str>,
    /// Namespaces that began to end: their content goes after this transaction.
    ended: RefCell<Vec<String>>,
}

/// Why a transaction is undone.
enum Undone<T> {
    Failed(Failure),
    /// It was a dry run.
    Dry(T),
}

impl<T> From<CatalogError> for Undone<T> {
    fn from(error: CatalogError) -> Self {
        Self::Failed(error.into())
    }
}

fn parse(key: Key, record: Object) -> Answer<Stored> {
    let damaged = |what: &str| {
        let Key { kind, namespace, name } = &key;
        Failure::internal(&format!("{kind} \"{namespace}/{name}\" in the catalogue: {what}"))
    };
    let kind = Kind::of_record(&key.kind).ok_or_else(|| damaged("unknown kind"))?;
    let object: Value =
        serde_json::from_str(&record.text).map_err(|error| damaged(&error.to_string()))?;
    let object = with_version(object, record.version);
    Ok(Stored { key, uid: record.uid, version: record.version, kind, object })
}

/// Puts the version of its record into an object.
pub(super) fn with_version(mut object: Value, version: u64) -> Value {
    set_meta(&mut object, "resourceVersion", Some(version.to_string().into()));
    object
}

impl Act<'_> {
    pub(super) fn find(&self, target: &Target<'_>) -> Answer<Option<Stored>> {
        self.find_key(target.key())
    }

    pub(super) fn find_key(&self, key: Key) -> Answer<Option<Stored>> {
        self.writing.find(&key)?.map(|record| parse(key, record)).transpose()
    }

    fn get(&self, target: &Target<'_>) -> Answer<Stored> {
        let found = self.find(target)?;
        found.ok_or_else(|| Failure::not_found(target.kind, target.name))
    }

    /// All objects of a kind.
    fn all(&self, kind: &'static Kind) -> Answer<Vec<Stored>> {
        let records = self.writing.list(&kind.resource().to_string(), None)?.into_iter();
        records.map(|record| parse(record.key.clone(), record)).collect()
    }

    /// The names of some objects of a namespace after a place, each with its place.
    pub(super) fn names_within(
        &self,
        namespace: &str,
        after: i64,
        limit: usize,
    ) -> Answer<Vec<(i64, Key)>> {
        Ok(self.writing.names_within(namespace, after, limit)?)
    }

    /// Whether a namespace has content.
    pub(super) fn has_within(&self, namespace: &str) -> Answer<bool> {
        Ok(self.writing.has_within(namespace)?)
    }

    /// What an object owns, but for itself.
    fn owned_by(&self, owner: &Stored) -> Answer<Vec<Stored>> {
        let records = self.writing.owned_by(&owner.uid)?.into_iter();
        let others = records.filter(|record| record.key != owner.key);
        others.map(|record| parse(record.key.clone(), record)).collect()
    }

    /// Whether an object owns another one.
    fn owns_any(&self, owner: &Stored) -> Answer<bool> {
        Ok(self.writing.owns_any(&owner.uid, &owner.key)?)
    }

    fn text(object: &Value) -> Answer<String> {
        let mut object = object.clone();
        set_meta(&mut object, "resourceVersion", None);
        let text = object.to_string();
        if text.len() > TEXT_MAX {
            return Err(Failure::too_large(&format!("the object exceeds {TEXT_MAX} bytes")));
        }
        Ok(text)
    }

    fn insert(&self, target: &Target<'_>, object: &Value) -> Answer<Value> {
        if self.writing.count()? >= OBJECTS_MAX {
            let text = format!("{OBJECTS_MAX} objects exist already: delete some first");
            return Err(Failure::too_many(text));
        }
        let (key, text) = (target.key(), Self::text(object)?);
        let uid = meta::text(object, "/metadata/uid");
        let new = NewObject { key: &key, uid, text: &text, owners: &meta::owners(object) };
        let version = match self.writing.create(&new) {
            Err(CatalogError::Exists { .. }) => {
                let mut failure = Failure::exists(target.kind, target.name);
                if self.find(target)?.is_some_and(|stored| meta::is_ending(&stored.object)) {
                    failure.message.insert_str(0, "object is being deleted: ");
                }
                return Err(failure);
            }
            done => done?,
        };
        Ok(with_version(object.clone(), version))
    }

    /// Stores a changed object; one that is as it was stays as it was.
    pub(super) fn save(&self, stored: &Stored, object: &Value) -> Answer<Value> {
        if *object == stored.object {
            return Ok(object.clone());
        }
        let text = Self::text(object)?;
        let owners = meta::owners(object);
        let new = NewObject { key: &stored.key, uid: &stored.uid, text: &text, owners: &owners };
        let version = self.writing.replace(&new, stored.version)?;
        Ok(with_version(object.clone(), version))
    }

    fn remove(&self, stored: &Stored) -> Answer<u64> {
        Ok(self.writing.remove(&stored.key, stored.version)?)
    }
}

impl Store {
    /// Opens the objects of a data root.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn open(root: &Path) -> Result<Self, CatalogError> {
        let objects = Objects::open(root)?;
        let feed = Feed::new(objects.version()?);
        Ok(Self { objects, feed })
    }

    /// Runs a transaction; that of a dry run is undone. Then empties the namespaces that began to
    /// end in it.
    fn act<T>(&self, is_dry_run: bool, act: impl FnOnce(&Act<'_>) -> Answer<T>) -> Answer<T> {
        let (done, ended) = self.transact(is_dry_run, None, act)?;
        // What is done stays, whatever becomes of them.
        if let Err(failure) = self.empty_all(ended) {
            tracing::error!("emptying a namespace that ends: {failure}");
        }
        Ok(done)
    }

    /// Runs a transaction, which may empty a namespace; that of a dry run is undone. Returns the
    /// namespaces that began to end in it too: the caller empties them.
    pub(super) fn transact<T>(
        &self,
        is_dry_run: bool,
        emptied: Option<&str>,
        act: impl FnOnce(&Act<'_>) -> Answer<T>,
    ) -> Answer<(T, Vec<String>)> {
        let done = self.objects.write(|writing| {
            let transaction = Act { writing, emptied, ended: RefCell::default() };
            match act(&transaction) {
                Err(failure) => Err(Undone::Failed(failure)),
                Ok(done) if is_dry_run => Err(Undone::Dry(done)),
                Ok(done) => Ok((done, transaction.ended.into_inner())),
            }
        });
        match done {
            Ok(done) => {
                self.feed.poke();
                Ok(done)
            }
            Err(Undone::Dry(done)) => Ok((done, Vec::new())),
            Err(Undone::Failed(failure)) => Err(failure),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// Not found.
    pub fn get(&self, target: &Target<'_>) -> Answer<Value> {
        let key = target.key();
        let found = self.objects.find(&key)?.map(|record| parse(key, record)).transpose()?;
        let found = found.ok_or_else(|| Failure::not_found(target.kind, target.name))?;
        Ok(found.object)
    }

    /// The last version.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub fn version(&self) -> Answer<u64> {
        Ok(self.objects.version()?)
    }

    /// A page of a list.
    ///
    /// # Errors
    /// A bad token or version; a version that is forgotten, or still to come.
    pub fn list(&self, kind: &'static Kind, options: &ListOptions) -> Answer<List> {
        let record = kind.resource().to_string();
        let (mut at, mut after) = self.start(options)?;
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut items: Vec<Value> = Vec::new();
        loop {
            let query = Query {
                kind: &record,
                namespace: options.filter.namespace.as_deref(),
                at,
                after: after.as_ref().map(|(namespace, name)| (&namespace[..], &name[..])),
                limit: Some(limit.saturating_sub(items.len()).min(PAGE)),
            };
            let Some(page) = self.objects.list(&query)? else { return Err(forgotten(options)) };
            at = Some(page.version);
            let count = page.objects.len();
            for record in page.objects {
                after = Some((record.key.namespace.clone(), record.key.name.clone()));
                let object = parse(record.key.clone(), record)?.object;
                if options.filter.selects(&object) {
                    items.push(object);
                }
            }
            let is_last = page.rest == 0 || count == 0;
            if is_last || items.len() >= limit {
                let token = match &after {
                    Some(after) if !is_last => token(page.version, after),
                    _ => String::new(),
                };
                let rest = (!is_last && options.filter.is_whole()).then_some(page.rest);
                return Ok(List { items, version: page.version, token, rest });
            }
        }
    }

    /// The version of a list, and the object after which it begins.
    fn start(&self, options: &ListOptions) -> Answer<Start> {
        if !options.token.is_empty() {
            let invalid = || Failure::bad_request("continue key is not valid");
            let (version, after) = read_token(&options.token).ok_or_else(invalid)?;
            return Ok((Some(version), Some(after)));
        }
        if options.version.is_empty() || options.version == "0" {
            return Ok((None, None));
        }
        let version = version(&options.version)?;
        let last = self.objects.version()?;
        if version > last {
            let message = format!("Too large resource version: {version}, current: {last}");
            let cause = json!({"reason": "ResourceVersionTooLarge", "message": message});
            let details = Some(json!({"causes": [cause], "retryAfterSeconds": 1}));
            let failure = Failure::new(504, "Timeout", message);
            return Err(Failure { details, retry_after: Some(1), ..failure });
        }
        Ok(((options.version_match == "Exact").then_some(version), None))
    }
}

/// A resource version of a client.
///
/// # Errors
/// A bad request.
pub fn version(text: &str) -> Answer<u64> {
    let invalid = |_| Failure::bad_request(format!("Invalid value: {text:?}: not a version"));
    text.parse().map_err(invalid)
}

fn forgotten(options: &ListOptions) -> Failure {
    if options.token.is_empty() {
        return Failure::expired(format!("too old resource version: {}", options.version));
    }
    Failure::expired("the continue token is too old for a consistent list: list again without it")
}

fn token(version: u64, after: &(String, String)) -> String {
    let text = json!({"v": "meta.k8s.io/v1", "rv": version, "start": [after.0, after.1]});
    URL_SAFE_NO_PAD.encode(text.to_string())
}

fn read_token(token: &str) -> Option<(u64, (String, String))> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let part = |index| Some(value.pointer(index)?.as_str()?.to_owned());
    Some((value.get("rv")?.as_u64()?, (part("/start/0")?, part("/start/1")?)))
}

/// Names kind and version in an object that leaves them out.
pub(super) fn name_kind(kind: &'static Kind, object: &mut Value) -> Answer<()> {
    for field in ["apiVersion", "kind"] {
        let found = object.get(field).filter(|value| !value.is_null() && !value.is_string());
        if let Some(found) = found.map(value_name) {
            return Err(Failure::bad_request(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into \
                 Go struct field .{field} of type string"
            )));
        }
    }
    let (version, found) = (kind.api_version(), text(object, "/apiVersion"));
    if !found.is_empty() && found != version {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version \
             ({version})"
        )));
    }
    let (name, found) = (kind.kind, text(object, "/kind"));
    if !found.is_empty() && found != name {
        let version = kind.version;
        let group = kind.group.split('.').next().filter(|group| !group.is_empty());
        let group = group.unwrap_or("core");
        return Err(Failure::bad_request(format!(
            "{found} in version {version:?} cannot be handled as a {name}: converting \
             ({version}.{found}) to ({group}.{name}): unknown conversion"
        )));
    }
    set(object, "apiVersion", Some(version.into()));
    set(object, "kind", Some(name.into()));
    Ok(())
}
