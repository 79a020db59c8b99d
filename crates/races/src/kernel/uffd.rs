//! The reader of the userfaultfds: the columns that resolve faults, whenever they come to it.

use machine::{Cpu, Frame, VirtAddr, Word64};
use mm::{AddressSpace, SpaceId, UffdFault, UffdFillError, UffdHandler, UffdProtection};
use pagetable::Mode;

use super::run::Runner;
use crate::checker::CheckedCpu;

/// Where faults wait.
pub(super) struct LabUffd<'l> {
    /// How often somebody has woken whoever waits; `None` if no area is registered.
    pub(super) wakes: Option<&'l Word64>,
}

impl<C: Cpu> UffdHandler<C> for LabUffd<'_> {
    fn wait(&self, cpu: &C, _: &AddressSpace<'_>, _: UffdFault, must_wait: impl FnOnce() -> bool) {
        let Some(wakes) = self.wakes else { return };
        // From here on the fault is known: who wakes later is noticed.
        let known = cpu.load(wakes);
        if must_wait() {
            cpu.await_value(wakes, |now| now != known);
        }
    }

    fn wake(&self, cpu: &C, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {
        if let Some(wakes) = self.wakes {
            cpu.fetch_add(wakes, 1);
        }
    }
}

impl<'m, M: Mode, C: CheckedCpu> Runner<'_, 'm, M, C> {
    /// Resolves missing pages: new ones come, that hold this word.
    pub(super) fn uffd_copy(
        &self,
        space: SpaceId,
        (start, pages): (VirtAddr, u64),
        (word, protection): (u64, UffdProtection),
    ) -> Result<(), UffdFillError> {
        let fill = |_: u64, frame: Frame| {
            for place in self.mm.frames().contents(frame, 1) {
                self.cpu.store(place, word);
            }
        };
        self.mm.uffd_copy(self.cpu, self.space(space), (start, pages), protection, fill)
    }
}
