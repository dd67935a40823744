//! JSON: one style of keys in all of it, each key in docs/JSON.md, and errors as objects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::place::{Place, Program};

/// Keys below which the keys are those of users, or of another document.
const FOREIGN: [&str; 4] = ["labels", "options", "config", "by_opcode"];

/// Commands that print JSON, with what each needs before it.
const PRINTED: &[&str] = &[
    "lamina status --json",
    "lamina mount --lower low --image app --volume data:/sub at
     lamina status --json; lamina umount at",
    "lamina doctor --json",
    "lamina image import app.tar -t again --json 2>err",
    "lamina image ls --json",
    "lamina image inspect app",
    "lamina image history app --json",
    "lamina image layers --json",
    "lamina layer ls --json",
    "lamina image verify --json",
    "lamina image export app -o out.tar --json",
    "lamina image commit ./up --image app -t made --json",
    "lamina image gc --json",
    "lamina volume create v --label a=b --json",
    "lamina volume ls --json",
    "lamina volume inspect v",
    "lamina volume df --json",
    "lamina volume label v Some=Label --json",
    "lamina volume rename v w --json",
    "lamina volume create u --driver union --size 64M --json",
    "lamina volume resize u 128M --json",
    "lamina volume limit u --iops 500 --json",
    "lamina volume snapshot create u --json s1",
    "lamina volume snapshot ls --json",
    "lamina volume rollback u s1 --json",
    "lamina volume clone u c --json",
    "lamina volume diff u@s1 --json",
    "lamina volume export data -o volume.tar --json",
    "lamina volume import volume.tar i --json",
    "lamina volume backup data file://$PWD/repo --json",
    "lamina volume backup ls file://$PWD/repo --json",
    "lamina volume backup check file://$PWD/repo --json",
    "id=$(lamina volume backup ls -q file://$PWD/repo)
     lamina volume restore file://$PWD/repo r --id $id --json",
    "lamina volume backup rm --dry-run --keep-last 1 file://$PWD/repo --json",
    "lamina volume backup prune file://$PWD/repo --json",
    "lamina volume backup key key --json",
    "lamina volume snapshot rm u@s1 --json",
    "lamina volume rm w --json",
    "lamina volume ls --trash --json",
    "lamina volume undelete w --json",
    "lamina volume prune --all --dry-run --json",
    "lamina volume recover --json",
    "lamina container create app --name box >/dev/null && lamina container ls --json",
    "lamina container inspect box",
    "lamina container snapshot create box s && lamina container snapshot ls --json",
];

/// All values of a text: one document, or one in each line.
fn values(text: &str) -> Vec<Value> {
    let all: Result<Vec<Value>, _> =
        serde_json::Deserializer::from_str(text).into_iter::<Value>().collect();
    all.unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| keys(one, found)),
        Value::Object(all) => {
            for (key, value) in all {
                found.insert(key.clone());
                if !FOREIGN.contains(&key.as_str()) {
                    keys(value, found);
                }
            }
        }
        _ => {}
    }
}

fn is_snake(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    key.bytes().all(plain) && key.starts_with(|one: char| one.is_ascii_lowercase())
}

#[test]
fn all_json_has_keys_of_one_style_and_the_document_names_them() {
    let place = Place::new(&Program::new());
    let mut found = BTreeSet::new();
    for command in PRINTED {
        let output = place.run(command);
        let text = String::from_utf8(output.stdout).unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {text}{shown}");
        // The first line of some is the result of what was done before.
        let start = text.find(['[', '{']).unwrap_or_else(|| panic!("{command}: {text}"));
        values(&text[start..]).iter().for_each(|value| keys(value, &mut found));
    }
    let failed = place.run("lamina image inspect nosuch --json");
    values(&String::from_utf8(failed.stderr).unwrap()).iter().for_each(|one| keys(one, &mut found));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/JSON.md");
    let document = fs::read_to_string(path).unwrap();
    let unknown: Vec<_> =
        found.iter().filter(|key| !document.contains(&format!("`{key}`"))).collect();
    assert!(unknown.is_empty(), "docs/JSON.md does not name {unknown:?}");
    let odd: Vec<_> = found.iter().filter(|key| !is_snake(key)).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn an_error_is_one_object_on_the_standard_error() {
    let place = Place::new(&Program::new());
    for (command, code, object) in [
        ("lamina image inspect nosuch --json", 1, Some("nosuch")),
        ("lamina volume rm nosuch --json", 1, Some("nosuch")),
        ("lamina volume create data --driver union --json", 1, None),
        ("lamina volume create 'a b' --json", 1, Some("a b")),
        ("lamina volume lss --json", 2, Some("lss")),
        ("lamina volume create --json --nosuch", 2, Some("--nosuch")),
        ("lamina status --json=x", 2, None),
        ("lamina image import nowhere.tar --json", 1, Some("nowhere.tar")),
        ("lamina image ls --json --root nowhere", 1, Some("nowhere")),
    ] {
        let output = place.run(command);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(code), &b""[..]), "{command}");
        if command.contains("--json=") {
            continue; // it is no request for JSON
        }
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{command}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["code", "error", "hint", "object"], "{text}");
        assert_eq!(error["code"], code, "{text}");
        let message = error["error"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{text}");
        if let Some(object) = object {
            let found = error["object"].as_str().unwrap();
            assert!(found == object || found.ends_with(&format!("/{object}")), "{text}");
        }
    }
}
