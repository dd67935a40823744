//! The images of an OCI image layout.

use super::found::{FoundImage, FoundLayer, bounded, diff_ids, json, missing};
use super::parts::Parts;
use crate::format::oci::{Answer, DATA_TYPE, Descriptor, INDEX_TYPE, Index, Layout, Manifest};
use crate::store::native::INDEX_MAX;
use crate::sys::process::architecture;
use crate::transfer::error::TransferError;
use crate::transfer::limits::{CONFIG_MAX, MANIFEST_MAX};
use crate::transfer::path::shown;
use crate::types::Digest;

/// Limit of nested indexes from `index.json` to a manifest.
const DEPTH_MAX: usize = 4;

/// Returns the document with a digest (second argument). The first argument is the kind of the
/// address.
type Fetch<'a> = dyn FnMut(&str, &str) -> Result<Vec<u8>, TransferError> + 'a;

// How well the platform suits this host, smaller is better; `None` for another platform.
fn distance(descriptor: &Descriptor) -> Option<u8> {
    let Some(platform) = &descriptor.platform else { return Some(1) };
    let same = platform.architecture.as_deref() == Some(architecture())
        && platform.os.as_deref().is_none_or(|os| os == "linux");
    // Not every amd64 processor supports the instructions of `amd64/v3`.
    let plain = matches!(platform.variant.as_deref(), None | Some("" | "v8" | "v7" | "v1"));
    same.then_some(if plain { 0 } else { 2 })
}

/// The images of a layout, given the content of its file `oci-layout`.
pub(super) fn images(parts: &Parts, layout: &[u8]) -> Result<Vec<FoundImage>, TransferError> {
    let layout: Layout = json("oci-layout", layout)?;
    if !layout.image_layout_version.starts_with("1.") {
        let version = shown(layout.image_layout_version.as_bytes());
        let what = format!("OCI image layout {version} is not supported; 1.0.0 is");
        return Err(TransferError::Unsupported { what });
    }
    let raw = parts.read("index.json", MANIFEST_MAX)?.ok_or_else(|| missing("index.json"))?;
    let index: Index = json("index.json", &raw)?;
    let mut found: Vec<(Descriptor, Vec<String>)> = Vec::new();
    for (name, group) in groups(index) {
        for chosen in chosen(group)? {
            let chosen = descend(parts, chosen)?;
            match found.iter_mut().find(|(known, _)| known.digest == chosen.digest) {
                Some((_, names)) => names.extend(name.clone()),
                None => found.push((chosen, name.clone().into_iter().collect())),
            }
        }
    }
    bounded(found.into_iter().map(|(descriptor, names)| image(parts, &descriptor, names)))
}

// The images of an index in its order, grouped by name.
fn groups(index: Index) -> Vec<(Option<String>, Vec<Descriptor>)> {
    let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
    for descriptor in index.manifests.unwrap_or_default() {
        if !descriptor.is_image() {
            continue;
        }
        let name = descriptor.name().cloned();
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    groups
}

// Images of one name with platforms are variants of one image; each image without a platform is an
// image of its own.
fn chosen(group: Vec<Descriptor>) -> Result<Vec<Descriptor>, TransferError> {
    let (stated, mut chosen): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|descriptor| descriptor.platform.is_some());
    match stated.len() {
        0 => {}
        _ => chosen.push(of_this_host(stated)?),
    }
    Ok(chosen)
}

fn of_this_host(candidates: Vec<Descriptor>) -> Result<Descriptor, TransferError> {
    // A single candidate is taken for any platform, as with `docker save` of an image of another
    // one.
    if candidates.len() == 1 {
        return candidates.into_iter().next().ok_or_else(nothing);
    }
    let platforms = candidates
        .iter()
        .filter_map(|descriptor| descriptor.platform.as_ref()?.architecture.clone())
        .collect::<Vec<_>>()
        .join(", ");
    let suited = candidates.into_iter().filter_map(|one| Some((distance(&one)?, one)));
    let best = suited.min_by_key(|(distance, _)| *distance).map(|(_, one)| one);
    best.ok_or_else(|| {
        let platforms = shown(platforms.as_bytes());
        TransferError::OtherHost { platforms, host: architecture() }
    })
}

