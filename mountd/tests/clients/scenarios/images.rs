//! An image of several layers that podman built, imported in every format in which podman saves it,
//! and compared with podman's own mount. Also verification, removal and collection in the store.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{self, Site, program};
use crate::image;
use crate::lamina::{Lamina, RootBy};
use crate::podman;
use crate::tree::{Tree, files};
use crate::usage;

const CHANGE: &str =
    "echo more >>/kept && rm -r /seed && mv /renamed /again && ln /links/a /links/d";
/// Imports that are killed, each after a longer time.
const KILLS: u64 = 24;

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    image::build_with_python(site, &engine);
    let lamina = Lamina::new(site, "root", RootBy::Option);
    let expected = image::mounted_tree(&engine, "lamina/app");
    let docker = site.at("docker.tar");
    image::save(&engine, &[], &docker);
    image::save(&engine, &["--format", "oci-archive"], &site.at("oci.tar"));
    image::save(&engine, &["--format", "oci-dir"], &site.at("oci"));
    harness::call("gzip", &["-1", "-k", &docker]).expect();
    let forms = Forms { lamina: &lamina, expected, mnt: site.directory("mnt") };
    forms.judge(site, "docker", "docker.tar");
    forms.judge_root(site);
    forms.judge(site, "oci", "oci.tar");
    forms.judge(site, "directory", "oci");
    forms.judge(site, "gzip", "docker.tar.gz");
    let history = lamina.history("localhost/docker");
    let layers: Vec<_> = history.iter().filter_map(|step| step.layer.as_ref()).collect();
    site.equal("layers", layers.len(), 10);
    let manifest = image::file_of_archive(&docker, "manifest.json").json();
    let saved = manifest[0]["Layers"].as_array().map_or(0, Vec::len);
    site.equal("one_store_of_layers", lamina.layers().len(), saved);
    site.equal("id", lamina.inspect("localhost/docker").id, engine.id("lamina/app"));

    change_through_upper(site, &lamina, &forms.mnt);
    damage(site, &lamina);
    remove(site, &lamina);
    kill_imports(site, &lamina);
    forms.judge(site, "k", "oci.tar");
    lamina.image(&["gc"]).expect();
    site.equal("killed_leaves_nothing", unfinished(&lamina), Vec::<PathBuf>::new());
    usage::leave_nothing(site, &engine, &program());
}

struct Forms<'a> {
    lamina: &'a Lamina,
    expected: Tree,
    mnt: String,
}

impl Forms<'_> {
    /// Imports an archive, mounts the image and compares the trees.
    fn judge(&self, site: &mut Site, name: &str, archive: &str) {
        let tag = format!("localhost/{name}");
        let imported = self.lamina.image(&["import", &site.at(archive), "-t", &tag]);
        site.succeeds(&format!("{name}::import"), &imported);
        site.succeeds(&format!("{name}::mount"), &self.lamina.mount(&tag, &self.mnt));
        let differences = self.expected.differences(&Tree::below(&self.mnt));
        site.equal(&format!("{name}::tree"), differences, Vec::<String>::new());
        self.lamina.umount(&self.mnt);
    }

    /// The root has the mode and the time of the tree that was imported.
    fn judge_root(&self, site: &mut Site) {
        self.lamina.mount("localhost/docker", &self.mnt).expect();
        let root = |path: &str| {
            let info = fs::metadata(path).expect("a root");
            (info.mode() & 0o7777, info.mtime())
        };
        site.equal("root", root(&self.mnt), root(site.tree()));
        self.lamina.umount(&self.mnt);
    }
}

fn change_through_upper(site: &mut Site, lamina: &Lamina, mnt: &str) {
    let (upper, work) = (site.directory("upper"), site.directory("work"));
    let image = ["mount", "--image", "localhost/docker"];
    lamina.run(&[&image[..], &["--upper", &upper, "--work", &work, mnt]].concat()).expect();
    let changed = harness::call("chroot", &[mnt, "sh", "-c", CHANGE]);
    site.succeeds("change", &changed);
    let files = ["kept", "again/inner/more"].map(|name| format!("{mnt}/{name}"));
    let files = files.map(|path| fs::read_to_string(path).expect("a changed file"));
    let links = fs::metadata(format!("{mnt}/links/d")).expect("a new link").nlink();
    site.equal("upper", (files.concat(), links), ("x\nmore\nmore\n".to_owned(), 5));
    lamina.umount(mnt);
}

/// Changes a byte in the largest layer: a verification lists the affected files.
fn damage(site: &mut Site, lamina: &Lamina) {
    site.equal("verify", lamina.verify(), (0, Vec::new()));
    let layers = files(lamina.at("layers").as_ref());
    let data = layers.into_iter().filter(|path| path.ends_with("data"));
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |info| info.len());
    let largest = data.max_by_key(size).expect("a layer");
    let file = fs::File::options().write(true).open(&largest).expect("a layer");
    file.write_all_at(&[0xff], size(&largest) / 2).expect("a changed byte");
    let (code, found) = lamina.verify();
    let id = largest.parent().and_then(Path::file_name).expect("a layer").to_string_lossy();
    let layers: Vec<&str> = found.iter().map(|damage| &damage.layer[..]).collect();
    site.equal("damage", (code, layers), (1, vec![&id[..]]));
    let names: Vec<&String> = found.iter().flat_map(|damage| &damage.files).collect();
    let all_absolute = !names.is_empty() && names.iter().all(|name| name.starts_with('/'));
    site.holds("verify_names_files", all_absolute, format!("expected paths got {names:?}"));
}

fn remove(site: &mut Site, lamina: &Lamina) {
    let names = ["docker", "oci", "directory", "gzip"].map(|name| format!("localhost/{name}"));
    let names = names.each_ref().map(String::as_str);
    lamina.image(&[&["rm"], &names[..]].concat()).expect();
    lamina.image(&["gc"]).expect();
    let places = ["layers", "images", "names"];
    let left = places.iter().flat_map(|name| fs::read_dir(lamina.at(name)).expect("a directory"));
    let left: Vec<PathBuf> = left.map(|entry| entry.expect("an entry").path()).collect();
    site.equal("nothing_left", left, Vec::<PathBuf>::new());
}

/// An import or a collection that is killed at any moment leaves an intact store.
fn kill_imports(site: &mut Site, lamina: &Lamina) {
    let archive = site.at("oci.tar");
    let mut whole = (0, Vec::new());
    let mut killed = 0;
    for step in 1..=KILLS {
        let mut import = lamina.command(&["image", "import", &archive, "-t", "localhost/k"]);
        let limit = Duration::from_millis(30 * step);
        killed += usize::from(!harness::killed_after(limit, &mut import));
        if step % 3 == 0 {
            let limit = Duration::from_millis(10 * (step % 9 + 1));
            harness::killed_after(limit, &mut lamina.command(&["image", "gc"]));
        }
        whole = lamina.verify();
        if whole.0 != 0 {
            break;
        }
    }
    site.equal("killed_store_is_whole", whole, (0, Vec::new()));
    site.holds("imports_are_killed", killed > 0, "expected a killed import got none");
}

/// Unfinished layers of the store.
fn unfinished(lamina: &Lamina) -> Vec<PathBuf> {
    let entries = fs::read_dir(lamina.at("layers")).expect("the layers");
    let paths = entries.map(|entry| entry.expect("a layer").path());
    let is_hidden = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
    };
    paths.filter(is_hidden).collect()
}
