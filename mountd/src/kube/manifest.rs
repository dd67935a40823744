//! Manifests as files hold them: documents of YAML or JSON, and lists of objects.

use serde_json::Value;

use super::meta::text;
use super::seam::{FieldProblem, duplicate_fields};

/// Lists within lists.
const DEPTH_MAX: usize = 4;
/// Documents of a file.
const DOCUMENTS_MAX: usize = 100_000;
/// Values of a document of YAML, each time that an alias repeats them too: a list of 10,000 objects
/// as a cluster prints them has some 2 million.
const NODES_MAX: usize = 4_000_000;
/// Steps of reading one.
const EVENTS_MAX: usize = 2 * NODES_MAX;
/// What stands between two documents of YAML, at the beginning of a line.
const SEPARATOR: &str = "---";

/// An object of a manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Where it stands: the file, and the document in it where there are several.
    pub place: String,
    /// The object.
    pub object: Value,
    /// Fields that it has twice.
    pub duplicates: Vec<FieldProblem>,
}

/// The objects of a file, each with its place; or why one cannot be read.
pub fn read(name: &str, bytes: &[u8]) -> Vec<Result<Manifest, String>> {
    let parsed = match json(bytes) {
        Some(parsed) => parsed,
        None => match std::str::from_utf8(bytes) {
            Ok(text) => yaml(text),
            Err(error) => return vec![Err(format!("{name}: the file is not UTF-8: {error}"))],
        },
    };
    let is_single = parsed.len() < 2;
    let mut found = Vec::new();
    for (number, document) in parsed.into_iter().enumerate() {
        let place = match is_single {
            true => name.to_owned(),
            false => format!("{name}, document {}", number + 1),
        };
        match document {
            Ok((Value::Null, _)) => {}
            Ok((object, duplicates)) => {
                add(Manifest { place, object, duplicates }, DEPTH_MAX, &mut found);
            }
            Err(why) => found.push(Err(format!("{place}: {why}"))),
        }
    }
    found
}

type Parsed = Result<(Value, Vec<FieldProblem>), String>;

/// The documents of a text of JSON, one after the other; `None` if it is none.
fn json(bytes: &[u8]) -> Option<Vec<Parsed>> {
    bytes.trim_ascii_start().first().filter(|first| **first == b'{')?;
    let mut found = Vec::new();
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let mut start = 0;
    while let Some(value) = stream.next() {
        let end = stream.byte_offset();
        let duplicates = duplicate_fields(bytes.get(start..end).unwrap_or_default());
        start = end;
        let mut value = value.ok()?;
        whole_numbers(&mut value);
        found.push(Ok((value, duplicates)));
        if found.len() > DOCUMENTS_MAX {
            return Some(vec![Err(too_many())]);
        }
    }
    Some(found)
}

fn too_many() -> String {
    format!("the file has more than {DOCUMENTS_MAX} documents")
}

fn yaml(text: &str) -> Vec<Parsed> {
    let documents = documents(text);
    if documents.len() > DOCUMENTS_MAX {
        return vec![Err(too_many())];
    }
    let parse = |document: String| {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: EVENTS_MAX },
        };
        let mut value: Value = serde_saphyr::from_str_with_options(&document, options)
            .map_err(|error| format!("couldn't parse the document as YAML: {error}"))?;
        whole_numbers(&mut value);
        Ok((value, Vec::new()))
    };
    documents.into_iter().map(parse).collect()
}

/// Whether nothing but a comment stands behind a separator.
fn is_comment(rest: &str) -> bool {
    let text = rest.trim_start();
    text.is_empty() || (text.starts_with('#') && rest.starts_with([' ', '\t']))
}

