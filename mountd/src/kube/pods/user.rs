//! Whom a container of a pod runs as: numbers of the pod come first, then the user of the image, by
//! name or number.

use std::path::Path;

use serde_json::Value;

use super::fault::Fault;
use super::plan::{Container, Plan, number};
use crate::container::user::{User, resolve};
use crate::kube::meta::text;

/// A number of the container's security context, or of the pod's.
fn set(plan: &Plan, container: &Container, name: &str) -> Option<u32> {
    let pointer = format!("/securityContext/{name}");
    let own = number(&container.spec, &pointer);
    let found = own.or_else(|| number(&plan.object, &format!("/spec{pointer}")))?;
    u32::try_from(found).ok()
}

/// Whom a container runs as; its root is mounted.
///
/// # Errors
/// A name that its tables do not have; root where the pod forbids it.
pub fn user(plan: &Plan, container: &Container, image: &Value, root: &Path) -> Result<User, Fault> {
    let numbers = (set(plan, container, "runAsUser"), set(plan, container, "runAsGroup"));
    let found = resolve(root, text(image, "/config/User"), numbers);
    let mut user = found.map_err(|error| Fault::new(error.to_string()))?;
    let forbids_root = [&container.spec, plan.object.get("spec").unwrap_or(&Value::Null)]
        .iter()
        .find_map(|at| at.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool));
    if forbids_root == Some(true) && user.uid == 0 {
        let text = "container has runAsNonRoot and image will run as root";
        return Err(Fault::new(text));
    }
    let listed = plan.object.pointer("/spec/securityContext/supplementalGroups");
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    user.groups.extend(plan.group());
    user.groups.extend(listed.filter_map(|one| u32::try_from(one.as_u64()?).ok()));
    user.groups.sort_unstable();
    user.groups.dedup();
    Ok(user)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(context: Value) -> (Plan, Container) {
        let plan = Plan::of(json!({"spec": {
            "securityContext": {"fsGroup": 7},
            "containers": [{"name": "c", "securityContext": context}],
        }}));
        let container = plan.containers.first().unwrap().clone();
        (plan, container)
    }

    #[test]
    fn numbers_of_the_pod_come_before_names_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), "tape:x:26:web\nweb:x:34:\n").unwrap();
        let of = |context: Value, image: &str| {
            let (plan, container) = container(context);
            let image = json!({"config": {"User": image}});
            user(&plan, &container, &image, root.path())
        };
        let web = of(json!({}), "web").unwrap();
        assert_eq!((web.uid, web.gid, &web.groups[..]), (33, 34, &[7, 26][..]));
        assert_eq!(web.home.as_deref(), Some("/var/www"));
        let numbers = of(json!({"runAsUser": 5, "runAsGroup": 6}), "web").unwrap();
        assert_eq!((numbers.uid, numbers.gid, &numbers.groups[..]), (5, 6, &[7][..]));
        let root = of(json!({}), "").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        of(json!({}), "nobody").unwrap_err();
        of(json!({"runAsNonRoot": true}), "").unwrap_err();
        of(json!({"runAsNonRoot": true}), "web").unwrap();
    }
}
