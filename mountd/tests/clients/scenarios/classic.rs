//! The classic walk with volumes: a database in a container, over volumes of the plugin.
//!
//! PostgreSQL comes with Debian's packages. Its volume outlives containers, engines and the plugin.

mod load;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::docker::Docker;
use crate::engine::Engine;
use crate::harness::{self, Done, Site, program};
use crate::plugin::{Plugin, SOCKET};
use crate::podman::{self, Store};
use crate::usage;

/// The image with PostgreSQL.
pub const IMAGE: &str = "lamina/postgres";
/// The package; the tree with it is made once.
const PACKAGE: &str = "postgresql";
/// How long the database may take to start for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Runs the database in `/data`, which is made if it is missing.
const START: &str = "chown postgres: /data; cd /tmp; \
     as='setpriv --reuid postgres --regid postgres --init-groups'; \
     bin=$(echo /usr/lib/postgresql/*/bin); \
     [ -s /data/db/PG_VERSION ] || $as $bin/initdb -A trust -D /data/db || exit 1; \
     exec $as $bin/postgres -D /data/db -k /tmp -h ''";

pub fn run(site: &mut Site) {
    let bin = site.directory("bin");
    let own = format!("{bin}/fuse-overlayfs");
    std::fs::copy(program(), &own).expect("a copy of the program");
    let archive = pack(site);
    let mut plugin = Plugin::start(site);
    let docker = Docker::start(site, &bin);
    import(&docker.engine, &archive);
    let create = ["volume", "create", "-d", "lamina", "data_volume"];
    database(site, &docker.engine, &create);
    made_by_use(site, &docker.engine);
    binds(site, &docker.engine, &plugin);
    sized(site, &docker.engine);
    two_containers(site, &docker.engine);
    let docker = load::outlive_kills(site, docker, &mut plugin);
    leave_nothing(site, &docker.engine);
    docker.end();
    let engine = podman::with_store(site, &Store { plugin: SOCKET, ..Store::default() }, None);
    import(&engine, &archive);
    database(site, &engine, &["volume", "create", "--driver", "lamina", "data_volume"]);
    binds(site, &engine, &plugin);
    leave_nothing(site, &engine);
    site.holds("ends", plugin.end(), "expected exit code 0 got another");
    usage::nothing_left(site, Path::new(&own));
    usage::nothing_left(site, &program());
}

/// A tar of the tree with the package.
fn pack(site: &Site) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/debian-tree");
    let tree = harness::run(Command::new(script).arg(PACKAGE)).expect();
    let archive = site.at("postgres.tar");
    let excluded = ["--exclude", "./var/lib/apt/lists", "--exclude", "./usr/share/locale"];
    let words = [&["-C", tree.trim_end()], &excluded[..], &["-cf", &archive, "."]];
    harness::call("tar", &words.concat()).expect();
    archive
}

fn import(engine: &Engine, archive: &str) {
    engine.call(&["import", archive, IMAGE]).expect();
}

fn start(site: &mut Site, engine: &Engine, name: &str) {
    let options = ["-d", "--name", name, "-v", "data_volume:/data"];
    site.succeeds("pg_start", &engine.run(&options, IMAGE, &["sh", "-c", START]));
    let answers = || query(engine, name, "select 1").is_ok();
    let is_up = harness::until(START_LIMIT, answers);
    let said = engine.call(&["logs", name]).last_line();
    site.holds("pg_answers", is_up, said);
}

fn query(engine: &Engine, name: &str, sql: &str) -> Done {
    let psql = ["exec", name, "psql", "-U", "postgres", "-h", "/tmp", "-Atc", sql];
    engine.call(&psql)
}

/// A database whose container is removed goes on in another one.
fn database(site: &mut Site, engine: &Engine, create: &[&str]) {
    site.equal("pg_volume", engine.call(create).text(), "data_volume");
    start(site, engine, "db1");
    let fill = "create table t as select i, md5(i::text) as text from generate_series(1, 5000) i";
    site.succeeds("pg_writes", &query(engine, "db1", fill));
    site.succeeds("pg_rm", &engine.call(&["rm", "-f", "db1"]));
    start(site, engine, "db2");
    let sum = "select count(*), sum(i), count(distinct text) from t";
    site.equal("pg_kept", query(engine, "db2", sum).text(), "5000|12502500|5000");
    let removed = engine.call(&["volume", "rm", "data_volume"]);
    site.holds("pg_in_use", !removed.is_ok() && removed.err.contains("use"), &removed.err);
    site.succeeds("pg_stop", &engine.call(&["rm", "-f", "db2"]));
}

