//! Real clients of the program: apt in a Debian tree, podman, buildah, Docker, registries.
//!
//! `cargo test -p lamina --test clients -- [SCENARIO ...]` runs the scenarios of those names, or
//! all. Each runs in mount and process namespaces of its own, for at most 600 s, in a directory
//! that is removed afterwards. A check prints `ok NAME`, or `FAIL NAME: expected .. got ..`, and
//! the next one runs. After a failure the exit code is 1. The commands of a scenario and their
//! output are in `target/clients/SCENARIO.log`.
//!
//! `LAMINA_SCRATCH` sets the parent of the directory, in place of `TMPDIR`. The tests need root,
//! `/dev/fuse`, the packages of `scripts/deps test`, and for `apt` and images with Python a Debian
//! mirror. `LAMINA_BIN` is the program under test; without it cargo builds one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a scenario stops at the first surprise, and prints what it finds"
)]

mod docker;
mod engine;
mod harness;
mod host;
mod image;
mod isolation;
mod lamina;
mod plugin;
mod podman;
mod proxy;
mod registry;
mod scenarios;
mod tree;
mod usage;

use std::process::ExitCode;

use scenarios::{ALL, Scenario};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, scratch, tree] = &words[..]
        && flag == isolation::FLAG
    {
        return isolation::inside(named(name).expect("the parent knows the name"), scratch, tree);
    }
    if words.iter().any(|word| word == "--bench") {
        // `cargo bench` runs all targets that Clippy checks.
        return ExitCode::SUCCESS;
    }
    let unknown = words.iter().find(|word| named(word).is_none());
    if let Some(word) = unknown {
        let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        eprintln!("no scenario {word:?}; there are: {}", names.join(" "));
        return ExitCode::from(2);
    }
    let is_wanted =
        |scenario: &&Scenario| words.is_empty() || words.iter().any(|w| w == scenario.name);
    match isolation::prepare() {
        Ok(place) => {
            let failures = ALL.iter().filter(is_wanted).filter(|one| !place.run(one)).count();
            ExitCode::from(u8::from(failures > 0))
        }
        Err(reason) => {
            println!("FAIL clients: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
