//! `lamina container cp`.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use laminafs::service::cp::{CopyError, Side, copy, from_tar, to_tar};

use super::Context;
use super::mounted::with_root;
use crate::report::{CliError, warn};
use crate::run;

/// Arguments of `lamina container cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// A path of the host, CONTAINER:PATH, or `-` for a tar on the standard input.
    #[arg(value_name = "[NAME:]PATH")]
    from: PathBuf,
    /// A path of the host, CONTAINER:PATH, or `-` for a tar of a directory on the standard output.
    #[arg(value_name = "[NAME:]PATH")]
    to: PathBuf,
}

/// The container and the path in it; `None` for a path of the host: one without a colon, or with a
/// slash or a dot before it.
fn of_container(word: &Path) -> Option<(String, PathBuf)> {
    let bytes = word.as_os_str().as_bytes();
    let at = bytes.iter().position(|byte| *byte == b':')?;
    let (name, path) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    if name.is_empty() || name.contains(&b'/') || name.starts_with(b".") {
        return None;
    }
    let path = std::ffi::OsStr::from_bytes(path);
    let path = if path.is_empty() { PathBuf::from("/") } else { PathBuf::from(path) };
    Some((std::str::from_utf8(name).ok()?.to_owned(), path))
}

fn failed(error: CopyError) -> CliError {
    CliError::Container(error.to_string())
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &CpArgs) -> Result<(), CliError> {
    let host = |path: &Path| Side { path: path.to_owned(), root: None };
    let notes = match (of_container(&args.from), of_container(&args.to)) {
        (Some((name, path)), None) => with_root(context, &name, |root| {
            let from = Side { path, root: Some(root.to_owned()) };
            // What the user gets has the modes that the user expects.
            run::open_umask();
            if args.to == Path::new("-") {
                return to_tar(&from, &mut io::stdout().lock()).map_err(failed);
            }
            Ok(copy(&from, &host(&args.to)).map_err(failed)?.notes)
        })?,
        (None, Some((name, path))) => with_root(context, &name, |root| {
            let to = Side { path, root: Some(root.to_owned()) };
            if args.from == Path::new("-") {
                return from_tar(io::stdin().lock(), &to).map_err(failed);
            }
            Ok(copy(&host(&args.from), &to).map_err(failed)?.notes)
        })?,
        _ => {
            let text = "one of the two paths is of a container: NAME:PATH";
            return Err(CliError::Usage(text.to_owned()));
        }
    };
    notes.iter().for_each(|note| warn(note));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_before_the_colon_makes_a_path_of_the_host() {
        let of = |word: &str| of_container(Path::new(word));
        assert_eq!(of("c:/a:b"), Some(("c".to_owned(), PathBuf::from("/a:b"))));
        assert_eq!(of("c:"), Some(("c".to_owned(), PathBuf::from("/"))));
        for host in ["./c:/a", "/c:/a", "../c:x", "plain", ":x"] {
            assert_eq!(of(host), None, "{host}");
        }
    }
}
