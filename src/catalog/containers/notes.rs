//! Small JSON files in the directory of a container: its limits, its program, its last run.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CatalogError, Result};
use crate::error::FromHost;
use crate::store::files::write_whole;
use crate::types::{Limits, Program, Run};

const LIMITS: &str = "limits.json";
const PROGRAM: &str = "program.json";
const RUN: &str = "run.json";

fn write(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = dir.join(name);
    let damaged = |error: serde_json::Error| CatalogError::Damaged {
        path: path.clone(),
        what: error.to_string(),
    };
    Ok(write_whole(&path, &serde_json::to_vec(value).map_err(damaged)?)?)
}

fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>> {
    let path = dir.join(name);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CatalogError::io(&path)(error)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| CatalogError::Damaged { path: path.clone(), what: error.to_string() }),
    }
}

/// Notes the limits of what is written to the container in a directory.
///
/// # Errors
/// As write(2).
pub fn write_limits(dir: &Path, limits: Limits) -> Result<()> {
    write(dir, LIMITS, &limits)
}

/// The limits in the directory of a container.
///
/// # Errors
/// [`CatalogError::Damaged`].
pub fn read_limits(dir: &Path) -> Result<Limits> {
    Ok(read(dir, LIMITS)?.unwrap_or_default())
}

/// Notes the program in the directory of a container.
///
/// # Errors
/// As write(2).
pub fn write_program(dir: &Path, program: &Program) -> Result<()> {
    write(dir, PROGRAM, program)
}

/// The program in the directory of a container, if it has one.
///
/// # Errors
/// [`CatalogError::Damaged`].
pub fn read_program(dir: &Path) -> Result<Option<Program>> {
    read(dir, PROGRAM)
}

/// Notes the last run in the directory of a container.
///
/// # Errors
/// As write(2).
pub fn write_run(dir: &Path, run: &Run) -> Result<()> {
    write(dir, RUN, run)
}

/// The last run in the directory of a container, if it ever ran.
///
/// # Errors
/// [`CatalogError::Damaged`].
pub fn read_run(dir: &Path) -> Result<Option<Run>> {
    read(dir, RUN)
}
