//! The content of volumes: a mount that shows one, and what is in one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use crate::place::Place;

/// A mount that shows a volume. It ends when it is dropped.
pub struct Shown(PathBuf);

impl Shown {
    /// Shows a volume in a mount that `lamina mount` serves.
    #[track_caller]
    pub fn new(place: &Place, volume: &str) -> Self {
        let (lower, at) = (place.directory("lower"), place.directory(&format!("at-{volume}")));
        fs::create_dir_all(format!("{lower}/data")).unwrap();
        place.succeeds(&["mount", "--lower", &lower, "--volume", &format!("{volume}:/data"), &at]);
        Self(PathBuf::from(at))
    }

    /// The directory of the volume.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.data().join(name), text).unwrap();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap_or_default();
    }
}

/// Ends the mounts below a place: a volume that nobody uses may stay mounted.
pub struct Cleanup<'a>(pub &'a Place);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let below = fs::canonicalize(self.0.at("")).unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let mut points: Vec<PathBuf> =
            points.map(PathBuf::from).filter(|point| point.starts_with(&below)).collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        for point in points {
            unmount(&point, UnmountFlags::DETACH).unwrap_or_default();
        }
    }
}

/// The files of a volume, or of a snapshot, with their texts.
#[track_caller]
pub fn files(place: &Place, volume: &str) -> BTreeMap<String, String> {
    let to = tempfile::tempdir().unwrap();
    let tar = to.path().join("tar");
    place.succeeds(&["volume", "export", volume, "--output", tar.to_str().unwrap()]);
    let done = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(to.path()).status().unwrap();
    assert!(done.success());
    fs::remove_file(&tar).unwrap();
    let entries = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}
