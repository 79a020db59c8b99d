//! The gate page: one page outside all areas that every program can read, as x86-64's vsyscall page or the vectors of 32-bit Arm (Linux: `get_gate_page`).
//!
//! It is the kernel's, and mapped by the kernel's own page table: the address space has no entry for it, so the lockless path stops there. The slow path asks for the gate
//! where no area holds the address. It may be read and never written, not by force either; it may be pinned like other pages.

use machine::Access;
use machine::addr::{Frame, PAGE_SIZE, VirtAddr};

use crate::error::{FaultError, GupError, RangeError};
use crate::folio::{Folio, FolioFlags, NotGrabbed};
use crate::gup::Run;
use crate::gup::flags::{Foll, Request};
use crate::gup::slow::poisoned;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// Where the gate page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatePage {
    /// Its address, a multiple of 4096; it need not be one that areas can have. Where it is, an area that holds it goes first.
    pub address: VirtAddr,
    /// Its frame, which has a record, and a reference of the kernel's for ever.
    pub frame: Frame,
}

impl<P: Platform> Mm<'_, P> {
    /// A reference to the gate page, if it is at `address`, where no area is.
    ///
    /// # Errors
    /// There is nothing, or it may not be had like this.
    pub(super) fn gate_page(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'_>,
        address: VirtAddr,
        request: Request,
    ) -> Result<Run, GupError> {
        let GatePage { frame, .. } =
            space.gate_page().filter(|gate| gate.address == address).ok_or(FaultError::NoArea { address })?;
        if request.access == Access::Write {
            return Err(GupError::ReadOnlyGate { address });
        }
        if request.has(Foll::ANON) {
            return Err(GupError::NotAnonymous { address });
        }
        let folio = match Folio::try_grab(self.map(), cpu, frame, 1, request.reference) {
            Ok(folio) => folio,
            Err(NotGrabbed::CountLimit) => return Err(GupError::CountLimit { address }),
            Err(NotGrabbed::NoRecord | NotGrabbed::Free) => return Err(GupError::NotAllowed { address }),
        };
        let flags = folio.flags(cpu);
        if !flags.allow(request.term, request.access) {
            // Taken a moment ago: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, request.reference);
            let is_poisoned = flags.contains(FolioFlags::POISONED);
            return Err(if is_poisoned { poisoned(address, request) } else { GupError::NotAllowed { address } });
        }
        Ok(Run { frame, pages: 1, reference: request.reference })
    }

    /// [`Mm::tagged_range`], or just the gate page, which may lie above what user code can have.
    pub(super) fn range_or_gate(
        &self,
        space: &AddressSpace<'_>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(VirtAddr, VirtAddr), RangeError> {
        let is_gate = pages == 1 && space.gate_page().is_some_and(|gate| gate.address == start);
        match self.tagged_range(space, start, pages) {
            Err(error @ RangeError::OutsideUser { .. }) if is_gate => {
                Ok((start, start.checked_add(PAGE_SIZE).ok_or(error)?))
            }
            range => range,
        }
    }
}
