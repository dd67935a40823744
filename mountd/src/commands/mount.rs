//! `lamina mount`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use laminafs::service::WhiteoutForm;
use laminafs::service::spec::{MountSpec, UpperDirs};
use laminafs::types::{Limits, Speed};

use crate::args::{GraftArgs, graft};
use crate::commands::resolved;
use crate::options::{OptionError, Parsed, parse, size};
use crate::report::{CliError, warn};
use crate::run;

/// The subtype, which /proc/mounts shows after `fuse.`.
pub const SUBTYPE: &str = "lamina";

/// Arguments of `lamina mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// A layer, which is never changed. The first one is the topmost.
    #[arg(long = "lower", value_name = "DIR", required_unless_present_any = ["options", "images"])]
    pub lowers: Vec<PathBuf>,
    /// An image of the store. Its layers lie below the directories.
    #[arg(long = "image", value_name = "NAME[:TAG]|@DIGEST")]
    pub images: Vec<String>,
    /// Write changes to an upper directory that is removed with the mount.
    #[arg(long, conflicts_with = "upper")]
    pub ephemeral: bool,
    /// The directory that takes all changes [default: none, the mount is read-only].
    #[arg(long, value_name = "DIR", requires = "work")]
    pub upper: Option<PathBuf>,
    /// The most data that the upper may hold [default: what its file system has].
    #[arg(long, value_name = "SIZE")]
    pub size: Option<String>,
    /// The most inodes that the upper may have [default: one for each 4K of --size].
    #[arg(long, value_name = "COUNT")]
    pub inodes: Option<u64>,
    /// An empty directory on the file system of the upper, for this mount alone.
    #[arg(long, value_name = "DIR", requires = "upper")]
    pub work: Option<PathBuf>,
    /// What appears in the tree from elsewhere.
    #[command(flatten)]
    pub grafts: GraftArgs,
    /// The data root, which holds images and volumes [default: /var/lib/lamina].
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Memory for the block cache of images [default: 64M].
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Disk space for materialised files, shared by all mounts of a data root; 0 turns them off
    /// [default: a tenth of the file system, 10G at most].
    #[arg(long, value_name = "SIZE")]
    pub materialized_size: Option<String>,
    /// Options of mount(8), overlayfs and fuse-overlayfs.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Stay in the foreground.
    #[arg(short, long)]
    pub foreground: bool,
    /// The mount point.
    pub mountpoint: PathBuf,
}

/// Builds a mount from its parsed options. Device files and set-user-ID programs work unless
/// `nodev` and `nosuid` are given; those of an image only work with `dev` and `suid`.
pub fn spec(parsed: Parsed, target: PathBuf) -> Result<MountSpec, CliError> {
    let work = parsed.work;
    let upper = parsed.upper.map(|upper| UpperDirs { upper, work });
    if let Some(UpperDirs { upper, work: None }) = &upper
        && !parsed.flags.vfs.read_only
    {
        let reason = format!("needs workdir= on the file system of {}", upper.display());
        return Err(OptionError::value("upperdir", reason).into());
    }
    if parsed.ephemeral && upper.is_some() {
        let reason = "the mount has an upper directory already";
        return Err(OptionError::value("ephemeral", reason).into());
    }
    if parsed.limits != Limits::default() && !parsed.ephemeral && upper.is_none() {
        let reason =
            "the mount has no upper directory to limit: add --upper and --work, or --ephemeral";
        return Err(OptionError::value("size", reason).into());
    }
    let mut flags = parsed.flags.vfs;
    if !parsed.images.is_empty() {
        // The author of an image is not trusted with this host.
        flags.nosuid = parsed.flags.suid != Some(true);
        flags.nodev = parsed.flags.dev != Some(true);
    }
    let mut rules = parsed.rules;
    if run::wants_aufs_whiteouts() {
        rules.whiteouts.get_or_insert(WhiteoutForm::Aufs);
    }
    let root = match parsed.images.is_empty() {
        true => run::data_root(parsed.root),
        false => run::existing_root(parsed.root)?,
    };
    let subtype = parsed.subtype.unwrap_or_else(|| SUBTYPE.to_owned());
    Ok(MountSpec {
        target,
        source: parsed.source,
        subtype: Some(subtype).filter(|subtype| !subtype.is_empty()),
        former: 0,
        lowers: parsed.lowers,
        images: parsed.images,
        layers: Vec::new(),
        container: None,
        ephemeral: parsed.ephemeral,
        upper,
        grafts: parsed.grafts,
        root,
        runtime: run::runtime_dir(),
        flags,
        propagation: parsed.flags.propagation,
        labels: parsed.labels,
        allow_other: parsed.allow_other || parsed.allow_root,
        default_permissions: parsed.default_permissions,
        log: None,
        freezer: None,
        limits: parsed.limits,
        speed: Speed::default(),
        rules,
    })
}

/// Refuses options that are unknown or cannot be honoured.
pub fn strict(parsed: &Parsed) -> Result<(), OptionError> {
    if let Some((word, reason)) = parsed.flags.refused.first() {
        return Err(OptionError::value(word, *reason));
    }
    if let Some(label) = parsed.labels.first().filter(|_| !laminafs::service::has_selinux()) {
        let option = label.split('=').next().unwrap_or_default();
        return Err(OptionError::value(option, "SELinux is not in force on this host"));
    }
    match parsed.unknown.first() {
        Some(word) => Err(OptionError::Unknown(word.clone())),
        None => Ok(()),
    }
}

/// Warns of options that are unknown or cannot be honoured, for engines that pass on the options of
/// their users.
pub fn tolerate(parsed: &Parsed) {
    for word in &parsed.unknown {
        warn(&format!("unknown option {word:?} is ignored"));
    }
    for (word, reason) in &parsed.flags.refused {
        warn(&format!("option {word} is ignored: {reason}"));
    }
}

/// The meaning of a list of options for a remount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the options in the list change.
    Named,
    /// Options that are not in the list are reset. mount(8) calls its helper in this way.
    All,
}

/// Changes the flags of an existing mount.
///
/// # Errors
/// [`CliError`].
pub fn remount(target: &Path, parsed: &Parsed, change: Change) -> Result<ExitCode, CliError> {
    strict(parsed)?;
    let change = |present| match change {
        Change::Named => parsed.flags.over(present),
        Change::All => parsed.flags.vfs,
    };
    laminafs::service::unmount::remount(target, run::runtime_dir().as_deref(), change)?;
    Ok(ExitCode::SUCCESS)
}

/// Sets `default_permissions`, and for root `allow_other`.
pub fn allow(parsed: &mut Parsed) {
    parsed.default_permissions = true;
    parsed.allow_other |= laminafs::service::process::is_root();
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub fn run(args: MountArgs) -> Result<ExitCode, CliError> {
    let mut parsed = Parsed::default();
    for list in &args.options {
        parse(&mut parsed, list.as_bytes())?;
    }
    strict(&parsed)?;
    if parsed.flags.remount {
        return remount(&args.mountpoint, &parsed, Change::Named);
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
    if let Some(text) = &args.size {
        parsed.limits.size_bytes = Some(size("size", text)?);
    }
    parsed.limits.inodes = args.inodes.or(parsed.limits.inodes);
    parsed.grafts.extend(graft::all(&args.grafts)?);
    parsed.ephemeral |= args.ephemeral;
    allow(&mut parsed);
    let foreground = args.foreground || parsed.foreground;
    let spec = spec(parsed, args.mountpoint)?;
    resolved::show_in(&spec.root, &spec.images);
    run::mount(&spec, foreground)
}
