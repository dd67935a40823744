//! Snapshots and new limits of containers that are mounted and written to.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::calls::Map;
use crate::container_snapshots::{Host, prepared};
use crate::harness::Site;
use crate::tools::*;
use crate::volume_group::{count_on, number};
use crate::volume_plugin::until;
use crate::volume_union::server;

judged!(host:
    a_running_container_and_its_volumes_are_taken_at_one_moment,
    what_is_open_in_a_container_goes_on_over_a_snapshot,
    a_bind_in_a_container_is_no_part_of_a_snapshot,
    the_size_of_a_running_container_changes,
    a_container_survives_the_death_of_its_process_after_a_snapshot,
    a_listing_that_is_open_over_a_snapshot_is_no_listing_for_others,
    two_containers_share_a_volume_and_the_name_of_a_snapshot,
    a_relative_mount_point_is_found_by_a_snapshot,
    an_index_that_a_crash_left_is_that_of_no_upper,
);

fn start(host: &Host<'_>, name: &str) -> PathBuf {
    PathBuf::from(host.run(&["container", "start", name]).trim_end())
}

/// Removes all containers, volumes and snapshots of this test, after which no layer stays.
fn end(host: &Host<'_>, containers: &[&str]) {
    let listed = host.run(&["container", "snapshot", "ls"]);
    let snapshots = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    for snapshot in snapshots {
        host.run(&["container", "snapshot", "rm", snapshot]);
    }
    for container in containers {
        host.run(&["container", "rm", container]);
    }
    let listed = host.run(&["volume", "ls", "-q"]);
    for volume in listed.lines() {
        until(|| host.try_run(&["volume", "rm", "--purge", volume]).status.success());
    }
    let pool = fs::read_dir(host.root().join("volumes/.layers")).unwrap();
    assert_eq!(pool.count(), 1, "the lock alone");
}

fn a_running_container_and_its_volumes_are_taken_at_one_moment(s: &mut Site) {
    let host = prepared(s);
    let at = start(&host, "web");
    dir(at.join("root"));
    let (root, data) = (at.join("root"), at.join("data"));
    let (there, back) = ([&*root, &*data], [&*data, &*root]);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| count_on(&there, "there", &ends));
        scope.spawn(|| count_on(&back, "back", &ends));
        until(|| number(&data.join("there")) > 0 && number(&root.join("back")) > 0);
        for round in 0..10 {
            host.run(&["container", "snapshot", "create", "web", &format!("s{round}")]);
        }
        host.run(&["container", "fork", "web", "now"]);
        ends.store(true, Ordering::Relaxed);
    });
    let mut last = 0;
    let mut check = |at: &Path| {
        let count = |dir: &str, file: &str| number(&at.join(dir).join(file));
        for (first, second) in [
            (count("root", "there"), count("data", "there")),
            (count("data", "back"), count("root", "back")),
        ] {
            assert!(second > 0 && first >= second && first <= second + 1, "{first} {second}");
        }
        assert!(count("root", "there") >= last);
        last = count("root", "there");
    };
    for round in 0..10 {
        let (fork, from) = (format!("f{round}"), format!("s{round}"));
        host.run(&["container", "fork", "web", &fork, "--from", &from]);
        host.within(&fork, &mut check);
        host.run(&["container", "rm", &fork]);
    }
    host.within("now", &mut check);
    host.run(&["container", "stop", "web"]);
    host.within("web", &mut check);
    host.run(&["container", "rollback", "web", "s0"]);
    host.within("web", |at| assert!(number(&at.join("root/there")) < last));
    end(&host, &["web", "now"]);
}

