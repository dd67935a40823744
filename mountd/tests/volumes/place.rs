//! A data root, and the program on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The file in each volume that tells which one it is.
pub const MARK: &str = "mark";

pub struct Place {
    dir: tempfile::TempDir,
}

/// A volume, or one in the trash, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub name: String,
    pub directory: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `lamina volume ..`, not started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        self.lamina(&[&["volume"], words].concat())
    }

    /// `lamina ..`, not started yet.
    pub fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        command.args(words).env("LAMINA_ROOT", self.at("root"));
        command.env_remove("LAMINA_LOG").env("LAMINA_RUNTIME_DIR", self.at("run"));
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    pub fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a verb that is refused with this exit code, and returns what it prints.
    #[track_caller]
    pub fn refused(&self, words: &[&str], code: i32) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    fn listed(&self, words: &[&str]) -> Vec<Shown> {
        let all: Vec<Value> = serde_json::from_str(&self.good(words)).unwrap();
        let shown = all.iter().map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            let data = PathBuf::from(text("mountpoint"));
            let directory = data.parent().unwrap().to_owned();
            Shown { id: text("id"), name: text("name"), directory }
        });
        shown.collect()
    }

    #[track_caller]
    pub fn volumes(&self) -> Vec<Shown> {
        self.listed(&["ls", "--json"])
    }

    #[track_caller]
    pub fn trash(&self) -> Vec<Shown> {
        self.listed(&["ls", "--trash", "--json"])
    }

    /// Creates a volume and marks it with its id.
    #[track_caller]
    pub fn marked(&self, name: &str) -> String {
        self.good(&["create", name]);
        let found = self.volumes().into_iter().find(|one| one.name == name).unwrap();
        fs::write(found.directory.join("_data").join(MARK), &found.id).unwrap();
        found.id
    }

    /// Checks that all that is shown is whole, and that each marked volume holds its own mark.
    /// Returns the volumes and those in the trash, by id.
    #[track_caller]
    pub fn checked(&self, marked: &[String]) -> BTreeMap<String, Shown> {
        let mut all = BTreeMap::new();
        for one in self.volumes().into_iter().chain(self.trash()) {
            assert!(one.directory.join("_data").is_dir(), "{one:?}");
            if marked.contains(&one.id) {
                let mark = fs::read_to_string(one.directory.join("_data").join(MARK));
                assert_eq!(mark.unwrap_or_default(), one.id, "{one:?}");
            }
            assert!(all.insert(one.id.clone(), one).is_none(), "an id twice");
        }
        all
    }

    /// The directories of volumes on the disk.
    pub fn directories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.at("root/volumes")).unwrap();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| !path.ends_with(".locks"));
        found.sort();
        found
    }
}
