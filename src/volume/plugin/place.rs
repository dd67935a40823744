//! Where the socket of a volume plugin is: the places in which dockerd looks, in its order.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::volume::error::{Result, VolumeError};

/// The longest name of a plugin.
const NAME_MAX: usize = 128;
/// The longest file that names a socket.
const FILE_MAX: u64 = 64 << 10;

/// The directories with the sockets of plugins and with files that name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginPlaces {
    /// The directory of sockets.
    pub sockets: PathBuf,
    /// The directories of files `NAME.spec` and `NAME.json`.
    pub specs: Vec<PathBuf>,
}

impl Default for PluginPlaces {
    /// The directories of dockerd.
    fn default() -> Self {
        let specs = ["/etc/docker/plugins", "/usr/lib/docker/plugins"].map(PathBuf::from);
        Self { sockets: PathBuf::from("/run/docker/plugins"), specs: specs.into() }
    }
}

/// `NAME.json`, as far as it is needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Json {
    #[serde(default)]
    addr: String,
}

/// Whether a text can be the name of a plugin. It becomes part of paths.
pub(super) fn is_name(name: &str) -> bool {
    let may_follow = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(may_follow)
}

impl PluginPlaces {
    /// The socket of a plugin.
    ///
    /// # Errors
    /// [`VolumeError::NoPlugin`], [`VolumeError::PluginAddress`]; as open(2).
    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        let paths = |dir: &Path, end: &str| {
            let file = format!("{name}.{end}");
            [dir.join(&file), dir.join(name).join(&file)]
        };
        let is_socket =
            |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if let Some(socket) = paths(&self.sockets, "sock").into_iter().find(is_socket) {
            return Ok(socket);
        }
        for end in ["spec", "json"] {
            for path in self.specs.iter().flat_map(|dir| paths(dir, end)) {
                if let Some(text) = read(&path)? {
                    return address(&path, &text, end == "json");
                }
            }
        }
        let specs: Vec<_> = self.specs.iter().map(|dir| dir.display().to_string()).collect();
        Err(VolumeError::NoPlugin {
            name: name.to_owned(),
            sockets: self.sockets.clone(),
            specs: specs.join(" or "),
        })
    }
}

fn refused(path: &Path, what: impl Into<String>) -> VolumeError {
    VolumeError::PluginAddress { path: path.to_owned(), what: what.into() }
}

/// The text of a regular file, if it is there.
fn read(path: &Path) -> Result<Option<String>> {
    // A pipe would be waited for.
    match fs::metadata(path) {
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(refused(path, error.to_string())),
        Ok(found) if !found.is_file() => return Err(refused(path, "it is not a file")),
        Ok(_) => {}
    }
    let read = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map(Some).map_err(|error| refused(path, error.to_string()))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn address(path: &Path, text: &str, is_json: bool) -> Result<PathBuf> {
    let address = if is_json {
        let found: Json =
            serde_json::from_str(text).map_err(|error| refused(path, error.to_string()))?;
        found.addr
    } else {
        text.trim().to_owned()
    };
    let Some(socket) = address.strip_prefix("unix://") else {
        let what = format!("the address {address:?} is not supported: use unix:///PATH");
        return Err(refused(path, what));
    };
    if !socket.starts_with('/') || socket.contains(['\n', '\0']) {
        return Err(refused(path, format!("{address:?} is not unix:///PATH")));
    }
    Ok(PathBuf::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn plugins_are_found_where_dockerd_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let places = PluginPlaces {
            sockets: dir.path().join("run"),
            specs: vec![dir.path().join("etc"), dir.path().join("lib")],
        };
        let found = |name: &str| places.find(name);
        let error = found("none").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, VolumeError::NoPlugin { .. }), "{text}");
        assert!(text.contains("none") && text.contains("/etc or ") && text.contains("/run"));
        let _a = UnixListener::bind(at("run/a.sock")).unwrap();
        let _b = UnixListener::bind(at("run/b/b.sock")).unwrap();
        fs::write(at("etc/a.spec"), "unix:///other").unwrap();
        fs::write(at("etc/c.spec"), "unix:///c/sock\n").unwrap();
        fs::write(at("etc/c.json"), "nonsense").unwrap();
        fs::write(at("lib/d/d.spec"), "unix:///d").unwrap();
        fs::write(at("lib/e.json"), r#"{"Name":"e","Addr":"unix:///e","TLSConfig":{}}"#).unwrap();
        // A file is no socket.
        fs::write(at("run/c.sock"), "").unwrap();
        assert_eq!(found("a").unwrap(), at("run/a.sock"));
        assert_eq!(found("b").unwrap(), at("run/b/b.sock"));
        for name in ["d", "e"] {
            assert_eq!(found(name).unwrap(), PathBuf::from(format!("/{name}")));
        }
        assert_eq!(found("c").unwrap(), PathBuf::from("/c/sock"));
    }

    #[test]
    fn other_addresses_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let places =
            PluginPlaces { sockets: dir.path().join("run"), specs: vec![dir.path().to_owned()] };
        for (file, text, word) in [
            ("a.spec", "tcp://127.0.0.1:80", "\"tcp://127.0.0.1:80\" is not supported"),
            ("b.spec", "", "not supported"),
            ("c.spec", "unix://relative", "unix:///PATH"),
            ("d.spec", "unix:///a\nunix:///b", "unix:///PATH"),
            ("e.json", "{\"Addr\":\"https://host\"}", "https://host"),
            ("f.json", "{}", "not supported"),
            ("g.json", "[", "g.json"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
            let name = &file[..1];
            let error = places.find(name).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(file), "{file}: {error}");
        }
        fs::create_dir(dir.path().join("h.spec")).unwrap();
        assert!(places.find("h").unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn names_are_no_paths() {
        for good in ["a", "local-persist", "ceph.rbd_2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-a", ".a", "a b", "a\0", "é", &"a".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
