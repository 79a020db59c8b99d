//! Fast GUP: from addresses to references without a lock.
//!
//! # Protocol
//!
//! With interrupts off, so that no table that it reads can be freed (`crate::lifetime`), the walker
//!
//! 1. reads every entry *once*, by the protocol [`crate::Platform::Read`], and decides on the copy;
//! 2. stops at the first entry that it may not use: not present, without the rights needed, of a protection key by which the calling thread may not access it, PROT_NONE, or
//!    **special**;
//! 3. finds the record of the frame and adds to its folio's count unless that is zero;
//! 4. reads the entry *again*, by [`crate::Platform::Recheck`], and for a page the entry of its table too: if either changed, it gives the
//!    reference back and stops;
//! 5. for a pin, looks whether a fork has begun since before step 1 (`crate::fork`): then the child may have been given the page;
//! 6. asks whether the folio may be had like this (secret, truncated, must stay movable, shared with a child).
//!
//! # Runs
//!
//! Pages of one large folio that follow each other in one table are taken by one atomic operation. Between steps 2 and 3 the walker reads, each
//! once, the entries behind the first, and stops at the first that is not equal to the one before it but for the frame, which must be the next, and of the
//! same folio. So the rights, the special bit and the level of all of them are those that step 2 has looked at; where accessed or dirty flags differ, a run
//! ends and another begins. Step 3 takes one reference for each page. Step 4 compares the entry of *each* page with what was read from it, and the entry of
//! the table: the pages before the first that changed are kept, and the references for the others are given back.
//!
//! For every page of a run the argument below is that for a single page: its reference was taken *before* its entry was read again. That it
//! was taken together with others makes no difference, and neither does a reference on the folio that is given back a moment later: who looks for
//! pins meanwhile believes a page pinned that is not, which the small folios' counts bring about anyway.
//!
//! # Why it works
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
use machine::{Access, Cpu, IrqOff, Pkru, SeqCount};
use pagetable::walk::{self, Step};
use pagetable::{Entry, Flags, Level, Mode, Rechecked, Rights, Slot, TableMemory};

