//! A tree of busybox as an image, and crun on this host.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The program, which needs no library.
pub const BUSYBOX: &str = "/bin/busybox";
/// Programs of busybox that the tests use.
const APPLETS: [&str; 26] = [
    "sh", "cat", "ls", "sleep", "echo", "stat", "test", "dd", "env", "id", "mkdir", "pwd", "mount",
    "touch", "true", "seq", "ln", "rm", "tty", "stty", "kill", "hostname", "yes", "ip", "false",
    "chmod",
];

/// Makes the tree of an image.
pub fn tree(image: &Path) {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(image.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, image.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

/// crun, also on a host with both forms of cgroups.
pub fn crun() -> Command {
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers");
    if controllers.is_ok_and(|text| !text.trim().is_empty()) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified; exec \"$@\"", "sh"]);
        command.arg("crun");
        return command;
    }
    Command::new("crun")
}

/// Ends all containers whose states are in a directory of crun.
pub fn end_all(state: &Path) {
    for id in fs::read_dir(state).into_iter().flatten().flatten() {
        let mut command = crun();
        command.arg("--root").arg(state).args(["delete", "--force"]);
        command.arg(id.file_name()).output().unwrap();
    }
}

/// Unmounts all that is mounted below a directory.
pub fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mine = dir.to_str().unwrap();
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mounts: Vec<&str> = mounts.filter(|at| at.starts_with(mine)).collect();
    for at in mounts.iter().rev() {
        rustix::mount::unmount(*at, rustix::mount::UnmountFlags::DETACH).unwrap_or_default();
    }
}
