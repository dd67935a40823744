//! Conversion of members of a tar to objects of a layer.

use super::header;
use super::members::{Member, Members, Source};
use crate::store::sink::{Body, Meta, Sink};
use crate::transfer::error::TransferError;
use crate::transfer::limits::ENTRIES_MAX;
use crate::transfer::marks;
use crate::transfer::path::{self, Place, refused};
use crate::types::Name;

/// The longest target of a symbolic link: `PATH_MAX` of Linux without its NUL.
pub(super) const TARGET_MAX: usize = 4095;

/// Adds all members to the sink. Returns their number.
pub(super) fn import<S: Source>(
    members: &mut Members<S>,
    sink: &mut dyn Sink,
) -> Result<u64, TransferError> {
    let mut entries = 0;
    while let Some(member) = members.next()? {
        if entries == ENTRIES_MAX {
            let what = format!("archive has more than {ENTRIES_MAX} members");
            return Err(TransferError::TooLarge { what });
        }
        entries += 1;
        deposit(members, member, sink)?;
    }
    Ok(entries)
}

fn deposit<S: Source>(
    members: &mut Members<S>,
    mut member: Member,
    sink: &mut dyn Sink,
) -> Result<(), TransferError> {
    let name = std::mem::take(&mut member.name);
    let refuse = refused(&name);
    let path = match path::place(&name).map_err(&refuse)? {
        Place::Nothing => return Ok(()),
        Place::Opaque(dir) => return Ok(sink.opaque(&dir)?),
        Place::Whiteout(path) => return Ok(sink.whiteout(&path)?),
        Place::Object(path) => path,
    };
    let marks = marks::take(&mut member.xattrs).map_err(&refuse)?;
    if path.is_empty() && member.kind != b'5' {
        return Err(refuse("it is the root, but not a directory"));
    }
    let (kind, size) = (member.kind, member.size);
    if is_whiteout(&member, marks) {
        return Ok(sink.whiteout(&path)?);
    }
    if kind == b'1' {
        let target = path::link_target(&member.link).map_err(&refuse)?;
        if target == path {
            return Err(refuse("it is a hard link to itself"));
        }
        return Ok(sink.link(&path, &target)?);
    }
    let meta = meta(member.meta, member.xattrs);
    let (major, minor) = member.device;
    match kind {
        b'0' => put_file(members, (&path, meta), size, sink),
        b'5' => {
            sink.put(&path, meta, Body::Dir)?;
            if marks.opaque {
                sink.opaque(&path)?;
            }
            Ok(())
        }
        b'2' => {
            let target = member.link;
            if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                return Err(refuse("its target is empty, longer than 4095 bytes or holds a NUL"));
            }
            Ok(sink.put(&path, meta, Body::Symlink { target })?)
        }
        b'3' => Ok(sink.put(&path, meta, Body::Char { major, minor })?),
        b'4' => Ok(sink.put(&path, meta, Body::Block { major, minor })?),
        b'6' => Ok(sink.put(&path, meta, Body::Fifo)?),
        other => Err(TransferError::Entry {
            name: path::shown(&name),
            what: format!("its type `{}` is not supported", [other].escape_ascii()),
        }),
    }
}

fn is_whiteout(member: &Member, marks: marks::Marks) -> bool {
    match member.kind {
        b'3' => member.device == (0, 0),
        b'0' => marks.whiteout && member.size == 0,
        _ => false,
    }
}

fn meta(header: header::Meta, xattrs: marks::Xattrs) -> Meta {
    let header::Meta { mode, uid, gid, mtime } = header;
    Meta { mode, uid, gid, mtime, xattrs }
}

fn put_file<S: Source>(
    members: &mut Members<S>,
    (path, meta): (&[Name], Meta),
    size: u64,
    sink: &mut dyn Sink,
) -> Result<(), TransferError> {
    let mut data = members.data();
    let put = sink.put(path, meta, Body::File { size, data: &mut data });
    data.end();
    // The sink only reports a failed read; return the error of the archive instead.
    match data.failure() {
        Some(failure) => Err(failure),
        None => Ok(put?),
    }
}

