//! A small HTTP server with an answer function for each test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Answers each request, given in lower case, with the result of `answer`.
pub(crate) fn serve(answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let own = host.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
                // The start of a TLS handshake, which this server does not support.
                if head[0] == 0x16 {
                    break;
                }
            }
            if head.starts_with(b"GET ") {
                let head = String::from_utf8(head).unwrap();
                stream.write_all(&answer(&own, &head)).unwrap();
            }
        }
    });
    host
}

pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {len}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

pub(crate) fn has(head: &str, header: &str, value: &str) -> bool {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .any(|(name, found)| name.eq_ignore_ascii_case(header) && found == value)
}
