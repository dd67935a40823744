//! Images and volumes of an engine that runs, taken over by `lamina import-docker` and
//! `import-podman`.

pub mod docker;
mod faults;
pub mod podman;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::engine::Engine;
use crate::harness::{self, Done, Site};
use crate::lamina::{Lamina, RootBy};
use crate::tree::Tree;

/// A base of one program, and layers that delete, link and replace.
const DOCKERFILE: &str = "FROM lamina/base\n\
    RUN mkdir -p /seed/sub /links && echo one >/seed/old && echo data >/links/a \
    && ln /links/a /links/b && echo gone >/gone && dd if=/dev/urandom of=/big bs=1M count=4\n\
    RUN rm /gone && echo x >/kept && rm -rf /seed && mkdir /seed && echo new >/seed/new\n\
    RUN echo changed >>/links/b && chown 7:8 /kept && chmod 6755 /kept && ln -s /links /lnk \
    && echo t >'/links/odd name é'\nLABEL a=b\nCMD [\"sh\"]\n";
const PROGRAMS: &str = "sh ls cat ln mkdir rm mv echo sleep chmod chown touch dd";
/// The names of the image; the engine podman puts `localhost/` before some.
const NAMES: [&str; 3] = ["lamina/app:1", "lamina/app:2", "reg.example:5000/x/y_z:Tag-1"];
/// Files of all kinds.
const FILL: &str = "cd \"$0\" && mkdir -p d/deep/er closed 'odd name' && echo text >d/f && \
    ln d/f d/deep/link && ln d/f other && ln -s ../f d/deep/soft && ln -s /nowhere dangling && \
    mkfifo fifo && mknod char c 1 3 && mknod block b 7 9 && chmod 6751 d/f && \
    chown -h 33:44 d/deep/soft && chown 1234:5678 d && chmod 1777 closed && \
    truncate -s 64M sparse && echo tail >>sparse && printf x | dd of=sparse bs=1 seek=9M \
    conv=notrunc status=none && setfattr -n user.colour -v red d/f && \
    setfacl -m u:1000:r d/f && setfacl -d -m g:50:rwx d && cp /bin/true capable && \
    setcap cap_net_raw+ep capable && echo q >\"$(printf 'odd name/\\377\\nq')\" && \
    chmod 0 closed && touch -h -d '2001-02-03 04:05:06.789' dangling d/deep sparse d && \
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'";

