//! Programs of this host that the tests need.

use std::path::Path;

/// Whether this host has a program, by its path or by a name in `PATH`. To lack one is a failure
/// where nothing may be skipped.
pub fn has(program: impl AsRef<Path>) -> bool {
    let program = program.as_ref();
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    // Joined to an absolute path, a directory is without effect.
    let is_there = std::env::split_paths(&dirs).any(|dir| dir.join(program).exists());
    let why = format!("{} is missing: scripts/deps test", program.display());
    assert!(is_there || std::env::var_os("LAMINA_NO_SKIP").is_none(), "{why}");
    if !is_there {
        eprintln!("skipped: {why}");
    }
    is_there
}
