//! What a person at a terminal sees of a transfer.

use std::fs;
use std::process::{Command, Stdio};

use crate::place::Place;
use crate::programs::has;
use crate::tree;

/// Runs a verb on a terminal, and returns what appears there.
fn on_terminal(place: &Place, words: &[&str]) -> String {
    let wanted = place.command("root", words);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words = std::iter::once(wanted.get_program()).chain(wanted.get_args()).map(quoted);
    let line = words.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols 120; {line}"), "/dev/null"]);
    script.envs(wanted.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = script.env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_shows_how_far_a_transfer_is_and_a_pipe_does_not() {
    if !has("script") {
        return;
    }
    let place = Place::new();
    let url = place.url("repository");
    place.good(&["create", "data"]);
    fs::write(place.data("root", "data").join("f"), tree::noise(8 << 20, 1)).unwrap();
    let done = place.json(&["backup", "data", &url, "--json"]);
    let (id, tar) = (done["id"].as_str().unwrap().to_owned(), place.text("tar"));
    let rows: [(&[&str], &str); 3] = [
        (&["backup", "data", &url], "backup of data"),
        (&["restore", &url, "copy", "--id", &id], "restore of copy"),
        (&["export", "data", "--output", &tar], "export of data"),
    ];
    for (words, title) in rows {
        // The last drawing has all bytes. The total of a tree counts its directories too.
        let shown = on_terminal(&place, words);
        assert!(shown.contains(&format!("{title} 8.00 MiB/8.0")), "{shown:?}");
        assert!(shown.contains("/s "), "{shown:?}");
    }
    let quiet = place.run_on("root", &["backup", "data", &url]);
    let stderr = String::from_utf8(quiet.stderr).unwrap();
    assert!(quiet.status.success() && !stderr.contains("MiB"), "{stderr}");
}
