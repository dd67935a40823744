//! podman with `force_mask`: owner and mode of every file are in an attribute
//! (`xattr_permissions=2`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{self, Site, program};
use crate::podman::{self, Store};
use crate::{image, tree, usage};

const CHANGE: &str = "cp /bin/true /t && chown 5:6 /t && chmod 4755 /t && mknod /n c 1 3 && \
                      mkfifo /p && chmod 1777 /srv";
const SHADOW: &str = "stat -c '%U:%G %a' /etc/shadow /etc/passwd";
const OVERRIDE: &str = "user.containers.override_stat";

pub fn run(site: &mut Site) {
    let store = Store { line: "force_mask = \"shared\"", ..Store::default() };
    let engine = podman::with_store(site, &store, None);
    // The engine itself cannot unpack a device in this form.
    let context = image::import_base(site, &engine, &["--exclude", "./dev/*"]);
    site.succeeds("build", &engine.build(&["--network", "none"], &context));
    // Nor does it keep set-id and sticky bits when it unpacks; those set in a container stay.
    let judged = engine.shell(&[], "lamina/app", image::JUDGE);
    image::judge_but(site, &judged, &[("kept", "7:8 755 x")]);
    let shown = engine.shell(&[], "lamina/app", SHADOW).all_words();
    site.equal("shadow", shown, "root:shadow 640 root:root 644");
    let changed = engine.run(&["--name", "changed"], "lamina/app", &["sh", "-c", CHANGE]);
    site.succeeds("change", &changed);
    // mknod refuses the second time; the mount is a new one.
    engine.call(&["start", "-a", "changed"]);
    let merged = engine.call(&["mount", "changed"]).expect();
    let paths = ["t", "n", "p", "srv"].map(|name| format!("{merged}/{name}"));
    let paths = paths.each_ref().map(String::as_str);
    let shown = harness::call("stat", &[&["-c", "%f %u:%g"], &paths[..]].concat()).text();
    // Types and modes: a file, a device, a FIFO, a directory.
    let expected = ["89ed 5:6", "21a4 0:0", "11a4 0:0", "43ff 0:0"];
    site.equal("kept", shown.lines().collect::<Vec<_>>(), expected);
    engine.call(&["umount", "changed"]).expect();
    let is_ours = |line: &String| ["/t", "/n", "/p", "/srv"].contains(&&line[2..]);
    let changes: Vec<String> = engine.diff("changed").into_iter().filter(is_ours).collect();
    site.equal("diff", changes, ["A /n", "A /p", "A /t", "C /srv"]);
    engine.call(&["rm", "changed"]).expect();
    let files = tree::files(Path::new(&site.at("store/graph/overlay")));
    let shadow = files.iter().find(|path| path.ends_with("diff/etc/shadow")).expect("a file");
    let mode = fs::metadata(shadow).expect("a file").permissions().mode() & 0o7777;
    let mut value = [0; 64];
    let len = rustix::fs::lgetxattr(shadow, OVERRIDE, &mut value[..]).unwrap_or_default();
    let value = String::from_utf8_lossy(&value[..len]).into_owned();
    let stated: Vec<&str> = value.split(':').take(3).collect();
    site.equal("inode", (mode, &stated[..]), (0o755, &["0", "42", "0640"][..]));
    usage::leave_nothing(site, &engine, &program());
}