/// Splits a text at its separators. Lines keep their numbers, so that errors name them; blank
/// documents are left out.
fn documents(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut document = String::new();
    let mut is_blank = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.strip_prefix(SEPARATOR).is_some_and(is_comment) {
            if !std::mem::replace(&mut is_blank, true) {
                all.push(std::mem::take(&mut document));
            }
            document = "\n".repeat(number + 1);
            continue;
        }
        let content = line.trim();
        is_blank &= content.is_empty() || content.starts_with(['#', '%']);
        document.push_str(line);
    }
    if !is_blank {
        all.push(document);
    }
    all
}

/// Makes whole numbers of those that were written with a fraction of zero, as Go does.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(text) = whole.map(|float| format!("{float:.0}")) {
                *value = text.parse::<i64>().map_or(Value::Null, Value::from);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Adds an object, or those of a list.
fn add(manifest: Manifest, depth: usize, found: &mut Vec<Result<Manifest, String>>) {
    let Manifest { place, mut object, duplicates } = manifest;
    let is_list = text(&object, "/kind").ends_with("List");
    let items = object.get_mut("items").filter(|items| is_list && items.is_array());
    let Some(Value::Array(items)) = items.map(Value::take) else {
        if !object.is_object() {
            found.push(Err(format!("{place}: the document is not an object")));
        } else {
            found.push(Ok(Manifest { place, object, duplicates }));
        }
        return;
    };
    if depth == 0 {
        found.push(Err(format!("{place}: lists in more than {DEPTH_MAX} lists")));
        return;
    }
    let mut duplicates = Some(duplicates);
    for (number, object) in items.into_iter().enumerate() {
        let place = format!("{place}, item {}", number + 1);
        let duplicates = duplicates.take().unwrap_or_default();
        add(Manifest { place, object, duplicates }, depth - 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let one = |found: Result<Manifest, String>| match found {
            Ok(found) => format!("{}={}", found.place, found.object),
            Err(why) => why.lines().next().unwrap_or_default().to_owned(),
        };
        read("f", text.as_bytes()).into_iter().map(one).collect()
    }

    #[test]
    fn documents_have_their_place() {
        let found = shown("# c\n---\na: 1.0\n---\n# nothing\n--- # x\nb: [yes, 1e3]\n---");
        assert_eq!(found, ["f, document 1={\"a\":1}", "f, document 2={\"b\":[true,1000]}"]);
        assert_eq!(shown("{\"a\": 1}"), ["f={\"a\":1}"]);
        assert_eq!(shown("{\"a\": 1} {\"b\": 2}").len(), 2);
        assert_eq!(shown("{a: x}"), ["f={\"a\":\"x\"}"]);
        assert!(shown("").is_empty() && shown("---\n---\n").is_empty());
    }

    #[test]
    fn lists_are_taken_apart() {
        let found = shown("kind: List\nitems:\n- kind: Pod\n- kind: PodList\n  items: [{a: 1}]\n");
        assert_eq!(found, ["f, item 1={\"kind\":\"Pod\"}", "f, item 2, item 1={\"a\":1}"]);
    }

    #[test]
    fn a_long_list_is_read_and_an_explosion_is_not() {
        let item = "- {kind: Pod, metadata: {labels: {a: b, c: d}, name: x}}\n";
        let long = format!("kind: List\nitems:\n{}", item.repeat(40_000));
        assert_eq!(read("f", long.as_bytes()).len(), 40_000);
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for at in 1..12 {
            let nine = format!("*a{},", at - 1).repeat(9);
            bomb.push_str(&format!("a{at}: &a{at} [{nine}]\n"));
        }
        assert!(read("f", bomb.as_bytes())[0].as_ref().unwrap_err().contains("budget"));
    }

    #[test]
    fn what_is_no_object_is_named() {
        let found = shown("a: 1\n---\nb: [\n---\nc\n");
        assert!(found[1].starts_with("f, document 2: couldn't parse"), "{found:?}");
        assert_eq!(found[2], "f, document 3: the document is not an object");
        assert!(read("f", b"\xff\xfe")[0].is_err());
    }
}
