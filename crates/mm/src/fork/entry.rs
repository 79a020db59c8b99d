//! What becomes of one entry.

use machine::addr::VirtAddr;
use pagetable::{
    Attributes, Entry, Flags, Level, LockedTable, Marker, Migration, MigrationAccess, NonPresent, ProtNone, Rights,
    Swap,
};

use crate::area::{Area, AreaRights};
use crate::error::ForkError;
use crate::exclusive::{self, Exclusivity, exclusivity};
use crate::folio::{Folio, FolioFlags, Reference};
use crate::fork::Copies;
use crate::frames::FrameSource;
use crate::gather::Gather;
use crate::leaf::{Held, Leaf, Presence};
use crate::merge::zero::zeros_come;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::swap::{SwapPlace, SwapStore};

/// Copies entries from one table to another. Both are locked.
pub(super) struct Copier<'c, 'g, 'm, P: Platform> {
    pub(super) mm: &'c Mm<'m, P>,
    pub(super) cpu: &'c P::Cpu,
    pub(super) parent: &'c AddressSpace<'m>,
    pub(super) child: &'c AddressSpace<'m>,
    pub(super) area: &'c Area,
    pub(super) copies: Copies,
    pub(super) level: Level,
    /// For a copy of a page that is pinned.
    pub(super) spare: &'c mut Option<Folio<'m>>,
    /// What the parent's TLBs must forget.
    pub(super) gather: &'c mut Gather<'g, 'm, P>,
}

/// What became of an entry.
pub(super) enum Copied {
    /// The child has what it is to have.
    Done,
    /// Nothing: it needs a copy, and there is no folio for one.
    NeedsFolio,
    /// Nothing: it leads to a table.
    Table,
}

/// Whether the child may have the parent's page.
enum Share {
    /// It may, and none of the two may write it without a copy.
    Page,
    /// It must have its own: the page may be pinned.
    Copy,
}

impl<'m, P: Platform> Copier<'_, '_, 'm, P> {
    /// Copies one entry.
    pub(super) fn copy(
        &mut self,
        source: &mut LockedTable<'_, P::Cpu>,
        target: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
    ) -> Result<Copied, ForkError> {
        let entry = source.entry(&self.mm.protocols().mode, at);
        match self.mm.held(self.level, entry) {
            Held::Nothing | Held::Unknown | Held::Marker(Marker::UffdWriteProtect) => {}
            Held::Table => return Ok(Copied::Table),
            Held::Marker(Marker::Guard) => self.fill(target, at, entry),
            _ if self.copies == Copies::Guards => {}
            Held::Page(leaf) => return self.copy_page(source, target, at, &leaf),
            Held::Zero(leaf) => {
                self.fill(target, at, entry);
                zeros_come(self.cpu, self.child, &leaf);
            }
            Held::Special(_) | Held::Marker(Marker::Poisoned) => self.fill(target, at, entry),
            Held::Swap(swap) => self.copy_swap(target, at, swap)?,
            Held::Migration(migration) => self.copy_migration(source, target, at, migration),
        }
        Ok(Copied::Done)
    }

    fn copy_page(
        &mut self,
        source: &mut LockedTable<'_, P::Cpu>,
        target: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        leaf: &Leaf,
    ) -> Result<Copied, ForkError> {
        let count_limit = ForkError::CountLimit { address: at };
        let folio = Folio::held(self.mm.map(), self.cpu, leaf.frame).ok_or(count_limit)?;
        match self.share(&folio, leaf) {
            Share::Page => {
                // The entry holds a reference, so the count is not 0; it may be at its limit. Last of what can fail.
                if Folio::try_grab(self.mm.map(), self.cpu, leaf.frame, 1, Reference::Get).is_err() {
                    return Err(count_limit);
                }
                folio.add_rmap(self.cpu);
                let entry = self.write_protect(source, at, leaf);
                // The child has not used it yet. What was written stays written.
                self.fill(target, at, if entry.is_present() { entry.without(Flags::ACCESSED) } else { entry });
                Ok(Copied::Done)
            }
            Share::Copy => {
                let Some(copy) = self.spare.take() else { return Ok(Copied::NeedsFolio) };
                let frame = copy.membership().head;
                self.mm.frames().copy(self.cpu, leaf.frame, frame, self.level.frames());
                copy.add_rmap(self.cpu);
                let attributes = leaf.attributes.with_rights(self.rights()).with(Flags::DIRTY);
                self.fill(target, at, self.encode(&Leaf { frame, attributes, presence: leaf.presence }));
                Ok(Copied::Done)
            }
        }
    }

