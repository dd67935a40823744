//! The state before the programs start, and the tree that a mount of it shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use laminafs::types::{Access, Kind, NodeId, Owner, RawEntry, Time, XattrFlags};
use laminafs::union::{DirRef, Options, Union};
use laminafs_testing::driver::{UPPER_DIRS, config, prepare_upper};
use laminafs_testing::memory::{MemoryTree, Traits};

use super::kernel::{Handle, Kernel, Pins};
use super::ops::{How, Mode, Program, Script, Sys, brief};
use super::registry::Wrongs;
use super::traced::{Trace, traced};

/// The layers, the changes of an earlier mount, and the files that are open at the start.
#[derive(Clone)]
pub struct Spec {
    pub name: &'static str,
    /// `d/f` has a second lower name, `e/h2`.
    pub linked: bool,
    /// Bytes of `d/f`.
    pub size: u64,
    pub index: bool,
    pub passthrough: bool,
    /// Whether names stay cached.
    pub caches: bool,
    pub before: &'static [Sys],
    pub held: &'static [(&'static str, Mode)],
}

const PLAIN: Spec = Spec {
    name: "lower",
    linked: false,
    size: 8,
    index: true,
    passthrough: false,
    caches: true,
    before: &[],
    held: &[],
};

const COPIED: &[Sys] = &[Sys::Chmod("d/f", 0o640), Sys::Open("d/f", Mode::Write), Sys::Close];
const ATTRIBUTES: &[Sys] = &[Sys::Chmod("d/f", 0o640)];
const OPAQUE: &[Sys] = &[
    Sys::Unlink("d/s/x"),
    Sys::Rmdir("d/s"),
    Sys::Mkdir("d/s"),
    Sys::Create("d/s/y"),
    Sys::Close,
    Sys::Rename("d/g", "d/was", How::Over),
    Sys::Link("d/f", "e/h2"),
];
/// Larger than files that are read through the page cache.
const LARGE: u64 = 70_000;

/// All start states.
pub fn specs() -> Vec<Spec> {
    let plain = PLAIN;
    let reader: &[(&str, Mode)] = &[("d/f", Mode::Read)];
    let writer: &[(&str, Mode)] = &[("d/f", Mode::Write)];
    vec![
        plain.clone(),
        Spec { name: "lower, cold", caches: false, ..plain.clone() },
        Spec { name: "lower, read", held: reader, ..plain.clone() },
        Spec { name: "lower with two names", linked: true, ..plain.clone() },
        Spec { name: "lower with two names, cold", linked: true, caches: false, ..plain.clone() },
        Spec { name: "lower with two names, read", linked: true, held: reader, ..plain.clone() },
        Spec { name: "two names, no index", linked: true, index: false, ..plain.clone() },
        Spec { name: "upper", before: COPIED, ..plain.clone() },
        Spec {
            name: "upper, cold, written",
            before: COPIED,
            caches: false,
            held: writer,
            ..plain.clone()
        },
        Spec { name: "metacopy", before: ATTRIBUTES, ..plain.clone() },
        Spec { name: "metacopy, read", before: ATTRIBUTES, held: reader, ..plain.clone() },
        Spec { name: "opaque and links above", before: OPAQUE, ..plain.clone() },
        Spec { name: "passthrough", size: LARGE, passthrough: true, ..plain.clone() },
        Spec {
            name: "passthrough, read",
            size: LARGE,
            passthrough: true,
            held: reader,
            ..plain.clone()
        },
        Spec {
            name: "passthrough, written, two names, cold",
            size: LARGE,
            passthrough: true,
            linked: true,
            caches: false,
            held: writer,
            ..plain.clone()
        },
        Spec {
            name: "passthrough, metacopy, read",
            size: LARGE,
            passthrough: true,
            before: ATTRIBUTES,
            held: reader,
            ..plain
        },
    ]
}

/// Two file systems and how they are mounted.
pub struct World {
    lower: MemoryTree,
    upper: MemoryTree,
    spec: Spec,
    pub wrongs: Arc<Wrongs>,
}

fn fill(dir: &DirRef, name: &str, size: u64) {
    let file = dir.create(name.as_bytes(), 0o644, Owner::default()).unwrap();
    file.write_at(name.repeat(8).as_bytes(), 0).unwrap();
    file.set_len(size).unwrap();
    tag(dir, name);
}

fn tag(dir: &DirRef, name: &str) {
    let flags = XattrFlags::default();
    dir.set_xattr(Some(name.as_bytes()), b"user.tag", name.as_bytes(), flags).unwrap();
}

