//! The volume plugin for dockerd and podman, with kills of the plugin and of dockerd.

mod docker;
mod hang;
mod podman;

use std::path::Path;

use crate::docker::Docker;
use crate::harness::{Site, program};
use crate::plugin::Plugin;
use crate::{image, usage};

pub fn run(site: &mut Site) {
    let bin = site.directory("bin");
    let own = format!("{bin}/fuse-overlayfs");
    std::fs::copy(program(), &own).expect("a copy of the program");
    let mut plugin = Plugin::start(site);
    let engine = Docker::start(site, &bin);
    image::import_base(site, &engine.engine, &[]);
    docker::manage(site, &engine.engine, &plugin);
    docker::share(site, &engine.engine, &plugin);
    docker::outlive(site, &engine.engine, &mut plugin);
    docker::under_load(site, &engine.engine, &mut plugin);
    let engine = docker::outlive_docker(site, engine, &mut plugin);
    hang::run(site, &engine.engine, &mut plugin);
    docker::leave_nothing(site, &engine.engine);
    engine.end();
    podman::run(site, &mut plugin);
    site.holds("ends", plugin.end(), "expected exit code 0 got another");
    usage::nothing_left(site, Path::new(&own));
    usage::nothing_left(site, &program());
}
