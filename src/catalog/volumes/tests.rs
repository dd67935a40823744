//! Tests of volumes in the catalogue.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::types::VolumeName;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn new(text: &str) -> NewVolume {
    NewVolume {
        name: name(text),
        driver: "local".to_owned(),
        options: BTreeMap::from([("o".to_owned(), "x,y=\"z\"".to_owned())]),
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        size_bytes: Some(u64::MAX),
        inodes: None,
        origin: String::new(),
    }
}

fn create(volumes: &Volumes, text: &str) -> Volume {
    match volumes.begin(&new(text)).unwrap() {
        Begun::New(growing) => volumes.finish(growing).unwrap(),
        Begun::Exists(_) => panic!("{text} exists"),
    }
}

fn root() -> (tempfile::TempDir, Volumes) {
    let root = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(root.path()).unwrap();
    (root, volumes)
}

fn directories(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("volumes")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".locks");
    names.sort();
    names
}

#[test]
fn a_volume_is_found_by_every_process_until_it_is_removed() {
    let (dir, volumes) = root();
    let made = create(&volumes, "data");
    assert_eq!(made.mountpoint, dir.path().join("volumes/data/_data"));
    fs::write(made.mountpoint.join("f"), "kept").unwrap();
    let other = Volumes::open(dir.path()).unwrap();
    assert_eq!(other.find(&name("data")).unwrap(), made);
    assert!(matches!(other.begin(&new("data")).unwrap(), Begun::Exists(found) if found == made));
    assert_eq!(other.list().unwrap(), std::slice::from_ref(&made));
    other.remove(other.lock(&name("data")).unwrap()).unwrap();
    assert!(matches!(volumes.find(&name("data")), Err(CatalogError::Missing { .. })));
    assert!(directories(dir.path()).is_empty());
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let (_dir, volumes) = root();
    create(&volumes, "data");
    let lock = || volumes.lock(&name("data")).unwrap();
    let open = || lock().open().unwrap();
    for user in [open(), open()] {
        assert!(matches!(volumes.remove(lock()), Err(CatalogError::InUse { .. })));
        assert!(matches!(volumes.trash(lock()), Err(CatalogError::InUse { .. })));
        drop(user);
    }
    volumes.remove(lock()).unwrap();
}

#[test]
fn a_rename_moves_nothing_and_frees_the_name() {
    let (dir, volumes) = root();
    let made = create(&volumes, "a");
    let used = volumes.lock(&name("a")).unwrap().open().unwrap();
    volumes.rename(volumes.lock(&name("a")).unwrap(), &name("b")).unwrap();
    let found = volumes.find(&name("b")).unwrap();
    assert_eq!((&found.id, &found.mountpoint), (&made.id, &made.mountpoint));
    let second = create(&volumes, "a");
    assert_ne!(second.mountpoint, made.mountpoint);
    let taken = volumes.rename(volumes.lock(&name("a")).unwrap(), &name("b"));
    assert!(matches!(taken, Err(CatalogError::Exists { .. })));
    assert_eq!(directories(dir.path()).len(), 2);
    drop(used);
}

#[test]
fn labels_change_in_the_catalogue_and_in_the_record() {
    let (dir, volumes) = root();
    create(&volumes, "data");
    let changes = BTreeMap::from([("k".to_owned(), None), ("l".to_owned(), Some("w".to_owned()))]);
    let labelled = volumes.label(&name("data"), &changes).unwrap();
    assert_eq!(labelled.labels, BTreeMap::from([("l".to_owned(), "w".to_owned())]));
    lose_catalogue(dir.path());
    assert_eq!(Volumes::open(dir.path()).unwrap().find(&name("data")).unwrap(), labelled);
}

fn lose_catalogue(root: &Path) {
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        fs::remove_file(root.join(file)).ok();
    }
}

#[test]
fn a_lost_catalogue_is_built_from_the_directories() {
    let (dir, volumes) = root();
    let mut all: Vec<Volume> = ["a", "b", "c"].map(|text| create(&volumes, text)).into();
    volumes.rename(volumes.lock(&name("a")).unwrap(), &name("z")).unwrap();
    volumes.trash(volumes.lock(&name("b")).unwrap()).unwrap();
    all = vec![all.remove(2), Volume { name: name("z"), ..all.remove(0) }];
    drop(volumes);
    lose_catalogue(dir.path());
    let volumes = Volumes::open(dir.path()).unwrap();
    assert_eq!(volumes.list().unwrap(), all);
    assert_eq!(volumes.trashed().unwrap().len(), 1);
    assert_eq!(volumes.recover().unwrap(), Recovered::default(), "nothing twice");
}

#[test]
fn volumes_of_before_there_was_a_catalogue_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("volumes/old");
    fs::create_dir_all(old.join("_data")).unwrap();
    let record =
        r#"{"Name":"old","CreatedAt":"2026-11-01T10:00:00Z","Labels":{"k":"v"},"Mountpoint":""}"#;
    fs::write(old.join("volume.json"), record).unwrap();
    fs::create_dir_all(dir.path().join("volumes/foreign")).unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let found = volumes.find(&name("old")).unwrap();
    assert_eq!(
        (found.driver.as_str(), found.created_at.as_str()),
        ("local", "2026-11-01T10:00:00Z")
    );
    assert_eq!(found.labels, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    assert_eq!(volumes.sweep().unwrap(), 0);
    assert!(dir.path().join("volumes/foreign").exists());
}

