//! The manifests in packaging/kubernetes: their schema, that they fit together and to the program,
//! and that Helm renders the same objects from the chart.

mod chart;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use chart::{Chart, leaves, used};
use schema::{Kustomization, problem};

const NAME: &str = "csi.lamina.dev";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The documents of a file.
fn documents(text: &str) -> Vec<Value> {
    let is_code = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
    let parts = text.split("---\n").filter(|part| part.lines().any(is_code));
    parts.map(yaml).collect()
}

/// The objects that `kubectl apply -k` sends.
fn kustomized(directory: &str) -> Vec<Value> {
    let text = read(&format!("{directory}/kustomization.yaml"));
    let all: Kustomization = serde_saphyr::from_str(&text).unwrap();
    for image in &all.images {
        assert_eq!((&*image.name, &*image.new_tag), ("localhost/lamina", VERSION));
    }
    if let Some(namespace) = &all.namespace {
        assert_eq!(namespace, "lamina");
    }
    let listed = |resource: &String| match resource.strip_prefix("../") {
        Some(other) => kustomized(other),
        None => documents(&read(&format!("{directory}/{resource}"))),
    };
    let names: BTreeSet<&String> = all.resources.iter().collect();
    let files = fs::read_dir(place(directory)).unwrap().map(|entry| entry.unwrap().file_name());
    for file in files.map(|name| name.into_string().unwrap()) {
        assert!(file == "kustomization.yaml" || names.contains(&file), "{file} is not applied");
    }
    all.resources.iter().flat_map(listed).collect()
}

fn examples() -> Vec<Value> {
    let files = fs::read_dir(place("examples")).unwrap().flatten();
    files.flat_map(|file| documents(&fs::read_to_string(file.path()).unwrap())).collect()
}

fn id(object: &Value) -> String {
    let name = &object["metadata"]["name"];
    format!("{} {}", object["kind"].as_str().unwrap(), name.as_str().unwrap())
}

