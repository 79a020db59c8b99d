//! Folios of the kernel itself: a driver's memory.

use machine::addr::Frame;
use pagetable::OutOfFrames;

use crate::error::ReleaseError;
use crate::folio::{Folio, FolioFlags, Membership, Reference};
use crate::frames::{FrameSource, allocate_folio};
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform> Mm<'_, P> {
    /// Allocates `1 << order` frames, aligned to their size, that belong to no file. The caller has the only reference, and gives it back by [`Self::free_folio`].
    ///
    /// The contents are zeros.
    ///
    /// Context: any that the platform allows for [`FrameSource::allocate`].
    ///
    /// # Errors
    /// There are none.
    pub fn allocate_folio(&self, cpu: &P::Cpu, order: u8) -> Result<Frame, OutOfFrames> {
        let folio = allocate_folio(self.map(), self.frames(), cpu, order, FolioFlags::SHMEM, None)?;
        self.frames().zero(cpu, folio.membership());
        Ok(folio.membership().head)
    }

    /// Gives back the reference to a folio that [`Self::allocate_folio`] gave. It is free once nobody else has one.
    ///
    /// Context: any that the platform allows for [`crate::MemoryMap::release`].
    ///
    /// # Errors
    /// The frame has no record, or its folio no reference: given back twice? Nothing was changed.
    pub fn free_folio(&self, cpu: &P::Cpu, frame: Frame) -> Result<Membership, ReleaseError> {
        let folio = Folio::held(self.map(), cpu, frame).ok_or(ReleaseError::NoRecord(frame))?;
        let membership = folio.membership();
        folio.put(cpu, self.map(), 1, Reference::Get).map_err(ReleaseError::Underflow)?;
        Ok(membership)
    }
}
