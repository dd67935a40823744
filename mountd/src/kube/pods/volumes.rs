//! The volumes of a pod, and what a container gets of them.
//!
//! Each step finds done what an earlier process did, so that a pod whose process was killed goes on
//! with its volumes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use laminafs::service::Propagation;
use laminafs::service::volumes::VolumeService;
use serde_json::Value;

use super::env::Variables;
use super::fault::Fault;
use super::home::Home;
use super::plan::{Container, Plan};
use super::{claims, files, mounts, source};
use crate::container::files::make_dir;
use crate::container::launch::Bind;
use crate::kube::backing;
use crate::kube::meta::{owners, text};
use crate::kube::objects::Store;

/// The files that each container gets beside its volumes and its last message.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// What the volumes of a pod are made of.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The objects.
    pub store: &'a Store,
    /// The volumes of this host.
    pub volumes: &'a VolumeService,
    /// Where the pod has its files.
    pub home: &'a Home,
    /// The pod.
    pub plan: &'a Plan,
}

/// A volume that containers can be given.
#[derive(Debug, Clone)]
pub struct Ready {
    path: PathBuf,
    read_only: bool,
}

fn failed(what: &str) -> impl Fn(io::Error) -> Fault + '_ {
    move |error| Fault::new(format!("{what}: {error}"))
}

/// Checks the type of a path of the host, and makes it if the type asks for that.
fn host_path(path: &Path, kind: &str) -> Result<(), Fault> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Fault::new(format!("hostPath {shown:?} is not absolute")));
    }
    let wrong =
        |what: &str| Err(Fault::new(format!("hostPath type check failed: {shown} is not {what}")));
    let made = |done: io::Result<()>| done.map_err(failed(&format!("making {shown}")));
    let meta = fs::metadata(path);
    match (kind, &meta) {
        // As container runtimes do with a source that is missing.
        ("" | "DirectoryOrCreate", Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            made(fs::create_dir_all(path))?;
            return made(fs::set_permissions(path, Permissions::from_mode(0o755)));
        }
        ("FileOrCreate", Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            let file = fs::File::options().write(true).create_new(true).open(path);
            made(file.map(drop))?;
            return made(fs::set_permissions(path, Permissions::from_mode(0o644)));
        }
        _ => {}
    }
    let kind_of = meta.map(|meta| meta.file_type()).ok();
    let is = |test: fn(&fs::FileType) -> bool| kind_of.as_ref().is_some_and(test);
    match kind {
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => wrong("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => wrong("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => wrong("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => wrong("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => wrong("a block device"),
        _ if kind_of.is_none() => wrong("there"),
        _ => Ok(()),
    }
}

/// Where a path of a container leads if no link is on the way.
fn place(path: &str) -> PathBuf {
    let mut at = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
    }
    at
}

/// Finds what would be mounted inside of a volume whose mounts spread to the host: it would be
/// mounted there too, and outlive the pod. Returns the name of the volume.
fn spreading(container: &Container) -> Option<(String, Fault)> {
    let mounts = || container.items("volumeMounts").enumerate();
    let target = |mount: &Value| place(text(mount, "/mountPath"));
    let last = text(&container.spec, "/terminationMessagePath");
    let files = FILES.into_iter().chain(last.starts_with('/').then_some(last));
    let files: Vec<_> =
        files.filter(|file| !mounts().any(|(_, mount)| target(mount) == place(file))).collect();
    for (index, above) in mounts() {
        if text(above, "/mountPropagation") != "Bidirectional" {
            continue;
        }
        let at = target(above);
        let inside = mounts().filter(|(other, _)| *other != index).find_map(|(_, mount)| {
            let found = target(mount).starts_with(&at);
            found.then(|| (text(mount, "/name"), text(mount, "/mountPath")))
        });
        let file = files.iter().find(|file| place(file).starts_with(&at));
        if let Some((name, path)) = inside.or(file.map(|file| (text(above, "/name"), *file))) {
            let fault = Fault::new(format!(
                "{path} of container {:?} is inside the Bidirectional mountPath {}: it would be \
                 mounted on the host too",
                container.name,
                at.display()
            ));
            return Some((name.to_owned(), fault));
        }
    }
    None
}

