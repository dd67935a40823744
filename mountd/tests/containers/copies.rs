//! Copies between a container and the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::place::{Place, text};

fn cp(place: &Place, from: &str, to: &str) -> i32 {
    let output = place.output(&["container", "cp", from, to]);
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code().unwrap()
}

/// A container that runs, and one that does not.
fn both(place: &Place) -> [&'static str; 2] {
    place.good(&[
        "container",
        "run",
        "-d",
        "--name",
        "on",
        "-v",
        "d:/v",
        "busybox:1",
        "sleep",
        "1000",
    ]);
    place.good(&["container", "run", "--name", "off", "busybox:1", "true"]);
    ["on", "off"]
}

#[test]
fn trees_keep_modes_owners_and_links() {
    let Some(place) = Place::new() else { return };
    let tree = place.at("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/f"), "content").unwrap();
    fs::set_permissions(tree.join("sub/f"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(tree.join("sub/f"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(tree.join("sub/f"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(tree.join("sub/f"), tree.join("g")).unwrap();
    symlink("sub/f", tree.join("l")).unwrap();
    for name in both(&place) {
        assert_eq!(cp(&place, &place.path("tree"), &format!("{name}:/new")), 0);
        assert_eq!(cp(&place, &place.path("tree"), &format!("{name}:/etc")), 0);
        let out = place.path(&format!("out-{name}"));
        assert_eq!(cp(&place, &format!("{name}:/new"), &out), 0);
        let at = |name: &str| std::path::Path::new(&out).join(name);
        let file = fs::metadata(at("sub/f")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4711, 1000, 1001));
        assert_eq!(file.ino(), fs::metadata(at("g")).unwrap().ino());
        assert_eq!(fs::read_link(at("l")).unwrap().to_str(), Some("sub/f"));
        // Into a directory that is there, and its content alone.
        assert_eq!(cp(&place, &format!("{name}:/etc/tree/."), &place.path("tree/sub")), 0);
        assert!(tree.join("sub/sub/f").exists());
        fs::remove_dir_all(tree.join("sub/sub")).unwrap();
        for more in ["sub/g", "sub/l"] {
            fs::remove_file(tree.join(more)).unwrap();
        }
        // One file, to a new name, into a directory, over another one.
        assert_eq!(cp(&place, &place.path("tree/sub/f"), &format!("{name}:/one")), 0);
        assert_eq!(cp(&place, &place.path("tree/sub/f"), &format!("{name}:/tmp/")), 0);
        assert_eq!(cp(&place, &format!("{name}:/tmp/f"), &format!("{out}/g")), 0);
        assert_eq!(fs::read_to_string(at("g")).unwrap(), "content");
        assert_ne!(cp(&place, &format!("{name}:/none"), &out), 0);
        assert_ne!(cp(&place, &place.path("tree"), &format!("{name}:/one")), 0);
    }
    let mounts = place.mounts();
    assert_eq!(cp(&place, "off:/one", &place.path("one")), 0);
    assert_eq!(place.mounts(), mounts, "a container that was stopped is not mounted afterwards");
    assert_eq!(cp(&place, &place.path("one"), "on:/v/"), 0);
    assert_eq!(place.run(&["-v", "d:/v", "busybox:1", "cat", "/v/one"]).1, "content");
}

#[test]
fn links_in_a_container_do_not_lead_to_the_host() {
    let Some(place) = Place::new() else { return };
    fs::write(place.at("secret"), "secret").unwrap();
    fs::write(place.at("mine"), "mine").unwrap();
    let host = place.path("");
    let script = format!(
        "ln -s {host} /up; ln -s {host}/secret /file; ln -s ../../../../../..{host} /rel; \
         ln -s /proc/1/root /magic; mkdir /d; ln -s {host}/secret /d/s; ln -s /up /d/t; sleep 1000"
    );
    place.good(&["container", "run", "-d", "--name", "c", "busybox:1", "sh", "-c", &script]);
    crate::until::until("the links", || {
        place.output(&["container", "exec", "c", "test", "-L", "/d/t"]).status.success()
    });
    for stopped in [false, true] {
        if stopped {
            place.good(&["container", "stop", "--time", "0", "c"]);
        }
        for from in ["c:/up/secret", "c:/rel/secret", "c:/up/.", "c:/rel/"] {
            assert_ne!(cp(&place, from, &place.path("out")), 0, "{from}");
            assert!(!place.at("out").exists(), "{from}");
        }
        for to in ["c:/up/new", "c:/rel/new", "c:/up/", "c:/magic/new"] {
            assert_ne!(cp(&place, &place.path("mine"), to), 0, "{to}");
            assert!(!place.at("new").exists(), "{to}");
        }
        // A link is replaced, and not written through.
        assert_eq!(cp(&place, &place.path("mine"), "c:/file"), 0);
        assert_eq!(fs::read_to_string(place.at("secret")).unwrap(), "secret");
        // Links are copied as links, and a second copy does not go through them.
        let out = place.path("copied");
        assert_eq!(cp(&place, "c:/d", &out), 0);
        assert!(fs::symlink_metadata(place.at("copied/t")).unwrap().is_symlink());
        if !stopped {
            let script = "rm /d/t; mkdir /d/t; echo x > /d/t/planted";
            let done = place.output(&["container", "exec", "c", "sh", "-c", script]);
            assert!(done.status.success(), "{done:?}");
            assert_ne!(cp(&place, "c:/d/.", &out), 0);
            assert!(!place.at("planted").exists());
            let done =
                place.output(&["container", "exec", "c", "sh", "-c", "rm -r /d/t; ln -s /up /d/t"]);
            assert!(done.status.success(), "{done:?}");
        }
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_directory_goes_through_a_pipe_as_a_tar() {
    let Some(place) = Place::new() else { return };
    for name in both(&place) {
        let tar = place.output(&["container", "cp", &format!("{name}:/etc"), "-"]);
        assert!(tar.status.success(), "{tar:?}");
        let done = place.fed(&["container", "cp", "-", &format!("{name}:/tmp")], &tar.stdout);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(cp(&place, &format!("{name}:/tmp/passwd"), &place.path(name)), 0);
        assert!(fs::read_to_string(place.at(name)).unwrap().contains("bob"));
    }
    assert!(text(&place.output(&["container", "ls"]).stdout).contains("running"));
}
