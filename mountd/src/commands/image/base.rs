//! The subject of `lamina image diff` and `commit`: an upper directory, a container, or an image,
//! together with the layers below it.

use std::path::{Path, PathBuf};

use clap::Args;
use laminafs::service::changes::UpperSpec;

use super::Context;
use crate::commands::resolved;
use crate::report::CliError;
use crate::run;

/// What an upper directory lies on.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// The image below.
    #[arg(long, value_name = "NAME[:TAG]")]
    pub image: Option<String>,
    /// The work directory of the upper directory.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
}

/// The object that a word on the command line refers to.
pub enum Source {
    /// An upper directory, given by its path or as part of a container.
    Upper(UpperSpec),
    /// Anything else: an image, if there is one of that name.
    Image(String),
}

/// Resolves a word on the command line.
///
/// # Errors
/// [`CliError`].
pub(super) fn find(context: &Context, word: &Path, base: &BaseArgs) -> Result<Source, CliError> {
    let (root, runtime) = (context.root.clone(), run::runtime_dir());
    let spec = UpperSpec { root, runtime, ..UpperSpec::default() };
    let text = word.to_string_lossy();
    if word.is_absolute() || text.starts_with("./") || (text.contains('/') && word.is_dir()) {
        base.image.iter().for_each(|name| resolved::show(&context.images, name));
        let (upper, work, image) = (word.to_owned(), base.work.clone(), base.image.clone());
        return Ok(Source::Upper(UpperSpec { upper, work, image, ..spec }));
    }
    match context.images.upper_of(&text, spec.runtime.as_deref()) {
        Ok(found) => Ok(Source::Upper(found)),
        Err(error) if error.is_missing() => Ok(Source::Image(text.into_owned())),
        Err(error) => Err(error.into()),
    }
}
