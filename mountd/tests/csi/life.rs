//! The whole life of a volume of each kind, and what becomes of its content.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tonic::Code;

use crate::client::{Client, refused};
use crate::content;
use crate::host::{Host, MIB};
use crate::kinds::{
    Disk, Kind, at_least, delete_snapshot, for_each_kind, from_snapshot, from_volume,
};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::volume_usage::Unit;
use crate::wire::*;

for_each_kind! {
    a_volume_lives_from_its_creation_to_its_deletion => whole_life: Local Ext4 Xfs Union Block;
    snapshots_restores_and_clones_have_all_attributes => copies: Local Ext4 Xfs Union Block;
    what_is_read_only_cannot_be_written => read_only: Local Ext4 Xfs Union Block;
    a_volume_takes_its_size_and_no_more => bounded: Local Ext4 Xfs Union Block;
    a_volume_does_not_see_its_neighbour => isolated: Local Ext4 Union Block;
    a_volume_grows_while_it_is_used => grown: Local Ext4 Xfs Union Block;
}

fn volumes(client: &Client) -> usize {
    client.list_volumes(ListVolumesRequest::default()).unwrap().entries.len()
}

fn whole_life(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let answer = client.create_volume(kind.request("pvc-1")).unwrap().volume.unwrap();
    assert!(answer.capacity_bytes >= i64::try_from(kind.size()).unwrap(), "{answer:?}");
    let topology = &answer.accessible_topology;
    assert_eq!(topology.len(), 1, "{topology:?}");
    let disk = Disk::new(kind, answer);
    for _ in 0..2 {
        disk.stage(&host, &client);
    }
    let pods = ["a", "b", "c"].map(|pod| disk.publish(&host, &client, pod));
    content::write(kind, &pods[0], 1);
    let written = content::read(kind, &pods[0]);
    for pod in &pods {
        assert_eq!(content::read(kind, pod), written, "{}", pod.display());
        assert_eq!(disk.publish(&host, &client, pod_of(pod)), *pod, "a repeat");
        let is_device = pod.metadata().unwrap().file_type().is_block_device();
        assert_eq!(is_device, kind.is_block());
    }
    let snapshot = disk.snapshot(&client, "snapshot-1");
    assert!(snapshot.ready_to_use && snapshot.creation_time.is_some(), "{snapshot:?}");
    assert_eq!(snapshot.source_volume_id, disk.id);
    refused(Code::FailedPrecondition, disk.delete(&client));
    for pod in &pods {
        disk.unpublish(&client, pod);
        disk.unpublish(&client, pod);
    }
    for _ in 0..2 {
        disk.unstage(&host, &client);
    }
    host.until_nothing();
    disk.delete(&client).unwrap();
    disk.delete(&client).unwrap();
    assert_eq!(volumes(&client), 0);
    let restored = disk.of(&client, "pvc-2", from_snapshot(&snapshot.snapshot_id));
    restored.stage(&host, &client);
    let pod = restored.publish(&host, &client, "d");
    assert_eq!(content::read(kind, &pod), written, "the snapshot outlives its volume");
    restored.unpublish(&client, &pod);
    restored.unstage(&host, &client);
    restored.delete(&client).unwrap();
    for _ in 0..2 {
        delete_snapshot(&client, &snapshot.snapshot_id).unwrap();
    }
    host.until_nothing();
}

fn pod_of(target: &Path) -> &str {
    target.parent().unwrap().file_name().unwrap().to_str().unwrap()
}

