//! The driver `local`: a directory, or what mount(8) would put there, with the options of Docker's
//! driver of this name: `type=`, `device=` and `o=`.
//!
//! Without options the content is the directory `_data` itself. With them it is mounted there at
//! the first use. A volume that is made with a size is served as one of the driver `union`, whose
//! process counts what is written.

use std::net::ToSocketAddrs;
use std::path::Path;

use super::driver::{Driver, Freezing, Limits, OnCopied, Place, SPEED_ELSEWHERE, Spec, Usage};
use super::error::{Result, VolumeError};
use super::union::{UnionDriver, stack};
use super::{mounted, tree};
use crate::error::FromHost;
use crate::sys::filesystem::{self, MountSource};

const NAME: &str = "local";
/// The option that allows a size beyond what the host has free.
const OVERCOMMIT: &str = "overcommit";
/// Limits on speed, which only the process of a volume with a size can hold.
const SPEED: [&str; 2] = ["iops", "bandwidth"];

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
        let is_speed = SPEED.contains(&key.as_str());
        if !is_speed && !matches!(key.as_str(), "type" | "device" | "o" | OVERCOMMIT) {
            let known = "unknown option: use type, device, o, overcommit, iops or bandwidth";
            return Err(refuse(key, value, known));
        }
        if is_speed && spec.limits == Limits::default() {
            let reason = "the volume has no size, so its reads and writes do not pass through \
                          Lamina; make it with --size, or use --driver union";
            return Err(refuse(key, value, reason));
        }
        if key == OVERCOMMIT && !matches!(value.as_str(), "true" | "false") {
            return Err(refuse(key, value, "use true or false"));
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

/// Whether a process serves a volume: one that was made with a size.
fn is_counted(place: &Place) -> bool {
    stack::exists(place.directory())
}

fn no_snapshots(verb: &'static str) -> VolumeError {
    let reason = "a directory has no moment at which all of it is copied; make it with --size, or \
                  use --driver union";
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
        match options(spec)? {
            None => UnionDriver.check(spec),
            Some(options) => Err(VolumeError::Unsupported {
                driver: NAME,
                verb: "a size of what is mounted",
                reason: match options.kind {
                    "tmpfs" => "its own option has it: use --opt o=size=64m",
                    _ => "others can write to it; use a volume without type=, device= and o=",
                }
                .to_owned(),
            }),
        }
    }

    fn create(&self, place: &Place, spec: &Spec) -> Result<()> {
        if spec.limits == Limits::default() {
            return Ok(());
        }
        UnionDriver.create(place, spec)
    }

    fn mount(&self, place: &Place, spec: &Spec) -> Result<()> {
        if is_counted(place) {
            return UnionDriver.mount(place, spec);
        }
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
        if is_counted(place) {
            return UnionDriver.unmount(place, spec);
        }
        match options(spec)? {
            Some(options) => mounted::unmount(place, options.bind().is_some()),
            None => Ok(()),
        }
    }

    fn is_private(&self, spec: &Spec) -> bool {
        spec.limits != Limits::default()
    }

    fn usage(&self, place: &Place, spec: &Spec) -> Result<Usage> {
        if is_counted(place) {
            return UnionDriver.usage(place, spec);
        }
        if mounted::is_mounted(place)? {
            return mounted::usage(place);
        }
        tree::usage(&place.data())
    }

    fn throttle(&self, place: &Place, spec: &Spec) -> Result<()> {
        if is_counted(place) {
            return UnionDriver.throttle(place, spec);
        }
        let (verb, reason) = ("limits on speed", SPEED_ELSEWHERE.to_owned());
        Err(VolumeError::Unsupported { driver: NAME, verb, reason })
    }

    fn copy(&self, place: &Place, spec: &Spec, to: &Place, on_copied: &OnCopied) -> Result<()> {
        match is_counted(place) {
            true => UnionDriver.copy(place, spec, to, on_copied),
            false => Err(no_snapshots("snapshots")),
        }
    }

    fn freezing(&self, place: &Place, spec: &Spec) -> Result<Option<Box<dyn Freezing>>> {
        if is_counted(place) { UnionDriver.freezing(place, spec) } else { Ok(None) }
    }

    fn replace(
        &self,
        place: &Place,
        spec: &Spec,
        from: &Place,
        on_copied: &OnCopied,
    ) -> Result<()> {
        match is_counted(place) {
            true => UnionDriver.replace(place, spec, from, on_copied),
            false => Err(no_snapshots("rollback")),
        }
    }

    fn promised_bytes(&self, place: &Place, spec: &Spec) -> Result<u64> {
        UnionDriver.promised_bytes(place, spec)
    }

    fn resize(&self, place: &Place, spec: &Spec, limits: Limits) -> Result<()> {
        let new = Spec { limits, ..spec.clone() };
        self.check(&new)?;
        if is_counted(place) {
            return UnionDriver.resize(place, spec, limits);
        }
        if limits == Limits::default() {
            return Ok(());
        }
        Err(VolumeError::Unsupported {
            driver: NAME,
            verb: "a size of a directory that the host writes to",
            reason: "make a volume with --size, and copy: lamina volume export, import".to_owned(),
        })
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
    fn a_size_of_what_is_mounted_is_refused_by_name() {
        let limits = Limits { size_bytes: Some(1 << 30), inodes: None };
        let options = [("type", "tmpfs"), ("device", "tmpfs")];
        let error = LocalDriver.check(&Spec { limits, ..spec(&options) }).unwrap_err();
        assert!(error.to_string().contains("o=size=64m"), "{error}");
        LocalDriver.check(&Spec { limits, ..spec(&[]) }).unwrap();
        LocalDriver.check(&Spec { limits, ..spec(&[(OVERCOMMIT, "maybe")]) }).unwrap_err();
    }
}
