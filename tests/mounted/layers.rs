//! Layers in every form in use: what they hide and show, alone, stacked and remounted.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::harness::Site;
use crate::tools::*;
use crate::tree;

// A blob holds no reference to another layer: an import refuses such references.
judged!(unions_of_directories:
    attributes_without_data_take_the_data_below,
    redirect_from_the_root_leads_through_directories,
    redirect_leads_to_another_name,
    upper_becomes_a_lower,
);
judged!(unions:
    device_whiteouts_hide_what_is_below,
    attribute_whiteouts_hide_what_is_below,
    trusted_mark_makes_a_directory_opaque,
    whiteout_of_a_directory_hides_its_tree,
    directory_removed_and_made_again_is_empty,
    directory_removed_and_replaced_by_a_file_stays_away,
    file_in_between_ends_a_merge,
);
judged!(lamina:
    every_opaque_mark_hides_what_is_below,
    aufs_whiteouts_hide_what_is_below,
    aufs_marks_are_never_shown,
    whiteout_file_at_the_root_confuses_no_directory,
    aufs_marks_count_for_their_own_layer_not,
    marks_of_several_forms_stack,
    five_hundred_lowers_merge,
    mount_without_upper_shows_all_lowers,
    renamed_and_changed_upper_becomes_a_lower,
);

/// The lower above, and a new one beneath it.
fn two(s: &mut Site) -> (PathBuf, PathBuf) {
    (s.lower(""), s.add_lower("below"))
}

fn whiteout(path: impl AsRef<Path>) {
    mknod(path, FileType::CharacterDevice, 0, 0).unwrap();
}

/// Asserts the content of a directory: by listing, by lookup of listed names, and by lookup of
/// other names. One lookup comes before the first listing, and others after it.
#[track_caller]
fn holds(s: &Site, path: &str, there: &[&str], gone: &[&str]) {
    for _ in 0..2 {
        for name in gone {
            assert!(!exists(s.at(path).join(name)), "{path}/{name} is gone");
        }
        assert_eq!(names(s.at(path)), there, "in {path}");
        for name in there {
            assert!(exists(s.at(path).join(name)), "{path}/{name} is there");
        }
    }
}

/// Makes the upper the topmost lower, under a new and empty upper.
fn restack(s: &mut Site) {
    s.unmount();
    let spare = format!("below{}", s.lower_paths().len());
    // The new directory takes the content of the lowest layer, and so on upwards.
    s.add_lower(&spare);
    let paths = s.lower_paths();
    for pair in paths.windows(2).rev() {
        fs::remove_dir(&pair[1]).unwrap();
        fs::rename(&pair[0], &pair[1]).unwrap();
        fs::create_dir(&pair[0]).unwrap();
    }
    fs::remove_dir(&paths[0]).unwrap();
    fs::rename(s.upper(""), &paths[0]).unwrap();
    fs::create_dir(s.upper("")).unwrap();
    fs::rename(s.root().join("work"), s.root().join(format!("old-work-{spare}"))).unwrap();
    fs::create_dir(s.root().join("work")).unwrap();
    s.mount();
}

fn device_whiteouts_hide_what_is_below(s: &mut Site) {
    let (above, below) = two(s);
    dir(below.join("d"));
    for name in ["f", "g", "d/f", "d/g"] {
        put(below.join(name), "below");
    }
    whiteout(above.join("f"));
    dir(above.join("d"));
    whiteout(above.join("d/g"));
    s.mount();
    holds(s, "", &["d", "g"], &["f"]);
    holds(s, "d", &["f"], &["g"]);
}

fn attribute_whiteouts_hide_what_is_below(s: &mut Site) {
    let (above, below) = two(s);
    dir(below.join("d"));
    dir(above.join("d"));
    for name in ["d/f", "d/g", "d/h"] {
        put(below.join(name), "below");
    }
    set_xattr(above.join("d"), "trusted.overlay.opaque", b"x").unwrap();
    put(above.join("d/f"), "");
    set_xattr(above.join("d/f"), "trusted.overlay.whiteout", b"").unwrap();
    put(above.join("d/g"), "");
    s.mount();
    holds(s, "d", &["g", "h"], &["f"]);
    assert_eq!(get(s.at("d/g")), b"", "an empty file without the mark is a file");
}