fn encrypted() -> TransferError {
    let what = "a layer of the image is encrypted, which is not supported".to_owned();
    TransferError::Unsupported { what }
}

fn nothing() -> TransferError {
    TransferError::malformed("an index of the archive names no image")
}

// Follows indexes down to a manifest.
fn descend(parts: &Parts, mut descriptor: Descriptor) -> Result<Descriptor, TransferError> {
    for _ in 0..DEPTH_MAX {
        if !descriptor.is_index() {
            return Ok(descriptor);
        }
        let raw = blob(parts, &descriptor, MANIFEST_MAX)?;
        let index: Index = json(&descriptor.digest, &raw)?;
        let images = index.manifests.unwrap_or_default().into_iter().filter(Descriptor::is_image);
        descriptor = of_this_host(images.collect()).map_err(|error| match error {
            error if error.is_of_content() => {
                let index = shown(descriptor.digest.as_bytes());
                TransferError::Malformed { what: format!("index {index}: {error}") }
            }
            other => other,
        })?;
    }
    Err(TransferError::malformed("indexes of the archive are nested more than 4 deep"))
}

// The bytes of a descriptor, verified.
fn blob(parts: &Parts, descriptor: &Descriptor, longest: u64) -> Result<Vec<u8>, TransferError> {
    let digest = Digest::parse(&descriptor.digest)?;
    let part = digest.part();
    let bytes = parts.read(&part, longest)?.ok_or_else(|| missing(&part))?;
    check_size(descriptor, bytes.len() as u64)?;
    digest.check(&bytes)?;
    Ok(bytes)
}

fn check_size(descriptor: &Descriptor, found: u64) -> Result<(), TransferError> {
    match descriptor.size {
        Some(stated) if stated != found => {
            let digest = &descriptor.digest;
            let what = format!("{digest} has {found} bytes, but its descriptor has {stated}");
            Err(TransferError::Malformed { what })
        }
        _ => Ok(()),
    }
}

fn image(
    parts: &Parts,
    descriptor: &Descriptor,
    names: Vec<String>,
) -> Result<FoundImage, TransferError> {
    let raw = blob(parts, descriptor, MANIFEST_MAX)?;
    let manifest: Manifest = json(&descriptor.digest, &raw)?;
    let stated = manifest.config.ok_or_else(|| {
        TransferError::malformed("a manifest of the archive has no config: it is not an image")
    })?;
    let config = blob(parts, &stated, CONFIG_MAX)?;
    let listed = manifest.layers.unwrap_or_default();
    let listed = paired(listed)?;
    let ids = diff_ids(&stated.digest, &config, listed.len())?;
    let layers = listed.into_iter().zip(ids).map(|((index, listed), id)| {
        let index = index.map(|index| layer(parts, index, id.clone())).transpose()?;
        Ok(FoundLayer { index: index.map(Box::new), ..layer(parts, listed, id)? })
    });
    Ok(FoundImage {
        names,
        manifest: Some(raw),
        // The ID of an image is its SHA-256, even if the manifest uses another algorithm.
        config_digest: Digest::sha256(&config),
        layers: layers.collect::<Result<_, TransferError>>()?,
        config,
    })
}

fn layer(parts: &Parts, listed: Descriptor, diff_id: Digest) -> Result<FoundLayer, TransferError> {
    if listed.media_type.as_deref().is_some_and(|kind| kind.ends_with("+encrypted")) {
        return Err(encrypted());
    }
    let digest = Digest::parse(&listed.digest)?;
    let part = digest.part();
    let size = parts.find(&part)?.ok_or_else(|| missing(&part))?.len();
    check_size(&listed, size)?;
    let media_type = listed.media_type;
    Ok(FoundLayer { media_type, digest: Some(digest), diff_id, size, index: None, part })
}

