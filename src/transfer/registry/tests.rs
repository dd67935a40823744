//! The registry client against a small HTTP server with an answer function for each test.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::download::Transfer;
use super::testing::{has, response, serve};
use super::*;
use crate::types::Digest;

fn token_server(realm: &'static str) -> String {
    serve(move |host, head| {
        if head.starts_with("GET /token?service=s&scope=x ") {
            assert!(has(head, "authorization", "Basic dTpw"), "{head}");
            return response("200 OK", "", br#"{"token":"t1"}"#);
        }
        if has(head, "authorization", "Bearer t1") {
            return response("200 OK", "", b"it");
        }
        let realm = realm.replace("HOST", host);
        let wanted =
            format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"x\"\r\n");
        response("401 Unauthorized", &wanted, b"")
    })
}

fn connect(reference: &Reference, credentials: Option<Credentials>) -> Registry {
    Registry::connect(reference, credentials, &Connection::default()).unwrap()
}

#[test]
fn a_registry_that_is_busy_is_asked_again_when_it_says() {
    for (status, first) in [("429 Too Many Requests", 2), ("503 Service Unavailable", 1)] {
        let asked = AtomicUsize::new(0);
        let host = serve(move |_, head| {
            if head.contains("/manifests/") && asked.fetch_add(1, Ordering::Relaxed) < first {
                return response(status, "retry-after: 1\r\n", b"");
            }
            response("200 OK", "", b"it")
        });
        let reference = Reference::parse(&format!("{host}/a")).unwrap();
        let start = Instant::now();
        assert_eq!(connect(&reference, None).document("manifests/1").unwrap(), b"it");
        assert!(start.elapsed() >= Duration::from_secs(first as u64));
    }
    // Without a pause, or with one of hours, the client does not wait.
    for after in ["", "retry-after: 7200\r\n"] {
        let host = serve(move |_, _| response("503 Service Unavailable", after, b""));
        let reference = Reference::parse(&format!("{host}/a")).unwrap();
        let error = connect(&reference, None).document("manifests/1").unwrap_err().to_string();
        assert!(error.contains("503"), "{error}");
    }
}

#[test]
fn a_token_is_asked_for_with_the_password() {
    let host = token_server("http://HOST/token");
    let reference = Reference::parse(&format!("{host}/a")).unwrap();
    let registry = connect(&reference, Some(Credentials::of("u:p")));
    assert_eq!(registry.document("manifests/1").unwrap(), b"it");
}

#[test]
fn passwords_are_not_sent_in_the_clear() {
    for realm in ["http://example.org/token", "http://localhost@example.org/", "ftp://HOST/"] {
        let reference = Reference::parse(&format!("{}/a", token_server(realm))).unwrap();
        let registry = connect(&reference, Some(Credentials::of("u:p")));
        let error = registry.document("manifests/1").unwrap_err().to_string();
        assert!(error.contains("over HTTPS only"), "{error}");
    }
}

#[test]
fn documents_have_a_limit() {
    let host = serve(|_, _| response("200 OK", "", &vec![b' '; (DOCUMENT_MAX + 1) as usize]));
    let reference = Reference::parse(&format!("{host}/a")).unwrap();
    let error = connect(&reference, None).image().unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn a_cut_download_goes_on_with_and_without_ranges() {
    let blob: Arc<Vec<u8>> = Arc::new((0..300_000_u32).map(|n| (n / 7) as u8).collect());
    for ranges in [true, false] {
        let content = Arc::clone(&blob);
        let cut = AtomicBool::new(false);
        let host = serve(move |_, head| {
            if !head.contains("/blobs/") {
                return response("404 Not Found", "", b"");
            }
            if !cut.swap(true, Ordering::Relaxed) {
                let mut all = response("200 OK", "", &content);
                all.truncate(all.len() - 100_000);
                return all;
            }
            assert!(has(head, "range", "bytes=200000-"), "{head}");
            if !ranges {
                return response("200 OK", "", &content);
            }
            let range = "content-range: bytes 200000-299999/300000\r\n";
            response("206 Partial Content", range, &content[200_000..])
        });
        let reference = Reference::parse(&format!("{host}/a")).unwrap();
        let registry = connect(&reference, None);
        let dir = tempfile::tempdir().unwrap();
        let (ended, sum) = (AtomicBool::new(false), Mutex::new(0));
        let progress = |bytes| *sum.lock() += bytes;
        let transfer =
            Transfer { registry: &registry, dir: dir.path(), ended: &ended, progress: &progress };
        let mut whole = Vec::new();
        let mut file = transfer.fetch(&Digest::sha256(&blob), blob.len() as u64).unwrap();
        file.read_to_end(&mut whole).unwrap();
        assert!(whole == *blob, "ranges: {ranges}");
        assert_eq!(*sum.lock(), 300_000);
    }
}

/// A registry that announces a length and then sends a byte now and then.
fn trickle(every: Duration) -> String {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
                if head[0] == 0x16 {
                    break;
                }
            }
            if head.starts_with(b"GET ") {
                std::thread::spawn(move || {
                    let mut left = response("200 OK", "", &[b' '; 50_000]).into_iter();
                    let first: Vec<u8> = left.by_ref().take(100).collect();
                    let mut sent = stream.write_all(&first);
                    while let (Ok(()), Some(byte)) = (&sent, left.next()) {
                        std::thread::sleep(every);
                        sent = stream.write_all(&[byte]);
                    }
                });
            }
        }
    });
    host
}

#[test]
fn a_registry_that_brings_nothing_is_given_up() {
    for every in [Duration::from_millis(5), Duration::from_secs(60)] {
        let reference = Reference::parse(&format!("{}/a", trickle(every))).unwrap();
        let connection =
            Connection { patience: Duration::from_millis(200), ..Connection::default() };
        let registry = Registry::connect(&reference, None, &connection).unwrap();
        let start = Instant::now();
        assert!(registry.document("manifests/1").is_err());
        assert!(registry.part(&Digest::sha256(b""), 0, &mut [0; 50_000]).is_err());
        let dir = tempfile::tempdir().unwrap();
        let ended = AtomicBool::new(false);
        let transfer =
            Transfer { registry: &registry, dir: dir.path(), ended: &ended, progress: &|_| () };
        let error = transfer.fetch(&Digest::sha256(b""), 50_000).unwrap_err().to_string();
        assert!(error.contains("bytes came in") || error.contains("timeout"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
