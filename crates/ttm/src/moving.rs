//! From one place to another (Linux: `ttm_bo_validate`, `ttm_bo_handle_move_mem`, `ttm_bo_move_accel_cleanup`).
//!
//! # Protocol
//!
//! The object is reserved throughout, so that no fault maps it and nobody else moves it. Then
//!
//! 1. room is made in the new place, and frames are allocated if it lies in pages of the system;
//! 2. importers are told, and the object is taken out of all address spaces: on return no CPU can write to it;
//! 3. engines that use it are waited for;
//! 4. the engine copies;
//! 5. the object is in the new place *from the fence on*: who wants to use it there waits for the fence first. What it leaves is given back
//!    once the fence is reached, not before: the engine still reads it.
//!
//! If the fence of step 4 says nothing, the object stays in its old place, and the new one goes into quarantine: see `quarantine`.
//!
//! Until step 4 has begun, everything can be given back. That is why what step 5 needs (a slot for the range on its way out) is claimed before.

use crate::device::Device;
use crate::driver::{CpuOf, Driver, Work};
use crate::error::{MoveError, Refused};
use crate::fence::{Fence, Usage};
use crate::ghost::{Claim, Ghost};
use crate::object::{PagesState, Reserved};
use crate::pages::Contents;
use crate::place::{Kind, Place, Placed};
use crate::ww::AcquireContext;

/// What came of [`Device::validate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// The object was where it should be.
    Not,
    /// It moved, or is moving: see [`Device::wait`].
    From(Placed),
}

impl<'d, D: Driver> Device<'d, D> {
    /// Sees to it that an object is in one of `places`, the first that can be had: first without evicting others, then, where a place says so, by evicting
    /// what was used longest ago.
    ///
    /// With a `context`, room is also made of objects that others have reserved, by waiting for them.
    ///
    /// Context: interrupts on, no spin lock, no rmap lock. `context` is that by which the object was reserved.
    ///
    /// # Errors
    /// The object is where it was (or, if the engine needs two hops, half way), and nothing is lost. With [`MoveError::Lock`] everything is to be
    /// given back and tried again.
    pub fn validate(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        places: &[Place],
        context: Option<&AcquireContext<'_, CpuOf<D>>>,
    ) -> Result<Moved, MoveError> {
        let (pages, from) = (reserved.pages(), reserved.placed());
        if let Some(bad) = places.iter().find(|place| !self.is_good(place, pages)) {
            return Err(MoveError::BadPlace(*bad));
        }
        if places.iter().any(|place| from.suits(place, pages)) {
            self.used_just_now(reserved);
            return Ok(Moved::Not);
        }
        if reserved.pins() > 0 {
            return Err(MoveError::Pinned);
        }
        if reserved.is_quarantined() {
            return Err(MoveError::Quarantined);
        }
        let to = self.make_room(reserved.cpu(), pages, places, context)?;
        self.relocate(reserved, to)?;
        Ok(Moved::From(from))
    }

    pub(crate) fn is_good(&self, place: &Place, pages: u64) -> bool {
        let Some(resource) = self.resource(place.kind) else { return false };
        let end = place.end.min(resource.backing().pages());
        let fits = place.first.checked_add(pages).is_some_and(|last| last <= end);
        place.alignment.is_power_of_two() && (place.kind == Kind::SYSTEM || fits)
    }

    /// Moves an object into room that was taken for it. If that fails, the room is given back.
    pub(crate) fn relocate(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, to: Placed) -> Result<(), MoveError> {
        let result = match self.transfer(reserved, to) {
            Err(MoveError::Refused(Refused::Hop(via))) => self.hop(reserved, via, to),
            result => result,
        };
        self.unless_moved(reserved, to, result)
    }

    /// Moves an object by way of a third kind (Linux: `ttm_bo_bounce_temp_buffer`).
    fn hop(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, via: Kind, to: Placed) -> Result<(), MoveError> {
        let refused = MoveError::Refused(Refused::Hop(via));
        let place = Place::anywhere(via);
        if via == to.kind || via == reserved.placed().kind || !self.is_good(&place, reserved.pages()) {
            return Err(refused);
        }
        let middle = self.make_room(reserved.cpu(), reserved.pages(), &[place], None)?;
        let result = self.transfer(reserved, middle);
        self.unless_moved(reserved, middle, result)?;
        self.transfer(reserved, to)
    }