/// Pairs the index of a layer in Lamina's own form with the data that follow it.
fn paired(listed: Vec<Descriptor>) -> Result<Vec<(Option<Descriptor>, Descriptor)>, TransferError> {
    let lone =
        || TransferError::malformed("the index of a layer and its data do not follow each other");
    let is = |one: &Descriptor, kind: &str| one.media_type.as_deref() == Some(kind);
    let mut pairs = Vec::with_capacity(listed.len());
    let mut listed = listed.into_iter();
    while let Some(first) = listed.next() {
        if is(&first, DATA_TYPE) {
            return Err(lone());
        }
        if !is(&first, INDEX_TYPE) {
            pairs.push((None, first));
            continue;
        }
        let data = listed.next().filter(|second| is(second, DATA_TYPE)).ok_or_else(lone)?;
        pairs.push((Some(first), data));
    }
    Ok(pairs)
}

/// Parses the answer of a registry for a reference: a manifest, or an index, from which the
/// manifest for this host is taken. `fetch` receives the kind of the address (`manifests` or
/// `blobs`) and the digest; its result is verified here.
pub(in crate::transfer) fn image_of_registry(
    mut raw: Vec<u8>,
    fetch: &mut Fetch<'_>,
) -> Result<FoundImage, TransferError> {
    for _ in 0..DEPTH_MAX {
        let found: Answer = json("the manifest", &raw)?;
        let Some(manifests) = found.manifests else {
            return described(raw, found.config, found.layers.unwrap_or_default(), fetch);
        };
        // Readers with different precedence would see two different images under one digest.
        if found.config.is_some() || found.layers.is_some() {
            return Err(TransferError::malformed("the manifest is an index and an image at once"));
        }
        let images = manifests.into_iter().filter(Descriptor::is_image).collect::<Vec<_>>();
        let chosen = of_this_host(images)?;
        if distance(&chosen).is_none() {
            let host = architecture();
            return Err(TransferError::Malformed {
                what: format!("the index has no image for linux and {host}"),
            });
        }
        raw = fetched(&chosen, "manifests", fetch)?;
    }
    Err(TransferError::malformed("indexes are nested more than 4 deep"))
}

fn fetched(
    descriptor: &Descriptor,
    kind: &str,
    fetch: &mut Fetch<'_>,
) -> Result<Vec<u8>, TransferError> {
    let digest = Digest::parse(&descriptor.digest)?;
    let bytes = fetch(kind, &descriptor.digest)?;
    check_size(descriptor, bytes.len() as u64)?;
    digest.check(&bytes)?;
    Ok(bytes)
}

fn described(
    raw: Vec<u8>,
    config: Option<Descriptor>,
    listed: Vec<Descriptor>,
    fetch: &mut Fetch<'_>,
) -> Result<FoundImage, TransferError> {
    let stated = config.ok_or_else(|| {
        TransferError::malformed("the manifest has no config: it is not an image, or has schema 1")
    })?;
    let config = fetched(&stated, "blobs", fetch)?;
    let listed = paired(listed)?;
    let ids = diff_ids(&stated.digest, &config, listed.len())?;
    let mut layers = Vec::with_capacity(listed.len());
    for ((index, listed), diff_id) in listed.into_iter().zip(ids) {
        let index = index.map(|index| of_registry(index, diff_id.clone())).transpose()?;
        // The index is downloaded before anything else of the layer is checked.
        if let Some(size) = index.as_ref().map(|index| index.size).filter(|size| *size > INDEX_MAX)
        {
            let what = format!("the index of a layer has {size} bytes; {INDEX_MAX} is the limit");
            return Err(TransferError::TooLarge { what });
        }
        layers.push(FoundLayer { index: index.map(Box::new), ..of_registry(listed, diff_id)? });
    }
    let config_digest = Digest::sha256(&config);
    Ok(FoundImage { names: Vec::new(), manifest: Some(raw), config, config_digest, layers })
}

