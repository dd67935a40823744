//! What an image says of its command, user and directory.

use std::fs;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::manifests::pod;
use crate::place::Place;

/// Imports the files of busybox as an image with a configuration.
fn import(place: &Place, name: &str, config: &serde_json::Value) {
    let dir = place.at("archive");
    fs::create_dir_all(&dir).unwrap();
    let tar = |words: &[&str]| {
        let done = Command::new("tar").args(words).current_dir(&dir).status().unwrap();
        assert!(done.success());
    };
    tar(&["-cf", "layer.tar", "-C", "../image", "."]);
    let digest = Sha256::digest(fs::read(dir.join("layer.tar")).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let diff_ids = [format!("sha256:{digest}")];
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let image = json!({"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]});
    fs::write(dir.join("manifest.json"), json!([image]).to_string()).unwrap();
    tar(&["-cf", "../archive.tar", "manifest.json", "config.json", "layer.tar"]);
    place.succeeds(&["image", "import", place.at("archive.tar").to_str().unwrap()]);
}

#[test]
fn a_pod_takes_command_user_directory_and_variables_from_its_image() {
    let Some(place) = Place::new() else { return };
    fs::write(place.at("image/etc/passwd"), "root:x:0:0::/root:/x\nweb:x:33:34::/w:/x\n").unwrap();
    let config = json!({
        "User": "web",
        "WorkingDir": "/tmp",
        "Env": ["FROM=image", "KEPT=yes"],
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["id -u; id -g; pwd; echo $FROM $KEPT $HOME"],
    });
    import(&place, "configured:1", &config);
    let _daemon = place.start(true);
    let manifest = pod("own", "", "restartPolicy: Never", "env: [{name: FROM, value: pod}]");
    let manifest = manifest.replace("busybox:1", "configured:1");
    place.apply(&manifest.replace("    command: [sh, -c, '']\n", ""));
    place.until_phase("pod/own", "Succeeded");
    assert_eq!(place.good("logs own"), "33\n34\n/tmp\npod yes /w\n");
    let forbidden = "restartPolicy: Never\nsecurityContext: {runAsNonRoot: true}";
    place.apply(&pod("root", "true", forbidden, ""));
    let message = place.event("pod/root", "Failed");
    assert!(message.contains("runAsNonRoot"), "{message}");
    place.good("delete pod root");
}
