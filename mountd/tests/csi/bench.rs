//! `scripts/bench csi`: how long calls take with many volumes, and what the idle driver costs.

use std::fs;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::host::Host;
use crate::kinds::{Disk, Kind};

/// A number of the environment, or another one.
fn set(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Prints the median and the 99th percentile of times, in milliseconds.
fn print(what: &str, kind: Kind, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64();
    let (median, late) = (at(50) * 1e3, at(99) * 1e3);
    eprintln!("{what:<15} {kind:?} {:>5} calls  {median:8.2} ms  {late:8.2} ms", times.len());
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    times.push(start.elapsed());
    done
}

/// The processor time of the driver in clock ticks, and its resident memory in KiB.
fn cost(host: &Host) -> (u64, u64) {
    let process = format!("/proc/{}", host.pid());
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = [11, 12].map(|index: usize| fields[index].parse::<u64>().unwrap()).iter().sum();
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (ticks, line.trim().trim_end_matches(" kB").parse().unwrap())
}

fn measure(host: &Host, client: &Client, kind: Kind, count: usize) {
    let mut created = Vec::new();
    let disks: Vec<Disk> = (0..count)
        .map(|number| {
            timed(&mut created, || Disk::created(client, kind, &format!("{kind:?} {number}")))
        })
        .collect();
    print("CreateVolume", kind, created.split_off(count / 2));
    let few = &disks[..count.min(100)];
    let (mut published, mut cut) = (Vec::new(), Vec::new());
    let mut targets = Vec::new();
    for disk in few {
        disk.stage(host, client);
        targets.push(timed(&mut published, || disk.publish(host, client, &disk.id)));
    }
    for disk in few {
        timed(&mut cut, || disk.snapshot(client, &format!("of {}", disk.id)));
    }
    print("NodePublish", kind, published);
    print("CreateSnapshot", kind, cut);
    for (disk, at) in few.iter().zip(&targets) {
        disk.unpublish(client, at);
        disk.unstage(host, client);
    }
}

#[test]
#[ignore = "it measures, for minutes: scripts/bench csi runs it"]
fn calls_with_a_thousand_volumes_are_measured() {
    let Some(host) = Host::new() else { return };
    let client = host.client();
    let count = set("LAMINA_BENCH_VOLUMES", 1000);
    for kind in [Kind::Local, Kind::Union] {
        measure(&host, &client, kind, count / 2);
    }
    let seconds = set("LAMINA_BENCH_SECONDS", 60);
    let (before, _) = cost(&host);
    std::thread::sleep(Duration::from_secs(u64::try_from(seconds).unwrap()));
    let (after, memory) = cost(&host);
    let ticks = rustix::param::clock_ticks_per_second();
    let used = 1000 * (after - before) / ticks;
    eprintln!(
        "idle with {count} volumes: {used} ms of processor time in {seconds} s, {memory} KiB"
    );
}
