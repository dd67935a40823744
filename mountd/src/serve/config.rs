//! The configuration of `lamina serve`: flags, the file `lamina.toml`, and the defaults.
//!
//! A front end starts if a flag names it. Without such a flag those of the file start, and without
//! a file the volume plugin at its default path. Keys of the file are named as the flags are; an
//! unknown key is an error, so that a typing error does not turn a front end off.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::report::CliError;

/// The configuration file that is read if it exists.
pub const FILE: &str = "/etc/lamina/lamina.toml";
/// Where dockerd looks for the plugin `lamina`. The name of the driver is that of the socket.
pub const DOCKER: &str = "/run/docker/plugins/lamina.sock";
/// What is said of a change that a reload does not apply.
const RESTART: &str = "restart lamina to apply it";

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A unix socket.
    Socket(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match Path::new(path).is_absolute() {
                true => Ok(Self::Socket(path.into())),
                false => Err(format!("{text:?} is not an absolute path: use unix:/PATH")),
            };
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            return Err(format!("invalid address {text:?}: use 127.0.0.1:PORT or unix:/PATH"));
        };
        if address.ip().is_loopback() {
            return Ok(Self::Loopback(address));
        }
        Err(format!("{address} is not a loopback address: use 127.0.0.1:PORT or unix:/PATH"))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => write!(f, "{address}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Limits of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of one front end.
    pub connections: usize,
    /// Calls that change volumes and run at the same time; each has a thread.
    pub calls: usize,
    /// Calls that wait for one volume.
    pub waiting: usize,
    /// How long the end waits for running calls, in seconds.
    pub end_seconds: u64,
    /// The time between two measurements of the space that volumes use, in seconds; 0 for none.
    pub usage_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, calls: 128, waiting: 256, end_seconds: 30, usage_seconds: 300 }
    }
}

impl Limits {
    /// How long the end waits for running calls.
    #[must_use]
    pub const fn end(&self) -> Duration {
        Duration::from_secs(self.end_seconds)
    }

    fn check(&self) -> Result<(), String> {
        let counts = [
            ("connections", self.connections, 65_536),
            ("calls", self.calls, 4096),
            ("waiting", self.waiting, 65_536),
        ];
        match counts.into_iter().find(|(_, count, most)| *count == 0 || count > most) {
            Some((name, count, most)) => {
                Err(format!("limits.{name} is {count}: use a number from 1 to {most}"))
            }
            None => Ok(()),
        }
    }
}

/// What the flags or the file ask for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data root.
    pub root: Option<PathBuf>,
    /// The socket of the volume plugin.
    pub docker: Option<PathBuf>,
    /// Where metrics and health are served.
    pub metrics: Option<Address>,
    /// What is logged: a level, or a filter.
    pub log: String,
    /// Limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let log = "info".to_owned();
        Self { root: None, docker: None, metrics: None, log, limits: Limits::default() }
    }
}

/// The flags of the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The data root.
    pub root: Option<PathBuf>,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The socket of the volume plugin.
    pub docker: Option<PathBuf>,
    /// Where metrics and health are served.
    pub metrics: Option<Address>,
}

impl Flags {
    /// Reads the configuration file and lays the flags over it.
    ///
    /// # Errors
    /// [`CliError`] for a named file that does not exist, and for a file that cannot be parsed.
    pub fn resolve(&self) -> Result<Config, CliError> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => read(Path::new(FILE)).or_else(|error| match error {
                CliError::Io { error, .. } if error.kind() == ErrorKind::NotFound => {
                    Ok(Config { docker: Some(DOCKER.into()), ..Config::default() })
                }
                error => Err(error),
            })?,
        };
        if self.docker.is_some() || self.metrics.is_some() {
            config.docker.clone_from(&self.docker);
            config.metrics.clone_from(&self.metrics);
        }
        let set = self.root.clone().or_else(|| std::env::var_os("LAMINA_ROOT").map(PathBuf::from));
        config.root = set.or(config.root);
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Config, CliError> {
    let what = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::Io { what: what.clone(), error })?;
    parse(&text).map_err(|reason| CliError::Usage(format!("{what}: {reason}")))
}

