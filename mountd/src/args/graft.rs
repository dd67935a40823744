//! Grafts: volumes, binds and tmpfs in the tree of a mount, in the short forms and as `--mount`.
//!
//! In a short form a backslash precedes a colon or a comma of a name. In the long form a field with
//! a comma is in double quotes, as Docker takes it: `type=bind,"source=/a,b",target=/c`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Args;
use laminafs::types::{
    BadObjectName, BadSubpath, BindFlags, Graft, GraftSource, Name, Subpath, VolumeName, name,
};

use super::fields;
use crate::options::OptionError;

/// What appears in a tree from elsewhere.
#[derive(Debug, Args)]
pub struct GraftArgs {
    /// Show a named volume at a path. A missing volume is created; an empty one is filled from the
    /// image. With subpath=DIR only that directory or file of an existing volume is shown.
    #[arg(long = "volume", value_name = "NAME:/PATH[:ro,subpath=DIR]")]
    pub volumes: Vec<OsString>,
    /// Show a directory or file of the host at a path. A colon in a path is written as `\:`.
    #[arg(long = "bind", value_name = "SOURCE:/PATH[:ro]")]
    pub binds: Vec<OsString>,
    /// Show a file system in memory at a path.
    #[arg(long = "tmpfs", value_name = "/PATH")]
    pub tmpfs: Vec<OsString>,
    /// Any of the above: type=bind|volume|tmpfs,source=,target=,readonly,volume-subpath=. A field
    /// with a comma is quoted as a whole: type=bind,"source=/a,b",target=/c.
    #[arg(long = "mount", value_name = "SPEC")]
    pub mounts: Vec<OsString>,
}

/// The word for a part of a volume, in the short form.
const SUBPATH: &[u8] = b"subpath=";

