//! `lamina mount`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use laminafs::service::WhiteoutForm;
use laminafs::service::spec::MountSpec;

use crate::cli::{MountArgs, graft};
use crate::options::{OptionError, Parsed, parse, size};
use crate::report::Trouble;
use crate::run;

/// The type that is shown in /proc/mounts behind `fuse.`.
pub const SUBTYPE: &str = "lamina";

/// A mount from its parsed options. Device files work unless `nodev` says otherwise.
pub fn spec(parsed: Parsed, target: std::path::PathBuf) -> Result<MountSpec, Trouble> {
    let upper = match (parsed.upper, parsed.work) {
        (Some(upper), Some(work)) => Some((upper, work)),
        (None, _) => None,
        (Some(upper), None) if parsed.flags.vfs.read_only => {
            Some((upper.clone(), upper)) // never looked at
        }
        (Some(upper), None) => {
            let reason = format!("needs workdir= on the file system of {}", upper.display());
            return Err(OptionError::value("upperdir", reason).into());
        }
    };
    if parsed.ephemeral && upper.is_some() {
        let reason = "the mount has an upper directory already";
        return Err(OptionError::value("ephemeral", reason).into());
    }
    let mut rules = parsed.rules;
    if run::wants_aufs_whiteouts() {
        rules.whiteouts.get_or_insert(WhiteoutForm::Aufs);
    }
    let subtype = parsed.subtype.unwrap_or_else(|| SUBTYPE.to_owned());
    Ok(MountSpec {
        target,
        source: parsed.source,
        subtype: Some(subtype).filter(|subtype| !subtype.is_empty()),
        lowers: parsed.lowers,
        images: parsed.images,
        layers: Vec::new(),
        container: None,
        ephemeral: parsed.ephemeral,
        upper,
        grafts: parsed.grafts,
        root: run::data_root(parsed.root),
        runtime: run::runtime_dir(),
        flags: parsed.flags.vfs,
        allow_other: parsed.allow_other || parsed.allow_root,
        default_permissions: parsed.default_permissions,
        rules,
    })
}

/// Refuses what nobody knows, for whoever writes options by hand.
pub fn strict(parsed: &Parsed) -> Result<(), OptionError> {
    match parsed.unknown.first() {
        Some(word) => Err(OptionError::Unknown(word.clone())),
        None => Ok(()),
    }
}

/// Opens the mount to others and lets the kernel check them, as suits who mounts.
pub fn allow(parsed: &mut Parsed) {
    parsed.default_permissions = true;
    parsed.allow_other |= laminafs::service::is_root();
}

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(args: MountArgs) -> Result<ExitCode, Trouble> {
    let mut parsed = Parsed::default();
    for list in &args.options {
        parse(&mut parsed, list.as_bytes())?;
    }
    strict(&parsed)?;
    if parsed.flags.remount {
        laminafs::service::mount::remount(&args.mountpoint, parsed.flags.vfs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lowers = args.lowers;
    lowers.append(&mut parsed.lowers);
    parsed.images.splice(..0, args.images);
    parsed.lowers = lowers;
    parsed.upper = args.upper.or(parsed.upper);
    parsed.work = args.work.or(parsed.work);
    parsed.root = args.root.or(parsed.root);
    let keep = &mut parsed.rules.keep;
    for (name, given, to) in [
        ("cache_size", &args.cache_size, &mut keep.cache_bytes),
        ("materialized_size", &args.materialized_size, &mut keep.material_bytes),
    ] {
        if let Some(text) = given {
            *to = Some(size(name, text)?);
        }
    }
    parsed.grafts.extend(graft::all(&args.grafts)?);
    parsed.ephemeral |= args.ephemeral;
    allow(&mut parsed);
    let foreground = args.foreground || parsed.foreground;
    run::mount(&spec(parsed, args.mountpoint)?, foreground)
}
