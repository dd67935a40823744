//! Circles of imports between the files of the library and of the tests' support crate.
//!
//! An edge leads from a file to each file that its product code names, by `use` or by a path in the
//! code: to the last part of a path that is a file. For a re-exported name the edge leads to the
//! parent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source, first_word, uses};

/// The limit of files in one circle, all of one module.
const FILES: usize = 3;

/// The first part of a file of `testing/src`, a name that no module of the library has.
const TESTING: &str = "testing";

type Modules<'a> = BTreeMap<Vec<&'a str>, usize>;

/// The parts of `src/a/b.rs`: `a`, `b`; of `testing/src/a.rs`: `testing`, `a`.
fn parts(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_suffix(".rs")?;
    if let Some(below) = path.strip_prefix("testing/src/") {
        return Some([TESTING].into_iter().chain(below.split('/')).collect());
    }
    Some(path.strip_prefix("src/")?.split('/').collect())
}

/// The parts of the root of the file's crate.
fn crate_root<'a>(parts: &[&'a str]) -> Vec<&'a str> {
    parts.iter().copied().take_while(|part| *part == TESTING).collect()
}

/// The module of the crate to which the file belongs.
fn module(path: &str) -> Option<&str> {
    let parts = parts(path)?;
    parts.get(crate_root(&parts).len()).copied()
}

/// The paths at the start of a text, each path of a group separately.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut from, mut found) = (0, 0, Vec::new());
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.extend(paths(&group[from..at]));
                    from = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return found;
    }
    let first = first_word(text);
    if first.is_empty() {
        return Vec::new();
    }
    let rest = text[first.len()..].strip_prefix("::").map(paths).unwrap_or_default();
    if rest.is_empty() {
        return vec![vec![first]];
    }
    rest.into_iter().map(|rest| [vec![first.clone()], rest].concat()).collect()
}

/// The file to which a path in the file `from` leads.
fn target(from: &[&str], path: &[String], known: &Modules<'_>) -> Option<usize> {
    let mut at: Vec<&str> = match &path.first()?[..] {
        "crate" => crate_root(from),
        _ => from.to_vec(),
    };
    let mut found = None;
    for part in path {
        match &part[..] {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            name => {
                at.push(name);
                let Some(file) = known.get(&at) else { break };
                found = Some(*file);
                continue;
            }
        }
        found = known.get(&at).copied();
    }
    found
}

fn edges(source: &Source, known: &Modules<'_>) -> BTreeSet<usize> {
    let Some(from) = parts(&source.path) else { return BTreeSet::new() };
    let code = source.product();
    let children = uses(code, "mod").map(|at| code[at + 3..].trim_start());
    let children = children.filter(|rest| rest[first_word(rest).len()..].starts_with(';'));
    let mut roots: BTreeSet<String> = children.map(first_word).collect();
    roots.extend(["crate", "super", "self"].map(str::to_owned));
    let mut found = BTreeSet::new();
    for root in &roots {
        for at in uses(code, root) {
            let before = &code[..at];
            let is_path = code[at + root.len()..].starts_with("::");
            // `pub(in path)` sets a visibility and is not an import.
            if is_path && !before.ends_with("::") && !before.ends_with("(in ") {
                let to = paths(&code[at..]).into_iter();
                found.extend(to.filter_map(|path| target(&from, &path, known)));
            }
        }
    }
    found
}

/// The circles, each as the paths of its files.
fn circles(sources: &[Source]) -> Vec<Vec<&str>> {
    let known: Modules<'_> = (0..)
        .zip(sources)
        .filter_map(|(number, source)| Some((parts(&source.path)?, number)))
        .collect();
    let edges: Vec<_> = sources.iter().map(|source| edges(source, &known)).collect();
    let reached = |from: usize| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(edges[at].iter().filter(|to| seen.insert(**to)));
        }
        seen
    };
    let reached: Vec<_> = (0..sources.len()).map(reached).collect();
    let mut found = BTreeSet::new();
    for (number, there) in reached.iter().enumerate() {
        let circle: Vec<usize> =
            there.iter().copied().filter(|other| reached[*other].contains(&number)).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    let path = |number: usize| &sources[number].path[..];
    found.into_iter().map(|circle| circle.into_iter().map(path).collect()).collect()
}

/// Circles of more than [`FILES`] files, or of several modules.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    let circles = circles(sources);
    for circle in &circles {
        let modules: BTreeSet<_> = circle.iter().map(|path| module(path)).collect();
        if modules.len() > 1 || circle.len() > FILES {
            let (path, object) = (circle[0].to_owned(), circle.join(" "));
            found.push(Finding { rule: "circle", path, object });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&sources).into_iter().map(|circle| circle.join(" ")).collect()
    }

    #[test]
    fn circles_are_found_however_they_are_written() {
        let (a, b, parent) = ("src/a/a.rs", "src/a/b.rs", "src/a.rs");
        let both = ["src/a/a.rs src/a/b.rs"];
        let group = "use crate::a::{c, a::{Y, Z}};";
        assert_eq!(found(&[(parent, ""), (a, "use super::b::X;"), (b, group)]), both);
        assert_eq!(found(&[(a, "fn f() { super::b::f() }"), (b, "use super::a;")]), both);
        assert_eq!(found(&[(a, "use super::b::X;"), (b, "// super::a\nuse std::a::B;")]).len(), 0);
        let child = [(parent, "mod a;\npub use a::X;"), (a, "use super::Y;")];
        assert_eq!(found(&child), ["src/a.rs src/a/a.rs"]);
        let child = [(parent, "mod a;\nmod b;\n"), (a, "use super::b::Y;"), (b, "")];
        assert_eq!(found(&child).len(), 0, "a declaration is no import");
        let seen = [(parent, "mod a;\nuse a::X;"), (a, "pub(in crate::a) fn f() {}")];
        assert_eq!(found(&seen).len(), 0);
        let (x, y) = ("testing/src/x.rs", "testing/src/y.rs");
        let both = ["testing/src/x.rs testing/src/y.rs"];
        assert_eq!(found(&[(x, "use crate::y::Y;"), (y, "use crate::x::X;")]), both);
        let test = "#[cfg(test)]\nmod tests {\nuse super::super::b::X; }";
        assert_eq!(found(&[(a, test), (b, "use super::a::X;")]).len(), 0);
    }

    #[test]
    fn a_circle_of_four_or_of_two_modules_is_refused() {
        let of = |files: &[(&str, &str)]| {
            let sources = files.iter().map(|(path, text)| Source::new(path, text));
            let found = check(&sources.collect::<Vec<_>>());
            found.into_iter().filter(|one| one.object != "no longer needed").count()
        };
        let ring = [
            ("src/a/a.rs", "use super::b::X;"),
            ("src/a/b.rs", "use super::c::X;"),
            ("src/a/c.rs", "use super::d::X;"),
            ("src/a/d.rs", "use super::a::X;"),
        ];
        assert_eq!(of(&ring), 1);
        let three = [ring[0], ring[1], ("src/a/c.rs", "use super::a::X;")];
        assert_eq!(of(&three), 0);
        assert_eq!(of(&[("src/a.rs", "use crate::b::X;"), ("src/b.rs", "use crate::a::X;")]), 1);
        let (x, y) = ("testing/src/x.rs", "testing/src/y.rs");
        assert_eq!(of(&[(x, "use crate::y::X;"), (y, "use crate::x::X;")]), 1);
    }
}
