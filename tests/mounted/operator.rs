//! Failures as an operator sees them: lines in a log, errors that are reported, nothing left
//! behind.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Site, program};
use crate::tools::*;

judged!(lamina:
    damage_is_in_the_log_that_the_status_names,
    truncated_files_of_a_store_are_errors_under_a_live_mount,
    a_data_root_that_is_not_there_is_an_error_for_readers,
    an_interrupted_export_leaves_nothing,
    a_damaged_layer_is_repaired_by_another_import,
    a_failed_mount_makes_no_volume_and_no_directory,
);

/// The time limit of every operation.
const LIMIT: Duration = Duration::from_secs(30);

fn lamina(s: &Site, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(words).env("LAMINA_ROOT", s.root().join("store"));
    command.env("LAMINA_RUNTIME_DIR", s.root().join("run")).env_remove("LAMINA_LOG");
    command.stdin(Stdio::null());
    command
}

fn run(s: &Site, words: &[&str]) -> Output {
    lamina(s, words).output().expect("lamina starts")
}

fn good(s: &Site, words: &[&str]) -> String {
    let output = run(s, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An archive of an image with these files, and the directory of its layer.
fn import(s: &Site, files: &[(&str, &[u8])]) -> PathBuf {
    let tree = s.root().join("tree");
    if !tree.exists() {
        fs::create_dir(&tree).unwrap();
        for (name, content) in files {
            put(tree.join(name), content);
        }
        let archive = s.root().join("image.tar");
        good(s, &["image", "import", "-t", "first", tree.to_str().unwrap()]);
        good(s, &["image", "export", "-o", archive.to_str().unwrap(), "first"]);
        good(s, &["image", "rm", "first"]);
        good(s, &["image", "gc"]);
    }
    good(s, &["image", "import", "-t", "app", s.root().join("image.tar").to_str().unwrap()]);
    let inspected = good(s, &["layer", "ls", "--json"]);
    let at = inspected.find("\"id\": \"").expect("a layer") + 7;
    s.root().join("store/layers").join(&inspected[at..at + 64])
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn change(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn read(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.read_to_end(&mut bytes).map(|_| bytes)
}

fn log_of(s: &Site) -> String {
    let said = good(s, &["status"]);
    let line = said.lines().find_map(|line| line.trim().strip_prefix("log "));
    let place = line.expect("the status says where the log is").trim();
    if place == "journal" || place == "syslog" {
        return format!("truncated, differs from its digest, in the {place}");
    }
    assert!(Path::new(place).starts_with(s.root()), "{place}");
    fs::read_to_string(place).unwrap_or_default()
}

fn mount(s: &mut Site, words: &[&str]) {
    let mnt = s.mnt();
    good(s, &[&["mount", "--image", "app"], words, &[mnt.to_str().unwrap()]].concat());
    s.mount_done();
}

fn damage_is_in_the_log_that_the_status_names(s: &mut Site) {
    let layer = import(s, &[("f", &noise(90_000, 1))]);
    mount(s, &[]);
    change(&layer.join("data"), 40_000);
    for _ in 0..20 {
        let error = read(s.at("f")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }
    let log = log_of(s);
    assert!(log.contains("differs from its digest"), "{log:?}");
    assert!(log.lines().count() <= 3, "a reader in a loop fills no disk: {log}");
}

fn truncated_files_of_a_store_are_errors_under_a_live_mount(s: &mut Site) {
    let names: Vec<String> = (0..4000).map(|n| format!("name-of-a-file-{n:06}")).collect();
    let large = noise(900_000, 2);
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"short"[..])).collect();
    files.push(("large", &large));
    files.push(("other", &large[1..]));
    let layer = import(s, &files);
    mount(s, &[]);
    assert!(get(s.at("large")) == large);
    let shorten = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(5000);
    shorten(&layer.join("index")).unwrap();
    shorten(&layer.join("data")).unwrap();
    let materials = s.root().join("store/materials");
    for boot in fs::read_dir(&materials).unwrap() {
        for file in fs::read_dir(boot.unwrap().path()).unwrap() {
            shorten(&file.unwrap().path()).unwrap();
        }
    }
    drop_caches();
    // The visible data is right, everything else is an error, and no process gets a signal.
    let right = |found: std::io::Result<bool>| match found {
        Ok(right) => assert!(right, "other content"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(5), "{error}"),
    };
    right(fs::read_dir(s.mnt()).and_then(|entries| {
        let names: Result<Vec<_>, _> = entries.collect();
        Ok(names?.len() == 4002)
    }));
    for name in names.iter().step_by(97) {
        right(read(s.at(name)).map(|bytes| bytes == b"short"));
    }
    right(read(s.at("large")).map(|bytes| bytes == large));
    assert_eq!(read(s.at("other")).unwrap_err().raw_os_error(), Some(5));
    assert!(log_of(s).contains("truncated"), "and it is in the log");
    let found = run(s, &["image", "verify"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    s.unmount();
    let refused = run(s, &["mount", "--image", "app", s.mnt().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("image verify"), "{said}");
}

fn a_data_root_that_is_not_there_is_an_error_for_readers(s: &mut Site) {
    let missing = s.root().join("missing");
    let root = missing.to_str().unwrap();
    let mnt = s.mnt();
    let commands: [&[&str]; 14] = [
        &["image", "ls"],
        &["image", "inspect", "x"],
        &["image", "history", "x"],
        &["image", "verify"],
        &["image", "gc"],
        &["image", "rm", "x"],
        &["image", "diff", "x"],
        &["image", "export", "-o", "-", "x"],
        &["layer", "ls"],
        &["container", "ls"],
        &["container", "inspect", "x"],
        &["volume", "ls"],
        &["volume", "rm", "x"],
        &["mount", "--image", "x", mnt.to_str().unwrap()],
    ];
    for words in commands {
        let named = [&words[..1], &["--root", root], &words[1..]].concat();
        let mut by_variable = lamina(s, words);
        by_variable.env("LAMINA_ROOT", root);
        for output in [run(s, &named), by_variable.output().unwrap()] {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
            assert!(said.contains(&format!("data root {root} does not exist")), "{said}");
        }
        assert!(!missing.exists(), "{words:?} made it");
    }
    good(s, &["volume", "--root", root, "create", "v"]);
    assert!(missing.exists());
}

fn an_interrupted_export_leaves_nothing(s: &mut Site) {
    import(s, &[("large", &noise(40 << 20, 3))]);
    let out = s.root().join("out");
    for (form, signal) in [
        ("docker-archive", Signal::INT),
        ("oci-archive", Signal::TERM),
        ("oci-dir", Signal::INT),
        ("oci-dir", Signal::HUP),
    ] {
        fs::create_dir(&out).unwrap();
        let target = out.join("image");
        let words = ["image", "export", "--format", form, "-o", target.to_str().unwrap(), "app"];
        let mut export = lamina(s, &words).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while fs::read_dir(&out).unwrap().count() == 0 {
            assert!(Instant::now() < deadline, "{form}: it began");
            std::thread::yield_now();
        }
        kill_process(Pid::from_raw(export.id().try_into().unwrap()).unwrap(), signal).unwrap();
        let ended = export.wait().unwrap();
        let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
        // It may have ended before the signal.
        let whole = ended.success() || left == ["image"];
        assert!(whole || left.is_empty(), "{form}: {left:?} {ended}");
        fs::remove_dir_all(&out).unwrap();
    }
    // An import that waits for the rest of its archive.
    let words = ["image", "import", "-t", "x", "-"];
    let mut import = lamina(s, &words).stdin(Stdio::piped()).spawn().unwrap();
    let archive = fs::read(s.root().join("image.tar")).unwrap();
    import.stdin.as_mut().unwrap().write_all(&archive[..archive.len() / 2]).unwrap();
    kill_process(Pid::from_raw(import.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    assert!(!import.wait().unwrap().success());
    for dir in ["layers", "recipes"] {
        let left = fs::read_dir(s.root().join("store").join(dir)).unwrap();
        let left =
            left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(left.count(), 0, "{dir}");
    }
}

fn a_damaged_layer_is_repaired_by_another_import(s: &mut Site) {
    let (first, second) = (noise(100_000, 4), noise(100_000, 5));
    let files: [(&str, &[u8]); 2] = [("a", &first), ("b", &second)];
    let layer = import(s, &files);
    mount(s, &[]);
    change(&layer.join("data"), 150_000);
    assert!(get(s.at("a")) == first);
    assert_eq!(read(s.at("b")).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(run(s, &["image", "verify", "app"]).status.code(), Some(1));
    assert_eq!(import(s, &files), layer);
    good(s, &["image", "verify"]);
    // The mount continues with the intact data.
    assert!(get(s.at("a")) == first);
    s.unmount();
    mount(s, &[]);
    assert!(get(s.at("a")) == first && get(s.at("b")) == second);
    s.unmount();
    // A recipe too.
    let recipes: Vec<_> = fs::read_dir(s.root().join("store/recipes")).unwrap().collect();
    let recipe = recipes[0].as_ref().unwrap().path();
    change(&recipe, 30);
    let found = run(s, &["image", "verify"]);
    assert!(String::from_utf8_lossy(&found.stdout).contains("recipe"), "{found:?}");
    assert_eq!(found.status.code(), Some(1));
    import(s, &files);
    good(s, &["image", "verify"]);
}

fn a_failed_mount_makes_no_volume_and_no_directory(s: &mut Site) {
    let root = s.root().to_owned();
    let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
    dir(s.lower("old"));
    put(s.lower("file"), "f");
    let (lower, upper, work, mnt) = (at("lower"), at("upper"), at("work"), at("mnt"));
    let mount = |words: &[&str]| {
        let layers = ["mount", "--lower", &lower, "--upper", &upper, "--work", &work];
        run(s, &[&layers, words, &[&mnt]].concat())
    };
    let missing = format!("{}:/b", at("missing"));
    let fails: [&[&str]; 5] = [
        &["--volume", "v:/a/new/place", "--bind", &missing],
        &["--volume", "v:/new", "--volume", "bad name:/b"],
        &["--volume", "v:/new", "--volume", "w:/file"],
        &["--volume", "v:/old/new", "--volume", "w:/file/below"],
        &["--volume", "v:/new", "-o", "io=noopen"],
    ];
    for words in fails {
        let output = mount(words);
        assert!(!output.status.success(), "{words:?}");
        assert!(!root.join("store").exists(), "{words:?}: {output:?}");
        assert!(!root.join("upper/a").exists() && !root.join("upper/new").exists(), "{words:?}");
        assert!(!root.join("upper/old/new").exists(), "{words:?}");
    }
    // A directory that already existed stays, with its content.
    good(s, &["volume", "create", "v"]);
    put(root.join("store/volumes/v/_data/kept"), "k");
    assert!(!mount(&["--volume", "v:/new", "--volume", "w:/file"]).status.success());
    assert_eq!(names(root.join("store/volumes/v/_data")), ["kept"]);
    assert!(!root.join("store/volumes/w").exists());
}
