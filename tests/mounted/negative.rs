//! Attacks by users of the mount and makers of layers: they change nothing but their own files, now
//! and after a remount. The numbers are those of the list of attacks.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::Site;
use crate::tools::*;
use crate::tree;

judged!(unions:
    refused_open_copies_nothing,
    users_set_no_trusted_attributes,
    marks_of_the_layers_are_not_shown,
    attributes_that_users_set_have_no_effect,
    links_in_layers_are_links_and_nothing_else,
    permissions_hold_for_other_users,
);
judged!(lamina:
    files_named_as_marks_are_files,
    files_named_as_marks_stay_files_in_a_lower,
    device_0_0_is_never_a_whiteout,
    escaped_marks_stay_escaped_in_a_lower,
    redirect_out_of_the_layer_is_an_error,
    redirect_through_a_link_shows_nothing_outside,
    data_that_is_no_file_is_an_error,
    replaced_upper_directory_is_not_followed,
    mount_behind_the_back_is_not_entered,
    foreign_marks_in_a_lower_grant_nothing,
    damaged_inode_number_mark_does_no_harm,
);

/// A directory outside all layers with a secret file.
fn outside(s: &Site) -> std::path::PathBuf {
    let path = s.root().join("outside");
    dir(&path);
    put(path.join("secret"), "secret");
    path
}

/// Asserts that the mount shows the same tree after a remount, and as a lower.
#[track_caller]
fn stays(s: &mut Site) {
    let before = tree::read(&s.mnt());
    s.remount();
    tree::assert_same("before", &before, "after a remount", &tree::read(&s.mnt()));
}

/// Makes the upper a lower above the existing one.
fn restack(s: &mut Site) {
    s.unmount();
    let spare = s.add_lower(&format!("below{}", s.lower_paths().len()));
    let paths = s.lower_paths();
    fs::remove_dir(&spare).unwrap();
    for pair in paths.windows(2).rev() {
        fs::rename(&pair[0], &pair[1]).unwrap();
    }
    fs::rename(s.upper(""), &paths[0]).unwrap();
    fs::create_dir(s.upper("")).unwrap();
    fs::remove_dir_all(s.root().join("work")).unwrap();
    fs::create_dir(s.root().join("work")).unwrap();
    s.mount();
}

// N4
fn refused_open_copies_nothing(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/f"), "root's");
    chmod(s.lower("d/f"), 0o644);
    s.mount();
    as_user(USER, || {
        fails(open(s.at("d/f"), OFlags::RDWR), Errno::ACCESS);
        fails(open(s.at("d/f"), OFlags::WRONLY | OFlags::TRUNC), Errno::ACCESS);
        fails(open(s.at("d/new"), OFlags::WRONLY | OFlags::CREATE), Errno::ACCESS);
        fails_io(fs::remove_file(s.at("d/f")), Errno::ACCESS);
        fails(set_xattr(s.at("d/f"), "user.a", b"b"), Errno::ACCESS);
        fails(rename(s.at("d/f"), s.at("d/g")), Errno::ACCESS);
    });
    assert_eq!(get(s.at("d/f")), b"root's");
    assert_eq!(names(s.upper("")), Vec::<String>::new());
}

// N5
fn users_set_no_trusted_attributes(s: &mut Site) {
    put(s.lower("f"), "");
    chown(s.lower("f"), USER, USER);
    s.mount();
    as_user(USER, || {
        for name in ["trusted.a", "trusted.overlay.opaque", "trusted.overlay.lamina.ino"] {
            fails(set_xattr(s.at("f"), name, b"y"), Errno::PERM);
        }
    });
    assert_eq!(names(s.upper("")), Vec::<String>::new());
}

// N5
fn marks_of_the_layers_are_not_shown(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/f"), vec![b'x'; 100_000]);
    put(s.lower("a"), "");
    link(s.lower("a"), s.lower("b")).unwrap();
    s.mount();
    rename(s.at("d"), s.at("moved")).unwrap();
    chmod(s.at("moved/f"), 0o600);
    append(s.at("a"), b"x");
    fs::remove_dir(s.at("moved/sub")).unwrap();
    dir(s.at("moved/sub"));
    for _ in 0..2 {
        for path in ["", "moved", "moved/f", "moved/sub", "a"] {
            assert_eq!(xattr_names(s.at(path)), Vec::<String>::new(), "{path}");
            for mark in
                ["opaque", "redirect", "metacopy", "origin", "impure", "nlink", "lamina.ino"]
            {
                fails(xattr(s.at(path), &format!("trusted.overlay.{mark}")), Errno::NODATA);
            }
        }
        s.remount();
    }
}

