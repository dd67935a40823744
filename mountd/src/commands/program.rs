//! `lamina -o LIST TARGET` and `lamina SOURCE TARGET -o LIST`: the way in which container engines
//! call fuse-overlayfs. Unknown options cause a warning, since engines pass on the options of their
//! users.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use super::mount::{self, allow, spec};
use crate::options::{Parsed, parse};
use crate::report::{CliError, say};
use crate::{cli, run};

/// Arguments of this form.
#[derive(Debug, Default)]
pub struct ProgramArgs {
    pub parsed: Parsed,
    pub positional: Vec<OsString>,
    pub foreground: bool,
    pub quick: Option<Quick>,
}

/// An option that prints a text and ends the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quick {
    Help,
    Version,
}

/// Parses the arguments. `-o` may be repeated, with its list in the next argument or the same.
pub fn read(args: &[OsString]) -> Result<ProgramArgs, CliError> {
    let mut words = ProgramArgs::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        match word.as_bytes() {
            b"-o" => {
                let usage =
                    || CliError::Usage("-o needs a list of options, as -o lowerdir=DIR".to_owned());
                let list = rest.next().ok_or_else(usage)?;
                parse(&mut words.parsed, list.as_bytes())?;
            }
            b"-f" | b"--foreground" => words.foreground = true,
            b"-d" | b"--debug" => words.foreground = true,
            b"-s" => {}
            b"-h" | b"--help" => words.quick = Some(Quick::Help),
            b"-V" | b"--version" => words.quick = Some(Quick::Version),
            b"--" => words.positional.extend(rest.by_ref().cloned()),
            [b'-', b'o', list @ ..] => parse(&mut words.parsed, list)?,
            [b'-', _, ..] => {
                let reason = format!("unknown argument {}: see lamina --help", word.display());
                return Err(CliError::Usage(reason));
            }
            _ => words.positional.push(word.clone()),
        }
    }
    Ok(words)
}

/// Assigns one or two positional words to source and target.
pub fn places(positional: &[OsString]) -> Result<(Option<OsString>, PathBuf), CliError> {
    match positional {
        [target] => Ok((None, PathBuf::from(target))),
        [source, target] => Ok((Some(source.clone()), PathBuf::from(target))),
        [] => Err(CliError::Usage("the mount point is missing: see lamina --help".to_owned())),
        [_, _, third, ..] => {
            Err(CliError::Usage(format!("one argument too many: {}", third.display())))
        }
    }
}

/// Mounts as fuse-overlayfs does.
///
/// # Errors
/// [`CliError`].
pub fn run(args: &[OsString]) -> Result<ExitCode, CliError> {
    let words = read(args)?;
    match words.quick {
        Some(Quick::Help) => return say(&cli::help()).map(|()| ExitCode::SUCCESS),
        Some(Quick::Version) => return say(&cli::version()).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    let (source, target) = places(&words.positional)?;
    let mut parsed = words.parsed;
    if parsed.flags.remount {
        return mount::remount(&target, &parsed, mount::Change::Named);
    }
    mount::tolerate(&parsed);
    parsed.source = parsed.source.or_else(|| source.map(OsStringExt::into_vec));
    // The defaults of fuse-overlayfs, which podman users rely on.
    parsed.flags.vfs.nodev = parsed.flags.dev != Some(true);
    parsed.flags.vfs.noatime |= !parsed.flags.atime_said;
    allow(&mut parsed);
    let foreground = words.foreground || parsed.foreground;
    run::mount(&spec(parsed, target)?, foreground)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &[&str]) -> ProgramArgs {
        super::read(&list.iter().map(OsString::from).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_come_apart_or_in_one_word_and_repeatedly() {
        let words = read(&["-olowerdir=/a", "src", "/m", "-o", "ro", "-o", "noexec"]);
        assert_eq!(places(&words.positional).unwrap().1, PathBuf::from("/m"));
        assert_eq!(words.parsed.lowers, [PathBuf::from("/a")]);
        assert!(words.parsed.flags.vfs.read_only && words.parsed.flags.vfs.noexec);
        assert!(!words.foreground);
    }

    #[test]
    fn the_number_of_places_is_checked() {
        assert!(places(&[]).is_err());
        let three: Vec<OsString> = ["a", "b", "c"].iter().map(OsString::from).collect();
        assert!(places(&three).unwrap_err().to_string().contains('c'));
    }
}
