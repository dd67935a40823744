//! The socket of the Container Storage Interface: old and hostile clients, ends, secrets, counters.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::csi_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, HUFFMAN, PREFACE, Peer, frame, head,
    message, plain,
};
use crate::daemon::{Place, mode};
use crate::until::until;

const INFO: &str = "/csi.v1.Identity/GetPluginInfo";
const NAME: &str = "csi.lamina.dev";
/// What h2 answers to all of it, also to a header block that cannot be decoded.
const PROTOCOL_ERROR: u32 = 1;

/// A daemon with the driver alone. It is killed when it is dropped.
struct Driver {
    child: Child,
    socket: PathBuf,
}

impl Driver {
    fn start(place: &Place) -> Self {
        let socket = place.at("csi/csi.sock");
        let mut command = place.command();
        command.arg("--csi").arg(format!("unix://{}", socket.display()));
        Self::start_command(&mut command, socket)
    }

    fn start_command(command: &mut Command, socket: PathBuf) -> Self {
        let mut driver = Self { child: command.spawn().unwrap(), socket };
        until("the start", || {
            assert!(driver.child.try_wait().unwrap().is_none(), "it has ended");
            std::os::unix::net::UnixStream::connect(&driver.socket).is_ok()
        });
        driver
    }

    /// Whether a new client gets an answer.
    fn answers(&self) -> bool {
        Peer::new(&self.socket).call(1, &head(INFO, &plain("localhost")), &[]).says(NAME)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) {
        self.signal(Signal::TERM);
        until("the end", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

#[test]
fn the_path_of_the_socket_is_accepted_as_authority() {
    let place = Place::new();
    let driver = Driver::start(&place);
    assert_eq!(mode(&driver.socket), 0o600);
    for authority in [plain("/tmp/x/csi.sock"), HUFFMAN.to_vec()] {
        let mut peer = Peer::new(&driver.socket);
        assert!(peer.call(1, &head(INFO, &authority), &[]).says(NAME));
        // All by the table: te, the type, the path, the authority.
        let again = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
        assert!(peer.call(3, &again, &[]).says(NAME));
        assert!(peer.call(5, &head(INFO, &plain("localhost")), &[]).says(NAME));
        assert!(peer.call(7, &head(INFO, &authority), &[]).says(NAME));
    }
    assert!(driver.answers());
    driver.end();
}

#[test]
fn hostile_clients_are_refused_and_others_are_served() {
    let place = Place::new();
    let driver = Driver::start(&place);
    let begun = |stream| frame(HEADERS, 0, stream, &head(INFO, &plain("/x"))[..4]);
    let endless = [begun(1), frame(CONTINUATION, 0, 1, &[]).repeat(1000)].concat();
    let huge = [begun(1), frame(CONTINUATION, 0, 1, &[0; 16_384]).repeat(8)].concat();
    for bytes in [
        frame(HEADERS, END_HEADERS, 1, &[0xff; 60]),
        endless,
        huge,
        [begun(1), frame(DATA, 0, 1, &[])].concat(),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
    ] {
        let mut peer = Peer::new(&driver.socket);
        // The daemon may close before all of it is written.
        let written = peer.write(&bytes);
        assert_eq!(peer.error(), Some(PROTOCOL_ERROR), "{written:?}");
        assert!(driver.answers());
    }
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 5000], &PREFACE[3..]] {
        let mut peer = Peer::silent(&driver.socket);
        peer.write(garbage).unwrap();
        peer.error();
        assert!(driver.answers());
    }
    driver.end();
}

#[test]
fn slow_clients_are_closed_and_fill_no_daemon() {
    let place = Place::new();
    place.config("[limits]\nconnections = 64\n");
    let driver = Driver::start(&place);
    let silent: Vec<_> = (0..100).map(|_| Peer::silent(&driver.socket)).collect();
    let mut half = Peer::new(&driver.socket);
    half.write(&frame(HEADERS, 0, 1, &[0x83])).unwrap();
    // It waits for its place, and gets it when the limits of the others have passed.
    let mut peer = Peer::new(&driver.socket);
    let start = Instant::now();
    peer.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(peer.call(1, &head(INFO, &plain("/x")), &[]).says(NAME));
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
    drop(silent);
    half.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    half.error();
    // A request whose body does not come.
    let mut late = Peer::new(&driver.socket);
    late.write(&frame(HEADERS, END_HEADERS, 1, &head(INFO, &plain("/x")))).unwrap();
    let answer = late.answer(1).expect("an answer");
    assert!(answer.messages.is_empty(), "{answer:?}");
    assert!(driver.answers());
    driver.end();
}

#[test]
fn many_connections_are_served() {
    let place = Place::new();
    let driver = Driver::start(&place);
    let mut peers: Vec<_> = (0..500).map(|_| Peer::new(&driver.socket)).collect();
    let waiting: Vec<_> = (0..100).map(|_| Peer::silent(&driver.socket)).collect();
    let block = head(INFO, &plain("/x"));
    for peer in &mut peers {
        assert!(peer.call(1, &block, &[]).says(NAME));
    }
    drop(peers);
    assert!(driver.answers());
    drop(waiting);
    driver.end();
}

#[test]
fn a_live_socket_is_not_stolen_and_a_stale_one_is_replaced() {
    let place = Place::new();
    let mut driver = Driver::start(&place);
    let named = format!("unix://{}", driver.socket.display());
    let other = Place::new();
    let (code, err) = other.refused(&["--csi", &named]);
    assert!(code == 1 && err.contains("another process listens there"), "{err}");
    assert!(driver.answers());
    driver.child.kill().unwrap();
    driver.child.wait().unwrap();
    assert!(driver.socket.exists());
    let next = Driver::start(&place);
    assert!(next.answers());
    let entries = fs::read_dir(next.socket.parent().unwrap()).unwrap().count();
    assert_eq!(entries, 1, "nothing is beside the socket");
    let socket = next.socket.clone();
    next.end();
    assert!(!socket.exists());
}

#[test]
fn the_environment_names_the_socket_of_a_role() {
    let place = Place::new();
    let socket = place.at("env.sock");
    let mut command = place.command();
    command
        .args(["--csi-role", "node"])
        .env("CSI_ENDPOINT", format!("unix://{}", socket.display()));
    let driver = Driver::start_command(&mut command, socket);
    let call = head("/csi.v1.Identity/GetPluginCapabilities", &plain("/x"));
    let answer = Peer::new(&driver.socket).call(1, &call, &[]);
    // Service of the controller: 1.
    assert!(!answer.messages.windows(4).any(|part| part == [0x0a, 0x02, 0x08, 0x01]));
    driver.end();
    let mut command = place.command();
    command.args(["--csi-role", "node"]).env("CSI_ENDPOINT", "tcp://1.2.3.4:5");
    let done = command.stderr(Stdio::piped()).output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(2) && err.contains("CSI_ENDPOINT"), "{err}");
}

