//! An HTTP proxy on this machine that resolves one name and supports CONNECT.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness;

type Requests = Arc<Mutex<Vec<Request>>>;

/// A request of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Method and target.
    pub line: String,
    /// The header `Proxy-Authorization`.
    pub authorization: String,
}

/// A proxy, which serves until the scenario ends.
pub struct Proxy {
    pub address: String,
    requests: Requests,
}

impl Proxy {
    /// Starts a proxy that resolves `name` to this machine.
    pub fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Requests::default();
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let requests = Arc::clone(&kept);
                std::thread::spawn(move || {
                    if let Err(error) = serve(client, name, &requests) {
                        println!("  the proxy: {error}");
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no thread of the proxy panics").clone()
    }
}

fn serve(mut client: TcpStream, name: &str, requests: &Requests) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut request = Request::default();
    for (number, line) in head.lines().enumerate() {
        if number == 0 {
            request.line = line.rsplit_once(' ').map_or(line, |(line, _)| line).to_owned();
        }
        if let Some((key, value)) = line.split_once(": ")
            && key.eq_ignore_ascii_case("proxy-authorization")
        {
            value.clone_into(&mut request.authorization);
        }
    }
    let place = request.line.strip_prefix("CONNECT ").and_then(|place| place.rsplit_once(':'));
    let port = place.filter(|(host, _)| *host == name).map(|(_, port)| port.to_owned());
    requests.lock().expect("no thread of the proxy panics").push(request);
    let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    };
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let back = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || pump(back.0, back.1));
    pump(client, server);
    Ok(())
}

/// Copies until one side closes, and then closes the other.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    let ended = io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write));
    if let Err(error) = ended {
        println!("  the proxy: a connection ended: {error}");
    }
}

/// A port of this machine that is currently free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Whether a server listens on the port.
pub fn answers(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Waits until a server listens on the port.
pub fn wait_for(address: &str) -> bool {
    harness::until(std::time::Duration::from_secs(20), || answers(address))
}
