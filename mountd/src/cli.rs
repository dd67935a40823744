//! The commands and their words.

pub mod graft;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::commands;
use crate::report::Trouble;

/// Union mounts of image layers, volumes in the same tree, and the helper of mount(8).
///
/// Called as `lamina -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT` or
/// `lamina SOURCE MOUNTPOINT -o ...` it mounts as fuse-overlayfs does, for podman's mount_program.
#[derive(Debug, Parser)]
#[command(name = "lamina", version, disable_version_flag = true, arg_required_else_help = true)]
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
    Mount(MountArgs),
    /// Unmount, and wait until the daemon has left.
    Umount(UmountArgs),
    /// Show the mounts of this host.
    Status(StatusArgs),
    /// Show what this host offers, and what is off and why.
    Doctor(DoctorArgs),
    /// Manage named volumes.
    Volume(VolumeArgs),
    /// Manage images: layers as verified blobs.
    Image(ImageArgs),
    /// Show the layers of images.
    Layer(LayerArgs),
    /// Manage containers: a writable layer over an image, under a name.
    Container(ContainerArgs),
}

/// Words of `lamina mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// A layer that is never changed; the first one given is the topmost.
    #[arg(long = "lower", value_name = "DIR", required_unless_present_any = ["options", "images"])]
    pub lowers: Vec<PathBuf>,
    /// An image of the store; its layers lie below the directories.
    #[arg(long = "image", value_name = "NAME[:TAG]|@DIGEST")]
    pub images: Vec<String>,
    /// Changes go to an upper directory that is removed with the mount.
    #[arg(long, conflicts_with = "upper")]
    pub ephemeral: bool,
    /// The directory that takes all changes; without one the mount is read-only.
    #[arg(long, value_name = "DIR", requires = "work")]
    pub upper: Option<PathBuf>,
    /// A directory of the file system of the upper, for this mount alone.
    #[arg(long, value_name = "DIR", requires = "upper")]
    pub work: Option<PathBuf>,
    /// What appears in the tree from elsewhere.
    #[command(flatten)]
    pub grafts: GraftArgs,
    /// The data root, where volumes are kept [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Memory for blocks of images that were read [default: 64M].
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Disk for large files of images that were opened, for all mounts of a data root together;
    /// 0 for none [default: a tenth of the file system, 10G at most].
    #[arg(long, value_name = "SIZE")]
    pub materialized_size: Option<String>,
    /// Options as of mount(8), overlayfs and fuse-overlayfs.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Stay in the foreground.
    #[arg(short, long)]
    pub foreground: bool,
    /// Where the union appears.
    pub mountpoint: PathBuf,
}

/// What appears in a tree from elsewhere.
#[derive(Debug, Args)]
pub struct GraftArgs {
    /// Show a named volume at a path; made if it is missing, filled from the image if empty.
    #[arg(long = "volume", value_name = "NAME:/PATH[:ro]")]
    pub volumes: Vec<OsString>,
    /// Show a directory or file of the host at a path.
    #[arg(long = "bind", value_name = "SOURCE:/PATH[:ro]")]
    pub binds: Vec<OsString>,
    /// Show a file system in memory at a path.
    #[arg(long = "tmpfs", value_name = "/PATH")]
    pub tmpfs: Vec<OsString>,
    /// Any of the above: type=bind|volume|tmpfs,source=,target=,readonly.
    #[arg(long = "mount", value_name = "SPEC")]
    pub mounts: Vec<OsString>,
}

/// Words of `lamina umount`.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Take it out of the tree now, end it when it is no longer used.
    #[arg(short, long)]
    pub lazy: bool,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = commands::umount::TIMEOUT_SECS,
        value_parser = seconds)]
    pub timeout: f64,
    /// Where it is mounted; links are followed.
    pub mountpoint: PathBuf,
}

/// A count of seconds that is a time.
fn seconds(text: &str) -> Result<f64, String> {
    let secs: f64 = text.parse().map_err(|_| format!("{text:?} is no count of seconds"))?;
    match std::time::Duration::try_from_secs_f64(secs) {
        Ok(_) if secs <= 1e9 => Ok(secs),
        _ => Err(format!("{text:?} is no time")),
    }
}

/// Words of `lamina status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Words of `lamina doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// A directory of the file system to examine for upper directories.
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

