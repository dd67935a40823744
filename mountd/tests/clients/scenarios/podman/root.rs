//! podman as root: build, run, diff, commit, cp, a named volume, `:O`.

use crate::harness::{Site, program};
use crate::{image, podman, usage};

pub fn run(site: &mut Site) {
    let engine = podman::of_root(site);
    image::build(site, &engine);
    image::judge(site, &engine.shell(&[], "lamina/app", image::JUDGE));
    usage::use_containers(site, &engine);
    usage::use_overlay_volume(site, &engine);
    usage::leave_nothing(site, &engine, &program());
}
