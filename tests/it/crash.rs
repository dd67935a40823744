//! The daemon stops at each of its changes, one after the other. The remaining layers show the old
//! tree or the new one, never anything between, and the operation can be repeated.
//!
//! After each stop the file systems are checked in two states: as a killed daemon leaves them, and
//! as a power cut leaves them that loses everything not synced. Then they are mounted again.

use std::collections::BTreeMap;

use laminafs::error::Errno;
use laminafs::types::{Access, AttrChange, Kind, Owner, RawEntry, Stat, XattrFlags};
use laminafs::union::{DirRef, Options};
use laminafs_testing::fault::{Faults, Plan, wrap};
use laminafs_testing::memory::{Loss, MemoryTree};

use super::rules::forms;
use laminafs_testing::driver::{Mount, Shown, mount};
use laminafs_testing::reference::Answer;
use laminafs_testing::shell::{EXCHANGE, Fixture, PLAIN};

type Act = fn(&mut Mount) -> Answer<()>;
type View = BTreeMap<String, Shown>;
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One operation and the layers on which it runs.
struct Scene {
    lowers: &'static [&'static [&'static str]],
    /// The changes of an earlier mount with a clean end.
    before: Act,
    act: Act,
    /// Whether the user's own bytes, never synced, are part of the change. A write has one byte
    /// here, since an interrupted one may be torn. Its time is not compared, since it is set
    /// separately.
    writes: bool,
    /// Whether the length of a new file is set without data. A journal stores such a length with
    /// the names, so unlike the length of unsynced data it is not lost.
    attributes_only: bool,
    /// Whether the stored link count is lowered after the name is removed. A stop may leave it one
    /// too high, which keeps unneeded data, and never too low, which would lose data.
    count_lags: bool,
    /// Whether a stop may show a third tree, which SEMANTICS.md must then describe.
    between: Option<Act>,
}

fn nothing(_: &mut Mount) -> Answer<()> {
    Ok(())
}

const SCENE: Scene = Scene {
    lowers: &[],
    before: nothing,
    act: nothing,
    writes: false,
    attributes_only: false,
    count_lags: false,
    between: None,
};

/// The limit of changes of one operation.
const CHANGES_MAX: usize = 400;

/// Everything in a layer: names, attributes except access times, marks, content.
fn dump(root: &DirRef) -> BTreeMap<String, (Stat, Xattrs, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![(String::new(), root.clone())];
    while let Some((path, dir)) = left.pop() {
        let mut names: Vec<(Vec<u8>, Kind)> = Vec::new();
        let collect = &mut |entry: RawEntry<'_>| {
            names.push((entry.name.to_vec(), entry.kind));
            true
        };
        dir.list(0, collect).unwrap();
        for (name, kind) in names {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let keys = dir.xattr_names(Some(&name)).unwrap().into_iter();
            let xattrs = keys.map(|key| (key.clone(), dir.xattr(Some(&name), &key).unwrap()));
            let xattrs = xattrs.map(|(key, value)| (key, value.unwrap())).collect();
            let stat = dir.stat(Some(&name)).unwrap();
            let mut data = Vec::new();
            match kind {
                Kind::Dir => left.push((path.clone(), dir.dir(&name))),
                Kind::Symlink => data = dir.readlink(&name).unwrap(),
                Kind::File => {
                    data = vec![0; stat.size as usize];
                    dir.open(&name, Access::Read).unwrap().read_at(&mut data, 0).unwrap();
                }
                _ => {}
            }
            all.insert(path, (stat, xattrs, data));
        }
    }
    all
}

/// The layers of a scene, and the two trees that are allowed.
struct Stage<'a> {
    scene: &'a Scene,
    fixture: Fixture,
    old: View,
    new: View,
    between: Option<View>,
}

impl<'a> Stage<'a> {
    fn new(scene: &'a Scene, options: &Options) -> Self {
        let fixture = Fixture::new(scene.lowers).with(options.clone());
        let mut mount = fixture.mount();
        (scene.before)(&mut mount).unwrap();
        mount.union.shutdown().unwrap();
        drop(mount);
        fixture.upper.sync();
        let mut stage = Self { scene, fixture, old: View::new(), new: View::new(), between: None };
        stage.old = stage.view_after(nothing);
        stage.new = stage.view_after(scene.act);
        stage.between = scene.between.map(|act| stage.view_after(act));
        stage
    }