/// Words of `lamina volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// Commands of `lamina volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume; one that exists is left as it is.
    Create {
        /// Its name.
        name: String,
        /// A label.
        #[arg(long = "label", value_name = "KEY[=VALUE]")]
        labels: Vec<String>,
    },
    /// List the volumes.
    Ls {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Names alone.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show what is known of volumes, as JSON.
    Inspect {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes with their content.
    Rm {
        /// A volume that does not exist is no failure.
        #[arg(short, long)]
        force: bool,
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Words of `lamina image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// As JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What an upper directory lies on.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// The image below.
    #[arg(long, value_name = "NAME[:TAG]")]
    pub image: Option<String>,
    /// The work directory of the upper directory.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
}

/// Forms of `lamina image export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One file, as `docker save` writes it.
    DockerArchive,
    /// An OCI layout in one file.
    OciArchive,
    /// An OCI layout in a directory.
    OciDir,
}

/// Compressions of `lamina image export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportCompression {
    /// As every engine reads it.
    Gzip,
    /// Faster.
    Zstd,
    /// None.
    None,
    /// Not as tars but as they are in the store, for `lamina image pull --lazy` alone.
    Native,
}

/// When the data of a lazy pull comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LazyPull {
    /// What is read at once, the rest while the image is mounted.
    Background,
    /// When it is read.
    Demand,
}

/// Commands of `lamina image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import images from a docker-archive or an OCI layout, or one layer from a tar or directory.
    Import {
        /// A file, a directory, or `-` for the standard input.
        source: PathBuf,
        /// The name of the image, in place of those in the archive.
        #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
        tags: Vec<String>,
    },
    /// Make an image of what an upper directory or a container changes.
    Commit {
        /// An upper directory (with a `/` in it), or a container.
        source: PathBuf,
        /// The name of the image.
        #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]", required = true)]
        tags: Vec<String>,
        /// What the changes lie on.
        #[command(flatten)]
        base: BaseArgs,
        /// Who made it.
        #[arg(long)]
        author: Option<String>,
        /// What it is for.
        #[arg(short, long)]
        message: Option<String>,
    },
    /// List what an upper directory, a container or an image adds (A), changes (C), deletes (D).
    Diff {
        /// An upper directory (with a `/` in it), a container, or an image.
        source: PathBuf,
        /// What the changes lie on; of an image: all but its topmost layer without it.
        #[command(flatten)]
        base: BaseArgs,
    },
    /// Write images as a docker-archive or an OCI layout, which other engines read.
    Export {
        /// `NAME[:TAG]`, or the first digits of an id.
        #[arg(required = true)]
        names: Vec<String>,
        /// Where to; `-` is the standard output.
        #[arg(short, long, value_name = "FILE|DIR")]
        output: PathBuf,
        /// In which form.
        #[arg(long, value_enum, default_value_t = ExportForm::DockerArchive)]
        format: ExportForm,
        /// How the layers of an OCI layout are compressed.
        #[arg(long, value_enum, default_value_t = ExportCompression::Gzip)]
        compress: ExportCompression,
    },
    /// Pull an image from a registry. A pull that was interrupted is continued.
    Pull(PullArgs),
    /// Push an image to a registry. What the registry has is not sent.
    Push(PushArgs),
    /// List the images.
    Ls,
    /// Show what is known of images, as JSON.
    Inspect {
        /// `NAME[:TAG]`, or the first digits of an id.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Show how an image came to be.
    History {
        /// `NAME[:TAG]`, or the first digits of an id.
        name: String,
    },
    /// Take names away, and images with their last name. `gc` gives the space back.
    Rm {
        /// `NAME[:TAG]`, or the first digits of an id.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Read everything again and name what is damaged; exit code 1 if anything is.
    Verify {
        /// One image; without it everything.
        name: Option<String>,
    },
    /// Remove the layers that no image and no mount needs.
    Gc,
    /// List the layers.
    Layers,
}

/// Words of `lamina layer`.
#[derive(Debug, Args)]
pub struct LayerArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// As JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: LayerCommand,
}

/// Commands of `lamina layer`.
#[derive(Debug, Subcommand)]
pub enum LayerCommand {
    /// List the layers with the images that need them.
    Ls,
}

