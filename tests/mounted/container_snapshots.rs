//! Snapshots of containers with their volumes, rollbacks and forks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::{Site, program};
use crate::tools::*;

judged!(host:
    a_container_and_its_volumes_are_taken_rolled_back_and_forked,
    a_container_or_a_volume_that_cannot_be_frozen_has_no_snapshot,
);

pub struct Host<'a>(&'a Site);

impl Host<'_> {
    pub fn root(&self) -> PathBuf {
        self.0.root().join("store")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg(args[0]).arg("--root").arg(self.root()).args(&args[1..]);
        command.stdin(Stdio::null());
        command
    }

    pub fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(output.status.success(), "lamina {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that is refused, and returns what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(!output.status.success(), "lamina {args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn within(&self, container: &str, act: impl FnOnce(&Path)) {
        let at = self.run(&["container", "start", container]);
        act(Path::new(at.trim_end()));
        self.run(&["container", "stop", container]);
    }

    fn layers(&self) -> usize {
        let pool = fs::read_dir(self.root().join("volumes/.layers")).unwrap();
        pool.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    }
}

impl Host<'_> {
    pub fn directory(&self, container: &str) -> PathBuf {
        let said = self.run(&["container", "inspect", container]);
        let upper = said.split("\"upper\": \"").nth(1).unwrap().split('"').next().unwrap();
        Path::new(upper).parent().unwrap().to_owned()
    }

    /// Leaves a container as a snapshot does that is killed before the exchange.
    fn as_killed(&self, container: &str) {
        let (dir, layer) = (self.directory(container), "c".repeat(32));
        let pool = self.root().join("volumes/.layers").join(&layer);
        fs::create_dir_all(pool.join("work")).unwrap();
        fs::create_dir(pool.join("diff")).unwrap();
        chmod(pool.join("diff"), mode(dir.join("upper")) & 0o7777);
        let record = dir.join("stack.json");
        let text = fs::read_to_string(&record).unwrap();
        let next = text.replace("\"Layers\":[", &format!("\"Layers\":[\"{layer}\","));
        assert_ne!(text, next);
        fs::write(&record, next).unwrap();
    }
}

/// An image `base`, and a container `web` of it with the volume `data`.
pub fn prepared(s: &Site) -> Host<'_> {
    let tree = s.root().join("tree");
    for path in ["", "d", "data"] {
        dir(tree.join(path));
    }
    put(tree.join("d/lower"), "lower");
    put(tree.join("linked"), "links");
    link(tree.join("linked"), tree.join("d/linked")).unwrap();
    chmod(&tree, 0o750);
    let host = Host(s);
    fs::create_dir(host.root()).unwrap();
    host.run(&["image", "import", "-t", "base", tree.to_str().unwrap()]);
    host.run(&["volume", "create", "--driver", "union", "data"]);
    host.run(&["container", "create", "--name", "web", "--volume", "data:/data", "base"]);
    host
}

fn a_container_and_its_volumes_are_taken_rolled_back_and_forked(s: &mut Site) {
    let host = prepared(s);
    host.within("web", |at| {
        put(at.join("f"), "first");
        put(at.join("data/f"), "first");
        // Of a file with two names, one is copied up.
        put(at.join("d/linked"), "changed");
    });
    assert_eq!(host.run(&["container", "snapshot", "create", "web", "s1"]), "web@s1\n");
    let taken = host.layers();
    host.run(&["container", "snapshot", "create", "web", "same"]);
    assert_eq!(host.layers(), taken, "nothing was written");
    let mut ino = 0;
    host.within("web", |at| {
        assert_eq!(get(at.join("linked")), b"changed");
        assert_eq!(stat(at.join("linked")).st_nlink, 2);
        ino = stat(at.join("linked")).st_ino;
        put(at.join("f"), "second");
        put(at.join("data/f"), "second");
        fs::remove_dir_all(at.join("d")).unwrap();
        chmod(at, 0o700);
    });
    host.run(&["container", "snapshot", "create", "web", "s2"]);
    let first = |at: &Path| {
        assert_eq!((get(at.join("f")), get(at.join("data/f"))), (b"first".into(), b"first".into()));
        assert_eq!(get(at.join("d/lower")), b"lower");
        assert_eq!(get(at.join("linked")), b"changed");
        assert_eq!((stat(at).st_mode & 0o777, stat(at.join("linked")).st_nlink), (0o750, 2));
    };
    let second = |at: &Path| {
        assert_eq!(
            (get(at.join("f")), get(at.join("data/f"))),
            (b"second".into(), b"second".into())
        );
        assert!(!exists(at.join("d")));
        assert_eq!(stat(at).st_mode & 0o777, 0o700);
    };
    let forked = host.run(&["container", "fork", "web", "one", "--from", "s1"]);
    assert_eq!(forked, "one\nvolume one-data\n");
    host.within("one", |at| {
        first(at);
        put(at.join("f"), "of the fork");
        put(at.join("data/f"), "of the fork");
    });
    host.within("web", second);
    host.as_killed("web");
    host.within("web", second);
    host.run(&["container", "rollback", "web", "s1"]);
    host.within("web", |at| {
        first(at);
        assert_eq!(stat(at.join("linked")).st_ino, ino);
    });
    // As a rollback that was killed in its midst.
    fs::write(host.directory("web").join("rollback"), "s2").unwrap();
    for args in [&["container", "start", "web"][..], &["container", "fork", "web", "x"]] {
        let said = host.refused(args);
        assert!(said.contains("in part") && said.contains("rollback web s2"), "{said}");
    }
    host.run(&["container", "rollback", "web", "s2"]);
    host.within("web", second);
    host.run(&["container", "fork", "web", "now"]);
    host.within("now", second);
    is_committed(&host);
    is_listed_and_removed(&host);
}