#[cfg(test)]
mod tests {
    use crate::transfer::testing::*;

    fn error(tar: Tar) -> String {
        tar.import().map(|seen| seen.lines).unwrap_err().to_string()
    }

    #[test]
    fn every_type_becomes_what_it_is() {
        let mut device = header(b'3', b"dev/null", 0);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        let mut disk = header(b'4', b"dev/sda", 0);
        disk.set_device_major(8).unwrap();
        let tar = Tar::default()
            .member(b'5', "./", b"")
            .member(b'5', "d/", b"")
            .file("./d/f", b"data")
            .member(0, "old", b"")
            .member(b'7', "contiguous", b"")
            .member(b'0', "old-dir/", b"")
            .link(b'1', "hard", "./d/f")
            .link(b'2', "soft", "../../etc/passwd")
            .raw(device, b"")
            .raw(disk, b"")
            .member(b'6', "fifo", b"");
        let seen = tar.import().unwrap();
        assert_eq!(
            seen.lines,
            [
                "dir /",
                "dir /d",
                "file /d/f 4",
                "file /old 0",
                "file /contiguous 0",
                "dir /old-dir",
                "link /hard /d/f",
                "symlink /soft ../../etc/passwd",
                "char /dev/null 1:3",
                "block /dev/sda 8:0",
                "fifo /fifo",
            ]
        );
        assert_eq!(seen.contents.get("/d/f").unwrap(), b"data");
    }

    #[test]
    fn names_that_leave_the_layer_are_refused() {
        for name in ["../x", "a/../../x", "a/..", "/../x"] {
            assert!(error(Tar::default().file(name, b"")).contains("`..`"), "{name}");
            assert!(Tar::default().link(b'1', "l", name).import().is_err(), "{name}");
        }
        assert!(error(Tar::default().file("", b"")).contains("empty"));
        let nul = Tar::default().pax(&[("path", b"a\0b")]).file("f", b"");
        assert!(error(nul).contains("NUL"));
        let absolute = Tar::default().file("/abs//x", b"").import().unwrap();
        assert_eq!(absolute.lines, ["file /abs/x 0"]);
    }

    #[test]
    fn names_beyond_the_limits_of_linux_are_refused() {
        let named = |name: &str| Tar::default().pax(&[("path", name.as_bytes())]).file("f", b"");
        assert!(error(named(&"a".repeat(256))).contains("255"));
        assert!(error(named(&"ab/".repeat(1366))).contains("4096"));
        assert!(error(named(&"a/".repeat(1025))).contains("1024 levels"));
        assert_eq!(named(&"a/".repeat(1024)).import().unwrap().lines.len(), 1);
        let target = "t".repeat(4096);
        let link = Tar::default().pax(&[("linkpath", target.as_bytes())]).link(b'2', "l", "t");
        assert!(error(link).contains("4095"));
        assert!(error(Tar::default().link(b'2', "l", "")).contains("target is empty"));
    }

    #[test]
    fn hard_links_may_come_first_and_never_loop() {
        let seen = Tar::default().link(b'1', "a", "b").file("b", b"").import().unwrap();
        assert_eq!(seen.lines, ["link /a /b", "file /b 0"]);
        assert!(error(Tar::default().link(b'1', "a", "./a")).contains("itself"));
        assert!(error(Tar::default().link(b'1', "a", "/")).contains("root"));
    }

    #[test]
    fn the_root_is_a_directory() {
        assert!(error(Tar::default().link(b'2', "./", "x")).contains("not a directory"));
        assert!(error(Tar::default().link(b'1', "/", "x")).contains("not a directory"));
    }

    #[test]
    fn unknown_types_are_refused() {
        for kind in *b"MVD\x1b" {
            assert!(error(Tar::default().member(kind, "n", b"")).contains("not supported"));
        }
    }

