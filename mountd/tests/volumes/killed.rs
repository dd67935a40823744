//! Each verb is killed after a time that differs from round to round. What it leaves is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kills::Chance;
use crate::place::Place;

/// Runs a verb and kills it after `micros`. Whether it had ended before.
fn kill_after(place: &Place, words: &[&str], micros: u64) -> bool {
    let mut command = place.command(words);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    child.wait().unwrap().code().is_some()
}

/// How long a creation takes to its end, in microseconds, so that the kills fall on all its steps:
/// the shortest of several, since the machine may be busy with something else.
fn time_of_creation(place: &Place) -> u64 {
    let times = (0..5).map(|number| {
        let start = std::time::Instant::now();
        place.good(&["create", &format!("timed-{number}")]);
        start.elapsed().as_micros()
    });
    u64::try_from(times.min().unwrap()).unwrap().max(1000)
}

/// All paths below a directory.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| [vec![path.clone()], below(&path)].concat()).collect()
}

#[test]
fn a_verb_that_is_killed_leaves_whole_volumes_and_nothing_unnamed() {
    let place = Place::new();
    let mut marked = vec![place.marked("first")];
    let longest = time_of_creation(&place);
    let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15);
    let (mut killed, mut ended) = (0, 0);
    for round in 0..240 {
        let (name, other) = (format!("v{}", round % 5), format!("v{}", (round + 2) % 5));
        let adopted = place.at("adopted");
        let verb: &[&str] = match round % 9 {
            0 | 1 => &["create", &name, "--label", "round=yes"],
            2 => &["rename", &name, &other],
            3 => &["label", &name, "a=b", "round-"],
            4 => &["rm", &name],
            5 => &["rm", "--purge", &name],
            6 => &["undelete", &name],
            7 => {
                fs::create_dir_all(&adopted).unwrap();
                fs::write(adopted.join("kept"), "kept").unwrap();
                &["adopt", adopted.to_str().unwrap(), &name]
            }
            _ => &["prune"],
        };
        match kill_after(&place, verb, chance.below(longest)) {
            true => ended += 1,
            false => killed += 1,
        }
        let all = place.checked(&marked);
        assert!(all.contains_key(&marked[0]), "{verb:?}: a volume is lost that no verb named");
        if round % 9 == 7 {
            let is_there = adopted.join("kept").exists();
            let is_in = all.values().any(|one| one.directory.join("_data/kept").exists());
            assert!(is_there || is_in, "{verb:?}: the adopted content is lost");
        }
        if round % 20 == 0 {
            marked.push(place.marked(&format!("marked-{round}")));
        }
    }
    assert!(killed > 20, "{killed} killed, {ended} ended: the kills come too late");
    place.good(&["prune"]);
    let all = place.checked(&marked);
    for id in &marked {
        assert!(all.contains_key(id), "{id} is lost");
    }
    for directory in place.directories() {
        let is_named = all.values().any(|one| one.directory == directory);
        assert!(is_named, "no command names {directory:?}: {:?}", below(&directory));
    }
}

#[test]
fn a_catalogue_that_is_lost_after_a_kill_is_recovered() {
    let place = Place::new();
    let longest = time_of_creation(&place);
    let mut chance = Chance::new(42);
    for round in 0..40 {
        let name = format!("v{round}");
        place.marked(&name);
        kill_after(&place, &["rename", &name, &format!("w{round}")], chance.below(longest));
    }
    // Each rename was finished by the process behind it, record and all.
    let before = place.volumes();
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        fs::remove_file(place.at("root").join(file)).unwrap_or_default();
    }
    place.good(&["recover"]);
    assert_eq!(place.volumes(), before);
}
