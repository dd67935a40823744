//! Verbs on containers and their volumes are killed, or the processes that serve the volumes.
//!
//! The container `web` and its volume are written between the verbs, the volume of `app` is in use
//! by a writer all the time. What is once seen of a container, a volume or a snapshot must stay as
//! it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::kills::{Chance, Content, End, Host, is_alone, text, tree};
use crate::used::{Writer, check_moment, hide, show};

const VERBS: usize = 12;
const ROUNDS: usize = VERBS * 6;
/// Two names are one file.
const FILES: [&str; 4] = ["f0", "d/f1", "h0", "d/h1"];
const DATA: [&str; 2] = ["f0", "f1"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volume,
    VolumeSnapshot,
    Container,
    ContainerSnapshot,
}

/// What a list shows; `of` is the id of the volume, or the name of the container, of a snapshot.
#[derive(Debug, Clone)]
struct Shown {
    kind: Kind,
    id: String,
    name: String,
    of: String,
}

/// A verb, and what it may do.
#[derive(Debug, Default)]
struct Verb {
    kind: &'static str,
    words: Vec<String>,
    /// The content of a container that it makes, and of the clone of its volume.
    makes: (Content, Content),
    /// The ids of what it removes.
    removes: Vec<String>,
    /// The content that it gives by ids.
    gives: BTreeMap<String, Content>,
    /// What it says if it was done before; empty if it can be done again.
    done: &'static str,
}

struct World {
    host: Host,
    chance: Chance,
    writer: Option<Writer>,
    all: Vec<Shown>,
    known: BTreeMap<String, Content>,
    round: usize,
}

fn verb(kind: &'static str, text: &str, done: &'static str) -> Verb {
    let words = format!("container {text}").split(' ').map(str::to_owned).collect();
    Verb { kind, words, done, ..Verb::default() }
}

