//! Redirects: the paths of renamed objects in the layers below the upper.
//!
//! That path of a directory does not change while it is renamed: its mark is set before its name
//! changes, and is read here after the name was.

use crate::error::Result;
use crate::types::{NodeId, XattrFlags};
use crate::union::body::{Place, UPPER};
use crate::union::layers::stage::Data;
use crate::union::lock::Held;
use crate::union::mark::Mark;
use crate::union::table::Node;
use crate::union::{PATH_MAX, Union};

impl Union {
    /// Returns the path of a directory in the layers below the upper; empty for the root.
    pub(super) fn lower_path(&self, node: &Node) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = node.clone();
        while at.id != NodeId::ROOT {
            let mut name = at.name.to_vec();
            if let Some(dir) = &at.dir()?.stack().upper
                && let Some(redirect) = dir.xattr(None, &self.layers.mark_key(Mark::Redirect))?
            {
                name = redirect;
            }
            let absolute = name.starts_with(b"/");
            parts.push(name);
            if absolute {
                break;
            }
            at = self.table.node(at.parent)?;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            if !part.starts_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Ok(path)
    }

    /// Copies a file up in a form that stays valid under another name: with its data, or with a
    /// redirect to it. `near` is whether the other name is in the same directory.
    pub(super) fn copy_up_movable(&self, held: &mut Held<'_>, near: bool) -> Result<Place> {
        // The names of the lower file are found from the name of the node.
        if !self.layers.options().redirect || held.state.has_stale_name() {
            return self.copy_up_file(held, Data::Whole);
        }
        let place = self.copy_up_file(held, Data::Movable)?;
        if place.layer != UPPER || held.state.data.is_none() {
            return Ok(place);
        }
        let several = held.state.indexed || place.stat()?.nlink > 1;
        let key = self.layers.mark_key(Mark::Redirect);
        let entry = Some(&place.name[..]);
        let name = match place.dir.xattr(entry, &key)? {
            Some(path) if path.starts_with(b"/") => return Ok(place),
            Some(name) => name,
            None => held.node.name.to_vec(),
        };
        let value = if near && !several {
            name
        } else {
            [&self.lower_path(&self.table.node(held.node.parent)?)?[..], b"/", &name].concat()
        };
        if value.len() >= PATH_MAX {
            return self.copy_up_file(held, Data::Whole);
        }
        place.dir.set_xattr(entry, &key, &value, XattrFlags::default())?;
        Ok(place)
    }
}
