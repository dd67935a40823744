//! Objects, their versions, and their log.

use std::thread;

use super::*;
use crate::catalog::database;

fn key(name: &str) -> Key {
    Key { kind: "volumes".to_owned(), namespace: "n".to_owned(), name: name.to_owned() }
}

fn few(count: usize) -> Limits {
    Limits { count, bytes: 1 << 30 }
}

fn put(objects: &Objects, name: &str, text: &str) -> u64 {
    let key = key(name);
    let write = |writing: &Writing<'_>| -> Result<u64> {
        let new = NewObject { key: &key, uid: name, text, owners: &["root".to_owned()] };
        match writing.find(&key)? {
            Some(old) => writing.replace(&new, old.version),
            None => writing.create(&new),
        }
    };
    objects.write(write).unwrap()
}

fn remove(objects: &Objects, name: &str) -> u64 {
    let version = objects.find(&key(name)).unwrap().unwrap().version;
    objects.write(|writing| writing.remove(&key(name), version)).unwrap()
}

fn listed(objects: &Objects, query: &Query<'_>) -> (Vec<(String, String)>, u64) {
    let page = objects.list(query).unwrap().unwrap();
    let shown = page.objects.into_iter().map(|object| (object.key.name, object.text));
    (shown.collect(), page.rest)
}

fn texts(shown: &[(&str, &str)]) -> Vec<(String, String)> {
    shown.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn each_write_has_a_version_and_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(dir.path()).unwrap();
    let start = objects.version().unwrap();
    assert_eq!(put(&objects, "a", "1"), start + 1);
    assert_eq!(put(&objects, "a", "2"), start + 2);
    assert_eq!(remove(&objects, "a"), start + 3);
    assert_eq!(objects.find(&key("a")).unwrap(), None);
    let changes = objects.changes(start, few(10)).unwrap().unwrap();
    let shown: Vec<_> =
        changes.iter().map(|change| (change.old.as_deref(), change.new.as_deref())).collect();
    assert_eq!(shown, [(None, Some("1")), (Some("1"), Some("2")), (Some("2"), None)]);
    assert_eq!(objects.changes(start + 2, few(10)).unwrap().unwrap().len(), 1);
    assert_eq!(objects.changes(start + 30, few(10)).unwrap(), Some(vec![]));
    assert_eq!(objects.changes(start - 1, few(10)).unwrap(), None);
}

#[test]
fn a_writer_with_an_old_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Objects::open(dir.path()).unwrap(), Objects::open(dir.path()).unwrap());
    let old = put(&one, "a", "1");
    put(&other, "a", "2");
    let new = NewObject { key: &key("a"), uid: "a", text: "3", owners: &[] };
    let refused = one.write(|writing| writing.replace(&new, old));
    assert!(matches!(refused, Err(CatalogError::Changed { .. })), "{refused:?}");
    let refused = one.write(|writing| writing.create(&new));
    assert!(matches!(refused, Err(CatalogError::Exists { .. })), "{refused:?}");
    assert_eq!(one.find(&key("a")).unwrap().unwrap().text, "2");
}

#[test]
fn an_error_of_the_caller_undoes_all() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(dir.path()).unwrap();
    let before = objects.version().unwrap();
    let new = NewObject { key: &key("a"), uid: "a", text: "1", owners: &[] };
    let refused: Result<()> = objects.write(|writing| {
        writing.create(&new)?;
        Err(CatalogError::BadName("a".to_owned()))
    });
    assert!(refused.is_err());
    assert_eq!(objects.version().unwrap(), before);
    assert_eq!(objects.find(&key("a")).unwrap(), None);
}

