//! The helpers of mount(8) and umount(8).
//!
//! mount(8) calls `mount.TYPE SOURCE TARGET [-sfnvrw] [-N namespace] [-o LIST] [-t TYPE]`; a
//! remount comes the same way, with the options of the mount and without layers.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use super::mount::{allow, spec, strict};
use super::{program, umount};
use crate::options::{Parsed, parse};
use crate::report::{Trouble, warn};
use crate::run;

#[derive(Debug, Default)]
struct Words {
    parsed: Parsed,
    positional: Vec<OsString>,
    kind: Option<String>,
    fake: bool,
    sloppy: bool,
}

fn words(args: &[OsString]) -> Result<Words, Trouble> {
    let mut words = Words::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let mut value = || {
            let missing = || Trouble::Usage(format!("{} needs a value", word.display()));
            rest.next().ok_or_else(missing)
        };
        match word.as_bytes() {
            b"-o" => parse(&mut words.parsed, value()?.as_bytes())?,
            b"-t" => words.kind = Some(value()?.to_string_lossy().into_owned()),
            b"-N" => drop(value()?),
            [b'-', b'o', list @ ..] => parse(&mut words.parsed, list)?,
            [b'-', letters @ ..] if !letters.is_empty() => {
                for letter in letters {
                    match letter {
                        b's' => words.sloppy = true,
                        b'f' => words.fake = true,
                        b'r' => words.parsed.flags.vfs.read_only = true,
                        b'w' => words.parsed.flags.vfs.read_only = false,
                        b'n' | b'v' | b'i' => {}
                        _ => {
                            let reason = format!("unknown word {}", word.display());
                            return Err(Trouble::Usage(reason));
                        }
                    }
                }
            }
            _ => words.positional.push(word.clone()),
        }
    }
    Ok(words)
}

/// Runs as `mount.lamina`.
///
/// # Errors
/// [`Trouble::Helper`].
pub fn mount(args: &[OsString]) -> Result<ExitCode, Trouble> {
    mount_plain(args).map_err(|trouble| Trouble::Helper(Box::new(trouble)))
}

fn mount_plain(args: &[OsString]) -> Result<ExitCode, Trouble> {
    let words = words(args)?;
    let (source, target) = program::places(&words.positional)?;
    let mut parsed = words.parsed;
    if words.fake {
        return Ok(ExitCode::SUCCESS);
    }
    if parsed.flags.remount {
        laminafs::service::mount::remount(&target, parsed.flags.vfs)?;
        return Ok(ExitCode::SUCCESS);
    }
    if words.sloppy {
        for word in &parsed.unknown {
            warn(&format!("unknown option {word:?} is ignored"));
        }
    } else {
        strict(&parsed)?;
    }
    parsed.source = parsed.source.or_else(|| source.map(OsStringExt::into_vec));
    parsed.subtype = parsed.subtype.or_else(|| words.kind.as_deref().and_then(subtype));
    allow(&mut parsed);
    run::mount(&spec(parsed, target)?, false)
}

/// The subtype of a type as mount(8) names it.
fn subtype(kind: &str) -> Option<String> {
    let kind = kind.strip_prefix("fuse.").or_else(|| kind.strip_prefix("fuse3.")).unwrap_or(kind);
    (!kind.is_empty() && !kind.contains('/')).then(|| kind.to_owned())
}

/// Runs as `umount.fuse.lamina TARGET [-flnrv]`.
///
/// # Errors
/// [`Trouble::Helper`].
pub fn umount(args: &[OsString]) -> Result<ExitCode, Trouble> {
    let is_flag = |word: &&OsString| word.as_bytes().starts_with(b"-");
    let lazy = args.iter().filter(is_flag).any(|word| word.as_bytes().contains(&b'l'));
    let wrap = |trouble| Trouble::Helper(Box::new(trouble));
    let target = args.iter().find(|word| !is_flag(word)).map(PathBuf::from);
    let missing = || wrap(Trouble::Usage("no mount point is given".to_owned()));
    umount::run(&target.ok_or_else(missing)?, lazy).map_err(wrap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_passes_is_read() {
        let list = ["src", "/m", "-o", "rw,lowerdir=/a,dev,suid", "-sv", "-t", "fuse.lamina"];
        let words = words(&list.iter().map(OsString::from).collect::<Vec<_>>()).unwrap();
        assert_eq!(words.positional, ["src", "/m"]);
        assert!(words.sloppy && !words.fake);
        assert_eq!(words.kind.as_deref().and_then(subtype).as_deref(), Some("lamina"));
        assert_eq!(subtype("fuse./abs/prog"), None);
    }
}
