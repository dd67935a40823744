//! Objects as `get` prints them: tables, JSON, YAML, names.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::kube::kinds::Kind;
use crate::kube::meta::{set_meta, text};
use crate::kube::table::{Include, columns, table};
use crate::kube::tabs::align;
use crate::report::CliError;

/// The least width of a column, and the gap behind its widest cell, as kubectl has them.
const COLUMN: (usize, usize) = (6, 3);

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// JSON
    Json,
    /// YAML, which can be applied again
    Yaml,
    /// KIND/NAME
    Name,
    /// A table with more columns
    Wide,
}

/// Objects of a kind.
pub struct Group {
    /// The kind.
    pub kind: &'static Kind,
    /// The objects.
    pub items: Vec<Value>,
}

/// Removes the record of the managers of fields: few want to read it.
pub fn hide_managed(object: &mut Value) {
    set_meta(object, "managedFields", None);
}

/// A value as YAML.
///
/// # Errors
/// [`CliError`].
pub fn yaml(value: &Value) -> Result<String, CliError> {
    let failed = |error| CliError::Objects(format!("writing YAML: {error}"));
    let text = serde_saphyr::to_string(value).map_err(failed)?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// A value as JSON, indented as kubectl does it.
///
/// # Errors
/// [`CliError`].
pub fn json_text(value: &Value) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, format);
    let failed = |error: String| CliError::Objects(format!("writing JSON: {error}"));
    serde::Serialize::serialize(value, &mut writer).map_err(|error| failed(error.to_string()))?;
    Ok(String::from_utf8(bytes).map_err(|error| failed(error.to_string()))? + "\n")
}

/// What is printed for objects that can be read by programs; `is_single` prints one without a list.
///
/// # Errors
/// [`CliError`].
pub fn whole(form: Form, groups: Vec<Group>, is_single: bool) -> Result<String, CliError> {
    if form == Form::Name {
        let names = groups.iter().flat_map(|group| {
            group.items.iter().map(|item| group.kind.shown(text(item, "/metadata/name")) + "\n")
        });
        return Ok(names.collect());
    }
    let mut items: Vec<Value> = groups.into_iter().flat_map(|group| group.items).collect();
    let value = match (is_single, items.pop()) {
        (true, Some(one)) => one,
        (_, last) => {
            items.extend(last);
            json!({
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": items,
            })
        }
    };
    if form == Form::Yaml { yaml(&value) } else { json_text(&value) }
}

/// Tables, one for each kind.
pub fn tables(groups: &[Group], is_wide: bool, shows_namespace: bool) -> String {
    let many = groups.len() > 1;
    let shown = groups.iter().filter(|group| !group.items.is_empty());
    let tables: Vec<String> =
        shown.map(|group| one(group, (is_wide, shows_namespace, many))).collect();
    tables.join("\n")
}

fn one(group: &Group, (is_wide, shows_namespace, many): (bool, bool, bool)) -> String {
    let kind = group.kind;
    let columns = columns(kind);
    let shown: Vec<usize> = (0..columns.len())
        .filter(|at| is_wide || columns.get(*at).is_some_and(|column| column.priority == 0))
        .collect();
    let shows_namespace = shows_namespace && kind.is_namespaced;
    let mut lines = String::new();
    let mut add = |namespace: &str, cells: Vec<String>| {
        if shows_namespace {
            lines.push_str(namespace);
            lines.push('\t');
        }
        lines.push_str(&cells.join("\t"));
        lines.push('\n');
    };
    let titles = shown.iter().filter_map(|at| columns.get(*at));
    add("NAMESPACE", titles.map(|column| column.name.to_uppercase()).collect());
    let table = table(kind, &group.items, &Value::Null, Include::None, true);
    let rows = table.get("rows").and_then(Value::as_array).into_iter().flatten();
    for (row, object) in rows.zip(&group.items) {
        let cells = shown.iter().map(|at| {
            let cell = row.pointer(&format!("/cells/{at}")).unwrap_or(&Value::Null);
            let is_name = columns.get(*at).is_some_and(|column| column.name == "Name");
            match cell {
                Value::String(name) if is_name && many => kind.shown(name),
                Value::String(text) => text.replace(['\t', '\n'], " "),
                Value::Null => String::new(),
                other => other.to_string(),
            }
        });
        add(text(object, "/metadata/namespace"), cells.collect());
    }
    align(&lines, COLUMN.0, COLUMN.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_keeps_texts_as_texts() {
        let words = ["yes", "1Gi", "012", "1e3", "null", "", "a: b", "1:30", "x\ny\n", "- a", "~"];
        let value = json!({"list": words, "on": true, "n": 1, "empty": {}, "none": []});
        let text = yaml(&value).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        assert!(text.contains("\"yes\"") || text.contains("'yes'"), "{text}");
    }

    #[test]
    fn tables_are_those_of_kubectl() {
        let kind = Kind::of_record("configmaps").unwrap();
        let item = json!({"metadata": {"name": "a", "namespace": "n"}, "data": {"x": "1"}});
        let group = Group { kind, items: vec![item] };
        let shown = tables(&[group], false, true);
        assert_eq!(shown, "NAMESPACE   NAME   DATA   AGE\nn           a      1      <unknown>\n");
    }
}
