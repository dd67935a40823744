//! Snapshots, clones and rollbacks of volumes with a file system of their own, also in use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use laminafs::service::volumes::{NewVolume, VolumeService};
use laminafs::types::VolumeName;

use crate::harness::Site;
use crate::tools::*;

judged!(host:
    a_snapshot_keeps_the_content_of_one_moment,
    a_clone_and_its_source_go_their_own_ways,
    a_rollback_needs_a_volume_without_users,
    a_volume_in_use_by_the_driver_of_directories_has_no_snapshots,
    a_full_host_leaves_no_snapshot,
);

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn service(s: &Site) -> VolumeService {
    VolumeService::open(&s.root().join("store")).unwrap()
}

fn create(service: &VolumeService, kind: &str, size: &str) {
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let options = BTreeMap::from([own(("fs", kind)), own(("size", size))]);
    let new =
        NewVolume { driver: Some("image".to_owned()), options, ..NewVolume::new(name("data")) };
    service.create(new).unwrap();
}

fn kept(path: &Path) -> String {
    fs::read_to_string(path.join("f")).unwrap()
}

fn a_snapshot_keeps_the_content_of_one_moment(s: &mut Site) {
    for (kind, size) in [("ext4", "64M"), ("xfs", "300M")] {
        let volumes = service(s);
        create(&volumes, kind, size);
        let data = volumes.publish(&name("data"), "user").unwrap();
        put(data.join("f"), "first");
        // Two files that a writer always changes together, in this order.
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0_u64.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    put(data.join("a"), number.to_string());
                    put(data.join("b"), number.to_string());
                }
            });
            for round in 0..5 {
                volumes.snapshot(&name("data"), Some(name(&format!("s{round}")))).unwrap();
            }
            ends.store(true, Ordering::Relaxed);
        });
        put(data.join("f"), "second");
        assert_eq!(volumes.snapshots(Some(&name("data"))).unwrap().len(), 5);
        let mut before = 0;
        for round in 0..5 {
            let clone = name(&format!("clone-{round}"));
            volumes.clone_volume(&format!("data@s{round}"), clone.clone()).unwrap();
            let shown = volumes.publish(&clone, "reader").unwrap();
            assert_eq!(kept(&shown), "first");
            let number = |file: &str| {
                let text = fs::read_to_string(shown.join(file)).unwrap_or_default();
                text.parse::<u64>().unwrap_or(0)
            };
            let (a, b) = (number("a"), number("b"));
            // The writer may be amid a file, which is empty then.
            assert!(a == 0 || a >= before, "{a} after {before}");
            assert!(a == 0 || b == 0 || a == b || a == b + 1, "{a} {b}");
            before = a.max(before);
            volumes.unpublish(&clone, "reader").unwrap();
            volumes.erase(&clone).unwrap();
            volumes.remove_snapshot(&format!("data@s{round}")).unwrap();
        }
        volumes.unpublish(&name("data"), "user").unwrap();
        volumes.erase(&name("data")).unwrap();
        assert!(volumes.snapshots(None).unwrap().is_empty());
    }
}

fn a_clone_and_its_source_go_their_own_ways(s: &mut Site) {
    let volumes = service(s);
    create(&volumes, "ext4", "64M");
    let data = volumes.publish(&name("data"), "user").unwrap();
    put(data.join("f"), "both");
    let clone = volumes.clone_volume("data", name("copy")).unwrap();
    assert_eq!((clone.size_bytes, clone.origin.as_str()), (Some(64 << 20), ""));
    let copy = volumes.publish(&name("copy"), "user").unwrap();
    assert_eq!(kept(&copy), "both");
    put(copy.join("f"), "copy");
    put(data.join("f"), "data");
    assert_eq!((kept(&copy).as_str(), kept(&data).as_str()), ("copy", "data"));
    let taken = volumes.clone_volume("data", name("copy"));
    assert!(taken.unwrap_err().to_string().contains("already exists"));
    // A snapshot stays when its volume goes, and is found by its id.
    let snapshot = volumes.snapshot(&name("data"), None).unwrap();
    volumes.unpublish(&name("data"), "user").unwrap();
    volumes.erase(&name("data")).unwrap();
    volumes.clone_volume(&snapshot.id, name("again")).unwrap();
    assert_eq!(kept(&volumes.publish(&name("again"), "user").unwrap()), "data");
    volumes.remove_snapshot(&snapshot.id).unwrap();
    for one in ["copy", "again"] {
        volumes.unpublish(&name(one), "user").unwrap();
        volumes.erase(&name(one)).unwrap();
    }
}

fn a_rollback_needs_a_volume_without_users(s: &mut Site) {
    let volumes = service(s);
    create(&volumes, "ext4", "64M");
    let data = volumes.publish(&name("data"), "user").unwrap();
    put(data.join("f"), "first");
    volumes.snapshot(&name("data"), Some(name("s"))).unwrap();
    put(data.join("f"), "second");
    let refused = volumes.roll_back(&name("data"), &name("s")).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    assert_eq!(kept(&data), "second");
    volumes.unpublish(&name("data"), "user").unwrap();
    let missing = volumes.roll_back(&name("data"), &name("none")).unwrap_err();
    assert!(missing.is_missing(), "{missing}");
    volumes.roll_back(&name("data"), &name("s")).unwrap();
    let data = volumes.publish(&name("data"), "user").unwrap();
    assert_eq!(kept(&data), "first");
    put(data.join("f"), "third");
    volumes.unpublish(&name("data"), "user").unwrap();
    // The snapshot is as it was.
    volumes.roll_back(&name("data"), &name("s")).unwrap();
    let data = volumes.publish(&name("data"), "user").unwrap();
    assert_eq!(kept(&data), "first");
    volumes.unpublish(&name("data"), "user").unwrap();
}

fn a_volume_in_use_by_the_driver_of_directories_has_no_snapshots(s: &mut Site) {
    let volumes = service(s);
    volumes.create(NewVolume::new(name("plain"))).unwrap();
    let refused = volumes.snapshot(&name("plain"), Some(name("s"))).unwrap_err().to_string();
    assert!(refused.contains("use --driver union"), "{refused}");
    assert!(volumes.snapshots(None).unwrap().is_empty());
    assert_eq!(names(s.root().join("store/volumes")), [".locks", "plain"]);
}

fn a_full_host_leaves_no_snapshot(s: &mut Site) {
    // A host of 96 MiB: the volume and its content fit, a copy of it does not.
    let store = s.root().join("store");
    dir(&store);
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"])
        .arg(&store)
        .status();
    assert!(mounted.unwrap().success());
    let volumes = service(s);
    create(&volumes, "ext4", "80M");
    let data = volumes.publish(&name("data"), "user").unwrap();
    put(data.join("f"), vec![7; 60 << 20]);
    let refused = volumes.snapshot(&name("data"), None).unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(volumes.snapshots(None).unwrap().is_empty());
    put(data.join("g"), "still writable");
    volumes.unpublish(&name("data"), "user").unwrap();
    volumes.erase(&name("data")).unwrap();
    assert_eq!(names(store.join("volumes")), [".locks"]);
    drop(volumes);
    rustix::mount::unmount(&store, rustix::mount::UnmountFlags::DETACH).unwrap();
}
