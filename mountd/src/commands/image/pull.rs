//! `lamina image pull` and `push`.

use std::path::Path;

use laminafs::service::images::Images;
use laminafs::service::pull::{Access, Lazy, Pull, Reference, Words, pull};
use laminafs::service::push::{Push, push as push_image};

use super::with_progress;
use crate::cli::{PullArgs, PushArgs, RegistryArgs};
use crate::report::{Trouble, say};

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run((images, root): (&Images, &Path), json: bool, args: PullArgs) -> Result<(), Trouble> {
    let reference = Reference::parse(&args.reference)?;
    let access = Access::find(&reference, words(args.registry))?;
    let lazy = args.lazy.map(|lazy| match lazy {
        crate::cli::LazyPull::Background => Lazy::Background,
        crate::cli::LazyPull::Demand => Lazy::Demand,
    });
    let request = Pull { reference, names: args.tags, access, lazy };
    let id = with_progress(json, |told| pull(images, root, &request, told))?;
    if json { Ok(()) } else { say(&format!("{id}\n")) }
}

/// Runs the other one.
///
/// # Errors
/// [`Trouble`].
pub fn push(images: &Images, json: bool, args: PushArgs) -> Result<(), Trouble> {
    let form = super::oci_form(args.compress);
    let to = match args.reference {
        Some(reference) => reference,
        None => images.resolved_name(&args.name)?,
    };
    let reference = Reference::parse(&to)?;
    let access = Access::find(&reference, words(args.registry))?;
    let request = Push { name: args.name, reference, form, access };
    let digest = with_progress(json, |told| push_image(images, &request, told))?;
    if json { Ok(()) } else { say(&format!("{digest}\n")) }
}

fn words(args: RegistryArgs) -> Words {
    let RegistryArgs { creds, authfile, cert_dir, tls_verify } = args;
    Words { creds, authfile, cert_dir, insecure: !tls_verify, ..Words::default() }
}
