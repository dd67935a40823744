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

use laminafs::service::volumes::TrashPolicy;
use serde::Deserialize;

use crate::csi::Role;
use crate::kube::controller::Map;
use crate::report::CliError;

/// The configuration file that is read if it exists.
pub const FILE: &str = "/etc/lamina/lamina.toml";
/// Where dockerd looks for the plugin `lamina`. The name of the driver is that of the socket.
pub const DOCKER: &str = "/run/docker/plugins/lamina.sock";
/// The largest share of the file system that may have to be free, in percent: with more the trash
/// would hold nothing on any host.
const FREE_MOST: u64 = 90;
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

/// The endpoint of the Container Storage Interface: a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub PathBuf);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let path = path.strip_prefix("//").unwrap_or(path);
        match Path::new(path).is_absolute() {
            true => Ok(Self(path.into())),
            false => Err(format!("{text:?} is not an absolute path: use unix:///PATH")),
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

/// When volumes in the trash are removed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trash {
    /// How long a volume stays in the trash, in seconds.
    pub age_seconds: u64,
    /// The share of the file system, in percent, below which the oldest volumes are removed before
    /// that; 0 for never.
    pub free_percent: u64,
    /// How long a volume stays in the trash even if space is short, in seconds.
    pub least_age_seconds: u64,
}

impl Default for Trash {
    fn default() -> Self {
        let TrashPolicy { age, free_percent, least_age } = TrashPolicy::default();
        let (age_seconds, least_age_seconds) = (age.as_secs(), least_age.as_secs());
        Self { age_seconds, free_percent, least_age_seconds }
    }
}

impl Trash {
    /// The settings as the volumes take them.
    #[must_use]
    pub const fn policy(self) -> TrashPolicy {
        TrashPolicy {
            age: Duration::from_secs(self.age_seconds),
            free_percent: self.free_percent,
            least_age: Duration::from_secs(self.least_age_seconds),
        }
    }

    fn check(self) -> Result<(), String> {
        let Self { age_seconds, free_percent, least_age_seconds } = self;
        if free_percent > FREE_MOST {
            return Err(format!(
                "trash.free_percent is {free_percent}: use a number from 0 to {FREE_MOST}"
            ));
        }
        if least_age_seconds > age_seconds {
            return Err(format!(
                "trash.least_age_seconds is {least_age_seconds}: use at most trash.age_seconds, \
                 {age_seconds}"
            ));
        }
        Ok(())
    }
}

/// The API of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kube {
    /// Where it is served. Clients need a certificate, so that any address will do.
    pub address: Option<SocketAddr>,
    /// The name of the node; the name of the host if it is empty.
    pub node: String,
    /// Whether pods are run as soon as they are placed on this node.
    pub run_pods: bool,
    /// Provisioners of clusters, and the drivers of this host that stand in for them.
    pub map: Map,
}

/// The driver of the Container Storage Interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Csi {
    /// The socket.
    pub socket: Option<PathBuf>,
    /// What is served beside Identity.
    pub role: Role,
    /// The volumes that this node takes at most; 0 for no limit.
    pub max_volumes: u32,
    /// Whether the alpha calls of CSI 1.13 are offered, in place of the conditions of 1.12.
    pub alpha: bool,
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
    /// The API of Kubernetes.
    pub kube: Kube,
    /// The driver of the Container Storage Interface.
    pub csi: Csi,
    /// What is logged: a level, or a filter.
    pub log: String,
    /// Limits.
    pub limits: Limits,
    /// The trash.
    pub trash: Trash,
}