// N8
fn attributes_that_users_set_have_no_effect(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/f"), "lower");
    dir(s.lower("target"));
    put(s.lower("target/secret"), "");
    for path in ["d", "d/sub", "d/f"] {
        chown(s.lower(path), USER, USER);
    }
    s.mount();
    let marks: [(&str, &[u8]); 12] = [
        ("user.overlay.opaque", b"y"),
        ("user.overlay.redirect", b"/target"),
        ("user.overlay.metacopy", b""),
        ("user.overlay.whiteout", b""),
        ("user.overlay.origin", b"\x00\xfb\x1d\x00"),
        ("user.overlay.nlink", b"U+7"),
        ("user.fuseoverlayfs.opaque", b"y"),
        ("user.fuseoverlayfs.origin", b"target"),
        ("user.containers.override_stat", b"0:0:104755"),
        ("user.fuseoverlayfs.override_stat", b"0:0:104755"),
        ("user.overlay.lamina.ino", b"12345678"),
        ("user.overlay.lamina.plain", b"y"),
    ];
    as_user(USER, || {
        for path in ["d", "d/sub", "d/f"] {
            for (name, value) in marks {
                match set_xattr(s.at(path), name, value) {
                    Ok(()) => assert_eq!(xattr(s.at(path), name).unwrap(), value, "{path} {name}"),
                    Err(errno) => {
                        assert!([Errno::PERM, Errno::OPNOTSUPP].contains(&errno), "{errno:?}");
                    }
                }
            }
        }
    });
    for _ in 0..2 {
        assert_eq!(names(s.at("d")), ["f", "sub"]);
        assert_eq!(get(s.at("d/f")), b"lower");
        assert_eq!((mode(s.at("d/f")), stat(s.at("d/f")).st_uid), (0o644, USER));
        assert_eq!(stat(s.at("d/f")).st_nlink, 1);
        stays(s);
    }
}

// N12, N20
fn links_in_layers_are_links_and_nothing_else(s: &mut Site) {
    let (above, below) = (s.lower(""), s.add_lower("below"));
    let secret = outside(s);
    dir(below.join("d"));
    put(below.join("d/f"), "below");
    symlink(&secret, above.join("d")).unwrap();
    symlink("/proc/self/root/etc", above.join("magic")).unwrap();
    dir(below.join("e"));
    symlink("../../../../../../etc", below.join("e/up")).unwrap();
    dir(above.join("e"));
    s.mount();
    assert_eq!(fs::read_link(s.at("d")).unwrap(), secret);
    fails(open(s.at("d"), OFlags::NOFOLLOW | OFlags::RDONLY), Errno::LOOP);
    fails(try_stat(s.at("d/f")), Errno::NOENT);
    assert_eq!(fs::read_link(s.at("magic")).unwrap(), Path::new("/proc/self/root/etc"));
    chown(s.at("d"), USER, USER);
    chown(s.at("e/up"), USER, USER);
    rename(s.at("e/up"), s.at("e/down")).unwrap();
    fs::remove_file(s.at("magic")).unwrap();
    stays(s);
    assert_eq!(stat(&secret).st_uid, 0, "what the link names was left alone");
    assert_eq!(names(&secret), ["secret"]);
}

// N37
fn permissions_hold_for_other_users(s: &mut Site) {
    put(s.lower("mine"), "x");
    chmod(s.lower("mine"), 0o600);
    dir(s.lower("closed"));
    put(s.lower("closed/f"), "x");
    chmod(s.lower("closed"), 0o700);
    s.mount();
    as_user(USER, || {
        fails_io(fs::read(s.at("mine")), Errno::ACCESS);
        fails_io(fs::read_dir(s.at("closed")), Errno::ACCESS);
        fails_io(fs::read(s.at("closed/f")), Errno::ACCESS);
        fails_io(fs::write(s.at("new"), ""), Errno::ACCESS);
    });
    chmod(s.at("mine"), 0o644);
    as_user(USER, || assert_eq!(get(s.at("mine")), b"x"));
}

// N9
fn files_named_as_marks_are_files(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/x"), "lower");
    chown(s.lower("d"), USER, USER);
    s.mount();
    let marks = ["d/.wh.x", "d/.wh.sub", "d/.wh..wh..opq", "d/.wh..wh.plnk", "d/x_HIDDEN~"];
    as_user(USER, || {
        for name in marks {
            if let Err(error) = fs::write(s.at(name), "content") {
                assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()), "{name}");
            }
        }
    });
    for _ in 0..2 {
        assert_eq!(get(s.at("d/x")), b"lower");
        assert!(exists(s.at("d/sub")));
        for name in marks.iter().filter(|name| exists(s.at(name))) {
            assert_eq!(get(s.at(name)), b"content", "{name}");
        }
        stays(s);
    }
}

