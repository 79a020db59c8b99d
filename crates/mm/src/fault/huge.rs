//! Huge pages of anonymous memory.

use crate::error::FaultError;
use crate::fault::{Fault, Outcome};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps a huge page where nothing is mapped yet, if the area allows it and it fits; `None` if a small page is to be mapped instead.
    ///
    /// No huge page is ever to be had for now.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the place for it is kept free")]
    pub(super) fn fault_huge(
        &self,
        _cpu: &P::Cpu,
        _space: &AddressSpace<'m>,
        _fault: &Fault,
    ) -> Result<Option<Outcome>, FaultError> {
        Ok(None)
    }

    /// A fault where a huge leaf, or a huge page's non-present entry, is.
    ///
    /// # Errors
    /// [`FaultError::Occupied`]: private areas have no huge leaves for now.
    #[expect(clippy::unused_self, reason = "the place for it is kept free")]
    pub(super) fn fault_on_huge(
        &self,
        _cpu: &P::Cpu,
        _space: &AddressSpace<'m>,
        fault: &Fault,
    ) -> Result<Outcome, FaultError> {
        Err(fault.occupied())
    }
}
