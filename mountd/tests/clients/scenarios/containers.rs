//! Containers of Lamina: a named writable layer over an image, and one that is removed with its
//! mount; volumes stay. Also the objects that a collection must keep for them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use crate::harness::{self, Site, USAGE};
use crate::lamina::{Container, Lamina, RootBy};
use crate::tree::files;

/// The length of a file that is materialised.
const LARGE: usize = 300_000;

pub fn run(site: &mut Site) {
    let lamina = Lamina::new(site, "root", RootBy::Environment);
    let tree = make_tree(site);
    let (mnt, ro) = (site.directory("mnt"), site.directory("ro"));
    mount_by_relative_root(site, &lamina, &tree);
    create(site, &lamina);
    let place = start(site, &lamina, &tree);
    refusals(site, &lamina, &place);
    stop_and_start(site, &lamina, &mnt);
    lamina.mount("app", &ro).expect();
    let base = fs::read(format!("{ro}/large")).expect("a file of the image");
    let original = fs::read(format!("{tree}/large")).expect("a file");
    site.holds("base_is_untouched", base == original, "expected the original got another file");
    lamina.umount(&ro);
    remove(site, &lamina);
    ephemeral(site, &lamina, &mnt);
    site.equal("image_can_go", lamina.image(&["rm", "app"]).text(), "app");
    lamina.image(&["gc"]).expect();
    let left: Vec<_> =
        ["layers", "materials"].iter().flat_map(|name| files(lamina.at(name).as_ref())).collect();
    site.equal("nothing_left", left, Vec::<std::path::PathBuf>::new());
}

fn make_tree(site: &Site) -> String {
    let tree = site.directory("tree");
    site.directory("tree/data");
    site.write("tree/file", "base\n");
    let mut random = fs::File::open("/dev/urandom").expect("random bytes");
    let mut bytes = vec![0; LARGE];
    std::io::Read::read_exact(&mut random, &mut bytes).expect("random bytes");
    site.write("tree/large", bytes);
    site.write("tree/data/seed", "seed\n");
    chown(&tree, Some(7), Some(8)).expect("an owner");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o1751)).expect("a mode");
    tree
}

fn mount_by_relative_root(site: &mut Site, lamina: &Lamina, tree: &str) {
    let relative = |words: &[&str]| {
        let mut command = lamina.command(words);
        harness::run(command.env_remove("LAMINA_ROOT").current_dir(site.scratch()))
    };
    let ro = site.at("ro");
    relative(&["image", "--root", "root", "import", tree, "-t", "app"]).expect();
    relative(&["mount", "--root", "root", "--image", "app", &ro]).expect();
    let is_same = fs::read(format!("{ro}/large")).expect("a file")
        == fs::read(format!("{tree}/large")).expect("a file");
    let materials = files(lamina.at("materials").as_ref()).len();
    site.equal("relative_root", (is_same, materials), (true, 1));
    lamina.umount(&ro);
}

fn create(site: &mut Site, lamina: &Lamina) {
    let words = ["create", "--name", "web", "--volume", "data:/data", "app"];
    site.equal("create", lamina.container(&words).text(), "web");
    let taken = lamina.container(&["create", "--name", "web", "app"]);
    site.refused("name_taken", &taken, &["web"]);
    site.refused("no_such_image", &lamina.container(&["create", "nope"]), &["nope"]);
    let bad = lamina.container(&["create", "--name", "../x", "app"]);
    site.refused("bad_name", &bad, &["../x"]);
}

fn mode_and_owner(path: &str) -> (u32, u32, u32) {
    let info = fs::metadata(path).expect("a directory");
    (info.mode() & 0o7777, info.uid(), info.gid())
}

/// The container, as a list shows it.
fn web(lamina: &Lamina) -> Container {
    lamina.containers().into_iter().find(|one| one.name == "web").expect("a container")
}

