//! Backups of trees in an object store or a directory: chunks by content, compressed, shared by
//! all backups, and encrypted where a key is given. The format and the rules that keep several
//! processes safe are in docs/design/007-backup.md.
//!
//! - `remote`: objects of S3, Google Cloud Storage, Azure and of directories, behind calls that
//!   wait;
//! - `key`, `seal`: the key file, and how an object is compressed, encrypted and checked;
//! - `repository`: chunks, manifests and the configuration; `lease`: who works in it now;
//! - `record`, `chunker`, `pool`: the list of objects of a tree, cutting, parallel transfers;
//! - `write`, `read`, `prune`: backup, restore, check and the removal of chunks.
//!
//! A repository is not trusted: lengths are checked before memory is allocated, and each chunk is
//! compared with its name.

mod chunker;
pub mod error;
pub mod key;
mod lease;
mod parent;
mod pool;
pub mod prune;
pub mod read;
mod record;
mod remote;
pub mod repository;
mod seal;
pub mod write;

pub use error::{BackupError, Result};
pub use remote::Traffic;
pub use repository::{Manifest, Repository, Site, Subject};
