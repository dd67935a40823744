//! Limits on the speed of a volume hold, and change while it is in use.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, VolumeService, serve_by};
use laminafs::types::VolumeName;

use crate::harness::{Site, program};
use crate::tools::*;
use crate::volume_plugin::until;

judged!(host:
    a_limit_holds_for_its_direction,
    a_limit_changes_under_a_writer,
    a_directory_with_a_size_has_limits_too,
    a_limit_that_a_driver_cannot_hold_is_refused,
);

const MIB: u64 = 1 << 20;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn volume(s: &Site, options: &[(&str, &str)]) -> (VolumeService, PathBuf) {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let (driver, options) = (Some("union".to_owned()), options.collect());
    volumes.create(NewVolume { driver, options, ..NewVolume::new(name("v")) }).unwrap();
    let data = volumes.publish(&name("v"), "test").unwrap();
    (volumes, data)
}

fn end(volumes: &VolumeService) {
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.erase(&name("v")).is_ok());
}

fn timed(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64()
}

fn set(volumes: &VolumeService, key: &str, value: Option<&str>) {
    let changes = BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
    volumes.throttle(&name("v"), &changes).unwrap();
}

/// Two writers share a limit; a reader, and a change of names, do not wait for them.
fn a_limit_holds_for_its_direction(s: &mut Site) {
    let (volumes, data) = volume(s, &[("bandwidth", "write=8M"), ("iops", "read=50")]);
    let written = timed(|| {
        std::thread::scope(|scope| {
            for number in 0..2 {
                let file = File::create_new(data.join(format!("f{number}"))).unwrap();
                scope.spawn(move || {
                    for at in 0..8 {
                        file.write_all_at(&vec![1; MIB as usize], at * MIB).unwrap();
                    }
                });
            }
            let names = timed(|| {
                for number in 0..50 {
                    std::fs::create_dir(data.join(format!("d{number}"))).unwrap();
                }
            });
            assert!(names < 1.0, "{names} s for names");
        });
    });
    // 16 MiB, of which one request and the burst are free.
    assert!((1.7..4.0).contains(&written), "{written} s");
    let read = timed(|| {
        let file = File::open(data.join("f0")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        drop_caches();
        for at in 0..30 {
            file.read_exact_at(&mut [0; 4096], at * 128 * 1024).unwrap();
        }
    });
    assert!((0.5..3.0).contains(&read), "{read} s");
    // A copy within the volume is no way around it.
    let copied = timed(|| {
        std::fs::copy(data.join("f0"), data.join("copy")).unwrap();
    });
    assert!(copied > 0.8, "{copied} s");
    assert_eq!(get(data.join("copy")), vec![1; 8 * MIB as usize]);
    end(&volumes);
}

fn a_limit_changes_under_a_writer(s: &mut Site) {
    let (volumes, data) = volume(s, &[]);
    let file = File::create_new(data.join("f")).unwrap();
    let write = |mib: u64| {
        timed(|| {
            (0..mib).for_each(|at| file.write_all_at(&vec![2; MIB as usize], at * MIB).unwrap())
        })
    };
    set(&volumes, "bandwidth", Some("1M"));
    let (written, waited) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(600));
        std::thread::sleep(Duration::from_millis(1500));
        // Ten minutes are left of it.
        let waited = timed(|| set(&volumes, "bandwidth", None));
        (writer.join().unwrap(), waited)
    });
    assert!((1.4..60.0).contains(&written), "{written} s");
    assert!(waited < 5.0, "{waited} s");
    assert!(volumes.inspect(&name("v")).unwrap().options.is_empty());
    // The next process has it too, and does not need the end of a wait to end.
    set(&volumes, "iops", Some("write=1"));
    drop(file);
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.settle().is_ok() && names(&data).is_empty());
    volumes.publish(&name("v"), "test").unwrap();
    let file = File::create_new(data.join("g")).unwrap();
    let written = timed(|| (0..3).for_each(|at| file.write_all_at(&[1], at).unwrap()));
    assert!((1.8..6.0).contains(&written), "{written} s");
    drop(file);
    end(&volumes);
}

fn a_directory_with_a_size_has_limits_too(s: &mut Site) {
    serve_by(program().to_owned());
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let options = [("size", "64M"), ("bandwidth", "write=4M")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let driver = Some("local".to_owned());
    volumes.create(NewVolume { driver, options, ..NewVolume::new(name("v")) }).unwrap();
    let data = volumes.publish(&name("v"), "test").unwrap();
    let file = File::create_new(data.join("f")).unwrap();
    let write = || timed(|| file.write_all_at(&vec![3; 8 * MIB as usize], 0).unwrap());
    let written = write();
    assert!((0.7..6.0).contains(&written), "{written} s");
    set(&volumes, "bandwidth", None);
    let written = write();
    assert!(written < 0.7, "{written} s");
    let wrong = BTreeMap::from([("iops".to_owned(), Some("some".to_owned()))]);
    let refused = volumes.throttle(&name("v"), &wrong).unwrap_err().to_string();
    assert!(refused.contains("iops=some"), "{refused}");
    assert_eq!(volumes.inspect(&name("v")).unwrap().options, BTreeMap::new());
    drop(file);
    end(&volumes);
}

fn a_limit_that_a_driver_cannot_hold_is_refused(s: &mut Site) {
    let volumes = VolumeService::open(&s.root().join("store")).unwrap();
    let options = BTreeMap::from([("iops".to_owned(), "5".to_owned())]);
    let create = |driver: &str, options| {
        let driver = Some(driver.to_owned());
        volumes.create(NewVolume { driver, options, ..NewVolume::new(name("v")) })
    };
    let refused = create("local", options.clone()).unwrap_err().to_string();
    assert!(refused.contains("iops") && refused.contains("--size"), "{refused}");
    create("local", BTreeMap::new()).unwrap();
    let changes = BTreeMap::from([("iops".to_owned(), Some("5".to_owned()))]);
    let refused = volumes.throttle(&name("v"), &changes).unwrap_err().to_string();
    assert!(refused.contains("limits on speed") && refused.contains("local"), "{refused}");
    volumes.erase(&name("v")).unwrap();
    let wrong = BTreeMap::from([("bandwidth".to_owned(), "fast".to_owned())]);
    let refused = create("union", wrong).unwrap_err().to_string();
    assert!(refused.contains("bandwidth=fast") && refused.contains("10M"), "{refused}");
}
