//! Verbs on volumes of the driver `union` are killed, or the processes that serve the volumes.
//!
//! Two volumes are in use by a writer all the time, two are written between the verbs. Each file of
//! an idle volume holds one number, so a mixture of two contents is seen. What is once seen of a
//! volume or of a snapshot must stay as it is.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::kills::{Chance, Content, End, Host, is_alone, text, tree};
use crate::used::{Writer, check_moment, hide, show};

const VERBS: usize = 20;
const ROUNDS: usize = VERBS * 7;
/// In use by the writer.
const LIVE: [&str; 2] = ["live-a", "live-b"];
/// Written between verbs. The first one begins with an image, where two names are one file.
const IDLE: [&str; 2] = ["idle-a", "idle-b"];
const IMAGE_FILES: [&str; 4] = ["f0", "d/f1", "h0", "d/h1"];

/// A verb, and what it may do.
#[derive(Debug, Default)]
struct Verb {
    kind: &'static str,
    words: Vec<String>,
    /// The content of a volume that it makes.
    makes: Content,
    /// The id of what it removes for good.
    removes: Option<String>,
    /// The id of a volume, and the content that it gives it.
    gives: Option<(String, Content)>,
    /// What it says if it was done before; empty if it can be done again.
    done: &'static str,
}

/// A volume or a snapshot, as a list shows it.
#[derive(Debug, Clone)]
struct Shown {
    id: String,
    name: String,
    origin: String,
    is_trashed: bool,
}

struct World {
    host: Host,
    chance: Chance,
    writer: Option<Writer>,
    all: Vec<Shown>,
    known: BTreeMap<String, Content>,
    round: usize,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn with_number(files: &[&str], number: usize) -> Content {
    files.iter().map(|file| ((*file).to_owned(), number.to_string())).collect()
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        tree(&host, &IMAGE_FILES);
        for text in ["live-a", "live-b --size 64M", "idle-a --from base", "idle-b --size 64M"] {
            let rest = words(text);
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            host.good(&[&["volume", "create", "--driver", "union"], &rest[..]].concat());
        }
        let (chance, known) = (Chance::of_run(), BTreeMap::new());
        let mut world = Self { host, chance, writer: None, all: Vec::new(), known, round: 0 };
        world.list();
        let images = with_number(&IMAGE_FILES, 0);
        for (name, content) in [("idle-a", images), ("idle-b", Content::new())] {
            world.known.insert(world.named(name).id, content);
        }
        world.use_live();
        world
    }

    /// Mounts the volumes in use, whose processes may have been killed.
    fn use_live(&mut self) {
        show(&self.host, "live", &LIVE);
        let dirs = LIVE.map(|name| self.host.at("live").join(name));
        let writer = self.writer.get_or_insert_with(|| Writer::start(&dirs));
        writer.may_fail(false);
    }

    fn list(&mut self) {
        self.all.clear();
        for (list, is_trashed) in [
            (&["volume", "ls", "--json"][..], false),
            (&["volume", "ls", "--trash", "--json"], true),
            (&["volume", "snapshot", "ls", "--json"], false),
        ] {
            let shown = self.host.json(list).into_iter().map(|one| Shown {
                id: text(&one, "id"),
                name: text(&one, "name"),
                origin: one["origin"].as_str().unwrap_or_default().to_owned(),
                is_trashed,
            });
            self.all.extend(shown);
        }
    }

    fn named(&self, name: &str) -> Shown {
        let found = self.all.iter().find(|one| one.origin.is_empty() && one.name == name);
        found.unwrap_or_else(|| panic!("{name} is lost: {:?}", self.all)).clone()
    }

    fn snapshots_of(&self, origin: &str) -> Vec<Shown> {
        self.all.iter().filter(|one| one.origin == origin).cloned().collect()
    }

    /// The volumes that the verbs made, in the trash or not.
    fn made(&self, is_trashed: bool) -> Vec<Shown> {
        let is_own = |one: &&Shown| LIVE.contains(&&*one.name) || IDLE.contains(&&*one.name);
        let made = self.all.iter().filter(|one| one.origin.is_empty() && !is_own(one));
        made.filter(|one| one.is_trashed == is_trashed).cloned().collect()
    }

