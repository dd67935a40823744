//! The driver `local`: a directory, or what mount(8) would put there, with the options of Docker's
//! driver of this name: `type=`, `device=` and `o=`.
//!
//! Without options the content is the directory `_data` itself. With them it is mounted there at
//! the first use.

use std::net::ToSocketAddrs;
use std::path::Path;

use super::driver::{Driver, Limits, Place, Spec, Usage};
use super::error::{Result, VolumeError};
use super::{mounted, tree};
use crate::error::FromHost;
use crate::sys::filesystem::{self, MountSource};

const NAME: &str = "local";

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDriver;

/// The options of a volume that is mounted.
struct Options<'a> {
    kind: &'a str,
    device: &'a str,
    words: Vec<&'a str>,
}

fn refuse(key: &str, value: &str, reason: impl Into<String>) -> VolumeError {
    let (key, value, reason) = (key.to_owned(), value.to_owned(), reason.into());
    VolumeError::Option { driver: NAME, key, value, reason }
}

fn options(spec: &Spec) -> Result<Option<Options<'_>>> {
    for (key, value) in &spec.options {
        if !matches!(key.as_str(), "type" | "device" | "o") {
            return Err(refuse(key, value, "unknown option: use type, device, o"));
        }
    }
    let option =
        |key: &str| spec.options.get(key).map(String::as_str).filter(|one| !one.is_empty());
    let words = option("o").map(|text| text.split(',').filter(|word| !word.is_empty()).collect());
    match (option("type"), option("device"), words) {
        (None, None, None) => Ok(None),
        (Some(kind), Some(device), words) => {
            Ok(Some(Options { kind, device, words: words.unwrap_or_default() }))
        }
        (None, Some(device), Some(words)) => {
            let bind = |word: &&str| matches!(*word, "bind" | "rbind");
            match words.iter().any(bind) {
                true => Ok(Some(Options { kind: "none", device, words })),
                false => Err(refuse("device", device, "it needs type= too")),
            }
        }
        (Some(kind), None, _) => Err(refuse("type", kind, "it needs device= too")),
        (None, Some(device), None) => Err(refuse("device", device, "it needs type= or o=bind too")),
        (None, None, Some(words)) => {
            Err(refuse("o", &words.join(","), "it needs type= and device= too"))
        }
    }
}

impl Options<'_> {
    fn bind(&self) -> Option<bool> {
        self.words.iter().find_map(|word| match *word {
            "bind" => Some(false),
            "rbind" => Some(true),
            _ => None,
        })
    }

    /// The words of mount(8), with the address of a server resolved.
    fn words(&self) -> Result<Vec<String>> {
        let words = self.words.iter().filter(|word| !matches!(**word, "bind" | "rbind"));
        words.map(|word| self.resolved(word)).collect()
    }

    /// `addr=NAME` of a network file system as `addr=NUMBER`: the kernel resolves no names.
    fn resolved(&self, word: &str) -> Result<String> {
        let is_network = self.kind.starts_with("nfs") || self.kind == "cifs";
        let Some(host) = word.strip_prefix("addr=").filter(|_| is_network) else {
            return Ok(word.to_owned());
        };
        let wrap = |error: std::io::Error| refuse("o", word, error.to_string());
        let found = (host, 0).to_socket_addrs().map_err(wrap)?.next();
        found
            .map(|address| format!("addr={}", address.ip()))
            .ok_or_else(|| refuse("o", word, "the host has no address"))
    }
}

fn no_snapshots(verb: &'static str) -> VolumeError {
    let reason = "a directory has no moment at which all of it is copied; use --driver image";
    VolumeError::Unsupported { driver: NAME, verb, reason: reason.to_owned() }
}

impl Driver for LocalDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        if let Some(options) = options(spec)?
            && options.bind().is_some()
        {
            let device = Path::new(options.device);
            if !device.is_absolute() {
                return Err(refuse("device", options.device, "a bind needs an absolute path"));
            }
            let found = std::fs::metadata(device).map_err(VolumeError::io(device))?;
            if !found.is_dir() {
                return Err(refuse("device", options.device, "it is not a directory"));
            }
        }
        if spec.limits == Limits::default() {
            return Ok(());
        }
        Err(VolumeError::Unsupported {
            driver: NAME,
            verb: "a size",
            reason: "a directory has no limit of its own; use --driver image".to_owned(),
        })
    }

    fn create(&self, _: &Place, _: &Spec) -> Result<()> {
        Ok(())
    }

    fn mount(&self, place: &Place, spec: &Spec) -> Result<()> {
        let Some(options) = options(spec)? else { return Ok(()) };
        if mounted::is_mounted(place)? {
            return Ok(());
        }
        let target = place.data();
        let words = options.words()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let source = match options.bind() {
            Some(recursive) => MountSource::Bind { path: Path::new(options.device), recursive },
            None => MountSource::Device { kind: options.kind, device: options.device },
        };
        filesystem::mount(&target, source, &words).map_err(|error| {
            let source = std::io::Error::from_raw_os_error(error.errno().0);
            let reason = format!("mounting failed: {source}");
            refuse("device", options.device, reason)
        })
    }

    /// What somebody else mounted on the directory of a volume without options is not ours.
    fn unmount(&self, place: &Place, spec: &Spec) -> Result<()> {
        match options(spec)? {
            Some(options) => mounted::unmount(place, options.bind().is_some()),
            None => Ok(()),
        }
    }

    fn is_private(&self) -> bool {
        false
    }

    fn usage(&self, place: &Place, _: &Spec) -> Result<Usage> {
        if mounted::is_mounted(place)? {
            return mounted::usage(place);
        }
        tree::usage(&place.data())
    }

    fn copy(&self, _: &Place, _: &Spec, _: &Place) -> Result<()> {
        Err(no_snapshots("snapshots"))
    }

    fn replace(&self, _: &Place, _: &Spec, _: &Place) -> Result<()> {
        Err(no_snapshots("rollback"))
    }

    fn resize(&self, _: &Place, spec: &Spec, limits: Limits) -> Result<()> {
        self.check(&Spec { limits, ..spec.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spec(options: &[(&str, &str)]) -> Spec {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Spec { options: options.collect::<BTreeMap<_, _>>(), ..Spec::default() }
    }

    #[test]
    fn options_are_those_of_docker() {
        let driver = LocalDriver;
        for good in [
            &[][..],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=1000")],
            &[("type", "none"), ("o", "bind"), ("device", "/")],
            &[("o", "bind"), ("device", "/")],
            &[("type", "nfs"), ("device", ":/x"), ("o", "addr=127.0.0.1")],
        ] {
            driver.check(&spec(good)).unwrap();
        }
        for (bad, word) in [
            (&[("type", "tmpfs")][..], "device="),
            (&[("device", "/x")], "type="),
            (&[("o", "ro")], "type="),
            (&[("colour", "red")], "unknown option"),
            (&[("o", "bind"), ("device", "relative")], "absolute"),
            (&[("o", "bind"), ("device", "/proc/self/exe")], "not a directory"),
        ] {
            let error = driver.check(&spec(bad)).unwrap_err().to_string();
            assert!(error.contains(word), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_size_is_refused_by_name() {
        let limits = Limits { size_bytes: Some(1), inodes: None };
        let error = LocalDriver.check(&Spec { limits, ..Spec::default() }).unwrap_err();
        assert!(matches!(error, VolumeError::Unsupported { verb: "a size", .. }), "{error}");
    }
}
