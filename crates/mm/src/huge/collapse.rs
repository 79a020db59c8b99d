//! 512 small pages of anonymous memory become one huge page (Linux: `collapse_huge_page`).
//!
//! # Protocol
//!
//! The huge folio is allocated before anything changes. Then, with the mmap lock and the rmap lock held for writing, so that neither faults nor anybody
//! who comes by the rmap is at the entries:
//!
//! 1. the entry that leads to the table of pages is cleared, and TLBs flushed: no CPU can write to the pages any more. The entries in the table stay as
//!    they are; a lockless walker that is on its way to one of them finds the upper entry changed after it pinned (Linux 70cbc3cc78a9);
//! 2. lockless walkers are waited for. Now nobody reads the table, so that it can be used for something else (Linux 2ba99c5e0881), and whoever has
//!    a reference to one of the pages has it for good;
//! 3. each page must be anonymous, small, and referenced by its entry alone. If one is not, the entry is put back: nothing has happened;
//! 4. the pages are copied, their entries cleared, and the pages given back;
//! 5. the huge leaf is written, and the empty table freed.
//!
//! Between 1 and 5 hardware finds nothing, and faults; the fault waits for the mmap lock.

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{Cpu, Invalidation};
use pagetable::{Attributes, DetachedTable, Entry, Flags, Level, LockedTable, Mode, NobodyWalks, Position, Rights};

use crate::area::{Area, AreaRights, HugePages, Sharing};
use crate::error::CollapseError;
use crate::file::FileKind;
use crate::folio::{Folio, FolioFlags, FolioMapping, Membership, Reference};
use crate::frames::{FrameSource, allocate_folio};
use crate::guard::Guards;
use crate::huge::HUGE_ORDER;
use crate::leaf::{Held, Presence};
use crate::merge::zero::zeros_go;
use crate::mm::Mm;
use crate::notify::Notify;
use crate::platform::{Platform, Protocols};
use crate::shootdown::Stale;
use crate::space::AddressSpace;

/// TLBs were flushed and lockless walkers waited for, since the table was taken out.
pub(super) struct Drained;

impl NobodyWalks for Drained {}

impl<'m, P: Platform> Mm<'m, P> {
    /// Makes one huge page of the small ones that are mapped in the 2 MiB around `address`. At most `max_none` pages may be missing (or be the zero
    /// page): zeros take their place (Linux: `max_ptes_none`).
    ///
    /// User code sees the same contents, and waits meanwhile if it touches them.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Why not. Nothing has changed then.
    pub fn collapse(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        max_none: u32,
    ) -> Result<(), CollapseError> {
        let start = address.align_down(Level::Pmd.size());
        let mmap = space.mmap_write(cpu, (address, address));
        let result = match space.find(cpu, address) {
            Some(area) if self.may_collapse(&area, start) => match self.file(area.file) {
                Some(file) => {
                    let rmap = file.rmap_lock().write(cpu);
                    let result = self.collapse_in(cpu, space, &area, start, max_none);
                    rmap.unlock();
                    result
                }
                None => Err(CollapseError::Area { address }),
            },
            _ => Err(CollapseError::Area { address }),
        };
        mmap.unlock();
        result
    }

    fn may_collapse(&self, area: &Area, start: VirtAddr) -> bool {
        let is_anonymous = self.file(area.file).is_some_and(|file| file.kind() == FileKind::Anonymous);
        is_anonymous
            && area.sharing == Sharing::Private
            && area.huge == HugePages::Allowed
            && area.rights != AreaRights::None
            // Whoever reads the userfaultfd speaks of small pages, and of which are missing.
            && !area.uffd.is_registered()
            && area.start <= start
            && area.end().as_u64() - start.as_u64() >= Level::Pmd.size()
    }

