//! `lamina import-docker` and `lamina import-podman`: images and volumes of an engine that runs.

mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use laminafs::service::images::Images;
use laminafs::service::migrate::{EngineKind, Migration, Selection, Source};

use crate::report::{CliError, FAILED, say_json};
use crate::run;

/// Arguments of `lamina import-docker` and `lamina import-podman`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Names or ids of images, and names of volumes [default: all that have a name].
    names: Vec<String>,
    /// The data root [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Show what would be taken over, and the space for it, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take over images alone.
    #[arg(long, conflicts_with = "only_volumes")]
    only_images: bool,
    /// Take over volumes alone.
    #[arg(long)]
    only_volumes: bool,
    /// Also take over images without a name, and volumes whose name is 64 digits.
    #[arg(long)]
    all: bool,
    /// Also copy volumes that a running container uses, though they change meanwhile.
    #[arg(long)]
    live: bool,
    /// Move volumes into the data root instead of copying them. The engine loses them.
    #[arg(long, conflicts_with = "live")]
    adopt: bool,
    /// The socket of the engine [default for Docker: that of DOCKER_HOST, or
    /// /var/run/docker.sock; podman needs none].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The directory of the engine's storage. Without --socket the engine is not asked then, and
    /// need not run; labels and options of volumes are not known.
    #[arg(long, value_name = "DIR")]
    storage_root: Option<PathBuf>,
    /// Print one JSON document at the end.
    #[arg(long)]
    json: bool,
}

/// Runs `lamina import-docker`.
///
/// # Errors
/// [`CliError`].
pub fn run_docker(args: MigrateArgs) -> Result<ExitCode, CliError> {
    let socket = match (&args.socket, &args.storage_root) {
        (Some(socket), _) => Some(socket.clone()),
        (None, Some(_)) => None,
        (None, None) => docker_host()?,
    };
    run(EngineKind::Docker, MigrateArgs { socket, ..args })
}

/// Runs `lamina import-podman`.
///
/// # Errors
/// [`CliError`].
pub fn run_podman(args: MigrateArgs) -> Result<ExitCode, CliError> {
    run(EngineKind::Podman, args)
}

/// The socket that Docker's own client would use.
fn docker_host() -> Result<Option<PathBuf>, CliError> {
    let Some(set) = std::env::var_os("DOCKER_HOST").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = set.to_string_lossy();
    match text.strip_prefix("unix://") {
        Some(path) => Ok(Some(PathBuf::from(path))),
        None => Err(CliError::Usage(format!(
            "DOCKER_HOST={text} is not on this host, and volumes are copied from its disk: use \
             --socket PATH, or run lamina on that host"
        ))),
    }
}

fn run(kind: EngineKind, args: MigrateArgs) -> Result<ExitCode, CliError> {
    let root = run::data_root(args.root);
    let source = Source { kind, socket: args.socket, storage_root: args.storage_root };
    let selection = Selection {
        names: args.names,
        only_images: args.only_images,
        only_volumes: args.only_volumes,
        all: args.all,
        live: args.live,
        adopt: args.adopt,
    };
    let migration = Migration::open(&root, &source, selection)?;
    let report = if args.dry_run {
        migration.plan()?
    } else {
        let ending = run::Ending::hold()?;
        let images = Images::open(&root)?;
        ending.clean(images.leaving())?;
        show::with_steps(args.json, |step| migration.run(images, step))?
    };
    if args.json {
        say_json(&report)?;
    } else {
        show::report(&report, &root)?;
    }
    Ok(if report.refused() > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
