//! A node with its kubelet and its sidecars: 100 pods that come and go over 20 claims, while the
//! driver is killed and calls run out of time. Nothing may be lost, and nothing may be left.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::client::{Answer, Client};
use crate::host::{Chance, Host, Over};
use crate::kinds::{Disk, Kind, target};
use crate::wire::*;

const CLAIMS: u64 = 20;
const PODS: u64 = 100;
const WORKERS: u64 = 4;

/// A claim, its volume, and what its pods have written, by the number of the pod.
struct Claim {
    disk: Disk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    users: u64,
    written: BTreeMap<u64, String>,
}

struct Kubelet<'a> {
    host: &'a Host,
    client: Client,
    chance: Chance,
}

impl Kubelet<'_> {
    /// A call as the kubelet makes it: with a time limit that is sometimes far too short, again
    /// after a failure, and sometimes once more after it was done.
    fn call<T>(&mut self, call: impl Fn(&Client) -> Answer<T>) -> T {
        while self.chance.below(4) == 0 {
            let hasty = self.client.within(Duration::from_micros(self.chance.below(20_000)));
            if call(&hasty).is_ok() && self.chance.below(2) == 0 {
                break;
            }
        }
        self.client.insist(call).unwrap()
    }

    fn path(&self, pod: u64) -> PathBuf {
        target(self.host, &format!("pod-{pod}"))
    }

    /// The volume of a pod is staged with the first of its users, and published.
    fn begin(&mut self, claim: &Claim, pod: u64) -> PathBuf {
        let at = self.path(pod);
        let mut state = claim.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.users == 0 {
            let request = claim.disk.stage_request(self.host);
            self.call(|client| client.node_stage_volume(request.clone()));
        }
        state.users += 1;
        drop(state);
        let request = claim.disk.publish_request(self.host, &at);
        self.call(|client| client.node_publish_volume(request.clone()));
        at
    }

    fn end(&mut self, claim: &Claim, at: &Path) {
        let request = claim.disk.unpublish_request(at);
        self.call(|client| client.node_unpublish_volume(request.clone()));
        assert!(!at.exists(), "{} stays", at.display());
        let mut state = claim.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.users -= 1;
        if state.users == 0 {
            let request = claim.disk.unstage_request(self.host);
            self.call(|client| client.node_unstage_volume(request.clone()));
        }
    }

    /// A pod checks what those before it wrote, writes its own, and ends.
    fn run(&mut self, claim: &Claim, pod: u64) {
        let at = self.begin(claim, pod);
        {
            let mut state = claim.state.lock().unwrap_or_else(PoisonError::into_inner);
            check(claim.disk.kind, &at, &state.written);
            let text = format!("pod {pod} {}", self.chance.below(u64::MAX));
            write(claim.disk.kind, &at, pod, &text);
            state.written.insert(pod, text);
        }
        if self.chance.below(3) == 0 {
            let request = NodeGetVolumeStatsRequest {
                volume_id: claim.disk.id.clone(),
                volume_path: at.to_str().unwrap().to_owned(),
                ..Default::default()
            };
            let answer = self.client.insist(|client| client.node_get_volume_stats(request.clone()));
            assert!(!answer.unwrap().usage.is_empty());
        }
        std::thread::sleep(Duration::from_millis(self.chance.below(20)));
        self.end(claim, &at);
    }
}

fn write(kind: Kind, at: &Path, pod: u64, text: &str) {
    if kind.is_block() {
        let device = OpenOptions::new().write(true).open(at).unwrap();
        device.write_all_at(text.as_bytes(), pod * 4096).unwrap();
        device.sync_all().unwrap();
    } else {
        fs::write(at.join(pod.to_string()), text).unwrap();
    }
}

fn check(kind: Kind, at: &Path, written: &BTreeMap<u64, String>) {
    for (pod, text) in written {
        if kind.is_block() {
            let mut found = vec![0; text.len()];
            let device = fs::File::open(at).unwrap();
            device.read_exact_at(&mut found, pod * 4096).unwrap();
            assert_eq!(String::from_utf8_lossy(&found), *text, "{kind:?}");
        } else {
            let found = fs::read_to_string(at.join(pod.to_string())).unwrap();
            assert_eq!(found, *text, "{kind:?}");
        }
    }
}

/// The kind of a claim: one of xfs, which is large.
fn kind(number: u64) -> Kind {
    match (number % 4, number) {
        (_, 0) => Kind::Xfs,
        (0, _) => Kind::Local,
        (1, _) => Kind::Ext4,
        (2, _) => Kind::Block,
        _ => Kind::Union,
    }
}

/// The provisioner, with the faults of the node.
fn provisioned(kubelet: &mut Kubelet<'_>) -> Vec<Claim> {
    let claims = (0..CLAIMS).map(|number| {
        let request = kind(number).request(&format!("pvc-{number}"));
        let answer = kubelet.call(|client| client.create_volume(request.clone()));
        let disk = Disk::new(kind(number), answer.volume.unwrap());
        Claim { disk, state: Mutex::default() }
    });
    claims.collect()
}

/// Kills the driver again and again, until it is told to end. It runs then.
fn kill_at_times(host: &Host, mut chance: Chance, is_over: &AtomicBool) -> u64 {
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50 + chance.below(250)));
        host.restart();
        kills += 1;
    }
    kills
}

#[test]
fn a_hundred_pods_come_and_go_over_twenty_claims_while_the_driver_is_killed() {
    let Some(host) = Host::new() else { return };
    let mut chance = Chance::of_run();
    let mut kubelet = || Kubelet {
        host: &host,
        client: host.client(),
        chance: Chance::new(chance.below(u64::MAX).max(1)),
    };
    let (mut first, killer) = (kubelet(), kubelet().chance);
    let workers: Vec<_> = (0..WORKERS).map(|_| kubelet()).collect();
    let (is_over, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let (claims, kills) = std::thread::scope(|scope| {
        let over = Over(&is_over);
        let killer = scope.spawn(|| kill_at_times(&host, killer, &is_over));
        let claims = provisioned(&mut first);
        std::thread::scope(|inner| {
            for mut kubelet in workers {
                let (claims, next) = (&claims, &next);
                inner.spawn(move || {
                    loop {
                        let pod = next.fetch_add(1, Ordering::Relaxed);
                        if pod >= PODS {
                            break;
                        }
                        let claim = usize::try_from(kubelet.chance.below(CLAIMS)).unwrap();
                        kubelet.run(&claims[claim], pod);
                    }
                });
            }
        });
        drop(over);
        (claims, killer.join().unwrap())
    });
    assert!(kills > 0, "the driver was never killed");
    host.until_nothing();
    let mut found = 0;
    for claim in &claims {
        let at = first.begin(claim, PODS);
        let written = &claim.state.lock().unwrap().written;
        check(claim.disk.kind, &at, written);
        found += written.len();
        let request = claim.disk.unpublish_request(&at);
        first.call(|client| client.node_unpublish_volume(request.clone()));
        let request = claim.disk.unstage_request(&host);
        first.call(|client| client.node_unstage_volume(request.clone()));
        first.call(|client| claim.disk.delete(client));
    }
    assert_eq!(u64::try_from(found).unwrap(), PODS);
    let left = host.client().list_volumes(ListVolumesRequest::default()).unwrap().entries;
    assert_eq!(left, vec![]);
    host.until_nothing();
}
