//! Typical use of containers of the test image, and the state that must be left.

use std::path::Path;
use std::time::Duration;

use crate::engine::Engine;
use crate::harness::{self, Site};
use crate::host::{self, USER};
use crate::image;

/// The time limit for an engine to clean up after a container.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

const CHANGE: &str = "echo hi >/newfile && rm /renamed/inner/file && mv /multi /moved && \
                      echo added >/etc/added && cat /proc/mounts";
const SHOW: &str =
    "cat /newfile /etc/added; ls /renamed/inner; ls -d /multi /moved/deep 2>/dev/null";
const USE_VOLUME: &str = "ls /renamed/inner; rm /renamed/inner/file; echo v >/renamed/inner/v";
const USE_OVERLAY: &str = "echo in >>/over/file; rm -r /over/dir; mkdir /over/dir; ls /over/dir; \
                           cat /over/file";
/// The objects whose changes are compared; the engine itself changes others.
const COMPARED: [&str; 7] =
    ["/newfile", "/renamed", "/moved", "/multi", "/etc/added", "/seed", "/links"];

/// Runs, compares, commits, copies, restarts, and fills a volume.
pub fn use_containers(site: &mut Site, engine: &Engine) {
    let done = engine.run(&["--name", "one"], "lamina/app", &["sh", "-c", CHANGE]);
    site.succeeds("run", &done);
    let table = done.text();
    let is_root = |line: &&str| line.split(' ').nth(1) == Some("/");
    let roots: Vec<&str> =
        table.lines().filter(is_root).filter_map(|line| line.split(' ').nth(2)).collect();
    site.holds(
        "root_is_fuse",
        roots.len() == 1 && roots[0].starts_with("fuse"),
        format!("expected one FUSE root got {roots:?}"),
    );
    let is_compared = |line: &String| {
        COMPARED.iter().any(|path| line.get(2..).is_some_and(|changed| changed.starts_with(path)))
    };
    let changes: Vec<String> = engine.diff("one").into_iter().filter(is_compared).collect();
    let expected = [
        "A /etc/added",
        "A /moved",
        "A /moved/deep",
        "A /newfile",
        "C /renamed",
        "C /renamed/inner",
        "D /multi",
        "D /renamed/inner/file",
    ];
    site.equal("diff", changes, expected);
    site.succeeds("commit", &engine.call(&["commit", "one", "lamina/second"]));
    let shown = engine.shell(&[], "lamina/second", SHOW).all_words();
    site.equal("committed", shown, "hi added more /moved/deep");
    let (copied, archive) = (site.write("copied", "copied\n"), site.at("archive"));
    engine.call(&["cp", &copied, "one:/seed/copied"]).expect();
    let files = ["/seed/copied", "/newfile"].map(|path| engine.file("one", path, &archive));
    site.equal("cp", files, ["copied", "hi"]);
    // The container's command fails the second time.
    engine.call(&["start", "-a", "one"]);
    site.equal("restarted", engine.file("one", "/etc/added", &archive), "added");
    let volume = ["-v", "data:/renamed/inner"];
    let filled = engine.shell(&volume, "lamina/app", USE_VOLUME).all_words();
    site.equal("volume_filled", filled, "file more");
    let kept = engine.shell(&volume, "lamina/app", "ls /renamed/inner").all_words();
    site.equal("volume_kept", kept, "more v");
    remove_container(site, engine, "one");
}

/// Removes a container. The engine cleans up in a separate process; until that ends, a removal
/// fails because its mounts are in use.
fn remove_container(site: &mut Site, engine: &Engine, name: &str) {
    let removed = harness::until(REMOVE_LIMIT, || engine.call(&["rm", "-f", name]).is_ok());
    site.holds("rm", removed, "expected a removal got only refusals");
}

/// Mounts a host directory as `:O`: changes stay in the container. Docker has no such option.
pub fn use_overlay_volume(site: &mut Site, engine: &Engine) {
    site.directory("over/dir");
    let files = ["over/file", "over/dir/deep"].map(|name| site.write(name, "host\n"));
    if let Some(user) = &engine.user {
        host::give(user, &site.at("over"));
    }
    let volume = format!("{}:/over:O", site.at("over"));
    let shown = engine.shell(&["-v", &volume], "lamina/app", USE_OVERLAY).all_words();
    site.equal("overlay_volume", shown, "host in");
    let left = files.map(|file| std::fs::read_to_string(file).expect("a file of the host"));
    site.equal("overlay_volume_host", left, ["host\n", "host\n"]);
}

/// Builds the image and uses it in every way that must work for podman of a plain user.
pub fn use_without_root(site: &mut Site, engine: &Engine) {
    image::build(site, engine);
    image::judge(site, &engine.shell(&[], "lamina/app", image::JUDGE));
    use_containers(site, engine);
    use_overlay_volume(site, engine);
    let id = engine.user.as_ref().expect("a user").id;
    let script = "id -u; touch /tmp/mine; stat -c %U:%u /tmp/mine /etc/passwd";
    let shown = engine.shell(&["--userns", "keep-id"], "lamina/app", script).all_words();
    site.equal("keep_id", shown, format!("{id} {USER}:{id} root:0"));
}

/// Removes everything of podman, and checks that neither mount nor daemon is left.
pub fn leave_nothing(site: &mut Site, engine: &Engine, program: &Path) {
    engine.call(&["rm", "-af"]);
    site.succeeds("rmi", &engine.call(&["rmi", "-af"]));
    nothing_left(site, program);
}

/// Checks that neither mount nor daemon is left.
pub fn nothing_left(site: &mut Site, program: &Path) {
    site.equal("no_mount_left", host::fuse_mounts(site.scratch()), Vec::<String>::new());
    site.equal("no_daemon_left", host::left_of(program), Vec::<String>::new());
}
