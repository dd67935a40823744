//! Pods with claims: their data stays, and what they use is not removed.

use std::fs;

use crate::manifests::{FOREVER, claim, class, pod};
use crate::place::Place;
use crate::until::until;

const MOUNT: &str = "volumeMounts: [{name: data, mountPath: /data}]";

fn with_claim(claim: &str, policy: &str) -> String {
    format!(
        "restartPolicy: {policy}\nvolumes: [{{name: data, persistentVolumeClaim: {{claimName: \
         {claim}}}}}]"
    )
}

#[test]
fn what_a_pod_writes_into_a_claim_the_next_pod_reads() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    for driver in ["local", "union"] {
        let name = format!("data-{driver}");
        place.apply(&(class(driver, driver) + &claim(&name, driver)));
        let script = format!("echo kept by {driver} > /data/file; {FOREVER}");
        let (writer, reader) = (format!("writer-{driver}"), format!("reader-{driver}"));
        place.apply(&pod(&writer, &script, &with_claim(&name, "Always"), MOUNT));
        place.good(&format!("wait --for=condition=Ready pod/{writer} --timeout=60s"));
        place.good(&format!("delete pod {writer}"));
        let read = pod(&reader, "cat /data/file", &with_claim(&name, "Never"), MOUNT);
        place.apply(&read);
        place.until_phase(&format!("pod/{reader}"), "Succeeded");
        let log = place.good(&format!("logs {reader}"));
        assert_eq!(log, format!("kept by {driver}\n"));
    }
}

#[test]
fn a_claim_under_a_running_pod_stays_until_the_pod_is_gone() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&(class("union", "union") + &claim("used", "union")));
    place.apply(&pod("user", FOREVER, &with_claim("used", "Always"), MOUNT));
    place.good("wait --for=condition=Ready pod/user --timeout=60s");
    let volume = place.field("pvc/used", ".spec.volumeName");
    place.good("delete pvc used --wait=false");
    assert!(place.good("get pvc used").contains("Terminating"));
    // Also whoever removes the volume by hand finds it in use.
    let refused = place.fails(&["volume", "rm", &volume]);
    assert!(refused.contains("in use") || refused.contains("claim"), "{refused}");
    assert_eq!(place.field("pod/user", ".status.phase"), "Running");
    place.good("delete pod user");
    place.until_gone("pvc/used");
    place.until_gone(&format!("pv/{volume}"));
    let list = || place.succeeds(&["volume", "ls", "--json"]);
    until("the removal of the volume", || !list().contains(&volume));
}

#[test]
fn an_ephemeral_claim_goes_with_its_pod() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    place.apply(&class("local", "local"));
    let template = "volumes:
- name: data
  ephemeral:
    volumeClaimTemplate:
      spec:
        storageClassName: local
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 1Mi}}";
    place.apply(&pod("brief", &format!("touch /data/x; {FOREVER}"), template, MOUNT));
    place.good("wait --for=condition=Ready pod/brief --timeout=60s");
    place.until_phase("pvc/brief-data", "Bound");
    place.good("delete pod brief");
    place.until_gone("pvc/brief-data");
}

#[test]
fn two_pods_share_a_directory_of_the_host_at_opt() {
    let Some(place) = Place::new() else { return };
    let _daemon = place.start(true);
    let host = place.directory("data");
    let more = format!("restartPolicy: Never\nvolumes: [{{name: d, hostPath: {{path: {host}}}}}]");
    let mount = "volumeMounts: [{name: d, mountPath: /opt}]";
    let wait = "while ! test -e /opt/from-a; do sleep 0.1; done; cat /opt/from-a; touch /opt/seen";
    place.apply(&pod("b", wait, &more, mount));
    let write = "echo from a > /opt/tmp; mkdir /opt/x; mv /opt/tmp /opt/from-a; \
                 while ! test -e /opt/seen; do sleep 0.1; done";
    place.apply(&pod("a", write, &more, mount));
    place.until_phase("pod/a", "Succeeded");
    place.until_phase("pod/b", "Succeeded");
    assert_eq!(place.good("logs b"), "from a\n");
    assert_eq!(fs::read(place.at("data/from-a")).unwrap(), b"from a\n");
}
