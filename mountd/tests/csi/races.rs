//! Several clients at once: volumes in parallel, one name from several sides, and calls that are
//! given up.

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::Code;

use crate::client::{Answer, Client, may_repeat};
use crate::content;
use crate::host::{Chance, Host};
use crate::kinds::{ALL, Disk, Kind, delete_snapshot, from_volume, target};
use crate::wire::*;

/// Runs the same on several threads, each with a client of its own.
fn at_once<T: Send>(host: &Host, count: u64, work: impl Fn(&Client, u64) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..count).map(|index| scope.spawn(move || work(&host.client(), index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn twenty_four_volumes_live_at_once() {
    let Some(host) = Host::new() else { return };
    let ids = at_once(&host, 24, |client, index| {
        // One of xfs: it takes a second to make.
        let kind = match (index % 5, index) {
            (2, 3..) => Kind::Ext4,
            (kind, _) => ALL[usize::try_from(kind).unwrap()],
        };
        let disk = Disk::created(client, kind, &format!("volume {index}"));
        disk.stage(&host, client);
        let at = disk.publish(&host, client, &format!("pod-{index}"));
        content::write(kind, &at, index);
        let written = content::read(kind, &at);
        let copy = disk.of(client, &format!("copy {index}"), from_volume(&disk.id));
        copy.stage(&host, client);
        let second = copy.publish(&host, client, &format!("copy-{index}"));
        assert_eq!(content::read(kind, &second), written, "{copy:?}");
        for (disk, at) in [(&disk, &at), (&copy, &second)] {
            assert_eq!(content::read(kind, at), written, "{disk:?}");
            disk.unpublish(client, at);
            disk.unstage(&host, client);
            disk.delete(client).unwrap();
        }
        disk.id
    });
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 24);
    let left = host.client().list_volumes(ListVolumesRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
    host.until_nothing();
}

#[test]
fn racing_creations_of_one_name_make_one_volume() {
    let Some(host) = Host::new() else { return };
    for round in 0..6 {
        let kind = [Kind::Union, Kind::Ext4, Kind::Local][round % 3];
        let name = format!("raced {round}");
        let ids = at_once(&host, 8, |client, _| {
            let create = |client: &Client| client.create_volume(kind.request(&name));
            client.insist(create).unwrap().volume.unwrap().volume_id
        });
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 1);
        let volumes = host.client().list_volumes(ListVolumesRequest::default()).unwrap().entries;
        assert_eq!(volumes.len(), round + 1);
    }
}

#[test]
fn racing_creations_that_differ_have_one_winner() {
    let Some(host) = Host::new() else { return };
    for round in 0..4 {
        let name = format!("raced {round}");
        let answers = at_once(&host, 8, |client, index| {
            let kind = [Kind::Union, Kind::Local][usize::try_from(index % 2).unwrap()];
            (kind, client.insist(|client| client.create_volume(kind.request(&name))))
        });
        let mut winners = BTreeSet::new();
        for (kind, answer) in answers {
            match answer {
                Ok(answer) => {
                    let id = answer.volume.unwrap().volume_id;
                    winners.insert((kind == Kind::Union, id));
                }
                Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
    }
}

#[test]
fn racing_deletions_and_creations_of_one_name_end_in_one_state() {
    let Some(host) = Host::new() else { return };
    at_once(&host, 6, |client, index| {
        for _ in 0..10 {
            let create = |client: &Client| client.create_volume(Kind::Union.request("one"));
            let volume = client.insist(create).unwrap().volume.unwrap();
            if index % 2 == 0 {
                let disk = Disk::new(Kind::Union, volume);
                client.insist(|client| disk.delete(client)).unwrap();
            }
        }
    });
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "one");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    content::write(Kind::Union, &at, 1);
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
    assert_eq!(client.list_volumes(ListVolumesRequest::default()).unwrap().entries, vec![]);
    host.until_nothing();
}

/// Gives a call up at random moments, and repeats it until it is done.
fn impatient<T>(client: &Client, chance: &mut Chance, call: impl Fn(&Client) -> Answer<T>) -> T {
    for _ in 0..6 {
        match call(&client.within(Duration::from_micros(chance.below(30_000)))) {
            Ok(answer) => return answer,
            Err(status) => assert!(may_repeat(&status), "{status}"),
        }
    }
    client.insist(call).unwrap()
}

#[test]
fn calls_that_are_given_up_are_finished_by_their_repetition() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let mut chance = Chance::of_run();
    for round in 0..10 {
        let kind = [Kind::Union, Kind::Ext4, Kind::Block, Kind::Local][round % 4];
        let request = kind.request(&format!("given up {round}"));
        let create = |client: &Client| client.create_volume(request.clone());
        let answer = impatient(&client, &mut chance, create);
        let disk = Disk::new(kind, answer.volume.unwrap());
        let stage = disk.stage_request(&host);
        impatient(&client, &mut chance, |client| client.node_stage_volume(stage.clone()));
        let at = target(&host, &format!("pod-{round}"));
        let publish = disk.publish_request(&host, &at);
        impatient(&client, &mut chance, |client| client.node_publish_volume(publish.clone()));
        content::write(kind, &at, 1);
        let written = content::read(kind, &at);
        let request = CreateSnapshotRequest {
            source_volume_id: disk.id.clone(),
            name: format!("snapshot {round}"),
            ..Default::default()
        };
        let create = |client: &Client| client.create_snapshot(request.clone());
        let snapshot = impatient(&client, &mut chance, create).snapshot.unwrap();
        let unpublish = disk.unpublish_request(&at);
        impatient(&client, &mut chance, |client| client.node_unpublish_volume(unpublish.clone()));
        let unstage = disk.unstage_request(&host);
        impatient(&client, &mut chance, |client| client.node_unstage_volume(unstage.clone()));
        disk.stage(&host, &client);
        let at = disk.publish(&host, &client, "again");
        assert_eq!(content::read(kind, &at), written);
        disk.unpublish(&client, &at);
        disk.unstage(&host, &client);
        impatient(&client, &mut chance, |client| disk.delete(client));
        let id = &snapshot.snapshot_id;
        impatient(&client, &mut chance, |client| delete_snapshot(client, id));
    }
    assert_eq!(client.list_volumes(ListVolumesRequest::default()).unwrap().entries, vec![]);
    let left = client.list_snapshots(ListSnapshotsRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
    host.until_nothing();
}

#[test]
fn one_target_is_published_and_unpublished_from_several_sides() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for kind in [Kind::Union, Kind::Local, Kind::Block] {
        let disk = Disk::by_hand(&host, kind, &format!("{kind:?}"));
        disk.stage(&host, &client);
        let at = target(&host, "one");
        at_once(&host, 4, |client, index| {
            for _ in 0..10 {
                let publish =
                    |client: &Client| client.node_publish_volume(disk.publish_request(&host, &at));
                let unpublish =
                    |client: &Client| client.node_unpublish_volume(disk.unpublish_request(&at));
                if index % 2 == 0 {
                    client.insist(publish).unwrap();
                } else {
                    client.insist(unpublish).unwrap();
                }
            }
        });
        disk.publish(&host, &client, "one");
        let stacked = host.mounts().into_iter().filter(|point| *point == at).count();
        assert_eq!(stacked, 1, "{kind:?}");
        disk.unpublish(&client, &at);
        assert!(!host.is_mounted(&at));
        disk.unstage(&host, &client);
    }
    host.until_nothing();
}
