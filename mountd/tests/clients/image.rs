//! The test image: Debian, and layers that delete, rename, link and replace.

use std::fs;

use crate::engine::Engine;
use crate::harness::{self, Done, Site};
use crate::tree::Tree;

/// The Dockerfile of the image. [`build_with_python`] adds to it.
const DOCKERFILE: &str = include_str!("data/Dockerfile");
/// Runs in a container of the image and prints NAME and VALUE in each line.
pub const JUDGE: &str = include_str!("data/judge.sh");
/// The expected output of [`JUDGE`].
pub const EXPECTED: [(&str, &str); 10] = [
    ("listing", "Dockerfile new"),
    ("old", ""),
    ("gone", ""),
    ("renamed", "r more"),
    ("links", "3 1 data changed"),
    ("doc", ""),
    ("multi", "/multi /multi/deep"),
    ("kept", "7:8 6755 x"),
    ("times", "981173106 0"),
    ("hidden", ""),
];
const INSTALL_PYTHON: &str = "FROM lamina/base\nRUN apt-get update -qq && apt-get install -y -qq \
                              --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*\n";
const LINK: &str = "ln /links/a /links/c\n";
const LINK_IN_PRIVATE: &str = "ln /links/a /links/c && mkdir /private && ln /links/a /private/e \
                               && chown 9:9 /private && chmod 1731 /private\n";

/// Imports the Debian tree as `lamina/base` and writes the build context.
pub fn import_base(site: &Site, engine: &Engine, tar_options: &[&str]) -> String {
    let archive = site.at("base.tar");
    let excluded = ["--exclude", "./var/lib/apt/lists", "--exclude", "./usr/share/locale"];
    let words = [&["-C", site.tree()], &excluded[..], tar_options, &["-cf", &archive, "."]];
    harness::call("tar", &words.concat()).expect();
    engine.call(&["import", &archive, "lamina/base"]).expect();
    fs::remove_file(&archive).expect("the archive of the tree");
    let context = site.directory("context");
    site.write("context/Dockerfile", DOCKERFILE);
    context
}

/// Imports the base and builds `lamina/app`; the containers of the build have no network.
pub fn build(site: &mut Site, engine: &Engine) {
    let context = import_base(site, engine, &[]);
    site.succeeds("build", &engine.build(&["--network", "none"], &context));
}

/// Builds `lamina/app` like a typical image, with a layer in which apt installs Python.
pub fn build_with_python(site: &mut Site, engine: &Engine) {
    let context = import_base(site, engine, &[]);
    let text = DOCKERFILE.replace("FROM lamina/base\n", INSTALL_PYTHON);
    let text = text.replace(LINK, LINK_IN_PRIVATE);
    assert_ne!(text, DOCKERFILE);
    site.write("context/Dockerfile", text);
    site.succeeds("build", &engine.build(&["--layers", "--network", "host"], &context));
}

/// Compares the output of [`JUDGE`] line by line.
pub fn judge(site: &mut Site, done: &Done) {
    judge_but(site, done, &[]);
}

/// Like [`judge`], with other values for some names.
pub fn judge_but(site: &mut Site, done: &Done, others: &[(&str, &str)]) {
    let text = done.text();
    for (name, usual) in EXPECTED {
        let expected =
            others.iter().find(|(other, _)| *other == name).map_or(usual, |(_, value)| value);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        site.equal(&format!("image::{name}"), line, Some(expected));
    }
}

/// The directory that podman mounts for an image.
pub fn mounted_tree(engine: &Engine, image: &str) -> Tree {
    let place = engine.call(&["image", "mount", image]).expect();
    let tree = Tree::below(&place);
    engine.call(&["image", "umount", image]).expect();
    tree
}

/// Writes `lamina/app` to a file or directory.
pub fn save(engine: &Engine, options: &[&str], path: &str) {
    engine.call(&[&["save", "-q"], options, &["-o", path, "lamina/app"]].concat()).expect();
}

/// A file of a tar archive.
pub fn file_of_archive(archive: &str, name: &str) -> Done {
    harness::call("tar", &["-xOf", archive, name])
}
