//! Fork: a second address space with the same memory, copied when one of the two writes.
//!
//! | module | what |
//! |---|---|
//! | `range` | the tables of an area, one after the other |
//! | `entry` | what becomes of one entry |
//!
//! # What the child gets
//!
//! | the parent's entry | in a private area | in a shared one |
//! |---|---|---|
//! | a page | the same page, and neither may write it without a copy | nothing: a fault brings it |
//! | a page that may be pinned | a copy, at once | nothing |
//! | a driver's frame | - | the same |
//! | zero page, swap, marker | the same | - |
//! | a guard | the same | the same |
//! | what userfaultfd protects | the same, unprotected | nothing |
//! | migration | the same, and what was writable is read-only afterwards | nothing |
//!
//! A page that is pinned must stay the parent's: a device goes on reading and writing it, and the parent must see that. If it were shared, the first of
//! the two to write would get the copy (Linux 70e806e4e645).
//!
//! # Against fast GUP
//!
//! A walker that takes no lock may pin a page at any moment. While entries are shared, the space's `write_protect` sequence is odd. Fast GUP reads it
//! before and *after* its pin. If it finds it even and unchanged after the pin, then fork's look for pins, which comes after the sequence became odd
//! and a locked instruction (the page-table lock), sees the pin. Else it gives the pin back (Linux 57efa1fe5957).
//!
//! # Against those who go by rmap
//!
//! While an area is copied, its file's rmap lock is held for writing. Whoever takes entries away by rmap would otherwise come to the child's mapping
//! first, find nothing, and find the parent's entry when it has been copied already. (Linux orders the mappings of a file for that, and has them
//! walked in that order.)
//!
//! # TLBs
//!
//! The parent's CPUs may write through old translations until they are flushed, once, at the end: nobody runs in the child yet, and the parent's mmap lock
//! holds off its faults.

mod entry;
mod range;

use pagetable::Level;

use crate::area::{Area, Sharing};
use crate::error::ForkError;
use crate::file::{File, FileKind, MappedAt};
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, AreaIndex, EVERYTHING, MmapWrite, SpaceId};
use crate::uffd::UffdModes;

/// The two address spaces of a fork.
struct Pair<'p, 'm> {
    parent: &'p AddressSpace<'m>,
    child: &'p AddressSpace<'m>,
    child_id: SpaceId,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Gives `child`, an address space without areas, the areas of `parent` and its memory.
    ///
    /// Stores of CPUs that run in the parent meanwhile are in the child's memory or not, each page as it was at some moment of the call. On return no
    /// store of the parent changes what the child sees, and the other way round, but in shared areas.
    ///
    /// Context: interrupts on, no lock. No CPU runs in `child`.
    ///
    /// # Errors
    /// The child is as it was, without areas. In the parent pages may have become read-only that faults make writable again.
    pub fn fork(&self, cpu: &P::Cpu, parent: SpaceId, child: SpaceId) -> Result<(), ForkError> {
        let pair = Pair {
            parent: self.space(parent).ok_or(ForkError::NoSpace(parent))?,
            child: self.space(child).ok_or(ForkError::NoSpace(child))?,
            child_id: child,
        };
        if parent == child {
            return Err(ForkError::ChildInUse(child));
        }
        // By number, so that two forks in opposite directions (of which one must fail) do not wait for each other.
        let (first, second) =
            if parent.number() < child.number() { (pair.parent, pair.child) } else { (pair.child, pair.parent) };
        let outer = first.mmap_write(cpu, EVERYTHING);
        let inner = second.mmap_write(cpu, EVERYTHING);
        let of_child = if child.number() < parent.number() { &outer } else { &inner };
        let result = self.fork_under_locks(cpu, &pair, of_child);
        inner.unlock();
        outer.unlock();
        result
    }

    fn fork_under_locks(
        &self,
        cpu: &P::Cpu,
        pair: &Pair<'_, 'm>,
        of_child: &MmapWrite<'_, P::Cpu>,
    ) -> Result<(), ForkError> {
        if pair.child.areas(cpu).next().is_some() {
            return Err(ForkError::ChildInUse(pair.child_id));
        }
        if !pair.child.has_parts_of(pair.parent) {
            return Err(ForkError::PartsDiffer(pair.child_id));
        }
        if !pair.child.has_slots_for(cpu, pair.parent) {
            return Err(ForkError::SpaceFull);
        }
        if pair.parent.has_guards(cpu) {
            pair.child.set_has_guards(cpu);
        }
        let mut gather = Gather::begin(cpu, self, pair.parent, EVERYTHING);
        let copied = pair.parent.write_protect().write(cpu, || {
            for (index, area) in pair.parent.indexed_areas(cpu) {
                self.fork_area(cpu, pair, (index, &area), &mut gather)?;
            }
            Ok(())
        });
        gather.finish(cpu);
        if copied.is_err() {
            // What was copied is whole, so its tables are well-formed.
            let _ = self.unmap_all(cpu, (pair.child_id, pair.child), of_child);
        } else {
            pair.child.keys().inherit(cpu, pair.parent.keys());
        }
        copied
    }

    fn fork_area(
        &self,
        cpu: &P::Cpu,
        pair: &Pair<'_, 'm>,
        (index, area): (AreaIndex, &Area),
        gather: &mut Gather<'_, 'm, P>,
    ) -> Result<(), ForkError> {
        let file = self.file(area.file).ok_or(ForkError::NoFile(area.file))?;
        let rmap = file.rmap_lock().write(cpu);
        let result = match file.link(cpu, &MappedAt::new(pair.child_id, area)) {
            Ok(()) => {
                // Who reads the parent's userfaultfd knows nothing of the child (Linux: without UFFD_EVENT_FORK).
                pair.child.insert(cpu, index, &area.with_uffd(UffdModes::NONE));
                match Self::copies(area, file) {
                    Copies::Entries => {
                        let reach = self.reach(cpu, pair.parent, (area.start, area.end()));
                        let copy = || self.fork_range(cpu, pair, (area, Copies::Entries), gather);
                        self.notify_of(cpu, pair.parent, reach, copy)
                    }
                    Copies::Guards if file.leaf() == Level::Pte && pair.parent.has_guards(cpu) => {
                        self.fork_range(cpu, pair, (area, Copies::Guards), gather)
                    }
                    Copies::Guards => Ok(()),
                }
            }
            Err(_) => Err(ForkError::FileFull(area.file)),
        };
        rmap.unlock();
        result
    }

    const fn copies(area: &Area, file: &File<'m>) -> Copies {
        match (area.sharing, file.kind()) {
            (Sharing::Private, _) | (Sharing::Shared, FileKind::Driver | FileKind::PfnMapped | FileKind::Mixed) => {
                Copies::Entries
            }
            (Sharing::Shared, FileKind::Cached | FileKind::Anonymous) => Copies::Guards,
        }
    }
}

/// What of an area is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// Its entries: faults could not bring them back, or not the same.
    Entries,
    /// Guards only: faults bring back the rest.
    Guards,
}

/// The order of a folio that one leaf of this level maps.
const fn order_of(level: Level) -> u8 {
    level.frames().trailing_zeros() as u8
}
