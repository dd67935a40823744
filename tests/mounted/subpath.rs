//! The subpath of a volume: one directory or file of it in the mount.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::harness::{Site, mount_points_below, program};
use crate::tools::*;
use crate::volume_plugin::until;

judged!(lamina:
    only_the_named_part_of_a_volume_is_shown,
    two_mounts_of_one_part_share_it,
    a_part_that_is_no_directory_or_file_inside_is_refused_by_name,
    a_part_stays_the_object_that_it_was,
    an_empty_directory_is_filled_unless_the_volume_is_in_use,
    a_container_keeps_its_part,
);

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("a plain path").to_owned()
}

/// Runs a command of the program on the data root of the site.
fn lamina(s: &Site, words: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(&words[..2]).args(["--root", &text(s.root().join("data"))]).args(&words[2..]);
    command.stdin(Stdio::null()).output().expect("lamina starts")
}

fn done(s: &Site, words: &[&str]) -> String {
    let output = lamina(s, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a volume of the driver `local`, and returns the directory of its content.
fn volume(s: &Site) -> PathBuf {
    done(s, &["volume", "create", "v"]);
    s.root().join("data/volumes/v/_data")
}

fn show(s: &mut Site, words: &[&str]) {
    s.words = vec!["--root".to_owned(), text(s.root().join("data"))];
    for word in words {
        s.words.extend(["--volume".to_owned(), (*word).to_owned()]);
    }
}

fn refused(s: &mut Site, word: &str) -> String {
    show(s, &[word]);
    let output = s.try_lamina();
    assert!(!output.status.success(), "{word} is refused");
    assert_eq!(mount_points_below(&s.mnt()), Vec::<PathBuf>::new());
    String::from_utf8(output.stderr).unwrap()
}

fn only_the_named_part_of_a_volume_is_shown(s: &mut Site) {
    for driver in ["local", "union"] {
        done(s, &["volume", "create", driver, "--driver", driver]);
        for options in ["graft=bind", "graft=served"] {
            s.options = options.to_owned();
            let whole = format!("{driver}:/whole");
            show(s, &[&whole]);
            s.mount();
            if options == "graft=bind" {
                dir(s.at("whole/a/b"));
                put(s.at("whole/a/b/f"), "inside");
                put(s.at("whole/a/g"), "outside");
                symlink("a/b", s.at("whole/link")).unwrap();
                symlink("b/f", s.at("whole/a/file-link")).unwrap();
            }
            s.unmount();
            // The place of a file is a file, as that of a directory is a directory.
            let words = [
                "/dir:subpath=a/b",
                "/again:subpath=link,ro",
                "/file:subpath=a/b/f",
                "/linked:subpath=a/file-link",
            ];
            let words = words.map(|word| format!("{driver}:{word}"));
            show(s, &words.each_ref().map(String::as_str));
            s.mount();
            assert_eq!(names(s.at("dir")), ["f"], "{driver} {options}");
            assert_eq!(get(s.at("again/f")), b"inside");
            fails_io(fs::write(s.at("again/x"), ""), Errno::ROFS);
            assert_eq!(get(s.at("file")), b"inside");
            append(s.at("linked"), b"+");
            assert_eq!(get(s.at("dir/f")), b"inside+");
            assert_eq!(names(s.at("dir/..")), ["again", "dir", "file", "linked", "whole"]);
            let shown = status(s);
            assert!(shown.contains(&format!("volume {driver} (subpath a/b) at /dir")), "{shown}");
            let rm = lamina(s, &["volume", "rm", driver]);
            assert!(!rm.status.success(), "a part in use keeps the volume");
            put(s.at("dir/f"), "inside");
            s.unmount();
            fs::remove_dir_all(s.upper("")).unwrap();
            fs::create_dir(s.upper("")).unwrap();
        }
    }
    // A volume of the driver union is unmounted after its last user.
    eventually("the removal", || lamina(s, &["volume", "rm", "--purge", "union"]).status.success());
}

fn two_mounts_of_one_part_share_it(s: &mut Site) {
    let data = volume(s);
    dir(data.join("d"));
    put(data.join("d/log"), "");
    let other = s.root().join("other");
    dir(&other);
    show(s, &["v:/x:subpath=d"]);
    s.mount();
    let (root, lower) = (text(s.root().join("data")), text(s.lower("")));
    let words = ["mount", "--root", &root, "--lower", &lower, "--volume", "v:/y:subpath=d"];
    let places = [text(s.root().join("upper2")), text(s.root().join("work2"))];
    places.iter().for_each(dir);
    let mut command = Command::new(program());
    command.args(words).args(["--upper", &places[0], "--work", &places[1]]).arg(&other);
    assert!(command.status().unwrap().success());
    std::thread::scope(|scope| {
        for place in [s.at("x"), other.join("y")] {
            scope.spawn(move || {
                for round in 0..200 {
                    append(place.join("log"), b"line\n");
                    // One of the two makes the directory, and both see it.
                    let both = place.join(format!("d{round}"));
                    let made = fs::create_dir(&both);
                    assert!(made.is_ok() || both.is_dir(), "{made:?}");
                }
            });
        }
    });
    assert_eq!(get(s.at("x/log")).len(), 400 * 5, "no line is lost");
    assert_eq!(names(s.at("x")), names(data.join("d")));
    assert_eq!(names(other.join("y")).len(), 201);
    s.unmount();
    let rm = lamina(s, &["volume", "rm", "v"]);
    assert!(!rm.status.success(), "the other mount still uses it");
    assert!(Command::new(program()).arg("umount").arg(&other).status().unwrap().success());
    // The process of the first mount was not waited for.
    until(|| lamina(s, &["volume", "rm", "v"]).status.success());
}

fn a_part_that_is_no_directory_or_file_inside_is_refused_by_name(s: &mut Site) {
    let said = refused(s, "v:/x:subpath=a");
    assert!(said.contains("volume \"v\" does not exist"), "{said}");
    assert!(said.contains("lamina volume create v"), "{said}");
    assert!(!exists(s.root().join("data/volumes/v")), "none is made");
    let data = volume(s);
    let outside = s.root().join("outside");
    dir(outside.join("d"));
    put(outside.join("f"), "outside");
    symlink(&outside, data.join("absolute")).unwrap();
    symlink("../../../../outside", data.join("up")).unwrap();
    symlink("loop", data.join("loop")).unwrap();
    symlink("/proc/self/root", data.join("magic")).unwrap();
    put(data.join("f"), "file");
    mknod(data.join("fifo"), FileType::Fifo, 0, 0).unwrap();
    mknod(data.join("device"), FileType::CharacterDevice, 1, 3).unwrap();
    for (subpath, reason) in [
        ("missing", "does not exist"),
        ("f/below", "cannot be opened"),
        ("absolute", "leads out of the volume"),
        ("absolute/d", "leads out of the volume"),
        ("absolute/f", "leads out of the volume"),
        ("up", "leads out of the volume"),
        ("up/f", "leads out of the volume"),
        ("magic", "leads out of the volume"),
        ("loop", "cannot be opened"),
        ("fifo", "is neither a directory nor a file"),
        ("device", "is neither a directory nor a file"),
    ] {
        let said = refused(s, &format!("v:/new/x:subpath={subpath}"));
        let wanted = format!("subpath \"{subpath}\" of volume \"v\" {reason}");
        assert!(said.contains(&wanted), "{subpath}: {said}");
        assert!(said.lines().count() >= 2, "the next step: {said}");
    }
    assert_eq!(names(s.upper("")), Vec::<String>::new(), "no place is left");
    assert_eq!(get(outside.join("f")), b"outside");
    done(s, &["volume", "rm", "v"]);
}

fn a_part_stays_the_object_that_it_was(s: &mut Site) {
    for options in ["graft=bind", "graft=served"] {
        s.options = options.to_owned();
        let data = volume(s);
        let outside = s.root().join("outside");
        dir(&outside);
        put(outside.join("f"), "outside");
        dir(data.join("d"));
        put(data.join("d/f"), "inside");
        show(s, &["v:/dir:subpath=d", "v:/file:subpath=d/f"]);
        s.mount();
        rename(data.join("d"), data.join("moved")).unwrap();
        symlink(&outside, data.join("d")).unwrap();
        rename(data.join("moved/f"), data.join("moved/g")).unwrap();
        symlink(outside.join("f"), data.join("moved/f")).unwrap();
        drop_caches();
        put(s.at("dir/new"), "new");
        assert_eq!(get(data.join("moved/new")), b"new", "{options}");
        assert_eq!(get(s.at("file")), b"inside", "{options}: the file under another name");
        put(s.at("file"), "changed");
        assert_eq!(get(data.join("moved/g")), b"changed", "{options}");
        fs::remove_file(data.join("moved/g")).unwrap();
        put(data.join("moved/g"), "another file");
        drop_caches();
        assert_eq!(get(s.at("file")), b"changed", "{options}: it has no name any more");
        assert_eq!(get(outside.join("f")), b"outside");
        assert_eq!(names(&outside), ["f"]);
        s.unmount();
        fs::remove_dir_all(s.upper("")).unwrap();
        fs::create_dir(s.upper("")).unwrap();
        done(s, &["volume", "rm", "--purge", "v"]);
    }
}

fn an_empty_directory_is_filled_unless_the_volume_is_in_use(s: &mut Site) {
    dir(s.lower("image/sub"));
    put(s.lower("image/sub/f"), "from the image");
    chown(s.lower("image"), USER, OTHER);
    let data = volume(s);
    for part in ["one", "two", "three", "full"] {
        dir(data.join(part));
    }
    put(data.join("full/mine"), "");
    show(s, &["v:/image:subpath=one"]);
    s.mount();
    assert_eq!(get(s.at("image/sub/f")), b"from the image");
    assert_eq!(stat(data.join("one")).st_uid, USER);
    assert_eq!(names(data.join("one")), ["sub"]);
    s.unmount();
    show(s, &["v:/image:subpath=two,nocopy"]);
    s.mount();
    assert_eq!(names(s.at("image")), Vec::<String>::new());
    s.unmount();
    show(s, &["v:/image:subpath=full"]);
    s.mount();
    assert_eq!(names(s.at("image")), ["mine"]);
    s.unmount();
    show(s, &["v:/a", "v:/image:subpath=three"]);
    s.mount();
    assert_eq!(names(s.at("image")), Vec::<String>::new(), "the volume has a user");
}

fn a_container_keeps_its_part(s: &mut Site) {
    put(s.lower("f"), "");
    let lower = text(s.lower(""));
    done(s, &["image", "import", "-t", "app", &lower]);
    let data = volume(s);
    dir(data.join("d"));
    put(data.join("d/f"), "part");
    put(data.join("g"), "whole");
    let words = ["--mount", "type=volume,source=v,target=/x,volume-subpath=d,readonly"];
    done(s, &["container", "create", "--name", "web", words[0], words[1], "app"]);
    let shown = done(s, &["container", "inspect", "web"]);
    assert!(shown.contains("\"volume v (subpath d) at /x\""), "{shown}");
    for _ in 0..2 {
        let at = done(s, &["container", "start", "web"]);
        let at = Path::new(at.trim());
        assert_eq!(names(at.join("x")), ["f"]);
        assert_eq!(get(at.join("x/f")), b"part");
        fails_io(fs::write(at.join("x/f"), ""), Errno::ROFS);
        done(s, &["container", "stop", "web"]);
    }
    let rm = lamina(s, &["volume", "rm", "v"]);
    assert!(String::from_utf8_lossy(&rm.stderr).contains("web"), "{rm:?}");
    fs::remove_dir_all(data.join("d")).unwrap();
    let start = lamina(s, &["container", "start", "web"]);
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(said.contains("subpath \"d\" of volume \"v\" does not exist"), "{said}");
    done(s, &["container", "rm", "web"]);
    done(s, &["volume", "rm", "v"]);
}
