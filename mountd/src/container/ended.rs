//! The end of a run, and of one whose process was killed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use laminafs::service::containers::ContainerInfo;
use laminafs::service::images::Images;
use laminafs::service::unmount::{self, UnmountRequest};
use laminafs::service::{Failure, Refusal, UnmountFlags, hostpath};
use laminafs::types::{Run, RunState};

use super::lock::Locked;
use super::place::Place;

/// How long the end of a mount is waited for.
const UNMOUNT: Duration = Duration::from_secs(30);
/// The age at which a container that goes with its run, and never ran, has lost the command that
/// made it.
const LOST: Duration = Duration::from_secs(60);
/// How crun reports that the kernel did not execute the program.
pub const EXEC: &str = "exec container process";
/// The exit code of a run whose process was killed: that of a program which SIGKILL ended.
pub const KILLED: u8 = 137;

/// A run that could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// A failure of containers.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// A failure of the mount.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// A failure of the host, or of the runtime.
    #[error("{what}: {error}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The reason.
        error: io::Error,
    },
}

/// The present time, as a run notes it.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Unmounts a container, if it is mounted. A mount that is in use ends with its last user.
///
/// # Errors
/// [`EndError::Failure`].
pub fn unmount(images: &Images, id: &str, runtime: Option<&Path>) -> Result<(), EndError> {
    let Some(target) = images.container(id, runtime)?.mountpoint else { return Ok(()) };
    let request = |lazy| UnmountRequest {
        target: target.clone(),
        how: UnmountFlags { lazy, force: false },
        or_read_only: false,
        timeout: UNMOUNT,
        runtime: runtime.map(Path::to_owned),
    };
    match unmount::run(&request(false)) {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "unmounting a container lazily");
            unmount::run(&request(true))?;
            Ok(())
        }
    }
}

/// Ends what a run left: processes, mount, files. The caller holds the container.
///
/// # Errors
/// [`EndError`]; the rest is left for a later call.
pub fn clear(images: &Images, place: &Place, runtime: Option<&Path>) -> Result<(), EndError> {
    let io = |what| move |error| EndError::Io { what, error };
    place.crun().delete_all().map_err(io("removing the container from its runtime"))?;
    unmount(images, place.id(), runtime)?;
    place.end_mount_point().map_err(io("the mount point"))?;
    hostpath::remove_own(place.run()).map_err(io("the runtime directory"))
}

/// Ends the runs whose process was killed, and removes the containers that were to go with their
/// run. What cannot be ended is left for a later call, with a warning.
///
/// # Errors
/// [`Refusal`] if the containers cannot be read.
pub fn repair(images: &Images, runtime: Option<&Path>) -> Result<(), Refusal> {
    for one in images.containers(runtime)? {
        let place = Place::new(&one, runtime);
        if !is_left(&one, &place) || place.is_held() {
            continue;
        }
        if let Err(error) = repair_one(images, &one, runtime) {
            tracing::warn!(%error, container = %one.name, "what a run left stays");
        }
    }
    Ok(())
}

/// Whether a container is as a run leaves it whose process was killed.
fn is_left(one: &ContainerInfo, place: &Place) -> bool {
    if place.is_temporary() {
        return true;
    }
    let Some(program) = &one.program else { return false };
    match &one.run {
        Some(run) => run.state == RunState::Running || program.remove,
        None => {
            let created = humantime::parse_rfc3339(&one.created).ok();
            let age = created.and_then(|at| SystemTime::now().duration_since(at).ok());
            program.remove && age.is_some_and(|age| age >= LOST)
        }
    }
}

fn repair_one(
    images: &Images,
    one: &ContainerInfo,
    runtime: Option<&Path>,
) -> Result<(), EndError> {
    let place = Place::new(one, runtime);
    let io = |what| move |error| EndError::Io { what, error };
    let Locked::Taken(_held) = place.lock().map_err(io("its lock"))? else { return Ok(()) };
    // It may have ended in order before the lock was free.
    let one = match images.container(&one.id, runtime) {
        Err(error) if error.is_missing() => return Ok(()),
        found => found?,
    };
    if !is_left(&one, &place) {
        return Ok(());
    }
    let was_temporary = place.is_temporary();
    clear(images, &place, runtime)?;
    place.unmark_temporary().map_err(io("the mark of a mount"))?;
    let has_run = one.run.is_some() || !was_temporary;
    if let Some(run) = one.run.filter(|run| run.state == RunState::Running) {
        let error = Some("the process that held it was killed".to_owned());
        let (finished, exit_code) = (Some(now()), Some(KILLED));
        let run = Run { state: RunState::Exited, finished, exit_code, error, ..run };
        images.note_run(&one.id, &run)?;
    }
    // A copy that was killed says nothing about the program.
    if has_run && one.program.is_some_and(|program| program.remove) {
        images.remove_container(&one.id)?;
    }
    Ok(())
}

/// The reason why a runtime did not begin a program, and the exit code for it: 127 for a program
/// that is missing, 126 for one that cannot be executed, 125 for all else.
pub fn judge(said: &str) -> u8 {
    let has = |words: &str| said.contains(words);
    let is_of_exec = has(EXEC) || said.starts_with("exec: ");
    if has("not found in $PATH") || (is_of_exec && has("No such file or directory")) {
        127
    } else if is_of_exec || has("open executable") {
        126
    } else {
        125
    }
}

/// Removes the file of a socket that an earlier process left.
///
/// # Errors
/// As unlink(2).
pub fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_why_a_program_did_not_begin() {
        for (said, code) in [
            ("executable file `x` not found in $PATH: No such file or directory", 127),
            (
                "exec container process (missing dynamic library?) `/x`: No such file or directory",
                127,
            ),
            ("exec container process `/bad`: Exec format error", 126),
            ("exec: No such file or directory", 127),
            ("exec: Exec format error", 126),
            ("open executable: Permission denied", 126),
            ("open executable: Operation not permitted", 126),
            ("mount `/a` to `/b`: No such file or directory", 125),
        ] {
            assert_eq!(judge(said), code, "{said}");
        }
    }
}
