//! podman as root, containers in a user namespace (`--uidmap`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::harness::{Site, program};
use crate::{image, podman, tree, usage};

const MAP: [&str; 4] = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"];

pub fn run(site: &mut Site) {
    let mut engine = podman::of_root(site);
    if std::env::var_os("LAMINA_PLAIN_LOWERS").is_some() {
        // containers/storage before 1.44 passes layers with ids mapped by the kernel and also
        // requests a mapping; later versions only request it.
        site.directory("store/run/overlay");
        site.write("store/run/overlay/idmapped-lower-dir-false", "");
    }
    image::build(site, &engine);
    engine.run_options = MAP.to_vec();
    let script = "cat /proc/self/uid_map; stat -c %u:%g /etc/passwd /kept";
    let shown = engine.shell(&[], "lamina/app", script).all_words();
    site.equal("mapped", shown, "0 200000 65536 0:0 7:8");
    image::judge(site, &engine.shell(&[], "lamina/app", image::JUDGE));
    usage::use_containers(site, &engine);
    let script = "touch /mine; chown 5:6 /mine";
    engine.run(&["--name", "owner"], "lamina/app", &["sh", "-c", script]);
    let files = tree::files(Path::new(&site.at("store/graph/overlay")));
    let mine = files.iter().filter(|path| path.ends_with("diff/mine"));
    let owner = |path| fs::metadata(path).map(|info| (info.uid(), info.gid())).expect("a file");
    site.equal("upper_owner", mine.map(owner).collect::<Vec<_>>(), [(5, 6)]);
    usage::leave_nothing(site, &engine, &program());
}