/// A volume that no one has created.
fn made_by_use(site: &mut Site, engine: &Engine) {
    let use_it = ["--volume-driver", "lamina", "-v", "data_volume2:/path"];
    site.succeeds("use_makes", &engine.shell(&use_it, IMAGE, "echo one >/path/f"));
    site.equal("use_kept", engine.shell(&use_it, IMAGE, "cat /path/f").text(), "one");
    let found = engine.call(&["volume", "inspect", "data_volume2"]).json();
    site.equal("use_driver", &found[0]["Driver"], "lamina");
}

/// Directories of the host by their full paths, among them that of a volume.
fn binds(site: &mut Site, engine: &Engine, plugin: &Plugin) {
    let host = site.directory("host");
    let short = format!("{host}:/data");
    let long = format!("type=bind,source={host},target=/data");
    let read_only = format!("{long},readonly");
    site.succeeds("bind", &engine.shell(&["-v", &short], IMAGE, "echo one >/data/f"));
    let mount = ["--mount", &long];
    site.equal("bind_mount", engine.shell(&mount, IMAGE, "cat /data/f").text(), "one");
    let written = std::fs::read_to_string(format!("{host}/f")).unwrap_or_default();
    site.equal("bind_host", written, "one\n");
    site.fails("bind_ro", &engine.shell(&["--mount", &read_only], IMAGE, "echo >/data/f"));
    let missing = format!("type=bind,source={host}/none,target=/data");
    site.fails("bind_none", &engine.shell(&["--mount", &missing], IMAGE, "true"));
    let volume = format!("{}:/data:ro", plugin.at("data_volume"));
    let shown = engine.shell(&["-v", &volume], IMAGE, "ls /data").text();
    site.equal("bind_volume", shown, "db");
}

/// A size without a driver is held.
fn sized(site: &mut Site, engine: &Engine) {
    let mount = "type=volume,src=sized,dst=/data,volume-driver=lamina,volume-opt=size=1G";
    let df = "df -k --output=size /data | tail -n 1; dd if=/dev/zero of=/data/x bs=1M count=1100";
    let done = engine.shell(&["--mount", mount], IMAGE, df);
    let kib = done.words().parse::<u64>().unwrap_or(0);
    site.holds("sized", (900 << 10..=1 << 20).contains(&kib), format!("{kib} KiB"));
    site.holds("sized_full", done.err.contains("No space left"), &done.err);
    let found = engine.call(&["volume", "inspect", "sized"]).json();
    site.equal("sized_bytes", &found[0]["Status"]["SizeBytes"], 1 << 30);
    site.succeeds("sized_rm", &engine.call(&["volume", "rm", "sized"]));
}

/// Two containers change one file of one volume, under its locks.
fn two_containers(site: &mut Site, engine: &Engine) {
    let volume = ["-v", "data_volume2:/path"];
    let script = "for i in $(seq 300); do flock /path/lock sh -c 'n=$(cat /path/n); \
                  echo $((n + 1)) >/path/n'; done";
    site.succeeds("both_begin", &engine.shell(&volume, IMAGE, "echo 0 >/path/n"));
    std::thread::scope(|scope| {
        let run = || scope.spawn(|| engine.shell(&volume, IMAGE, script).is_ok());
        let both = [run(), run()].map(|one| one.join().expect("a thread"));
        site.equal("both_run", both, [true, true]);
    });
    site.equal("both_count", engine.shell(&volume, IMAGE, "cat /path/n").text(), "600");
}

/// Removes containers and volumes, and prunes what no engine knows.
fn leave_nothing(site: &mut Site, engine: &Engine) {
    let root = site.at("root");
    let lamina = |words: &[&str]| {
        let mut command = Command::new(program());
        harness::run(command.args(["volume"]).args(words).args(["--root", &root]))
    };
    let names = engine.call(&["volume", "ls", "-q", "-f", "driver=lamina"]).text();
    for name in names.lines() {
        site.succeeds("rm", &engine.call(&["volume", "rm", name]));
    }
    site.succeeds("outside", &lamina(&["create", "outside"]));
    site.succeeds("prune", &lamina(&["prune", "--all", "--trash"]));
    site.equal("pruned", lamina(&["ls", "--quiet"]).text(), "");
    site.equal("no_trash", lamina(&["ls", "--trash", "--json"]).json(), serde_json::json!([]));
    site.succeeds("rmi", &engine.call(&["rmi", "-f", IMAGE]));
}
