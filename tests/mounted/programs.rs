//! Real programs side by side on one mount: git with several worktrees of one repository, SQLite
//! with several writers of one database, two `make -j`, rsync into a tree that tar reads.
//!
//! Everything starts in a lower, so the first changes are copy-ups. All data that a program
//! acknowledged must be there at the end, and after a remount.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::Site;
use crate::tools::*;
use crate::tree;

judged!(over_directories:
    git_worktrees_commit_to_one_repository,
    sqlite_keeps_what_several_writers_inserted,
    two_makes_build_from_the_same_sources,
    tar_reads_whole_files_while_rsync_replaces_them,
    all_of_them_at_once,
);

/// One set of programs: the initial lower, the scripts, and the final condition.
struct Load {
    prepare: fn(&Path),
    /// Shell scripts that run at the same time, in the root of the mount.
    scripts: fn(&Site) -> Vec<String>,
    judge: fn(&Path),
}

const GIT: Load = Load { prepare: git_lower, scripts: git_scripts, judge: git_judge };
const SQLITE: Load = Load { prepare: sqlite_lower, scripts: sqlite_scripts, judge: sqlite_judge };
const MAKE: Load = Load { prepare: make_lower, scripts: make_scripts, judge: make_judge };
const RSYNC: Load = Load { prepare: rsync_lower, scripts: rsync_scripts, judge: rsync_judge };

fn git_worktrees_commit_to_one_repository(s: &mut Site) {
    run(s, &[GIT]);
}

fn sqlite_keeps_what_several_writers_inserted(s: &mut Site) {
    run(s, &[SQLITE]);
}

fn two_makes_build_from_the_same_sources(s: &mut Site) {
    run(s, &[MAKE]);
}

fn tar_reads_whole_files_while_rsync_replaces_them(s: &mut Site) {
    run(s, &[RSYNC]);
}

fn all_of_them_at_once(s: &mut Site) {
    run(s, &[GIT, SQLITE, MAKE, RSYNC]);
}

