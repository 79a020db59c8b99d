//! Fast GUP: from addresses to references without a lock.
//!
//! # Protocol
//!
//! With interrupts off, so that no table that it reads can be freed (`crate::lifetime`), the walker
//!
//! 1. reads every entry *once*, by the protocol [`crate::Platform::Read`], and decides on the copy;
//! 2. stops at the first entry that it may not use: not present, without the rights needed, PROT_NONE, or **special**;
//! 3. finds the record of the frame and adds to its folio's count unless that is zero;
//! 4. reads the entry *again*, by [`crate::Platform::Recheck`], and for a page the entry of its table too: if either changed, it gives the
//!    reference back and stops;
//! 5. for a pin, looks whether a fork has begun since before step 1 (`crate::fork`): then the child may have been given the page;
//! 6. asks whether the folio may be had like this (secret, truncated, must stay movable, shared with a child).
//!
//! Whoever takes a mapping away clears the entry first and looks for pins afterwards. So either the walker sees the change in step 4, or the other
//! sees the pin.
//!
//! # Guarantee
//!
//! Every page handed out was mapped, with the rights asked for, at its address at some moment of the call, and is kept from being freed from then on.
//! No page of a special mapping is touched, its record included.
//!
//! Note that step 3 touches the record of a frame *before* step 4 has confirmed it. If the read in step 1 can return a mixture of two entries, that
//! record may be any record, or none: that is the question of this project's seed.
//!
//! The walker never looks at areas, never faults, sets no accessed or dirty flag, and never waits. The order of the checks is that of Linux 6.12
//! (`mm/gup.c`).

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::seqcount::Sequence;
use machine::{Access, Cpu, IrqOff, SeqCount};
use pagetable::walk::{self, Step};
use pagetable::{Entry, Flags, Level, Mode, Rechecked, Rights, Slot, TableMemory};

use crate::exclusive::{Exclusivity, exclusivity};
use crate::folio::{Folio, FolioFlags, Reference};
use crate::guard::Guards;
use crate::gup::Run;
use crate::gup::flags::{Request, Term};
use crate::gup::follow::peer_to_peer_unasked;
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// Why the walk stopped. The caller need not know more: the slow path finds out under locks.
pub(super) struct Stopped;

impl<P: Platform> Mm<'_, P> {
    /// Takes references on the pages of `start..end` as far as that goes without a lock, and returns on how many.
    #[inline]
    pub(super) fn gup_fast(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'_>,
        start: VirtAddr,
        end: VirtAddr,
        request: Request,
        sink: &mut impl FnMut(Run),
    ) -> u64 {
        let irq = cpu.irq_off();
        let fork = match request.reference {
            Reference::Get => None,
            Reference::Pin => match self.protocols().guards.before_pins(cpu, space.write_protect()) {
                Some(since) => Some((space.write_protect(), since)),
                None => return 0,
            },
        };
        let walker = FastWalk { mm: self, irq: &irq, request, fork };
        let mut at = start;
        while at < end {
            match walker.leaves(space, at, end, sink) {
                (next, Ok(())) => at = next,
                (next, Err(Stopped)) => {
                    at = next;
                    break;
                }
            }
        }
        (at.as_u64() - start.as_u64()) / PAGE_SIZE
    }
}

struct FastWalk<'w, 'm, P: Platform> {
    mm: &'w Mm<'m, P>,
    /// Interrupts stay off for as long as entries and tables are looked at.
    irq: &'w IrqOff<'w, P::Cpu>,
    request: Request,
    /// Of pins: what forks count, and where the count was.
    fork: Option<(&'w SeqCount, Sequence)>,
}

impl<P: Platform> FastWalk<'_, '_, P> {
    #[inline(always)]
    fn cpu(&self) -> &P::Cpu {
        self.irq.cpu()
    }

