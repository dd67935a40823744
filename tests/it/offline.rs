//! Changes of the layers from outside: of an unmounted upper, and of a lower beneath a mount.

use laminafs::error::Errno;
use laminafs::types::XattrFlags;
use laminafs::union::{DirRef, Marks, Options};

use super::rules::forms;
use laminafs_testing::shell::{Fixture, PLAIN};

fn upper(fixture: &Fixture) -> DirRef {
    fixture.upper.root().dir(b"upper")
}

fn index(fixture: &Fixture) -> usize {
    let mut count = 0;
    let mut tell = |_: laminafs::types::RawEntry<'_>| {
        count += 1;
        true
    };
    fixture.upper.root().dir(b"index").list(0, &mut tell).unwrap();
    count
}

/// Copies an object of the upper with all its marks, as `cp -a` does.
fn copy(dir: &DirRef, from: &[u8], to: &[u8]) {
    let stat = dir.stat(Some(from)).unwrap();
    if stat.kind() == laminafs::types::Kind::Dir {
        dir.mkdir(to, 0o755, laminafs::types::Owner::default()).unwrap();
    } else {
        dir.create(to, 0o644, laminafs::types::Owner::default()).unwrap();
    }
    for key in dir.xattr_names(Some(from)).unwrap() {
        let value = dir.xattr(Some(from), &key).unwrap().unwrap();
        dir.set_xattr(Some(to), &key, &value, XattrFlags::default()).unwrap();
    }
}

fn nlink(mount: &mut laminafs_testing::driver::Mount, path: &str) -> u32 {
    let node = mount.at(path).unwrap();
    mount.union.getattr(node).unwrap().nlink
}

#[test]
fn links_added_to_a_lower_cost_no_name_of_the_upper() {
    for options in forms() {
        let fixture = Fixture::new(&[&["a=1", "b>a"]]).with(options);
        let mut mount = fixture.mount();
        mount.chmod("a", 0o600).unwrap();
        for name in ["c", "d", "e"] {
            laminafs_testing::shell::put(&fixture.lowers[0].root(), &format!("{name}>a"));
        }
        for name in ["c", "d", "e"] {
            mount.unlink(name).unwrap();
        }
        assert_eq!(mount.cat("a"), Ok(b"1".to_vec()));
        mount.link("a", "f").unwrap();
        for name in ["a", "b"] {
            mount.unlink(name).unwrap();
        }
        assert!(nlink(&mut mount, "f") > 0);
        let mut mount = fixture.remount(mount);
        assert_eq!(mount.cat("f"), Ok(b"1".to_vec()));
        mount.unlink("f").unwrap();
        assert_eq!(mount.names(""), Ok(vec![]));
        drop(fixture.remount(mount));
        assert_eq!(index(&fixture), 0);
    }
}

#[test]
fn rename_over_a_counted_out_name_keeps_the_others() {
    let fixture = Fixture::new(&[&["a=1", "b>a", "x=2"]]);
    let mut mount = fixture.mount();
    mount.chmod("a", 0o600).unwrap();
    mount.link("a", "kept").unwrap();
    for name in ["c", "d"] {
        laminafs_testing::shell::put(&fixture.lowers[0].root(), &format!("{name}>a"));
        mount.unlink(name).unwrap();
    }
    mount.unlink("b").unwrap();
    mount.rename("x", "a", PLAIN).unwrap();
    assert_eq!(mount.cat("kept"), Ok(b"1".to_vec()));
    let mut mount = fixture.remount(mount);
    assert_eq!((mount.cat("kept"), mount.cat("a")), (Ok(b"1".to_vec()), Ok(b"2".to_vec())));
}

#[test]
fn entry_of_the_index_goes_with_its_last_name_in_the_upper() {
    let fixture = Fixture::new(&[&["a=1", "b>a"]]);
    let mut mount = fixture.mount();
    mount.link("a", "c").unwrap();
    mount.unlink("b").unwrap();
    mount.union.shutdown().unwrap();
    drop(mount);
    let dir = upper(&fixture);
    dir.unlink(b"c").unwrap();
    assert_eq!(index(&fixture), 1);
    let mut mount = fixture.mount();
    // A lower name remains, which leads to the index.
    assert_eq!((index(&fixture), nlink(&mut mount, "a")), (1, 1));
    mount.link("a", "d").unwrap();
    mount.unlink("a").unwrap();
    mount.union.shutdown().unwrap();
    drop(mount);
    dir.unlink(b"d").unwrap();
    let mut mount = fixture.mount();
    assert_eq!((mount.names(""), index(&fixture)), (Ok(vec![]), 0));
}

