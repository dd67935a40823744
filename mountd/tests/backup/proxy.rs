//! A proxy in front of a server: it counts, and it can die in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub struct Counts {
    /// Bytes of clients to the server.
    pub sent: AtomicU64,
    /// Requests that write.
    pub puts: AtomicU64,
}

/// Serves until the process ends, or until clients sent `limit` bytes. Returns the port.
pub fn start(server: u16, limit: u64) -> (u16, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), true) = (client, shared.sent.load(Ordering::Acquire) < limit) else {
                continue;
            };
            let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            let (shared, ends) = (Arc::clone(&shared), [client, upstream]);
            let [client, upstream] = ends.each_ref().map(|end| end.try_clone().unwrap());
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(len @ 1..) = from.read(&mut buffer) {
                    let puts = buffer[..len].windows(5).filter(|part| part == b"PUT /").count();
                    shared.puts.fetch_add(puts as u64, Ordering::AcqRel);
                    if shared.sent.fetch_add(len as u64, Ordering::AcqRel) >= limit
                        || to.write_all(&buffer[..len]).is_err()
                    {
                        break;
                    }
                }
                for end in ends {
                    drop(end.shutdown(Shutdown::Both));
                }
            });
            std::thread::spawn(move || {
                let (mut from, mut to) = (upstream, client);
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            });
        }
    });
    (port, counts)
}
