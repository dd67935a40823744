//! Rules of the union, one by one.

use std::collections::BTreeSet;

use laminafs::error::Errno;
use laminafs::types::{AttrChange, Kind, Owner, SetTime, Time, XattrFlags};
use laminafs::union::{Marks, OpenFlags, Options, WhiteoutForm};
use laminafs_testing::watch::Call;

use laminafs_testing::driver::mount;
use laminafs_testing::shell::{EXCHANGE, Fixture, PLAIN};

/// The combinations of marks and whiteouts in which an upper can be written.
pub fn forms() -> Vec<Options> {
    let mut forms = Vec::new();
    for marks in [Marks::Trusted, Marks::User] {
        for whiteouts in [WhiteoutForm::Device, WhiteoutForm::Aufs] {
            forms.push(Options { marks, whiteouts, ..Options::default() });
        }
    }
    forms
}

#[test]
fn directory_made_again_shows_nothing_of_the_old_one() {
    for options in forms() {
        let lowers: [&[&str]; 2] = [&["d/x=1", "d/sub/y=2"], &["d/x=3", "d/z=4", "d/sub/w=5"]];
        let fixture = Fixture::new(&lowers).with(options);
        let mut mount = fixture.mount();
        mount.remove_all("d").unwrap();
        assert_eq!(mount.names(""), Ok(vec![]));
        mount.mkdir("d").unwrap();
        mount.mkdir("d/sub").unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names("d"), Ok(vec!["sub".into()]));
            assert_eq!(mount.names("d/sub"), Ok(vec![]));
            for old in ["d/x", "d/z", "d/sub/y", "d/sub/w"] {
                assert_eq!(mount.at(old), Err(Errno::NOENT), "{old}");
            }
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn directory_moved_over_a_removed_one_shows_its_own_content() {
    for options in forms() {
        let fixture = Fixture::new(&[&["d/x=1"], &["d/z=4", "e/mine=5"]]).with(options);
        let mut mount = fixture.mount();
        mount.remove_all("d").unwrap();
        mount.rename("e", "d", PLAIN).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names(""), Ok(vec!["d".into()]));
            assert_eq!(mount.names("d"), Ok(vec!["mine".into()]));
            assert_eq!(mount.at("d/x"), Err(Errno::NOENT));
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn five_hundred_lowers_merge() {
    let items: Vec<[String; 2]> =
        (0..500).map(|n| [format!("d/f{n}={n}"), format!("d/same={n}")]).collect();
    let items: Vec<[&str; 2]> = items.iter().map(|[a, b]| [a.as_str(), b.as_str()]).collect();
    let lowers: Vec<&[&str]> = items.iter().map(|pair| &pair[..]).collect();
    let fixture = Fixture::new(&lowers);
    let mut mount = fixture.mount();
    assert_eq!(mount.names("d").unwrap().len(), 501);
    assert_eq!(mount.cat("d/same"), Ok(b"0".to_vec()));
    assert_eq!(mount.cat("d/f499"), Ok(b"499".to_vec()));
    let inos: BTreeSet<u64> = (0..500).map(|n| mount.ino(&format!("d/f{n}"))).collect();
    assert_eq!(inos.len(), 500, "inode numbers over 500 file systems");
}

#[test]
fn listing_gives_each_survivor_once_while_entries_are_removed() {
    for lower in [true, false] {
        let names: Vec<String> = (0..60).map(|n| format!("d/n{n}=")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let fixture = Fixture::new(&[if lower { &names } else { &["d2/"] }]);
        let mut mount = fixture.mount();
        if !lower {
            mount.mkdir("d").unwrap();
            for name in &names {
                mount.create(name.trim_end_matches('='), b"").unwrap();
            }
        }
        let dir = mount.at("d").unwrap();
        let (mut seen, mut removed, mut from, mut turn) = (Vec::new(), BTreeSet::new(), 0, 0);
        loop {
            let (piece, next) = mount.list_piece(dir, from, turn % 2 == 0, 5).unwrap();
            if piece.is_empty() {
                break;
            }
            from = next;
            seen.extend(piece.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()));
            // An entry that was already listed, and one that may still come.
            for name in [seen.last().cloned().unwrap(), format!("n{}", turn * 7 % 60)] {
                if name.starts_with('n') && removed.insert(name.clone()) {
                    mount.unlink(&format!("d/{name}")).unwrap();
                }
            }
            if turn < 20 {
                mount.create(&format!("d/new{turn}"), b"").unwrap();
            }
            turn += 1;
        }
        let unique: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "an entry was given twice");
        for survivor in (0..60).map(|n| format!("n{n}")).filter(|name| !removed.contains(name)) {
            assert!(unique.contains(&survivor), "{survivor} was not given (lower: {lower})");
        }
    }
}

#[test]
fn marks_of_ours_are_never_shown() {
    for options in forms() {
        let fixture = Fixture::new(&[&["d/f=1", "e/g=2", "h=3", "i>h"]]).with(options);
        let mut mount = fixture.mount();
        mount.rename("d", "moved", PLAIN).unwrap();
        mount.chmod("moved/f", 0o600).unwrap();
        mount.remove_all("e").unwrap();
        mount.mkdir("e").unwrap();
        mount.write("h", b"x", 0).unwrap();
        mount.mknod("dev", Kind::Char.mode_bits() | 0o600, 0x103).unwrap();
        for _ in 0..2 {
            for (path, what) in mount.observe() {
                assert!(what.xattrs.is_empty(), "{path} shows {:?}", what.xattrs);
                assert!(!path.contains(".wh."), "{path} is shown");
            }
            let node = mount.at("moved").unwrap();
            for key in
                ["overlay.redirect", "overlay.origin", "overlay.lamina.ino", "overlay.opaque"]
            {
                for space in ["trusted", "user"] {
                    let key = format!("{space}.{key}");
                    let value = mount.union.getxattr(node, key.as_bytes());
                    assert!(value.unwrap_err().is(Errno::NODATA), "{key}");
                }
            }
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn marks_made_by_users_have_no_effect() {
    for options in forms() {
        let fixture = Fixture::new(&[&["d/x=1", "f=2"]]).with(options.clone());
        let mut mount = fixture.mount();
        for space in ["user", "trusted"] {
            for (mark, value) in [
                ("overlay.opaque", "y"),
                ("overlay.redirect", "/nowhere"),
                ("overlay.metacopy", ""),
                ("overlay.whiteout", ""),
                ("overlay.lamina.ino", "12345678"),
                ("overlay.lamina.plain", "y"),
            ] {
                let key = format!("{space}.{mark}");
                for path in ["d", "f"] {
                    // The name is either refused, or ordinary content.
                    match mount.set_xattr(path, key.as_bytes(), value.as_bytes()) {
                        Ok(()) => {
                            let node = mount.at(path).unwrap();
                            let kept = mount.union.getxattr(node, key.as_bytes());
                            assert_eq!(kept, Ok(value.as_bytes().to_vec()), "{key}");
                        }
                        Err(errno) => assert!(
                            [Errno::PERM, Errno::OPNOTSUPP].contains(&errno),
                            "{key}: {errno:?}"
                        ),
                    }
                }
            }
        }
        let opaque = mount.set_xattr("d", b"user.fuseoverlayfs.opaque", b"y");
        assert!([Ok(()), Err(Errno::PERM)].contains(&opaque), "{opaque:?}");
        let aufs = mount.create("d/.wh.x", b"not a mark");
        let opq = mount.create("d/.wh..wh..opq", b"");
        let before = mount.observe();
        assert_eq!(mount.cat("d/x"), Ok(b"1".to_vec()));
        mount = fixture.remount(mount);
        assert_eq!(mount.observe(), before, "after a remount with {options:?}");
        assert_eq!(mount.cat("d/x"), Ok(b"1".to_vec()));
        assert_eq!(mount.at("d/.wh.x").is_ok(), aufs.is_ok());
        assert_eq!(mount.at("d/.wh..wh..opq").is_ok(), opq.is_ok());
    }
}

#[test]
fn device_0_0_made_by_a_user_is_a_device() {
    for whiteouts in [WhiteoutForm::Device, WhiteoutForm::Aufs] {
        let options = Options { whiteouts, ..Options::default() };
        let fixture = Fixture::new(&[&["d/x=1"]]).with(options);
        let mut mount = fixture.mount();
        mount.mknod("d/dev", Kind::Char.mode_bits() | 0o600, 0).unwrap();
        mount.unlink("d/x").unwrap();
        mount.mknod("d/x", Kind::Char.mode_bits() | 0o600, 0).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names("d"), Ok(vec!["dev".into(), "x".into()]));
            let node = mount.at("d/x").unwrap();
            assert_eq!(mount.union.getattr(node).unwrap().kind(), Kind::Char);
            mount = fixture.remount(mount);
        }
        mount.unlink("d/x").unwrap();
        mount = fixture.remount(mount);
        assert_eq!(mount.names("d"), Ok(vec!["dev".into()]));
    }
}

#[test]
fn change_of_attributes_copies_no_data() {
    let fixture = Fixture::new(&[&["d/big*300000=x"]]);
    let mut mount = fixture.mount();
    fixture.faults.start(Default::default());
    mount.chmod("d/big", 0o600).unwrap();
    let owner = AttrChange { uid: Some(3), ..AttrChange::default() };
    mount.change("d/big", owner).unwrap();
    let time = Some(SetTime::At(Time { secs: 5, nanos: 6 }));
    mount.change("d/big", AttrChange { mtime: time, ..AttrChange::default() }).unwrap();
    mount.set_xattr("d/big", b"user.a", b"b").unwrap();
    for call in [Call::WriteAt, Call::CopyRange, Call::CloneTo] {
        assert_eq!(fixture.faults.count(call), 0, "{call:?}");
    }
    assert_eq!(mount.cat("d/big"), Ok(vec![b'x'; 300_000]));
    mount = fixture.remount(mount);
    assert_eq!(mount.cat("d/big"), Ok(vec![b'x'; 300_000]));
    mount.write("d/big", b"y", 1).unwrap();
    mount = fixture.remount(mount);
    let data = mount.cat("d/big").unwrap();
    assert_eq!((data.len(), &data[..3]), (300_000, &b"xyx"[..]));
    let node = mount.at("d/big").unwrap();
    let stat = mount.union.getattr(node).unwrap();
    assert_eq!((stat.mode & 0o7777, stat.uid), (0o600, 3));
}

#[test]
fn change_that_changes_nothing_makes_no_copy() {
    let fixture = Fixture::new(&[&["d/f=1"]]);
    let mut mount = fixture.mount();
    fixture.faults.start(Default::default());
    let node = mount.at("d/f").unwrap();
    mount.union.setattr(node, &AttrChange::default(), false).unwrap();
    let opened = mount.union.open(node, OpenFlags::default()).unwrap();
    mount.union.release(node, opened.fh);
    mount.names("d").unwrap();
    assert_eq!(fixture.faults.calls(), []);
}

#[test]
fn hard_links_of_a_lower_stay_one_file() {
    for metacopy in [true, false] {
        let options = Options { metacopy, ..Options::default() };
        let lowers: [&[&str]; 1] = [&["d/a=text", "d/b>d/a", "e/c>d/a"]];
        let fixture = Fixture::new(&lowers).with(options);
        let mut mount = fixture.mount();
        let ino = mount.ino("d/a");
        mount.chmod("d/a", 0o600).unwrap();
        mount.write("d/b", b"T", 0).unwrap();
        for _ in 0..2 {
            for path in ["d/a", "d/b", "e/c"] {
                assert_eq!(mount.cat(path), Ok(b"Text".to_vec()), "{path}");
                let node = mount.at(path).unwrap();
                let stat = mount.union.getattr(node).unwrap();
                let seen = (stat.ino, stat.nlink, stat.mode & 0o7777);
                assert_eq!(seen, (ino, 3, 0o600), "{path}");
            }
            mount = fixture.remount(mount);
        }
        mount.unlink("d/a").unwrap();
        mount.link("e/c", "new").unwrap();
        mount.unlink("d/b").unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names("d"), Ok(vec![]));
            for path in ["e/c", "new"] {
                let node = mount.at(path).unwrap();
                assert_eq!(mount.union.getattr(node).unwrap().nlink, 2, "{path}");
                assert_eq!(mount.ino(path), ino);
            }
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn renamed_lower_directories_nest() {
    for redirect in [true, false] {
        for options in forms() {
            let options = Options { redirect, ..options };
            let lowers: [&[&str]; 2] = [&["a/b/c/f=1"], &["a/b/c/g=2", "a/x=3", "t/"]];
            let fixture = Fixture::new(&lowers).with(options);
            let mut mount = fixture.mount();
            let inos = ["a", "a/b", "a/b/c", "a/b/c/f", "a/b/c/g"].map(|path| mount.ino(path));
            mount.rename("a/b/c", "a/c2", PLAIN).unwrap();
            mount = fixture.remount(mount);
            mount.rename("a", "t/a2", PLAIN).unwrap();
            mount = fixture.remount(mount);
            mount.rename("t/a2/b", "b2", PLAIN).unwrap();
            mount.rename("t/a2/c2", "b2/c", PLAIN).unwrap();
            mount.mkdir("a").unwrap();
            for _ in 0..2 {
                assert_eq!(mount.names(""), Ok(vec!["a".into(), "b2".into(), "t".into()]));
                assert_eq!(mount.names("a"), Ok(vec![]));
                assert_eq!(mount.names("t/a2"), Ok(vec!["x".into()]));
                assert_eq!(mount.names("b2"), Ok(vec!["c".into()]));
                assert_eq!(mount.names("b2/c"), Ok(vec!["f".into(), "g".into()]));
                assert_eq!(mount.cat("b2/c/g"), Ok(b"2".to_vec()));
                let now = ["t/a2", "b2", "b2/c", "b2/c/f", "b2/c/g"].map(|path| mount.ino(path));
                assert_eq!(now, inos, "inode numbers over renames, redirect: {redirect}");
                mount = fixture.remount(mount);
            }
        }
    }
}

#[test]
fn exchanged_directories_keep_their_content() {
    for options in forms() {
        let fixture = Fixture::new(&[&["a/f=1", "b/g=2", "c=3"]]).with(options);
        let mut mount = fixture.mount();
        mount.rename("a", "b", EXCHANGE).unwrap();
        mount.rename("b", "c", EXCHANGE).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.names("a"), Ok(vec!["g".into()]));
            assert_eq!(mount.names("c"), Ok(vec!["f".into()]));
            assert_eq!(mount.cat("b"), Ok(b"3".to_vec()));
            mount = fixture.remount(mount);
        }
    }
}

#[test]
fn unlinked_open_file_stays_readable_and_writable() {
    let fixture = Fixture::new(&[&["d/f=lower"]]);
    let mut mount = fixture.mount();
    let node = mount.at("d/f").unwrap();
    let opened = mount.union.open(node, OpenFlags { write: true, ..OpenFlags::default() }).unwrap();
    mount.unlink("d/f").unwrap();
    mount.create("d/f", b"other").unwrap();
    assert_eq!(mount.read(node), Ok(b"lower".to_vec()));
    mount.union.write(node, opened.fh, b"L", 0, false).unwrap();
    assert_eq!(mount.read(node), Ok(b"Lower".to_vec()));
    assert_eq!(mount.union.getattr(node).unwrap().nlink, 0);
    mount.union.release(node, opened.fh);
    mount = fixture.remount(mount);
    assert_eq!(mount.cat("d/f"), Ok(b"other".to_vec()));
}

#[test]
fn old_reader_sees_what_is_written_after_copy_up() {
    let fixture = Fixture::new(&[&["f=lower"]]);
    let mut mount = fixture.mount();
    let node = mount.at("f").unwrap();
    let reader = mount.union.open(node, OpenFlags::default()).unwrap();
    mount.write("f", b"LO", 0).unwrap();
    assert_eq!(mount.read(node), Ok(b"LOwer".to_vec()));
    mount.union.release(node, reader.fh);
}

#[test]
fn copy_up_keeps_holes() {
    let fixture = Fixture::new(&[&["big="]]);
    let root = fixture.lowers[0].root();
    let file = root.open(b"big", laminafs::types::Access::Write).unwrap();
    file.write_at(b"head", 0).unwrap();
    file.write_at(b"tail", 64 << 20).unwrap();
    let mut mount = fixture.mount();
    mount.write("big", b"H", 0).unwrap();
    let upper = fixture.upper.root().dir(b"upper").stat(Some(b"big")).unwrap();
    assert_eq!((upper.size, upper.blocks), ((64 << 20) + 4, 16));
    assert_eq!(mount.union.getattr(mount.nodes[&0]).unwrap().kind(), Kind::Dir);
}

#[test]
fn mount_without_upper_refuses_changes() {
    let fixture = Fixture::new(&[&["d/f=1"], &["d/g=2"]]);
    let lowers: Vec<_> = fixture.lowers.iter().map(|tree| tree.root()).collect();
    let union = mount(&lowers, None, &Options::default()).unwrap();
    let mut mount = laminafs_testing::driver::Mount::new(union);
    assert!(mount.union.is_read_only());
    assert_eq!(mount.names("d"), Ok(vec!["f".into(), "g".into()]));
    assert_eq!(mount.mkdir("x"), Err(Errno::ROFS));
    assert_eq!(mount.chmod("d/f", 0o600), Err(Errno::ROFS));
    assert_eq!(mount.unlink("d/f"), Err(Errno::ROFS));
    assert_eq!(mount.rename("d/f", "d/h", PLAIN), Err(Errno::ROFS));
    assert_eq!(mount.write("d/f", b"x", 0), Err(Errno::ROFS));
}

#[test]
fn names_of_255_bytes_work_and_longer_ones_do_not() {
    for options in forms() {
        let long = "n".repeat(255);
        let item = format!("{long}=1");
        let fixture = Fixture::new(&[&[&item]]).with(options);
        let mut mount = fixture.mount();
        assert_eq!(mount.cat(&long), Ok(b"1".to_vec()));
        assert_eq!(mount.at(&"n".repeat(256)), Err(Errno::NAMETOOLONG));
        mount.rename(&long, "short", PLAIN).unwrap();
        assert_eq!(mount.at(&long), Err(Errno::NOENT));
        mount = fixture.remount(mount);
        assert_eq!(mount.names(""), Ok(vec!["short".into()]));
    }
}

#[test]
fn two_layers_on_one_file_system_are_never_taken_for_each_other() {
    let fixture = Fixture::new(&[&["a/d/f=1", "b/d/f=2"]]);
    let tree = fixture.lowers[0].root();
    let union =
        mount(&[tree.dir(b"a"), tree.dir(b"b")], Some(&fixture.upper.root()), &Options::default())
            .unwrap();
    let mut mount = laminafs_testing::driver::Mount::new(union);
    assert_eq!(mount.cat("d/f"), Ok(b"1".to_vec()));
    let plain = XattrFlags::default();
    tree.dir(b"a").dir(b"d").set_xattr(None, b"user.x", b"", plain).unwrap();
    tree.dir(b"b").mkdir(b"only", 0o755, Owner::default()).unwrap();
    assert_eq!(mount.names(""), Ok(vec!["d".into(), "only".into()]));
}

#[test]
fn renamed_and_linked_files_leave_their_data_below() {
    let lower: &[&str] = &["d/f*9000=x", "d/sub/g*9000=y", "h*9000=z", "i>h"];
    let fixture = Fixture::new(&[lower]);
    let upper = fixture.upper.root().dir(b"upper");
    let redirect = |dir: &str, name: &str| {
        let dir = if dir.is_empty() { upper.clone() } else { upper.dir(dir.as_bytes()) };
        let value = dir.xattr(Some(name.as_bytes()), b"trusted.overlay.redirect").unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    };
    let mut mount = fixture.mount();
    mount.mkdir("new").unwrap();
    mount.rename("d/f", "d/near", PLAIN).unwrap();
    assert_eq!(redirect("d", "near").as_deref(), Some("f"));
    mount.rename("d", "e", PLAIN).unwrap();
    mount.rename("e/near", "new/far", PLAIN).unwrap();
    assert_eq!(redirect("new", "far").as_deref(), Some("/d/f"));
    mount.link("e/sub/g", "new/link").unwrap();
    assert_eq!(redirect("new", "link").as_deref(), Some("/d/sub/g"));
    mount.rename("i", "j", PLAIN).unwrap();
    assert!(redirect("", "j").unwrap().starts_with('/'), "one mark serves all names");
    assert_eq!(mount.union.stats().copy_up_bytes, 0);
    for _ in 0..2 {
        for (path, byte) in [("new/far", b'x'), ("new/link", b'y'), ("e/sub/g", b'y'), ("j", b'z')]
        {
            assert_eq!(mount.cat(path), Ok(vec![byte; 9000]), "{path}");
        }
        mount = fixture.remount(mount);
    }
    mount.write("new/far", b"!", 0).unwrap();
    assert_eq!(redirect("new", "far"), None);
    mount.write("j", b"!", 0).unwrap();
    let mut mount = fixture.remount(mount);
    assert_eq!(mount.cat("new/far").unwrap()[..2], *b"!x");
    assert_eq!(mount.cat("h").unwrap()[..2], *b"!z");
}

#[test]
fn without_redirects_a_renamed_file_takes_its_data_along() {
    let options = Options { redirect: false, ..Options::default() };
    let fixture = Fixture::new(&[&["f*9000=x"]]).with(options);
    let mut mount = fixture.mount();
    mount.chmod("f", 0o600).unwrap();
    mount.rename("f", "g", PLAIN).unwrap();
    assert_eq!(mount.union.stats().copy_up_bytes, 9000);
    let mut mount = fixture.remount(mount);
    assert_eq!(mount.cat("g"), Ok(vec![b'x'; 9000]));
}
