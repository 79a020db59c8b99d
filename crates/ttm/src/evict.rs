//! Making room: what was used longest ago leaves (Linux: `ttm_bo_mem_space`, `ttm_bo_evict_first`).

use machine::Cpu;

use crate::device::Device;
use crate::driver::{CpuOf, Driver, Worth};
use crate::error::MoveError;
use crate::object::{Object, Reserved};
use crate::place::{Kind, Place, Placed, Pressure};
use crate::range::NoRoom;
use crate::ww::AcquireContext;

/// What can be done about a kind that is full.
enum Candidate<'c, 'd, C: Cpu> {
    /// Evict this object.
    Free(Reserved<'c, 'd, C>),
    /// Wait for this one, which somebody else has reserved.
    Busy(&'d Object<'d>),
}

impl<'d, D: Driver> Device<'d, D> {
    /// Takes room in the first place where some can be had.
    pub(crate) fn make_room(
        &self,
        cpu: &CpuOf<D>,
        pages: u64,
        places: &[Place],
        context: Option<&AcquireContext<'_, CpuOf<D>>>,
    ) -> Result<Placed, MoveError> {
        self.reap_ghosts(cpu);
        let mut result = Err(MoveError::NoPlace);
        for place in places {
            match self.parts.kinds[place.kind.index()].allocate(cpu, pages, place) {
                Ok(placed) => return Ok(placed),
                Err(why) => result = Err(MoveError::NoRoom { kind: place.kind, why }),
            }
        }
        for place in places.iter().filter(|place| place.pressure == Pressure::Evict) {
            result = self.make_room_in(cpu, pages, place, context);
            if !matches!(result, Err(MoveError::NoRoom { .. })) {
                break;
            }
        }
        result
    }

    /// Evicts objects until there is room.
    fn make_room_in(
        &self,
        cpu: &CpuOf<D>,
        pages: u64,
        place: &Place,
        context: Option<&AcquireContext<'_, CpuOf<D>>>,
    ) -> Result<Placed, MoveError> {
        let resource = &self.parts.kinds[place.kind.index()];
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            self.reap_ghosts(cpu);
            let why = match resource.allocate(cpu, pages, place) {
                Ok(placed) => return Ok(placed),
                Err(why) => why,
            };
            let no_room = |why| MoveError::NoRoom { kind: place.kind, why };
            // Before somebody else has to leave, what is on its way out already is waited for.
            if let Some(ghost) = self.ghosts.of_kind(cpu, place.kind) {
                self.wait_for(cpu, ghost.fence);
                continue;
            }
            match (self.candidate(cpu, place.kind, context), context) {
                (Some(Candidate::Free(mut victim)), _) => self.evict(&mut victim)?,
                (Some(Candidate::Busy(object)), Some(context)) => object.lock.lock(context)?.unlock(),
                // What left since the first attempt was given back since.
                _ => return resource.allocate(cpu, pages, place).map_err(|_| no_room(why)),
            }
        }
    }

    /// The object of this kind that was used longest ago and that nobody has reserved. Pinned objects are in no list.
    fn candidate<'c>(
        &self,
        cpu: &'c CpuOf<D>,
        kind: Kind,
        context: Option<&AcquireContext<'_, CpuOf<D>>>,
    ) -> Option<Candidate<'c, 'd, CpuOf<D>>>
    where
        'd: 'c,
    {
        let mut busy = None;
        let free = self.parts.kinds[kind.index()].find_oldest(cpu, self.parts.objects, |index, object| {
            let Some(guard) = object.lock.try_lock(cpu) else {
                let is_ours = context.is_some_and(|context| object.lock.is_held_by(context));
                busy = busy.or((!is_ours).then_some(object));
                return None;
            };
            let reserved = Reserved { object, index, guard };
            (self.driver().is_eviction_valuable(cpu, reserved.id()) == Worth::Evicting).then_some(reserved)
        });
        free.map(Candidate::Free).or(busy.map(Candidate::Busy))
    }

    /// Moves an object to where its driver evicts it.
    fn evict(&self, victim: &mut Reserved<'_, 'd, CpuOf<D>>) -> Result<(), MoveError> {
        let (cpu, pages, from) = (victim.cpu(), victim.pages(), victim.placed().kind);
        let to = self.driver().evict_to(cpu, victim.id(), from);
        let place = Place::anywhere(to);
        if to >= from {
            return Err(MoveError::EvictsUpwards { from, to });
        }
        if !self.is_good(&place, pages) {
            return Err(MoveError::NoRoom { kind: to, why: NoRoom::Space });
        }
        // Kinds get smaller from call to call, so this goes no deeper than there are kinds.
        let room = self.make_room(cpu, pages, &[place], None)?;
        self.relocate(victim, room)?;
        self.parts.kinds[from.index()].count_eviction(cpu);
        Ok(())
    }
}
