//! Areas that are registered.

use machine::addr::VirtAddr;
use pagetable::{Level, LockedTable};

use crate::area::{Area, Sharing};
use crate::error::{AreaError, ZapError};
use crate::file::FileKind;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, SpaceId};
use crate::uffd::{UffdHandler, UffdModes, UffdRegisterError};

impl<'m, P: Platform> Mm<'m, P> {
    /// From now on these faults in `pages` pages from `start` on are handed over, and no others (Linux: UFFDIO_REGISTER). Areas that reach beyond are cut.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed: the range has a hole, or an area where this cannot be, or the machine cannot do it; or as for [`Mm::mprotect`].
    pub fn uffd_register(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        start: VirtAddr,
        pages: u64,
        modes: UffdModes,
    ) -> Result<(), UffdRegisterError> {
        let needs_bit = modes.has(UffdModes::WRITE_PROTECT);
        if !<P::Uffd as UffdHandler<P::Cpu>>::MODES.has(modes) || needs_bit && self.uffd_wp().is_none() {
            return Err(UffdRegisterError::Unsupported { modes });
        }
        self.set_uffd_modes(cpu, id, (start, pages), modes)
    }

    /// Faults in `pages` pages from `start` on are resolved as everywhere else, from now on (Linux: UFFDIO_UNREGISTER). Nothing is write-protected any more, and whoever waits there is woken.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// As for [`Mm::mprotect`].
    pub fn uffd_unregister(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), UffdRegisterError> {
        self.set_uffd_modes(cpu, id, (start, pages), UffdModes::NONE)
    }

    fn set_uffd_modes(
        &self,
        cpu: &P::Cpu,
        id: SpaceId,
        (start, pages): (VirtAddr, u64),
        modes: UffdModes,
    ) -> Result<(), UffdRegisterError> {
        let space = self.space(id).ok_or(AreaError::NoSpace(id))?;
        let (start, end) = self.tagged_range(space, start, pages).map_err(AreaError::from)?;
        let mmap = space.mmap_write(cpu, (start, end));
        let result = self.set_uffd_modes_under_lock(cpu, (id, space), (start, end), modes);
        mmap.unlock();
        if result.is_ok() {
            // What was waited for may not be handed over any more.
            self.uffd().wake(cpu, space, start, end);
        }
        result
    }

    fn set_uffd_modes_under_lock(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        (start, end): (VirtAddr, VirtAddr),
        modes: UffdModes,
    ) -> Result<(), UffdRegisterError> {
        let mut at = start;
        while at < end {
            let area = space.find(cpu, at).ok_or(AreaError::NoArea { address: at })?;
            if !self.can_be_registered(&area, modes) {
                return Err(UffdRegisterError::Unsuitable { area });
            }
            at = area.end();
        }
        let edit = |area: &Area| Some(area.with_uffd(modes));
        let room = self.room_for_cut(cpu, space, (start, end), &edit)?;
        if let Err(error) = self.split_edges(cpu, space, (start, end)) {
            self.cancel_cut(cpu, &room);
            return Err(error.into());
        }
        let cleared = if modes.has(UffdModes::WRITE_PROTECT) {
            Ok(())
        } else {
            self.unprotect_registered(cpu, space, (start, end))
        };
        self.cut(cpu, (id, space), (start, end), &edit, room);
        cleared.map_err(|error| AreaError::Zap(error).into())
    }

    /// Whether these faults of an area can be handed over (Linux: `vma_can_userfault`).
    fn can_be_registered(&self, area: &Area, modes: UffdModes) -> bool {
        let Some(file) = self.file(area.file) else { return false };
        match (file.kind(), area.sharing) {
            (FileKind::Anonymous, Sharing::Private) => true,
            (FileKind::Cached, _) => !modes.has(UffdModes::MISSING) && file.leaf() == Level::Pte,
            (FileKind::Anonymous, Sharing::Shared) => false,
            (FileKind::Driver | FileKind::PfnMapped | FileKind::Mixed, _) => !modes.is_registered(),
        }
    }

    /// Takes the protection of what is registered for it. The caller holds the mmap lock for writing.
    fn unprotect_registered(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), ZapError> {
        let mut at = start;
        let mut result = Ok(());
        while let Some((_, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            let registered = |_: &Area| area.uffd.has(UffdModes::WRITE_PROTECT);
            let Some(part) = area.part(start, end).filter(registered) else { continue };
            result = result.and(self.unprotect_entries(cpu, space, (part.start, part.end())));
        }
        result
    }

    /// Takes the protection of every entry of a range. TLBs know nothing of it, and nobody is given a right: no flush. The caller holds the mmap lock.
    pub(super) fn unprotect_entries(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), ZapError> {
        self.for_each_table(cpu, space, start, end, |mut table, from, until| {
            let level = table.level();
            let mut at = from;
            while at < until && table.children() > 0 {
                self.unprotect_entry(&mut table, at);
                at = level.next(at);
            }
            table.unlock();
        })
    }

    fn unprotect_entry(&self, table: &mut LockedTable<'_, P::Cpu>, at: VirtAddr) {
        let (level, write) = (table.level(), &self.protocols().write);
        let entry = table.entry(&self.protocols().mode, at);
        let unprotected = self.uffd_unprotected(level, entry);
        match self.uffd_wp() {
            _ if unprotected == entry => {}
            // The hardware may set accessed and dirty meanwhile.
            Some(mark) if entry.is_present() => {
                table.clear_flags(write, at, mark);
            }
            _ if unprotected.is_none() => {
                table.get_and_clear(write, at);
            }
            _ => {
                table.replace(write, at, unprotected);
            }
        }
    }
}
