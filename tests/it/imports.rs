//! Archives of other programs, from a file and through a pipe: the layer holds the tree that GNU
//! tar extracts, and truncated archives are refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use laminafs::backing::blob;
use laminafs::cache::BlockCache;
use laminafs::service::images::Images;
use laminafs::store::{Build, Store};
use laminafs::transfer::directory::layer_from_directory;
use laminafs::transfer::error::TransferError;
use laminafs::transfer::tar::layer_from_tar;
use laminafs::types::{Access, Kind};
use laminafs::union::DirRef;

/// Makes the tree; with `short`, only values that every format supports.
const TREE: &str = r#"
import os, sys
root = sys.argv[1]
os.makedirs(f"{root}/short/dir")
put = lambda path, data: open(f"{root}/{path}", "wb").write(data)
put("short/empty", b"")
put("short/file", b"content" * 1000)
put("short/dir/set-id", b"program")
os.chmod(f"{root}/short/dir/set-id", 0o4755)
os.chmod(f"{root}/short/dir", 0o2750)
os.link(f"{root}/short/file", f"{root}/short/dir/again")
os.symlink("../file", f"{root}/short/dir/link")
deep = "/".join(["directory-" + "d" * 80] * 4)
os.makedirs(f"{root}/long/{deep}")
put(f"long/{deep}/" + "n" * 240, b"far")
os.symlink("target/" + "t" * 300, f"{root}/long/link")
os.link(f"{root}/long/{deep}/" + "n" * 240, f"{root}/long/hard")
put("long/caf\u00e9", b"not ascii")
with open(f"{root}/long/sparse", "wb") as file:
    for part in range(40):
        file.seek(part * 65536)
        file.write(b"%d" % part * 100)
    file.truncate(4 << 20)
os.mkfifo(f"{root}/long/fifo")
os.setxattr(f"{root}/long/sparse", "user.lamina", b"\0value\n")
for dir, dirs, files in os.walk(root, topdown=False):
    for name in files + [""]:
        os.utime(os.path.join(dir, name), ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)
"#;

/// Writes a tar with Python's module: format, file, directory, members.
const TARFILE: &str = r#"
import sys, tarfile
form, to, root, part = sys.argv[1:]
with tarfile.open(to, "w", format=getattr(tarfile, form + "_FORMAT")) as tar:
    tar.add(f"{root}/{part}", arcname=part)
"#;

