//! podman with the driver overlay, asked by its program and over its socket, and with vfs.

use std::path::Path;

use super::{NAMES, Place, Report, judge, prepare};
use crate::engine::Engine;
use crate::harness::{self, Background, Site};
use crate::lamina::{Lamina, RootBy};
use crate::podman;

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    let names = NAMES.map(|name| match name.starts_with("lamina/") {
        true => format!("localhost/{name}"),
        false => name.to_owned(),
    });
    let place = Place { engine: &engine, command: "import-podman", names: names.to_vec() };
    prepare(site, &place);
    over_socket(site, &place);
    judge(site, &place);
    archives(site, &engine);
    missing(site);
    engine.call(&["rm", "-f", "--time", "0", "writer"]).expect();
}

/// The same objects come over the socket, which podman serves in the form of Docker.
fn over_socket(site: &mut Site, place: &Place<'_>) {
    let socket = site.at("podman.sock");
    let address = format!("unix://{socket}");
    let mut service =
        place.engine.command_of("podman", &["system", "service", "-t", "0", &address]);
    let mut service = Background::start(&mut service, Path::new("/dev/null"));
    let limit = std::time::Duration::from_secs(30);
    site.holds("socket", harness::until(limit, || Path::new(&socket).exists()), "no socket");
    let lamina = Lamina::new(site, "socket", RootBy::Option);
    let asked = Report::of(&place.import(&lamina, &["--dry-run", "--socket", &socket]));
    let called = Report::of(&place.import(&lamina, &["--dry-run"]));
    site.equal("socket_figures", asked.figures(), called.figures());
    let done = place.import(&lamina, &["--socket", &socket, "data", "lamina/app:1"]);
    site.succeeds("socket_import", &done);
    service.end(rustix::process::Signal::TERM);
}

/// A driver whose layers cannot be read in place.
fn archives(site: &mut Site, engine: &Engine) {
    let variables = engine.variables.clone();
    let mut plain = Engine { program: "podman", variables, user: None, run_options: Vec::new() };
    let storage = site.write(
        "vfs.conf",
        format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
            site.directory("vfs")
        ),
    );
    plain.variables.push(("CONTAINERS_STORAGE_CONF", storage));
    let libpod =
        format!("[engine]\ntmp_dir = \"{0}/tmp\"\nvolume_path = \"{0}/v\"\n", site.at("vfs"));
    plain.variables.push(("CONTAINERS_CONF", site.write("vfs-containers.conf", libpod)));
    plain.call(&["import", &site.at("base.tar"), "lamina/plain:1"]).expect();
    let place = Place { engine: &plain, command: "import-podman", names: Vec::new() };
    let lamina = Lamina::new(site, "archives", RootBy::Option);
    let done = place.import(&lamina, &["--only-images"]);
    site.succeeds("archive", &done);
    let report = Report::of(&done);
    let how: Vec<&str> = report.images.iter().map(|one| one.how.as_str()).collect();
    site.equal("archive_how", how, ["archive"]);
    site.equal("archive_id", lamina.inspect("lamina/plain:1").id, plain.id("lamina/plain:1"));
}

/// Without the program there is a next step.
fn missing(site: &mut Site) {
    let lamina = Lamina::new(site, "missing", RootBy::Option);
    let done =
        harness::run(lamina.command(&["import-podman"]).env("PATH", site.directory("empty")));
    site.refused("missing", &done, &["podman is not installed", "--storage-root"]);
}
