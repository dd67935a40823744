//! Whom a container runs as.
//!
//! Names are looked up in the container's own `/etc/passwd` and `/etc/group`, which are resolved
//! within its root and read up to a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

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

impl User {
    /// The user, in the form of the OCI runtime.
    pub fn of_runtime(&self) -> serde_json::Value {
        serde_json::json!({"uid": self.uid, "gid": self.gid, "additionalGids": self.groups})
    }
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

/// A name that the tables of a container do not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such {kind} {name:?} of the image")]
pub struct Unknown {
    kind: &'static str,
    name: String,
}

/// The user of `USER[:GROUP]`, by names or numbers; root for an empty text. The numbers `uid` and
/// `gid` come before it. The root of the container is mounted.
///
/// # Errors
/// [`Unknown`].
pub fn resolve(
    root: &Path,
    text: &str,
    (wanted, wanted_gid): (Option<u32>, Option<u32>),
) -> Result<User, Unknown> {
    let (name, group) = text.split_once(':').unwrap_or((text, ""));
    let passwd = table(root, "etc/passwd");
    let groups = table(root, "etc/group");
    let unknown = |kind, name: &str| Unknown { kind, name: name.to_owned() };
    let entry = match wanted {
        Some(uid) => line(&passwd, 2, &uid.to_string()),
        None if name.is_empty() => line(&passwd, 2, "0"),
        None => line(&passwd, 0, name).or_else(|| line(&passwd, 2, name)),
    };
    let field = |index: usize| entry.as_ref().and_then(|entry| entry.get(index).copied());
    let uid = match wanted {
        Some(uid) => uid,
        None if name.is_empty() => 0,
        None => id(name).or_else(|| field(2).and_then(id)).ok_or_else(|| unknown("user", name))?,
    };
    let of_group = match group {
        "" => None,
        group => {
            let found = line(&groups, 0, group);
            let found = found.and_then(|found| found.get(2).and_then(|gid| id(gid)));
            Some(id(group).or(found).ok_or_else(|| unknown("group", group))?)
        }
    };
    let of_user = field(3).and_then(id);
    let gid = wanted_gid.or(of_group).or(of_user).unwrap_or(0);
    let mut more = Vec::new();
    if let Some(name) = field(0) {
        let is_member = |fields: &Vec<&str>| {
            fields.get(3).is_some_and(|list| list.split(',').any(|one| one == name))
        };
        let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let of = lines.filter(is_member).filter_map(|fields| fields.get(2).and_then(|gid| id(gid)));
        more.extend(of);
    }
    Ok(User { uid, gid, groups: more, home: field(5).map(str::to_owned) })
}
