//! A registry on a port of this machine: docker-registry, and its log of responses.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Background, Site};
use crate::proxy;

/// The access control of the registry.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Lines of the configuration below `http`, for TLS.
    pub tls: String,
    /// The file with the passwords.
    pub passwords: Option<String>,
}

/// A running registry over `registry` of the scratch directory.
pub struct Registry {
    /// Address and port.
    pub host: String,
    config: String,
    log: String,
    process: Background,
}

/// A response in the log of the registry.
#[derive(Debug)]
pub struct Answer {
    pub method: String,
    pub uri: String,
    pub bytes: u64,
}

impl Registry {
    /// Starts a registry on a free port, with a new log.
    pub fn start(site: &Site, access: &Access) -> Self {
        let host = format!("127.0.0.1:{}", proxy::free_port());
        let auth = access.passwords.as_ref().map_or(String::new(), |file| {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {file}\n")
        });
        let config = format!(
            "version: 0.1\nlog:\n  formatter: json\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{}\n{auth}",
            site.at("registry"),
            access.tls
        );
        let config = site.write("registry.yml", config);
        let log = site.write("registry.log", "");
        let process = serve(&config, &log, &host);
        Self { host, config, log, process }
    }

    /// Stops the registry.
    pub fn stop(&mut self) {
        self.process.end(Signal::TERM);
    }

    /// Starts the registry again on the same port.
    pub fn restart(&mut self) {
        self.process = serve(&self.config, &self.log, &self.host);
    }

    /// The number of lines in the log.
    pub fn log_lines(&self) -> usize {
        fs::read_to_string(&self.log).expect("a log").lines().count()
    }

    /// The responses in the log after this many lines.
    pub fn answers(&self, since: usize) -> Vec<Answer> {
        let log = fs::read_to_string(&self.log).expect("a log");
        let entries = log.lines().skip(since).filter_map(|line| serde_json::from_str(line).ok());
        entries.filter_map(|entry: Value| answer(&entry)).collect()
    }

    /// The number of bytes of blobs sent since then, and the number of responses.
    pub fn sent(&self, since: usize) -> (u64, usize) {
        let answers = self.answers(since);
        let sent: Vec<u64> = answers
            .iter()
            .filter(|answer| answer.method == "GET" && answer.uri.contains("/blobs/"))
            .map(|answer| answer.bytes)
            .collect();
        (sent.iter().sum(), sent.len())
    }
}

fn serve(config: &str, log: &str, host: &str) -> Background {
    let mut command = Command::new("docker-registry");
    let process = Background::start(command.args(["serve", config]), Path::new(log));
    assert!(proxy::wait_for(host), "docker-registry does not listen on {host}");
    process
}

fn answer(entry: &Value) -> Option<Answer> {
    let text = |key: &str| Some(entry[key].as_str()?.to_owned());
    // Other lines of a request have no number of bytes.
    let bytes = entry["http.response.written"].as_u64()?;
    Some(Answer { method: text("http.request.method")?, uri: text("http.request.uri")?, bytes })
}