    /// Allocates the folio, and gives it back if it is not used.
    fn collapse_in(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        start: VirtAddr,
        max_none: u32,
    ) -> Result<(), CollapseError> {
        let tables = self.page_tables(space);
        let no_table = |_| CollapseError::NoTable { address: start };
        let parent = tables.find(cpu, start, Level::Pmd).map_err(no_table)?;
        let child = tables.find(cpu, start, Level::Pte).map_err(no_table)?;
        let flags = FolioFlags::ANON.and(FolioFlags::EXCLUSIVE);
        let mapping = FolioMapping { file: area.file, page: area.file_page(start) };
        let folio = allocate_folio(self.map(), self.frames(), cpu, HUGE_ORDER, flags, Some(mapping))
            .map_err(|_| CollapseError::OutOfFrames)?;
        let end = Level::Pmd.next(start);
        self.notify().start(cpu, space, start, end);
        let result = self.collapse_table(cpu, space, area, start, (&parent, &child), &folio, max_none);
        self.notify().end(cpu, space, start, end);
        if result.is_err() {
            // Nothing maps it: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        result
    }

    /// Steps 1 to 5. The huge leaf takes over the caller's reference to the folio.
    #[expect(clippy::too_many_arguments, reason = "one protocol, with all that it decides on")]
    fn collapse_table(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        start: VirtAddr,
        (parent, child): (&Position<'_>, &Position<'_>),
        folio: &Folio<'m>,
        max_none: u32,
    ) -> Result<(), CollapseError> {
        let Protocols { mode, write, .. } = self.protocols();
        let rights = match area.rights {
            AreaRights::ReadWrite => Rights::USER.and(Rights::WRITE),
            AreaRights::None | AreaRights::Read => Rights::USER,
        };
        let attributes = Attributes::new(rights).with_protection_key(area.key).with(Flags::ACCESSED_DIRTY);
        let leaf = Entry::leaf(Level::Pmd, folio.membership().head, attributes);
        let leaf = leaf.map_err(|_| CollapseError::OutOfFrames)?;

        let mut upper = parent.lock(cpu);
        let link = upper.entry(mode, start);
        if !mode.leads_to_table(Level::Pmd, link) {
            return Err(CollapseError::NoTable { address: start });
        }
        upper.get_and_clear(write, start);
        upper.unlock();
        self.drain(cpu, space, start, Level::Pmd.frames());

        let mut pages = child.lock(cpu);
        let checked = self.check_pages(&pages, start, max_none);
        if let Ok(none) = checked {
            if none > 0 {
                self.frames().zero(cpu, folio.membership());
            }
            self.copy_pages(space, &mut pages, start, folio.membership());
        }
        pages.unlock();

        let mut upper = parent.lock(cpu);
        match checked {
            Ok(_) => {
                folio.add_rmap(cpu);
                upper.fill(write, start, leaf);
            }
            Err(_) => upper.fill(write, start, link),
        }
        upper.unlock();
        if checked.is_ok() {
            let table = DetachedTable::new(link.table_frame(), Level::Pte).after_flush(&Drained);
            self.trace_free(cpu, &table);
            table.free(cpu, self.tables());
        }
        checked.map(|_| ())
    }

    /// Steps 1 and 2, once the entry that leads to the table of `pages` pages from `start` on is cleared: afterwards no walker, in hardware or software, is in it.
    pub(super) fn drain(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, start: VirtAddr, pages: u64) {
        let Protocols { guards, lifetime, .. } = self.protocols();
        self.flush(cpu, space, Invalidation::pages(start, pages), Stale::Tables);
        guards.wait_before_table_reuse(cpu, lifetime, self.shootdown(), space.active(cpu));
    }

    /// Step 3: how many pages are missing, if all the others can be taken.
    fn check_pages(
        &self,
        table: &LockedTable<'_, P::Cpu>,
        start: VirtAddr,
        max_none: u32,
    ) -> Result<u32, CollapseError> {
        let cpu = table.cpu();
        let end = Level::Pmd.next(start);
        let mut pages = 0;
        let mut next = first_used(table, start, end);
        while let Some(address) = next {
            let busy = CollapseError::Busy { address };
            match self.held(Level::Pte, table.entry(&self.protocols().mode, address)) {
                Held::Zero(_) => {}
                Held::Page(leaf) if leaf.presence == Presence::Present => {
                    let folio = Folio::held(self.map(), cpu, leaf.frame).ok_or(busy)?;
                    let is_ours = folio.flags(cpu).contains(FolioFlags::ANON)
                        && folio.membership().order == 0
                        // The entry's. A pin, a child that shares the page, and somebody who is moving it away have more.
                        && folio.references(cpu) == 1;
                    if !is_ours {
                        return Err(busy);
                    }
                    pages += 1;
                }
                _ => return Err(busy),
            }
            next = first_used(table, address.wrapping_add(PAGE_SIZE), end);
        }
        let none = Level::Pmd.frames() as u32 - pages;
        if none > max_none { Err(CollapseError::TooFew { pages }) } else { Ok(none) }
    }

    /// Step 4.
    fn copy_pages(
        &self,
        space: &AddressSpace<'m>,
        table: &mut LockedTable<'_, P::Cpu>,
        start: VirtAddr,
        folio: Membership,
    ) {
        let cpu = table.cpu();
        let end = Level::Pmd.next(start);
        let mut next = first_used(table, start, end);
        while let Some(address) = next {
            match self.held(Level::Pte, table.get_and_clear(&self.protocols().write, address)) {
                Held::Page(leaf) => {
                    if let Some(page) = Folio::held(self.map(), cpu, leaf.frame) {
                        let to = folio.head.wrapping_add((address.as_u64() - start.as_u64()) / PAGE_SIZE);
                        self.frames().copy(cpu, leaf.frame, to, 1);
                        page.remove_rmap(cpu, 1);
                        // The entry's reference: this cannot underflow.
                        let _ = page.put(cpu, self.map(), 1, Reference::Get);
                    }
                }
                Held::Zero(leaf) => zeros_go(cpu, space, &leaf),
                _ => {}
            }
            next = first_used(table, address.wrapping_add(PAGE_SIZE), end);
        }
    }
}

/// The first address of `from..end`, all in what the table translates, whose entry is not none.
///
/// Neither hardware nor software writes to the table: it is out of the tree, and flushed.
pub(super) fn first_used<C: Cpu>(table: &LockedTable<'_, C>, from: VirtAddr, end: VirtAddr) -> Option<VirtAddr> {
    let size = table.level().size();
    let entries = if table.children() == 0 { 0 } else { (end.as_u64() - from.as_u64()) / size };
    (0..entries)
        .map(|entry| from.wrapping_add(entry * size))
        .find(|&address| table.cpu().owned_load(table.slot(address).cell()) != 0)
}
