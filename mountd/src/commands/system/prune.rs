//! `lamina system prune`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use laminafs::service::containers::ContainerInfo;
use laminafs::service::images::Images;
use laminafs::service::prune::PruneImages;
use laminafs::service::volumes::VolumeService;
use laminafs::types::size;

use crate::commands::image::prune::shown;
use crate::commands::volume::prune::unused;
use crate::container::ended::repair;
use crate::container::place::Place;
use crate::report::{CliError, say, warn};
use crate::run;

/// Arguments of `lamina system prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove images with a name too, not only those without one.
    #[arg(short, long)]
    all: bool,
    /// Remove volumes without a name that nothing uses; with --all those with a name too.
    #[arg(long)]
    volumes: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Asks on a terminal, and refuses without one.
fn allowed(args: &PruneArgs) -> Result<bool, CliError> {
    if args.force || args.dry_run {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        let text = "system prune asks before it removes, and there is no terminal: add --force, or \
                    look first with --dry-run";
        return Err(CliError::Usage(text.to_owned()));
    }
    let images =
        if args.all { "all images that no container uses" } else { "images without a name" };
    let volumes = if args.volumes { ", volumes that nothing uses" } else { "" };
    let text = format!(
        "This removes stopped containers with what was written to them, {images}{volumes}, layers \
         that nothing needs, and the cache.\nGo on? [y/N] "
    );
    let failed = |error| CliError::Io { what: "the terminal".to_owned(), error };
    let mut err = io::stderr().lock();
    err.write_all(text.as_bytes()).and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(root: &Path, args: &PruneArgs) -> Result<(), CliError> {
    if !allowed(args)? {
        return Ok(());
    }
    let images = Images::open(root)?;
    let containers = containers(&images, args)?;
    let mut volumes_bytes = 0;
    if args.volumes {
        let service = VolumeService::open(root)?;
        for (name, bytes) in unused(&service, args.all, args.dry_run)? {
            say(&format!("volume {name}\n"))?;
            volumes_bytes += bytes;
        }
    }
    let which = PruneImages { all: args.all, until: None, dry_run: args.dry_run };
    let freed = images.prune(&which)?;
    say(&shown(&freed, args.dry_run))?;
    let cache = if args.dry_run { images.idle_materials()? } else { images.drop_materials()? };
    let sum = containers + volumes_bytes + freed.bytes() + cache;
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    say(&format!("{} {verb}\n", size::shown(sum)))
}

/// Removes the containers that are not in use, and returns their bytes.
fn containers(images: &Images, args: &PruneArgs) -> Result<u64, CliError> {
    let runtime = run::runtime_dir();
    repair(images, runtime.as_deref())?;
    let mut bytes = 0;
    for one in images.containers(runtime.as_deref())? {
        if one.mounted || Place::new(&one, runtime.as_deref()).is_held() {
            continue;
        }
        let space = images.container_space(&one);
        match remove(images, &one, args.dry_run) {
            // Another process began to use it or removed it meanwhile.
            Err(error) if error.is_missing() || error.is_in_use() => continue,
            Err(error) => warn(&format!("container {:?}: {error}", one.name)),
            Ok(()) => {
                bytes += space;
                say(&format!("container {}\n", one.name))?;
            }
        }
    }
    Ok(bytes)
}

fn remove(
    images: &Images,
    one: &ContainerInfo,
    is_dry: bool,
) -> Result<(), laminafs::service::Refusal> {
    if is_dry { Ok(()) } else { images.remove_container(&one.id) }
}
