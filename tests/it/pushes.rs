//! Pushes to a small registry: blobs that it has are neither made nor sent again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use laminafs::service::export::{Form, LayerCompression};
use laminafs::service::images::Images;
use laminafs::service::import::{Progress, import};
use laminafs::service::pull::{Access, AccessOptions, Pull, Reference, pull};
use laminafs::service::push::{Push, push};

type Blobs = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A registry in memory. Returns its host, and its content by digest and tag.
fn serve() -> (String, Blobs) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let blobs = Blobs::default();
    let held = Arc::clone(&blobs);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let held = Arc::clone(&held);
            std::thread::spawn(move || answer(stream.unwrap(), &held).unwrap_or_default());
        }
    });
    (host, blobs)
}

fn answer(mut stream: TcpStream, held: &Blobs) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let (mut request, mut len) = (String::new(), 0);
    from.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? <= 2 {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            len = text.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    let mut words = request.split_whitespace();
    let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name = path.split("digest=").last().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let mut held = held.lock().unwrap();
    let (status, header, body) = match (verb, held.get(&name)) {
        ("POST", _) => ("202 Accepted", "location: /v2/x/blobs/uploads/1\r\n", Vec::new()),
        ("PUT", _) => {
            held.insert(name, body);
            ("201 Created", "", Vec::new())
        }
        (_, Some(found)) => ("200 OK", "", found.clone()),
        _ => ("404 Not Found", "", Vec::new()),
    };
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{header}content-length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if verb == "HEAD" { Ok(()) } else { stream.write_all(&body) }
}

fn tar(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", content).unwrap();
    tar.into_inner().unwrap()
}

/// Pushes an image. Returns how many layers were made, and how many were already there.
fn pushed(images: &Images, host: &str, form: Form) -> (usize, usize) {
    let reference = Reference::parse(&format!("{host}/x:1")).unwrap();
    let access = Access::find(&reference, AccessOptions::default()).unwrap();
    let on_sent = std::rc::Rc::new(|_| ());
    let request = Push { name: "app".to_owned(), reference, form, access, on_sent };
    let (mut made, mut kept) = (0, 0);
    let mut told = |step: &Progress| match step {
        Progress::Layer { .. } => made += 1,
        Progress::Kept { .. } => kept += 1,
        _ => {}
    };
    push(images, &request, &mut told).unwrap();
    (made, kept)
}

fn imported(root: &Path) -> Images {
    let images = Images::open(root).unwrap();
    let path = root.join("layer.tar");
    std::fs::write(&path, tar(&[b'x'; 300_000])).unwrap();
    import(&images, &path, &["app".to_owned()], &mut |_| ()).unwrap();
    images
}

#[test]
fn a_push_of_what_is_there_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = imported(dir.path());
    let (host, held) = serve();
    let forms = [LayerCompression::Gzip, LayerCompression::Zstd, LayerCompression::None];
    for form in forms.map(Form::Oci).into_iter().chain([Form::Native]) {
        assert_eq!(pushed(&images, &host, form), (1, 0), "{form:?}");
        let before = held.lock().unwrap().clone();
        assert_eq!(pushed(&images, &host, form), (0, 1), "{form:?}");
        assert_eq!(*held.lock().unwrap(), before, "the same image");
        // A blob that the registry lost is made and sent again.
        let manifest = before["1"].clone();
        held.lock().unwrap().clear();
        assert_eq!(pushed(&images, &host, form), (1, 0), "{form:?}");
        assert_eq!(held.lock().unwrap()["1"], manifest);
    }
    let kept = || std::fs::read_dir(dir.path().join("packed")).unwrap().count();
    assert_eq!(kept(), 4);
    images.remove("app").unwrap();
    images.collect().unwrap();
    assert_eq!(kept(), 0);
}

#[test]
fn what_was_pulled_is_pushed_as_it_came() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let images = imported(dirs[0].path());
    let (host, held) = serve();
    pushed(&images, &host, Form::Oci(LayerCompression::Gzip));
    let other = Images::open(dirs[1].path()).unwrap();
    let reference = Reference::parse(&format!("{host}/x:1")).unwrap();
    let access = Access::find(&reference, AccessOptions::default()).unwrap();
    let names = vec!["app".to_owned()];
    let request = Pull { reference, names, access, lazy: None };
    pull(&other, dirs[1].path(), &request, &mut |_| ()).unwrap();
    assert_eq!(pushed(&other, &host, Form::Oci(LayerCompression::Gzip)), (0, 1));
    assert_eq!(pushed(&other, &host, Form::Oci(LayerCompression::Zstd)), (1, 0));
    assert!(held.lock().unwrap().len() >= 4);
}