fn make_lower(spec: &Spec, tree: &MemoryTree) {
    let root = tree.root();
    for name in ["d", "e"] {
        root.mkdir(name.as_bytes(), 0o755, Owner::default()).unwrap();
        tag(&root, name);
    }
    let (d, e) = (root.dir(b"d"), root.dir(b"e"));
    for name in ["s", "t"] {
        d.mkdir(name.as_bytes(), 0o755, Owner::default()).unwrap();
        tag(&d, name);
    }
    fill(&d, "f", spec.size);
    fill(&d, "g", 4);
    fill(&e, "h", 4);
    fill(&d.dir(b"s"), "x", 4);
    if spec.linked {
        d.link(b"f", e.as_ref(), b"h2").unwrap();
    }
}

impl World {
    pub fn new(spec: &Spec) -> Self {
        let traits = Traits { descriptors: spec.passthrough, ..Traits::default() };
        let (lower, upper) =
            (MemoryTree::with_traits(7, traits), MemoryTree::with_traits(8, traits));
        lower.set_time(Time { secs: 10, nanos: 0 });
        make_lower(spec, &lower);
        upper.set_time(Time { secs: 20, nanos: 0 });
        prepare_upper(&upper);
        let world = Self { lower, upper, spec: spec.clone(), wrongs: Arc::default() };
        if !spec.before.is_empty() {
            let kernel = world.mount(false, false);
            let mut program = Program::default();
            for call in spec.before {
                program.run(&kernel, &std::sync::Mutex::default(), *call);
            }
            kernel.unmount();
            assert!(program.answers.iter().all(|answer| answer == "ok"), "{:?}", program.answers);
        }
        world.upper.set_time(Time { secs: 100, nanos: 0 });
        world
    }

    pub fn mount(&self, locks: bool, trace: bool) -> Kernel {
        let trace = Trace::new(trace);
        let root = self.upper.root();
        let place = |name| traced(root.dir(name), &String::from_utf8_lossy(name), &trace);
        let lower = traced(self.lower.root(), "lower", &trace);
        let options = Options { index: self.spec.index, ..Options::default() };
        let config = config(&[lower], Some(UPPER_DIRS.map(place)), &options);
        let union = Union::new(config).unwrap();
        let kernel = Kernel::new(union, (locks, self.spec.caches), &self.wrongs).traced(&trace);
        if self.spec.passthrough {
            kernel.pass_through();
        }
        kernel
    }

    /// Opens the files that are open at the start, and caches all names if they stay cached.
    pub fn start(&self, kernel: &Kernel) -> Vec<Option<Handle>> {
        if self.spec.caches {
            drop(observe(kernel));
        }
        let open = |(path, mode): &(&'static str, Mode)| {
            let mut program = Program::default();
            program.run(kernel, &std::sync::Mutex::default(), Sys::Open(path, *mode));
            program.take()
        };
        self.spec.held.iter().map(open).collect()
    }

    /// The whole lower layer, which never changes.
    pub fn lower(&self) -> String {
        let mut text = String::new();
        dump(&self.lower.root(), "", &mut text);
        text
    }

    /// Checks for leftovers of an ended mount in places that users do not see.
    pub fn judge_leftovers(&self) {
        let root = self.upper.root();
        let count = |dir: &DirRef| {
            let mut count = 0;
            dir.list(0, &mut |_| {
                count += 1;
                true
            })
            .unwrap();
            count
        };
        if count(&root.dir(b"work")) > 0 {
            self.wrongs.note("the work directory is not empty after the mount");
        }
    }

    /// Checks the work directory before the end of a mount, when nothing is open.
    pub fn judge_orphans(&self) {
        let work = self.upper.root().dir(b"work");
        for dir in [work.clone(), work.dir(b"orphans")] {
            dir.list(0, &mut |entry: RawEntry<'_>| {
                // The whiteout to which all others are hard links stays.
                if entry.name != b"orphans" && entry.kind != Kind::Char {
                    let name = String::from_utf8_lossy(entry.name);
                    let text = format!("{name} is left in the work directory of a live mount");
                    self.wrongs.note(text);
                }
                true
            })
            .unwrap();
        }
    }
}

