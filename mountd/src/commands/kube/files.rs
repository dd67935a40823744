//! The files of `-f`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Outcome;
use crate::kube::manifest::{Manifest, read};
use crate::report::CliError;

/// The largest file.
const BYTES_MAX: u64 = 64 << 20;
/// Directories within directories.
const DEPTH_MAX: usize = 32;
/// The endings of files in a directory that hold manifests.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Which files hold the manifests.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// A file, a directory, or `-` for the standard input; may be repeated.
    #[arg(long = "filename", short = 'f', value_name = "FILE", value_delimiter = ',')]
    pub files: Vec<PathBuf>,
    /// Read the directories below a directory too.
    #[arg(long, short = 'R')]
    recursive: bool,
}

impl Files {
    /// The objects of all files, in order. What cannot be read is reported.
    pub fn manifests(&self, outcome: &mut Outcome) -> Vec<Manifest> {
        let mut found = Vec::new();
        let failed = |name: &str, error| CliError::Io { what: name.to_owned(), error };
        let mut add = |name: &str, bytes: io::Result<Vec<u8>>| match bytes {
            Ok(bytes) => {
                let all = read(name, &bytes).into_iter();
                found.extend(all.map(|one| one.map_err(CliError::Objects)));
            }
            Err(error) => found.push(Err(failed(name, error))),
        };
        for file in &self.files {
            if file.as_os_str() == "-" {
                add("STDIN", bounded(io::stdin().lock()));
                continue;
            }
            match self.paths(file) {
                Ok(paths) => {
                    for path in paths {
                        add(&path.display().to_string(), File::open(&path).and_then(bounded));
                    }
                }
                Err(error) => outcome.failed_with(&failed(&file.display().to_string(), error)),
            }
        }
        let mut manifests = Vec::new();
        for one in found {
            match one {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => outcome.failed_with(&error),
            }
        }
        manifests
    }

    /// A file, or the files of a directory that hold manifests, by name.
    fn paths(&self, file: &Path) -> io::Result<Vec<PathBuf>> {
        if !fs::metadata(file)?.is_dir() {
            return Ok(vec![file.to_owned()]);
        }
        let mut paths = Vec::new();
        collect(file, if self.recursive { DEPTH_MAX } else { 0 }, &mut paths)?;
        paths.sort();
        Ok(paths)
    }
}

fn collect(dir: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        // A link to a directory is none to walk: links may lead in circles.
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, paths)?;
            }
        } else if path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)) {
            paths.push(path);
        }
    }
    Ok(())
}

fn bounded(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("more than {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
