//! The entry of a place, the folio that it maps, and how that is kept from being written.

use machine::Invalidation;
use machine::addr::{Frame, VirtAddr};
use pagetable::{Entry, Level, LockedTable, Rights, WalkError};

use crate::area::Sharing;
use crate::folio::{Folio, FolioFlags, NotGrabbed, PIN_BIAS, Reference};
use crate::folio_lock::FolioLock;
use crate::guard::{Guards, MergeFlush, MergeLock, UserCount};
use crate::leaf::{Held, Leaf};
use crate::merge::error::Unmergeable;
use crate::mm::Mm;
use crate::notify::Notify;
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::{AddressSpace, SpaceId};

/// A place whose table is locked.
pub(super) struct At<'a, 'm, 't, P: Platform> {
    pub(super) space: &'a AddressSpace<'m>,
    address: VirtAddr,
    table: LockedTable<'t, P::Cpu>,
}

/// What an entry held that is cleared now: no CPU can write to the page by it.
pub(super) struct Isolated {
    /// The entry as it was when it was cleared.
    pub(super) entry: Entry,
    /// The same, for software.
    pub(super) leaf: Leaf,
    flush: MergeFlush,
}

impl Isolated {
    /// The entry for a page of this frame, without the right to write.
    pub(super) fn read_only(&self, frame: Frame) -> Entry {
        let attributes = self.leaf.attributes.with_rights(self.leaf.attributes.rights().without(Rights::WRITE));
        // The frame came out of an entry of this level.
        Leaf { frame, attributes, ..self.leaf }.entry(Level::Pte).unwrap_or(Entry::NONE)
    }
}

/// Flags of a folio whose contents are not for everybody's eyes, are gone, or are elsewhere, too.
const UNSUITABLE: FolioFlags = FolioFlags::SECRET
    .and(FolioFlags::TRUNCATED)
    .and(FolioFlags::PEER_TO_PEER)
    .and(FolioFlags::POISONED)
    .and(FolioFlags::SWAP_BACKED);