#[test]
fn copy_of_a_copied_up_file_shows_its_own_number() {
    for marks in [Marks::Trusted, Marks::User] {
        let options = Options { marks, ..Options::default() };
        let fixture = Fixture::new(&[&["d/f=right"]]).with(options);
        let mut mount = fixture.mount();
        mount.write("d/f", b"wrong", 0).unwrap();
        let ino = mount.ino("d/f");
        mount.union.shutdown().unwrap();
        drop(mount);
        copy(&upper(&fixture).dir(b"d"), b"f", b"g");
        for first in ["d/f", "d/g"] {
            let mut mount = fixture.mount();
            mount.at(first).unwrap();
            assert_eq!(mount.ino("d/f"), ino);
            assert_ne!(mount.ino("d/g"), ino);
            assert_eq!(mount.cat("d/g"), Ok(vec![]));
            mount.union.shutdown().unwrap();
        }
    }
}

#[test]
fn two_directories_never_lead_to_one_lower_directory() {
    let fixture = Fixture::new(&[&["d/f=1"]]);
    let mut mount = fixture.mount();
    mount.rename("d", "one", PLAIN).unwrap();
    mount.union.shutdown().unwrap();
    drop(mount);
    copy(&upper(&fixture), b"one", b"two");
    for [first, second] in [["one", "two"], ["two", "one"]] {
        let mut mount = fixture.mount();
        assert_eq!(mount.names(first), Ok(vec!["f".into()]));
        for _ in 0..2 {
            assert_eq!(mount.at(second), Err(Errno::IO));
        }
        assert_eq!(mount.names(""), Ok(vec!["one".into(), "two".into()]));
        // The entry is visible, so that a person can remove it from the upper.
        mount.rename(first, "d", PLAIN).unwrap();
        assert_eq!(mount.names("d"), Ok(vec!["f".into()]));
        mount.rename("d", first, PLAIN).unwrap();
        mount.union.shutdown().unwrap();
    }
}

#[test]
fn only_what_shows_a_stored_number_makes_a_directory_impure() {
    for options in forms() {
        let fixture = Fixture::new(&[&["f=1", "g=1"]]).with(options.clone());
        let key: &[u8] = match options.marks {
            Marks::Trusted => b"trusted.overlay.impure",
            Marks::User => b"user.overlay.impure",
        };
        let impure = |dir: &[u8]| upper(&fixture).xattr(Some(dir), key).unwrap().is_some();
        let mut mount = fixture.mount();
        for dir in ["made", "moved", "linked"] {
            mount.mkdir(dir).unwrap();
        }
        mount.create("new", b"").unwrap();
        mount.link("new", "made/link").unwrap();
        mount.rename("new", "made/new", PLAIN).unwrap();
        mount.rename("f", "moved/f", PLAIN).unwrap();
        mount.link("g", "linked/g").unwrap();
        assert_eq!(
            ["made", "moved", "linked"].map(|dir| impure(dir.as_bytes())),
            [false, true, true]
        );
        mount.names("moved").unwrap();
        assert!(impure(b"moved"), "what is there still shows its number");
        mount.create("moved/new", b"").unwrap();
        mount.unlink("moved/f").unwrap();
        mount.rename("linked/g", "moved/g", PLAIN).unwrap();
        for (dir, is) in [("moved", true), ("linked", false)] {
            mount.names(dir).unwrap();
            assert_eq!(impure(dir.as_bytes()), is, "{dir}");
        }
        // The next one marks it again.
        mount.rename("moved/g", "linked/g", PLAIN).unwrap();
        let ino = mount.ino("linked/g");
        assert!(impure(b"linked"));
        let mut mount = fixture.remount(mount);
        assert_eq!(mount.ino("linked/g"), ino);
    }
}
