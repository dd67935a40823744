//! One directory of the host in two mounts: changes on one side are visible on the others at once.
//!
//! Four ways are judged alike: plain bind mounts, grafts as bind mounts, and served grafts, with
//! and without passthrough. The group of a case shows whether served grafts cannot pass it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::calls::{Map, ofd_lock};
use crate::harness::{Site, program};
use crate::tools::*;

/// The way in which the directory gets into the mounts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Bound,
    Served,
    Direct,
}

/// The directory as it appears on the host and in two mounts.
struct Sides {
    all: [PathBuf; 3],
}

impl Sides {
    /// Runs a case on a new name for each pair of a writer and a reader.
    fn each(&self, mut case: impl FnMut(&dyn Fn(&str) -> PathBuf, &dyn Fn(&str) -> PathBuf)) {
        for (number, actor) in self.all.iter().enumerate() {
            for (other, viewer) in self.all.iter().enumerate() {
                let place = format!("case-{number}-{other}");
                fs::create_dir(self.all[2].join(&place)).unwrap();
                let at = |side: &Path, name: &str| side.join(&place).join(name);
                case(&|name| at(actor, name), &|name| at(viewer, name));
            }
        }
    }
}

fn on(s: &mut Site, way: Way, case: fn(&Sides)) {
    let host = s.root().join("host");
    let (mnt, second) = (s.mnt(), s.root().join("second"));
    for path in [&host, &second, &s.root().join("upper-2"), &s.root().join("work-2")] {
        dir(path);
    }
    if way == Way::Plain {
        rustix::mount::mount_bind(&host, &mnt).unwrap();
        rustix::mount::mount_bind(&host, &second).unwrap();
        case(&Sides { all: [mnt.clone(), second.clone(), host] });
        rustix::mount::unmount(&mnt, UnmountFlags::empty()).unwrap();
        rustix::mount::unmount(&second, UnmountFlags::empty()).unwrap();
        return;
    }
    let options = match way {
        Way::Plain | Way::Bound => "graft=bind",
        Way::Served => "graft=served",
        Way::Direct => "graft=served,io=cached",
    };
    s.options = options.to_owned();
    s.words = vec!["--bind".to_owned(), format!("{}:/d", host.display())];
    s.mount();
    let mut command = Command::new(program());
    command.arg("mount").arg("--lower").arg(s.root().join("lower"));
    command.arg("--upper").arg(s.root().join("upper-2")).arg("--work").arg(s.root().join("work-2"));
    command.args(&s.words).arg("-o").arg(options).arg(&second).stdin(Stdio::null());
    assert!(command.status().unwrap().success());
    case(&Sides { all: [mnt.join("d"), second.join("d"), host] });
    let done = Command::new(program()).arg("umount").arg(&second).status().unwrap();
    assert!(done.success());
}

/// Makes a test from each case for each way.
macro_rules! shared {
    (everywhere: $($name:ident),* $(,)?) => {
        $( shared!(@ $name { plain: Plain, bound: Bound, served: Served, direct: Direct }); )*
    };
    (with_passthrough: $($name:ident),* $(,)?) => {
        $( shared!(@ $name { plain: Plain, bound: Bound, served: Served }); )*
    };
    (of_the_kernel: $($name:ident),* $(,)?) => {
        $( shared!(@ $name { plain: Plain, bound: Bound }); )*
    };
    (@ $name:ident { $($test:ident: $way:ident),* }) => {
        mod $name { $(
            #[test]
            fn $test() {
                let judge = match super::Way::$way {
                    super::Way::Plain => crate::harness::Judge::Plain,
                    _ => crate::harness::Judge::Lamina,
                };
                crate::harness::run(judge, |s| super::on(s, super::Way::$way, super::$name));
            }
        )* }
    };
}

shared!(everywhere:
    names_come_and_go,
    content_and_size_are_those_of_now,
    appends_from_all_sides_stay,
    attributes_are_those_of_now,
    a_replaced_file_has_its_new_content,
    a_removed_file_lives_while_it_is_open,
    a_renamed_file_stays_open,
    directories_move_and_change_their_kind,
    links_are_read_anew,
    whole_file_locks_exclude_all_sides,
    range_locks_exclude_all_sides,
    locks_of_processes_exclude_all_sides,
    a_lock_is_waited_for,
    many_makers_of_one_file_all_open_it,
    a_database_with_a_journal_has_many_writers,
    programs_run_and_are_replaced,
);
shared!(with_passthrough: mappings_are_one, a_database_with_a_log_has_many_writers);
shared!(of_the_kernel: pipes_and_sockets_meet);

