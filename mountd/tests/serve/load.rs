//! Many clients over many volumes: latency and memory.
//!
//! The bounds are those of a slow and busy host. `scripts/plugin-load` prints the figures;
//! `LAMINA_LOAD` sets clients and volumes.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, VolumeService};
use serde_json::{Value, json};

use crate::client::Client;
use crate::daemon::{Daemon, Place};

/// Clients and volumes.
const USUAL: (usize, usize) = (64, 1000);
/// Mounts of each client.
const ROUNDS: usize = 10;
/// Looks at records between a mount and an unmount.
const LOOKS: usize = 5;
/// The bound of the slowest hundredth. dockerd waits for 60 s.
const GET: Duration = Duration::from_secs(2);
const MOUNT: Duration = Duration::from_secs(10);
/// The most memory of the daemon. Sixty clients are no reason for more.
const RSS_KIB: u64 = 128 << 10;

/// The times of the calls of one name, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn of(all: &[(&'static str, Duration)], name: &str) -> Self {
        let mut times: Vec<_> =
            all.iter().filter(|(call, _)| *call == name).map(|(_, time)| *time).collect();
        times.sort();
        Self(times)
    }

    fn share(&self, hundredths: usize) -> Duration {
        self.0[(self.0.len() - 1) * hundredths / 100]
    }
}

fn size() -> (usize, usize) {
    let Ok(text) = std::env::var("LAMINA_LOAD") else { return USUAL };
    let (clients, volumes) = text.split_once(' ').expect("CLIENTS VOLUMES");
    (clients.parse().unwrap(), volumes.parse().unwrap())
}

/// The named line of the status of the daemon, in KiB.
fn memory(daemon: &Daemon, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let value = status.lines().find_map(|one| one.strip_prefix(line)).unwrap();
    value.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
}

fn timed(
    client: &mut Client,
    times: &mut Vec<(&'static str, Duration)>,
    call: &'static str,
    body: Value,
) -> Value {
    let start = Instant::now();
    let reply = client.ok(call, body);
    times.push((call, start.elapsed()));
    reply
}

/// Mounts volumes that no other client has, and looks at those of others.
fn one_client(daemon: &Daemon, number: usize, volumes: usize) -> Vec<(&'static str, Duration)> {
    let mut client = daemon.client();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let own = (number * ROUNDS + round) % volumes;
        let (name, id) = (format!("v{own}"), format!("{number}-{round}"));
        let id = json!({"Name": name, "ID": id});
        let mounted = timed(&mut client, &mut times, "Mount", id.clone());
        assert!(mounted["Mountpoint"].as_str().unwrap().contains(&format!("/{name}/")));
        for look in 0..LOOKS {
            let other = format!("v{}", (own * 7 + look) % volumes);
            let got = timed(&mut client, &mut times, "Get", json!({"Name": other}));
            assert_eq!(got["Volume"]["Name"], other);
        }
        timed(&mut client, &mut times, "Unmount", id);
    }
    times
}

#[test]
fn many_clients_over_many_volumes_wait_for_moments() {
    let (clients, count) = size();
    let place = Place::new();
    let made = VolumeService::open(&place.at("root")).unwrap();
    thread::scope(|scope| {
        for part in 0..8 {
            let made = &made;
            scope.spawn(move || {
                for number in (part..count).step_by(8) {
                    made.create(NewVolume::new(format!("v{number}").parse().unwrap())).unwrap();
                }
            });
        }
    });
    drop(made);
    let daemon = place.start();
    assert_eq!(daemon.client().names().len(), count);
    let before = memory(&daemon, "VmRSS");
    let begin = Barrier::new(clients);
    let start = Instant::now();
    let all: Vec<_> = thread::scope(|scope| {
        let run = |number| {
            begin.wait();
            one_client(&daemon, number, count)
        };
        let all: Vec<_> = (0..clients).map(|one| scope.spawn(move || run(one))).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let took = start.elapsed();
    let most = memory(&daemon, "VmHWM");
    eprintln!("{clients} clients, {count} volumes, {} calls in {took:.1?}", all.len());
    for call in ["Get", "Mount", "Unmount"] {
        let times = Times::of(&all, call);
        let [half, most, last] = [50, 99, 100].map(|share| times.share(share));
        eprintln!("{call:8} p50 {half:>8.1?}  p99 {most:>8.1?}  most {last:>8.1?}");
    }
    eprintln!("memory   {before} KiB before, {most} KiB at the most");
    assert!(Times::of(&all, "Get").share(99) < GET);
    assert!(Times::of(&all, "Mount").share(99) < MOUNT);
    assert!(most < RSS_KIB, "{most} KiB");
}
