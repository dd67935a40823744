//! The options of a union volume.

use super::super::driver::Spec;
use super::super::error::{Result, VolumeError};
use super::NAME;
use crate::types::{Rate, Speed, size};

/// The options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether the size may be more than the host has free.
    pub(super) overcommit: bool,
    /// The limits on speed.
    pub(super) speed: Speed,
}

impl Options {
    /// Reads `overcommit=true`, `iops=` and `bandwidth=`.
    ///
    /// # Errors
    /// [`VolumeError::Option`].
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in &spec.options {
            let refuse = |reason: &str| {
                let (key, value, reason) = (key.clone(), value.clone(), reason.to_owned());
                VolumeError::Option { driver: NAME, key, value, reason }
            };
            let speed = &mut options.speed;
            match (key.as_str(), value.as_str()) {
                ("overcommit", "true") => options.overcommit = true,
                ("overcommit", "false") => options.overcommit = false,
                ("overcommit", _) => return Err(refuse("use true or false")),
                ("iops", text) => set(speed, text, |rate| &mut rate.iops).ok_or_else(|| {
                    refuse("use a number of requests a second, as 500 or read=500,write=100")
                })?,
                ("bandwidth", text) => set(speed, text, |rate| &mut rate.bandwidth)
                    .ok_or_else(|| refuse("use bytes a second, as 10M or read=50M,write=10M"))?,
                _ => return Err(refuse("unknown option: use overcommit, iops, bandwidth or from")),
            }
        }
        Ok(options)
    }
}

/// Sets a limit of both directions, or of those that are named.
fn set(speed: &mut Speed, text: &str, of: impl Fn(&mut Rate) -> &mut Option<u64>) -> Option<()> {
    let number = |text: &str| size::parse(text).ok().filter(|number| *number > 0);
    if !text.contains('=') {
        let limit = number(text)?;
        *of(&mut speed.read) = Some(limit);
        *of(&mut speed.write) = Some(limit);
        return Some(());
    }
    for part in text.split(',') {
        let (direction, limit) = part.split_once('=')?;
        let rate = match direction {
            "read" => &mut speed.read,
            "write" => &mut speed.write,
            _ => return None,
        };
        *of(rate) = Some(number(limit)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Options::new(&Spec { options: pairs.collect(), ..Spec::default() })
    }

    #[test]
    fn limits_have_directions() {
        let found = options(&[("iops", "100"), ("bandwidth", "read=10M,write=1048576")]).unwrap();
        let rate = |bandwidth| Rate { iops: Some(100), bandwidth: Some(bandwidth) };
        assert_eq!(found.speed, Speed { read: rate(10 << 20), write: rate(1 << 20) });
        let found = options(&[("bandwidth", "write=1K")]).unwrap();
        assert_eq!(found.speed.read, Rate::default());
        for bad in ["", "0", "-1", "read", "read=", "both=5", "read=5,", "read=5 write=5"] {
            let refused = options(&[("iops", bad)]).unwrap_err().to_string();
            assert!(refused.contains("iops=") && refused.contains("read=500"), "{refused}");
        }
    }
}
