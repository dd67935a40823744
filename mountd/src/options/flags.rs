//! The options that every file system has: VFS flags, and words that only mount(8) uses.
//!
//! Each word is honoured, is meant for another program (mount(8), systemd), or is refused with a
//! reason.

use laminafs::service::{Propagation, VfsFlags};

/// The flags in a list of options; the last word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// The VFS flags.
    pub vfs: VfsFlags,
    /// Whether an existing mount is to be changed.
    pub remount: bool,
    /// Whether device files work; `None` means the default of the form of the call.
    pub dev: Option<bool>,
    /// Whether set-user-ID programs work; `None` means the default of the form of the call.
    pub suid: Option<bool>,
    /// Whether a word about access times was given.
    pub atime_said: bool,
    /// The propagation of mounts below this one.
    pub propagation: Option<Propagation>,
    /// The words that set flags of the VFS, in order.
    pub words: Vec<String>,
    /// Words that the mount cannot honour, with the reasons.
    pub refused: Vec<(String, &'static str)>,
}

/// Words for mount(8), systemd or other systems, which do not affect the mount.
const FOR_OTHERS: [&str; 14] = [
    "defaults",
    "auto",
    "noauto",
    "nouser",
    "nousers",
    "noowner",
    "nogroup",
    "nofail",
    "_netdev",
    "silent",
    "loud",
    "nomand",
    "noiversion",
    "noquota",
];

/// Words that no FUSE mount can honour.
const REFUSED: [(&str, &str); 9] = [
    ("mand", "the kernel has no mandatory locks since Linux 5.15"),
    ("iversion", "a FUSE file system has no change counter"),
    ("quota", "the quota of the upper's file system applies"),
    ("usrquota", "the quota of the upper's file system applies"),
    ("grpquota", "the quota of the upper's file system applies"),
    ("prjquota", "the quota of the upper's file system applies"),
    ("bind", "a union is not a bind mount: use mount --bind"),
    ("rbind", "a union is not a bind mount: use mount --rbind"),
    ("move", "a new mount cannot be moved: use mount --move"),
];

/// The words of mount(8) for propagation.
const PROPAGATION: [(&str, Propagation); 8] = [
    ("private", Propagation::Private),
    ("rprivate", Propagation::Private),
    ("slave", Propagation::Slave),
    ("rslave", Propagation::Slave),
    ("shared", Propagation::Shared),
    ("rshared", Propagation::Shared),
    ("unbindable", Propagation::Unbindable),
    ("runbindable", Propagation::Unbindable),
];

fn is_for_others(word: &str) -> bool {
    let prefixes = ["x-", "X-", "comment=", "uhelper=", "helper="];
    FOR_OTHERS.contains(&word) || prefixes.iter().any(|prefix| word.starts_with(prefix))
}

