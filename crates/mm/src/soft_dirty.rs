//! Soft-dirty: which pages were written since somebody last looked (Linux: `Documentation/admin-guide/mm/soft-dirty.rst`).
//!
//! A software bit of leaves, and of what remembers them while they are not there. One rule keeps it: **what can be written is soft-dirty already.** Faults and
//! mprotect set the bit before, or together with, the right to write; who clears the bit takes the right away and flushes. So the next store faults,
//! and no store goes unnoticed. A page that was only read where it could have been written counts as soft-dirty, too.

use pagetable::{Entry, Flags, Level, NonPresent, Swap, SwapFlags};

use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform> Mm<'_, P> {
    /// The entry, which is in no table, with the bit set: a page that came to another address counts as written there.
    pub(crate) fn soft_dirtied(&self, level: Level, entry: Entry) -> Entry {
        let dirty = match self.held(level, entry) {
            Held::Page(leaf) | Held::Zero(leaf) | Held::Special(leaf) => {
                Leaf { attributes: leaf.attributes.with(Flags::soft_dirty(level)), ..leaf }.entry(level)
            }
            Held::Swap(swap) => {
                let flags = swap.flags.and(SwapFlags::SOFT_DIRTY);
                Some(NonPresent::Swap(Swap { flags, ..swap }).encode(level))
            }
            Held::Migration(mut migration) => {
                migration.flags = migration.flags.and(SwapFlags::SOFT_DIRTY);
                Some(NonPresent::Migration(migration).encode(level))
            }
            Held::Nothing | Held::Table | Held::Marker(_) | Held::Unknown => None,
        };
        dirty.unwrap_or(entry)
    }
}
