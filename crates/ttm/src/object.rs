//! Buffer objects.

use machine::{Cpu, Word32, Word64};

use crate::fence::FenceSlot;
use crate::place::{Kind, Placed};
use crate::ww::{WwGuard, WwMutex};

/// Room for one buffer object.
///
/// Everything in it but the life, the state and the links belongs to whoever has it reserved.
pub struct Object<'d> {
    pub(crate) lock: WwMutex,
    /// How often the slot was used, in the upper half, and how many handles there are.
    life: Word64,
    /// [`SlotState`].
    slot: Word32,
    /// Neighbours in the LRU list of a resource, plus one; under that resource's lock.
    pub(crate) previous: Word32,
    pub(crate) next: Word32,
    /// The kind in whose list the object is, plus one; 0 if in none.
    pub(crate) listed: Word32,
    size: Word64,
    kind: Word32,
    pins: Word32,
    start: Word64,
    /// [`crate::quarantine`]: the kind into which an engine may be writing for nobody knows how long, plus one; 0 = none.
    pub(crate) lost_kind: Word32,
    pub(crate) lost_start: Word64,
    /// [`PagesState`].
    pages_state: Word32,
    /// [`crate::dirty`]: how writes are found; 0 = not at all.
    pub(crate) dirty_method: Word32,
    pub(crate) room: Room<'d>,
}

/// What an object needs room for, all of it the caller's.
pub struct Room<'d> {
    /// One word for each page that an object in the slot can have.
    pub pages: &'d [Word64],
    /// One word for each page, or nothing: then objects in the slot are never swapped out.
    pub swap: &'d [Word64],
    /// One for each timeline of the device.
    pub fences: &'d [FenceSlot],
    /// One bit for each page, or nothing: then it cannot be found which pages were written.
    pub dirty: &'d [Word64],
}

/// Whether a slot holds an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotState {
    /// No: the next one may be made here. Becomes [`Self::Making`] under the device's table lock.
    Free,
    /// Not yet.
    Making,
    /// Yes. Becomes [`Self::Free`] while reserved.
    Live,
}

/// What the page words of an object hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PagesState {
    /// Nothing. The contents of an object in system memory are zeros then.
    Empty,
    /// Frames.
    Populated,
    /// Places on swap.
    Swapped,
    /// Frames that the object has left, and from which an engine may be copying still: until its moves are done.
    Leaving,
    /// Frames that are not the object's contents, and into which an engine may be writing until the card is reset ([`crate::quarantine`]).
    Quarantined,
}

/// The number of an object: may be given to user space. It is never used again for another object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ObjectId {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

/// A reference to an object: it exists for as long as this does. Given back by [`crate::Device::put`].
#[must_use = "an object whose handle is lost exists for ever"]
#[derive(Debug)]
pub struct Handle {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

impl Handle {
    /// The number of the object.
    pub const fn id(&self) -> ObjectId {
        ObjectId { index: self.index, generation: self.generation }
    }
}

/// An object is reserved while this value lives: nobody else moves it, maps it or changes what is known of it.
#[must_use = "the object is given free as soon as this is dropped"]
pub struct Reserved<'r, 'd, C: Cpu> {
    pub(crate) object: &'r Object<'d>,
    pub(crate) index: u16,
    pub(crate) guard: WwGuard<'r, C>,
}

impl<'r, C: Cpu> Reserved<'r, '_, C> {
    /// The CPU that has reserved it.
    pub const fn cpu(&self) -> &'r C {
        self.guard.cpu()
    }

    /// How many 4 KiB pages the object has.
    pub fn pages(&self) -> u64 {
        self.object.size(self.cpu())
    }

    /// Where it is.
    pub fn placed(&self) -> Placed {
        self.object.placed(self.cpu())
    }

    /// How often it is pinned.
    pub fn pins(&self) -> u32 {
        self.object.pins(self.cpu())
    }

    /// The number of the object.
    pub fn id(&self) -> ObjectId {
        ObjectId { index: self.index, generation: self.object.generation(self.cpu()) }
    }

    /// Gives the object free: the same as dropping this, but a trace then names the caller's line.
    #[track_caller]
    pub fn unlock(self) {
        self.guard.unlock();
    }
}

const HANDLES: u64 = u32::MAX as u64;

