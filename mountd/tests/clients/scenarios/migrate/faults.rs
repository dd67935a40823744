//! Migrations that are killed, and volumes that move.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::{Place, Report};
use crate::harness::{self, Background, Done, Site};
use crate::lamina::{Lamina, RootBy};
use crate::tree::Tree;

/// Attempts to kill a migration at different moments.
const KILLS: u64 = 12;
/// The time between two of these moments.
const STEP: Duration = Duration::from_millis(25);
/// The same for a move, which copies nothing.
const MOVE_STEP: Duration = Duration::from_millis(3);

/// A migration that is killed leaves nothing half, and a retry finishes.
pub(super) fn judge(site: &mut Site, place: &Place<'_>) {
    place.engine.call(&["volume", "create", "large"]).expect();
    place.fill("large");
    let content = place.content("large");
    let block = vec![7; 16 << 20];
    for name in 0..8 {
        fs::write(format!("{content}/large-{name}"), &block).expect("a large file");
    }
    let expected = Tree::read(&content);
    let lamina = Lamina::new(site, "killed", RootBy::Option);
    let (mut killed, mut whole) = (0, true);
    for step in 1..=KILLS {
        let signal = if step % 3 == 0 { Signal::INT } else { Signal::KILL };
        let mut command = place.command(&lamina, &["large", "lamina/app:1"]);
        let mut run = Background::start(&mut command, Path::new("/dev/null"));
        let limit = STEP * u32::try_from(step).expect("a small number");
        killed += usize::from(!harness::until(limit, || !run.is_running()));
        run.end(signal);
        whole &= is_whole(&lamina, &expected);
    }
    site.holds("killed", killed > 0, "expected a killed run got none");
    site.holds("nothing_half", whole, "expected no volume, or a whole one");
    let done = place.import(&lamina, &["large", "lamina/app:1"]);
    site.succeeds("retry", &done);
    site.holds("retry_is_whole", is_whole(&lamina, &expected), "expected the tree");
    site.equal("retry_verify", lamina.verify(), (0, Vec::new()));
    site.succeeds("retry_image", &lamina.image(&["inspect", "lamina/app:1"]));
    place.engine.call(&["volume", "rm", "large"]).expect();
}

/// Whether the volume is missing or whole.
fn is_whole(lamina: &Lamina, expected: &Tree) -> bool {
    if !Path::new(&lamina.at("catalog.db")).exists() {
        return true;
    }
    let found = lamina.run(&["volume", "inspect", "large"]);
    if !found.is_ok() {
        return true;
    }
    let content = found.json()[0]["mountpoint"].as_str().expect("a path").to_owned();
    expected.differences(&Tree::read(content)).is_empty()
}

/// A volume moves, and the engine has it no more. One with a container stays.
pub(super) fn judge_adoption(site: &mut Site, place: &Place<'_>, lamina: &Lamina) {
    place.engine.call(&["volume", "create", "--label", "k=v", "moved"]).expect();
    place.fill("moved");
    let content = place.content("moved");
    let (expected, inode) = (Tree::read(&content), inode(&content));
    let dry = Report::of(&place.import(lamina, &["--adopt", "--dry-run", "moved"]));
    site.equal("adopt_needs_nothing", (dry.totals.volumes, dry.needed_bytes), (1, 0));
    site.holds("adopt_dry_run", Path::new(&content).exists(), "expected the content");
    let done = place.import(lamina, &["--adopt", "moved"]);
    site.succeeds("adopt", &done);
    let report = Report::of(&done);
    site.equal("adopt_notes", report.volume("moved").notes.join(" "), String::new());
    let found = lamina.run(&["volume", "inspect", "moved"]).json();
    let here = found[0]["mountpoint"].as_str().expect("a path").to_owned();
    site.equal("adopted_inode", self::inode(&here), inode);
    site.equal("adopted_tree", expected.differences(&Tree::read(&here)), Vec::<String>::new());
    site.equal("adopted_label", found[0]["labels"]["k"].as_str(), Some("v"));
    let labels = found[0]["labels"].to_string();
    site.holds("adopted_once", !labels.contains("adopting"), labels);
    site.fails("engine_lost_it", &place.engine.call(&["volume", "inspect", "moved"]));
    let other = Lamina::new(site, "adopt", RootBy::Option);
    let used = Report::of(&place.import(&other, &["--adopt", "used"]));
    let reason = used.volume("used").reason.clone().unwrap_or_default();
    site.holds("adopt_of_used", reason.contains("container writer uses it"), reason);
}

fn inode(path: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("a directory").ino()
}

/// A killed move leaves the content at one of the two places, and a retry finishes it.
pub(super) fn judge_killed_adoption(site: &mut Site, place: &Place<'_>) {
    let lamina = Lamina::new(site, "moved-by-killed", RootBy::Option);
    let (mut killed, mut lost, mut unfinished) = (0, Vec::new(), Vec::new());
    let (mut stayed, mut moved) = (0, 0);
    for step in 1..=KILLS {
        let name = format!("step-{step}");
        place.engine.call(&["volume", "create", &name]).expect();
        place.fill(&name);
        let content = place.content(&name);
        let (expected, inode) = (Tree::read(&content), inode(&content));
        let mut command = place.command(&lamina, &["--adopt", &name]);
        let mut run = Background::start(&mut command, Path::new("/dev/null"));
        std::thread::sleep(MOVE_STEP * u32::try_from(step).expect("a small number"));
        killed += usize::from(run.is_running());
        run.end(Signal::KILL);
        let here = format!("{}/{name}/_data", lamina.at("volumes"));
        let places = [&content, &here];
        let found = places.map(|path| Path::new(path).exists() && self::inode(path) == inode);
        match found {
            [true, false] => stayed += 1,
            [false, true] => moved += 1,
            _ => lost.push((step, found)),
        }
        let has_it = || place.engine.call(&["volume", "inspect", &name]).is_ok();
        let retry = has_it().then(|| place.import(&lamina, &["--adopt", &name]));
        // Not at the place of before if that is in the trash.
        let found = lamina.run(&["volume", "inspect", &name]).json();
        let here = found[0]["mountpoint"].as_str().expect("a path");
        let differences = expected.differences(&Tree::read(here));
        if !retry.as_ref().is_none_or(Done::is_ok) || has_it() || !differences.is_empty() {
            unfinished.push((step, retry.map(|done| done.text() + &done.err), differences));
        }
    }
    site.holds("adopt_killed", killed > 0, "expected a killed run got none");
    site.holds("adopt_killed_before", stayed > 0, format!("{stayed} stayed, {moved} moved"));
    site.equal("adopt_killed_lost", lost, Vec::<(u64, [bool; 2])>::new());
    site.equal("adopt_killed_retry", unfinished, Vec::<(u64, Option<String>, Vec<String>)>::new());
}
