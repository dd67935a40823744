//! Export: an image that podman built, through the store and back, has the same id and layers in
//! podman, skopeo and umoci. Then a container is changed and committed: podman loads the tree that
//! the mount showed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::engine::Engine;
use crate::harness::{self, Site};
use crate::image;
use crate::lamina::{Lamina, RootBy};
use crate::podman;
use crate::tree::Tree;

const NAME: &str = "localhost/lamina/app";
/// Changes of every kind.
const CHANGE: &str = include_str!("../data/change.sh");
/// Commits that are killed, each after a longer time.
const KILLS: u64 = 12;
const NOTHING: Vec<String> = Vec::new();

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    image::build_with_python(site, &engine);
    let lamina = Lamina::new(site, "root", RootBy::Environment);
    let archive = site.at("app.tar");
    image::save(&engine, &[], &archive);
    site.succeeds("import", &lamina.image(&["import", &archive]));
    let original = Original {
        shown: shown(&engine, "lamina/app"),
        tree: image::mounted_tree(&engine, "lamina/app"),
    };
    archives(site, &engine, &lamina, &original);
    directories(site, &engine, &lamina, &original);

    lamina.container(&["create", "--name", "c", NAME]).expect();
    let place = lamina.container(&["start", "c"]).expect();
    let changed = harness::call("chroot", &[&place, "sh", "-c", CHANGE]);
    site.succeeds("change", &changed);
    let live = Tree::below(&place);
    lamina.image(&["commit", "c", "-t", "running"]).expect();
    has_tree(site, &lamina, "running", &live);
    lamina.container(&["stop", "c"]).expect();
    let changes = lamina.diff("c");
    compare_diff(site, &engine, &changes);
    kill_commits(site, &lamina);
    committed(site, &engine, &lamina, &live);
    image_diff(site, &lamina, &changes);
    lamina.container(&["rm", "c"]).expect();
    lamina.image(&["gc"]).expect();
    site.equal("verify", (lamina.verify(), unfinished(&lamina)), ((0, Vec::new()), Vec::new()));
}

/// The image as podman built it.
struct Original {
    shown: (Value, Value),
    tree: Tree,
}

/// The id of an image and its layers.
fn shown(engine: &Engine, name: &str) -> (Value, Value) {
    let image = engine.inspect(name);
    (image["Id"].clone(), image["RootFS"]["Layers"].clone())
}

/// Exports archives, and loads them into podman in place of the image.
fn archives(site: &mut Site, engine: &Engine, lamina: &Lamina, original: &Original) {
    let back = |site: &mut Site, name: &str, archive: &str| {
        engine.call(&["rmi", "-f", NAME]);
        site.succeeds(&format!("{name}::load"), &engine.call(&["load", "-q", "-i", archive]));
        let got = shown(engine, NAME);
        site.equal(&format!("{name}::id_and_layers"), got, original.shown.clone());
    };
    let (docker, oci, zstd) = (site.at("docker.tar"), site.at("oci.tar"), site.at("zstd.tar"));
    lamina.image(&["export", NAME, "-o", &docker]).expect();
    back(site, "docker", &docker);
    let differences = original.tree.differences(&image::mounted_tree(engine, NAME));
    site.equal("docker::tree", differences, NOTHING);
    let words = ["export", NAME, "--format", "oci-archive"];
    let piped = lamina.image(&[&words[..], &["-o", "-"]].concat());
    piped.expect();
    fs::write(&oci, &piped.out).expect("an archive");
    back(site, "oci_gzip", &oci);
    lamina.image(&[&words[..], &["--compress", "zstd", "-o", &zstd]].concat()).expect();
    back(site, "oci_zstd", &zstd);
}