    fn view_after(&self, act: Act) -> View {
        let upper = self.fixture.upper.fork();
        let mut mount = self.mount(&upper, &Faults::new());
        act(&mut mount).unwrap();
        mount.observe()
    }

    fn mount(&self, upper: &MemoryTree, faults: &std::sync::Arc<Faults>) -> Mount {
        let lowers: Vec<DirRef> =
            self.fixture.lowers.iter().map(|tree| wrap(tree.root(), faults)).collect();
        let upper = wrap(upper.root(), faults);
        Mount::new(mount(&lowers, Some(&upper), &self.fixture.options).unwrap())
    }

    /// Runs the operation under a plan. Returns the upper, the result and the number of changes.
    fn run(&self, plan: Plan) -> (MemoryTree, Mount, Answer<()>, usize) {
        let (upper, faults) = (self.fixture.upper.fork(), Faults::new());
        let mut mount = self.mount(&upper, &faults);
        faults.start(plan);
        let result = (self.scene.act)(&mut mount);
        let changes = faults.calls().len();
        if matches!(plan, Plan::FailAt(..)) {
            faults.start(Plan::Pass);
        }
        (upper, mount, result, changes)
    }

    /// Asserts that a view is one of the allowed ones. Returns whether it is the old one.
    fn judge(&self, seen: &View, times: bool, text: &str) -> bool {
        let bare = |view: &View| {
            let mut view = if times { view.clone() } else { without_times(view) };
            if self.scene.count_lags {
                view.values_mut().for_each(|shown| shown.nlink = 0);
            }
            view
        };
        for (path, shown) in seen {
            let counts = [&self.old, &self.new].map(|view| view.get(path).map(|may| may.nlink));
            let least = counts.into_iter().flatten().min().unwrap_or(0);
            assert!(shown.nlink >= least, "{text}: {path} has {} links", shown.nlink);
        }
        let seen = bare(seen);
        if seen == bare(&self.old) {
            return true;
        }
        let between = self.between.as_ref().is_some_and(|view| seen == bare(view));
        let (old, new) = (bare(&self.old), bare(&self.new));
        let is_known = between || seen == new;
        assert!(is_known, "{text}: neither old nor new\n{}", differences(&seen, &old, &new));
        between
    }

    /// Mounts the remains of a stop, judges them, and repeats the operation.
    fn check(&self, upper: &MemoryTree, times: bool, text: &str) {
        let mut mount = self.mount(upper, &Faults::new());
        let old = self.judge(&mount.observe(), times, text);
        let work = dump(&upper.root().dir(b"work"));
        assert!(work.keys().all(|path| path == "/orphans"), "{text}: left in work: {work:?}");
        let again = (self.scene.act)(&mut mount);
        if old {
            assert_eq!(again, Ok(()), "{text}: done again");
        }
        for _ in 0..2 {
            let seen = mount.observe();
            if old {
                let (seen, new) = (without_times(&seen), without_times(&self.new));
                assert_eq!(seen, new, "{text}: after it was done again");
            }
            mount.union.shutdown().unwrap();
            mount = self.mount(upper, &Faults::new());
        }
    }
}

/// The objects at each path that differs between the three views.
fn differences(seen: &View, old: &View, new: &View) -> String {
    let mut report = String::new();
    for path in seen.keys().chain(old.keys()).chain(new.keys()) {
        let all = [seen, old, new].map(|view| view.get(path));
        if (all[0] != all[1] || all[0] != all[2]) && !report.contains(&format!("{path}\n")) {
            let [seen, old, new] = all;
            report += &format!("{path}\n  seen {seen:?}\n  old  {old:?}\n  new  {new:?}\n");
        }
    }
    report
}

fn without_times(view: &View) -> View {
    let mut view = view.clone();
    for shown in view.values_mut() {
        shown.times = Default::default();
    }
    view
}