/// A report.
#[derive(Debug, PartialEq, Deserialize)]
struct Report {
    images: Vec<Image>,
    volumes: Vec<Volume>,
    left_out_images: usize,
    left_out_volumes: usize,
    totals: Totals,
    needed_bytes: u64,
    free_bytes: u64,
    seconds: Option<f64>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Image {
    id: String,
    names: Vec<String>,
    outcome: String,
    how: String,
    layers: usize,
    bytes: u64,
    reason: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Volume {
    name: String,
    outcome: String,
    how: String,
    objects: u64,
    bytes: u64,
    reason: Option<String>,
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Totals {
    images: usize,
    layers: usize,
    volumes: usize,
    bytes: u64,
}

impl Report {
    #[track_caller]
    fn of(done: &Done) -> Self {
        let text = done.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {}", done.err))
    }

    fn volume(&self, name: &str) -> &Volume {
        let found = self.volumes.iter().find(|volume| volume.name == name);
        found.unwrap_or_else(|| panic!("{name} in {:?}", self.volumes))
    }

    /// What a dry run and a run have in common.
    fn figures(&self) -> Vec<(String, usize, u64)> {
        let images = self.images.iter().map(|one| (one.id.clone(), one.layers, one.bytes));
        let volumes = self.volumes.iter().filter(|one| one.outcome != "refused");
        let objects = |one: &Volume| usize::try_from(one.objects).expect("few objects");
        let volumes = volumes.map(|one| (one.name.clone(), objects(one), one.bytes));
        images.chain(volumes).collect()
    }
}

/// An engine whose objects are taken over.
struct Place<'a> {
    engine: &'a Engine,
    command: &'static str,
    /// The names of [`NAMES`] as the engine has them.
    names: Vec<String>,
}

impl Place<'_> {
    fn import(&self, lamina: &Lamina, words: &[&str]) -> Done {
        harness::run(&mut self.command(lamina, words))
    }

    fn command(&self, lamina: &Lamina, words: &[&str]) -> Command {
        let mut command = lamina.command(&[&[self.command, "--json"], words].concat());
        command.envs(self.engine.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The directory of a volume.
    fn content(&self, volume: &str) -> String {
        let found = self.engine.call(&["volume", "inspect", volume]).json();
        found[0]["Mountpoint"].as_str().expect("a mount point").to_owned()
    }

    fn fill(&self, volume: &str) {
        harness::call("sh", &["-ec", FILL, &self.content(volume)]).expect();
    }
}

/// Makes images and volumes in an engine, and a container that uses one.
fn prepare(site: &Site, place: &Place<'_>) {
    let engine = place.engine;
    let base = site.directory("base/bin");
    harness::call("cp", &["/bin/busybox", &base]).expect();
    for name in PROGRAMS.split(' ') {
        std::os::unix::fs::symlink("busybox", format!("{base}/{name}")).expect("a link");
    }
    let archive = site.at("base.tar");
    harness::call("tar", &["-C", &site.at("base"), "-cf", &archive, "."]).expect();
    engine.call(&["import", &archive, "lamina/base"]).expect();
    let context = site.directory("app");
    site.write("app/Dockerfile", DOCKERFILE);
    let tags: Vec<&str> = NAMES.iter().flat_map(|name| ["-t", name]).collect();
    engine.call(&[&["build", "-q", "--network", "none"], &tags[..], &[&context]].concat()).expect();
    site.write("app/Dockerfile", "FROM lamina/base\nRUN echo nameless >/nameless\n");
    engine.call(&["build", "-q", "--network", "none", &context]).expect();
    engine.call(&["volume", "create", "--label", "k=v", "--label", "lamina.dev/claim=x", "data"]);
    place.fill("data");
    engine.call(&["volume", "create", "used"]).expect();
    let options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=0700"];
    engine.call(&[&["volume", "create"], &options[..], &["memory"]].concat()).expect();
    engine.call(&["volume", "create", "taken"]).expect();
    let write = ["sh", "-c", "while sleep 0.01; do echo line >>/v/log; done"];
    let options = ["-d", "--name", "writer", "-v", "used:/v", "-v", "/anonymous"];
    engine.run(&options, "lamina/base", &write).expect();
}

/// The life of one engine with its objects.
fn judge(site: &mut Site, place: &Place<'_>) {
    let lamina = Lamina::new(site, "root", RootBy::Option);
    let dry = place.import(&lamina, &["--dry-run"]);
    site.holds("dry_run_writes_nothing", !Path::new(&site.at("root")).exists(), "a data root");
    let planned = Report::of(&dry);
    lamina.run(&["volume", "create", "taken"]).expect();
    let started = state(place);
    let done = place.import(&lamina, &[]);
    let report = Report::of(&done);
    site.equal("figures", report.figures(), without(planned.figures(), "taken"));
    site.equal("code", (dry.code, done.code), (harness::FAILED, harness::FAILED));
    let sums = (report.totals.images, report.totals.volumes, report.left_out_images > 0);
    site.equal("totals", sums, (2, 2, true));
    site.equal("anonymous", report.left_out_volumes, 1);
    site.holds("time", report.seconds.is_some() && planned.seconds.is_none(), "a run has a time");
    let bounds = planned.needed_bytes >= planned.totals.bytes && planned.free_bytes > 0;
    site.holds("space", bounds, format!("{planned:?}"));
    judge_images(site, place, &lamina);
    judge_volumes(site, place, &lamina, &report);
    site.equal("container_runs_on", state(place), started);
    judge_again(site, place, &lamina);
    faults::judge(site, place);
    faults::judge_adoption(site, place, &lamina);
    faults::judge_killed_adoption(site, place);
    judge_export(site, place, &lamina);
}

fn without(mut figures: Vec<(String, usize, u64)>, name: &str) -> Vec<(String, usize, u64)> {
    figures.retain(|(one, ..)| one != name);
    figures
}

/// The id and the start of the container.
fn state(place: &Place<'_>) -> (String, String, bool) {
    let found = place.engine.call(&["container", "inspect", "writer"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let state = &found[0]["State"];
    let is_running = state["Running"].as_bool().unwrap_or_default();
    (text(&found[0]["Id"]), text(&state["StartedAt"]), is_running)
}

fn judge_images(site: &mut Site, place: &Place<'_>, lamina: &Lamina) {
    site.equal("verify", lamina.verify(), (0, Vec::new()));
    let names = lamina.image_names();
    let id = place.engine.id("lamina/app:1");
    let id = id.trim_start_matches("sha256:");
    for name in &place.names {
        site.holds("name", names.contains(name), format!("expected {name} in {names:?}"));
        site.equal("id", lamina.inspect(name).id, id);
    }
    let steps = place.engine.call(&["history", "-q", "lamina/app:1"]).text().lines().count();
    site.equal("history", lamina.history("lamina/app:1").len(), steps);
    let mnt = site.directory("mnt");
    lamina.mount("lamina/app:1", &mnt).expect();
    let read = |name: &str| fs::read_to_string(format!("{mnt}/{name}")).unwrap_or_default();
    let seen = [read("links/b"), read("seed/new"), read("links/odd name é")].concat();
    site.equal("content", seen.as_str(), "data\nchanged\nnew\nt\n");
    let gone = ["gone", "seed/old"].map(|name| Path::new(&format!("{mnt}/{name}")).exists());
    site.equal("deleted", gone, [false, false]);
    let shown = harness::call("stat", &["-c", "%u:%g %a", &format!("{mnt}/kept")]).text();
    site.equal("attributes", shown.as_str(), "7:8 6755");
    lamina.umount(&mnt);
}

fn judge_volumes(site: &mut Site, place: &Place<'_>, lamina: &Lamina, report: &Report) {
    let refused = |name: &str| report.volume(name).reason.clone().unwrap_or_default();
    let (used, taken) = (refused("used"), refused("taken"));
    site.holds("used_is_refused", used.contains("writer") && used.contains("running"), used);
    site.holds("other_is_refused", taken.contains("another volume"), taken);
    let found = lamina.run(&["volume", "inspect", "data"]).json();
    let copy = found[0]["mountpoint"].as_str().unwrap_or_default().to_owned();
    let differences = Tree::read(place.content("data")).differences(&Tree::read(&copy));
    site.equal("tree", differences, Vec::<String>::new());
    let blocks = |base: &str| {
        let done = harness::call("stat", &["-c", "%b %X %Y", &format!("{base}/sparse")]).text();
        let blocks: u64 = done.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0);
        blocks * 512 < 1 << 20
    };
    site.holds("sparse", blocks(&copy), "expected holes");
    let labels: BTreeMap<String, String> =
        serde_json::from_value(found[0]["labels"].clone()).expect("labels");
    site.equal("label", labels.get("k").map(String::as_str), Some("v"));
    site.equal("own_label", labels.get("lamina.dev/claim"), None);
    let memory = lamina.run(&["volume", "inspect", "memory"]).json();
    site.equal("options", memory[0]["options"]["o"].as_str(), Some("mode=0700"));
    let missing = lamina.run(&["volume", "inspect", "used"]);
    site.fails("used_is_not_there", &missing);
}

/// Further runs take only what is new.
fn judge_again(site: &mut Site, place: &Place<'_>, lamina: &Lamina) {
    let engine = place.engine;
    let again = Report::of(&place.import(lamina, &[]));
    let nothing = Totals { images: 0, layers: 0, volumes: 0, bytes: 0 };
    site.equal("second_run", &again.totals, &nothing);
    site.equal("present", &*again.volume("data").outcome, "present");
    engine.call(&["tag", "lamina/app:1", "lamina/app:new"]).expect();
    let named = Report::of(&place.import(lamina, &["--only-images"]));
    site.equal("new_name", (named.totals.images, named.totals.bytes), (1, 0));
    site.succeeds("new_name_is_there", &lamina.image(&["inspect", "lamina/app:new"]));
    let one = Report::of(&place.import(lamina, &["used", "--live"]));
    site.equal("live", (&*one.volume("used").outcome, one.images.len()), ("taken", 0));
    let notes = one.volume("used").notes.join(" ");
    site.holds("live_warns", notes.contains("not of one moment"), notes);
    let unknown = place.import(lamina, &["nothing-of-this-name"]);
    site.refused("unknown", &unknown, &["nothing-of-this-name", "\"hint\":\"list them"]);
    engine.call(&["volume", "rm", "data"]).expect();
    engine.call(&["volume", "create", "data"]).expect();
    let other = Report::of(&place.import(lamina, &["data"]));
    let there = lamina.run(&["volume", "inspect", "data"]).text();
    let (found, born) = (other.volume("data"), fs::metadata(place.content("data")));
    let shown = format!("{found:?} {there} {:?}", born.and_then(|of| of.created()));
    site.holds("made_again", found.outcome == "refused", shown);
    engine.call(&["volume", "rm", "data"]).expect();
    let rest = Report::of(&place.import(lamina, &["--all", "--live"]));
    let nameless = rest.images.iter().filter(|one| one.names.is_empty()).count();
    let digits = rest.volumes.iter().filter(|one| one.name.len() == 64).count();
    site.holds("all", nameless > 0 && digits == 1, format!("{rest:?}"));
    site.equal("verify_again", lamina.verify(), (0, Vec::new()));
}

/// An exported image has the same id in the engine.
fn judge_export(site: &mut Site, place: &Place<'_>, lamina: &Lamina) {
    let engine = place.engine;
    let id = engine.id("lamina/app:1");
    let file = site.at("back.tar");
    lamina.image(&["export", "lamina/app:1", "-o", &file]).expect();
    let names = [&NAMES[..], &["lamina/app:new"]].concat();
    engine.call(&[&["rmi", "-f"], &names[..]].concat()).expect();
    let loaded = engine.call(&["load", "-i", &file]);
    site.succeeds("load", &loaded);
    site.equal("id_comes_back", engine.id("lamina/app:1"), id);
}
