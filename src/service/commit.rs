//! Commit: a layer from the changes in an upper, and the image of it over its base.

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::SystemTime;

use super::Failure;
use super::changes::{Changed, Changes, Done, UpperSpec, at};
use super::failure::Refusal;
use super::failure::ServiceResult;
use super::images::{Image, ImageLayer, Images};
use super::import::{Meter, OnProgress, Progress, put};
use super::volumes::VolumeService;
use crate::catalog::error::CatalogError;
use crate::catalog::name::full_name;
use crate::error::{Errno, Result};
use crate::store::error::StoreError;
use crate::store::sink::{Body, Meta, Sink};
use crate::store::{DiffId, LayerId};
use crate::sys::file::{major, minor};
use crate::transfer::configuration::Configuration;
use crate::transfer::export::diff_id;
use crate::types::marks;
use crate::types::{Digest, Kind, MODE_MASK, Name, NodeId, Stat};
use crate::union::{Entry, Union};
use crate::volume::union::pool::Pool;
use crate::volume::union::stack;

/// Metadata of an image for the layer that is added.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// The author.
    pub author: Option<String>,
    /// The comment.
    pub message: Option<String>,
}

/// Makes an image from the changes in an upper over its base. Returns its id.
///
/// # Errors
/// [`Failure`]: if a mount uses the upper, if a required base is not given, or if no layer can hold
/// the content.
pub fn commit(
    images: &Images,
    of: &UpperSpec,
    (names, note): (&[String], &Note),
    progress: &mut OnProgress<'_>,
) -> ServiceResult<String> {
    let failed = |error| {
        let (path, error) = (of.upper.clone(), Box::new(error));
        Failure::Layer { path, error }
    };
    let begin = || -> std::result::Result<_, Refusal> {
        for name in names {
            full_name(name)?;
        }
        let kept = images.images.importing()?;
        let base = match (&of.container, &of.image) {
            (Some(name), _) => Some(images.containers.find(name)?.image),
            (None, Some(name)) => Some(images.images.find(name)?),
            (None, None) => None,
        };
        Ok((kept, base))
    };
    let (_kept, base) = begin().map_err(failed)?;
    commit_over(images, of, base, (names, note), progress)
}

/// Makes an image from what was written to a volume of the driver `union` (`VOLUME`, which may be
/// in use, or `VOLUME@SNAPSHOT`), over the image that it began with. Returns its id.
///
/// # Errors
/// [`Failure::Volume`]: for another driver, or if no image of the store has the layers below it.
pub fn commit_volume(
    images: &Images,
    volumes: &VolumeService,
    text: &str,
    (names, note): (&[String], &Note),
    progress: &mut OnProgress<'_>,
) -> ServiceResult<String> {
    let failed = |error: Refusal| {
        let (name, error) = (text.to_owned(), Box::new(error));
        Failure::Volume { name, error }
    };
    let begin = || -> std::result::Result<_, Refusal> {
        for name in names {
            full_name(name)?;
        }
        let kept = images.images.importing()?;
        let frozen = volumes.frozen(text)?;
        let stack = stack::read_any(frozen.volume().directory())?;
        let has_these = |image: &Image| {
            image.layers.iter().map(|layer| layer.id.to_string()).eq(stack.image.iter().cloned())
        };
        let base = match stack.image.is_empty() {
            true => None,
            false => Some(images.images.all()?.into_iter().map(|(image, _)| image).find(has_these)),
        };
        let missing = || {
            let (kind, name) = ("image", format!("with the layers below volume {text}"));
            CatalogError::Missing { kind, name }
        };
        let base = base.map(|found| found.ok_or_else(missing)).transpose()?;
        Ok((kept, frozen, stack, base))
    };
    let (_kept, frozen, stack, base) = begin().map_err(failed)?;
    let pool = Pool::of(frozen.volume().directory());
    let mut contents = stack.layers.iter().map(|layer| pool.content(layer));
    let of = UpperSpec {
        upper: contents.next().unwrap_or_default(),
        former: contents.collect(),
        is_frozen: true,
        layers: stack.image.clone(),
        root: volumes.root().to_owned(),
        ..UpperSpec::default()
    };
    commit_over(images, &of, base, (names, note), progress)
}

