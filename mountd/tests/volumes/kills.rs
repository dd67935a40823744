//! A host on which verbs are killed: the data root, its mounts and processes, and chance.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde_json::Value;

use crate::place::Place;

/// The time in which processes end whose mounts are gone.
const ENDING: Duration = Duration::from_secs(20);

/// Numbers without a pattern, the same in each run.
pub struct Chance(u64);

impl Chance {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers of a run. `LAMINA_KILL_SEED` repeats those of another one.
    pub fn of_run() -> Self {
        let set = std::env::var("LAMINA_KILL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = set.unwrap_or(0x9e37_79b9_7f4a_7c15).max(1);
        eprintln!("LAMINA_KILL_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// One of several.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).unwrap();
        if count == 0 { None } else { all.get(usize::try_from(self.below(count)).unwrap()) }
    }
}

/// Whether this process may mount with FUSE. Not to be able to is a failure where nothing may be
/// skipped.
fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    assert!(can || std::env::var_os("LAMINA_NO_SKIP").is_none(), "needs root and /dev/fuse");
    if !can {
        eprintln!("SKIPPED: needs root and /dev/fuse");
    }
    can
}

/// Runs a test in another process, with mounts of its own: a namespace that another test makes
/// would have copies of them, which keep them in use. Whether this is that process.
pub fn is_alone(module: &str, test: &str) -> bool {
    const INSIDE: &str = "LAMINA_KILLS_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !can_mount() {
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    command
        .args([&*format!("{module}::{test}"), "--exact", "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1");
    let output = command.output().unwrap();
    let said = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let (out, errors) = (said(&output.stdout), said(&output.stderr));
    eprintln!("{errors}");
    assert!(output.status.success() && out.contains("1 passed"), "{out}");
    false
}

/// The files of a volume, by their paths.
pub type Content = BTreeMap<String, String>;

/// What a verb came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    Good,
    Refused,
}

/// A data root whose mounts and processes end with the test, also if it fails.
pub struct Host {
    place: Place,
    root: PathBuf,
    /// The shortest time of each verb so far, in microseconds.
    times: BTreeMap<String, u64>,
}

impl Host {
    pub fn new() -> Self {
        let place = Place::new();
        let root = fs::canonicalize(place.at("")).unwrap();
        fs::create_dir(place.at("root")).unwrap();
        Self { place, root, times: BTreeMap::new() }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `lamina ..`, whose errors go to the file `errors`.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.place.lamina(words);
        command.stdout(Stdio::null()).stderr(File::create(self.at("errors")).unwrap());
        command
    }

    /// `lamina ..`, not started yet.
    pub fn lamina(&self, words: &[&str]) -> Command {
        self.place.lamina(words)
    }

    /// What the last verb printed as its error.
    pub fn said(&self) -> String {
        fs::read_to_string(self.at("errors")).unwrap_or_default()
    }

    /// Runs a verb to its end and returns what it prints. It must succeed.
    #[track_caller]
    pub fn good(&self, words: &[&str]) -> Vec<u8> {
        let output = self.place.lamina(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output.stdout
    }

    /// Runs a verb that is refused, and returns what it says.
    #[track_caller]
    pub fn bad(&self, words: &[&str]) -> String {
        let output = self.place.lamina(words).output().unwrap();
        assert!(!output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        serde_json::from_slice(&self.good(words)).unwrap()
    }

    /// Runs a verb to its end, and notes its time under `kind`.
    pub fn timed(&mut self, kind: &str, words: &[&str]) -> End {
        let start = Instant::now();
        let is_good = self.command(words).status().unwrap().success();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap().max(1000);
        if !is_good {
            return End::Refused;
        }
        let shortest = self.times.entry(kind.to_owned()).or_insert(micros);
        *shortest = micros.min(*shortest);
        End::Good
    }

    /// Runs a verb, and kills it at a time before its end by the times of before. A verb without a
    /// time is run to its end.
    pub fn killed(&mut self, kind: &str, words: &[&str], chance: &mut Chance) -> End {
        let Some(longest) = self.times.get(kind).copied() else { return self.timed(kind, words) };
        let mut child = self.command(words).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(chance.below(longest)));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => End::Killed,
            Some(0) => End::Good,
            Some(_) => End::Refused,
        }
    }

