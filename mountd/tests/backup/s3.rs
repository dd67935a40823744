//! A real server of S3 on loopback: moto, as scripts/deps installs it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::port;
use crate::tools::tool;

pub struct Server {
    child: Child,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Starts a server with the bucket `bucket`; nothing where it is not installed.
    pub fn start() -> Option<Self> {
        let program = tool("python/bin/moto_server")?;
        let port = port::free();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let begun = Instant::now();
        while !server.has_bucket() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn has_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = b"PUT /bucket HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
            Connection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }
}

/// The variables with which a command reaches a server.
pub fn use_port(place: &mut Place, port: u16) {
    place.variables = [
        ("AWS_ACCESS_KEY_ID", "lamina".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
}
