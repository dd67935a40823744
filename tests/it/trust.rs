//! Data in layers that the union trusts or not: numbers, origins, and marks that lead elsewhere.

use std::collections::BTreeMap;

use laminafs::error::Errno;
use laminafs::types::{Kind, Owner, Time, XattrFlags};
use laminafs::union::{DirRef, Marks, Options};
use laminafs_testing::memory::{MemoryTree, Traits};

use super::rules::forms;
use laminafs_testing::driver::{Listed, Mount};
use laminafs_testing::shell::{Fixture, PLAIN, put};

const DATA: &[u8] = b"other";

fn mark(dir: &DirRef, name: &str, key: &str, value: &[u8]) {
    dir.set_xattr(Some(name.as_bytes()), key.as_bytes(), value, XattrFlags::default()).unwrap();
}

/// The numbers of all objects; asserts that paths with one number show equal content.
fn numbers(mount: &mut Mount, paths: &[&str]) -> BTreeMap<String, u64> {
    let mut contents: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for path in paths {
        let (ino, data) = (mount.ino(path), mount.cat(path).unwrap());
        if let Some(other) = contents.insert(ino, data.clone()) {
            assert_eq!(other, data, "{path} shares number {ino} with another object");
        }
        found.insert((*path).to_owned(), ino);
    }
    found
}

/// Numbers of a listing by names.
fn listed(mount: &mut Mount, path: &str) -> BTreeMap<String, u64> {
    let node = mount.at(path).unwrap();
    let entries = mount.list(node, false, 4).unwrap();
    let shown =
        |(name, entry): (Vec<u8>, Listed)| (String::from_utf8_lossy(&name).into_owned(), entry.ino);
    entries.into_iter().map(shown).collect()
}

/// Layers whose hard links the index cannot keep together, each for a different reason.
fn without_index() -> Vec<Fixture> {
    let lower: [&[&str]; 1] = [&["d/a=text", "d/b>d/a", "e/c>d/a", "single=1"]];
    let off = Fixture::new(&lower).with(Options { index: false, ..Options::default() });
    let mut handles = Fixture::new(&lower);
    let tree = MemoryTree::with_traits(1, Traits { handles: false, ..Traits::default() });
    lower[0].iter().for_each(|item| put(&tree.root(), item));
    handles.lowers = vec![tree];
    vec![off, handles]
}

