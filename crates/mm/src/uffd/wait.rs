//! What a fault does that cannot be resolved here and now.

use machine::addr::VirtAddr;
use pagetable::{Level, WalkError};

use crate::error::FaultError;
use crate::guard::Guards;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::{Attempt, DriverFault};
use crate::uffd::{UffdFault, UffdHandler, UffdReason};

impl<'m, P: Platform> Mm<'m, P> {
    /// Waits for what a fault must wait for, a driver or a userfaultfd's reader. Afterwards the access is tried again from the beginning: even the area may be another. Returns which attempt that is, for a driver.
    ///
    /// Context: no lock, interrupts on.
    ///
    /// # Errors
    /// The fault is not one that waiting helps.
    pub(crate) fn wait_for_resolution(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        error: FaultError,
    ) -> Result<Attempt, FaultError> {
        let guards = &self.protocols().guards;
        match error {
            FaultError::DriverBusy { file, page } => {
                self.drivers().wait(cpu, file, page);
                Ok(guards.attempt_after_wait())
            }
            FaultError::HandedOver(fault) => {
                let must_wait = || guards.still_unresolved(|| self.is_unresolved(cpu, space, fault));
                self.uffd().wait(cpu, space, fault, must_wait);
                Ok(Attempt::First)
            }
            error => Err(error),
        }
    }

    /// Whether an access that faulted would fault again, and be handed over again.
    fn is_unresolved(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, fault: UffdFault) -> bool {
        let mmap = space.mmap_read(cpu, (fault.address, fault.address));
        let is_registered = space.find(cpu, fault.address).is_some_and(|area| area.uffd.has(fault.reason.mode()));
        let is_unresolved = is_registered && {
            let held = self.held_at(cpu, space, fault.address);
            match fault.reason {
                UffdReason::Missing => held == Some(Held::Nothing),
                UffdReason::WriteProtected => held.is_some_and(|held| self.is_uffd_wp(held)),
            }
        };
        mmap.unlock();
        is_unresolved
    }

    /// What is at an address, read without a page-table lock; `None` if a table is malformed. The caller holds the mmap lock, and the table is not shared.
    fn held_at(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, address: VirtAddr) -> Option<Held> {
        match self.page_tables(space).find(cpu, address, Level::Pte) {
            Ok(position) => Some(self.held(Level::Pte, position.slot().read(cpu, &self.protocols().read))),
            Err(WalkError::NotPresent { level, entry, .. } | WalkError::Leaf { level, entry, .. }) => {
                Some(self.held(level, entry))
            }
            Err(_) => None,
        }
    }
}

impl FaultError {
    /// Whether it is over by itself, if it is waited for.
    pub(crate) const fn can_be_waited_for(&self) -> bool {
        matches!(self, Self::DriverBusy { .. } | Self::HandedOver(_))
    }
}
