//! What the daemon does by itself: it takes up the volumes in use at its start, unmounts volumes
//! without users, and empties the trash.
//!
//! Each of these runs on a thread of its own, so that a volume that hangs delays neither requests
//! nor the end.

use std::sync::Arc;
use std::time::Duration;

use laminafs::service::volumes::{TrashPolicy, VolumeService};
use tokio::sync::{oneshot, watch};

/// How long the start waits for the mounts of recorded holders; then it goes on without them.
const RESUME: Duration = Duration::from_secs(5);
/// Between two looks at the trash.
const TRASH: Duration = Duration::from_secs(60);

/// Takes the mounts of recorded holders again, and ends those that killed processes left. Returns
/// when the holders are there, or after [`RESUME`]. A daemon that publishes nothing leaves them to
/// the one that does: what it used here, that one could not end.
pub async fn start(volumes: Arc<VolumeService>, publishes: bool) {
    let (resumed, waiting) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        if publishes && let Err(refusal) = volumes.resume() {
            tracing::error!("taking up the volumes in use: {refusal}");
        }
        // The start may not wait any more.
        resumed.send(()).unwrap_or_default();
        if let Err(refusal) = volumes.settle() {
            tracing::warn!("unmounting volumes without users: {refusal}");
        }
    });
    if tokio::time::timeout(RESUME, waiting).await.is_err() {
        let limit = RESUME.as_secs();
        tracing::warn!("a volume in use is not mounted after {limit} s: serving the others");
    }
}

/// Unmounts volumes without users, again and again. One that hangs keeps this from going on, and
/// nothing else.
pub async fn settle(volumes: Arc<VolumeService>) {
    loop {
        tokio::time::sleep(TRASH).await;
        let volumes = Arc::clone(&volumes);
        match tokio::task::spawn_blocking(move || volumes.settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::warn!("unmounting volumes without users: {refusal}"),
            Err(error) => tracing::error!("unmounting volumes without users: {error}"),
        }
    }
}

/// Empties the trash, again and again, and at once when the policy changes.
pub async fn empty_trash(volumes: Arc<VolumeService>, mut policy: watch::Receiver<TrashPolicy>) {
    loop {
        let now = *policy.borrow_and_update();
        let emptied = {
            let volumes = Arc::clone(&volumes);
            tokio::task::spawn_blocking(move || volumes.empty_trash(&now))
        };
        match emptied.await {
            Ok(Ok(gone)) => {
                for volume in gone {
                    tracing::info!("volume {:?} left the trash", volume.volume.name.as_str());
                }
            }
            Ok(Err(refusal)) => tracing::warn!("emptying the trash: {refusal}"),
            Err(error) => tracing::error!("emptying the trash: {error}"),
        }
        match tokio::time::timeout(TRASH, policy.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // The daemon ends.
            Ok(Err(_)) => return,
        }
    }
}
