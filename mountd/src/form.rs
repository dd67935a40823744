//! The form in which the program was called.

use std::ffi::OsString;
use std::path::Path;

/// The meaning of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A command with its own arguments.
    Command,
    /// The helper of mount(8).
    MountHelper,
    /// The helper of umount(8).
    UmountHelper,
    /// The `mount_program` of container engines.
    MountProgram,
}

/// Determines the form from the name and the first words.
pub fn form(words: &[OsString]) -> Form {
    let called = words.first().map(|word| Path::new(word).file_name().unwrap_or_default());
    let called = called.and_then(|name| name.to_str()).unwrap_or_default();
    if called.starts_with("mount.") {
        return Form::MountHelper;
    }
    if called.starts_with("umount.") {
        return Form::UmountHelper;
    }
    let first = words.get(1).and_then(|word| word.to_str());
    match first {
        None if words.len() < 2 => Form::Command,
        Some("-h" | "--help" | "-V" | "--version") => Form::Command,
        // Any other plain word at the start is a source.
        Some(word) if crate::cli::is_command(word) => Form::Command,
        _ => Form::MountProgram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formed(words: &[&str]) -> Form {
        form(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_name_decides_first() {
        assert_eq!(formed(&["/sbin/mount.lamina", "mount", "/m"]), Form::MountHelper);
        assert_eq!(formed(&["mount.fuse.lamina", "src", "/m", "-o", "ro"]), Form::MountHelper);
        assert_eq!(formed(&["umount.fuse.lamina", "/m"]), Form::UmountHelper);
    }

    #[test]
    fn what_is_no_command_is_a_mount() {
        assert_eq!(formed(&["lamina", "mount", "--lower", "/a", "/m"]), Form::Command);
        assert_eq!(formed(&["lamina"]), Form::Command);
        assert_eq!(formed(&["lamina", "container", "start", "c"]), Form::Command);
        assert_eq!(formed(&["lamina", "help"]), Form::Command);
        assert_eq!(formed(&["fuse-overlayfs", "--version"]), Form::Command);
        assert_eq!(formed(&["lamina", "-o", "lowerdir=/a", "/m"]), Form::MountProgram);
        assert_eq!(formed(&["fuse-overlayfs", "src", "/m", "-olowerdir=/a"]), Form::MountProgram);
        assert_eq!(formed(&["lamina", "-f", "-o", "lowerdir=/a", "/m"]), Form::MountProgram);
    }
}