    #[test]
    fn whiteouts_come_in_three_forms() {
        let tar = Tar::default()
            .file("d/.wh.gone", b"")
            .link(b'1', ".wh.old", ".wh..wh.aufs")
            .member(b'3', "device", b"")
            .pax(&[("SCHILY.xattr.user.overlay.whiteout", b"")])
            .file("attribute", b"")
            .pax(&[("SCHILY.xattr.trusted.overlay.whiteout", b"y")])
            .file("full", b"x");
        assert_eq!(
            tar.import().unwrap().lines,
            [
                "whiteout /d/gone",
                "whiteout /old",
                "whiteout /device",
                "whiteout /attribute",
                "file /full 1"
            ]
        );
        for name in [".wh.", "a/.wh..", ".wh...", "a/.wh.b/c"] {
            assert!(Tar::default().file(name, b"").import().is_err(), "{name}");
        }
    }

    #[test]
    fn opaque_directories_come_in_two_forms() {
        let tar = Tar::default()
            .file("a/.wh..wh..opq", b"")
            .file(".wh..wh..opq", b"")
            .member(b'5', ".wh..wh.plnk/", b"")
            .file(".wh..wh.plnk/1.2", b"data")
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
            .member(b'5', "b", b"")
            .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"x")])
            .member(b'5', "c", b"");
        let seen = tar.import().unwrap();
        assert_eq!(seen.lines, ["opaque /a", "opaque /", "dir /b", "opaque /b", "dir /c"]);
        assert!(seen.metas.get("/b").unwrap().xattrs.is_empty());
    }

    #[test]
    fn references_of_overlayfs_to_other_layers_are_refused() {
        for key in ["trusted.overlay.redirect", "user.overlay.metacopy"] {
            let key = format!("SCHILY.xattr.{key}");
            let tar = Tar::default().pax(&[(&key, b"/x")]).file("f", b"");
            assert!(error(tar).contains("overlayfs"), "{key}");
        }
    }

    #[test]
    fn attributes_and_times_are_kept_to_the_byte() {
        let capability = b"\x01\0\0\x02\n=\0\xff";
        let tar = Tar::default()
            .pax(&[
                ("SCHILY.xattr.security.capability", capability),
                ("SCHILY.xattr.user.overlay.origin", b"o"),
                ("mtime", b"-0.25"),
                ("uid", b"4000000000"),
            ])
            .file("f", b"");
        let seen = tar.import().unwrap();
        let meta = seen.metas.get("/f").unwrap();
        assert_eq!(meta.xattrs.len(), 1);
        assert_eq!(meta.xattrs.get(b"security.capability".as_slice()).unwrap(), capability);
        assert_eq!((meta.mtime.secs, meta.mtime.nanos), (-1, 750_000_000));
        assert_eq!((meta.uid, meta.mode), (4_000_000_000, 0o644));
        let long = vec![b'v'; 65_537];
        let tar = Tar::default().pax(&[("SCHILY.xattr.user.a", &long)]).file("f", b"");
        assert!(error(tar).contains("64 KiB"));
    }

    #[test]
    fn data_that_a_sink_leaves_is_passed_over() {
        struct Lazy(Vec<Vec<crate::types::Name>>);
        impl super::Sink for Lazy {
            fn put(
                &mut self,
                path: &[crate::types::Name],
                _: super::Meta,
                body: super::Body<'_>,
            ) -> Result<(), crate::store::error::StoreError> {
                if let super::Body::File { data, .. } = body {
                    assert_eq!(data.read(&mut [0; 3]).unwrap(), 3);
                }
                self.0.push(path.to_vec());
                Ok(())
            }
            fn link(
                &mut self,
                _: &[crate::types::Name],
                _: &[crate::types::Name],
            ) -> Result<(), crate::store::error::StoreError> {
                Ok(())
            }
            fn whiteout(
                &mut self,
                _: &[crate::types::Name],
            ) -> Result<(), crate::store::error::StoreError> {
                Ok(())
            }
            fn opaque(
                &mut self,
                _: &[crate::types::Name],
            ) -> Result<(), crate::store::error::StoreError> {
                Ok(())
            }
        }
        let mut lazy = Lazy(Vec::new());
        let tar = Tar::default().file("a", &[1; 2000]).file("b", &[2; 5]).end();
        super::super::layer_from_tar(tar.as_slice(), &mut lazy).unwrap();
        assert_eq!(lazy.0.len(), 2);
    }
}
