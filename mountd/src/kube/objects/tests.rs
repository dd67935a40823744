//! Objects through their store: versions, finalizers, owners, namespaces, lists.

use std::collections::BTreeMap;

use super::*;
use crate::kube::seam::{PatchForm, patched};

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.create_namespaces().unwrap();
    Place { dir, store }
}

fn kind(record: &str) -> &'static Kind {
    Kind::of_record(record).unwrap()
}

fn target<'a>(record: &str, namespace: &'a str, name: &'a str) -> Target<'a> {
    Target { kind: kind(record), namespace, name }
}

impl Place {
    fn create(&self, record: &str, namespace: &str, object: Value) -> Answer<Value> {
        let options = WriteOptions::default();
        self.store.create(&target(record, namespace, ""), object, &options).map(|done| done.object)
    }

    fn merge(&self, target: &Target<'_>, part: Part, patch: &Value) -> Answer<Value> {
        let options = WriteOptions::default();
        let change = |current: Option<&Value>| {
            patched((target.kind, part), PatchForm::Merge, current, patch, &options)
        };
        self.store.change(target, part, &options, &change).map(|done| done.object)
    }

    fn put(&self, target: &Target<'_>, object: &Value) -> Answer<Value> {
        let options = WriteOptions::default();
        let change = |_: Option<&Value>| Ok(object.clone());
        self.store.change(target, Part::Main, &options, &change).map(|done| done.object)
    }

    fn delete(&self, target: &Target<'_>) -> Answer<Value> {
        self.store.delete(target, &DeleteOptions::default())
    }

    /// Creates maps in one transaction; what `make` returns sees the map before.
    fn create_maps(
        &self,
        namespace: &str,
        count: usize,
        make: &dyn Fn(usize, Option<&Value>) -> Value,
    ) {
        let (target, options) = (target("configmaps", namespace, ""), WriteOptions::default());
        let create = |act: &Act<'_>| {
            let mut last: Option<Value> = None;
            for number in 0..count {
                let done = act.create(&target, make(number, last.as_ref()), &options)?;
                last = Some(done.object);
            }
            Ok(())
        };
        self.store.act(false, create).unwrap();
    }

    /// Begins to delete a namespace, as a daemon does that is killed right after.
    fn begin_to_end(&self, name: &str) {
        let begin = |act: &Act<'_>| {
            let stored = act.get(&target("namespaces", "", name))?;
            act.delete(stored, &DeleteOptions::default())
        };
        let ((object, is_gone), ended) = self.store.transact(false, None, begin).unwrap();
        assert_eq!((text(&object, "/status/phase"), is_gone), ("Terminating", false));
        assert_eq!(ended, [name]);
    }

    fn names(&self, record: &str, options: &ListOptions) -> Vec<String> {
        let items = self.store.list(kind(record), options).unwrap().items;
        items.iter().map(|item| text(item, "/metadata/name").to_owned()).collect()
    }
}

fn claim_spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
}

fn volume_spec() -> Value {
    let path = json!({"path": "/tmp/volume"});
    json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": path})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn owned(name: &str, owner: &Value) -> Value {
    let owner = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    });
    json!({"metadata": {"name": name, "ownerReferences": [owner]}})
}

#[test]
fn a_new_object_has_what_the_server_sets() {
    let place = place();
    let body = json!({
        "metadata": {"generateName": "a-", "uid": "mine", "labels": null},
        "spec": claim_spec(),
        "status": {"phase": "Bound"},
    });
    let object = place.create("persistentvolumeclaims", "default", body).unwrap();
    assert!(text(&object, "/metadata/name").starts_with("a-"));
    assert_eq!(text(&object, "/metadata/namespace"), "default");
    assert_ne!(text(&object, "/metadata/uid"), "mine");
    assert_eq!(text(&object, "/status/phase"), "Pending");
    assert_eq!(text(&object, "/kind"), "PersistentVolumeClaim");
    let name = text(&object, "/metadata/name");
    assert_eq!(place.store.get(&target("persistentvolumeclaims", "default", name)), Ok(object));
}

