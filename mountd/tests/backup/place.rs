//! Data roots, and the program on them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub struct Place {
    dir: tempfile::TempDir,
    /// Variables of every command.
    pub variables: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Self {
        // Beside /tmp, which may be a tmpfs without extended attributes of users.
        Self { dir: tempfile::tempdir_in("/var/tmp").unwrap(), variables: Vec::new() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    pub fn url(&self, name: &str) -> String {
        format!("file://{}", self.text(name))
    }

    /// The content of a volume of the driver `local`.
    pub fn data(&self, root: &str, volume: &str) -> PathBuf {
        self.at(root).join("volumes").join(volume).join("_data")
    }

    /// `lamina volume ..` on a data root, not started yet.
    pub fn command(&self, root: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamina"));
        command.arg("volume").args(words).env("LAMINA_ROOT", self.at(root));
        command.env_remove("LAMINA_LOG").env("LAMINA_RUNTIME_DIR", self.at("run"));
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null());
        command
    }

    pub fn run_on(&self, root: &str, words: &[&str]) -> Output {
        self.command(root, words).output().unwrap()
    }

    #[track_caller]
    pub fn good_on(&self, root: &str, words: &[&str]) -> String {
        let output = self.run_on(root, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub fn good(&self, words: &[&str]) -> String {
        self.good_on("root", words)
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.good(words)).unwrap()
    }

    /// Runs a verb that fails, and returns what it prints.
    #[track_caller]
    pub fn refused_on(&self, root: &str, words: &[&str]) -> String {
        let output = self.run_on(root, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Checks that a data root has no volume of a name, nor anything else of it.
    #[track_caller]
    pub fn has_no(&self, root: &str, volume: &str) {
        let listed = self.good_on(root, &["ls", "--quiet"]);
        assert!(!listed.lines().any(|line| line == volume), "{listed}");
        for entry in fs::read_dir(self.at(root).join("volumes")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(volume) && !name.starts_with(".growing"), "{name} stays");
        }
    }
}