fn read(file: &OwnedFd) -> Vec<u8> {
    let file = fs::File::from(file.try_clone().unwrap());
    let mut data = vec![0; 100_000];
    let len = file.read_at(&mut data, 0).unwrap();
    data.truncate(len);
    data
}

fn names_come_and_go(sides: &Sides) {
    sides.each(|actor, viewer| {
        assert!(!exists(viewer("f")));
        assert_eq!(names(viewer("")), Vec::<String>::new());
        put(actor("f"), "x");
        assert!(exists(viewer("f")));
        assert_eq!(names(viewer("")), ["f"]);
        rename(actor("f"), actor("g")).unwrap();
        assert!(!exists(viewer("f")) && exists(viewer("g")));
        assert_eq!(names(viewer("")), ["g"]);
        fs::remove_file(actor("g")).unwrap();
        assert!(!exists(viewer("g")));
        assert_eq!(names(viewer("")), Vec::<String>::new());
        dir(actor("d/e"));
        assert_eq!(names(viewer("d")), ["e"]);
        fs::remove_dir_all(actor("d")).unwrap();
        assert!(!exists(viewer("d")));
        put(viewer("d"), "a file now");
        assert_eq!(get(actor("d")), b"a file now");
    });
}

fn content_and_size_are_those_of_now(sides: &Sides) {
    for len in [100, 70_000] {
        sides.each(|actor, viewer| {
            let name = format!("f{len}");
            put(actor(&name), pattern(len));
            let reader = open(viewer(&name), OFlags::RDONLY).unwrap();
            assert_eq!(read(&reader), pattern(len));
            let writer = open(actor(&name), OFlags::RDWR).unwrap();
            rustix::io::pwrite(&writer, b"changed", 10).unwrap();
            assert_eq!(&read(&reader)[10..17], b"changed");
            assert_eq!(&get(viewer(&name))[10..17], b"changed");
            rustix::io::pwrite(&writer, b"end", 80_000).unwrap();
            assert_eq!(rustix::fs::fstat(&reader).unwrap().st_size, 80_003);
            assert_eq!(stat(viewer(&name)).st_size, 80_003);
            assert_eq!(&read(&reader)[80_000..], b"end");
            rustix::fs::ftruncate(&writer, 5).unwrap();
            assert_eq!(rustix::fs::fstat(&reader).unwrap().st_size, 5);
            assert_eq!(read(&reader), pattern(5));
            put(viewer(&name), "from the other side");
            let mut data = [0; 19];
            assert_eq!(rustix::io::pread(&writer, &mut data, 0).unwrap(), 19);
            assert_eq!(&data, b"from the other side");
        });
        for side in sides.all[2].read_dir().unwrap() {
            fs::remove_dir_all(side.unwrap().path()).unwrap();
        }
    }
}

fn appends_from_all_sides_stay(sides: &Sides) {
    put(sides.all[2].join("log"), "");
    let flags = OFlags::WRONLY | OFlags::APPEND;
    let open = |side: &PathBuf| open(side.join("log"), flags).unwrap();
    let writers: Vec<OwnedFd> = sides.all.iter().chain(&sides.all).map(open).collect();
    for round in 0..50 {
        for (number, writer) in writers.iter().enumerate() {
            rustix::io::write(writer, format!("{number} {round:02}\n").as_bytes()).unwrap();
        }
    }
    for side in &sides.all {
        let log = String::from_utf8(get(side.join("log"))).unwrap();
        assert_eq!(log.lines().count(), 300);
        for (at, line) in log.lines().enumerate() {
            assert_eq!(line, format!("{} {:02}", at % 6, at / 6));
        }
    }
}

