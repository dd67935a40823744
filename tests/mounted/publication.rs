//! Publications: the content of a volume at a path of the host, as an orchestrator asks for it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use laminafs::service::mounts;
use laminafs::service::publication::{Publication, PublicationError, Publications};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::Site;
use crate::tools::*;

judged!(host:
    a_target_is_published_once_and_removed,
    other_arguments_are_refused_while_it_is_mounted,
    read_only_is_erofs_for_root_and_flags_are_those_of_the_request,
    unknown_flags_and_contexts_are_refused,
    all_of_our_mounts_on_a_target_end,
    a_mount_of_another_program_is_left_alone,
    a_mount_in_use_is_busy_and_its_user_is_named,
    content_below_a_target_is_never_removed,
    names_may_hold_any_character,
    paths_that_lead_elsewhere_are_refused,
    a_device_is_shown_at_a_file,
    a_record_without_its_mount_is_taken_up,
    a_hundred_rounds_leave_nothing,
);

/// Publications, a source with a file, and a directory for targets.
pub struct Stage {
    pub publications: Publications,
    pub source: PathBuf,
    pub targets: PathBuf,
}

pub fn stage(s: &Site) -> Stage {
    let (source, targets) = (s.root().join("source"), s.root().join("pods"));
    dir(&source);
    dir(&targets);
    put(source.join("f"), "content");
    let publications = Publications::open(&s.root().join("store")).unwrap();
    Stage { publications, source, targets }
}

impl Stage {
    pub fn plain(&self, target: &str) -> Publication {
        Publication {
            target: self.targets.join(target),
            source: self.source.clone(),
            ..Publication::default()
        }
    }

    pub fn end(&self, target: &Path) -> Result<(), PublicationError> {
        self.publications.unpublish(target, |_| Ok(()), |_| Ok(()))
    }
}

/// The mounts that the table has on a path.
pub fn mounts_on(path: &Path) -> usize {
    let table = mounts::read_of("thread-self").unwrap();
    table.iter().filter(|mount| mount.target == path).count()
}

/// What the store keeps of publications.
pub fn records(s: &Site) -> Vec<String> {
    names(s.root().join("store/publications"))
}

fn bind(source: &Path, target: &Path) {
    rustix::mount::mount_bind(source, target).unwrap();
}

fn unmount(target: &Path) {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).unwrap();
}

fn is_foreign(result: Result<impl Sized, PublicationError>) -> bool {
    matches!(result, Err(PublicationError::Foreign { .. }))
}

fn is_occupied(result: Result<impl Sized, PublicationError>) -> bool {
    matches!(result, Err(PublicationError::Occupied { .. }))
}

fn a_target_is_published_once_and_removed(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    let target = &wanted.target;
    assert_eq!(stage.publications.find(target).unwrap(), None);
    assert!(stage.publications.publish(&wanted).unwrap());
    assert_eq!(get(target.join("f")), b"content");
    for _ in 0..3 {
        assert!(!stage.publications.publish(&wanted).unwrap(), "it is there");
    }
    assert_eq!(mounts_on(target), 1);
    assert_eq!(stage.publications.find(target).unwrap(), Some((wanted.clone(), true)));
    assert_eq!(stage.publications.list().unwrap(), vec![wanted.clone()]);
    put(target.join("g"), "written");
    assert_eq!(get(stage.source.join("g")), b"written");
    let record = s.root().join("store/publications").join(&records(s)[0]);
    assert_eq!(fs::metadata(record).unwrap().mode() & 0o777, 0o600);
    let refuse = |found: &Publication| {
        assert_eq!(*found, wanted);
        let owner = "another volume".to_owned();
        Err(PublicationError::Other { target: found.target.clone(), owner })
    };
    let refused = stage.publications.unpublish(target, refuse, |_| panic!("released"));
    assert!(matches!(refused, Err(PublicationError::Other { .. })));
    assert_eq!(mounts_on(target), 1);
    let fails = |_: &Publication| Err(PublicationError::Release("not yet".to_owned()));
    stage.publications.unpublish(target, |_| Ok(()), fails).unwrap_err();
    assert_eq!(stage.publications.find(target).unwrap(), Some((wanted.clone(), false)));
    let mut released = 0;
    for _ in 0..2 {
        let release = |_: &Publication| {
            released += 1;
            Ok(())
        };
        stage.publications.unpublish(target, |_| Ok(()), release).unwrap();
    }
    assert_eq!(released, 1);
    assert!(!exists(target));
    assert_eq!(records(s), Vec::<String>::new());
    assert_eq!(names(&stage.source), ["f", "g"]);
}