#[test]
fn what_does_not_fit_the_request_is_refused() {
    let place = place();
    let codes = [
        (json!({"kind": "Secret", "metadata": {"name": "a"}}), 400),
        (json!({"metadata": {"name": "a", "namespace": "other"}}), 400),
        (json!({"metadata": {"name": "a", "resourceVersion": "5"}}), 400),
        (json!({"metadata": {}}), 422),
        (json!({"metadata": {"name": "a/b"}}), 422),
        (json!([]), 400),
    ];
    for (body, code) in codes {
        let failure = place.create("configmaps", "default", body.clone()).unwrap_err();
        assert_eq!(failure.code, code, "{body}: {failure}");
    }
    place.create("configmaps", "default", map("a")).unwrap();
    let failure = place.create("configmaps", "default", map("a")).unwrap_err();
    assert_eq!(failure.message, "configmaps \"a\" already exists");
    let failure = place.create("configmaps", "none", map("a")).unwrap_err();
    assert_eq!(failure.message, "namespaces \"none\" not found");
}

#[test]
fn of_two_writers_with_one_version_the_second_is_refused() {
    let place = place();
    let object = place.create("configmaps", "default", map("a")).unwrap();
    let target = target("configmaps", "default", "a");
    let with = |value: &str| {
        let mut object = object.clone();
        set(&mut object, "data", Some(json!({"key": value})));
        object
    };
    let first = place.put(&target, &with("1")).unwrap();
    let failure = place.put(&target, &with("2")).unwrap_err();
    assert_eq!((failure.code, failure.reason), (409, "Conflict"));
    assert_eq!(place.store.get(&target), Ok(first.clone()));
    // What changes nothing makes no version.
    assert_eq!(place.put(&target, &first), Ok(first));
    let failure = place.put(&target, &json!({"metadata": {"uid": "x"}})).unwrap_err();
    assert_eq!(failure.code, 409);
}

#[test]
fn status_and_specification_are_written_separately() {
    let place = place();
    let body = json!({"metadata": {"name": "v"}, "spec": volume_spec()});
    place.create("persistentvolumes", "", body).unwrap();
    let target = target("persistentvolumes", "", "v");
    let class =
        |name: &str| json!({"spec": {"storageClassName": name}, "status": {"phase": "Available"}});
    let seen = |object: &Value| {
        let part = |at| text(object, at).to_owned();
        (part("/spec/storageClassName"), part("/status/phase"))
    };
    let main = place.merge(&target, Part::Main, &class("a")).unwrap();
    assert_eq!(seen(&main), ("a".to_owned(), "Pending".to_owned()));
    let status = place.merge(&target, Part::Status, &class("b")).unwrap();
    assert_eq!(seen(&status), ("a".to_owned(), "Available".to_owned()));
}

#[test]
fn a_generation_counts_changes_of_the_specification() {
    let place = place();
    let body =
        json!({"metadata": {"name": "s"}, "spec": {"source": {"persistentVolumeClaimName": "c"}}});
    place.create("volumesnapshots.snapshot.storage.k8s.io", "default", body).unwrap();
    let target = target("volumesnapshots.snapshot.storage.k8s.io", "default", "s");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let object = place.merge(&target, Part::Main, &patch).unwrap();
    assert_eq!(object["metadata"]["generation"], 1);
    let patch = json!({"spec": {"volumeSnapshotClassName": "c"}});
    let object = place.merge(&target, Part::Main, &patch).unwrap();
    assert_eq!(object["metadata"]["generation"], 2);
}

#[test]
fn finalizers_hold_an_object_until_the_last_one_goes() {
    let place = place();
    let meta = json!({"name": "v", "finalizers": ["a/a", "b/b"]});
    let body = json!({"metadata": meta, "spec": volume_spec()});
    place.create("persistentvolumes", "", body).unwrap();
    let target = target("persistentvolumes", "", "v");
    let object = place.delete(&target).unwrap();
    assert!(meta::is_ending(&object));
    assert_eq!(place.delete(&target).unwrap(), object, "a second deletion changes nothing");
    let patch = |names: &[&str]| json!({"metadata": {"finalizers": names}});
    let failure = place.merge(&target, Part::Main, &patch(&["a/a", "c/c"])).unwrap_err();
    assert!(failure.message.contains("no new finalizers can be added"), "{failure}");
    place.merge(&target, Part::Main, &patch(&["a/a"])).unwrap();
    assert!(place.store.get(&target).is_ok());
    place.merge(&target, Part::Main, &patch(&[])).unwrap();
    assert_eq!(place.store.get(&target).unwrap_err().code, 404);
}

