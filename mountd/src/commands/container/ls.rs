//! `lamina container ls`.

use laminafs::service::containers::ContainerInfo;

use super::Context;
use crate::args::ListArgs;
use crate::commands::table::{DIGITS, short};
use crate::report::{CliError, say, say_json};

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &ListArgs) -> Result<(), CliError> {
    let containers = context.images.containers(context.runtime.as_deref())?;
    if args.json { say_json(&containers) } else { say(&table(&containers, args.quiet)) }
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
