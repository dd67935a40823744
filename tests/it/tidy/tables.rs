//! The tables of the tidy test: edges between modules, words, sizes, exceptions.

/// The `crate::MODULE` that each module of `src/` may name: the table of docs/ARCHITECTURE.md. All
/// modules may use `types` and `error`. A module names only those above it.
pub(super) const EDGES: [(&str, &[&str]); 17] = [
    ("types", &[]),
    ("sync", &[]),
    ("error", &["types"]),
    ("sys", &["types", "error"]),
    ("format", &["types", "error"]),
    ("cache", &["types", "error"]),
    ("tree", &["types", "error", "sys"]),
    // Bytes leave the host: a repository knows trees and nothing of volumes.
    ("backup", &["types", "error", "sys", "tree"]),
    ("store", &["types", "error", "sys", "format", "cache"]),
    ("catalog", &["types", "error", "sys", "format", "store"]),
    ("transfer", &["types", "error", "sys", "format", "store", "catalog", "tree"]),
    ("union", &["types", "error", "sync"]),
    // A pure function of the objects: it knows neither the catalogue nor a clock.
    ("claim", &["types"]),
    ("backing", &["types", "error", "sys", "format", "store", "union"]),
    ("fuse", &["types", "error", "sys", "union"]),
    ("volume", &["types", "error", "sys", "catalog", "store"]),
    ("service", &ALL),
];
pub(super) const ALL: [&str; 14] = [
    "types", "error", "sys", "cache", "store", "catalog", "transfer", "union", "backing", "fuse",
    "volume", "tree", "backup", "claim",
];

/// The only parts of a module that another one may name.
pub(super) const NARROW: [(&str, &str, &[&str]); 3] = [
    ("catalog", "store", &["error", "files", "id"]),
    ("transfer", "catalog", &["name"]),
    ("backing", "union", &["layer"]),
];

/// The modules of the library that the program and the tests' support crate may name.
pub(super) const USERS: [(&str, &[&str]); 2] = [
    // The decisions are pure: the front end of Kubernetes carries them out.
    ("mountd/", &["service", "claim", "types", "error"]),
    ("testing/", &["types", "sync", "error", "union"]),
];

/// A word, and the prefixes of the paths that may use it.
pub(super) const WORDS: [(&str, &[&str]); 30] = [
    ("laminafs_testing", &[]),
    ("shuttle", &["src/sync"]),
    ("libc", &["src/sys"]),
    ("unsafe", &["src/sys"]),
    ("fuser", &["src/fuse/session.rs"]),
    ("bincode", &["src/format/codec.rs"]),
    ("rusqlite", &["src/catalog/database.rs"]),
    ("clap", &["mountd/"]),
    ("std::env", &["src/sys", "mountd/", "benches/"]),
    ("std::process::exit", &["mountd/"]),
    ("println", &["mountd/", "benches/"]),
    ("eprintln", &["mountd/"]),
    ("dbg", &[]),
    ("rustix", &["src/sys", "mountd/"]),
    ("axum", &["mountd/"]),
    ("httparse", &["src/volume/plugin"]),
    ("hyper", &["mountd/"]),
    ("hyper_util", &["mountd/"]),
    ("listenfd", &["mountd/"]),
    ("prometheus_client", &["mountd/"]),
    ("sd_notify", &["mountd/"]),
    // The crate `object_store` is asynchronous: one module runs a runtime behind calls that wait.
    ("tokio", &["mountd/", "src/backup/remote.rs"]),
    ("object_store", &["src/backup/remote.rs"]),
    ("futures_util", &["mountd/", "src/backup/remote.rs"]),
    ("chacha20poly1305", &["src/backup/seal.rs"]),
    ("fastcdc", &["src/backup/chunker.rs"]),
    ("toml", &["mountd/"]),
    ("rcgen", &["mountd/"]),
    ("serde_saphyr", &["mountd/"]),
    ("tokio_rustls", &["mountd/"]),
];

/// Names that the union, which is pure logic, may not use.
pub(super) const NOT_IN_UNION: [&str; 8] =
    ["fuser", "libc", "rustix", "std::fs", "std::io", "std::process", "Instant", "SystemTime"];

/// Names that the union, and the layers of its tests, must take from the module `sync`.
pub(super) const NOT_BESIDE_SYNC: [&str; 4] = ["parking_lot", "dashmap", "shuttle", "std::thread"];
pub(super) const CHECKED: [&str; 2] = ["src/union", "testing/src"];

/// Functions that only `src/union/lock.rs` may call: it hands out a lock together with the state
/// that it protects, read after the lock was taken. State read before may be out of date.
pub(super) const NAKED_LOCKS: [&str; 8] = [
    ".state.lock(",
    ".state.try_lock(",
    ".change.lock(",
    ".change.try_lock(",
    ".entries.read(",
    ".entries.write(",
    ".times.lock(",
    ".file_body(",
];
pub(super) const LOCKS: &str = "src/union/lock.rs";

pub(super) const FILE_LINES: usize = 600;
pub(super) const FUNCTION_LINES: usize = 70;
pub(super) const LINE_CHARS: usize = 100;
pub(super) const DOCUMENT_CHARS: usize = 120;
pub(super) const PARAMETERS: usize = 5;
pub(super) const SCRIPT_LINES: usize = 50;
/// Of a part of a script, which others source.
pub(super) const PART_LINES: usize = 100;

/// Rule, path and object of an exception, and the reason.
pub(super) const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[
    ("parameters", "src/union/namespace.rs", "make_in", "a place, a name and what is made there"),
    ("parameters", "src/union/io.rs", "copy_file_range", "the system call has as many"),
];
