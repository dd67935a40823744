//! The blocks of snapshots of block devices: those with data, and those that changed.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use laminafs::service::volumes::VolumeService;

use crate::harness::Site;
use crate::tools::*;
use crate::volume_block::{Host, MIB, device, leaves_no_device, name, read, wish};
use crate::volume_image::noise;

judged!(host:
    changed_blocks_are_those_that_differ_on_xfs,
    changed_blocks_are_those_that_differ_on_btrfs,
    changed_blocks_are_those_that_differ_on_ext4,
);

/// The blocks of 4096 bytes in which two contents differ.
fn differing(one: &[u8], other: &[u8]) -> Vec<u64> {
    let blocks = one.chunks(4096).zip(other.chunks(4096)).zip((0..).step_by(4096));
    blocks.filter(|((one, other), _)| one != other).map(|(_, at)| at).collect()
}

fn reported(
    volumes: &VolumeService,
    (of, base): (&str, Option<&str>),
    from: u64,
) -> (Vec<u64>, u64) {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let size = volumes.blocks(of, base, from, &mut |range| {
        assert!(range.start < range.end && range.start % 4096 == 0 && range.end % 4096 == 0);
        assert!(ranges.last().is_none_or(|last| last.end < range.start), "{ranges:?} {range:?}");
        ranges.push(range);
        true
    });
    (ranges.into_iter().flat_map(|range| range.step_by(4096)).collect(), size.unwrap())
}

/// Changes a device at places that a seed decides: new data, data as before, zeros, discards.
fn change(path: &Path, size: u64, seed: u64) {
    let device = device(path);
    for (step, word) in noise(40 * 8, seed).chunks(8).zip(0..) {
        let number = u64::from_le_bytes(step.try_into().unwrap());
        let at = number % (size / 512) * 512;
        let len = ((number >> 32) % 200_000).min(size - at);
        match word % 5 {
            0 => {
                let same = read(&device, at, len as usize);
                device.write_all_at(&same, at).unwrap();
            }
            1 => device.write_all_at(&vec![0; len as usize], at).unwrap(),
            2 => {
                let (at, len) = (at / 4096 * 4096, (len / 4096 * 4096).max(4096));
                let range = ["-o", &at.to_string(), "-l", &len.min(size - at).to_string()];
                let done = Command::new("blkdiscard").arg("-f").args(range).arg(path).output();
                assert!(done.as_ref().unwrap().status.success(), "{done:?}");
            }
            _ => device.write_all_at(&noise(len as usize, number), at).unwrap(),
        }
    }
    device.sync_all().unwrap();
}

fn changes_are_exact(s: &Site, kind: &str) {
    let host = Host::new(s, kind);
    let volumes = host.volumes();
    let (v, size) = (name("v"), 48 * MIB);
    volumes.create(wish("v", size)).unwrap();
    volumes.create(wish("other", size)).unwrap();
    let stranger = volumes.snapshot(&name("other"), None).unwrap();
    let mut images = Vec::new();
    for round in 0..5 {
        let path = volumes.publish_device(&v, "one").unwrap();
        change(&path, size, round);
        if kind == "ext4" {
            volumes.unpublish(&v, "one").unwrap();
        }
        let made = volumes.snapshot(&v, Some(name(&format!("s{round}")))).unwrap();
        images.push(get(made.directory().join("image")));
    }
    for round in 0..5 {
        let of = format!("v@s{round}");
        let (data, found) = reported(&volumes, (&of, None), 0);
        assert_eq!(found, size);
        let zeros = vec![0; size as usize];
        let needed = differing(&images[round], &zeros);
        assert!(needed.iter().all(|block| data.binary_search(block).is_ok()), "{kind} {round}");
        for before in 0..round {
            let base = format!("v@s{before}");
            let expected = differing(&images[round], &images[before]);
            let (changed, _) = reported(&volumes, (&of, Some(&base)), 0);
            assert!(changed == expected, "{kind}: {before} to {round}");
            let from = 20 * MIB + 4096;
            let (changed, _) = reported(&volumes, (&of, Some(&base)), from);
            let later: Vec<u64> = expected.into_iter().filter(|block| *block >= from).collect();
            assert!(changed == later, "{kind}: {before} to {round} from {from}");
        }
    }
    let unknown = volumes.blocks("v@none", None, 0, &mut |_| true).unwrap_err();
    assert!(unknown.is_missing());
    let foreign = volumes.blocks("v@s1", Some(&stranger.id), 0, &mut |_| true).unwrap_err();
    assert!(foreign.to_string().contains("not of one volume"), "{foreign}");
    let mut seen = 0;
    volumes
        .blocks("v@s1", None, 0, &mut |_| {
            seen += 1;
            false
        })
        .unwrap();
    assert_eq!(seen, 1, "it stops");
    if kind != "ext4" {
        reads_little(&volumes, size);
    }
    volumes.unpublish(&v, "one").unwrap();
    leaves_no_device(s.root());
    drop(volumes);
    host.end();
}

/// Asserts that what two snapshots share is not read.
fn reads_little(volumes: &VolumeService, size: u64) {
    let path = volumes.device(&name("v")).unwrap().unwrap();
    let open = device(&path);
    open.write_all_at(&noise(size as usize, 99), 0).unwrap();
    volumes.snapshot(&name("v"), Some(name("full"))).unwrap();
    open.write_all_at(b"changed", 30 * MIB).unwrap();
    volumes.snapshot(&name("v"), Some(name("later"))).unwrap();
    let read_bytes = || {
        let text = fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let before = read_bytes();
    let (changed, _) = reported(volumes, ("v@later", Some("v@full")), 0);
    let read = read_bytes() - before;
    assert_eq!(changed, [30 * MIB]);
    eprintln!("{read} bytes of two times {size} were read");
    assert!(read < 4 * MIB, "{read} bytes were read");
}

fn changed_blocks_are_those_that_differ_on_xfs(s: &mut Site) {
    changes_are_exact(s, "xfs");
}

fn changed_blocks_are_those_that_differ_on_btrfs(s: &mut Site) {
    changes_are_exact(s, "btrfs");
}

fn changed_blocks_are_those_that_differ_on_ext4(s: &mut Site) {
    changes_are_exact(s, "ext4");
}
