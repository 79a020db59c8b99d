//! From a folio to the entries that map it (Linux: `rmap_walk`, `page_vma_mapped_walk`).

use machine::ReadGuard;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Level, LockedTable};

use crate::error::ZapError;
use crate::file::File;
use crate::folio::{FolioMapping, Membership};
use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::notify::Notify;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// What a walk is going to do to the entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intent {
    /// Take pages or rights away: secondary TLBs are told.
    Take,
    /// Look, or put pages where none are.
    LookOrGive,
}

/// An entry that a walk by rmap has come to. The lock of its table is held.
pub(super) struct At<'e, 'm, 't, P: Platform> {
    pub(super) space: &'m AddressSpace<'m>,
    pub(super) table: &'e mut LockedTable<'t, P::Cpu>,
    pub(super) level: Level,
    /// The first address that the entry translates.
    pub(super) address: VirtAddr,
    /// What it holds.
    pub(super) held: Held,
}

/// The walk goes on, or ends.
pub(super) type Step = core::ops::ControlFlow<()>;

impl<'m, P: Platform> Mm<'m, P> {
    /// Visits every entry in every address space that a page of this folio belongs at: `order` and `mapping` say which those are. The entry may hold
    /// something else; the visitor looks.
    ///
    /// Context: interrupts on, no rmap lock, no page-table lock. The folio is locked, so that its mapping stays.
    ///
    /// # Errors
    /// A page table was malformed: entries behind were not visited.
    pub(super) fn for_each_place(
        &self,
        cpu: &P::Cpu,
        mapping: FolioMapping,
        order: u8,
        intent: Intent,
        visit: impl FnMut(At<'_, 'm, '_, P>) -> Step,
    ) -> Result<(), ZapError> {
        let Some(file) = self.file(mapping.file) else { return Ok(()) };
        let rmap = file.rmap_lock().read(cpu);
        let result = self.for_each_place_under(cpu, &rmap, file, (mapping.page, order), intent, visit);
        rmap.unlock();
        result
    }

    /// [`Self::for_each_place`] for a caller that holds the file's rmap lock: between two walks no area comes or goes, and no fork copies entries.
    pub(super) fn for_each_place_under(
        &self,
        cpu: &P::Cpu,
        _rmap: &ReadGuard<'_, P::Cpu>,
        file: &File<'m>,
        (page, order): (u64, u8),
        intent: Intent,
        mut visit: impl FnMut(At<'_, 'm, '_, P>) -> Step,
    ) -> Result<(), ZapError> {
        // Tables of mapped areas stay: whoever frees tables forgets the area first, under this lock.
        let mut result = Ok(());
        let mut step = Step::Continue(());
        for at in file.mappings(cpu) {
            let Some((start, end)) = at.addresses(page, 1 << order) else { continue };
            let Some(space) = self.space(at.space) else { continue };
            if step.is_break() {
                break;
            }
            if intent == Intent::Take {
                self.notify().start(cpu, space, start, end);
            }
            // Not `for_each_table`, which settles flushes that are owed: here is where they come from.
            let walked: Result<(), ZapError> = self.for_each_own_table(cpu, space, (start, end), |mut table, run| {
                let level = table.level();
                for address in run.addresses(level) {
                    if step.is_break() {
                        break;
                    }
                    let held = self.held(level, table.entry(&self.protocols().mode, address));
                    step = visit(At { space, table: &mut table, level, address, held });
                }
                table.unlock();
            });
            if intent == Intent::Take {
                self.notify().end(cpu, space, start, end);
            }
            result = result.and(walked);
        }
        result
    }

    /// Visits every leaf that maps a page of the folio, PROT_NONE ones too (Linux: `rmap_walk`).
    ///
    /// Context, errors: as for [`Self::for_each_place`].
    pub(super) fn for_each_mapping(
        &self,
        cpu: &P::Cpu,
        mapping: FolioMapping,
        folio: Membership,
        intent: Intent,
        mut visit: impl FnMut(At<'_, 'm, '_, P>, Leaf) -> Step,
    ) -> Result<(), ZapError> {
        self.for_each_place(cpu, mapping, folio.order, intent, |at| match at.held {
            Held::Page(leaf) if contains(folio, leaf.frame) => visit(at, leaf),
            _ => Step::Continue(()),
        })
    }

    /// [`Self::for_each_mapping`] of a merged folio, whose mappings are not where its record says: all areas of all files are walked, one file after the other (Linux has a list of places for each,
    /// `rmap_walk_ksm`). As the folio is locked, no merge adds one; a fork or a move of pages stays within a file, and what it makes of an entry that was visited is what the visitor left there.
    ///
    /// Context, errors: as for [`Self::for_each_place`].
    pub(super) fn for_each_mapping_anywhere(
        &self,
        cpu: &P::Cpu,
        folio: Membership,
        intent: Intent,
        mut visit: impl FnMut(At<'_, 'm, '_, P>, Leaf) -> Step,
    ) -> Result<(), ZapError> {
        let mut result = Ok(());
        for file in self.files() {
            let rmap = file.rmap_lock().read(cpu);
            let walked = self.for_each_place_under(cpu, &rmap, file, EVERY_PAGE, intent, |at| match at.held {
                Held::Page(leaf) if contains(folio, leaf.frame) => visit(at, leaf),
                _ => Step::Continue(()),
            });
            rmap.unlock();
            result = result.and(walked);
        }
        result
    }
}

/// All pages that a file can have: the first, and the order of how many.
const EVERY_PAGE: (u64, u8) = (0, 63);

/// Whether the frame is one of the folio's.
pub(super) const fn contains(folio: Membership, frame: Frame) -> bool {
    frame.number().wrapping_sub(folio.head.number()) < 1 << folio.order
}
