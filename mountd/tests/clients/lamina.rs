//! The program under test, with its JSON as types.

use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::harness::{self, Done, Site};

/// The way in which the program gets its data root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootBy {
    /// By `--root`.
    Option,
    /// By `LAMINA_ROOT`.
    Environment,
}

/// The program with a data root and a directory of status sockets.
pub struct Lamina {
    root: String,
    runtime: String,
    by: RootBy,
}

/// A layer of the store.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Layer {
    pub id: String,
    pub objects: usize,
    pub missing: u64,
}

/// A container.
#[derive(Debug, Deserialize)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub mountpoint: Option<String>,
    pub mounted: bool,
}

/// A mount.
#[derive(Debug, Deserialize)]
pub struct Mount {
    pub pid: i32,
    pub source: String,
    pub target: String,
}

/// An image.
#[derive(Debug, Deserialize)]
pub struct Image {
    pub id: String,
    pub rootfs: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Deserialize)]
pub struct ImageLayer {
    pub id: String,
    /// The digest of its tar stream, or `blake3:` and the id if nothing proves the digest.
    pub diff_id: String,
}

/// A step of the history of an image.
#[derive(Debug, Deserialize)]
pub struct Step {
    pub created_by: Option<String>,
    pub layer: Option<String>,
}

/// A result of a verification.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Damage {
    pub layer: String,
    pub files: Vec<String>,
}

/// A line of `image import --json` or `image pull --json`.
#[derive(Debug, Deserialize)]
struct Event {
    event: String,
}

impl Lamina {
    pub fn new(site: &Site, root: &str, by: RootBy) -> Self {
        Self { root: site.at(root), runtime: site.at("run"), by }
    }

    /// A path below the data root.
    pub fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(harness::program());
        command.env("LAMINA_RUNTIME_DIR", &self.runtime).env_remove("LAMINA_ROOT");
        let has_root = words.first().is_some_and(|word| *word != "umount" && *word != "status");
        match self.by {
            RootBy::Environment => command.env("LAMINA_ROOT", &self.root).args(words),
            RootBy::Option if has_root => {
                command.arg(words[0]).args(["--root", &self.root]).args(&words[1..])
            }
            RootBy::Option => command.args(words),
        };
        command
    }

    pub fn run(&self, words: &[&str]) -> Done {
        harness::run(&mut self.command(words))
    }

    pub fn image(&self, words: &[&str]) -> Done {
        self.run(&[&["image"], words].concat())
    }

    pub fn container(&self, words: &[&str]) -> Done {
        self.run(&[&["container"], words].concat())
    }

    /// Mounts an image read-only.
    pub fn mount(&self, image: &str, at: &str) -> Done {
        self.run(&["mount", "--image", image, at])
    }

    pub fn umount(&self, at: &str) {
        self.run(&["umount", at]).expect();
    }

    #[track_caller]
    fn read<T: DeserializeOwned>(&self, words: &[&str]) -> T {
        let value = self.run(words).json();
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn layers(&self) -> Vec<Layer> {
        self.read(&["layer", "ls", "--json"])
    }

    /// The number of bytes of layers that are still in a registry.
    pub fn missing(&self) -> u64 {
        self.layers().iter().map(|layer| layer.missing).sum()
    }

    pub fn containers(&self) -> Vec<Container> {
        self.read(&["container", "ls", "--json"])
    }

    pub fn mounts(&self) -> Vec<Mount> {
        self.read(&["status", "--json"])
    }

    pub fn inspect(&self, image: &str) -> Image {
        let mut found: Vec<Image> = self.read(&["image", "inspect", image]);
        assert_eq!(found.len(), 1, "one image is named");
        found.remove(0)
    }

    /// The names of all images.
    pub fn image_names(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Listed {
            names: Vec<String>,
        }
        let all: Vec<Listed> = self.read(&["image", "ls", "--json"]);
        all.into_iter().flat_map(|image| image.names).collect()
    }

    pub fn history(&self, image: &str) -> Vec<Step> {
        self.read(&["image", "history", "--json", image])
    }

    /// The changes of a container or an image, as podman writes them: `A /path`.
    pub fn diff(&self, source: &str) -> Vec<String> {
        let all: std::collections::BTreeMap<String, String> =
            self.read(&["image", "diff", "--json", source]);
        let mut lines: Vec<String> =
            all.into_iter().map(|(path, change)| format!("{change} {path}")).collect();
        lines.sort();
        lines
    }

    /// Verifies the data root. Returns the exit code and the damage.
    pub fn verify(&self) -> (i32, Vec<Damage>) {
        let done = self.image(&["verify", "--json"]);
        let text = done.text();
        let found = serde_json::from_str(&text);
        (done.code, found.unwrap_or_else(|error| panic!("{error} in {text:?}: {}", done.err)))
    }
}

/// The number of layers that an import or a pull with `--json` found in the store.
pub fn kept_layers(done: &Done) -> usize {
    let text = done.expect();
    let events = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    events.filter(|event: &Event| event.event == "kept").count()
}
