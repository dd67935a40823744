//! A PersistentVolumeClaim in words.

use serde_json::Value;

use super::{Page, go_list, items, plain_text};
use crate::kube::cells::{modes, storage_class};
use crate::kube::meta::text;

/// Describes a claim, and the pods that use it.
pub(super) fn describe(page: &mut Page, claim: &Value, users: &[String]) {
    page.field(0, "Name", text(claim, "/metadata/name"));
    page.field(0, "Namespace", text(claim, "/metadata/namespace"));
    page.field(0, "StorageClass", storage_class(claim));
    page.status(claim);
    let volume = text(claim, "/spec/volumeName");
    page.field(0, "Volume", volume);
    page.labels("Labels", claim, "/metadata/labels");
    page.annotations(claim);
    page.field(0, "Finalizers", &go_list(claim, "/metadata/finalizers"));
    let (mut capacity, mut offered) = (String::new(), String::new());
    if !volume.is_empty() {
        capacity = plain_text(claim, "/status/capacity/storage");
        offered = modes(claim, "/status/accessModes");
    }
    page.field(0, "Capacity", &capacity);
    page.field(0, "Access Modes", &offered);
    let mode = text(claim, "/spec/volumeMode");
    if !mode.is_empty() {
        page.field(0, "VolumeMode", mode);
    }
    source(page, claim);
    let users = if users.is_empty() { vec![super::NONE.to_owned()] } else { users.to_vec() };
    for (at, user) in users.iter().enumerate() {
        let title = if at == 0 { "Used By:" } else { "" };
        page.line(0, &format!("{title}\t{user}"));
    }
    conditions(page, claim);
}

fn source(page: &mut Page, claim: &Value) {
    let Some(source) = claim.pointer("/spec/dataSource").filter(|source| source.is_object()) else {
        return;
    };
    page.line(0, "DataSource:");
    let group = text(source, "/apiGroup");
    if !group.is_empty() {
        page.field(1, "APIGroup", group);
    }
    page.field(1, "Kind", text(source, "/kind"));
    page.field(1, "Name", text(source, "/name"));
}

fn conditions(page: &mut Page, claim: &Value) {
    let conditions = items(claim, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for one in conditions {
        let fields = ["type", "status", "lastProbeTime", "lastTransitionTime", "reason", "message"];
        let fields = fields.map(|field| text(one, &format!("/{field}")));
        page.line(1, &fields.join("\t"));
    }
}
