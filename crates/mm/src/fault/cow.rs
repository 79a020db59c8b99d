//! A page is there that may not be written, or is not this address space's alone.

use machine::Invalidation;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Attributes, Entry, Flags, Level, LockedTable, Position, Rights};

use crate::error::FaultError;
use crate::exclusive::{Exclusivity, exclusivity, make_exclusive};
use crate::fault::{Fault, Outcome, Want};
use crate::folio::{Folio, FolioFlags, Reference};
use crate::frames::FrameSource;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf, Presence};
use crate::merge::zero::zeros_go;
use crate::mm::Mm;
use crate::notify::Notify;
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::AddressSpace;
use crate::uffd::UffdReason;

/// Whose a page is.
enum Ownership<'m> {
    /// This address space's alone: it may write without a copy.
    Exclusive,
    /// Shared with others, or with a file: a write needs a copy of this folio's page.
    Shared(Folio<'m>),
    /// The zero page's: a write needs zeros.
    Nobody,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// A fault of a private area where a page is mapped: `seen`, read at `position` without a lock.
    pub(super) fn fault_on_page(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        position: &Position<'_>,
        seen: Entry,
    ) -> Result<Outcome, FaultError> {
        let Some(mut table) = self.lock_unchanged(cpu, fault, position, seen) else { return Ok(Outcome::Changed) };
        let (leaf, ownership) = match self.held(Level::Pte, seen) {
            Held::Page(leaf) if self.is_misplaced(cpu, fault, &leaf) => return Ok(Outcome::Misplaced(leaf.frame)),
            Held::Page(leaf) => (leaf, self.ownership(cpu, &leaf).ok_or(fault.bad_frame(leaf.frame))?),
            Held::Zero(leaf) => (leaf, Ownership::Nobody),
            _ => return Ok(Outcome::Changed),
        };
        if self.hands_over_write(fault, Held::Page(leaf)) {
            return Err(fault.handed_over(UffdReason::WriteProtected));
        }
        if fault.is_for_uffd(UffdReason::WriteProtected) {
            // It was protected a moment ago, perhaps, and whoever did that has not flushed yet.
            self.protocols().guards.flush_before_copy(|| {
                if space.has_gathers(cpu, fault.address) {
                    self.flush_page(cpu, space, fault.address);
                }
            });
        }
        match (fault.want, ownership) {
            (Want::Read, ownership) => {
                let writable = matches!(ownership, Ownership::Exclusive);
                self.restore(&mut table, fault, &leaf, if writable { fault.attributes() } else { fault.read_only() });
                Ok(Outcome::Mapped)
            }
            (Want::Write | Want::ForcedWrite | Want::Unshare, Ownership::Exclusive) => {
                self.restore(&mut table, fault, &leaf, fault.attributes());
                Ok(Outcome::Mapped)
            }
            (Want::Write | Want::ForcedWrite | Want::Unshare, Ownership::Shared(folio)) => {
                // The entry holds a reference, so the count is not 0; it may be at its limit.
                if Folio::try_grab(self.map(), cpu, leaf.frame, 1, Reference::Get).is_err() {
                    return Err(FaultError::CountLimit { address: fault.address });
                }
                table.unlock();
                let result = self.copy_to_new(cpu, space, fault, position, seen, (&leaf, Some(&folio)));
                self.give_back(cpu, &folio);
                result
            }
            (Want::Write | Want::ForcedWrite | Want::Unshare, Ownership::Nobody) => {
                table.unlock();
                self.copy_to_new(cpu, space, fault, position, seen, (&leaf, None))
            }
        }
    }

    /// Whose the page of a leaf is. Makes it this address space's if that is its only user. Under the page-table lock.
    fn ownership(&self, cpu: &P::Cpu, leaf: &Leaf) -> Option<Ownership<'m>> {
        let folio = Folio::held(self.map(), cpu, leaf.frame)?;
        if !folio.flags(cpu).contains(FolioFlags::ANON) {
            return Some(Ownership::Shared(folio));
        }
        let guards = &self.protocols().guards;
        if exclusivity(self.map(), cpu, leaf.frame) == Exclusivity::Exclusive && guards.exclusive_needs_no_copy() {
            return Some(Ownership::Exclusive);
        }
        if folio.membership().order == 0
            && !folio.flags(cpu).contains(FolioFlags::SWAP_BACKED)
            && guards.is_only_user_of_unmerged(
                || guards.is_only_user(folio.references(cpu), folio.mappings(cpu)),
                || folio.flags(cpu).contains(FolioFlags::KSM),
            )
        {
            make_exclusive(self.map(), cpu, leaf.frame);
            return Some(Ownership::Exclusive);
        }
        Some(Ownership::Shared(folio))
    }

    /// Gives the leaf the attributes that it may have now, keeping accessed and dirty. More rights need no flush: at worst a CPU
    /// faults once more (SDM vol. 3A, 4.10.4.3).
    pub(super) fn restore(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        fault: &Fault,
        leaf: &Leaf,
        attributes: Attributes,
    ) {
        let attributes = self.keep_uffd_wp(attributes, leaf.attributes);
        match (leaf.presence, fault.presence()) {
            (Presence::Present, _) => {
                let missing = match fault.is_write() && attributes.has(Flags::WRITE) {
                    true => fault.writable().and(fault.flags()),
                    false => fault.flags(),
                };
                if !leaf.attributes.has(missing) {
                    table.set_flags(&self.protocols().write, fault.address, missing);
                }
            }
            (Presence::ProtNone, Presence::ProtNone) => {}
            (Presence::ProtNone, Presence::Present) => {
                let rights = fault.rights_again(leaf.attributes, attributes.rights());
                let kept = leaf.attributes.with_rights(rights).with(fault.flags());
                let kept = if rights.allow(Rights::WRITE) { kept.with(fault.writable()) } else { kept };
                // The frame came out of an entry of this level.
                if let Ok(entry) = Entry::leaf(fault.level, leaf.frame, kept) {
                    table.replace(&self.protocols().write, fault.address, entry);
                }
            }
        }
    }

    /// Puts a copy of the page (of the zero page, which is no folio's: zeros) in its place.
    fn copy_to_new(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        position: &Position<'_>,
        seen: Entry,
        (leaf, from): (&Leaf, Option<&Folio<'m>>),
    ) -> Result<Outcome, FaultError> {
        let new = self.allocate_anonymous(cpu, fault)?;
        let frame = new.membership().head;
        match from {
            Some(_) => self.frames().copy(cpu, leaf.frame, frame, 1),
            None => self.frames().zero(cpu, new.membership()),
        }
        let attributes = match (fault.want, from) {
            // The page is this space's, but who asked for it only reads: the first write faults and finds it exclusive. What the space has written before stays written.
            (Want::Unshare | Want::Read, Some(_)) => {
                leaf.attributes.with_rights(fault.read_only().rights()).with(fault.flags())
            }
            // The same: where a merge has put the zero page, that was written, too.
            (Want::Unshare | Want::Read, None) if leaf.attributes.has(Flags::soft_dirty(Level::Pte)) => {
                fault.read_only().with(Flags::soft_dirty(Level::Pte))
            }
            (Want::Unshare | Want::Read, None) => fault.read_only(),
            (Want::Write | Want::ForcedWrite, _) => fault.attributes(),
        };
        let attributes = self.keep_uffd_wp(attributes, leaf.attributes);
        let Some(entry) = (Leaf { frame, attributes, presence: fault.presence() }).entry(Level::Pte) else {
            self.give_back(cpu, &new);
            return Err(fault.bad_frame(frame));
        };
        let end = fault.address.wrapping_add(PAGE_SIZE);
        self.notify().start(cpu, space, fault.address, end);
        let outcome = match self.lock_unchanged(cpu, fault, position, seen) {
            Some(mut table) => {
                table.get_and_clear(&self.protocols().write, fault.address);
                // Under the lock and before the copy is there: until then no CPU can write the copy, afterwards none reads the old page.
                self.flush_page(cpu, space, fault.address);
                new.add_rmap(cpu);
                table.fill(&self.protocols().write, fault.address, entry);
                if from.is_none() {
                    zeros_go(cpu, space, leaf);
                }
                Outcome::Mapped
            }
            None => Outcome::Changed,
        };
        self.notify().end(cpu, space, fault.address, end);
        match (outcome, from) {
            (Outcome::Changed | Outcome::Smaller | Outcome::Misplaced(_), _) => self.give_back(cpu, &new),
            (Outcome::Mapped, Some(old)) => {
                old.remove_rmap(cpu, 1);
                self.give_back(cpu, old);
            }
            (Outcome::Mapped, None) => {}
        }
        Ok(outcome)
    }

    /// Makes all TLBs forget one page of an address space.
    fn flush_page(&self, cpu: &P::Cpu, space: &AddressSpace<'_>, address: VirtAddr) {
        self.flush(cpu, space, Invalidation::page(address), Stale::Leaves);
    }
}
