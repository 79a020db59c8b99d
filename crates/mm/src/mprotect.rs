//! Changing what user code may do in a range, and the protection key of its pages.
//!
//! Entries follow at once where rights go, and where rights come only as far as no fault has to decide: a private page is made writable only if it is
//! exclusive, a shared one only if it is dirty already, so that who tracks dirtying was told; either only if it is soft-dirty already, and userfaultfd does not protect it. The rest is
//! given its rights by the next fault.
//!
//! | from, to | present leaf | PROT_NONE leaf |
//! |---|---|---|
//! | nothing | becomes PROT_NONE, accessed and dirty kept; flush | |
//! | read | loses write; flush | is present again, read-only |
//! | read and write | gains write if it may; no flush | is present again, and writable if it may |
//! | another key | gets it *together with* the rights, in one exchange; flush: TLBs hold keys | has it, too |
//!
//! In two exchanges, some thread could do for a moment what neither the old key and rights nor the new ones allow.
//!
//! Whether a change needs a flush is [`pagetable::flush`]'s to say; for each case the table above repeats it.
//!
//! Swap entries and markers say nothing about rights and keys, and stay. A migration entry does: the leaf that it will be again is to allow no more than the area, and to have its key.

use machine::ProtectionKey;
use machine::addr::VirtAddr;
use pagetable::{Entry, Flags, Level, LockedTable, Migration, MigrationAccess, NonPresent, SwapFlags};

use crate::area::{Area, AreaRights, Sharing};
use crate::error::{AreaError, ZapError};
use crate::exclusive::{Exclusivity, exclusivity};
use crate::gather::Gather;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, SpaceId};

/// What becomes of areas.
#[derive(Clone, Copy)]
struct Change {
    rights: AreaRights,
    /// `None`: each keeps its own.
    key: Option<ProtectionKey>,
}