/// Collects the grafts in the arguments of a command.
///
/// # Errors
/// [`OptionError`] for the first malformed one.
pub fn all(args: &GraftArgs) -> Result<Vec<Graft>, OptionError> {
    let of = |words: &[OsString], read: fn(&OsStr) -> Result<Graft, OptionError>| {
        words.iter().map(|word| read(word)).collect::<Result<Vec<_>, _>>()
    };
    let groups = [
        of(&args.volumes, volume)?,
        of(&args.binds, bind)?,
        of(&args.tmpfs, tmpfs)?,
        of(&args.mounts, mount)?,
    ];
    Ok(groups.into_iter().flatten().collect())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Parses a place in the mount: an absolute path without `..`.
fn place(option: &str, bytes: &[u8]) -> Result<Vec<Name>, OptionError> {
    let refuse = |reason: &str| OptionError::value(option, format!("{:?} {reason}", shown(bytes)));
    let Some(relative) = bytes.strip_prefix(b"/") else {
        return Err(refuse("is not an absolute path of the mount"));
    };
    let parts: Vec<Name> = relative
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(name)
        .collect();
    if parts.iter().any(|part| part[..] == *b"..") {
        return Err(refuse("contains .."));
    }
    if parts.is_empty() {
        return Err(refuse("is the root of the mount"));
    }
    Ok(parts)
}

struct Short {
    source: Vec<u8>,
    path: Vec<Name>,
    flags: BindFlags,
    nocopy: bool,
    subpath: Option<Subpath>,
    recursive: bool,
}

/// Sets a flag of the mount of a graft. Returns whether the word is one.
fn flag(flags: &mut BindFlags, word: &[u8]) -> bool {
    match word {
        b"ro" => flags.read_only = true,
        b"rw" => flags.read_only = false,
        b"nosuid" => flags.nosuid = true,
        b"suid" => flags.nosuid = false,
        b"nodev" => flags.nodev = true,
        b"dev" => flags.nodev = false,
        b"noexec" => flags.noexec = true,
        b"exec" => flags.noexec = false,
        _ => return false,
    }
    true
}

/// `SOURCE:/PATH[:WORD,WORD...]`
fn short(option: &str, word: &[u8]) -> Result<Short, OptionError> {
    let (source, path, words) = fields::short(word);
    let Some(path) = path.filter(|_| !source.is_empty()) else {
        let reason = format!("{:?} is not SOURCE:/PATH[:ro]", shown(word));
        return Err(OptionError::value(option, reason));
    };
    let (mut flags, mut nocopy, mut recursive) = (BindFlags::default(), false, false);
    let mut subpath = None;
    for word in &words {
        if flag(&mut flags, word) {
            continue;
        }
        match &word[..] {
            b"nocopy" if option == "volume" => nocopy = true,
            word if option == "volume" && word.starts_with(SUBPATH) => {
                let path = word.get(SUBPATH.len()..).unwrap_or_default();
                subpath = Some(volume_part(option, path)?);
            }
            b"rbind" => recursive = true,
            b"bind" => recursive = false,
            // Labels of container engines are ignored: every graft is private.
            b"z" | b"Z" | b"rprivate" | b"private" | b"" => {}
            other => {
                let known = match option {
                    "volume" => "ro, rw, nosuid, nodev, noexec, nocopy, subpath=DIR",
                    _ => "ro, rw, nosuid, nodev, noexec, bind, rbind",
                };
                let colon = match other.contains(&b'/') {
                    true => r"; a colon in a path is written as \:",
                    false => "",
                };
                let reason = format!("unknown word {:?}: use one of {known}{colon}", shown(other));
                return Err(OptionError::value(option, reason));
            }
        }
    }
    let path = place(option, &path)?;
    Ok(Short { source, path, flags, nocopy, subpath, recursive })
}

fn volume_name(option: &str, bytes: &[u8]) -> Result<VolumeName, OptionError> {
    shown(bytes)
        .parse()
        .map_err(|error: BadObjectName| OptionError::value(option, error.to_string()))
}

fn volume_part(option: &str, bytes: &[u8]) -> Result<Subpath, OptionError> {
    let wrap = |error: BadSubpath| OptionError::value(option, error.to_string());
    Subpath::try_from(bytes).map_err(wrap)
}

/// Parses `NAME:/PATH[:ro,subpath=DIR]`.
///
/// # Errors
/// [`OptionError::Value`].
pub fn volume(word: &OsStr) -> Result<Graft, OptionError> {
    let Short { source, path, flags, nocopy, subpath, .. } = short("volume", word.as_bytes())?;
    let name = volume_name("volume", &source)?;
    let source = GraftSource::Volume { name, nocopy, subpath };
    Ok(Graft { source, path, flags, recursive: true })
}

/// Parses `SOURCE:/PATH[:ro][:rbind]`.
///
/// # Errors
/// [`OptionError::Value`].
pub fn bind(word: &OsStr) -> Result<Graft, OptionError> {
    let Short { source, path, flags, recursive, .. } = short("bind", word.as_bytes())?;
    let source = PathBuf::from(OsString::from_vec(source));
    Ok(Graft { source: GraftSource::Bind(source), path, flags, recursive })
}

/// Parses `/PATH[:size=SIZE,mode=MODE]`.
///
/// # Errors
/// [`OptionError::Value`].
pub fn tmpfs(word: &OsStr) -> Result<Graft, OptionError> {
    let (path, words) = fields::pair(word.as_bytes());
    let path = place("tmpfs", &path)?;
    let mut found = Found::default();
    for option in &words {
        found.take_tmpfs("tmpfs", option)?;
    }
    let source = GraftSource::Tmpfs { size: found.size, mode: found.mode };
    Ok(Graft { source, path, flags: found.flags, recursive: true })
}

#[derive(Default)]
struct Found {
    kind: Option<String>,
    source: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    flags: BindFlags,
    nocopy: bool,
    subpath: Option<Subpath>,
    recursive: Option<bool>,
    size: Option<String>,
    mode: Option<u32>,
}

impl Found {
    fn take_tmpfs(&mut self, option: &str, word: &[u8]) -> Result<(), OptionError> {
        let text = shown(word);
        match text.split_once('=') {
            Some(("size" | "tmpfs-size", value)) => self.size = Some(value.to_owned()),
            Some(("mode" | "tmpfs-mode", value)) => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| {
                    OptionError::value(option, format!("{value:?} is not an octal mode"))
                })?;
                self.mode = Some(mode);
            }
            None if text.is_empty() || flag(&mut self.flags, word) => {}
            _ => return Err(OptionError::value(option, format!("{text:?} is not known"))),
        }
        Ok(())
    }

    fn take(&mut self, word: &[u8]) -> Result<(), OptionError> {
        let at = word.iter().position(|byte| *byte == b'=');
        let key = shown(word.get(..at.unwrap_or(word.len())).unwrap_or_default());
        let value = at.and_then(|at| word.get(at + 1..)).map(<[u8]>::to_vec);
        let truth = match value.as_deref() {
            None | Some(b"true" | b"1") => Some(true),
            Some(b"false" | b"0") => Some(false),
            Some(_) => None,
        };
        match (key.as_str(), value, truth) {
            ("type", Some(value), _) => self.kind = Some(shown(&value)),
            ("source" | "src", Some(value), _) => self.source = Some(value),
            ("target" | "dst" | "destination", Some(value), _) => self.target = Some(value),
            ("readonly" | "ro", _, Some(truth)) => self.flags.read_only = truth,
            ("nosuid", _, Some(truth)) => self.flags.nosuid = truth,
            ("nodev", _, Some(truth)) => self.flags.nodev = truth,
            ("noexec", _, Some(truth)) => self.flags.noexec = truth,
            ("volume-nocopy" | "nocopy", _, Some(truth)) => self.nocopy = truth,
            ("volume-subpath" | "subpath", Some(value), _) => {
                self.subpath = Some(volume_part("mount", &value)?);
            }
            ("tmpfs-size" | "tmpfs-mode" | "size" | "mode", Some(_), _) => {
                self.take_tmpfs("mount", word)?;
            }
            ("bind-recursive", Some(value), _) => {
                self.recursive = Some(match &value[..] {
                    b"enabled" | b"true" | b"1" => true,
                    b"disabled" | b"false" | b"0" => false,
                    _ => {
                        let reason =
                            format!("unknown value {:?}: use enabled or disabled", shown(&value));
                        return Err(OptionError::value("mount", reason));
                    }
                });
            }
            ("rbind", None, _) => self.recursive = Some(true),
            ("bind-nonrecursive", _, Some(truth)) => self.recursive = Some(!truth),
            ("bind-propagation", Some(value), _) => {
                if !matches!(&value[..], b"private" | b"rprivate") {
                    let reason = format!(
                        "bind-propagation {:?} is not supported: a graft is private",
                        shown(&value)
                    );
                    return Err(OptionError::value("mount", reason));
                }
            }
            ("consistency", Some(_), _) => {}
            _ => {
                let reason = format!("{:?} is not known", shown(word));
                return Err(OptionError::value("mount", reason));
            }
        }
        Ok(())
    }
}

