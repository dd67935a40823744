//! What a short name of an image stands for, said when it is used.
//!
//! A name without a registry may stand for an image of this host or for one of a registry
//! (`localhost/NAME`, `docker.io/library/NAME`), and by the time of `lamina container ls` the wrong
//! one may have run.

use std::path::Path;

use laminafs::service::images::Images;

use crate::report::note;

/// Prints the full name of an image that is given by a short one. A missing image is left to the
/// command, whose error names it.
pub(super) fn show(images: &Images, name: &str) {
    match images.resolved_name(name) {
        Ok(full) if full != name => note(&format!("resolved {name:?} as {full}")),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, name, "not resolved"),
    }
}

/// As [`show`], for images of a data root.
pub(super) fn show_in<'a>(root: &Path, names: impl IntoIterator<Item = &'a String>) {
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        return;
    }
    match Images::open(root) {
        Ok(images) => names.for_each(|name| show(&images, name)),
        Err(error) => tracing::debug!(%error, "no images"),
    }
}
