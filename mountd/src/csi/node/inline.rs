//! Ephemeral inline volumes: made by the publication in a pod, and erased at its end.
//!
//! Their parameters come from the author of a pod, not from an administrator. So only those that
//! reach nothing of the host are possible. The name of the volume is a digest of the id that the
//! orchestrator uses, so that a repeated call finds what one that was killed left.

use std::collections::{BTreeMap, HashMap};

use laminafs::service::volumes::{NewVolume, Volume};
use laminafs::types::VolumeName;

use super::super::fault::{Fault, Outcome};
use super::super::{Driver, KUBERNETES};
use super::digest;

/// The label of an inline volume, with the id that the orchestrator uses.
const LABEL: &str = "lamina.dev/csi-inline";
/// The label with the digest of its parameters.
const ARGUMENTS: &str = "lamina.dev/csi-inline-parameters";
/// The key of a context by which an orchestrator asks for one.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
const DRIVER: &str = "driver";
const DRIVERS: [&str; 3] = ["union", "local", "image"];
/// The size of one for which none is named.
const SIZE_DEFAULT: &str = "1G";
/// The options that the author of a pod may set.
const OPTIONS: [&str; 5] = ["size", "inodes", "fs", "iops", "bandwidth"];

/// Whether a context asks for an inline volume.
pub(super) fn is_asked(context: &HashMap<String, String>) -> bool {
    context.get(EPHEMERAL).is_some_and(|value| value == "true")
}

/// Whether an id has the form that Kubernetes gives to inline volumes.
pub(super) fn is_handle(id: &str) -> bool {
    let is_hex = |digits: &str| {
        digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    id.strip_prefix("csi-").is_some_and(is_hex)
}

fn parameters(context: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    let own = context.iter().filter(|(key, _)| !key.starts_with(KUBERNETES));
    own.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// A digest of the parameters of an inline volume.
pub(super) fn arguments(context: &HashMap<String, String>) -> String {
    digest(parameters(context).into_iter().flat_map(<[&str; 2]>::from))
}

fn name(id: &str) -> Outcome<VolumeName> {
    let text = format!("inline-{}", digest([id]));
    text.parse().map_err(|_| Fault::internal(format!("{text} is not the name of a volume")))
}

/// The volume that a context describes.
fn described(id: &str, context: &HashMap<String, String>) -> Outcome<NewVolume> {
    let mut options = BTreeMap::new();
    let mut driver = "union";
    for (key, value) in parameters(context) {
        match key {
            DRIVER if DRIVERS.contains(&value) => driver = value,
            DRIVER => {
                let known = DRIVERS.join(", ");
                return Err(Fault::invalid(format!(
                    "an inline volume cannot have the driver {value:?}: use one of {known}"
                )));
            }
            "fs" if value == "none" => {
                return Err(Fault::invalid("an inline volume has files: fs=none is not possible"));
            }
            key if OPTIONS.contains(&key) => {
                options.insert(key.to_owned(), value.to_owned());
            }
            key => {
                let known = OPTIONS.join(", ");
                return Err(Fault::invalid(format!(
                    "an inline volume has no parameter {key:?}: use driver, {known}"
                )));
            }
        }
    }
    // Without one it could fill the host.
    options.entry("size".to_owned()).or_insert_with(|| SIZE_DEFAULT.to_owned());
    let labels = BTreeMap::from([
        (LABEL.to_owned(), id.to_owned()),
        (ARGUMENTS.to_owned(), arguments(context)),
    ]);
    Ok(NewVolume { name: name(id)?, driver: Some(driver.to_owned()), options, labels })
}

/// The inline volume of an id, if it is there.
///
/// # Errors
/// `INTERNAL`.
pub(super) fn find(driver: &Driver, id: &str) -> Outcome<Option<Volume>> {
    match driver.volumes.inspect(&name(id)?) {
        Err(refusal) if refusal.is_missing() => Ok(None),
        found => {
            Ok(Some(found?).filter(|found| found.labels.get(LABEL).is_some_and(|of| of == id)))
        }
    }
}

/// Makes the inline volume of an id, or finds it.
///
/// # Errors
/// `INVALID_ARGUMENT` for its parameters; `ALREADY_EXISTS` for one with other parameters.
pub(super) fn ensure(
    driver: &Driver,
    id: &str,
    context: &HashMap<String, String>,
) -> Outcome<Volume> {
    let wanted = described(id, context)?;
    let labels = wanted.labels.clone();
    let (volume, _) = driver.volumes.ensure(wanted)?;
    let is_same = |key: &str| volume.labels.get(key) == labels.get(key);
    match is_same(LABEL) && is_same(ARGUMENTS) {
        true => Ok(volume),
        false => Err(Fault::exists(format!(
            "volume {} exists with other parameters: unpublish it first",
            volume.name
        ))),
    }
}

/// Erases an inline volume, unless it is published elsewhere.
///
/// # Errors
/// `FAILED_PRECONDITION` while a mount uses it.
pub(super) fn end_unused(driver: &Driver, volume: &Volume) -> Outcome<()> {
    if !volume.labels.contains_key(LABEL) || driver.volumes.is_held(volume)? {
        return Ok(());
    }
    match driver.volumes.erase_unheld(volume) {
        Err(refusal) if refusal.is_missing() => Ok(()),
        // It was published again meanwhile.
        Err(_) if driver.volumes.is_held(volume)? => Ok(()),
        erased => Ok(erased?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn the_author_of_a_pod_reaches_nothing_of_the_host() {
        for pair in [
            ("device", "/etc"),
            ("type", "none"),
            ("o", "bind"),
            ("from", "alpine"),
            ("overcommit", "true"),
            ("driver", "vieux/sshfs"),
            ("fs", "none"),
        ] {
            let fault = described("x", &context(&[pair])).unwrap_err();
            assert_eq!(fault.code(), tonic::Code::InvalidArgument, "{pair:?}");
        }
    }

    #[test]
    fn parameters_are_those_of_the_author() {
        let one = context(&[(EPHEMERAL, "true"), ("size", "1Gi"), ("driver", "image")]);
        let mut other = one.clone();
        other.insert(format!("{KUBERNETES}pod.name"), "web-0".to_owned());
        assert!(is_asked(&one));
        assert_eq!(arguments(&one), arguments(&other));
        let made = described("x/../y", &other).unwrap();
        assert_eq!(made.driver.as_deref(), Some("image"));
        assert_eq!(made.options, BTreeMap::from([("size".to_owned(), "1Gi".to_owned())]));
        other.insert("size".to_owned(), "2Gi".to_owned());
        assert_ne!(arguments(&one), arguments(&other));
        assert_eq!(described("y", &context(&[])).unwrap().driver.as_deref(), Some("union"));
    }

    #[test]
    fn ids_of_kubernetes_are_known() {
        assert!(is_handle(&format!("csi-{}", "0f".repeat(32))));
        for other in ["csi-", "csi-0f", &"0f".repeat(32), &format!("csi-{}", "0F".repeat(32))] {
            assert!(!is_handle(other), "{other}");
        }
    }
}
