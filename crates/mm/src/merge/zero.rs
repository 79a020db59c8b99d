//! Pages of zeros become the zero page (Linux: `use_zero_pages`).

use machine::Cpu;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Entry, Flags, Level, Rights};

use crate::folio::Folio;
use crate::frames::FrameSource;
use crate::leaf::Leaf;
use crate::merge::error::{MergeError, Unmergeable};
use crate::merge::place::{At, Isolated};
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;
use crate::space::{AddressSpace, SpaceId};

/// Whether an entry with the zero page is one that a merge has put there.
pub(super) fn is_merged(zero: &Leaf) -> bool {
    zero.attributes.has(MERGED)
}

/// An entry with the zero page came into a table of the address space. The page-table lock is held under which it did, so that nobody takes it out before it is counted.
pub(crate) fn zeros_come<C: Cpu>(cpu: &C, space: &AddressSpace<'_>, zero: &Leaf) {
    if is_merged(zero) {
        cpu.fetch_add(space.merged_zeros_word(), 1);
    }
}

/// One went out of it.
pub(crate) fn zeros_go<C: Cpu>(cpu: &C, space: &AddressSpace<'_>, zero: &Leaf) {
    if is_merged(zero) {
        cpu.fetch_add(space.merged_zeros_word(), u64::MAX);
    }
}

/// What tells it from the entries of faults for reading.
const MERGED: Flags = Flags::DIRTY;

impl<'m, P: Platform> Mm<'m, P> {
    pub(super) fn merge_into_zero_page(&self, cpu: &P::Cpu, from: (SpaceId, VirtAddr)) -> Result<Frame, MergeError> {
        let zero = self.frames().zero_page().ok_or(MergeError::Into(Unmergeable::NoZeroPage))?;
        let gone = self.at_place(cpu, from, |at| self.replace_zeros(cpu, at, zero)).map_err(MergeError::From)?;
        self.give_back_gone(cpu, &gone);
        Ok(zero)
    }

    /// The caller has two references to the folio then: its own, and the entry's.
    fn replace_zeros(&self, cpu: &P::Cpu, at: &mut At<'_, 'm, '_, P>, zero: Frame) -> Result<Folio<'m>, Unmergeable> {
        let leaf = self.mergeable_leaf(at)?;
        self.with_folio(cpu, leaf.frame, |folio, _| {
            let isolated = self.isolate(cpu, at, folio, &leaf)?;
            if !self.frames().equal(cpu, zero, leaf.frame) {
                self.put_back(cpu, at, &isolated, isolated.entry);
                return Err(Unmergeable::Different);
            }
            let merged = self.merged_zeros(&isolated, zero);
            // The zero page's frame is in entries of this level wherever memory was read first.
            self.put_back(cpu, at, &isolated, merged.entry(Level::Pte).unwrap_or(Entry::NONE));
            zeros_come(cpu, at.space, &merged);
            Ok(())
        })
    }

    /// The leaf with the zero page in the place of a page that goes. What was written there counts as written still.
    fn merged_zeros(&self, isolated: &Isolated, zero: Frame) -> Leaf {
        let leaf = isolated.leaf;
        let attributes = leaf.attributes.with_rights(leaf.attributes.rights().without(Rights::WRITE));
        let attributes = attributes.with(MERGED).with_mark(self.protocols().special.mark());
        Leaf { frame: zero, attributes, ..leaf }
    }
}
