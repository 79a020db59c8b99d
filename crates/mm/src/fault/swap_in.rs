//! Bringing a page back from swap.

use pagetable::{Entry, Position, Swap};

use crate::error::FaultError;
use crate::fault::{Fault, Outcome};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::swap::{SwapError, SwapPlace};

impl<P: Platform> Mm<'_, P> {
    /// Maps the page that `seen`, an entry that was read at `position` without a lock, says is on swap.
    ///
    /// # Errors
    /// [`FaultError::Swap`]: pages cannot be brought back for now.
    #[expect(clippy::unused_self, reason = "the place for it is kept free")]
    pub(super) fn swap_in(
        &self,
        _cpu: &P::Cpu,
        fault: &Fault,
        _position: &Position<'_>,
        _seen: Entry,
        swap: Swap,
    ) -> Result<Outcome, FaultError> {
        let place = SwapPlace { device: swap.device, offset: swap.offset };
        Err(FaultError::Swap { address: fault.address, error: SwapError::Device(place) })
    }
}
