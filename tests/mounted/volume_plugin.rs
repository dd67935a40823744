//! Volumes of plugins of Docker: a real one, and plugins that hang, die and answer nonsense.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use laminafs::service::volumes::{NewVolume, TrashPolicy, VolumeService};
use laminafs::volume::plugin::{Patience, PluginDriver, PluginPlaces};
use laminafs::volume::{Driver, Place, Spec, VolumeError};
use parking_lot::Mutex;
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Site, mount_points_below, program};
use crate::tools::*;
use crate::volume_drivers::name;

judged!(host:
    a_mountpoint_that_cannot_be_is_refused_by_name,
    replies_that_are_nonsense_change_nothing,
    a_plugin_that_hangs_keeps_no_other_volume,
    a_plugin_that_is_gone_keeps_nobody_from_a_removal,
    what_a_plugin_does_not_remove_stays_in_the_trash,
    a_killed_creation_leaves_nothing_at_the_plugin,
    a_plugin_that_restarts_is_waited_for,
    a_spec_file_names_the_socket,
);

const PLUGINS: &str = "/run/docker/plugins";
const SOON: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
#[track_caller]
pub fn until(is_so: impl FnMut() -> bool) {
    eventually("a condition", is_so);
}

/// Gives the case a directory of plugins of its own.
fn own_plugins() {
    fs::create_dir_all(PLUGINS).unwrap();
    rustix::mount::mount("plugins", PLUGINS, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// `lamina serve --docker` of another data root: a plugin as good as any.
pub struct Served {
    child: Child,
    root: PathBuf,
}

impl Served {
    pub fn start(s: &Site, name: &str) -> Self {
        own_plugins();
        Self::start_at(s, &Path::new(PLUGINS).join(format!("{name}.sock")))
    }

    pub fn start_at(s: &Site, socket: &Path) -> Self {
        let root = s.root().join("served");
        let mut command = Command::new(program());
        command.env_remove("LAMINA_ROOT").env("LAMINA_RUNTIME_DIR", s.root().join("run"));
        command.arg("serve").arg("--root").arg(&root).arg("--docker").arg(socket);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let served = Self { child, root };
        until(|| UnixStream::connect(socket).is_ok());
        served
    }

    fn end(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it, and returns the volumes that it has.
    pub fn end_empty(mut self) -> Vec<String> {
        self.end();
        let volumes = VolumeService::open(&self.root).unwrap();
        volumes.empty_trash(&TrashPolicy { age: Duration::ZERO, ..Default::default() }).unwrap();
        let all = volumes.list().unwrap().into_iter().map(|volume| volume.name.into());
        all.collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// What a false plugin does with a call.
enum Act {
    /// Replies with this JSON.
    Say(String),
    /// Writes these bytes and closes.
    Write(Vec<u8>),
    /// Keeps the connection open.
    Hang,
}

fn ok() -> Act {
    Act::Say("{\"Err\":\"\"}".to_owned())
}

fn err(text: &str) -> Act {
    Act::Say(format!("{{\"Err\":\"{text}\"}}"))
}

/// A plugin of the test. It notes the calls, each with its body.
struct False {
    calls: Arc<Mutex<Vec<String>>>,
    path: PathBuf,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl False {
    fn start(name: &str, act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let path = Path::new(PLUGINS).join(format!("{name}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let (calls, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, stops) = (Arc::clone(&calls), Arc::clone(&ends));
        let act = Arc::new(act);
        let thread = std::thread::spawn(move || {
            // What hangs is closed at the end.
            let mut hung = Vec::new();
            for stream in listener.incoming() {
                if stops.load(Ordering::Relaxed) {
                    break;
                }
                hung.extend(answer(stream.unwrap(), &noted, &*act));
            }
        });
        Self { calls, path, ends, thread: Some(thread) }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|line| line.starts_with(call)).count()
    }
}

impl Drop for False {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&self.path));
        fs::remove_file(&self.path).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(
    mut stream: UnixStream,
    noted: &Mutex<Vec<String>>,
    act: &impl Fn(&str) -> Act,
) -> Option<UnixStream> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    let text = loop {
        let count = stream.read(&mut part).unwrap();
        if count == 0 {
            return None;
        }
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if text.contains("\r\n\r\n") && text.ends_with('}') {
            break text;
        }
    };
    let call = text.split([' ', '.']).nth(2).unwrap().to_owned();
    noted.lock().push(format!("{call} {}", text.rsplit("\r\n").next().unwrap()));
    let bytes = match (call.as_str(), act(&call)) {
        ("Activate", Act::Say(_)) => reply("{\"Implements\":[\"VolumeDriver\"]}"),
        (_, Act::Say(text)) => reply(&text),
        (_, Act::Write(bytes)) => bytes,
        (_, Act::Hang) => return Some(stream),
    };
    // The client may have closed.
    drop(stream.write_all(&bytes));
    None
}

fn reply(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

fn wish(plugin: &str, of: &str) -> NewVolume {
    NewVolume { driver: Some(format!("plugin:{plugin}")), ..NewVolume::new(name(of)) }
}

fn service(s: &Site) -> VolumeService {
    VolumeService::open(&s.root().join("store")).unwrap()
}

/// The name of the only volume that a plugin was asked for.
fn its_name(calls: &[String]) -> String {
    let created = calls.iter().find(|line| line.starts_with("Create")).unwrap();
    created.split('"').nth(3).unwrap().to_owned()
}

fn a_mountpoint_that_cannot_be_is_refused_by_name(s: &mut Site) {
    own_plugins();
    let at = |name: &str| s.root().join(name).display().to_string();
    symlink(at("loop"), at("loop")).unwrap();
    put(at("file"), "");
    let volumes = service(s);
    let store = at("store");
    let inside = format!("{store}/volumes/v/_data");
    for (path, word) in [
        ("relative".to_owned(), "not an absolute path"),
        (String::new(), "names no mountpoint"),
        (at("absent"), "No such file"),
        (at("loop"), "symbolic link"),
        (at("file"), "Not a directory"),
        ("/".to_owned(), "holds"),
        (store, "holds"),
        (inside, "is in it"),
        ("/a\\u0000b".to_owned(), ""),
        ("/x".repeat(4000), "too long"),
    ] {
        let told = path.clone();
        let plugin = False::start("bad", move |call| match call {
            "Mount" | "Path" => Act::Say(format!("{{\"Mountpoint\":\"{told}\",\"Err\":\"\"}}")),
            _ => ok(),
        });
        volumes.create(wish("bad", "v")).unwrap();
        let error = volumes.publish(&name("v"), "one").unwrap_err().to_string();
        assert!(error.contains("\"bad\"") && error.contains(word), "{path:?}: {error}");
        assert_eq!(plugin.count("Unmount"), usize::from(!path.is_empty()), "{path:?}");
        assert_eq!(mount_points_below(s.root()), Vec::<PathBuf>::new());
        volumes.erase(&name("v")).unwrap();
        assert_eq!(plugin.count("Remove"), 1);
    }
}

fn replies_that_are_nonsense_change_nothing(s: &mut Site) {
    own_plugins();
    let volumes = service(s);
    let huge = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b' '; 3 << 20]].concat();
    for (bytes, word) in [
        (reply("{\"Err\":\"no \\u001b[31m room\"}"), "no  [31m room"),
        (reply("nonsense"), "not JSON"),
        (b"\x7fELF".to_vec(), "not HTTP"),
        (Vec::new(), "closed before"),
        (huge, "longer than 1048576 bytes"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".to_vec(), "status 404: none"),
    ] {
        let plugin = False::start("bad", move |call| match call {
            "Create" => Act::Write(bytes.clone()),
            _ => ok(),
        });
        let error = volumes.create(wish("bad", "v")).unwrap_err().to_string();
        assert!(error.contains("Create") && error.contains(word), "{error}");
        assert!(volumes.list().unwrap().is_empty() && volumes.trashed().unwrap().is_empty());
        assert_eq!(plugin.count("Remove"), 1, "it may have made one");
    }
    let none = False::start("none", |_| Act::Write(reply("{\"Implements\":[\"NetworkDriver\"]}")));
    let error = volumes.create(wish("none", "v")).unwrap_err().to_string();
    assert!(error.contains("has no volumes") && error.contains("NetworkDriver"), "{error}");
    assert_eq!(none.count("Create"), 0);
    let error = volumes.create(wish("absent", "v")).unwrap_err().to_string();
    assert!(error.contains("\"absent\" does not exist") && error.contains(PLUGINS), "{error}");
    let error = volumes.create(wish("../x", "v")).unwrap_err().to_string();
    assert!(error.contains("not the name of a plugin"), "{error}");
    assert_eq!(names(s.root().join("store/volumes")), [".locks"]);
}

fn a_plugin_that_hangs_keeps_no_other_volume(s: &mut Site) {
    own_plugins();
    let volumes = service(s);
    let hangs = Arc::new(AtomicBool::new(false));
    let (told, now) = (s.at("content"), Arc::clone(&hangs));
    dir(&told);
    let plugin = False::start("slow", move |call| match call {
        "Mount" if now.load(Ordering::Relaxed) => Act::Hang,
        "Mount" => Act::Say(format!("{{\"Mountpoint\":\"{}\"}}", told.display())),
        _ => ok(),
    });
    for of in ["a", "b"] {
        volumes.create(wish("slow", of)).unwrap();
    }
    volumes.create(NewVolume::new(name("plain"))).unwrap();
    volumes.publish(&name("b"), "one").unwrap();
    hangs.store(true, Ordering::Relaxed);
    let (sender, done) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(volumes.publish(&name("a"), "one")).unwrap());
        until(|| plugin.count("Mount") == 2);
        let start = Instant::now();
        // Another volume, another one of the plugin, and the record of the one that hangs.
        volumes.publish(&name("plain"), "one").unwrap();
        volumes.unpublish(&name("b"), "one").unwrap();
        volumes.inspect(&name("a")).unwrap();
        assert_eq!(volumes.list().unwrap().len(), 3);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(done.try_recv().is_err(), "it hangs");
        // The plugin dies.
        drop(plugin);
        let error = done.recv_timeout(SOON).unwrap().unwrap_err().to_string();
        assert!(error.contains("closed before"), "{error}");
    });
    limits_end_what_hangs(s);
    volumes.unpublish(&name("plain"), "one").unwrap();
    for of in ["a", "b", "plain"] {
        volumes.erase(&name(of)).unwrap();
    }
}

fn limits_end_what_hangs(s: &Site) {
    let limit = Duration::from_millis(100);
    let patience = Patience { restart: limit, probe: SOON, short: limit, long: limit };
    let _plugin = False::start("hung", |call| if call == "Create" { Act::Hang } else { ok() });
    let driver = PluginDriver::with("hung", PluginPlaces::default(), patience).unwrap();
    let place = Place::new(s.at("driver"));
    dir(place.data());
    driver.check(&Spec::default()).unwrap();
    let start = Instant::now();
    let error = driver.create(&place, &Spec::default()).unwrap_err();
    assert!(matches!(&error, VolumeError::Plugin { .. }), "{error}");
    assert!(error.to_string().contains("no reply within 100ms"), "{error}");
    assert!(start.elapsed() >= limit && start.elapsed() < SOON);
}

fn a_plugin_that_is_gone_keeps_nobody_from_a_removal(s: &mut Site) {
    let mut served = Served::start(s, "gone");
    let volumes = service(s);
    for of in ["a", "b", "c"] {
        volumes.create(wish("gone", of)).unwrap();
    }
    let data = volumes.publish(&name("a"), "one").unwrap();
    put(data.join("f"), "kept");
    // It dies, and its socket stays.
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    assert_eq!(get(data.join("f")), b"kept", "a user goes on");
    let root = s.root().join("store");
    let remove = |words: &[&str]| {
        let mut command = Command::new(program());
        command.args(["volume", "rm", "--root"]).arg(&root).args(words).output().unwrap()
    };
    let done = remove(&["--force", "a"]);
    // This process still uses it, by a lock.
    assert!(String::from_utf8_lossy(&done.stderr).contains("in use"), "{done:?}");
    volumes.unpublish(&name("a"), "one").unwrap();
    let done = remove(&["--force", "a"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(mount_points_below(s.root()), Vec::<PathBuf>::new());
    // For good: not before the plugin has removed it, unless it is not installed any more.
    let done = remove(&["--force", "--purge", "b"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("in the trash") && said.contains("start the plugin"), "{said}");
    let trash = volumes.trashed().unwrap();
    let names: Vec<_> = trash.iter().map(|one| one.volume.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    fs::remove_file(Path::new(PLUGINS).join("gone.sock")).unwrap();
    let done = remove(&["--force", "--purge", "c"]);
    assert!(done.status.success(), "{done:?}");
    // It comes back.
    let served = Served::start_at(s, &Path::new(PLUGINS).join("gone.sock"));
    volumes.empty_trash(&TrashPolicy { age: Duration::ZERO, ..Default::default() }).unwrap();
    assert!(volumes.trashed().unwrap().is_empty());
    assert_eq!(served.end_empty().len(), 1, "that of c, which was given up");
}

fn what_a_plugin_does_not_remove_stays_in_the_trash(s: &mut Site) {
    own_plugins();
    let volumes = service(s);
    let refuses = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&refuses);
    let plugin = False::start("keeper", move |call| match call {
        "Remove" if now.load(Ordering::Relaxed) => err("in use elsewhere"),
        _ => ok(),
    });
    volumes.create(wish("keeper", "v")).unwrap();
    let error = volumes.erase(&name("v")).unwrap_err().to_string();
    assert!(error.contains("in use elsewhere") && error.contains("in the trash"), "{error}");
    assert!(volumes.inspect(&name("v")).unwrap_err().is_missing(), "its name is free");
    let policy = TrashPolicy { age: Duration::ZERO, ..Default::default() };
    assert!(volumes.empty_trash(&policy).unwrap().is_empty());
    assert_eq!(volumes.trashed().unwrap().len(), 1);
    refuses.store(false, Ordering::Relaxed);
    assert_eq!(volumes.empty_trash(&policy).unwrap().len(), 1);
    let its = its_name(&plugin.calls());
    let removed = format!("Remove {{\"Name\":\"{its}\"}}");
    assert_eq!(plugin.calls().iter().filter(|line| **line == removed).count(), 3);
    assert!(its.starts_with("lamina-") && its.len() == 39, "{its}");
    assert_eq!(names(s.root().join("store/volumes")), [".locks"]);
}

fn a_killed_creation_leaves_nothing_at_the_plugin(s: &mut Site) {
    own_plugins();
    let root = s.root().join("store");
    let volumes = service(s);
    for at in ["Activate", "Capabilities", "Create"] {
        let hangs = Arc::new(AtomicBool::new(true));
        let now = Arc::clone(&hangs);
        let plugin = False::start("hung", move |call| match call == at {
            true if now.load(Ordering::Relaxed) => Act::Hang,
            _ => ok(),
        });
        let mut command = Command::new(program());
        command.args(["volume", "create", "--driver", "plugin:hung", "v", "--root"]).arg(&root);
        let mut child = command.spawn().unwrap();
        until(|| plugin.count(at) == 1);
        child.kill().unwrap();
        child.wait().unwrap();
        hangs.store(false, Ordering::Relaxed);
        assert!(volumes.list().unwrap().is_empty());
        let mut prune = Command::new(program());
        let done = prune.args(["volume", "prune", "--root"]).arg(&root).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let expected = usize::from(at == "Create");
        assert_eq!(plugin.count("Remove"), expected, "{at}");
        if at == "Create" {
            let its = its_name(&plugin.calls());
            assert!(plugin.calls().contains(&format!("Remove {{\"Name\":\"{its}\"}}")));
        }
        // A creation that ends before its driver begins makes no directory.
        let left = root.join("volumes");
        assert!(!left.exists() || names(left) == [".locks"], "{at}");
        assert!(volumes.trashed().unwrap().is_empty());
    }
}

fn a_plugin_that_restarts_is_waited_for(s: &mut Site) {
    let mut served = Served::start(s, "again");
    let volumes = service(s);
    volumes.create(wish("again", "v")).unwrap();
    served.end();
    let socket = Path::new(PLUGINS).join("again.sock");
    // A killed one leaves its socket.
    drop(UnixListener::bind(&socket).unwrap());
    let again = std::thread::scope(|scope| {
        let mounts = scope.spawn(|| volumes.publish(&name("v"), "one"));
        let again = Served::start_at(s, &socket);
        let data = mounts.join().unwrap().unwrap();
        put(data.join("f"), "x");
        again
    });
    volumes.unpublish(&name("v"), "one").unwrap();
    until(|| volumes.erase(&name("v")).is_ok());
    assert_eq!(again.end_empty(), Vec::<String>::new());
}

fn a_spec_file_names_the_socket(s: &mut Site) {
    own_plugins();
    let etc = "/etc/docker";
    fs::create_dir_all(etc).unwrap();
    rustix::mount::mount("specs", etc, "tmpfs", MountFlags::empty(), None).unwrap();
    dir(format!("{etc}/plugins"));
    let socket = s.root().join("named.sock");
    let served = Served::start_at(s, &socket);
    put(format!("{etc}/plugins/named.spec"), format!("unix://{}\n", socket.display()));
    put(format!("{etc}/plugins/far.spec"), "tcp://192.0.2.1:8080\n");
    let volumes = service(s);
    let (volume, _) = volumes.ensure(wish("named", "v")).unwrap();
    assert_eq!(volume.driver, "plugin:named");
    let data = volumes.publish(&name("v"), "one").unwrap();
    put(data.join("f"), "x");
    volumes.unpublish(&name("v"), "one").unwrap();
    let error = volumes.create(wish("far", "w")).unwrap_err().to_string();
    assert!(error.contains("far.spec") && error.contains("tcp://192.0.2.1:8080"), "{error}");
    until(|| volumes.erase(&name("v")).is_ok());
    assert_eq!(served.end_empty(), Vec::<String>::new());
}
