//! The helpers of mount(8) and umount(8).
//!
//! mount(8) calls `mount.TYPE SOURCE TARGET [-sfnvrw] [-N namespace] [-o LIST] [-t TYPE]`. A
//! remount comes in the same form, with the options of the mount and without layers.
//!
//! With `-N`, mount(8) calls its helper in its own mount namespace, so the helper first enters the
//! other one. From then on every path belongs to that namespace, as for a file system of the
//! kernel: layers, data root and the status sockets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use super::mount::{Change, allow, remount, spec, strict, tolerate};
use super::{program, umount};
use crate::options::{Parsed, parse};
use crate::report::{CliError, say};
use crate::run;

#[derive(Debug, Default)]
struct MountHelperArgs {
    parsed: Parsed,
    positional: Vec<OsString>,
    kind: Option<String>,
    namespace: Option<OsString>,
    fake: bool,
    sloppy: bool,
    verbose: bool,
}

fn needed<'a>(word: &OsString, value: Option<&'a OsString>) -> Result<&'a OsString, CliError> {
    value.ok_or_else(|| CliError::Usage(format!("{} needs a value", word.display())))
}

fn unknown(word: &OsString) -> CliError {
    CliError::Usage(format!("unknown argument {}", word.display()))
}

/// Enters the mount namespace of a process or of a file.
fn enter(namespace: Option<&OsStr>) -> Result<(), CliError> {
    let Some(namespace) = namespace else { return Ok(()) };
    let text = namespace.to_string_lossy();
    let path = match text.parse::<u32>() {
        Ok(pid) => PathBuf::from(format!("/proc/{pid}/ns/mnt")),
        Err(_) => PathBuf::from(namespace),
    };
    Ok(laminafs::service::process::enter_mount_namespace(&path)?)
}

