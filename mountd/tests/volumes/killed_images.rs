//! Verbs on volumes of the driver `image` are killed: one volume is in use by a writer, one is
//! written between the verbs. What is once seen of a volume or of a snapshot must stay as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::kills::{Chance, Content, End, Host, is_alone, text};
use crate::used::{Writer, check_moment, hide, show};

const VERBS: usize = 12;
const ROUNDS: usize = VERBS * 4;
const FILES: [&str; 2] = ["f0", "f1"];

/// A verb, and what it may do.
#[derive(Debug, Default)]
struct Verb {
    kind: &'static str,
    words: Vec<String>,
    /// The content of a volume that it makes; `None` for that of the volume in use.
    makes: Option<Content>,
    removes: Option<String>,
    /// The content that it gives the idle volume.
    gives: Option<Content>,
    /// What it says if it was done before; empty if it can be done again.
    done: &'static str,
}

/// The id, the name, and the id of the volume of a snapshot.
type Shown = (String, String, String);

struct World {
    host: Host,
    chance: Chance,
    all: Vec<Shown>,
    known: BTreeMap<String, Content>,
    round: usize,
}

fn verb(kind: &'static str, text: &str, done: &'static str) -> Verb {
    let words = format!("volume {text}").split(' ').map(str::to_owned).collect();
    Verb { kind, words, done, ..Verb::default() }
}

impl World {
    fn list(&mut self) {
        self.all.clear();
        for words in [&["volume", "ls", "--json"][..], &["volume", "snapshot", "ls", "--json"]] {
            for one in self.host.json(words) {
                let of = one["origin"].as_str().unwrap_or_default().to_owned();
                self.all.push((text(&one, "id"), text(&one, "name"), of));
            }
        }
    }

    fn id(&self, name: &str) -> String {
        let found = self.all.iter().find(|one| one.2.is_empty() && one.1 == name);
        found.unwrap_or_else(|| panic!("{name} is lost: {:?}", self.all)).0.clone()
    }

    fn content(&self, (id, name, of): &Shown) -> Content {
        self.host.exported(if of.is_empty() { name } else { id })
    }

    fn write_idle(&mut self) {
        show(&self.host, "idle-user", &["idle"]);
        let content = FILES.map(|file| (file.to_owned(), self.round.to_string()));
        for (file, number) in &content {
            fs::write(self.host.at("idle-user/idle").join(file), number).unwrap();
        }
        hide(&self.host, "idle-user");
        // It unmounts what nobody uses: ext4 does not grow and shrink in use everywhere.
        self.host.good(&["volume", "prune"]);
        self.known.insert(self.id("idle"), content.into_iter().collect());
    }

    fn verb(&mut self) -> Verb {
        let round = self.round;
        let idle = self.id("idle");
        let snapshots: Vec<Shown> = self.all.iter().filter(|one| one.2 == idle).cloned().collect();
        let made = |one: &&Shown| one.2.is_empty() && one.1.starts_with('n');
        let made: Vec<Shown> = self.all.iter().filter(made).cloned().collect();
        match round % VERBS {
            0 => {
                let text = format!("create --driver image --size 16M n{round}");
                Verb { makes: Some(Content::new()), ..verb("create", &text, "") }
            }
            1 => {
                let text = format!("resize live {}M", 32 + round);
                verb("grow in use", &text, "CAP_SYS_RESOURCE")
            }
            2 => verb("grow", &format!("resize idle {}M", 40 + round), ""),
            3 => verb("shrink", &format!("resize idle {}M", 24 + round % 7), ""),
            4 => {
                let text = format!("snapshot create live s{round}");
                verb("snapshot in use", &text, "already exists")
            }
            5 | 6 => {
                let text = format!("snapshot create idle s{round}");
                verb("snapshot", &text, "already exists")
            }
            7 => verb("clone in use", &format!("clone live n{round}"), "already exists"),
            8 => {
                let makes = Some(self.known[&idle].clone());
                Verb { makes, ..verb("clone", &format!("clone idle n{round}"), "already exists") }
            }
            9 => match self.chance.of(&snapshots) {
                Some((id, name, _)) => {
                    let rollback = verb("rollback", &format!("rollback idle {name}"), "");
                    Verb { gives: Some(self.known[id].clone()), ..rollback }
                }
                None => Verb::default(),
            },
            10 => match self.chance.of(&snapshots) {
                Some((id, ..)) => removal("snapshot rm", &format!("snapshot rm {id}"), id),
                None => Verb::default(),
            },
            _ => match self.chance.of(&made) {
                Some((id, name, _)) => removal("purge", &format!("rm --purge {name}"), id),
                None => Verb::default(),
            },
        }
    }

