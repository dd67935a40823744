//! One suite over all volume drivers: each row is a driver, and says what it can.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use laminafs::service::volumes::{Limits, NewVolume, Removal, VolumeService, serve_by};
use laminafs::types::VolumeName;
use rustix::fs::OFlags;

use crate::harness::{Site, mount_points_below, program};
use crate::tools::*;
use crate::volume_plugin::{Served, until};

const MIB: u64 = 1 << 20;

/// A driver, and what it can.
struct Row {
    driver: &'static str,
    options: &'static [(&'static str, &'static str)],
    /// A limit that the volume is made with.
    size: Option<u64>,
    /// Whether it holds the limit, and can grow.
    is_limited: bool,
    /// Whether a file that is open makes the volume busy.
    is_mount: bool,
    /// Whether the content outlives the last user.
    keeps: bool,
    /// Whether it makes snapshots and clones.
    copies: bool,
    /// Whether it needs a plugin.
    plugin: Option<&'static str>,
}

const DIRECTORY: Row = Row {
    driver: "local",
    options: &[],
    size: None,
    is_limited: false,
    is_mount: false,
    keeps: true,
    copies: false,
    plugin: None,
};

const IMAGE: Row = Row {
    driver: "image",
    options: &[("fs", "ext4")],
    size: Some(64 * MIB),
    is_limited: true,
    is_mount: true,
    copies: true,
    ..DIRECTORY
};

/// Makes a test of each row.
macro_rules! rows {
    ($($name:ident: $row:expr),* $(,)?) => {
        judged!(host: $($name),*);
        $( fn $name(s: &mut Site) { conforms(s, &$row); } )*
    };
}

rows! {
    local: DIRECTORY,
    local_with_size: Row {
        size: Some(64 * MIB),
        is_limited: true,
        is_mount: true,
        copies: true,
        ..DIRECTORY
    },
    local_tmpfs: Row {
        options: &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=32m,mode=0755")],
        is_mount: true,
        keeps: false,
        ..DIRECTORY
    },
    image_ext4: IMAGE,
    image_xfs: Row { options: &[("fs", "xfs")], size: Some(300 * MIB), ..IMAGE },
    union: Row { driver: "union", size: None, options: &[], ..IMAGE },
    union_with_size: Row { driver: "union", options: &[], ..IMAGE },
    plugin: Row {
        driver: "plugin:lamina-test",
        is_mount: true,
        plugin: Some("lamina-test"),
        ..DIRECTORY
    },
    plugin_with_image: Row {
        driver: "plugin:lamina-test",
        options: &[("driver", "image"), ("fs", "ext4")],
        size: Some(64 * MIB),
        is_mount: true,
        plugin: Some("lamina-test"),
        ..DIRECTORY
    },
}

pub fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// What a volume is made with.
fn wish(row: &Row, of: &str) -> NewVolume {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let mut options: BTreeMap<_, _> = row.options.iter().map(own).collect();
    options.extend(row.size.map(|size| ("size".to_owned(), size.to_string())));
    NewVolume { driver: Some(row.driver.to_owned()), options, ..NewVolume::new(name(of)) }
}

fn conforms(s: &mut Site, row: &Row) {
    let served = row.plugin.map(|name| Served::start(s, name));
    serve_by(program().to_owned());
    let root = s.root().join("store");
    let volumes = VolumeService::open(&root).unwrap();
    created_once(&volumes, row);
    let data = volumes.publish(&name("a"), "one").unwrap();
    assert_eq!(names(&data), Vec::<String>::new(), "a new volume is empty");
    assert_eq!(mode(&data), 0o755);
    used(&volumes, row, &data);
    shared(&volumes, row, &data);
    mounted_again(&volumes, row);
    resized(&volumes, row);
    copied(&volumes, row);
    removed(&volumes, row);
    assert_eq!(volumes.sweep().unwrap(), 0, "nothing is left to sweep");
    let left = names(root.join("volumes"));
    assert!(left == [".locks"] || left == [".layers", ".locks"], "{left:?}");
    if left.len() == 2 {
        assert_eq!(names(root.join("volumes/.layers")), [".lock"]);
    }
    assert_eq!(names(root.join("volumes/.locks")), Vec::<String>::new());
    drop(volumes);
    if let Some(served) = served {
        assert_eq!(served.end_empty(), Vec::<String>::new(), "the plugin has volumes");
    }
}