/// Parses `type=bind|volume|tmpfs,source=,target=,readonly`, as Docker does.
///
/// # Errors
/// [`OptionError::Value`].
pub fn mount(word: &OsStr) -> Result<Graft, OptionError> {
    let mut found = Found::default();
    let fields = fields::csv(word.as_bytes()).map_err(|reason| {
        OptionError::value("mount", format!("{:?}: {reason}", shown(word.as_bytes())))
    })?;
    for part in fields.iter().filter(|part| !part.is_empty()) {
        found.take(part)?;
    }
    let missing = |what: &str| {
        OptionError::value("mount", format!("{what} is missing in {:?}", shown(word.as_bytes())))
    };
    let target = found.target.ok_or_else(|| missing("target="))?;
    let path = place("mount", &target)?;
    let source = match (found.kind.as_deref().unwrap_or("volume"), found.source) {
        ("bind", Some(source)) => GraftSource::Bind(PathBuf::from(OsString::from_vec(source))),
        ("volume", Some(source)) => {
            let (nocopy, subpath) = (found.nocopy, found.subpath.take());
            GraftSource::Volume { name: volume_name("mount", &source)?, nocopy, subpath }
        }
        ("tmpfs", None) => GraftSource::Tmpfs { size: found.size, mode: found.mode },
        ("tmpfs", Some(_)) => {
            return Err(OptionError::value("mount", "a tmpfs has no source"));
        }
        ("bind" | "volume", None) => return Err(missing("source=")),
        (other, _) => {
            let reason = format!("unknown type {other:?}: use bind, volume or tmpfs");
            return Err(OptionError::value("mount", reason));
        }
    };
    if found.subpath.is_some() {
        return Err(OptionError::value("mount", "volume-subpath is an option of type=volume"));
    }
    let recursive = match source {
        GraftSource::Bind(_) => found.recursive.unwrap_or(false),
        _ => true,
    };
    Ok(Graft { source, path, flags: found.flags, recursive })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(graft: &Graft) -> String {
        let ro = if graft.flags.read_only { " ro" } else { "" };
        format!("{} at {}{ro}", graft.source.label(), graft.shown_path())
    }

    #[test]
    fn short_forms_are_those_of_docker() {
        assert_eq!(text(&volume(OsStr::new("data:/var/lib")).unwrap()), "volume data at /var/lib");
        let part = volume(OsStr::new("data:/v:ro,subpath=a//b/,nocopy")).unwrap();
        assert_eq!(text(&part), "volume data (subpath a/b) at /v ro");
        assert_eq!(text(&bind(OsStr::new("/src:/a//b/./c:ro")).unwrap()), "/src at /a/b/c ro");
        assert_eq!(text(&tmpfs(OsStr::new("/run:size=1m,mode=755")).unwrap()), "tmpfs at /run");
    }

    #[test]
    fn the_long_form_says_the_same() {
        let words = "type=volume,source=data,target=/v,readonly";
        assert_eq!(text(&mount(OsStr::new(words)).unwrap()), "volume data at /v ro");
        let words = "source=data,target=/v,volume-subpath=a:b/c";
        let part = mount(OsStr::new(words)).unwrap();
        assert_eq!(text(&part), "volume data (subpath a:b/c) at /v");
        let words = "type=bind,src=/s,dst=/b,ro=false";
        assert_eq!(text(&mount(OsStr::new(words)).unwrap()), "/s at /b");
        let words = "type=bind,\"src=/a,b:c\",\"dst=/d,e\"";
        assert_eq!(text(&mount(OsStr::new(words)).unwrap()), "/a,b:c at /d,e");
        assert_eq!(text(&bind(OsStr::new("/a\\:b:/c\\:d:ro")).unwrap()), "/a:b at /c:d ro");
        let part = volume(OsStr::new("data:/v:subpath=a\\:b\\,c")).unwrap();
        assert_eq!(text(&part), "volume data (subpath a:b,c) at /v");
        let words = "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770";
        let graft = mount(OsStr::new(words)).unwrap();
        let wanted = GraftSource::Tmpfs { size: Some("64m".into()), mode: Some(0o1770) };
        assert_eq!(graft.source, wanted);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (word, part) in [
            ("data", "SOURCE:/PATH"),
            ("data:relative", "absolute"),
            ("data:/a/../b", "contains .."),
            ("data:/", "root of the mount"),
            ("../x:/a", "invalid volume name"),
            ("data:/a:wo", "use one of ro"),
            ("data:/a:subpath=/etc", "invalid subpath \"/etc\": it is absolute"),
            ("data:/a:subpath=b/../c", "contains .."),
            ("data:/a:ro,subpath=", "leave out the subpath"),
        ] {
            let error = volume(OsStr::new(word)).unwrap_err().to_string();
            assert!(error.contains(part), "{word}: {error}");
        }
        for (words, part) in [
            ("source=data,target=/a,volume-subpath=../x", "contains .."),
            ("type=tmpfs,target=/a,volume-subpath=x", "an option of type=volume"),
            ("type=bind,source=\"/a,b\",target=/a", "enclose a whole field"),
            ("type=bind,source=/a,target=/a,volume-subpath=x", "an option of type=volume"),
        ] {
            let error = mount(OsStr::new(words)).unwrap_err().to_string();
            assert!(error.contains(part), "{words}: {error}");
        }
        let error = bind(OsStr::new("/a:/a:subpath=x")).unwrap_err().to_string();
        assert!(error.contains("unknown word"), "{error}");
        let error = mount(OsStr::new("type=nfs,source=a,target=/b")).unwrap_err().to_string();
        assert!(error.contains("nfs"), "{error}");
    }
}
