//! Pinned objects stay where they are (Linux: `ttm_bo_pin`).

use crate::device::Device;
use crate::driver::{CpuOf, Driver};
use crate::error::PinError;
use crate::object::Reserved;
use crate::place::Place;
use crate::ww::AcquireContext;

impl<'d, D: Driver> Device<'d, D> {
    /// Moves an object to one of `places` if it is in none of them, and pins it: until it is unpinned as often, nobody moves, evicts or swaps it out.
    ///
    /// Its frames are there on return, but an engine may have yet to fill them: see [`Self::wait`].
    ///
    /// Context: as for [`Self::validate`].
    ///
    /// # Errors
    /// Nothing is pinned.
    pub fn pin(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        places: &[Place],
        context: Option<&AcquireContext<'_, CpuOf<D>>>,
    ) -> Result<(), PinError> {
        let pins = reserved.pins().checked_add(1).ok_or(PinError::TooManyPins)?;
        self.validate(reserved, places, context)?;
        self.populate(reserved)?;
        let (cpu, kind) = (reserved.cpu(), reserved.placed().kind);
        self.parts.kinds[kind.index()].unlist(cpu, self.parts.objects, reserved.index, kind);
        reserved.object.set_pins(cpu, pins);
        Ok(())
    }

    /// Takes one pin back. With the last, the object can be moved again.
    ///
    /// # Errors
    /// It is not pinned, or by importers only: their pins go when they are detached. Nothing has changed.
    pub fn unpin(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>) -> Result<(), PinError> {
        if reserved.pins() <= self.attachments.count_static(reserved.cpu(), reserved.index) {
            return Err(PinError::NotPinned);
        }
        self.take_pin(reserved)
    }

    /// Takes one pin back, whosever it is.
    pub(crate) fn take_pin(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>) -> Result<(), PinError> {
        let pins = reserved.pins().checked_sub(1).ok_or(PinError::NotPinned)?;
        reserved.object.set_pins(reserved.cpu(), pins);
        self.used_just_now(reserved);
        Ok(())
    }
}
