//! Volumes and snapshots as messages.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use laminafs::service::volumes::Volume as Record;
use prost_types::Timestamp;

use super::NODE_KEY;
use super::record;
use super::wire::{Snapshot, Topology};

pub use super::wire::Volume;

fn bytes(record: &Record) -> i64 {
    record.size_bytes.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0)
}

/// The place of all volumes of a node.
#[must_use]
pub fn topology(node: &str) -> Topology {
    Topology { segments: HashMap::from([(NODE_KEY.to_owned(), node.to_owned())]) }
}

/// A volume.
#[must_use]
pub fn volume(record: &Record, node: &str) -> Volume {
    Volume {
        capacity_bytes: bytes(record),
        volume_id: record.id.clone(),
        volume_context: HashMap::new(),
        content_source: None,
        accessible_topology: vec![topology(node)],
    }
}

/// The time of creation.
#[must_use]
pub fn created(record: &Record) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339_weak(&record.created_at).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp { seconds: i64::try_from(since.as_secs()).ok()?, nanos: 0 })
}

/// A snapshot, which is ready as soon as it is there. Its place is shown for a node.
#[must_use]
pub fn snapshot(record: &Record, node: Option<&str>) -> Snapshot {
    Snapshot {
        size_bytes: bytes(record),
        snapshot_id: record.id.clone(),
        source_volume_id: record.origin.clone(),
        creation_time: created(record),
        ready_to_use: true,
        group_snapshot_id: record::group(record).unwrap_or_default().to_owned(),
        accessible_topology: node.map(topology).into_iter().collect(),
    }
}
