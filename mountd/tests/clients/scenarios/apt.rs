//! A Debian tree in use: two `apt-get install` at the same time in chroot, while tar reads the tree
//! and cp copies parts of it. Then `dpkg --verify`, an unchanged lower, and the same files after a
//! remount and under the kernel's overlayfs. Needs a Debian mirror.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{self, Background, Done, Site, program};
use crate::host;
use crate::tree::Tree;

/// Messages of tar and cp in the C locale about files that appear, change and vanish during a read.
const OF_CHANGES: [&str; 4] = [
    "file changed as we read it",
    "File removed before we read it",
    "No such file or directory",
    "socket ignored",
];
const LOCK_OPTIONS: [&str; 4] =
    ["-o", "DPkg::Lock::Timeout=300", "-o", "APT::Get::Lock-Timeout=300"];
const COMMIT: &str = "git init -q /tmp/r && cd /tmp/r && git add . && \
                      git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git fsck";
const COMPILE: &str = "gcc -o /tmp/a /tmp/a.c && /tmp/a";
const NOTHING: Vec<String> = Vec::new();

pub fn run(site: &mut Site) {
    let union = Union::new(site);
    let before = Tree::read(&union.lower);
    union.mount();
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        let text = fs::read(file).expect("a file of the host");
        fs::write(union.shown(file), text).expect("a file of the tree");
    }
    let proc = union.shown("/proc");
    harness::call("mount", &["-t", "proc", "proc", &proc]).expect();
    install(site, &union);
    copies(site, &union);
    programs(site, &union);
    harness::call("umount", &[&proc]).expect();

    let lived = Tree::read(&union.mnt);
    union.umount();
    let lower = Tree::read(&union.lower);
    site.equal("lower_untouched", before.differences(&lower), NOTHING);
    union.mount();
    site.equal("after_remount", lived.differences(&Tree::read(&union.mnt)), NOTHING);
    union.umount();
    site.equal("daemon_leaves", host::left_of(&program()), NOTHING);
    let options = format!("{},metacopy=on,redirect_dir=on,index=on", union.layers);
    harness::call("mount", &["-t", "overlay", "-o", &options, "overlay", &union.mnt]).expect();
    site.equal("under_kernel_overlayfs", lived.differences(&Tree::read(&union.mnt)), NOTHING);
    union.umount();
}

/// The Debian tree under an upper.
struct Union {
    lower: String,
    mnt: String,
    layers: String,
}

impl Union {
    fn new(site: &Site) -> Self {
        let [lower, upper, work, mnt] =
            ["lower", "upper", "work", "mnt"].map(|name| site.directory(&format!("union/{name}")));
        harness::call("mount", &["--bind", site.tree(), &lower]).expect();
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Self { lower, mnt, layers }
    }

    fn mount(&self) {
        let program = program();
        let options = format!("{},dev", self.layers);
        harness::run(Command::new(program).args(["-o", &options, &self.mnt])).expect();
    }

    fn umount(&self) {
        harness::call("umount", &[&self.mnt]).expect();
    }

    /// The path of a file of the tree, from outside.
    fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.mnt)
    }

    /// A command in the tree, with an environment of its own.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.args([&self.mnt, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
        command
    }

    fn call(&self, words: &[&str]) -> Done {
        harness::run(&mut self.command(words))
    }
}

/// Two installations at the same time, with concurrent readers.
fn install(site: &mut Site, union: &Union) {
    let packages = std::env::var("LAMINA_APT_PACKAGES");
    let packages = packages.unwrap_or_else(|_| "gcc libc6-dev git".to_owned());
    let packages: Vec<&str> = packages.split_whitespace().collect();
    site.succeeds("update", &union.call(&["apt-get", "update", "-qq"]));
    let words = |packages: &[&'_ str]| -> Vec<String> {
        let fixed = ["apt-get", "install", "-y", "--no-install-recommends"];
        let all = fixed.iter().chain(&LOCK_OPTIONS).chain(packages);
        all.map(|word| (*word).to_owned()).collect()
    };
    let command = |packages: &[&str]| {
        let words = words(packages);
        union.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let is_installed = AtomicBool::new(false);
    let readers = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_beside(union, &is_installed));
        let log = site.at("other.log");
        let other = Background::start(&mut command(&["hello"]), Path::new(&log));
        site.succeeds("install", &harness::run(&mut command(&packages)));
        let is_done = other.wait();
        let log = fs::read_to_string(log).expect("a log");
        let last = log.lines().last().unwrap_or_default();
        site.holds("install_beside", is_done, format!("expected success got {last}"));
        is_installed.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")
    });
    let is_unexpected = |line: &String| !OF_CHANGES.iter().any(|text| line.contains(text));
    let unexpected: Vec<String> = readers.into_iter().filter(is_unexpected).collect();
    site.equal("readers_beside", unexpected, NOTHING);
}

/// Reads and copies the tree until the installations end. Returns the output of tar and cp.
fn read_beside(union: &Union, is_installed: &AtomicBool) -> Vec<String> {
    let mut said = Vec::new();
    let mut copy = 0;
    while !is_installed.load(Ordering::Relaxed) {
        // tar would not read the files if it wrote to /dev/null directly.
        let script = "tar -C \"$0\" -cf - usr/lib usr/share var/lib/dpkg | cat >/dev/null";
        copy += 1;
        let target = union.shown(&format!("/srv/copy{copy}"));
        let source = union.shown("/usr/share/zoneinfo");
        let (mut tar, mut cp) = (Command::new("sh"), Command::new("cp"));
        tar.args(["-c", script, &union.mnt]);
        cp.args(["-a", &source, &target]);
        for command in [&mut tar, &mut cp] {
            command.env("LC_ALL", "C").stdin(Stdio::null());
            let done = harness::run(command);
            said.extend(done.err.lines().map(str::to_owned));
        }
    }
    said
}

/// Each copy has all files of the lower, with the same content.
fn copies(site: &mut Site, union: &Union) {
    let original = Tree::below(format!("{}/usr/share/zoneinfo", union.lower));
    let entries = fs::read_dir(union.shown("/srv")).expect("the copies");
    let mut other = Vec::new();
    let mut count = 0;
    for entry in entries.map(|entry| entry.expect("a copy").path()) {
        other.extend(original.other_contents(&Tree::below(&entry)));
        count += 1;
    }
    site.holds("copies_are_made", count > 0, "expected a copy got none");
    site.equal("copies", other, Vec::<PathBuf>::new());
}

/// The installed programs work.
fn programs(site: &mut Site, union: &Union) {
    let dpkg = |word: &str| {
        let done = union.call(&["dpkg", word]);
        (done.code, done.all_words())
    };
    site.equal("dpkg_verify", dpkg("--verify"), (0, String::new()));
    site.equal("dpkg_audit", dpkg("--audit"), (0, String::new()));
    let source = union.shown("/tmp/a.c");
    fs::write(&source, "int main(void) { return 42; }\n").expect("a file");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).expect("a mode");
    site.equal("compiles", union.call(&["sh", "-c", COMPILE]).code, 42);
    site.succeeds("git", &union.call(&["sh", "-c", COMMIT]));
}