#[test]
fn a_list_goes_on_at_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(dir.path()).unwrap();
    for name in ["a", "b", "c", "d"] {
        put(&objects, name, "old");
    }
    let query = Query { kind: "volumes", limit: Some(2), ..Query::default() };
    assert_eq!(listed(&objects, &query), (texts(&[("a", "old"), ("b", "old")]), 2));
    let at = Some(objects.version().unwrap());
    put(&objects, "c", "new");
    put(&objects, "bb", "new");
    remove(&objects, "d");
    put(&objects, "d", "again");
    let next = Query { at, after: Some(("n", "b")), ..query.clone() };
    assert_eq!(listed(&objects, &next), (texts(&[("c", "old"), ("d", "old")]), 0));
    let now = Query { after: Some(("n", "b")), ..query.clone() };
    assert_eq!(listed(&objects, &now), (texts(&[("bb", "new"), ("c", "new")]), 1));
    let elsewhere = Query { namespace: Some("m"), ..query };
    assert_eq!(listed(&objects, &elsewhere), (vec![], 0));
}

#[test]
fn the_log_is_bounded_and_earlier_versions_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(dir.path()).unwrap();
    let text = "x".repeat(TEXT_MAX);
    let first = put(&objects, "a", &text);
    for _ in 0..30 {
        put(&objects, "a", &text);
    }
    let last = objects.version().unwrap();
    let query = Query { kind: "volumes", at: Some(first), ..Query::default() };
    assert_eq!(objects.list(&query).unwrap(), None);
    assert_eq!(objects.changes(first, few(1)).unwrap(), None);
    let one = Limits { count: 10, bytes: 1 };
    assert_eq!(objects.changes(last - 5, one).unwrap().unwrap().len(), 1);
    let two = Limits { count: 10, bytes: 5 * TEXT_MAX };
    assert_eq!(objects.changes(last - 5, two).unwrap().unwrap().len(), 2);
    let kept = (first..last).find(|version| objects.changes(*version, few(1)).unwrap().is_some());
    let len = last - kept.unwrap();
    assert!((15..30).contains(&len), "{len} changes are kept");
}

#[test]
fn owners_and_namespaces_lead_to_their_objects() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Objects::open(dir.path()).unwrap();
    put(&objects, "a", "1");
    put(&objects, "b", "1");
    let names = |objects: Vec<Object>| -> Vec<String> {
        objects.into_iter().map(|object| object.key.name).collect()
    };
    let seen = objects.write(|writing| -> Result<_> {
        let new = NewObject { key: &key("b"), uid: "b", text: "2", owners: &[] };
        let old = writing.find(new.key)?.unwrap();
        writing.replace(&new, old.version)?;
        Ok((writing.owned_by("root")?, writing.names_within("n", 0, 3)?, writing.count()?))
    });
    let (owned, within, count) = seen.unwrap();
    let within: Vec<String> = within.into_iter().map(|(_, key)| key.name).collect();
    assert_eq!((names(owned), within, count), (vec!["a".into()], vec!["a".into(), "b".into()], 2));
}

#[test]
fn writers_of_several_processes_share_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let start = Objects::open(dir.path()).unwrap().version().unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let objects = Objects::open(dir).unwrap();
                for number in 0..10 {
                    put(&objects, &format!("{writer}-{number}"), "1");
                }
            });
        }
    });
    let objects = Objects::open(dir.path()).unwrap();
    let changes = objects.changes(start, few(100)).unwrap().unwrap();
    let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
    assert_eq!(versions, (start + 1..=start + 40).collect::<Vec<_>>());
}

#[test]
fn a_catalogue_of_version_1_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    drop(Objects::open(dir.path()).unwrap());
    let file = dir.path().join(database::FILE);
    let old = database::raw(&file);
    old.execute_batch(
        "DROP TABLE object; DROP TABLE object_owner; DROP TABLE object_change;
         DROP TABLE object_state; PRAGMA user_version = 1;
         INSERT INTO volume (id, name, dir, driver, state, created, changed, options, labels)
         VALUES ('v', 'kept', 'v', 'local', 1, 0, 0, '{}', '{}');",
    )
    .unwrap();
    drop(old);
    put(&Objects::open(dir.path()).unwrap(), "a", "1");
    let new = database::raw(&file);
    let name: String = new.query_row("SELECT name FROM volume", [], |row| row.get(0)).unwrap();
    let version: i64 = new.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((name.as_str(), version), ("kept", 2));
}
