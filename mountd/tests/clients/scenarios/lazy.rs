//! Images in a registry: as tars, which podman and skopeo pull, and in Lamina's own form, from
//! which a mount fetches only the data that is read.
//!
//! The registry stops, sends wrong bytes, and comes back; a daemon is killed; at the end all data
//! is there.

mod faults;
mod proof;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::engine::Engine;
use crate::harness::{self, Done, Site, program};
use crate::host;
use crate::lamina::{Lamina, RootBy, kept_layers};
use crate::podman;
use crate::registry::{Access, Registry};
use crate::tree::{Tree, files};
use crate::{image, usage};

const NAME: &str = "localhost/lamina/app";
const PYTHON: &str = "import json, email, http.client; print('works')";
/// The time limit for reads of data that cannot be fetched.
const EIO_LIMIT: Duration = Duration::from_secs(60);
/// Files that are too large to be fetched along with others.
const LARGE: u64 = 300 << 10;

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    image::build_with_python(site, &engine);
    let mut stage = Stage::new(site, &engine);
    tars(site, &engine, &stage);
    whole(site, &stage);
    on_demand(site, &stage);
    stage.registry.stop();
    without_registry(site, &stage);
    stage.registry.restart();
    faults::killed_daemons(site, &stage);
    faults::other_bytes(site, &stage);
    faults::all_comes(site, &mut stage);
    proof::run(site, &stage);
    usage::leave_nothing(site, &engine, &program());
}

/// State that all parts of the scenario use.
struct Stage {
    registry: Registry,
    /// The store with the image from podman.
    full: Lamina,
    /// The store that pulls on demand.
    lazy: Lamina,
    /// The image in the registry, in Lamina's own form.
    image: String,
    id: String,
    expected: Tree,
    mnt: String,
}

impl Stage {
    fn new(site: &mut Site, engine: &Engine) -> Self {
        let registry = Registry::start(site, &Access::default());
        let full = Lamina::new(site, "full", RootBy::Option);
        let archive = site.at("app.tar");
        image::save(engine, &[], &archive);
        site.succeeds("import", &full.image(&["import", &archive]));
        Self {
            image: format!("{}/x/own:1", registry.host),
            id: engine.id("lamina/app"),
            expected: image::mounted_tree(engine, "lamina/app"),
            mnt: site.directory("mnt"),
            lazy: Lamina::new(site, "lazy", RootBy::Option),
            full,
            registry,
        }
    }

    /// Mounts the image of a store.
    fn mount(&self, site: &mut Site, lamina: &Lamina) {
        let done = lamina.mount(&self.image, &self.mnt);
        if !done.is_ok() {
            site.fail("mount", done.last_line());
        }
    }

    fn umount(&self, site: &mut Site, lamina: &Lamina) {
        lamina.umount(&self.mnt);
        self.no_daemon(site);
    }

    /// Waits until the daemon of a mount has ended.
    fn no_daemon(&self, site: &mut Site) {
        let left = host::left_with(&format!("mount --root {}", site.scratch()));
        if !left.is_empty() {
            site.fail("gone", format!("expected no daemon got {left:?}"));
        }
    }

    fn python(&self) -> Done {
        harness::call("chroot", &[&self.mnt, "python3", "-c", PYTHON])
    }

    /// The files below `usr` of the mount.
    fn user_files(&self) -> Vec<PathBuf> {
        files(Path::new(&format!("{}/usr", self.mnt)))
    }
}

/// Reads files. Returns the number of `EIO` errors.
fn count_eio(paths: &[PathBuf]) -> usize {
    let read = |path: &PathBuf| io::copy(&mut File::open(path)?, &mut io::sink());
    let is_eio = |error: &io::Error| error.raw_os_error() == Some(Errno::IO.raw_os_error());
    paths.iter().filter(|path| read(path).is_err_and(|error| is_eio(&error))).count()
}

