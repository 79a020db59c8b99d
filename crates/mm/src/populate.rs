//! Mapping the pages of a range before they are accessed.

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu};

use crate::error::{FaultError, PopulateError};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::protection_keys::Accessor;
use crate::space::AddressSpace;
use crate::special::Attempt;

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps `pages` pages from `start` on, as if each was accessed (Linux: MADV_POPULATE_READ, MADV_POPULATE_WRITE). What is mapped already costs a walk.
    ///
    /// Whoever takes pages away meanwhile may take these, too. Waits where an access would, for a driver or a userfaultfd.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// What a fault met, and where. The pages before are mapped.
    pub fn populate(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
        access: Access,
    ) -> Result<(), PopulateError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mut at = start;
        let mut result = Ok(());
        let mut attempt = Attempt::First;
        let head = cpu.loop_head();
        while at < end && result.is_ok() {
            cpu.round(&head, at.as_u64() | attempt as u64);
            let mmap = space.mmap_read(cpu, (at, end));
            while at < end && result.is_ok() {
                result = self.fault_in(cpu, space, at, access.into(), attempt, Accessor::ThisThread).map(|()| {
                    at = at.wrapping_add(PAGE_SIZE);
                    attempt = Attempt::First;
                });
            }
            mmap.unlock();
            result = result.or_else(|error| {
                attempt = self.wait_for_resolution(cpu, space, error)?;
                Ok(())
            });
        }
        result.map_err(|error: FaultError| PopulateError::Fault {
            pages: (at.as_u64() - start.as_u64()) / PAGE_SIZE,
            error,
        })
    }
}
