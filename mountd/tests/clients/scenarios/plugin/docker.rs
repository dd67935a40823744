//! dockerd with volumes of the plugin.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::docker::Docker;
use crate::engine::Engine;
use crate::harness::{self, Site};
use crate::host;
use crate::plugin::Plugin;

/// The image without layers of ours.
pub const IMAGE: &str = "lamina/base";
/// How many run containers while the plugin is restarted, and how many containers each.
const WRITERS: usize = 2;
const ROUNDS: usize = 8;
/// How long a container may take to write its first line.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
/// Adds a line to the file named by `$0` ten times in a second.
const WRITER: &str = "while echo line >>/data/$0; do sleep 0.1; done";

fn inspect(engine: &Engine, name: &str) -> Value {
    let found = engine.call(&["volume", "inspect", name]);
    serde_json::from_slice::<Value>(&found.out).unwrap_or_default()[0].take()
}

fn names(engine: &Engine) -> Vec<String> {
    let listed = engine.call(&["volume", "ls", "-q", "-f", "driver=lamina"]).text();
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Creates, lists, inspects, prunes and removes.
pub fn manage(site: &mut Site, engine: &Engine, plugin: &Plugin) {
    let create =
        |words: &[&str]| engine.call(&[&["volume", "create", "-d", "lamina"], words].concat());
    site.equal("create", create(&["--label", "tier=db", "data"]).text(), "data");
    site.equal("create_again", create(&["data"]).text(), "data");
    let found = inspect(engine, "data");
    site.equal("driver", &found["Driver"], "lamina");
    site.equal("labels", &found["Labels"]["tier"], "db");
    site.equal("scope", &found["Scope"], "local");
    site.equal("mountpoint", &found["Mountpoint"], plugin.at("data").as_str());
    site.equal("status", &found["Status"]["Driver"], "local");
    let created = found["CreatedAt"].as_str().unwrap_or_default();
    site.holds("created", created.starts_with("20") && created.ends_with('Z'), &found);
    site.refused("bad_name", &create(&["bad/name"]), &["invalid volume name", "bad/name"]);
    site.refused("dots", &create(&[".."]), &["invalid volume name"]);
    site.refused("bad_driver", &create(&["-o", "driver=none", "x"]), &["none"]);
    site.refused("bad_option", &create(&["-o", "sizze=1G", "x"]), &["sizze"]);
    let small = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=16m", "sized"];
    site.equal("create_tmpfs", create(&small).text(), "sized");
    let missing = engine.call(&["volume", "inspect", "missing"]);
    site.refused("missing", &missing, &["missing"]);
    site.equal("ls", names(engine), ["data", "sized"]);
    engine.call(&["volume", "prune", "-f"]).expect();
    site.equal("prune_keeps", names(engine), ["data", "sized"]);
    let size = "df -k --output=size /data | tail -n 1; stat -fc %T /data";
    let shown = engine.shell(&["-v", "sized:/data"], IMAGE, size).words();
    site.equal("tmpfs_size", shown, "16384 tmpfs");
    site.succeeds("rm_tmpfs", &engine.call(&["volume", "rm", "sized"]));
    let image = create(&["-o", "driver=image", "-o", "size=64M", "sized"]);
    site.equal("create_image", image.text(), "sized");
    let fill = "df -k --output=size /data | tail -n 1; dd if=/dev/zero of=/data/x bs=1M count=80";
    let filled = engine.shell(&["-v", "sized:/data"], IMAGE, fill);
    let kib = filled.words().parse::<u64>().unwrap_or(0);
    site.holds("image_size", (40_960..=65_536).contains(&kib), format!("got {kib} KiB"));
    site.holds("image_full", filled.err.contains("No space left"), &filled.err);
    let text = plugin.metrics();
    let limit = "lamina_volume_limit_bytes{volume=\"sized\",driver=\"image\"} 67108864\n";
    site.holds("image_limit", text.contains(limit), "no such line in the metrics");
    site.succeeds("rm_image", &engine.call(&["volume", "rm", "sized"]));
    site.equal("rm", names(engine), ["data"]);
}

/// Runs containers over the same volume, and fills volumes from the image.
pub fn share(site: &mut Site, engine: &Engine, plugin: &Plugin) {
    let data = ["-v", "data:/data"];
    site.succeeds("write", &engine.shell(&data, IMAGE, "echo one >/data/file"));
    let read = engine.shell(&data, IMAGE, "cat /data/file");
    site.equal("read", read.text(), "one");
    let host = std::fs::read_to_string(format!("{}/file", plugin.at("data")));
    site.equal("host", host.unwrap_or_default(), "one\n");
    let filled = ["--mount", "type=volume,src=filled,dst=/etc/apt,volume-driver=lamina"];
    let list = "ls /etc/apt | sort | head -n 2; stat -c %a:%U /etc/apt";
    let inside = engine.shell(&filled, IMAGE, list).words();
    let plain = engine.shell(&[], IMAGE, list).words();
    site.equal("filled", &inside, &plain);
    site.holds("filled_something", inside.contains("apt.conf.d"), &inside);
    let nocopy = ["--volume-driver", "lamina", "-v", "empty:/etc/apt:nocopy"];
    site.equal("nocopy", engine.shell(&nocopy, IMAGE, "ls /etc/apt").text(), "");
    site.equal("auto", names(engine), ["data", "empty", "filled"]);
    let read_only = ["-v", "data:/data:ro"];
    site.fails("read_only", &engine.shell(&read_only, IMAGE, "echo >/data/file"));
    for name in ["one", "two"] {
        start_writer(site, engine, name);
    }
    let seen = engine.call(&["exec", "one", "cat", "/data/two"]);
    site.holds("shared", seen.text().contains("line"), seen.last_line());
    site.refused("rm_in_use", &engine.call(&["volume", "rm", "data"]), &["in use"]);
    site.refused("rm_force_in_use", &engine.call(&["volume", "rm", "-f", "data"]), &["in use"]);
}

fn start_writer(site: &mut Site, engine: &Engine, name: &str) {
    let options = ["-d", "--name", name, "-v", "data:/data"];
    site.succeeds("start", &engine.run(&options, IMAGE, &["sh", "-c", WRITER, name]));
    let wrote = || engine.call(&["exec", name, "test", "-s", &format!("/data/{name}")]).is_ok();
    site.holds("writes", harness::until(WRITE_LIMIT, wrote), name);
}

fn len(path: &str) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn grows(path: &str) -> bool {
    let before = len(path);
    harness::until(WRITE_LIMIT, || len(path) > before)
}

/// Kills and ends the plugin while containers write.
pub fn outlive(site: &mut Site, engine: &Engine, plugin: &mut Plugin) {
    let file = format!("{}/one", plugin.at("data"));
    for (signal, name) in [(Signal::KILL, "killed"), (Signal::TERM, "ended")] {
        plugin.restart(signal);
        site.holds(&format!("{name}_writes"), grows(&file), "the container does not write");
        site.equal(&format!("{name}_ls"), names(engine), ["data", "empty", "filled"]);
        let labels = &inspect(engine, "data")["Labels"]["tier"];
        site.equal(&format!("{name}_labels"), labels, "db");
    }
    site.succeeds("rm_one", &engine.call(&["rm", "-f", "one"]));
    site.holds("two_writes", grows(&format!("{}/two", plugin.at("data"))), "two does not write");
    site.refused("rm_still_in_use", &engine.call(&["volume", "rm", "data"]), &["in use"]);
    site.succeeds("rm_two", &engine.call(&["rm", "-f", "two"]));
}

/// Restarts the plugin again and again while containers start and end.
///
/// An orderly end answers what is under way, so that every container runs. After a kill dockerd
/// repeats a call without its body: that container may fail, but no data and no label is lost.
pub fn under_load(site: &mut Site, engine: &Engine, plugin: &mut Plugin) {
    for (signal, name) in [(Signal::TERM, "load_ended"), (Signal::KILL, "load_killed")] {
        let ran = restart_under_load(engine, plugin, signal);
        let count: usize = ran.iter().map(Vec::len).sum();
        match signal {
            Signal::TERM => site.equal(&format!("{name}_ran"), count, WRITERS * ROUNDS),
            _ => site.holds(&format!("{name}_ran"), count > ROUNDS, format!("{ran:?}")),
        }
        for (number, rounds) in ran.iter().enumerate() {
            let volume = format!("load{number}");
            let both = format!("{}/{volume}", plugin.at("data"));
            for path in [both, format!("{}/own", plugin.at(&volume))] {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let is_kept = |round: &usize| lines.contains(&&round.to_string()[..]);
                let reason = format!("{rounds:?} in {lines:?}");
                site.holds(&format!("{name}_kept"), rounds.iter().all(is_kept), reason);
                std::fs::remove_file(path).expect("a file");
            }
        }
        let labels = &inspect(engine, "data")["Labels"]["tier"];
        site.equal(&format!("{name}_labels"), labels, "db");
    }
    for number in 0..WRITERS {
        let name = format!("load{number}");
        site.succeeds("load_rm", &engine.call(&["volume", "rm", &name]));
    }
}

/// The rounds of each writer whose container succeeded.
fn restart_under_load(engine: &Engine, plugin: &mut Plugin, signal: Signal) -> Vec<Vec<usize>> {
    let run = |number: usize| {
        let volume = format!("load{number}:/data");
        let options = ["--volume-driver", "lamina", "-v", "data:/both", "-v", &volume];
        let is_done = |round: &usize| {
            let script = format!("echo {round} >>/both/load{number}; echo {round} >>/data/own");
            engine.shell(&options, IMAGE, &script).is_ok()
        };
        (0..ROUNDS).filter(is_done).collect::<Vec<usize>>()
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || run(number))).collect();
        while !all.iter().all(thread::ScopedJoinHandle::is_finished) {
            plugin.restart(signal);
            thread::sleep(Duration::from_millis(700));
        }
        all.into_iter().map(|one| one.join().expect("a thread")).collect()
    })
}