#[test]
fn a_deletion_has_preconditions_and_can_be_dry() {
    let place = place();
    let object = place.create("configmaps", "default", map("a")).unwrap();
    let target = target("configmaps", "default", "a");
    let of = |body: Value| DeleteOptions::parse(&body).unwrap();
    let failure = place.store.delete(&target, &of(json!({"preconditions": {"uid": "x"}})));
    assert_eq!(failure.unwrap_err().code, 409);
    place.store.delete(&target, &of(json!({"dryRun": ["All"]}))).unwrap();
    let version = &object["metadata"]["resourceVersion"];
    let options = of(json!({"preconditions": {"resourceVersion": version}}));
    let status = place.store.delete(&target, &options).unwrap();
    assert_eq!((text(&status, "/status"), text(&status, "/kind")), ("Success", "Status"));
    assert_eq!(place.delete(&target).unwrap_err().code, 404);
    assert!(DeleteOptions::parse(&json!({"propagationPolicy": "x"})).is_err());
}

#[test]
fn what_an_object_owns_goes_with_it() {
    for (policy, rest) in [("Background", vec![]), ("Orphan", vec!["dep"])] {
        let place = place();
        let owner = place.create("configmaps", "default", map("owner")).unwrap();
        place.create("configmaps", "default", owned("dep", &owner)).unwrap();
        let options = DeleteOptions::parse(&json!({"propagationPolicy": policy})).unwrap();
        place.store.delete(&target("configmaps", "default", "owner"), &options).unwrap();
        assert_eq!(place.names("configmaps", &ListOptions::default()), rest, "{policy}");
    }
}

#[test]
fn an_owner_deleted_in_the_foreground_goes_last() {
    let place = place();
    let owner = place.create("configmaps", "default", map("owner")).unwrap();
    let mut held = owned("held", &owner);
    set_meta(&mut held, "finalizers", Some(json!(["a/a"])));
    place.create("configmaps", "default", held).unwrap();
    place.create("configmaps", "default", owned("free", &owner)).unwrap();
    let options = DeleteOptions::parse(&json!({"propagationPolicy": "Foreground"})).unwrap();
    place.store.delete(&target("configmaps", "default", "owner"), &options).unwrap();
    assert_eq!(place.names("configmaps", &ListOptions::default()), ["held", "owner"]);
    let patch = json!({"metadata": {"finalizers": null}});
    place.merge(&target("configmaps", "default", "held"), Part::Main, &patch).unwrap();
    assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
}

fn by(policy: &str) -> DeleteOptions {
    DeleteOptions::parse(&json!({"propagationPolicy": policy})).unwrap()
}

#[test]
fn a_long_chain_of_owners_goes() {
    for policy in ["Background", "Foreground"] {
        let place = place();
        place.create_maps("default", 5000, &|number, last| {
            let name = format!("ch{number}");
            last.map_or_else(|| map(&name), |last| owned(&name, last))
        });
        assert_eq!(place.names("configmaps", &ListOptions::default()).len(), 5000);
        place.store.delete(&target("configmaps", "default", "ch0"), &by(policy)).unwrap();
        let rest = place.names("configmaps", &ListOptions::default());
        assert_eq!(rest, Vec::<String>::new(), "{policy}");
    }
}

#[test]
fn a_chain_of_owners_that_wait_goes() {
    let place = place();
    place.create_maps("default", 2000, &|number, last| {
        let name = format!("ch{number}");
        let mut object = last.map_or_else(|| map(&name), |last| owned(&name, last));
        let held = (number == 1999).then(|| json!(["a/a"]));
        set_meta(&mut object, "finalizers", held);
        object
    });
    let delete = |act: &Act<'_>| {
        for number in (0..2000).rev() {
            let name = format!("ch{number}");
            let stored = act.get(&target("configmaps", "default", &name))?;
            act.delete(stored, &by("Foreground"))?;
        }
        Ok(())
    };
    place.store.act(false, delete).unwrap();
    assert_eq!(place.names("configmaps", &ListOptions::default()).len(), 2000);
    let patch = json!({"metadata": {"finalizers": null}});
    place.merge(&target("configmaps", "default", "ch1999"), Part::Main, &patch).unwrap();
    assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
}

