//! Ports for servers of tests, which may end and start again at the same one.
//!
//! A port that the kernel hands out (port 0) is one that it may hand to a client next: while the
//! server is down, any connection of the host can take it. So these lie below the range of clients.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// How many ports below the range of clients are used.
const SPAN: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 on which nobody listens, and that nobody gets by chance. No two calls of a
/// process return the same one, and other processes begin elsewhere.
pub fn free() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let begin = u16::try_from(std::process::id() * 641 % u32::from(SPAN)).unwrap();
    let port = || {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        low - SPAN + (begin + next % SPAN) % SPAN
    };
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..SPAN).map(|_| port()).find(is_free).unwrap()
}
