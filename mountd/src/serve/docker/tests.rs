//! The volume plugin over volumes that hang and break.

use std::path::PathBuf;
use std::sync::Condvar;

use laminafs::service::CatalogError;
use laminafs::service::volumes::{Usage, VolumeService};
use serde_json::{Value, json};

use super::*;
use crate::serve::volumes::Volume;

/// Volumes of a directory. Changes of a volume whose name begins with `hang` wait for a release.
struct Faulty {
    inner: VolumeService,
    is_broken: Mutex<bool>,
    released: (Mutex<bool>, Condvar),
    /// The calls that changed something, in their order.
    log: Mutex<Vec<String>>,
}

impl Faulty {
    fn pass(&self, call: &str, name: &VolumeName) {
        if name.as_str().starts_with("hang") {
            let released = self.released.0.lock().unwrap();
            drop(self.released.1.wait_while(released, |released| !*released).unwrap());
        }
        self.log.lock().unwrap().push(format!("{call} {name}"));
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Volumes for Faulty {
    fn create(&self, new: NewVolume) -> Result<Volume, Refusal> {
        let driver = new.driver.as_deref().unwrap_or("default");
        self.pass(&format!("create {driver} {:?}", new.options), &new.name);
        self.inner.create(NewVolume { driver: None, options: Default::default(), ..new })
    }

    fn inspect(&self, name: &VolumeName) -> Result<Volume, Refusal> {
        if *self.is_broken.lock().unwrap() {
            let what = "unreadable".to_owned();
            return Err(CatalogError::Damaged { path: "/catalogue".into(), what }.into());
        }
        self.inner.inspect(name)
    }

    fn list(&self) -> Result<Vec<Volume>, Refusal> {
        self.inner.list()
    }

    fn remove(&self, name: &VolumeName) -> Result<(), Refusal> {
        self.pass("remove", name);
        Volumes::remove(&self.inner, name)
    }

    fn publish(&self, name: &VolumeName, holder: &str) -> Result<PathBuf, Refusal> {
        self.pass(&format!("publish {holder}"), name);
        Ok(self.inner.inspect(name)?.mountpoint)
    }

    fn unpublish(&self, name: &VolumeName, holder: &str) -> Result<(), Refusal> {
        self.pass(&format!("unpublish {holder}"), name);
        Ok(())
    }

    fn usage(&self, name: &VolumeName) -> Result<Usage, Refusal> {
        self.inner.usage(name)
    }
}

struct Plugin {
    docker: Docker,
    volumes: Arc<Faulty>,
    _root: tempfile::TempDir,
}

/// Long enough for a call that does not hang.
const WAIT: Duration = Duration::from_secs(20);

impl Plugin {
    /// With these limits for changes that hang.
    fn new(limit_ms: u64, unclaimed_ms: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let volumes = Arc::new(Faulty {
            inner: VolumeService::open(root.path()).unwrap(),
            is_broken: Mutex::default(),
            released: Default::default(),
            log: Mutex::default(),
        });
        let calls = Calls::new(4, 8);
        let metrics = Metrics::new(Arc::clone(&calls));
        let limit = Duration::from_millis(limit_ms);
        let unclaimed = Duration::from_millis(unclaimed_ms);
        let patience = Patience { long: limit, short: limit, record: WAIT, unclaimed };
        let docker = Docker::new(Arc::clone(&volumes) as _, calls, metrics, patience);
        Self { docker, volumes, _root: root }
    }

    async fn ask(&self, path: &str, body: &Value) -> Answer {
        let body = format!("{body}\n");
        self.docker.answer(path.parse().unwrap(), body.as_bytes()).await
    }

    /// The reply of a call that replies.
    async fn call(&self, call: &str, body: Value) -> Value {
        let answer = self.ask(&format!("/VolumeDriver.{call}"), &body).await;
        assert!(answer.outcome != Counted::Silence, "{call} has no reply");
        let reply: Value = serde_json::from_slice(&answer.body).unwrap();
        let is_error = !reply["Err"].as_str().unwrap_or_default().is_empty();
        assert_eq!(is_error, answer.code != StatusCode::OK, "{reply}");
        reply
    }

    async fn err(&self, call: &str, body: Value) -> String {
        self.call(call, body).await["Err"].as_str().unwrap().to_owned()
    }

    async fn until(&self, wanted: &[&str]) {
        let deadline = Instant::now() + WAIT;
        while self.volumes.log() != wanted {
            assert!(Instant::now() < deadline, "{:?}, not {wanted:?}", self.volumes.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_volume_lives_as_docker_expects() {
    let plugin = Plugin::new(20_000, 20_000);
    assert_eq!(plugin.err("Get", json!({"Name": "a"})).await, "volume \"a\" does not exist");
    let opts = json!({"driver": "image", "size": "1G"});
    assert_eq!(plugin.err("Create", json!({"Name": "a", "Opts": opts})).await, "");
    assert_eq!(plugin.err("Create", json!({"Name": "a", "Opts": null})).await, "");
    let got = plugin.call("Get", json!({"Name": "a"})).await;
    let place = got["Volume"]["Mountpoint"].as_str().unwrap();
    assert!(place.ends_with("/volumes/a/_data"), "{got}");
    assert!(got["Volume"]["CreatedAt"].as_str().unwrap().ends_with('Z'), "{got}");
    assert!(got["Volume"]["Status"]["Driver"].is_string(), "{got}");
    let mounted = plugin.call("Mount", json!({"Name": "a", "ID": "1"})).await;
    assert_eq!(mounted["Mountpoint"], place);
    assert_eq!(plugin.call("Path", json!({"Name": "a"})).await["Mountpoint"], place);
    let list = plugin.call("List", json!({})).await;
    assert_eq!(list["Volumes"], json!([{"Name": "a", "Mountpoint": place}]));
    assert_eq!(plugin.err("Unmount", json!({"Name": "a", "ID": "1"})).await, "");
    assert_eq!(plugin.err("Remove", json!({"Name": "a"})).await, "");
    let sized = json!({"Name": "b", "Opts": {"size": "1G"}});
    assert_eq!(plugin.err("Create", sized).await, "");
    assert_eq!(plugin.err("Remove", json!({"Name": "b"})).await, "");
    assert_eq!(plugin.call("List", json!({})).await["Volumes"], json!([]));
    let log = [
        "create image {\"size\": \"1G\"} a",
        "create default {} a",
        "publish 1 a",
        "unpublish 1 a",
        "remove a",
        "create image {\"size\": \"1G\"} b",
        "remove b",
    ];
    assert_eq!(plugin.volumes.log(), log);
}

#[tokio::test]
async fn bad_names_and_ids_are_refused_by_every_call() {
    let plugin = Plugin::new(20_000, 20_000);
    for call in ["Create", "Remove", "Mount", "Unmount", "Path", "Get"] {
        for name in ["bad/name", "..", ".hidden", "a\n", &"x".repeat(129)] {
            let err = plugin.err(call, json!({"Name": name, "ID": "1"})).await;
            assert!(err.starts_with("invalid volume name "), "{call} {name:?}: {err}");
        }
    }
    for call in ["Mount", "Unmount"] {
        assert_eq!(plugin.err(call, json!({"Name": "a"})).await, "the request has no ID");
        let long = json!({"Name": "a", "ID": "x".repeat(300)});
        assert!(plugin.err(call, long).await.contains("300 bytes"));
    }
    let answer = plugin.docker.answer(Endpoint::Create, b"{").await;
    assert_eq!(answer.code, StatusCode::BAD_REQUEST);
    // The bodies of these are not read.
    for endpoint in [Endpoint::Activate, Endpoint::Capabilities, Endpoint::List] {
        assert_eq!(plugin.docker.answer(endpoint, b"{").await.code, StatusCode::OK);
    }
    assert_eq!(plugin.volumes.log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_get_without_its_body_has_no_reply() {
    let plugin = Plugin::new(20_000, 20_000);
    for body in [&b""[..], b"\n", b"{}", b"{", b"{\"Name\":\"\"}", b"{\"Name\":1}"] {
        let answer = plugin.docker.answer(Endpoint::Get, body).await;
        assert!(answer.outcome == Counted::Silence, "{}", body.escape_ascii());
    }
    for call in ["Create", "Remove", "Mount", "Unmount", "Path"] {
        assert!(plugin.err(call, json!({})).await.contains("names no volume"), "{call}");
    }
}

#[tokio::test]
async fn records_that_cannot_be_read_have_no_reply() {
    let plugin = Plugin::new(20_000, 20_000);
    plugin.call("Create", json!({"Name": "a"})).await;
    *plugin.volumes.is_broken.lock().unwrap() = true;
    let answer = plugin.ask("/VolumeDriver.Get", &json!({"Name": "a"})).await;
    assert!(answer.outcome == Counted::Silence && answer.body.is_empty());
    assert!(plugin.err("Path", json!({"Name": "a"})).await.contains("unreadable"));
    *plugin.volumes.is_broken.lock().unwrap() = false;
    assert_eq!(plugin.err("Get", json!({"Name": "a"})).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_hangs_delays_no_other_and_a_retry_finds_its_result() {
    let plugin = Plugin::new(100, 20_000);
    let err = plugin.err("Create", json!({"Name": "hang"})).await;
    assert_eq!(err, "volume \"hang\": not done within 0 s");
    let start = Instant::now();
    assert_eq!(plugin.err("Create", json!({"Name": "b"})).await, "");
    plugin.call("Get", json!({"Name": "b"})).await;
    plugin.call("List", json!({})).await;
    // It is not there yet.
    assert!(plugin.err("Get", json!({"Name": "hang"})).await.contains("does not exist"));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // A removal that is reported as failed does not happen later.
    assert!(plugin.err("Remove", json!({"Name": "hang"})).await.contains("not done within"));
    plugin.volumes.release();
    assert_eq!(plugin.err("Create", json!({"Name": "hang"})).await, "");
    assert_eq!(plugin.err("Get", json!({"Name": "hang"})).await, "");
    assert!(!plugin.volumes.log().iter().any(|call| call.starts_with("remove")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_without_a_client_is_undone_unless_its_id_comes_again() {
    let plugin = Plugin::new(50, 200);
    plugin.volumes.inner.create(new("hang")).unwrap();
    for id in ["1", "2"] {
        let err = plugin.err("Mount", json!({"Name": "hang", "ID": id})).await;
        assert!(err.contains("not done within"), "{err}");
    }
    plugin.volumes.release();
    // The second one never ran; the first one is undone.
    plugin.until(&["publish 1 hang", "unpublish 1 hang"]).await;

    let plugin = Plugin::new(50, 200);
    plugin.volumes.inner.create(new("hang")).unwrap();
    plugin.err("Mount", json!({"Name": "hang", "ID": "1"})).await;
    plugin.volumes.release();
    plugin.until(&["publish 1 hang"]).await;
    assert_eq!(plugin.err("Mount", json!({"Name": "hang", "ID": "1"})).await, "");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(plugin.volumes.log(), ["publish 1 hang", "publish 1 hang"]);
}

fn new(name: &str) -> NewVolume {
    NewVolume {
        name: name.parse().unwrap(),
        driver: None,
        options: Default::default(),
        labels: Default::default(),
    }
}