fn what_is_open_in_a_container_goes_on_over_a_snapshot(s: &mut Site) {
    let host = prepared(s);
    let at = start(&host, "web");
    let kept = File::create_new(at.join("kept")).unwrap();
    let unnamed = File::options().read(true).write(true).create_new(true).open(at.join("removed"));
    let removed = unnamed.unwrap();
    removed.write_all_at(b"still there", 0).unwrap();
    fs::remove_file(at.join("removed")).unwrap();
    put(at.join("mapped"), [0; 8192]);
    let mapped = File::options().read(true).write(true).open(at.join("mapped")).unwrap();
    let mapping = Map::new(mapped.as_fd(), 8192, true, true).unwrap();
    // One of two names of a lower file is copied up, with the other one in the index.
    let linked = File::options().write(true).open(at.join("d/linked")).unwrap();
    let inode = stat(at.join("linked")).st_ino;
    for round in 0..5_u8 {
        kept.write_all_at(&[round; 100], 0).unwrap();
        linked.write_all_at(&[b'0' + round; 5], 0).unwrap();
        mapping.write(5000, &[round + 1]);
        host.run(&["container", "snapshot", "create", "web", &format!("s{round}")]);
    }
    kept.write_all_at(b"later", 0).unwrap();
    linked.write_all_at(b"later", 0).unwrap();
    assert_eq!((get(at.join("linked")), stat(at.join("linked")).st_ino), (b"later".into(), inode));
    assert_eq!(stat(at.join("linked")).st_nlink, 2);
    let mut text = [0; 11];
    removed.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"still there");
    drop((kept, removed, linked, mapping, mapped));
    for round in 0..5_u8 {
        let (fork, from) = (format!("f{round}"), format!("s{round}"));
        host.run(&["container", "fork", "web", &fork, "--from", &from]);
        host.within(&fork, |at| {
            assert_eq!(get(at.join("kept")), [round; 100]);
            assert_eq!(get(at.join("d/linked")), [b'0' + round; 5]);
            assert_eq!(get(at.join("linked")), [b'0' + round; 5]);
            assert_eq!(get(at.join("mapped"))[5000], round + 1);
            assert!(!exists(at.join("removed")));
        });
        host.run(&["container", "rm", &fork]);
    }
    host.run(&["container", "stop", "web"]);
    host.within("web", |at| {
        assert_eq!(&get(at.join("kept"))[..6], b"later\x04");
        assert_eq!(stat(at.join("linked")).st_ino, inode);
    });
    end(&host, &["web"]);
}

fn a_bind_in_a_container_is_no_part_of_a_snapshot(s: &mut Site) {
    let host = prepared(s);
    let (outside, bind) = (s.root().join("outside"), s.root().join("outside:/bound"));
    dir(&outside);
    put(outside.join("f"), "host");
    dir(outside.join("deep"));
    let bind = bind.to_str().unwrap();
    host.run(&["container", "create", "--name", "db", "--bind", bind, "base"]);
    // Served by the daemon, not by the kernel.
    let at = host.run(&["container", "start", "-o", "graft=served", "db"]);
    let at = Path::new(at.trim_end());
    let open = File::options().write(true).open(at.join("bound/f")).unwrap();
    put(at.join("bound/deep/g"), "g");
    put(at.join("own"), "own");
    let before = (stat(at.join("bound")).st_ino, stat(at.join("bound/deep")).st_ino);
    for name in ["s1", "s2"] {
        host.run(&["container", "snapshot", "create", "db", name]);
        open.write_all_at(name.as_bytes(), 0).unwrap();
        assert_eq!(&get(outside.join("f"))[..2], name.as_bytes());
        put(at.join("bound/deep").join(name), name);
        assert_eq!(get(outside.join("deep").join(name)), name.as_bytes());
        put(at.join("own"), name);
    }
    assert_eq!((stat(at.join("bound")).st_ino, stat(at.join("bound/deep")).st_ino), before);
    drop(open);
    // One mapping for the container and the host.
    let map = |path: PathBuf| {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Map::new(file.as_fd(), 4, true, true).unwrap()
    };
    let (inside, host_side) = (map(at.join("bound/f")), map(outside.join("f")));
    inside.write(0, b"in");
    assert_eq!(host_side.read(0, 2), b"in");
    host_side.write(0, b"ho");
    assert_eq!(inside.read(0, 2), b"ho");
    drop((inside, host_side));
    host.run(&["container", "stop", "db"]);
    host.run(&["container", "rollback", "db", "s2"]);
    host.within("db", |at| {
        assert_eq!(get(at.join("own")), b"s1");
        assert_eq!(names(at.join("bound/deep")), ["g", "s1", "s2"]);
    });
    end(&host, &["web", "db"]);
}

