//! The effect of the actions about snapshots.

use super::{Action, Objects};
use crate::claim::snapshot::ContentStatus;

impl Objects {
    /// Carries out an action about a snapshot or its content.
    pub(super) fn apply_to_snapshots(&mut self, action: &Action) {
        match action {
            Action::SetSnapshotClass { snapshot, class } => {
                self.change_snapshot(snapshot, |one| one.class_name.clone_from(class));
            }
            Action::SnapshotStatus { snapshot, status } => {
                self.change_snapshot(snapshot, |one| one.status = status.clone());
            }
            Action::CreateContent(content) => {
                let name = content.meta.name.clone();
                self.contents.entry(name).or_insert_with(|| (**content).clone());
            }
            Action::BindContent { content, uid, class } => self.change_content(content, |one| {
                one.to.uid.clone_from(uid);
                if !class.is_empty() {
                    one.class_name.clone_from(class);
                }
            }),
            Action::ContentStatus { content, status } => {
                self.change_content(content, |one| one.status = status.clone());
            }
            Action::DeleteContent { content } => {
                self.change_content(content, |one| one.meta.deleting = true);
            }
            Action::TakeSnapshot { content, name, .. } => self.found_snapshot(content, name),
            Action::FindSnapshot { content, handle } => self.found_snapshot(content, handle),
            _ => {}
        }
    }

    fn found_snapshot(&mut self, content: &str, handle: &str) {
        let status = ContentStatus {
            handle: handle.to_owned(),
            created_nanos: Some(1_000_000_000),
            restore_bytes: Some(1 << 30),
            ready: Some(true),
            error: None,
        };
        self.change_content(content, |one| one.status = status);
    }
}
