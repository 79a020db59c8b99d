//! NUMA hints: which CPU uses which page, found out by faults (Linux: NUMA balancing, `change_prot_numa`).
//!
//! # Protocol
//!
//! 1. Leaves of a range become PROT_NONE: the *hint*. They keep their frame, their rights, and their accessed and dirty bits. The mmap lock is held for reading only, and TLBs are flushed once,
//!    at the end.
//! 2. The next access faults, and the fault asks who knows where frames lie whether the page had better move ([`FrameSource::placement`]). If so it moves like any other ([`Mm::migrate`]),
//!    to a frame that is near the CPU that faulted.
//! 3. Wherever the page is now, its leaf is present again, with the rights that it had. A fault asks once: if the page cannot move, or is not near even then, it is used where it is.
//!
//! # Hints and mprotect
//!
//! An area that forbids every access has PROT_NONE leaves, too. The area tells them apart: where it allows the access, the leaf is a hint, and where it does not, the fault fails before it looks. mprotect
//! gives rights by what the area was and what it is to be, and drops a hint that it comes upon.
//!
//! Between step 1 and its flush, a PROT_NONE leaf is *not* one that no CPU translates by. Who takes such a leaf away asks for that ([`crate::Guards::prot_none_may_be_cached`]).

use machine::addr::VirtAddr;

use crate::area::{Area, AreaRights};
use crate::error::ZapError;
use crate::file::FileKind;
use crate::folio::Folio;
use crate::gather::Gather;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::UNMOVABLE;
use crate::space::AddressSpace;

/// Whether a page is where it is used ([`crate::FrameSource::placement`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumaPlacement {
    /// It stays where it is.
    Stays,
    /// It moves to a frame near the CPU that uses it.
    Moves,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Makes the next access to each of `pages` pages from `start` on fault, so that the page can move to where it is used (Linux: `change_prot_numa`). Returns how many leaves have a hint that
    /// had none. A huge leaf that reaches into the range gets one whole.
    ///
    /// Areas that forbid every access, drivers' areas and frames, the zero page and folios that stay where they are have no hints.
    ///
    /// On return no CPU uses a page by an entry from before.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing was done if the range is wrong. Behind a malformed table nothing was.
    pub fn hint_numa(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<u64, ZapError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let reach = self.reach(cpu, space, (start, end));
        let result = self.notify_of(cpu, space, reach, || self.hint_range(cpu, space, (start, end)));
        mmap.unlock();
        result
    }

    fn hint_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<u64, ZapError> {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let mut hinted = 0;
        let mut result = Ok(());
        let mut at = start;
        while let Some((_, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            let Some(part) = area.part(start, end).filter(|_| self.may_be_hinted(&area)) else { continue };
            let done = self.for_each_table(cpu, space, part.start, part.end(), |mut table, from, until| {
                let level = table.level();
                let mut at = from;
                while at < until && table.children() > 0 {
                    let held = self.held(level, table.entry(&self.protocols().mode, at));
                    if self.is_worth_a_hint(cpu, held) {
                        self.forbid_leaf(&mut gather, &mut table, at, area.key);
                        hinted += 1;
                    }
                    at = level.next(at);
                }
                gather.unlock(cpu, table);
            });
            result = result.and(done);
        }
        gather.finish(cpu);
        result.map(|()| hinted)
    }

    /// Whether pages of the area may move, and an access to them that faults is allowed (Linux: `vma_migratable`, `vma_is_accessible`).
    fn may_be_hinted(&self, area: &Area) -> bool {
        let kind = self.file(area.file).map(|file| file.kind());
        area.rights != AreaRights::None && matches!(kind, Some(FileKind::Anonymous | FileKind::Cached))
    }

    /// Whether an entry is a present leaf of a folio that can move. Under its page-table lock.
    fn is_worth_a_hint(&self, cpu: &P::Cpu, held: Held) -> bool {
        let Held::Page(Leaf { frame, presence: Presence::Present, .. }) = held else { return false };
        Folio::held(self.map(), cpu, frame).is_some_and(|folio| !folio.flags(cpu).intersects(UNMOVABLE))
    }
}