/// Makes an image from the changes in a container over its image, also while it is mounted: then
/// the upper becomes a layer at one moment, and its users go on. Returns the id of the image.
///
/// # Errors
/// As [`commit`].
pub fn commit_container(
    (images, volumes): (&Images, &VolumeService),
    of: &UpperSpec,
    (names, note): (&[String], &Note),
    progress: &mut OnProgress<'_>,
) -> ServiceResult<String> {
    let Some(name) = &of.container else { return commit(images, of, (names, note), progress) };
    let failed = |error: Refusal| Failure::Container { name: name.clone(), error: Box::new(error) };
    let begin = || -> std::result::Result<_, Refusal> {
        for name in names {
            full_name(name)?;
        }
        Ok((images.images.importing()?, images.containers.find(name)?.image))
    };
    let (_kept, base) = begin().map_err(failed)?;
    match images.freeze_root(volumes, name, of.runtime.as_deref())? {
        Some(frozen) => commit_over(images, &frozen.spec, Some(base), (names, note), progress),
        None => commit_over(images, of, Some(base), (names, note), progress),
    }
}

fn commit_over(
    images: &Images,
    of: &UpperSpec,
    base: Option<Image>,
    (names, note): (&[String], &Note),
    progress: &mut OnProgress<'_>,
) -> ServiceResult<String> {
    let failed = |error| {
        let (path, error) = (of.upper.clone(), Box::new(error));
        Failure::Layer { path, error }
    };
    let changed = Changed::open(of)?;
    progress(&Progress::Layer { number: 1, of: 1, layer: "changes".to_owned(), size: 0 });
    let id = build(images, &changed, of, progress)?;
    let made = || -> std::result::Result<String, Refusal> {
        let layer = images.store.layer(&id)?;
        let diff_id = DiffId::Tar(diff_id(&layer)?);
        let layer = ImageLayer { id, diff_id, digest: None, size: 0 };
        let image = image_of(base, layer, note)?;
        put(images, image, names, progress)
    };
    let made = made().map_err(failed)?;
    changed.end()?;
    Ok(made)
}

fn build(
    images: &Images,
    changed: &Changed,
    of: &UpperSpec,
    progress: &mut OnProgress<'_>,
) -> ServiceResult<LayerId> {
    let failed = |error: StoreError| {
        let (path, error) = (of.upper.clone(), Box::new(error.into()));
        Failure::Layer { path, error }
    };
    let mut build = images.store.build().map_err(failed)?;
    let mut meter = Meter::new(progress);
    let mut on_read = |len| meter.add(len);
    let mut made = Committing {
        union: &changed.over.union,
        sink: &mut build.builder,
        links: HashMap::new(),
        on_read: &mut on_read,
    };
    let told = made
        .root(changed.below.as_ref().map(|view| &view.union))
        .map_err(failed)
        .and_then(|()| changed.walk(&mut made));
    let bytes = meter.bytes();
    progress(&Progress::Read { bytes });
    match told {
        Ok(()) => images.store.publish(build).map_err(failed),
        Err(error) => {
            images.store.abandon(build);
            Err(error)
        }
    }
}

fn image_of(
    base: Option<Image>,
    layer: ImageLayer,
    note: &Note,
) -> std::result::Result<Image, Refusal> {
    let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (mut layers, config) = match base {
        Some(base) => (proved(&base), Configuration::parse(&base.config)),
        None => (Vec::new(), None),
    };
    let mut config = config.unwrap_or_else(Configuration::default);
    layers.push(layer);
    let mut step = vec![("created", &*created), ("created_by", "lamina image commit")];
    step.extend(note.message.as_deref().map(|message| ("comment", message)));
    if let Some(author) = &note.author {
        step.push(("author", author));
        config.set("author", author);
    }
    config.set("created", &created);
    config.set_layers(layers.iter().map(|layer| layer.diff_id.to_string()).collect())?;
    config.add_step(step);
    let config = config.into_bytes();
    let id = Digest::sha256(&config).hex().to_owned();
    Ok(Image { id, layers, config, manifest: None })
}