/// All forms of uppers, including those without redirects and metacopy.
fn all_forms() -> Vec<Options> {
    let mut all = forms();
    all.push(Options { metacopy: false, redirect: false, ..Options::default() });
    all
}

fn form(options: &Options) -> String {
    let Options { marks, whiteouts, metacopy, redirect, .. } = options;
    format!("{marks:?}, {whiteouts:?}, metacopy {metacopy}, redirect {redirect}")
}

fn survives_every_stop(scene: &Scene) {
    for options in all_forms() {
        let stage = Stage::new(scene, &options);
        let lowers: Vec<_> = stage.fixture.lowers.iter().map(|tree| dump(&tree.root())).collect();
        let mut stops = 0;
        for at in 1..=CHANGES_MAX {
            let (upper, mount, result, changes) = stage.run(Plan::StopAt(at));
            drop(mount);
            let stopped = changes >= at;
            let text = format!("stop at change {at} ({result:?}, {})", form(&options));
            assert!(stopped || result == Ok(()), "{text}");
            stage.check(&upper.fork(), !scene.writes, &format!("killed, {text}"));
            for loss in [Loss::Holes, Loss::Empty] {
                if loss == Loss::Holes || !scene.attributes_only {
                    let left = upper.power_cut(loss);
                    stage.check(&left, false, &format!("power cut, {loss:?}, {text}"));
                }
            }
            if !stopped {
                break;
            }
            stops = at;
        }
        assert!((1..CHANGES_MAX).contains(&stops), "{stops} changes were stopped");
        let after: Vec<_> = stage.fixture.lowers.iter().map(|tree| dump(&tree.root())).collect();
        assert_eq!(after, lowers, "a layer below the upper changed");
    }
}

fn survives_every_refusal(scene: &Scene) {
    for options in all_forms() {
        let stage = Stage::new(scene, &options);
        for at in 1..=CHANGES_MAX {
            let (upper, mut mount, result, changes) = stage.run(Plan::FailAt(at, Errno::NOSPC));
            let text = format!("no space for change {at} ({result:?}, {})", form(&options));
            stage.judge(&mount.observe(), false, &format!("live, {text}"));
            drop(mount);
            stage.check(&upper, false, &text);
            if changes < at {
                break;
            }
        }
    }
}

/// Makes the tests of each scene.
macro_rules! scenes {
    ($($name:ident: { $($field:ident: $value:expr),* $(,)? })*) => { $(
        mod $name {
            use super::*;
            const SCENE_HERE: Scene = Scene { $($field: $value,)* ..SCENE };

            #[test]
            fn is_old_or_new_after_every_stop() {
                survives_every_stop(&SCENE_HERE);
            }

            #[test]
            fn is_old_or_new_after_every_refusal() {
                survives_every_refusal(&SCENE_HERE);
            }
        }
    )* };
}

fn owner(uid: u32) -> AttrChange {
    AttrChange { uid: Some(uid), gid: Some(uid + 1), ..AttrChange::default() }
}

