//! Pulls from a small registry: which operations wait for each other.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use laminafs::service::images::Images;
use laminafs::service::pull::{Access, AccessOptions, Pull, Reference, pull};
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}

type Documents = Arc<HashMap<String, Vec<u8>>>;

/// Serves documents by the end of their address; one of them waits for a signal.
fn serve(documents: Documents, waits: &str, go: mpsc::Receiver<()>) -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (go, asked) = (Arc::new(Mutex::new(go)), Arc::new(Mutex::new(0)));
    let (waits, counter) = (waits.to_owned(), Arc::clone(&asked));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (documents, go) = (Arc::clone(&documents), Arc::clone(&go));
            let (waits, asked) = (waits.clone(), Arc::clone(&counter));
            std::thread::spawn(move || {
                answer(stream.unwrap(), &documents, |name| {
                    if name == waits {
                        *asked.lock().unwrap() += 1;
                        go.lock().unwrap().recv().unwrap();
                    }
                })
            });
        }
    });
    (host, asked)
}

fn answer(mut stream: TcpStream, documents: &Documents, before: impl Fn(&str)) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
        if head[0] == 0x16 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let name = head.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    before(name);
    let (status, body) = match documents.get(name) {
        Some(body) => ("200 OK", &body[..]),
        None => ("404 Not Found", &b""[..]),
    };
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap_or_default();
}

/// An image with these layers. Returns its documents by name, with the manifest as `1`.
fn image(layers: &[Vec<u8>]) -> HashMap<String, Vec<u8>> {
    let ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let config = config.to_string().into_bytes();
    let descriptor = |bytes: &Vec<u8>| {
        serde_json::json!({
            "mediaType": "x", "digest": sha256(bytes), "size": bytes.len(),
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(&config),
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let blobs = layers.iter().cloned().chain([config]);
    let mut all: HashMap<_, _> = blobs.map(|bytes| (sha256(&bytes), bytes)).collect();
    all.insert("1".to_owned(), manifest.to_string().into_bytes());
    all
}

fn tar(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &b"hello"[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_collection_does_not_wait_for_a_slow_registry() {
    let dir = tempfile::tempdir().unwrap();
    let (first, slow) = (tar("a"), tar("b"));
    let waits = sha256(&slow);
    let (tell, go) = mpsc::channel();
    let layers = [first, slow, Vec::new()];
    let (host, asked) = serve(Arc::new(image(&layers)), &waits, go);
    let root = dir.path().to_owned();
    let images = Images::open(&root).unwrap();
    std::thread::scope(|scope| {
        let pulled = scope.spawn(|| {
            let reference = Reference::parse(&format!("{host}/x:1")).unwrap();
            let access = Access::find(&reference, AccessOptions::default()).unwrap();
            let request = Pull { reference, names: vec!["x".to_owned()], access, lazy: None };
            pull(&images, &root, &request, &mut |_| ())
        });
        while *asked.lock().unwrap() == 0 {
            assert!(!pulled.is_finished());
            std::thread::yield_now();
        }
        let other = Images::open(&root).unwrap();
        let (done, collected) = mpsc::channel();
        scope.spawn(move || done.send(other.collect()).unwrap());
        let collected = collected.recv_timeout(Duration::from_secs(20));
        tell.send(()).unwrap();
        assert!(collected.expect("it did not wait").is_ok());
        pulled.join().unwrap().unwrap();
    });
    let found = images.inspect("x").unwrap();
    assert_eq!(found.rootfs.len(), 3, "one of them of no bytes");
    assert!(images.verify(None, &mut |_| {}).unwrap().is_empty());
}
