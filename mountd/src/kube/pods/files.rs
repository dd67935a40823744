//! Files of ConfigMaps, Secrets and of the pod itself, as a volume.
//!
//! The files are in a directory of their own behind the link `..data`, as kubelet has them: a new
//! version is written beside the old one, and one rename of the link shows all of it at once.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use laminafs::service::hostpath;
use serde_json::Value;

use super::fault::Fault;
use super::plan::{Plan, number};
use super::source::{data, field};
use crate::kube::meta::text;
use crate::kube::objects::Store;

/// The link to the present version.
const DATA: &str = "..data";
/// The same, before it is in its place.
const NEW_DATA: &str = "..data_tmp";
/// The mode of files where the volume names none.
const MODE: u32 = 0o644;

/// The content and the mode of files, by their paths in the volume.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

fn mode(value: &Value, name: &str, unset: u32) -> u32 {
    value
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(unset)
}

fn keys(
    store: &Store,
    plan: &Plan,
    (source, record, name): (&Value, &str, &str),
    unset: u32,
) -> Result<Files, Fault> {
    let is_optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
    let found = data(store, (record, is_optional), (&plan.namespace, name))?;
    let Some(mut found) = found else { return Ok(Files::new()) };
    let Some(items) = source.get("items").and_then(Value::as_array).filter(|all| !all.is_empty())
    else {
        return Ok(found.into_iter().map(|(key, bytes)| (key, (bytes, unset))).collect());
    };
    let mut files = Files::new();
    for item in items {
        let key = text(item, "/key");
        match found.remove(key) {
            Some(bytes) => {
                files.insert(text(item, "/path").to_owned(), (bytes, mode(item, "mode", unset)));
            }
            None if is_optional => {}
            None => {
                let what = record.trim_end_matches('s');
                return Err(Fault::new(format!("{what} references non-existent key: {key}")));
            }
        }
    }
    Ok(files)
}

fn shown(plan: &Plan, source: &Value, unset: u32) -> Result<Files, Fault> {
    let mut files = Files::new();
    for item in source.get("items").and_then(Value::as_array).into_iter().flatten() {
        let Some(reference) = item.get("fieldRef") else {
            return Err(Fault::new("downwardAPI with resourceFieldRef is not supported here"));
        };
        let content = field(&plan.object, text(reference, "/fieldPath"))?.into_bytes();
        files.insert(text(item, "/path").to_owned(), (content, mode(item, "mode", unset)));
    }
    Ok(files)
}

/// The files of a volume; `None` for a volume of another kind.
///
/// # Errors
/// A reference to what does not exist; a source that this host does not have.
pub fn of(store: &Store, plan: &Plan, volume: &Value) -> Result<Option<Files>, Fault> {
    for (kind, record, name) in
        [("configMap", "configmaps", "/name"), ("secret", "secrets", "/secretName")]
    {
        if let Some(source) = volume.get(kind) {
            let unset = mode(source, "defaultMode", MODE);
            return keys(store, plan, (source, record, text(source, name)), unset).map(Some);
        }
    }
    if let Some(source) = volume.get("downwardAPI") {
        return shown(plan, source, mode(source, "defaultMode", MODE)).map(Some);
    }
    let Some(projected) = volume.get("projected") else { return Ok(None) };
    let unset = mode(projected, "defaultMode", MODE);
    let mut files = Files::new();
    for source in projected.get("sources").and_then(Value::as_array).into_iter().flatten() {
        for (kind, record) in [("configMap", "configmaps"), ("secret", "secrets")] {
            if let Some(part) = source.get(kind) {
                files.extend(keys(store, plan, (part, record, text(part, "/name")), unset)?);
            }
        }
        if let Some(part) = source.get("downwardAPI") {
            files.extend(shown(plan, part, unset)?);
        }
        for other in ["serviceAccountToken", "clusterTrustBundle", "podCertificate"] {
            if source.get(other).is_some() {
                return Err(Fault::new(format!("projected source {other} is not supported here")));
            }
        }
    }
    Ok(Some(files))
}

/// A path in a volume that leads nowhere else.
fn checked(path: &str) -> io::Result<PathBuf> {
    let is_plain = |part: Component<'_>| match part {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b".."),
        _ => false,
    };
    let path = Path::new(path);
    if path.components().next().is_none() || !path.components().all(is_plain) {
        return Err(invalid(format!("{} is not a path of a file in a volume", path.display())));
    }
    // Without what makes two paths of one, as in `a//b`.
    Ok(path.components().collect())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

