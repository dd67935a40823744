//! Programs that scripts/deps installs for the tests, below target/tools.

use std::path::{Path, PathBuf};

/// The path of a program. To lack one is a failure where nothing may be skipped; elsewhere there is
/// none then.
pub fn tool(name: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let path = std::env::var_os("LAMINA_TOOLS").map_or(repository, PathBuf::from).join(name);
    let is_there = path.exists();
    let why = format!("{} is missing: scripts/deps test", path.display());
    assert!(is_there || std::env::var_os("LAMINA_NO_SKIP").is_none(), "{why}");
    if !is_there {
        eprintln!("skipped: {why}");
    }
    is_there.then_some(path)
}
