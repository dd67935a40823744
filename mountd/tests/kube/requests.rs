//! Requests by hand: forms of answers, parameters, and what is refused.

use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;

use crate::client::{MAPS, map};
use crate::daemon::{Place, WAIT, free_address};

const TABLE: &str = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[test]
fn answers_have_the_form_that_the_client_accepts() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    client.post(MAPS, &map("a", "1")).is(201);
    let table = client.request("GET", MAPS, &[TABLE], "").is(200);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let none = client.request("GET", &format!("{MAPS}?includeObject=None"), &[TABLE], "").is(200);
    assert_eq!(none["rows"][0].get("object"), None);
    let partial = "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = client.request("GET", MAPS, &[partial], "").is(200);
    assert_eq!(partial["items"][0].get("data"), None);
    let proto = "Accept: application/vnd.kubernetes.protobuf";
    assert_eq!(client.request("GET", MAPS, &[proto], "").is(406)["reason"], "NotAcceptable");
    let pretty = client.get(&format!("{MAPS}/a?pretty=true"));
    assert!(pretty.body.contains("\n  \"data\": {"), "{pretty:?}");
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let cases = [
        ("GET", "/", 404),
        ("GET", "/apis/apps/v1/deployments", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/none", 404),
        ("GET", "/api/v1/namespaces/default/configmaps/none/status", 404),
        ("POST", "/version", 405),
        ("PUT", MAPS, 405),
        ("DELETE", "/api/v1/configmaps", 405),
        ("GET", "/api/v1/configmaps?labelSelector=a%20like%20b", 400),
        ("GET", "/api/v1/configmaps?fieldSelector=data%3Da", 400),
        ("GET", "/api/v1/configmaps?labelSelector=a%3Db%3Dc", 400),
        ("GET", "/api/v1/configmaps?fieldSelector=%2C", 400),
        ("GET", "/api/v1/configmaps?limit=x", 400),
        ("GET", "/api/v1/configmaps?limit=-1", 400),
        ("GET", "/api/v1/configmaps?continue=x", 400),
        ("GET", "/api/v1/configmaps?watch=1&resourceVersion=x", 400),
        ("DELETE", "/api/v1/namespaces/default", 403),
    ];
    for (method, path, code) in cases {
        let reply = client.request(method, path, &[], "");
        assert_eq!(reply.code, code, "{method} {path}: {reply:?}");
        assert_eq!(reply.json()["kind"], "Status", "{method} {path}");
    }
    let line = "Content-Type: text/plain";
    client.request("PATCH", &format!("{MAPS}/a"), &[line], "{}").is(415);
    let dry = format!("{MAPS}?dryRun=Some");
    client.post(&dry, &map("a", "1")).is(400);
    let dry = format!("{MAPS}?dryRun=All");
    let object = client.post(&dry, &map("a", "1")).is(201);
    assert_eq!(object["metadata"].get("resourceVersion"), None);
    client.get(&format!("{MAPS}/a")).is(404);
}

#[test]
fn a_manifest_of_yaml_is_taken() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\ndata: {a: \"1\"}\n";
    let line = "Content-Type: application/yaml";
    let object = client.request("POST", MAPS, &[line], body).is(201);
    assert_eq!(object["data"]["a"], "1");
}

#[test]
fn a_collection_is_deleted_by_its_labels() {
    let place = Place::new();
    let daemon = place.start();
    let mut client = daemon.client();
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = map(name, "1");
        map["metadata"]["labels"] = json!({"tier": tier});
        client.post(MAPS, &map).is(201);
    }
    for stray in ["%2C", "tier%21%3Dz%2C", "%2Ctier%21%3Dz", "x%2Fy%2Fz%21%3D1"] {
        let status = client.delete(&format!("{MAPS}?labelSelector={stray}")).is(400);
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("unable to parse requirement: "), "{message}");
    }
    assert_eq!(client.get(MAPS).is(200)["items"].as_array().unwrap().len(), 3);
    let gone = client.delete(&format!("{MAPS}?labelSelector=tier%3Dx")).is(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    let left = client.get(MAPS).is(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[test]
fn connections_that_send_nothing_keep_no_client_out() {
    let place = Place::new();
    std::fs::write(place.at("lamina.toml"), "[limits]\nconnections = 8\n").unwrap();
    let address = free_address();
    let daemon = place.start_at(address);
    let idle: Vec<TcpStream> = (0..256).map(|_| TcpStream::connect(address).unwrap()).collect();
    let start = Instant::now();
    // More than may be connected at the same time, so that their places become free again.
    for _ in 0..16 {
        assert!(daemon.client().is_ready());
    }
    assert!(start.elapsed() < WAIT / 2, "{:?}", start.elapsed());
    drop(idle);
}