fn trusted_mark_makes_a_directory_opaque(s: &mut Site) {
    opaque_by(s, |path| set_xattr(path, "trusted.overlay.opaque", b"y").unwrap());
}

/// Marks a directory of the layer above and asserts that nothing below shows, at any depth.
fn opaque_by(s: &mut Site, mark: impl Fn(&Path)) {
    let (above, below) = two(s);
    dir(below.join("d/sub"));
    put(below.join("d/f"), "below");
    put(below.join("d/sub/g"), "below");
    put(below.join("other"), "below");
    dir(above.join("d/sub"));
    put(above.join("d/mine"), "above");
    mark(&above.join("d"));
    s.mount();
    for _ in 0..2 {
        holds(s, "d", &["mine", "sub"], &["f"]);
        holds(s, "d/sub", &[], &["g"]);
        holds(s, "", &["d", "other"], &[]);
        put(s.at("d/new"), "");
        fs::remove_file(s.at("d/new")).unwrap();
        s.remount();
    }
}

fn whiteout_of_a_directory_hides_its_tree(s: &mut Site) {
    let (above, below) = two(s);
    let lowest = s.add_lower("lowest");
    dir(lowest.join("d/deep"));
    dir(below.join("d"));
    whiteout(above.join("d"));
    s.mount();
    holds(s, "", &[], &["d", "d/deep"]);
    dir(s.at("d"));
    for _ in 0..2 {
        holds(s, "d", &[], &["deep"]);
        s.remount();
    }
}

fn redirect_leads_to_another_name(s: &mut Site) {
    let (above, below) = two(s);
    dir(below.join("old/sub"));
    put(below.join("old/sub/f"), "below");
    dir(above.join("new/sub"));
    put(above.join("new/sub/g"), "above");
    whiteout(above.join("old"));
    set_xattr(above.join("new"), "trusted.overlay.redirect", b"old").unwrap();
    s.mount();
    holds(s, "", &["new"], &["old"]);
    holds(s, "new/sub", &["f", "g"], &[]);
    assert_eq!(get(s.at("new/sub/f")), b"below");
}

fn redirect_from_the_root_leads_through_directories(s: &mut Site) {
    let (above, below) = two(s);
    dir(below.join("a/b/old"));
    put(below.join("a/b/old/f"), "below");
    dir(above.join("x"));
    set_xattr(above.join("x"), "trusted.overlay.redirect", b"/a/b/old").unwrap();
    s.mount();
    holds(s, "x", &["f"], &[]);
    holds(s, "a/b/old", &["f"], &[]);
}

fn attributes_without_data_take_the_data_below(s: &mut Site) {
    let (above, below) = two(s);
    put(below.join("f"), "content");
    put(below.join("data"), "elsewhere");
    for (name, len) in [("f", 7), ("moved", 9)] {
        fs::File::create(above.join(name)).unwrap().set_len(len).unwrap();
        chmod(above.join(name), 0o640);
        set_xattr(above.join(name), "trusted.overlay.metacopy", b"").unwrap();
    }
    set_xattr(above.join("moved"), "trusted.overlay.redirect", b"/data").unwrap();
    s.mount();
    assert_eq!((get(s.at("f")), mode(s.at("f"))), (b"content".to_vec(), 0o640));
    assert_eq!((get(s.at("moved")), mode(s.at("moved"))), (b"elsewhere".to_vec(), 0o640));
    append(s.at("moved"), b"!");
    assert_eq!(get(s.at("data")), b"elsewhere");
    s.remount();
    assert_eq!(get(s.at("moved")), b"elsewhere!");
}

fn directory_removed_and_made_again_is_empty(s: &mut Site) {
    let (above, below) = two(s);
    dir(above.join("d/sub"));
    put(above.join("d/f"), "above");
    dir(below.join("d/sub/deep"));
    put(below.join("d/f"), "below");
    put(below.join("d/g"), "below");
    s.mount();
    // Names that were looked up before, and names that were not.
    assert!(exists(s.at("d/g")));
    fs::remove_dir_all(s.at("d")).unwrap();
    dir(s.at("d"));
    let gone = ["f", "g", "sub", "sub/deep"];
    holds(s, "d", &[], &gone);
    dir(s.at("d/sub"));
    s.remount();
    holds(s, "d", &["sub"], &["f", "g", "sub/deep"]);
    restack(s);
    holds(s, "d", &["sub"], &["f", "g", "sub/deep"]);
    put(s.at("d/new"), "");
    s.remount();
    holds(s, "d", &["new", "sub"], &["f", "g", "sub/deep"]);
}