    /// Decides, and makes the page one that belongs to nobody alone if it is to be shared.
    fn share(&self, folio: &Folio<'_>, leaf: &Leaf) -> Share {
        let map = self.mm.map();
        if !folio.flags(self.cpu).contains(FolioFlags::ANON)
            || exclusivity(map, self.cpu, leaf.frame) == Exclusivity::Shared
        {
            // What is not exclusive, nobody pins.
            return Share::Page;
        }
        if self.parent.has_pinned(self.cpu) && folio.maybe_dma_pinned(self.cpu) {
            return Share::Copy;
        }
        exclusive::share(map, self.cpu, leaf.frame);
        Share::Page
    }

    /// Takes the right to write from the parent's entry. Returns it as it is then, but for accessed and dirty, which are as they were.
    fn write_protect(&mut self, source: &mut LockedTable<'_, P::Cpu>, at: VirtAddr, leaf: &Leaf) -> Entry {
        let write = &self.mm.protocols().write;
        let read_only = Leaf { attributes: leaf.attributes.with_rights(without_write(leaf.attributes)), ..*leaf };
        if !leaf.attributes.has(Flags::WRITE) {
            return self.encode(&read_only);
        }
        match leaf.presence {
            Presence::Present => {
                let before = source.clear_flags(write, at, Flags::WRITE);
                let now = before.without(Flags::WRITE);
                self.gather.changed(at, self.level, before, now);
                now
            }
            Presence::ProtNone => {
                let entry = self.encode(&read_only);
                source.replace(write, at, entry);
                entry
            }
        }
    }

    fn copy_swap(&self, target: &mut LockedTable<'_, P::Cpu>, at: VirtAddr, swap: Swap) -> Result<(), ForkError> {
        let place = SwapPlace { device: swap.device, offset: swap.offset };
        self.mm.swap().duplicate(self.cpu, place).map_err(|error| ForkError::Swap { address: at, error })?;
        // The page comes back to two address spaces, as two pages.
        self.fill(target, at, NonPresent::Swap(swap).encode(self.level));
        Ok(())
    }

    fn copy_migration(
        &self,
        source: &mut LockedTable<'_, P::Cpu>,
        target: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        migration: Migration,
    ) {
        let shared = NonPresent::Migration(Migration { access: MigrationAccess::Read, ..migration });
        let entry = shared.encode(self.level);
        if migration.access != MigrationAccess::Read {
            source.replace(&self.mm.protocols().write, at, entry);
        }
        self.fill(target, at, entry);
    }

    /// What the area allows, for a page that is the child's alone.
    const fn rights(&self) -> Rights {
        match self.area.rights {
            AreaRights::None | AreaRights::Read => Rights::USER,
            AreaRights::ReadWrite => Rights::USER.and(Rights::WRITE),
        }
    }

    /// The entry of a leaf whose frame an allocator gave, or another entry of this level had.
    const fn encode(&self, leaf: &Leaf) -> Entry {
        let Leaf { frame, attributes, presence } = *leaf;
        match presence {
            Presence::ProtNone => NonPresent::ProtNone(ProtNone { frame, attributes }).encode(self.level),
            Presence::Present => match Entry::leaf(self.level, frame, attributes) {
                Ok(entry) => entry,
                Err(_) => Entry::NONE,
            },
        }
    }

    /// Nobody but fork puts entries into the child, so the place is free. The child is not registered with a userfaultfd, so that nothing there is protected.
    fn fill(&self, target: &mut LockedTable<'_, P::Cpu>, at: VirtAddr, entry: Entry) {
        let entry = self.mm.uffd_unprotected(self.level, entry);
        target.fill(&self.mm.protocols().write, at, entry);
    }
}

const fn without_write(attributes: Attributes) -> Rights {
    attributes.rights().without(Rights::WRITE)
}
