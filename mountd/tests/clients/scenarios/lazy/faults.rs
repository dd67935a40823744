//! Daemons that are killed during a fetch, wrong bytes from the registry, and completion.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Stage, count_eio};
use crate::harness::{self, Site};
use crate::lamina::{Lamina, RootBy};
use crate::tree::{Tree, file_digest, files};

/// The number of daemons that are killed, each after more bytes.
const KILLS: u64 = 8;
/// The additional bytes that each daemon serves before it is killed.
const STEP_BYTES: u64 = 1 << 20;
/// The time limit for a reader to get that far.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for all data.
const ALL_LIMIT: Duration = Duration::from_secs(60);

/// A daemon that is killed while it fetches leaves no wrong data.
pub fn killed_daemons(site: &mut Site, stage: &Stage) {
    let mut found = (0, Vec::new());
    for step in 1..=KILLS {
        stage.mount(site, &stage.lazy);
        let daemon = stage.lazy.mounts()[0].pid;
        let served = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&served);
        let directory = PathBuf::from(format!("{}/usr/lib", stage.mnt));
        let reader = std::thread::spawn(move || {
            for path in files(&directory) {
                let copied =
                    File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
                counted.fetch_add(copied.unwrap_or_default(), Ordering::Relaxed);
            }
        });
        let enough = || served.load(Ordering::Relaxed) >= step * STEP_BYTES;
        harness::until(READ_LIMIT, || enough() || reader.is_finished());
        harness::call("kill", &["-KILL", &daemon.to_string()]).expect();
        reader.join().expect("the reader does not panic");
        harness::call("umount", &["-l", &stage.mnt]).expect();
        stage.no_daemon(site);
        found = stage.lazy.verify();
        if found.0 != 0 {
            break;
        }
    }
    site.equal("killed_daemons_leave_what_is_right", found, (0, Vec::new()));
}

/// Other bytes under the digest of a blob are an error, and never other data.
pub fn other_bytes(site: &mut Site, stage: &Stage) {
    let bad = Lamina::new(site, "bad", RootBy::Option);
    site.succeeds("pull_again", &bad.image(&["pull", "--lazy=demand", &stage.image]));
    let blob = largest_blob(site);
    let kept = site.at("kept");
    fs::copy(&blob, &kept).expect("a copy of the blob");
    let file = File::options().write(true).open(&blob).expect("a blob");
    let size = file.metadata().expect("a blob").len();
    for at in (200..size).step_by(4000) {
        file.write_all_at(&[0; 64], at).expect("a damaged blob");
    }
    stage.mount(site, &bad);
    let failed = count_eio(&stage.user_files());
    site.holds("other_bytes_are_eio", failed > 0, "expected EIO of some files got none");
    let digests = || -> BTreeMap<PathBuf, Vec<u8>> {
        let known = stage.user_files().into_iter();
        known.filter_map(|path| Some((path.clone(), file_digest(&path).ok()?))).collect()
    };
    let read = digests();
    stage.umount(site, &bad);
    fs::copy(&kept, &blob).expect("the blob as it was");
    stage.mount(site, &bad);
    let right = digests();
    let other = read.iter().filter(|(path, digest)| right.get(*path) != Some(digest));
    let other: Vec<&PathBuf> = other.map(|(path, _)| path).take(3).collect();
    site.equal("no_other_data", other, Vec::<&PathBuf>::new());
    site.holds("all_is_read_again", right.len() > read.len(), "expected more files than before");
    stage.umount(site, &bad);
}

/// The largest blob of the registry.
fn largest_blob(site: &Site) -> PathBuf {
    let stored = files(Path::new(&site.at("registry"))).into_iter();
    let is_blob = |path: &PathBuf| {
        path.ends_with("data") && path.to_string_lossy().contains("/blobs/sha256/")
    };
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |info| info.len());
    stored.filter(is_blob).max_by_key(size).expect("a blob")
}

/// All data is fetched while the image is mounted; then the layers are like any others.
pub fn all_comes(site: &mut Site, stage: &mut Stage) {
    let rest = Lamina::new(site, "rest", RootBy::Option);
    site.succeeds("pull_rest", &rest.image(&["pull", "--lazy", &stage.image]));
    stage.mount(site, &rest);
    let partial = || -> Vec<PathBuf> {
        let all = files(Path::new(&rest.at("layers"))).into_iter();
        all.filter(|path| path.ends_with("present")).collect()
    };
    harness::until(ALL_LIMIT, || partial().is_empty());
    site.equal("all_comes", (partial(), rest.missing()), (Vec::new(), 0));
    stage.registry.stop();
    let differences = stage.expected.differences(&Tree::below(&stage.mnt));
    site.equal("tree", differences, Vec::<String>::new());
    stage.umount(site, &rest);
    site.equal("verify", rest.verify(), (0, Vec::new()));
    let data = |lamina: &Lamina, id: &str| file_digest(&data_of(lamina, id)).ok();
    let layers = stage.full.layers();
    let other = layers.iter().filter(|layer| {
        let own = data(&stage.full, &layer.id);
        own.is_none() || own != data(&rest, &layer.id)
    });
    site.equal(
        "same_data",
        other.map(|layer| &layer.id).collect::<Vec<_>>(),
        Vec::<&String>::new(),
    );
}

fn data_of(lamina: &Lamina, id: &str) -> PathBuf {
    PathBuf::from(lamina.at(&format!("layers/{id}/data")))
}
