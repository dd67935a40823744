//! buildah as root: build from a Dockerfile, and from, run, copy, mount, commit by hand.

use std::fs;

use crate::engine::Engine;
use crate::harness::{self, Done, Site, program};
use crate::{image, podman, usage};

/// The file system type of FUSE in statfs(2).
const FUSE_MAGIC: &str = "65735546";
const REPLACE: &str =
    "rm -rf /renamed && mkdir /renamed && echo again >/renamed/only; mv /links /joined";
const SHOW: &str =
    "ls -x /renamed; cat /seed/copied; stat -c %h /joined/a; ls -d /links 2>/dev/null";

pub fn run(site: &mut Site) {
    let mut engine = podman::of_root(site);
    engine.variables.push(("BUILDAH_ISOLATION", "chroot".to_owned()));
    let context = image::import_base(site, &engine, &[]);
    let options = ["build", "--layers", "-q", "--network", "host", "-t", "lamina/app", &context];
    site.succeeds("build", &buildah(&engine, &options));
    buildah(&engine, &["from", "--name", "work", "lamina/app"]).expect();
    image::judge(site, &buildah(&engine, &["run", "work", "sh", "-c", image::JUDGE]));

    buildah(&engine, &["run", "work", "sh", "-c", REPLACE]).expect();
    let mounted = buildah(&engine, &["mount", "work"]).expect();
    let names = harness::call("ls", &[&format!("{mounted}/renamed")]).words();
    let kind = harness::call("stat", &["-f", "-c", "%t", &mounted]).text();
    site.equal("mount", [names, kind], ["only", FUSE_MAGIC]);
    fs::write(format!("{mounted}/renamed/outside"), "outside\n").expect("a file");
    buildah(&engine, &["umount", "work"]).expect();
    let copied = site.write("copied", "copied\n");
    buildah(&engine, &["copy", "-q", "work", &copied, "/seed/"]).expect();
    use_overlay_volume(site, &engine);
    site.succeeds("commit", &buildah(&engine, &["commit", "-q", "work", "lamina/second"]));
    buildah(&engine, &["rm", "work"]).expect();
    buildah(&engine, &["from", "--name", "again", "lamina/second"]).expect();
    let shown = buildah(&engine, &["run", "again", "sh", "-c", SHOW]).words();
    site.equal("committed", shown, "only outside copied 3");
    buildah(&engine, &["rm", "-a"]).expect();
    usage::leave_nothing(site, &engine, &program());
}

fn buildah(engine: &Engine, words: &[&str]) -> Done {
    engine.call_other("buildah", words)
}

fn use_overlay_volume(site: &mut Site, engine: &Engine) {
    let over = site.directory("over");
    let file = site.write("over/file", "host\n");
    let volume = format!("{over}:/over:O");
    let script = "echo in >>/over/file; cat /over/file";
    let shown = buildah(engine, &["run", "-v", &volume, "work", "sh", "-c", script]).words();
    site.equal("overlay_volume", shown, "host in");
    site.equal("overlay_volume_host", fs::read_to_string(file).expect("a file"), "host\n");
}