fn the_size_of_a_running_container_changes(s: &mut Site) {
    let host = prepared(s);
    host.run(&["container", "create", "--name", "small", "--size", "1MiB", "base"]);
    let at = start(&host, "small");
    let fill = |file: &str| {
        let file = File::create(at.join(file)).unwrap();
        (0..).take_while(|round| file.write_all_at(&[1; 4096], round * 4096).is_ok()).count()
    };
    assert_eq!(fill("a"), 256);
    host.run(&["container", "snapshot", "create", "small", "s"]);
    let full = fs::write(at.join("b"), [1; 4096]).unwrap_err();
    assert_eq!(Errno::from_io_error(&full), Some(Errno::NOSPC), "the layer counts");
    assert_eq!(host.run(&["container", "resize", "small", "--size", "2MiB"]), "small: 2M\n");
    assert_eq!(fill("b"), 256);
    let said = host.refused(&["container", "resize", "small", "--size", "1MiB"]);
    assert!(said.contains("in use"), "{said}");
    std::thread::scope(|scope| {
        // Two clients change one limit each.
        scope.spawn(|| host.run(&["container", "resize", "small", "--size", "3MiB"]));
        scope.spawn(|| host.run(&["container", "resize", "small", "--inodes", "500"]));
    });
    let shown = rustix::fs::statvfs(&at).unwrap();
    assert_eq!((shown.f_blocks, shown.f_files), (768, 500));
    host.run(&["container", "stop", "small"]);
    host.within("small", |at| {
        let shown = rustix::fs::statvfs(at).unwrap();
        assert_eq!((shown.f_blocks, shown.f_bfree, shown.f_files), (768, 256, 500));
    });
    // One that had no size gets one, and keeps it.
    let at = start(&host, "web");
    put(at.join("before"), pattern(100 * 4096));
    let said = host.refused(&["container", "resize", "web", "--size", "256KiB"]);
    assert!(said.contains("in use"), "{said}");
    host.run(&["container", "resize", "web", "--size", "2MiB"]);
    let shown = rustix::fs::statvfs(&at).unwrap();
    assert_eq!((shown.f_blocks, shown.f_bfree), (512, 412));
    let full = fs::write(at.join("b"), pattern(413 * 4096)).unwrap_err();
    assert_eq!(Errno::from_io_error(&full), Some(Errno::NOSPC));
    host.run(&["container", "stop", "web"]);
    host.within("web", |at| {
        let shown = rustix::fs::statvfs(at).unwrap();
        assert_eq!((shown.f_blocks, shown.f_bfree), (512, 0));
    });
    end(&host, &["web", "small"]);
}

fn a_container_survives_the_death_of_its_process_after_a_snapshot(s: &mut Site) {
    let host = prepared(s);
    let at = start(&host, "web");
    put(at.join("f"), "first");
    put(at.join("d/linked"), "first");
    host.run(&["container", "snapshot", "create", "web", "s"]);
    put(at.join("f"), "second");
    put(at.join("g"), "second");
    File::open(at.join("g")).unwrap().sync_all().unwrap();
    let process = rustix::process::Pid::from_raw(server(&at).cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until(|| fs::write(at.join("late"), "").is_err());
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    // The socket that the process left is nobody's.
    host.run(&["container", "snapshot", "create", "web", "after"]);
    host.within("web", |at| {
        assert_eq!((get(at.join("f")), get(at.join("g"))), (b"second".into(), b"second".into()));
        assert_eq!(get(at.join("linked")), b"first");
    });
    host.run(&["container", "rollback", "web", "s"]);
    host.within("web", |at| {
        assert_eq!(get(at.join("f")), b"first");
        assert!(!exists(at.join("g")));
    });
    end(&host, &["web"]);
}

fn a_listing_that_is_open_over_a_snapshot_is_no_listing_for_others(s: &mut Site) {
    let host = prepared(s);
    let at = start(&host, "web");
    dir(at.join("many"));
    (0..500).for_each(|number| put(at.join(format!("many/{number}")), ""));
    let mut open = fs::read_dir(at.join("many")).unwrap();
    let mut seen: Vec<_> = open.by_ref().take(100).map(|one| one.unwrap().file_name()).collect();
    host.run(&["container", "snapshot", "create", "web", "s"]);
    seen.extend(open.map(|one| one.unwrap().file_name()));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 500, "none is lost");
    for _ in 0..2 {
        assert_eq!(fs::read_dir(at.join("many")).unwrap().count(), 500);
    }
    host.run(&["container", "stop", "web"]);
    end(&host, &["web"]);
}

