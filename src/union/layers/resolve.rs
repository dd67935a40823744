//! Resolves a name of the mount to an object of a layer.
//!
//! The rules are those of `fs/overlayfs/namei.c`, extended by the AUFS forms: the topmost layer
//! that has the name decides; directories merge downwards until a layer hides the ones below by an
//! opaque directory, a whiteout, or any object that is not a directory. A redirect sends the search
//! in the layers below to another place. Lookup and listing use the same functions, so that neither
//! shows what the other hides.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Errno, Error, Result};
use crate::types::{Kind, Name, NodeId, Stat, name};
use crate::union::body::{LayerDir, Place, Stack, UPPER};
use crate::union::config::GraftRoot;
use crate::union::layer::DirRef;
use crate::union::layers::Layers;
use crate::union::layers::found::Found;
use crate::union::mark::{self, Mark, Marked};
use crate::union::probe::{is_aufs_whiteout, is_plain};

/// The meaning of a name in one layer.
enum Seen {
    Nothing,
    Whiteout,
    Object(Stat, Marked),
}

/// An object of one layer, with the layers in which the search goes on.
struct Part<'a> {
    place: Place,
    stat: Stat,
    marked: Marked,
    below: &'a [LayerDir],
}

/// How a directory continues in the layers below.
enum Next<'a> {
    Part(Part<'a>),
    Found(Found),
}

impl Next<'_> {
    const fn is_dir(&self) -> bool {
        match self {
            Self::Part(part) => matches!(part.stat.kind(), Kind::Dir),
            Self::Found(found) => found.stack.is_some(),
        }
    }
}

/// How the search continues below a layer.
enum Below {
    Same,
    Stop,
    Relative(Name),
    Absolute(Vec<Name>),
}

impl Layers {
    /// Finds the object that `entry` of a directory means; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the backing; corrupt marks.
    pub(in crate::union) fn resolve(&self, stack: &Stack, entry: &[u8]) -> Result<Option<Found>> {
        self.resolve_from(stack, entry, stack.stat_upper(entry)?)
    }

    /// [`Layers::resolve`] with the attributes of `entry` in the writable part, as
    /// [`Stack::stat_upper`] returns them.
    ///
    /// # Errors
    /// Errors of the backing; corrupt marks.
    pub(in crate::union) fn resolve_from(
        &self,
        stack: &Stack,
        entry: &[u8],
        stat: Option<Stat>,
    ) -> Result<Option<Found>> {
        let Some(upper) = &stack.upper else {
            return self.resolve_lower(&stack.lowers, entry);
        };
        if let Some(graft) = stack.graft {
            return Ok(stat.map(|stat| self.found_in_graft(graft, upper, entry, stat)));
        }
        match self.see_upper(stack, upper, entry, stat)? {
            Seen::Whiteout => Ok(None),
            Seen::Nothing => self.resolve_lower(&stack.lowers, entry),
            Seen::Object(stat, marked) => {
                let place = Place::new(UPPER, upper, entry);
                let stat = match marked.protattr {
                    true => self.with_kept_flags(&place, stat)?,
                    false => stat,
                };
                let replaces = stat.kind() == Kind::Dir
                    && stack.has_lower()
                    && !marked.redirect
                    && self.upper_hides(stack, entry)?;
                let below = if replaces { &[] } else { &stack.lowers[..] };
                self.complete(place, stat, marked, below).map(Some)
            }
        }
    }

    fn found_in_graft(&self, graft: u16, dir: &DirRef, entry: &[u8], stat: Stat) -> Found {
        let ino = self.show_ino(&stat);
        let stack = (stat.kind() == Kind::Dir).then(|| Stack {
            upper: Some(dir.dir_known(entry, &stat)),
            graft: Some(graft),
            ..Stack::default()
        });
        let place = Place::new(graft, dir, entry);
        Found::alone(stat, place, ino, stack)
    }

    /// Finds the graft at a name of a directory.
    ///
    /// # Errors
    /// As stat(2).
    pub(in crate::union) fn find_graft(
        &self,
        parent: NodeId,
        entry: &[u8],
    ) -> Result<Option<Found>> {
        let Some(number) = self.grafts.at(parent, entry) else { return Ok(None) };
        let Some(graft) = self.graft(number) else { return Ok(None) };
        let (place, stack) = match graft.root() {
            GraftRoot::Dir(dir) => {
                let upper = Some(Arc::clone(dir));
                let stack = Stack { upper, graft: Some(number), ..Stack::default() };
                (Place { layer: number, dir: Arc::clone(dir), name: Name::new() }, Some(stack))
            }
            GraftRoot::Entry { dir, name } => {
                (Place { layer: number, dir: Arc::clone(dir), name: name.clone() }, None)
            }
        };
        let stat = match &stack {
            Some(_) => place.dir.stat(None)?,
            None => place.stat()?,
        };
        let ino = self.show_ino(&stat);
        Ok(Some(Found::alone(stat, place, ino, stack)))
    }