fn attributes_are_those_of_now(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "x");
        assert_eq!(mode(viewer("f")), 0o644);
        chmod(actor("f"), 0o2640);
        assert_eq!(mode(viewer("f")), 0o2640);
        chown(actor("f"), USER, OTHER);
        assert_eq!((stat(viewer("f")).st_uid, stat(viewer("f")).st_gid), (USER, OTHER));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        fs::File::options().write(true).open(actor("f")).unwrap().set_modified(time).unwrap();
        assert_eq!(stat(viewer("f")).st_mtime, 1_000_000);
        assert_eq!(xattr_names(viewer("f")), Vec::<String>::new());
        set_xattr(actor("f"), "user.key", b"value").unwrap();
        assert_eq!(xattr(viewer("f"), "user.key").unwrap(), b"value");
        set_xattr(viewer("f"), "user.overlay.opaque", b"y").unwrap();
        assert_eq!(xattr_names(actor("f")), ["user.key", "user.overlay.opaque"]);
        link(actor("f"), actor("g")).unwrap();
        assert_eq!(stat(viewer("f")).st_nlink, 2);
        assert_eq!(stat(viewer("f")).st_ino, stat(viewer("g")).st_ino);
        dir(actor("d"));
        assert_eq!(mode(viewer("d")), 0o755);
        chmod(actor("d"), 0o700);
        assert_eq!(mode(viewer("d")), 0o700);
    });
}

fn a_replaced_file_has_its_new_content(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "old");
        let old = open(viewer("f"), OFlags::RDWR).unwrap();
        assert_eq!(get(viewer("f")), b"old");
        for round in 0..20 {
            let new = format!("new {round}");
            put(actor("f.tmp"), &new);
            rename(actor("f.tmp"), actor("f")).unwrap();
            assert_eq!(get(viewer("f")), new.as_bytes());
        }
        assert_eq!(read(&old), b"old");
        rustix::io::pwrite(&old, b"OLD", 0).unwrap();
        assert_eq!(get(viewer("f")), b"new 19");
        assert_eq!(read(&old), b"OLD");
    });
}

fn a_removed_file_lives_while_it_is_open(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "kept");
        let file = open(viewer("f"), OFlags::RDWR).unwrap();
        fs::remove_file(actor("f")).unwrap();
        assert!(!exists(viewer("f")));
        assert_eq!(read(&file), b"kept");
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
        rustix::io::pwrite(&file, b"more", 4).unwrap();
        rustix::fs::ftruncate(&file, 6).unwrap();
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!((stat.st_size, stat.st_mode & 0o777), (6, 0o600));
        put(actor("f"), "another one");
        assert_eq!(get(viewer("f")), b"another one");
        assert_eq!(read(&file), b"keptmo");
        rustix::fs::fsync(&file).unwrap();
    });
}

fn a_renamed_file_stays_open(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "one");
        put(actor("g"), "two");
        let file = open(viewer("f"), OFlags::RDWR).unwrap();
        dir(actor("d"));
        rename(actor("f"), actor("d/h")).unwrap();
        rename(actor("g"), actor("f")).unwrap();
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o640)).unwrap();
        rustix::io::pwrite(&file, b"ONE", 0).unwrap();
        assert_eq!((get(viewer("d/h")), get(viewer("f"))), (b"ONE".to_vec(), b"two".to_vec()));
        assert_eq!((mode(actor("d/h")), mode(actor("f"))), (0o640, 0o644));
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_ino, stat(viewer("d/h")).st_ino);
    });
}

fn directories_move_and_change_their_kind(sides: &Sides) {
    sides.each(|actor, viewer| {
        dir(actor("a/b/c"));
        put(actor("a/b/c/f"), "deep");
        assert_eq!(get(viewer("a/b/c/f")), b"deep");
        rename(actor("a"), actor("z")).unwrap();
        dir(actor("a/b/c"));
        put(actor("a/b/c/f"), "new");
        assert_eq!(get(viewer("z/b/c/f")), b"deep");
        assert_eq!(get(viewer("a/b/c/f")), b"new");
        drop_caches();
        put(viewer("z/b/c/g"), "written");
        assert_eq!(get(actor("z/b/c/g")), b"written");
        assert_eq!(names(actor("a/b/c")), ["f"]);
        for _ in 0..20 {
            put(actor("kind"), "file");
            assert_eq!(get(viewer("kind")), b"file");
            fs::remove_file(actor("kind")).unwrap();
            dir(actor("kind/sub"));
            assert_eq!(names(viewer("kind")), ["sub"]);
            fs::remove_dir_all(actor("kind")).unwrap();
        }
    });
}

fn links_are_read_anew(sides: &Sides) {
    sides.each(|actor, viewer| {
        for round in 0..50 {
            let target = format!("target-{round}");
            symlink(&target, actor("l")).unwrap();
            assert_eq!(fs::read_link(viewer("l")).unwrap(), Path::new(&target));
            fs::remove_file(actor("l")).unwrap();
        }
    });
}