impl<'d> Object<'d> {
    /// A slot that is not in use.
    pub const fn new(room: Room<'d>) -> Self {
        Self {
            lock: WwMutex::new(),
            life: Word64::new(0),
            slot: Word32::new(0),
            previous: Word32::new(0),
            next: Word32::new(0),
            listed: Word32::new(0),
            size: Word64::new(0),
            kind: Word32::new(0),
            pins: Word32::new(0),
            start: Word64::new(0),
            lost_kind: Word32::new(0),
            lost_start: Word64::new(0),
            pages_state: Word32::new(0),
            dirty_method: Word32::new(0),
            room,
        }
    }

    pub(crate) fn slot<C: Cpu>(&self, cpu: &C) -> SlotState {
        match cpu.load(&self.slot) {
            0 => SlotState::Free,
            1 => SlotState::Making,
            _ => SlotState::Live,
        }
    }

    pub(crate) fn set_slot<C: Cpu>(&self, cpu: &C, state: SlotState) {
        let number = match state {
            SlotState::Free => 0,
            SlotState::Making => 1,
            SlotState::Live => 2,
        };
        cpu.store(&self.slot, number);
    }

    /// The lock, so that a trace can name it.
    pub const fn lock(&self) -> &WwMutex {
        &self.lock
    }

    /// Makes a new object in the slot, with one handle, and returns its generation. The caller has it reserved, and its state is [`SlotState::Making`].
    pub(crate) fn begin<C: Cpu>(&self, cpu: &C, pages: u64) -> u32 {
        cpu.owned_store(&self.size, pages);
        self.set_placed(cpu, Placed::SYSTEM);
        self.set_pins(cpu, 0);
        self.set_pages_state(cpu, PagesState::Empty);
        self.set_lost(cpu, None);
        cpu.owned_store(&self.dirty_method, 0);
        for slot in self.room.fences {
            slot.clear(cpu);
        }
        let generation = self.generation(cpu).wrapping_add(1);
        cpu.store(&self.life, u64::from(generation) << 32 | 1);
        self.set_slot(cpu, SlotState::Live);
        generation
    }

    pub(crate) fn generation<C: Cpu>(&self, cpu: &C) -> u32 {
        (cpu.load(&self.life) >> 32) as u32
    }

    /// How many handles there are.
    pub(crate) fn handles<C: Cpu>(&self, cpu: &C) -> u32 {
        cpu.load(&self.life) as u32
    }

    /// One handle more, unless there is none or the slot is another object's by now.
    pub(crate) fn get<C: Cpu>(&self, cpu: &C, generation: u32) -> Result<(), NoHandle> {
        let allowed = |life: u64| (life >> 32) as u32 == generation && !matches!(life & HANDLES, 0 | HANDLES);
        let before = cpu.await_update(&self.life, |life| Some(if allowed(life) { life + 1 } else { life }));
        if allowed(before) { Ok(()) } else { Err(NoHandle) }
    }

    /// One handle less. Returns how many are left.
    pub(crate) fn put<C: Cpu>(&self, cpu: &C) -> u32 {
        (cpu.fetch_add(&self.life, u64::MAX) as u32).wrapping_sub(1)
    }

    pub(crate) fn size<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.owned_load(&self.size)
    }

    pub(crate) fn placed<C: Cpu>(&self, cpu: &C) -> Placed {
        Placed { kind: Kind::new(cpu.owned_load(&self.kind) as u8), start: cpu.owned_load(&self.start) }
    }

    pub(crate) fn set_placed<C: Cpu>(&self, cpu: &C, placed: Placed) {
        cpu.owned_store(&self.kind, u32::from(placed.kind.number()));
        cpu.owned_store(&self.start, placed.start);
    }

    pub(crate) fn pins<C: Cpu>(&self, cpu: &C) -> u32 {
        cpu.owned_load(&self.pins)
    }

    pub(crate) fn set_pins<C: Cpu>(&self, cpu: &C, pins: u32) {
        cpu.owned_store(&self.pins, pins);
    }

    pub(crate) fn pages_state<C: Cpu>(&self, cpu: &C) -> PagesState {
        match cpu.owned_load(&self.pages_state) {
            0 => PagesState::Empty,
            1 => PagesState::Populated,
            2 => PagesState::Swapped,
            3 => PagesState::Leaving,
            _ => PagesState::Quarantined,
        }
    }

    pub(crate) fn set_pages_state<C: Cpu>(&self, cpu: &C, state: PagesState) {
        let number = match state {
            PagesState::Empty => 0,
            PagesState::Populated => 1,
            PagesState::Swapped => 2,
            PagesState::Leaving => 3,
            PagesState::Quarantined => 4,
        };
        cpu.owned_store(&self.pages_state, number);
    }
}

/// There is no object with handles in the slot, or another one.
#[derive(Debug)]
pub(crate) struct NoHandle;