fn directory_removed_and_replaced_by_a_file_stays_away(s: &mut Site) {
    dir(s.lower("d/sub"));
    s.mount();
    fs::remove_dir_all(s.at("d")).unwrap();
    put(s.at("d"), "a file now");
    s.remount();
    fs::remove_file(s.at("d")).unwrap();
    holds(s, "", &[], &["d"]);
    dir(s.at("d"));
    s.remount();
    holds(s, "d", &[], &["sub"]);
}

fn file_in_between_ends_a_merge(s: &mut Site) {
    let (above, below) = two(s);
    let lowest = s.add_lower("lowest");
    dir(above.join("d"));
    put(above.join("d/a"), "");
    put(below.join("d"), "a file");
    dir(lowest.join("d"));
    put(lowest.join("d/z"), "");
    s.mount();
    holds(s, "d", &["a"], &["z"]);
}

fn upper_becomes_a_lower(s: &mut Site) {
    dir(s.lower("d/sub"));
    for name in ["a", "b", "d/x", "d/y", "d/sub/z"] {
        put(s.lower(name), name);
    }
    s.mount();
    fs::remove_file(s.at("a")).unwrap();
    fs::remove_file(s.at("d/x")).unwrap();
    chmod(s.at("b"), 0o600);
    append(s.at("d/y"), b"+");
    fs::remove_dir_all(s.at("d/sub")).unwrap();
    dir(s.at("d/sub"));
    put(s.at("d/sub/new"), "new");
    let before = tree::read(&s.mnt());
    for _ in 0..2 {
        restack(s);
        let (before, after) =
            (tree::without_times(before.clone()), tree::without_times(tree::read(&s.mnt())));
        let inside = |tree: tree::Tree| -> tree::Tree {
            tree.into_iter().filter(|(path, _)| !path.as_os_str().is_empty()).collect()
        };
        tree::assert_same("before", &inside(before), "as a lower", &inside(after));
        holds(s, "d", &["sub", "y"], &["x"]);
        holds(s, "d/sub", &["new"], &["z"]);
        holds(s, "", &["b", "d"], &["a"]);
    }
}

fn every_opaque_mark_hides_what_is_below(s: &mut Site) {
    let (above, below) = two(s);
    type Mark = dyn Fn(&Path);
    let marks: [(&str, &Mark); 4] = [
        ("trusted", &|path| set_xattr(path, "trusted.overlay.opaque", b"y").unwrap()),
        ("user", &|path| set_xattr(path, "user.overlay.opaque", b"y").unwrap()),
        ("fuse", &|path| set_xattr(path, "user.fuseoverlayfs.opaque", b"y").unwrap()),
        ("file", &|path| put(path.join(".wh..wh..opq"), "")),
    ];
    for (name, mark) in marks {
        dir(below.join(name).join("sub"));
        put(below.join(name).join("f"), "");
        put(below.join(name).join("sub/g"), "");
        dir(above.join(name).join("sub"));
        mark(&above.join(name));
    }
    s.mount();
    for _ in 0..2 {
        for (name, _) in marks {
            holds(s, name, &["sub"], &["f", ".wh..wh..opq"]);
            holds(s, &format!("{name}/sub"), &[], &["g"]);
            chmod(s.at(name), 0o711);
        }
        s.remount();
    }
}

fn aufs_whiteouts_hide_what_is_below(s: &mut Site) {
    let (above, below) = two(s);
    dir(below.join("d/gone"));
    for name in ["f", "g", "d/f", "d/g"] {
        put(below.join(name), "below");
    }
    dir(above.join("d"));
    for name in [".wh.f", "d/.wh.g", "d/.wh.gone"] {
        put(above.join(name), "");
    }
    s.mount();
    for _ in 0..2 {
        holds(s, "", &["d", "g"], &["f", ".wh.f"]);
        holds(s, "d", &["f"], &["g", "gone", ".wh.g", ".wh.gone"]);
        s.remount();
    }
    put(s.at("f"), "again");
    dir(s.at("d/gone"));
    s.remount();
    holds(s, "", &["d", "f", "g"], &[]);
    holds(s, "d", &["f", "gone"], &["g"]);
}