#[test]
fn names_that_a_copy_up_parts_get_numbers_of_their_own() {
    for fixture in without_index() {
        let mut mount = fixture.mount();
        let paths = ["d/a", "d/b", "e/c"];
        let before = numbers(&mut mount, &paths);
        assert_eq!(before["d/a"], before["d/b"], "one object so far");
        mount.write("d/a", b"T", 0).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.cat("d/a"), Ok(b"Text".to_vec()));
            for other in ["d/b", "e/c"] {
                assert_eq!(mount.cat(other), Ok(b"text".to_vec()), "{other}");
            }
            let now = numbers(&mut mount, &paths);
            assert_ne!(now["d/a"], before["d/a"]);
            assert_eq!((now["d/b"], now["e/c"]), (before["d/b"], before["d/b"]));
            let listed = listed(&mut mount, "d");
            assert_eq!(listed["a"], now["d/a"]);
            assert_eq!(listed["b"], now["d/b"]);
            mount = fixture.remount(mount);
        }
        mount.rename("d/b", "moved", PLAIN).unwrap();
        mount.unlink("d/a").unwrap();
        mount.write("moved", b"M", 0).unwrap();
        mount.link("e/c", "linked").unwrap();
        for _ in 0..2 {
            numbers(&mut mount, &["moved", "linked", "e/c", "single"]);
            assert_eq!(mount.cat("moved"), Ok(b"Mext".to_vec()));
            assert_eq!(mount.cat("e/c"), Ok(b"text".to_vec()));
            assert_eq!(mount.ino("e/c"), mount.ino("linked"));
            assert_eq!(mount.names("d"), Ok(vec![]));
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn all_names_of_one_lower_object_can_be_removed_without_an_index() {
    for fixture in without_index() {
        let mut mount = fixture.mount();
        for path in ["d/a", "e/c"] {
            mount.unlink(path).unwrap();
            assert_eq!(mount.at(path), Err(Errno::NOENT));
        }
        for _ in 0..2 {
            assert_eq!(mount.names("d"), Ok(vec!["b".into()]));
            assert_eq!(mount.cat("d/b"), Ok(b"text".to_vec()));
            mount = fixture.remount(mount);
        }
        mount.remove_all("d").unwrap();
        mount = fixture.remount(mount);
        assert_eq!(mount.names(""), Ok(vec!["e".into(), "single".into()]));
    }
}

#[test]
fn numbers_of_other_layers_are_not_shown() {
    for options in forms() {
        // The same files, made in another order: each number now belongs to another file.
        let names = ["a=1", "b=2", "c=3", "d=4", "e=5"];
        let mut turned = names;
        turned.reverse();
        let mut fixture = Fixture::new(&[&names]).with(options);
        let mut mount = fixture.mount();
        let paths = ["a", "b", "c", "d", "e"];
        let before = numbers(&mut mount, &paths);
        for path in ["a", "d"] {
            mount.chmod(path, 0o600).unwrap();
        }
        mount.write("b", b"B", 0).unwrap();
        mount = fixture.remount(mount);
        assert_eq!(numbers(&mut mount, &paths), before, "the same layers");
        let restored = MemoryTree::new(1);
        restored.set_time(Time { secs: 30, nanos: 0 });
        turned.iter().for_each(|item| put(&restored.root(), item));
        fixture.lowers = vec![restored];
        mount = fixture.remount(mount);
        numbers(&mut mount, &paths);
        let listed = listed(&mut mount, "");
        for path in paths {
            assert_eq!(listed[path], mount.ino(path), "{path}");
        }
    }
}

#[test]
fn lowers_without_handles_lead_to_nothing_by_number() {
    let lower = |items: &[&str]| {
        let tree = MemoryTree::with_traits(1, Traits { handles: false, ..Traits::default() });
        items.iter().for_each(|item| put(&tree.root(), item));
        tree
    };
    let mut fixture = Fixture::new(&[]);
    fixture.lowers = vec![lower(&["a=1", "a2>a", "b=2", "b2>b"])];
    let mut mount = fixture.mount();
    mount.write("a", b"A", 0).unwrap();
    numbers(&mut mount, &["a", "a2", "b", "b2"]);
    // A program that numbers its files differently in each mount.
    fixture.lowers = vec![lower(&["b=2", "b2>b", "a=1", "a2>a"])];
    mount = fixture.remount(mount);
    numbers(&mut mount, &["a", "a2", "b", "b2"]);
    for (path, data) in [("a", b"A"), ("a2", b"1"), ("b", b"2"), ("b2", b"2")] {
        assert_eq!(mount.cat(path), Ok(data.to_vec()), "{path}");
    }
}

/// A lower in which a user has made marks that lead a directory and a file elsewhere.
fn led(namespace: &str) -> Fixture {
    let fixture = Fixture::new(&[&["d/", "f*5= ", "sub/"], &["secret/s=1", "other=other"]]);
    let root = fixture.lowers[0].root();
    mark(&root, "d", &format!("{namespace}.overlay.redirect"), b"/secret");
    mark(&root, "f", &format!("{namespace}.overlay.metacopy"), b"");
    mark(&root, "f", &format!("{namespace}.overlay.redirect"), b"/other");
    fixture
}

#[test]
fn marks_of_users_lead_nowhere_with_marks_of_root() {
    let mut mount = led("user").mount();
    assert_eq!(mount.names("d"), Ok(vec![]));
    assert_eq!(mount.cat("f"), Ok(b"     ".to_vec()));
    let mut mount = led("trusted").mount();
    assert_eq!(mount.names("d"), Ok(vec!["s".into()]));
    assert_eq!(mount.cat("f"), Ok(DATA.to_vec()));
    let user = Options { marks: Marks::User, ..Options::default() };
    let mut mount = led("user").with(user).mount();
    assert_eq!(mount.names("d"), Ok(vec!["s".into()]));
    assert_eq!(mount.cat("f"), Ok(DATA.to_vec()));
}

#[test]
fn marks_that_are_not_followed_are_refused() {
    for marks in [Marks::Trusted, Marks::User] {
        let namespace = if marks == Marks::Trusted { "trusted" } else { "user" };
        for (follow_redirects, follow_metacopy) in [(false, true), (true, false), (false, false)] {
            let options =
                Options { marks, follow_redirects, follow_metacopy, ..Options::default() };
            let mut mount = led(namespace).with(options).mount();
            let dir = if follow_redirects { Ok(vec!["s".into()]) } else { Err(Errno::PERM) };
            assert_eq!(mount.at("d").and_then(|_| mount.names("d")), dir);
            assert_eq!(mount.at("f"), Err(Errno::PERM));
            // A refused entry is listed, and nothing else is lost with it.
            let names = ["d", "f", "other", "secret", "sub"].map(String::from);
            assert_eq!(mount.names(""), Ok(names.to_vec()));
        }
    }
}

#[test]
fn redirects_of_an_upper_are_not_followed_either() {
    for marks in [Marks::Trusted, Marks::User] {
        let fixture = Fixture::new(&[&["d/f=1"]]);
        let mut fixture = fixture.with(Options { marks, ..Options::default() });
        let mut mount = fixture.mount();
        mount.rename("d", "moved", PLAIN).unwrap();
        mount.chmod("moved/f", 0o600).unwrap();
        fixture.options.follow_redirects = false;
        mount = fixture.remount(mount);
        assert_eq!(mount.at("moved"), Err(Errno::PERM));
        assert_eq!(mount.names(""), Ok(vec!["moved".into()]));
    }
}

#[test]
fn whiteouts_that_an_engine_wrote_in_the_upper_hide() {
    for options in forms() {
        let fixture =
            Fixture::new(&[&["data/a/f=x", "data/b=y", "top=t", "o/old=1", "r/x=1"]]).with(options);
        let upper = fixture.upper.root().dir(b"upper");
        for item in ["data/.wh.a=", ".wh.top=", "o/.wh..wh..opq=", "o/new=2", "r/y=2", ".wh.r="] {
            put(&upper, item);
        }
        let mut mount = fixture.mount();
        for _ in 0..2 {
            assert_eq!(mount.names(""), Ok(vec!["data".into(), "o".into(), "r".into()]));
            assert_eq!(mount.names("data"), Ok(vec!["b".into()]));
            assert_eq!(mount.names("o"), Ok(vec!["new".into()]));
            assert_eq!(mount.names("r"), Ok(vec!["y".into()]));
            for gone in ["data/a", "top", "o/old", ".wh.top", "data/.wh.a", "o/.wh..wh..opq"] {
                assert_eq!(mount.at(gone), Err(Errno::NOENT), "{gone}");
            }
            mount = fixture.remount(mount);
        }
        // Objects made in their place show nothing of what they hid.
        mount.mkdir("data/a").unwrap();
        mount.create("top", b"new").unwrap();
        assert_eq!(mount.create(".wh.top", b""), Err(Errno::PERM));
        for _ in 0..2 {
            assert_eq!(mount.names("data/a"), Ok(vec![]));
            assert_eq!(mount.cat("top"), Ok(b"new".to_vec()));
            mount = fixture.remount(mount);
        }
        mount.unlink("top").unwrap();
        mount.remove_all("data").unwrap();
        mount.remove_all("o").unwrap();
        mount.mkdir("o").unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names(""), Ok(vec!["o".into(), "r".into()]));
            assert_eq!(mount.names("o"), Ok(vec![]));
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn names_of_whiteouts_that_users_write_stay_content() {
    for marks in [Marks::Trusted, Marks::User] {
        let options = Options { marks, ..Options::default() };
        let fixture = Fixture::new(&[&["a=1", "d/b=2"]]).with(options);
        let mut mount = fixture.mount();
        mount.create(".wh.a", b"mine").unwrap();
        mount.create("d/.wh..wh..opq", b"mine too").unwrap();
        mount.create("plain", b"moved").unwrap();
        mount.rename("plain", "d/.wh.b", PLAIN).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names(""), Ok(vec![".wh.a".into(), "a".into(), "d".into()]));
            let inner = [".wh..wh..opq", ".wh.b", "b"].map(String::from);
            assert_eq!(mount.names("d"), Ok(inner.to_vec()));
            assert_eq!(mount.cat("d/.wh.b"), Ok(b"moved".to_vec()));
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn a_whiteout_of_an_engine_is_no_directory_or_device() {
    let fixture = Fixture::new(&[&["a=1", "b=2"]]);
    let upper = fixture.upper.root().dir(b"upper");
    upper.mkdir(b".wh.a", 0o755, Owner::default()).unwrap();
    upper.mknod(b".wh.b", Kind::Fifo.mode_bits() | 0o600, 0, Owner::default()).unwrap();
    let mut mount = fixture.mount();
    let names = [".wh.a", ".wh.b", "a", "b"].map(String::from);
    assert_eq!(mount.names(""), Ok(names.to_vec()));
}
