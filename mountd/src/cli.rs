//! The commands.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    container, doctor, generate, image, kube, kubeconfig, layer, migrate, mount, pod, serve,
    status, system, umount, volume,
};
use crate::report::{CliError, NOT_STARTED};

/// Union mounts of image layers, volumes in the same tree, and the helper of mount(8).
///
/// Called as `lamina -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT` or
/// `lamina SOURCE MOUNTPOINT -o ...` it mounts as fuse-overlayfs does, for podman's mount_program.
#[derive(Debug, Parser)]
#[command(name = "lamina", version, disable_version_flag = true, arg_required_else_help = true)]
#[command(after_long_help = crate::report::exit_codes())]
struct Cli {
    /// Print the version.
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a union of directories.
    Mount(mount::MountArgs),
    /// Unmount, and wait for the daemon to end.
    Umount(umount::UmountArgs),
    /// Show the mounts of this host.
    Status(status::StatusArgs),
    /// Show or free the space of all objects together.
    System(system::SystemArgs),
    /// Show which features this host supports, and why others are off.
    Doctor(doctor::DoctorArgs),
    /// Manage named volumes.
    Volume(volume::VolumeArgs),
    /// Manage images: layers as verified blobs.
    Image(image::ImageArgs),
    /// Show the layers of images.
    Layer(layer::LayerArgs),
    /// Take over images and volumes of Docker on this host, while it runs.
    ImportDocker(migrate::MigrateArgs),
    /// Take over images and volumes of podman on this host, while containers run.
    ImportPodman(migrate::MigrateArgs),
    /// Manage containers: a writable layer over an image, under a name.
    Container(container::ContainerArgs),
    /// Run the pods that kubectl creates, on this host.
    Pod(pod::PodArgs),
    /// Serve container engines and monitoring: the one daemon for all front ends.
    ///
    /// With a flag of a front end, only the front ends of the flags start; without one, those of
    /// the configuration file. SIGHUP reloads the file; SIGTERM ends the daemon and leaves all
    /// volumes as they are.
    Serve(serve::ServeArgs),
    /// Print the configuration of a client of `lamina serve --kube`, with a new certificate.
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Create or change objects of Kubernetes from manifests, with or without a daemon.
    Apply(kube::apply::ApplyArgs),
    /// Show objects of Kubernetes.
    Get(kube::get::GetArgs),
    /// Show objects of Kubernetes in words, with their events.
    Describe(kube::describe::DescribeArgs),
    /// Delete objects of Kubernetes.
    Delete(kube::delete::DeleteArgs),
    /// Work with the objects of Kubernetes as a whole.
    Kube(kube::KubeArgs),
    /// Write man pages and completions.
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// Runs a command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: Vec<OsString>) -> Result<ExitCode, CliError> {
    let cli = Cli::try_parse_from(&args).map_err(|error| wrong(&args, error))?;
    match cli.command {
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Status(args) => status::run(&args),
        Command::System(args) => system::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Volume(args) => volume::run(args),
        Command::Image(args) => image::run(args),
        Command::Layer(args) => layer::run(args),
        Command::ImportDocker(args) => migrate::run_docker(args),
        Command::ImportPodman(args) => migrate::run_podman(args),
        Command::Container(args) => container::run(args),
        Command::Pod(args) => pod::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Apply(args) => kube::apply::run(&args),
        Command::Get(args) => kube::get::run(&args),
        Command::Describe(args) => kube::describe::run(&args),
        Command::Delete(args) => kube::delete::run(&args),
        Command::Kube(args) => kube::run(&args),
        Command::Generate(args) => generate::run(&args, command()),
    }
}

/// A wrong command line. That of a command which otherwise ends with the exit code of a program has
/// the code of one that was not started.
fn wrong(args: &[OsString], error: clap::Error) -> CliError {
    let is_program = error.use_stderr() && container::is_program(args.get(1..).unwrap_or_default());
    let error = CliError::from(error);
    match is_program {
        true => CliError::Program { code: NOT_STARTED, error: Box::new(error) },
        false => error,
    }
}

/// The names of the commands, known without building the parser.
const COMMANDS: [&str; 21] = [
    "mount",
    "umount",
    "status",
    "system",
    "doctor",
    "volume",
    "image",
    "layer",
    "import-docker",
    "import-podman",
    "container",
    "pod",
    "serve",
    "kubeconfig",
    "apply",
    "get",
    "describe",
    "delete",
    "kube",
    "generate",
    "help",
];

/// Whether a word is the name of a command.
pub fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word)
}

/// The command that a word may be meant for: with the same letters in another order, or one letter
/// more, less or other.
pub fn alike(word: &str) -> Option<&'static str> {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let is_alike = |name: &&&str| {
        let (a, b): (Vec<char>, Vec<char>) = (word.chars().collect(), name.chars().collect());
        let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        let rest = |skip_a, skip_b| a.iter().skip(same + skip_a).eq(b.iter().skip(same + skip_b));
        sorted(word) == sorted(name) || rest(1, 0) || rest(0, 1) || rest(1, 1)
    };
    COMMANDS.iter().find(is_alike).copied().filter(|_| word.chars().count() > 2)
}

/// The commands with a verb of this name, as they are typed.
pub fn with_verb(verb: &str) -> Vec<String> {
    let all = Cli::command();
    let nouns = all.get_subcommands().filter(|noun| {
        let found = noun.get_subcommands().find(|one| one.get_name() == verb);
        found.is_some_and(|one| !one.is_hide_set())
    });
    nouns.map(|noun| format!("lamina {} {verb}", noun.get_name())).collect()
}

/// The definitions of all commands.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The text that `--help` prints.
pub fn help() -> String {
    command().render_long_help().to_string()
}

/// The text that `--version` prints.
pub fn version() -> String {
    command().render_version()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
        let parsed = Cli::command();
        let mut parsed: Vec<&str> = parsed.get_subcommands().map(clap::Command::get_name).collect();
        parsed.push("help");
        assert_eq!(parsed, COMMANDS);
        assert_eq!(alike("staus"), Some("status"));
        assert_eq!(alike("gte"), Some("get"));
        assert_eq!(alike("images"), Some("image"));
        assert_eq!(alike("low"), None);
        assert!(with_verb("pull").contains(&"lamina image pull".to_owned()));
    }
}