#[test]
fn what_is_in_the_trash_comes_back_or_goes() {
    let (dir, volumes) = root();
    let made = create(&volumes, "data");
    fs::write(made.mountpoint.join("f"), "kept").unwrap();
    volumes.trash(volumes.lock(&name("data")).unwrap()).unwrap();
    assert!(volumes.list().unwrap().is_empty());
    let second = create(&volumes, "data");
    let refused = volumes.undelete("data", None);
    assert!(matches!(refused, Err(CatalogError::Exists { .. })));
    let back = volumes.undelete(&made.id, Some(&name("back"))).unwrap();
    assert_eq!(fs::read(back.mountpoint.join("f")).unwrap(), b"kept");
    volumes.trash(volumes.lock(&name("back")).unwrap()).unwrap();
    let trashed = volumes.trashed().unwrap();
    volumes.purge(&trashed[0]).unwrap();
    volumes.purge(&trashed[0]).unwrap();
    assert!(volumes.trashed().unwrap().is_empty());
    assert_eq!(volumes.list().unwrap(), [second]);
    assert_eq!(directories(dir.path()).len(), 1);
}

#[test]
fn a_growth_that_was_killed_is_taken_over_by_the_next() {
    let (dir, volumes) = root();
    let Begun::New(growing) = volumes.begin(&new("data")).unwrap() else { panic!() };
    let id = growing.volume().id.clone();
    assert!(matches!(volumes.find(&name("data")), Err(CatalogError::Missing { .. })));
    assert_eq!(volumes.sweep().unwrap(), 0, "it is being made");
    drop(growing); // as when the process is killed: the lock goes, the row stays
    let made = create(&Volumes::open(dir.path()).unwrap(), "data");
    assert_ne!(made.id, id);
    let Begun::New(growing) = volumes.begin(&new("other")).unwrap() else { panic!() };
    drop(growing);
    assert_eq!(volumes.sweep().unwrap(), 1);
    assert_eq!(directories(dir.path()), ["data"]);
}

#[test]
fn of_two_who_create_one_makes_and_the_other_finds() {
    let (dir, _volumes) = root();
    let made = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let volumes = Volumes::open(dir.path()).unwrap();
                match volumes.begin(&new("data")).unwrap() {
                    Begun::Exists(volume) => assert!(volume.mountpoint.join("f").exists()),
                    Begun::New(growing) => {
                        made.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        fs::write(growing.volume().mountpoint.join("f"), "x").unwrap();
                        volumes.finish(growing).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn rests_are_swept_and_foreign_directories_stay() {
    let (dir, volumes) = root();
    create(&volumes, "data");
    let path = |name: &str| dir.path().join("volumes").join(name);
    for name in [".data.12", ".data.removed.13", ".snapshot", "x.y", "rest"] {
        fs::create_dir_all(path(name).join("_data")).unwrap();
    }
    fs::write(path("x.y").join("_data/f"), "").unwrap();
    assert_eq!(volumes.sweep().unwrap(), 3);
    assert_eq!(directories(dir.path()), [".snapshot", "data", "x.y"]);
}

#[test]
fn a_later_catalogue_and_a_damaged_one_are_refused() {
    let (dir, volumes) = root();
    drop(volumes);
    let file = dir.path().join("catalog.db");
    let set = |version: i64| {
        let connection = database::raw(&file);
        connection.pragma_update(None, "user_version", version).unwrap();
    };
    set(3);
    assert!(matches!(Volumes::open(dir.path()), Err(CatalogError::Newer { found: 3, .. })));
    set(2);
    Volumes::open(dir.path()).unwrap();
    lose_catalogue(dir.path());
    fs::write(&file, "x".repeat(4096)).unwrap();
    let refused = Volumes::open(dir.path());
    assert!(matches!(refused, Err(CatalogError::Database { is_damage: true, .. })));
}

#[test]
fn holders_are_a_set_and_go_with_the_volume() {
    let (_dir, volumes) = root();
    create(&volumes, "data");
    let lock = || volumes.lock(&name("data")).unwrap();
    assert_eq!(volumes.add_holder(&lock(), "a").unwrap(), 1);
    assert_eq!(volumes.add_holder(&lock(), "a").unwrap(), 1);
    assert_eq!(volumes.add_holder(&lock(), "b").unwrap(), 2);
    assert_eq!(volumes.remove_holder(&lock(), "a").unwrap(), 1);
    assert_eq!(volumes.remove_holder(&lock(), "a").unwrap(), 1);
    assert_eq!(volumes.held().unwrap().len(), 1);
    volumes.remove(lock()).unwrap();
    create(&volumes, "data");
    assert!(volumes.held().unwrap().is_empty());
}
