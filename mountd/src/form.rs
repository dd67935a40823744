//! The form in which the program was called.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
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
        Some(word) if crate::cli::is_command(word) => Form::Command,
        Some(word) if is_mistyped(word) && !is_mount(word, words) => Form::Command,
        _ => Form::MountProgram,
    }
}

/// Whether a word at the start may be a command with an error in it, or an option of one. The first
/// word of a mount is an option of [`Form::MountProgram`], or a source or a mount point.
fn is_mistyped(word: &str) -> bool {
    match word.strip_prefix('-') {
        Some(option) => {
            option.starts_with('-') && !matches!(word, "--" | "--foreground" | "--debug")
        }
        None => !word.contains('/'),
    }
}

/// Whether words that do not begin with a command are those of a mount: there is a list of options,
/// and it names layers, or a mount that is there already, or the first word is like no command.
fn is_mount(first: &str, words: &[OsString]) -> bool {
    let mut rest = words.iter().map(|word| word.as_bytes());
    let mut lists = Vec::new();
    while let Some(word) = rest.next() {
        match word {
            b"-o" => lists.extend(rest.next()),
            [b'-', b'o', list @ ..] => lists.push(list),
            _ => {}
        }
    }
    let is_layer = |option: &Vec<u8>| {
        let key = option.split(|byte| *byte == b'=').next().unwrap_or_default();
        matches!(key, b"lowerdir" | b"lowerdir+" | b"image" | b"remount")
    };
    let names_layers = lists.iter().any(|list| crate::options::split(list).iter().any(is_layer));
    names_layers || (!lists.is_empty() && crate::cli::alike(first).is_none())
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

    #[test]
    fn a_mistyped_command_is_no_mount() {
        for words in [
            &["lamina", "staus"][..],
            &["lamina", "staus", "--json"],
            &["lamina", "moutn", "--lower", "/a", "/m"],
            &["lamina", "gte", "pods", "-o", "json"],
            &["lamina", "--verison"],
            &["lamina", ""],
        ] {
            assert_eq!(formed(words), Form::Command, "{words:?}");
        }
        for words in [
            &["lamina", "staus", "/m", "-o", "lowerdir=/a"][..],
            &["lamina", "overlay", "m", "-o", "ro,image=a"],
            &["lamina", "./src", "/m"],
            &["lamina", "/m"],
        ] {
            assert_eq!(formed(words), Form::MountProgram, "{words:?}");
        }
    }
}