#[test]
fn the_end_answers_what_is_under_way_and_waits_for_no_idle_client() {
    let place = Place::new();
    let driver = Driver::start(&place);
    let mut idle = Peer::new(&driver.socket);
    assert!(idle.call(1, &head(INFO, &plain("/x")), &[]).says(NAME));
    let _silent = Peer::silent(&driver.socket);
    let mut slow = Peer::new(&driver.socket);
    assert!(slow.call(1, &head(INFO, &plain("/x")), &[]).says(NAME));
    slow.write(&frame(HEADERS, END_HEADERS, 3, &head(INFO, &plain("/x")))).unwrap();
    thread::sleep(Duration::from_millis(200));
    driver.signal(Signal::TERM);
    until("the end of listening", || !driver.socket.exists());
    slow.write(&frame(DATA, END_STREAM, 3, &message(&[]))).unwrap();
    assert!(slow.answer(3).expect("an answer").says(NAME));
    let mut driver = driver;
    until("the end", || driver.child.try_wait().unwrap().is_some());
    assert!(driver.child.wait().unwrap().success());
}

#[test]
fn a_socket_of_the_manager_is_served_and_stays() {
    let place = Place::new();
    let path = place.at("handed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=csi \
                  exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_lamina")]);
    let mut command = place.dress(shell);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    let driver = Driver::start_command(&mut command, path.clone());
    assert!(driver.answers());
    driver.end();
    assert!(path.exists(), "the file is the manager's");
}

/// A field of a message: a number and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

#[test]
fn a_secret_is_in_no_log() {
    const SECRET: &str = "dEep-sEcret-4711";
    let place = Place::new();
    let socket = place.at("csi.sock");
    let mut command = place.command();
    // Of all crates, with their frames.
    command.arg("--csi").arg(&socket).env("LAMINA_LOG", "trace");
    let driver = Driver::start_command(&mut command, socket);
    let entry = field(5, &[field(1, b"password"), field(2, SECRET.as_bytes())].concat());
    let create = [field(1, b"pvc-secret"), entry.clone()].concat();
    let mut stream = 1;
    let mut peer = Peer::new(&driver.socket);
    for (call, body) in [
        ("Controller/CreateVolume", create.as_slice()),
        ("Controller/CreateVolume", &create[..create.len() - 3]),
        ("Node/NodeStageVolume", &entry),
        ("Controller/Unknown", &create),
    ] {
        let block = head(&format!("/csi.v1.{call}"), &plain("/x"));
        let answer = peer.call(stream, &block, body);
        let all = [answer.messages, answer.blocks].concat();
        assert!(!all.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
        stream += 2;
    }
    driver.end();
    let log = fs::read_to_string(place.at("log")).unwrap();
    assert!(log.contains(": h2::codec::"), "the log has every level");
    assert!(!log.contains(SECRET), "the log has a secret");
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!log.contains(bytes.trim_matches(['[', ']'])), "the log has a secret as numbers");
}

#[test]
fn calls_are_counted_by_code() {
    let place = Place::new();
    let (socket, metrics) = (place.at("csi.sock"), place.at("metrics.sock"));
    let mut command = place.command();
    command.arg("--csi").arg(&socket).arg("--metrics").arg(format!("unix:{}", metrics.display()));
    let driver = Driver::start_command(&mut command, socket);
    let mut peer = Peer::new(&driver.socket);
    for stream in [1, 3] {
        assert!(peer.call(stream, &head(INFO, &plain("/x")), &[]).says(NAME));
    }
    peer.call(5, &head("/csi.v1.Identity/Nothing", &plain("/x")), &[]);
    let mut broken = Peer::new(&driver.socket);
    broken.write(&frame(HEADERS, END_HEADERS, 1, &head(INFO, &plain("/x")))).unwrap();
    broken.0.flush().unwrap();
    thread::sleep(Duration::from_millis(200));
    drop(broken);
    let lines = [
        r#"lamina_requests_total{front="csi",call="GetPluginInfo",result="ok"} 2"#,
        r#"lamina_requests_total{front="csi",call="GetPluginInfo",result="unavailable"} 1"#,
        r#"lamina_requests_total{front="csi",call="unknown",result="unimplemented"} 1"#,
        r#"lamina_request_seconds_count{front="csi",call="GetPluginInfo"} 3"#,
        r#"lamina_connections{front="csi"} 1"#,
    ];
    until("the counters", || {
        let text = Client::new(&metrics).get("/metrics").text();
        lines.iter().all(|line| text.contains(line))
    });
    driver.end();
}
