//! Tables, which `kubectl get` prints.
//!
//! The server names the columns of each kind and fills the cells; kubectl prints those of priority
//! 0, and all of them with `-o wide`. Ages are texts, as the API server sends them.

use serde_json::{Value, json};

use super::cells;
use super::kinds::Kind;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its title.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub form: &'static str,
    /// 0, or 1 for a column of `-o wide` alone.
    pub priority: u8,
}

/// A column of texts.
const fn column(name: &'static str) -> Column {
    Column { name, form: "string", priority: 0 }
}

/// A column of `-o wide`.
const fn wide(name: &'static str) -> Column {
    Column { name, form: "string", priority: 1 }
}

/// A column of numbers.
const fn number(name: &'static str) -> Column {
    Column { name, form: "integer", priority: 0 }
}

const NAME: Column = column("Name");
const AGE: Column = column("Age");

/// What of each object a row carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Include {
    /// Its metadata.
    #[default]
    Metadata,
    /// Nothing.
    None,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the parameter `includeObject`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Metadata" => Self::Metadata,
            "None" => Self::None,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// The columns of a kind.
#[must_use]
pub fn columns(kind: &Kind) -> &'static [Column] {
    match kind.kind {
        "PersistentVolume" => &VOLUME,
        "PersistentVolumeClaim" => &CLAIM,
        "Pod" => &POD,
        "Node" => &NODE,
        "Namespace" => &NAMESPACE,
        "Event" => &EVENT,
        "ConfigMap" => &CONFIG,
        "Secret" => &SECRET,
        "StorageClass" => &CLASS,
        "CSIDriver" => &DRIVER,
        "CSINode" => &DRIVERS,
        "VolumeAttributesClass" => &ATTRIBUTES,
        "VolumeSnapshotClass" => &SNAPSHOT_CLASS,
        "VolumeSnapshot" => &SNAPSHOT,
        "VolumeSnapshotContent" => &CONTENT,
        _ => &OTHER,
    }
}

static NAMESPACE: [Column; 3] = [NAME, column("Status"), AGE];
static CONFIG: [Column; 3] = [NAME, number("Data"), AGE];
static SECRET: [Column; 4] = [NAME, column("Type"), number("Data"), AGE];
static DRIVERS: [Column; 3] = [NAME, number("Drivers"), AGE];
static ATTRIBUTES: [Column; 3] = [NAME, column("DriverName"), AGE];
static SNAPSHOT_CLASS: [Column; 4] = [NAME, column("Driver"), column("DeletionPolicy"), AGE];
static OTHER: [Column; 2] = [NAME, AGE];
static VOLUME: [Column; 11] = [
    NAME,
    column("Capacity"),
    column("Access Modes"),
    column("Reclaim Policy"),
    column("Status"),
    column("Claim"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Reason"),
    AGE,
    wide("VolumeMode"),
];
static CLAIM: [Column; 9] = [
    NAME,
    column("Status"),
    column("Volume"),
    column("Capacity"),
    column("Access Modes"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    AGE,
    wide("VolumeMode"),
];
static POD: [Column; 9] = [
    NAME,
    column("Ready"),
    column("Status"),
    column("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];
static NODE: [Column; 10] = [
    NAME,
    column("Status"),
    column("Roles"),
    AGE,
    column("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];
static EVENT: [Column; 10] = [
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    Column { name: "Count", form: "integer", priority: 1 },
    wide("Name"),
];
static CLASS: [Column; 6] = [
    NAME,
    column("Provisioner"),
    column("ReclaimPolicy"),
    column("VolumeBindingMode"),
    column("AllowVolumeExpansion"),
    AGE,
];
static DRIVER: [Column; 8] = [
    NAME,
    column("AttachRequired"),
    column("PodInfoOnMount"),
    column("StorageCapacity"),
    column("TokenRequests"),
    column("RequiresRepublish"),
    column("Modes"),
    AGE,
];
static SNAPSHOT: [Column; 9] = [
    NAME,
    column("ReadyToUse"),
    column("SourcePVC"),
    column("SourceSnapshotContent"),
    column("RestoreSize"),
    column("SnapshotClass"),
    column("SnapshotContent"),
    column("CreationTime"),
    AGE,
];
static CONTENT: [Column; 9] = [
    NAME,
    column("ReadyToUse"),
    column("RestoreSize"),
    column("DeletionPolicy"),
    column("Driver"),
    column("VolumeSnapshotClass"),
    column("VolumeSnapshot"),
    column("VolumeSnapshotNamespace"),
    AGE,
];

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({
        "name": column.name,
        "type": column.form,
        "format": format,
        "description": "",
        "priority": column.priority,
    })
}

fn row(kind: &'static Kind, object: &Value, include: Include) -> Value {
    let mut row = json!({"cells": cells::cells(kind, object)});
    let shown = match include {
        Include::None => return row,
        Include::Object => object.clone(),
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata"),
        }),
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("object".to_owned(), shown);
    }
    row
}

/// A table of objects. Later tables of one watch have no columns.
#[must_use]
pub fn table(
    kind: &'static Kind,
    objects: &[Value],
    metadata: &Value,
    include: Include,
    has_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row(kind, object, include)).collect();
    let columns: Vec<Value> = columns(kind).iter().map(definition).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": if has_columns { columns.into() } else { Value::Null },
        "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::kinds::KINDS;

    #[test]
    fn each_row_has_a_cell_for_each_column() {
        for kind in &KINDS {
            let object = json!({"metadata": {"name": "a"}});
            let table = table(kind, &[object], &json!({}), Include::None, true);
            let cells = table["rows"][0]["cells"].as_array().unwrap().len();
            assert_eq!(cells, columns(kind).len(), "{}", kind.kind);
            assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), cells);
        }
    }
}
