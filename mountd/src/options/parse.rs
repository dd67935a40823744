//! The meaning of each option. Names and values are those of the kernel's overlayfs, of
//! fuse-overlayfs and of FUSE. Options of Lamina alone are named like an option of the command line
//! (`volume=`, `bind=`, `tmpfs=`, `root=`), or after the choice that they make (`io=`, `reflink=`,
//! `whiteouts=`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use laminafs::service::spec::{GraftDriver, Rules};
use laminafs::service::{IdRange, IoDriver, StatOverride, WhiteoutForm};
use laminafs::types::{Graft, Limits, size};

use super::{Flags, OptionError, paths, split, unescape};
use crate::args::graft;

/// The parsed options of one command.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Lower directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Images below the lower directories.
    pub images: Vec<String>,
    /// Whether the upper is removed with the mount.
    pub ephemeral: bool,
    /// Upper directory.
    pub upper: Option<PathBuf>,
    /// Work directory.
    pub work: Option<PathBuf>,
    /// First column of /proc/mounts.
    pub source: Option<Vec<u8>>,
    /// Subtype; `Some("")` for none.
    pub subtype: Option<String>,
    /// VFS flags.
    pub flags: Flags,
    /// SELinux labels (`context=` and similar), in the syntax of mount(2).
    pub labels: Vec<String>,
    /// `allow_other`.
    pub allow_other: bool,
    /// `allow_root`.
    pub allow_root: bool,
    /// `default_permissions`.
    pub default_permissions: bool,
    /// Rules of the union.
    pub rules: Rules,
    /// The limits of the upper.
    pub limits: Limits,
    /// Volumes and binds.
    pub grafts: Vec<Graft>,
    /// Data root.
    pub root: Option<PathBuf>,
    /// Unknown options.
    pub unknown: Vec<String>,
    /// Known options without effect, with the reasons.
    pub ignored: Vec<String>,
    /// Whether to stay in the foreground (`debug`).
    pub foreground: bool,
}

fn path(value: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(value)))
}

/// Parses one more list of options.
///
/// # Errors
/// An error for an invalid value. Unknown options are collected in [`Parsed::unknown`].
pub fn parse(parsed: &mut Parsed, list: &[u8]) -> Result<(), OptionError> {
    for word in split(list) {
        let at = word.iter().position(|byte| *byte == b'=');
        let key = String::from_utf8_lossy(word.get(..at.unwrap_or(word.len())).unwrap_or_default())
            .into_owned();
        let value = at.and_then(|at| word.get(at + 1..));
        let text = String::from_utf8_lossy(&word).into_owned();
        if parsed.flags.take(&text) {
            continue;
        }
        let known = layer(parsed, &key, value)?
            || identity(parsed, &key, value)?
            || rule(parsed, &key, value)?
            || driver(parsed, &key, value)?
            || label(parsed, &key, value)?
            || fuse(parsed, &key, value);
        if !known {
            parsed.unknown.push(text);
        }
    }
    Ok(())
}

fn layer(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
    let Some(value) = value else { return Ok(false) };
    match key {
        "lowerdir" => {
            let found = paths(value);
            if found.iter().any(Vec::is_empty) && !value.is_empty() {
                let reason = "an empty path; layers of data alone (::) are not supported";
                return Err(OptionError::value(key, reason));
            }
            let found = found.into_iter().filter(|path| !path.is_empty());
            parsed.lowers = found.map(|path| PathBuf::from(OsString::from_vec(path))).collect();
        }
        "image" => parsed.images.push(String::from_utf8_lossy(&unescape(value)).into_owned()),
        "lowerdir+" => parsed.lowers.push(PathBuf::from(OsString::from_vec(value.to_vec()))),
        "datadir+" => {
            return Err(OptionError::value(key, "layers of data alone are not supported"));
        }
        // An empty path means none; podman passes such paths.
        "upperdir" => parsed.upper = Some(path(value)).filter(|path| !path.as_os_str().is_empty()),
        "workdir" => parsed.work = Some(path(value)).filter(|path| !path.as_os_str().is_empty()),
        "root" => parsed.root = Some(path(value)),
        "volume" => parsed.grafts.push(graft::volume(&os(value))?),
        "bind" => parsed.grafts.push(graft::bind(&os(value))?),
        "rbind" => {
            parsed.grafts.push(Graft { recursive: true, ..graft::bind(&os(value))? });
        }
        "tmpfs" => parsed.grafts.push(graft::tmpfs(&os(value))?),
        "fsname" => parsed.source = Some(unescape(value)),
        "subtype" => parsed.subtype = Some(String::from_utf8_lossy(value).into_owned()),
        _ => return Ok(false),
    }
    Ok(true)
}

