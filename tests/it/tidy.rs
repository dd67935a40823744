//! Checks the sources themselves: imports of modules, sizes, comments, links of documents.
//!
//! A check is a function from sources to findings, so that each is also tested with a bad source.
//! [`EXCEPTIONS`] lists the allowed findings; an unneeded exception is a failure itself.

mod circles;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use tables::{
    CHECKED, DOCUMENT_CHARS, EDGES, EXCEPTIONS, FILE_LINES, FUNCTION_LINES, LINE_CHARS, LOCKS,
    NAKED_LOCKS, NARROW, NOT_BESIDE_SYNC, NOT_IN_UNION, PARAMETERS, PART_LINES, SCRIPT_LINES,
    USERS, WORDS,
};

/// A file with two views of it, both with the line numbers of the file.
struct Source {
    path: String,
    text: String,
    /// The text without comments and quoted text.
    code: String,
    /// The comments alone.
    comments: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    rule: &'static str,
    path: String,
    object: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let (code, comments) = views(text);
        Self { path: path.to_owned(), text: text.to_owned(), code, comments }
    }

    fn finding(&self, rule: &'static str, object: impl Into<String>) -> Finding {
        Finding { rule, path: self.path.clone(), object: object.into() }
    }

    /// The module of the library to which the file belongs.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        below.split(['/', '.']).next().filter(|name| *name != "lib")
    }

    fn is_test(&self) -> bool {
        self.path.contains("tests/") || self.path.ends_with("/tests.rs")
    }

    /// The code without its test module; empty for a file of tests.
    fn product(&self) -> &str {
        if self.is_test() {
            return "";
        }
        let end = self.code.find("#[cfg(test)]\nmod tests {").unwrap_or(self.code.len());
        &self.code[..end]
    }
}

/// Splits a text into code and comments; the rest of each view is blank.
fn views(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut comments) = (text.as_bytes().to_vec(), text.as_bytes().to_vec());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + token_len(&text[at..]);
        let is_comment = text[at..].starts_with("//") || text[at..].starts_with("/*");
        let is_quoted = !is_comment && end > at + 1 && !bytes[at].is_ascii_alphabetic();
        for place in at..end {
            if bytes[place] != b'\n' {
                if is_comment || is_quoted {
                    code[place] = b' ';
                }
                if !is_comment {
                    comments[place] = b' ';
                }
            }
        }
        at = end;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&code), text(&comments))
}

/// The length of a comment, of a quoted text, of a word, or of one character.
fn token_len(rest: &str) -> usize {
    let first = rest.chars().next().expect("there is a rest");
    let until = |mark: &str, from: usize| {
        rest[from..].find(mark).map_or(rest.len(), |len| from + len + mark.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if first == '"' {
        return quoted_len(rest, b'"');
    }
    if first == '\'' {
        // A lifetime has no second quote.
        let is_char = rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'');
        return if is_char { quoted_len(rest, b'\'') } else { 1 };
    }
    if first.is_alphanumeric() || first == '_' {
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let hashes = rest[len..].bytes().take_while(|byte| *byte == b'#').count();
        if ["r", "br"].contains(&&rest[..len]) && rest[len + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), len + hashes + 1);
        }
        return len;
    }
    first.len_utf8()
}

fn quoted_len(rest: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        if byte == quote && !escaped {
            return at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    rest.len()
}

/// The positions of a word or path that is not part of a longer word.
fn uses<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !code[..*at].ends_with(joins) && !code[at + word.len()..].starts_with(joins)
    })
}

