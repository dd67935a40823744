//! dockerd with its graph driver `fuse-overlayfs`.

use std::fs;
use std::path::Path;

use crate::docker::Docker;
use crate::harness::{Site, program};
use crate::{image, usage};

pub fn run(site: &mut Site) {
    let bin = site.directory("bin");
    let own = format!("{bin}/fuse-overlayfs");
    fs::copy(program(), &own).expect("a copy of the program");
    let docker = Docker::start(site, &bin);
    site.equal("driver", docker.driver(), "fuse-overlayfs");
    let engine = &docker.engine;
    image::build(site, engine);
    image::judge(site, &engine.shell(&[], "lamina/app", image::JUDGE));
    usage::use_containers(site, engine);
    let containers = engine.call(&["ps", "-aq"]).text();
    for container in containers.lines() {
        engine.call(&["rm", "-f", container]);
    }
    let images = ["lamina/second", "lamina/app", "lamina/base"];
    site.succeeds("rmi", &engine.call(&[&["rmi", "-f"], &images[..]].concat()));
    usage::nothing_left(site, Path::new(&own));
    docker.end();
}
