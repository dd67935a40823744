//! The drivers of a mount: chosen by the features of the host, shown, and forced.

use std::fs;
use std::process::Output;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::harness::{Site, program};
use crate::tools::*;

judged!(lamina:
    the_best_way_is_chosen_and_shown,
    files_are_opened_without_asking,
    what_cannot_be_forced_is_refused,
    forced_forms_are_written,
    an_ephemeral_upper_goes_with_the_mount,
    an_index_that_is_another_is_never_shown,
);

fn try_with(s: &mut Site, options: &str) -> Output {
    s.options = options.to_owned();
    s.try_lamina()
}

fn mount_with(s: &mut Site, options: &str) {
    let output = try_with(s, options);
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn says(status: &str, key: &str, value: &str) {
    let line = format!("\"{key}\": \"{value}\"");
    assert!(status.contains(&line), "{line} in {status}");
}

fn the_best_way_is_chosen_and_shown(s: &mut Site) {
    mount_with(s, "");
    let said = status(s);
    says(&said, "io", "passthrough");
    says(&said, "whiteouts", "device");
    assert!(said.contains("\"copy\": \"reflink\"") || said.contains("\"copy\": \"data\""));
    s.unmount();
    mount_with(s, "io=cached,reflink=off,whiteouts=file");
    let said = status(s);
    says(&said, "io", "cached");
    says(&said, "copy", "data");
    says(&said, "whiteouts", "file");
    s.unmount();
    s.read_only = true;
    mount_with(s, "");
    says(&status(s), "io", "passthrough");
}

fn files_are_opened_without_asking(s: &mut Site) {
    for number in 0..20 {
        put(s.lower(&format!("f{number}")), pattern(5000 + number));
    }
    put(s.lower("large"), pattern(700_000));
    s.read_only = true;
    mount_with(s, "io=noopen");
    says(&status(s), "io", "noopen");
    for _ in 0..3 {
        for number in 0..20 {
            assert!(get(s.at(&format!("f{number}"))) == pattern(5000 + number));
        }
        assert!(get(s.at("large")) == pattern(700_000));
    }
    fails(open(s.at("f1"), OFlags::RDWR), Errno::ROFS);
    fails(open(s.at("absent"), OFlags::RDONLY), Errno::NOENT);
    assert_eq!(number(&status(s), "opens"), 0, "the union was never asked");
}

fn what_cannot_be_forced_is_refused(s: &mut Site) {
    for (options, word) in [("io=noopen", "never changes"), ("io=fast", "auto|passthrough")] {
        let output = try_with(s, options);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{options}: {said}");
        assert_eq!(fs::read_dir(s.mnt()).unwrap().count(), 0, "nothing is mounted");
    }
    // A refused mount holds no resources.
    mount_with(s, "");
}

fn forced_forms_are_written(s: &mut Site) {
    put(s.lower("f"), "below");
    mount_with(s, "whiteouts=file");
    fs::remove_file(s.at("f")).unwrap();
    s.unmount();
    assert!(s.upper(".wh.f").exists());
    let output = try_with(s, "whiteouts=device");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("whiteouts=device"), "{said}");
}

fn an_ephemeral_upper_goes_with_the_mount(s: &mut Site) {
    put(s.lower("f"), "below");
    let root = s.root().join("data");
    let lower = s.lower("").display().to_string();
    let words = |extra: &[&str]| {
        let mut command = std::process::Command::new(program());
        command.args(["mount", "--lower", &lower, "--ephemeral"]).args(extra);
        command.arg("--root").arg(&root).arg(s.mnt()).output().unwrap()
    };
    let output = words(&["--upper", "/tmp", "--work", "/tmp"]);
    assert!(!output.status.success(), "two uppers: {output:?}");
    let output = words(&[]);
    assert!(output.status.success(), "{output:?}");
    fs::remove_file(s.at("f")).unwrap();
    put(s.at("g"), "new");
    assert_eq!(fs::read_dir(root.join("containers")).unwrap().count(), 1);
    let left = std::process::Command::new(program()).arg("umount").arg(s.mnt()).status().unwrap();
    assert!(left.success());
    assert_eq!(fs::read_dir(root.join("containers")).unwrap().count(), 0);
    assert!(s.lower("f").exists() && !s.lower("g").exists());
}

fn an_index_that_is_another_is_never_shown(s: &mut Site) {
    put(s.lower("unmistakable"), "x");
    let root = s.root().join("data");
    let lamina = |words: &[&str]| {
        let mut command = std::process::Command::new(program());
        command.args(words).arg("--root").arg(&root);
        command
    };
    let imported = lamina(&["image", "import", "-t", "a"]).arg(s.lower("")).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    let layer = fs::read_dir(root.join("layers")).unwrap().next().unwrap().unwrap().path();
    let mut index = fs::read(layer.join("index")).unwrap();
    let at = index.windows(12).position(|bytes| bytes == b"unmistakable").unwrap();
    // Equal to the one before except for its digest.
    index[at] = b'U';
    fs::write(layer.join("index"), &index).unwrap();
    for more in [&[][..], &["--ephemeral"]] {
        let tried = lamina(&["mount", "--image", "a"]).args(more).arg(s.mnt()).output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(!tried.status.success() && said.contains("does not match its name"), "{said}");
        assert_eq!(fs::read_dir(s.mnt()).unwrap().count(), 0);
    }
    let containers = fs::read_dir(root.join("containers")).unwrap();
    assert_eq!(containers.count(), 0, "the ephemeral upper went");
    index[at] = b'u';
    fs::write(layer.join("index"), &index).unwrap();
    let mounted = lamina(&["mount", "--image", "a"]).arg(s.mnt()).output().unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    assert!(s.at("unmistakable").exists());
    let left = std::process::Command::new(program()).arg("umount").arg(s.mnt()).status().unwrap();
    assert!(left.success());
}