/// Files by paths. No path leads through another file.
type Placed = BTreeMap<PathBuf, (Vec<u8>, u32)>;

fn placed(files: &Files) -> io::Result<Placed> {
    let mut placed = Placed::new();
    for (path, file) in files {
        placed.insert(checked(path)?, file.clone());
    }
    for path in placed.keys() {
        if let Some(above) = path.ancestors().skip(1).find(|above| placed.contains_key(*above)) {
            let (above, path) = (above.display(), path.display());
            let text = format!("{above} and {path} cannot both be files of a volume");
            return Err(invalid(text));
        }
    }
    Ok(placed)
}

/// Whether a directory has exactly these files.
fn is_same(dir: &Path, files: &Placed) -> bool {
    files.iter().all(|(path, (bytes, mode))| {
        let at = dir.join(path);
        let meta = fs::metadata(&at).map(|meta| meta.permissions().mode() & 0o777);
        meta.is_ok_and(|found| found == *mode) && fs::read(&at).is_ok_and(|found| found == *bytes)
    }) && count(dir).is_ok_and(|found| found == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

/// Writes the files of a volume, unless it has them. Whether something changed.
///
/// # Errors
/// As the system calls; a path that leads out of the volume, or through another file.
pub fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    let mut wanted = placed(files)?;
    if group.is_some() {
        // The group of the volume reads them.
        wanted.values_mut().for_each(|(_, mode)| *mode |= 0o440);
    }
    // What an attempt left that was killed.
    tidy(dir)?;
    let is_changed = !is_same(&dir.join(DATA), &wanted);
    if is_changed && let Err(error) = begin(dir, &wanted, group) {
        tidy(dir)?;
        return Err(error);
    }
    let linked = link(dir);
    tidy(dir)?;
    linked.map(|()| is_changed)
}

/// Writes a new version and shows it.
fn begin(dir: &Path, files: &Placed, group: Option<u32>) -> io::Result<()> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let version = format!("..{}", since.map_or(0, |since| since.as_nanos()));
    let new = dir.join(&version);
    fs::create_dir(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    for (path, (bytes, mode)) in files {
        let at = new.join(path);
        if let Some(above) = at.parent() {
            fs::create_dir_all(above)?;
            let mut above = above;
            while above != new {
                fs::set_permissions(above, Permissions::from_mode(0o755))?;
                above = above.parent().unwrap_or(&new);
            }
        }
        fs::write(&at, bytes)?;
        chown(&at, None, group)?;
        fs::set_permissions(&at, Permissions::from_mode(*mode))?;
    }
    symlink(&version, dir.join(NEW_DATA))?;
    fs::rename(dir.join(NEW_DATA), dir.join(DATA))
}

fn is_version(name: &OsStr) -> bool {
    let digits = name.as_encoded_bytes().strip_prefix(b"..");
    digits.is_some_and(|all| !all.is_empty() && all.iter().all(u8::is_ascii_digit))
}

/// Removes the versions that are not shown.
fn tidy(dir: &Path) -> io::Result<()> {
    let shown = match fs::read_link(dir.join(DATA)) {
        Err(error) if error.kind() == ErrorKind::NotFound => PathBuf::new(),
        shown => shown?,
    };
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name == NEW_DATA {
            fs::remove_file(dir.join(&name))?;
        } else if is_version(&name) && Path::new(&name) != shown {
            hostpath::remove_own(&dir.join(&name))?;
        }
    }
    Ok(())
}

