//! Snapshots of several volumes at one moment, and what of a device they tell.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::Code;

use crate::client::{Answer, Client, refused};
use crate::host::{Host, MIB};
use crate::kinds::{Disk, Kind, delete_snapshot, for_each_kind, from_snapshot};
use crate::wire::*;

for_each_kind! {
    the_snapshots_of_a_group_are_of_one_moment => one_moment: Union Local Ext4 Xfs;
    a_group_that_cannot_be_taken_at_one_moment_is_refused => not_together: Block;
}

const BLOCK: u64 = 4096;

fn create(client: &Client, name: &str, ids: &[&str]) -> Answer<VolumeGroupSnapshot> {
    let request = CreateVolumeGroupSnapshotRequest {
        name: name.to_owned(),
        source_volume_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    Ok(client.create_volume_group_snapshot(request)?.group_snapshot.unwrap())
}

fn members(group: &VolumeGroupSnapshot) -> Vec<String> {
    group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect()
}

fn delete(client: &Client, id: &str, members: Vec<String>) -> Answer<()> {
    let request = DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: id.to_owned(),
        snapshot_ids: members,
        ..Default::default()
    };
    client.delete_volume_group_snapshot(request).map(drop)
}

fn get(client: &Client, id: &str, members: Vec<String>) -> Answer<VolumeGroupSnapshot> {
    let request = GetVolumeGroupSnapshotRequest {
        group_snapshot_id: id.to_owned(),
        snapshot_ids: members,
        ..Default::default()
    };
    Ok(client.get_volume_group_snapshot(request)?.group_snapshot.unwrap())
}

/// The file of a published volume in which a number is.
fn counted(kind: Kind, at: &Path) -> File {
    let path = if kind.is_block() { at.to_owned() } else { at.join("number") };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(!kind.is_block()).open(path).unwrap()
}

fn number(file: &File) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    u64::from_be_bytes(bytes)
}

/// Writes 1, 2, .. to all files in turn, each durably before the next: a later file never has a
/// higher number than an earlier one.
fn write_in_turn(files: &[File], is_over: &AtomicBool) {
    let mut next = 1_u64;
    while !is_over.load(Ordering::Relaxed) {
        for file in files {
            file.write_all_at(&next.to_be_bytes(), 0).unwrap();
            file.sync_data().unwrap();
        }
        next += 1;
    }
}