/// Exports an OCI layout, and reads it with skopeo and umoci.
fn directories(site: &mut Site, engine: &Engine, lamina: &Lamina, original: &Original) {
    let oci = site.at("oci");
    let words = ["export", NAME, "--format", "oci-dir", "--compress", "none", "-o", &oci];
    lamina.image(&words).expect();
    // podman itself accepts no path with capitals here.
    engine.call(&["rmi", "-f", NAME]).expect();
    let (layout, stored) = (format!("oci:{oci}"), format!("containers-storage:{NAME}"));
    let copied = engine.call_other("skopeo", &["copy", "-q", &layout, &stored]);
    site.succeeds("oci_dir::copy", &copied);
    site.equal("oci_dir::id_and_layers", shown(engine, NAME), original.shown.clone());
    let ids = |place: &str| {
        let config = harness::call("skopeo", &["inspect", "--config", place]).json();
        config["rootfs"]["diff_ids"].clone()
    };
    let saved = ids(&format!("docker-archive:{}", site.at("app.tar")));
    site.holds("skopeo_reads_ids", saved.is_array(), format!("expected ids got {saved}"));
    site.equal("skopeo", ids(&layout), saved);
    let tags = harness::call("umoci", &["ls", "--layout", &oci]).expect();
    let tagged = format!("{oci}:{}", tags.lines().next().unwrap_or_default());
    let bundle = site.at("bundle");
    let unpacked = harness::call("umoci", &["unpack", "--image", &tagged, &bundle]);
    site.succeeds("umoci_unpacks", &unpacked);
    let differences = original.tree.differences(&Tree::below(format!("{bundle}/rootfs")));
    site.equal("umoci", differences, NOTHING);
    let again = lamina.image(&["export", NAME, "--format", "oci-dir", "-o", &oci]);
    site.refused("refused", &again, &[&oci]);
}

/// Makes the same changes in a container of podman. For a directory that was made anew, podman
/// lists the change and not its earlier content.
fn compare_diff(site: &mut Site, engine: &Engine, changes: &[String]) {
    engine.call(&["create", "-q", "--name", "changed", NAME, "sh", "-c", CHANGE]).expect();
    engine.call(&["start", "-a", "changed"]);
    let is_compared = |line: &&String| {
        let of_engine = ["/run", "/proc", "/sys", "/dev"];
        *line != "C /etc" && !of_engine.iter().any(|path| line[2..].starts_with(path))
    };
    let theirs = engine.diff("changed");
    let ours: BTreeSet<&String> = changes.iter().collect();
    site.holds(
        "diff_of_podman",
        theirs.contains("A /hole"),
        format!("expected more of {theirs:?}"),
    );
    let lacking: Vec<&String> =
        theirs.iter().filter(is_compared).filter(|line| !ours.contains(line)).collect();
    site.equal("diff", lacking, Vec::<&String>::new());
}

/// A commit that is killed at any moment leaves an intact store.
fn kill_commits(site: &mut Site, lamina: &Lamina) {
    let mut whole = (0, Vec::new());
    for step in 1..=KILLS {
        let mut commit: Command = lamina.command(&["image", "commit", "c", "-t", "killed"]);
        harness::killed_after(Duration::from_millis(25 * step), &mut commit);
        whole = lamina.verify();
        if whole.0 != 0 {
            break;
        }
    }
    site.equal("killed_commit_leaves_a_whole_store", whole, (0, Vec::new()));
}

fn committed(site: &mut Site, engine: &Engine, lamina: &Lamina, live: &Tree) {
    let id = lamina.image(&["commit", "c", "-t", "committed", "-m", "why"]).expect();
    let history = lamina.history("committed");
    let last = history.last().and_then(|step| step.created_by.as_deref());
    site.equal("history", last, Some("lamina image commit"));
    has_tree(site, lamina, "committed", live);
    let archive = site.at("committed.tar");
    lamina.image(&["export", "committed", "-o", &archive]).expect();
    site.succeeds("committed_load", &engine.call(&["load", "-q", "-i", &archive]));
    site.equal("committed_id", engine.id("localhost/committed"), id);
    let loaded = image::mounted_tree(engine, "localhost/committed");
    site.equal("committed_in_podman", live.differences(&loaded), NOTHING);
}

/// Mounts an image, and compares it with what the container showed.
fn has_tree(site: &mut Site, lamina: &Lamina, image: &str, live: &Tree) {
    let mnt = site.directory("mnt");
    lamina.mount(image, &mnt).expect();
    site.equal(image, live.differences(&Tree::below(&mnt)), NOTHING);
    lamina.umount(&mnt);
}

/// The image differs from its base as the container did. A linked file is in the upper with all its
/// names, and unchanged.
fn image_diff(site: &mut Site, lamina: &Lamina, changes: &[String]) {
    let links = ["C /links/a", "C /links/b", "C /links/c"];
    let is_shared = |line: &str| line.starts_with("C /private") || links.contains(&line);
    let own = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !is_shared(line)).cloned().collect()
    };
    site.equal("image_diff", own(&lamina.diff("committed")), own(changes));
}

/// Unfinished layers and recipes of the store.
fn unfinished(lamina: &Lamina) -> Vec<PathBuf> {
    let hidden = |directory: &str| {
        let words = [&lamina.at(directory), "-mindepth", "1", "-name", ".*"];
        harness::call("find", &words).expect().lines().map(PathBuf::from).collect::<Vec<_>>()
    };
    [hidden("layers"), hidden("recipes")].concat()
}