fn start(site: &mut Site, lamina: &Lamina, tree: &str) -> String {
    let place = lamina.container(&["start", "web"]).expect();
    site.equal("root", mode_and_owner(&place), (0o1751, 7, 8));
    let seed = fs::read_to_string(format!("{place}/data/seed")).expect("a file of the volume");
    site.equal("volume_is_filled", seed, "seed\n");
    fs::write(format!("{place}/data/more"), "more\n").expect("a file of the volume");
    let mut large = fs::read(format!("{tree}/large")).expect("a file");
    large[..7].copy_from_slice(b"changed");
    let changed =
        harness::run(Command::new("dd").args(["conv=notrunc", "status=none"]).args([
            format!("if={}", site.write("changed", "changed")),
            format!("of={place}/large"),
        ]));
    changed.expect();
    site.equal("ls", web(lamina).mountpoint.as_deref(), Some(&place[..]));
    let mounts = lamina.mounts();
    let shown: Vec<_> = mounts.iter().map(|one| (&one.source[..], &one.target[..])).collect();
    site.equal("status", shown, [("web", &place[..])]);
    let all = fs::read(format!("{place}/large")).expect("a file of the container");
    site.holds("writes_show", all == large, "expected the changed file got another one");
    place
}

fn refusals(site: &mut Site, lamina: &Lamina, place: &str) {
    site.refused("started", &lamina.container(&["start", "web"]), &["web"]);
    site.refused("rm_while_mounted", &lamina.container(&["rm", "web"]), &["web"]);
    site.refused("image_in_use", &lamina.image(&["rm", "app"]), &["\"web\""]);
    site.equal("still_mounted", web(lamina).mountpoint.as_deref(), Some(place));
}

fn stop_and_start(site: &mut Site, lamina: &Lamina, mnt: &str) {
    site.equal("stop", lamina.container(&["stop", "web"]).text(), "web");
    let stopped = web(lamina);
    site.equal("stopped", (stopped.mountpoint, stopped.mounted), (None, false));
    let before = lamina.layers();
    lamina.image(&["gc"]).expect();
    site.equal("gc_keeps_its_layers", lamina.layers(), before);
    lamina.container(&["start", "web", mnt]).expect();
    let large = fs::read(format!("{mnt}/large")).expect("a file of the container");
    let more = fs::read(format!("{mnt}/data/more")).expect("a file of the volume");
    site.equal("writes_stay", (&large[..7], &more[..]), (&b"changed"[..], &b"more\n"[..]));
}

fn entries(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn remove(site: &mut Site, lamina: &Lamina) {
    let digits = web(lamina).id[..9].to_owned();
    site.equal("rm_force", lamina.container(&["rm", "-f", &digits]).text(), &digits[..]);
    site.refused("removed", &lamina.container(&["inspect", "web"]), &["web"]);
    site.equal("writes_vanish", entries(&lamina.at("containers")), Vec::<String>::new());
    site.equal("volume_stays", entries(&lamina.at("volumes/data/_data")), ["more", "seed"]);
}

fn ephemeral(site: &mut Site, lamina: &Lamina, mnt: &str) {
    let containers = lamina.at("containers");
    lamina.run(&["mount", "--image", "app", "--ephemeral", mnt]).expect();
    fs::write(format!("{mnt}/new"), "x\n").expect("a new file");
    fs::remove_file(format!("{mnt}/file")).expect("a file goes");
    site.equal("ephemeral_root", mode_and_owner(mnt), (0o1751, 7, 8));
    lamina.umount(mnt);
    site.equal("ephemeral_vanishes", entries(&containers), Vec::<String>::new());
    lamina.run(&["mount", "--image", "app", "-o", "ephemeral", mnt]).expect();
    let daemon = &lamina.mounts()[0];
    harness::call("kill", &["-KILL", &daemon.pid.to_string()]).expect();
    harness::call("umount", &["-l", mnt]).expect();
    site.equal("killed_leaves", entries(&containers).len(), 1);
    lamina.image(&["gc"]).expect();
    site.equal("killed_is_swept", entries(&containers), Vec::<String>::new());
    let wrong = lamina.run(&["mount", "--image", "app", "-o", "ephemeral", "--no-such-word", mnt]);
    site.ended_with("wrong_words", USAGE, &wrong, &["--no-such-word"]);
}
