//! Ids, names and paths that somebody chose to do harm.

use std::fs;
use std::path::Path;

use tonic::Code;

use crate::client::{Client, refused};
use crate::content;
use crate::host::Host;
use crate::kinds::{Disk, Kind, delete_snapshot, from_snapshot, from_volume};
use crate::wire::*;

fn ids(host: &Host) -> Vec<String> {
    let mut found: Vec<String> = [
        "../x",
        "../../victim",
        "/etc/passwd",
        "a\0b",
        ".",
        "..",
        "/",
        "a/b",
        "*",
        "%2e%2e",
        " ",
        "-rf",
        "\u{202e}x",
        "' OR 1=1 --",
        "volumes/.locks",
        "x\n",
    ]
    .map(str::to_owned)
    .to_vec();
    found.push("x".repeat(10 << 10));
    found.push(host.at("victim").to_str().unwrap().to_owned());
    found
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, id: &str) {
    let code = answer.as_ref().err().map(tonic::Status::code);
    let wanted = [Some(Code::NotFound), Some(Code::InvalidArgument)];
    assert!(wanted.contains(&code), "{id:?}: {answer:?}");
}

#[test]
fn an_id_is_never_a_path() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    fs::create_dir_all(host.at("victim/_data")).unwrap();
    fs::write(host.at("victim/_data/precious"), "data").unwrap();
    let good = Disk::created(&client, Kind::Local, "good");
    for id in ids(&host) {
        let disk = Disk { id: id.clone(), ..good.clone() };
        let staging = good.staging(&host).to_str().unwrap().to_owned();
        let stage = NodeStageVolumeRequest {
            staging_target_path: staging.clone(),
            volume_id: id.clone(),
            ..good.stage_request(&host)
        };
        not_found(client.node_stage_volume(stage), &id);
        let path = crate::kinds::target(&host, "pod");
        let publish = NodePublishVolumeRequest {
            staging_target_path: staging,
            volume_id: id.clone(),
            ..good.publish_request(&host, &path)
        };
        not_found(client.node_publish_volume(publish), &id);
        let get = ControllerGetVolumeRequest { volume_id: id.clone() };
        not_found(client.controller_get_volume(get), &id);
        let request = CreateSnapshotRequest {
            source_volume_id: id.clone(),
            name: "of a stranger".to_owned(),
            ..Default::default()
        };
        not_found(client.create_snapshot(request), &id);
        for source in [from_volume(&id), from_snapshot(&id)] {
            let request = CreateVolumeRequest {
                volume_content_source: source,
                ..Kind::Local.request("of a stranger")
            };
            not_found(client.create_volume(request), &id);
        }
        // An unknown one is gone already; one that is no id may be refused.
        for code in [disk.delete(&client).err(), delete_snapshot(&client, &id).err()] {
            assert!(
                code.as_ref().is_none_or(|one| one.code() == Code::InvalidArgument),
                "{code:?}"
            );
        }
    }
    assert_eq!(fs::read_to_string(host.at("victim/_data/precious")).unwrap(), "data");
    let left = client.list_volumes(ListVolumesRequest::default()).unwrap().entries;
    assert_eq!(left.len(), 1);
    host.until_nothing();
}

#[test]
fn volumes_of_others_are_not_deleted_by_their_name() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let done = host.lamina(&["volume", "create", "theirs"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let id = "theirs".to_owned();
    let answer = client.delete_volume(DeleteVolumeRequest { volume_id: id, ..Default::default() });
    let done = host.lamina(&["volume", "inspect", "theirs"]).output().unwrap();
    assert!(done.status.success(), "a stranger's volume was deleted: {answer:?}");
    // A claim does not take over a volume that others made with its name.
    let answer = client.create_volume(Kind::Union.request("theirs"));
    if let Ok(answer) = answer {
        let disk = Disk::new(Kind::Union, answer.volume.unwrap());
        disk.delete(&client).unwrap();
        let done = host.lamina(&["volume", "inspect", "theirs"]).output().unwrap();
        assert!(done.status.success(), "a stranger's volume was taken");
    }
}

#[test]
fn names_are_any_text_of_128_bytes() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let names = [
        "ü".repeat(64),
        "x".repeat(128),
        "🦀".repeat(32),
        "../../etc/passwd".to_owned(),
        "/absolute".to_owned(),
        "new\nline \t and \\ and \"".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        " ".to_owned(),
        "-rf".to_owned(),
        "%s%n".to_owned(),
        "\u{202e}\u{200b}".to_owned(),
        "A".to_owned(),
        "a".to_owned(),
        "e\u{301}".to_owned(),
        "é".to_owned(),
    ];
    let mut ids = std::collections::BTreeSet::new();
    for name in &names {
        let disk = Disk::created(&client, Kind::Union, name);
        assert_eq!(Disk::created(&client, Kind::Union, name).id, disk.id, "{name:?}");
        assert!(!disk.id.is_empty() && disk.id.len() <= 128, "{:?}", disk.id);
        assert!(ids.insert(disk.id.clone()), "{name:?} is another one's volume");
        let snapshot = disk.snapshot(&client, name);
        assert_eq!(disk.snapshot(&client, name), snapshot, "{name:?}");
        let source = from_snapshot(&snapshot.snapshot_id);
        let copy = disk.of(&client, &format!("copy of {}", disk.id), source);
        copy.delete(&client).unwrap();
        delete_snapshot(&client, &snapshot.snapshot_id).unwrap();
    }
    for id in ids {
        let request = DeleteVolumeRequest { volume_id: id, ..Default::default() };
        client.delete_volume(request).unwrap();
    }
    host.until_nothing();
}