scenes! {
    write_into_lower_file: {
        lowers: &[&["d/f=lower"]], act: |m| m.write("d/f", b"L", 0), writes: true
    }
    truncation_of_lower_file: {
        lowers: &[&["d/f*9000=x"]], act: |m| m.truncate("d/f", 0), writes: true
    }
    write_into_one_of_several_links: {
        lowers: &[&["d/a=text", "d/b>d/a", "e/c>d/a"]],
        act: |m| m.write("d/b", b"T", 0), writes: true
    }
    mode_of_lower_file: {
        lowers: &[&["d/f*9000=x"]],
        act: |m| m.chmod("d/f", 0o4711), attributes_only: true
    }
    mode_of_one_of_several_links: {
        lowers: &[&["d/a=text", "d/b>d/a"]], act: |m| m.chmod("d/a", 0o600), attributes_only: true
    }
    owner_of_lower_file: {
        lowers: &[&["d/f=1"]],
        act: |m| m.change("d/f", owner(7)), attributes_only: true
    }
    attribute_of_lower_file: {
        lowers: &[&["d/f=1"]], act: |m| m.set_xattr("d/f", b"user.a", b"b"), attributes_only: true
    }
    data_after_attributes: {
        lowers: &[&["d/f=lower"]],
        before: |m| m.chmod("d/f", 0o600),
        act: |m| m.write("d/f", b"L", 0), writes: true
    }
    data_after_attributes_of_links: {
        lowers: &[&["d/a=text", "d/b>d/a"]],
        before: |m| m.chmod("d/a", 0o600),
        act: |m| m.write("d/b", b"T", 0), writes: true
    }
    truncation_after_attributes: {
        lowers: &[&["d/f=lower"]],
        before: |m| m.chmod("d/f", 0o600),
        act: |m| m.truncate("d/f", 0), writes: true
    }
    mode_of_lower_directory: {
        lowers: &[&["d/e/x=1"], &["d/e/y=2"]], act: |m| m.chmod("d/e", 0o700)
    }
    new_directory_deep_in_lowers: { lowers: &[&["d/e/"]], act: |m| m.mkdir("d/e/new").map(drop) }
    new_file_deep_in_lowers: {
        lowers: &[&["d/e/"]], act: |m| m.create("d/e/new", b"").map(drop)
    }
    rename_of_merged_directory: {
        lowers: &[&["d/x=1", "d/sub/y=2"], &["d/z=3", "t/"]],
        before: |m| m.create("d/new", b"4").map(drop),
        act: |m| m.rename("d", "t/e", PLAIN)
    }
    rename_of_lower_directory: {
        lowers: &[&["d/x=1", "d/sub/y=2"]], act: |m| m.rename("d", "e", PLAIN)
    }
    rename_of_renamed_directory: {
        lowers: &[&["d/x=1", "d/sub/y=2"]],
        before: |m| m.rename("d", "e", PLAIN),
        act: |m| m.rename("e/sub", "s", PLAIN)
    }
    rename_of_lower_file_over_another: {
        lowers: &[&["a=1", "b=2", "d/"]], act: |m| m.rename("a", "b", PLAIN)
    }
    rename_of_file_over_a_whiteout: {
        lowers: &[&["a=1", "d/b=2"]],
        before: |m| m.unlink("d/b"),
        act: |m| m.rename("a", "d/b", PLAIN)
    }
    rename_of_directory_over_emptied_one: {
        lowers: &[&["a/new=1", "b/old=2"]],
        before: |m| m.unlink("b/old"),
        act: |m| m.rename("a", "b", PLAIN)
    }
    unlink_of_lower_file: { lowers: &[&["d/f=1"]], act: |m| m.unlink("d/f") }
    unlink_of_copied_file: {
        lowers: &[&["d/f=1"]], before: |m| m.chmod("d/f", 0o600), act: |m| m.unlink("d/f")
    }
    unlink_of_one_of_several_links: {
        lowers: &[&["d/a=text", "d/b>d/a", "d/c>d/a"]],
        act: |m| m.unlink("d/b"), attributes_only: true, count_lags: true
    }
    unlink_of_one_of_several_copied_links: {
        lowers: &[&["d/a=text", "d/b>d/a", "d/c>d/a"]],
        before: |m| m.chmod("d/a", 0o600),
        act: |m| m.unlink("d/a")
    }
    rmdir_of_lower_directory: { lowers: &[&["d/e/"], &["d/e/"]], act: |m| m.rmdir("d/e") }
    rmdir_of_emptied_merged_directory: {
        lowers: &[&["d/x=1", "d/sub/y=2"]],
        before: |m| m.unlink("d/x").and_then(|()| m.remove_all("d/sub")),
        act: |m| m.rmdir("d")
    }
    mkdir_in_place_of_lower_directory: {
        lowers: &[&["d/x=1"]], before: |m| m.remove_all("d"), act: |m| m.mkdir("d").map(drop)
    }
    create_in_place_of_lower_file: {
        lowers: &[&["d/x=1"]],
        before: |m| m.unlink("d/x"),
        act: |m| m.create("d/x", b"").map(drop)
    }
    symlink_in_place_of_lower_file: {
        lowers: &[&["d/x=1"]],
        before: |m| m.unlink("d/x"),
        act: |m| m.symlink("d/x", b"target").map(drop)
    }
    link_of_lower_file: { lowers: &[&["d/f=1", "e/"]], act: |m| m.link("d/f", "e/g").map(drop) }
    link_over_a_whiteout: {
        lowers: &[&["d/f=1", "d/g=2"]],
        before: |m| m.unlink("d/g"),
        act: |m| m.link("d/f", "d/g").map(drop)
    }
    exchange_of_lower_files: {
        lowers: &[&["d/a=1", "b=2"]], act: |m| m.rename("d/a", "b", EXCHANGE)
    }
    exchange_of_lower_directories: {
        lowers: &[&["a/x=1", "b/y=2"], &["a/z=3"]], act: |m| m.rename("a", "b", EXCHANGE)
    }
    exchange_of_file_and_directory: {
        lowers: &[&["a/x=1", "b=2"]], act: |m| m.rename("a", "b", EXCHANGE)
    }
}