    /// Checks all that is listed after a verb. `before` is what the writer had written before it.
    fn check(&mut self, verb: &Verb, before: &[u64]) {
        self.list();
        let (all, live, idle) = (self.all.clone(), self.id("live"), self.id("idle"));
        let lost = self.known.keys().filter(|id| !all.iter().any(|one| one.0 == **id));
        for id in lost.cloned().collect::<Vec<_>>() {
            assert_eq!(Some(&id), verb.removes.as_ref(), "{verb:?}: a volume is lost");
            self.known.remove(&id);
        }
        for one in all.iter().filter(|one| one.0 != live) {
            if self.known.contains_key(&one.0) {
                continue;
            }
            let now = self.content(one);
            match (self.known.get(&one.2), &verb.makes) {
                (Some(of), _) => assert_eq!(&now, of, "{verb:?}: {one:?}"),
                (None, Some(makes)) => assert_eq!(&now, makes, "{verb:?}: {one:?}"),
                (None, None) => check_moment(&[&now], before),
            }
            self.known.insert(one.0.clone(), now);
        }
        if verb.words.iter().any(|word| word == "idle") {
            let now = self.host.exported("idle");
            let is_new = verb.gives.as_ref() == Some(&now);
            assert!(now == self.known[&idle] || is_new, "{verb:?}: {now:?}");
            self.known.insert(idle, now);
        }
    }

    fn again(&mut self, verb: &Verb, before: &[u64]) {
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        if self.host.timed(verb.kind, &words) == End::Refused {
            let said = self.host.said();
            assert!(!verb.done.is_empty() && said.contains(verb.done), "{verb:?}: {said}");
        } else if let Some(content) = &verb.gives {
            self.known.insert(self.id("idle"), content.clone());
        }
        self.check(verb, before);
    }
}

fn removal(kind: &'static str, text: &str, id: &str) -> Verb {
    Verb { removes: Some(id.to_owned()), ..verb(kind, text, "does not exist") }
}

#[test]
fn a_verb_on_an_image_that_is_killed_leaves_whole_volumes_and_no_device() {
    if !is_alone(
        "killed_images",
        "a_verb_on_an_image_that_is_killed_leaves_whole_volumes_and_no_device",
    ) || !has_loop_devices()
    {
        return;
    }
    let (host, chance) = (Host::new(), Chance::of_run());
    for name in ["live", "idle"] {
        host.good(&["volume", "create", "--driver", "image", "--size", "24M", name]);
    }
    let mut world = World { host, chance, all: Vec::new(), known: BTreeMap::new(), round: 0 };
    world.list();
    show(&world.host, "user", &["live"]);
    let writer = Writer::start(&[world.host.at("user/live")]);
    let (mut killed, mut ended) = (0, 0);
    while world.round < ROUNDS {
        if world.round.is_multiple_of(4) {
            world.write_idle();
        }
        let verb = world.verb();
        if !verb.words.is_empty() {
            let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
            let before = writer.written();
            let end = world.host.killed(verb.kind, &words, &mut world.chance);
            // A container that the tests run in may lack this right.
            let said = world.host.said();
            let may_not = verb.kind == "grow in use" && said.contains("CAP_SYS_RESOURCE");
            assert!(end != End::Refused || may_not, "{verb:?}: {said}");
            let then = writer.written();
            // Whatever was killed has not stopped the users of a volume.
            world.host.until("the next write", || writer.written() != then);
            *(if end == End::Killed { &mut killed } else { &mut ended }) += 1;
            world.check(&verb, &before);
            world.again(&verb, &before);
        }
        world.round += 1;
    }
    writer.end();
    hide(&world.host, "user");
    assert!(killed > 15, "{killed} killed, {ended} ended: the kills come too late");
    eprintln!("{killed} killed, {ended} ended");
    world.host.emptied();
}

fn has_loop_devices() -> bool {
    let has = Path::new("/dev/loop-control").exists();
    assert!(has || std::env::var_os("LAMINA_NO_SKIP").is_none(), "needs loop devices");
    if !has {
        eprintln!("SKIPPED: needs loop devices");
    }
    has
}
