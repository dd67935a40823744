//! What the verbs answer to a person, and to a script.

use std::fs;

use crate::place::Place;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn wrong_requests_name_the_object_and_change_nothing() {
    let place = Place::new();
    place.good(&["create", "data"]);
    for (words, code, part) in [
        (&["create", "../x"][..], 1, "invalid volume name \"../x\""),
        (&["create", "x", "--driver", "none"], 1, "use one of local, image"),
        (
            &["create", "x", "--size", "1G", "--opt", "type=tmpfs", "--opt", "device=tmpfs"],
            1,
            "o=size=64m",
        ),
        (&["create", "x", "--size", "4K"], 1, "too small for a volume"),
        (&["create", "x", "--size", "much"], 1, "invalid size \"much\""),
        (&["create", "x", "--opt", "type=tmpfs"], 1, "device="),
        (&["create", "x", "--opt", "=v"], 2, "has no key"),
        (&["create", "data", "--driver", "image", "--size", "64M"], 1, "already exists"),
        (&["inspect", "none"], 1, "volume \"none\" does not exist"),
        (&["rm", "none"], 1, "volume \"none\" does not exist"),
        (&["rename", "data", "a/b"], 1, "invalid volume name \"a/b\""),
        (&["rename", "none", "data"], 1, "does not exist"),
        (&["resize", "data", "1G"], 1, "make a volume with --size"),
        (&["label", "data", "=v"], 2, "has no key"),
        (&["undelete", "none"], 1, "does not exist"),
        (&["adopt", "/nowhere", "x"], 1, "/nowhere"),
        (&["ls", "--filter", "colour=red"], 2, "dangling=true|false"),
    ] {
        let said = place.refused(words, code);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    assert_eq!(place.volumes().len(), 1);
    assert_eq!(place.directories().len(), 1);
}

#[test]
fn filters_are_those_of_docker() {
    let place = Place::new();
    place.good(&["create", "web", "--label", "tier=front", "--label", "keep"]);
    place.good(&["create", "db", "--label", "tier=back"]);
    let anonymous = place.good(&["create"]);
    assert_eq!(anonymous.trim_end().len(), 64);
    for (filter, names) in [
        (&["label=tier"][..], "db\nweb\n"),
        (&["label=tier=front"], "web\n"),
        (&["label=tier", "label=keep"], "web\n"),
        (&["name=e", "name=d", "driver=local", "label=tier=back"], "db\n"),
        (&["driver=image"], ""),
        (&["dangling=false"], ""),
    ] {
        let mut words = vec!["ls", "--quiet"];
        words.extend(filter.iter().flat_map(|one| ["--filter", *one]));
        assert_eq!(place.good(&words), names, "{filter:?}");
    }
    // Volumes with a name stay without --all.
    assert_eq!(place.good(&["prune", "--dry-run", "--quiet"]), anonymous);
    let said = place.run(&["prune", "--dry-run"]).stderr;
    assert!(String::from_utf8(said).unwrap().contains("1 volume would be removed"));
    assert_eq!(place.volumes().len(), 3);
    assert!(place.good(&["prune"]).contains(anonymous.trim_end()));
    assert_eq!(place.volumes().len(), 2);
    place.good(&["prune", "--all", "--filter", "label=keep"]);
    assert_eq!(place.good(&["ls", "--quiet"]), "db\n");
}

#[test]
fn a_removed_volume_comes_back_with_its_content() {
    let place = Place::new();
    let id = place.marked("data");
    place.good(&["rm", "data"]);
    assert!(place.volumes().is_empty());
    place.marked("data");
    assert!(place.refused(&["undelete", "data"], 1).contains("already exists"));
    place.good(&["undelete", &id, "--as", "old"]);
    let all = place.checked(std::slice::from_ref(&id));
    assert_eq!(all[&id].name, "old");
    place.good(&["rm", "--purge", "old"]);
    assert!(place.trash().is_empty());
}

#[test]
fn the_settings_of_the_trash_are_those_of_the_daemon() {
    let place = Place::new();
    let file = place.at("lamina.toml");
    let config = file.to_str().unwrap();
    place.good(&["create", "first"]);
    place.good(&["rm", "first", "--config", "/dev/null"]);
    assert_eq!(place.trash().len(), 1, "seven days by default");
    fs::write(&file, "[trash]\nage_seconds = 0\n").unwrap();
    place.good(&["create", "second"]);
    let said = place.refused(&["rm", "second", "--config", config], 2);
    assert!(said.contains("trash.least_age_seconds is 3600"), "{said}");
    assert!(said.contains(config), "{said}");
    assert_eq!(place.volumes().len(), 1, "a wrong file removes nothing");
    fs::write(&file, "[trash]\nage_seconds = 0\nleast_age_seconds = 0\n").unwrap();
    place.good(&["rm", "second", "--config", config]);
    assert_eq!(place.trash(), [], "nothing stays");
    assert_eq!(place.directories(), Vec::<std::path::PathBuf>::new());
    place.good(&["create", "third"]);
    place.good(&["rm", "third", "--config", "/dev/null"]);
    let said = String::from_utf8(place.run(&["prune", "--config", config]).stderr).unwrap();
    assert!(said.contains("1 volume removed"), "{said}");
    assert_eq!(place.trash(), []);
}

#[test]
fn space_is_shown_for_people_and_for_scripts() {
    let place = Place::new();
    place.good(&["create", "data"]);
    fs::write(place.at("root/volumes/data/_data/f"), vec![1; 3 << 20]).unwrap();
    let rows = json(&place.good(&["df", "--json"]));
    assert_eq!((&rows[0]["name"], &rows[0]["used_inodes"]), (&"data".into(), &2.into()));
    assert!(rows[0]["used_bytes"].as_u64().unwrap() >= 3 << 20, "{rows}");
    assert!(place.good(&["df", "data"]).contains("data  local"));
}

#[test]
fn an_adopted_directory_is_the_volume() {
    let place = Place::new();
    fs::create_dir(place.at("have")).unwrap();
    fs::write(place.at("have/f"), "kept").unwrap();
    place.good(&["adopt", place.at("have").to_str().unwrap()]);
    assert_eq!(fs::read(place.at("root/volumes/have/_data/f")).unwrap(), b"kept");
    assert!(!place.at("have").exists());
    // A link in place of the directory is refused; one on the way to it is followed.
    fs::create_dir_all(place.at("real/sub")).unwrap();
    std::os::unix::fs::symlink(place.at("real"), place.at("link")).unwrap();
    for link in ["link", "link/"] {
        let said = place.refused(&["adopt", place.at(link).to_str().unwrap(), "linked"], 1);
        assert!(said.contains("is a symbolic link; name the directory itself"), "{said}");
    }
    place.good(&["adopt", place.at("link/sub").to_str().unwrap(), "linked"]);
    assert!(place.at("root/volumes/linked/_data").is_dir() && !place.at("real/sub").exists());
    assert!(place.at("real").is_dir() && place.at("link").is_symlink());
}
