//! `lamina pod ls`.

use clap::Args;
use serde_json::{Value, json};

use super::{Context, failed};
use crate::kube::kinds::Kind;
use crate::kube::objects::ListOptions;
use crate::kube::table::{Include, table};
use crate::report::{CliError, say, say_json};

/// Arguments of `lamina pod ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The pods of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print the objects as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(context: &Context, args: &LsArgs) -> Result<(), CliError> {
    let kind = Kind::of_record("pods").ok_or_else(|| CliError::Pod("no kind pods".to_owned()))?;
    let mut options = ListOptions::default();
    if !args.all_namespaces {
        options.filter.namespace = Some(context.namespace.clone());
    }
    let pods = context.store()?.list(kind, &options).map_err(failed)?.items;
    if args.json {
        return say_json(&pods);
    }
    let shown = table(kind, &pods, &json!({}), Include::Metadata, true);
    say(&lines(&shown, args.all_namespaces))
}

/// The columns that are always shown, as lines.
fn lines(table: &Value, has_namespaces: bool) -> String {
    let list = |value: &Value, name: &str| -> Vec<Value> {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let string = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let columns = list(table, "columnDefinitions");
    let is_shown = |index: usize| {
        columns.get(index).and_then(|one| one.get("priority")?.as_u64()).unwrap_or(0) == 0
    };
    let mut rows = Vec::new();
    let titles = columns.iter().enumerate().filter(|(index, _)| is_shown(*index));
    let titles = titles.map(|(_, one)| string(one.get("name").unwrap_or(one)).to_uppercase());
    let first = has_namespaces.then(|| "NAMESPACE".to_owned());
    rows.push(first.into_iter().chain(titles).collect::<Vec<_>>());
    for row in list(table, "rows") {
        let cells = list(&row, "cells");
        let cells = cells.iter().enumerate().filter(|(index, _)| is_shown(*index));
        let namespace = row.pointer("/object/metadata/namespace").map(string);
        let first = namespace.filter(|_| has_namespaces);
        rows.push(first.into_iter().chain(cells.map(|(_, cell)| string(cell))).collect());
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(column, cell)| format!("{cell:<0$}", width(column)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