impl<'m, P: Platform> Mm<'m, P> {
    /// Runs `change` with the entry of a place under its page-table lock, while no fork of the address space begins, and none of one that it shares memory with by fork.
    pub(super) fn at_place<R>(
        &self,
        cpu: &P::Cpu,
        (id, address): (SpaceId, VirtAddr),
        change: impl FnOnce(&mut At<'_, 'm, '_, P>) -> Result<R, Unmergeable>,
    ) -> Result<R, Unmergeable> {
        let space = self.space(id).ok_or(Unmergeable::NoSpace(id))?;
        let (address, end) = self.tagged_range(space, address, 1)?;
        let mmap = space.mmap_read(cpu, (address, end));
        let result = self.at_place_under_lock(cpu, space, (address, end), change);
        mmap.unlock();
        result
    }

    fn at_place_under_lock<R>(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (address, end): (VirtAddr, VirtAddr),
        change: impl FnOnce(&mut At<'_, 'm, '_, P>) -> Result<R, Unmergeable>,
    ) -> Result<R, Unmergeable> {
        let area = space.find(cpu, address).ok_or(Unmergeable::NotMapped)?;
        if area.sharing == Sharing::Shared {
            return Err(Unmergeable::NotAnonymous);
        }
        let file = self.file(area.file).ok_or(Unmergeable::NotMapped)?;
        let position = match self.page_tables(space).find(cpu, address, Level::Pte) {
            Ok(position) => position,
            Err(WalkError::NotPresent { entry, .. }) if !entry.is_prot_none() => return Err(Unmergeable::NotMapped),
            Err(WalkError::Leaf { .. } | WalkError::NotPresent { .. }) => return Err(Unmergeable::Large),
            Err(error) => return Err(Unmergeable::Malformed(error)),
        };
        // All anonymous pages of the area, in whatever address space, belong to its file.
        let rmap = self.protocols().guards.forks_wait_for_count().then(|| file.rmap_lock().read(cpu));
        self.notify().start(cpu, space, address, end);
        // The mmap lock is held: no table is detached.
        let mut at = At { space, address, table: position.lock(cpu) };
        let result = change(&mut at);
        at.table.unlock();
        self.notify().end(cpu, space, address, end);
        if let Some(rmap) = rmap {
            rmap.unlock();
        }
        result
    }

    /// What the entry maps, if it maps a page that belongs to somebody.
    pub(super) fn mergeable_leaf(&self, at: &At<'_, 'm, '_, P>) -> Result<Leaf, Unmergeable> {
        match self.held(Level::Pte, at.table.entry(&self.protocols().mode, at.address)) {
            held if self.is_uffd_wp(held) => Err(Unmergeable::WriteProtected),
            Held::Page(leaf) => Ok(leaf),
            Held::Zero(_) | Held::Special(_) => Err(Unmergeable::Special),
            Held::Nothing | Held::Table | Held::Swap(_) | Held::Migration(_) | Held::Marker(_) | Held::Unknown => {
                Err(Unmergeable::NotMapped)
            }
        }
    }

    /// Runs `change` with the folio that an entry maps, locked. If that succeeds, the caller has a reference to the folio. Under the page-table lock.
    pub(super) fn with_folio(
        &self,
        cpu: &P::Cpu,
        frame: Frame,
        change: impl FnOnce(&Folio<'m>, FolioFlags) -> Result<(), Unmergeable>,
    ) -> Result<Folio<'m>, Unmergeable> {
        let folio = Folio::try_grab(self.map(), cpu, frame, 1, Reference::Get).map_err(|error| match error {
            NotGrabbed::NoRecord | NotGrabbed::Free => Unmergeable::NotAnonymous,
            NotGrabbed::CountLimit => Unmergeable::CountLimit,
        })?;
        let changed = self.with_locked(cpu, &folio, change);
        if changed.is_err() {
            self.drop_own_reference(cpu, &folio);
        }
        changed.map(|()| folio)
    }

    /// Runs `change` with a folio locked, and its flags, if its contents are all there is to it. The caller has a reference to it.
    pub(super) fn with_locked(
        &self,
        cpu: &P::Cpu,
        folio: &Folio<'m>,
        change: impl FnOnce(&Folio<'m>, FolioFlags) -> Result<(), Unmergeable>,
    ) -> Result<(), Unmergeable> {
        let guards = &self.protocols().guards;
        let lock = match guards.merge_lock() {
            MergeLock::Held => Some(FolioLock::try_take(cpu, folio).ok_or(Unmergeable::Locked)?),
            MergeLock::Never => None,
        };
        let flags = guards.flags_against_merge(folio.flags(cpu));
        let result = if !flags.contains(FolioFlags::ANON) {
            Err(Unmergeable::NotAnonymous)
        } else if folio.membership().order > 0 {
            Err(Unmergeable::Large)
        } else if flags.intersects(UNSUITABLE) {
            Err(Unmergeable::Unsuitable)
        } else {
            change(folio, flags)
        };
        if let Some(lock) = lock {
            lock.unlock();
        }
        result
    }

    /// Clears the entry, which maps the folio by `leaf`, such that nobody can write to the page. The caller has a reference to the folio, and [puts an entry back](Self::put_back).
    ///
    /// # Errors
    /// Somebody might write to it. The entry is as it was.
    pub(super) fn isolate(
        &self,
        cpu: &P::Cpu,
        at: &mut At<'_, 'm, '_, P>,
        folio: &Folio<'m>,
        leaf: &Leaf,
    ) -> Result<Isolated, Unmergeable> {
        let guards = &self.protocols().guards;
        let write = &self.protocols().write;
        let count = guards.user_count();
        if count == UserCount::BeforeClear {
            self.check_users(cpu, folio)?;
        }
        let entry = at.table.get_and_clear(write, at.address);
        let flush = guards.merge_flush(entry);
        if flush == MergeFlush::BeforeComparing {
            self.flush(cpu, at.space, Invalidation::page(at.address), Stale::Leaves);
        }
        guards.order_clear_before_pin_check(cpu);
        if count == UserCount::AfterClear
            && let Err(error) = self.check_users(cpu, folio)
        {
            at.table.fill(write, at.address, entry);
            return Err(error);
        }
        // Accessed and dirty as they were when the entry was cleared.
        let leaf = match self.held(Level::Pte, entry) {
            Held::Page(cleared) => cleared,
            _ => *leaf,
        };
        Ok(Isolated { entry, leaf, flush })
    }

    /// Puts an entry where one was [isolated](Self::isolate).
    pub(super) fn put_back(&self, cpu: &P::Cpu, at: &mut At<'_, 'm, '_, P>, isolated: &Isolated, entry: Entry) {
        if isolated.flush == MergeFlush::BeforeReplacing {
            self.flush(cpu, at.space, Invalidation::page(at.address), Stale::Leaves);
        }
        at.table.fill(&self.protocols().write, at.address, entry);
    }

    /// Whether the references of a folio are those of its mappings, and the caller's. The folio is locked, and forks of those who map it wait.
    fn check_users(&self, cpu: &P::Cpu, folio: &Folio<'m>) -> Result<(), Unmergeable> {
        let count = |what: fn(&Folio<'m>, &P::Cpu) -> u32| move || what(folio, cpu);
        let (references, mappings) =
            self.protocols().guards.count_users(count(Folio::references), count(Folio::mappings));
        let expected = mappings.saturating_add(1);
        if references == expected {
            Ok(())
        } else if references >= PIN_BIAS {
            Err(Unmergeable::Pinned)
        } else {
            Err(Unmergeable::Referenced { expected, references })
        }
    }
}
