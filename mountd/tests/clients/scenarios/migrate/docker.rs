//! dockerd with the drivers overlay2 and vfs.

use super::{NAMES, Place, Report, judge, prepare};
use crate::docker::Docker;
use crate::harness::{self, Site};
use crate::lamina::{Lamina, RootBy};

pub fn run(site: &mut Site) {
    let lamina = Lamina::new(site, "away", RootBy::Option);
    let socket = site.at("docker/nobody");
    let away = lamina.run(&["import-docker", "--socket", &socket]);
    site.refused("away", &away, &["does not answer", &socket, "systemctl start docker"]);
    let bin = site.directory("bin");
    // In a private mount dockerd would make its root a mount of its own, and no volume could move.
    harness::call("mount", &["--bind", site.scratch(), site.scratch()]).expect();
    harness::call("mount", &["--make-shared", site.scratch()]).expect();
    let docker = Docker::start_with(site, &bin, "overlay2");
    site.equal("driver", docker.driver(), "overlay2");
    let names = NAMES.map(str::to_owned).to_vec();
    let place = Place { engine: &docker.engine, command: "import-docker", names };
    prepare(site, &place);
    judge(site, &place);
    paused(site, &place);
    let id = docker.engine.id("lamina/app:1");
    docker.engine.call(&["rm", "-f", "writer"]).expect();
    docker.end();
    // The storage is enough for the images, without the engine.
    let storage = site.at("docker/data");
    let words = ["import-docker", "--storage-root", &storage, "--json", "lamina/app:1"];
    let done = Lamina::new(site, "stopped", RootBy::Option).run(&words);
    site.succeeds("without_engine", &done);
    let found = Lamina::new(site, "stopped", RootBy::Option).inspect("lamina/app:1").id;
    site.equal("without_engine_id", found.as_str(), id.trim_start_matches("sha256:"));
    archives(site, &bin);
}

/// A paused container does not change its volume.
fn paused(site: &mut Site, place: &Place<'_>) {
    let lamina = Lamina::new(site, "paused", RootBy::Option);
    place.engine.call(&["pause", "writer"]).expect();
    let report = Report::of(&place.import(&lamina, &["used"]));
    place.engine.call(&["unpause", "writer"]).expect();
    site.equal("paused", &*report.volume("used").outcome, "taken");
    site.equal("paused_notes", report.volume("used").notes.join(" "), String::new());
}

/// A driver whose layers cannot be read in place: the engine makes an archive.
fn archives(site: &mut Site, bin: &str) {
    let docker = Docker::start_with(site, bin, "vfs");
    let archive = site.at("base.tar");
    docker.engine.call(&["import", &archive, "lamina/plain:1"]).expect();
    let names = vec!["lamina/plain:1".to_owned()];
    let place = Place { engine: &docker.engine, command: "import-docker", names };
    let lamina = Lamina::new(site, "archives", RootBy::Option);
    let done = place.import(&lamina, &["--only-images"]);
    site.succeeds("archive", &done);
    let report = Report::of(&done);
    let how: Vec<&str> = report.images.iter().map(|one| one.how.as_str()).collect();
    site.equal("archive_how", how, ["archive"]);
    let id = docker.engine.id("lamina/plain:1");
    let found = lamina.inspect("lamina/plain:1").id;
    site.equal("archive_id", found.as_str(), id.trim_start_matches("sha256:"));
    site.equal("archive_verify", lamina.verify(), (0, Vec::new()));
    docker.end();
}
