//! The OCI runtimes of pods: crun with a bundle, or podman with the root of the container.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::home::Home;
use crate::container::crun::{CRUN, Crun, quiet};
use crate::container::files::make_dir;
use crate::container::launch::Launch;

/// The most open files and processes of a container of podman, unless this process has fewer.
const FILES: u64 = 1 << 20;
const PROCESSES: u64 = 32_768;
/// The file of a bundle with the variables of its container, for podman.
const VARIABLES: &str = "env";
/// The longest line of a file of variables: podman reads lines of less than 64 KiB.
const LINE_MAX: usize = 60_000;
/// Variables that podman, or a program between it and this process, may read for itself. Names are
/// compared without case, since proxies have both.
const READ_BY_PODMAN: [&str; 49] = [
    "_",
    "ALL_PROXY",
    "ENV",
    "FTP_PROXY",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GNUPGHOME",
    "GOCOVERDIR",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GORACE",
    "GOTRACEBACK",
    "HOME",
    "HOSTALIASES",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IFS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LANGUAGE",
    "LOCALDOMAIN",
    "LOCPATH",
    "LOGNAME",
    "NLSPATH",
    "NO_PROXY",
    "OLDPWD",
    "OPTARG",
    "OPTIND",
    "PATH",
    "PPID",
    "PS1",
    "PS2",
    "PS4",
    "PWD",
    "REGISTRY_AUTH_FILE",
    "RES_OPTIONS",
    "SHELL",
    "SHLVL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];
/// How the names of more of them begin.
const READ_BY_PODMAN_TOO: [&str; 21] = [
    "AARDVARK",
    "BASH",
    "BUILDAH_",
    "CNI_",
    "CONTAINER",
    "CRUN_",
    "DBUS_",
    "DOCKER_",
    "GLIBC_",
    "LC_",
    "LD_",
    "LIBCRUN_",
    "LIBMOUNT_",
    "LIBPOD",
    "LISTEN_",
    "MALLOC_",
    "NETAVARK",
    "NOTIFY_",
    "PODMAN",
    "XDG_",
    "_CONTAINERS",
];

/// A runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Runtime {
    /// crun.
    #[default]
    Crun,
    /// podman.
    Podman,
}

impl Runtime {
    /// The runtime of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Crun, Self::Podman].into_iter().find(|one| one.name() == name)
    }

    /// The name, as the ids of containers begin with it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crun => CRUN,
            Self::Podman => "podman",
        }
    }
}

/// A runtime with the containers of one pod.
#[derive(Debug)]
pub struct Engine {
    runtime: Runtime,
    crun: Crun,
    pod: String,
    /// Whether containers have cgroups.
    pub has_cgroups: bool,
}

impl Engine {
    /// A runtime for a pod.
    pub fn new(runtime: Runtime, home: &Home, uid: &str) -> Self {
        let crun = Crun::new(home.runtime());
        Self { runtime, pod: uid.to_owned(), has_cgroups: crun.has_cgroups, crun }
    }

    /// The name of the runtime.
    pub const fn name(&self) -> &'static str {
        self.runtime.name()
    }

    /// The id of a container, as the status has it.
    pub fn shown(&self, id: &str) -> String {
        format!("{}://{id}", self.runtime.name())
    }

    fn podman(&self) -> Command {
        let mut command = self.crun.program(Runtime::Podman.name());
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }

    /// Writes the bundle of a container, and the command that runs it in the foreground.
    ///
    /// # Errors
    /// As write(2); a variable that podman cannot be given.
    pub fn run(&self, bundle: &Path, launch: &Launch) -> io::Result<Command> {
        self.crun.clear(bundle, &[VARIABLES])?;
        if self.runtime == Runtime::Crun {
            return self.crun.run(bundle, launch, None);
        }
        let variables = podman_variables(&launch.env)?;
        let at = bundle.join(VARIABLES);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&at);
        file?.write_all(variables.file.as_bytes())?;
        let mut command = self.podman();
        command.arg("run").arg("--env-file").arg(at);
        for (name, value) in variables.own {
            command.env(name, value).args(["--env", name]);
        }
        command.args(podman_words(launch, &self.pod, bundle, self.has_cgroups));
        Ok(command)
    }

    /// Sends a signal to the first process of a container. One that has ended is not an error.
    pub fn kill(&self, id: &str, signal: &str) {
        let done = match self.runtime {
            Runtime::Crun => self.crun.kill(id, signal),
            Runtime::Podman => {
                let mut command = self.podman();
                command.args(["kill", "--signal", signal, id]);
                quiet(command).map(drop)
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, id, "a signal to a container");
        }
    }

    /// Ends the containers of the pod that an earlier process left, of any runtime.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn remove_all(&self) -> io::Result<()> {
        self.crun.delete_all()?;
        if self.mark().exists() {
            let mut list = self.podman();
            list.args(["ps", "--all", "--quiet", "--filter"]);
            list.arg(format!("label=lamina.pod={}", self.pod));
            let listed = quiet(list)?;
            for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
                let mut command = self.podman();
                command.args(["rm", "--force", "--time", "0", id]);
                quiet(command)?;
            }
        }
        Ok(())
    }

    /// The file that is there if the pod has containers of podman.
    fn mark(&self) -> PathBuf {
        self.crun.state().join("..").join("podman")
    }

    /// Notes that the pod has containers of podman: only then it is asked for what is left.
    ///
    /// # Errors
    /// As write(2).
    pub fn note(&self) -> io::Result<()> {
        make_dir(self.crun.state())?;
        if self.runtime == Runtime::Podman {
            fs::write(self.mark(), "")?;
        }
        Ok(())
    }
}