/// Kills dockerd, so that an id of a mount is never unmounted, and the plugin with it.
pub fn outlive_docker(site: &mut Site, docker: Docker, plugin: &mut Plugin) -> Docker {
    start_writer(site, &docker.engine, "one");
    docker.kill(site);
    plugin.restart(Signal::KILL);
    let docker = Docker::start(site, &site.at("bin"));
    let engine = &docker.engine;
    site.equal("docker_killed_ls", names(engine), ["data", "empty", "filled"]);
    site.equal("docker_killed_labels", &inspect(engine, "data")["Labels"]["tier"], "db");
    site.succeeds("docker_killed_rm", &engine.call(&["rm", "-f", "one"]));
    let kept = engine.shell(&["-v", "data:/data"], IMAGE, "cat /data/file");
    site.equal("docker_killed_data", kept.text(), "one");
    docker
}

/// Removes all; stale ids keep no volume.
pub fn leave_nothing(site: &mut Site, engine: &Engine) {
    for name in names(engine) {
        site.succeeds("rm_last", &engine.call(&["volume", "rm", &name]));
    }
    site.equal("none_left", names(engine), Vec::<String>::new());
    let root = site.at("root/");
    let left = host::mounts().into_iter().map(|mount| mount.target);
    let left: Vec<String> = left.filter(|target| target.starts_with(&root)).collect();
    site.equal("no_volume_mounted", left, Vec::<String>::new());
    site.succeeds("rmi", &engine.call(&["rmi", "-f", IMAGE]));
}