/// Its changes lie in several layers.
fn is_committed(host: &Host<'_>) {
    let listed = host.run(&["image", "diff", "web"]);
    assert_eq!(listed, "D /d\nA /f\nC /linked\n");
    host.run(&["image", "commit", "web", "-t", "committed"]);
    host.run(&["container", "create", "--name", "of-it", "committed"]);
    host.within("of-it", |at| {
        assert!(!exists(at.join("d")) && get(at.join("f")) == b"second");
        assert_eq!(get(at.join("linked")), b"changed");
        assert_eq!(stat(at).st_mode & 0o777, 0o700);
    });
    host.run(&["container", "rm", "of-it"]);
    host.run(&["image", "rm", "committed"]);
}

fn is_listed_and_removed(host: &Host<'_>) {
    // The volumes of the snapshot are snapshots of volumes, the root is not listed among them.
    let listed = host.run(&["volume", "snapshot", "ls"]);
    assert_eq!(listed.lines().filter(|line| line.starts_with("data@")).count(), 3, "{listed}");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let listed = host.run(&["container", "snapshot", "ls", "web"]);
    assert!(listed.contains("web@s1") && listed.contains("data"), "{listed}");
    host.run(&["container", "snapshot", "rm", "web@s1", "web@s2", "web@same"]);
    assert_eq!(host.run(&["volume", "snapshot", "ls"]).lines().count(), 1);
    host.run(&["container", "rm", "web", "one", "now"]);
    host.run(&["volume", "rm", "--purge", "data", "one-data", "now-data"]);
    assert_eq!(host.layers(), 0, "nobody needs a layer");
    host.run(&["image", "rm", "base"]);
    assert_eq!(host.run(&["image", "gc"]).lines().count(), 2, "of the image and of the commit");
}

fn a_container_or_a_volume_that_cannot_be_frozen_has_no_snapshot(s: &mut Site) {
    let host = prepared(s);
    let create = ["container", "snapshot", "create", "web", "s"];
    // The kernel would go on writing to the layer.
    let at = host.run(&["container", "start", "-o", "io=passthrough", "web"]);
    put(Path::new(at.trim_end()).join("f"), "kept");
    let said = host.refused(&create);
    assert!(said.contains("in use by the mount"), "{said}");
    let said = host.refused(&["container", "fork", "web", "other"]);
    assert!(said.contains("in use by the mount"), "{said}");
    host.run(&["container", "stop", "web"]);
    host.run(&["container", "create", "--name", "db", "--volume", "plain:/data", "base"]);
    host.within("db", |at| put(at.join("data/f"), "plain"));
    let said = host.refused(&["container", "snapshot", "create", "db", "s"]);
    assert!(said.contains("\"plain\"") && said.contains("no snapshots"), "{said}");
    assert_eq!(host.run(&["container", "snapshot", "ls"]).lines().count(), 1);
    host.run(&create);
    // While a volume of it is in use, nothing is rolled back.
    host.run(&["container", "create", "--name", "reader", "--volume", "data:/data", "base"]);
    host.within("web", |at| put(at.join("f"), "later"));
    host.within("reader", |_| {
        let said = host.refused(&["container", "rollback", "web", "s"]);
        assert!(said.contains("\"data\"") && said.contains("in use"), "{said}");
    });
    host.within("web", |at| assert_eq!(get(at.join("f")), b"later"));
    host.run(&["container", "rollback", "web", "s"]);
    host.within("web", |at| assert_eq!(get(at.join("f")), b"kept"));
    host.run(&["container", "rm", "web", "db", "reader"]);
    host.run(&["volume", "rm", "--purge", "data", "plain"]);
}
