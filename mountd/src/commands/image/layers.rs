//! `lamina image layers`, which is `lamina layer ls`.

use laminafs::service::images::LayerInfo;

use super::Context;
use crate::commands::table::{DIGITS, mib, short};
use crate::report::CliError;

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    context.show(&context.images.layers()?, |all| table(all))
}

fn table(layers: &[LayerInfo]) -> String {
    let mut text =
        format!("{:<DIGITS$}  {:>12}  {:>12}  OBJECTS  IMAGES\n", "ID", "SIZE", "MISSING");
    for layer in layers {
        let images: Vec<&str> = layer.images.iter().map(|id| short(id)).collect();
        let (id, size, missing) = (short(&layer.id), mib(layer.size), mib(layer.missing));
        let (objects, images) = (layer.objects, images.join(" "));
        text.push_str(&format!("{id}  {size:>12}  {missing:>12}  {objects:>7}  {images}\n"));
    }
    text
}
