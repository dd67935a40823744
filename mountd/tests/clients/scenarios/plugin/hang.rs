//! A volume that hangs: it is made of a directory below a FUSE mount whose daemon is stopped.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::docker::IMAGE;
use crate::engine::Engine;
use crate::harness::{self, Background, Site};
use crate::plugin::Plugin;

/// How long a call for another volume may take.
const SECOND: Duration = Duration::from_secs(1);
const START_LIMIT: Duration = Duration::from_secs(20);

/// Asks for other volumes while one hangs, and sees it go on.
pub fn run(site: &mut Site, engine: &Engine, plugin: &mut Plugin) {
    let lower = site.directory("hung/lower/dir");
    site.write("hung/lower/dir/file", "hung");
    let (lower, at) = (lower.trim_end_matches("/dir"), site.directory("hung/mnt"));
    let mut command = Command::new(harness::program());
    command.env("LAMINA_RUNTIME_DIR", site.at("run"));
    command.args(["mount", "--foreground", "--lower", lower, &at]);
    let mut daemon = Background::start(&mut command, Path::new(&site.at("hung.log")));
    let is_there = || Path::new(&format!("{at}/dir/file")).exists();
    assert!(harness::until(START_LIMIT, is_there), "no mount");
    // The kernel asks for the file system of each lower directory.
    let words = format!("o=lowerdir={}:{at}/dir", site.directory("hung/empty"));
    let options = ["-o", "type=overlay", "-o", "device=overlay", "-o", &words];
    let create = [&["volume", "create", "-d", "lamina"], &options[..], &["hung"]].concat();
    site.succeeds("hung_create", &engine.call(&create));
    daemon.signal(Signal::STOP);
    wait_for(site, engine, plugin, &mut daemon);
    let shown = engine.shell(&["-v", "hung:/data"], IMAGE, "cat /data/file");
    site.equal("hung_data", shown.text(), "hung");
    // A restart does not wait for it either.
    daemon.signal(Signal::STOP);
    plugin.restart(Signal::KILL);
    let start = Instant::now();
    plugin.call("Capabilities", "{}");
    site.holds("hung_start", start.elapsed() < START_LIMIT, format!("{:?}", start.elapsed()));
    quick(site, plugin);
    daemon.signal(Signal::CONT);
    plugin.call("Unmount", r#"{"Name":"hung","ID":"1"}"#);
    site.succeeds("hung_rm", &engine.call(&["volume", "rm", "hung"]));
    daemon.end(Signal::TERM);
}

/// Calls that wait for the volume, calls for others, and the end of the wait.
fn wait_for(site: &mut Site, engine: &Engine, plugin: &Plugin, daemon: &mut Background) {
    thread::scope(|scope| {
        let mount = || plugin.call("Mount", r#"{"Name":"hung","ID":"1"}"#);
        let hung: Vec<_> = (0..8).map(|_| scope.spawn(mount)).collect();
        thread::sleep(Duration::from_millis(300));
        quick(site, plugin);
        let shown = engine.shell(&["-v", "data:/data"], IMAGE, "cat /data/file");
        site.equal("hung_others_run", shown.text(), "one");
        let text = plugin.metrics();
        let calls = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        site.equal("hung_running", calls("lamina_calls_running "), "1");
        site.equal("hung_waiting", calls("lamina_calls_waiting "), "7");
        daemon.signal(Signal::CONT);
        let replies: Vec<_> = hung.into_iter().map(|one| one.join().expect("a thread")).collect();
        let all = replies.iter().all(|(reply, _)| reply["Err"] == "");
        site.holds("hung_goes_on", all, format!("{replies:?}"));
    });
}

/// Each call answers within a second.
fn quick(site: &mut Site, plugin: &Plugin) {
    for (call, body) in [
        ("List", "{}"),
        ("Capabilities", "{}"),
        ("Get", r#"{"Name":"data"}"#),
        ("Get", r#"{"Name":"hung"}"#),
        ("Path", r#"{"Name":"hung"}"#),
        ("Create", r#"{"Name":"quick"}"#),
        ("Mount", r#"{"Name":"quick","ID":"1"}"#),
        ("Unmount", r#"{"Name":"quick","ID":"1"}"#),
        ("Remove", r#"{"Name":"quick"}"#),
    ] {
        let (reply, time) = plugin.call(call, body);
        let is_answer = reply["Err"].as_str().is_none_or(str::is_empty) && reply.is_object();
        let name = format!("hung_{}", call.to_lowercase());
        site.holds(&name, is_answer && time < SECOND, format!("{reply} after {time:?}"));
    }
}
