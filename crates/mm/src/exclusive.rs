//! Whether an anonymous page belongs to one address space alone (Linux: PageAnonExclusive).
//!
//! The flag lies in the record of the frame that a leaf maps: of a huge leaf, its first one. It changes only under the lock of the table with the
//! leaf.
//!
//! # Against a pin
//!
//! A pin of an exclusive page promises that what the device sees is what the address space sees, for as long as the pin lasts. So a page that may be
//! pinned stays exclusive. Fast GUP takes no lock; the two sides are ordered by what each does first:
//!
//! | who shares the page | fast GUP |
//! |---|---|
//! | clears the entry | pins |
//! | full barrier | full barrier (the pin is a locked instruction) |
//! | looks for pins | looks at the entry again |
//! | clears the flag, if there are none | looks at the flag, if the entry is unchanged |
//!
//! Either the one sees the pin, or the other sees that the entry has changed (Linux: `__folio_try_share_anon_rmap`, 088b8aa537c2).

use machine::Cpu;
use machine::addr::Frame;

use crate::folio::{Folio, FolioFlags, MemoryMap};
use crate::guard::Guards;

const EXCLUSIVE: u32 = FolioFlags::EXCLUSIVE.bits();

/// The folio may be pinned: its page stays exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MaybePinned;

/// Whether a page was exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exclusivity {
    /// It belonged to the address space alone.
    Exclusive,
    /// It may be mapped elsewhere, too.
    Shared,
}

/// Whether the page that a leaf maps from `frame` on is exclusive.
#[inline]
pub(crate) fn exclusivity<C: Cpu, M: MemoryMap<C>>(map: &M, cpu: &C, frame: Frame) -> Exclusivity {
    match map.page(cpu, frame) {
        Some(page) if cpu.load(page.flags_word()) & EXCLUSIVE != 0 => Exclusivity::Exclusive,
        _ => Exclusivity::Shared,
    }
}

/// Makes the page that a leaf maps from `frame` on exclusive. The caller holds the lock of the leaf's table, and knows that nobody else maps the
/// page.
#[inline]
pub(crate) fn make_exclusive<C: Cpu, M: MemoryMap<C>>(map: &M, cpu: &C, frame: Frame) {
    if let Some(page) = map.page(cpu, frame) {
        cpu.fetch_or(page.flags_word(), EXCLUSIVE);
    }
}

/// Makes the page that a leaf mapped from `frame` on shareable, and returns what it was.
///
/// The caller holds the lock of the table, and has **cleared the leaf** already; it puts another entry there, or the same one back if this fails.
///
/// # Errors
/// The page is exclusive and may be pinned. Nothing has changed.
pub(crate) fn try_share_anon_rmap<C: Cpu, M: MemoryMap<C>>(
    map: &M,
    cpu: &C,
    guards: &impl Guards,
    folio: &Folio<'_>,
    frame: Frame,
) -> Result<Exclusivity, MaybePinned> {
    let Some(page) = map.page(cpu, frame) else { return Ok(Exclusivity::Shared) };
    // Set and cleared only under the table's lock, so a plain look is exact.
    if cpu.load(page.flags_word()) & EXCLUSIVE == 0 {
        return Ok(Exclusivity::Shared);
    }
    guards.order_clear_before_pin_check(cpu);
    if folio.maybe_dma_pinned(cpu) {
        return Err(MaybePinned);
    }
    // A locked instruction: whoever sees the entry that comes next sees the flag cleared.
    cpu.fetch_and(page.flags_word(), !EXCLUSIVE);
    Ok(Exclusivity::Exclusive)
}

/// Makes the page that a leaf maps from `frame` on shareable, for a caller who has looked for pins: fork, which holds off fast GUP by its sequence, and merge, which has cleared the leaf
/// first.
///
/// The caller holds the lock of the leaf's table.
pub(crate) fn share<C: Cpu, M: MemoryMap<C>>(map: &M, cpu: &C, frame: Frame) {
    if let Some(page) = map.page(cpu, frame) {
        // A locked instruction: whoever sees the entry that comes next sees the flag cleared.
        cpu.fetch_and(page.flags_word(), !EXCLUSIVE);
    }
}
