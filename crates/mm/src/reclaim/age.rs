//! Was a folio used? (Linux: `folio_referenced`.)

use machine::Cpu;
use machine::addr::Frame;
use pagetable::Flags;

use crate::error::ReclaimError;
use crate::folio::FolioFlags;
use crate::folio_lock::FolioLock;
use crate::leaf::Presence;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::rmap::{Intent, Step};

impl<P: Platform> Mm<'_, P> {
    /// How many entries of the folio that `frame` belongs to were used since the last call, plus one if somebody said that it was used
    /// ([`FolioFlags::REFERENCED`]). Forgets that.
    ///
    /// TLBs are not flushed: what a TLB holds may be used without the bit being set again, so that a busy folio may look idle once. It is a hint;
    /// nothing is lost by it.
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock.
    ///
    /// # Errors
    /// The frame is no folio's, or the folio belongs nowhere.
    pub fn age(&self, cpu: &P::Cpu, frame: Frame) -> Result<u32, ReclaimError> {
        let folio = self.reclaim_begin(cpu, frame)?;
        let lock = FolioLock::take(cpu, &folio);
        let mut used = 0;
        let result = self.home(cpu, &folio).and_then(|home| {
            self.for_each_mapping(cpu, home.mapping, folio.membership(), Intent::LookOrGive, |at, leaf| {
                if leaf.presence == Presence::Present && leaf.attributes.has(Flags::ACCESSED) {
                    at.table.clear_flags(&self.protocols().write, at.address, Flags::ACCESSED);
                    used += 1;
                }
                Step::Continue(())
            })
            .map_err(ReclaimError::Table)
        });
        let before = cpu.fetch_and(folio.head_page().flags_word(), !FolioFlags::REFERENCED.bits());
        used += u32::from(before & FolioFlags::REFERENCED.bits() != 0);
        lock.unlock();
        self.drop_own_reference(cpu, &folio);
        result.map(|()| used)
    }
}