    /// Writes a number to the files of an idle volume, which then may stay mounted.
    fn write_idle(&mut self, name: &str) {
        show(&self.host, "idle", &[name]);
        let files = if name == IDLE[0] { &IMAGE_FILES[..] } else { &IMAGE_FILES[..2] };
        let directory = self.host.at("idle").join(name);
        fs::create_dir_all(directory.join("d")).unwrap();
        for file in files {
            fs::write(directory.join(file), self.round.to_string()).unwrap();
        }
        hide(&self.host, "idle");
        if self.chance.below(2) == 0 {
            self.host.good(&["volume", "prune"]);
        }
        let id = self.named(name).id;
        self.known.insert(id, with_number(files, self.round));
    }
}

impl World {
    fn verb(&mut self) -> Verb {
        let (round, size) = (self.round, 64 + self.round % 9);
        let of = IDLE[self.chance.below(2) as usize];
        let idle = self.named(of).id;
        let content = self.known[&idle].clone();
        match round % VERBS {
            0 => creation("create", format!("create --driver union n{round}"), Content::new()),
            1 => {
                let text = format!("create --driver union --size 32M n{round}");
                creation("create --size", text, Content::new())
            }
            2 => {
                let text = format!("create --driver union --from base n{round}");
                let made = creation("create --from", text, with_number(&IMAGE_FILES, 0));
                Verb { done: "already exists", ..made }
            }
            3 => snapshot("snapshot in use", format!("live-a s{round}")),
            4 | 5 => snapshot("snapshot", format!("{of} s{round}")),
            6 => snapshot("group in use", format!("live-a --with live-b s{round}")),
            7 => {
                let text = format!("idle-a --with live-b --with idle-b --with live-a s{round}");
                snapshot("group", text)
            }
            8 | 9 => self.removal_of_snapshot(),
            10 | 11 => self.rollback(of),
            12 => {
                // In use: the content is that of some moment.
                let made =
                    creation("clone in use", format!("clone live-a n{round}"), Content::new());
                Verb { done: "already exists", ..made }
            }
            13 => {
                let made = creation("clone", format!("clone {of} n{round}"), content);
                Verb { done: "already exists", ..made }
            }
            14 => self.fork(),
            15 if round.is_multiple_of(2) => {
                repeated("resize in use", format!("resize live-b {size}M"))
            }
            15 => repeated("limit in use", format!("limit live-a --iops {}", 100_000 + size)),
            16 if round.is_multiple_of(2) => repeated("resize", format!("resize idle-b {size}M")),
            16 => repeated("limit", format!("limit {of} --iops {}", 100_000 + size)),
            _ => self.change(),
        }
    }

    fn removal_of_snapshot(&mut self) -> Verb {
        let all: Vec<Shown> =
            self.all.iter().filter(|one| !one.origin.is_empty()).cloned().collect();
        let Some(one) = self.chance.of(&all) else { return Verb::default() };
        Verb {
            kind: "snapshot rm",
            words: words(&format!("volume snapshot rm {}", one.id)),
            removes: Some(one.id.clone()),
            done: "does not exist",
            ..Verb::default()
        }
    }

    fn rollback(&mut self, of: &str) -> Verb {
        let id = self.named(of).id;
        let Some(to) = self.chance.of(&self.snapshots_of(&id)).cloned() else {
            return Verb::default();
        };
        let text = format!("rollback {of} {}", to.name);
        Verb { gives: Some((id, self.known[&to.id].clone())), ..repeated("rollback", text) }
    }

    fn fork(&mut self) -> Verb {
        let all: Vec<Shown> =
            self.all.iter().filter(|one| !one.origin.is_empty()).cloned().collect();
        let Some(one) = self.chance.of(&all) else { return Verb::default() };
        let text = format!("fork {} n{}", one.id, self.round);
        let made = creation("fork", text, self.known[&one.id].clone());
        Verb { done: "already exists", ..made }
    }

