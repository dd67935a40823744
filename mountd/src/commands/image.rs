//! `lamina image`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use laminafs::service::changes::UpperSpec;
use laminafs::service::commit::{Note, commit};
use laminafs::service::diff::{self, Change, Differences};
use laminafs::service::export::{DirTarget, Form, LayerCompression, TarTarget, Target};
use laminafs::service::images::{
    Finding, HistoryStep, ImageDetails, ImageInfo, Images, LayerInfo, Refusal,
};
use laminafs::service::import::{Progress, Told};
use laminafs::service::spec::MountSpec;

use crate::cli::{BaseArgs, ExportCompression, ExportForm, ImageArgs, ImageCommand};
use crate::report::{FAILED, Trouble, say, say_json};
use crate::run;

mod pull;

/// Digits of an id that a table shows.
pub(super) const DIGITS: usize = 12;

/// Runs the command.
///
/// # Errors
/// [`Trouble`].
pub fn run(args: ImageArgs) -> Result<ExitCode, Trouble> {
    let makes = matches!(args.command, ImageCommand::Import { .. } | ImageCommand::Pull(_));
    let root = if makes { run::data_root(args.root) } else { run::existing_root(args.root)? };
    let images = Images::open(&root)?;
    let json = args.json;
    if makes || matches!(args.command, ImageCommand::Commit { .. }) {
        run::Ending::hold()?.clean(images.leaving())?;
    }
    match args.command {
        ImageCommand::Import { source, tags } => import(&images, json, &source, &tags)?,
        ImageCommand::Commit { source, tags, base, author, message } => {
            let Source::Upper(of) = source_of(&images, &root, &source, &base)? else {
                let what = format!("{} is no container, and no path", source.display());
                return Err(Trouble::Usage(what));
            };
            let note = Note { author, message };
            say(&format!("{}\n", commit(&images, &of, &tags, &note)?))?;
        }
        ImageCommand::Diff { source, base } => {
            let found = match source_of(&images, &root, &source, &base)? {
                Source::Upper(of) => diff::of_upper(&of)?,
                Source::Image(name) => image_diff(&images, &root, &name, base.image.as_deref())?,
            };
            let line = |(path, change): (&String, &Change)| format!("{change:?} {path}\n");
            show(json, &found, |all| all.iter().map(line).collect())?;
        }
        ImageCommand::Export { names, output, format, compress } => {
            run::open_umask();
            export(&images, json, &names, &Output { output, format, compress })?;
        }
        ImageCommand::Pull(words) => pull::run((&images, &root), json, words)?,
        ImageCommand::Push(words) => pull::push(&images, json, words)?,
        ImageCommand::Ls => show(json, &images.list()?, |all| list(all))?,
        ImageCommand::Layers => show(json, &images.layers()?, |all| layers(all))?,
        ImageCommand::History { name } => show(json, &images.history(&name)?, |all| history(all))?,
        ImageCommand::Inspect { names } => {
            let found: Result<Vec<ImageDetails>, _> =
                names.iter().map(|name| images.inspect(name)).collect();
            say_json(&found?)?;
        }
        ImageCommand::Rm { names } => {
            for name in names {
                say(&format!("{}\n", images.remove(&name)?))?;
            }
        }
        ImageCommand::Gc => {
            let removed = images.collect()?;
            show(json, &removed, |all| all.iter().map(|id| format!("{id}\n")).collect())?;
        }
        ImageCommand::Verify { name } => {
            let found = images.verify(name.as_deref())?;
            show(json, &found, |all| damage(all))?;
            if !found.is_empty() {
                return Ok(ExitCode::from(FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn import(images: &Images, json: bool, source: &Path, tags: &[String]) -> Result<(), Trouble> {
    let source = match source.to_str() {
        Some("-") => Path::new("/dev/stdin"),
        _ => source,
    };
    let ids =
        with_progress(json, |told| laminafs::service::import::import(images, source, tags, told))?;
    if json {
        return Ok(());
    }
    ids.iter().try_for_each(|id| say(&format!("{id}\n")))
}

enum Source {
    Upper(UpperSpec),
    Image(String),
}

fn source_of(
    images: &Images,
    root: &Path,
    source: &Path,
    base: &BaseArgs,
) -> Result<Source, Trouble> {
    let runtime = run::runtime_dir();
    let spec = UpperSpec { root: root.to_owned(), runtime, ..UpperSpec::default() };
    let text = source.to_string_lossy();
    if source.is_absolute() || text.starts_with("./") || (text.contains('/') && source.is_dir()) {
        let (upper, work, image) = (source.to_owned(), base.work.clone(), base.image.clone());
        return Ok(Source::Upper(UpperSpec { upper, work, image, ..spec }));
    }
    match images.container(&text, None) {
        Ok(found) => {
            let work = Some(found.upper.with_file_name("work"));
            let (upper, container) = (found.upper, Some(found.id));
            Ok(Source::Upper(UpperSpec { upper, work, container, ..spec }))
        }
        Err(error) if error.is_missing() => Ok(Source::Image(text.into_owned())),
        Err(error) => Err(error.into()),
    }
}

fn image_diff(
    images: &Images,
    root: &Path,
    name: &str,
    base: Option<&str>,
) -> Result<Differences, Trouble> {
    let new = images.layer_ids(name)?;
    let old = match base {
        Some(base) => images.layer_ids(base)?,
        None => new.split_last().map(|(_, below)| below.to_vec()).unwrap_or_default(),
    };
    let spec = MountSpec { root: root.to_owned(), ..MountSpec::default() };
    Ok(diff::of_images(&spec, &new, &old)?)
}

struct Output {
    output: PathBuf,
    format: ExportForm,
    compress: ExportCompression,
}

fn export(images: &Images, json: bool, names: &[String], to: &Output) -> Result<(), Trouble> {
    let is_pipe = to.output.as_os_str() == "-";
    let target: Box<dyn Target> = match to.format {
        ExportForm::OciDir if is_pipe => {
            return Err(Trouble::Usage("a directory cannot go to a pipe".to_owned()));
        }
        ExportForm::OciDir => {
            let ending = run::Ending::hold()?;
            let target = DirTarget::new(&to.output)?;
            ending.clean(target.leaving())?;
            Box::new(target)
        }
        _ if is_pipe => Box::new(TarTarget::pipe(Box::new(std::io::stdout()))),
        _ => {
            let ending = run::Ending::hold()?;
            let target = TarTarget::new(&to.output)?;
            ending.clean(target.leaving())?;
            Box::new(target)
        }
    };
    let form = match (to.format, to.compress) {
        (ExportForm::DockerArchive, ExportCompression::Native) => {
            let what = "a docker-archive holds tars: --compress native needs an OCI form";
            return Err(Trouble::Usage(what.to_owned()));
        }
        (ExportForm::DockerArchive, _) => Form::Docker,
        (_, compress) => oci_form(compress),
    };
    let mut said = Ok(());
    let ids = laminafs::service::export::export(images, names, form, target, &mut |step| {
        if let Ok(line) = serde_json::to_string(step)
            && json
            && !is_pipe
            && said.is_ok()
        {
            said = say(&format!("{line}\n"));
        }
    })?;
    said?;
    if json || is_pipe {
        return Ok(());
    }
    ids.iter().try_for_each(|id| say(&format!("{id}\n")))
}

/// An image of OCI with layers that are compressed so.
const fn oci_form(compress: ExportCompression) -> Form {
    match compress {
        ExportCompression::Gzip => Form::Oci(LayerCompression::Gzip),
        ExportCompression::Zstd => Form::Oci(LayerCompression::Zstd),
        ExportCompression::None => Form::Oci(LayerCompression::None),
        ExportCompression::Native => Form::Native,
    }
}

/// Shows what `work` says: as lines of JSON, or as bars on a terminal.
fn with_progress<T>(
    json: bool,
    work: impl FnOnce(&mut Told<'_>) -> Result<T, Refusal>,
) -> Result<T, Trouble> {
    let mut said = Ok(());
    let mut bar = Bar::default();
    let done = work(&mut |step| match serde_json::to_string(step) {
        Ok(line) if json && said.is_ok() => said = say(&format!("{line}\n")),
        _ => bar.show(step),
    });
    bar.end();
    let done = done?;
    said?;
    Ok(done)
}

/// A bar with rate and time left on a terminal, nothing elsewhere.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn show(&mut self, step: &Progress) {
        match step {
            Progress::Layer { number, of, layer, size } => {
                let digits = layer.rsplit(':').next().unwrap_or(layer);
                self.begin(*size, format!("layer {number} of {of} {}", short(digits)));
            }
            Progress::Download { layers, size } => {
                self.begin(*size, format!("download of {layers} layers"));
            }
            Progress::Read { bytes } | Progress::Downloaded { bytes } => {
                if let Some(bar) = &self.0 {
                    bar.set_position(*bytes);
                }
            }
            Progress::Kept { .. } | Progress::Image { .. } => {}
        }
    }

    fn begin(&mut self, size: u64, message: String) {
        self.end();
        // Drawn to the standard error, and only where that is a terminal.
        let form = "{msg} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_bar}";
        let bar = ProgressBar::new(size);
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(message);
        self.0 = Some(bar);
    }

    fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish();
        }
    }
}

fn show<T: serde::Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Trouble> {
    if json { say_json(value) } else { say(&text(value)) }
}

pub(super) fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

fn mib(bytes: u64) -> String {
    format!("{}.{:02} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 100) >> 20)
}

fn list(images: &[ImageInfo]) -> String {
    let none = || vec!["<none>".to_owned()];
    let named =
        |image: &ImageInfo| if image.names.is_empty() { none() } else { image.names.clone() };
    let names = images.iter().flat_map(named);
    let width = names.map(|name| name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:<DIGITS$}  LAYERS  {:>12}\n", "NAME", "ID", "SIZE");
    for image in images {
        for name in named(image) {
            let (id, size) = (short(&image.id), mib(image.size));
            text.push_str(&format!("{name:<width$}  {id}  {:>6}  {size:>12}\n", image.layers));
        }
    }
    text
}

fn layers(layers: &[LayerInfo]) -> String {
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

fn history(steps: &[HistoryStep]) -> String {
    let mut text = format!("{:<DIGITS$}  CREATED BY\n", "LAYER");
    for step in steps {
        let layer = step.layer.as_deref().map_or("-", short);
        let by = step.created_by.as_deref().unwrap_or("");
        text.push_str(&format!("{layer:<DIGITS$}  {by}\n"));
    }
    text
}

fn damage(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        match &finding.layer[..] {
            "" => text.push_str(&format!("{}\n", finding.what)),
            layer => text.push_str(&format!("layer {}: {}\n", short(layer), finding.what)),
        }
        for file in &finding.files {
            text.push_str(&format!("  {file}\n"));
        }
    }
    text
}