fn round(host: &Host, client: &Client, disk: &Disk, staging: &Path, target: &Path) {
    fs::create_dir_all(staging).unwrap();
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let staging_target_path = staging.to_str().unwrap().to_owned();
    let stage = NodeStageVolumeRequest {
        staging_target_path: staging_target_path.clone(),
        ..disk.stage_request(host)
    };
    client.node_stage_volume(stage).unwrap();
    let publish = NodePublishVolumeRequest {
        staging_target_path: staging_target_path.clone(),
        ..disk.publish_request(host, target)
    };
    client.node_publish_volume(publish.clone()).unwrap();
    client.node_publish_volume(publish).unwrap();
    content::write(disk.kind, target, 1);
    assert!(!content::read(disk.kind, target).is_empty());
    host.restart();
    client.insist(|client| client.node_unpublish_volume(disk.unpublish_request(target))).unwrap();
    assert!(!target.exists(), "{target:?} stays");
    let unstage = NodeUnstageVolumeRequest { volume_id: disk.id.clone(), staging_target_path };
    client.node_unstage_volume(unstage).unwrap();
    host.until_nothing();
}

#[test]
fn paths_have_spaces_newlines_and_backslashes() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for kind in [Kind::Union, Kind::Local, Kind::Ext4, Kind::Block] {
        let disk = Disk::by_hand(&host, kind, &format!("{kind:?}"));
        for name in
            ["with space", "new\nline", "back\\slash \\040", "täb\t#", "(deleted)", "a,b=c:d"]
        {
            let staging = host.at("kubelet").join(format!("stage {name}"));
            let target = host.at("kubelet").join(format!("pod {name}")).join(name);
            round(&host, &client, &disk, &staging, &target);
        }
    }
}

#[test]
fn paths_do_not_lead_up() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::by_hand(&host, Kind::Local, "one");
    disk.stage(&host, &client);
    let inside = host.directory("kubelet/pods/x").join("../../../escaped");
    let long = format!("/{}", "x/".repeat(2100));
    for path in [inside.to_str().unwrap(), "/..", "/", "relative", "/a\0b", long.as_str()] {
        let request = NodePublishVolumeRequest {
            target_path: path.to_owned(),
            ..disk.publish_request(&host, Path::new("/x"))
        };
        refused(Code::InvalidArgument, client.node_publish_volume(request));
        let request =
            NodeUnpublishVolumeRequest { volume_id: disk.id.clone(), target_path: path.to_owned() };
        refused(Code::InvalidArgument, client.node_unpublish_volume(request));
        let request = NodeStageVolumeRequest {
            staging_target_path: path.to_owned(),
            ..disk.stage_request(&host)
        };
        refused(Code::InvalidArgument, client.node_stage_volume(request));
    }
    assert!(!host.at("escaped").exists());
    // A link at the target leads nowhere.
    let path = crate::kinds::target(&host, "link");
    fs::create_dir(host.at("victim")).unwrap();
    fs::write(host.at("victim/precious"), "data").unwrap();
    std::os::unix::fs::symlink(host.at("victim"), &path).unwrap();
    let answer = client.node_publish_volume(disk.publish_request(&host, &path));
    assert!(answer.is_err(), "a volume was published through a link");
    assert!(!host.is_mounted(&host.at("victim")));
    client.node_unpublish_volume(disk.unpublish_request(&path)).unwrap_or_default();
    assert_eq!(fs::read_to_string(host.at("victim/precious")).unwrap(), "data");
    disk.unstage(&host, &client);
    host.until_nothing();
}

#[test]
fn secrets_are_not_in_the_log() {
    let Some(host) = Host::new() else { return };
    host.end();
    host.write_config("log = \"trace\"\n");
    host.start();
    let client = host.client();
    let secrets = crate::kinds::map(&[("password", "very-secret-word")]);
    let request =
        CreateVolumeRequest { secrets: secrets.clone(), ..Kind::Union.request("secretive") };
    let volume = client.create_volume(request.clone()).unwrap().volume.unwrap();
    let disk = Disk::new(Kind::Union, volume);
    let bad = CreateVolumeRequest { parameters: crate::kinds::map(&[("driver", "x")]), ..request };
    client.create_volume(bad).unwrap_err();
    let stage = NodeStageVolumeRequest { secrets: secrets.clone(), ..disk.stage_request(&host) };
    client.node_stage_volume(stage).unwrap();
    let path = crate::kinds::target(&host, "pod");
    let publish = NodePublishVolumeRequest { secrets, ..disk.publish_request(&host, &path) };
    client.node_publish_volume(publish).unwrap();
    disk.unpublish(&client, &path);
    disk.unstage(&host, &client);
    assert!(!host.log().contains("very-secret-word"), "{}", host.log());
    assert!(!host.log().is_empty(), "nothing was logged at all");
}
