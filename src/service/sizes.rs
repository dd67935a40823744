//! The limits of an upper: its daemon counts what it holds.

use std::path::Path;
use std::sync::Arc;

use super::layers::ensure;
use super::spec::MountSpec;
use crate::backing::counted::{Account, BLOCK, Counter, Scan, Used};
use crate::backing::host::{FdCache, HostTree, Submounts};
use crate::error::{Errno, Error, Result};
use crate::store::files::write_whole;
use crate::types::{Limits, size};
use crate::union::{DirRef, ORPHANS, Upper};

/// What a layer of a volume holds, beside it: it never changes.
const COUNTED: &str = "counted";
/// Descriptors of directories that a scan may keep open.
const KEPT_DIRS: usize = 64;

/// The account of a mount.
#[derive(Clone)]
pub(super) struct Counted {
    account: Arc<Account>,
    counter: Counter,
}

impl Counted {
    /// Counts what an upper holds, if it has limits. The layers of a volume count too: it is what
    /// was written to it, and snapshots keep it. A mount that may get limits later has an account
    /// that counts nothing until then.
    ///
    /// # Errors
    /// As reading the upper and the layers.
    pub(super) fn open(spec: &MountSpec, upper: &Upper) -> Result<Option<Self>> {
        if spec.limits == Limits::default() {
            return Ok(spec.freezer.as_ref().map(|_| Self::of(Account::idle())));
        }
        let mut scan = Scan::default();
        scan.add(&upper.root)?;
        if let Some(index) = &upper.index {
            scan.add(index)?;
        }
        let mut used = scan.used();
        for layer in spec.lowers.iter().take(spec.former) {
            used = used.and(layer_used(layer)?);
        }
        Ok(Some(Self::of(Account::new(spec.limits, used))))
    }

    fn of(account: Account) -> Self {
        let account = Arc::new(account);
        Self { counter: Counter::new(Arc::clone(&account)), account }
    }

    /// Begins to count, unless more is used than the limits allow. Nobody may use the upper since
    /// what is used was found. The error says what is used.
    pub(super) fn begin(&self, limits: Limits, used: Used) -> std::result::Result<(), String> {
        self.account.begin(limits, used).map_err(shown)
    }

    /// Whether it counts.
    pub(super) fn counts(&self) -> bool {
        self.account.counts()
    }

    /// Counts what is written to an upper from now on, in addition to what is counted already.
    ///
    /// # Errors
    /// As mkdir(2).
    pub(super) fn wrap(&self, upper: Upper) -> Result<Upper> {
        // Of the mount, not of its users: a full volume can be mounted.
        let own = upper.work.stat(None)?;
        ensure(&upper.work, ORPHANS, 0o700, own.owner())?;
        let wrap = |dir: DirRef| self.counter.wrap(dir);
        Ok(Upper {
            root: wrap(upper.root),
            work: wrap(upper.work),
            index: upper.index.map(wrap),
            label: upper.label,
        })
    }

    /// What is used.
    pub(super) fn used(&self) -> Used {
        self.account.used()
    }

    /// The limits at present.
    pub(super) fn limits(&self) -> Limits {
        self.account.limits()
    }

    /// Changes the limits, unless more is used. The error says what is.
    pub(super) fn resize(&self, limits: Limits) -> std::result::Result<(), String> {
        self.account.resize(limits).map_err(shown)
    }
}

/// Counts an upper that nobody writes to.
///
/// # Errors
/// As reading it.
pub(super) fn used_at_rest(upper: &Path) -> Result<Used> {
    used_in(&[upper])
}

/// Counts directories that nobody writes to, and hard links between them once.
///
/// # Errors
/// As reading them.
pub(super) fn used_in(directories: &[&Path]) -> Result<Used> {
    let mut scan = Scan::default();
    for path in directories {
        let root: DirRef = HostTree::open(path, Submounts::Sealed, &FdCache::new(KEPT_DIRS))?;
        scan.add(&root)?;
    }
    Ok(scan.used())
}

/// What is used, for people.
pub(super) fn shown(used: Used) -> String {
    let bytes = size::shown(used.blocks.saturating_mul(BLOCK));
    format!("{bytes} and {} inodes are in use: remove files, or choose a larger size", used.inodes)
}

/// What a layer holds.
///
/// # Errors
/// As reading it.
pub(super) fn layer_used(content: &Path) -> Result<Used> {
    let record = content.with_file_name(COUNTED);
    if let Some(known) =
        std::fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok())
    {
        return Ok(known);
    }
    let used = used_at_rest(content)?;
    let text = serde_json::to_vec(&used).map_err(|_| Error::os("write", Errno::IO))?;
    if let Err(error) = write_whole(&record, &text) {
        tracing::warn!(%error, "a layer is counted again at the next mount");
    }
    Ok(used)
}