    /// Runs a verb, and kills it at a time after it has started another process.
    pub fn killed_beside(&self, words: &[&str], after: Duration) {
        let mut child = self.command(words).spawn().unwrap();
        let id = child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let has_one = || fs::read_to_string(&children).map_or(true, |ids| !ids.is_empty());
        while child.try_wait().unwrap().is_none() && !has_one() {
            std::thread::yield_now();
        }
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs a verb, and kills the process of a volume meanwhile. Whether there was one is returned.
    pub fn unserved(&mut self, kind: &str, words: &[&str], chance: &mut Chance) -> (End, bool) {
        let longest = self.times.get(kind).copied().unwrap_or(1000);
        let mut child = self.command(words).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(chance.below(longest)));
        let serving = self.serving();
        let killed = chance.of(&serving).copied().filter(|pid| kill(*pid));
        if let Some(pid) = killed {
            self.until("a process that was killed stays", || has_ended(pid));
        }
        let is_good = child.wait().unwrap().success();
        (if is_good { End::Good } else { End::Refused }, killed.is_some())
    }

    /// The processes that serve volumes of the data root.
    pub fn serving(&self) -> Vec<i32> {
        self.processes(b"volume\0serve\0")
    }

    /// The processes with the data root, and with `words`, in their arguments.
    fn processes(&self, words: &[u8]) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).unwrap();
        let root = self.root.as_os_str().as_encoded_bytes();
        let has = |text: &[u8], part: &[u8]| {
            part.is_empty() || text.windows(part.len()).any(|here| here == part)
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
            let text = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if has(&text, root) && has(&text, words) {
                found.push(pid);
            }
        }
        found
    }

    /// The mount points below the data root and beside it, the last one first.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut points: Vec<PathBuf> = points.filter(|at| at.starts_with(&self.root)).collect();
        points.reverse();
        points
    }

    /// The loop devices with files of the data root.
    fn devices(&self) -> Vec<String> {
        let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let files = blocks.map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")));
        let mut files: Vec<String> = files.flatten().collect();
        files.retain(|file| Path::new(file).starts_with(&self.root));
        files
    }

    /// Takes mounts away, whoever uses them.
    pub fn detach(&self, below: &Path) {
        for point in self.mounts().iter().filter(|point| point.starts_with(below)) {
            // One that was bound beneath another mount may have gone with it.
            match rustix::mount::unmount(point, UnmountFlags::DETACH) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(error) => panic!("{}: {error}", point.display()),
            }
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + ENDING;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.processes(b""));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The content of a volume or of a snapshot.
    #[track_caller]
    pub fn exported(&self, source: &str) -> Content {
        unpacked(&self.good(&["volume", "export", source]))
    }

    /// The directories of volumes and of snapshots that a verb names.
    pub fn named(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for words in [
            &["volume", "ls", "--json"][..],
            &["volume", "ls", "--trash", "--json"],
            &["volume", "snapshot", "ls", "--json"],
        ] {
            let data = self.json(words).into_iter().map(|one| text(&one, "mountpoint"));
            found.extend(data.map(|data| Path::new(&data).parent().unwrap().to_owned()));
        }
        for one in self.json(&["container", "snapshot", "ls", "--json"]) {
            let id = text(&one, "id");
            let has_id = |path: &&PathBuf| {
                let record = fs::read_to_string(path.join("volume.json"));
                record.is_ok_and(|text| text.contains(&id))
            };
            found.extend(listed(&self.at("root/volumes")).iter().find(has_id).cloned());
        }
        for one in self.json(&["container", "ls", "--json"]) {
            found.push(Path::new(&text(&one, "upper")).parent().unwrap().to_owned());
        }
        found
    }

    /// Checks that verbs name all that the kills left, and that nothing is left when all of that is
    /// removed.
    pub fn emptied(&self) {
        self.good(&["volume", "prune"]);
        self.good(&["image", "gc"]);
        let named = self.named();
        let mut unnamed = listed(&self.at("root/volumes"));
        unnamed.extend(listed(&self.at("root/containers")));
        unnamed.retain(|path| !named.contains(path));
        assert_eq!(unnamed, Vec::<PathBuf>::new(), "no verb names them");
        let stacks = named.iter().map(|path| fs::read_to_string(path.join("stack.json")));
        let stacks: String = stacks.map(Result::unwrap_or_default).collect();
        for layer in listed(&self.at("root/volumes/.layers")) {
            let id = layer.file_name().unwrap().to_str().unwrap();
            assert!(stacks.contains(id), "layer {id} belongs to nobody");
        }
        self.remove_all();
        let none = Vec::<PathBuf>::new();
        for place in ["volumes", "volumes/.layers", "volumes/.locks", "containers"] {
            let path = self.at("root").join(place);
            assert_eq!((place, listed(&path)), (place, none.clone()), "something stays");
        }
        assert_eq!(self.mounts(), none, "a mount stays");
        self.until("a process stays", || self.processes(b"").is_empty());
        self.until("a loop device stays", || self.devices().is_empty());
    }

    /// Removes all that there is, by its verbs.
    fn remove_all(&self) {
        let remove = |list: &[&str], key: &str, verb: &[&str]| {
            for one in self.json(list) {
                let name = text(&one, key);
                self.good(&[verb, &[&name]].concat());
            }
        };
        let list = ["container", "snapshot", "ls", "--json"];
        remove(&list, "id", &["container", "snapshot", "rm"]);
        remove(&["container", "ls", "--json"], "name", &["container", "rm"]);
        let list = ["volume", "snapshot", "ls", "--json"];
        remove(&list, "id", &["volume", "snapshot", "rm"]);
        remove(&["volume", "ls", "--json"], "name", &["volume", "rm", "--purge"]);
        self.good(&["volume", "prune", "--trash"]);
        remove(&["image", "ls", "--json"], "id", &["image", "rm"]);
        self.good(&["image", "gc"]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // After a failure: a directory with mounts in it must not be removed.
        if std::thread::panicking() {
            for pid in self.processes(b"") {
                if !kill(pid) {
                    eprintln!("{pid} has ended");
                }
            }
            for point in self.mounts() {
                if let Err(error) = rustix::mount::unmount(&point, UnmountFlags::DETACH) {
                    eprintln!("{}: {error}", point.display());
                }
            }
        }
    }
}