fn aufs_marks_are_never_shown(s: &mut Site) {
    for name in [".wh..wh.aufs", ".wh..wh.plnk", ".wh.nothing", ".wh..wh..opq"] {
        put(s.lower(name), "");
    }
    put(s.lower("f"), "");
    s.mount();
    holds(s, "", &["f"], &[".wh.nothing", ".wh..wh..opq"]);
}

// A `.wh.x` file in the root of a layer and an opaque directory in the upper: after listings of
// both, a lookup found the entries that the opaque directory hides in three other programs.
fn whiteout_file_at_the_root_confuses_no_directory(s: &mut Site) {
    let (above, below) = two(s);
    put(above.join(".wh.x"), "");
    put(below.join("x"), "");
    dir(below.join("d/a"));
    dir(s.upper("d"));
    set_xattr(s.upper("d"), "trusted.overlay.opaque", b"y").unwrap();
    s.mount();
    assert_eq!(names(s.mnt()), ["d"]);
    assert_eq!(names(s.at("d")), Vec::<String>::new());
    assert!(!exists(s.at("d/a")));
    assert!(!exists(s.at("x")));
}

fn aufs_marks_count_for_their_own_layer_not(s: &mut Site) {
    let (above, below) = two(s);
    put(above.join("f"), "above");
    put(above.join(".wh.f"), "");
    put(below.join("f"), "below");
    s.mount();
    assert_eq!(get(s.at("f")), b"above", "a mark hides the layers below, not its own");
    fs::remove_file(s.at("f")).unwrap();
    s.remount();
    holds(s, "", &[], &["f"]);
}

fn marks_of_several_forms_stack(s: &mut Site) {
    let (above, middle) = two(s);
    let lowest = s.add_lower("lowest");
    for name in ["a", "b", "c"] {
        put(lowest.join(name), "lowest");
    }
    whiteout(middle.join("a"));
    put(middle.join(".wh.b"), "");
    put(above.join("a"), "again");
    put(above.join(".wh.c"), "");
    s.mount();
    holds(s, "", &["a"], &["b", "c"]);
    assert_eq!(get(s.at("a")), b"again");
}

fn five_hundred_lowers_merge(s: &mut Site) {
    for number in 1..500 {
        let layer = s.add_lower(&format!("l{number}"));
        dir(layer.join("d"));
        put(layer.join(format!("d/f{number}")), number.to_string());
        put(layer.join("d/same"), number.to_string());
    }
    s.mount();
    assert_eq!(names(s.at("d")).len(), 500);
    assert_eq!(get(s.at("d/same")), b"1");
    assert_eq!(get(s.at("d/f499")), b"499");
    fs::remove_dir_all(s.at("d")).unwrap();
    dir(s.at("d"));
    s.remount();
    holds(s, "d", &[], &["same", "f1", "f499"]);
}

fn mount_without_upper_shows_all_lowers(s: &mut Site) {
    let (above, below) = two(s);
    put(above.join("f"), "above");
    put(below.join("f"), "below");
    put(below.join("g"), "below");
    s.read_only = true;
    s.mount();
    holds(s, "", &["f", "g"], &[]);
    assert_eq!(get(s.at("f")), b"above");
    fails_io(fs::write(s.at("f"), "x"), rustix::io::Errno::ROFS);
    fails_io(fs::create_dir(s.at("d")), rustix::io::Errno::ROFS);
}

fn renamed_and_changed_upper_becomes_a_lower(s: &mut Site) {
    dir(s.lower("d/sub"));
    put(s.lower("d/sub/f"), "low");
    put(s.lower("d/g"), vec![b'x'; 100_000]);
    s.mount();
    rename(s.at("d"), s.at("e")).unwrap();
    chmod(s.at("e/g"), 0o600);
    for _ in 0..3 {
        restack(s);
        holds(s, "", &["e"], &["d"]);
        assert_eq!(get(s.at("e/sub/f")), b"low");
        assert_eq!((get(s.at("e/g")).len(), mode(s.at("e/g"))), (100_000, 0o600));
        rename(s.at("e"), s.at("t")).unwrap();
        rename(s.at("t"), s.at("e")).unwrap();
    }
}
