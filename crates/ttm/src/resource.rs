//! A kind of memory: its room, and which objects in it were used longest ago (Linux: `ttm_resource_manager`).

use machine::{Cpu, SpinLock, Word32, Word64};

use crate::object::Object;
use crate::place::{Backing, Kind, Place, Placed};
use crate::range::{Demand, NoRoom, RangeSlot, Ranges};

/// A kind of memory.
pub struct Resource<'d> {
    backing: Backing,
    /// Protects the ranges and the list.
    lock: SpinLock,
    ranges: Ranges<'d>,
    /// The object that was used longest ago, plus one; 0 = none.
    oldest: Word32,
    newest: Word32,
    evictions: Word64,
}

impl<'d> Resource<'d> {
    /// A kind of memory without objects. `slots` is the room for what is in use: as many ranges fit; system memory needs none.
    pub const fn new(backing: Backing, slots: &'d [RangeSlot]) -> Self {
        Self {
            backing,
            lock: SpinLock::new(),
            ranges: Ranges::new(backing.pages(), slots),
            oldest: Word32::new(0),
            newest: Word32::new(0),
            evictions: Word64::new(0),
        }
    }

    /// What it is made of.
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// The lock, so that a trace can name it.
    pub const fn lock(&self) -> &SpinLock {
        &self.lock
    }

    /// How many of its pages are in use; 0 for system memory.
    pub fn used<C: Cpu>(&self, cpu: &C) -> u64 {
        let guard = self.lock.lock(cpu);
        let used = self.ranges.used(cpu);
        guard.unlock();
        used
    }

    /// How many objects were evicted from it so far.
    pub fn evictions<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.load(&self.evictions)
    }

    pub(crate) fn count_eviction<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.evictions, 1);
    }

    /// Calls `visit` with the first page and the number of pages of each range in use, lowest first.
    pub fn for_each_range<C: Cpu>(&self, cpu: &C, mut visit: impl FnMut(u64, u64)) {
        let guard = self.lock.lock(cpu);
        self.ranges.iter(cpu).for_each(|range| visit(range.start, range.pages));
        guard.unlock();
    }

    /// Takes room that is free.
    pub(crate) fn allocate<C: Cpu>(&self, cpu: &C, pages: u64, place: &Place) -> Result<Placed, NoRoom> {
        if self.backing == Backing::System {
            return Ok(Placed::SYSTEM);
        }
        let guard = self.lock.lock(cpu);
        let mut result = Err(NoRoom::Space);
        for alignment in alignments(pages, place.alignment) {
            let demand = Demand {
                pages,
                alignment,
                base: self.backing.first_frame(),
                window: (place.first, place.end.min(self.ranges.pages())),
                fit: place.fit,
            };
            result = self.ranges.allocate(cpu, &demand);
            if result != Err(NoRoom::Space) {
                break;
            }
        }
        guard.unlock();
        result.map(|start| Placed { kind: place.kind, start })
    }

    /// Gives room back.
    pub(crate) fn free<C: Cpu>(&self, cpu: &C, start: u64) {
        if self.backing == Backing::System {
            return;
        }
        let guard = self.lock.lock(cpu);
        let freed = self.ranges.free(cpu, start);
        guard.unlock();
        debug_assert!(freed.is_some(), "a range of an object is given back once");
    }
}

/// In pages: first so that huge leaves can map the object, then as the driver wants it (vmwgfx did so: `vmw_thp.c`).
fn alignments(pages: u64, wanted: u64) -> impl Iterator<Item = u64> {
    use pagetable::Level;
    let huge = [Level::Pud, Level::Pmd].into_iter().map(Level::frames);
    huge.filter(move |&frames| pages >= frames && frames > wanted).chain([wanted])
}

/// The list of objects by when they were used last. Links are in the objects; the resource's lock is held.
struct Lru<'l, 'd, C: Cpu> {
    resource: &'l Resource<'d>,
    objects: &'d [Object<'d>],
    cpu: &'l C,
}

impl<C: Cpu> Lru<'_, '_, C> {
    fn remove(&self, index: u16) {
        let object = &self.objects[index as usize];
        let (previous, next) = (self.cpu.owned_load(&object.previous), self.cpu.owned_load(&object.next));
        let after = if previous == 0 { &self.resource.oldest } else { &self.object(previous).next };
        self.cpu.owned_store(after, next);
        let before = if next == 0 { &self.resource.newest } else { &self.object(next).previous };
        self.cpu.owned_store(before, previous);
    }

    fn append(&self, index: u16) {
        let object = &self.objects[index as usize];
        let last = self.cpu.owned_load(&self.resource.newest);
        self.cpu.owned_store(&object.previous, last);
        self.cpu.owned_store(&object.next, 0);
        let after = if last == 0 { &self.resource.oldest } else { &self.object(last).next };
        self.cpu.owned_store(after, u32::from(index) + 1);
        self.cpu.owned_store(&self.resource.newest, u32::from(index) + 1);
    }

    /// The object that a link that is not 0 names.
    fn object(&self, link: u32) -> &Object<'_> {
        &self.objects[link as usize - 1]
    }
}

impl<'d> Resource<'d> {
    /// Takes an object out of the list if it is in it. The caller has it reserved.
    pub(crate) fn unlist<C: Cpu>(&self, cpu: &C, objects: &'d [Object<'d>], index: u16, kind: Kind) {
        let listed = &objects[index as usize].listed;
        if cpu.owned_load(listed) != u32::from(kind.number()) + 1 {
            return;
        }
        let guard = self.lock.lock(cpu);
        Lru { resource: self, objects, cpu }.remove(index);
        cpu.owned_store(listed, 0);
        guard.unlock();
    }

    /// Puts an object at the end of the list: it was used just now. The caller has it reserved, and it is in no other list.
    pub(crate) fn list<C: Cpu>(&self, cpu: &C, objects: &'d [Object<'d>], index: u16, kind: Kind) {
        let listed = &objects[index as usize].listed;
        let guard = self.lock.lock(cpu);
        let lru = Lru { resource: self, objects, cpu };
        if cpu.owned_load(listed) != 0 {
            lru.remove(index);
        }
        lru.append(index);
        cpu.owned_store(listed, u32::from(kind.number()) + 1);
        guard.unlock();
    }

    /// Calls `visit` with the objects of the list, the one used longest ago first, until it returns something. It must not wait.
    pub(crate) fn find_oldest<C: Cpu, R>(
        &self,
        cpu: &C,
        objects: &'d [Object<'d>],
        mut visit: impl FnMut(u16, &'d Object<'d>) -> Option<R>,
    ) -> Option<R> {
        let guard = self.lock.lock(cpu);
        let mut link = cpu.owned_load(&self.oldest);
        let mut found = None;
        while link != 0 && found.is_none() {
            let object = &objects[link as usize - 1];
            found = visit(link as u16 - 1, object);
            link = cpu.owned_load(&object.next);
        }
        guard.unlock();
        found
    }
}