fn other_arguments_are_refused_while_it_is_mounted(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    stage.publications.publish(&wanted).unwrap();
    let other = s.root().join("other");
    dir(&other);
    let about = [("volume".to_owned(), "w".to_owned())].into();
    for different in [
        Publication { read_only: true, ..wanted.clone() },
        Publication { source: other.clone(), ..wanted.clone() },
        Publication { flags: vec!["nosuid".to_owned()], ..wanted.clone() },
        Publication { group: Some(1), ..wanted.clone() },
        Publication { about, ..wanted.clone() },
    ] {
        let error = stage.publications.publish(&different).unwrap_err();
        assert!(matches!(error, PublicationError::AlreadyPublished { .. }), "{error}");
    }
    assert_eq!((mounts_on(&wanted.target), get(wanted.target.join("f"))), (1, b"content".to_vec()));
    // A spelling is no other argument.
    let spelled = stage.targets.join("./t/");
    assert!(
        !stage.publications.publish(&Publication { target: spelled, ..wanted.clone() }).unwrap()
    );
    unmount(&wanted.target);
    let again = Publication { source: other, ..wanted.clone() };
    assert!(stage.publications.publish(&again).unwrap(), "nothing shows the former source");
    assert_eq!(names(&wanted.target), Vec::<String>::new());
    stage.end(&wanted.target).unwrap();
}

fn read_only_is_erofs_for_root_and_flags_are_those_of_the_request(s: &mut Site) {
    let stage = stage(s);
    let wanted = Publication {
        read_only: true,
        flags: ["nosuid", "nodev,noexec", "noatime", "rw"].map(str::to_owned).to_vec(),
        ..stage.plain("t")
    };
    stage.publications.publish(&wanted).unwrap();
    let writes = fs::write(wanted.target.join("f"), "x");
    fails_io(writes, Errno::ROFS);
    fails_io(fs::create_dir(wanted.target.join("d")), Errno::ROFS);
    fails_io(fs::set_permissions(&wanted.target, fs::Permissions::from_mode(0o700)), Errno::ROFS);
    let table = mounts::read_of("thread-self").unwrap();
    let flags = table.iter().find(|mount| mount.target == wanted.target).unwrap().flags();
    assert!(flags.read_only && flags.nosuid && flags.nodev && flags.noexec && flags.noatime);
    put(stage.source.join("f"), "through the source");
    assert_eq!(get(wanted.target.join("f")), b"through the source");
    stage.end(&wanted.target).unwrap();
}

fn unknown_flags_and_contexts_are_refused(s: &mut Site) {
    let stage = stage(s);
    let flags = vec!["nosuid".to_owned(), "token=secret".to_owned()];
    let error = stage.publications.publish(&Publication { flags, ..stage.plain("t") }).unwrap_err();
    assert!(matches!(&error, PublicationError::Flag { flag } if flag == "token"), "{error}");
    assert!(!error.to_string().contains("secret"));
    for context in ["", "a b", "u:r:t\",allow_other", "u:r:t\n"] {
        let context = Some(context.to_owned());
        let refused = stage.publications.publish(&Publication { context, ..stage.plain("t") });
        assert!(matches!(refused, Err(PublicationError::Invalid { .. })));
    }
    assert!(!exists(stage.targets.join("t")));
    if !laminafs::service::has_selinux() {
        let context = Some("system_u:object_r:container_file_t:s0:c1,c2".to_owned());
        let wanted = Publication { context, ..stage.plain("t") };
        assert!(stage.publications.publish(&wanted).unwrap(), "without effect here");
        assert_eq!(stage.publications.find(&wanted.target).unwrap().unwrap().0, wanted);
        stage.end(&wanted.target).unwrap();
    }
    assert_eq!(records(s), Vec::<String>::new());
}

fn all_of_our_mounts_on_a_target_end(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    stage.publications.publish(&wanted).unwrap();
    bind(&stage.source, &wanted.target);
    bind(&stage.source, &wanted.target);
    assert_eq!(mounts_on(&wanted.target), 3);
    assert!(!stage.publications.publish(&wanted).unwrap());
    stage.end(&wanted.target).unwrap();
    assert_eq!((mounts_on(&wanted.target), exists(&wanted.target)), (0, false));
}