fn by_id(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let count = objects.len();
    let all: BTreeMap<String, Value> = objects.into_iter().map(|one| (id(&one), one)).collect();
    assert_eq!(all.len(), count, "an object twice");
    all
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(object: &Value, pointer: &str) -> Vec<String> {
    list(object, pointer).iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn names(object: &Value, pointer: &str) -> BTreeSet<String> {
    list(object, pointer).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn objects_have_only_fields_of_their_kinds() {
    let all =
        [kustomized("default"), Chart::new().render().unwrap_or_default(), examples()].concat();
    assert!(all.len() > 40, "{} objects", all.len());
    for object in &all {
        assert_eq!(problem(object), None, "{}", id(object));
    }
    // A wrong name anywhere is found, and a wrong type.
    let all = by_id(kustomized("base"));
    let wrong = |of: &str, pointer: &str, field: &str, value: Value| {
        let mut object = all[of].clone();
        object.pointer_mut(pointer).unwrap()[field] = value;
        problem(&object).unwrap_or_else(|| panic!("{of}: {pointer}/{field} is not found"))
    };
    let mounts = "/spec/template/spec/containers/0/volumeMounts/1";
    let found = wrong("DaemonSet lamina-driver", mounts, "mountPropagaton", json!("None"));
    assert_eq!(
        found,
        "unknown field .spec.template.spec.containers[0].volumeMounts[1].\
         mountPropagaton"
    );
    wrong("DaemonSet lamina-holder", "/spec/template/spec", "hostPID", json!("yes"));
    wrong("CSIDriver csi.lamina.dev", "/spec", "fsGroupPolcy", json!("File"));
    wrong("ClusterRole lamina-resizer", "/rules/0", "verb", json!(["get"]));
    wrong("Namespace lamina", "", "kind", json!("Namespaces"));
}

#[test]
fn the_chart_renders_the_objects_of_the_base() {
    let chart = Chart::new();
    let Some(objects) = chart.render() else { return };
    let mut wanted = by_id(kustomized("default"));
    assert!(wanted.remove("Namespace lamina").is_some(), "Helm makes the namespace");
    let found = by_id(objects);
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (id, object) in &found {
        assert_eq!(object, &wanted[id], "{id}");
    }
    let used = used();
    for leaf in leaves(&chart.values, "") {
        let is_used =
            used.iter().any(|path| leaf == *path || leaf.starts_with(&format!("{path}.")));
        assert!(is_used, "no template uses {leaf}");
    }
    assert_eq!(yaml(&read("chart/Chart.yaml"))["appVersion"], VERSION);
}

#[test]
fn values_of_the_chart_have_effects() {
    let mut chart = Chart::new();
    for (path, value) in [
        ("/root", json!("/data/lamina")),
        ("/kubelet", json!("/var/lib/k0s/kubelet")),
        ("/image/tag", json!("9.9.9")),
        ("/log", json!("debug")),
        ("/severalNodes", json!(false)),
        ("/classes/snapshot", json!(false)),
        ("/classes/storage", json!(false)),
        ("/sidecars/registry", json!("registry.local:5000/csi")),
        ("/nodeSelector", json!({"disk": "fast"})),
        ("/tolerations", json!([])),
    ] {
        *chart.values.pointer_mut(path).unwrap() = value;
    }
    chart.namespace = "storage".to_owned();
    let Some(objects) = chart.render() else { return };
    let text = serde_json::to_string(&objects).unwrap();
    for old in [
        "/var/lib/lamina",
        "/var/lib/kubelet",
        "lamina=info",
        "registry.k8s.io",
        "LAMINA_CSI_EXPAND",
        "VolumeAttributesClass=false",
        "StorageClass\"",
        "SnapshotClass\"",
        "\"namespace\":\"lamina\"",
    ] {
        assert!(!text.contains(old), "{old} is left");
    }
    let all = by_id(objects);
    let driver = &all["DaemonSet lamina-driver"]["spec"]["template"]["spec"];
    assert_eq!(driver["containers"][0]["image"], "localhost/lamina:9.9.9");
    // Helm adds to a map, and replaces a list.
    assert_eq!(driver["nodeSelector"], json!({"disk": "fast", "kubernetes.io/os": "linux"}));
    assert_eq!(driver["tolerations"], json!([]));
    assert!(text.contains("\"--root=/data/lamina\"") && text.contains("lamina=debug"));
    all.values().for_each(|object| assert_eq!(problem(object), None, "{}", id(object)));
}

#[test]
fn accounts_and_roles_fit_together() {
    let all = by_id(kustomized("default"));
    for (id, object) in all.iter().filter(|(id, _)| id.contains("RoleBinding ")) {
        let role = &object["roleRef"];
        let named = |of: &Value| format!("{} {}", of["kind"], of["name"]).replace('"', "");
        assert!(all.contains_key(&named(role)), "{id}: {role}");
        for subject in list(object, "/subjects") {
            assert!(all.contains_key(&named(subject)), "{id}: {subject}");
            assert_eq!(subject["namespace"], "lamina", "{id}");
        }
    }
    for (id, object) in all.iter().filter(|(id, _)| id.contains("Role ")) {
        for rule in list(object, "/rules") {
            let words = ["/apiGroups", "/resources", "/verbs"].map(|part| texts(rule, part));
            assert!(words.iter().all(|words| !words.is_empty()), "{id}: {rule}");
            let wide = |word: &String| ["*", "secrets", "escalate", "bind"].contains(&&**word);
            assert!(!words.iter().flatten().any(wide), "{id} allows too much: {rule}");
        }
    }
    // The holder, which is privileged, has no rights at all.
    let bound = |object: &Value| object["subjects"].to_string().contains("lamina-holder");
    assert!(!all.values().any(bound));
}

/// The pods of the DaemonSets, with their names.
fn pods(all: &BTreeMap<String, Value>) -> Vec<(String, Value)> {
    let sets = all.iter().filter(|(id, _)| id.starts_with("DaemonSet "));
    sets.map(|(id, set)| (id.clone(), set["spec"]["template"]["spec"].clone())).collect()
}

#[test]
fn pods_have_what_they_name() {
    let all = by_id(kustomized("default"));
    for set in all.values().filter(|object| object["kind"] == "DaemonSet") {
        let spec = &set["spec"];
        let labels = &spec["template"]["metadata"]["labels"];
        for (key, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[key], value, "{}", id(set));
        }
    }
    assert_eq!(all["DaemonSet lamina-holder"]["spec"]["updateStrategy"]["type"], "OnDelete");
    for (id, pod) in pods(&all) {
        let account = format!("ServiceAccount {}", pod["serviceAccountName"].as_str().unwrap());
        assert!(all.contains_key(&account), "{id}: {account}");
        let volumes = names(&pod, "/volumes");
        let mut mounted = BTreeSet::new();
        let containers = list(&pod, "/containers");
        let ports: Vec<BTreeSet<String>> =
            containers.iter().map(|one| names(one, "/ports")).collect();
        for container in containers {
            mounted.extend(names(container, "/volumeMounts"));
            check_container(&id, container);
            if let Some(port) = container.pointer("/livenessProbe/httpGet/port") {
                let port = port.as_str().unwrap();
                assert!(ports.iter().any(|names| names.contains(port)), "{id}: {port}");
            }
        }
        assert_eq!(mounted, volumes, "{id}: volumes and their mounts");
    }
    let holder = &all["DaemonSet lamina-holder"]["spec"]["template"]["spec"]["containers"][0];
    let has_probe = |name: &str| holder.get(name).is_some();
    assert!(!["livenessProbe", "readinessProbe", "startupProbe"].into_iter().any(has_probe));
}

fn check_container(id: &str, container: &Value) {
    let name = format!("{id}: {}", container["name"]);
    let image = container["image"].as_str().unwrap();
    let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap();
    assert!(tag.contains('.'), "{name}: the tag of {image} moves");
    let is_own = image == format!("localhost/lamina:{VERSION}");
    let context = &container["securityContext"];
    assert_eq!(context["privileged"] == true, is_own, "{name}");
    assert_eq!(context["readOnlyRootFilesystem"] == true, !is_own, "{name}");
    let variables = names(container, "/env");
    for arg in texts(container, "/args") {
        for part in arg.split("$(").skip(1) {
            let variable = part.split(')').next().unwrap();
            assert!(variables.contains(variable), "{name}: $({variable})");
        }
    }
    for mount in list(container, "/volumeMounts") {
        let is_shared = mount["mountPropagation"] == "Bidirectional";
        let needs = ["root", "kubelet"].contains(&mount["name"].as_str().unwrap());
        assert_eq!(is_shared, needs, "{name}: {mount}");
    }
}

/// What the program prints as the help of a command.
fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lamina")).args(words).arg("--help").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_program_knows_its_arguments() {
    let all = by_id(kustomized("default"));
    let mut checked = 0;
    for (id, pod) in pods(&all) {
        let own = list(&pod, "/containers")
            .iter()
            .filter(|one| one["command"] == json!(["/usr/bin/lamina"]));
        for container in own {
            let args = texts(container, "/args");
            let is_flag = |arg: &&String| arg.starts_with("--");
            let words: Vec<&str> =
                args.iter().take_while(|arg| !is_flag(arg)).map(String::as_str).collect();
            let help = help(&words);
            for flag in args.iter().filter(is_flag) {
                let (flag, value) = flag.split_once('=').unwrap_or((flag, ""));
                let is_known = help.split_whitespace().any(|word| word == flag);
                assert!(is_known, "{id}: {words:?} has no {flag}: {help}");
                // A flag with a value is shown with it.
                let is_valued = help.contains(&format!("{flag} <"));
                assert_eq!(is_valued, !value.is_empty(), "{id}: {flag}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 7, "{checked} flags");
    let driver = &all["DaemonSet lamina-driver"]["spec"]["template"]["spec"];
    let paths: BTreeMap<String, String> = list(driver, "/volumes")
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["hostPath"]["path"].as_str().unwrap()))
        .map(|(name, path)| (name.to_owned(), path.to_owned()))
        .collect();
    // kubelet connects to the socket that the driver makes.
    assert_eq!(paths["plugin"], format!("/var/lib/kubelet/plugins/{NAME}"));
    for container in list(driver, "/containers").iter().skip(1) {
        let args = texts(container, "/args");
        assert!(args.contains(&"--csi-address=/csi/csi.sock".to_owned()), "{}", container["name"]);
    }
}

#[test]
fn all_name_one_driver_and_its_classes() {
    let all =
        [kustomized("default"), Chart::new().render().unwrap_or_default(), examples()].concat();
    let mut classes = BTreeSet::new();
    let mut named = 0;
    for object in &all {
        let name = object["metadata"]["name"].as_str().unwrap();
        for field in ["provisioner", "driver", "driverName"] {
            if let Some(driver) = object.get(field) {
                assert_eq!(driver, NAME, "{}", id(object));
                classes.insert(format!("{} {name}", object["kind"].as_str().unwrap()));
                named += 1;
            }
        }
        for volume in list(object, "/spec/volumes").iter().filter_map(|one| one.get("csi")) {
            assert_eq!(volume["driver"], NAME);
            named += 1;
        }
        if object["kind"] == "CSIDriver" {
            assert_eq!(name, NAME);
        }
        if object["kind"] == "StorageClass" {
            let driver = object["parameters"]["driver"].as_str().unwrap();
            assert!(["union", "local", "image"].contains(&driver), "{name}");
            assert_eq!(object["volumeBindingMode"], "WaitForFirstConsumer", "{name}");
        }
    }
    assert!(named >= 17, "{named}");
    let has = |kind: &str, name: &Value| {
        let id = format!("{kind} {}", name.as_str().unwrap());
        assert!(classes.contains(&id), "no {id}");
    };
    for object in examples() {
        match object["kind"].as_str().unwrap() {
            "PersistentVolumeClaim" => has("StorageClass", &object["spec"]["storageClassName"]),
            "VolumeSnapshot" => {
                has("VolumeSnapshotClass", &object["spec"]["volumeSnapshotClassName"]);
            }
            _ => {}
        }
    }
    let suite = yaml(&read("test-driver.yaml"));
    assert_eq!(suite["DriverInfo"]["Name"], NAME);
    has("StorageClass", &suite["StorageClass"]["FromExistingClassName"]);
    has("VolumeSnapshotClass", &suite["SnapshotClass"]["FromExistingClassName"]);
    assert_eq!(suite["DriverInfo"]["TopologyKeys"], json!([format!("{NAME}/node")]));
}
