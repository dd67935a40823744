//! Monitoring.

use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::daemon::{Place, mode};
use crate::until::until;

/// The value of a line of metrics.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[test]
fn metrics_show_requests_and_volumes() {
    let place = Place::new();
    place.config("[limits]\nusage_seconds = 1\n");
    let socket = place.at("plugins/metrics.sock");
    let docker = place.at("plugins/lamina.sock");
    let mut command = place.command();
    command.arg("--docker").arg(docker);
    let mut daemon =
        place.start_command(command.arg("--metrics").arg(format!("unix:{}", socket.display())));
    let mut client = daemon.client();
    client.ok("Create", json!({"Name": "a"}));
    client.err("Create", json!({"Name": ".."}));
    let mounted = client.ok("Mount", json!({"Name": "a", "ID": "1"}));
    let file = format!("{}/file", mounted["Mountpoint"].as_str().unwrap());
    std::fs::write(file, vec![1; 1 << 20]).unwrap();
    assert_eq!(mode(&socket), 0o600);
    let mut monitor = Client::new(&socket);
    assert_eq!(monitor.get("/healthz").text(), "ok\n");
    let reply = monitor.get("/metrics");
    assert!(reply.head.contains("content-type: application/openmetrics-text"), "{reply:?}");
    let text = reply.text();
    let created = |result: &str| {
        let name = "lamina_requests_total{front=\"docker\",call=\"Create\",result";
        value(&text, &format!("{name}=\"{result}\"}}"))
    };
    assert_eq!((created("ok"), created("error")), (Some(1.0), Some(1.0)), "{text}");
    let count = "lamina_request_seconds_count{front=\"docker\",call=\"Mount\"}";
    assert_eq!(value(&text, count), Some(1.0), "{text}");
    assert_eq!(value(&text, "lamina_volumes{driver=\"local\"}"), Some(1.0), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let used = "lamina_volume_used_bytes{volume=\"a\",driver=\"local\"}";
    until("a measurement", || {
        value(&monitor.get("/metrics").text(), used).is_some_and(|used| used >= 1_048_576.0)
    });
    let got = client.ok("Get", json!({"Name": "a"}));
    assert!(got["Volume"]["Status"]["UsedBytes"].as_u64().unwrap() >= 1 << 20, "{got}");
    assert_eq!(monitor.get("/other").code, 404);
    assert_eq!(monitor.request("/metrics", "").code, 405);
    daemon.end();
    assert!(!socket.exists());
}

#[test]
fn metrics_alone_start_no_plugin() {
    let place = Place::new();
    place.config(&format!("docker = \"{}\"\n", place.at("plugins/lamina.sock").display()));
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let mut child = place.command().args(["--metrics", &address.to_string()]).spawn().unwrap();
    until("the start", || std::net::TcpStream::connect(address).is_ok());
    let mut client = Client::tcp(address);
    assert_eq!(client.get("/healthz").text(), "ok\n");
    assert!(!place.at("plugins").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The names of metrics in a text of a dashboard: what is asked for, without the endings that a
/// histogram has.
fn asked(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("lamina_"))
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let place = Place::new();
    place.config("[limits]\nusage_seconds = 1\n");
    let socket = place.at("plugins/metrics.sock");
    let mut command = place.command();
    command.arg("--docker").arg(place.at("plugins/lamina.sock"));
    command.arg("--metrics").arg(format!("unix:{}", socket.display()));
    let mut daemon = place.start_command(&mut command);
    let limits = json!({"size": "16m", "inodes": "100", "driver": "union"});
    daemon.client().ok("Create", json!({"Name": "a", "Opts": limits}));
    daemon.signal(Signal::HUP);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/grafana/lamina.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut wanted: Vec<String> = Vec::new();
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            wanted.extend(asked(target["expr"].as_str().unwrap()).map(str::to_owned));
        }
    }
    let query = dashboard["templating"]["list"][1]["query"].as_str().unwrap();
    wanted.extend(asked(query).map(str::to_owned));
    assert!(wanted.len() > panels.len(), "{wanted:?}");
    let mut monitor = Client::new(&socket);
    until("all metrics of the dashboard", || {
        let text = monitor.get("/metrics").text();
        let shown = |name: &String| {
            text.lines().any(|line| {
                line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
        };
        wanted.retain(|name| !shown(name));
        wanted.is_empty()
    });
    daemon.end();
}