fn a_mount_of_another_program_is_left_alone(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    let (target, part) = (&wanted.target, stage.source.join("part"));
    dir(&part);
    // Without a record, and another part of the file system of the source.
    dir(target);
    bind(&part, target);
    assert!(is_foreign(stage.publications.publish(&wanted)));
    assert!(is_foreign(stage.end(target)));
    assert_eq!(mounts_on(target), 1);
    unmount(target);
    // Over ours.
    stage.publications.publish(&wanted).unwrap();
    rustix::mount::mount("foreign", target, "tmpfs", MountFlags::empty(), None).unwrap();
    put(target.join("theirs"), "kept");
    assert!(is_foreign(stage.publications.publish(&wanted)));
    let error = stage.end(target).unwrap_err();
    assert!(error.to_string().contains("tmpfs from foreign"), "{error}");
    assert_eq!((mounts_on(target), get(target.join("theirs"))), (2, b"kept".to_vec()));
    unmount(target);
    stage.end(target).unwrap();
    // Below ours.
    dir(target);
    rustix::mount::mount("foreign", target, "tmpfs", MountFlags::empty(), None).unwrap();
    assert!(is_foreign(stage.publications.publish(&wanted)));
    unmount(target);
    assert_eq!(records(s), Vec::<String>::new());
}

fn a_mount_in_use_is_busy_and_its_user_is_named(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    stage.publications.publish(&wanted).unwrap();
    let file = fs::File::open(wanted.target.join("f")).unwrap();
    let error = stage.end(&wanted.target).unwrap_err();
    let pid = std::process::id().to_string();
    match &error {
        PublicationError::Busy { by, .. } => assert!(by.iter().any(|one| one.contains(&pid))),
        _ => panic!("{error}"),
    }
    assert_eq!(stage.publications.find(&wanted.target).unwrap(), Some((wanted.clone(), true)));
    drop(file);
    let inner = stage.source.join("inner");
    dir(&inner);
    let mounted = wanted.target.join("inner");
    rustix::mount::mount("inner", &mounted, "tmpfs", MountFlags::empty(), None).unwrap();
    let error = stage.end(&wanted.target).unwrap_err().to_string();
    assert!(error.contains("tmpfs from inner"), "{error}");
    unmount(&mounted);
    stage.end(&wanted.target).unwrap();
}

fn content_below_a_target_is_never_removed(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    let target = &wanted.target;
    dir(target);
    put(target.join("theirs"), "kept");
    assert!(is_occupied(stage.publications.publish(&wanted)), "a mount would hide it");
    assert_eq!(records(s), Vec::<String>::new());
    stage.end(target).unwrap();
    assert_eq!(get(target.join("theirs")), b"kept");
    fs::remove_file(target.join("theirs")).unwrap();
    // An empty one is taken. What comes below the mount later stays.
    stage.publications.publish(&wanted).unwrap();
    let below = s.root().join("below");
    dir(&below);
    bind(&stage.targets, &below);
    put(below.join("t/theirs"), "kept");
    assert!(is_occupied(stage.end(target)));
    assert_eq!((mounts_on(target), get(target.join("theirs"))), (0, b"kept".to_vec()));
    assert!(is_occupied(stage.end(target)), "a repeat fails too");
    fs::remove_file(target.join("theirs")).unwrap();
    stage.end(target).unwrap();
    assert!(!exists(target));
    unmount(&below);
    // A file is no directory.
    put(target, "theirs");
    assert!(is_occupied(stage.publications.publish(&wanted)));
    assert_eq!(get(target), b"theirs");
    fs::remove_file(target).unwrap();
}

fn names_may_hold_any_character(s: &mut Site) {
    let stage = stage(s);
    let longest = "x".repeat(255);
    let odd = ["a b", "new\nline", "back\\slash", "\\040", "tab\tä\u{1F600}", "#", "-rf", &longest];
    for name in odd {
        let above = stage.targets.join(name);
        dir(&above);
        let source = stage.source.join(name);
        dir(&source);
        put(source.join("f"), name);
        let target = format!("{name}/{name}");
        let wanted = Publication { source, ..stage.plain(&target) };
        assert!(stage.publications.publish(&wanted).unwrap(), "{name:?}");
        assert!(!stage.publications.publish(&wanted).unwrap(), "{name:?}");
        assert_eq!(get(wanted.target.join("f")), name.as_bytes());
        assert_eq!(stage.publications.find(&wanted.target).unwrap(), Some((wanted.clone(), true)));
        stage.end(&wanted.target).unwrap();
        assert_eq!(names(&above), Vec::<String>::new());
    }
}

