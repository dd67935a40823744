//! Checks for layers of one mount that overlap.
//!
//! The rules are those of the kernel (`ovl_check_overlapping_layers()` in fs/overlayfs/super.c): no
//! directory may be given twice, and a lower may not be inside another layer. An upper or work
//! directory inside a lower is allowed, since `lowerdir=/` is. A writable bind may not overlap the
//! upper and the work directory, which the mount itself changes and empties.
//!
//! Directories are compared by device and inode. The directories around one are found through its
//! parents within its mount, and through the path within its file system, which a bind mount keeps.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::failure::ServiceResult;
use super::mounts::{self, MountEntry};
use super::spec::MountSpec;
use super::{Failure, layers};
use crate::error::Result;
use crate::sys::file::{self, OFlags};
use crate::types::{Graft, GraftSource};

/// The role of a directory; the option of a role has a related name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Lower,
    Upper,
    Work,
    Bind,
}

/// Device and inode number.
type Identity = (u64, u64);

/// A directory that was given in an option.
struct Named {
    role: Role,
    path: PathBuf,
    /// The identities of the directory and of its parents up to the root of its mount.
    chain: Vec<Identity>,
    /// The device number and the path within the file system, if the mount is in the table.
    inside: Option<(String, PathBuf)>,
}

impl Role {
    const fn option(self) -> &'static str {
        match self {
            Self::Lower => "lowerdir",
            Self::Upper => "upperdir",
            Self::Work => "workdir",
            Self::Bind => "bind",
        }
    }

    /// Whether a directory of this role may be neither equal to one of `other` nor inside it.
    const fn keeps_out_of(self, other: Self) -> bool {
        match self {
            Self::Lower => !matches!(other, Self::Bind),
            Self::Upper => matches!(other, Self::Work),
            Self::Work => matches!(other, Self::Upper),
            Self::Bind => matches!(other, Self::Upper | Self::Work),
        }
    }
}

impl Named {
    /// Finds a directory. One that cannot be opened is skipped here, and refused when it is opened
    /// for use.
    fn find(role: Role, path: &Path, table: &[MountEntry]) -> Option<Self> {
        let fd = file::find_directory(path).ok()?;
        let chain = chain(&fd).ok()?;
        let path = PathBuf::from(OsString::from_vec(file::path_of(fd.as_fd()).ok()?));
        let id = file::mount_id(fd.as_fd(), b"").ok();
        let mount = table.iter().find(|entry| Some(entry.id) == id);
        let inside = mount.and_then(|mount| {
            let beneath = path.strip_prefix(&mount.target).ok()?;
            Some((mount.device.clone(), mount.root.join(beneath)))
        });
        Some(Self { role, path, chain, inside })
    }

    fn is(&self, other: &Self) -> bool {
        self.chain.first() == other.chain.first()
    }

    fn is_inside(&self, other: &Self) -> bool {
        let by_parents = other
            .chain
            .first()
            .is_some_and(|other| self.chain.iter().skip(1).any(|id| id == other));
        let by_path = match (&self.inside, &other.inside) {
            (Some((device, path)), Some((other_device, other))) => {
                device == other_device && path != other && path.starts_with(other)
            }
            _ => false,
        };
        by_parents || by_path
    }

    fn shown(&self) -> String {
        format!("{}={}", self.role.option(), self.path.display())
    }
}

fn chain(dir: &OwnedFd) -> Result<Vec<Identity>> {
    let identity = |dir: &OwnedFd| file::statx(dir.as_fd(), b"").map(|stat| (stat.dev, stat.ino));
    let mount = file::mount_id(dir.as_fd(), b"")?;
    let mut chain = vec![identity(dir)?];
    let mut parent = file::openat(dir.as_fd(), b"..", OFlags::PATH | OFlags::DIRECTORY)?;
    while file::mount_id(parent.as_fd(), b"")? == mount {
        let next = identity(&parent)?;
        if chain.last() == Some(&next) {
            break;
        }
        chain.push(next);
        parent = file::openat(parent.as_fd(), b"..", OFlags::PATH | OFlags::DIRECTORY)?;
    }
    Ok(chain)
}

/// The directory of a writable bind, or the directory that holds its file.
fn bound(graft: &Graft) -> Option<PathBuf> {
    let GraftSource::Bind(path) = &graft.source else { return None };
    if graft.flags.read_only {
        return None;
    }
    let absolute = layers::resolved(path).ok()?;
    match layers::is_directory(&absolute) {
        Ok(true) => Some(absolute),
        _ => absolute.parent().map(Path::to_path_buf),
    }
}

