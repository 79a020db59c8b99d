//! A folio moves to other frames (Linux: `migrate_pages`).

use machine::addr::Frame;

use crate::batched_flush::FlushBatch;
use crate::error::ReclaimError;
use crate::file::{FileKind, PageSlot};
use crate::folio::{Folio, FolioFlags, FolioMapping, Membership, MemoryMap, NotGrabbed, Reference};
use crate::folio_lock::FolioLock;
use crate::frames::{FrameSource, allocate_folio};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::unmap::Unmapped;

/// Where a folio went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// Where it was.
    pub from: Membership,
    /// Where it is.
    pub to: Membership,
}

/// Flags of a folio that stays where it is.
pub(crate) const UNMOVABLE: FolioFlags = FolioFlags::ZERO
    .and(FolioFlags::SECRET)
    .and(FolioFlags::TRUNCATED)
    .and(FolioFlags::PEER_TO_PEER)
    .and(FolioFlags::POISONED)
    .and(FolioFlags::KSM);

/// Flags that do not move with the folio: they are of the lock's holder, of each entry, and of the place in memory.
const OF_THE_PLACE: FolioFlags = FolioFlags::LOCKED.and(FolioFlags::EXCLUSIVE).and(FolioFlags::MOVABLE);

impl<'m, P: Platform> Mm<'m, P> {
    /// Moves the folio that `frame` belongs to to frames that [`FrameSource::allocate`] gives. Wherever it was mapped, the new frames are mapped,
    /// with the same rights and the same accessed and dirty bits. Whoever faults there meanwhile waits.
    ///
    /// Anonymous folios move, and those of cached files whose records say of which ([`crate::Page::of_file`]).
    ///
    /// Context: interrupts on; no folio lock, rmap lock or page-table lock. The caller has no reference of its own to the folio. It may hold mmap
    /// locks.
    ///
    /// # Errors
    /// Why it stays where it is. Nothing has changed then: entries, counts and contents are as they were.
    pub fn migrate(&self, cpu: &P::Cpu, frame: Frame) -> Result<Migrated, ReclaimError> {
        let folio = self.reclaim_begin(cpu, frame)?;
        let lock = FolioLock::take(cpu, &folio);
        let result = self.migrate_locked(cpu, &folio, lock);
        if result.is_err() {
            self.drop_own_reference(cpu, &folio);
        }
        result
    }

    /// Takes a reference to the folio that `frame` belongs to.
    pub(super) fn reclaim_begin(&self, cpu: &P::Cpu, frame: Frame) -> Result<Folio<'m>, ReclaimError> {
        Folio::try_grab(self.map(), cpu, frame, 1, Reference::Get).map_err(|error| match error {
            NotGrabbed::NoRecord | NotGrabbed::Free => ReclaimError::NoFolio { frame },
            NotGrabbed::CountLimit => ReclaimError::CountLimit { frame },
        })
    }

    /// On success the caller's reference is gone, with the folio. Unlocks it in any case.
    fn migrate_locked(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        lock: FolioLock<'_, P::Cpu>,
    ) -> Result<Migrated, ReclaimError> {
        let home = self.home(cpu, folio)?;
        let new = self.allocate_successor(cpu, folio)?;
        let mut owed = FlushBatch::default();
        let unmapped = self.unmap_for_migration(cpu, folio, home.mapping, &mut owed);
        owed.flush(cpu, self);
        let moved = unmapped.and_then(|unmapped| self.move_unmapped(cpu, folio, &home, &unmapped, &new));
        lock.unlock();
        self.conclude_move(cpu, folio, &new, moved)
    }

    /// Steps 4 to 6 of the move: what maps the folio is away, and flushed. On success the folio is frozen, and the caller's reference to `new` is
    /// used up.
    ///
    /// # Errors
    /// Somebody has a reference. All entries are back.
    pub(super) fn move_unmapped(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        home: &Home<'_>,
        unmapped: &Unmapped,
        new: &Folio<'m>,
    ) -> Result<(), ReclaimError> {
        let expected = home.expected_references();
        if let Err(references) = folio.freeze(cpu, expected) {
            self.remap(cpu, folio.membership(), folio, unmapped);
            return Err(ReclaimError::Referenced { expected, references });
        }
        // Only now: whoever had a reference until the freeze may have written.
        let Membership { head, order } = folio.membership();
        self.frames().copy(cpu, head, new.membership().head, 1 << order);
        new.mark(cpu, folio.flags(cpu).without(OF_THE_PLACE));
        if let Some(slot) = home.slot {
            // The file's reference goes from the one to the other.
            new.get_held(cpu);
            slot.replace(cpu, Some(new.membership().head));
        }
        self.remap(cpu, folio.membership(), new, unmapped);
        Ok(())
    }

    /// Gives back what a move leaves over. The folio is unlocked.
    pub(super) fn conclude_move(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        new: &Folio<'m>,
        moved: Result<(), ReclaimError>,
    ) -> Result<Migrated, ReclaimError> {
        if moved.is_ok() {
            // Frozen and unlocked: nobody has it, and nobody can get it.
            self.map().release(cpu, folio.membership());
        }
        // This CPU's own: if everything was zapped meanwhile, the last.
        self.drop_own_reference(cpu, new);
        moved.map(|()| Migrated { from: folio.membership(), to: new.membership() })
    }

    /// Where a locked folio belongs.
    ///
    /// # Errors
    /// It is of a kind that stays where it is.
    pub(super) fn home(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<Home<'m>, ReclaimError> {
        let head = folio.membership().head;
        let unmovable = ReclaimError::Unmovable { frame: head };
        let flags = folio.flags(cpu);
        if flags.intersects(UNMOVABLE) {
            return Err(unmovable);
        }
        let mapping = folio.mapping(cpu).ok_or(unmovable)?;
        if flags.contains(FolioFlags::ANON) {
            return Ok(Home { mapping, slot: None });
        }
        let file = self.file(mapping.file).filter(|file| file.kind() == FileKind::Cached).ok_or(unmovable)?;
        let slot = file.slot(mapping.page).filter(|slot| slot.get(cpu) == Some(head)).ok_or(unmovable)?;
        Ok(Home { mapping, slot: Some(slot) })
    }

    /// A folio of the same size and for the same place, with undefined contents. The caller has the only reference.
    pub(super) fn allocate_successor(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<Folio<'m>, ReclaimError> {
        let order = folio.membership().order;
        let flags = folio.flags(cpu).without(OF_THE_PLACE);
        allocate_folio(self.map(), self.frames(), cpu, order, flags, folio.mapping(cpu))
            .map_err(|_| ReclaimError::OutOfFrames)
    }
}

/// Where a folio belongs.
#[derive(Clone, Copy)]
pub(super) struct Home<'m> {
    pub(super) mapping: FolioMapping,
    /// The slot of the file that holds it; `None` if it is anonymous.
    pub(super) slot: Option<&'m PageSlot>,
}

impl Home<'_> {
    /// The references of a folio that nothing maps and nobody uses: that of whoever asks, and the file's.
    pub(super) const fn expected_references(&self) -> u32 {
        if self.slot.is_some() { 2 } else { 1 }
    }
}