fn of_registry(listed: Descriptor, diff_id: Digest) -> Result<FoundLayer, TransferError> {
    if listed.media_type.as_deref().is_some_and(|kind| kind.ends_with("+encrypted")) {
        return Err(encrypted());
    }
    let digest = Digest::parse(&listed.digest)?;
    let (Some(size), true) = (listed.size, digest.is_sha256()) else {
        let what = format!("layer {digest} has no size, or no SHA-256 for its digest");
        return Err(TransferError::Malformed { what });
    };
    let (media_type, part) = (listed.media_type, digest.part());
    Ok(FoundLayer { media_type, digest: Some(digest), diff_id, size, index: None, part })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{ImageSource, Input, open_input};
    use super::*;
    use crate::format::oci::{INDEXES, MANIFESTS, NAME_CONTAINERD, NAME_OCI, is_native};
    use std::collections::BTreeMap;

    /// The blobs of a layout and its index.
    #[derive(Default)]
    struct Layout {
        blobs: BTreeMap<String, Vec<u8>>,
    }

    impl Layout {
        fn blob(&mut self, bytes: &[u8]) -> (String, usize) {
            let digest = sha256(bytes);
            self.blobs.insert(digest.clone(), bytes.to_vec());
            (digest, bytes.len())
        }

        fn descriptor(&mut self, kind: &str, bytes: &[u8], more: &str) -> String {
            let (digest, size) = self.blob(bytes);
            format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}{more}}}"#)
        }

        /// A manifest of one layer.
        fn image(&mut self, name: &str, more: &str) -> String {
            let tar = layer_tar(name);
            let config = self.descriptor("c", &config(&[&tar]), "");
            let layer = self.descriptor("l", &gzip(&tar), "");
            let manifest = format!(r#"{{"config":{config},"layers":[{layer}]}}"#);
            self.descriptor(MANIFESTS[0], manifest.as_bytes(), more)
        }

        fn index(descriptors: &[&str]) -> String {
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptors.join(","))
        }

        fn tar(&self, index: &str) -> Vec<u8> {
            let mut tar = Tar::default().member(b'5', "blobs/", b"");
            for (digest, bytes) in &self.blobs {
                tar = tar.file(&format!("blobs/sha256/{digest}"), bytes);
            }
            tar.file("index.json", index.as_bytes())
                .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
                .end()
        }

        fn images(&self, index: &str) -> Result<Vec<FoundImage>, TransferError> {
            opened(&self.tar(index)).unwrap().images()
        }
    }

    fn named(key: &str, name: &str) -> String {
        format!(r#","annotations":{{"{key}":"{name}"}}"#)
    }

    fn platform(architecture: &str) -> String {
        format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}"#)
    }

    fn host() -> &'static str {
        architecture()
    }

    fn error(images: Result<Vec<FoundImage>, TransferError>) -> String {
        images.unwrap_err().to_string()
    }

    #[test]
    fn a_layout_is_read_as_tar_and_as_directory() {
        let mut layout = Layout::default();
        let first = layout.image("one", &named(NAME_OCI, "1.0"));
        let again = first.replace("1.0", "latest");
        let second = layout.image("two", &named(NAME_CONTAINERD, "docker.io/library/two:1"));
        let index = Layout::index(&[&first, &again, &second]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        for (digest, bytes) in &layout.blobs {
            std::fs::write(dir.path().join("blobs/sha256").join(digest), bytes).unwrap();
        }
        std::fs::write(dir.path().join("index.json"), &index).unwrap();
        let marker = br#"{"imageLayoutVersion":"1.0.0"}"#;
        std::fs::write(dir.path().join("oci-layout"), marker).unwrap();
        let directory = directory(dir.path());
        for source in [directory, opened(&layout.tar(&index)).unwrap()] {
            let images = source.images().unwrap();
            let [one, two] = images.as_slice() else { panic!("{images:?}") };
            assert_eq!(one.names, ["1.0", "latest"]);
            assert_eq!(two.names, ["docker.io/library/two:1"]);
            let layer = two.layers.first().unwrap();
            assert_eq!(layer.diff_id.to_string(), format!("sha256:{}", sha256(&layer_tar("two"))));
            assert_eq!(
                layer.digest.as_ref().unwrap().to_string(),
                format!("sha256:{}", sha256(&gzip(&layer_tar("two"))))
            );
            assert_eq!(layer.media_type.as_deref(), Some("l"));
            assert_eq!(imported(&source, layer), ["file /two 3"]);
            assert_eq!(one.config_digest.to_string(), format!("sha256:{}", sha256(&one.config)));
            assert!(one.manifest.as_ref().is_some_and(|raw| raw.starts_with(b"{\"config\"")));
        }
    }

    fn directory(path: &std::path::Path) -> ImageSource {
        match open_input(path, path).unwrap() {
            Input::Images(source) => source,
            _ => panic!("no layout"),
        }
    }

    #[test]
    fn links_of_a_layout_into_proc_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("blobs/sha256")).unwrap();
        let mut layout = Layout::default();
        let image = layout.image("one", "");
        for (digest, bytes) in &layout.blobs {
            std::fs::write(at("outside"), bytes).unwrap();
            let open = std::fs::File::open(at("outside")).unwrap();
            let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
            std::fs::remove_file(at("outside")).unwrap();
            std::os::unix::fs::symlink(magic, at("blobs/sha256").join(digest)).unwrap();
            // Kept open on purpose: the link leads to the right bytes, and must be refused all the
            // same.
            std::mem::forget(open);
        }
        std::fs::write(at("index.json"), Layout::index(&[&image])).unwrap();
        std::fs::write(at("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let error = directory(dir.path()).images().unwrap_err();
        assert!(matches!(error, TransferError::Host(_)), "{error:?}");
    }

    #[test]
    fn an_archive_of_both_forms_keeps_the_manifest_of_the_same_layers() {
        let tar = layer_tar("one");
        let mut layout = Layout::default();
        let text = config(&[&tar]);
        let stated = layout.descriptor("c", &text, "");
        let layer = layout.descriptor("l", &tar, "");
        let manifest = format!(r#"{{"config":{stated},"layers":[{layer}]}}"#);
        let image = layout.descriptor(MANIFESTS[0], manifest.as_bytes(), "");
        let listed = |layer: &str| {
            let id = sha256(&text);
            format!(r#"[{{"Config":"blobs/sha256/{id}","RepoTags":["a:1"],"Layers":["{layer}"]}}]"#)
        };
        let archive = |layer: &str| {
            let mut whole = layout.tar(&Layout::index(&[&image]));
            whole.truncate(whole.len() - 1024);
            Tar(whole).file("other", &tar).file("manifest.json", listed(layer).as_bytes()).end()
        };
        let images = |layer: &str| opened(&archive(layer)).unwrap().images().unwrap();
        let both = images(&format!("blobs/sha256/{}", sha256(&tar)));
        assert_eq!(both[0].manifest.as_deref(), Some(manifest.as_bytes()));
        assert_eq!(both[0].names, ["a:1"]);
        // The layer in the list differs from the one in the manifest.
        assert_eq!(images("other")[0].manifest, None);
    }

    #[test]
    fn the_image_of_this_host_is_taken_from_nested_indexes() {
        let mut layout = Layout::default();
        let mine = layout.image("mine", &platform(host()));
        let other = layout.image("other", &platform("vax"));
        let attestation = layout.image(
            "proof",
            r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
        );
        let inner = Layout::index(&[&other, &attestation, &mine]);
        let inner = layout.descriptor(INDEXES[0], inner.as_bytes(), "");
        let outer = Layout::index(&[&inner]);
        let outer = layout.descriptor(INDEXES[1], outer.as_bytes(), &named(NAME_OCI, "a:1"));
        for index in [Layout::index(&[&outer]), Layout::index(&[&other, &mine])] {
            let images = layout.images(&index).unwrap();
            let [image] = images.as_slice() else { panic!("{images:?}") };
            let mine = format!("sha256:{}", sha256(&layer_tar("mine")));
            assert_eq!(image.layers.first().unwrap().diff_id.to_string(), mine);
        }
        let alone = layout.images(&Layout::index(&[&other])).unwrap();
        assert_eq!(alone.len(), 1, "an image of another platform alone");
        let third = layout.image("third", &platform("pdp11"));
        let foreign = error(layout.images(&Layout::index(&[&other, &third])));
        assert!(foreign.contains("vax, pdp11"), "{foreign}");
    }

    #[test]
    fn indexes_end() {
        let mut layout = Layout::default();
        let mut index = layout.image("deep", "");
        for _ in 0..5 {
            let raw = Layout::index(&[&index]);
            index = layout.descriptor(INDEXES[0], raw.as_bytes(), "");
        }
        assert!(error(layout.images(&Layout::index(&[&index]))).contains("nested"));
        let empty = layout.descriptor(INDEXES[0], b"{}", "");
        assert!(layout.images(&Layout::index(&[&empty])).is_err());
        assert_eq!(layout.images(r#"{"manifests":null}"#).unwrap(), []);
    }

    #[test]
    fn blobs_that_are_not_what_names_them_are_refused() {
        let mut layout = Layout::default();
        let image = layout.image("f", "");
        let index = Layout::index(&[&image]);
        let kinds = [("\"config\"", "damaged"), ("rootfs", "damaged")];
        for (content, expected) in kinds {
            let mut bad = Layout { blobs: layout.blobs.clone() };
            let blob = bad
                .blobs
                .values_mut()
                .find(|blob| blob.windows(content.len()).any(|part| part == content.as_bytes()));
            let last = blob.unwrap().last_mut().unwrap();
            *last = b' ';
            assert!(error(bad.images(&index)).contains(expected), "{content}");
        }
        let longer = index.replacen("\"size\":", "\"size\":1", 1);
        assert!(error(layout.images(&longer)).contains("its descriptor has"));
        let gz = sha256(&gzip(&layer_tar("f")));
        layout.blobs.remove(&gz);
        assert!(error(layout.images(&index)).contains("names blobs/sha256/"));
        let escape = r#"{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}"#;
        assert!(error(layout.images(escape)).contains("invalid digest"));
    }

    #[test]
    fn a_layer_in_our_own_form_is_a_pair() {
        let tar = layer_tar("f");
        let mut layout = Layout::default();
        let config = layout.descriptor("c", &config(&[&tar]), "");
        let index = layout.descriptor(INDEX_TYPE, b"index", "");
        let data = layout.descriptor(DATA_TYPE, b"data", "");
        let mut images = |layers: &str| {
            let manifest = format!(r#"{{"config":{config},"layers":[{layers}]}}"#);
            let image = layout.descriptor(MANIFESTS[0], manifest.as_bytes(), "");
            (is_native(manifest.as_bytes()), layout.images(&Layout::index(&[&image])))
        };
        let (native, found) = images(&format!("{index},{data}"));
        let found = found.unwrap();
        let [layer] = &found[0].layers[..] else { panic!("{found:?}") };
        assert!(native && layer.index.as_ref().is_some_and(|index| index.size == 5));
        assert_eq!((layer.size, layer.diff_id.to_string().len()), (4, 71));
        for layers in [format!("{data},{index}"), index.clone(), data.clone()] {
            assert!(error(images(&layers).1).contains("do not follow"), "{layers}");
        }
        let (native, found) = images(&format!("{index},{data},{index},{data}"));
        assert!(native && error(found).contains("1 diff IDs, but the manifest has 2"));
        // In any spelling.
        let escaped = INDEX_TYPE.replacen('/', "\\/", 1).replacen('v', "\\u0076", 1);
        assert!(is_native(
            format!(r#"{{"layers":[{{"mediaType":"{escaped}","digest":""}}]}}"#).as_bytes()
        ));
        assert!(is_native(b"{"), "who knows");
        assert!(!is_native(br#"{"layers":[]}"#));
    }

    #[test]
    fn artifacts_and_encrypted_layers_are_told_from_images() {
        let mut layout = Layout::default();
        let config = layout.descriptor("application/vnd.oci.empty.v1+json", b"{}", "");
        let chart = format!(r#"{{"config":{config},"layers":[]}}"#);
        let chart = layout.descriptor(MANIFESTS[0], chart.as_bytes(), "");
        assert!(error(layout.images(&Layout::index(&[&chart]))).contains("no rootfs"));
        let tar = layer_tar("f");
        let config = layout.descriptor("c", &super::super::testing::config(&[&tar]), "");
        let layer = layout.descriptor("application/vnd.oci.image.layer.v1.tar+encrypted", &tar, "");
        let secret = format!(r#"{{"config":{config},"layers":[{layer}]}}"#);
        let secret = layout.descriptor(MANIFESTS[0], secret.as_bytes(), "");
        assert!(error(layout.images(&Layout::index(&[&secret]))).contains("encrypted"));
    }
}