/// The writers of two devices cannot be made to wait for each other: a group of them is taken while
/// nobody uses them.
fn not_together(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disks = ["a", "b"].map(|name| Disk::created(&client, kind, name));
    let ids = disks.each_ref().map(|disk| disk.id.as_str());
    disks.iter().for_each(|disk| disk.stage(&host, &client));
    refused(Code::FailedPrecondition, create(&client, "group", &ids));
    let left = client.list_snapshots(ListSnapshotsRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
    disks.iter().for_each(|disk| disk.unstage(&host, &client));
    let group = create(&client, "group", &ids).unwrap();
    assert_eq!(group.snapshots.len(), 2);
    delete(&client, &group.group_snapshot_id, members(&group)).unwrap();
    for disk in &disks {
        disk.delete(&client).unwrap();
    }
    host.until_nothing();
}

fn one_moment(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disks = ["a", "b", "c"].map(|name| Disk::created(&client, kind, name));
    let pods = disks.clone().map(|disk| {
        disk.stage(&host, &client);
        let at = disk.publish(&host, &client, &disk.id);
        counted(kind, &at).write_all_at(&[0; 8], 0).unwrap();
        at
    });
    let files = pods.clone().map(|at| counted(kind, &at));
    let ids = disks.each_ref().map(|disk| disk.id.as_str());
    let is_over = AtomicBool::new(false);
    let groups = std::thread::scope(|scope| {
        scope.spawn(|| write_in_turn(&files, &is_over));
        let groups = [0, 1, 2].map(|index| create(&client, &format!("group {index}"), &ids));
        is_over.store(true, Ordering::Relaxed);
        groups.map(Result::unwrap)
    });
    for group in &groups {
        assert!(group.ready_to_use && group.snapshots.len() == 3, "{group:?}");
        let numbers = disks.each_ref().map(|disk| {
            let of = |one: &&Snapshot| one.source_volume_id == disk.id;
            let snapshot = group.snapshots.iter().find(of).unwrap();
            assert_eq!(snapshot.group_snapshot_id, group.group_snapshot_id);
            let source = from_snapshot(&snapshot.snapshot_id);
            let copy = disk.of(&client, &format!("of {}", snapshot.snapshot_id), source);
            copy.stage(&host, &client);
            let at = copy.publish(&host, &client, &copy.id);
            let found = number(&counted(kind, &at));
            copy.unpublish(&client, &at);
            copy.unstage(&host, &client);
            copy.delete(&client).unwrap();
            found
        });
        // The first is at most one ahead of the last, and none is behind a later one.
        assert!(numbers.is_sorted_by(|one, next| one >= next), "{numbers:?}");
        assert!(numbers[0] - numbers[2] <= 1, "not of one moment: {numbers:?}");
    }
    drop(files);
    for (disk, at) in disks.iter().zip(&pods) {
        disk.unpublish(&client, at);
        disk.unstage(&host, &client);
        disk.delete(&client).unwrap();
    }
    for group in &groups {
        delete(&client, &group.group_snapshot_id, members(group)).unwrap();
        delete(&client, &group.group_snapshot_id, members(group)).unwrap();
    }
    let left = client.list_snapshots(ListSnapshotsRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
    host.until_nothing();
}

#[test]
fn groups_of_snapshots_have_their_codes() {
    use Code::{AlreadyExists, InvalidArgument, NotFound};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disks = ["a", "b", "c"].map(|name| Disk::created(&client, Kind::Union, name));
    let [a, b, c] = disks.each_ref().map(|disk| disk.id.as_str());
    refused(InvalidArgument, create(&client, "", &[a, b]));
    refused(InvalidArgument, create(&client, "group", &[]));
    refused(InvalidArgument, create(&client, "group", &[a, ""]));
    refused(NotFound, create(&client, "group", &[a, "unknown"]));
    let left = client.list_snapshots(ListSnapshotsRequest::default()).unwrap().entries;
    assert_eq!(left, vec![], "a refused call made something");
    let group = create(&client, "group", &[a, b]).unwrap();
    let id = group.group_snapshot_id.as_str();
    let again = create(&client, "group", &[b, a]).unwrap();
    assert_eq!(again.group_snapshot_id, id, "the order says nothing");
    refused(AlreadyExists, create(&client, "group", &[a, c]));
    refused(AlreadyExists, create(&client, "group", &[a]));
    // A member goes with its group.
    let own = members(&group);
    refused(InvalidArgument, delete_snapshot(&client, &own[0]));
    assert_eq!(get(&client, id, own.clone()).unwrap().snapshots.len(), 2);
    refused(InvalidArgument, get(&client, "", vec![]));
    refused(NotFound, get(&client, "unknown", own.clone()));
    refused(InvalidArgument, get(&client, id, own[..1].to_vec()));
    refused(InvalidArgument, delete(&client, "", own.clone()));
    refused(InvalidArgument, delete(&client, id, own[..1].to_vec()));
    refused(InvalidArgument, delete(&client, id, vec![own[0].clone(), "unknown".to_owned()]));
    delete(&client, "unknown", vec![]).unwrap();
    // Its volumes may go before it.
    disks[0].delete(&client).unwrap();
    assert_eq!(get(&client, id, own.clone()).unwrap().snapshots.len(), 2);
    delete(&client, id, own.clone()).unwrap();
    refused(NotFound, get(&client, id, own));
}

/// All blocks of a device.
fn blocks(at: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    File::open(at).unwrap().read_to_end(&mut all).unwrap();
    all.chunks(usize::try_from(BLOCK).unwrap()).map(<[u8]>::to_vec).collect()
}

/// Which blocks ranges have.
fn covered(ranges: &[BlockMetadata], count: usize) -> Vec<bool> {
    let mut found = vec![false; count];
    let mut end = 0;
    for range in ranges {
        assert!(range.size_bytes > 0 && range.byte_offset >= end, "out of order: {ranges:?}");
        end = range.byte_offset + range.size_bytes;
        let first = u64::try_from(range.byte_offset).unwrap() / BLOCK;
        let last = u64::try_from(end).unwrap().div_ceil(BLOCK);
        for index in first..last {
            found[usize::try_from(index).unwrap()] = true;
        }
    }
    found
}

fn put(at: &Path, block: u64, byte: u8) {
    let device = OpenOptions::new().write(true).open(at).unwrap();
    device.write_all_at(&vec![byte; usize::try_from(BLOCK).unwrap()], block * BLOCK).unwrap();
    device.sync_all().unwrap();
}

fn delta(
    client: &Client,
    (base, target): (&str, &str),
    starting_offset: i64,
    max_results: i32,
) -> Answer<Vec<GetMetadataDeltaResponse>> {
    client.get_metadata_delta(GetMetadataDeltaRequest {
        base_snapshot_id: base.to_owned(),
        target_snapshot_id: target.to_owned(),
        starting_offset,
        max_results,
        ..Default::default()
    })
}

fn allocated(client: &Client, id: &str, starting_offset: i64) -> Answer<Vec<BlockMetadata>> {
    let answers = client.get_metadata_allocated(GetMetadataAllocatedRequest {
        snapshot_id: id.to_owned(),
        starting_offset,
        ..Default::default()
    })?;
    let size = i64::try_from(Kind::Block.size()).unwrap();
    assert!(answers.iter().all(|one| one.volume_capacity_bytes == size), "{answers:?}");
    Ok(answers.into_iter().flat_map(|one| one.block_metadata).collect())
}

#[test]
fn the_blocks_of_snapshots_are_those_that_a_comparison_finds() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Block, "device");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    let far = Kind::Block.size() / BLOCK - 1;
    for block in [0, 7, 100, 101, 1500, far] {
        put(&at, block, 1);
    }
    let (one, first) = (disk.snapshot(&client, "one").snapshot_id, blocks(&at));
    for block in [7, 101, 2000, far] {
        put(&at, block, 2);
    }
    let (two, second) = (disk.snapshot(&client, "two").snapshot_id, blocks(&at));
    let written = |content: &[Vec<u8>]| -> Vec<bool> {
        content.iter().map(|block| block.iter().any(|byte| *byte != 0)).collect()
    };
    // A comparison may be coarser than a block, but not by more than 64 KiB on each side.
    let check = |ranges: &[BlockMetadata], wanted: &[bool]| {
        for (index, found) in covered(ranges, wanted.len()).into_iter().enumerate() {
            let near = &wanted[index.saturating_sub(16)..(index + 17).min(wanted.len())];
            assert!(found || !wanted[index], "block {index} is left out: {ranges:?}");
            assert!(!found || near.contains(&true), "block {index} is too much: {ranges:?}");
        }
    };
    for (id, content) in [(&one, &first), (&two, &second)] {
        check(&allocated(&client, id, 0).unwrap(), &written(content));
    }
    let differs: Vec<bool> = first.iter().zip(&second).map(|(one, two)| one != two).collect();
    let ranges = |answers: Vec<GetMetadataDeltaResponse>| -> Vec<BlockMetadata> {
        answers.into_iter().flat_map(|one| one.block_metadata).collect()
    };
    let all = ranges(delta(&client, (&one, &two), 0, 0).unwrap());
    check(&all, &differs);
    // In parts, and from the middle on.
    let parts = delta(&client, (&one, &two), 0, 1).unwrap();
    assert!(parts.iter().all(|one| one.block_metadata.len() <= 1), "{parts:?}");
    assert_eq!(covered(&ranges(parts), differs.len()), covered(&all, differs.len()));
    let middle = 1000 * BLOCK;
    let late = ranges(delta(&client, (&one, &two), i64::try_from(middle).unwrap(), 0).unwrap());
    let mut wanted = covered(&all, differs.len());
    wanted[..1000].fill(false);
    assert_eq!(covered(&late, differs.len())[1000..], wanted[1000..]);
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
    let after = ranges(delta(&client, (&one, &two), 0, 0).unwrap());
    assert_eq!(after, all, "snapshots outlive their volume");
    host.until_nothing();
}