// N9, N11
fn files_named_as_marks_stay_files_in_a_lower(s: &mut Site) {
    dir(s.lower("d"));
    put(s.lower("d/x"), "lower");
    put(s.lower("d/y"), "lower");
    put(s.lower("beside"), "lower");
    s.mount();
    put(s.at("d/.wh.x"), "");
    put(s.at(".wh..wh..opq"), "");
    put(s.at("plain"), "linked");
    link(s.at("plain"), s.at("d/.wh.y")).unwrap();
    put(s.at("temporary"), "");
    rename(s.at("temporary"), s.at("d/.wh..wh..opq")).unwrap();
    for _ in 0..2 {
        restack(s);
        assert_eq!(names(s.at("d")), [".wh..wh..opq", ".wh.x", ".wh.y", "x", "y"]);
        assert_eq!(get(s.at("d/x")), b"lower");
        assert_eq!(names(s.mnt()), [".wh..wh..opq", "beside", "d", "plain"]);
        chmod(s.at("d/.wh.x"), 0o600);
        chmod(s.at("d/.wh..wh..opq"), 0o600);
        chmod(s.at(".wh..wh..opq"), 0o600);
    }
}

// N10
fn device_0_0_is_never_a_whiteout(s: &mut Site) {
    put(s.lower("x"), "lower");
    put(s.lower("y"), "lower");
    s.mount();
    let made = |name: &str| mknod(s.at(name), FileType::CharacterDevice, 0, 0);
    fails(made("x"), Errno::EXIST);
    fs::remove_file(s.at("x")).unwrap();
    for name in ["x", "new"] {
        made(name).unwrap();
    }
    rename(s.at("new"), s.at("y")).unwrap();
    for _ in 0..2 {
        restack(s);
        assert_eq!(names(s.mnt()), ["x", "y"]);
        for name in ["x", "y"] {
            let meta = stat(s.at(name));
            assert_eq!(FileType::from_raw_mode(meta.st_mode), FileType::CharacterDevice);
            assert_eq!(meta.st_rdev, 0);
        }
        chmod(s.at("x"), 0o640);
    }
    fs::remove_file(s.at("x")).unwrap();
    s.remount();
    assert_eq!(names(s.mnt()), ["y"]);
}

// N11
fn escaped_marks_stay_escaped_in_a_lower(s: &mut Site) {
    dir(s.lower("d/sub"));
    s.mount();
    for key in ["user.overlay.opaque", "trusted.overlay.opaque"] {
        set_xattr(s.at("d"), key, b"y").unwrap();
    }
    for _ in 0..2 {
        restack(s);
        assert_eq!(names(s.at("d")), ["sub"]);
        for key in ["user.overlay.opaque", "trusted.overlay.opaque"] {
            assert_eq!(xattr(s.at("d"), key).unwrap(), b"y", "{key}");
        }
        chmod(s.at("d"), 0o700);
    }
}

fn redirect_out_of_the_layer_is_an_error(s: &mut Site) {
    let (above, below) = (s.lower(""), s.add_lower("below"));
    outside(s);
    dir(below.join("fine"));
    let targets: [&[u8]; 7] =
        [b"../..", b"..", b"../outside", b"/../outside", b"a/../../outside", b"a/b", b"/"];
    for (number, target) in targets.iter().enumerate() {
        let path = above.join(format!("d{number}"));
        dir(&path);
        set_xattr(&path, "trusted.overlay.redirect", target).unwrap();
    }
    s.mount();
    for (number, target) in targets.iter().enumerate() {
        for path in [format!("d{number}"), format!("d{number}/secret")] {
            let seen = try_stat(s.at(&path)).map(drop);
            assert_eq!(seen, Err(Errno::IO), "{}", String::from_utf8_lossy(target));
        }
    }
    assert!(exists(s.at("fine")), "the rest of the layer is well");
    dir(s.at("fine/new"));
}

