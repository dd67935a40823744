//! JSON patch: RFC 6902, with JSON pointers of RFC 6901.
//!
//! An operation that does not fit the object refuses the whole patch.

use serde_json::Value;

use super::PatchError;

/// The most operations of a patch, as in Kubernetes.
const OPERATIONS: usize = 10_000;

/// The most bytes that a patch copies and moves: a copy may double an object, and so may the
/// next. Kubernetes has the same limit for copies.
const MOVED_BYTES: usize = 3 << 20;

/// The deepest that a value may stand. Few moves would nest an object so deep that the stack does
/// not reach to its bottom, and `serde_json` reads no more than 128 levels back.
const DEPTH: usize = 100;

/// The object after all operations.
pub(super) fn apply(mut object: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed("invalid JSON patch: expected a list".to_owned()));
    };
    if operations.len() > OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut moved_bytes = 0;
    for operation in operations {
        step_through(&mut object, operation, &mut moved_bytes)?;
    }
    Ok(object)
}

/// Carries one operation out.
fn step_through(
    object: &mut Value,
    operation: &Value,
    moved_bytes: &mut usize,
) -> Result<(), PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let verb = text("op").ok_or_else(|| malformed(operation, "op"))?;
    let path = Pointer::parse(text("path").ok_or_else(|| malformed(operation, "path"))?)?;
    let value = || operation.get("value").ok_or_else(|| malformed(operation, "value"));
    let from = || {
        let from = text("from").ok_or_else(|| malformed(operation, "from"))?;
        Pointer::parse(from)
    };
    match verb {
        "add" => add(object, &path, value()?.clone(), verb),
        "remove" => remove(object, &path, verb).map(drop),
        "replace" => {
            let value = value()?;
            check_depth(&path, value)?;
            *find(object, &path, verb)? = value.clone();
            Ok(())
        }
        "move" => {
            let from = from()?;
            if path.words.len() > from.words.len() && path.words.starts_with(&from.words) {
                return Err(misfit(verb, &path, "a value cannot move into itself"));
            }
            let value = remove(object, &from, verb)?;
            charge(moved_bytes, &value)?;
            add(object, &path, value, verb)
        }
        "copy" => {
            let value = find(object, &from()?, verb)?;
            charge(moved_bytes, value)?;
            let value = value.clone();
            add(object, &path, value, verb)
        }
        "test" => test(object, &path, value()?),
        other => Err(PatchError::Malformed(format!("Unexpected kind: {other}"))),
    }
}

fn charge(moved_bytes: &mut usize, value: &Value) -> Result<(), PatchError> {
    *moved_bytes += value.to_string().len();
    if *moved_bytes <= MOVED_BYTES {
        return Ok(());
    }
    Err(PatchError::TooLarge(format!(
        "a JSON patch copies and moves more than {MOVED_BYTES} bytes"
    )))
}

fn check_depth(path: &Pointer<'_>, value: &Value) -> Result<(), PatchError> {
    if path.words.len() + depth(value) <= DEPTH {
        return Ok(());
    }
    Err(PatchError::TooLarge(format!("a JSON patch makes the object deeper than {DEPTH} levels")))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn malformed(operation: &Value, name: &str) -> PatchError {
    let start: String = operation.to_string().chars().take(64).collect();
    PatchError::Malformed(format!("invalid JSON patch: operation {start} needs {name:?}"))
}

fn misfit(verb: &str, path: &Pointer<'_>, why: &str) -> PatchError {
    PatchError::Unprocessable(format!("{verb} operation does not apply: {why}: {:?}", path.text))
}

/// A JSON pointer, read.
struct Pointer<'a> {
    text: &'a str,
    words: Vec<String>,
}

impl<'a> Pointer<'a> {
    fn parse(text: &'a str) -> Result<Self, PatchError> {
        let words = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(unescape).collect(),
            None if text.is_empty() => Vec::new(),
            None => {
                let message = format!("invalid JSON pointer {text:?}: it starts with no /");
                return Err(PatchError::Malformed(message));
            }
        };
        Ok(Self { text, words })
    }
}

fn unescape(word: &str) -> String {
    word.replace("~1", "/").replace("~0", "~")
}

/// The position that a word of a pointer means in a list.
fn index(word: &str) -> Option<usize> {
    let is_plain = word == "0" || !word.starts_with(['0', '+']);
    word.parse().ok().filter(|_| is_plain)
}

fn step<'v>(value: &'v mut Value, word: &str) -> Option<&'v mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(word),
        Value::Array(items) => items.get_mut(index(word)?),
        _ => None,
    }
}

fn walk<'v>(object: &'v mut Value, words: &[String]) -> Option<&'v mut Value> {
    words.iter().try_fold(object, |at, word| step(at, word))
}

fn find<'v>(
    object: &'v mut Value,
    path: &Pointer<'_>,
    verb: &str,
) -> Result<&'v mut Value, PatchError> {
    walk(object, &path.words).ok_or_else(|| misfit(verb, path, "doc is missing key"))
}

fn add(object: &mut Value, path: &Pointer<'_>, value: Value, verb: &str) -> Result<(), PatchError> {
    check_depth(path, &value)?;
    let Some((last, outer)) = path.words.split_last() else {
        *object = value;
        return Ok(());
    };
    match walk(object, outer) {
        Some(Value::Object(fields)) => {
            fields.insert(last.clone(), value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let at = if last == "-" { Some(items.len()) } else { index(last) };
            let at = at.filter(|at| *at <= items.len());
            let at = at.ok_or_else(|| misfit(verb, path, "invalid index in a list"))?;
            items.insert(at, value);
            Ok(())
        }
        _ => Err(misfit(verb, path, "doc is missing path")),
    }
}

fn remove(object: &mut Value, path: &Pointer<'_>, verb: &str) -> Result<Value, PatchError> {
    let missing = || misfit(verb, path, "doc is missing key");
    let (last, outer) = path.words.split_last().ok_or_else(missing)?;
    match walk(object, outer) {
        Some(Value::Object(fields)) => fields.remove(last).ok_or_else(missing),
        Some(Value::Array(items)) => match index(last).filter(|at| *at < items.len()) {
            Some(at) => Ok(items.remove(at)),
            None => Err(missing()),
        },
        _ => Err(missing()),
    }
}

fn test(object: &mut Value, path: &Pointer<'_>, expected: &Value) -> Result<(), PatchError> {
    let holds = match walk(object, &path.words) {
        Some(found) => same(found, expected),
        // A field that is not there is as good as null.
        None => expected.is_null(),
    };
    if holds {
        return Ok(());
    }
    Err(PatchError::Unprocessable(format!("testing value {} failed: test failed", path.text)))
}

/// Whether two values are equal; numbers by value, so that 1 is 1.0.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => left == right,
    }
}
