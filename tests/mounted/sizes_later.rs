//! A volume without a size gets one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use laminafs::service::volumes::Removal;
use rustix::io::Errno;

use crate::harness::Site;
use crate::sizes::{BLOCK, SIZE, end, fill, limits, name, used, volume_of, volume_with};
use crate::tools::*;
use crate::volume_plugin::until;

judged!(host: a_volume_in_use_gets_a_size, a_directory_has_a_size_from_the_start);

fn a_volume_in_use_gets_a_size(s: &mut Site) {
    let (volumes, data) = volume_with(s.root(), BTreeMap::new());
    put(data.join("f"), pattern(300 * BLOCK as usize));
    fs::hard_link(data.join("f"), data.join("linked")).unwrap();
    volumes.snapshot(&name("v"), Some(name("one"))).unwrap();
    put(data.join("g"), pattern(50 * BLOCK as usize));
    let gone = File::create_new(data.join("gone")).unwrap();
    gone.write_all_at(&pattern(10 * BLOCK as usize), 0).unwrap();
    fs::remove_file(data.join("gone")).unwrap();
    let refused = volumes.resize(&name("v"), limits(256)).unwrap_err().to_string();
    assert!(refused.contains("1.4M and 3 inodes are in use"), "{refused}");
    let kept = File::create_new(data.join("kept")).unwrap();
    kept.write_all_at(&[1], 0).unwrap();
    // Two are in the midst of writing.
    std::thread::scope(|scope| {
        let write = |file: &str| {
            let file = File::create_new(data.join(file)).unwrap();
            scope.spawn(move || {
                fill_slowly(&file, 64);
                fill(&file, 1)
            })
        };
        let writers = [write("w1"), write("w2")];
        std::thread::sleep(std::time::Duration::from_millis(20));
        volumes.resize(&name("v"), limits(SIZE)).unwrap();
        let written: u64 = writers.map(|one| one.join().unwrap()).iter().sum();
        assert_eq!(written, SIZE - 361);
    });
    assert_eq!(used(&data, SIZE), (SIZE, 6), "with the file that has no name");
    fails_io(kept.write_at(&[2], BLOCK), Errno::NOSPC);
    fails_io(gone.write_at(&[2], 10 * BLOCK), Errno::NOSPC);
    assert_eq!(kept.write_at(&[2], 1).unwrap(), 1);
    drop((gone, kept));
    eventually("it is gone", || used(&data, SIZE) == (SIZE - 10, 5));
    fs::remove_file(data.join("w1")).unwrap();
    fs::remove_file(data.join("w2")).unwrap();
    eventually("the rest is counted", || used(&data, SIZE) == (351, 3));
    // Nothing else is found by the next mount.
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.settle().is_ok() && names(&data).is_empty());
    volumes.publish(&name("v"), "test").unwrap();
    assert_eq!(used(&data, SIZE), (351, 3));
    end(&volumes);
}

fn a_directory_has_a_size_from_the_start(s: &mut Site) {
    let options = |size: u64| BTreeMap::from([("size".to_owned(), (size * BLOCK).to_string())]);
    let (volumes, data) = volume_of("local", s.root(), options(SIZE));
    put(data.join("f"), pattern(300 * BLOCK as usize));
    chmod(&data, 0o1777);
    let file = File::create_new(data.join("rest")).unwrap();
    assert_eq!(fill(&file, 1), SIZE - 300);
    volumes.resize(&name("v"), limits(2 * SIZE)).unwrap();
    assert_eq!(fill(&file, 1), 2 * SIZE - 300);
    drop(file);
    assert_eq!(volumes.usage(&name("v")).unwrap().used_bytes, 2 * SIZE * BLOCK);
    fs::remove_file(data.join("rest")).unwrap();
    // In the trash and back.
    volumes.unpublish(&name("v"), "test").unwrap();
    until(|| volumes.settle().is_ok() && names(&data).is_empty());
    volumes.remove(&name("v"), Removal::FORCED).unwrap();
    volumes.undelete("v", None).unwrap();
    let data = volumes.publish(&name("v"), "test").unwrap();
    assert_eq!((used(&data, 2 * SIZE), mode(&data)), ((300, 1), 0o1777));
    assert_eq!(get(data.join("f")), pattern(300 * BLOCK as usize));
    end(&volumes);
    // The host writes to what was made without one, whatever Lamina counts.
    let (volumes, data) = volume_of("local", s.root(), BTreeMap::new());
    put(data.join("f"), "stays");
    let refused = volumes.resize(&name("v"), limits(SIZE)).unwrap_err().to_string();
    assert!(refused.contains("does not support"), "{refused}");
    assert_eq!(get(data.join("f")), b"stays");
    end(&volumes);
}

/// Writes blocks one by one for a while.
fn fill_slowly(file: &File, count: u64) {
    for number in 0..count {
        file.write_all_at(&[number as u8; BLOCK as usize], number * BLOCK).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
