//! Renders the chart: the part of Helm's templates that it uses, and no more. Anything else in a
//! template is an error here, so that the chart keeps to what is checked.

use std::collections::BTreeSet;

use serde_json::Value;

/// The values of a chart, and the names that a template may use beside them.
pub struct Chart {
    pub values: Value,
    pub version: String,
    pub namespace: String,
}

impl Chart {
    /// Renders a template, and notes the values that it uses.
    pub fn render(&self, template: &str, used: &mut BTreeSet<String>) -> String {
        let mut out = String::new();
        // Whether each enclosing `if` holds.
        let mut holds = Vec::new();
        let mut rest = template;
        while let Some((text, action)) = rest.split_once("{{") {
            let (action, after) = action.split_once("}}").expect("an action ends");
            let trims = action.starts_with('-');
            let text = if trims { text.trim_end() } else { text };
            let is_shown = holds.iter().all(|holds| *holds);
            out += if is_shown { text } else { "" };
            assert!(!action.ends_with('-'), "not rendered here: {action}");
            let words: Vec<&str> = action.trim_start_matches('-').split_whitespace().collect();
            match words[..] {
                ["if", path] => holds.push(is_true(&self.value(path, used))),
                ["end"] => drop(holds.pop().expect("an if before its end")),
                _ if !is_shown => {}
                ["toYaml", path, "|", "nindent", count] => {
                    let text = serde_saphyr::to_string(&self.value(path, used)).unwrap();
                    let indent = " ".repeat(count.parse().unwrap());
                    for line in text.trim_end().lines() {
                        out += &format!("\n{indent}{line}");
                    }
                }
                [path, "|", "default", other] => {
                    let value = self.value(path, used);
                    let value = if is_true(&value) { value } else { self.value(other, used) };
                    out += &scalar(&value);
                }
                [path] => out += &scalar(&self.value(path, used)),
                _ => panic!("not rendered here: {action}"),
            }
            rest = after;
        }
        assert!(holds.is_empty(), "an if without an end");
        out + rest
    }

    fn value(&self, path: &str, used: &mut BTreeSet<String>) -> Value {
        match path {
            ".Release.Namespace" => Value::from(self.namespace.clone()),
            ".Chart.AppVersion" => Value::from(self.version.clone()),
            _ => {
                let name = path.strip_prefix(".Values.").unwrap_or_else(|| panic!("{path}"));
                used.insert(name.to_owned());
                let pointer = format!("/{}", name.replace('.', "/"));
                let found = self.values.pointer(&pointer);
                found.unwrap_or_else(|| panic!("values.yaml has no {name}")).clone()
            }
        }
    }
}

/// Whether a value is true for an `if` of a template.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        other => panic!("no scalar: {other}"),
    }
}

/// The paths of all values that have no further ones below them, or a list.
pub fn leaves(values: &Value, at: &str) -> Vec<String> {
    let Value::Object(all) = values else { return vec![at.to_owned()] };
    let below = |(name, value): (&String, &Value)| {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        leaves(value, &path)
    };
    all.iter().flat_map(below).collect()
}