/// The first names after each `ROOT::`, also within braces.
fn named_behind(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    for at in uses(code, root) {
        let Some(rest) = code[at + root.len()..].strip_prefix("::") else { continue };
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_word(rest));
            continue;
        };
        let (mut depth, mut fresh) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if fresh && c.is_alphabetic() => {
                    names.push(first_word(&group[at..]));
                    fresh = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn edges(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(module) = source.module() {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == module) else {
            return vec![source.finding("edge", "a module that the table does not know")];
        };
        for name in named_behind(source.product(), "crate") {
            if name != module && !allowed.contains(&&name[..]) {
                found.push(source.finding("edge", name));
            }
        }
        for (_, other, parts) in NARROW.iter().filter(|(name, ..)| *name == module) {
            let names = named_behind(source.product(), &format!("crate::{other}")).into_iter();
            let others = names.filter(|name| !parts.contains(&&name[..]));
            found.extend(others.map(|name| source.finding("edge", format!("{other}::{name}"))));
        }
        if module == "union" {
            let named = |word: &&&str| uses(source.product(), word).next().is_some();
            let words = NOT_IN_UNION.iter().filter(named);
            found.extend(words.map(|word| source.finding("union is pure", *word)));
        }
    }
    if CHECKED.iter().any(|place| source.path.starts_with(place)) {
        let others = named_behind(source.product(), "std::sync").into_iter();
        let others = others.filter(|name| name != "Arc" && name != "Weak");
        found.extend(others.map(|name| source.finding("sync", format!("std::sync::{name}"))));
        let named = |word: &&&str| uses(source.product(), word).next().is_some();
        let words = NOT_BESIDE_SYNC.iter().filter(named);
        found.extend(words.map(|word| source.finding("sync", *word)));
    }
    if source.module() == Some("union") && source.path != LOCKS {
        let code: String = source.product().split_whitespace().collect();
        let naked = NAKED_LOCKS.iter().filter(|lock| code.contains(**lock));
        found.extend(naked.map(|lock| source.finding("locks", *lock)));
    }
    if let Some((_, allowed)) = USERS.iter().find(|(place, _)| source.path.starts_with(place)) {
        let names = named_behind(source.product(), "laminafs").into_iter();
        let others = names.filter(|name| !allowed.contains(&&name[..]));
        found.extend(others.map(|name| source.finding("edge", name)));
    }
    found
}

fn words(source: &Source) -> Vec<Finding> {
    let is_free = |allowed: &[&str]| allowed.iter().any(|path| source.path.starts_with(path));
    let named = WORDS.iter().filter(|(word, allowed)| {
        !is_free(allowed) && uses(source.product(), word).next().is_some()
    });
    named.map(|(word, _)| source.finding("word", *word)).collect()
}

/// The functions of a code view: name, number of lines, number of parameters without self.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in uses(code, "fn") {
        let name = first_word(code[at + 2..].trim_start());
        let Some(open) = code[at..].find('(').map(|open| at + open) else { continue };
        if name.is_empty() || code[at..open].contains([';', '{', '=']) {
            continue;
        }
        let Some(close) = closing(code, open) else { continue };
        let inside = &code[open + 1..close];
        let (mut depth, mut parameters) = (0i32, vec![String::new()]);
        for c in inside.replace("->", "").chars() {
            depth += i32::from("([{<".contains(c)) - i32::from(")]}>".contains(c));
            match parameters.last_mut() {
                Some(last) if c != ',' || depth > 0 => last.push(c),
                _ => parameters.push(String::new()),
            }
        }
        let is_own = |text: &str| uses(text.split(':').next().unwrap_or(text), "self").count() > 0;
        let counted = |text: &&String| !text.trim().is_empty() && !is_own(text);
        let body = code[close..].find([';', '{']).map(|body| close + body);
        let body = body.filter(|body| code[*body..].starts_with('{'));
        let end = body.and_then(|body| closing(code, body)).unwrap_or(close);
        let lines = code[at..end].lines().count();
        found.push((name, lines, parameters.iter().filter(counted).count()));
    }
    found
}

/// The position of the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at);
        }
    }
    None
}

fn sizes(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let whole = if source.path.contains("tests/") { &source.code[..] } else { source.product() };
    let lines = whole.lines().count();
    if lines > FILE_LINES {
        found.push(source.finding("file size", format!("{lines} lines")));
    }
    for (number, line) in source.text.lines().enumerate() {
        if line.chars().count() > LINE_CHARS {
            found.push(source.finding("line length", format!("line {}", number + 1)));
        }
    }
    for (name, lines, parameters) in functions(&source.code) {
        if lines > FUNCTION_LINES {
            found.push(source.finding("function size", &name[..]));
        }
        if parameters > PARAMETERS {
            found.push(source.finding("parameters", name));
        }
    }
    found
}

fn comments(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(source.finding("module comment", "first line"));
    }
    for word in ["TODO", "FIXME"] {
        for at in uses(&source.comments, word) {
            let rest = source.comments[at + word.len()..].trim_start_matches([' ', '(', ':']);
            let digits = rest
                .strip_prefix('#')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if !digits {
                found.push(source.finding("issue number", word));
            }
        }
    }
    found
}