#[test]
fn the_blocks_of_snapshots_have_their_codes() {
    use Code::{InvalidArgument, NotFound, OutOfRange};
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Block, "device");
    let id = disk.snapshot(&client, "one").snapshot_id;
    let past = i64::try_from(Kind::Block.size() + MIB).unwrap();
    refused(InvalidArgument, allocated(&client, "", 0));
    refused(NotFound, allocated(&client, "unknown", 0));
    refused(OutOfRange, allocated(&client, &id, -1));
    refused(OutOfRange, allocated(&client, &id, past));
    refused(InvalidArgument, delta(&client, ("", &id), 0, 0));
    refused(InvalidArgument, delta(&client, (&id, ""), 0, 0));
    refused(NotFound, delta(&client, ("unknown", &id), 0, 0));
    refused(NotFound, delta(&client, (&id, "unknown"), 0, 0));
    refused(OutOfRange, delta(&client, (&id, &id), -1, 0));
    refused(OutOfRange, delta(&client, (&id, &id), past, 0));
    assert_eq!(
        delta(&client, (&id, &id), 0, 0)
            .unwrap()
            .iter()
            .map(|one| one.block_metadata.len())
            .sum::<usize>(),
        0
    );
    // Files have no list of blocks.
    let files = Disk::created(&client, Kind::Union, "files");
    let id = files.snapshot(&client, "of files").snapshot_id;
    let code = allocated(&client, &id, 0).unwrap_err().code();
    assert!([InvalidArgument, Code::FailedPrecondition].contains(&code), "{code:?}");
}
