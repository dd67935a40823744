//! The holder starts the processes of volumes, which outlive it and those who asked for them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kills::{Chance, End, Host, is_alone};
use crate::used::{Writer, hide, show};

const ROUNDS: usize = 60;

/// A running holder. It is killed when it is dropped.
struct Holder {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Holder {
    fn start(host: &Host, more: &[&str]) -> Self {
        let log = host.at("holder.log");
        let errors = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = host.lamina(&[&["volume", "holder"], more].concat());
        let child = command.stderr(errors).stdout(Stdio::null()).spawn().unwrap();
        let socket = host.at("root/holder.sock");
        let holder = Self { child, socket, log };
        // The socket of one that was killed refuses.
        host.until("the holder does not listen", || UnixStream::connect(&holder.socket).is_ok());
        holder
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended, and returns its exit code.
    fn ended(&mut self, host: &Host) -> Option<i32> {
        let is_over = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z'))
        };
        host.until("the holder does not end", || is_over(self.child.id()));
        self.child.wait().unwrap().code()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends bytes, and returns the reason of the refusal.
    fn refusal(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        answer["outcome"]["refused"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

fn create(host: &Host, names: &[&str]) {
    for name in names {
        host.good(&["volume", "create", "--driver", "union", name]);
    }
}

#[test]
fn volumes_in_use_survive_their_holder() {
    if !is_alone("holder", "volumes_in_use_survive_their_holder") {
        return;
    }
    let host = Host::new();
    create(&host, &["a", "b", "c", "d"]);
    let first = Holder::start(&host, &[]);
    let mode = fs::metadata(&first.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only root may ask");
    // Its files are among those of a data root, which each command closes.
    fs::set_permissions(host.at("root"), fs::Permissions::from_mode(0o755)).unwrap();
    host.good(&["volume", "ls"]);
    let mode = fs::metadata(host.at("root")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the data root stays open");
    show(&host, "use", &["a", "b"]);
    assert_eq!(host.serving().len(), 2);
    let strangers: Vec<i32> =
        host.serving().into_iter().filter(|pid| parent(*pid) != first.pid()).collect();
    assert_eq!(strangers, Vec::<i32>::new(), "the holder adopts what it starts");

    let writer = Writer::start(&["a", "b"].map(|name| host.at("use").join(name)));
    let mut open = File::create(host.at("use/a/open")).unwrap();
    open.write_all(b"before").unwrap();
    let (pid, before) = (first.pid(), writer.written());
    first.kill();
    host.until("the writer stopped", || writer.written()[0] > before[0] + 3);
    open.write_all(b" after").unwrap();
    open.sync_all().unwrap();
    assert_eq!(fs::read_to_string(host.at("use/a/open")).unwrap(), "before after");

    // Its socket stays, and refuses: the next one replaces it.
    assert!(UnixStream::connect(host.at("root/holder.sock")).is_err());
    let second = Holder::start(&host, &[]);
    assert_ne!(second.pid(), pid);
    let said = host.bad(&["volume", "holder"]);
    assert!(said.contains("another one runs"), "{said}");
    show(&host, "more", &["c"]);
    let own = |pid: &i32| parent(*pid) == second.pid();
    assert_eq!(host.serving().iter().filter(|pid| own(pid)).count(), 1, "a live one was stolen");

    // Without `--wait` it ends at once, and clients start processes themselves.
    let mut second = second;
    second.signal(Signal::TERM);
    assert_eq!(second.ended(&host), Some(0), "{}", second.log());
    assert!(!host.at("root/holder.sock").exists());
    show(&host, "last", &["d"]);
    assert_eq!(host.serving().len(), 4);
    fs::write(host.at("more/c/file"), "c").unwrap();
    open.rewind().unwrap();
    drop(open);
    writer.end();
    ["use", "more", "last"].iter().for_each(|at| hide(&host, at));
    host.emptied();
}

#[test]
fn a_holder_that_waits_ends_with_the_last_volume() {
    if !is_alone("holder", "a_holder_that_waits_ends_with_the_last_volume") {
        return;
    }
    let host = Host::new();
    create(&host, &["a", "b"]);
    let mut holder = Holder::start(&host, &["--wait"]);
    show(&host, "use", &["a"]);
    holder.signal(Signal::TERM);
    host.until("it does not end", || holder.log().contains("waiting until no volume is served"));
    let (lower, mnt) = (host.at("lower"), host.at("mnt"));
    fs::create_dir_all(lower.join("b")).unwrap();
    fs::create_dir_all(&mnt).unwrap();
    let [lower, mnt] = [lower, mnt].map(|path| path.to_str().unwrap().to_owned());
    let said = host.bad(&["mount", "--lower", &lower, "--volume", "b:/b", &mnt]);
    assert!(said.contains("the holder ends; try again"), "{said}");
    fs::write(host.at("use/a/file"), "still served").unwrap();
    hide(&host, "use");
    host.good(&["volume", "prune"]);
    assert_eq!(holder.ended(&host), Some(0), "{}", holder.log());
    assert!(!host.at("root/holder.sock").exists());
    host.emptied();
}

#[test]
fn a_process_that_needs_a_holder_starts_nothing_itself() {
    if !is_alone("holder", "a_process_that_needs_a_holder_starts_nothing_itself") {
        return;
    }
    let host = Host::new();
    create(&host, &["a"]);
    let resize = || {
        let mut command = host.lamina(&["volume", "resize", "a", "64M"]);
        command.env("LAMINA_HOLDER", "required").output().unwrap()
    };
    let output = resize();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no holder runs"), "{said}");
    let holder = Holder::start(&host, &[]);
    let output = resize();
    assert!(output.status.success(), "{output:?}");
    holder.kill();
    host.emptied();
}

#[test]
fn starters_and_holders_are_killed_at_any_moment() {
    if !is_alone("holder", "starters_and_holders_are_killed_at_any_moment") {
        return;
    }
    let mut host = Host::new();
    let mut chance = Chance::of_run();
    create(&host, &["a"]);
    let mut holder = Some(Holder::start(&host, &[]));
    let (mut ends, mut number) = ([0; 3], 0);
    for round in 0..ROUNDS {
        // This mounts the volume and unmounts it again.
        let size = format!("{}M", 64 + round % 7);
        let resize = ["volume", "resize", "a", &size];
        let ending = holder.take_if(|_| round % 3 != 0);
        let after = Duration::from_micros(chance.below(30_000));
        let killer = ending.map(|ending| {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                ending.kill();
            })
        });
        let end = match round % 3 {
            1 => host.timed("resize beside", &resize),
            _ => host.killed("resize", &resize, &mut chance),
        };
        ends[match end {
            End::Killed => 0,
            End::Good => 1,
            End::Refused => 2,
        }] += 1;
        let refused = end == End::Refused && round % 3 == 0;
        assert!(!refused, "with a holder: {}", host.said());
        killer.into_iter().for_each(|killer| killer.join().unwrap());
        let current = holder.get_or_insert_with(|| Holder::start(&host, &[]));
        assert!(current.child.try_wait().unwrap().is_none(), "{}", current.log());

        show(&host, "use", &["a"]);
        let file = host.at("use/a/number");
        let found = fs::read_to_string(&file).unwrap_or_else(|_| "0".to_owned());
        assert_eq!(found, number.to_string(), "round {round}");
        number = round + 1;
        fs::write(&file, number.to_string()).unwrap();
        assert_eq!(host.serving().len(), 1, "round {round}: the volume is served twice");
        hide(&host, "use");
        if chance.below(2) == 0 {
            host.good(&["volume", "prune"]);
        }
    }
    eprintln!("{} killed, {} done, {} refused", ends[0], ends[1], ends[2]);
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
    drop(holder);
    host.emptied();
}

/// A request, as a line.
fn line(version: u32, arguments: &[&str]) -> Vec<u8> {
    format!("{}\n", json!({ "version": version, "arguments": arguments })).into_bytes()
}

#[test]
fn hostile_clients_do_not_stop_the_holder() {
    if !is_alone("holder", "hostile_clients_do_not_stop_the_holder") {
        return;
    }
    let host = Host::new();
    create(&host, &["a", "b", "c"]);
    let holder = Holder::start(&host, &[]);
    let good: [&str; 3] = ["volume", "serve", "/nowhere"];
    for (bytes, reason) in [
        (line(1, &good), "without a descriptor"),
        (line(2, &good), "version 2 of requests is unknown"),
        (b"no json\n".to_vec(), "no request was received"),
        (b"{\"version\":1}\n".to_vec(), "no request was received"),
        (vec![b'x'; 1 << 17], "too long"),
    ] {
        // A long line is answered before all of it was received: then the rest is refused.
        let said = std::panic::catch_unwind(|| holder.refusal(&bytes));
        let is_long = bytes.len() > 1 << 16;
        match said {
            Ok(said) => assert!(said.contains(reason), "{said}"),
            Err(_) => assert!(is_long, "{:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    let other = with_descriptor(&holder.socket, &line(1, &["volume", "rm", "a"]));
    assert!(other.contains("only the commands that serve volumes"), "{other}");
    let odd = with_descriptor(&holder.socket, &line(1, &good));
    let odd: Value = serde_json::from_str(&odd).unwrap();
    assert_ne!(odd["outcome"]["ended"]["code"], 0, "{odd}");

    // More of them than it has places, which send nothing or half a request.
    let crowd: Vec<UnixStream> = (0..200)
        .filter_map(|number| {
            let mut stream = UnixStream::connect(&holder.socket).ok()?;
            if number % 2 == 0 {
                stream.write_all(b"{\"version\":").ok()?;
            }
            Some(stream)
        })
        .collect();
    let start = Instant::now();
    let all = ["a", "b", "c"];
    let deadline = start + Duration::from_secs(60);
    for name in all {
        while !is_shown(&host, name) {
            assert!(Instant::now() < deadline, "the crowd stops it: {}", holder.log());
        }
    }
    eprintln!("{} clients held three volumes up for {:?}", crowd.len(), start.elapsed());
    assert!(host.serving().iter().all(|pid| parent(*pid) == holder.pid()));
    drop(crowd);
    all.iter().for_each(|name| hide(&host, name));
    // None of its threads or descriptors stays.
    let count = |what: &str| {
        let path = Path::new("/proc").join(holder.pid().to_string()).join(what);
        fs::read_dir(path).unwrap().count()
    };
    host.until("threads stay", || count("task") <= 3);
    host.until("descriptors stay", || count("fd") <= 8);
    drop(holder);
    host.emptied();
}

/// Shows a volume at its name, unless the holder was too busy.
fn is_shown(host: &Host, name: &str) -> bool {
    let (lower, mnt) = (host.at(&format!("{name}.lower")), host.at(name));
    fs::create_dir_all(lower.join("v")).unwrap();
    fs::create_dir_all(&mnt).unwrap();
    let [lower, mnt] = [&lower, &mnt].map(|path| path.to_str().unwrap());
    let graft = format!("{name}:/v");
    let output = host.lamina(&["mount", "--lower", lower, "--volume", &graft, mnt]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("try again"), "{said}");
    output.status.success()
}

/// Sends a request with a descriptor, and returns the answer.
fn with_descriptor(socket: &Path, bytes: &[u8]) -> String {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::fd::AsFd;
    let stream = UnixStream::connect(socket).unwrap();
    let file = File::open("/dev/null").unwrap();
    let fds = [file.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [std::io::IoSlice::new(bytes)];
    sendmsg(&stream, &parts, &mut control, SendFlags::empty()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}