#[test]
fn copy_with_holes_is_old_or_new_and_keeps_them() {
    let scene =
        Scene { lowers: &[&["d/f="]], act: |m| m.write("d/f", b"H", 0), writes: true, ..SCENE };
    let root = Fixture::new(scene.lowers);
    let file = root.lowers[0].root().dir(b"d").open(b"f", Access::Write).unwrap();
    file.write_at(b"head", 0).unwrap();
    file.write_at(b"tail", 1 << 20).unwrap();
    root.lowers[0].sync();
    let mut stage = Stage::new(&scene, &Options::default());
    stage.fixture.lowers = root.lowers;
    (stage.old, stage.new) = (stage.view_after(nothing), stage.view_after(scene.act));
    for at in 1..=CHANGES_MAX {
        let (upper, mount, _, changes) = stage.run(Plan::StopAt(at));
        drop(mount);
        for left in [upper.fork(), upper.power_cut(Loss::Empty), upper.power_cut(Loss::Holes)] {
            stage.check(&left, false, &format!("stop at {at}"));
        }
        if changes < at {
            let blocks = upper.root().dir(b"upper").dir(b"d").stat(Some(b"f")).unwrap().blocks;
            assert_eq!(blocks, 16, "the hole was not filled");
            return;
        }
    }
    panic!("the write never succeeds");
}

#[test]
fn symbolic_link_and_device_come_up_whole() {
    let scene = Scene {
        lowers: &[&["d/"]],
        act: |m| m.change("d/l", owner(3)).and_then(|()| m.change("d/fifo", owner(3))),
        // Two operations, so that a stop may come between them.
        between: Some(|m| m.change("d/l", owner(3))),
        ..SCENE
    };
    let made = Fixture::new(scene.lowers);
    let dir = made.lowers[0].root().dir(b"d");
    dir.symlink(b"l", b"target", Owner::default()).unwrap();
    dir.mknod(b"fifo", Kind::Fifo.mode_bits() | 0o640, 0, Owner::default()).unwrap();
    dir.set_xattr(Some(b"l"), b"trusted.x", b"y", XattrFlags::default()).unwrap();
    for options in all_forms() {
        let empty = Scene { act: nothing, between: None, ..scene };
        let mut stage = Stage::new(&empty, &options);
        stage.fixture.lowers.clone_from(&made.lowers);
        stage.scene = &scene;
        (stage.old, stage.new) = (stage.view_after(nothing), stage.view_after(scene.act));
        stage.between = scene.between.map(|act| stage.view_after(act));
        for at in 1..=CHANGES_MAX {
            let (upper, mount, _, changes) = stage.run(Plan::StopAt(at));
            drop(mount);
            stage.check(&upper.fork(), true, &format!("stop at {at}"));
            if changes < at {
                break;
            }
        }
    }
}

#[test]
fn a_torn_copy_would_be_noticed() {
    let scene = Scene { lowers: &[&["f=lower"]], act: |m| m.chmod("f", 0o600), ..SCENE };
    let stage = Stage::new(&scene, &Options::default());
    let mut torn = stage.old.clone();
    torn.get_mut("/f").unwrap().data.truncate(2);
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stage.judge(&torn, false, "torn");
    }));
    assert!(judged.is_err());
}
