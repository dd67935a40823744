//! Grafts: their sources are opened, their places in the mount found or made, volumes filled.
//!
//! A place is found as a process inside the mount would find it: links are followed within the
//! mount. What is missing is made in the upper, as container engines do.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::failure::Outcome;
use super::spec::{GraftSource, GraftSpec, MountSpec};
use super::{Failure, layers, prefill};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::types::{Kind, Name, NodeId, name};
use crate::union::{Caller, Entry, Graft, GraftRoot, Union};
use crate::volume::{OpenVolume, VolumeError, Volumes};

/// How many links the way to a place may have (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// Grafts that are ready, and what must live as long as they do.
#[derive(Default)]
pub(super) struct OpenGrafts {
    pub(super) grafts: Vec<Graft>,
    pub(super) volumes: Vec<OpenVolume>,
}

struct Source {
    root: GraftRoot,
    is_dir: bool,
    volume: Option<OpenVolume>,
    fill: bool,
}

/// Opens all grafts of a mount. `build` makes the union with the grafts that it is given: each
/// place is looked for in the mount as it is without it.
pub(super) fn open(
    spec: &MountSpec,
    cache: &Arc<FdCache>,
    build: &dyn Fn(&[Graft]) -> Result<Union>,
) -> Outcome<OpenGrafts> {
    let mut order: Vec<&GraftSpec> = spec.grafts.iter().collect();
    order.sort_by_key(|graft| graft.path.len());
    let mut open = OpenGrafts::default();
    for graft in order {
        let broken = |error| Failure::Graft { path: graft.shown_path(), error };
        let source = source(spec, graft, cache)?;
        let union = build(&open.grafts).map_err(Failure::system("the union"))?;
        let path = place(&union, graft, source.is_dir)?;
        if source.fill
            && let Some(volume) = &source.volume
        {
            fill(&union, &path, volume, cache)
                .map_err(|reason| Failure::Volume { name: graft.source.label(), reason })?;
        }
        let root = match &source.volume {
            // Its directory is a new one after it was filled.
            Some(volume) => GraftRoot::Dir(
                HostTree::open(&volume.data(), Submounts::Shown, cache).map_err(broken)?,
            ),
            None => source.root,
        };
        let (label, read_only) = (graft.source.label(), graft.read_only);
        open.grafts.push(Graft { root, path, read_only, label });
        open.volumes.extend(source.volume);
    }
    Ok(open)
}

fn source(spec: &MountSpec, graft: &GraftSpec, cache: &Arc<FdCache>) -> Outcome<Source> {
    let plain = |root, is_dir| Source { root, is_dir, volume: None, fill: false };
    match &graft.source {
        GraftSource::Bind(path) => {
            let wrap = |error| Failure::path("bind source", path)(error);
            let (root, is_dir) = bind(path, cache).map_err(wrap)?;
            Ok(plain(root, is_dir))
        }
        GraftSource::Tmpfs { size, mode } => {
            let tree = sys::mount::tmpfs(size.as_deref(), *mode)
                .and_then(|mount| HostTree::from_fd(mount, cache));
            let wrap = |error| Failure::Graft { path: graft.shown_path(), error };
            Ok(plain(GraftRoot::Dir(tree.map_err(wrap)?), true))
        }
        GraftSource::Volume { name, nocopy } => {
            let wrap = |error: VolumeError| Failure::Volume {
                name: name.clone(),
                reason: error.to_string(),
            };
            let volumes = Volumes::new(&spec.root);
            volumes.create(name, BTreeMap::new()).map_err(wrap)?;
            let volume = volumes.open(name).map_err(wrap)?;
            let fill = !nocopy && volume.is_empty().map_err(wrap)?;
            let root = HostTree::open(&volume.data(), Submounts::Shown, cache)
                .map_err(Failure::path("volume", &volume.data()))?;
            Ok(Source { root: GraftRoot::Dir(root), is_dir: true, volume: Some(volume), fill })
        }
    }
}

fn bind(path: &Path, cache: &Arc<FdCache>) -> Result<(GraftRoot, bool)> {
    if layers::is_directory(path)? {
        return Ok((GraftRoot::Dir(HostTree::open(path, Submounts::Shown, cache)?), true));
    }
    let absolute = layers::resolved(path)?;
    let (Some(parent), Some(entry)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::os("open", Errno::INVAL));
    };
    let dir = HostTree::open(parent, Submounts::Shown, cache)?;
    Ok((GraftRoot::Entry { dir, name: name(entry.as_encoded_bytes()) }, false))
}

