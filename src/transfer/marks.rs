//! The extended attributes of overlayfs and fuse-overlayfs in a layer.
//!
//! In these attributes a union describes its own layer. They are never data of a user, so none of
//! them is kept as an attribute (kernel `Documentation/filesystems/overlayfs.rst`, "whiteouts and
//! opaque directories", "Nesting overlayfs mounts").

use std::collections::BTreeMap;

use crate::types::marks::{FUSE_OVERLAYFS, METACOPY, OPAQUE, REDIRECT, TRUSTED, USER, WHITEOUT};

/// Attributes by name.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

const NAMESPACES: [&[u8]; 2] = [TRUSTED, USER];

/// The meaning of the overlayfs attributes of an object.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// A directory hides everything that the layers below have in it.
    pub(super) opaque: bool,
    /// A directory may hold empty files that are whiteouts (`opaque` = `x`); it hides nothing.
    pub(super) holds_whiteouts: bool,
    /// An empty file is a whiteout.
    pub(super) whiteout: bool,
}

/// Removes the attributes of overlayfs from `xattrs`.
///
/// A redirect and a metadata-only file refer to content of other layers, so an error is returned
/// for them: a layer must stand for itself.
pub(super) fn take(xattrs: &mut Xattrs) -> Result<Marks, &'static str> {
    let mut marks = Marks::default();
    let mut refused = None;
    xattrs.retain(|key, value| {
        if key.strip_prefix(FUSE_OVERLAYFS) == Some(OPAQUE) {
            marks.opaque |= value == b"y";
            return false;
        }
        let Some(own) = NAMESPACES.iter().find_map(|space| key.strip_prefix(*space)) else {
            return true;
        };
        match own {
            OPAQUE => {
                marks.opaque |= value == b"y";
                marks.holds_whiteouts |= value == b"x";
            }
            WHITEOUT => marks.whiteout = true,
            REDIRECT => refused = Some("it is a redirect of overlayfs to another name"),
            METACOPY => refused = Some("it is a metacopy of overlayfs without its data"),
            // origin, impure, nlink, upper, protattr, uuid, escaped ones: not needed here.
            _ => {}
        }
        false
    });
    refused.map_or(Ok(marks), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(pairs: &[(&str, &str)]) -> Xattrs {
        pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), (*value).into())).collect()
    }

    #[test]
    fn bookkeeping_goes_and_user_data_stays() {
        let mut found = xattrs(&[
            ("trusted.overlay.origin", "o"),
            ("user.overlay.impure", "y"),
            ("trusted.overlay.overlay.opaque", "y"),
            ("user.overlayer", "kept"),
            ("security.capability", "c"),
        ]);
        assert_eq!(take(&mut found), Ok(Marks::default()));
        assert_eq!(found, xattrs(&[("user.overlayer", "kept"), ("security.capability", "c")]));
    }

    #[test]
    fn only_y_is_opaque() {
        for key in ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"] {
            assert!(take(&mut xattrs(&[(key, "y")])).unwrap().opaque, "{key}");
            assert!(!take(&mut xattrs(&[(key, "n")])).unwrap().opaque, "{key}");
        }
        let marks = take(&mut xattrs(&[("trusted.overlay.opaque", "x")])).unwrap();
        assert_eq!((marks.opaque, marks.holds_whiteouts), (false, true));
    }

    #[test]
    fn references_to_other_layers_are_refused() {
        for key in ["trusted.overlay.redirect", "user.overlay.metacopy"] {
            assert!(take(&mut xattrs(&[(key, "/a")])).is_err(), "{key}");
        }
    }
}
