//! Huge pages of anonymous memory.
//!
//! Where nothing is mapped in 2 MiB that lie inside one area, a fault maps one huge page; if none can be had, a small one. There is no huge zero page:
//! a read allocates, too.
//!
//! A write to a huge page that is shared does not copy 2 MiB: the leaf is split, and the fault finds a small page to copy (Linux: `do_huge_pmd_wp_page`
//! since v5.8).

use pagetable::{Entry, Level, MapError, WalkError};

use crate::error::{FaultError, SplitError};
use crate::exclusive::{Exclusivity, exclusivity, make_exclusive};
use crate::fault::{Fault, Outcome, Want};
use crate::folio::{Folio, FolioFlags, FolioMapping};
use crate::frames::{FrameSource, allocate_folio};
use crate::guard::Guards;
use crate::huge::HUGE_ORDER;
use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::uffd::UffdReason;

/// Whose a huge page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ownership {
    /// This address space's alone.
    Exclusive,
    /// Perhaps others', too.
    Shared,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps a huge page where nothing is mapped yet, if it fits into the area and can be had; `None` if a small page is to be mapped instead.
    pub(super) fn fault_huge(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
    ) -> Result<Option<Outcome>, FaultError> {
        let Some(huge) = fault.widened() else { return Ok(None) };
        let tables = self.page_tables(space);
        let publish = &self.protocols().publish;
        let position = match tables.populate(cpu, self.tables(), publish, huge.address, huge.level) {
            Ok(position) => position,
            Err(MapError::Walk(WalkError::Leaf { .. } | WalkError::NotPresent { .. })) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !position.slot().read(cpu, &self.protocols().read).is_none() {
            return Ok(None);
        }
        let flags = FolioFlags::ANON.and(FolioFlags::EXCLUSIVE);
        let mapping = FolioMapping { file: huge.area.file, page: huge.file_page() };
        let Ok(folio) = allocate_folio(self.map(), self.frames(), cpu, HUGE_ORDER, flags, Some(mapping)) else {
            return Ok(None);
        };
        self.frames().zero(cpu, folio.membership());
        let frame = folio.membership().head;
        let Ok(entry) = Entry::leaf(huge.level, frame, huge.attributes()) else {
            self.give_back(cpu, &folio);
            return Err(huge.bad_frame(frame));
        };
        match self.lock_unchanged(cpu, &huge, &position, Entry::NONE) {
            Some(mut table) => {
                folio.add_rmap(cpu);
                table.fill(&self.protocols().write, huge.address, entry);
                Ok(Some(Outcome::Mapped))
            }
            None => {
                self.give_back(cpu, &folio);
                Ok(Some(Outcome::Changed))
            }
        }
    }

    /// A fault where a huge leaf, or a huge page's non-present entry, was found without a lock.
    ///
    /// # Errors
    /// What is there cannot be accessed, or there is no frame for a table.
    pub(super) fn fault_on_huge(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
    ) -> Result<Outcome, FaultError> {
        let huge = fault.at(Level::Pmd);
        let Ok(position) = self.page_tables(space).find(cpu, huge.address, huge.level) else {
            return Err(fault.occupied());
        };
        // The mmap lock is held: no table is detached. Who splits the leaf holds this lock until the table is there.
        let mut table = position.lock(cpu);
        let found = table.entry(&self.protocols().mode, huge.address);
        let leaf = match self.held(huge.level, found) {
            Held::Nothing | Held::Table => return Ok(Outcome::Changed),
            Held::Page(leaf) if self.is_misplaced(cpu, &huge, &leaf) => return Ok(Outcome::Misplaced(leaf.frame)),
            Held::Page(leaf) => leaf,
            held => return self.non_present(table, &huge, found, held),
        };
        if self.hands_over_write(&huge, Held::Page(leaf)) {
            return Err(fault.handed_over(UffdReason::WriteProtected));
        }
        match (huge.want, self.huge_ownership(cpu, &leaf).ok_or(huge.bad_frame(leaf.frame))?) {
            (_, Ownership::Exclusive) => self.restore(&mut table, &huge, &leaf, huge.attributes()),
            (Want::Read, Ownership::Shared) => self.restore(&mut table, &huge, &leaf, huge.read_only()),
            (Want::Write | Want::ForcedWrite | Want::Unshare, Ownership::Shared) => {
                table.unlock();
                return match self.split_leaf_under_lock(cpu, space, huge.address) {
                    Ok(_) | Err(SplitError::NotHuge { .. }) => Ok(Outcome::Changed),
                    Err(SplitError::OutOfFrames) => Err(FaultError::OutOfFrames),
                    Err(SplitError::Malformed(error)) => Err(error.into()),
                };
            }
        }
        Ok(Outcome::Mapped)
    }

    /// Whose the page of a huge leaf is. Makes it this address space's if that is its only user. Under the page-table lock.
    fn huge_ownership(&self, cpu: &P::Cpu, leaf: &Leaf) -> Option<Ownership> {
        let folio = Folio::held(self.map(), cpu, leaf.frame)?;
        let flags = folio.flags(cpu);
        if !flags.contains(FolioFlags::ANON) {
            return Some(Ownership::Shared);
        }
        if exclusivity(self.map(), cpu, leaf.frame) == Exclusivity::Exclusive {
            return Some(Ownership::Exclusive);
        }
        if folio.membership().order == HUGE_ORDER
            && !flags.contains(FolioFlags::SWAP_BACKED)
            && self.protocols().guards.is_only_user(folio.references(cpu), folio.mappings(cpu))
        {
            make_exclusive(self.map(), cpu, leaf.frame);
            return Some(Ownership::Exclusive);
        }
        Some(Ownership::Shared)
    }
}

impl Fault {
    /// The same fault, to be resolved by a leaf of another level.
    const fn at(&self, level: Level) -> Self {
        Self { level, address: self.address.align_down(level.size()), ..*self }
    }

    /// The same fault, to be resolved by a huge leaf; `None` if that would reach beyond the area.
    fn widened(&self) -> Option<Self> {
        let huge = self.at(Level::Pmd);
        let fits =
            huge.area.start <= huge.address && huge.area.end().as_u64() - huge.address.as_u64() >= Level::Pmd.size();
        // A forced write is about one page.
        (fits && huge.want != Want::ForcedWrite).then_some(huge)
    }
}