/// Finds the place of a graft, made where it is missing; answers its path without links.
fn place(union: &Union, graft: &GraftSpec, is_dir: bool) -> Outcome<Vec<Name>> {
    let shown = graft.shown_path();
    let broken = |error| Failure::Graft { path: shown.clone(), error };
    let mut walk = Walk { union, path: vec![(NodeId::ROOT, Name::new())], links: 0 };
    let mut rest: Vec<Name> = graft.path.iter().rev().cloned().collect();
    while let Some(component) = rest.pop() {
        let wants_dir = !rest.is_empty() || is_dir;
        let step = walk.step(&component, &mut rest).map_err(broken)?;
        match step {
            Step::Done => {}
            Step::Missing if union.is_read_only() => {
                return Err(Failure::NoPlace { path: shown, what: graft.source.label() });
            }
            Step::Missing => walk.make(&component, wants_dir).map_err(broken)?,
        }
    }
    let path: Vec<Name> = walk.path.into_iter().skip(1).map(|(_, name)| name).collect();
    let node = find(union, &path).map_err(broken)?;
    if (node.stat.kind() == Kind::Dir) != is_dir {
        let errno = if is_dir { Errno::NOTDIR } else { Errno::ISDIR };
        return Err(broken(Error::os("graft", errno)));
    }
    if path.is_empty() { Err(broken(Error::os("graft", Errno::BUSY))) } else { Ok(path) }
}

enum Step {
    Done,
    Missing,
}

/// A walk through the mount; the last element of `path` is where it stands.
struct Walk<'a> {
    union: &'a Union,
    path: Vec<(NodeId, Name)>,
    links: u32,
}

impl Walk<'_> {
    fn here(&self) -> NodeId {
        self.path.last().map_or(NodeId::ROOT, |(node, _)| *node)
    }

    fn step(&mut self, component: &Name, rest: &mut Vec<Name>) -> Result<Step> {
        match &component[..] {
            b"" | b"." => return Ok(Step::Done),
            b".." => {
                if self.path.len() > 1 {
                    self.path.pop();
                }
                return Ok(Step::Done);
            }
            _ => {}
        }
        let Some(entry) = self.union.lookup(self.here(), component)? else {
            return Ok(Step::Missing);
        };
        if entry.stat.kind() != Kind::Symlink {
            self.path.push((entry.node, component.clone()));
            return Ok(Step::Done);
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = self.union.readlink(entry.node)?;
        if target.starts_with(b"/") {
            self.path.truncate(1);
        }
        rest.extend(target.split(|byte| *byte == b'/').rev().map(name));
        Ok(Step::Done)
    }

    fn make(&mut self, component: &Name, dir: bool) -> Result<()> {
        let caller = Caller::default();
        let entry = if dir {
            self.union.mkdir(&caller, self.here(), component, 0o755)?
        } else {
            let mode = Kind::File.mode_bits() | 0o644;
            self.union.mknod(&caller, self.here(), component, mode, 0)?
        };
        self.path.push((entry.node, component.clone()));
        Ok(())
    }
}

fn find(union: &Union, path: &[Name]) -> Result<Entry> {
    let mut entry = Entry { node: NodeId::ROOT, stat: union.getattr(NodeId::ROOT)? };
    for component in path {
        entry = union.lookup(entry.node, component)?.ok_or(Errno::NOENT)?;
    }
    Ok(entry)
}

fn fill(
    union: &Union,
    path: &[Name],
    volume: &OpenVolume,
    cache: &Arc<FdCache>,
) -> std::result::Result<(), String> {
    let text = |error: Error| error.to_string();
    let from = find(union, path).map_err(text)?.node;
    let filling = volume.start_filling().map_err(|error| error.to_string())?;
    let to = HostTree::open(&filling, Submounts::Shown, cache).map_err(text)?;
    prefill::fill(union, from, &to).map_err(text)?;
    volume.publish(&filling).map_err(|error| error.to_string())
}

/// States whether tmpfs can be made here, for the doctor.
pub(super) fn has_tmpfs() -> bool {
    sys::mount::tmpfs(None, None).is_ok_and(|mount| mount.as_fd().try_clone_to_owned().is_ok())
}
