//! Kills of the plugin and of dockerd while a container writes and waits for the disk.

use std::time::Duration;

use rustix::process::Signal;

use super::IMAGE;
use crate::docker::Docker;
use crate::engine::Engine;
use crate::harness::{self, Site};
use crate::plugin::Plugin;

const LIMIT: Duration = Duration::from_secs(20);
const KILLS: usize = 3;
/// Adds numbers to a file, and notes outside of the volume the last one that is on the disk.
const WRITER: &str = "n=0; while n=$((n + 1)); echo $n >>/data/log && sync -d /data/log; do \
                      echo $n >/ack/new && mv /ack/new /ack/last; done";

/// The last number that the writer knows to be on the disk.
fn acknowledged(site: &Site) -> u64 {
    let text = std::fs::read_to_string(site.at("ack/last")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn goes_on(site: &mut Site, name: &str) {
    let before = acknowledged(site);
    let grows = harness::until(LIMIT, || acknowledged(site) > before + 3);
    site.holds(name, grows, format!("nothing after {before}"));
}

/// Kills the plugin again and again, then dockerd, and compares what was acknowledged.
pub fn outlive_kills(site: &mut Site, docker: Docker, plugin: &mut Plugin) -> Docker {
    let engine = &docker.engine;
    let create = ["volume", "create", "-d", "lamina", "-o", "driver=image", "-o", "size=128M"];
    site.succeeds("kill_create", &engine.call(&[&create[..], &["killed"]].concat()));
    let ack = format!("{}:/ack", site.directory("ack"));
    let options = ["-d", "--name", "writer", "-v", "killed:/data", "-v", &ack];
    site.succeeds("kill_start", &engine.run(&options, IMAGE, &["sh", "-c", WRITER]));
    goes_on(site, "kill_writes");
    for _ in 0..KILLS {
        plugin.restart(Signal::KILL);
        goes_on(site, "kill_plugin_writes");
    }
    docker.kill(site);
    goes_on(site, "kill_docker_writes");
    plugin.restart(Signal::KILL);
    let docker = Docker::start(site, &site.at("bin"));
    site.succeeds("kill_rm", &docker.engine.call(&["rm", "-f", "writer"]));
    kept(site, &docker.engine);
    // dockerd does not unmount for the container that it lost.
    let unmounted = || harness::call("umount", &[&plugin.at("killed")]).is_ok();
    site.holds("kill_unmounted", harness::until(LIMIT, unmounted), "it is busy");
    kept(site, &docker.engine);
    site.succeeds("kill_rm_volume", &docker.engine.call(&["volume", "rm", "killed"]));
    docker
}

/// The file has each number once, up to the last acknowledged one at least.
fn kept(site: &mut Site, engine: &Engine) {
    let last = acknowledged(site);
    let log = engine.shell(&["-v", "killed:/data"], IMAGE, "cat /data/log").text();
    let numbers: Vec<u64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    site.holds("kill_in_order", numbers == expected, format!("{} lines", numbers.len()));
    let reason = format!("{last} acknowledged, {} there", numbers.len());
    site.holds("kill_kept", last > 10 && numbers.len() as u64 >= last, reason);
}
