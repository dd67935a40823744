//! Grafts: opens their sources, finds or makes their places in the mount, and fills volumes.
//!
//! A place is found as a process inside the mount would find it: links are followed within the
//! mount. A missing place is made in the upper, as container engines do.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::binds::{self, Bind};
use super::failure::ServiceResult;
use super::made::Made;
use super::spec::{GraftDriver, MountSpec};
use super::status::GraftStatus;
use super::subpath::Part;
use super::volumes::{VolumeService, fill_in_place};
use super::{Failure, Refusal, layers, prefill};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::catalog::volumes::OpenVolume;
use crate::error::{Errno, Error, Result};
use crate::sys;
use crate::sys::file::OFlags;
use crate::types::{Graft, GraftSource, Kind, Name, NodeId, Subpath, VolumeName, name};
use crate::union::{Caller, Entry, GraftRoot, GraftTree, Union};

/// Limit of symbolic links on the way to a place (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// Open grafts, and the resources that must live as long as they do.
#[derive(Default)]
pub(super) struct OpenGrafts {
    pub(super) grafts: Vec<GraftTree>,
    pub(super) binds: Vec<Bind>,
    pub(super) status: Vec<GraftStatus>,
    pub(super) volumes: Vec<OpenVolume>,
    pub(super) made: Option<Made>,
}

/// The source of a graft, for the union, and as the descriptor (`O_PATH`) from which a bind mount
/// is made.
struct Source {
    root: GraftRoot,
    object: OwnedFd,
    volume: Option<OpenVolume>,
}

/// Opens all grafts of a mount. `build` makes a union with the given grafts: each place is looked
/// up in the mount without its graft. If one graft fails, everything that was made is removed.
pub(super) fn open(
    spec: &MountSpec,
    cache: &Arc<FdCache>,
    build: &dyn Fn(&[GraftTree]) -> Result<Union>,
) -> ServiceResult<OpenGrafts> {
    // Check all sources before anything is made.
    for graft in &spec.grafts {
        is_directory(graft)?;
    }
    let mut made = Made::new(&spec.root);
    match open_all(spec, cache, build, &mut made) {
        Ok(open) => Ok(OpenGrafts { made: Some(made), ..open }),
        Err(failure) => {
            made.undo(build);
            Err(failure)
        }
    }
}

fn open_all(
    spec: &MountSpec,
    cache: &Arc<FdCache>,
    build: &dyn Fn(&[GraftTree]) -> Result<Union>,
    made: &mut Made,
) -> ServiceResult<OpenGrafts> {
    let mut order: Vec<&Graft> = spec.grafts.iter().collect();
    order.sort_by_key(|graft| graft.path.len());
    let mut open = OpenGrafts::default();
    for graft in order {
        let broken = |error| Failure::Graft { path: graft.shown_path(), error };
        let union = build(&open.grafts).map_err(Failure::system("the union"))?;
        let (path, Source { root, object, volume }) = match &graft.source {
            GraftSource::Volume { subpath: Some(subpath), .. } => {
                part(spec, graft, subpath, (&union, cache), made)?
            }
            _ => whole(spec, graft, (&union, cache), made)?,
        };
        let bind = binds::prepare(spec, graft, object.as_fd(), &path)?;
        let stat = sys::file::statx(object.as_fd(), b"").map_err(broken)?;
        let driver = if bind.is_some() { GraftDriver::Bind } else { GraftDriver::Served };
        open.status.push(GraftStatus {
            path: graft.shown_path(),
            driver: driver.name().to_owned(),
            device: stat.dev,
            inode: stat.ino,
            recursive: graft.recursive,
            flags: sys::bind::flags_of(object.as_fd()).map_err(broken)?.or(graft.flags),
        });
        let (label, read_only) = (graft.source.label(), graft.flags.read_only);
        open.grafts.push(GraftTree { root, path, read_only, label });
        open.binds.extend(bind);
        open.volumes.extend(volume);
    }
    Ok(open)
}

/// Finds the place of a graft, and opens all of its source.
fn whole(
    spec: &MountSpec,
    graft: &Graft,
    (union, cache): (&Union, &Arc<FdCache>),
    made: &mut Made,
) -> ServiceResult<(Vec<Name>, Source)> {
    let path = place(union, graft, is_directory(graft)?, made)?;
    if let GraftSource::Volume { name, .. } = &graft.source {
        made.volume(name).map_err(|error| refused(name, error))?;
    }
    let source = source(spec, graft, cache, &|data: &Path| fill(union, &path, data, cache))?;
    Ok((path, source))
}

/// Opens a directory or file of a volume, and finds the place for it. An empty directory is filled
/// where it is, if nobody uses the volume.
fn part(
    spec: &MountSpec,
    graft: &Graft,
    subpath: &Subpath,
    (union, cache): (&Union, &Arc<FdCache>),
    made: &mut Made,
) -> ServiceResult<(Vec<Name>, Source)> {
    let GraftSource::Volume { name, nocopy, .. } = &graft.source else {
        return Err(Failure::Graft { path: graft.shown_path(), error: Errno::INVAL.into() });
    };
    let broken = |error| {
        let (volume, subpath) = (name.to_string(), subpath.to_string());
        Unfilled::Other(Failure::Subpath { volume, subpath, error })
    };
    let prepare = |data: &Path, is_idle: bool| -> std::result::Result<_, Unfilled> {
        let part = Part::find(data, subpath, cache).map_err(broken)?;
        let path = place(union, graft, part.is_dir(), made).map_err(Unfilled::Other)?;
        if let GraftRoot::Dir(to) = &part.root
            && is_idle
            && !nocopy
        {
            fill_in_place(part.object.as_fd(), || {
                let from = find(union, &path).map_err(Unfilled::Union)?.node;
                prefill::fill(union, from, to).map_err(Unfilled::Union)
            })?;
        }
        Ok((path, part))
    };
    let service = VolumeService::open(&spec.root).map_err(|error| refused(name, error))?;
    let (volume, (path, part)) =
        service.open_prepared(name, prepare).map_err(|error| error.of_volume(name))?;
    let Part { object, root } = part;
    Ok((path, Source { root, object, volume: Some(volume) }))
}