fn run(s: &mut Site, loads: &[Load]) {
    for load in loads {
        (load.prepare)(&s.lower(""));
    }
    s.mount();
    let scripts: Vec<String> = loads.iter().flat_map(|load| (load.scripts)(s)).collect();
    let running: Vec<Child> = scripts.iter().map(|script| start(&s.mnt(), script)).collect();
    let mut failed = Vec::new();
    for (script, child) in scripts.iter().zip(running) {
        let output = child.wait_with_output().expect("a shell ends");
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            failed.push(format!("{script}\n{}: {text}", output.status));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    for load in loads {
        (load.judge)(&s.mnt());
    }
    let before = tree::read(&s.mnt());
    s.remount();
    tree::assert_same("before", &before, "after a remount", &tree::read(&s.mnt()));
    for load in loads {
        (load.judge)(&s.mnt());
    }
}

fn start(dir: &Path, script: &str) -> Child {
    Command::new("/bin/bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b")])
        .envs([
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("HOME", "/nonexistent"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash starts")
}

/// Runs a script to its end and returns its output.
fn output(dir: &Path, script: &str) -> String {
    let output = start(dir, script).wait_with_output().expect("a shell ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{}: {text}", output.status);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

const WORKTREES: usize = 4;
const COMMITS: usize = 8;

fn git_lower(lower: &Path) {
    let script = "git init -q -b main git; cd git; git config gc.auto 0; \
                  for n in $(seq 60); do seq $((n * 20)) >f$n; done; \
                  git add .; git commit -qm first; git gc -q";
    output(lower, script);
}

fn git_scripts(s: &Site) -> Vec<String> {
    // git itself loses a race of two `worktree add`, and of `prune-packed` and `add`.
    for tree in 0..WORKTREES {
        output(&s.mnt(), &format!("cd git; git worktree add -q -b b{tree} ../tree{tree}"));
    }
    let work = |tree: usize| {
        format!(
            "cd tree{tree}; for n in $(seq {COMMITS}); do echo {tree} $n >>f$((n + {tree})); \
             echo $n >new$n; git add .; git commit -qm $n; done"
        )
    };
    let reads = "cd git; for n in $(seq 12); do git status --porcelain; git log --all --oneline; \
                 git repack -q; done >/dev/null";
    (0..WORKTREES).map(work).chain([reads.to_owned()]).collect()
}

fn git_judge(mnt: &Path) {
    output(mnt, "cd git; git fsck --strict --no-dangling");
    for tree in 0..WORKTREES {
        let log = output(mnt, &format!("cd git; git log --oneline b{tree} | wc -l"));
        assert_eq!(log, (COMMITS + 1).to_string(), "commits of b{tree}");
        assert_eq!(output(mnt, &format!("cd tree{tree}; git status --porcelain")), "");
    }
}

/// Databases of each kind: the first writes to each, by several processes at once, are a copy-up.
const BASES: usize = 4;
const WRITERS: usize = 3;
const INSERTS: usize = 12;

fn bases() -> Vec<(&'static str, String)> {
    let of = |mode: &'static str| (0..BASES).map(move |n| (mode, format!("{mode}{n}.db")));
    of("delete").chain(of("wal")).collect()
}

fn sqlite_lower(lower: &Path) {
    for (mode, base) in bases() {
        let script = format!(
            "sqlite3 {base} 'pragma journal_mode={mode}; create table t (w, n, x); \
             create index i on t (x); with recursive c (n) as (select 1 union all select n + 1 \
             from c where n < 5000) insert into t select -1, n, hex(randomblob(40)) from c;'"
        );
        output(lower, &script);
    }
}

fn sqlite_scripts(_: &Site) -> Vec<String> {
    let write = |base: &str, writer: usize| {
        format!(
            "for n in $(seq {INSERTS}); do echo \"insert into t values ({writer}, $n, \
             hex(randomblob(40)));\"; done | sqlite3 -bail -cmd '.timeout 60000' {base}"
        )
    };
    let writers = |(_, base): (_, String)| (0..WRITERS).map(move |n| write(&base, n));
    bases().into_iter().flat_map(writers).collect()
}

fn sqlite_judge(mnt: &Path) {
    for (_, base) in bases() {
        let ask = |question: &str| output(mnt, &format!("sqlite3 {base} '{question}'"));
        assert_eq!(ask("pragma integrity_check"), "ok", "{base}");
        let kept = ask("select count(distinct w * 1000 + n) from t where w >= 0");
        assert_eq!(kept, (WRITERS * INSERTS).to_string(), "rows that were acknowledged, {base}");
        assert_eq!(ask("select count(*) from t where w = -1"), "5000", "{base}");
    }
}

const SOURCES: usize = 16;

fn make_lower(lower: &Path) {
    let root = lower.join("src");
    dir(&root);
    let mut calls = String::new();
    for n in 0..SOURCES {
        put(
            root.join(format!("f{n}.c")),
            format!("#include \"all.h\"\nint f{n}(void) {{ return BASE + {n}; }}\n"),
        );
        calls += &format!(" + f{n}()");
    }
    let protos: String = (0..SOURCES).map(|n| format!("int f{n}(void);\n")).collect();
    put(root.join("all.h"), format!("#define BASE 1\n{protos}"));
    let main = format!("int main(void) {{ printf(\"%d\\n\", 0{calls}); }}");
    put(root.join("main.c"), format!("#include <stdio.h>\n#include \"all.h\"\n{main}\n"));
    let makefile = "O := $(patsubst ../src/%.c,%.o,$(wildcard ../src/*.c))\n\
                    prog: $(O)\n\tgcc -o $@ $(O)\n\
                    %.o: ../src/%.c ../src/all.h\n\tgcc -O0 -c -o $@ $<\n";
    for build in ["one", "two"] {
        dir(lower.join(build));
        put(lower.join(build).join("Makefile"), makefile);
        // Objects of an earlier build, older than their sources: each is rebuilt.
        for n in 0..SOURCES {
            let object = lower.join(build).join(format!("f{n}.o"));
            put(&object, "stale");
            output(lower, &format!("touch -d 2001-01-01 {}", object.display()));
        }
    }
}

fn make_scripts(_: &Site) -> Vec<String> {
    ["one", "two"].map(|build| format!("cd {build}; make -s -j4")).to_vec()
}

fn make_judge(mnt: &Path) {
    let sum = SOURCES + SOURCES * (SOURCES - 1) / 2;
    for build in ["one", "two"] {
        assert_eq!(output(mnt, &format!("cd {build}; make -q; ./prog")), sum.to_string());
    }
}

const FILES: usize = 120;
const ROUNDS: usize = 8;

fn len_of(file: usize) -> usize {
    [0, 1, 700, 4096, 70_000, 300_000][file % 6] + file
}

/// A tree of files that each repeat one byte.
fn fill(root: &Path, byte: u8) {
    for file in 0..FILES {
        let dir_of = root.join(format!("d{}", file % 7));
        dir(&dir_of);
        put(dir_of.join(format!("f{file}")), vec![byte; len_of(file)]);
    }
}

fn source(root: &Path, byte: char) -> PathBuf {
    root.parent().expect("a site").join(format!("source-{byte}"))
}

fn rsync_lower(lower: &Path) {
    fill(&lower.join("tree"), b'1');
    for byte in ['1', '2'] {
        fill(&source(lower, byte), byte as u8);
    }
}

fn rsync_scripts(s: &Site) -> Vec<String> {
    let site = s.root().display();
    // Same sizes and near times: `-c` compares contents.
    let writes = format!("for b in 2 1 2 2 1 2; do rsync -ac {site}/source-$b/ tree/; done");
    // tar exits with 1 if a file changed or vanished during the read; 2 is an error.
    let reads = format!(
        "cd {site}; mkdir out; for n in $(seq {ROUNDS}); do mkdir out/$n; \
             tar -cf archive -C mnt tree 2>said || [ $? = 1 ] || {{ cat said >&2; exit 1; }}; \
             tar -xf archive -C out/$n; done"
    );
    vec![writes, reads]
}

fn rsync_judge(mnt: &Path) {
    let site = mnt.parent().expect("a site");
    output(mnt, &format!("diff -r {} tree", source(mnt, '2').display()));
    for round in 1..=ROUNDS {
        let out = site.join("out").join(round.to_string());
        for (path, bytes) in files_below(&out) {
            if path.contains("/.f") {
                continue; // rsync's own name for a file that it has not finished
            }
            let file: usize = path.rsplit('f').next().and_then(|n| n.parse().ok()).expect("fN");
            let whole = bytes.len() == len_of(file) && bytes.iter().all(|byte| *byte == bytes[0]);
            assert!(
                whole || bytes.is_empty() && len_of(file) == 0,
                "{path} of round {round} is torn"
            );
        }
    }
}

fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.display().to_string(), get(&path));
            }
        }
    }
    found
}