/// What is wrong with a script, or a part of one in shell or Python: too long, or without a comment
/// that says what it is for.
fn script(path: &str, text: &str) -> Vec<Finding> {
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let count = text.lines().filter(counts).count();
    let limit = match Path::new(path).extension().and_then(|end| end.to_str()) {
        None => SCRIPT_LINES,
        Some("sh") => PART_LINES,
        Some(_) => FILE_LINES,
    };
    let finding = |object: String| Finding { rule: "script", path: path.to_owned(), object };
    let mut found = Vec::new();
    if count > limit {
        found.push(finding(format!("{count} lines")));
    }
    let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
    if !["# ", "\"\"\""].iter().any(|mark| first.starts_with(mark)) {
        found.push(finding("first line".to_owned()));
    }
    found
}

/// Lines of a document that are too long, but for rows of tables, which cannot be broken.
fn document_lines(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().enumerate();
    let wide =
        lines.filter(|(_, line)| !line.starts_with('|') && line.chars().count() > DOCUMENT_CHARS);
    let found = wide.map(|(at, _)| Finding {
        rule: "document line",
        path: path.to_owned(),
        object: format!("line {}", at + 1),
    });
    found.collect()
}

/// Broken links of a document, and paths in it that do not exist.
fn links(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let dir = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let missing =
        |object: &str| Finding { rule: "link", path: path.to_owned(), object: object.to_owned() };
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split(')').next().unwrap_or_default();
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        if file.contains("://") {
            continue;
        }
        let file = if file.is_empty() { root.join(path) } else { dir.join(file) };
        let aimed = fs::read_to_string(&file).ok();
        let is_there = if heading.is_empty() {
            file.exists()
        } else {
            aimed.is_some_and(|text| headings(&text).any(|slug| slug == heading))
        };
        if !is_there {
            found.push(missing(target));
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || "/_.-".contains(c);
    for word in text.split(|c| !is_part(c)) {
        let word = word.trim_end_matches('.');
        let is_path = ["scripts/", "src/", "docs/", "tests/", "testing/", "mountd/"]
            .iter()
            .any(|place| word.starts_with(place));
        if is_path && !root.join(word).exists() {
            found.push(missing(word));
        }
    }
    found
}

fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| {
        let line = line.trim_start_matches('#').trim().to_lowercase();
        let kept = line.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Findings without an exception, and exceptions without a finding.
fn judge(found: &[Finding], excused: &[(&str, &str, &str, &str)]) -> Vec<String> {
    let is = |finding: &Finding, (rule, path, object, _): &(&str, &str, &str, &str)| {
        finding.rule == *rule && finding.path == *path && finding.object == *object
    };
    let open = found.iter().filter(|finding| !excused.iter().any(|entry| is(finding, entry)));
    let stale = excused.iter().filter(|entry| !found.iter().any(|finding| is(finding, entry)));
    let mut problems: Vec<String> = open
        .map(|finding| format!("{}: {}: {}", finding.rule, finding.path, finding.object))
        .chain(stale.map(|entry| format!("no longer needed: {entry:?}")))
        .collect();
    problems.dedup();
    problems
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str, wanted: &dyn Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = vec![root().join(below)];
    while let Some(path) = left.pop() {
        // What cargo builds.
        if path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.exists() && wanted(&path) {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let is_rust = |path: &Path| path.extension().is_some_and(|end| end == "rs");
    let places = ["src", "mountd", "testing", "tests", "benches", "fuzz"];
    let all = places.iter().flat_map(|place| files(place, &is_rust));
    all.map(|(path, text)| Source::new(&path, &text)).collect()
}

/// Programs in shell and Python, and their parts.
fn scripts() -> Vec<(String, String)> {
    let ends_in = |path: &Path, ends: &[&str]| {
        path.extension().is_some_and(|end| ends.iter().any(|one| end == *one))
    };
    let mut found =
        files("scripts", &|path| path.extension().is_none() || ends_in(path, &["sh", "py"]));
    // Lists of texts, and what packages install.
    found.retain(|(path, text)| {
        path.ends_with(".sh") || path.ends_with(".py") || text.starts_with("#!")
    });
    for place in ["tests", "mountd", "testing", "packaging", ".ci"] {
        found.extend(files(place, &|path| ends_in(path, &["sh", "py"])));
    }
    found
}

#[test]
fn sources_are_tidy() {
    let sources = sources();
    assert!(sources.len() > 50, "{} sources were found", sources.len());
    let checks = [edges, words, sizes, comments];
    let mut found: Vec<Finding> =
        sources.iter().flat_map(|source| checks.map(|check| check(source))).flatten().collect();
    found.extend(circles::check(&sources));
    found.extend(scripts().iter().flat_map(|(path, text)| script(path, text)));
    let problems = judge(&found, EXCEPTIONS);
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn documents_are_tidy() {
    let is_document = |path: &Path| path.extension().is_some_and(|end| end == "md");
    let mut documents = files("docs", &is_document);
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        documents.extend(files(name, &is_document));
    }
    assert!(documents.len() >= 4, "{} documents were found", documents.len());
    let check = |(path, text): &(String, String)| {
        [links(root(), path, text), document_lines(path, text)].concat()
    };
    let found: Vec<Finding> = documents.iter().flat_map(check).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn table_of_modules_is_that_of_the_architecture() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for (at, (module, allowed)) in EDGES.iter().enumerate() {
        let is_above = |name: &&str| EDGES[..at].iter().any(|(above, _)| above == name);
        assert!(allowed.iter().all(is_above), "{module} names a module below it");
        assert!(page.contains(&format!("| `{module}` | ")), "{module} is not on the page");
        assert!(library.contains(&format!("pub mod {module};")), "{module} is no module");
    }
    assert_eq!(library.matches("pub mod ").count(), EDGES.len());
}

#[track_caller]
fn objects(check: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
    check(&Source::new(path, text)).into_iter().map(|finding| finding.object).collect()
}

#[test]
fn forbidden_edges_are_found() {
    let bad = "use crate::{types::Name, fuse::wire};\nfn f() { crate::sys::x() }";
    assert_eq!(objects(edges, "src/union/attr.rs", bad), ["fuse", "sys"]);
    assert_eq!(objects(edges, "src/backing/host.rs", "use crate::union::mark;"), ["union::mark"]);
    assert_eq!(objects(edges, "src/catalog/name.rs", "use crate::store::X;"), ["store::X"]);
    assert_eq!(objects(edges, "src/union.rs", "use std::time::Instant;"), ["Instant"]);
    assert_eq!(objects(edges, "mountd/src/main.rs", "use laminafs::union::Union;"), ["union"]);
    assert_eq!(objects(edges, "src/extra.rs", "").len(), 1, "a module outside the table");
    let bad = "use std::sync::{Arc, atomic::AtomicU8, Mutex};\nuse parking_lot::RwLock;";
    let wanted = ["std::sync::atomic", "std::sync::Mutex", "parking_lot"];
    assert_eq!(objects(edges, "src/union/body.rs", bad), wanted);
    assert_eq!(objects(edges, "testing/src/memory.rs", bad), wanted);
    assert_eq!(objects(edges, "testing/src/memory.rs", "use laminafs::store::X;"), ["store"]);
    assert_eq!(objects(edges, "src/backing/host.rs", bad), Vec::<String>::new());
    let bad = "fn f() { let held = file\n    .state\n    .lock(); }";
    assert_eq!(objects(edges, "src/union/open.rs", bad), [".state.lock("]);
    assert_eq!(objects(edges, "src/union/lock.rs", bad), Vec::<String>::new());
    let good = "// crate::fuse\nconst A: &str = \"crate::fuse\";\n#[cfg(test)]\nmod tests {\n\
                use crate::backing::memory; }";
    assert_eq!(objects(edges, "src/union/attr.rs", good), Vec::<String>::new());
    assert_eq!(objects(edges, "src/union/tests.rs", "use crate::fuse::x;"), Vec::<String>::new());
}

#[test]
fn forbidden_words_are_found() {
    let bad = "use libc::c_int; fn f() { unsafe { g() } dbg!(1); }";
    assert_eq!(objects(words, "src/fuse.rs", bad), ["libc", "unsafe", "dbg"]);
    assert_eq!(objects(words, "src/sys/file.rs", "unsafe { libc::x() }"), Vec::<String>::new());
    assert_eq!(objects(words, "src/fuse/ops.rs", "use fuser::Session;"), ["fuser"]);
    assert_eq!(objects(words, "src/service.rs", "std::env::var(x); clap::x"), ["clap", "std::env"]);
    assert_eq!(objects(words, "src/a.rs", "use laminafs_testing::x;"), ["laminafs_testing"]);
    let good = "#![deny(unsafe_code)] // unsafe\nlet fusers = \"libc\"; let c = '\"'; // fuser";
    assert_eq!(objects(words, "src/fuse.rs", good), Vec::<String>::new());
}

#[test]
fn excess_size_is_found() {
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES));
    assert_eq!(objects(sizes, "src/a.rs", &long), ["long"]);
    let wide = "fn wide(&self, a: A<B, C>, b: fn(X, Y) -> Z, (c, d): (C, D), e: E, f: F) {}";
    assert_eq!(objects(sizes, "src/a.rs", wide), Vec::<String>::new(), "five beside self");
    assert_eq!(objects(sizes, "src/a.rs", &wide.replace("f: F", "f: F, g: G")), ["wide"]);
    assert_eq!(objects(sizes, "src/a.rs", &"x();\n".repeat(FILE_LINES + 1)), ["601 lines"]);
    assert_eq!(objects(sizes, "src/a.rs", &"\u{e9}".repeat(LINE_CHARS + 1)), ["line 1"]);
}

#[test]
fn long_and_unexplained_scripts_are_found() {
    let objects = |path: &str, text: &str| -> Vec<String> {
        script(path, text).into_iter().map(|finding| finding.object).collect()
    };
    let long = format!("#!/bin/bash\n# Does.\n{}", "run\n".repeat(SCRIPT_LINES + 1));
    assert_eq!(objects("scripts/x", &long), ["51 lines"]);
    assert_eq!(objects("scripts/x.d/y.sh", &long), [""; 0]);
    assert_eq!(objects("scripts/x.d/y.sh", &long.repeat(2)), ["102 lines"]);
    assert_eq!(objects("tests/x.py", &long.repeat(2)), [""; 0]);
    let spaced = format!("# Does.\n{}", "run\n# why\n\n".repeat(SCRIPT_LINES));
    assert_eq!(objects("scripts/x", &spaced), [""; 0]);
    assert_eq!(objects("scripts/x.py", "import os\n"), ["first line"]);
}

#[test]
fn missing_comments_and_issue_numbers_are_found() {
    assert_eq!(objects(comments, "src/a.rs", "use x;\n"), ["first line"]);
    let bad = format!("//! A.\n// {}: later\n// {} #12: known\n", "TODO", "FIXME");
    assert_eq!(objects(comments, "src/a.rs", &bad), ["TODO"]);
}

#[test]
fn dead_links_are_found() {
    let text = "[a](docs/none.md) [b](docs/SEMANTICS.md) [c](docs/SEMANTICS.md#promises) \
                [d](docs/SEMANTICS.md#no) `scripts/none` [e](https://example.org/x)";
    let found = links(root(), "README.md", text).into_iter().map(|finding| finding.object);
    let wanted = ["docs/none.md", "docs/SEMANTICS.md#no", "docs/none.md", "scripts/none"];
    assert_eq!(found.collect::<Vec<_>>(), wanted);
}

#[test]
fn wide_lines_of_documents_are_found() {
    let (line, row) = ("w ".repeat(DOCUMENT_CHARS), format!("|{}", "w ".repeat(DOCUMENT_CHARS)));
    let text = format!("# A\n{row}\n{line}\n{}", "\u{e9}".repeat(DOCUMENT_CHARS));
    let found = document_lines("docs/a.md", &text).into_iter().map(|finding| finding.object);
    assert_eq!(found.collect::<Vec<_>>(), ["line 3"]);
}

#[test]
fn stale_exceptions_are_found() {
    let found = [Finding { rule: "word", path: "src/a.rs".to_owned(), object: "libc".to_owned() }];
    let entry = ("word", "src/a.rs", "libc", "why");
    assert_eq!(judge(&found, &[entry]), Vec::<String>::new());
    assert_eq!(judge(&found, &[]).len(), 1);
    assert_eq!(judge(&[], &[entry]).len(), 1);
}