/// A second creation finds the first volume, and another driver does not.
fn created_once(volumes: &VolumeService, row: &Row) {
    let (first, is_new) = volumes.ensure(wish(row, "a")).unwrap();
    assert!(is_new);
    assert_eq!(first.size_bytes, row.size);
    let (again, is_new) = volumes.ensure(wish(row, "a")).unwrap();
    assert!(!is_new);
    assert_eq!(again.id, first.id);
    // Who names no driver means the volume whatever its driver is.
    let (again, is_new) = volumes.ensure(NewVolume::new(name("a"))).unwrap();
    assert!(!is_new && again.id == first.id);
    let other = if row.driver == "local" { "image" } else { "local" };
    let mut wish = NewVolume { driver: Some(other.to_owned()), ..NewVolume::new(name("a")) };
    if other == "image" {
        wish.options.insert("size".to_owned(), "64M".to_owned());
    }
    let refused = volumes.create(wish).unwrap_err().to_string();
    assert!(refused.contains("already exists") && refused.contains(row.driver), "{refused}");
    let mut wrong = wish_with_nonsense(row);
    wrong.name = name("wrong");
    let refused = volumes.create(wrong).unwrap_err().to_string();
    assert!(refused.contains("sizze"), "{refused}");
    assert_eq!(volumes.list().unwrap().len(), 1, "what was refused is not there");
    assert!(volumes.trashed().unwrap().is_empty());
}

fn wish_with_nonsense(row: &Row) -> NewVolume {
    let mut wish = wish(row, "wrong");
    wish.options.insert("sizze".to_owned(), "1".to_owned());
    wish
}

fn used(volumes: &VolumeService, row: &Row, data: &Path) {
    let before = volumes.usage(&name("a")).unwrap();
    put(data.join("f"), pattern(3 << 20));
    chmod(data.join("f"), 0o4710);
    chown(data.join("f"), USER, OTHER);
    fs::create_dir(data.join("d")).unwrap();
    fs::hard_link(data.join("f"), data.join("d/g")).unwrap();
    rustix::fs::syncfs(open(data, OFlags::RDONLY).unwrap().as_fd()).unwrap();
    let after = volumes.usage(&name("a")).unwrap();
    let grown = after.used_bytes - before.used_bytes;
    assert!((3 * MIB..4 * MIB).contains(&grown), "{before:?} {after:?}");
    let inodes = after.used_inodes.zip(before.used_inodes).unwrap();
    // tmpfs counts a hard link as an inode.
    assert!((2..=3).contains(&(inodes.0 - inodes.1)), "{before:?} {after:?}");
    assert!(volumes.is_used(&volumes.inspect(&name("a")).unwrap()).unwrap());
    if let Some(size) = row.size {
        let shown = rustix::fs::statvfs(data).unwrap();
        let total = shown.f_blocks * shown.f_frsize;
        assert!(total <= size, "{total}");
    }
}

/// Two users have the same content, and the end of one leaves it to the other.
fn shared(volumes: &VolumeService, row: &Row, data: &Path) {
    assert_eq!(volumes.publish(&name("a"), "two").unwrap(), data);
    assert_eq!(volumes.publish(&name("a"), "two").unwrap(), data);
    volumes.unpublish(&name("a"), "one").unwrap();
    volumes.unpublish(&name("a"), "never").unwrap();
    assert_eq!(get(data.join("d/g")), pattern(3 << 20));
    // A process of the host that nobody counts.
    let held = open(data.join("f"), OFlags::RDWR).unwrap();
    if row.is_mount {
        let busy = volumes.erase(&name("a")).unwrap_err().to_string();
        assert!(busy.contains("busy"), "{busy}");
        assert_eq!(volumes.list().unwrap().len(), 1);
        assert_eq!(get(data.join("f")), pattern(3 << 20));
        volumes.unpublish(&name("a"), "two").unwrap();
        assert_eq!(mount_points_below(data).len(), 1, "it is unmounted later");
    }
    assert_eq!(rustix::io::write(&held, b"more").unwrap(), 4);
    drop(held);
    volumes.unpublish(&name("a"), "two").unwrap();
    volumes.settle().unwrap();
    assert_eq!(mount_points_below(data), Vec::<PathBuf>::new());
    assert!(!volumes.is_used(&volumes.inspect(&name("a")).unwrap()).unwrap());
}

