//! Push: an image from the store to a registry.

use std::rc::Rc;

use super::export::{Form, export};
use super::failure::Refusal;
use super::images::Images;
use super::import::OnProgress;
use super::pull::{Access, Reference};
use crate::transfer::error::TransferError;
use crate::transfer::export::RegistryTarget;
use crate::transfer::registry::Registry;

pub use crate::transfer::export::OnSent;

/// The parameters of a push.
pub struct Push {
    /// The name of the image.
    pub name: String,
    /// The destination, with a tag.
    pub reference: Reference,
    /// The form of the layers.
    pub form: Form,
    /// The credentials and the connection.
    pub access: Access,
    /// Receives the number of bytes of a layer that were sent.
    pub on_sent: OnSent,
}

/// Pushes an image. Returns the digest of its manifest. Blobs that the registry has are not sent.
///
/// # Errors
/// [`Refusal`]; blobs that were already sent stay in the registry, without a name.
pub fn push(
    images: &Images,
    push: &Push,
    progress: &mut OnProgress<'_>,
) -> Result<String, Refusal> {
    let reference = &push.reference;
    if reference.digest.is_some() {
        let what = "an image is pushed to a tag; its digest follows from it".to_owned();
        return Err(TransferError::Registry { reference: reference.text.clone(), what }.into());
    }
    images.find(&push.name)?;
    let access = push.access.clone();
    let registry = Registry::connect(reference, access.credentials, &access.connection)?;
    let (target, digest) = RegistryTarget::new(registry, Rc::clone(&push.on_sent));
    let names = std::slice::from_ref(&push.name);
    export(images, names, push.form, Box::new(target), progress)?;
    let pushed = digest.get().cloned();
    let lost = || TransferError::Unwritable { what: "no manifest was written".to_owned() };
    Ok(pushed.ok_or_else(lost)?.to_string())
}
