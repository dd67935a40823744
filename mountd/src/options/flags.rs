//! The options that every file system has: flags of the VFS, and words for mount(8) alone.

use laminafs::service::VfsFlags;

/// Flags as a list of options sets them; the last word counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// What the kernel keeps.
    pub vfs: VfsFlags,
    /// An existing mount is to be changed.
    pub remount: bool,
}

/// Words for mount(8), systemd or other systems, which mean nothing here.
const FOR_OTHERS: [&str; 22] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "silent",
    "loud",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "quota",
    "noquota",
    "usrquota",
    "grpquota",
    "nosymfollow",
    "symfollow",
];

impl Flags {
    /// Takes a word; answers whether it is one of these.
    pub fn take(&mut self, word: &str) -> bool {
        let vfs = &mut self.vfs;
        match word {
            "ro" => vfs.read_only = true,
            "rw" => vfs.read_only = false,
            "suid" => vfs.nosuid = false,
            "nosuid" => vfs.nosuid = true,
            "dev" => vfs.nodev = false,
            "nodev" => vfs.nodev = true,
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
            "dirsync" => vfs.dirsync = true,
            "lazytime" => vfs.lazytime = true,
            "nolazytime" => vfs.lazytime = false,
            "remount" => self.remount = true,
            // What `user` and its like imply comes as words of its own from mount(8).
            "async" => vfs.sync = false,
            word => {
                return FOR_OTHERS.contains(&word)
                    || word.starts_with("x-")
                    || word.starts_with("X-")
                    || word.starts_with("comment=");
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let mut flags = Flags::default();
        for word in ["ro", "nodev", "nosuid", "noatime", "rw", "dev", "suid", "relatime"] {
            assert!(flags.take(word), "{word}");
        }
        assert_eq!(flags.vfs, VfsFlags { relatime: true, ..VfsFlags::default() });
    }

    #[test]
    fn words_of_others_are_known_and_mean_nothing() {
        let mut flags = Flags::default();
        for word in ["defaults", "nofail", "_netdev", "x-systemd.automount", "comment=mine"] {
            assert!(flags.take(word), "{word}");
        }
        assert_eq!(flags, Flags::default());
        assert!(!flags.take("lowerdir=/a"));
        assert!(!flags.take("reads"));
    }
}