fn redirect_through_a_link_shows_nothing_outside(s: &mut Site) {
    let (above, below) = (s.lower(""), s.add_lower("below"));
    let secret = outside(s);
    symlink(&secret, below.join("link")).unwrap();
    symlink(s.root(), below.join("up")).unwrap();
    for (name, target) in [("a", "link"), ("b", "/link"), ("c", "/up/outside")] {
        dir(above.join(name));
        set_xattr(above.join(name), "trusted.overlay.redirect", target.as_bytes()).unwrap();
    }
    s.mount();
    for name in ["a", "b", "c"] {
        assert!(try_stat(s.at(&format!("{name}/secret"))).is_err(), "{name}");
    }
}

// N15
fn data_that_is_no_file_is_an_error(s: &mut Site) {
    let (above, below) = (s.lower(""), s.add_lower("below"));
    for (name, kind) in [("fifo", FileType::Fifo), ("device", FileType::CharacterDevice)] {
        mknod(below.join(name), kind, 1, 5).unwrap();
    }
    symlink("/etc/passwd", below.join("link")).unwrap();
    for name in ["fifo", "device", "link", "nothing"] {
        fs::File::create(above.join(name)).unwrap().set_len(10).unwrap();
        set_xattr(above.join(name), "trusted.overlay.metacopy", b"").unwrap();
    }
    s.mount();
    for name in ["fifo", "device", "link", "nothing"] {
        fails_io(fs::read(s.at(name)), Errno::IO);
    }
}

// N14
fn replaced_upper_directory_is_not_followed(s: &mut Site) {
    dir(s.lower("d/e"));
    let secret = outside(s);
    s.mount();
    put(s.at("d/e/f"), "upper");
    // The caller is already inside, so its own walk follows no link.
    let inside = open(s.at("d/e"), OFlags::PATH | OFlags::DIRECTORY).unwrap();
    fs::rename(s.upper("d"), s.root().join("taken")).unwrap();
    symlink(s.root(), s.upper("d")).unwrap();
    symlink(&secret, s.root().join("e")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    let flags = OFlags::CREATE | OFlags::WRONLY;
    // Whatever these calls return: they reach nothing outside.
    let tried = [
        rustix::fs::openat(&inside, "new", flags, mode).map(drop),
        rustix::fs::mkdirat(&inside, "dir", mode),
        rustix::fs::unlinkat(&inside, "secret", AtFlags::empty()),
        rustix::fs::renameat(&inside, "f", &inside, "secret"),
    ];
    assert_eq!(names(&secret), ["secret"], "{tried:?}");
    assert_eq!(get(secret.join("secret")), b"secret");
}

// N17
fn mount_behind_the_back_is_not_entered(s: &mut Site) {
    for name in ["early", "late"] {
        dir(s.lower(name));
        put(s.lower(name).join("beneath"), "");
    }
    let over = |path: &Path| {
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
        put(path.join("mounted"), "");
    };
    let (early, late) = (s.lower("early"), s.lower("late"));
    over(&early);
    s.mount();
    over(&late);
    for name in ["early", "late"] {
        assert_eq!(names(s.at(name)), ["beneath"], "{name}");
        put(s.at(name).join("new"), "");
    }
    for path in [early, late] {
        assert_eq!(names(&path), ["mounted"]);
        rustix::mount::unmount(&path, UnmountFlags::empty()).unwrap();
    }
}

fn foreign_marks_in_a_lower_grant_nothing(s: &mut Site) {
    put(s.lower("f"), "x");
    for name in ["user.containers.override_stat", "user.fuseoverlayfs.override_stat"] {
        set_xattr(s.lower("f"), name, b"0:0:104755").unwrap();
    }
    chown(s.lower("f"), USER, USER);
    s.mount();
    assert_eq!((mode(s.at("f")), stat(s.at("f")).st_uid), (0o644, USER));
    append(s.at("f"), b"y");
    s.remount();
    assert_eq!((mode(s.at("f")), stat(s.at("f")).st_uid), (0o644, USER));
}

fn damaged_inode_number_mark_does_no_harm(s: &mut Site) {
    for (name, value) in [("a", &b""[..]), ("b", b"123"), ("c", &[0; 8]), ("d", &[0xff; 8])] {
        put(s.upper(name), name);
        set_xattr(s.upper(name), "trusted.overlay.lamina.ino", value).unwrap();
    }
    put(s.upper("e"), "e");
    set_xattr(s.upper("e"), "trusted.overlay.lamina.ino", &[0xff; 8]).unwrap();
    s.mount();
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(get(s.at(name)), name.as_bytes());
        assert_ne!(stat(s.at(name)).st_ino, 0);
        let file = open(s.at(name), OFlags::RDONLY).unwrap();
        assert_eq!(rustix::fs::fstat(file.as_fd()).unwrap().st_size, 1);
    }
}
