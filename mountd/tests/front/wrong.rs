//! Bad input and what is said to it: `wrong.txt`, whose head describes its form.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::place::{Place, Program};

const LEAST: usize = 100;

struct Entry<'a> {
    title: &'a str,
    commands: &'a str,
    answer: String,
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let parts = text.split("\n== ").skip(1);
    parts
        .map(|part| {
            let (title, rest) = part.split_once("\n$ ").unwrap();
            let (commands, answer) = rest.split_once('\n').unwrap_or((rest, ""));
            Entry { title, commands, answer: answer.trim_end().to_owned() }
        })
        .collect()
}

/// Replaces the digits behind each of some words.
fn steady(text: &str, dir: &str) -> String {
    let text = text.replace(dir, "DIR");
    let mut out = String::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let is_number = words[at].starts_with(|one: char| one.is_ascii_digit());
            let is_before = matches!(words[at - 1].trim_start_matches('('), "process" | "in");
            let is_free = words.get(at + 1).is_some_and(|next| next == "are")
                && words.get(at + 2).is_some_and(|next| next.starts_with("free"));
            if is_number && (is_before || is_free) {
                let rest = words[at]
                    .trim_start_matches(|one: char| one.is_ascii_alphanumeric() || one == '.');
                words[at] = format!("N{rest}");
            }
        }
        out.push_str(&hidden(&words.join(" ")));
        out.push('\n');
    }
    out
}

/// A line in which long runs of hexadecimal digits are short: they are digests and ids.
fn hidden(line: &str) -> String {
    let mut out = String::new();
    for part in line.split_inclusive(|one: char| !one.is_ascii_hexdigit()) {
        let (digits, end) = match part.chars().last() {
            Some(last) if !last.is_ascii_hexdigit() => part.split_at(part.len() - last.len_utf8()),
            _ => (part, ""),
        };
        let is_id = digits.len() >= 12 && digits.bytes().any(|one| one.is_ascii_digit());
        let is_one = digits.bytes().all(|one| one == b'0') || digits.ends_with("0001");
        out.push_str(if is_id && !is_one { "ID" } else { digits });
        out.push_str(end);
    }
    out
}

fn answer(place: &Place, commands: &str) -> String {
    let output = place.run(&format!("exec 2>&1\n{commands}"));
    let dir = place.path().to_str().unwrap();
    let text = steady(&String::from_utf8_lossy(&output.stdout), dir);
    let text: String =
        text.chars().map(|one| if one.is_control() && one != '\n' { '?' } else { one }).collect();
    let code = output.status.code().unwrap();
    format!("{}\n[exit code {code}]", text.trim_end()).trim_start().to_owned()
}

#[test]
fn bad_input_gets_the_message_that_the_list_says() {
    let program = Program::new();
    let first = Place::new(&program);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/front/wrong.txt");
    let text = fs::read_to_string(&file).unwrap();
    let (head, _) = text.split_once("\n== ").unwrap();
    let (mut written, mut differences) = (format!("{}\n", head.trim_end()), String::new());
    let all = entries(&text);
    assert!(all.len() >= LEAST, "{} entries", all.len());
    for Entry { title, commands, answer: wanted } in all {
        let place = first.copied();
        let found = answer(&place, commands);
        if found != wanted {
            writeln!(differences, "{title}\n$ {commands}\nwanted {wanted}\nfound  {found}\n")
                .unwrap();
        }
        write!(written, "\n== {title}\n$ {commands}\n{found}\n").unwrap();
    }
    if std::env::var_os("LAMINA_UPDATE").is_some() {
        fs::write(&file, written).unwrap();
    }
    assert!(differences.is_empty(), "LAMINA_UPDATE=1 takes these over:\n{differences}");
}
