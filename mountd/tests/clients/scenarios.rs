//! The scenarios, one file for each client.

mod apt;
mod buildah;
mod classic;
mod containers;
mod docker;
mod export;
mod images;
mod lazy;
mod migrate;
mod plugin;
mod podman;
mod pull;
mod snapshots;

use crate::harness::Site;

/// A scenario.
pub struct Scenario {
    /// The name on the command line.
    pub name: &'static str,
    /// The prefix of the names of its checks.
    pub prefix: &'static str,
    /// Runs its checks.
    pub run: fn(&mut Site),
}

const fn scenario(name: &'static str, prefix: &'static str, run: fn(&mut Site)) -> Scenario {
    Scenario { name, prefix, run }
}

/// All scenarios.
pub const ALL: [Scenario; 18] = [
    scenario("apt", "apt", apt::run),
    scenario("podman", "podman", podman::root::run),
    scenario("podman-rootless", "rootless", podman::rootless::run),
    scenario("podman-userns", "userns", podman::userns::run),
    scenario("podman-force-mask", "force-mask", podman::force_mask::run),
    scenario("buildah", "buildah", buildah::run),
    scenario("as-fuse-overlayfs", "named", podman::named::run),
    scenario("docker", "docker", docker::run),
    scenario("volume-plugin", "plugin", plugin::run),
    scenario("classic", "classic", classic::run),
    scenario("snapshots", "snapshots", snapshots::run),
    scenario("image", "image", images::run),
    scenario("container", "container", containers::run),
    scenario("export", "export", export::run),
    scenario("pull", "pull", pull::run),
    scenario("lazy", "lazy", lazy::run),
    scenario("migrate-docker", "migrate-docker", migrate::docker::run),
    scenario("migrate-podman", "migrate-podman", migrate::podman::run),
];