fn kill(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    let kill = |pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
    pid.is_some_and(kill)
}

/// Whether a process that was killed has closed its files: all of its threads have ended.
fn has_ended(pid: i32) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().count();
    let Ok(stat) = fs::read_to_string(process.join("stat")) else { return true };
    threads <= 1 && stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// A field of a record, which is text.
pub fn text(one: &Value, key: &str) -> String {
    one.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key}: {one}")).to_owned()
}

/// Imports an image `base` with files of one number. The last two of four are names of one file.
pub fn tree(host: &Host, files: &[&str; 4]) {
    let tree = host.at("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    for file in &files[..3] {
        fs::write(tree.join(file), "0").unwrap();
    }
    fs::hard_link(tree.join(files[2]), tree.join(files[3])).unwrap();
    host.good(&["image", "import", "-t", "base", tree.to_str().unwrap()]);
}

/// What is in a directory of the data root, without the files and directories of the root itself.
pub fn listed(directory: &Path) -> Vec<PathBuf> {
    let own = [".lock", ".locks", ".layers"];
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| !own.iter().any(|name| path.ends_with(name)));
    found.sort();
    found
}

/// The files of a tar.
fn unpacked(tar: &[u8]) -> Content {
    let mut found = Content::new();
    let mut at = 0;
    while let Some(header) = tar.get(at..at + 512).filter(|header| header[0] != 0) {
        let field = |from: usize, to: usize| {
            let text = header[from..to].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(text.to_vec()).unwrap()
        };
        let size = usize::from_str_radix(field(124, 136).trim(), 8).unwrap();
        let data = String::from_utf8_lossy(&tar[at + 512..at + 512 + size]).into_owned();
        let name = field(0, 100);
        match header[156] {
            b'0' | 0 => drop(found.insert(name, data)),
            b'1' => drop(found.insert(name, found[&field(157, 257)].clone())),
            _ => {}
        }
        at += 512 + size.next_multiple_of(512);
    }
    found
}
