//! A client that writes HTTP by hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection, kept for several requests.
pub struct Client(Box<dyn Stream>);

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self(Box::new(stream))
    }

    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(Box::new(stream))
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Reads a reply; without one, `None`.
    pub fn read(&mut self) -> Option<Reply> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => head.push(byte[0]),
                // signal(7): a read with a time limit is not restarted after a stop.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; len.expect("a length").parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Some(Reply { code, head, body })
    }

    /// Sends a request as dockerd writes it: with an empty `Host:`.
    pub fn request(&mut self, path: &str, body: &str) -> Reply {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
            body.len()
        );
        self.write(format!("{head}{body}").as_bytes()).unwrap();
        self.read().expect("a reply")
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        self.read().expect("a reply")
    }

    /// Whether the plugin answers.
    pub fn activates(&mut self) -> bool {
        self.request("/Plugin.Activate", "").json() == json!({"Implements": ["VolumeDriver"]})
    }

    /// Calls the driver, and returns its reply.
    pub fn call(&mut self, call: &str, body: Value) -> Value {
        self.request(&format!("/VolumeDriver.{call}"), &format!("{body}\n")).json()
    }

    /// Calls the driver, which has to succeed.
    #[track_caller]
    pub fn ok(&mut self, call: &str, body: Value) -> Value {
        let reply = self.call(call, body);
        assert_eq!(reply["Err"], "", "{call}");
        reply
    }

    /// Calls the driver, which has to fail.
    #[track_caller]
    pub fn err(&mut self, call: &str, body: Value) -> String {
        let reply = self.call(call, body);
        let text = reply["Err"].as_str().unwrap().to_owned();
        assert!(!text.is_empty(), "{call}: {reply}");
        text
    }

    /// The names of the volumes.
    pub fn names(&mut self) -> Vec<String> {
        let list = self.ok("List", json!({}));
        let all = list["Volumes"].as_array().unwrap().iter();
        all.map(|volume| volume["Name"].as_str().unwrap().to_owned()).collect()
    }
}
