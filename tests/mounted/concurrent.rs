//! Several processes on a few names: some order explains the results of all calls, no acknowledged
//! data is lost, and a remount changes nothing.
//!
//! `tests/mounted/concurrent.py` does the work and checks the results. Here it runs for seconds;
//! `scripts/stress` runs it for any time.

use std::process::{Command, Stdio};

use crate::harness::{Judge, Site, program};

judged!(over_directories:
    processes_on_few_names,
    races_of_a_first_change,
    a_listing_shows_what_its_reader_changed,
);
judged!(lamina:
    processes_on_few_names_through_the_page_cache,
    processes_on_few_names_with_whole_copies,
    processes_on_few_names_that_share_extents,
);

fn drive(s: &Site, words: &[&str]) {
    let judge = match s.judge() {
        Judge::Plain => "plain",
        Judge::Kernel => "kernel",
        Judge::Lamina | Judge::Blobs => "lamina",
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mounted/concurrent.py");
    let mut command = Command::new("python3");
    command.arg(script).args(words).args(["--judge", judge, "--directory"]).arg(s.root());
    command.env("LAMINA_BIN", program()).stdin(Stdio::null());
    let output = command.output().expect("python3 starts");
    let (said, failed) = (output.stdout, output.stderr);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprintln!("{}", text(&said));
    assert!(output.status.success(), "{}{}", text(&said), text(&failed));
}

fn processes_on_few_names(s: &mut Site) {
    drive(s, &["run", "--seconds", "8", "--processes", "8", "--no-reclaim"]);
}

fn races_of_a_first_change(s: &mut Site) {
    drive(s, &["figures", "--files", "60"]);
}

fn a_listing_shows_what_its_reader_changed(s: &mut Site) {
    drive(s, &["listings", "--seconds", "3", "--processes", "4"]);
}

fn processes_on_few_names_through_the_page_cache(s: &mut Site) {
    drive(
        s,
        &["run", "--seconds", "8", "--processes", "3", "--seed", "2", "--options", "io=cached"],
    );
}

fn processes_on_few_names_with_whole_copies(s: &mut Site) {
    let options = "metacopy=off,index=off,redirect_dir=off";
    drive(s, &["run", "--seconds", "8", "--processes", "16", "--seed", "3", "--options", options]);
}

fn processes_on_few_names_that_share_extents(s: &mut Site) {
    let image = s.root().join("xfs");
    let place = s.root().join("disk");
    let steps = format!(
        "truncate -s 400M {0} && mkfs.xfs -q {0} && mkdir {1} && mount -o loop {0} {1}",
        image.display(),
        place.display()
    );
    let made = Command::new("sh").args(["-c", &steps]).status().expect("sh starts");
    assert!(made.success(), "a file system that shares extents");
    let directory = place.display().to_string();
    drive(s, &["run", "--seconds", "8", "--seed", "4", "--place", &directory, "--no-reclaim"]);
    let gone = Command::new("umount").arg(&place).status().expect("umount starts");
    assert!(gone.success(), "nothing holds the file system");
}
