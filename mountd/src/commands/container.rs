//! `lamina container`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use laminafs::service::Refusal;
use laminafs::service::containers::{ContainerInfo, NewContainer};
use laminafs::service::images::Images;

use super::image::{DIGITS, short};
use super::{mount, umount};
use crate::cli::{ContainerArgs, ContainerCommand, graft};
use crate::options::{Parsed, parse};
use crate::report::{Trouble, say, say_json};
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(args: ContainerArgs) -> Result<ExitCode, Trouble> {
    let root = run::existing_root(args.root)?;
    let images = Images::open(&root)?;
    let runtime = run::runtime_dir();
    let runtime = runtime.as_deref();
    match args.command {
        ContainerCommand::Create { name, grafts, image } => {
            let grafts = graft::all(&grafts)?;
            let name = images.create_container(NewContainer { name, image, grafts })?;
            say(&format!("{name}\n"))?;
        }
        ContainerCommand::Start { options, foreground, name, mountpoint } => {
            return start(&images, root, &Start { options, foreground, name, mountpoint });
        }
        ContainerCommand::Stop { lazy, names } => {
            for name in names {
                stop(&images.container(&name, runtime)?, lazy)?;
                say(&format!("{name}\n"))?;
            }
        }
        ContainerCommand::Rm { force, names } => {
            for name in names {
                let found = images.container(&name, runtime)?;
                if force && found.mounted {
                    stop(&found, true)?;
                    wait(&images, &name, runtime)?;
                }
                images.remove_container(&found.id)?;
                say(&format!("{name}\n"))?;
            }
        }
        ContainerCommand::Ls { json: true, .. } => say_json(&images.containers(runtime)?)?,
        ContainerCommand::Ls { quiet, .. } => say(&table(&images.containers(runtime)?, quiet))?,
        ContainerCommand::Inspect { names } => {
            let found: Result<Vec<ContainerInfo>, _> =
                names.iter().map(|name| images.container(name, runtime)).collect();
            say_json(&found?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Start {
    options: Vec<OsString>,
    foreground: bool,
    name: String,
    mountpoint: Option<PathBuf>,
}

fn start(images: &Images, root: PathBuf, args: &Start) -> Result<ExitCode, Trouble> {
    let mut parsed = Parsed { root: Some(root), ..Parsed::default() };
    for list in &args.options {
        parse(&mut parsed, list.as_encoded_bytes())?;
    }
    mount::strict(&parsed)?;
    if parsed.upper.is_some() || parsed.ephemeral {
        return Err(Trouble::Usage("a container has an upper directory of its own".to_owned()));
    }
    mount::allow(&mut parsed);
    // A container has the device files that its engine gives it.
    parsed.flags.vfs.nodev = parsed.flags.dev != Some(true);
    let mut spec = mount::spec(parsed, PathBuf::new())?;
    images.mount_container(&args.name, args.mountpoint.clone(), &mut spec)?;
    let target = spec.target.clone();
    let code = run::mount(&spec, args.foreground)?;
    if !args.foreground && code == ExitCode::SUCCESS {
        say(&format!("{}\n", target.display()))?;
    }
    Ok(code)
}

fn stop(container: &ContainerInfo, lazy: bool) -> Result<(), Trouble> {
    match &container.mountpoint {
        Some(target) => umount::run(&umount::wish(target.clone(), lazy)).map(drop),
        None if container.mounted => Err(Trouble::Usage(format!(
            "container {:?} is mounted, and its mount tells no status: unmount it",
            container.name
        ))),
        None => Ok(()),
    }
}

// A lazy unmount ends when the daemon has left.
fn wait(images: &Images, name: &str, runtime: Option<&Path>) -> Result<(), Refusal> {
    for _ in 0..1000 {
        if !images.container(name, runtime)?.mounted {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

fn table(containers: &[ContainerInfo], quiet: bool) -> String {
    if quiet {
        return containers.iter().map(|one| format!("{}\n", one.name)).collect();
    }
    let width = |text: fn(&ContainerInfo) -> &str| {
        containers.iter().map(|one| text(one).len()).max().unwrap_or(0).max(5)
    };
    let (names, images) = (width(|one| &one.name), width(|one| &one.image));
    let mut text = format!(
        "{:<names$}  {:<DIGITS$}  {:<images$}  {:<20}  MOUNTED ON\n",
        "NAME", "ID", "IMAGE", "CREATED"
    );
    for one in containers {
        let on = match (&one.mountpoint, one.mounted) {
            (Some(target), _) => target.display().to_string(),
            (None, true) => "unknown".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let (name, id, image, created) = (&one.name, short(&one.id), &one.image, &one.created);
        let line = format!("{name:<names$}  {id}  {image:<images$}  {created:<20}  {on}\n");
        text.push_str(&line);
    }
    text
}
