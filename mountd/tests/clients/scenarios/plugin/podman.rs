//! podman with the same plugin.

use rustix::process::Signal;

use crate::harness::Site;
use crate::image;
use crate::plugin::{Plugin, SOCKET};
use crate::podman::{self, Store};

pub fn run(site: &mut Site, plugin: &mut Plugin) {
    let engine = podman::with_store(site, &Store { plugin: SOCKET, ..Store::default() }, None);
    image::import_base(site, &engine, &[]);
    let created = engine.call(&["volume", "create", "--driver", "lamina", "pod"]);
    site.equal("podman_create", created.text(), "pod");
    let found = engine.call(&["volume", "inspect", "pod"]).json();
    site.equal("podman_driver", &found[0]["Driver"], "lamina");
    let bad = engine.call(&["volume", "create", "--driver", "lamina", "-o", "sizze=1", "x"]);
    site.holds("podman_bad_option", !bad.is_ok() && bad.err.contains("sizze"), &bad.err);
    let volume = ["-v", "pod:/data"];
    let write = engine.shell(&volume, super::docker::IMAGE, "echo one >/data/file");
    site.succeeds("podman_write", &write);
    let options = ["-d", "--name", "sleeper", "-v", "pod:/data"];
    site.succeeds("podman_start", &engine.run(&options, super::docker::IMAGE, &["sleep", "600"]));
    plugin.restart(Signal::KILL);
    let read = engine.shell(&volume, super::docker::IMAGE, "cat /data/file");
    site.equal("podman_read", read.text(), "one");
    let inside = engine.call(&["exec", "sleeper", "cat", "/data/file"]);
    site.equal("podman_killed", inside.text(), "one");
    let path = format!("{}/file", plugin.at("pod"));
    site.equal("podman_host", std::fs::read_to_string(path).unwrap_or_default(), "one\n");
    plugin.call("Create", r#"{"Name":"outside"}"#);
    site.succeeds("podman_reload", &engine.call(&["volume", "reload"]));
    let listed = engine.call(&["volume", "ls", "-q"]).words();
    site.equal("podman_ls", listed, "outside pod");
    site.holds("podman_rm_in_use", !engine.call(&["volume", "rm", "pod"]).is_ok(), "removed");
    site.succeeds("podman_rm", &engine.call(&["rm", "-f", "-t", "0", "sleeper"]));
    for name in ["pod", "outside"] {
        site.succeeds("podman_rm_volume", &engine.call(&["volume", "rm", name]));
    }
    site.succeeds("podman_rmi", &engine.call(&["rmi", "-af"]));
}