fn with_number(files: &[&str], number: usize) -> Content {
    files.iter().map(|file| ((*file).to_owned(), number.to_string())).collect()
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        tree(&host, &FILES);
        for name in ["data", "live"] {
            host.good(&["volume", "create", "--driver", "union", name]);
        }
        for (name, volume) in [("web", "data:/data"), ("app", "live:/data")] {
            host.good(&["container", "create", "--name", name, "--volume", volume, "base"]);
        }
        let (chance, known) = (Chance::of_run(), BTreeMap::new());
        let mut world = Self { host, chance, writer: None, all: Vec::new(), known, round: 0 };
        world.list();
        world.know("app", with_number(&FILES, 0));
        world.write_web();
        world.use_live();
        world
    }

    fn use_live(&mut self) {
        show(&self.host, "live", &["live"]);
        let dir = self.host.at("live/live");
        let writer = self.writer.get_or_insert_with(|| Writer::start(&[dir]));
        writer.may_fail(false);
    }

    fn know(&mut self, name: &str, content: Content) {
        let id = self.named(name).id;
        self.known.insert(id, content);
    }

    /// Writes a number to all files of `web` and of its volume.
    fn write_web(&mut self) {
        let (at, number) = (self.host.at("merged"), self.round.to_string());
        self.start("web", &at);
        for file in FILES.iter().map(|file| at.join(file)) {
            fs::write(file, &number).unwrap();
        }
        for file in DATA.iter().map(|file| at.join("data").join(file)) {
            fs::write(file, &number).unwrap();
        }
        self.host.good(&["container", "stop", "web"]);
        self.know("web", with_number(&FILES, self.round));
        self.know("data", with_number(&DATA, self.round));
    }

    fn start(&self, name: &str, at: &Path) {
        fs::create_dir_all(at).unwrap();
        self.host.good(&["container", "start", name, at.to_str().unwrap()]);
    }

    fn list(&mut self) {
        let lists: [(Kind, &[&str], [&str; 3]); 4] = [
            (Kind::Volume, &["volume"], ["id", "name", ""]),
            (Kind::VolumeSnapshot, &["volume", "snapshot"], ["id", "name", "origin"]),
            (Kind::Container, &["container"], ["id", "name", ""]),
            (Kind::ContainerSnapshot, &["container", "snapshot"], ["id", "name", "container"]),
        ];
        self.all.clear();
        for (kind, words, [id, name, of]) in lists {
            for one in self.host.json(&[words, &["ls", "--json"]].concat()) {
                let of = one[of].as_str().unwrap_or_default().to_owned();
                self.all.push(Shown { kind, id: text(&one, id), name: text(&one, name), of });
            }
        }
    }

    fn named(&self, name: &str) -> Shown {
        let is_it = |one: &&Shown| one.of.is_empty() && one.name == name;
        self.all.iter().find(is_it).unwrap_or_else(|| panic!("{name} is lost")).clone()
    }

    fn of_kind(&self, kind: Kind) -> Vec<Shown> {
        self.all.iter().filter(|one| one.kind == kind).cloned().collect()
    }

    /// The snapshots of `web` that are whole, each with that of its volume.
    fn snapshots_of_web(&self) -> Vec<(Shown, Shown)> {
        let data = self.named("data").id;
        let members = self.of_kind(Kind::VolumeSnapshot);
        let all = self.of_kind(Kind::ContainerSnapshot).into_iter().filter(|one| one.of == "web");
        let whole = all.filter_map(|one| {
            let is_member = |other: &&Shown| other.of == data && other.name == one.name;
            members.iter().find(is_member).cloned().map(|member| (one, member))
        });
        whole.collect()
    }

    fn content(&self, one: &Shown) -> Content {
        match one.kind {
            Kind::Volume => self.host.exported(&one.name),
            Kind::VolumeSnapshot | Kind::ContainerSnapshot => self.host.exported(&one.id),
            Kind::Container => {
                let at = self.host.at("merged");
                self.start(&one.name, &at);
                let read = |file: &&str| Some(((*file).to_owned(), read(&at.join(file))?));
                let content = FILES.iter().filter_map(read).collect();
                self.host.good(&["container", "stop", &one.name]);
                content
            }
        }
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

impl World {
    fn verb(&mut self) -> Verb {
        let round = self.round;
        let snapshots = self.snapshots_of_web();
        let chosen = self.chance.of(&snapshots).cloned();
        let known = |name: &str| self.known.get(&self.named(name).id).cloned().unwrap_or_default();
        let image = (with_number(&FILES, 0), Content::new());
        match (round % VERBS, chosen) {
            (0, _) => {
                let text = format!("create --size 32M --name n{round} --volume data:/data base");
                Verb { makes: image, ..verb("create --size", &text, "already exists") }
            }
            (1..3, _) => {
                verb("snapshot", &format!("snapshot create web s{round}"), "already exists")
            }
            (3, _) => {
                verb("snapshot in use", &format!("snapshot create app s{round}"), "already exists")
            }
            (4 | 5, Some((root, data))) => {
                let (of_root, of_data) = (&self.known[&root.id], &self.known[&data.id]);
                let gives = [("web", of_root), ("data", of_data)];
                let gives = gives.map(|(name, content)| (self.named(name).id, content.clone()));
                let rollback = verb("rollback", &format!("rollback web {}", root.name), "");
                Verb { gives: gives.into_iter().collect(), ..rollback }
            }
            (6, Some((root, data))) => {
                let makes = (self.known[&root.id].clone(), self.known[&data.id].clone());
                let text = format!("fork web n{round} --from {}", root.name);
                Verb { makes, ..verb("fork --from", &text, "already exists") }
            }
            (7 | 8, _) => {
                let makes = (known("web"), known("data"));
                Verb { makes, ..verb("fork", &format!("fork web n{round}"), "already exists") }
            }
            (9, _) => {
                let makes = (known("app"), Content::new());
                let text = format!("fork app n{round}");
                Verb { makes, ..verb("fork in use", &text, "already exists") }
            }
            (10, Some((root, data))) => {
                let text = format!("snapshot rm {}", root.id);
                let removes = vec![root.id, data.id];
                Verb { removes, ..verb("snapshot rm", &text, "does not exist") }
            }
            (11, _) if round.is_multiple_of(2) => {
                verb("resize", &format!("resize web --size {}M", 64 + round % 9), "")
            }
            _ => self.removal(),
        }
    }

    fn made(&self) -> Vec<Shown> {
        let mut made = self.of_kind(Kind::Container);
        made.retain(|one| one.name != "web" && one.name != "app");
        made
    }

    fn removal(&mut self) -> Verb {
        let made = self.made();
        let Some(one) = self.chance.of(&made) else { return Verb::default() };
        let rm = verb("rm", &format!("rm {}", one.name), "does not exist");
        Verb { removes: vec![one.id.clone()], ..rm }
    }

    /// Checks all that is listed after a verb. `before` is what the writer had written before it.
    fn check(&mut self, verb: &Verb, before: &[u64]) {
        self.list();
        let all = self.all.clone();
        let lost = self.known.keys().filter(|id| !all.iter().any(|one| one.id == **id));
        for id in lost.cloned().collect::<Vec<_>>() {
            assert!(verb.removes.contains(&id), "{verb:?}: {id} is lost");
            self.known.remove(&id);
        }
        let live = self.named("live").id;
        for one in all.iter().filter(|one| one.id != live) {
            if self.known.contains_key(&one.id) {
                continue;
            }
            let now = self.content(one);
            let is_clone = one.kind == Kind::Volume && verb.kind == "fork in use";
            if one.of == live || is_clone {
                check_moment(&[&now], before);
            } else {
                let of = match one.kind {
                    Kind::Container => &verb.makes.0,
                    Kind::Volume => &verb.makes.1,
                    Kind::VolumeSnapshot => &self.known[&one.of],
                    Kind::ContainerSnapshot => &self.known[&self.named(&one.of).id],
                };
                assert_eq!(&now, of, "{verb:?}: {one:?}");
            }
            self.known.insert(one.id.clone(), now);
        }
        self.check_together(verb);
        for name in ["web", "data"].iter().filter(|_| verb.words.iter().any(|word| word == "web")) {
            let one = self.named(name);
            if one.kind == Kind::Container && self.is_half(&one) {
                assert_eq!(verb.kind, "rollback");
                continue;
            }
            let (old, now) = (&self.known[&one.id], self.content(&one));
            let is_new = verb.gives.get(&one.id) == Some(&now);
            assert!(*old == now || is_new, "{verb:?}: {one:?}: {now:?} was {old:?}");
            self.known.insert(one.id, now);
        }
    }

    /// Whether a container is rolled back in part. Then it is not mounted.
    fn is_half(&self, one: &Shown) -> bool {
        let note = self.host.at("root/containers").join(&one.id).join("rollback");
        let is_half = note.exists();
        if is_half {
            let at = self.host.at("merged");
            let start = ["container", "start", &one.name, at.to_str().unwrap()];
            assert!(self.host.bad(&start).contains("in part"));
        }
        is_half
    }

    /// A snapshot of a container is there with that of its volume, or neither is.
    fn check_together(&self, verb: &Verb) {
        let names = |kind: Kind, of: &str| {
            let all = self.of_kind(kind).into_iter().filter(|one| one.of == of);
            all.map(|one| one.name).collect::<Vec<_>>()
        };
        for (container, volume) in [("web", "data"), ("app", "live")] {
            let roots = names(Kind::ContainerSnapshot, container);
            let members = names(Kind::VolumeSnapshot, &self.named(volume).id);
            assert_eq!(roots, members, "{verb:?}");
        }
    }

    /// Runs the verb again, to its end.
    fn again(&mut self, verb: &Verb, before: &[u64]) {
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        let name = verb.words.get(3).cloned().unwrap_or_default();
        let is_there =
            |kind: Kind, name: &str| self.of_kind(kind).iter().any(|one| one.name == name);
        let mut left = Vec::new();
        let clone = ["data", "live"].map(|volume| format!("{name}-{volume}"));
        if verb.kind.starts_with("fork") && !is_there(Kind::Container, &name) {
            // A fork that is killed before its container is there leaves the clones of the volumes,
            // which their list shows. A fork of this name is refused until they are removed.
            for one in clone {
                if is_there(Kind::Volume, &one) {
                    self.host.good(&["volume", "rm", "--purge", &one]);
                    left.push(self.named(&one).id);
                }
            }
        }
        let passing = format!("lamina-fork-{name}");
        let passes = self.all.iter().filter(|one| one.name == passing);
        left.extend(passes.map(|one| one.id.clone()));
        if self.host.timed(verb.kind, &words) == End::Refused {
            let said = self.host.said();
            assert!(!verb.done.is_empty() && said.contains(verb.done), "{verb:?}: {said}");
        } else {
            self.known.extend(verb.gives.clone());
        }
        left.iter().for_each(|id| drop(self.known.remove(id)));
        self.list();
        let left = self.all.iter().find(|one| one.name == passing);
        assert!(left.is_none(), "{verb:?}: {left:?}");
        self.check(verb, before);
    }

    /// The content of each snapshot is as it was seen first.
    fn check_snapshots(&self, verb: &Verb) {
        let is_snapshot =
            |one: &&Shown| matches!(one.kind, Kind::VolumeSnapshot | Kind::ContainerSnapshot);
        for one in self.all.iter().filter(is_snapshot) {
            assert_eq!(self.content(one), self.known[&one.id], "{verb:?}: {one:?} has changed");
        }
    }

    /// Removes most of what the verbs made, so that there is not more and more.
    fn thin(&mut self) {
        for one in self.made().into_iter().skip(2) {
            self.host.good(&["container", "rm", &one.name]);
            self.known.remove(&one.id);
        }
        let mut left = self.of_kind(Kind::ContainerSnapshot);
        left.sort_by(|one, other| one.of.cmp(&other.of));
        for one in left.into_iter().skip(4) {
            self.host.good(&["container", "snapshot", "rm", &one.id]);
        }
        self.list();
        self.known.retain(|id, _| self.all.iter().any(|one| one.id == *id));
    }
}

#[test]
fn a_verb_on_a_container_that_is_killed_leaves_whole_containers_and_volumes() {
    if !is_alone(
        "killed_containers",
        "a_verb_on_a_container_that_is_killed_leaves_whole_containers_and_volumes",
    ) {
        return;
    }
    let mut world = World::new();
    let (mut killed, mut ended, mut unserved) = (0, 0, 0);
    while world.round < ROUNDS {
        if world.round.is_multiple_of(3) {
            world.write_web();
        }
        let verb = world.verb();
        if verb.words.is_empty() {
            world.round += 1;
            continue;
        }
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        let World { host, chance, writer, .. } = &mut world;
        let writes = writer.as_ref().unwrap();
        let before = writes.written();
        if chance.below(8) == 0 {
            writes.may_fail(true);
            unserved += u32::from(host.unserved(verb.kind, &words, chance).1);
            host.detach(&host.at("live"));
            world.use_live();
        } else {
            let end = host.killed(verb.kind, &words, chance);
            assert_ne!(end, End::Refused, "{verb:?}: {}", host.said());
            *(if end == End::Killed { &mut killed } else { &mut ended }) += 1;
        }
        world.check(&verb, &before);
        world.again(&verb, &before);
        if world.round % VERBS == VERBS - 1 {
            world.check_snapshots(&verb);
            world.thin();
        }
        world.round += 1;
    }
    world.writer.take().unwrap().end();
    hide(&world.host, "live");
    assert!(killed > 20, "{killed} killed, {ended} ended: the kills come too late");
    eprintln!("{killed} killed, {ended} ended, {unserved} processes of volumes killed");
    world.host.emptied();
}
