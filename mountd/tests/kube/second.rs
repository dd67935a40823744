//! The crate `kube` as a second client: what programs in Rust do with the API.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Error};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Place, WAIT, free_address};

const MEBIBYTE: usize = 1 << 20;
/// Changes beyond this many bytes are forgotten.
const LOG_BYTES: usize = 64 * MEBIBYTE;

async fn client(daemon: &Daemon) -> Client {
    let config = Kubeconfig::from_yaml(&daemon.config).unwrap();
    let options = KubeConfigOptions::default();
    Client::try_from(Config::from_custom_kubeconfig(config, &options).await.unwrap()).unwrap()
}

/// What the server says of a request that it refuses.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Box<Status> {
    match result {
        Err(Error::Api(status)) => status,
        other => panic!("{other:?}"),
    }
}

fn volume(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"tier": name}},
        "spec": {
            "storageClassName": "manual",
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/none"},
        },
    })
}

fn claim(name: &str) -> PersistentVolumeClaim {
    let spec = json!({
        "storageClassName": "manual",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "500Mi"}},
    });
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn map(name: &str, len: usize) -> ConfigMap {
    let data = json!({"key": "x".repeat(len)});
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_objects_are_made_listed_in_pages_and_bound() {
    let place = Place::new();
    let daemon = place.start();
    let client = client(&daemon).await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for name in ["a", "b", "c"] {
        let volume = serde_json::from_value(volume(name)).unwrap();
        volumes.create(&PostParams::default(), &volume).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(2);
    loop {
        let list = volumes.list(&page).await.unwrap();
        assert!(list.items.len() <= 2);
        names.extend(list.items.into_iter().filter_map(|one| one.metadata.name));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(2).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let one = volumes.list(&ListParams::default().labels("tier in (b)")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    claims.create(&PostParams::default(), &claim("c")).await.unwrap();
    let bound = kube::runtime::wait::await_condition(claims.clone(), "c", |claim: Option<&_>| {
        let status = claim.and_then(|claim: &PersistentVolumeClaim| claim.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    });
    let bound = tokio::time::timeout(WAIT, bound).await.unwrap().unwrap().unwrap();
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("a"));
    // Every kind of object that the daemon has parses as the type that it claims to be.
    Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    Api::<Event>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    Api::<StorageClass>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let metadata = volumes.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_keeps_what_others_own_and_says_who_they_are() {
    let place = Place::new();
    let daemon = place.start();
    let volumes: Api<PersistentVolume> = Api::all(client(&daemon).await);
    let (one, other) = (PatchParams::apply("one"), PatchParams::apply("other"));
    volumes.patch("a", &one, &Patch::Apply(&volume("a"))).await.unwrap();
    let mut wanted = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "spec": {"persistentVolumeReclaimPolicy": "Delete", "capacity": {"storage": "2Gi"}},
    });
    let status = refusal(volumes.patch("a", &other, &Patch::Apply(&wanted)).await);
    assert_eq!((status.code, &status.reason[..]), (409, "Conflict"));
    let text = "conflict with \"one\": .spec.capacity.storage";
    assert!(status.message.contains(text), "{status:?}");
    let causes = status.details.unwrap().causes;
    assert_eq!(causes[0].field, ".spec.capacity.storage", "{causes:?}");
    // Without the field of the conflict it goes; `one` applies again and takes nothing away.
    wanted["spec"]["capacity"] = json!(null);
    wanted["spec"].as_object_mut().unwrap().remove("capacity");
    volumes.patch("a", &other, &Patch::Apply(&wanted)).await.unwrap();
    let policy = |volume: PersistentVolume| {
        volume.spec.unwrap().persistent_volume_reclaim_policy.unwrap_or_default()
    };
    let again = volumes.patch("a", &one, &Patch::Apply(&volume("a"))).await.unwrap();
    assert_eq!(policy(again), "Delete");
    // By force the field changes its owner.
    wanted["spec"]["capacity"] = json!({"storage": "2Gi"});
    let forced = volumes.patch("a", &other.clone().force(), &Patch::Apply(&wanted)).await.unwrap();
    let managers = forced.metadata.managed_fields.clone().unwrap();
    let managers: Vec<_> = managers.into_iter().filter_map(|entry| entry.manager).collect();
    assert!(managers.contains(&"one".to_owned()) && managers.contains(&"other".to_owned()));
    let status = refusal(volumes.patch("a", &one, &Patch::Apply(&volume("a"))).await);
    assert!(status.message.contains("conflict with \"other\""), "{status:?}");
    // A dry run shows and stores nothing.
    let dry = other.force().dry_run();
    wanted["metadata"] = json!({"labels": {"dry": "run"}});
    let shown = volumes.patch("a", &dry, &Patch::Apply(&wanted)).await.unwrap();
    assert!(shown.metadata.labels.unwrap().contains_key("dry"));
    let stored = volumes.get("a").await.unwrap();
    assert!(!stored.metadata.labels.unwrap().contains_key("dry"));
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_replacements_and_deletions_hold_to_versions_and_ids() {
    let place = Place::new();
    let daemon = place.start();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&daemon).await);
    let made = maps.create(&PostParams::default(), &map("a", 1)).await.unwrap();
    let status = refusal(maps.create(&PostParams::default(), &map("a", 1)).await);
    assert_eq!((status.code, &status.reason[..]), (409, "AlreadyExists"));
    let merge = Patch::Merge(json!({"data": {"key": null, "other": "1"}}));
    let merged = maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(merged.data, Some(BTreeMap::from([("other".to_owned(), "1".to_owned())])));
    let strategic = Patch::Strategic(json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    maps.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    // The version of before the patches is too old for a replacement.
    let status = refusal(maps.replace("a", &PostParams::default(), &made).await);
    assert_eq!((status.code, &status.reason[..]), (409, "Conflict"));
    let wrong = Preconditions { uid: Some("other".to_owned()), resource_version: None };
    let wrong = DeleteParams::default().preconditions(wrong);
    let status = refusal(maps.delete("a", &wrong).await);
    assert_eq!((status.code, &status.reason[..]), (409, "Conflict"));
    let old = Preconditions { uid: None, resource_version: made.metadata.resource_version };
    let status = refusal(maps.delete("a", &DeleteParams::default().preconditions(old)).await);
    assert_eq!(status.code, 409);
    let right = Preconditions { uid: made.metadata.uid, resource_version: None };
    let held = maps.delete("a", &DeleteParams::default().preconditions(right)).await.unwrap();
    assert!(held.left().is_none_or(|map| map.metadata.deletion_timestamp.is_some()));
    assert!(maps.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &free).await.unwrap();
    assert_eq!(maps.get_opt("a").await.unwrap().map(|map| map.metadata.name), None);
    for name in ["b", "c"] {
        maps.create(&PostParams::default(), &map(name, 1)).await.unwrap();
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

/// A reflector in a task of its own, and what it has.
fn reflect(maps: Api<ConfigMap>, config: watcher::Config) -> (Store<ConfigMap>, Task) {
    let (store, writer) = reflector::store();
    let stream = watcher(maps, config).default_backoff().reflect(writer);
    let task = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    (store, Task(task))
}

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn until_names(store: &Store<ConfigMap>, wanted: &[&str]) {
    let names = || {
        let state = store.state();
        let mut names: Vec<_> = state.iter().filter_map(|map| map.metadata.name.clone()).collect();
        names.sort();
        names
    };
    let same = async {
        while names() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(WAIT, same).await;
    assert!(came.is_ok(), "{:?}, not {wanted:?}", names());
}

#[tokio::test(flavor = "multi_thread")]
async fn reflectors_follow_over_kills_and_restarts() {
    let place = Place::new();
    let address = free_address();
    let mut daemon = place.start_at(address);
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&daemon).await);
    let (listed, _listing) = reflect(maps.clone(), watcher::Config::default().page_size(1));
    let (streamed, _streaming) =
        reflect(maps.clone(), watcher::Config::default().streaming_lists());
    let mut names = Vec::new();
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        maps.create(&PostParams::default(), &map(name, 1)).await.unwrap();
        names.push(name);
        until_names(&listed, &names).await;
        until_names(&streamed, &names).await;
        if round == 1 {
            daemon.kill()
        } else {
            daemon.end()
        }
        daemon = place.start_at(address);
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    until_names(&listed, &["b", "c"]).await;
    until_names(&streamed, &["b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_whose_version_is_forgotten_lists_anew() {
    let place = Place::new();
    let address = free_address();
    let mut daemon = place.start_at(address);
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&daemon).await);
    maps.create(&PostParams::default(), &map("kept", 1)).await.unwrap();
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version;
    let config = watcher::Config::default().labels("none!=none");
    let mut events = Box::pin(watcher(maps.clone(), config));
    while !matches!(events.next().await.unwrap().unwrap(), watcher::Event::InitDone) {}
    // While the watcher is not connected, more happens than is kept.
    daemon.kill();
    daemon = place.start_at(address);
    let other: Api<ConfigMap> = Api::namespaced(client(&daemon).await, "kube-system");
    for round in 0..=LOG_BYTES / MEBIBYTE {
        let name = format!("large-{round}");
        other.create(&PostParams::default(), &map(&name, MEBIBYTE)).await.unwrap();
        other.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    maps.create(&PostParams::default(), &map("late", 1)).await.unwrap();
    let gone = maps.watch(&WatchParams::default(), &version.unwrap()).await;
    let first = match gone {
        Ok(stream) => Box::pin(stream).next().await.unwrap(),
        Err(error) => Err(error),
    };
    match first {
        Ok(WatchEvent::Error(status)) => assert_eq!(status.code, 410, "{status:?}"),
        other => assert_eq!(refusal(other).code, 410),
    }
    let (mut failures, mut names) = (0, Vec::new());
    let anew = async {
        loop {
            match events.next().await.unwrap() {
                Err(_) => failures += 1,
                Ok(watcher::Event::InitApply(map)) => names.extend(map.metadata.name),
                Ok(watcher::Event::InitDone) => break,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(WAIT, anew).await.unwrap();
    assert!(failures > 0, "nothing was wrong");
    assert!(names.contains(&"kept".to_owned()) && names.contains(&"late".to_owned()), "{names:?}");
}