fn two_containers_share_a_volume_and_the_name_of_a_snapshot(s: &mut Site) {
    let host = prepared(s);
    host.run(&["container", "create", "--name", "other", "--volume", "data:/data", "base"]);
    // Served by the daemons, so that a request of one holds two gates.
    let start = |name: &str| {
        let at = host.run(&["container", "start", "-o", "graft=served", name]);
        PathBuf::from(at.trim_end())
    };
    let (web, other) = (start("web"), start("other"));
    put(web.join("data/f"), "shared");
    let ends = AtomicBool::new(false);
    let (data, first, second) = (web.join("data"), web.join("first"), other.join("second"));
    dir(&first);
    dir(&second);
    std::thread::scope(|scope| {
        scope.spawn(|| count_on(&[&data, &first], "a", &ends));
        scope.spawn(|| count_on(&[&data, &second], "b", &ends));
        scope.spawn(|| {
            for round in 0..5 {
                let name = format!("s{round}");
                host.run(&["container", "snapshot", "create", "other", &name]);
            }
        });
        for round in 0..5 {
            host.run(&["container", "snapshot", "create", "web", &format!("s{round}")]);
        }
        until(|| host.run(&["container", "snapshot", "ls"]).lines().count() == 11);
        ends.store(true, Ordering::Relaxed);
    });
    host.run(&["container", "stop", "web"]);
    host.run(&["container", "stop", "other"]);
    for container in ["web", "other"] {
        host.run(&["container", "rollback", container, "s4"]);
        host.within(container, |at| assert_eq!(get(at.join("data/f")), b"shared"));
    }
    end(&host, &["web", "other"]);
}

fn a_relative_mount_point_is_found_by_a_snapshot(s: &mut Site) {
    let host = prepared(s);
    dir(s.root().join("place"));
    symlink(s.root().join("place"), s.root().join("link")).unwrap();
    for place in ["place", "link"] {
        let mut command = host.command(&["container", "start", "web", place]);
        assert!(command.current_dir(s.root()).status().unwrap().success());
        put(s.root().join("place/f"), place);
        host.run(&["container", "snapshot", "create", "web", place]);
        host.run(&["container", "stop", "web"]);
    }
    end(&host, &["web"]);
}

fn an_index_that_a_crash_left_is_that_of_no_upper(s: &mut Site) {
    let host = prepared(s);
    host.within("web", |at| put(at.join("d/linked"), "changed"));
    let work = host.directory("web").join("work");
    let inode = stat(host.directory("web").join("upper")).st_ino;
    assert_eq!(names(work.join("index")).len(), 1);
    fs::write(work.join("owner"), inode.to_string()).unwrap();
    host.within("web", |at| assert_eq!(get(at.join("linked")), b"changed"));
    assert_eq!(names(work.join("index")).len(), 1, "its own");
    // The upper became a layer, and the process was killed before its index was gone.
    host.run(&["container", "snapshot", "create", "web", "s"]);
    fs::write(work.join("owner"), inode.to_string()).unwrap();
    dir(work.join("index"));
    put(work.join("index/left"), "left");
    host.within("web", |at| assert_eq!(get(at.join("linked")), b"changed"));
    assert!(!exists(work.join("index/left")) && !exists(work.join("owner")));
    end(&host, &["web"]);
}
