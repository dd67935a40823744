//! The upper of a running mount becomes its topmost lower layer.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::types::{AttrChange, MODE_MASK, XattrFlags};
use crate::union::body::{LayerDir, UPPER};
use crate::union::config::Upper;
use crate::union::layer::DirRef;
use crate::union::layers::proof::Proof;
use crate::union::layers::stage::times;
use crate::union::layers::{FIRST_OF_MANY, Layers, UpperLayer};
use crate::union::mark;

/// A new upper, and what the layers below it will be.
pub(in crate::union) struct Next {
    upper: UpperLayer,
    root: DirRef,
    frozen: LayerDir,
    proof: Proof,
}

impl Next {
    /// The root of the new upper.
    pub(in crate::union) const fn root(&self) -> &DirRef {
        &self.root
    }

    /// The layer that the upper becomes.
    pub(in crate::union) const fn frozen(&self) -> &LayerDir {
        &self.frozen
    }
}

impl Layers {
    /// Makes everything that a new upper needs, and changes nothing.
    ///
    /// # Errors
    /// `EROFS` without an upper; `EXDEV` for a new upper on another file system; `EMFILE` if there
    /// are too many layers; `EOPNOTSUPP` for a mount that was not made for it, and for one whose
    /// marks are in `user.`: a link to a symbolic link could not stay a link.
    pub(in crate::union) fn next(&self, upper: &Upper) -> Result<Next> {
        self.check_upper()?;
        if !self.options.freezes || !self.marks_any_kind() {
            return Err(Errno::OPNOTSUPP.into());
        }
        if upper.root.stat(None)?.dev != self.root.stat(None)?.dev {
            return Err(Errno::XDEV.into());
        }
        let topmost = self.roots.first().map_or(FIRST_OF_MANY, |root| root.layer);
        let number = topmost.checked_sub(1).filter(|number| *number != UPPER);
        let frozen = LayerDir::new(number.ok_or(Errno::MFILE)?, Arc::clone(&self.root));
        let roots: Vec<_> = std::iter::once(&frozen).chain(&self.roots).cloned().collect();
        let (root, proof) = (Arc::clone(&upper.root), Proof::of(&roots)?);
        Ok(Next { upper: UpperLayer::new(upper)?, root, frozen, proof })
    }

    /// Gives the root of a new upper the attributes of the present one.
    ///
    /// # Errors
    /// As chown(2), chmod(2), setxattr(2).
    pub(in crate::union) fn dress(&self, next: &Next) -> Result<()> {
        for key in self.root.xattr_names(None)? {
            if !mark::is_mark(&key)
                && let Some(value) = self.root.xattr(None, &key)?
            {
                next.root.set_xattr(None, &key, &value, XattrFlags::default())?;
            }
        }
        let stat = self.root.stat(None)?;
        let change = AttrChange {
            mode: Some(stat.mode & MODE_MASK),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            ..times(&stat)
        };
        next.root.set_attr(None, &change)
    }

    /// Makes the upper a layer, below the new one.
    pub(in crate::union) fn freeze(&mut self, next: Next) {
        let former = next.frozen.layer;
        self.roots.insert(0, next.frozen);
        // The commit may have renamed the root of the new layer, and changed its time.
        let proof = Proof::of(&self.roots).unwrap_or(next.proof);
        self.proofs.push((former, std::mem::replace(&mut self.proof, proof)));
        (self.upper, self.root) = (Some(next.upper), next.root);
    }
}