use crate::exclusive::{Exclusivity, exclusivity};
use crate::folio::{Folio, FolioFlags, Membership, Reference};
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
        let walker = FastWalk { mm: self, irq: &irq, request, pkru: cpu.pkru(), fork };
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
    /// Of the calling thread.
    pkru: Pkru,
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
            match self.run(pmd, slot, at, end) {
                Ok(run) => {
                    at = at.wrapping_add(u64::from(run.pages) * PAGE_SIZE);
                    sink(run);
                }
                Err(Stopped) => return (at, Err(Stopped)),
            }
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

    /// Takes the page at `at`, and of a large folio also the pages of `at..end` that follow it there and in its table.
    #[inline]
    fn run(&self, pmd: (Slot<'_>, Entry), slot: Slot<'_>, at: VirtAddr, end: VirtAddr) -> Result<Run, Stopped> {
        let protocols = self.mm.protocols();
        let cpu = self.cpu();
        let entry = slot.read(cpu, &protocols.read);
        self.may_use(Level::Pte, entry)?;
        let frame = entry.table_frame();
        let one_if_small = |folio: Membership| u32::from(folio.order == 0);
        let grabbed = Folio::try_grab_some(
            &self.mm.protocols().guards,
            self.mm.map(),
            cpu,
            frame,
            self.request.reference,
            one_if_small,
        );
        let pages = match grabbed.map_err(|_| Stopped)? {
            (_, 0) => self.run_of_large(pmd, slot, entry, at, end)?,
            (folio, _) => self.keep(folio, (Level::Pte, entry), self.page_unchanged(pmd, slot, entry), 1)?,
        };
        Ok(Run { frame, pages, reference: self.request.reference })
    }

    /// Step 4 for one page: 1 if it is where it was, else 0.
    #[inline(always)]
    fn page_unchanged(&self, pmd: (Slot<'_>, Entry), slot: Slot<'_>, entry: Entry) -> u32 {
        let protocols = self.mm.protocols();
        let cpu = self.cpu();
        // Both: a collapse of the table into a huge page changes the pmd only (Linux 70cbc3cc78a9).
        let rechecked = match protocols.guards.recheck_table(cpu, &protocols.recheck, pmd.0, pmd.1) {
            Rechecked::Unchanged => slot.recheck(cpu, &protocols.recheck, entry),
            Rechecked::Changed => Rechecked::Changed,
        };
        u32::from(rechecked == Rechecked::Unchanged)
    }

    /// Steps 3 to 6 for a run of pages of one large folio, of which `entry` maps the first. Returns how many.
    #[inline(never)]
    fn run_of_large(
        &self,
        pmd: (Slot<'_>, Entry),
        slot: Slot<'_>,
        entry: Entry,
        at: VirtAddr,
        end: VirtAddr,
    ) -> Result<u32, Stopped> {
        let cpu = self.cpu();
        let frame = entry.table_frame();
        let wanted = (end.as_u64() - at.as_u64()) / PAGE_SIZE;
        // The records of the other pages are not needed: the folio's size says that they belong to it, and that holds while it is referenced.
        let length = |folio: Membership| self.run_length(pmd.1, entry, at, wanted.min(folio.frames_from(frame)));
        let grabbed = Folio::try_grab_some(
            &self.mm.protocols().guards,
            self.mm.map(),
            cpu,
            frame,
            self.request.reference,
            length,
        );
        let (folio, pages) = grabbed.map_err(|_| Stopped)?;
        let unchanged = match self.page_unchanged(pmd, slot, entry) {
            0 => 0,
            _ => self.run_unchanged(pmd.1, entry, at, pages),
        };
        self.keep(folio, (Level::Pte, entry), unchanged, pages)
    }

    /// How many entries from that for `at` on, at most `most` and at least one, hold what `first`, the one for `at`, holds but for the frame, which is
    /// the next one in each.
    #[inline]
    fn run_length(&self, pmd: Entry, first: Entry, at: VirtAddr, most: u64) -> u32 {
        let (cpu, read) = (self.cpu(), &self.mm.protocols().read);
        self.run_while(pmd, first, at, most, |slot, entry| slot.read(cpu, read) == entry)
    }

    /// Step 4 for the entries of a run of `pages` pages behind the first: how many pages are where they were.
    #[inline]
    fn run_unchanged(&self, pmd: Entry, first: Entry, at: VirtAddr, pages: u32) -> u32 {
        let (cpu, recheck) = (self.cpu(), &self.mm.protocols().recheck);
        self.run_while(pmd, first, at, u64::from(pages), |slot, entry| {
            slot.recheck(cpu, recheck, entry) == Rechecked::Unchanged
        })
    }

    /// The length of the longest run of at most `most` pages from `at` on of which all but the first, which is not asked about, are as they should be.
    #[inline(always)]
    fn run_while(
        &self,
        pmd: Entry,
        first: Entry,
        at: VirtAddr,
        most: u64,
        is_so: impl Fn(Slot<'_>, Entry) -> bool,
    ) -> u32 {
        // The table comes from the copy of the entry, never from the entry again.
        let Ok(table) = self.mm.tables().table(pmd.table_frame()) else { return 1 };
        let mut entry = first.bits();
        let mut address = at;
        let mut pages = 1;
        while u64::from(pages) < most {
            address = address.wrapping_add(PAGE_SIZE);
            // Does not carry out of the frame number: the next frame is of the same folio.
            entry = entry.wrapping_add(PAGE_SIZE);
            if !is_so(table.slot(Level::Pte, address), Entry::from_bits(entry)) {
                break;
            }
            pages += 1;
        }
        pages
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
        let unchanged = match slot.recheck(cpu, &protocols.recheck, entry) {
            Rechecked::Unchanged => pages,
            Rechecked::Changed => 0,
        };
        let pages = self.keep(folio, (level, entry), unchanged, pages)?;
        sink(Run { frame: subframe(level, entry, at), pages, reference: self.request.reference });
        Ok(())
    }
}

impl<P: Platform> FastWalk<'_, '_, P> {
    /// Step 2: whether the leaf may be used at all. A PROT_NONE or otherwise non-present entry did not come this far.
    #[inline(always)]
    fn may_use(&self, level: Level, entry: Entry) -> Result<(), Stopped> {
        let (access, guards) = (self.request.access, &self.mm.protocols().guards);
        if !entry.rights().allow(needed(access))
            || !guards.key_allows(self.pkru, entry.protection_key(), access)
            || self.mm.protocols().special.refuses(level, entry)
        {
            return Err(Stopped);
        }
        Ok(())
    }

    /// Step 3: takes references on the folio of the leaf, one a page.
    #[inline(always)]
    fn grab(&self, level: Level, entry: Entry, at: VirtAddr, pages: u32) -> Result<Folio<'_>, Stopped> {
        let frame = subframe(level, entry, at);
        let Request { reference, .. } = self.request;
        let guards = &self.mm.protocols().guards;
        let grabbed = Folio::try_grab_some(guards, self.mm.map(), self.cpu(), frame, reference, |_| pages);
        grabbed.map(|(folio, _)| folio).map_err(|_| Stopped)
    }

    /// Steps 5 and 6: of the references just taken, keeps those on the `unchanged` first pages that may be had like this, and gives the others
    /// back. Returns how many it keeps. `leaf` maps the first of the pages, and perhaps all.
    #[inline(always)]
    fn keep(&self, folio: Folio<'_>, leaf: (Level, Entry), unchanged: u32, pages: u32) -> Result<u32, Stopped> {
        let cpu = self.cpu();
        let mut kept = 0;
        if unchanged > 0 && !self.fork_began() {
            let flags = folio.flags(cpu);
            if self.allowed(flags) {
                kept = self.own(flags, leaf, unchanged);
            }
            if kept > 0 {
                folio.mark_seen(cpu, flags, FolioFlags::REFERENCED);
            }
        }
        if kept < pages {
            // The references were taken a moment ago, so giving them back cannot underflow.
            let _ = folio.put(cpu, self.mm.map(), pages - kept, self.request.reference);
        }
        if kept > 0 { Ok(kept) } else { Err(Stopped) }
    }

    #[inline(always)]
    fn allowed(&self, flags: FolioFlags) -> bool {
        let flags = self.mm.protocols().guards.flags_that_decide(flags);
        flags.allow(self.request.term, self.request.access) && !peer_to_peer_unasked(flags, self.request)
    }

    /// Step 5: whether a fork may have looked for pins before this one was there, and given the child the page.
    #[inline(always)]
    fn fork_began(&self) -> bool {
        let guards = &self.mm.protocols().guards;
        self.fork.is_some_and(|(fork, since)| guards.fork_began(self.cpu(), fork, since))
    }

    /// How many of the pages, from the first on, the next write by the address space will find where the pin reads (Linux: `gup_must_unshare`). The slow path
    /// makes others the address space's own first.
    #[inline(always)]
    fn own(&self, flags: FolioFlags, (level, entry): (Level, Entry), pages: u32) -> u32 {
        let Request { reference: Reference::Pin, access: Access::Read, term, .. } = self.request else { return pages };
        if entry.has(Flags::WRITE) {
            // Who may write through the entry shares the page with nobody.
            return pages;
        }
        if !flags.contains(FolioFlags::ANON) {
            // Whether a write makes a copy, the area says, which only the slow path has.
            return if term == Term::Long { 0 } else { pages };
        }
        if !self.mm.protocols().guards.pin_unshares() {
            return pages;
        }
        let first = entry.leaf_frame(level);
        let is_own = |page: &u32| {
            exclusivity(self.mm.map(), self.cpu(), first.wrapping_add(u64::from(*page))) == Exclusivity::Exclusive
        };
        match level {
            Level::Pte => (0..pages).take_while(is_own).count() as u32,
            // The record of its first frame speaks for the leaf.
            _ if is_own(&0) => pages,
            _ => 0,
        }
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
