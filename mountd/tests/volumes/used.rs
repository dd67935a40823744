//! Volumes in use: a mount that shows them, and a writer whose writes have an order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kills::{Content, Host};

/// The files that the writer writes in each volume, in this order.
pub const FILES: [&str; 3] = ["w0", "w1", "w2"];

/// Shows volumes below a directory beside the data root, each at its name.
pub fn show(host: &Host, at: &str, volumes: &[&str]) {
    let (lower, mnt) = (host.at(&format!("{at}.lower")), host.at(at));
    for name in volumes {
        fs::create_dir_all(lower.join(name)).unwrap();
    }
    fs::create_dir_all(&mnt).unwrap();
    let grafts: Vec<String> = volumes.iter().map(|name| format!("{name}:/{name}")).collect();
    let mut words = vec!["mount", "--lower", lower.to_str().unwrap()];
    grafts.iter().for_each(|graft| words.extend(["--volume", graft]));
    host.good(&[&words[..], &[mnt.to_str().unwrap()]].concat());
}

/// Ends the use that [`show`] began. A volume that nobody uses may stay mounted.
pub fn hide(host: &Host, at: &str) {
    host.good(&["umount", host.at(at).to_str().unwrap()]);
}

/// Writes a number to the files of all volumes, one after the other, and then the next number.
pub struct Writer {
    written: Arc<Vec<AtomicU64>>,
    ends: Arc<AtomicBool>,
    /// Whether a write may fail now. It is tried again then.
    may_fail: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(directories: &[PathBuf]) -> Self {
        let files = directories.iter().flat_map(|dir| FILES.map(|name| dir.join(name)));
        let files: Vec<PathBuf> = files.collect();
        let written = Arc::new(files.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let (ends, may_fail) = (Arc::default(), Arc::<AtomicBool>::default());
        let mut writer = Self { written, ends, may_fail, thread: None };
        let (written, ends) = (Arc::clone(&writer.written), Arc::clone(&writer.ends));
        let may_fail = Arc::clone(&writer.may_fail);
        let work = move || {
            for number in 1_u64.. {
                for (file, last) in files.iter().zip(&*written) {
                    loop {
                        if ends.load(Ordering::SeqCst) {
                            return;
                        }
                        // Read before: a write that fails may have begun when it was allowed to.
                        let may = may_fail.load(Ordering::SeqCst);
                        match write(file, number) {
                            Ok(()) => break,
                            Err(_) if may || may_fail.load(Ordering::SeqCst) => {}
                            Err(error) => panic!("{}: {error}", file.display()),
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    last.store(number, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        };
        writer.thread = Some(std::thread::spawn(work));
        writer
    }

    pub fn may_fail(&self, may: bool) {
        self.may_fail.store(may, Ordering::SeqCst);
    }

    /// The number that was last written to each file.
    pub fn written(&self) -> Vec<u64> {
        self.written.iter().map(|number| number.load(Ordering::SeqCst)).collect()
    }

    pub fn end(mut self) {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().expect("the writer saw an error");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
    }
}

/// Writes a number to a file, which appears whole.
fn write(file: &Path, number: u64) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, number.to_string())?;
    fs::rename(&new, file)
}

fn number(content: &Content, file: &str) -> u64 {
    content.get(file).map_or(0, |text| text.parse().unwrap_or_else(|_| panic!("{content:?}")))
}

/// Checks that the contents of volumes are those of one moment of the writer, and that nothing is
/// lost that it had written `before`.
#[track_caller]
pub fn check_moment(contents: &[&Content], before: &[u64]) {
    let all = contents.iter().flat_map(|one| FILES.map(|file| number(one, file)));
    let all: Vec<u64> = all.collect();
    let (first, last) = (all[0], all[all.len() - 1]);
    let is_moment = all.is_sorted_by(|one, next| one >= next) && first <= last + 1;
    assert!(is_moment, "not of one moment: {all:?}");
    let has_all = all.iter().zip(before).all(|(now, before)| now >= before);
    assert!(has_all, "lost: {all:?} of {before:?}");
}