fn whole_file_locks_exclude_all_sides(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "");
        let one = open(actor("f"), OFlags::RDONLY).unwrap();
        let two = open(viewer("f"), OFlags::RDONLY).unwrap();
        flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
        fails(flock(&two, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
        flock(&one, FlockOperation::NonBlockingLockShared).unwrap();
        flock(&two, FlockOperation::NonBlockingLockShared).unwrap();
        fails(flock(&one, FlockOperation::NonBlockingLockExclusive), Errno::AGAIN);
        drop(two);
        eventually("the lock comes back", || {
            flock(&one, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
    });
}

fn range_locks_exclude_all_sides(sides: &Sides) {
    const WRITE: i32 = 1;
    const NONE: i32 = 2;
    sides.each(|actor, viewer| {
        put(actor("f"), "0123456789");
        let one = open(actor("f"), OFlags::RDWR).unwrap();
        let two = open(viewer("f"), OFlags::RDWR).unwrap();
        ofd_lock(one.as_fd(), WRITE, 0, 5).unwrap();
        fails_io(ofd_lock(two.as_fd(), WRITE, 4, 2), Errno::AGAIN);
        ofd_lock(two.as_fd(), WRITE, 5, 0).unwrap();
        fails_io(ofd_lock(one.as_fd(), WRITE, 1 << 40, 1), Errno::AGAIN);
        ofd_lock(one.as_fd(), NONE, 0, 0).unwrap();
        ofd_lock(two.as_fd(), WRITE, 0, 5).unwrap();
        drop(two);
        eventually("the lock comes back", || ofd_lock(one.as_fd(), WRITE, 0, 0).is_ok());
    });
}

/// Runs a Python program and returns its output.
fn python(program: &str, paths: &[PathBuf]) -> std::process::Child {
    let mut command = Command::new("python3");
    command.arg("-c").arg(program).args(paths);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts")
}

fn locks_of_processes_exclude_all_sides(sides: &Sides) {
    use std::io::Read;
    const HOLD: &str = "import fcntl,sys\nf=open(sys.argv[1],'r+b')\nother=open(sys.argv[1],'rb')\n\
        fcntl.lockf(f,fcntl.LOCK_EX)\nprint('x',end='',flush=True)\nsys.stdin.read(1)\n\
        other.close()\nprint('x',end='',flush=True)\nsys.stdin.read()";
    const TRY: &str = "import fcntl,sys\nf=open(sys.argv[1],'r+b')\n\
        try: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB); print('had')\n\
        except OSError: print('refused')";
    let tried = |path: PathBuf| {
        let output = python(TRY, &[path]).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    sides.each(|actor, viewer| {
        put(actor("f"), "x");
        let mut holder = python(HOLD, &[actor("f")]);
        let mut said = [0];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(tried(viewer("f")), "refused");
        // Closing any descriptor of the file releases the locks of the process.
        std::io::Write::write_all(holder.stdin.as_mut().unwrap(), b"x").unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(tried(viewer("f")), "had");
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
    });
}

fn a_lock_is_waited_for(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), "");
        let holder = open(actor("f"), OFlags::RDWR).unwrap();
        let waiter = open(viewer("f"), OFlags::RDWR).unwrap();
        flock(&holder, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flock(&waiter, FlockOperation::LockExclusive));
            put(viewer("meanwhile"), "the mount serves others");
            flock(&holder, FlockOperation::Unlock).unwrap();
            waiting.join().unwrap().unwrap();
        });
        // A waiting process can be killed.
        let wait = "import fcntl,sys\nf=open(sys.argv[1])\nprint('x',end='',flush=True)\n\
            fcntl.flock(f,fcntl.LOCK_EX)";
        let mut child = python(wait, &[actor("f")]);
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        flock(&waiter, FlockOperation::NonBlockingLockExclusive).unwrap();
    });
}

fn many_makers_of_one_file_all_open_it(sides: &Sides) {
    for round in 0..40 {
        let name = format!("made-{round}");
        std::thread::scope(|scope| {
            for (number, side) in sides.all.iter().chain(&sides.all).enumerate() {
                let path = side.join(&name);
                scope.spawn(move || {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
                    let file = open(&path, flags).unwrap();
                    rustix::io::write(&file, format!("{number}\n").as_bytes()).unwrap();
                });
            }
        });
        let mut lines: Vec<_> = String::from_utf8(get(sides.all[0].join(&name)))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        assert_eq!(lines, ["0", "1", "2", "3", "4", "5"]);
    }
}

