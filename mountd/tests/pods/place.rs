//! A host with an image of busybox whose daemon runs pods.

use std::fs;
use std::ops::Deref;
use std::process::{Child, Stdio};

use crate::busybox::{self, BUSYBOX};
use crate::kubectl::{Daemon, Host};
use crate::programs::has;

/// A data root below /tmp. All pods are ended when it is dropped.
pub struct Place(Host);

impl Deref for Place {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let uids = fs::read_dir(self.at("root/pods")).into_iter().flatten().flatten();
        for uid in uids {
            for pid in self.supervisors(uid.file_name().to_str().unwrap()) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                    .unwrap_or_default();
            }
            busybox::end_all(&self.at("run/pods").join(uid.file_name()).join("state"));
        }
        busybox::unmount_below(&self.at(""));
    }
}

impl Place {
    /// A place with the image `busybox:1`, unless this host lacks a program.
    pub fn new() -> Option<Self> {
        if !(has(BUSYBOX) && has("/usr/bin/crun")) {
            return None;
        }
        let place = Self(Host::new()?);
        let image = place.at("image");
        busybox::tree(&image);
        let image = image.to_str().unwrap();
        place.succeeds(&["image", "import", "--tag", "busybox:1", image]);
        Some(place)
    }

    /// Starts a daemon, which runs pods if it is asked to, and waits until it listens.
    pub fn start(&self, runs: bool) -> Daemon {
        self.start_node("here", &format!("[kube]\nrun_pods = {runs}\n"), &[])
    }

    /// Starts kubectl, which goes on.
    pub fn begin(&self, words: &str) -> Child {
        self.spawn_kubectl(&words.split(' ').collect::<Vec<_>>())
    }

    /// Starts a command of lamina, which goes on.
    pub fn spawn(&self, words: &[&str]) -> Child {
        let mut command = self.lamina(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub fn uid(&self, pod: &str) -> String {
        self.field(&format!("pod/{pod}"), ".metadata.uid")
    }

    /// The processes that hold a pod: they have its lock open.
    pub fn supervisors(&self, uid: &str) -> Vec<i32> {
        let lock = self.at("root/pods").join(uid).join("lock");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            if open.flat_map(|fd| fs::read_link(fd.path())).any(|target| target == lock) {
                found.push(pid);
            }
        }
        found
    }

    /// What is mounted below a directory of the place.
    pub fn mounted(&self, below: &str) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.at(below).to_str().unwrap().to_owned();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter(|target| target.starts_with(&below)).map(str::to_owned).collect()
    }

    /// Mounts below the directory of a pod.
    pub fn mounts(&self, uid: &str) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.at("root/pods").join(uid);
        table.lines().filter(|line| line.contains(below.to_str().unwrap())).count()
    }
}
