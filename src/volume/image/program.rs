//! Programs of the host that make, check and shrink file systems.
//!
//! A program gets no input, an environment of `PATH` and `LC_ALL=C` only, and a time limit.

use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::options::{Kind, image_bytes};
use crate::sys::process::variable;
use crate::volume::driver::Limits;
use crate::volume::error::{Result, VolumeError};

/// Where programs of administrators are, which `PATH` of a user may leave out.
const ADMINISTRATION: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// How long a program may take: a check of many terabytes takes hours.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Bytes of output that are kept, and those of them that an error shows.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
const SHOWN_BYTES_MAX: usize = 600;

/// What a program printed, and how it ended.
struct Output {
    status: ExitStatus,
    text: String,
}

fn failed(program: &str, reason: impl Into<String>) -> VolumeError {
    VolumeError::Program { program: program.to_owned(), reason: reason.into() }
}

fn search_path() -> std::ffi::OsString {
    let mut path = variable("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":");
    path.push(ADMINISTRATION);
    path
}

/// Finds a program in the absolute directories of a search path.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let directories = path.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes);
    let directories = directories.map(Path::new).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Reads to the end, and keeps the beginning.
fn read_output(mut reader: PipeReader) -> io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let len = match reader.read(&mut buffer) {
            Ok(0) => return Ok(kept),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(len.min(room)));
    }
}

/// Waits until a program closes its output, and then for its end; one that takes longer than the
/// limit is killed.
fn wait(mut child: Child, reader: PipeReader, limit: Duration) -> io::Result<(ExitStatus, String)> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("volume-program".to_owned()).spawn(move || {
        // The receiver is gone after the time limit.
        drop(sender.send(read_output(reader)));
    });
    let output = match thread {
        Ok(_) => receiver.recv_timeout(limit),
        Err(error) => Ok(Err(error)),
    };
    match output {
        Ok(Ok(bytes)) => Ok((child.wait()?, String::from_utf8_lossy(&bytes).into_owned())),
        other => {
            child.kill()?;
            child.wait()?;
            let slow = || io::Error::from(io::ErrorKind::TimedOut);
            Err(other.ok().and_then(io::Result::err).unwrap_or_else(slow))
        }
    }
}

fn run(program: &str, arguments: &[&OsStr], limit: Duration) -> Result<Output> {
    let path = search_path();
    let package = if program.ends_with("xfs") { "xfsprogs" } else { "e2fsprogs" };
    let file = find(program, &path).ok_or_else(|| {
        failed(program, format!("not found on the host: install the package {package}"))
    })?;
    let started = io::pipe().and_then(|(reader, writer)| {
        let mut command = Command::new(&file);
        command.args(arguments).env_clear().env("PATH", &path).env("LC_ALL", "C");
        command.current_dir("/").stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        Ok((command.spawn()?, reader))
    });
    let (child, reader) = started.map_err(|error| failed(program, error.to_string()))?;
    let (status, text) =
        wait(child, reader, limit).map_err(|error| failed(program, error.to_string()))?;
    Ok(Output { status, text })
}

impl Output {
    /// The error of a program that failed: what it printed before its usage text.
    fn error(&self, program: &str) -> VolumeError {
        let text = self.text.split("\nUsage:").next().unwrap_or_default().trim();
        let mut end = text.len().min(SHOWN_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let shown = text.get(..end).unwrap_or_default().replace('\n', "; ");
        failed(program, format!("{shown} ({})", self.status))
    }
}

/// The inodes of ext4 that no file can have (`EXT4_FIRST_INO` - 1), without the root's.
const RESERVED_INODES: u64 = 10;

/// Makes a file system that fills an image.
pub(super) fn make(kind: Kind, image: &Path, limits: Limits) -> Result<()> {
    let program = match kind {
        Kind::Ext4 => "mkfs.ext4",
        Kind::Xfs => "mkfs.xfs",
    };
    let inodes = limits.inodes.map(|count| count.saturating_add(RESERVED_INODES).to_string());
    let mut arguments: Vec<&OsStr> = Vec::new();
    match kind {
        Kind::Ext4 => {
            // No space is reserved for root. The blocks of a new file read as zeros.
            let lazy = "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0";
            arguments.extend(["-q", "-F", "-b", "4096", "-m", "0", "-E", lazy].map(OsStr::new));
            if let Some(inodes) = &inodes {
                arguments.extend([OsStr::new("-N"), OsStr::new(inodes)]);
            }
        }
        Kind::Xfs => {
            let sizes = ["-q", "-f", "-b", "size=4096", "-s", "size=4096"];
            arguments.extend(sizes.map(OsStr::new));
        }
    }
    arguments.push(image.as_os_str());
    let output = run(program, &arguments, LIMIT)?;
    if output.status.success() {
        return Ok(());
    }
    // A release of the program with a larger minimum than the one that is known here.
    if output.text.contains("must be larger than") || output.text.contains("too small") {
        let bytes = image_bytes(kind, limits)?;
        let what = format!("{bytes} bytes are too few: {}", output.error(program));
        return Err(VolumeError::TooSmall { what });
    }
    Err(output.error(program))
}

/// Checks an ext4 image that is not mounted, replays its journal and repairs what is safe to.
pub(super) fn check_ext4(image: &Path) -> Result<()> {
    let arguments = [OsStr::new("-f"), OsStr::new("-p"), image.as_os_str()];
    let output = run("e2fsck", &arguments, LIMIT)?;
    // 1 is "errors were corrected" (e2fsck(8)).
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(output.error("e2fsck")),
    }
}

/// Resizes the file system in an ext4 image that is not mounted and was checked.
pub(super) fn resize_ext4(image: &Path, bytes: u64) -> Result<()> {
    let size = format!("{}K", bytes / 1024);
    let output = run("resize2fs", &[image.as_os_str(), OsStr::new(&size)], LIMIT)?;
    if output.status.success() {
        return Ok(());
    }
    let full = ["smaller than minimum", "Not enough space", "No space left"];
    if full.iter().any(|text| output.text.contains(text)) {
        let what = format!("the content does not fit into {bytes} bytes");
        return Err(VolumeError::TooSmall { what });
    }
    Err(output.error("resize2fs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Output> {
        run("sh", &["-c", script].map(OsStr::new), limit)
    }

    #[test]
    fn a_program_gets_no_input_and_a_small_environment() {
        let output = sh("cat; env | grep -v ^PWD= | cut -d= -f1 | sort; pwd", LIMIT).unwrap();
        assert!(output.status.success());
        let lines: Vec<&str> = output.text.lines().filter(|line| *line != "_").collect();
        assert_eq!(lines.iter().filter(|line| **line == "LC_ALL").count(), 1);
        assert!(lines.iter().all(|line| ["LC_ALL", "PATH", "SHLVL", "OLDPWD", "/"].contains(line)));
    }

    #[test]
    fn the_error_of_a_program_holds_its_output_without_the_usage() {
        let output = sh("echo too bad >&2; echo Usage: all of it; exit 3", LIMIT).unwrap();
        let error = output.error("sh").to_string();
        assert_eq!(error, "sh: too bad (exit status: 3)");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let error = sh("exec sleep 1000", Duration::from_millis(50)).err().unwrap();
        assert!(error.to_string().contains("timed out"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        assert_eq!(find("sh", OsStr::new("relative:.")), None);
        let error = run("mkfs.lamina-xfs", &[], LIMIT).err().unwrap();
        assert!(error.to_string().contains("xfsprogs"), "{error}");
    }
}
