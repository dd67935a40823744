//! Whom a container runs as.
//!
//! Numbers of the pod come first, then the user of the image, by name or number. Names are looked
//! up in the container's own `/etc/passwd` and `/etc/group`, which are resolved within its root and
//! read up to a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde_json::Value;

use super::fault::Fault;
use super::plan::{Container, Plan, number};
use crate::kube::meta::text;

/// The most bytes that are read of a table of users or groups.
const TABLE_MAX: u64 = 1 << 20;

/// User, group, and further groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home directory, if there is one.
    pub home: Option<String>,
}

/// A file of a container, as text; empty if it cannot be read.
fn table(root: &Path, name: &str) -> String {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened =
        openat2(CWD, root, directory, Mode::empty(), ResolveFlags::empty()).and_then(|root| {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            openat2(&root, name, flags, Mode::empty(), resolve)
        });
    let Ok(opened) = opened else { return String::new() };
    let mut bytes = Vec::new();
    match File::from(opened).take(TABLE_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// A line of a table whose field has a value.
fn line<'a>(table: &'a str, index: usize, value: &str) -> Option<Vec<&'a str>> {
    let lines = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.into_iter().find(|fields| fields.get(index) == Some(&value))
}

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
    let of_image = text(image, "/config/User");
    let (name, group) = of_image.split_once(':').unwrap_or((of_image, ""));
    let passwd = table(root, "etc/passwd");
    let groups = table(root, "etc/group");
    let unknown = |what: &str, name: &str| Fault::new(format!("{what} {name:?} of the image"));
    let wanted = set(plan, container, "runAsUser");
    let entry = match wanted {
        Some(uid) => line(&passwd, 2, &uid.to_string()),
        None if name.is_empty() => line(&passwd, 2, "0"),
        None => line(&passwd, 0, name).or_else(|| line(&passwd, 2, name)),
    };
    let field = |index: usize| entry.as_ref().and_then(|entry| entry.get(index).copied());
    let uid = match wanted {
        Some(uid) => uid,
        None if name.is_empty() => 0,
        None => id(name)
            .or_else(|| field(2).and_then(id))
            .ok_or_else(|| unknown("no such user", name))?,
    };
    let of_group = match group {
        "" => None,
        group => {
            let found = line(&groups, 0, group);
            let found = found.and_then(|found| found.get(2).and_then(|gid| id(gid)));
            Some(id(group).or(found).ok_or_else(|| unknown("no such group", group))?)
        }
    };
    let of_user = field(3).and_then(id);
    let gid = set(plan, container, "runAsGroup").or(of_group).or(of_user).unwrap_or(0);
    let forbids_root = [&container.spec, plan.object.get("spec").unwrap_or(&Value::Null)]
        .iter()
        .find_map(|at| at.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool));
    if forbids_root == Some(true) && uid == 0 {
        let text = "container has runAsNonRoot and image will run as root";
        return Err(Fault::new(text));
    }
    let mut more: Vec<u32> = plan.group().into_iter().collect();
    let listed = plan.object.pointer("/spec/securityContext/supplementalGroups");
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    more.extend(listed.filter_map(|one| u32::try_from(one.as_u64()?).ok()));
    if let Some(name) = field(0) {
        let is_member = |fields: &Vec<&str>| {
            fields.get(3).is_some_and(|list| list.split(',').any(|one| one == name))
        };
        let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let of = lines.filter(is_member).filter_map(|fields| fields.get(2).and_then(|gid| id(gid)));
        more.extend(of);
    }
    more.sort_unstable();
    more.dedup();
    Ok(User { uid, gid, groups: more, home: field(5).map(str::to_owned) })
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