fn parse_mount(args: &[OsString]) -> Result<MountHelperArgs, CliError> {
    let mut words = MountHelperArgs::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let mut value = || needed(word, rest.next());
        match word.as_bytes() {
            b"-o" => parse(&mut words.parsed, value()?.as_bytes())?,
            b"-t" => words.kind = Some(value()?.to_string_lossy().into_owned()),
            b"-N" => words.namespace = Some(value()?.clone()),
            [b'-', b'o', list @ ..] => parse(&mut words.parsed, list)?,
            [b'-', letters @ ..] if !letters.is_empty() => {
                for letter in letters {
                    match letter {
                        b's' => words.sloppy = true,
                        b'f' => words.fake = true,
                        b'r' => words.parsed.flags.vfs.read_only = true,
                        b'w' => words.parsed.flags.vfs.read_only = false,
                        b'v' => words.verbose = true,
                        b'n' => {} // there is no table to be left alone
                        _ => return Err(unknown(word)),
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
/// [`CliError::Helper`].
pub fn mount(args: &[OsString]) -> Result<ExitCode, CliError> {
    mount_plain(args).map_err(|error| CliError::Helper(Box::new(error)))
}

fn mount_plain(args: &[OsString]) -> Result<ExitCode, CliError> {
    let words = parse_mount(args)?;
    let (source, target) = program::places(&words.positional)?;
    let mut parsed = words.parsed;
    if words.sloppy {
        tolerate(&parsed);
        parsed.flags.refused.clear();
        parsed.unknown.clear();
        parsed.labels.clear();
    }
    strict(&parsed)?;
    enter(words.namespace.as_deref())?;
    if parsed.flags.remount && !words.fake {
        return remount(&target, &parsed, Change::All);
    }
    parsed.source = parsed.source.or_else(|| source.map(OsStringExt::into_vec));
    parsed.subtype = parsed.subtype.or_else(|| words.kind.as_deref().and_then(subtype));
    allow(&mut parsed);
    let spec = spec(parsed, target)?;
    if words.fake {
        return Ok(ExitCode::SUCCESS);
    }
    let code = run::mount(&spec, false)?;
    if words.verbose && code == ExitCode::SUCCESS {
        let source = String::from_utf8_lossy(spec.source.as_deref().unwrap_or(b"lamina"));
        say(&format!("{source} mounted on {}\n", spec.target.display()))?;
    }
    Ok(code)
}

/// The subtype in a type as mount(8) passes it.
fn subtype(kind: &str) -> Option<String> {
    let kind = kind.strip_prefix("fuse.").or_else(|| kind.strip_prefix("fuse3.")).unwrap_or(kind);
    (!kind.is_empty() && !kind.contains('/')).then(|| kind.to_owned())
}

/// Arguments that umount(8) passes to its helper.
#[derive(Debug, Default)]
struct UmountHelperArgs {
    target: Option<PathBuf>,
    namespace: Option<OsString>,
    lazy: bool,
    force: bool,
    or_read_only: bool,
    verbose: bool,
}

fn parse_umount(args: &[OsString]) -> Result<UmountHelperArgs, CliError> {
    let mut words = UmountHelperArgs::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        match word.as_bytes() {
            b"-t" => drop(needed(word, rest.next())?),
            b"-N" => words.namespace = Some(needed(word, rest.next())?.clone()),
            [b'-', letters @ ..] if !letters.is_empty() => {
                for letter in letters {
                    match letter {
                        b'f' => words.force = true,
                        b'l' => words.lazy = true,
                        b'r' => words.or_read_only = true,
                        b'v' => words.verbose = true,
                        b'n' => {} // there is no table to be left alone
                        _ => return Err(unknown(word)),
                    }
                }
            }
            _ if words.target.is_none() => words.target = Some(PathBuf::from(word)),
            _ => return Err(CliError::Usage(format!("one argument too many: {}", word.display()))),
        }
    }
    Ok(words)
}

/// Runs as `umount.fuse.lamina TARGET [-flnrv] [-N namespace] [-t TYPE]`.
///
/// # Errors
/// [`CliError::Helper`].
pub fn umount(args: &[OsString]) -> Result<ExitCode, CliError> {
    umount_plain(args).map_err(|error| CliError::Helper(Box::new(error)))
}

fn umount_plain(args: &[OsString]) -> Result<ExitCode, CliError> {
    let words = parse_umount(args)?;
    let missing = || CliError::Usage("the mount point is missing".to_owned());
    let target = words.target.ok_or_else(missing)?;
    enter(words.namespace.as_deref())?;
    let mut request = umount::request(target, words.lazy);
    request.how.force = words.force;
    request.or_read_only = words.or_read_only;
    let code = umount::unmount(&request)?;
    if words.verbose {
        say(&format!("{}: unmounted\n", request.target.display()))?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_passes_is_read() {
        let list = ["src", "/m", "-o", "rw,lowerdir=/a,dev,suid", "-sv", "-t", "fuse.lamina"];
        let words = parse_mount(&list.iter().map(OsString::from).collect::<Vec<_>>()).unwrap();
        assert_eq!(words.positional, ["src", "/m"]);
        assert!(words.sloppy && !words.fake);
        assert_eq!(words.kind.as_deref().and_then(subtype).as_deref(), Some("lamina"));
        assert_eq!(subtype("fuse./abs/prog"), None);
    }

    #[test]
    fn what_umount_passes_is_read() {
        let read = |list: &[&str]| {
            parse_umount(&list.iter().map(OsString::from).collect::<Vec<_>>()).unwrap()
        };
        let words = read(&["/m", "-lf", "-r", "-n", "-v", "-t", "fuse.lamina", "-N", "/ns"]);
        assert_eq!(words.target.as_deref(), Some(std::path::Path::new("/m")));
        assert_eq!(words.namespace.as_deref(), Some(OsStr::new("/ns")));
        assert!(words.lazy && words.force && words.or_read_only && words.verbose);
        let unknown: Vec<_> = ["/m", "-x"].iter().map(OsString::from).collect();
        assert!(parse_umount(&unknown).unwrap_err().to_string().contains("-x"));
    }
}