    /// Walks down to the leaf for `at` and takes what it can of `at..end`: the rest of a huge leaf, or of a table of pages. Returns how
    /// far it came.
    #[inline]
    fn leaves(
        &self,
        space: &AddressSpace<'_>,
        at: VirtAddr,
        end: VirtAddr,
        sink: &mut impl FnMut(Run),
    ) -> (VirtAddr, Result<(), Stopped>) {
        let protocols = self.mm.protocols();
        let tables = self.mm.tables();
        let mode = &protocols.mode;
        let Ok(mut slot) = walk::root_slot(mode, tables, space.root(), at) else {
            return (at, Err(Stopped));
        };
        let mut level = mode.root_level();
        loop {
            let entry = walk::read(self.cpu(), mode, level, slot, &protocols.read);
            match (walk::step(mode, tables, level, entry, at), level.lower()) {
                (Ok(Step::Leaf), _) => {
                    let end = end.min(level.next(at));
                    return match self.huge_leaf(slot, level, entry, at, end, sink) {
                        Ok(()) => (end, Ok(())),
                        Err(Stopped) => (at, Err(Stopped)),
                    };
                }
                (Ok(Step::Lower(next)), Some(Level::Pte)) => {
                    let end = end.min(level.next(at));
                    return self.pages((slot, entry), next, at, end, sink);
                }
                (Ok(Step::Lower(next)), Some(lower)) => (slot, level) = (next, lower),
                _ => return (at, Err(Stopped)),
            }
        }
    }

