//! podman of a plain user without configuration, and Lamina on PATH as fuse-overlayfs.

use std::fs;
use std::path::Path;

use crate::engine::Engine;
use crate::harness::{Site, program};
use crate::host::{self, User};
use crate::{podman, usage};

/// The state that containers/storage keeps for a store with a mount program.
const MARK: &str = ".local/share/containers/storage/overlay/.has-mount-program";

pub fn run(site: &mut Site) {
    let mut user = User::add(site);
    host::allow_rootless(site);
    let bin = site.directory("bin");
    let own = format!("{bin}/fuse-overlayfs");
    fs::copy(program(), &own).expect("a copy of the program");
    user.path = format!("{bin}:{}", user.path);
    // Sets neither store nor program, only what this host needs.
    let configuration = podman::configuration("crun", "disabled");
    let configuration = site.write("containers.conf", configuration);
    // With a new store containers/storage prefers the kernel's overlayfs.
    let mark = format!("{}/{MARK}", user.home);
    fs::create_dir_all(Path::new(&mark).parent().expect("a directory")).expect("a store");
    fs::write(&mark, "true").expect("a mark");
    host::give(&user, &user.home);
    let variables = vec![
        ("CONTAINERS_CONF", configuration),
        // podman 4.3 uses vfs without a storage.conf.
        ("STORAGE_DRIVER", "overlay".to_owned()),
    ];
    let engine = Engine { program: "podman", variables, user: Some(user), run_options: Vec::new() };
    usage::use_without_root(site, &engine);
    usage::leave_nothing(site, &engine, Path::new(&own));
}
