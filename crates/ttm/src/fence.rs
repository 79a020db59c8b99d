//! Fences: how long a GPU or a copy engine is still at work (Linux: `dma_fence`, `dma_resv`).
//!
//! Every engine has a *timeline*: one word, into which it writes how far it has come. Work gets the next point of its engine's timeline, and is
//! done once the word has reached it. A [`Fence`] is the name of such a point. So a fence needs no memory of its own, and cannot be
//! freed too early.

use machine::{Cpu, Word64};

/// The number of a timeline: its index in the slice that the device was given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimelineId(u16);

impl TimelineId {
    /// The timeline with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How far one engine has come.
pub struct Timeline {
    /// The latest point whose work is done. The engine writes it.
    reached: Word64,
    /// The latest point that was given out.
    given: Word64,
}

/// The moment at which some work is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "nobody waits for the work of a fence that is dropped"]
pub struct Fence {
    timeline: TimelineId,
    point: u64,
}

impl Fence {
    pub(crate) const fn at(timeline: TimelineId, point: u64) -> Self {
        Self { timeline, point }
    }

    /// Whose work.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// Which point of the timeline; the first is 1.
    pub const fn point(self) -> u64 {
        self.point
    }
}

impl Timeline {
    /// A timeline on which nothing has happened.
    pub const fn new() -> Self {
        Self { reached: Word64::new(0), given: Word64::new(0) }
    }

    /// Gives out the next point, as a fence of the timeline with the number `id`, which this is.
    pub(crate) fn next<C: Cpu>(&self, cpu: &C, id: TimelineId) -> Fence {
        Fence { timeline: id, point: cpu.fetch_add(&self.given, 1) + 1 }
    }

    /// The latest point that was given out; 0 if none was. What it is afterwards is not less.
    pub fn latest<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.load(&self.given)
    }

    /// The engine has come as far as `point`. Later than that it does not go back: a point that it is past already changes nothing.
    pub fn signal<C: Cpu>(&self, cpu: &C, point: u64) {
        cpu.await_update(&self.reached, |reached| Some(if point > reached { point } else { reached }));
    }

    /// Whether the engine has come as far as `point`.
    pub fn is_reached<C: Cpu>(&self, cpu: &C, point: u64) -> bool {
        cpu.load(&self.reached) >= point
    }

    /// Waits until the engine has come as far as `point`.
    ///
    /// Context: interrupts on, no spin lock, and nothing held that the engine needs to get there.
    pub fn wait<C: Cpu>(&self, cpu: &C, point: u64) {
        cpu.await_value(&self.reached, |reached| reached >= point);
    }

    /// The word that the engine writes.
    pub const fn word(&self) -> &Word64 {
        &self.reached
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

/// What the work of a fence does to an object, and so who has to wait for it (Linux: `dma_resv_usage`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// It moves or clears the object: everybody waits, CPU faults too.
    Kernel,
    /// It writes the object.
    Write,
    /// It reads the object.
    Read,
}

/// Room for the fences of one object on one timeline. Who has the object reserved reads and writes it.
///
/// One point for each use is enough: whoever waits for it waits for all before it.
pub struct FenceSlot {
    kernel: Word64,
    write: Word64,
    read: Word64,
}

impl FenceSlot {
    /// No fence.
    pub const fn new() -> Self {
        Self { kernel: Word64::new(0), write: Word64::new(0), read: Word64::new(0) }
    }

    const fn word(&self, usage: Usage) -> &Word64 {
        match usage {
            Usage::Kernel => &self.kernel,
            Usage::Write => &self.write,
            Usage::Read => &self.read,
        }
    }

    pub(crate) fn add<C: Cpu>(&self, cpu: &C, usage: Usage, point: u64) {
        let word = self.word(usage);
        if cpu.owned_load(word) < point {
            cpu.owned_store(word, point);
        }
    }

    pub(crate) fn clear<C: Cpu>(&self, cpu: &C) {
        for usage in [Usage::Kernel, Usage::Write, Usage::Read] {
            cpu.owned_store(self.word(usage), 0);
        }
    }

    /// The latest point that somebody has to wait for who wants to use the object in this way: to move it ([`Usage::Kernel`]) for all, to
    /// write it for all, to read it for who writes or moves it.
    pub(crate) fn before<C: Cpu>(&self, cpu: &C, usage: Usage) -> u64 {
        let writers = cpu.owned_load(&self.kernel).max(cpu.owned_load(&self.write));
        match usage {
            Usage::Kernel | Usage::Write => writers.max(cpu.owned_load(&self.read)),
            Usage::Read => writers,
        }
    }

    /// The latest point of a move.
    pub(crate) fn moving<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.owned_load(&self.kernel)
    }
}

impl Default for FenceSlot {
    fn default() -> Self {
        Self::new()
    }
}