impl Default for Config {
    fn default() -> Self {
        let log = "info".to_owned();
        let (limits, trash) = (Limits::default(), Trash::default());
        let (kube, csi) = (Kube::default(), Csi::default());
        Self { root: None, docker: None, metrics: None, kube, csi, log, limits, trash }
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
    /// Where the API of Kubernetes is served.
    pub kube: Option<SocketAddr>,
    /// The socket of the Container Storage Interface.
    pub csi: Option<PathBuf>,
    /// What is served there.
    pub csi_role: Option<Role>,
    /// Whether the alpha calls of CSI 1.13 are offered.
    pub csi_alpha: bool,
    /// The name of the node.
    pub node: Option<String>,
}

impl Flags {
    /// Reads the configuration file and lays the flags over it.
    ///
    /// # Errors
    /// [`CliError`] for a named file that does not exist, and for a file that cannot be parsed.
    pub fn resolve(&self) -> Result<Config, CliError> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => read_default()?
                .unwrap_or_else(|| Config { docker: Some(DOCKER.into()), ..Config::default() }),
        };
        let is_front = self.docker.is_some() || self.kube.is_some() || self.csi.is_some();
        if is_front || self.metrics.is_some() {
            config.docker.clone_from(&self.docker);
            config.metrics.clone_from(&self.metrics);
            config.kube.address = self.kube;
            config.csi.socket.clone_from(&self.csi);
        }
        if let Some(role) = self.csi_role {
            config.csi.role = role;
        }
        config.csi.alpha |= self.csi_alpha;
        if let Some(node) = &self.node {
            config.kube.node.clone_from(node);
        }
        let set = self.root.clone().or_else(|| std::env::var_os("LAMINA_ROOT").map(PathBuf::from));
        config.root = set.or(config.root);
        Ok(config)
    }
}

/// Reads when volumes leave the trash, from a file or from [`FILE`] if that exists.
///
/// # Errors
/// As [`Flags::resolve`].
pub fn trash(path: Option<&Path>) -> Result<TrashPolicy, CliError> {
    let config = match path {
        Some(path) => read(path)?,
        None => read_default()?.unwrap_or_default(),
    };
    Ok(config.trash.policy())
}