fn copies(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, kind, "source");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "source");
    content::write(kind, &at, 1);
    let first = content::read(kind, &at);
    let snapshot = disk.snapshot(&client, "first");
    content::write(kind, &at, 2);
    let second = content::read(kind, &at);
    assert_ne!(first, second, "the test writes nothing");
    let restored = disk.of(&client, "restored", from_snapshot(&snapshot.snapshot_id));
    let cloned = disk.of(&client, "cloned", from_volume(&disk.id));
    let mut shown = vec![(disk.clone(), at.clone(), second.clone())];
    for (copy, wanted) in [(restored, first), (cloned, second)] {
        copy.stage(&host, &client);
        let at = copy.publish(&host, &client, &copy.id);
        assert_eq!(content::read(kind, &at), wanted, "{copy:?}");
        shown.push((copy, at, wanted));
    }
    // A copy is on its own.
    content::write(kind, &shown[1].1, 3);
    for (disk, at, wanted) in [&shown[0], &shown[2]] {
        assert_eq!(content::read(kind, at), *wanted, "{disk:?}");
    }
    for (disk, at, _) in &shown {
        disk.unpublish(&client, at);
        disk.unstage(&host, &client);
        disk.delete(&client).unwrap();
    }
    host.until_nothing();
}

/// Whether this process may grow a mounted ext4: the kernel wants CAP_SYS_RESOURCE, the bit 24.
fn may_grow_ext4() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() >> 24 & 1 == 1
}

#[track_caller]
fn cannot_write(at: &Path) {
    let path = at.join("new");
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    let code = opened.and_then(|file| {
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).and_then(|()| file.sync_all())
    });
    let error = code.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
}

fn read_only(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, kind, "read only");
    disk.stage(&host, &client);
    let writer = disk.publish(&host, &client, "writer");
    content::write(kind, &writer, 5);
    let target = crate::kinds::target(&host, "reader");
    let request =
        NodePublishVolumeRequest { readonly: true, ..disk.publish_request(&host, &target) };
    client.node_publish_volume(request.clone()).unwrap();
    client.node_publish_volume(request).unwrap();
    // Who starts the pod gives it a device without the right to write.
    let is_kept_here = !kind.is_block();
    if is_kept_here {
        cannot_write(&target);
    }
    assert_eq!(content::read(kind, &target), content::read(kind, &writer));
    content::write(kind, &writer, 6);
    refused(Code::AlreadyExists, client.node_publish_volume(disk.publish_request(&host, &target)));
    disk.unpublish(&client, &target);
    disk.unpublish(&client, &writer);
    disk.unstage(&host, &client);
    let reader = disk.in_mode(Mode::SingleNodeReaderOnly);
    reader.stage(&host, &client);
    let at = reader.publish(&host, &client, "mode");
    if is_kept_here {
        cannot_write(&at);
    }
    reader.unpublish(&client, &at);
    reader.unstage(&host, &client);
    reader.delete(&client).unwrap();
    host.until_nothing();
}

fn bounded(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, kind, "bounded");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    let size = content::size(kind, &at);
    assert!(size <= kind.size() && size > kind.size() / 4 * 3, "{size}");
    let usage = |at: &Path| {
        let request = NodeGetVolumeStatsRequest {
            volume_id: disk.id.clone(),
            volume_path: at.to_str().unwrap().to_owned(),
            ..NodeGetVolumeStatsRequest::default()
        };
        client.node_get_volume_stats(request).unwrap()
    };
    let before = usage(&at);
    let written = content::fill(kind, &at);
    assert!(written <= kind.size() && written > kind.size() / 2, "{written}");
    let after = usage(&at);
    let bytes = |stats: &NodeGetVolumeStatsResponse, unit| {
        stats.usage.iter().find(|one| one.unit() == unit).cloned()
    };
    let total = bytes(&before, Unit::Bytes).unwrap().total;
    assert_eq!(u64::try_from(total).unwrap(), size);
    assert_eq!(bytes(&after, Unit::Bytes).unwrap().total, total);
    let condition = before.volume_condition.as_ref();
    assert!(condition.is_none_or(|condition| !condition.abnormal));
    if !kind.is_block() {
        let used = |stats| bytes(stats, Unit::Bytes).unwrap().used;
        let grown = u64::try_from(used(&after) - used(&before)).unwrap();
        assert!(grown + MIB >= written && grown <= written + 4 * MIB, "{grown} of {written}");
        let inodes = bytes(&after, Unit::Inodes).unwrap();
        assert!(inodes.total > 0 && inodes.used > 0, "{inodes:?}");
    }
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
    host.until_nothing();
}