/// Whether a graft is a directory. A part of a volume is found later.
fn is_directory(graft: &Graft) -> ServiceResult<bool> {
    match &graft.source {
        GraftSource::Bind(path) => {
            layers::is_directory(path).map_err(Failure::path("bind source", path))
        }
        GraftSource::Tmpfs { .. } | GraftSource::Volume { .. } => Ok(true),
    }
}

fn refused(name: &VolumeName, error: Refusal) -> Failure {
    Failure::Volume { name: name.to_string(), error: Box::new(error) }
}

/// The reason why a volume, or a part of it, could not be opened or filled.
enum Unfilled {
    Volume(Refusal),
    Union(Error),
    Other(Failure),
}

impl Unfilled {
    fn of_volume(self, name: &VolumeName) -> Failure {
        match self {
            Self::Volume(error) if error.is_missing() => {
                Failure::NoVolume { name: name.to_string() }
            }
            Self::Volume(error) => refused(name, error),
            Self::Union(error) => Failure::Fill { name: name.to_string(), error },
            Self::Other(failure) => failure,
        }
    }
}

impl From<Refusal> for Unfilled {
    fn from(error: Refusal) -> Self {
        Self::Volume(error)
    }
}

fn source(
    spec: &MountSpec,
    graft: &Graft,
    cache: &Arc<FdCache>,
    fill: &dyn Fn(&Path) -> Result<()>,
) -> ServiceResult<Source> {
    let broken = |error| Failure::Graft { path: graft.shown_path(), error };
    match &graft.source {
        GraftSource::Bind(path) => {
            let wrap = |error| Failure::path("bind source", path)(error);
            let object = sys::file::open_path(path, OFlags::PATH).map_err(wrap)?;
            let root = bind(path, graft.recursive, cache).map_err(wrap)?;
            Ok(Source { root, object, volume: None })
        }
        GraftSource::Tmpfs { size, mode } => {
            let mount = sys::mount::tmpfs(size.as_deref(), *mode).map_err(broken)?;
            let object = sys::file::duplicate(mount.as_fd()).map_err(broken)?;
            let root = GraftRoot::Dir(HostTree::from_fd(mount, cache).map_err(broken)?);
            Ok(Source { root, object, volume: None })
        }
        GraftSource::Volume { name, nocopy, .. } => {
            let fill = |data: &Path| match nocopy {
                true => Ok(()),
                false => fill(data).map_err(Unfilled::Union),
            };
            let service = VolumeService::open(&spec.root).map_err(|error| refused(name, error))?;
            let volume = service.open_filled(name, fill).map_err(|error| error.of_volume(name))?;
            let data = volume.data().to_owned();
            let wrap = |error| Failure::path("volume", &data)(error);
            let object = sys::file::find_directory(&data).map_err(wrap)?;
            let root = HostTree::open(&data, Submounts::Shown, cache).map_err(wrap)?;
            Ok(Source { root: GraftRoot::Dir(root), object, volume: Some(volume) })
        }
    }
}

fn bind(path: &Path, recursive: bool, cache: &Arc<FdCache>) -> Result<GraftRoot> {
    if layers::is_directory(path)? {
        let submounts = if recursive { Submounts::Shown } else { Submounts::Hidden };
        return Ok(GraftRoot::Dir(HostTree::open(path, submounts, cache)?));
    }
    let absolute = layers::resolved(path)?;
    let (Some(parent), Some(entry)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::os("open", Errno::INVAL));
    };
    let dir = HostTree::open(parent, Submounts::Shown, cache)?;
    Ok(GraftRoot::Entry { dir, name: name(entry.as_encoded_bytes()) })
}

/// Finds the place of a graft, and makes a missing one. Returns its path without links.
fn place(union: &Union, graft: &Graft, is_dir: bool, made: &mut Made) -> ServiceResult<Vec<Name>> {
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
            Step::Missing => {
                walk.make(&component, wants_dir).map_err(broken)?;
                made.place(walk.path.iter().skip(1).map(|(_, name)| name.clone()).collect());
            }
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

/// A walk through the mount; the last element of `path` is the current object.
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

fn fill(union: &Union, path: &[Name], data: &Path, cache: &Arc<FdCache>) -> Result<()> {
    let from = find(union, path)?.node;
    let to = HostTree::open(data, Submounts::Shown, cache)?;
    prefill::fill(union, from, &to)
}

/// Whether grafts can be bind mounts on this host, for the doctor.
pub(super) fn can_bind() -> bool {
    let root = sys::file::find_directory(Path::new("/"));
    root.and_then(|root| sys::bind::clone_tree(root.as_fd(), true)).is_ok()
}

/// Whether tmpfs can be made on this host, for the doctor.
pub(super) fn has_tmpfs() -> bool {
    sys::mount::tmpfs(None, None).is_ok_and(|mount| mount.as_fd().try_clone_to_owned().is_ok())
}