impl From<LayerArgs> for ImageArgs {
    fn from(args: LayerArgs) -> Self {
        let LayerArgs { root, json, command: LayerCommand::Ls } = args;
        Self { root, json, command: ImageCommand::Layers }
    }
}

/// Words of `lamina container`.
#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// Commands of `lamina container`.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Make a container; what is written to it stays until it is removed.
    Create {
        /// What it is called [default: the first digits of its id].
        #[arg(long)]
        name: Option<String>,
        /// What appears in it.
        #[command(flatten)]
        grafts: GraftArgs,
        /// The image.
        image: String,
    },
    /// Mount a container; prints where.
    Start {
        /// Options as of `lamina mount`.
        #[arg(short = 'o', value_name = "OPTIONS")]
        options: Vec<OsString>,
        /// Stay in the foreground.
        #[arg(short, long)]
        foreground: bool,
        /// Its name, or the first digits of its id.
        name: String,
        /// Where [default: a directory of its own below the data root].
        mountpoint: Option<PathBuf>,
    },
    /// Unmount containers; what was written to them stays.
    Stop {
        /// Take it out of the tree now, end it when it is no longer used.
        #[arg(short, long)]
        lazy: bool,
        /// Their names, or the first digits of their ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove containers and what was written to them; volumes stay.
    Rm {
        /// Stop those that are mounted.
        #[arg(short, long)]
        force: bool,
        /// Their names, or the first digits of their ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// List the containers.
    Ls {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Names alone.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show what is known of containers, as JSON.
    Inspect {
        /// Their names, or the first digits of their ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Words of `lamina image pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`; without a host it is docker.io.
    pub reference: String,
    /// The name of the image, in place of that of the reference.
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Leave the data of layers in the registry; they were pushed with `--compress native`.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_missing_value = "background")]
    pub lazy: Option<LazyPull>,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Words of `lamina image push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// `NAME[:TAG]`, or the first digits of an id.
    pub name: String,
    /// Where to: `[HOST[:PORT]/]PATH[:TAG]` [default: the name].
    pub reference: Option<String>,
    /// How the layers are compressed.
    #[arg(long, value_enum, default_value_t = ExportCompression::Gzip)]
    pub compress: ExportCompression,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// How a registry is asked.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// User and password for the registry.
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// Where podman or Docker keep passwords [default: as theirs].
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    pub authfile: Option<PathBuf>,
    /// Certificates for this registry: `*.crt` are authorities, `NAME.cert` with `NAME.key` is
    /// shown to it [default: the one of its host and port in ~/.config/containers/certs.d,
    /// /etc/containers/certs.d, /etc/docker/certs.d].
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Refuse plain HTTP and bad certificates; registries of this machine may use HTTP.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub tls_verify: bool,
}

/// Runs a command.
///
/// # Errors
/// [`Trouble`].
pub fn run(words: Vec<OsString>) -> Result<ExitCode, Trouble> {
    let cli = Cli::try_parse_from(words)?;
    match cli.command {
        Command::Mount(args) => commands::mount::run(args),
        Command::Umount(args) => {
            let timeout = std::time::Duration::from_secs_f64(args.timeout);
            let wish = commands::umount::wish(args.mountpoint, args.lazy);
            commands::umount::run(&laminafs::service::unmount::Wish { timeout, ..wish })
        }
        Command::Status(args) => commands::status::run(args.json),
        Command::Doctor(args) => commands::doctor::run(&args.directory, args.json),
        Command::Volume(args) => commands::volume::run(args),
        Command::Image(args) => commands::image::run(args),
        Command::Layer(args) => commands::image::run(args.into()),
        Command::Container(args) => commands::container::run(args),
    }
}

/// The commands, known without building what parses their words.
const COMMANDS: [&str; 9] =
    ["mount", "umount", "status", "doctor", "volume", "image", "layer", "container", "help"];

/// States whether a word is a command.
pub fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word)
}

/// What `--help` prints.
pub fn help() -> String {
    Cli::command().render_long_help().to_string()
}

/// What `--version` prints.
pub fn version() -> String {
    Cli::command().render_version()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Cli::command().debug_assert();
        let parsed = Cli::command();
        let mut parsed: Vec<&str> = parsed.get_subcommands().map(clap::Command::get_name).collect();
        parsed.push("help");
        assert_eq!(parsed, COMMANDS);
    }
}
