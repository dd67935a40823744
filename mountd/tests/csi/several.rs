//! What several clients, several drivers, and dead or hanging processes do to each other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::client::{Answer, Client};
use crate::host::{Host, MIB};
use crate::kinds::{Disk, Kind, at_least, map, target};
use crate::until::until;
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::*;

fn expand(client: &Client, disk: &Disk, bytes: u64) -> Answer<ControllerExpandVolumeResponse> {
    client.controller_expand_volume(ControllerExpandVolumeRequest {
        volume_id: disk.id.clone(),
        capacity_range: at_least(bytes),
        volume_capability: Some(disk.capability.clone()),
        ..Default::default()
    })
}

fn expand_on_node(client: &Client, disk: &Disk, at: &Path, bytes: u64) -> Answer<i64> {
    let request = NodeExpandVolumeRequest {
        volume_id: disk.id.clone(),
        volume_path: at.to_str().unwrap().to_owned(),
        capacity_range: at_least(bytes),
        ..Default::default()
    };
    client.node_expand_volume(request).map(|answer| answer.capacity_bytes)
}

#[test]
fn of_several_sizes_at_once_the_largest_stays() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for number in 0..6 {
        let disk = Disk::created(&client, Kind::Union, &format!("grows {number}"));
        disk.stage(&host, &client);
        let at = disk.publish(&host, &client, &format!("pod {number}"));
        let base = Kind::Union.size();
        let largest = base + 64 * MIB;
        std::thread::scope(|scope| {
            for more in [64, 16, 48, 32] {
                let (client, disk, at) = (host.client(), &disk, &at);
                scope.spawn(move || {
                    // One that comes while another call works on the volume is told to come again.
                    let bytes = base + more * MIB;
                    until("a size", || match more % 32 {
                        0 => expand(&client, disk, bytes).is_ok(),
                        _ => expand_on_node(&client, disk, at, bytes).is_ok(),
                    });
                });
            }
        });
        let answer = expand(&client, &disk, MIB).unwrap();
        assert_eq!(u64::try_from(answer.capacity_bytes).unwrap(), largest);
        disk.unpublish(&client, &at);
        disk.unstage(&host, &client);
        disk.delete(&client).unwrap();
    }
    host.until_nothing();
}

/// A second driver on the data root. It ends when it is dropped.
struct Second(Child);

impl Second {
    fn start(host: &Host) -> (Self, Client) {
        let socket = host.at("second.sock");
        let endpoint = format!("unix://{}", socket.display());
        let mut command = host.lamina(&[
            "serve",
            "--csi",
            &endpoint,
            "--csi-role",
            "controller",
            "--node",
            "here",
        ]);
        command.arg("--root").arg(host.at("root")).arg("--config").arg(host.at("lamina.toml"));
        let second = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let client = host.client_of(&socket);
        until("the second driver", || client.probe(ProbeRequest {}).is_ok());
        (second, client)
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_controller_that_starts_late_keeps_no_volume_in_use() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "used");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    let (_second, controller) = Second::start(&host);
    let refused = disk.delete(&controller).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    until("the end of the mount", || host.mounts().is_empty());
    disk.delete(&client).unwrap();
    assert_eq!(controller.list_volumes(ListVolumesRequest::default()).unwrap().entries, vec![]);
}

/// The processes whose command line has a text.
fn processes(text: &str) -> Vec<Pid> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then(|| Pid::from_raw(id)).flatten()
    });
    all.collect()
}

#[test]
fn a_view_whose_process_died_is_shown_again() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Local, "viewed").for_group(4000);
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    fs::write(at.join("file"), "data").unwrap();
    let views = format!("volume view {}", host.at("root").display());
    for pid in processes(&views) {
        kill_process(pid, Signal::KILL).unwrap();
    }
    until("the death of the view", || fs::read(at.join("file")).is_err());
    let second = disk.publish(&host, &client, "other");
    assert_eq!(fs::read_to_string(second.join("file")).unwrap(), "data");
    disk.publish(&host, &client, "pod");
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "data");
    disk.unpublish(&client, &at);
    disk.unpublish(&client, &second);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
    host.until_nothing();
}