impl Change {
    fn of(self, area: &Area) -> Area {
        Area { rights: self.rights, key: self.key.unwrap_or(area.key), ..*area }
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Changes what user code may do in `pages` pages from `start` on. Areas that reach beyond are cut. Protection keys stay.
    ///
    /// On return no CPU can do by an entry from before what is not allowed any more.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed: the range is wrong, has a hole, cuts an area where it must not, or there is no slot for what is cut off, or no frame to split
    /// a huge leaf. Or tables were malformed: then the areas have their rights, but entries behind the malformed one have not.
    pub fn mprotect(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        start: VirtAddr,
        pages: u64,
        rights: AreaRights,
    ) -> Result<(), AreaError> {
        self.mprotect_as(cpu, id, (start, pages), Change { rights, key: None })
    }

    /// [`Self::mprotect`], and the pages get this protection key.
    ///
    /// On return no CPU accesses them by another key, nor will one by an entry that is away for now (swap, migration).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// As for [`Self::mprotect`]; or the address space has not [given the key out](Self::pkey_alloc).
    pub fn pkey_mprotect(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        start: VirtAddr,
        pages: u64,
        rights: AreaRights,
        key: ProtectionKey,
    ) -> Result<(), AreaError> {
        self.mprotect_as(cpu, id, (start, pages), Change { rights, key: Some(key) })
    }

    fn mprotect_as(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        (start, pages): (VirtAddr, u64),
        change: Change,
    ) -> Result<(), AreaError> {
        let space = self.space(id).ok_or(AreaError::NoSpace(id))?;
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_write(cpu, (start, end));
        let result = match change.key {
            Some(key) if !space.keys().have(cpu, key) => Err(AreaError::NoKey(key)),
            _ => self.mprotect_range(cpu, (id, space), (start, end), change),
        };
        mmap.unlock();
        result
    }

    fn mprotect_range(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        (start, end): (VirtAddr, VirtAddr),
        change: Change,
    ) -> Result<(), AreaError> {
        let mut at = start;
        while at < end {
            at = space.find(cpu, at).ok_or(AreaError::NoArea { address: at })?.end();
        }
        let edit = |area: &Area| Some(change.of(area));
        let room = self.room_for_cut(cpu, space, (start, end), &edit)?;
        if let Err(error) = self.split_edges(cpu, space, (start, end)) {
            self.cancel_cut(cpu, &room);
            return Err(error);
        }
        let changed = self.notify_of(cpu, space, (start, end), || {
            let mut gather = Gather::begin(cpu, self, space, (start, end));
            let changed = self.change_entries(cpu, &mut gather, space, (start, end), change);
            gather.finish(cpu);
            changed
        });
        self.cut(cpu, (id, space), (start, end), &edit, room);
        changed.map_err(AreaError::Zap)
    }

    /// Splits huge leaves that lie across one of the edges of a range. The caller holds the mmap lock.
    pub(crate) fn split_edges(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), AreaError> {
        for edge in [start, end] {
            let Some(area) = space.find(cpu, edge).filter(|area| area.start < edge) else { continue };
            if !edge.is_aligned(self.largest_leaf(&area).size()) {
                self.split_to_begin_at(cpu, space, edge)?;
            }
        }
        Ok(())
    }

    /// Changes the entries of all areas in the range whose rights or key are others. The mmap lock is held for writing.
    fn change_entries(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        change: Change,
    ) -> Result<(), ZapError> {
        let mut at = start;
        let mut result = Ok(());
        while let Some((_, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            let new = change.of(&area);
            let Some(part) = area.part(start, end).filter(|_| area != new) else { continue };
            let changed = self.for_each_table(cpu, space, part.start, part.end(), |mut table, from, until| {
                let level = table.level();
                let mut at = from;
                while at < until && table.children() > 0 {
                    self.change_entry(cpu, gather, &mut table, at, &new);
                    at = level.next(at);
                }
                gather.unlock(cpu, table);
            });
            result = result.and(changed);
        }
        result
    }

    /// Gives the entry of `at` the key of what its area becomes, and the rights, as far as it may have them.
    fn change_entry(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        area: &Area,
    ) {
        let Area { sharing, rights, key, .. } = *area;
        let level = table.level();
        let write = &self.protocols().write;
        let held = self.held(level, table.entry(&self.protocols().mode, at));
        let (leaf, may_write) = match held {
            Held::Page(leaf) if self.is_uffd_wp(held) => (leaf, false),
            Held::Page(leaf) => (leaf, rights == AreaRights::ReadWrite && self.may_write(cpu, level, &leaf, sharing)),
            Held::Special(leaf) => {
                (leaf, rights == AreaRights::ReadWrite && may_write_shared(level, &leaf) && sharing == Sharing::Shared)
            }
            Held::Zero(leaf) => (leaf, false),
            Held::Migration(migration) => return self.change_migration(table, at, migration, area),
            Held::Nothing | Held::Table | Held::Swap(_) | Held::Marker(_) | Held::Unknown => return,
        };
        let has_key = leaf.attributes.protection_key() == key;
        let leaf = Leaf { attributes: leaf.attributes.with_protection_key(key), ..leaf };
        match (rights, leaf.presence) {
            (AreaRights::None, Presence::Present) => self.forbid_leaf(gather, table, at, key),
            (AreaRights::None, Presence::ProtNone) => {
                if let Some(entry) = leaf.entry(level).filter(|_| !has_key) {
                    table.replace(write, at, entry);
                }
            }
            (AreaRights::Read | AreaRights::ReadWrite, Presence::Present) if !has_key => {
                let changed = |entry: Entry| {
                    let entry = entry.with_protection_key(key);
                    match rights {
                        AreaRights::None | AreaRights::Read => entry.without(Flags::WRITE),
                        AreaRights::ReadWrite if may_write => entry.with(Flags::WRITE),
                        AreaRights::ReadWrite => entry,
                    }
                };
                let old = table.update(write, at, changed);
                gather.changed(at, level, old, changed(old));
            }
            (AreaRights::Read, Presence::Present) => {
                if leaf.is_writable() {
                    let old = table.clear_flags(write, at, Flags::WRITE);
                    gather.changed(at, level, old, old.without(Flags::WRITE));
                }
            }
            (AreaRights::ReadWrite, Presence::Present) => {
                if may_write && !leaf.is_writable() {
                    let old = table.set_flags(write, at, Flags::WRITE);
                    gather.changed(at, level, old, old.with(Flags::WRITE));
                }
            }
            (AreaRights::Read | AreaRights::ReadWrite, Presence::ProtNone) => {
                let present = Leaf { presence: Presence::Present, ..leaf }.entry(level);
                if let Some(entry) = present.map(|entry| entry.without(Flags::WRITE)) {
                    let new = if may_write { entry.with(Flags::WRITE) } else { entry };
                    let old = table.replace(write, at, new);
                    gather.changed(at, level, old, new);
                }
            }
        }
    }

    /// Whether a leaf with a page may be made writable without a fault. Under its page-table lock.
    fn may_write(&self, cpu: &P::Cpu, level: Level, leaf: &Leaf, sharing: Sharing) -> bool {
        match sharing {
            Sharing::Shared => may_write_shared(level, leaf),
            // Only anonymous pages are exclusive.
            Sharing::Private => {
                leaf.attributes.has(Flags::soft_dirty(level))
                    && exclusivity(self.map(), cpu, leaf.frame) == Exclusivity::Exclusive
            }
        }
    }

    /// A migration entry is to bring back no more than the rights allow, and the key.
    fn change_migration(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        mut migration: Migration,
        area: &Area,
    ) {
        let Area { sharing, rights, key, .. } = *area;
        migration.key = self.protocols().guards.key_after_migration(migration.key, key);
        if rights == AreaRights::None {
            migration.flags = migration.flags.and(SwapFlags::PROT_NONE);
        } else {
            migration.access = match (migration.access, sharing) {
                (MigrationAccess::Write, Sharing::Shared) => MigrationAccess::Read,
                // What could be written without a copy is this space's alone.
                (MigrationAccess::Write, Sharing::Private) => MigrationAccess::ReadExclusive,
                (access, _) => access,
            };
            migration.flags = migration.flags.without(SwapFlags::PROT_NONE);
        }
        table.replace(&self.protocols().write, at, NonPresent::Migration(migration).encode(table.level()));
    }
}

/// Whether a leaf of a shared area may be made writable without a fault: its dirtying is known already.
fn may_write_shared(level: Level, leaf: &Leaf) -> bool {
    leaf.attributes.has(Flags::DIRTY.and(Flags::soft_dirty(level)))
}