/// Refuses directories that overlap.
///
/// # Errors
/// [`Failure::Overlap`], [`Failure::Nested`].
pub(super) fn check(spec: &MountSpec) -> ServiceResult<()> {
    let table = mounts::read().unwrap_or_default();
    let upper = spec.upper.iter().flat_map(|dirs| {
        let work = dirs.work.as_ref().filter(|_| !spec.flags.read_only);
        let work = work.map(|work| (Role::Work, work.clone()));
        [Some((Role::Upper, dirs.upper.clone())), work].into_iter().flatten()
    });
    let lowers = spec.lowers.iter().map(|path| (Role::Lower, path.clone()));
    let binds = spec.grafts.iter().filter_map(bound).map(|path| (Role::Bind, path));
    let named: Vec<Named> = upper
        .chain(lowers)
        .chain(binds)
        .filter_map(|(role, path)| Named::find(role, &path, &table))
        .collect();
    for (index, one) in named.iter().enumerate() {
        let others = named.iter().enumerate().filter(|(other, _)| *other != index);
        for (_, other) in others.filter(|(_, other)| one.role.keeps_out_of(other.role)) {
            let (same, within) = (one.is(other), one.is_inside(other));
            if (same || within) && matches!(one.role, Role::Upper | Role::Work) {
                let (upper, work) =
                    if one.role == Role::Upper { (one, other) } else { (other, one) };
                return Err(Failure::Nested { upper: upper.path.clone(), work: work.path.clone() });
            }
            if same || within {
                let how = if same { "and" } else { "is inside" };
                let tail = if same { " are one directory" } else { "" };
                let what = format!("{} {how} {}{tail}", one.shown(), other.shown());
                return Err(Failure::Overlap { what });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::spec::UpperDirs;
    use crate::types::BindFlags;

    fn site() -> tempfile::TempDir {
        let site = tempfile::tempdir().unwrap();
        for dir in ["lower/sub", "other", "upper/sub", "work/sub"] {
            std::fs::create_dir_all(site.path().join(dir)).unwrap();
        }
        site
    }

    fn spec(site: &tempfile::TempDir, lowers: &[&str], upper: &str, work: &str) -> MountSpec {
        let path = |name: &&str| site.path().join(name);
        MountSpec {
            lowers: lowers.iter().map(path).collect(),
            upper: Some(UpperDirs { upper: path(&upper), work: Some(path(&work)) }),
            ..MountSpec::default()
        }
    }

    fn refused(spec: &MountSpec) -> String {
        check(spec).unwrap_err().to_string()
    }

    #[test]
    fn separate_layers_and_an_upper_inside_a_lower_pass() {
        let site = site();
        check(&spec(&site, &["lower", "other"], "upper", "work")).unwrap();
        check(&spec(&site, &[""], "upper", "work")).unwrap();
        check(&spec(&site, &["/"], "upper", "work")).unwrap();
        check(&spec(&site, &["missing"], "upper", "work")).unwrap();
    }

    #[test]
    fn a_layer_given_twice_is_refused_and_both_options_are_named() {
        let site = site();
        let at = |name: &str| site.path().canonicalize().unwrap().join(name).display().to_string();
        assert_eq!(
            refused(&spec(&site, &["upper"], "upper", "work")),
            format!("lowerdir={0} and upperdir={0} are one directory (ELOOP)", at("upper"))
        );
        assert_eq!(
            refused(&spec(&site, &["work/sub"], "upper", "work")),
            format!("lowerdir={} is inside workdir={} (ELOOP)", at("work/sub"), at("work"))
        );
        for lowers in [&["work"][..], &["upper/sub"], &["lower", "lower"]] {
            refused(&spec(&site, lowers, "upper", "work"));
        }
        for lowers in [&["lower", "lower/sub"], &["lower/sub", "lower"]] {
            refused(&spec(&site, lowers, "upper", "work"));
            refused(&MountSpec { upper: None, ..spec(&site, lowers, "upper", "work") });
        }
    }

    #[test]
    fn links_are_followed() {
        let site = site();
        std::os::unix::fs::symlink("upper", site.path().join("link")).unwrap();
        refused(&spec(&site, &["link/sub"], "upper", "work"));
        refused(&spec(&site, &["link"], "upper", "work"));
        refused(&spec(&site, &["lower"], "upper", "link/sub"));
    }

    #[test]
    fn a_mount_to_read_has_no_work_directory() {
        let site = site();
        let mut spec = spec(&site, &["work"], "upper", "work");
        spec.flags.read_only = true;
        check(&spec).unwrap();
        spec.lowers = vec![site.path().join("upper")];
        refused(&spec);
    }

    #[test]
    fn a_writable_bind_is_kept_out_of_what_the_mount_changes() {
        let site = site();
        std::fs::write(site.path().join("work/file"), "").unwrap();
        let bind = |source: &str, read_only: bool| {
            let source = GraftSource::Bind(site.path().join(source));
            let path = vec![crate::types::name(b"at")];
            let flags = BindFlags { read_only, ..BindFlags::default() };
            let grafts = vec![Graft { source, path, flags, recursive: false }];
            check(&MountSpec { grafts, ..spec(&site, &["lower"], "upper", "work") })
        };
        for source in ["upper", "upper/sub", "work", "work/sub", "work/file"] {
            bind(source, false).unwrap_err();
            bind(source, true).unwrap();
        }
        for source in ["", "lower", "lower/sub", "other"] {
            bind(source, false).unwrap();
        }
    }
}
