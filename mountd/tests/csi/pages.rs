//! Lists in pages, while what they list comes and goes.

use std::collections::BTreeSet;

use tonic::Code;

use crate::client::{Client, refused};
use crate::host::Host;
use crate::kinds::{Disk, Kind, delete_snapshot};
use crate::wire::*;

fn page(client: &Client, max_entries: i32, token: &str) -> (Vec<String>, String) {
    let starting_token = token.to_owned();
    let answer = client.list_volumes(ListVolumesRequest { max_entries, starting_token }).unwrap();
    let ids = answer.entries.into_iter().map(|entry| entry.volume.unwrap().volume_id);
    (ids.collect(), answer.next_token)
}

#[test]
fn pages_show_each_volume_once_while_others_go() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let made: Vec<Disk> =
        (0..11).map(|index| Disk::created(&client, Kind::Local, &format!("v{index}"))).collect();
    let (all, token) = page(&client, 0, "");
    assert_eq!((all.len(), token.as_str()), (11, ""));
    let (first, token) = page(&client, 4, "");
    assert_eq!(first.len(), 4);
    assert!(!token.is_empty());
    // The last one that was shown goes, one that was shown, and one that was not.
    let gone = [&first[3], &first[0], all.iter().find(|id| !first.contains(id)).unwrap()];
    for disk in made.iter().filter(|disk| gone.contains(&&disk.id)) {
        disk.delete(&client).unwrap();
    }
    let mut seen: Vec<String> = first.clone();
    let mut token = token;
    while !token.is_empty() {
        let (ids, next) = page(&client, 3, &token);
        assert!(!ids.is_empty() && ids.len() <= 3, "{ids:?}");
        seen.extend(ids);
        token = next;
    }
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "one was shown twice: {seen:?}");
    let stays = made.iter().map(|disk| &disk.id).filter(|id| !gone.contains(id));
    assert!(stays.into_iter().all(|id| once.contains(id)), "one was left out: {seen:?}");
    assert_eq!(seen.len(), 10, "one that is gone was shown");
}

#[test]
fn a_token_that_nobody_gave_is_refused() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for token in ["x", "999999", "-1", "../", "\u{0}"] {
        let request = ListVolumesRequest { max_entries: 1, starting_token: token.to_owned() };
        refused(Code::Aborted, client.list_volumes(request));
        let starting_token = token.to_owned();
        let request = ListSnapshotsRequest { starting_token, ..Default::default() };
        refused(Code::Aborted, client.list_snapshots(request));
    }
    let request = ListVolumesRequest { max_entries: -1, ..Default::default() };
    refused(Code::InvalidArgument, client.list_volumes(request));
    let request = ListSnapshotsRequest { max_entries: -1, ..Default::default() };
    refused(Code::InvalidArgument, client.list_snapshots(request));
}

#[test]
fn pages_of_snapshots_show_each_once_while_others_go() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "source");
    for index in 0..7 {
        disk.snapshot(&client, &format!("s{index}"));
    }
    let page = |token: &str| {
        let request = ListSnapshotsRequest {
            max_entries: 2,
            starting_token: token.to_owned(),
            source_volume_id: disk.id.clone(),
            ..Default::default()
        };
        let answer = client.list_snapshots(request).unwrap();
        let ids = answer.entries.into_iter().map(|entry| entry.snapshot.unwrap().snapshot_id);
        (ids.collect::<Vec<_>>(), answer.next_token)
    };
    let (mut seen, mut token) = page("");
    delete_snapshot(&client, &seen[1]).unwrap();
    while !token.is_empty() {
        let (ids, next) = page(&token);
        seen.extend(ids);
        token = next;
    }
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), once.len()), (7, 7), "{seen:?}");
}
