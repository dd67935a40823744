//! The lines of a migration: an object each, and the sums.

use std::path::Path;

use laminafs::service::migrate::{
    How, ImageItem, MigrateError, OnStep, Outcome, Report, Step, VolumeItem,
};
use laminafs::types::size;

use crate::commands::bar::Bar;
use crate::commands::table::short;
use crate::report::{CliError, say, warn};

/// Shows the steps of a run, unless one document is printed at the end.
pub(super) fn with_steps(
    json: bool,
    work: impl FnOnce(&mut OnStep<'_>) -> Result<Report, MigrateError>,
) -> Result<Report, CliError> {
    let (mut bar, mut said) = (Bar::default(), Ok(()));
    let report = work(&mut |step| match step {
        Step::Waits => warn("another import from an engine is running: waiting for it"),
        Step::Begins { what, bytes } => bar.begin(*bytes, what.clone()),
        Step::Bytes(bytes) => bar.set(*bytes),
        Step::Image(item) => {
            bar.end();
            if !json && said.is_ok() {
                said = image(item);
            }
        }
        Step::Volume(item) => {
            bar.end();
            if !json && said.is_ok() {
                said = volume(item);
            }
        }
    });
    bar.end();
    let report = report?;
    said.map(|()| report)
}

/// Prints the sums; of a dry run also the objects.
pub(super) fn report(report: &Report, root: &Path) -> Result<(), CliError> {
    if report.dry_run {
        report.images.iter().try_for_each(image)?;
        report.volumes.iter().try_for_each(volume)?;
    }
    let images = counted(report.left_out_images, "image");
    let volumes = counted(report.left_out_volumes, "volume");
    if report.left_out_images + report.left_out_volumes > 0 {
        say(&format!("{images} and {volumes} without a name are left out; --all takes them\n"))?;
    }
    let totals = report.totals;
    let sums = format!(
        "{}, {}, {}, {}",
        counted(totals.images, "image"),
        counted(totals.layers, "layer"),
        counted(totals.volumes, "volume"),
        size::shown(totals.bytes)
    );
    if let Some(seconds) = report.seconds {
        return say(&format!("{sums} in {seconds:.1} s\n"));
    }
    let (needed, free) = (report.needed_bytes, report.free_bytes);
    if needed > free {
        warn(&format!(
            "the space may not suffice: layers are compressed, but {} is more than is free",
            size::shown(needed)
        ));
    }
    let (needed, free, root) = (size::shown(needed), size::shown(free), root.display());
    say(&format!("would take {sums}; at most {needed} needed in {root}, {free} free\n"))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn image(item: &ImageItem) -> Result<(), CliError> {
    let id = short(&item.id);
    let name = match &item.names[..] {
        [] => format!("image {id}"),
        names => format!("image {} ({id})", names.join(", ")),
    };
    let layers = counted(item.layers, "layer");
    let how = match item.how {
        How::Archive if item.outcome == Outcome::Take => {
            format!("about {}, as an archive", size::shown(item.bytes))
        }
        _ => format!("{layers}, {}", size::shown(item.bytes)),
    };
    line(&name, item.outcome, &how)?;
    rest(&name, (item.reason.as_deref(), item.hint.as_deref()), &item.notes)
}

fn volume(item: &VolumeItem) -> Result<(), CliError> {
    let name = format!("volume {}", item.name);
    let objects = if item.objects == 1 { "object" } else { "objects" };
    let bytes = size::shown(item.bytes);
    let how = match (item.how, item.outcome) {
        (How::Options, _) => "with its options, no content".to_owned(),
        (How::Adopt, Outcome::Take) => format!("moved, {} {objects}, {bytes}", item.objects),
        (How::Adopt, _) => "moved".to_owned(),
        _ => format!("{} {objects}, {bytes}", item.objects),
    };
    line(&name, item.outcome, &how)?;
    rest(&name, (item.reason.as_deref(), item.hint.as_deref()), &item.notes)
}

fn line(name: &str, outcome: Outcome, how: &str) -> Result<(), CliError> {
    match outcome {
        Outcome::Take => say(&format!("would take {name}: {how}\n")),
        Outcome::Taken => say(&format!("{name}: {how}\n")),
        Outcome::Present => say(&format!("{name}: already here\n")),
        Outcome::Refused => Ok(()),
    }
}

/// Prints what a user must know, to the standard error.
fn rest(
    name: &str,
    (reason, hint): (Option<&str>, Option<&str>),
    notes: &[String],
) -> Result<(), CliError> {
    notes.iter().for_each(|note| warn(&format!("{name}: {note}")));
    if let Some(reason) = reason {
        let hint = hint.map(|hint| format!("\n  try: {hint}")).unwrap_or_default();
        crate::report::note(&format!("{name}: {reason}{hint}"));
    }
    Ok(())
}
