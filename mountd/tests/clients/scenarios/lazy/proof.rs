//! Nothing proves the content of a layer in Lamina's own form: it replaces no other image, and
//! images made from it record that.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{NAME, Stage};
use crate::harness::Site;
use crate::lamina::{Lamina, RootBy};

pub fn run(site: &mut Site, stage: &Stage) {
    let archive = site.at("own.tar");
    let words = ["export", NAME, "--format", "oci-archive", "--compress", "native"];
    site.succeeds("export", &stage.full.image(&[&words[..], &["-o", &archive]].concat()));
    // Completed from a file, over a partial layer.
    let imported = stage.lazy.image(&["import", &archive, "-t", "again"]);
    let last = imported.text().lines().last().unwrap_or_default().to_owned();
    site.equal("import_completes", (&last, stage.lazy.missing()), (&stage.id, 0));
    other_layers(site, stage);
    commit(site, stage);
}

/// An image with other layers under the same id.
fn other_layers(site: &mut Site, stage: &Stage) {
    let layout = site.at("oci");
    let words = ["export", NAME, "--format", "oci-dir", "--compress", "native", "-o", &layout];
    stage.full.image(&words).expect();
    exchange_layers(&layout);
    let refused = stage.full.image(&["import", &layout, "-t", "other"]);
    site.refused("other_layers", &refused, &[&stage.id]);
    let fresh = Lamina::new(site, "fresh", RootBy::Option);
    site.succeeds("other_layers_alone", &fresh.image(&["import", &layout, "-t", "other"]));
    let ids = |lamina: &Lamina| -> Vec<String> {
        lamina.inspect(&stage.id).rootfs.into_iter().map(|layer| layer.id).collect()
    };
    let right = ids(&stage.full);
    site.holds("other_layers_are_others", ids(&fresh) != right, "expected other layers");
    let imported = fresh.image(&["import", &site.at("app.tar")]);
    site.succeeds("import_of_tars", &imported);
    site.equal("tars_take_the_place", ids(&fresh), right);
}

/// Repeats the two topmost layers of the image of a layout in place of all others.
fn exchange_layers(layout: &str) {
    let index_path = format!("{layout}/index.json");
    let blob = |digest: &str| format!("{layout}/blobs/{}", digest.replace(':', "/"));
    let read = |path: &str| -> Value {
        let bytes = fs::read(path).expect("a file of the layout");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let mut index = read(&index_path);
    let mut manifest = read(&blob(index["manifests"][0]["digest"].as_str().expect("a digest")));
    let layers = manifest["layers"].as_array_mut().expect("layers");
    let top = layers.split_off(layers.len() - 2);
    let pairs = (layers.len() + 2) / 2;
    *layers = vec![top; pairs].concat();
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    let hash = Sha256::digest(&bytes);
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha256:{digits}");
    fs::write(blob(&digest), &bytes).expect("a blob");
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(bytes.len());
    fs::write(&index_path, index.to_string()).expect("an index");
}

fn commit(site: &mut Site, stage: &Stage) {
    let rest = Lamina::new(site, "rest", RootBy::Option);
    rest.container(&["create", "--name", "made", &stage.image]).expect();
    let place = rest.container(&["start", "made"]).expect();
    fs::write(format!("{place}/new"), "new\n").expect("a file of the container");
    rest.container(&["stop", "made"]).expect();
    site.succeeds("commit", &rest.image(&["commit", "made", "-t", "committed"]));
    let layers = rest.inspect("committed").rootfs;
    let proven: Vec<bool> =
        layers.iter().map(|layer| layer.diff_id.starts_with("sha256:")).collect();
    let mut expected = vec![false; layers.len()];
    if let Some(last) = expected.last_mut() {
        *last = true;
    }
    site.equal("commit_proves_nothing", proven, expected);
    rest.container(&["rm", "made"]).expect();
}