/// Links the names of the version that is shown to it, and removes those of the one before. What
/// else is in the volume stays: a subpath that was missing is a directory in it.
fn link(dir: &Path) -> io::Result<()> {
    let shown = dir.join(DATA);
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let at = dir.join(&name);
        let is_ours = fs::read_link(&at).is_ok_and(|to| to == Path::new(DATA).join(&name));
        if is_ours && !shown.join(&name).exists() {
            fs::remove_file(at)?;
        }
    }
    for entry in fs::read_dir(&shown)? {
        let name = entry?.file_name();
        let (target, at) = (Path::new(DATA).join(&name), dir.join(&name));
        match symlink(&target, &at) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if at.is_symlink() {
                    continue;
                }
                if count(&at)? > 0 {
                    return Err(error);
                }
                hostpath::remove_own(&at)?;
                symlink(&target, &at)?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// The number of bytes that a limit of a volume allows.
pub fn limit(volume: &Value, pointer: &str) -> Option<u64> {
    let value = volume.pointer(pointer)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let quantity: laminafs::claim::quantity::Quantity = text.parse().ok()?;
    u64::try_from(quantity.bytes()).ok().or_else(|| number(volume, pointer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str, u32)]) -> Files {
        let one = |(path, text, mode): &(&str, &str, u32)| {
            ((*path).to_owned(), (text.as_bytes().to_vec(), *mode))
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_one_behind_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let first = files(&[("a", "1", 0o644), ("deep/b", "2", 0o400)]);
        assert!(write(at, &first, None).unwrap());
        assert!(!write(at, &first, None).unwrap());
        assert_eq!(fs::read_link(at.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read(at.join("deep/b")).unwrap(), b"2");
        let mode = fs::metadata(at.join("deep/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        assert!(write(at, &files(&[("a", "3", 0o644)]), None).unwrap());
        assert_eq!(fs::read(at.join("a")).unwrap(), b"3");
        assert!(!at.join("deep").is_symlink());
        let versions = fs::read_dir(at).unwrap().count();
        assert_eq!(versions, 3, "the link, the version and the file");
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["", "/a", "../a", "a/../../b", "..data", "a/..x"] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &files(&[(path, "x", 0o644)]), None).unwrap_err();
        }
    }

    /// The names in a directory, without those of versions.
    fn names(at: &Path) -> Vec<String> {
        let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.filter(|name| !is_version(name));
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_in_the_way_of_each_other_are_named_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let both = files(&[("p", "1", 0o644), ("p-x", "2", 0o644), ("p//q", "3", 0o644)]);
        let error = write(at, &both, None).unwrap_err().to_string();
        assert!(error.contains("p and p/q cannot both be files"), "{error}");
        assert_eq!(fs::read_dir(at).unwrap().count(), 0);
        let same = files(&[("a/b", "1", 0o644), ("a//b", "1", 0o644)]);
        assert!(write(at, &same, None).unwrap());
        assert!(!write(at, &same, None).unwrap());
    }

    #[test]
    fn a_version_that_could_not_be_written_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(write(at, &files(&[("a", "1", 0o644)]), None).unwrap());
        let long = "x".repeat(300);
        for _ in 0..3 {
            write(at, &files(&[("a", "2", 0o644), (&long, "", 0o644)]), None).unwrap_err();
            assert_eq!(fs::read_dir(at).unwrap().count(), 3);
        }
        assert_eq!(fs::read(at.join("a")).unwrap(), b"1");
    }

    #[test]
    fn what_a_killed_attempt_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let first = files(&[("a", "1", 0o644)]);
        write(at, &first, None).unwrap();
        fs::create_dir_all(at.join("..123/deep")).unwrap();
        symlink("..123", at.join(NEW_DATA)).unwrap();
        // As after the rename of `..data`.
        fs::remove_file(at.join("a")).unwrap();
        symlink("..data/old", at.join("old")).unwrap();
        assert!(!write(at, &first, None).unwrap());
        assert_eq!(names(at), ["..data", "a"]);
        assert!(!at.join("..123").exists());
    }

    #[test]
    fn a_directory_of_a_missing_subpath_becomes_the_file_that_comes() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        write(at, &files(&[("a", "1", 0o644)]), None).unwrap();
        fs::create_dir_all(at.join("later/deep")).unwrap();
        assert!(write(at, &files(&[("a", "2", 0o644)]), None).unwrap());
        assert_eq!(fs::read_dir(at).unwrap().count(), 4, "the directory is there, no old version");
        assert!(write(at, &files(&[("later", "3", 0o644)]), None).unwrap());
        assert_eq!(fs::read(at.join("later")).unwrap(), b"3");
        assert_eq!(names(at), ["..data", "later"]);
        // What is no directory is nobody's to remove.
        fs::create_dir(at.join("full")).unwrap();
        fs::write(at.join("full/x"), "").unwrap();
        write(at, &files(&[("full", "4", 0o644)]), None).unwrap_err();
        assert!(at.join("full/x").exists());
        assert_eq!(fs::read_dir(at).unwrap().count(), 3, "the link, the version, the directory");
    }
}
