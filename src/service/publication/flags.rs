//! Mount flags of a request, as a bind mount has them.

use std::os::fd::BorrowedFd;

use super::error::{PublicationError, Result};
use crate::error::Result as Sys;
use crate::sys::bind;
use crate::sys::mount::AccessTimes;
use crate::types::BindFlags;

/// The flags of a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    flags: BindFlags,
    times: Option<AccessTimes>,
    nosymfollow: bool,
}

impl Flags {
    /// Reads words such as `nosuid`, also several joined by commas.
    ///
    /// # Errors
    /// [`PublicationError::Flag`] for a flag that a bind mount cannot have.
    pub(super) fn parse(words: &[String], read_only: bool) -> Result<Self> {
        let mut found = Self::default();
        let words = words.iter().flat_map(|word| word.split(','));
        for word in words.map(str::trim).filter(|word| !word.is_empty()) {
            found.add(word)?;
        }
        found.flags.read_only |= read_only;
        Ok(found)
    }

    /// The flags for a view, whose group gets rights that it has not on the files themselves: it
    /// must not become another user by them, nor reach a device.
    pub(super) const fn of_view(self) -> Self {
        let flags = BindFlags { nosuid: true, nodev: true, ..self.flags };
        Self { flags, ..self }
    }

    fn add(&mut self, word: &str) -> Result<()> {
        let flags = &mut self.flags;
        match word {
            "defaults" | "bind" | "async" => {}
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "nosuid" => flags.nosuid = true,
            "suid" => flags.nosuid = false,
            "nodev" => flags.nodev = true,
            "dev" => flags.nodev = false,
            "noexec" => flags.noexec = true,
            "exec" => flags.noexec = false,
            "nosymfollow" => self.nosymfollow = true,
            "symfollow" => self.nosymfollow = false,
            _ => return self.add_time(word),
        }
        Ok(())
    }

    fn add_time(&mut self, word: &str) -> Result<()> {
        let mut times = self.times.unwrap_or_default();
        let no_dirs = times.no_dirs;
        match word {
            "noatime" => times = AccessTimes { none: true, strict: false, no_dirs },
            "strictatime" => times = AccessTimes { none: false, strict: true, no_dirs },
            "relatime" | "atime" => times = AccessTimes { none: false, strict: false, no_dirs },
            "nodiratime" => times.no_dirs = true,
            "diratime" => times.no_dirs = false,
            _ => {
                // A value may be a secret.
                let flag = word.split('=').next().unwrap_or_default().to_owned();
                return Err(PublicationError::Flag { flag });
            }
        }
        self.times = Some(times);
        Ok(())
    }

    /// Gives the flags to a mount that has no place yet.
    ///
    /// # Errors
    /// As mount_setattr(2).
    pub(super) fn set(self, mount: BorrowedFd<'_>) -> Sys<()> {
        bind::dress(mount, self.flags, self.times, self.nosymfollow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str], read_only: bool) -> Result<Flags> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Flags::parse(&words, read_only)
    }

    #[test]
    fn the_last_word_counts_and_a_read_only_request_stays_so() {
        let found = parse(&["nosuid,nodev", "noexec", "exec", "noatime", "nodiratime"], false);
        let found = found.unwrap();
        let flags = BindFlags { nosuid: true, nodev: true, ..BindFlags::default() };
        assert_eq!(found.flags, flags);
        assert_eq!(found.times, Some(AccessTimes { none: true, strict: false, no_dirs: true }));
        assert!(parse(&["ro"], false).unwrap().flags.read_only);
        assert!(parse(&["rw"], true).unwrap().flags.read_only);
        assert_eq!(parse(&[], false).unwrap(), Flags::default());
    }

    #[test]
    fn an_unknown_flag_is_named_without_its_value() {
        for (word, named) in [("password=hunter2", "password"), ("sync", "sync"), ("x y", "x y")] {
            let error = parse(&["nosuid", word], false).unwrap_err();
            assert!(
                matches!(&error, PublicationError::Flag { flag } if flag == named),
                "{word}: {error}"
            );
        }
    }
}