fn paths_that_lead_elsewhere_are_refused(s: &mut Site) {
    let stage = stage(s);
    let wanted = |target: PathBuf| Publication { target, ..stage.plain("t") };
    for bad in ["", "relative", "/", "/a/../b", "nul\0"] {
        let refused = stage.publications.publish(&wanted(PathBuf::from(bad)));
        assert!(matches!(refused, Err(PublicationError::Invalid { .. })), "{bad:?}");
        stage.end(Path::new(bad)).unwrap_err();
    }
    let missing = stage.publications.publish(&stage.plain("missing/t")).unwrap_err();
    assert!(matches!(missing, PublicationError::NoParent { .. }), "{missing}");
    stage.end(&stage.targets.join("missing/t")).unwrap();
    let (victim, link) = (s.root().join("victim"), stage.targets.join("link"));
    dir(&victim);
    symlink(&victim, &link).unwrap();
    assert!(is_occupied(stage.publications.publish(&stage.plain("link"))));
    stage.end(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // The directory of the orchestrator may be elsewhere.
    let through = stage.plain("link/t");
    assert!(stage.publications.publish(&through).unwrap());
    assert_eq!((mounts_on(&victim.join("t")), get(victim.join("t/f"))), (1, b"content".to_vec()));
    stage.end(&through.target).unwrap();
    assert_eq!(names(&victim), Vec::<String>::new());
    let gone = Publication { source: s.root().join("gone"), ..stage.plain("t") };
    let error = stage.publications.publish(&gone).unwrap_err();
    assert!(matches!(error, PublicationError::NoSource { .. }), "{error}");
    assert_eq!((exists(&gone.target), records(s)), (false, Vec::new()));
}

fn a_device_is_shown_at_a_file(s: &mut Site) {
    let stage = stage(s);
    let node = s.root().join("node");
    let number = rustix::fs::makedev(1, 3);
    mknod(&node, rustix::fs::FileType::CharacterDevice, 1, 3).unwrap();
    let wanted = Publication { source: node, is_device: true, ..stage.plain("device") };
    assert!(stage.publications.publish(&wanted).unwrap());
    assert!(!stage.publications.publish(&wanted).unwrap());
    let meta = fs::metadata(&wanted.target).unwrap();
    assert!(meta.file_type().is_char_device());
    assert_eq!(meta.rdev(), number);
    put(&wanted.target, "to /dev/null");
    stage.end(&wanted.target).unwrap();
    assert!(!exists(&wanted.target));
    put(&wanted.target, "theirs");
    assert!(is_occupied(stage.publications.publish(&wanted)));
    assert_eq!(get(&wanted.target), b"theirs");
    let directory = Publication { is_device: true, ..stage.plain("t") };
    let error = stage.publications.publish(&directory).unwrap_err();
    assert!(error.to_string().contains("is not a device"), "{error}");
    fs::remove_file(&wanted.target).unwrap();
}

fn a_record_without_its_mount_is_taken_up(s: &mut Site) {
    let stage = stage(s);
    let wanted = stage.plain("t");
    stage.publications.publish(&wanted).unwrap();
    // As a process that was killed before the mount, or the start of the host, leaves it.
    unmount(&wanted.target);
    assert_eq!(stage.publications.find(&wanted.target).unwrap(), Some((wanted.clone(), false)));
    assert!(stage.publications.publish(&wanted).unwrap());
    unmount(&wanted.target);
    fs::remove_dir(&wanted.target).unwrap();
    assert!(stage.publications.publish(&wanted).unwrap());
    unmount(&wanted.target);
    fs::remove_dir(&wanted.target).unwrap();
    stage.end(&wanted.target).unwrap();
    assert_eq!(records(s), Vec::<String>::new());
    // As the directory above went with everything in it.
    let deep = stage.plain("pod/t");
    dir(stage.targets.join("pod"));
    stage.publications.publish(&deep).unwrap();
    unmount(&deep.target);
    fs::remove_dir_all(stage.targets.join("pod")).unwrap();
    stage.end(&deep.target).unwrap();
    assert_eq!(records(s), Vec::<String>::new());
}

fn a_hundred_rounds_leave_nothing(s: &mut Site) {
    let stage = stage(s);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (mounts::read_of("thread-self").unwrap().len(), open());
    for round in 0..100 {
        let wanted: Vec<_> = (0..3).map(|pod| stage.plain(&format!("{round}-{pod}"))).collect();
        for one in &wanted {
            assert!(stage.publications.publish(one).unwrap());
        }
        for one in &wanted {
            stage.end(&one.target).unwrap();
        }
    }
    assert_eq!(mounts::read_of("thread-self").unwrap().len(), before.0);
    // Other cases of the process open files too, so that only a leak in each round is one.
    assert!(open() < before.1 + 100, "descriptors are left");
    assert_eq!((names(&stage.targets), records(s)), (Vec::new(), Vec::new()));
    assert_eq!(get(stage.source.join("f")), b"content");
}
