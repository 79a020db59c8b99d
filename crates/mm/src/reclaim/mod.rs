//! Reclaim: from a folio to all entries that map it, and what is done with them there.
//!
//! | module | what |
//! |---|---|
//! | `rmap` | from a folio to its entries |
//! | `unmap` | entries become migration entries, and leaves again |
//! | `frozen` | a folio that nobody can take a reference to |
//! | `migrate` | a folio moves to other frames |
//! | `migrate_range` | the pages of a range move: collected by address |
//! | `swap_out` | anonymous pages go to swap |
//! | `split_folio` | a large folio becomes small ones |
//! | `drop_page` | clean pages of a file go |
//! | `write_back` | a page of a file is cleaned |
//! | `poison` | memory fails |
//! | `age` | was it used? |
//!
//! # Protocol for a folio that leaves its frames
//!
//! 1. *Lock* the folio, with a reference held: of those who take folios apart there is one at a time.
//! 2. *Unmap*: under the lock of each table, clear the leaf, look for pins if it is exclusive (`exclusive`), and write a migration entry. It
//!    holds no reference and no mapping: those are taken off. The flush is owed ([`crate::batched_flush`]).
//! 3. *Flush*, once for all folios that are on their way. Now no CPU can reach the folio through a TLB.
//! 4. *Freeze*: if the references are exactly those that are expected, the count becomes 0, and fast GUP can take none any more. Else somebody uses
//!    the folio: it goes back.
//! 5. Copy, or write to swap. Whoever faults waits meanwhile: there is no moment at which two copies are in use, and no need for a swap cache.
//! 6. *Remap*: under the lock of each table, every migration entry becomes a leaf of the new folio, or a swap entry. Those that were zapped meanwhile
//!    are not there.
//!
//! At every step before 6 the way back is the same: every migration entry becomes the leaf again that it was.
//!
//! # Who meets a migration entry
//!
//! Faults wait until it changes. Zap takes it, and owes nobody anything. Whoever holds the mmap lock for writing and would have to copy, move or
//! change it, waits too, *without an rmap lock and without page-table locks*: who migrates needs these, and no mmap lock. So no migration entry
//! appears behind the back of step 6, which goes through the mappings in any order (Linux relies on the order of areas in the rmap instead).
//!
//! # Locks
//!
//! mmap lock, folio lock, rmap lock, page-table lock; the rmap lock for reading. Folio locks of many are only tried for.

mod age;
mod drop_page;
mod frozen;
mod migrate;
mod migrate_range;
mod poison;
mod rmap;
mod split_folio;
mod swap_out;
mod unmap;
mod write_back;

pub use migrate::Migrated;
pub(crate) use migrate::UNMOVABLE;
pub use poison::{Contents, Failure};
pub(crate) use unmap::SOFT_DIRTY;
