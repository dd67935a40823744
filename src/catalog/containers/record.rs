//! The record of a container on disk, version 1, and its conversion.
//!
//! The fields and their order are the format. [`Mount`](GraftSource::Mount) and
//! [`Part`](GraftSource::Part) came later than the others, at the end, so that the records of
//! before them stay readable.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};

use super::{Container, Image};
use crate::types::{self, BindFlags, ContainerName, Name, Subpath, VolumeName};

/// A container as its record holds it.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    id: String,
    name: ContainerName,
    image_name: String,
    image: Image,
    created: i64,
    grafts: Vec<Graft>,
}

#[derive(Serialize, Deserialize)]
struct Graft {
    source: GraftSource,
    path: Vec<Vec<u8>>,
    read_only: bool,
}

#[derive(Serialize, Deserialize)]
enum GraftSource {
    Bind(Vec<u8>),
    Volume {
        name: VolumeName,
        nocopy: bool,
    },
    Tmpfs {
        size: Option<String>,
        mode: Option<u32>,
    },
    /// One of the others whose mount differs in more than `read_only`.
    Mount {
        source: Box<GraftSource>,
        recursive: bool,
        nosuid: bool,
        nodev: bool,
        noexec: bool,
    },
    /// A directory or file of a volume.
    Part {
        name: VolumeName,
        nocopy: bool,
        subpath: Subpath,
    },
}

impl From<&Container> for Record {
    fn from(container: &Container) -> Self {
        Self {
            id: container.id.clone(),
            name: container.name.clone(),
            image_name: container.image_name.clone(),
            image: container.image.clone(),
            created: container.created,
            grafts: container.grafts.iter().map(Graft::from).collect(),
        }
    }
}

impl From<Record> for Container {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            name: record.name,
            image_name: record.image_name,
            image: record.image,
            created: record.created,
            grafts: record.grafts.into_iter().map(types::Graft::from).collect(),
        }
    }
}

impl From<&types::Graft> for Graft {
    fn from(graft: &types::Graft) -> Self {
        let source = match graft.source.clone() {
            types::GraftSource::Bind(path) => GraftSource::Bind(path.into_os_string().into_vec()),
            types::GraftSource::Volume { name, nocopy, subpath } => match subpath {
                None => GraftSource::Volume { name, nocopy },
                Some(subpath) => GraftSource::Part { name, nocopy, subpath },
            },
            types::GraftSource::Tmpfs { size, mode } => GraftSource::Tmpfs { size, mode },
        };
        let BindFlags { read_only, nosuid, nodev, noexec } = graft.flags;
        let recursive = graft.recursive;
        let is_usual = recursive == is_recursive(&source) && !(nosuid || nodev || noexec);
        let source = match is_usual {
            true => source,
            false => {
                GraftSource::Mount { source: Box::new(source), recursive, nosuid, nodev, noexec }
            }
        };
        let path = graft.path.iter().map(|part| part.to_vec()).collect();
        Self { source, path, read_only }
    }
}

impl From<Graft> for types::Graft {
    fn from(graft: Graft) -> Self {
        let flags = BindFlags { read_only: graft.read_only, ..BindFlags::default() };
        let recursive = is_recursive(&graft.source);
        let (source, flags, recursive) = parts(graft.source, flags, recursive);
        let path = graft.path.iter().map(|part| Name::from_slice(part)).collect();
        Self { source, path, flags, recursive }
    }
}

fn parts(
    source: GraftSource,
    flags: BindFlags,
    recursive: bool,
) -> (types::GraftSource, BindFlags, bool) {
    let source = match source {
        GraftSource::Bind(path) => types::GraftSource::Bind(OsString::from_vec(path).into()),
        GraftSource::Volume { name, nocopy } => {
            types::GraftSource::Volume { name, nocopy, subpath: None }
        }
        GraftSource::Part { name, nocopy, subpath } => {
            types::GraftSource::Volume { name, nocopy, subpath: Some(subpath) }
        }
        GraftSource::Tmpfs { size, mode } => types::GraftSource::Tmpfs { size, mode },
        GraftSource::Mount { source, recursive, nosuid, nodev, noexec } => {
            return parts(*source, BindFlags { nosuid, nodev, noexec, ..flags }, recursive);
        }
    };
    (source, flags, recursive)
}

/// Whether mounts beneath a source are shown where its record does not mention it.
const fn is_recursive(source: &GraftSource) -> bool {
    !matches!(source, GraftSource::Bind(_))
}