fn os(value: &[u8]) -> OsString {
    OsString::from_vec(unescape(value))
}

fn identity(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
    let text = value.map(|value| String::from_utf8_lossy(value).into_owned());
    let rules = &mut parsed.rules;
    match (key, &text) {
        ("uidmapping", Some(text)) => rules.uid_map.ranges = mapping(key, text)?,
        ("gidmapping", Some(text)) => rules.gid_map.ranges = mapping(key, text)?,
        ("squash_to_root", None) => {
            rules.uid_map.squash = Some(0);
            rules.gid_map.squash = Some(0);
        }
        ("squash_to_uid", Some(text)) => rules.uid_map.squash = Some(id(key, text)?),
        ("squash_to_gid", Some(text)) => rules.gid_map.squash = Some(id(key, text)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn id(key: &str, text: &str) -> Result<u32, OptionError> {
    text.parse().map_err(|_| OptionError::value(key, format!("{text:?} is not an id")))
}

/// Parses triples `IN-THE-LAYER:IN-THE-MOUNT:COUNT`; a colon may precede them.
fn mapping(key: &str, text: &str) -> Result<Vec<IdRange>, OptionError> {
    let numbers: Vec<u32> = text
        .split(':')
        .filter(|part| !part.is_empty())
        .map(|part| id(key, part))
        .collect::<Result<_, _>>()?;
    if numbers.is_empty() || !numbers.len().is_multiple_of(3) {
        let reason = format!("{text:?} is not a list of LAYER:MOUNT:COUNT");
        return Err(OptionError::value(key, reason));
    }
    let range = |part: &[u32]| match *part {
        [disk, shown, len] => Some(IdRange { disk, shown, len }),
        _ => None,
    };
    Ok(numbers.chunks_exact(3).filter_map(range).collect())
}

/// Parses a number of bytes, with an optional suffix K, M, G or T for powers of 1024.
pub fn size(key: &str, text: &str) -> Result<u64, OptionError> {
    size::parse(text).map_err(|error| OptionError::value(key, error.to_string()))
}

fn switch(key: &str, text: &str, on: &[&str], off: &[&str]) -> Result<bool, OptionError> {
    if on.contains(&text) {
        return Ok(true);
    }
    if off.contains(&text) {
        return Ok(false);
    }
    let values = [on, off].concat().join("|");
    Err(OptionError::value(key, format!("unknown value {text:?}: use one of {values}")))
}

/// Parses one of several words, or `auto`.
fn choice<T: Copy>(key: &str, text: &str, of: &[(&str, T)]) -> Result<Option<T>, OptionError> {
    if text == "auto" {
        return Ok(None);
    }
    match of.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let words: Vec<&str> = of.iter().map(|(word, _)| *word).collect();
            let reason = format!("unknown value {text:?}: use one of auto|{}", words.join("|"));
            Err(OptionError::value(key, reason))
        }
    }
}

/// Parses an option that forces a driver; without it the mount chooses one for the host.
fn driver(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
    let text = value.map(|value| String::from_utf8_lossy(value).into_owned());
    let rules = &mut parsed.rules;
    match (key, text.as_deref()) {
        ("io", Some(text)) => {
            let forms = [IoDriver::Passthrough, IoDriver::Cached, IoDriver::NoOpen];
            rules.io = choice(key, text, &forms.map(|form| (form.name(), form)))?;
        }
        ("graft", Some(text)) => {
            let forms = [GraftDriver::Bind, GraftDriver::Served];
            rules.graft = choice(key, text, &forms.map(|form| (form.name(), form)))?;
        }
        ("reflink", Some(text)) => {
            rules.reflink = choice(key, text, &[("on", true), ("off", false)])?;
        }
        ("whiteouts", Some(text)) => {
            let forms = [("device", WhiteoutForm::Device), ("file", WhiteoutForm::Aufs)];
            rules.whiteouts = choice(key, text, &forms)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn rule(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
    let text = value.map(|value| String::from_utf8_lossy(value).into_owned());
    let rules = &mut parsed.rules;
    const ON: &[&str] = &["on", "1", "true"];
    const OFF: &[&str] = &["off", "0", "false"];
    match (key, text.as_deref()) {
        ("redirect_dir", Some(text)) => {
            let off = ["off", "nofollow", "follow", "0"];
            rules.redirect = Some(switch(key, text, ON, &off)?);
            rules.follow_redirects = match text {
                "follow" => Some(true),
                "nofollow" => Some(false),
                _ => None,
            };
        }
        ("metacopy", Some(text)) => rules.metacopy = Some(switch(key, text, ON, OFF)?),
        ("index", Some(text)) => rules.index = Some(switch(key, text, ON, OFF)?),
        // With one device number for the whole mount, only the inode numbers distinguish file
        // systems.
        ("xino", Some(text)) => {
            switch(key, text, &["on", "auto", "1"], OFF)?;
        }
        ("passthrough", Some(text)) => {
            let on = switch(key, text, &["on", "auto", "1"], OFF)?;
            rules.io = (!on).then_some(IoDriver::Cached);
        }
        ("ephemeral", None) => parsed.ephemeral = true,
        // The names of tmpfs(5).
        ("size", Some(text)) => parsed.limits.size_bytes = Some(size(key, text)?),
        ("nr_inodes", Some(text)) => parsed.limits.inodes = Some(size(key, text)?),
        ("userxattr", None) => rules.userxattr = true,
        ("volatile", None) => rules.volatile = true,
        ("fsync", Some(text)) => rules.volatile |= !switch(key, text, ON, OFF)?,
        ("noacl", None) => rules.no_acl = true,
        ("static_nlink", None) => rules.static_nlink = true,
        ("xattr_permissions", Some(text)) => {
            rules.stat_override = match text {
                "0" => None,
                "1" => Some(StatOverride::Privileged),
                "2" => Some(StatOverride::Containers),
                other => {
                    return Err(OptionError::value(
                        key,
                        format!("unknown value {other:?}: use one of 0|1|2"),
                    ));
                }
            };
        }
        ("cache_size", Some(text)) => rules.keep.cache_bytes = Some(size(key, text)?),
        ("materialized_size", Some(text)) => rules.keep.material_bytes = Some(size(key, text)?),
        ("timeout", Some(text)) => match text.parse::<f64>() {
            Ok(secs) if secs >= 0.0 => rules.timeout_secs = Some(secs),
            _ => {
                return Err(OptionError::value(
                    key,
                    format!("invalid time {text:?}: use a number of seconds"),
                ));
            }
        },
        ("nfs_export" | "verity" | "uuid", Some(value)) => unserved(parsed, key, value),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Options of overlayfs that a union does not support; refused unless they are off.
fn unserved(parsed: &mut Parsed, key: &str, value: &str) {
    let reason = match (key, value) {
        (_, "off" | "0" | "false") | ("uuid", "null" | "auto") => return,
        ("nfs_export", _) => "a FUSE mount is exported without it",
        ("verity", _) => "digests of fs-verity are not checked",
        _ => "a union has no UUID",
    };
    parsed.flags.refused.push((format!("{key}={value}"), reason));
}

/// SELinux labels, which the kernel accepts if SELinux is enabled.
fn label(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> Result<bool, OptionError> {
    let ("context" | "fscontext" | "defcontext" | "rootcontext", Some(value)) = (key, value) else {
        return Ok(false);
    };
    let value = String::from_utf8_lossy(value);
    if value.contains('"') {
        return Err(OptionError::value(key, "a label has no quotes"));
    }
    parsed.labels.push(format!("{key}=\"{value}\""));
    Ok(true)
}

/// Options of FUSE and of older programs.
fn fuse(parsed: &mut Parsed, key: &str, value: Option<&[u8]>) -> bool {
    match (key, value.is_some()) {
        ("allow_other", false) => parsed.allow_other = true,
        ("allow_root", false) => parsed.allow_root = true,
        ("default_permissions", false) => parsed.default_permissions = true,
        ("debug", false) => parsed.foreground = true,
        // The kernel reports these options, so they come back with a remount.
        ("user_id" | "group_id" | "rootmode" | "fd" | "max_read" | "blksize", true) => {}
        ("idmapped", false) => {}
        ("threaded" | "fast_ino" | "writeback" | "noxattrs" | "plugins", true)
        | ("max_write" | "max_readahead" | "max_background" | "congestion_threshold", true)
        | ("attr_timeout" | "entry_timeout" | "negative_timeout", true)
        | ("ino32_t" | "kernel_cache" | "auto_cache" | "use_ino" | "hard_remove", _)
        | ("big_writes" | "clone_fd" | "auto_unmount" | "nonempty" | "async_read", _)
        | ("splice_read" | "splice_write" | "splice_move", _)
        | ("no_splice_read" | "no_splice_write" | "no_splice_move", _)
        | ("lowerdir" | "upperdir" | "workdir", false) => {
            parsed.ignored.push(format!("{key}: no effect here"));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use laminafs::service::IdMap;

    fn parsed(list: &str) -> Parsed {
        let mut parsed = Parsed::default();
        parse(&mut parsed, list.as_bytes()).unwrap();
        parsed
    }

    fn refused(list: &str) -> String {
        parse(&mut Parsed::default(), list.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_podman_passes_is_taken() {
        let list = "lowerdir=l/A:l/B/../diff1,upperdir=x/diff,workdir=x/work,,volatile,\
                    uidmapping=:0:200000:5000,gidmapping=0:1:1005:1005:0:1,private,\
                    context=\"system_u:object_r:container_file_t:s0:c1,c2\",";
        let parsed = parsed(list);
        let lowers: Vec<_> = parsed.lowers.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(lowers, ["l/A", "l/B/../diff1"]);
        assert_eq!(parsed.upper.as_deref().unwrap().to_str(), Some("x/diff"));
        assert!(parsed.rules.volatile);
        let range = IdRange { disk: 0, shown: 200_000, len: 5000 };
        assert_eq!(parsed.rules.uid_map, IdMap { ranges: vec![range], squash: None });
        assert_eq!(parsed.rules.gid_map.ranges.len(), 2);
        assert_eq!(parsed.unknown, Vec::<String>::new());
    }

    #[test]
    fn all_options_of_fuse_overlayfs_are_known() {
        let list = "lowerdir=/a,redirect_dir=off,timeout=0,threaded=1,fsync=0,fast_ino=1,\
                    writeback=1,noxattrs=1,plugins=a:b,xattr_permissions=2,squash_to_root,\
                    squash_to_uid=5,squash_to_gid=6,static_nlink,noacl,xino=auto,ino32_t,\
                    allow_root,allow_other,default_permissions,suid,nodev,noexec,noatime,\
                    nodiratime,splice_read,kernel_cache,max_write=4096,ro,context=x";
        let parsed = parsed(list);
        assert_eq!(parsed.unknown, Vec::<String>::new());
        assert_eq!(parsed.rules.uid_map.squash, Some(5));
        assert_eq!(parsed.rules.redirect, Some(false));
        assert_eq!(parsed.rules.timeout_secs, Some(0.0));
        assert!(
            parsed.rules.volatile
                && parsed.rules.stat_override == Some(StatOverride::Containers)
                && parsed.rules.no_acl
        );
        assert!(parsed.flags.vfs.read_only && parsed.flags.vfs.nodev);
    }

    #[test]
    fn escapes_reach_paths_as_they_are_meant() {
        let parsed = parsed(r"lowerdir=/a\:b:/c\,d,upperdir=/u:x,workdir=/w\\y,fsname=a\,b");
        let lowers: Vec<_> = parsed.lowers.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(lowers, ["/a:b", "/c,d"]);
        assert_eq!(parsed.upper.unwrap().to_str(), Some("/u:x"));
        assert_eq!(parsed.work.unwrap().to_str(), Some(r"/w\y"));
        assert_eq!(parsed.source.unwrap(), b"a,b");
    }

    #[test]
    fn what_is_unknown_is_named_and_what_is_wrong_refused() {
        assert_eq!(parsed("lowerdir=/a,bogus=1,ro").unknown, ["bogus=1"]);
        assert_eq!(
            refused("redirect_dir=maybe"),
            "option redirect_dir: unknown value \"maybe\": \
             use one of on|1|true|off|nofollow|follow|0"
        );
        assert!(refused("uidmapping=0:1").contains("LAYER:MOUNT:COUNT"));
        assert!(refused("lowerdir=/a::/b").contains("::"));
        assert!(refused("timeout=-1").contains("seconds"));
        assert!(refused("io=fast").contains("auto|passthrough|cached|noopen"));
        assert!(refused("cache_size=64MB").contains("use bytes, or a number"));
        assert!(refused("cache_size=99999999T").contains("99999999T"));
    }

    #[test]
    fn drivers_are_chosen_or_left_to_the_host() {
        let rules = parsed("io=noopen,reflink=off,whiteouts=file").rules;
        assert_eq!((rules.io, rules.reflink), (Some(IoDriver::NoOpen), Some(false)));
        assert_eq!(rules.whiteouts, Some(WhiteoutForm::Aufs));
        let rules = parsed("io=cached,whiteouts=file,io=auto,whiteouts=auto").rules;
        assert_eq!((rules.io, rules.whiteouts), (None, None));
        assert_eq!(parsed("passthrough=off").rules.io, Some(IoDriver::Cached));
    }

    #[test]
    fn redirects_are_followed_or_not_as_the_option_says() {
        for (text, made, followed) in [
            ("on", true, None),
            ("off", false, None),
            ("follow", false, Some(true)),
            ("nofollow", false, Some(false)),
            ("nofollow,redirect_dir=on", true, None),
        ] {
            let rules = parsed(&format!("redirect_dir={text}")).rules;
            assert_eq!((rules.redirect, rules.follow_redirects), (Some(made), followed), "{text}");
        }
    }

    #[test]
    fn sizes_have_suffixes() {
        let keep = parsed("cache_size=64M,materialized_size=0").rules.keep;
        assert_eq!((keep.cache_bytes, keep.material_bytes), (Some(64 << 20), Some(0)));
    }
}