/// Reads [`FILE`]; `None` if it does not exist.
fn read_default() -> Result<Option<Config>, CliError> {
    match read(Path::new(FILE)) {
        Err(CliError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
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
    let paths =
        [("root", &config.root), ("docker", &config.docker), ("csi.socket", &config.csi.socket)];
    for (name, path) in paths {
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(format!("{name} is not an absolute path"));
        }
    }
    config.limits.check()?;
    config.trash.check()?;
    Ok(config)
}

impl Config {
    /// Whether a front end shows volumes to users: all do but a controller of CSI, and metrics.
    #[must_use]
    pub const fn publishes(&self) -> bool {
        let is_controller = self.csi.socket.is_some() && !self.csi.role.has_node();
        !is_controller || self.docker.is_some() || self.kube.address.is_some()
    }

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
        let listens = |kube: &Kube| {
            kube.address.map_or_else(|| "none".to_owned(), |address| address.to_string())
        };
        let (old_limits, new_limits) = (&self.limits, &new.limits);
        let changes = [
            ("root", shown(&self.root), shown(&new.root)),
            ("docker", shown(&self.docker), shown(&new.docker)),
            ("metrics", address(&self.metrics), address(&new.metrics)),
            ("kube.address", listens(&self.kube), listens(&new.kube)),
            ("kube.node", self.kube.node.clone(), new.kube.node.clone()),
            ("kube.run_pods", self.kube.run_pods.to_string(), new.kube.run_pods.to_string()),
            ("kube.map", self.kube.map.to_string(), new.kube.map.to_string()),
            ("csi.socket", shown(&self.csi.socket), shown(&new.csi.socket)),
            ("csi.role", self.csi.role.to_string(), new.csi.role.to_string()),
            ("csi.alpha", self.csi.alpha.to_string(), new.csi.alpha.to_string()),
            ("csi.max_volumes", self.csi.max_volumes.to_string(), new.csi.max_volumes.to_string()),
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
        let comments = [
            "root = \"/var/lib/lamina\"",
            "metrics = \"127.0.0.1:9185\"",
            "address = \"127.0.0.1:6443\"",
            "node = \"node1\"",
            "run_pods = false",
            "socket = \"/run/lamina/csi.sock\"",
            "role = \"all\"",
            "max_volumes = 0",
            "alpha = false",
        ];
        for comment in comments {
            assert!(text.contains(&format!("# {comment}\n")), "{comment}");
            let section = match comment.split(' ').next().unwrap() {
                "root" | "metrics" => "",
                "socket" | "role" | "max_volumes" | "alpha" => "[csi]\n",
                _ => "[kube]\n",
            };
            parse(&format!("{section}{comment}")).unwrap();
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
        flags.node = Some("n".to_owned());
        assert_eq!(flags.resolve().unwrap().kube.node, "n");
        flags.kube = Some("127.0.0.1:2".parse().unwrap());
        let kube = flags.resolve().unwrap();
        assert_eq!((kube.docker, kube.metrics), (None, None));
        assert_eq!(kube.kube.address, flags.kube.take());
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
            ("[kube]\naddress = \"host\"", "line 2"),
            ("[kube]\nadress = \"127.0.0.1:1\"", "unknown field `adress`"),
            ("[csi]\nsocket = \"c.sock\"", "csi.socket is not an absolute path"),
            ("[csi]\nrole = \"both\"", "unknown variant `both`"),
            ("[csi]\nmax_volumes = -1", "line 2"),
            ("[csi]\nendpoint = \"/c.sock\"", "unknown field `endpoint`"),
            ("[trash]\nage = 1", "unknown field `age`"),
            ("[trash]\nage_seconds = -1", "line 2"),
            ("[trash]\nfree_percent = 91", "trash.free_percent is 91: use a number from 0 to 90"),
            (
                "[trash]\nage_seconds = 60",
                "trash.least_age_seconds is 3600: use at most trash.age_seconds, 60",
            ),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(word), "{text}: {reason}");
        }
    }

    #[test]
    fn the_driver_of_csi_is_named_by_flags_or_by_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lamina.toml");
        let text = "docker = \"/run/a.sock\"\n[csi]\nsocket = \"/run/c.sock\"\nrole = \"node\"\n\
                    max_volumes = 7\n";
        std::fs::write(&file, text).unwrap();
        let mut flags = Flags { config: Some(file), ..Flags::default() };
        let both = flags.resolve().unwrap();
        let csi = Csi {
            socket: Some("/run/c.sock".into()),
            role: Role::Node,
            max_volumes: 7,
            alpha: false,
        };
        assert_eq!((both.docker, both.csi), (Some("/run/a.sock".into()), csi));
        // A role alone starts no front end, and keeps those of the file.
        flags.csi_role = Some(Role::Controller);
        let role = flags.resolve().unwrap();
        assert_eq!(role.docker, Some("/run/a.sock".into()));
        assert_eq!(role.csi.role, Role::Controller);
        flags.csi = Some("/run/d.sock".into());
        let one = flags.resolve().unwrap();
        let csi =
            Csi { socket: flags.csi.take(), role: Role::Controller, max_volumes: 7, alpha: false };
        assert_eq!((one.docker, one.csi), (None, csi));
        flags.docker = Some("/run/e.sock".into());
        assert_eq!(flags.resolve().unwrap().csi.socket, None);
    }

    #[test]
    fn endpoints_are_paths_of_sockets() {
        for good in ["unix:///run/c.sock", "unix:/run/c.sock", "/run/c.sock"] {
            assert_eq!(good.parse::<Endpoint>().unwrap(), Endpoint("/run/c.sock".into()));
        }
        for bad in ["tcp://1.2.3.4:5", "unix://run/c.sock", "c.sock", "", "unix://"] {
            let reason = bad.parse::<Endpoint>().unwrap_err();
            assert!(reason.contains("use unix:///PATH"), "{reason}");
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