#[test]
fn owners_in_a_circle_go() {
    for policy in ["Background", "Foreground"] {
        let place = place();
        let first = place.create("configmaps", "default", map("cya")).unwrap();
        let second = place.create("configmaps", "default", owned("cyb", &first)).unwrap();
        let both = owned("cya", &second)["metadata"]["ownerReferences"].clone();
        let patch = json!({"metadata": {"ownerReferences": both}});
        let target = target("configmaps", "default", "cya");
        place.merge(&target, Part::Main, &patch).unwrap();
        let status = place.store.delete(&target, &by(policy)).unwrap();
        assert_eq!(text(&status, "/status"), "Success", "{policy}");
        assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
    }
}

#[test]
fn an_object_that_owns_itself_goes() {
    for policy in ["Background", "Foreground", "Orphan"] {
        let place = place();
        let object = place.create("configmaps", "default", map("own")).unwrap();
        let own = owned("own", &object)["metadata"]["ownerReferences"].clone();
        let patch = json!({"metadata": {"ownerReferences": own}});
        let target = target("configmaps", "default", "own");
        place.merge(&target, Part::Main, &patch).unwrap();
        place.store.delete(&target, &by(policy)).unwrap();
        assert_eq!(place.store.get(&target).unwrap_err().code, 404, "{policy}");
    }
}

#[test]
fn others_write_while_a_namespace_goes() {
    let dir = tempfile::tempdir().unwrap();
    let other = Store::open(dir.path()).unwrap();
    let place = Place { store: Store::open(dir.path()).unwrap(), dir };
    place.store.create_namespaces().unwrap();
    place.create("namespaces", "", json!({"metadata": {"name": "n"}})).unwrap();
    place.create_maps("n", 2000, &|number, _| map(&format!("m{number}")));
    let within = target("namespaces", "", "n");
    let between = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while other.get(&within).is_ok_and(|object| !meta::is_ending(&object)) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let options = WriteOptions::default();
            let done = other.create(&target("configmaps", "default", ""), map("between"), &options);
            done.unwrap().object
        });
        let start = std::time::Instant::now();
        let gone = place.delete(&within).unwrap();
        let took = start.elapsed();
        assert_eq!(text(&gone, "/metadata/name"), "n");
        assert!(took < std::time::Duration::from_secs(3), "{took:?}");
        writer.join().unwrap()
    });
    let at = version(text(&between, "/metadata/resourceVersion")).unwrap();
    assert!(at < place.store.version().unwrap(), "it was written after the namespace was gone");
    assert_eq!(place.store.get(&within).unwrap_err().code, 404);
    assert_eq!(place.names("configmaps", &ListOptions::default()), ["between"]);
}

#[test]
fn a_namespace_that_ended_halfway_goes_at_the_next_start() {
    let place = place();
    place.create("namespaces", "", json!({"metadata": {"name": "n"}})).unwrap();
    place.create_maps("n", 450, &|number, last| {
        let name = format!("m{number}");
        last.map_or_else(|| map(&name), |last| owned(&name, last))
    });
    place.begin_to_end("n");
    assert_eq!(place.names("configmaps", &ListOptions::default()).len(), 450);
    let next = Store::open(place.dir.path()).unwrap();
    next.create_namespaces().unwrap();
    assert_eq!(next.get(&target("namespaces", "", "n")).unwrap_err().code, 404);
    assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
}

#[test]
fn a_namespace_takes_its_content_along() {
    let place = place();
    place.create("namespaces", "", json!({"metadata": {"name": "n"}})).unwrap();
    place.create("configmaps", "n", map("a")).unwrap();
    let held = json!({"metadata": {"name": "c", "finalizers": ["a/a"]}, "spec": claim_spec()});
    place.create("persistentvolumeclaims", "n", held).unwrap();
    let within = target("namespaces", "", "n");
    let object = place.delete(&within).unwrap();
    assert_eq!(text(&object, "/status/phase"), "Terminating");
    assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
    let failure = place.create("configmaps", "n", map("b")).unwrap_err();
    assert_eq!(failure.code, 403);
    assert!(failure.message.contains("because it is being terminated"), "{failure}");
    let patch = json!({"metadata": {"finalizers": null}});
    place.merge(&target("persistentvolumeclaims", "n", "c"), Part::Main, &patch).unwrap();
    assert_eq!(place.store.get(&within).unwrap_err().code, 404);
    let failure = place.delete(&target("namespaces", "", "default")).unwrap_err();
    assert_eq!(failure.code, 403);
}

