//! A container engine: podman or docker, as root or as a user of a scenario.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::harness::{self, Done};
use crate::host::User;

/// An engine with its configuration.
pub struct Engine {
    pub program: &'static str,
    /// The variables that select its configuration.
    pub variables: Vec<(&'static str, String)>,
    /// The user that runs it; root if `None`.
    pub user: Option<User>,
    /// Options of every `run`.
    pub run_options: Vec<&'static str>,
}

impl Engine {
    /// A command of another program with the configuration of this engine.
    pub fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = match &self.user {
            Some(user) => user.command(&self.variables, program),
            None => {
                let mut command = Command::new(program);
                command.envs(self.variables.iter().map(|(name, value)| (name, value)));
                command
            }
        };
        command.args(args);
        command
    }

    pub fn call(&self, args: &[&str]) -> Done {
        harness::run(&mut self.command_of(self.program, args))
    }

    /// Runs a program with the configuration of this engine.
    pub fn call_other(&self, program: &str, args: &[&str]) -> Done {
        harness::run(&mut self.command_of(program, args))
    }

    /// Runs a command in a new container.
    pub fn run(&self, options: &[&str], image: &str, command: &[&str]) -> Done {
        self.call(&[&["run"], options, &self.run_options, &[image], command].concat())
    }

    /// Runs a shell in a container that is removed at its end.
    pub fn shell(&self, options: &[&str], image: &str, script: &str) -> Done {
        self.run(&[&["--rm"], options].concat(), image, &["sh", "-c", script])
    }

    /// Builds `lamina/app` from a context.
    pub fn build(&self, options: &[&str], context: &str) -> Done {
        self.call(&[&["build", "-q"], options, &["-t", "lamina/app", context]].concat())
    }

    /// The engine's record of an image.
    pub fn inspect(&self, image: &str) -> Value {
        self.call(&["image", "inspect", image]).json()[0].take()
    }

    pub fn id(&self, image: &str) -> String {
        self.inspect(image)["Id"].as_str().expect("an id").to_owned()
    }

    /// The changes in a container: `A /path`, `C /path`, `D /path`.
    pub fn diff(&self, container: &str) -> BTreeSet<String> {
        if self.program == "docker" {
            // There is no JSON output for this.
            return self.call(&["diff", container]).expect().lines().map(str::to_owned).collect();
        }
        let found = self.call(&["diff", "--format", "json", container]).json();
        let mut lines = BTreeSet::new();
        for (key, letter) in [("added", 'A'), ("changed", 'C'), ("deleted", 'D')] {
            let paths = found[key].as_array().into_iter().flatten();
            let paths = paths.map(|path| path.as_str().expect("a path"));
            lines.extend(paths.map(|path| format!("{letter} {path}")));
        }
        lines
    }

    /// The content of a file in a container.
    pub fn file(&self, container: &str, path: &str, archive: &str) -> String {
        let done = self.call(&["cp", &format!("{container}:{path}"), "-"]);
        std::fs::write(archive, &done.out).expect("an archive");
        harness::call("tar", &["-xOf", archive]).text()
    }
}
