//! The environment of a container, and `$(NAME)` in its command.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fault::Fault;
use super::plan::{Container, Plan};
use super::source::{data, field};
use crate::kube::meta::text;
use crate::kube::objects::Store;

/// The most bytes of an environment: variables that name each other could grow without a bound.
const BYTES_MAX: usize = 1 << 20;

/// Variables in order, the last one of a name counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, String>,
    bytes: usize,
}

impl Variables {
    /// The variables of an image, `NAME=VALUE` each.
    pub fn of_image(config: &Value) -> Self {
        let mut all = Self::default();
        let list = config.pointer("/config/Env").and_then(Value::as_array);
        for one in list.into_iter().flatten().filter_map(Value::as_str) {
            if let Some((name, value)) = one.split_once('=') {
                all.bytes += one.len();
                all.values.insert(name.to_owned(), value.to_owned());
            }
        }
        all
    }

    /// Sets a variable.
    ///
    /// # Errors
    /// Too many bytes.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), Fault> {
        self.bytes += name.len() + value.len();
        if self.bytes > BYTES_MAX {
            return Err(Fault::new(format!("the environment has more than {BYTES_MAX} bytes")));
        }
        self.values.insert(name.to_owned(), value);
        Ok(())
    }

    /// All of them, `NAME=VALUE` each.
    pub fn lines(&self) -> Vec<String> {
        self.values.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Replaces `$(NAME)` by the value of a variable that is set. `$$` stands for `$`.
    ///
    /// # Errors
    /// Too many bytes.
    pub fn expand(&self, input: &str) -> Result<String, Fault> {
        let many = || Fault::new(format!("an expanded text has over {BYTES_MAX} bytes"));
        self.expand_within(input, BYTES_MAX).ok_or_else(many)
    }

    /// The same; `None` if the result has more than `most` bytes.
    pub fn expand_within(&self, input: &str, most: usize) -> Option<String> {
        let mut out = String::new();
        let mut rest = input;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let name = after.strip_prefix('(').and_then(|tail| tail.split_once(')'));
            rest = match (after.strip_prefix('$'), name) {
                (Some(tail), _) => {
                    out.push('$');
                    tail
                }
                (None, Some((name, tail))) => {
                    match self.values.get(name) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&format!("$({name})")),
                    }
                    tail
                }
                (None, None) => {
                    out.push('$');
                    after
                }
            };
            if out.len() > most {
                return None;
            }
        }
        out.push_str(rest);
        (out.len() <= most).then_some(out)
    }
}

fn is_optional(reference: &Value) -> bool {
    reference.get("optional").and_then(Value::as_bool).unwrap_or(false)
}

fn utf8(key: &str, bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::new(format!("the value of key {key} is not UTF-8")))
}

/// The environment of a container: that of its image, and what its specification sets over it.
///
/// # Errors
/// A reference to what does not exist, or what is not supported.
pub fn variables(
    store: &Store,
    plan: &Plan,
    container: &Container,
    image: &Value,
) -> Result<Variables, Fault> {
    let mut all = Variables::of_image(image);
    for from in container.items("envFrom") {
        let prefix = text(from, "/prefix");
        for (name, record) in [("configMapRef", "configmaps"), ("secretRef", "secrets")] {
            let Some(reference) = from.get(name) else { continue };
            let place = (&plan.namespace[..], text(reference, "/name"));
            let found = data(store, (record, is_optional(reference)), place)?;
            for (key, bytes) in found.into_iter().flatten() {
                // As kubelet: what is no text, or whose key is no name, is no variable.
                let is_name = !key.contains('=') && !key.is_empty();
                if let (true, Ok(value)) = (is_name, String::from_utf8(bytes)) {
                    all.set(&format!("{prefix}{key}"), value)?;
                }
            }
        }
    }
    for variable in container.items("env") {
        let name = text(variable, "/name");
        let value = match variable.get("valueFrom") {
            Some(from) => value_from(store, plan, from)?,
            None => Some(all.expand(text(variable, "/value"))?),
        };
        if let Some(value) = value {
            all.set(name, value)?;
        }
    }
    Ok(all)
}

/// The value that a variable takes from elsewhere; `None` for an optional key that is not there.
fn value_from(store: &Store, plan: &Plan, from: &Value) -> Result<Option<String>, Fault> {
    if let Some(reference) = from.get("fieldRef") {
        return field(&plan.object, text(reference, "/fieldPath")).map(Some);
    }
    for (name, record) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let Some(reference) = from.get(name) else { continue };
        let (of, key) = (text(reference, "/name"), text(reference, "/key"));
        let is_optional = is_optional(reference);
        let found = data(store, (record, is_optional), (&plan.namespace, of))?;
        let Some(mut found) = found else { return Ok(None) };
        return match found.remove(key) {
            Some(bytes) => utf8(key, bytes).map(Some),
            None if is_optional => Ok(None),
            None => {
                let what = if record == "secrets" { "Secret" } else { "ConfigMap" };
                let namespace = &plan.namespace;
                Err(Fault::new(format!("couldn't find key {key} in {what} {namespace}/{of}")))
            }
        };
    }
    Err(Fault::new("valueFrom with resourceFieldRef is not supported on this host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_parentheses_are_expanded_and_doubled_dollars_are_not() {
        let mut all = Variables::default();
        all.set("A", "x".to_owned()).unwrap();
        let cases = [
            ("$(A)", "x"),
            ("a$(A)b$(A)", "axbx"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $ $(A", "$A $ $(A"),
            ("", ""),
        ];
        for (input, wanted) in cases {
            assert_eq!(all.expand(input).unwrap(), wanted, "{input}");
        }
    }

    #[test]
    fn an_expanded_text_is_within_its_bounds() {
        let mut all = Variables::default();
        all.set("A", "xx".to_owned()).unwrap();
        assert_eq!(all.expand_within("$(A)b", 3).as_deref(), Some("xxb"));
        assert_eq!(all.expand_within("$(A)b", 2), None);
        assert_eq!(all.expand_within("b$(A)", 2), None);
    }

    #[test]
    fn variables_that_double_each_other_are_bounded() {
        let mut all = Variables::default();
        all.set("A", "x".repeat(1000)).unwrap();
        let grown = (0..64).try_for_each(|_| {
            let twice = all.expand("$(A)$(A)")?;
            all.set("A", twice)
        });
        assert!(grown.is_err());
    }
}
