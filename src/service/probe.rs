//! The features of the file system of an upper, found by trying them in the work directory.

use super::spec::Rules;
use crate::error::{Errno, Result};
use crate::types::{Kind, Owner, XattrFlags};
use crate::union::{DirRef, Marks, Options, WhiteoutForm};

/// The features that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// `trusted.` attributes can be set.
    pub trusted: bool,
    /// `user.` attributes can be set.
    pub user: bool,
    /// Character devices 0:0 can be made.
    pub whiteouts: bool,
    /// Files share extents.
    pub reflink: bool,
}

fn tried(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.errno() {
            Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL => Ok(false),
            _ => Err(error),
        },
    }
}

/// Tests the features in an empty work directory, and leaves it empty.
pub(super) fn probe(work: &DirRef, own: Owner) -> Result<Abilities> {
    let (file, device): (&[u8], &[u8]) = (b"#probe", b"#device");
    work.mknod(file, Kind::File.mode_bits() | 0o600, 0, own)?;
    let set = |key: &[u8]| work.set_xattr(Some(file), key, b"y", XattrFlags::default());
    let trusted = tried(set(b"trusted.overlay.probe"));
    let user = tried(set(b"user.overlay.probe"));
    work.unlink(file)?;
    let made = tried(work.mknod(device, Kind::Char.mode_bits(), 0, own))?;
    let whiteouts = made && work.stat(Some(device))?.is_whiteout_device();
    if made {
        work.unlink(device)?;
    }
    let reflink = shares_extents(work, own);
    Ok(Abilities { trusted: trusted?, user: user?, whiteouts, reflink })
}

// Any failure, including a full disk, counts as no sharing and does not fail the mount.
pub(super) fn shares_extents(work: &DirRef, own: Owner) -> bool {
    let names: [&[u8]; 2] = [b"#from", b"#to"];
    let shared = || -> Result<bool> {
        let from = work.create(names[0], 0o600, own)?;
        let to = work.create(names[1], 0o600, own)?;
        // Some file systems without sharing accept it for an empty file.
        from.write_at(&[1; 4096], 0)?;
        Ok(from.clone_to(to.as_ref()).is_ok())
    };
    let shared = shared();
    for name in names {
        if let Err(error) = work.unlink(name) {
            tracing::debug!(%error, "what was tried stays until the next mount");
        }
    }
    shared.unwrap_or(false)
}

/// The option that requires a feature that the host does not have, if there is one.
pub(super) fn impossible(rules: &Rules, can: Abilities) -> Option<(&'static str, &'static str)> {
    let marked = (can.trusted && !rules.userxattr) || can.user;
    let device = rules.whiteouts == Some(WhiteoutForm::Device);
    if device && !(can.whiteouts && marked) {
        return Some(("whiteouts=device", "no character device 0:0 can be made there"));
    }
    if rules.reflink == Some(true) && !can.reflink {
        return Some(("reflink=on", "its file system shares no extents"));
    }
    None
}

/// The options that exclude each other, if there are two (`ovl_fs_params_verify()` in the kernel's
/// fs/overlayfs/params.c): the data of a metacopy is found by redirects.
pub(super) fn conflict(rules: &Rules, writes: bool) -> Option<(&'static str, &'static str)> {
    let redirects = match (rules.redirect, rules.follow_redirects) {
        (Some(false), Some(true)) => !writes,
        (Some(false), _) => false,
        _ => true,
    };
    let refused = rules.metacopy == Some(true) && !redirects;
    refused.then_some(("metacopy=on", "redirect_dir= excludes it: data is found by redirects"))
}