fn dump(dir: &DirRef, path: &str, text: &mut String) {
    let mut names: Vec<(Vec<u8>, Kind)> = Vec::new();
    dir.list(0, &mut |entry| {
        names.push((entry.name.to_vec(), entry.kind));
        true
    })
    .unwrap();
    for (name, kind) in names {
        let stat = dir.stat(Some(&name)).unwrap();
        let place = format!("{path}/{}", String::from_utf8_lossy(&name));
        text.push_str(&format!("{place} {:o} {} {:?}", stat.mode, stat.nlink, stat.mtime));
        if kind == Kind::File {
            let mut data = vec![0; stat.size as usize];
            dir.open(&name, Access::Read).unwrap().read_at(&mut data, 0).unwrap();
            text.push_str(&brief(&data));
        }
        if kind == Kind::Dir {
            dump(&dir.dir(&name), &place, text);
        }
    }
}

/// A tree as users see it: a line for each path, and the inode numbers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct View {
    pub lines: BTreeMap<String, String>,
    pub inos: BTreeMap<String, u64>,
}

/// Reads the whole tree.
pub fn observe(kernel: &Kernel) -> View {
    let mut view = View::default();
    let mut left = vec![(NodeId::ROOT, String::new())];
    let pins = Pins::new(kernel);
    while let Some((dir, path)) = left.pop() {
        let names = kernel.list(&pins, dir, false).unwrap_or_else(|errno| {
            kernel.wrongs.note(format!("at the end a listing fails: {errno:?}"));
            Vec::new()
        });
        for name in names.into_iter().filter(|name| name != "." && name != "..") {
            let place = format!("{path}/{name}");
            match look(kernel, &pins, dir, &name) {
                Ok((node, ino, is_dir, line)) => {
                    if is_dir {
                        left.push((node, place.clone()));
                    }
                    view.inos.insert(place.clone(), ino);
                    view.lines.insert(place, line);
                }
                Err(text) => {
                    kernel.wrongs.note(format!("at the end an entry cannot be read: {text}"));
                    view.lines.insert(place, text);
                }
            }
        }
    }
    let first = |ino: &u64| view.inos.iter().find(|(_, other)| *other == ino).map(|(path, _)| path);
    let names: Vec<_> =
        view.inos.iter().map(|(path, ino)| (path.clone(), first(ino).cloned())).collect();
    for (path, first) in names {
        if let (Some(line), Some(first)) = (view.lines.get_mut(&path), first) {
            line.push_str(&format!(" ={first}"));
        }
    }
    view
}

type Looked = (NodeId, u64, bool, String);

fn look(kernel: &Kernel, pins: &Pins<'_>, dir: NodeId, name: &str) -> Result<Looked, String> {
    let union = &kernel.union;
    let told = |what: &str| {
        let what = what.to_owned();
        move |errno| format!("{what}: {errno:?}")
    };
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: laminafs::error::Error| format!("{what}: {:?}", error.errno())
    };
    let found = kernel.find(pins, dir, name).map_err(told("lookup"))?;
    let node = found.ok_or_else(|| "listed and not there".to_owned())?;
    let stat = union.getattr(node).map_err(failed("stat"))?;
    let is_dir = stat.kind() == Kind::Dir;
    let mut line = format!("{:o} {}:{} m{}", stat.mode, stat.uid, stat.gid, stat.mtime.secs);
    if stat.kind() == Kind::File {
        let mut data = vec![0xee; stat.size as usize + 1];
        let read = union.read_with(node, |file| file.read_at(&mut data, 0));
        data.truncate(read.map_err(failed("read"))?);
        line.push_str(&format!(" n{} s{} {}", stat.nlink, stat.size, brief(&data)));
    }
    let names = union.listxattr(node).map_err(failed("listxattr"))?;
    let mut keys: Vec<&[u8]> =
        names.split(|byte| *byte == 0).filter(|key| !key.is_empty()).collect();
    keys.sort_unstable();
    for key in keys {
        let value = union.getxattr(node, key).map_err(failed("getxattr"))?;
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(&value));
        line.push_str(&format!(" {key}={value}"));
    }
    Ok((node, stat.ino, is_dir, line))
}

