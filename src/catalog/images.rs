//! Images: which layers, in which order, with which configuration, under which names.
//!
//! Below the data root, `images/SHA256` is the record of the image with that configuration, and
//! `names/NAME` (percent-encoded) holds the digits. Both are written beside their place and
//! renamed. An import holds a shared lock on `images` from its first layer to its record; the
//! collection of unneeded objects takes it exclusively.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{CatalogError, Result};
use super::image::{Image, ImageLayer};
use super::name::{candidates, digest_name, file_name, full_name, name_of};
use crate::error::FromHost;
use crate::format::codec;
use crate::store::files::{listed, make_dir, open_dir, write_whole};
use crate::store::id::LayerId;
use crate::sys;
use crate::types::Digest;
use crate::types::hex::is_hex;

const VERSION: u16 = 1;

/// The images of a data root.
pub struct Images {
    images: PathBuf,
    names: PathBuf,
}

/// Keeps the layers of an import that has no record yet.
pub struct Importing(#[allow(dead_code)] OwnedFd);

/// Keeps imports away while layers are collected.
pub struct Collecting(#[allow(dead_code)] OwnedFd);

fn missing(name: &str) -> CatalogError {
    CatalogError::Missing { kind: "image", name: name.to_owned() }
}

impl Images {
    /// Opens the images of a data root; what is missing is made.
    ///
    /// # Errors
    /// As mkdir(2), with the path.
    pub fn open(root: &Path) -> Result<Self> {
        let found = Self { images: root.join("images"), names: root.join("names") };
        make_dir(&found.images)?;
        make_dir(&found.names)?;
        Ok(found)
    }

    /// Keeps layers that no record names yet from being collected, for as long as it lives.
    ///
    /// # Errors
    /// As flock(2).
    pub fn importing(&self) -> Result<Importing> {
        let dir = open_dir(&self.images)?;
        sys::file::flock_shared(dir.as_fd()).map_err(CatalogError::host(&self.images))?;
        Ok(Importing(dir))
    }

    /// Waits for the imports at work and keeps new ones away, for as long as it lives.
    ///
    /// # Errors
    /// As flock(2).
    pub fn collecting(&self) -> Result<Collecting> {
        let dir = open_dir(&self.images)?;
        sys::file::flock(dir.as_fd()).map_err(CatalogError::host(&self.images))?;
        Ok(Collecting(dir))
    }

    /// Writes an image and gives it names.
    ///
    /// # Errors
    /// [`CatalogError::BadName`]; what the host answers.
    pub fn put(&self, image: &Image, names: &[String]) -> Result<()> {
        let path = self.images.join(&image.id);
        let names = names.iter().map(|name| full_name(name)).collect::<Result<Vec<_>>>()?;
        let damaged = |what: String| CatalogError::Damaged { path: path.clone(), what };
        let bytes = codec::encode(VERSION, image).map_err(|error| damaged(error.to_string()))?;
        self.refuse_other_layers(image)?;
        write_whole(&path, &bytes)?;
        for name in names {
            write_whole(&self.names.join(file_name(&name)), image.id.as_bytes())?;
        }
        Ok(())
    }

    // The id of an image is that of its configuration, which names diff IDs. Tars were compared
    // with them; a layer in our own form could be anything, and takes nobody's place.
    fn refuse_other_layers(&self, image: &Image) -> Result<()> {
        if image.is_proved() || !self.images.join(&image.id).exists() {
            return Ok(());
        }
        let ids = |image: &Image| -> Vec<_> {
            image.layers.iter().map(|layer| layer.id.clone()).collect()
        };
        if ids(&self.read(&image.id)?) == ids(image) {
            return Ok(());
        }
        Err(CatalogError::OtherLayers { id: image.id.clone() })
    }

    /// Gives an image the name and digest by which it was asked for, which may be that of a list
    /// of images for several machines.
    ///
    /// # Errors
    /// [`CatalogError::BadName`]; what the host answers.
    pub fn put_digest_name(&self, id: &str, text: &str) -> Result<()> {
        let name = digest_name(text).ok_or_else(|| CatalogError::BadName(text.to_owned()))?;
        Ok(write_whole(&self.names.join(file_name(&name)), id.as_bytes())?)
    }

    fn read(&self, id: &str) -> Result<Image> {
        let path = self.images.join(id);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CatalogError::Missing { kind: "image", name: id.to_owned() });
            }
            read => read.map_err(CatalogError::io(&path))?,
        };
        let damaged = |what: String| CatalogError::Damaged { path: path.clone(), what };
        let image: Image =
            codec::decode(VERSION, &bytes).map_err(|error| damaged(error.to_string()))?;
        if image.id != id {
            return Err(damaged("the record of another image".to_owned()));
        }
        Ok(image)
    }

    /// An image by `NAME`, `NAME:TAG`, its id, or the first digits of its id (three at least).
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find(&self, text: &str) -> Result<Image> {
        self.find_named(text).map(|(image, _)| image)
    }

    /// The same with the name by which it was found: the full one where a short one was asked for
    /// that the store has with a registry.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn find_named(&self, text: &str) -> Result<(Image, String)> {
        // `@DIGEST` alone, or behind the name that it was pulled by.
        for full in [full_name(text).ok(), digest_name(text)].into_iter().flatten() {
            for name in candidates(&full) {
                if let Ok(id) = fs::read_to_string(self.names.join(file_name(&name)))
                    && is_hex(&id, 64)
                {
                    let shown = if name == full { text.to_owned() } else { name };
                    return Ok((self.read(&id)?, shown));
                }
            }
        }
        let found = |image| (image, text.to_owned());
        if let Some((_, digest)) = text.split_once("@sha256:")
            && is_hex(digest, 64)
        {
            return self.find_digest(digest)?.map(found).ok_or_else(|| missing(text));
        }
        let digits = text.trim_start_matches('@').trim_start_matches("sha256:");
        if digits.len() >= 3 {
            let ids = listed(&self.images)?;
            let mut like = ids.iter().filter(|id| id.starts_with(digits));
            if let (Some(id), None) = (like.next(), like.next()) {
                return self.read(id).map(found);
            }
        }
        Err(missing(text))
    }

    /// An image by the digest of its configuration or of its manifest.
    fn find_digest(&self, digest: &str) -> Result<Option<Image>> {
        if self.images.join(digest).exists() {
            return self.read(digest).map(Some);
        }
        let of_manifest = |image: &Image| {
            let manifest = image.manifest.as_ref();
            manifest.is_some_and(|bytes| Digest::sha256(bytes).hex() == digest)
        };
        Ok(self.all()?.into_iter().map(|(image, _)| image).find(of_manifest))
    }

    /// The names that there are, by the id of their image.
    ///
    /// # Errors
    /// As readdir(3) and read(2).
    pub fn names(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in listed(&self.names)? {
            let path = self.names.join(&file);
            let id = fs::read_to_string(&path).map_err(CatalogError::io(&path))?;
            names.entry(id).or_default().push(name_of(&file));
        }
        Ok(names)
    }

    /// All images with their names.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`] for a record that cannot be read.
    pub fn all(&self) -> Result<Vec<(Image, Vec<String>)>> {
        let mut names = self.names()?;
        let ids = listed(&self.images)?;
        ids.iter().map(|id| Ok((self.read(id)?, names.remove(id).unwrap_or_default()))).collect()
    }

    /// Reads all records and names: the images, and what is damaged.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn verify(&self) -> Result<(Vec<Image>, Vec<String>)> {
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        let ids = listed(&self.images)?;
        for id in &ids {
            match self.read(id) {
                Ok(image) if Digest::sha256(&image.config).hex() != id => {
                    damaged.push(format!("image {id}: its configuration has another digest"));
                    images.push(image);
                }
                Ok(image) => images.push(image),
                Err(error) => damaged.push(format!("image {id}: {error}")),
            }
        }
        for file in listed(&self.names)? {
            let path = self.names.join(&file);
            let what = match fs::read_to_string(&path) {
                Ok(id) if ids.contains(&id) => continue,
                Ok(id) if is_hex(&id, 64) => format!("its image {id} is not here"),
                Ok(_) => "it holds no id of an image".to_owned(),
                Err(error) => error.to_string(),
            };
            damaged.push(format!("name {:?}: {what}", name_of(&file)));
        }
        Ok((images, damaged))
    }

    /// Those of the layers `there` that were made of tar streams: by the digest of the stream.
    ///
    /// # Errors
    /// As [`Images::all`].
    pub fn known_layers(&self, there: &[LayerId]) -> Result<HashMap<Digest, ImageLayer>> {
        let there: BTreeSet<&LayerId> = there.iter().collect();
        // Nothing proves of a layer in our own form that it has what its diff ID says.
        let all = self.all()?.into_iter().filter(|(image, _)| image.is_proved());
        let all = all.flat_map(|(image, _)| image.layers);
        let here = all.filter(|layer| there.contains(&layer.id));
        Ok(here.filter_map(|layer| Some((layer.diff_id.tar()?.clone(), layer))).collect())
    }

    /// Takes a name away, and the image with its last name. An id takes the image with all names.
    /// Its layers stay until they are collected. Answers what was removed: the name by which it was
    /// found.
    ///
    /// # Errors
    /// [`CatalogError::Missing`].
    pub fn remove(&self, text: &str) -> Result<String> {
        let (image, shown) = self.find_named(text)?;
        let names = self.names()?.remove(&image.id).unwrap_or_default();
        let asked = full_name(&shown).ok().or_else(|| digest_name(&shown));
        let asked = asked.filter(|name| names.contains(name));
        let gone: Vec<&String> = match &asked {
            Some(name) => vec![name],
            None => names.iter().collect(),
        };
        for name in &gone {
            let path = self.names.join(file_name(name));
            fs::remove_file(&path).map_err(CatalogError::io(&path))?;
        }
        if gone.len() == names.len() {
            let path = self.images.join(&image.id);
            fs::remove_file(&path).map_err(CatalogError::io(&path))?;
        }
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::containers::Containers;
    use crate::store::id::DiffId;

    struct Place {
        _dir: tempfile::TempDir,
        images: Images,
        containers: Containers,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path()).unwrap();
        let containers = Containers::open(dir.path()).unwrap();
        Place { _dir: dir, images, containers }
    }

    fn layer(file: &str) -> ImageLayer {
        let digest = Digest::sha256(file.as_bytes());
        let (id, diff_id) = (LayerId::of(file.as_bytes()), DiffId::Tar(digest));
        ImageLayer { id, diff_id, digest: None, size: 1 }
    }

    fn image(digit: char, layers: Vec<ImageLayer>) -> Image {
        let id = digit.to_string().repeat(64);
        Image { id, layers, config: b"{}".to_vec(), manifest: None }
    }

    #[test]
    fn images_are_found_by_name_and_id() {
        let place = place();
        let one = image('a', vec![layer("l")]);
        place.images.put(&one, &["x/y".to_owned(), "z:2".to_owned()]).unwrap();
        for text in ["x/y", "x/y:latest", "z:2", "aaa", &one.id, &format!("@sha256:{}", one.id)] {
            assert_eq!(place.images.find(text).unwrap(), one, "{text}");
        }
        assert!(matches!(place.images.find("z"), Err(CatalogError::Missing { .. })));
        let pulled = Image { manifest: Some(b"{}".to_vec()), ..image('c', Vec::new()) };
        place.images.put(&pulled, &[]).unwrap();
        let digest = Digest::sha256(b"{}").hex().to_owned();
        for text in [format!("@sha256:{digest}"), format!("quay.io/a/b@sha256:{digest}")] {
            assert_eq!(place.images.find(&text).unwrap(), pulled);
        }
        // By the digest of a list that named it, until that name goes.
        let of_list = format!("a/b:1@sha256:{}", "e".repeat(64));
        place.images.put_digest_name(&pulled.id, &of_list).unwrap();
        assert_eq!(place.images.find(&of_list.replace(":1@", "@")).unwrap(), pulled);
        assert!(place.images.put_digest_name(&pulled.id, "../x@sha256:00").is_err());
        place.images.remove(&of_list).unwrap();
        assert!(place.images.find(&of_list).is_err());
        place.images.put(&pulled, &[]).unwrap();
        place.images.remove(&pulled.id).unwrap();
        place.images.remove("z:2").unwrap();
        assert_eq!(place.images.all().unwrap(), [(one, vec!["x/y:latest".to_owned()])]);
        place.images.remove("x/y").unwrap();
        assert_eq!(place.images.all().unwrap(), []);
    }

    #[test]
    fn short_names_are_resolved_and_the_full_one_is_told() {
        let place = place();
        let [one, two, three] = ['a', 'b', 'c'].map(|digit| image(digit, Vec::new()));
        place.images.put(&one, &["docker.io/library/d".to_owned()]).unwrap();
        place.images.put(&two, &["localhost/e".to_owned(), "docker.io/a/e:2".to_owned()]).unwrap();
        let found = |text: &str| place.images.find_named(text);
        assert_eq!(found("d").unwrap(), (one.clone(), "docker.io/library/d:latest".to_owned()));
        assert_eq!(found("docker.io/d:latest").unwrap().0, one);
        assert_eq!(found("e").unwrap(), (two.clone(), "localhost/e:latest".to_owned()));
        assert_eq!(found("a/e:2").unwrap().1, "docker.io/a/e:2");
        assert!(found("x/d").is_err() && found("quay.io/d").is_err());
        // The name itself comes first.
        place.images.put(&three, &["d".to_owned()]).unwrap();
        assert_eq!(found("d").unwrap(), (three, "d".to_owned()));
        place.images.remove("d").unwrap();
        assert_eq!(place.images.remove("d").unwrap(), "docker.io/library/d:latest");
        assert_eq!(place.images.all().unwrap().len(), 1);
    }

    #[test]
    fn verification_names_records_and_names() {
        let place = place();
        let id = Digest::sha256(b"{}").hex().to_owned();
        let good = Image { id: id.clone(), ..image('a', Vec::new()) };
        place.images.put(&good, &["good".to_owned(), "cut".to_owned()]).unwrap();
        place.images.put(&image('b', Vec::new()), &["gone".to_owned()]).unwrap();
        assert_eq!(place.images.verify().unwrap().1.len(), 1, "the digest of a configuration");
        fs::write(place.images.images.join("b".repeat(64)), "nonsense").unwrap();
        fs::write(place.images.names.join("cut:latest"), &id[..20]).unwrap();
        let (images, damaged) = place.images.verify().unwrap();
        assert_eq!(images, [good]);
        assert_eq!(damaged.len(), 2, "{damaged:?}");
        fs::remove_file(place.images.images.join("b".repeat(64))).unwrap();
        let (_, damaged) = place.images.verify().unwrap();
        assert!(damaged[1].starts_with("name \"gone:latest\""), "{damaged:?}");
        let containers = place.containers.dir().join("c".repeat(64));
        fs::create_dir(&containers).unwrap();
        fs::write(containers.join("record"), "nonsense").unwrap();
        assert_eq!(place.containers.verify().unwrap().1.len(), 1);
    }
}