    /// Gives room back that nobody moved into.
    fn unless_moved(
        &self,
        reserved: &Reserved<'_, 'd, CpuOf<D>>,
        to: Placed,
        result: Result<(), MoveError>,
    ) -> Result<(), MoveError> {
        let cpu = reserved.cpu();
        if result.is_err() && reserved.object.lost(cpu) != Some(to) {
            self.parts.kinds[to.kind.index()].free(cpu, to.start);
        }
        result
    }

    pub(crate) fn is_pages(&self, placed: Placed) -> bool {
        self.parts.kinds[placed.kind.index()].backing().is_pages()
    }

    /// One move, without a hop.
    fn transfer(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, to: Placed) -> Result<(), MoveError> {
        let (cpu, from) = (reserved.cpu(), reserved.placed());
        self.notify_importers(reserved);
        self.unmap(reserved)?;
        self.wait(reserved, Usage::Kernel);
        if self.is_pages(from) && self.is_pages(to) {
            // The same frames, bound to the aperture or not.
            self.parts.kinds[from.kind.index()].free(cpu, from.start);
            self.arrive(reserved, to);
            return Ok(());
        }
        if self.is_pages(to) {
            self.make_pages(reserved, Contents::Overwritten)?;
        } else if reserved.object.pages_state(cpu) == PagesState::Swapped {
            self.populate(reserved)?;
        }
        let claim = if from.kind == Kind::SYSTEM { None } else { self.ghosts.claim(cpu) };
        match self.begin_copy(reserved, to) {
            Ok(Work::Done) => {
                if let Some(claim) = claim {
                    self.ghosts.unclaim(cpu, claim);
                }
                self.leave_now(reserved, to);
            }
            Ok(Work::Until(fence)) => match self.add_fence(reserved, fence, Usage::Kernel) {
                Ok(()) => self.leave_later(reserved, fence, claim),
                Err(error) => {
                    if let Some(claim) = claim {
                        self.ghosts.unclaim(cpu, claim);
                    }
                    self.quarantine(reserved, to);
                    return Err(error.into());
                }
            },
            Err(refused) => {
                if let Some(claim) = claim {
                    self.ghosts.unclaim(cpu, claim);
                }
                if self.is_pages(to) {
                    self.release_pages(reserved);
                }
                return Err(MoveError::Refused(refused));
            }
        }
        self.arrive(reserved, to);
        Ok(())
    }

    fn begin_copy(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, to: Placed) -> Result<Work, Refused> {
        let (cpu, object, from) = (reserved.cpu(), reserved.object, reserved.placed());
        let target = self.extent(object, reserved.pages(), to);
        if self.is_pages(from) && object.pages_state(cpu) == PagesState::Empty {
            return self.driver().clear(cpu, &target);
        }
        self.driver().copy(cpu, &self.extent(object, reserved.pages(), from), &target)
    }

    /// The object has left its place, and nobody reads there any more.
    fn leave_now(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, to: Placed) {
        let (cpu, from) = (reserved.cpu(), reserved.placed());
        self.parts.kinds[from.kind.index()].free(cpu, from.start);
        if self.is_pages(from) && !self.is_pages(to) {
            self.release_pages(reserved);
        }
    }

    /// The object is leaving its place, and is out of it when the fence is reached.
    fn leave_later(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, fence: Fence, claim: Option<Claim<'d>>) {
        let (cpu, from) = (reserved.cpu(), reserved.placed());
        if self.is_pages(from) && reserved.object.pages_state(cpu) == PagesState::Populated {
            reserved.object.set_pages_state(cpu, PagesState::Leaving);
        }
        let resource = &self.parts.kinds[from.kind.index()];
        match claim {
            Some(claim) => self.ghosts.fill(cpu, claim, Ghost { placed: from, fence }),
            None if from.kind == Kind::SYSTEM => {}
            None => {
                self.wait_for(cpu, fence);
                resource.free(cpu, from.start);
            }
        }
    }

    /// The object is in its new place.
    fn arrive(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, to: Placed) {
        let (cpu, from) = (reserved.cpu(), reserved.placed());
        self.parts.kinds[from.kind.index()].unlist(cpu, self.parts.objects, reserved.index, from.kind);
        reserved.object.set_placed(cpu, to);
        self.used_just_now(reserved);
    }

    /// Takes the object out of all address spaces (Linux: `ttm_bo_unmap_virtual`). What was written to it is noted first: entries that are gone say nothing.
    ///
    /// # Errors
    /// A page table holds what it must not.
    pub(crate) fn unmap(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        self.note_writes(reserved)?;
        let first = self.offset(reserved.index);
        Ok(self.mm().unmap_mapping(reserved.cpu(), self.file, first, reserved.pages())?)
    }
}