/// Images as tars.
fn tars(site: &mut Site, engine: &Engine, stage: &Stage) {
    let (registry, full) = (&stage.registry, &stage.full);
    let place = format!("{}/x/tars", registry.host);
    let first = format!("{place}:1");
    let before = registry.log_lines();
    let pushed = full.image(&["push", NAME, &first]);
    site.succeeds("push", &pushed);
    let digest = pushed.text();
    let known = format!("docker://{first}");
    let known = harness::call("skopeo", &["inspect", "--tls-verify=false", &known]).json();
    site.equal("push_names_the_manifest", known["Digest"].as_str(), Some(&digest[..]));
    engine.call(&["rmi", "-f", "lamina/app"]).expect();
    let pulled = engine.call(&["pull", "-q", "--tls-verify=false", &first]);
    site.succeeds("podman_pulls", &pulled);
    site.equal("podman_pulls_the_image", pulled.text(), &stage.id[..]);
    let sent = |since: usize| {
        let answers = registry.answers(since);
        answers.iter().filter(|one| one.method == "PUT" && one.uri.contains("/blobs/")).count()
    };
    site.holds("push_sends_blobs", sent(before) > 0, "expected blobs in the log got none");
    let before = registry.log_lines();
    site.succeeds("push_again", &full.image(&["push", NAME, &format!("{place}:2")]));
    site.equal("push_again_sends_no_blob", sent(before), 0);
    let by_digest = format!("{place}@{digest}");
    let refused = full.image(&["push", NAME, &by_digest]);
    site.refused("push_to_a_digest", &refused, &[&by_digest]);
    let lazily = stage.lazy.image(&["pull", "--lazy=demand", &first]);
    site.refused("tars", &lazily, &["x/tars:1"]);
}

/// An image in Lamina's own form, pulled as a whole.
fn whole(site: &mut Site, stage: &Stage) {
    let whole = Lamina::new(site, "whole", RootBy::Option);
    let pushed = stage.full.image(&["push", "--compress", "native", NAME, &stage.image]);
    site.succeeds("push_native", &pushed);
    let pulled = whole.image(&["pull", &stage.image]);
    site.succeeds("pull_whole", &pulled);
    site.equal("id", pulled.text(), &stage.id[..]);
    let ids = |lamina: &Lamina| -> Vec<String> {
        lamina.layers().into_iter().map(|layer| layer.id).collect()
    };
    site.equal("same_layers", ids(&whole), ids(&stage.full));
    // Nothing proves that a layer in Lamina's own form has the content of its diff ID, so tars are
    // read anyway.
    let imported = whole.image(&["--json", "import", &site.at("app.tar")]);
    site.equal("tars_are_read", kept_layers(&imported), 0);
}

/// The data that is read is fetched, and little else.
fn on_demand(site: &mut Site, stage: &Stage) {
    let (lazy, registry) = (&stage.lazy, &stage.registry);
    let before = registry.log_lines();
    let pulled = lazy.image(&["pull", "--lazy=demand", &stage.image]);
    site.succeeds("pull", &pulled);
    site.equal("pulled_id", pulled.text(), &stage.id[..]);
    let all = lazy.missing();
    let (bytes, _) = registry.sent(before);
    let share = format!("expected less than a tenth of {all} bytes got {bytes}");
    site.holds("little_is_sent", bytes * 10 < all, share);
    stage.mount(site, lazy);
    let before = registry.log_lines();
    let names = harness::call("find", &[&stage.mnt, "-printf", "%p %s %m\\n"]);
    names.expect();
    site.equal("names_need_nothing", registry.sent(before).1, 0);
    site.equal("python", stage.python().all_words(), "works");
    stage.umount(site, lazy);
    let left = lazy.missing();
    let range = format!("expected more than a third of {all} bytes and not all got {left}");
    site.holds("what_is_read_comes", left > all / 3 && left < all, range);
}

/// Without the registry, present data can be read, and missing data is `EIO` at once.
fn without_registry(site: &mut Site, stage: &Stage) {
    stage.mount(site, &stage.lazy);
    site.succeeds("there_without_registry", &stage.python());
    let start = Instant::now();
    let mut large = stage.user_files();
    large.retain(|path| path.metadata().is_ok_and(|info| info.len() > LARGE));
    let failed = count_eio(&large);
    let files = large.len();
    site.holds("lacks_is_eio", failed > 0, format!("expected EIO of some of {files} got none"));
    let took = start.elapsed();
    site.holds("fails_soon", took < EIO_LIMIT, format!("expected {EIO_LIMIT:?} got {took:?}"));
    stage.umount(site, &stage.lazy);
    site.equal("what_is_there_is_right", stage.lazy.verify(), (0, Vec::new()));
}
