//! Objects from a cluster, and for one.

use serde_json::Value;

use crate::manifests::{claim, class, pod, volume};
use crate::place::Place;

const OWN: &str = "lamina.dev/volume";

/// What `kubectl get pvc,pv,sc -o yaml` prints in a cluster of a cloud, with all that belongs to
/// that cluster.
const CLUSTER: &str = include_str!("cluster.yaml");

fn documents(place: &Place, words: &[&str]) -> Vec<Value> {
    let text = place.prints(&[words, &["--json"]].concat());
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn kinds(items: &[Value]) -> Vec<String> {
    let one = |item: &Value| {
        format!("{}/{}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap())
    };
    items.iter().map(one).collect()
}

#[test]
fn exported_volumes_bind_in_another_cluster() {
    let Some(place) = Place::new() else { return };
    let options = "parameters: {driver: union}\nmountOptions: [noatime]";
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: shop}\n";
    let shop = |manifest: String| manifest.replace("spec:", "  namespace: shop\nspec:");
    let path = place.directory("data");
    place.applies(
        &(class("fast", OWN, options)
            + namespace
            + map
            + &shop(claim("made", "64Mi", "storageClassName: fast"))
            + &volume("dir", &path, "Delete")
            + &claim("dir", "500Mi", "storageClassName: manual-dir")
            + &claim("pending", "500Mi", "storageClassName: none")),
    );
    let name = place.prints(&["get", "pv", "-o", "name"]);
    let name = name.lines().find_map(|line| line.strip_prefix("persistentvolume/pvc-")).unwrap();
    let name = format!("pvc-{name}");
    let items = documents(&place, &["kube", "export"]);
    let wanted = [
        "Namespace/shop".to_owned(),
        "StorageClass/fast".to_owned(),
        "PersistentVolume/dir".to_owned(),
        format!("PersistentVolume/{name}"),
        "PersistentVolumeClaim/dir".to_owned(),
        "PersistentVolumeClaim/made".to_owned(),
    ];
    assert_eq!(kinds(&items), wanted);
    assert_eq!(items[1]["provisioner"], "csi.lamina.dev");
    let volumes = place.volumes();
    let (id, spec) = (volumes[0]["id"].as_str().unwrap(), &items[3]["spec"]);
    assert_eq!(spec["csi"]["driver"], "csi.lamina.dev");
    assert_eq!(spec["csi"]["volumeHandle"], id);
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(spec["claimRef"]["name"], "made");
    let rules = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"];
    assert_eq!(rules[0]["key"], "kubernetes.io/hostname");
    assert_eq!(rules[1]["key"], "csi.lamina.dev/node");
    assert_eq!(items[2]["spec"]["hostPath"]["path"].as_str(), Some(&path[..]));
    for item in &items {
        let text = item.to_string();
        for word in ["uid", "resourceVersion", "managedFields", "status", "bind-completed"] {
            assert!(!text.contains(&format!("{word}\":")), "{word}: {text}");
        }
    }
    let all = documents(&place, &["kube", "export", "--all", "--namespace", "shop"]);
    assert_eq!(kinds(&all).last().unwrap(), "ConfigMap/settings");
    assert!(!kinds(&all).contains(&"PersistentVolume/dir".to_owned()));
    // Another cluster takes it from kubectl, and binds the same names.
    let other = Place::new().unwrap();
    let _daemon = other.start();
    let exported = place.prints(&["kube", "export", "--all"]);
    other.apply(&exported);
    other.until_field("pvc/dir", ".status.phase", "Bound");
    let bound = || other.good("get pvc made -n shop -o jsonpath={.status.phase}");
    crate::until::until("the binding of an exported claim", || bound() == "Bound");
    assert_eq!(other.good("get pvc made -n shop -o jsonpath={.spec.volumeName}"), name);
    let again = other.kubectl(&["apply", "-f", "-"], &exported);
    let again = String::from_utf8(again.stdout).unwrap();
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
}

#[test]
fn what_a_cluster_printed_is_bound_here_by_its_names() {
    let Some(place) = Place::new() else { return };
    let config = "[kube.map.\"csi:pd.csi.storage.gke.io\"]\ndriver = \"local\"\n";
    let daemon = place.start_with(config);
    let output = place.lamina_with(&["apply", "-f", "-"], CLUSTER);
    assert!(output.status.success(), "{output:?}");
    place.until_phase("pvc/data", "Bound");
    place.until_phase("pv/pvc-0c1f6f5e-9c0e-4c4f-8a53-0d9a5f0f5a11", "Bound");
    let again = place.applies(CLUSTER);
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    let id = place.field("pvc/data", ".metadata.uid");
    assert_ne!(id, "0c1f6f5e-9c0e-4c4f-8a53-0d9a5f0f5a11");
    place.until_field(
        "pv/pvc-0c1f6f5e-9c0e-4c4f-8a53-0d9a5f0f5a11",
        ".metadata.annotations.lamina\\.dev/volume",
        &format!(
            "pv-{}",
            place.field("pv/pvc-0c1f6f5e-9c0e-4c4f-8a53-0d9a5f0f5a11", ".metadata.uid")
        ),
    );
    assert_eq!(place.volumes().len(), 1);
    drop(daemon);
    // kubectl takes it as any cluster does: the objects exist, and the claim of another id is lost.
    let other = Place::new().unwrap();
    let _daemon = other.start();
    other.apply(CLUSTER);
    other.until_phase("pvc/data", "Lost");
    assert_eq!(other.field("sc/standard-rwo", ".provisioner"), "pd.csi.storage.gke.io");
}

#[test]
fn a_pod_keeps_its_claim_after_an_export_and_back() {
    let Some(place) = Place::new() else { return };
    let of = "storageClassName: fast";
    place.applies(&(class("fast", OWN, "reclaimPolicy: Retain") + &claim("a", "64Mi", of)));
    let exported = place.prints(&["kube", "export"]);
    let id = place.volumes()[0]["id"].clone();
    place.prints(&["delete", "pvc", "a"]);
    place.prints(&["delete", "pv", "--all"]);
    place.prints(&["delete", "sc", "fast"]);
    place.applies(&(exported + &pod("web", "a")));
    let text = place.prints(&["get", "pvc", "a", "--json"]);
    let claim: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(claim["status"]["phase"], "Bound");
    // The handle is the id of the same volume.
    assert_eq!(place.volumes()[0]["id"], id);
    let again = documents(&place, &["kube", "export"]);
    let volume = again.iter().find(|one| one["kind"] == "PersistentVolume").unwrap();
    assert_eq!(volume["spec"]["csi"]["volumeHandle"], id);
}