    /// A change of a volume that another verb made.
    fn change(&mut self) -> Verb {
        let (made, trash) = (self.made(false), self.made(true));
        if self.round % VERBS == 19 && !trash.is_empty() {
            let id = &self.chance.of(&trash).unwrap().id;
            let text = format!("undelete {id} --as u{}", self.round);
            return Verb { done: "does not exist", ..repeated("undelete", text) };
        }
        let Some(one) = self.chance.of(&made).cloned() else { return Verb::default() };
        let (name, round) = (&one.name, self.round);
        let (kind, text) = match (round % VERBS, round % 2) {
            (17, 0) => ("rename", format!("rename {name} r{round}")),
            (17, _) => ("label", format!("label {name} round={round}")),
            (18, 0) => ("purge", format!("rm --purge {name}")),
            _ => ("rm", format!("rm {name}")),
        };
        let removes = (kind == "purge").then_some(one.id);
        let done = if kind == "label" { "" } else { "does not exist" };
        Verb { removes, done, ..repeated(kind, text) }
    }
}

fn creation(kind: &'static str, text: String, makes: Content) -> Verb {
    Verb { makes, ..repeated(kind, text) }
}

fn repeated(kind: &'static str, text: String) -> Verb {
    Verb { kind, words: words(&format!("volume {text}")), ..Verb::default() }
}

fn snapshot(kind: &'static str, text: String) -> Verb {
    Verb { done: "already exists", ..repeated(kind, format!("snapshot create {text}")) }
}

impl World {
    /// Checks all that is listed after a verb: what was there, and what is new. `before` is what
    /// the writer had written before the verb.
    fn check(&mut self, verb: &Verb, before: &[u64]) {
        self.list();
        let (all, names) = (self.all.clone(), &verb.words);
        let gone = |id: &String| !all.iter().any(|one| one.id == *id);
        let lost: Vec<String> = self.known.keys().filter(|id| gone(id)).cloned().collect();
        for id in lost {
            assert_eq!(Some(&id), verb.removes.as_ref(), "{verb:?}: a volume is lost");
            self.known.remove(&id);
        }
        let mut moment = BTreeMap::new();
        for one in &all {
            let is_known = self.known.contains_key(&one.id);
            if is_known || LIVE.contains(&&*one.name) && one.origin.is_empty() {
                continue;
            }
            let content =
                self.host.exported(if one.origin.is_empty() { &one.name } else { &one.id });
            match LIVE.iter().position(|name| self.named(name).id == one.origin) {
                Some(at) => drop(moment.insert(at, content.clone())),
                None if verb.kind == "clone in use" => check_moment(&[&content], &before[..3]),
                None => {
                    let of = self.known.get(&one.origin).unwrap_or(&verb.makes);
                    assert_eq!(&content, of, "{verb:?}: {one:?}");
                }
            }
            self.known.insert(one.id.clone(), content);
        }
        let parts: Vec<&Content> = moment.values().collect();
        let written: Vec<u64> =
            moment.keys().flat_map(|at| &before[3 * at..][..3]).copied().collect();
        if !parts.is_empty() {
            check_moment(&parts, &written);
        }
        self.check_group(verb);
        for name in IDLE.iter().filter(|name| names.iter().any(|word| word == *name)) {
            self.check_idle(verb, name);
        }
    }

    /// The snapshots of a group are all there, or none.
    fn check_group(&self, verb: &Verb) {
        if !verb.kind.starts_with("group") {
            return;
        }
        let name = verb.words.last().unwrap();
        let of =
            LIVE.iter().chain(&IDLE).filter(|name| verb.words.iter().any(|word| word == *name));
        let made: Vec<bool> = of
            .map(|of| self.snapshots_of(&self.named(of).id).iter().any(|one| one.name == *name))
            .collect();
        assert!(made.iter().all(|is_there| *is_there == made[0]), "{verb:?}: {made:?}");
    }

    fn check_idle(&mut self, verb: &Verb, name: &str) {
        let (id, now) = (self.named(name).id, self.host.exported(name));
        let is_old = self.known[&id] == now;
        let is_new = verb.gives.as_ref().is_some_and(|(to, new)| *to == id && *new == now);
        assert!(is_old || is_new, "{verb:?}: {now:?} was {:?}", self.known[&id]);
        self.known.insert(id, now);
    }