fn mounted_again(volumes: &VolumeService, row: &Row) {
    volumes.rename(&name("a"), &name("b")).unwrap();
    assert!(volumes.publish(&name("a"), "one").unwrap_err().is_missing());
    for round in 0..2 {
        let data = volumes.publish(&name("b"), "one").unwrap();
        match row.keeps {
            true => {
                let expected = [b"more", &pattern(3 << 20)[4..]].concat();
                assert!(get(data.join("d/g")) == expected);
                let found = stat(data.join("f"));
                assert_eq!((found.st_mode & 0o777, found.st_nlink), (0o710, 2));
                assert_eq!((found.st_uid, found.st_gid), (USER, OTHER));
            }
            false => assert_eq!(names(&data), Vec::<String>::new()),
        }
        put(data.join("round"), round.to_string());
        volumes.unpublish(&name("b"), "one").unwrap();
        // A process that another case starts holds our descriptors until it runs its program.
        until(|| {
            volumes.settle().unwrap();
            mount_points_below(&data).is_empty()
        });
    }
}

fn resized(volumes: &VolumeService, row: &Row) {
    let size = row.size.unwrap_or(64 * MIB) + 64 * MIB;
    let limits = Limits { size_bytes: Some(size), inodes: None };
    let total = || {
        let data = volumes.publish(&name("b"), "one").unwrap();
        let shown = rustix::fs::statvfs(&data).unwrap();
        volumes.unpublish(&name("b"), "one").unwrap();
        until(|| {
            volumes.settle().unwrap();
            mount_points_below(&data).is_empty()
        });
        shown.f_blocks * shown.f_frsize
    };
    let before = total();
    let done = volumes.resize(&name("b"), limits);
    if row.is_limited {
        assert_eq!(done.unwrap().size_bytes, Some(size));
        let after = total();
        match row.size {
            Some(_) => assert!((48 * MIB..=64 * MIB).contains(&(after - before)), "{after}"),
            None => assert_eq!(after, size),
        }
    } else {
        let refused = done.unwrap_err().to_string();
        assert!(refused.contains("does not support"), "{refused}");
        assert_eq!(volumes.inspect(&name("b")).unwrap().size_bytes, row.size);
    }
}

fn copied(volumes: &VolumeService, row: &Row) {
    let data = volumes.publish(&name("b"), "one").unwrap();
    put(data.join("copied"), "first");
    let made = volumes.snapshot(&name("b"), Some(name("s")));
    if row.copies {
        made.unwrap();
        put(data.join("copied"), "second");
        volumes.clone_volume("b@s", name("c")).unwrap();
        let clone = volumes.publish(&name("c"), "one").unwrap();
        assert_eq!(get(clone.join("copied")), b"first");
        assert_eq!(get(data.join("copied")), b"second");
        volumes.unpublish(&name("c"), "one").unwrap();
        erase(volumes, "c");
        volumes.remove_snapshot("b@s").unwrap();
    } else {
        let refused = made.unwrap_err().to_string();
        assert!(refused.contains("does not support snapshots"), "{refused}");
        assert!(volumes.snapshots(None).unwrap().is_empty());
        let refused = volumes.clone_volume("b", name("c")).unwrap_err().to_string();
        assert!(refused.contains("does not support snapshots"), "{refused}");
        assert_eq!(volumes.list().unwrap().len(), 1);
    }
    volumes.unpublish(&name("b"), "one").unwrap();
}

fn removed(volumes: &VolumeService, row: &Row) {
    until(|| match volumes.remove(&name("b"), Removal::FORCED) {
        Err(error) if error.to_string().contains("busy") => false,
        done => done.map(|()| true).unwrap(),
    });
    assert!(volumes.inspect(&name("b")).unwrap_err().is_missing());
    // The name is free.
    volumes.create(wish(row, "b")).unwrap();
    volumes.undelete("b", Some(&name("back"))).unwrap();
    let data = volumes.publish(&name("back"), "one").unwrap();
    assert_eq!(data.join("copied").exists(), row.keeps);
    let fresh = volumes.publish(&name("b"), "one").unwrap();
    assert_eq!(names(&fresh), Vec::<String>::new(), "a name is not a volume");
    for name in ["b", "back"] {
        volumes.unpublish(&self::name(name), "one").unwrap();
        erase(volumes, name);
    }
    assert!(volumes.list().unwrap().is_empty() && volumes.trashed().unwrap().is_empty());
}

fn erase(volumes: &VolumeService, of: &str) {
    until(|| match volumes.erase(&name(of)) {
        Err(error) if error.to_string().contains("busy") => false,
        done => done.map(|()| true).unwrap(),
    });
}
