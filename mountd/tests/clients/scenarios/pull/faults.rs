//! Pulls that are killed, damaged blobs, passwords.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::{app, blob_file, downloads, len, pull_of, push};
use crate::engine::Engine;
use crate::harness::{self, Background, Site};
use crate::lamina::Lamina;
use crate::registry::{Access, Registry};
use crate::tree::files;

/// The length of a layer that takes a while.
const BIG: usize = 192 << 20;
/// The time limits for a download to start, and for the registry to log its end.
const LIMIT: Duration = Duration::from_secs(60);

pub fn run(site: &mut Site, engine: &Engine, lamina: &Lamina, registry: &Registry) {
    let big = format!("{}/x/big", registry.host);
    make_big(site);
    let built = engine.call(&["build", "-q", "-t", "lamina/big", &site.at("context")]);
    site.succeeds("build_big", &built);
    site.succeeds("push_big", &push(engine, "lamina/big", &big));
    let stored = files(site.at("registry").as_ref());
    let is_big = |path: &&PathBuf| len(path.to_str().expect("a path of text")) > 100 << 20;
    let blob = stored.iter().find(is_big).expect("a big blob");
    resume(site, lamina, registry, blob);
    damage(site, lamina, &big, blob);
}

fn make_big(site: &Site) {
    let mut bytes = vec![0; BIG];
    let mut random = fs::File::open("/dev/urandom").expect("random bytes");
    random.read_exact(&mut bytes).expect("random bytes");
    site.write("context/big", bytes);
    site.write("context/Dockerfile", "FROM scratch\nCOPY big /\n");
}

/// The hexadecimal digits of a blob that the registry keeps in a file.
fn digits(blob: &Path) -> String {
    let name = blob.parent().and_then(Path::file_name).expect("a directory of the digest");
    name.to_string_lossy().into_owned()
}

/// A pull that is killed in the middle of a blob continues there.
fn resume(site: &mut Site, lamina: &Lamina, registry: &Registry, blob: &Path) {
    let big = format!("{}/x/big", registry.host);
    let size = fs::metadata(blob).expect("a blob").len();
    let downloaded = || -> u64 {
        let sizes = downloads(lamina).into_iter().map(|path| fs::metadata(path).map(|i| i.len()));
        sizes.map(Result::unwrap_or_default).sum()
    };
    let before = registry.log_lines();
    let log = site.at("killed.log");
    let mut command = lamina.command(&["image", "pull", &big]);
    let mut pull = Background::start(&mut command, Path::new(&log));
    harness::until(LIMIT, || downloaded() > 0 || !pull.is_running());
    pull.end(Signal::KILL);
    let part = downloaded();
    let range = format!("expected a part of {size} bytes got {part}");
    site.holds("killed", part > 0 && part < size, range);
    // The registry logs the connection that was cut.
    let digits = digits(blob);
    let is_logged = || {
        let answers = registry.answers(before);
        answers.iter().any(|answer| answer.method == "GET" && answer.uri.contains(&digits))
    };
    assert!(harness::until(LIMIT, is_logged), "the registry logs the end of the first download");
    let before = registry.log_lines();
    site.succeeds("resume", &pull_of(lamina, &[&big]));
    let config = len(&blob_file(site, &lamina.inspect(&big).id));
    site.equal("resumes", registry.sent(before), (size - part + config, 2));
    let verified = lamina.image(&["verify", &big]);
    site.succeeds("resumed_verify", &verified);
}

/// A blob that differs from its digest is refused, and nothing of the image is left.
fn damage(site: &mut Site, lamina: &Lamina, big: &str, blob: &Path) {
    lamina.image(&["rm", big]).expect();
    lamina.image(&["gc"]).expect();
    let file = fs::File::options().write(true).open(blob).expect("a blob");
    file.write_all_at(b"xxxx", 1_000_000).expect("a damaged blob");
    let digest = format!("sha256:{}", digits(blob));
    site.refused("damaged", &pull_of(lamina, &[big]), &[&digest]);
    let images = lamina.image_names();
    let left: Vec<&String> = images.iter().filter(|name| name.contains("big")).collect();
    let expected = (Vec::new(), Vec::new());
    site.equal("damaged_leaves_nothing", (left, downloads(lamina)), expected);
}

pub fn passwords(site: &mut Site, lamina: &Lamina) {
    let rows = harness::call("htpasswd", &["-Bbn", "user", "secret!"]).expect();
    let passwords = Some(site.write("htpasswd", rows + "\n"));
    let mut registry = Registry::start(site, &Access { passwords, ..Access::default() });
    let app = app(&registry);
    let refused = ["401", "UNAUTHORIZED", "x/app:1"];
    site.refused("no_password", &pull_of(lamina, &[&app]), &refused);
    let wrong = pull_of(lamina, &[&app, "--creds", "user:wrong-one"]);
    site.refused("wrong_password", &wrong, &refused);
    let shows = format!("{}{}", wrong.text(), wrong.err).contains("wrong-one");
    site.holds("passwords_are_not_shown", !shows, &wrong.err);
    site.succeeds("password", &pull_of(lamina, &[&app, "--creds", "user:secret!"]));
    let mut file = fs::File::create(site.at("auth.json")).expect("a file");
    // BASE64 of `user:secret!`.
    write!(file, r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQh"}}}}}}"#, registry.host)
        .expect("a file");
    let with_file = pull_of(lamina, &["--authfile", &site.at("auth.json"), &app]);
    site.succeeds("authfile", &with_file);
    registry.stop();
}
