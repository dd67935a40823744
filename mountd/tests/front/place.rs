//! A directory with a data root and files, good and bad, and the program in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;

/// The program, where other users may run it.
#[derive(Clone)]
pub struct Program(Rc<tempfile::TempDir>);

impl Program {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_lamina"), dir.path().join("bin/lamina")).unwrap();
        Self(Rc::new(dir))
    }

    fn bin(&self) -> PathBuf {
        self.0.path().join("bin")
    }
}

pub struct Place {
    dir: tempfile::TempDir,
    program: Program,
}

/// What every shell begins with.
const PRELUDE: &str = "as_nobody() {
    /usr/bin/setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"
}
";

/// Makes the files of a place.
const FILES: &str = r#"
mkdir -p low/sub up work at empty tree/dir
echo text >file; ln -s at link
echo "this is no archive, it is text" >text.txt
head -c 100000 /dev/urandom >tree/noise; echo hello >tree/hello
head -c 6000000 /dev/urandom >large; tar -cf big.tar large; rm large
tar -cf layer.tar -C tree .
: >empty.tar
gzip -k layer.tar; mv layer.tar.gz damaged.tar.gz
printf 'XXXXXXXX' | dd of=damaged.tar.gz bs=1 seek=50000 conv=notrunc 2>/dev/null
lamina image import layer.tar -t app >/dev/null 2>&1
lamina image export app -o app.tar >/dev/null 2>&1
head -c 60000 app.tar >cut.tar
mkdir l; tar -xf app.tar -C l; rm -f l/*/layer.tar l/*.tar; rm -rf l/blobs/sha256/*.tar
tar -cf lacking.tar -C l .; rm -rf l
lamina volume create data >/dev/null 2>&1
echo content >root/volumes/data/_data/file
"#;

impl Place {
    /// A place with files.
    pub fn new(program: &Program) -> Self {
        let place = Self::empty(program);
        place.good(FILES);
        place
    }

    /// A place without files.
    pub fn empty(program: &Program) -> Self {
        // Beside /tmp, which may be a tmpfs without extended attributes of users.
        Self { dir: tempfile::tempdir_in("/var/tmp").unwrap(), program: program.clone() }
    }

    /// A copy of this place.
    pub fn copied(&self) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = format!("{}/.", self.path().display());
        let done = Command::new("cp").args(["-a", &from]).arg(dir.path()).status().unwrap();
        assert!(done.success());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir, program: self.program.clone() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A shell in the place, in a mount namespace of its own, which ends its mounts.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c"]);
        command.arg(format!("{PRELUDE}{script}")).current_dir(self.path());
        let path = std::env::var("PATH").unwrap();
        command.env_clear().env("PATH", format!("{}:{path}", self.program.bin().display()));
        command.env("LAMINA_ROOT", self.path().join("root"));
        command.env("LAMINA_RUNTIME_DIR", self.path().join("run"));
        command.env("HOME", self.path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    pub fn run(&self, script: &str) -> Output {
        self.shell(script).output().unwrap()
    }

    #[track_caller]
    pub fn good(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The program in the place, not started yet, without a shell.
    pub fn lamina(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program.bin().join("lamina"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command.env("LAMINA_ROOT", self.path().join("root"));
        command.env("LAMINA_RUNTIME_DIR", self.path().join("run")).env_remove("LAMINA_LOG");
        command
    }
}