fn parse(text: &str) -> Result<Config, String> {
    let config: Config =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    for (name, path) in [("root", &config.root), ("docker", &config.docker)] {
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(format!("{name} is not an absolute path"));
        }
    }
    config.limits.check()?;
    Ok(config)
}

impl Config {
    /// What differs in another configuration and is not applied without a restart, one sentence
    /// for each.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let shown = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
        };
        let address = |address: &Option<Address>| {
            address.as_ref().map_or_else(|| "none".to_owned(), Address::to_string)
        };
        let (old_limits, new_limits) = (&self.limits, &new.limits);
        let changes = [
            ("root", shown(&self.root), shown(&new.root)),
            ("docker", shown(&self.docker), shown(&new.docker)),
            ("metrics", address(&self.metrics), address(&new.metrics)),
            (
                "limits.connections",
                old_limits.connections.to_string(),
                new_limits.connections.to_string(),
            ),
            ("limits.calls", old_limits.calls.to_string(), new_limits.calls.to_string()),
            ("limits.waiting", old_limits.waiting.to_string(), new_limits.waiting.to_string()),
        ];
        let changed = changes.into_iter().filter(|(_, old, new)| old != new);
        changed.map(|(name, old, new)| format!("{name} is {old}, not {new}: {RESTART}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/lamina.toml");

    #[test]
    fn the_packaged_file_states_the_defaults() {
        let text = std::fs::read_to_string(PACKAGED).unwrap();
        let expected = Config { docker: Some(DOCKER.into()), ..Config::default() };
        assert_eq!(parse(&text).unwrap(), expected);
        for comment in ["root = \"/var/lib/lamina\"", "metrics = \"127.0.0.1:9185\""] {
            assert!(text.contains(&format!("# {comment}\n")), "{comment}");
            parse(comment).unwrap();
        }
    }

    #[test]
    fn a_flag_of_a_front_end_starts_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lamina.toml");
        std::fs::write(&file, "docker = \"/run/a.sock\"\nmetrics = \"127.0.0.1:1\"\n").unwrap();
        let mut flags = Flags { config: Some(file), ..Flags::default() };
        let both = flags.resolve().unwrap();
        assert_eq!(both.docker, Some("/run/a.sock".into()));
        assert_eq!(both.metrics, Some("127.0.0.1:1".parse().unwrap()));
        flags.metrics = Some("unix:/run/m".parse().unwrap());
        let one = flags.resolve().unwrap();
        assert_eq!((one.docker, one.metrics), (None, Some(Address::Socket("/run/m".into()))));
    }

    #[test]
    fn a_named_file_must_exist_and_mistakes_are_named() {
        let missing = Flags { config: Some("/nowhere/lamina.toml".into()), ..Flags::default() };
        assert!(missing.resolve().unwrap_err().to_string().contains("/nowhere/lamina.toml"));
        for (text, word) in [
            ("dokcer = \"/x\"", "dokcer"),
            ("docker = \"x.sock\"", "absolute"),
            ("metrics = \"0.0.0.0:9000\"", "loopback"),
            ("metrics = \"9000\"", "invalid address"),
            ("[limits]\ncalls = 0", "limits.calls"),
            ("[limits]\ncall = 1", "call"),
            ("docker = ", "line 1"),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(word), "{text}: {reason}");
        }
    }

    #[test]
    fn a_reload_names_what_needs_a_restart() {
        let old = parse("docker = \"/run/a.sock\"\nlog = \"info\"").unwrap();
        let new = parse("docker = \"/run/b.sock\"\nlog = \"debug\"\n[limits]\nend_seconds = 1");
        let needed = old.needs_restart(&new.unwrap());
        assert_eq!(needed, ["docker is /run/a.sock, not /run/b.sock: restart lamina to apply it"]);
    }

    #[test]
    fn addresses_are_loopback_or_sockets() {
        for good in ["127.0.0.1:9185", "[::1]:9185", "127.8.0.1:0", "unix:/run/x"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        assert_eq!("unix:///run/x".parse::<Address>().unwrap().to_string(), "unix:/run/x");
        for bad in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost:1", "unix:x", ""] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
