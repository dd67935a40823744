//! What `describe` prints: an object in words, with its events, in the form of kubectl.

mod claim;
mod class;
mod plain;
mod pod;
mod volume;

use serde_json::Value;

use super::age;
use super::configured::LAST;
use super::kinds::Kind;
use super::meta::{meta, text, texts};
use super::objects::{ListOptions, Store};
use super::select::{Fields, Filter};
use super::status::{Answer, Failure};
use super::tabs::align;

const NONE: &str = "<none>";
/// Characters of an annotation that are printed in one line.
const ANNOTATION_MAX: usize = 140;

/// Describes an object.
///
/// # Errors
/// Those of the catalogue.
pub fn describe(store: &Store, kind: &'static Kind, object: &Value) -> Answer<String> {
    let mut page = Page::default();
    match kind.kind {
        "PersistentVolume" => volume::describe(&mut page, object),
        "PersistentVolumeClaim" => claim::describe(&mut page, object, &users(store, object)?),
        "StorageClass" => class::describe(&mut page, object),
        "Pod" => pod::describe(&mut page, object),
        _ => plain::describe(&mut page, object),
    }
    page.events(&events(store, object)?);
    Ok(page.shown())
}

fn list(store: &Store, record: &str, filter: Filter) -> Answer<Vec<Value>> {
    let kind = Kind::of_record(record);
    let kind = kind.ok_or_else(|| Failure::internal(&format!("no kind {record}")))?;
    Ok(store.list(kind, &ListOptions { filter, ..ListOptions::default() })?.items)
}

/// The events of an object, the last one at the end.
fn events(store: &Store, object: &Value) -> Answer<Vec<Value>> {
    let kind = Kind::of_record("events").ok_or_else(|| Failure::internal("no kind events"))?;
    let selector = [
        ("kind", text(object, "/kind")),
        ("name", text(object, "/metadata/name")),
        ("namespace", text(object, "/metadata/namespace")),
        ("uid", text(object, "/metadata/uid")),
    ]
    .map(|(field, value)| format!("involvedObject.{field}={value}"))
    .join(",");
    let fields = Fields::parse(kind, &selector)?;
    let mut events = list(store, "events", Filter { fields, ..Filter::default() })?;
    events.sort_by(|a, b| text(a, "/lastTimestamp").cmp(text(b, "/lastTimestamp")));
    Ok(events)
}

/// The names of the pods that use a claim.
fn users(store: &Store, claim: &Value) -> Answer<Vec<String>> {
    let namespace = Some(text(claim, "/metadata/namespace").to_owned());
    let pods = list(store, "pods", Filter { namespace, ..Filter::default() })?;
    let of = super::convert::claim(claim);
    let uses = |pod: &&Value| super::convert::pod(pod).uses(&of.meta);
    Ok(pods.iter().filter(uses).map(|pod| text(pod, "/metadata/name").to_owned()).collect())
}

/// A value as a text; numbers and booleans too.
fn plain_text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A list as Go prints it.
fn go_list(object: &Value, pointer: &str) -> String {
    format!("[{}]", texts(object, pointer).join(" "))
}

/// Keys and values of a map of texts.
fn pairs<'a>(object: &'a Value, pointer: &str) -> Vec<(&'a str, &'a str)> {
    let map = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// A map of texts in one line.
fn joined(object: &Value, pointer: &str) -> String {
    let pairs = pairs(object, pointer);
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text of a description. Parts of it are aligned by themselves.
#[derive(Debug, Default)]
struct Page {
    done: String,
    open: String,
}

impl Page {
    /// Adds a line; a level is two blanks.
    fn line(&mut self, level: usize, line: &str) {
        self.open.push_str(&"  ".repeat(level));
        self.open.push_str(line);
        self.open.push('\n');
    }

    fn field(&mut self, level: usize, name: &str, value: &str) {
        self.line(level, &format!("{name}:\t{value}"));
    }

    /// Aligns what was added so far apart from what follows.
    fn flush(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.done.push_str(&align(&open, 0, 2));
    }

    fn shown(mut self) -> String {
        self.flush();
        self.done
    }

    /// A map with a line for each entry.
    fn labels(&mut self, title: &str, object: &Value, pointer: &str) {
        let pairs = pairs(object, pointer);
        if pairs.is_empty() {
            return self.field(0, title, NONE);
        }
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            let title = if at == 0 { format!("{title}:") } else { String::new() };
            self.line(0, &format!("{title}\t{key}={value}"));
        }
    }

    fn annotations(&mut self, object: &Value) {
        let mut pairs = pairs(object, "/metadata/annotations");
        pairs.retain(|(key, _)| *key != LAST);
        if pairs.is_empty() {
            return self.field(0, "Annotations", NONE);
        }
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            let title = if at == 0 { "Annotations:" } else { "" };
            let value = value.strip_suffix('\n').unwrap_or(value);
            if key.len() + value.len() + 2 <= ANNOTATION_MAX && !value.contains('\n') {
                self.line(0, &format!("{title}\t{key}: {value}"));
                continue;
            }
            self.line(0, &format!("{title}\t{key}:"));
            for part in value.split('\n') {
                self.line(0, &format!("\t  {}", shortened(part)));
            }
        }
    }

    fn status(&mut self, object: &Value) {
        let ending = meta(object, "deletionTimestamp").and_then(Value::as_str);
        let status = match ending {
            Some(since) => format!("Terminating (lasts {})", age::since(since)),
            None => text(object, "/status/phase").to_owned(),
        };
        self.field(0, "Status", &status);
    }

    fn events(&mut self, events: &[Value]) {
        if events.is_empty() {
            return self.field(0, "Events", NONE);
        }
        self.flush();
        self.line(0, "Events:");
        self.line(1, "Type\tReason\tAge\tFrom\tMessage");
        self.line(1, "----\t------\t----\t----\t-------");
        for event in events {
            let times = ["/eventTime", "/firstTimestamp"];
            let first = times.iter().map(|time| text(event, time)).find(|time| !time.is_empty());
            let first = age::since(first.unwrap_or_default());
            let count = event.get("count").and_then(Value::as_u64).unwrap_or(0);
            let age = match count {
                0 | 1 => first,
                _ => {
                    let last = age::since(text(event, "/lastTimestamp"));
                    format!("{last} (x{count} over {first})")
                }
            };
            let from = ["/source/component", "/reportingComponent"];
            let from = from.iter().map(|from| text(event, from)).find(|from| !from.is_empty());
            let (form, reason) = (text(event, "/type"), text(event, "/reason"));
            let message = text(event, "/message").trim();
            self.line(1, &format!("{form}\t{reason}\t{age}\t{}\t{message}", from.unwrap_or("")));
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ANNOTATION_MAX - 2) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}