/// How podman gets the variables of a container. All users of the host see the words of a program,
/// so none of them has a value.
#[derive(Debug, Default, PartialEq, Eq)]
struct PodmanVariables<'a> {
    /// The lines of a file.
    file: String,
    /// Those that no line can hold. Podman takes them from its own environment.
    own: Vec<(&'a str, &'a str)>,
}

fn podman_variables(env: &[String]) -> io::Result<PodmanVariables<'_>> {
    let mut found = PodmanVariables::default();
    for line in env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        // What podman would take for a remark, cut, or refuse.
        let is_odd = name.is_empty() || name.starts_with('#') || name.contains([' ', '\t']);
        if !is_odd && !line.contains('\n') && !line.ends_with('\r') && line.len() <= LINE_MAX {
            found.file.push_str(&format!("{name}={value}\n"));
        } else if is_free(name) {
            found.own.push((name, value));
        } else {
            let text = format!(
                "podman cannot be given the variable {name:?}: the name, line ends in the value \
                 or more than {LINE_MAX} bytes keep it out of a file, and podman's own \
                 environment cannot have one of this name"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    Ok(found)
}

/// Whether a variable of podman itself changes nothing but that of its container. A shell may be
/// between, which passes on only what is a name to it.
fn is_free(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = name.starts_with(|first: char| !first.is_ascii_digit());
    let name = name.to_ascii_uppercase();
    let is_read = READ_BY_PODMAN.contains(&&name[..])
        || READ_BY_PODMAN_TOO.iter().any(|start| name.starts_with(start));
    begins && name.bytes().all(is_name) && !is_read
}

/// A field of the options of a mount: podman reads them as one line of CSV.
fn csv(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// The words of `podman run` for a container, without its variables.
fn podman_words(launch: &Launch, pod: &str, bundle: &Path, has_cgroup: bool) -> Vec<String> {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut words = own(&["--rm", "--network", "host", "--log-driver", "none"]);
    words.extend(own(&["--no-hosts", "--http-proxy=false", "--cap-drop", "all"]));
    words.extend(own(&["--env-host=false", "--pull", "never"]));
    if !has_cgroup {
        words.extend(own(&["--cgroups", "disabled"]));
    }
    let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
    let limits = [("nofile", Resource::Nofile, FILES), ("nproc", Resource::Nproc, PROCESSES)];
    for (name, resource, usual) in limits {
        // Others would be more than this process may give.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(usual);
        add("--ulimit", format!("{name}={most}:{most}"));
    }
    add("--label", format!("lamina.pod={pod}"));
    add("--name", launch.id.clone());
    add("--pidfile", bundle.join("pid").display().to_string());
    add("--hostname", launch.hostname.clone());
    add("--oom-score-adj", launch.badness.to_string());
    add("--workdir", launch.cwd.clone());
    add("--user", format!("{}:{}", launch.user.uid, launch.user.gid));
    launch.user.groups.iter().for_each(|group| add("--group-add", group.to_string()));
    launch.capabilities.iter().for_each(|one| add("--cap-add", one.clone()));
    for bind in &launch.binds {
        let source = csv(&format!("src={}", bind.source.display()));
        let target = csv(&format!("dst={}", bind.target));
        let access = if bind.read_only { ",ro" } else { "" };
        let propagation = bind.propagation;
        let mount = format!("type=bind,{source},{target},bind-propagation={propagation}{access}");
        add("--mount", mount);
    }
    for (is_host, name) in launch.of_host.into_iter().zip(["--pid", "--ipc"]) {
        if is_host {
            add(name, "host".to_owned());
        }
    }
    if !launch.may_gain {
        add("--security-opt", "no-new-privileges".to_owned());
    }
    if launch.read_only {
        words.push("--read-only".to_owned());
    }
    if launch.is_privileged {
        words.push("--privileged".to_owned());
    }
    let (program, args) = launch.args.split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
    words.extend(["--entrypoint".to_owned(), json!([program]).to_string()]);
    words.extend(["--rootfs".to_owned(), launch.root.display().to_string()]);
    words.extend(args.iter().cloned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_podman_are_in_a_file_if_a_line_can_hold_them() {
        let long = format!("LONG={}", "x".repeat(LINE_MAX));
        let env = ["A=1 # \"2\"", "PATH=/bin", "CERT=a\nb", "EMPTY=", &long, "CR=x\r"];
        let env = env.map(str::to_owned);
        let found = podman_variables(&env).unwrap();
        assert_eq!(found.file, "A=1 # \"2\"\nPATH=/bin\nEMPTY=\n");
        let own: Vec<&str> = found.own.iter().map(|(name, _)| *name).collect();
        assert_eq!(own, ["CERT", "LONG", "CR"]);
        for refused in [
            "PATH=a\nb",
            "ld_preload=a\nb",
            "XDG_RUNTIME_DIR=a\n",
            "CONTAINERS_CONF=\n",
            "http_proxy=\n",
            "a.b=\n",
            "1=\n",
            "#A=x",
            "A B=x",
            "=x",
        ] {
            let error = podman_variables(&[refused.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(refused.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn paths_of_podman_add_no_options() {
        assert_eq!(csv("dst=/x"), "dst=/x");
        assert_eq!(csv("dst=/x,ro"), "\"dst=/x,ro\"");
        assert_eq!(csv("dst=/x\",\ny"), "\"dst=/x\"\",\ny\"");
    }
}