/// The scripts that run against each other.
pub fn scripts(spec: &Spec, locks: bool) -> Vec<Script> {
    let mut all: Vec<Script> = Vec::new();
    let mut add = |name, calls: &[Sys]| all.push(Script { name, calls: calls.to_vec() });
    add("write 0", &[Sys::Open("d/f", Mode::Write), Sys::Pwrite(0, "AAAA"), Sys::Close]);
    add(
        "write 4",
        &[Sys::Open("d/f", Mode::Write), Sys::Pwrite(4, "BBBB"), Sys::Fsync, Sys::Close],
    );
    add("append", &[Sys::Open("d/f", Mode::Write), Sys::Append("+CCC"), Sys::Close]);
    add("read", &[Sys::Open("d/f", Mode::Read), Sys::Read, Sys::Close]);
    add("open truncated", &[Sys::Open("d/f", Mode::Truncate), Sys::Close]);
    add("truncate", &[Sys::Truncate("d/f", 3)]);
    add("chmod", &[Sys::Chmod("d/f", 0o600)]);
    add("chown", &[Sys::Chown("d/f", 7)]);
    add("utimes", &[Sys::Utimes("d/f", 55)]);
    add("setxattr", &[Sys::SetXattr("d/f", "user.a")]);
    add("removexattr", &[Sys::RemoveXattr("d/f", "user.tag")]);
    add("getxattr", &[Sys::GetXattr("d/f", "user.tag")]);
    add("link", &[Sys::Link("d/f", "d/l")]);
    add("link elsewhere", &[Sys::Link("d/f", "e/l")]);
    add("unlink", &[Sys::Unlink("d/f")]);
    add("rename", &[Sys::Rename("d/f", "d/m", How::Over)]);
    add("rename over another", &[Sys::Rename("d/f", "d/g", How::Over)]);
    add("rename another over it", &[Sys::Rename("d/g", "d/f", How::Over)]);
    add("exchange", &[Sys::Rename("d/f", "d/g", How::Exchange)]);
    add("rename if free", &[Sys::Rename("d/f", "d/n", How::NoReplace)]);
    add("rename elsewhere", &[Sys::Rename("d/f", "e/m", How::Over)]);
    add("rename parent", &[Sys::Rename("d", "p", How::Over)]);
    add("exchange parents", &[Sys::Rename("d", "e", How::Exchange)]);
    add("chmod parent", &[Sys::Chmod("d", 0o700)]);
    add("create", &[Sys::Create("d/n"), Sys::Pwrite(0, "new"), Sys::Close]);
    add("replace", &[Sys::Unlink("d/f"), Sys::Create("d/f"), Sys::Close]);
    add("mkdir", &[Sys::Mkdir("d/n")]);
    add("rmdir", &[Sys::Rmdir("d/t")]);
    add("replace directory", &[Sys::Rmdir("d/t"), Sys::Mkdir("d/t")]);
    add("create in directory", &[Sys::Create("d/t/n"), Sys::Close]);
    add("rename directory", &[Sys::Rename("d/t", "d/f2", How::Over)]);
    add("stat", &[Sys::Stat("d/f")]);
    add("fsync", &[Sys::Open("d/f", Mode::Read), Sys::Fsync, Sys::Close]);
    add("fallocate", &[Sys::Open("d/f", Mode::Write), Sys::Fallocate(80_000), Sys::Close]);
    add("nameless", &[Sys::Tmpfile("d"), Sys::Pwrite(0, "tmp"), Sys::LinkOpen("d/q"), Sys::Close]);
    add("forget", &[Sys::Prune, Sys::Stat("d/f")]);
    if locks {
        add("list", &[Sys::List("d", false)]);
        add("list with attributes", &[Sys::List("d", true)]);
    }
    if spec.linked {
        add("unlink other name", &[Sys::Unlink("e/h2")]);
        add(
            "write other name",
            &[Sys::Open("e/h2", Mode::Write), Sys::Pwrite(0, "OOOO"), Sys::Close],
        );
        add("chmod other name", &[Sys::Chmod("e/h2", 0o611)]);
        add("rename other name over", &[Sys::Rename("e/h2", "e/h", How::Over)]);
        add("rename onto own link", &[Sys::Rename("e/h2", "d/f", How::Over)]);
    }
    if !spec.held.is_empty() {
        add("read held", &[Sys::Held(0), Sys::Read, Sys::Fstat, Sys::Close]);
        add("close held", &[Sys::Held(0), Sys::Close]);
        add(
            "reopen held",
            &[Sys::Held(0), Sys::Close, Sys::Open("d/f", Mode::Read), Sys::Read, Sys::Close],
        );
        if spec.held.iter().any(|(_, mode)| matches!(mode, Mode::Write)) {
            add("write held", &[Sys::Held(0), Sys::Pwrite(0, "HHHH"), Sys::Fsync, Sys::Close]);
            add("truncate held", &[Sys::Held(0), Sys::Ftruncate(2), Sys::Close]);
        }
    }
    all
}