impl Flags {
    /// Applies a word. Returns whether it is one of these options.
    pub fn take(&mut self, word: &str) -> bool {
        if self.take_flag(word) {
            self.words.push(word.to_owned());
            return true;
        }
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == word) {
            self.refused.push((word.to_owned(), reason));
            return true;
        }
        if let Some((_, propagation)) = PROPAGATION.iter().find(|(name, _)| *name == word) {
            self.propagation = Some(*propagation);
            return true;
        }
        if word == "remount" {
            self.remount = true;
            return true;
        }
        is_for_others(word)
    }

    fn take_flag(&mut self, word: &str) -> bool {
        let vfs = &mut self.vfs;
        self.atime_said |=
            ["atime", "noatime", "relatime", "norelatime", "strictatime"].contains(&word);
        match word {
            "ro" => vfs.read_only = true,
            "rw" => vfs.read_only = false,
            "suid" => self.set_suid(true),
            "nosuid" => self.set_suid(false),
            "dev" => self.set_dev(true),
            "nodev" => self.set_dev(false),
            "exec" => vfs.noexec = false,
            "noexec" => vfs.noexec = true,
            "atime" | "norelatime" => (vfs.noatime, vfs.relatime) = (false, false),
            "noatime" => vfs.noatime = true,
            "relatime" => (vfs.relatime, vfs.noatime, vfs.strictatime) = (true, false, false),
            "strictatime" => (vfs.strictatime, vfs.noatime, vfs.relatime) = (true, false, false),
            "nostrictatime" => vfs.strictatime = false,
            "diratime" => vfs.nodiratime = false,
            "nodiratime" => vfs.nodiratime = true,
            "sync" => vfs.sync = true,
            "async" => vfs.sync = false,
            "dirsync" => vfs.dirsync = true,
            "lazytime" => vfs.lazytime = true,
            "nolazytime" => vfs.lazytime = false,
            "symfollow" => vfs.nosymfollow = false,
            "nosymfollow" => vfs.nosymfollow = true,
            // Implied flags, which a later word may change (mount(8)).
            "owner" | "group" => self.distrust(),
            word if word == "user" || word == "users" || word.starts_with("user=") => {
                self.distrust();
                self.vfs.noexec = true;
            }
            _ => return false,
        }
        true
    }

    fn set_suid(&mut self, works: bool) {
        self.vfs.nosuid = !works;
        self.suid = Some(works);
    }

    fn set_dev(&mut self, works: bool) {
        self.vfs.nodev = !works;
        self.dev = Some(works);
    }

    fn distrust(&mut self) {
        self.set_suid(false);
        self.set_dev(false);
    }

    /// Returns the flags of an existing mount with the changes of these words.
    pub fn over(&self, present: VfsFlags) -> VfsFlags {
        let mut flags = Self { vfs: present, ..Self::default() };
        for word in &self.words {
            flags.take_flag(word);
        }
        flags.vfs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(words: &[&str]) -> Flags {
        let mut flags = Flags::default();
        for word in words {
            assert!(flags.take(word), "{word}");
        }
        flags
    }

    #[test]
    fn the_last_word_counts() {
        let words = ["ro", "nodev", "nosuid", "noatime", "rw", "dev", "suid", "relatime"];
        assert_eq!(taken(&words).vfs, VfsFlags { relatime: true, ..VfsFlags::default() });
        let words = ["nosymfollow", "symfollow", "sync", "async", "nodiratime", "diratime"];
        assert_eq!(taken(&words).vfs, VfsFlags::default());
        assert!(taken(&["nosymfollow"]).vfs.nosymfollow);
    }

    #[test]
    fn words_of_others_are_known_and_mean_nothing() {
        let words = ["defaults", "nofail", "_netdev", "x-systemd.automount", "comment=mine"];
        assert_eq!(taken(&words), Flags::default());
        let mut flags = Flags::default();
        assert!(!flags.take("lowerdir=/a"));
        assert!(!flags.take("reads"));
        assert_eq!(flags.words, Vec::<String>::new());
    }

    #[test]
    fn words_of_users_imply_that_nothing_of_the_mount_is_trusted() {
        let closed = VfsFlags { nosuid: true, nodev: true, ..VfsFlags::default() };
        assert_eq!(taken(&["owner"]).vfs, closed);
        assert_eq!(taken(&["group"]).vfs, closed);
        for word in ["user", "users", "user=me"] {
            assert_eq!(taken(&[word]).vfs, VfsFlags { noexec: true, ..closed });
        }
        let flags = taken(&["user", "exec", "suid"]);
        assert_eq!(flags.vfs, VfsFlags { nodev: true, ..VfsFlags::default() });
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_a_reason() {
        for (word, reason) in REFUSED {
            assert_eq!(taken(&[word]).refused, [(word.to_owned(), reason)]);
        }
    }

    #[test]
    fn propagation_is_kept_apart_from_the_flags() {
        assert_eq!(taken(&["rshared", "private"]).propagation, Some(Propagation::Private));
    }

    #[test]
    fn a_remount_keeps_what_no_word_changes() {
        let present = VfsFlags { nosuid: true, nodev: true, ..VfsFlags::default() };
        let wanted = VfsFlags { read_only: true, nodev: true, ..VfsFlags::default() };
        assert_eq!(taken(&["remount", "ro", "suid"]).over(present), wanted);
    }
}