#[test]
fn the_group_of_a_view_becomes_nobody_else() {
    use std::os::unix::process::CommandExt;
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Local, "setuid");
    disk.stage(&host, &client);
    let plain = disk.publish(&host, &client, "plain");
    fs::copy("/usr/bin/id", plain.join("id")).unwrap();
    fs::set_permissions(plain.join("id"), fs::Permissions::from_mode(0o4700)).unwrap();
    for path in host.at("kubelet").ancestors().take(3) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let pod = disk.for_group(4000).publish(&host, &client, "pod");
    let said = Command::new(pod.join("id")).arg("-u").uid(54321).gid(4000).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "54321", "{said:?}");
    disk.unpublish(&client, &pod);
    disk.unpublish(&client, &plain);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
}

fn stats(client: &Client, disk: &Disk, at: &Path) -> Answer<NodeGetVolumeStatsResponse> {
    client.node_get_volume_stats(NodeGetVolumeStatsRequest {
        volume_id: disk.id.clone(),
        volume_path: at.to_str().unwrap().to_owned(),
        ..Default::default()
    })
}

#[test]
fn a_volume_that_hangs_stops_no_other_call() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let disk = Disk::created(&client, Kind::Union, "hangs");
    disk.stage(&host, &client);
    let at = disk.publish(&host, &client, "pod");
    let serving = processes(&format!("volume serve {}", host.at("root").display()));
    assert_eq!(serving.len(), 1);
    kill_process(serving[0], Signal::STOP).unwrap();
    let hasty = client.within(Duration::from_millis(20));
    let codes: Vec<Code> = (0..200)
        .map(|_| stats(&hasty, &disk, &at).err().map_or(Code::Ok, |one| one.code()))
        .collect();
    let others = (
        client.probe(ProbeRequest {}),
        Disk::created(&client, Kind::Union, "other").delete(&client),
        client.list_volumes(ListVolumesRequest::default()),
    );
    kill_process(serving[0], Signal::CONT).unwrap();
    assert!(codes.iter().filter(|code| **code == Code::Aborted).count() > 150, "{codes:?}");
    others.0.unwrap();
    others.1.unwrap();
    assert_eq!(others.2.unwrap().entries.len(), 1);
    until("the statistics", || stats(&client, &disk, &at).is_ok());
    disk.unpublish(&client, &at);
    disk.unstage(&host, &client);
    disk.delete(&client).unwrap();
    host.until_nothing();
}

#[test]
fn an_id_and_a_name_are_one_volume() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for number in 0..10 {
        let name = format!("alone-{number}");
        let disk = Disk::created(&client, Kind::Local, &name).in_mode(Mode::SingleNodeSingleWriter);
        disk.stage(&host, &client);
        let named = Disk { id: name.clone(), ..disk.clone() };
        let staging = disk.staging(&host).to_str().unwrap().to_owned();
        let publish = |disk: &Disk, pod: &str| {
            let at = target(&host, &format!("{pod}-{number}"));
            let request = NodePublishVolumeRequest {
                staging_target_path: staging.clone(),
                ..disk.publish_request(&host, &at)
            };
            let is_published = host.client().node_publish_volume(request).is_ok();
            (at, is_published)
        };
        let both = std::thread::scope(|scope| {
            let one = scope.spawn(|| publish(&disk, "id"));
            let other = scope.spawn(|| publish(&named, "name"));
            [one.join().unwrap(), other.join().unwrap()]
        });
        let published = both.iter().filter(|(_, is_published)| *is_published).count();
        assert!(published <= 1, "two writers");
        for (at, is_published) in &both {
            if *is_published {
                disk.unpublish(&client, at);
            }
        }
        disk.unstage(&host, &client);
        disk.delete(&client).unwrap();
    }
}

#[test]
fn an_inline_volume_has_a_size() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    for (driver, number) in [("local", 1), ("union", 2)] {
        let volume_id = format!("csi-{number:064}");
        let context = map(&[("csi.storage.k8s.io/ephemeral", "true"), ("driver", driver)]);
        let volume = Volume { volume_id, volume_context: context, ..Volume::default() };
        let disk = Disk::new(Kind::Union, volume);
        let at = target(&host, driver);
        let request = NodePublishVolumeRequest {
            staging_target_path: String::new(),
            ..disk.publish_request(&host, &at)
        };
        client.node_publish_volume(request).unwrap();
        let stat = rustix::fs::statvfs(&at).unwrap();
        assert_eq!(stat.f_blocks * stat.f_frsize, 1 << 30, "{driver}");
        disk.unpublish(&client, &at);
    }
    host.until_nothing();
}
