//! Renders the chart with Helm.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{documents, place, read, yaml};
use crate::tools::tool;

/// The values of the chart, and the namespace of a release.
pub struct Chart {
    pub values: Value,
    pub namespace: String,
}

impl Chart {
    pub fn new() -> Self {
        Self { values: yaml(&read("chart/values.yaml")), namespace: "lamina".to_owned() }
    }

    /// The objects that Helm makes; nothing where it is not installed.
    pub fn render(&self) -> Option<Vec<Value>> {
        let helm = tool("python/bin/helm")?;
        let home = tempfile::tempdir().unwrap();
        let values = home.path().join("values.json");
        fs::write(&values, self.values.to_string()).unwrap();
        let output = Command::new(helm)
            .args(["template", "lamina", "--namespace", &self.namespace, "--values"])
            .args([values, place("chart")])
            .env("HOME", home.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Some(documents(&String::from_utf8(output.stdout).unwrap()))
    }
}

/// The values that the templates use.
pub fn used() -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for file in fs::read_dir(place("chart/templates")).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        let is_part = |c: char| c.is_alphanumeric() || c == '.';
        let paths = text.split(".Values.").skip(1);
        used.extend(paths.map(|rest| rest.split(|c| !is_part(c)).next().unwrap().to_owned()));
    }
    used
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
