//! A client that writes HTTPS by hand, with the certificate of a kubeconfig.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

const LIMIT: Duration = Duration::from_secs(20);

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection, kept for several requests.
pub struct Client(pub Stream);

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub body: String,
    /// The texts of the `Warning` lines.
    pub warnings: Vec<String>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    pub fn is(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        self.json()
    }
}

fn field<'a>(config: &'a str, name: &str) -> &'a str {
    let line = config.lines().find_map(|line| line.trim().strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().trim_matches('"')
}

fn pem(config: &str, name: &str) -> Vec<u8> {
    STANDARD.decode(field(config, name)).unwrap()
}

/// Connects with the certificate of a kubeconfig, or without one.
pub fn connect(config: &str, has_certificate: bool) -> io::Result<Stream> {
    let address: SocketAddr =
        field(config, "server").trim_start_matches("https://").parse().unwrap();
    let mut roots = RootCertStore::empty();
    let authority = pem(config, "certificate-authority-data");
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let tls = if has_certificate {
        let certificate = pem(config, "client-certificate-data");
        let certificate = CertificateDer::from_pem_slice(&certificate).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem(config, "client-key-data")).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let name = ServerName::from(address.ip());
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(tls), name).unwrap(), stream))
}

impl Client {
    pub fn try_new(config: &str) -> Option<Self> {
        connect(config, true).ok().map(Self)
    }

    pub fn is_ready(&mut self) -> bool {
        let asked = self.0.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.is_ok() && self.try_head().is_ok_and(|head| head.starts_with("HTTP/1.1 200"))
    }

    /// Reads the head of an answer.
    pub fn try_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8(head).unwrap())
    }

    /// Writes a request with its head lines.
    pub fn ask(&mut self, method: &str, path: &str, lines: &[&str], body: &str) {
        self.try_ask(method, path, lines, body).unwrap();
    }

    fn try_ask(&mut self, method: &str, path: &str, lines: &[&str], body: &str) -> io::Result<()> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let len = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n{lines}\r\n{body}"
        );
        self.0.write_all(text.as_bytes())
    }

    pub fn request(&mut self, method: &str, path: &str, lines: &[&str], body: &str) -> Reply {
        self.ask(method, path, lines, body);
        self.reply()
    }

    /// Sends a request to a daemon that may end before it answers.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        lines: &[&str],
        body: &str,
    ) -> io::Result<Reply> {
        self.try_ask(method, path, lines, body)?;
        self.try_reply()
    }

    /// Reads an answer of a known length.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap()
    }

    fn try_reply(&mut self) -> io::Result<Reply> {
        let head = self.try_head()?;
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let warnings = head.lines().filter_map(|line| line.strip_prefix("warning: 299 - "));
        let unquoted = |text: &str| text[1..text.len() - 1].replace("\\\"", "\"");
        let warnings = warnings.map(unquoted).collect();
        let len = head.to_lowercase();
        let len = len.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; len.unwrap().trim().parse().unwrap()];
        self.0.read_exact(&mut body)?;
        Ok(Reply { code, body: String::from_utf8(body).unwrap(), warnings })
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[], "")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &["Content-Type: application/json"], &body.to_string())
    }

    pub fn put(&mut self, path: &str, body: &Value) -> Reply {
        self.request("PUT", path, &["Content-Type: application/json"], &body.to_string())
    }

    pub fn delete(&mut self, path: &str) -> Reply {
        self.request("DELETE", path, &[], "")
    }

    /// Starts a watch; the code and the head of the answer.
    pub fn watch(&mut self, path: &str) -> (u16, String) {
        self.ask("GET", path, &[], "");
        let head = self.try_head().unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    /// The next event of a watch: a line, in one or several chunks.
    pub fn event(&mut self, rest: &mut String) -> Option<(String, Value)> {
        while !rest.contains('\n') {
            rest.push_str(&self.chunk()?);
        }
        let (line, after) = rest.split_once('\n').unwrap();
        let event: Value = serde_json::from_str(line).unwrap();
        *rest = after.to_owned();
        Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()))
    }

    fn chunk(&mut self) -> Option<String> {
        let mut size = Vec::new();
        let mut byte = [0];
        while !size.ends_with(b"\r\n") {
            self.0.read_exact(&mut byte).ok()?;
            size.push(byte[0]);
        }
        let len = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; len + 2];
        self.0.read_exact(&mut chunk).ok()?;
        (len > 0).then(|| String::from_utf8(chunk[..len].to_vec()).unwrap())
    }
}

/// A configuration map.
pub fn map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"key": value},
    })
}

/// The path of configuration maps.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
