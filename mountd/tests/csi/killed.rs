//! The driver is killed at any moment: what was published goes on, a repeated call finishes, and
//! nothing is left behind.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Answer, Client};
use crate::content;
use crate::host::{Chance, Host, Over};
use crate::kinds::{ALL, Disk, Kind, delete_snapshot, for_each_kind, from_snapshot, target};
use crate::until::until;
use crate::wire::*;

for_each_kind! {
    a_writer_goes_on_while_the_driver_is_killed => writer: Local Ext4 Xfs Union Block;
    calls_during_which_the_driver_is_killed_are_finished => calls: Local Ext4 Union Block;
}

/// Counts in a file that stays open, until it is told to end.
fn count(mut file: File, is_over: &AtomicBool, written: &AtomicU64) {
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        file.seek(SeekFrom::Start(number % 4096 * 8)).unwrap();
        file.write_all(&number.to_be_bytes()).unwrap();
        file.sync_data().unwrap();
        number += 1;
        written.store(number, Ordering::Relaxed);
    }
}

fn writer(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, kind, "written");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    let path = if kind.is_block() { at.clone() } else { at.join("counted") };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(!kind.is_block()).open(&path).unwrap();
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        let counter = scope.spawn(|| count(file, &is_over, &written));
        let goes_on = |what: &str| {
            let before = written.load(Ordering::Relaxed);
            until(what, || written.load(Ordering::Relaxed) > before + 5 || counter.is_finished());
        };
        for _ in 0..2 {
            goes_on("writing before the kill");
            host.kill();
            goes_on("writing without a driver");
            host.start();
            goes_on("writing after the start");
        }
        disk.publish(&host, &client, "pod");
        goes_on("writing after the repeated call");
        drop(over);
        counter.join().unwrap();
    });
    let count = written.load(Ordering::Relaxed);
    let mut last = [0; 8];
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start((count - 1) % 4096 * 8)).unwrap();
    file.read_exact(&mut last).unwrap();
    assert_eq!(u64::from_be_bytes(last), count - 1);
    drop(file);
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    host.until_nothing();
}

/// A call during which the driver is killed at a random moment, and which is repeated then.
fn killed<T>(host: &Host, chance: &mut Chance, call: impl Fn(&Client) -> Answer<T> + Sync) -> T
where
    T: Send,
{
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| host.client().insist(&call).unwrap());
        std::thread::sleep(Duration::from_micros(chance.below(25_000)));
        host.restart();
        caller.join().unwrap()
    })
}

/// A volume is made, used and deleted, and the driver is killed in each call.
fn killed_life(host: &Host, kind: Kind, chance: &mut Chance, number: u64) {
    let name = format!("killed {number}");
    let answer = killed(host, chance, |client| client.create_volume(kind.request(&name)));
    let disk = Disk::new(kind, answer.volume.unwrap());
    let at = target(host, &format!("pod-{number}"));
    let client = host.client();
    let stage = disk.stage_request(host);
    let publish = disk.publish_request(host, &at);
    killed(host, chance, |client| client.node_stage_volume(stage.clone()));
    killed(host, chance, |client| client.node_publish_volume(publish.clone()));
    content::write(kind, &at, number);
    let written = content::read(kind, &at);
    let request = CreateSnapshotRequest {
        source_volume_id: disk.id.clone(),
        name: format!("snapshot {number}"),
        ..Default::default()
    };
    let answer = killed(host, chance, |client| client.create_snapshot(request.clone()));
    let snapshot = answer.snapshot.unwrap().snapshot_id;
    let request = CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot),
        ..kind.request(&format!("copy {number}"))
    };
    let answer = killed(host, chance, |client| client.create_volume(request.clone()));
    let copy = Disk::new(kind, answer.volume.unwrap());
    assert_eq!(content::read(kind, &at), written);
    killed(host, chance, |client| client.node_unpublish_volume(disk.unpublish_request(&at)));
    assert!(!at.exists(), "{} stays", at.display());
    killed(host, chance, |client| client.node_unstage_volume(disk.unstage_request(host)));
    copy.stage(host, &client);
    let second = copy.publish(host, &client, &format!("copy-{number}"));
    assert_eq!(content::read(kind, &second), written);
    copy.unpublish(&client, &second);
    copy.unstage(host, &client);
    killed(host, chance, |client| disk.delete(client));
    killed(host, chance, |client| delete_snapshot(client, &snapshot));
    killed(host, chance, |client| copy.delete(client));
}

fn nothing_listed(client: &Client) {
    assert_eq!(client.list_volumes(ListVolumesRequest::default()).unwrap().entries, vec![]);
    let left = client.list_snapshots(ListSnapshotsRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
}

fn calls(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let mut chance = Chance::of_run();
    for number in 0..2 {
        killed_life(&host, kind, &mut chance, number);
    }
    nothing_listed(&host.client());
    host.until_nothing();
}

/// `LAMINA_CSI_CYCLES`, or a few.
fn cycles() -> u64 {
    std::env::var("LAMINA_CSI_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn cycle(host: &Host, client: &Client, number: u64) {
    // One of xfs takes a second.
    let kind = match (number % 5, number) {
        (2, 5..) => Kind::Ext4,
        (kind, _) => ALL[usize::try_from(kind).unwrap()],
    };
    let disk = Disk::created(client, kind, &format!("cycle {number}"));
    disk.stage(host, client);
    let at = disk.publish(host, client, "pod");
    content::write(kind, &at, number);
    let snapshot = disk.snapshot(client, &format!("cycle {number}"));
    disk.unpublish(client, &at);
    disk.unstage(host, client);
    disk.delete(client).unwrap();
    delete_snapshot(client, &snapshot.snapshot_id).unwrap();
}

/// The files and directories of the data root that belong to a volume.
fn kept(host: &Host) -> Vec<std::path::PathBuf> {
    let names = ["volumes", "volumes/.layers", "volumes/.locks"];
    let directories = names.map(|name| host.at(Path::new("root").join(name)));
    let is_of_none = |path: &Path| path.ends_with(".layers/.lock");
    let entries = directories.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| !directories.contains(path) && !is_of_none(path))
        .collect()
}

#[test]
fn cycles_leave_no_mount_device_descriptor_or_process() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for number in 0..10 {
        cycle(&host, &client, number);
    }
    host.until_nothing();
    let (before, threads) = (host.descriptors(), host.threads());
    for number in 10..10 + cycles() {
        cycle(&host, &client, number);
    }
    host.until_nothing();
    until("as few descriptors as before", || host.descriptors() <= before);
    assert!(host.threads() <= threads + 4, "{threads} threads became {}", host.threads());
    nothing_listed(&client);
    let done = host.lamina(&["volume", "prune", "--trash"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(kept(&host), Vec::<std::path::PathBuf>::new());
}