    /// Takes the pages of `at..end`, all of which one table translates. `pmd` is the entry that points to the table, `first` the slot for `at` in it.
    #[inline]
    fn pages(
        &self,
        pmd: (Slot<'_>, Entry),
        first: Slot<'_>,
        at: VirtAddr,
        end: VirtAddr,
        sink: &mut impl FnMut(Run),
    ) -> (VirtAddr, Result<(), Stopped>) {
        let tables = self.mm.tables();
        let mut at = at;
        let mut slot = first;
        loop {
            match self.page(pmd, slot, at) {
                Ok(run) => sink(run),
                Err(Stopped) => return (at, Err(Stopped)),
            }
            at = at.wrapping_add(PAGE_SIZE);
            if at == end {
                return (at, Ok(()));
            }
            // The table comes from the copy of the entry, never from the entry again.
            match tables.table(pmd.1.table_frame()) {
                Ok(table) => slot = table.slot(Level::Pte, at),
                Err(_) => return (at, Err(Stopped)),
            }
        }
    }

    #[inline]
    fn page(&self, pmd: (Slot<'_>, Entry), slot: Slot<'_>, at: VirtAddr) -> Result<Run, Stopped> {
        let protocols = self.mm.protocols();
        let cpu = self.cpu();
        let entry = slot.read(cpu, &protocols.read);
        self.may_use(Level::Pte, entry)?;
        let folio = self.grab(Level::Pte, entry, at, 1)?;
        // Both: a collapse of the table into a huge page changes the pmd only (Linux 70cbc3cc78a9).
        let rechecked = match protocols.guards.recheck_table(cpu, &protocols.recheck, pmd.0, pmd.1) {
            Rechecked::Unchanged => slot.recheck(cpu, &protocols.recheck, entry),
            Rechecked::Changed => Rechecked::Changed,
        };
        self.keep(folio, rechecked, (Level::Pte, entry), 1)?;
        Ok(Run { frame: entry.table_frame(), pages: 1, reference: self.request.reference })
    }

    #[inline(never)]
    fn huge_leaf(
        &self,
        slot: Slot<'_>,
        level: Level,
        entry: Entry,
        at: VirtAddr,
        end: VirtAddr,
        sink: &mut impl FnMut(Run),
    ) -> Result<(), Stopped> {
        let protocols = self.mm.protocols();
        let cpu = self.cpu();
        self.may_use(level, entry)?;
        let pages = ((end.as_u64() - at.as_u64()) / PAGE_SIZE) as u32;
        let folio = self.grab(level, entry, at, pages)?;
        self.keep(folio, slot.recheck(cpu, &protocols.recheck, entry), (level, entry), pages)?;
        sink(Run { frame: subframe(level, entry, at), pages, reference: self.request.reference });
        Ok(())
    }
}

impl<P: Platform> FastWalk<'_, '_, P> {
    /// Step 2: whether the leaf may be used at all. A PROT_NONE or otherwise non-present entry did not come this far.
    #[inline(always)]
    fn may_use(&self, level: Level, entry: Entry) -> Result<(), Stopped> {
        if !entry.rights().allow(needed(self.request.access)) || self.mm.protocols().special.refuses(level, entry) {
            return Err(Stopped);
        }
        Ok(())
    }

    /// Step 3: takes references on the folio of the leaf, one a page.
    #[inline(always)]
    fn grab(&self, level: Level, entry: Entry, at: VirtAddr, pages: u32) -> Result<Folio<'_>, Stopped> {
        let frame = subframe(level, entry, at);
        Folio::try_grab(self.mm.map(), self.cpu(), frame, pages, self.request.reference).map_err(|_| Stopped)
    }

    /// Steps 4 to 6: keeps the references if the entry is unchanged, no fork has begun and the folio may be had like this, else gives them back.
    #[inline(always)]
    fn keep(&self, folio: Folio<'_>, rechecked: Rechecked, leaf: (Level, Entry), pages: u32) -> Result<(), Stopped> {
        let cpu = self.cpu();
        if rechecked == Rechecked::Unchanged && !self.fork_began() {
            let flags = folio.flags(cpu);
            if self.allowed(flags) && !self.must_unshare(flags, leaf) {
                folio.mark_seen(cpu, flags, FolioFlags::REFERENCED);
                return Ok(());
            }
        }
        // The references were taken a moment ago, so giving them back cannot underflow.
        let _ = folio.put(cpu, self.mm.map(), pages, self.request.reference);
        Err(Stopped)
    }

    #[inline(always)]
    fn allowed(&self, flags: FolioFlags) -> bool {
        flags.allow(self.request.term, self.request.access) && !peer_to_peer_unasked(flags, self.request)
    }

    /// Step 5: whether a fork may have looked for pins before this one was there, and given the child the page.
    #[inline(always)]
    fn fork_began(&self) -> bool {
        let guards = &self.mm.protocols().guards;
        self.fork.is_some_and(|(fork, since)| guards.fork_began(self.cpu(), fork, since))
    }

    /// Whether the next write by the address space would go to another page than the pin reads (Linux: `gup_must_unshare`). The slow path makes the page the
    /// address space's own first.
    #[inline(always)]
    fn must_unshare(&self, flags: FolioFlags, (level, entry): (Level, Entry)) -> bool {
        let Request { reference: Reference::Pin, access: Access::Read, term, .. } = self.request else { return false };
        if entry.has(Flags::WRITE) {
            // Who may write through the entry shares the page with nobody.
            return false;
        }
        if !flags.contains(FolioFlags::ANON) {
            // Whether a write makes a copy, the area says, which only the slow path has.
            return term == Term::Long;
        }
        let cpu = self.cpu();
        exclusivity(self.mm.map(), cpu, entry.leaf_frame(level)) == Exclusivity::Shared
            && self.mm.protocols().guards.pin_unshares()
    }
}

/// The rights that a leaf must give.
pub(crate) const fn needed(access: Access) -> Rights {
    match access {
        Access::Read => Rights::USER,
        Access::Write => Rights::USER.and(Rights::WRITE),
    }
}

/// The frame of the page at `at` that this leaf of `level` maps.
#[inline(always)]
pub(crate) const fn subframe(level: Level, entry: Entry, at: VirtAddr) -> Frame {
    let within = (at.as_u64() & (level.size() - 1)) / PAGE_SIZE;
    entry.leaf_frame(level).wrapping_add(within)
}
