//! Flags of immutable and append-only objects that a copy keeps in a mark: see `fixed.rs`.

use crate::error::{Errno, Result};
use crate::types::{Stat, XattrFlags};
use crate::union::body::Place;
use crate::union::layer::DirRef;
use crate::union::layers::Layers;
use crate::union::layers::stage::tolerate;
use crate::union::mark::Mark;

impl Layers {
    /// Adds the flags that a copy keeps in its mark to its attributes, as if its inode had them.
    pub(in crate::union) fn with_kept_flags(&self, place: &Place, stat: Stat) -> Result<Stat> {
        let kept = self.read_mark(place, Mark::ProtAttr)?.unwrap_or_default();
        let (immutable, append_only) = (kept.contains(&b'i'), kept.contains(&b'a'));
        Ok(Stat {
            immutable: stat.immutable || immutable,
            append_only: stat.append_only || append_only,
            ..stat
        })
    }

    /// Keeps the flags of a lower object with its copy.
    pub(in crate::union) fn keep_flags(
        &self,
        stat: &Stat,
        dir: &DirRef,
        name: &[u8],
    ) -> Result<()> {
        let letters = [(stat.append_only, b'a'), (stat.immutable, b'i')];
        let value: Vec<u8> = letters.iter().filter(|(is, _)| *is).map(|(_, at)| *at).collect();
        if value.is_empty() {
            return Ok(());
        }
        let key = self.mark_key(Mark::ProtAttr);
        let stored = dir.set_xattr(Some(name), &key, &value, XattrFlags::default());
        tolerate(stored, &[Errno::OPNOTSUPP, Errno::PERM])
    }
}
