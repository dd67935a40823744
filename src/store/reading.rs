//! State that all open layers of a store share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ahead::Ahead;
use super::fetch::Connect;
use super::material::Materials;
use super::remote::Counters;
use crate::cache::BlockCache;

/// The cache, counters and connections that all layers of a store use to read.
pub(super) struct Reading {
    pub(super) cache: Arc<BlockCache>,
    pub(super) materials: Arc<Materials>,
    pub(super) ahead: Ahead,
    pub(super) damaged: AtomicU64,
    pub(super) fetched: Counters,
    pub(super) connect: Box<Connect>,
}
