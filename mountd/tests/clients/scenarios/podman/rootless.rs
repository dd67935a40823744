//! podman of a plain user: as root's, and `--userns keep-id`.

use std::fs;
use std::path::Path;

use crate::harness::{Site, program};
use crate::host::{self, User};
use crate::podman::{self, Store};
use crate::usage;

pub fn run(site: &mut Site) {
    let user = User::add(site);
    host::allow_rootless(site);
    // The program may be in a directory that this user cannot enter.
    let original = program();
    let name = original.file_name().and_then(|name| name.to_str()).expect("a name of text");
    let own = site.at(name);
    fs::copy(&original, &own).expect("a copy of the program");
    let store =
        Store { mount_program: &own, runtime: "crun", cgroups: "disabled", ..Store::default() };
    let engine = podman::with_store(site, &store, Some(user));
    usage::use_without_root(site, &engine);
    usage::leave_nothing(site, &engine, Path::new(&own));
}