    /// Finds the object that `entry` means in lower layers only.
    ///
    /// # Errors
    /// Errors of the backing; corrupt marks.
    pub(in crate::union) fn resolve_lower(
        &self,
        lowers: &[LayerDir],
        entry: &[u8],
    ) -> Result<Option<Found>> {
        let Some(part) = self.topmost(lowers, entry)? else { return Ok(None) };
        self.complete(part.place, part.stat, part.marked, part.below).map(Some)
    }

    /// Returns the object of the topmost layer that has a name.
    fn topmost<'a>(&self, lowers: &'a [LayerDir], entry: &[u8]) -> Result<Option<Part<'a>>> {
        let mut rest = lowers;
        while let Some((layer, below)) = rest.split_first() {
            match self.see_lower(layer, entry, !below.is_empty())? {
                Seen::Whiteout => return Ok(None),
                Seen::Nothing => rest = below,
                Seen::Object(stat, marked) => {
                    let place = Place::new(layer.layer, &layer.dir, entry);
                    // The name of a metacopy, or of a redirect, is not where the search goes on.
                    let merges = stat.kind() == Kind::Dir && !marked.redirect;
                    let replaces = merges && !below.is_empty() && layer.hides(entry)?;
                    let below = if replaces { &[] } else { below };
                    return Ok(Some(Part { place, stat, marked, below }));
                }
            }
        }
        Ok(None)
    }

    /// Finds a path, component by component, in the layers below `layer`.
    fn resolve_path(&self, layer: u16, path: &[Name]) -> Result<Option<Found>> {
        let mut lowers: SmallVec<[LayerDir; 1]> =
            self.roots.iter().filter(|root| root.layer > layer).cloned().collect();
        let Some((last, parents)) = path.split_last() else { return Ok(None) };
        for component in parents {
            match self.resolve_lower(&lowers, component)?.and_then(|found| found.stack) {
                Some(stack) => lowers = stack.lowers,
                None => return Ok(None),
            }
        }
        self.resolve_lower(&lowers, last)
    }

    fn see_upper(
        &self,
        stack: &Stack,
        dir: &DirRef,
        entry: &[u8],
        stat: Option<Stat>,
    ) -> Result<Seen> {
        let Some(stat) = stat else {
            let hidden = self.upper_hides(stack, entry)?;
            return Ok(if hidden { Seen::Whiteout } else { Seen::Nothing });
        };
        if stat.is_whiteout_device() {
            if self.is_shared_whiteout(UPPER, stat.ino) {
                return Ok(Seen::Whiteout);
            }
            let marked = self.marked(UPPER, &dir.xattr_names(Some(entry))?);
            return Ok(if marked.plain { Seen::Object(stat, marked) } else { Seen::Whiteout });
        }
        let marked = match stat.kind() {
            Kind::File | Kind::Dir => self.marked(UPPER, &dir.xattr_names(Some(entry))?),
            _ if self.marks_any_kind() => self.marked(UPPER, &dir.xattr_names(Some(entry))?),
            _ => Marked::default(),
        };
        if marked.whiteout
            && mark::may_be_xattr_whiteout(&stat)
            && self.may_hold_xattr_whiteouts(dir)?
        {
            return Ok(Seen::Whiteout);
        }
        if mark::is_aufs_name(entry) && stat.kind() == Kind::File && !marked.plain {
            return Ok(Seen::Nothing);
        }
        Ok(Seen::Object(stat, marked))
    }

    fn see_lower(&self, layer: &LayerDir, entry: &[u8], more: bool) -> Result<Seen> {
        let stat = match layer.dir.stat(Some(entry)) {
            Ok(stat) => stat,
            Err(error) if error.is(Errno::NOENT) => {
                let hidden = more && !mark::is_aufs_name(entry) && layer.hides(entry)?;
                return Ok(if hidden { Seen::Whiteout } else { Seen::Nothing });
            }
            // A name that is too long for this file system is not in this layer.
            Err(error) if error.is(Errno::NAMETOOLONG) => return Ok(Seen::Nothing),
            Err(error) => return Err(error),
        };
        // What moved from the upper keeps its number, which is in a mark.
        let moved = self.stores_numbers(layer.layer) && self.marks_any_kind();
        if stat.is_whiteout_device() {
            if !is_plain(&layer.dir, entry)? {
                return Ok(Seen::Whiteout);
            }
            let names = if moved { layer.dir.xattr_names(Some(entry))? } else { Vec::new() };
            return Ok(Seen::Object(stat, self.marked(layer.layer, &names)));
        }
        let empty = mark::may_be_xattr_whiteout(&stat);
        let aufs = mark::is_aufs_name(entry) && stat.kind() == Kind::File;
        // A redirect leads to another place in the layers below, merged here or not.
        let redirects =
            matches!(stat.kind(), Kind::Dir | Kind::File) && self.has_below(layer.layer);
        if !(more || empty || aufs || redirects || moved) {
            return Ok(Seen::Object(stat, Marked::default()));
        }
        let marked = match moved || matches!(stat.kind(), Kind::File | Kind::Dir) {
            true => self.marked(layer.layer, &layer.dir.xattr_names(Some(entry))?),
            false => Marked::default(),
        };
        if aufs && !marked.plain {
            return Ok(Seen::Nothing);
        }
        if empty && marked.whiteout && self.may_hold_xattr_whiteouts(&layer.dir)? {
            return Ok(Seen::Whiteout);
        }
        Ok(Seen::Object(stat, marked))
    }

    /// Adds the contributions of the layers below to an object.
    fn complete(
        &self,
        place: Place,
        stat: Stat,
        marked: Marked,
        below: &[LayerDir],
    ) -> Result<Found> {
        if stat.kind() == Kind::Dir {
            return self.complete_dir(place, stat, marked, below);
        }
        let mut data = None;
        // An empty file was truncated; its mark was about to be removed.
        if marked.metacopy && (stat.size > 0 || place.layer != UPPER) {
            data = self.find_data(&place, marked, below)?;
        }
        if place.layer != UPPER
            && stat.nlink > 1
            && self.is_indexed(place.layer, &stat)
            && let Some(indexed) =
                self.find_indexed(&place, &stat, data.as_ref().unwrap_or(&place))?
        {
            return Ok(indexed);
        }
        let stored = self.stored_ino(&place, marked, stat.ino)?;
        let ino = stored.unwrap_or_else(|| self.show_ino(&stat));
        let indexed = if place.layer == UPPER && marked.nlink {
            Some(self.read_nlink_diff(&place, &stat)?)
        } else {
            None
        };
        let split = self.split(&place, &stat)?;
        Ok(Found { stat, place, ino, stack: None, data, indexed, split })
    }

    /// Collects the parts of a directory, from the top. One iteration for each layer, since there
    /// may be hundreds.
    fn complete_dir(
        &self,
        place: Place,
        stat: Stat,
        marked: Marked,
        below: &[LayerDir],
    ) -> Result<Found> {
        let mut stack = Stack::default();
        // An upper, and a layer that was one, shows the number of what it covers.
        let mut number = None;
        let mut part = Part { place: place.clone(), stat, marked, below };
        loop {
            if !self.stores_numbers(part.place.layer) {
                number.get_or_insert_with(|| self.show_ino(&part.stat));
            }
            let own = part.place.dir.dir_known(&part.place.name, &part.stat);
            let next = match self.below(&part.place, &own, part.marked, part.below)? {
                Below::Stop => None,
                Below::Same => self.topmost(part.below, &part.place.name)?.map(Next::Part),
                Below::Relative(other) => self.topmost(part.below, &other)?.map(Next::Part),
                Below::Absolute(path) => {
                    self.resolve_path(part.place.layer, &path)?.map(Next::Found)
                }
            };
            match part.place.layer {
                UPPER => stack.upper = Some(own),
                layer => stack.lowers.push(LayerDir::new(layer, own)),
            }
            let Some(next) = next.filter(Next::is_dir) else { break };
            if part.marked.redirect {
                self.may_follow(self.options.follow_redirects, "redirect", &part.place)?;
            }
            match next {
                Next::Part(next) => part = next,
                Next::Found(found) => {
                    number.get_or_insert(found.ino);
                    stack.lowers.extend(found.stack.map(|below| below.lowers).unwrap_or_default());
                    break;
                }
            }
        }
        let ino = match number {
            Some(number) => number,
            None => self
                .stored_ino(&part.place, part.marked, part.stat.ino)?
                .unwrap_or_else(|| self.show_ino(&part.stat)),
        };
        Ok(Found { stat, place, ino, stack: Some(stack), data: None, indexed: None, split: None })
    }

    fn below(
        &self,
        place: &Place,
        own: &DirRef,
        marked: Marked,
        below: &[LayerDir],
    ) -> Result<Below> {
        if marked.opaque && self.is_opaque(place)? {
            return Ok(Below::Stop);
        }
        if !below.is_empty() && is_aufs_whiteout(own, mark::WH_OPAQUE)? {
            return Ok(Below::Stop);
        }
        if marked.redirect {
            return self.read_redirect(place);
        }
        Ok(Below::Same)
    }

    fn is_opaque(&self, place: &Place) -> Result<bool> {
        let [trusted, user] = mark::keys(Mark::Opaque);
        for key in [&trusted[..], &user[..], b"user.fuseoverlayfs.opaque"] {
            if self.honours(place.layer, key)
                && place.dir.xattr(Some(&place.name), key)?.as_deref() == Some(b"y")
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a mark that leads elsewhere, in the namespaces in which it counts.
    pub(in crate::union) fn read_mark(&self, place: &Place, mark: Mark) -> Result<Option<Vec<u8>>> {
        for key in mark::keys(mark) {
            if self.leads(place.layer, &key)
                && let Some(value) = place.dir.xattr(Some(&place.name), &key)?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn read_redirect(&self, place: &Place) -> Result<Below> {
        let Some(value) = self.read_mark(place, Mark::Redirect)? else { return Ok(Below::Same) };
        let corrupt = || Error::Corrupt {
            what: format!(
                "redirect {:?} of {:?}",
                String::from_utf8_lossy(&value),
                String::from_utf8_lossy(&place.name)
            ),
        };
        let (absolute, path) = match value.strip_prefix(b"/") {
            Some(path) => (true, path),
            None => (false, &value[..]),
        };
        let parts: Vec<Name> = path.split(|byte| *byte == b'/').map(name).collect();
        let bad = |part: &Name| part.is_empty() || &part[..] == b"." || &part[..] == b"..";
        if parts.iter().any(bad) || (!absolute && parts.len() != 1) {
            return Err(corrupt());
        }
        if absolute {
            return Ok(Below::Absolute(parts));
        }
        parts.into_iter().next().map(Below::Relative).ok_or_else(corrupt)
    }

    /// Refuses to show the target of a mark, unless the mount follows such marks
    /// (`ovl_check_follow_redirect()` in fs/overlayfs/namei.c).
    fn may_follow(&self, follows: bool, mark: &str, place: &Place) -> Result<()> {
        if follows {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&place.name);
        tracing::warn!(mark, name = &*name, "a mark is not followed: the options forbid it");
        Err(Errno::PERM.into())
    }

    /// Returns the place of the data of an object with a metacopy mark; `None` if the object has
    /// its own data by now: a copy-up may complete it after its marks were listed. The copy-up
    /// removes the metacopy mark first, then the redirect.
    fn find_data(
        &self,
        place: &Place,
        marked: Marked,
        below: &[LayerDir],
    ) -> Result<Option<Place>> {
        let target = if marked.redirect { self.read_redirect(place)? } else { Below::Same };
        let lost = marked.redirect && matches!(target, Below::Same);
        let found = match target {
            Below::Relative(other) => self.resolve_lower(below, &other)?,
            Below::Absolute(path) => self.resolve_path(place.layer, &path)?,
            _ => self.resolve_lower(below, &place.name)?,
        };
        let found = found.filter(|found| found.stat.kind() == Kind::File);
        if (lost || found.is_none()) && !self.is_metacopy(place)? {
            return Ok(None);
        }
        let found = found.ok_or_else(|| Error::Corrupt {
            what: format!("no data below metacopy {:?}", String::from_utf8_lossy(&place.name)),
        })?;
        self.may_follow(self.options.follow_metacopy, "metacopy", place)?;
        let redirects = !marked.redirect || self.options.follow_redirects;
        self.may_follow(redirects, "redirect", place)?;
        Ok(Some(found.data.unwrap_or(found.place)))
    }

    /// Whether the data of an object is in a layer below.
    ///
    /// # Errors
    /// As getxattr(2).
    pub(in crate::union) fn is_metacopy(&self, place: &Place) -> Result<bool> {
        Ok(self.read_mark(place, Mark::Metacopy)?.is_some())
    }
}
