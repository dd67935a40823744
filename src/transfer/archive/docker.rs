//! `manifest.json` of `docker save` and `podman save`.

use super::found::{FoundImage, FoundLayer, bounded, diff_ids, json, missing};
use super::parts::Parts;
use crate::format::oci::Listed;
use crate::transfer::error::TransferError;
use crate::transfer::limits::CONFIG_MAX;
use crate::types::Digest;
use crate::types::hex::is_hex;

/// The images in the text of `manifest.json`.
pub(super) fn images(parts: &Parts, raw: &[u8]) -> Result<Vec<FoundImage>, TransferError> {
    let listed: Vec<Listed> = json("manifest.json", raw)?;
    bounded(listed.into_iter().map(|listed| image(parts, listed)))
}

fn image(parts: &Parts, listed: Listed) -> Result<FoundImage, TransferError> {
    let config = parts.read(&listed.config, CONFIG_MAX)?;
    let config = config.ok_or_else(|| missing(&listed.config))?;
    if let Some(stated) = stated_config(&listed.config) {
        stated.check(&config)?;
    }
    let names = listed.layers.unwrap_or_default();
    let ids = diff_ids(&listed.config, &config, names.len())?;
    let layers = names.into_iter().zip(ids).map(|(name, diff_id)| layer(parts, name, diff_id));
    Ok(FoundImage {
        names: listed.repo_tags.unwrap_or_default(),
        manifest: None,
        config_digest: Digest::sha256(&config),
        layers: layers.collect::<Result<_, _>>()?,
        config,
    })
}

fn layer(parts: &Parts, part: String, diff_id: Digest) -> Result<FoundLayer, TransferError> {
    let size = parts.find(&part)?.ok_or_else(|| missing(&part))?.len();
    // In other places the digits of a name are an ID, a diff ID or a digest, depending on the
    // writer.
    let digest = blob(&part);
    Ok(FoundLayer { media_type: None, digest, diff_id, size, index: None, part })
}

fn blob(part: &str) -> Option<Digest> {
    let (algorithm, hex) = part.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

// Accepts `blobs/sha256/HEX`, `HEX.json`, and `sha256:HEX` of go-containerregistry.
fn stated_config(part: &str) -> Option<Digest> {
    let name = part.strip_suffix(".json").unwrap_or(part);
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    if is_hex(name, 64) {
        return Digest::parse(&format!("sha256:{name}")).ok();
    }
    blob(part)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn an_archive_of_docker_save_gives_names_and_layers() {
        let (low, high) = (layer_tar("low"), layer_tar("high"));
        let config = config(&[&low, &high]);
        let id = sha256(&config);
        let manifest = format!(
            r#"[{{"Config":"{id}.json","RepoTags":["a:1","b:2"],
                "Layers":["1/layer.tar","2/layer.tar"]}}]"#
        );
        let tar = Tar::default()
            .file("1/layer.tar", &low)
            .file("3/layer.tar", &high)
            .link(b'2', "2/layer.tar", "../3/layer.tar")
            .file(&format!("{id}.json"), &config)
            .file("manifest.json", manifest.as_bytes())
            .end();
        for archive in [tar.clone(), gzip(&tar), zstd(&tar)] {
            let source = opened(&archive).unwrap();
            let images = source.images().unwrap();
            let [image] = images.as_slice() else { panic!("{images:?}") };
            assert_eq!(image.names, ["a:1", "b:2"]);
            assert_eq!(image.config_digest.to_string(), format!("sha256:{id}"));
            assert_eq!((&image.config, &image.manifest), (&config, &None));
            assert_eq!(image.layers.len(), 2);
            for (layer, (tar, name)) in
                image.layers.iter().zip([(&low, "file /low 3"), (&high, "file /high 4")])
            {
                assert_eq!(layer.diff_id.to_string(), format!("sha256:{}", sha256(tar)));
                assert_eq!(layer.size, tar.len() as u64);
                assert_eq!(imported(&source, layer), [name]);
            }
        }
    }

    #[test]
    fn blobs_of_newer_dockers_have_their_digest() {
        let low = layer_tar("low");
        let config = config(&[&low]);
        let (id, hash) = (sha256(&config), sha256(&low));
        let manifest = format!(
            r#"[{{"Config":"blobs/sha256/{id}","RepoTags":null,"Layers":["blobs/sha256/{hash}"]}}]"#
        );
        let tar = Tar::default()
            .file(&format!("blobs/sha256/{id}"), &config)
            .file(&format!("blobs/sha256/{hash}"), &low)
            .file("manifest.json", manifest.as_bytes());
        let images = opened(&tar.end()).unwrap().images().unwrap();
        let image = images.first().unwrap();
        assert!(image.names.is_empty());
        let digest = image.layers.first().unwrap().digest.clone();
        assert_eq!(digest.unwrap().to_string(), format!("sha256:{hash}"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let low = layer_tar("low");
        let good = config(&[&low]);
        let id = sha256(&good);
        let case = |config: &[u8], config_name: &str, layers: &str| {
            let manifest = format!(r#"[{{"Config":"{config_name}","Layers":[{layers}]}}]"#);
            let tar = Tar::default()
                .file("l.tar", &low)
                .file(config_name, config)
                .file("manifest.json", manifest.as_bytes());
            opened(&tar.end()).unwrap().images().unwrap_err().to_string()
        };
        let named = format!("{id}.json");
        assert!(case(&[&good, b" ".as_slice()].concat(), &named, r#""l.tar""#).contains("damaged"));
        assert!(case(&good, &named, "").contains("1 diff IDs"));
        assert!(case(&good, &named, r#""l.tar","l.tar""#).contains("2 layers"));
        assert!(case(&good, &named, r#""other.tar""#).contains("names other.tar"));
        assert!(case(b"{}", "config.json", "").contains("no rootfs"));
        assert!(case(b"{", "config.json", "").contains("malformed"));
        assert!(case(&good, &named, r#""../l.tar""#).contains(".."));
        let bad_id = br#"{"rootfs":{"diff_ids":["sha256:../x"]}}"#;
        assert!(case(bad_id, "config.json", r#""l.tar""#).contains("invalid digest"));
    }

    #[test]
    fn a_manifest_has_a_longest_length() {
        let tar = Tar::default().file("manifest.json", &vec![b' '; (4 << 20) + 1]);
        let error = opened(&tar.end()).unwrap().images().unwrap_err().to_string();
        assert!(error.contains("limit"), "{error}");
        let nested = Tar::default().file("manifest.json", "[".repeat(100_000).as_bytes());
        assert!(opened(&nested.end()).unwrap().images().is_err());
    }

    #[test]
    fn a_layer_is_no_image_archive() {
        let error = opened(&layer_tar("f")).unwrap().images().unwrap_err().to_string();
        assert!(error.contains("no image archive"), "{error}");
    }
}