/// The layers of an image, without diff IDs that nothing proves.
fn proved(image: &Image) -> Vec<ImageLayer> {
    let mut layers = image.layers.clone();
    if !image.is_proved() {
        layers.iter_mut().for_each(|layer| layer.diff_id = DiffId::Tree(layer.id.clone()));
    }
    layers
}

/// Adds changes to a sink.
struct Committing<'a> {
    union: &'a Union,
    sink: &'a mut dyn Sink,
    /// The first name of each object with several names.
    links: HashMap<NodeId, Vec<Name>>,
    /// Receives how many bytes of a file were read.
    on_read: &'a mut dyn FnMut(u64),
}

/// Reads the content of a file of the mount.
struct Content<'a> {
    union: &'a Union,
    node: NodeId,
    offset: u64,
    on_read: &'a mut dyn FnMut(u64),
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.union.read_with(self.node, |file| file.read_at(buf, self.offset));
        let len = read.map_err(|error| io::Error::from_raw_os_error(error.errno().0))?;
        self.offset += len as u64;
        (self.on_read)(len as u64);
        Ok(len)
    }
}

impl Committing<'_> {
    fn meta(&self, node: NodeId, stat: &Stat) -> Result<Meta> {
        attributes(self.union, node, stat)
    }
}

fn attributes(union: &Union, node: NodeId, stat: &Stat) -> Result<Meta> {
    let mut meta = Meta {
        mode: stat.mode & MODE_MASK,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        ..Meta::default()
    };
    let keys = union.listxattr(node)?;
    for key in keys.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        // Written by a user, such an attribute is plain content; in a layer it would be a mark.
        if marks::is_reserved(key) {
            continue;
        }
        match union.getxattr(node, key) {
            Err(error) if error.is(Errno::NODATA) => {}
            value => drop(meta.xattrs.insert(key.to_vec(), value?)),
        }
    }
    Ok(meta)
}

impl Committing<'_> {
    // The root is added only if its attributes differ from those below.
    fn root(&mut self, below: Option<&Union>) -> Done {
        let stat = self.union.getattr(NodeId::ROOT).map_err(at(&[]))?;
        let meta = self.meta(NodeId::ROOT, &stat).map_err(at(&[]))?;
        if let Some(below) = below {
            let old = below.getattr(NodeId::ROOT).map_err(at(&[]))?;
            let before = attributes(below, NodeId::ROOT, &old).map_err(at(&[]))?;
            if before == meta {
                return Ok(());
            }
        }
        self.sink.put(&[], meta, Body::Dir)
    }
}

impl Changes for Committing<'_> {
    fn put(&mut self, path: &[Name], now: &Entry, _: Option<&Entry>) -> Done {
        let (node, stat) = (now.node, &now.stat);
        let at = at(path);
        if stat.kind() != Kind::Dir && stat.nlink > 1 {
            if let Some(first) = self.links.get(&node) {
                return self.sink.link(path, first);
            }
            self.links.insert(node, path.to_vec());
        }
        let meta = self.meta(node, stat).map_err(&at)?;
        let (major, minor) = (major(stat.rdev), minor(stat.rdev));
        let on_read = &mut *self.on_read;
        let mut data = Content { union: self.union, node, offset: 0, on_read };
        let body = match stat.kind() {
            Kind::Dir => Body::Dir,
            Kind::File => Body::File { size: stat.size, data: &mut data },
            Kind::Symlink => Body::Symlink { target: self.union.readlink(node).map_err(&at)? },
            Kind::Char if stat.rdev == 0 => {
                let what = "a character device 0:0 means a whiteout in a layer".to_owned();
                return Err(StoreError::Entry { name: super::changes::shown(path), what });
            }
            Kind::Char => Body::Char { major, minor },
            Kind::Block => Body::Block { major, minor },
            Kind::Fifo => Body::Fifo,
            _ => Body::Socket,
        };
        self.sink.put(path, meta, body)
    }

    fn removed(&mut self, path: &[Name]) -> Done {
        self.sink.whiteout(path)
    }

    fn replaced(&mut self, path: &[Name], _: NodeId, _: NodeId) -> Done {
        self.sink.opaque(path)
    }
}
