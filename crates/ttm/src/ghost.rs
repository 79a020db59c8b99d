//! Ranges that their objects have left, while an engine still copies out of them (Linux: the ghost objects of `ttm_bo_move_accel_cleanup`).

use machine::{Cpu, SpinLock, Word32, Word64};

use crate::fence::{Fence, TimelineId};
use crate::place::{Kind, Placed};

/// Room for one range on its way out.
pub struct GhostSlot {
    /// [`FREE`], [`CLAIMED`] or [`FILLED`].
    state: Word32,
    kind: Word32,
    start: Word64,
    timeline: Word32,
    point: Word64,
}

const FREE: u32 = 0;
/// Somebody is going to fill it.
const CLAIMED: u32 = 1;
const FILLED: u32 = 2;

impl GhostSlot {
    /// A slot that is not in use.
    pub const fn new() -> Self {
        Self {
            state: Word32::new(FREE),
            kind: Word32::new(0),
            start: Word64::new(0),
            timeline: Word32::new(0),
            point: Word64::new(0),
        }
    }
}

impl Default for GhostSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// All ranges on their way out.
pub(crate) struct Ghosts<'d> {
    lock: SpinLock,
    slots: &'d [GhostSlot],
}

/// A slot that nobody else fills.
#[must_use = "a claim that is neither filled nor dropped is lost"]
pub(crate) struct Claim<'d>(&'d GhostSlot);

/// A range on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Ghost {
    pub(crate) placed: Placed,
    pub(crate) fence: Fence,
}

impl<'d> Ghosts<'d> {
    pub(crate) const fn new(slots: &'d [GhostSlot]) -> Self {
        Self { lock: SpinLock::new(), slots }
    }

    /// Claims a slot before an engine begins: afterwards it would be too late to find that there is none.
    pub(crate) fn claim<C: Cpu>(&self, cpu: &C) -> Option<Claim<'d>> {
        let guard = self.lock.lock(cpu);
        let found = self.slots.iter().find(|slot| cpu.owned_load(&slot.state) == FREE);
        if let Some(slot) = found {
            cpu.owned_store(&slot.state, CLAIMED);
        }
        guard.unlock();
        found.map(Claim)
    }

    pub(crate) fn fill<C: Cpu>(&self, cpu: &C, Claim(slot): Claim<'d>, ghost: Ghost) {
        let guard = self.lock.lock(cpu);
        cpu.owned_store(&slot.kind, u32::from(ghost.placed.kind.number()));
        cpu.owned_store(&slot.start, ghost.placed.start);
        cpu.owned_store(&slot.timeline, u32::from(ghost.fence.timeline().number()));
        cpu.owned_store(&slot.point, ghost.fence.point());
        cpu.owned_store(&slot.state, FILLED);
        guard.unlock();
    }

    pub(crate) fn unclaim<C: Cpu>(&self, cpu: &C, Claim(slot): Claim<'d>) {
        let guard = self.lock.lock(cpu);
        cpu.owned_store(&slot.state, FREE);
        guard.unlock();
    }

    /// Gives those to `free` for which `is_done` holds. Neither may wait.
    ///
    /// Under the lock: who finds no ghost here can be sure to find its room free.
    pub(crate) fn reap<C: Cpu>(&self, cpu: &C, is_done: impl Fn(&Ghost) -> bool, free: impl Fn(&Ghost)) {
        let guard = self.lock.lock(cpu);
        for slot in self.slots {
            if let Some(ghost) = Self::read(cpu, slot).filter(&is_done) {
                free(&ghost);
                cpu.owned_store(&slot.state, FREE);
            }
        }
        guard.unlock();
    }

    /// One that leaves `kind`, to wait for.
    pub(crate) fn of_kind<C: Cpu>(&self, cpu: &C, kind: Kind) -> Option<Ghost> {
        let guard = self.lock.lock(cpu);
        let found = self.slots.iter().find_map(|slot| Self::read(cpu, slot).filter(|ghost| ghost.placed.kind == kind));
        guard.unlock();
        found
    }

    fn read<C: Cpu>(cpu: &C, slot: &GhostSlot) -> Option<Ghost> {
        if cpu.owned_load(&slot.state) != FILLED {
            return None;
        }
        let kind = Kind::new(cpu.owned_load(&slot.kind) as u8);
        let timeline = TimelineId::new(cpu.owned_load(&slot.timeline) as u16);
        Some(Ghost {
            placed: Placed { kind, start: cpu.owned_load(&slot.start) },
            fence: Fence::at(timeline, cpu.owned_load(&slot.point)),
        })
    }
}
