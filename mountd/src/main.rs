//! The program `lamina`: union mounts, volumes, and the helper of mount(8), in one binary.
//!
//! The name of the program and the first words of the command line select the operation:
//!
//! | called as | with | is |
//! | --- | --- | --- |
//! | `mount.lamina`, `mount.fuse.lamina` | `SOURCE TARGET [-o ...]` | the helper of mount(8) |
//! | `umount.fuse.lamina` | `TARGET` | the helper of umount(8), which waits for the daemon |
//! | any other name | a command of `lamina --help` | that command |
//! | any other name | `-o LIST TARGET` or `SOURCE TARGET -o LIST` | the `mount_program` of podman |
//! | any other name | any other word | a mistyped command |
//!
//! [`report`] lists the exit codes.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")
)]

mod args;
mod cli;
mod commands;
mod container;
mod csi;
mod form;
mod kube;
mod log;
mod options;
mod report;
mod run;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use report::CliError;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    log::start(run::runtime_dir());
    run::close_umask();
    laminafs::service::process::raise_open_files();
    if let Ok(program) = std::env::current_exe() {
        laminafs::service::volumes::serve_by(program);
    }
    if run::requires_holder() {
        laminafs::service::volumes::require_holder();
    }
    match dispatch(words) {
        Ok(code) => code,
        Err(error) => {
            run::await_end();
            error.report()
        }
    }
}

fn dispatch(words: Vec<OsString>) -> Result<ExitCode, CliError> {
    match form::form(&words) {
        form::Form::Command => {
            report::follow(&words);
            cli::run(words)
        }
        form::Form::MountHelper => commands::helper::mount(words.get(1..).unwrap_or_default()),
        form::Form::UmountHelper => commands::helper::umount(words.get(1..).unwrap_or_default()),
        form::Form::MountProgram => commands::program::run(words.get(1..).unwrap_or_default()),
    }
}
