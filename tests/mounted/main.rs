//! One list of behaviour, judged on three file systems: a plain directory, the kernel's overlayfs
//! and a Lamina mount. If the judges agree, a case is written once; if the kernel's overlayfs is
//! known to differ, the group of the case shows that.
//!
//! Needs root and `/dev/fuse`. Without them every case reports that it was skipped, and fails if
//! `LAMINA_NO_SKIP` is set. `LAMINA_BIN` is the program under test; without it the tests build one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

/// Makes a module of tests out of each case: one test for each judge of the group.
///
/// Lamina judges twice: over directories, and over blobs made from them. Groups: `everywhere`
/// (all), `unions` (kernel and Lamina: the case inspects layers), `beyond_kernel` (plain and
/// Lamina: overlayfs is known to differ), `beyond_fuse` (plain and kernel: the kernel's FUSE client
/// refuses without a request), `lamina` (Lamina over directories only), `over_blobs` (Lamina over
/// blobs only), `host` (a directory of the host, in which the case mounts by itself),
/// `over_directories` and `unions_of_directories` (like `everywhere` and `unions`
/// without blobs, which cannot hold such objects).
macro_rules! judged {
    (everywhere: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { plain: Plain, kernel: Kernel, lamina: Lamina, blobs: Blobs }); )*
    };
    (over_directories: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { plain: Plain, kernel: Kernel, lamina: Lamina }); )*
    };
    (unions: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { kernel: Kernel, lamina: Lamina, blobs: Blobs }); )*
    };
    (unions_of_directories: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { kernel: Kernel, lamina: Lamina }); )*
    };
    (beyond_kernel: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { plain: Plain, lamina: Lamina, blobs: Blobs }); )*
    };
    (beyond_fuse: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { plain: Plain, kernel: Kernel }); )*
    };
    (host: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { plain: Plain }); )*
    };
    (over_blobs: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { blobs: Blobs }); )*
    };
    (lamina: $($name:ident),* $(,)?) => {
        $( judged!(@ $name { lamina: Lamina }); )*
    };
    (@ $name:ident { $($test:ident: $judge:ident),* }) => {
        mod $name { $(
            #[test]
            fn $test() { crate::harness::run(crate::harness::Judge::$judge, super::$name); }
        )* }
    };
}

mod calls;
mod harness;
mod tools;
mod tree;

mod acl;
mod concurrent;
mod container_running;
mod container_snapshots;
mod content;
mod create;
mod drivers;
mod ending;
mod exchange;
mod grafts;
mod handles;
mod holes;
mod huge;
mod identity;
mod layers;
mod link;
mod listing;
mod locks;
mod mapping;
mod names;
mod negative;
mod operator;
mod options;
mod privilege;
mod programs;
mod proof;
mod publication;
mod publication_killed;
mod publication_views;
mod races;
mod random;
mod rename;
mod shared;
mod sizes;
mod sizes_later;
mod speed;
mod stated;
mod subpath;
mod swapped;
mod table;
mod times;
mod trust;
mod volume_block;
mod volume_changes;
mod volume_drivers;
mod volume_group;
mod volume_image;
mod volume_layers;
mod volume_plugin;
mod volume_resize;
mod volume_snapshot;
mod volume_union;
mod walks;
mod xattr;