const DATABASE: &str = "import sqlite3,sys
db=sqlite3.connect(sys.argv[1]+'/db',timeout=60,isolation_level=None)
db.execute('pragma journal_mode='+sys.argv[2])
db.execute('create table if not exists t(a,b)')
for i in range(40):
  db.execute('begin immediate')
  db.execute('insert into t values(?,?)',(sys.argv[3],i))
  db.execute('commit')
assert db.execute('pragma integrity_check').fetchone()[0]=='ok'
";

fn database(sides: &Sides, journal: &str) {
    let numbered = sides.all.iter().enumerate();
    let writers: Vec<_> = numbered
        .map(|(number, side)| {
            let words = [side.clone(), journal.into(), number.to_string().into()];
            python(DATABASE, &words)
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    const COUNT: &str = "import sqlite3,sys\n\
        db=sqlite3.connect(sys.argv[1]+'/db',timeout=60)\n\
        print(db.execute('select count(*) from t').fetchone()[0])";
    for side in &sides.all {
        let counted = python(COUNT, std::slice::from_ref(side)).wait_with_output().unwrap();
        assert_eq!(String::from_utf8(counted.stdout).unwrap().trim(), "120");
    }
}

fn a_database_with_a_journal_has_many_writers(sides: &Sides) {
    database(sides, "delete");
}

fn a_database_with_a_log_has_many_writers(sides: &Sides) {
    database(sides, "wal");
}

/// Runs a program that was just written. A process that another case starts holds our descriptors
/// until it executes its program.
fn run(program: PathBuf) -> std::process::Output {
    let mut output = Command::new(&program).output();
    eventually("the program is no longer written", || {
        if output.as_ref().is_err_and(|error| error.raw_os_error() == Some(26)) {
            output = Command::new(&program).output();
        }
        !output.as_ref().is_err_and(|error| error.raw_os_error() == Some(26))
    });
    output.unwrap()
}

fn programs_run_and_are_replaced(sides: &Sides) {
    sides.each(|actor, viewer| {
        for word in ["one", "two"] {
            put(actor("p.tmp"), format!("#!/bin/sh\necho {word}\n"));
            chmod(actor("p.tmp"), 0o755);
            rename(actor("p.tmp"), actor("p")).unwrap();
            let output = run(viewer("p"));
            assert_eq!(output.stdout, format!("{word}\n").as_bytes());
        }
        fs::copy("/bin/true", actor("b")).unwrap();
        assert!(run(viewer("b")).status.success());
    });
}

fn mappings_are_one(sides: &Sides) {
    sides.each(|actor, viewer| {
        put(actor("f"), vec![b'-'; 10_000]);
        let (one, two) = (open(actor("f"), OFlags::RDWR), open(viewer("f"), OFlags::RDWR));
        let (one, two) = (one.unwrap(), two.unwrap());
        let mapped = |file: &OwnedFd| Map::new(file.as_fd(), 10_000, true, true).unwrap();
        let (map, other) = (mapped(&one), mapped(&two));
        map.write(5000, b"mapped");
        assert_eq!(other.read(5000, 6), b"mapped");
        assert_eq!(&read(&two)[5000..5006], b"mapped");
        rustix::io::pwrite(&two, b"written", 100).unwrap();
        assert_eq!(map.read(100, 7), b"written");
    });
}

fn pipes_and_sockets_meet(sides: &Sides) {
    use std::io::{Read, Write};
    sides.each(|actor, viewer| {
        mknod(actor("p"), FileType::Fifo, 0, 0).unwrap();
        std::thread::scope(|scope| {
            let path = viewer("p");
            let reader = scope.spawn(move || fs::read(path).unwrap());
            fs::write(actor("p"), "through the pipe").unwrap();
            assert_eq!(reader.join().unwrap(), b"through the pipe");
        });
        let ((_one, bound), (_two, known)) = (short(&actor("")), short(&viewer("")));
        let listener = UnixListener::bind(bound.join("s")).unwrap();
        let mut stream = UnixStream::connect(known.join("s")).unwrap();
        stream.write_all(b"hello").unwrap();
        drop(stream);
        let mut said = String::new();
        listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
        assert!(fs::metadata(viewer("s")).unwrap().ino() > 0);
    });
}

/// A short path to a directory, since the path of a socket has at most 107 bytes, and the object
/// that the path depends on.
fn short(path: &Path) -> (OwnedFd, PathBuf) {
    let dir = open(path, OFlags::PATH | OFlags::DIRECTORY).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    (dir, path)
}
