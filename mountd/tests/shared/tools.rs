//! Programs that scripts/deps installs for the tests, below target/tools.

use std::path::{Path, PathBuf};

use crate::programs::has;

/// The path of a program, if it is there, as [`has`] says.
pub fn tool(name: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let path = std::env::var_os("LAMINA_TOOLS").map_or(repository, PathBuf::from).join(name);
    has(&path).then_some(path)
}
