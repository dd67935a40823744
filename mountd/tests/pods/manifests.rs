//! Manifests.

/// A pod of one container that runs a script. `more` are lines of the specification of the pod,
/// `of_container` those of the container.
pub fn pod(name: &str, script: &str, more: &str, of_container: &str) -> String {
    let script = script.replace('\'', "''");
    let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
    let own: String = of_container.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: test}}}}
spec:
  terminationGracePeriodSeconds: 1
{more}  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, '{script}']
{own}"
    )
}

pub const FOREVER: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

pub fn claim(name: &str, class: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: {class}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 16Mi}}}}
"
    )
}

pub fn class(name: &str, driver: &str) -> String {
    format!(
        "---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: lamina.dev/volume
parameters: {{driver: {driver}}}
"
    )
}