fn run(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {args:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One line for each object, with all its metadata in a layer.
pub fn listing(root: &DirRef) -> Vec<String> {
    fn walk(dir: &DirRef, at: &str, first: &mut BTreeMap<u64, String>, lines: &mut Vec<String>) {
        let mut names = Vec::new();
        let listed = dir.list(0, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        listed.unwrap();
        names.sort();
        for name in names {
            let stat = dir.stat(Some(&name)).unwrap();
            let path = format!("{at}/{}", name.escape_ascii());
            let is = match stat.kind() {
                Kind::Symlink => dir.readlink(&name).unwrap().escape_ascii().to_string(),
                Kind::File => {
                    let mut bytes = vec![0; stat.size as usize];
                    let file = dir.open(&name, Access::Read).unwrap();
                    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
                    format!("{} {}", stat.size, blake3::hash(&bytes))
                }
                _ => String::new(),
            };
            let mut xattrs = BTreeMap::new();
            for key in dir.xattr_names(Some(&name)).unwrap() {
                let value = dir.xattr(Some(&name), &key).unwrap().unwrap();
                xattrs.insert(key.escape_ascii().to_string(), value.escape_ascii().to_string());
            }
            let same = first.entry(stat.ino).or_insert_with(|| path.clone());
            let (mode, nlink, mtime) = (stat.mode, stat.nlink, stat.mtime);
            let owner = format!("{}:{} {:x}", stat.uid, stat.gid, stat.rdev);
            let what = format!("{mode:o} {nlink} {owner} {mtime:?} {is} {xattrs:?} = {same}");
            lines.push(format!("{path} {what}"));
            if stat.kind() == Kind::Dir {
                walk(&dir.dir(&name), &path, first, lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, "", &mut BTreeMap::new(), &mut lines);
    lines
}

fn imported(
    store: &Store,
    fill: impl FnOnce(&mut Build) -> Result<(), TransferError>,
) -> Vec<String> {
    let mut build = store.build().unwrap();
    fill(&mut build).unwrap();
    let layer = store.layer(&store.publish(build).unwrap()).unwrap();
    listing(&blob::roots(vec![layer])[0])
}

#[test]
fn archives_of_gnu_tar_and_python_hold_what_gnu_tar_extracts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let tree = at("tree");
    run("python3", &["-c", TREE, text(&tree)]);
    let store = Store::open(&at("store"), BlockCache::new(1 << 20)).unwrap();
    let tar = at("archive.tar");
    let gnu = |part: &str, options: &[&str]| {
        run("tar", &[&["-C", text(&tree), "-cf", text(&tar)], options, &[part]].concat());
    };
    let python = |part: &str, form: &str| {
        run("python3", &["-c", TARFILE, form, text(&tar), text(&tree), part]);
    };
    let forms: [(&str, &dyn Fn()); 11] = [
        ("v7", &|| gnu("short", &["--format=v7"])),
        ("ustar", &|| gnu("short", &["--format=ustar"])),
        ("oldgnu", &|| gnu(".", &["--format=oldgnu", "--sparse"])),
        ("gnu", &|| gnu(".", &["--format=gnu", "--sparse"])),
        ("posix", &|| gnu(".", &["--format=posix", "--xattrs"])),
        ("sparse 0.0", &|| gnu(".", &["--format=posix", "--sparse", "--sparse-version=0.0"])),
        ("sparse 0.1", &|| gnu(".", &["--format=posix", "--sparse", "--sparse-version=0.1"])),
        ("sparse 1.0", &|| gnu(".", &["--format=posix", "--sparse", "--sparse-version=1.0"])),
        ("python ustar", &|| python("short", "USTAR")),
        ("python gnu", &|| python(".", "GNU")),
        ("python pax", &|| python(".", "PAX")),
    ];
    for (form, write) in forms {
        write();
        let unpacked = at(&format!("unpacked {form}"));
        fs::create_dir(&unpacked).unwrap();
        let extract = ["--xattrs", "--xattrs-include=user.*", "-xpf", text(&tar), "-C"];
        run("tar", &[&extract[..], &[text(&unpacked)]].concat());
        let found = imported(&store, |build| {
            layer_from_tar(File::open(&tar).unwrap(), &mut build.builder).map(|_| ())
        });
        let expected = imported(&store, |build| {
            layer_from_directory(&unpacked, &mut build.builder).map(|_| ())
        });
        assert!(found.len() >= 6, "{form}: {found:#?}");
        assert_eq!(found, expected, "{form}");
        let has_xattr = found.iter().any(|line| line.contains("user.lamina"));
        assert_eq!(has_xattr, form == "posix", "{form}");
    }
}

#[test]
fn a_tar_cut_between_two_members_is_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("data")).unwrap();
    let mut whole = tar_of(&[("a", b"first"), ("b", b"second")]);
    let import = |bytes: &[u8]| {
        let path = dir.path().join("x.tar");
        fs::write(&path, bytes).unwrap();
        let names = ["x".to_owned()];
        laminafs::service::import::import(&images, &path, &names, &mut |_| ())
    };
    assert!(import(&whole).is_ok());
    whole.truncate(1024);
    let error = import(&whole).unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    // GNU tar also accepts one block of zeros as an end.
    whole.resize(1536, 0);
    assert!(import(&whole).is_ok());
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_pipe_is_read_as_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&dir.path().join("data")).unwrap();
    let names = ["x".to_owned()];
    let content = vec![7; 300_000];
    let tar = tar_of(&[("large", &content), ("small", b"s")]);
    let path = dir.path().join("x.tar");
    fs::write(&path, &tar).unwrap();
    let import = |path: &Path| {
        laminafs::service::import::import(&images, path, &names, &mut |_| ()).unwrap()
    };
    let from_file = import(&path);
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    let writer = std::thread::spawn(move || to.write_all(&tar).unwrap());
    let from_pipe = import(Path::new(&format!("/proc/self/fd/{}", from.as_raw_fd())));
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert_eq!(from_file, from_pipe);
    let left = fs::read_dir(dir.path().join("data/layers")).unwrap().count();
    assert_eq!(left, 1, "the copy has no name");
}