/// The options of a mount on a host with these features.
pub(super) fn options(rules: &Rules, can: Abilities) -> Options {
    let trusted = can.trusted && !rules.userxattr;
    let marked = trusted || can.user;
    let form = match rules.whiteouts {
        Some(form) => form,
        None if can.whiteouts && marked => WhiteoutForm::Device,
        None => WhiteoutForm::Aufs,
    };
    let redirect = rules.redirect.unwrap_or(trusted);
    let metacopy = rules.metacopy.unwrap_or(trusted && redirect);
    Options {
        marks: if trusted { Marks::Trusted } else { Marks::User },
        // The kernel reads neither of them in `user.`.
        metacopy: marked && metacopy,
        redirect: marked && redirect,
        follow_redirects: rules.follow_redirects.unwrap_or(trusted || redirect),
        follow_metacopy: rules.follow_metacopy.unwrap_or(metacopy),
        index: marked && rules.index.unwrap_or(true),
        whiteouts: form,
        reflink: can.reflink && rules.reflink != Some(false),
        volatile: rules.volatile,
        strict_atime: false,
        dir_atime: false,
        static_nlink: rules.static_nlink,
        acl: !rules.no_acl,
        uid_map: rules.uid_map.clone(),
        gid_map: rules.gid_map.clone(),
        group: rules.group,
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities { trusted: true, user: true, whiteouts: true, reflink: true };

    #[test]
    fn root_writes_what_the_kernel_writes() {
        let options = options(&Rules::default(), ALL);
        assert_eq!((options.marks, options.whiteouts), (Marks::Trusted, WhiteoutForm::Device));
        assert!(options.metacopy && options.redirect && options.index);
    }

    #[test]
    fn user_marks_come_without_redirects_unless_asked_for() {
        let rules = Rules { userxattr: true, ..Rules::default() };
        let found = options(&rules, ALL);
        assert_eq!(found.marks, Marks::User);
        assert!(!found.metacopy && !found.redirect);
        let rules = Rules { redirect: Some(true), ..rules };
        assert!(options(&rules, ALL).redirect);
    }

    #[test]
    fn marks_are_followed_as_the_kernel_follows_them() {
        // The values of redirect_dir= and metacopy=; for `trusted.` marks, then for `user.` marks.
        let follows = |redirect, follow_redirects, metacopy, userxattr| {
            let rules =
                Rules { redirect, follow_redirects, metacopy, userxattr, ..Rules::default() };
            let found = options(&rules, ALL);
            (found.follow_redirects, found.follow_metacopy)
        };
        let (on, off) = (Some(true), Some(false));
        for (redirect, follow, metacopy, root, user) in [
            (None, None, None, (true, true), (false, false)),
            (on, None, None, (true, true), (true, false)),
            (off, None, None, (true, false), (false, false)),
            (off, on, None, (true, false), (true, false)),
            (off, off, None, (false, false), (false, false)),
            (None, None, off, (true, false), (false, false)),
            (on, None, on, (true, true), (true, true)),
        ] {
            assert_eq!(follows(redirect, follow, metacopy, false), root, "{redirect:?} {follow:?}");
            assert_eq!(follows(redirect, follow, metacopy, true), user, "{redirect:?} {follow:?}");
        }
    }

    #[test]
    fn metacopy_without_redirects_is_a_conflict() {
        let rules = |redirect, follow_redirects, metacopy| Rules {
            redirect,
            follow_redirects,
            metacopy,
            ..Rules::default()
        };
        let (on, off) = (Some(true), Some(false));
        assert_eq!(conflict(&rules(off, None, on), false).unwrap().0, "metacopy=on");
        assert!(conflict(&rules(off, off, on), false).is_some());
        assert!(conflict(&rules(off, on, on), true).is_some());
        assert_eq!(conflict(&rules(off, on, on), false), None);
        assert_eq!(conflict(&rules(None, None, on), true), None);
        assert_eq!(conflict(&rules(off, None, None), true), None);
    }

    #[test]
    fn without_attributes_whiteouts_are_files_and_nothing_needs_marks() {
        let can = Abilities { trusted: false, user: false, ..ALL };
        let rules = Rules { redirect: Some(true), ..Rules::default() };
        let found = options(&rules, can);
        assert_eq!(found.whiteouts, WhiteoutForm::Aufs);
        assert!(!found.metacopy && !found.redirect && !found.index);
    }

    #[test]
    fn what_is_forced_and_cannot_be_is_named() {
        let forced = |whiteouts, reflink| Rules { whiteouts, reflink, ..Rules::default() };
        let device = Some(WhiteoutForm::Device);
        let can = Abilities { whiteouts: false, reflink: false, ..ALL };
        assert_eq!(impossible(&forced(device, None), can).unwrap().0, "whiteouts=device");
        assert_eq!(impossible(&forced(None, Some(true)), can).unwrap().0, "reflink=on");
        assert_eq!(impossible(&forced(device, Some(true)), ALL), None);
        assert_eq!(impossible(&forced(Some(WhiteoutForm::Aufs), Some(false)), can), None);
        assert!(!options(&forced(None, Some(false)), ALL).reflink);
    }
}
