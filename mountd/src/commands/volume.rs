//! `lamina volume`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use laminafs::service::volumes::{Volume, VolumeError, Volumes, remove};

use crate::cli::{VolumeArgs, VolumeCommand};
use crate::report::{Trouble, say, say_json};
use crate::run;

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(args: VolumeArgs) -> Result<ExitCode, Trouble> {
    let root = match args.command {
        VolumeCommand::Create { .. } => run::data_root(args.root),
        _ => run::existing_root(args.root)?,
    };
    let volumes = Volumes::new(&root);
    match args.command {
        VolumeCommand::Create { name, labels } => {
            let volume = volumes.create(&name, read_labels(&labels)?)?;
            say(&format!("{}\n", volume.name))?;
        }
        VolumeCommand::Ls { json: true, .. } => say_json(&volumes.list()?)?,
        VolumeCommand::Ls { quiet, .. } => say(&table(&volumes.list()?, quiet))?,
        VolumeCommand::Inspect { names } => {
            let found: Result<Vec<Volume>, _> =
                names.iter().map(|name| volumes.inspect(name)).collect();
            say_json(&found?)?;
        }
        VolumeCommand::Rm { force, names } => {
            for name in names {
                match remove(&root, &name) {
                    Err(VolumeError::Missing(_)) if force => {}
                    done => {
                        done?;
                        say(&format!("{name}\n"))?;
                    }
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read_labels(words: &[String]) -> Result<BTreeMap<String, String>, Trouble> {
    let mut labels = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(Trouble::Usage(format!("label {word:?} has no key")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn table(volumes: &[Volume], quiet: bool) -> String {
    if quiet {
        return volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
    }
    let width = volumes.iter().map(|volume| volume.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<20}  MOUNTPOINT\n", "NAME", "CREATED");
    for volume in volumes {
        let (name, created) = (&volume.name, &volume.created_at);
        let line = format!("{name:<width$}  {created:<20}  {}\n", volume.mountpoint.display());
        text.push_str(&line);
    }
    text
}