fn isolated(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disks = ["one", "two"].map(|name| Disk::created(&client, kind, name));
    let pods = [0, 1].map(|index: usize| {
        disks[index].stage(&host, &client);
        disks[index].publish(&host, &client, &disks[index].id)
    });
    content::write(kind, &pods[1], 2);
    let second = content::read(kind, &pods[1]);
    content::fill(kind, &pods[0]);
    assert_eq!(content::read(kind, &pods[1]), second);
    content::write(kind, &pods[1], 3);
    if !kind.is_block() {
        assert_ne!(pods[0].metadata().unwrap().dev(), 0);
        assert!(fs::rename(pods[0].join("fill"), pods[1].join("fill")).is_err(), "one file system");
    }
    disks[0].unpublish(&client, &pods[0]);
    disks[0].unstage(&host, &client);
    disks[0].delete(&client).unwrap();
    content::write(kind, &pods[1], 4);
    assert!(!content::read(kind, &pods[1]).is_empty());
    disks[1].unpublish(&client, &pods[1]);
    disks[1].unstage(&host, &client);
    disks[1].delete(&client).unwrap();
    host.until_nothing();
}

fn grown(kind: Kind) {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, kind, "growing");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    content::write(kind, &at, 1);
    let (before, written) = (content::size(kind, &at), content::read(kind, &at));
    let wanted = kind.size() * 2;
    let request = ControllerExpandVolumeRequest {
        volume_id: disk.id.clone(),
        capacity_range: at_least(wanted),
        volume_capability: Some(disk.capability.clone()),
        ..ControllerExpandVolumeRequest::default()
    };
    let is_online = !matches!(kind, Kind::Ext4) || may_grow_ext4();
    if !is_online {
        refused(Code::FailedPrecondition, client.controller_expand_volume(request.clone()));
        disk.unpublish(&client, &at);
        disk.unstage(&host, &client);
        client.controller_expand_volume(request.clone()).unwrap();
        disk.stage(&host, &client);
        disk.publish(&host, &client, "pod");
    }
    for _ in 0..2 {
        let answer = client.controller_expand_volume(request.clone()).unwrap();
        assert!(u64::try_from(answer.capacity_bytes).unwrap() >= wanted, "{answer:?}");
        let request = NodeExpandVolumeRequest {
            volume_id: disk.id.clone(),
            volume_path: at.to_str().unwrap().to_owned(),
            capacity_range: at_least(wanted),
            staging_target_path: disk.staging(&host).to_str().unwrap().to_owned(),
            volume_capability: Some(disk.capability.clone()),
            ..NodeExpandVolumeRequest::default()
        };
        if answer.node_expansion_required {
            client.node_expand_volume(request).unwrap();
        }
    }
    let size = content::size(kind, &at);
    assert!(size > before + kind.size() / 4 * 3 && size <= wanted, "{before} became {size}");
    assert_eq!(content::read(kind, &at), written);
    let smaller =
        ControllerExpandVolumeRequest { capacity_range: at_least(kind.size()), ..request };
    let answer = client.controller_expand_volume(smaller).unwrap();
    assert!(u64::try_from(answer.capacity_bytes).unwrap() >= wanted, "large enough is fine");
    let wide = CreateVolumeRequest {
        capacity_range: at_least(wanted * 2),
        volume_content_source: from_volume(&disk.id),
        ..kind.request("wider copy")
    };
    let copy = Disk::new(kind, client.create_volume(wide).unwrap().volume.unwrap());
    copy.stage(&host, &client);
    let wide = copy.publish(&host, &client, "wider");
    assert!(content::size(kind, &wide) > wanted, "a larger copy has the size of its source");
    assert_eq!(content::read(kind, &wide), written);
    for (disk, at) in [(&disk, &at), (&copy, &wide)] {
        disk.unpublish(&client, at);
        disk.unstage(&host, &client);
        disk.delete(&client).unwrap();
    }
    host.until_nothing();
}