    /// The content of all volumes and snapshots is as it was seen first.
    fn check_all(&mut self, verb: &Verb) {
        for one in self.all.clone() {
            if one.is_trashed || !self.known.contains_key(&one.id) {
                continue;
            }
            let now = self.host.exported(if one.origin.is_empty() { &one.name } else { &one.id });
            assert_eq!(now, self.known[&one.id], "{verb:?}: {one:?} has changed");
        }
    }

    /// Runs the verb again, to its end.
    fn again(&mut self, verb: &Verb, before: &[u64]) {
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        if self.host.timed(verb.kind, &words) == End::Refused {
            let said = self.host.said();
            assert!(!verb.done.is_empty() && said.contains(verb.done), "{verb:?}: {said}");
        } else if let Some((id, content)) = &verb.gives {
            self.known.insert(id.clone(), content.clone());
        }
        self.check(verb, before);
    }

    /// Removes most of what the verbs made, so that there is not more and more.
    fn thin(&mut self) {
        let mut gone = Vec::new();
        for of in LIVE.iter().chain(&IDLE) {
            let all = self.snapshots_of(&self.named(of).id);
            gone.extend(all.into_iter().skip(2).map(|one| one.id));
        }
        let remove = |host: &Host, words: &[&str], ids: &[String]| {
            if !ids.is_empty() {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                host.good(&[words, &ids[..]].concat());
            }
        };
        remove(&self.host, &["volume", "snapshot", "rm"], &gone);
        let made: Vec<Shown> = self.made(false).into_iter().skip(3).collect();
        let names: Vec<String> = made.iter().map(|one| one.name.clone()).collect();
        remove(&self.host, &["volume", "rm", "--purge"], &names);
        let made = made.into_iter().map(|one| one.id);
        gone.into_iter().chain(made).for_each(|id| drop(self.known.remove(&id)));
        self.list();
    }
}

#[test]
fn a_verb_on_a_union_that_is_killed_leaves_whole_volumes_and_snapshots() {
    if !is_alone(
        "killed_union",
        "a_verb_on_a_union_that_is_killed_leaves_whole_volumes_and_snapshots",
    ) {
        return;
    }
    let mut world = World::new();
    let (mut killed, mut ended, mut unserved) = (0, 0, 0);
    while world.round < ROUNDS {
        if world.round.is_multiple_of(3) {
            let name = IDLE[world.chance.below(2) as usize];
            world.write_idle(name);
        }
        let verb = world.verb();
        if verb.words.is_empty() {
            world.round += 1;
            continue;
        }
        let before = world.writer.as_ref().unwrap().written();
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        let World { host, chance, writer, .. } = &mut world;
        if chance.below(6) == 0 {
            writer.as_ref().unwrap().may_fail(true);
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
            world.check_all(&verb);
            world.thin();
        }
        world.round += 1;
    }
    world.writer.take().unwrap().end();
    world.host.detach(&world.host.at("live"));
    assert!(killed > 40, "{killed} killed, {ended} ended: the kills come too late");
    assert!(unserved > 5, "{unserved} processes of volumes were killed");
    eprintln!("{killed} killed, {ended} ended, {unserved} processes of volumes killed");
    world.host.emptied();
}

#[test]
fn a_process_that_a_killed_verb_started_shows_the_content_of_now() {
    if !is_alone("killed_union", "a_process_that_a_killed_verb_started_shows_the_content_of_now") {
        return;
    }
    let host = Host::new();
    host.good(&["volume", "create", "--driver", "union", "--size", "64M", "v"]);
    let write = |text: &str| {
        show(&host, "user", &["v"]);
        fs::write(host.at("user/v/f"), text).unwrap();
        hide(&host, "user");
        host.good(&["volume", "prune"]);
    };
    write("taken");
    host.good(&["volume", "snapshot", "create", "v", "s"]);
    for round in 0..16_u64 {
        write(&round.to_string());
        // It starts a process that serves the volume, which goes on alone.
        let size = format!("{}M", 65 + round);
        host.killed_beside(&["volume", "resize", "v", &size], Duration::from_micros(500 * round));
        host.good(&["volume", "rollback", "v", "s"]);
        show(&host, "user", &["v"]);
        assert_eq!(fs::read_to_string(host.at("user/v/f")).unwrap(), "taken", "round {round}");
        hide(&host, "user");
    }
    host.emptied();
}
