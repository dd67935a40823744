//! Volumes with a file system of their own in a file: growing, shrinking, copies.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use laminafs::volume::{Driver, VolumeError};
use rustix::io::Errno;

use crate::harness::Site;
use crate::tools::*;
use crate::volume_image::{
    DRIVER, KINDS, MIB, Volume, fill, grows_mounted, is_sound, leaves_no_device,
    needs_a_capability, noise,
};

judged!(host:
    a_volume_grows_under_a_writer,
    a_volume_grows_while_it_is_not_mounted,
    the_next_mount_finishes_a_grow,
    a_volume_shrinks_while_it_is_not_mounted,
    what_cannot_shrink_keeps_size_and_content,
    a_copy_of_a_volume_in_use_is_whole,
    a_copy_shares_blocks_where_the_host_can,
);

/// Ends a writer, also when the case fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes numbered files, each synced, until it is told to stop; returns how many.
fn write_files(data: &Path, stop: &AtomicBool, most: u64) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = data.join(format!("w{}", count % most));
        let file = fs::File::create(path).unwrap();
        file.write_all_at(&noise(50_000, count), 0).unwrap();
        file.sync_all().unwrap();
        count += 1;
    }
    count
}

fn a_volume_grows_under_a_writer(s: &mut Site) {
    for (kind, size) in KINDS {
        let mut volume = Volume::new(s, kind, size, &[("fs", kind)]);
        volume.mount();
        let (before, _) = volume.df();
        let (data, stop) = (volume.place.data(), AtomicBool::new(false));
        let count = std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            let writer = scope.spawn(|| write_files(&data, &stop, 100));
            while !data.join("w3").exists() {
                std::thread::yield_now();
            }
            for step in 1..=4 {
                let (started, size) = (Instant::now(), size + step * 50 * MIB + 12_288);
                if !grows_mounted(kind) {
                    needs_a_capability(&mut volume, size);
                    continue;
                }
                volume.resize(size).unwrap();
                eprintln!("{kind} grew by 50 MiB in {:?}", started.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        if !grows_mounted(kind) {
            assert_eq!(volume.df().0, before);
            volume.unmount();
            volume.resize(size + 200 * MIB).unwrap();
            volume.mount();
        }
        let (after, _) = volume.df();
        assert!(after >= before + 190 * MIB, "{kind}: {before}, then {after}");
        assert!(count > 3, "{count}");
        volume.unmount();
        is_sound(kind, &volume.image());
        volume.mount();
        assert_eq!(volume.df().0, after);
        for number in count.saturating_sub(50)..count {
            let found = get(volume.at(&format!("w{}", number % 100)));
            assert!(found == noise(50_000, number), "{kind}: file {number}");
        }
        let len = fill(&volume.at("rest"), 1 << 20);
        assert!(len > before, "{kind}: {len}");
        volume.unmount();
    }
    leaves_no_device(s);
}

fn a_volume_grows_while_it_is_not_mounted(s: &mut Site) {
    for (kind, size) in KINDS {
        let mut volume = Volume::new(s, kind, size, &[("fs", kind)]);
        volume.mount();
        put(volume.at("f"), "kept");
        let (before, _) = volume.df();
        volume.unmount();
        volume.resize(size + 200 * MIB).unwrap();
        leaves_no_device(s);
        is_sound(kind, &volume.image());
        volume.mount();
        let (after, _) = volume.df();
        assert!(after >= before + 190 * MIB, "{kind}: {before}, then {after}");
        assert_eq!(get(volume.at("f")), b"kept");
        volume.unmount();
    }
    leaves_no_device(s);
}

fn the_next_mount_finishes_a_grow(s: &mut Site) {
    for (kind, size) in KINDS {
        for is_mounted in [false, true] {
            let name = format!("{kind}-{is_mounted}");
            // It grows although its users cannot write.
            let volume = Volume::new(s, &name, size, &[("fs", kind), ("o", "ro")]);
            volume.mount();
            let (before, _) = volume.df();
            if !is_mounted {
                volume.unmount();
                leaves_no_device(s);
            }
            let file = fs::File::options().write(true).open(volume.image()).unwrap();
            file.set_len(size + 100 * MIB).unwrap();
            if is_mounted && !grows_mounted(kind) {
                volume.mount();
                assert_eq!(volume.df().0, before, "it stays usable");
                volume.unmount();
                leaves_no_device(s);
            }
            for _ in 0..2 {
                volume.mount();
                let (after, _) = volume.df();
                assert!(after >= before + 90 * MIB, "{name}: {before}, then {after}");
            }
            fails_io(fs::write(volume.at("f"), "x"), Errno::ROFS);
            volume.unmount();
            is_sound(kind, &volume.image());
        }
    }
    leaves_no_device(s);
}

fn a_volume_shrinks_while_it_is_not_mounted(s: &mut Site) {
    let mut volume = Volume::new(s, "v", 256 * MIB, &[]);
    volume.mount();
    // Some of it lies behind the new end.
    put(volume.at("first"), noise(60 << 20, 4));
    put(volume.at("second"), noise(90 << 20, 5));
    put(volume.at("third"), noise(20 << 20, 6));
    fs::remove_file(volume.at("second")).unwrap();
    let busy = volume.resize(128 * MIB).unwrap_err();
    assert!(matches!(busy, VolumeError::Busy { .. }), "{busy}");
    assert_eq!(stat(volume.image()).st_size as u64, 256 * MIB);
    volume.unmount();
    leaves_no_device(s);
    // What a crash of a shrink leaves.
    put(volume.place.directory().join("image.resizing"), "half");
    volume.resize(128 * MIB).unwrap();
    leaves_no_device(s);
    assert_eq!(names(volume.place.directory()), ["_data", "image"]);
    assert_eq!((stat(volume.image()).st_size as u64, mode(volume.image())), (128 * MIB, 0o600));
    is_sound("ext4", &volume.image());
    volume.mount();
    assert_eq!(names(volume.place.data()), ["first", "third"]);
    assert!(get(volume.at("first")) == noise(60 << 20, 4));
    assert!(get(volume.at("third")) == noise(20 << 20, 6));
    let (total, _) = volume.df();
    assert!(total <= 128 * MIB && total > 100 * MIB, "{total}");
    volume.unmount();
    volume.resize(512 * MIB).unwrap();
    volume.mount();
    assert!(get(volume.at("first")) == noise(60 << 20, 4));
    assert!(volume.df().0 > 440 * MIB);
    volume.unmount();
    leaves_no_device(s);
}

fn what_cannot_shrink_keeps_size_and_content(s: &mut Site) {
    let mut volume = Volume::new(s, "ext4", 128 * MIB, &[]);
    volume.mount();
    put(volume.at("f"), noise(60 << 20, 7));
    volume.unmount();
    for size in [32 * MIB, MIB] {
        let refused = volume.resize(size).unwrap_err();
        assert!(matches!(refused, VolumeError::TooSmall { .. }), "{refused}");
    }
    leaves_no_device(s);
    assert_eq!(names(volume.place.directory()), ["_data", "image"]);
    volume.mount();
    assert!(get(volume.at("f")) == noise(60 << 20, 7));
    assert!(volume.df().0 > 100 * MIB);
    volume.unmount();
    let mut volume = Volume::new(s, "xfs", 400 * MIB, &[("fs", "xfs")]);
    let refused = volume.resize(300 * MIB).unwrap_err();
    assert!(refused.to_string().contains("xfs cannot shrink"), "{refused}");
    assert_eq!(stat(volume.image()).st_size as u64, 400 * MIB);
    leaves_no_device(s);
}

fn a_copy_of_a_volume_in_use_is_whole(s: &mut Site) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        let copy = Volume::plan(s, &format!("copy-{kind}"), size, &[("fs", kind)]);
        volume.mount();
        put(volume.at("kept"), noise(5 << 20, 8));
        let (data, stop) = (volume.place.data(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            let writer = scope.spawn(|| write_files(&data, &stop, u64::MAX));
            while !data.join("w3").exists() {
                std::thread::yield_now();
            }
            let started = Instant::now();
            volume.copy_to(&copy.place).unwrap();
            eprintln!("{kind} was copied in {:?}", started.elapsed());
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap();
        });
        let taken = volume.copy_to(&copy.place).unwrap_err();
        assert!(matches!(taken, VolumeError::Host(_)), "{taken}");
        put(volume.at("after"), "changes are allowed again");
        assert!(fs::metadata(copy.image()).unwrap().blocks() * 512 < size / 2 + 64 * MIB);
        assert_eq!(mode(copy.image()), 0o600);
        // Both at once, with one UUID.
        copy.mount();
        assert!(get(copy.at("kept")) == noise(5 << 20, 8));
        assert!(!exists(copy.at("after")));
        let files = names(copy.place.data()).len() as u64 - 1;
        for number in 0..files - 1 {
            assert!(get(copy.at(&format!("w{number}"))) == noise(50_000, number), "{number}");
        }
        copy.unmount();
        volume.unmount();
        leaves_no_device(s);
        is_sound(kind, &copy.image());
        let cold = Volume::plan(s, &format!("cold-{kind}"), size, &[("fs", kind)]);
        volume.copy_to(&cold.place).unwrap();
        assert!(get(cold.image()) == get(volume.image()));
    }
}

fn a_copy_shares_blocks_where_the_host_can(s: &mut Site) {
    let host = Volume::new(s, "host", 1 << 30, &[("fs", "xfs")]);
    host.mount();
    let used = || DRIVER.usage(&host.place, &host.spec).unwrap().used_bytes;
    let mut volume = Volume::within(&host.place.data(), "v", 128 * MIB, &[]);
    volume.create().unwrap();
    volume.mount();
    put(volume.at("f"), noise(40 << 20, 9));
    rustix::fs::sync();
    let before = used();
    let copy = Volume::within(&host.place.data(), "copy", 128 * MIB, &[]);
    volume.copy_to(&copy.place).unwrap();
    volume.unmount();
    volume.resize(96 * MIB).unwrap();
    let grown = used().saturating_sub(before);
    assert!(grown < 10 * MIB, "two copies of 40 MiB take {grown} bytes");
    volume.mount();
    assert!(get(volume.at("f")) == noise(40 << 20, 9));
    volume.unmount();
    host.unmount();
    leaves_no_device(s);
}