impl Site<'_> {
    /// Makes all volumes ready.
    ///
    /// # Errors
    /// The name of the volume that is not, and why.
    pub fn volumes(&self) -> Result<BTreeMap<String, Ready>, (String, Fault)> {
        if let Some(refusal) = self.plan.containers.iter().find_map(spreading) {
            return Err(refusal);
        }
        let mut all = BTreeMap::new();
        for volume in self.plan.volumes() {
            let name = text(volume, "/name").to_owned();
            match self.ready(&name, volume) {
                Ok(ready) => drop(all.insert(name, ready)),
                Err(fault) => return Err((name, fault)),
            }
        }
        Ok(all)
    }

    fn ready(&self, name: &str, volume: &Value) -> Result<Ready, Fault> {
        let at = self.home.volume(name);
        let ours = |read_only| Ready { path: at.clone(), read_only };
        if let Some(source) = volume.get("emptyDir") {
            self.empty_dir(&at, source).map_err(failed("emptyDir"))?;
            return Ok(ours(false));
        }
        if let Some(source) = volume.get("hostPath") {
            let path = self.of_host(Path::new(text(source, "/path")))?;
            host_path(&path, text(source, "/type"))?;
            return Ok(Ready { path, read_only: false });
        }
        if let Some(claim) = claims::claim_name(self.plan, volume) {
            return self.claimed(&claim, volume);
        }
        if let Some(files) = files::of(self.store, self.plan, volume)? {
            self.write_files(&at, volume, &files).map_err(failed("writing its files"))?;
            return Ok(ours(true));
        }
        if let Some(source) = volume.get("image") {
            let image = text(source, "/reference");
            self.image(&at, image).map_err(failed(image))?;
            return Ok(ours(true));
        }
        let fields = volume.as_object();
        let kind = fields.and_then(|fields| fields.keys().find(|key| *key != "name"));
        let kind = kind.map_or("none", |kind| kind);
        Err(Fault::new(format!("this host does not mount volumes of source {kind}")))
    }

    /// The place of a path of the host. One that is the content of a volume of Lamina is taken into
    /// use: otherwise it may be empty.
    fn of_host(&self, path: &Path) -> Result<PathBuf, Fault> {
        let own = backing::by_path(self.volumes, path);
        match own.map_err(|refusal| Fault::new(refusal.to_string()))? {
            Some(name) => claims::hold(self.volumes, (self.home, self.plan), &name),
            None => Ok(path.to_owned()),
        }
    }

    fn empty_dir(&self, at: &Path, source: &Value) -> io::Result<()> {
        let limit = files::limit(source, "/sizeLimit").filter(|limit| *limit > 0);
        match (text(source, "/medium"), limit) {
            ("Memory", limit) => mounts::tmpfs(at, limit, 0o777)?,
            (_, Some(limit)) => mounts::sized(at, limit, self.home.root())?,
            (_, None) => mounts::open_dir(at)?,
        }
        self.give_to_group(at)
    }

    /// Gives the root of a volume to the group of the pod.
    fn give_to_group(&self, at: &Path) -> io::Result<()> {
        let Some(group) = self.plan.group() else { return Ok(()) };
        chown(at, None, Some(group))?;
        let mode = fs::metadata(at)?.permissions().mode() & 0o7777;
        fs::set_permissions(at, Permissions::from_mode(mode | 0o2070))
    }

    fn claimed(&self, claim: &str, volume: &Value) -> Result<Ready, Fault> {
        let place = (&self.plan.namespace[..], claim);
        if volume.get("ephemeral").is_some() {
            let found = source::object(self.store, "persistentvolumeclaims", place)?;
            let is_own = |claim: Value| owners(&claim).contains(&self.plan.uid);
            if !found.is_some_and(is_own) {
                let pod = &self.plan.name;
                return Err(Fault::new(format!("PVC {claim} was not created for pod {pod}")));
            }
        }
        let read_only = volume.pointer("/persistentVolumeClaim/readOnly");
        let read_only = read_only.and_then(Value::as_bool).unwrap_or(false);
        let path = match claims::backing(self.store, self.volumes, place)? {
            claims::Backing::Path(path, kind) => {
                host_path(&path, &kind)?;
                path
            }
            claims::Backing::Volume(name) => {
                let path = claims::hold(self.volumes, (self.home, self.plan), &name)?;
                self.give_to_group(&path).map_err(failed("its group"))?;
                path
            }
        };
        Ok(Ready { path, read_only })
    }

    fn write_files(&self, at: &Path, volume: &Value, files: &files::Files) -> io::Result<()> {
        if volume.get("configMap").is_some() {
            make_dir(at)?;
        } else {
            // What may be a secret is on no disk.
            mounts::tmpfs(at, None, 0o755)?;
        }
        fs::set_permissions(at, Permissions::from_mode(0o755))?;
        files::write(at, files, self.plan.group()).map(drop)
    }

    fn image(&self, at: &Path, image: &str) -> io::Result<()> {
        mounts::end_if_dead(at)?;
        if mounts::is_mounted(at)? {
            return Ok(());
        }
        mounts::lamina(&[&format!("--image={image}")], at, self.home.root())
    }

    /// Writes the files of volumes anew whose ConfigMaps or Secrets changed.
    pub fn refresh(&self) {
        for volume in self.plan.volumes() {
            let name = text(volume, "/name");
            let at = self.home.volume(name);
            let done = match files::of(self.store, self.plan, volume) {
                Ok(Some(files)) if at.exists() => {
                    files::write(&at, &files, self.plan.group()).map(drop).map_err(failed(name))
                }
                Ok(_) => Ok(()),
                // The files stay as they are while their source is gone.
                Err(fault) => Err(fault),
            };
            if let Err(fault) = done {
                tracing::debug!("volume {name} of pod {}: {fault}", self.plan.name);
            }
        }
    }

    /// The mounts of a container, each one after those that it is inside of.
    ///
    /// # Errors
    /// A subpath that leads out, a device, a volume that is missing.
    pub fn binds(
        &self,
        ready: &BTreeMap<String, Ready>,
        container: &Container,
        variables: &Variables,
    ) -> Result<Vec<Bind>, Fault> {
        if container.items("volumeDevices").next().is_some() {
            return Err(Fault::new("volumeDevices are not supported on this host"));
        }
        let mut binds = Vec::new();
        for (number, mount) in container.items("volumeMounts").enumerate() {
            let name = text(mount, "/name");
            let volume = ready.get(name);
            let volume = volume.ok_or_else(|| Fault::new(format!("no volume {name:?}")))?;
            let expression = text(mount, "/subPathExpr");
            let subpath = match expression {
                "" => text(mount, "/subPath").to_owned(),
                expression => variables.expand(expression)?,
            };
            let (propagation, how) = match text(mount, "/mountPropagation") {
                "HostToContainer" => ("rslave", Propagation::Slave),
                "Bidirectional" => ("rshared", Propagation::Shared),
                _ => ("rprivate", Propagation::Private),
            };
            let source = if subpath.is_empty() {
                volume.path.clone()
            } else {
                let at = self.home.part(&container.name, number);
                let done = mounts::part(&volume.path, &subpath, &at, how);
                done.map_err(|error| Fault::new(mounts::subpath_fault(&subpath, &error)))?;
                at
            };
            let read_only = mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false);
            binds.push(Bind {
                source,
                target: format!("/{}", text(mount, "/mountPath").trim_start_matches('/')),
                read_only: read_only || volume.read_only,
                propagation,
            });
        }
        binds.sort_by_key(|bind| place(&bind.target).components().count());
        Ok(binds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_host_must_have_its_type_or_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let good = [
            ("", "file"),
            ("", "made"),
            ("Directory", "made"),
            ("DirectoryOrCreate", "deep/made"),
            ("File", "file"),
            ("FileOrCreate", "made-file"),
            ("Socket", "socket"),
        ];
        for (kind, name) in good {
            host_path(&at(name), kind).unwrap_or_else(|fault| panic!("{kind} {name}: {fault}"));
        }
        host_path(Path::new("/dev/null"), "CharDevice").unwrap();
        assert!(at("deep/made").is_dir() && at("made-file").is_file());
        let bad = [
            ("Directory", "file"),
            ("Directory", "none"),
            ("DirectoryOrCreate", "file"),
            ("File", "made"),
            ("FileOrCreate", "made"),
            ("FileOrCreate", "none/file"),
            ("Socket", "file"),
            ("CharDevice", "file"),
            ("BlockDevice", "file"),
        ];
        for (kind, name) in bad {
            assert!(host_path(&at(name), kind).is_err(), "{kind} {name}");
        }
        for (kind, path) in [("", "relative/x"), ("DirectoryOrCreate", "relative/x"), ("", "")] {
            let fault = host_path(Path::new(path), kind).unwrap_err();
            assert_eq!(fault.to_string(), format!("hostPath {path:?} is not absolute"));
        }
    }

    #[test]
    fn nothing_is_mounted_inside_of_a_volume_that_spreads_to_the_host() {
        let spreads = |path: &str, more: Value| {
            let both = serde_json::json!({
                "name": "h", "mountPath": path, "mountPropagation": "Bidirectional",
            });
            let container = serde_json::json!({
                "name": "c",
                "volumeMounts": [both, more],
                "terminationMessagePath": "/dev/termination-log",
            });
            let pod = serde_json::json!({"spec": {"containers": [container]}});
            spreading(Plan::of(pod).containers.first().unwrap()).map(|(name, _)| name)
        };
        let other = |path: &str| serde_json::json!({"name": "e", "mountPath": path});
        for inside in ["/h/nested", "/h/", "h/a/b", "/x/../h/y"] {
            assert_eq!(spreads("/h", other(inside)).as_deref(), Some("e"), "{inside}");
        }
        for outside in ["/hh", "/", "/h/../y"] {
            assert_eq!(spreads("/h", other(outside)), None, "{outside}");
        }
        // Over a file that the pod makes, and over all.
        for (over, wanted) in [("/etc", "h"), ("/dev", "h"), ("/", "e")] {
            assert_eq!(spreads(over, other("/e")).as_deref(), Some(wanted), "{over}");
        }
    }
}
