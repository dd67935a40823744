//! An image that podman pushed to a registry, pulled by Lamina and compared with podman's mount.
//!
//! Data that is already there is not fetched again. Killed pulls continue; also damage, passwords,
//! digests, indexes, TLS and proxies.

mod faults;
mod tls;

use std::fs;
use std::path::PathBuf;

use crate::engine::Engine;
use crate::harness::{self, Done, Site, program};
use crate::image;
use crate::lamina::{Lamina, RootBy, kept_layers};
use crate::podman;
use crate::registry::{Access, Registry};
use crate::tree::{Tree, files};
use crate::usage;

/// The number of layers of the test image.
const LAYERS: usize = 9;

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    image::build(site, &engine);
    let lamina = Lamina::new(site, "root", RootBy::Option);
    let mut registry = Registry::start(site, &Access::default());
    pull(site, &engine, &lamina, &registry);
    by_digest_and_index(site, &engine, &lamina, &registry);
    faults::run(site, &engine, &lamina, &registry);
    registry.stop();
    faults::passwords(site, &lamina);
    tls::run(site, &lamina);
    usage::leave_nothing(site, &engine, &program());
}

/// The name of the test image in a registry.
fn app(registry: &Registry) -> String {
    format!("{}/x/app:1", registry.host)
}

fn pull_of(lamina: &Lamina, words: &[&str]) -> Done {
    lamina.image(&[&["pull"], words].concat())
}

/// Pushes an image with podman over plain HTTP.
fn push(engine: &Engine, image: &str, to: &str) -> Done {
    engine.call(&["push", "-q", "--tls-verify=false", image, to])
}

fn downloads(lamina: &Lamina) -> Vec<PathBuf> {
    files(lamina.at("downloads").as_ref())
}

fn pull(site: &mut Site, engine: &Engine, lamina: &Lamina, registry: &Registry) {
    let expected = image::mounted_tree(engine, "lamina/app");
    let app = app(registry);
    site.succeeds("push", &push(engine, "lamina/app", &app));
    let pulled = pull_of(lamina, &[&app]);
    site.succeeds("pull", &pulled);
    site.equal("id", pulled.text(), engine.id("lamina/app"));
    let mnt = site.directory("mnt");
    site.succeeds("mount", &lamina.mount(&app, &mnt));
    let differences = expected.differences(&Tree::below(&mnt));
    site.equal("tree", differences, Vec::<String>::new());
    lamina.umount(&mnt);
    site.equal("spool_is_removed", downloads(lamina), Vec::<PathBuf>::new());
    let before = registry.log_lines();
    let again = lamina.image(&["--json", "pull", &app, "-t", "again"]);
    site.equal("again", kept_layers(&again), LAYERS);
    // The configuration of the image.
    site.equal("again_sends_no_layer", registry.sent(before).1, 1);
    let none = format!("{}/x/none:1", registry.host);
    site.refused("unknown", &pull_of(lamina, &[&none]), &["x/none:1", "404", "_UNKNOWN"]);
}

fn by_digest_and_index(site: &mut Site, engine: &Engine, lamina: &Lamina, registry: &Registry) {
    let id = engine.id("lamina/app");
    let source = format!("docker://{}", app(registry));
    let known = harness::call("skopeo", &["inspect", "--tls-verify=false", &source]).json();
    let digest = known["Digest"].as_str().expect("a digest");
    let pulled = pull_of(lamina, &[&format!("{}/x/app@{digest}", registry.host)]);
    site.equal("digest", (pulled.code, pulled.text()), (0, id.clone()));
    let target = format!("docker://{}/x/app:list", registry.host);
    engine.call(&["manifest", "create", "lamina/list"]).expect();
    engine.call(&["manifest", "add", "--tls-verify=false", "lamina/list", &source]).expect();
    let words = ["manifest", "push", "-q", "--tls-verify=false", "lamina/list", &target];
    site.succeeds("push_index", &engine.call(&words));
    let pulled = pull_of(lamina, &[&format!("{}/x/app:list", registry.host)]);
    site.equal("index", (pulled.code, pulled.text()), (0, id));
}

/// The file of a blob in the registry.
fn blob_file(site: &Site, digits: &str) -> String {
    let blobs = "registry/docker/registry/v2/blobs/sha256";
    site.at(&format!("{blobs}/{}/{digits}/data", &digits[..2]))
}

fn len(path: &str) -> u64 {
    fs::metadata(path).expect("a file").len()
}
