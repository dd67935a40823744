//! The differences between an upper or an image and its base, as `podman diff` lists them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Failure;
use super::changes::{Changed, Changes, Done, UpperSpec, at, check_depth, shown};
use super::failure::ServiceResult;
use super::images::Images;
use super::mount::View;
use super::prefill::names;
use super::spec::MountSpec;
use super::volumes::VolumeService;
use crate::types::{Kind, Name, NodeId};
use crate::union::{Entry, Union};

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Change {
    /// Added.
    A,
    /// Changed: content, attributes, or an entry of the directory.
    C,
    /// Deleted.
    D,
}

/// The differences by path.
pub type Differences = BTreeMap<String, Change>;

/// The changes in an upper.
///
/// # Errors
/// [`Failure`], as for a commit.
pub fn of_upper(of: &UpperSpec) -> ServiceResult<Differences> {
    let changed = Changed::open(of)?;
    let mut found = Found { changed: &changed, found: Differences::new() };
    changed.walk(&mut found)?;
    let found = found.found;
    changed.end()?;
    Ok(found)
}

/// The changes in a container, also while it is mounted, as
/// [`commit_container`](super::commit::commit_container) takes them.
///
/// # Errors
/// [`Failure`], as for a commit.
pub fn of_container(
    (images, volumes): (&Images, &VolumeService),
    of: &UpperSpec,
) -> ServiceResult<Differences> {
    let Some(name) = &of.container else { return of_upper(of) };
    match images.freeze_root(volumes, name, of.runtime.as_deref())? {
        Some(frozen) => of_upper(&frozen.spec),
        None => of_upper(of),
    }
}

/// The differences between two lists of layers, the lowest first.
///
/// # Errors
/// [`Failure`] for a layer that cannot be opened or read.
pub fn of_images(spec: &MountSpec, new: &[String], old: &[String]) -> ServiceResult<Differences> {
    let open = |layers: &[String]| -> ServiceResult<Option<View>> {
        let spec = MountSpec { layers: layers.to_vec(), ..spec.clone() };
        if layers.is_empty() { Ok(None) } else { View::open(&spec).map(Some) }
    };
    let (new, old) = (open(new)?, open(old)?);
    let mut found = Differences::new();
    let unions = (new.as_ref().map(|view| &view.union), old.as_ref().map(|view| &view.union));
    let roots = (Some(NodeId::ROOT), Some(NodeId::ROOT));
    compare(unions, roots, &mut Vec::new(), &mut found).map_err(|error| Failure::Layer {
        path: spec.root.clone(),
        error: Box::new(error.into()),
    })?;
    Ok(found)
}

type Two<T> = (Option<T>, Option<T>);

fn compare(
    unions: Two<&Union>,
    dirs: Two<NodeId>,
    path: &mut Vec<Name>,
    found: &mut Differences,
) -> Done {
    check_depth(path)?;
    let at = at(path);
    let list = |union: Option<&Union>, dir: Option<NodeId>| match (union, dir) {
        (Some(union), Some(dir)) => names(union, dir),
        _ => Ok(Vec::new()),
    };
    let look = |union: Option<&Union>, dir: Option<NodeId>, name: &Name| match (union, dir) {
        (Some(union), Some(dir)) => union.lookup(dir, name),
        _ => Ok(None),
    };
    let mut all = list(unions.0, dirs.0).map_err(&at)?;
    all.extend(list(unions.1, dirs.1).map_err(&at)?);
    all.sort();
    all.dedup();
    for name in all {
        let now = look(unions.0, dirs.0, &name).map_err(&at)?;
        let before = look(unions.1, dirs.1, &name).map_err(&at)?;
        path.push(name);
        note(path, now.as_ref(), before.as_ref(), found);
        let dir = |entry: &Option<Entry>| {
            entry.as_ref().filter(|entry| entry.stat.kind() == Kind::Dir).map(|entry| entry.node)
        };
        // A removed directory is listed once, without its content.
        if let Some(now) = dir(&now) {
            compare(unions, (Some(now), dir(&before)), path, found)?;
        }
        path.pop();
    }
    Ok(())
}

fn note(path: &[Name], now: Option<&Entry>, before: Option<&Entry>, found: &mut Differences) {
    let change = match (now, before) {
        (Some(_), None) => Change::A,
        (None, Some(_)) => Change::D,
        (Some(now), Some(before)) if differ(now, before) => Change::C,
        _ => return,
    };
    parents(path, found);
    found.insert(shown(path), change);
}

/// Marks the parent directories of a change as changed.
fn parents(path: &[Name], found: &mut Differences) {
    for len in 1..path.len() {
        found.entry(shown(path.get(..len).unwrap_or_default())).or_insert(Change::C);
    }
}

// Compares attributes: equal sizes and times (to the nanosecond) count as equal contents.
fn differ(now: &Entry, before: &Entry) -> bool {
    let (now, before) = (&now.stat, &before.stat);
    let words = |stat: &crate::types::Stat| (stat.mode, stat.uid, stat.gid, stat.rdev);
    let own = |stat: &crate::types::Stat| (stat.size, stat.mtime);
    words(now) != words(before)
        || (now.kind() != Kind::Dir && own(now) != own(before))
        || (now.kind() == Kind::Dir && now.mtime != before.mtime)
}

struct Found<'a> {
    changed: &'a Changed,
    found: Differences,
}

impl Changes for Found<'_> {
    fn put(&mut self, path: &[Name], now: &Entry, before: Option<&Entry>) -> Done {
        match before {
            // The upper also has directories that only hold changed entries.
            Some(before) if now.stat.kind() == Kind::Dir && !differ(now, before) => {}
            Some(_) => {
                parents(path, &mut self.found);
                self.found.insert(shown(path), Change::C);
            }
            None => {
                parents(path, &mut self.found);
                self.found.insert(shown(path), Change::A);
            }
        }
        Ok(())
    }

    fn removed(&mut self, path: &[Name]) -> Done {
        parents(path, &mut self.found);
        self.found.insert(shown(path), Change::D);
        Ok(())
    }

    // Reports the names of the old directory that the new one does not have.
    fn replaced(&mut self, path: &[Name], now: NodeId, before: NodeId) -> Done {
        let Some(below) = &self.changed.below else { return Ok(()) };
        let at = at(path);
        for name in names(&below.union, before).map_err(&at)? {
            if self.changed.over.union.lookup(now, &name).map_err(&at)?.is_none() {
                self.removed(&[path, &[name]].concat())?;
            }
        }
        Ok(())
    }
}
