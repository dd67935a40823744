//! The check of a repository, the backups that are too many, and the removal of chunks that no
//! backup names.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::{BackupError, Result};
use super::lease::{Lease, Purpose};
use super::pool::Seen;
use super::record::{Record, Records};
use super::repository::{CHUNKS, Manifest, Repository, chunk_id, chunk_name};
use super::seal::Id;
use crate::tree::error::shown;

/// Findings that are reported.
const FINDINGS_MAX: usize = 1000;

/// The result of a check.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The number of backups.
    pub backups: u64,
    /// The number of chunks that backups name.
    pub chunks: u64,
    /// Each damage, with the backup and the file.
    pub damage: Vec<String>,
}

/// The result of a prune.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Chunks that backups name.
    pub kept: u64,
    /// Chunks without a backup that are too young.
    pub young: u64,
    /// Chunks that were removed, or would be.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
}

/// Calls `each` with the path and the chunk of each piece of a backup, and with those of its list.
fn walk(
    repository: &Repository,
    manifest: &Manifest,
    each: &mut dyn FnMut(&[u8], Id) -> Result<()>,
) -> Result<()> {
    let ids = manifest.tree()?;
    ids.iter().try_for_each(|id| each(b"", *id))?;
    let mut records = Records::new(ids, |id| repository.fetch(id));
    let mut path = Vec::new();
    while let Some(record) = records.next()? {
        match record {
            Record::Entry(entry) => path = entry.path,
            Record::Pieces(pieces) => {
                pieces.iter().try_for_each(|piece| each(&path, piece.id))?;
            }
            Record::End(_) => {}
        }
    }
    Ok(())
}

/// Checks that the chunks of all backups are there, with `read_data` also their content.
///
/// # Errors
/// Errors of requests. Damage is in the result.
pub fn check(repository: &Repository, read_data: bool) -> Result<Checked> {
    let (manifests, bad) = repository.manifests()?;
    let mut there = Seen::new();
    repository.remote.list(CHUNKS, &mut |found| {
        there.extend(chunk_id(&found.name));
        Ok(true)
    })?;
    let mut done = Checked { damage: bad, ..Checked::default() };
    let mut seen: HashMap<Id, Option<String>> = HashMap::new();
    for manifest in &manifests {
        done.backups += 1;
        let (mut last, mut damage) = (None, Vec::new());
        let walked = walk(repository, manifest, &mut |path, id| {
            let finding = match seen.get(&id) {
                Some(finding) => finding.clone(),
                None => {
                    let finding = judge(repository, id, there.contains(&id), read_data)?;
                    seen.insert(id, finding.clone());
                    finding
                }
            };
            if let Some(finding) = finding
                && last.as_deref() != Some(path)
                && damage.len() < FINDINGS_MAX
            {
                last = Some(path.to_vec());
                damage.push(format!("backup {}: {}: {finding}", manifest.id, shown(path)));
            }
            Ok(())
        });
        done.damage.append(&mut damage);
        match walked {
            Ok(()) => {}
            Err(error @ (BackupError::Damaged { .. } | BackupError::Missing { .. })) => {
                done.damage.push(format!("backup {}: {error}", manifest.id));
            }
            Err(error) => return Err(error),
        }
    }
    done.chunks = seen.len() as u64;
    done.damage.truncate(FINDINGS_MAX);
    Ok(done)
}

fn judge(
    repository: &Repository,
    id: Id,
    is_there: bool,
    read_data: bool,
) -> Result<Option<String>> {
    if !is_there {
        return Ok(Some(format!("{} is missing", chunk_name(id))));
    }
    if !read_data {
        return Ok(None);
    }
    match repository.fetch(id) {
        Ok(_) => Ok(None),
        Err(
            error @ (BackupError::Damaged { .. }
            | BackupError::Missing { .. }
            | BackupError::TooLarge { .. }),
        ) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The backups beyond the last `count` of each volume, the oldest first, of `found` in that order.
///
/// Volumes differ by their ids, since hosts that share a repository may have volumes with equal
/// names. A volume that was restored has a new id, so that its backups displace none of before.
pub fn beyond_last(found: &[Manifest], count: usize) -> Vec<&Manifest> {
    let mut kept: HashMap<&str, usize> = HashMap::new();
    let mut beyond: Vec<_> = found
        .iter()
        .rev()
        .filter(|one| {
            let kept = kept.entry(&one.volume.id).or_default();
            *kept += 1;
            *kept > count
        })
        .collect();
    beyond.reverse();
    beyond
}

/// Removes chunks that no backup names and that are older than `grace`. Younger ones shorten the
/// next backup after one that was interrupted.
///
/// # Errors
/// [`BackupError::Busy`] while a backup is made; [`BackupError::Damaged`] where a backup cannot be
/// read: nothing is removed then.
pub fn prune(repository: &Arc<Repository>, grace: Duration, dry_run: bool) -> Result<Pruned> {
    let lease = Lease::take(repository, Purpose::Prune)?;
    let (manifests, bad) = repository.manifests()?;
    if let Some(what) = bad.into_iter().next() {
        let what = format!("{what}; remove this backup first");
        return Err(BackupError::Damaged { object: repository.url().to_owned(), what });
    }
    let mut named = Seen::new();
    for manifest in &manifests {
        walk(repository, manifest, &mut |_, id| {
            named.insert(id);
            Ok(())
        })?;
    }
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let (mut done, mut old) = (Pruned::default(), Vec::new());
    repository.remote.list(CHUNKS, &mut |found| {
        let Some(id) = chunk_id(&found.name) else { return Ok(true) };
        if named.contains(&id) {
            done.kept += 1;
        } else if found.modified.saturating_add(grace) > lease.began {
            done.young += 1;
        } else {
            done.removed += 1;
            done.removed_bytes += found.size;
            old.push(id);
        }
        Ok(true)
    })?;
    if dry_run {
        return Ok(done);
    }
    for (number, id) in old.into_iter().enumerate() {
        if number % 1000 == 0 {
            lease.check()?;
        }
        repository.remote.remove(&chunk_name(id))?;
    }
    repository.remote.sweep()?;
    Ok(done)
}