#[test]
fn a_pod_on_a_node_has_time_to_end() {
    let place = place();
    let pod = |name: &str, node: &str| {
        let containers = json!([{"name": "main", "image": "nginx"}]);
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers}})
    };
    place.create("pods", "default", pod("placed", "here")).unwrap();
    place.create("pods", "default", pod("waiting", "")).unwrap();
    place.delete(&target("pods", "default", "waiting")).unwrap();
    let object = place.delete(&target("pods", "default", "placed")).unwrap();
    assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(place.names("pods", &ListOptions::default()), ["placed"]);
    let options = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
    place.store.delete(&target("pods", "default", "placed"), &options).unwrap();
    assert_eq!(place.names("pods", &ListOptions::default()), Vec::<String>::new());
}

#[test]
fn pages_go_on_at_their_version() {
    let place = place();
    for number in 0..7 {
        place.create("configmaps", "default", map(&format!("m{number}"))).unwrap();
    }
    let mut options = ListOptions { limit: 3, ..ListOptions::default() };
    let first = place.store.list(kind("configmaps"), &options).unwrap();
    assert_eq!((first.items.len(), first.rest), (3, Some(4)));
    place.delete(&target("configmaps", "default", "m5")).unwrap();
    place.create("configmaps", "default", map("m55")).unwrap();
    let mut names = Vec::new();
    options.token = first.token;
    loop {
        let page = place.store.list(kind("configmaps"), &options).unwrap();
        assert_eq!(page.version, first.version);
        names.extend(page.items.iter().map(|one| text(one, "/metadata/name").to_owned()));
        if page.token.is_empty() {
            break;
        }
        options.token = page.token;
    }
    assert_eq!(names, ["m3", "m4", "m5", "m6"]);
    options.token = "x".to_owned();
    assert_eq!(place.store.list(kind("configmaps"), &options).unwrap_err().code, 400);
    let ahead = ListOptions { version: "99999".to_owned(), ..ListOptions::default() };
    assert_eq!(place.store.list(kind("configmaps"), &ahead).unwrap_err().code, 504);
}

#[test]
fn a_dry_run_stores_nothing() {
    let place = place();
    let before = place.store.version().unwrap();
    let options = WriteOptions { is_dry_run: true, ..WriteOptions::default() };
    let target = target("configmaps", "default", "");
    let done = place.store.create(&target, map("a"), &options).unwrap();
    assert!(!text(&done.object, "/metadata/uid").is_empty());
    assert_eq!(place.store.version().unwrap(), before);
    assert_eq!(place.names("configmaps", &ListOptions::default()), Vec::<String>::new());
}

#[test]
fn changes_of_another_process_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    one.create_namespaces().unwrap();
    other.look().unwrap();
    let start = *other.subscribe().borrow();
    let options = WriteOptions::default();
    one.create(&target("configmaps", "default", ""), map("a"), &options).unwrap();
    other.look().unwrap();
    let events = other.since(start).unwrap();
    let filter = Filter::default();
    let seen: BTreeMap<&str, &str> = events
        .iter()
        .filter_map(|event| event.seen_by(kind("configmaps"), &filter))
        .map(|(seen, object)| (text(object, "/metadata/name"), seen.name()))
        .collect();
    assert_eq!(seen, BTreeMap::from([("a", "ADDED")]));
    assert!(*other.subscribe().borrow() > start);
    assert!(other.since(0).is_none());
    assert_eq!(other.log_since(0).unwrap_err().reason, "Expired");
}

#[test]
fn texts_of_a_secret_become_data() {
    let place = place();
    let body = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let object = place.create("secrets", "default", body).unwrap();
    assert_eq!((&object["data"]["a"], &object["stringData"]), (&json!("Yg=="), &Value::Null));
}

#[test]
fn old_events_go_and_those_that_happen_again_stay() {
    let place = place();
    let event = |name: &str, last: Option<&str>| {
        let involved = json!({"kind": "Pod", "namespace": "default", "name": "a"});
        let meta = json!({"name": name});
        json!({"metadata": meta, "involvedObject": involved, "lastTimestamp": last})
    };
    let now = meta::now();
    let events = [("old", Some("2020-01-01T00:00:00Z")), ("again", Some(&now[..])), ("new", None)];
    for (name, last) in events {
        place.create("events", "default", event(name, last)).unwrap();
    }
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(place.store.delete_events(hour), Ok(1));
    assert_eq!(place.names("events", &ListOptions::default()), ["again", "new"]);
}
