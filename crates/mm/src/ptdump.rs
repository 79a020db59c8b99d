//! ptdump of an address space: see [`pagetable::ptdump`].

use core::ops::ControlFlow;

use machine::addr::VirtAddr;
use pagetable::ptdump::{Run, ptdump};

use crate::error::RangeError;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<P: Platform> Mm<'_, P> {
    /// Tells `each` how `pages` pages from `start` on are mapped: runs of neighbours that are mapped alike, in order and without a gap. `each` may end it.
    ///
    /// Context: any in which `each` may run; no lock is needed, and none is taken. With [`crate::lifetime::ByInterrupt`], `space` is active on this CPU
    /// ([`Mm::enter`]), as for [`Mm::gup`].
    ///
    /// # Errors
    /// The range cannot be meant. Nothing was told.
    pub fn ptdump<B>(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'_>,
        (start, pages): (VirtAddr, u64),
        each: impl FnMut(Run) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, RangeError> {
        let end = self.page_range(start, pages)?;
        let range = (start, end.as_u64() - start.as_u64());
        let protocols = self.protocols();
        let told = ptdump(cpu, &protocols.mode, self.tables(), &protocols.read, space.root(), range, each);
        // All of user code's addresses are translated.
        told.map_err(|_| RangeError::OutsideUser { address: start, pages })
    }
}
