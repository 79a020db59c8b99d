//! Unmapping: areas go, with their entries and the tables that they leave empty.

use machine::addr::VirtAddr;
use pagetable::{Level, Mode, WalkError};

use crate::area::Area;
use crate::error::{AreaError, RangeError, ZapError};
use crate::gather::Gather;
use crate::guard::{FileForgets, Guards};
use crate::mm::Mm;
use crate::platform::{Platform, Protocols};
use crate::space::{AddressSpace, MmapWrite, SpaceId};
use crate::zap::ZapOf;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes `pages` pages from `start` on out of an address space, with their entries and the tables that they leave empty. Areas that reach beyond
    /// are cut; where there is no area nothing happens.
    ///
    /// On return no CPU can reach the pages through these addresses.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed: the range is wrong, cuts an area where it must not, or there is no slot for what is cut off, or no frame to split a huge leaf. Or tables were malformed: then
    /// the areas are gone, but entries behind the malformed one stay.
    pub fn munmap(&self, cpu: &P::Cpu, id: SpaceId, start: VirtAddr, pages: u64) -> Result<(), AreaError> {
        let space = self.space(id).ok_or(AreaError::NoSpace(id))?;
        let (start, end) = self.tagged_range(space, start, pages)?;
        if pages == 0 {
            return Err(RangeError::Empty { address: start }.into());
        }
        let mmap = space.mmap_write(cpu, (start, end));
        let result = self.unmap_range(cpu, (id, space), &mmap, (start, end));
        mmap.unlock();
        result
    }

    /// [`Self::munmap`] for a caller that holds the mmap lock of the range for writing.
    ///
    /// The order matters: entries go first, then TLBs are flushed, and only then the files forget the areas: a revoke by rmap
    /// that no longer found one would return although its pages can still be reached (Linux b67fbebd4cf9, CVE-2022-39188).
    pub(crate) fn unmap_range(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        mmap: &MmapWrite<'_, P::Cpu>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), AreaError> {
        let gone = |_: &Area| None;
        let room = self.room_for_cut(cpu, space, (start, end), &gone)?;
        if let Err(error) = self.split_edges(cpu, space, (start, end)) {
            self.cancel_cut(cpu, &room);
            return Err(error);
        }
        let forget = || self.cut(cpu, (id, space), (start, end), &gone, room);
        let zapped = match self.protocols().guards.file_forgets() {
            FileForgets::AfterFlush => {
                let zapped = self.zap_areas(cpu, space, (start, end), || ());
                forget();
                zapped
            }
            FileForgets::BeforeFlush => self.zap_areas(cpu, space, (start, end), forget),
        };
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        self.free_tables(cpu, &mut gather, (space, mmap), start, end);
        gather.finish(cpu);
        zapped.map_err(AreaError::Zap)
    }

    /// Takes the entries of all areas in the range away. `before_flush` runs when they are cleared.
    fn zap_areas(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        before_flush: impl FnOnce(),
    ) -> Result<(), ZapError> {
        let reach = self.reach(cpu, space, (start, end));
        self.notify_of(cpu, space, reach, || {
            let mut gather = Gather::begin(cpu, self, space, (start, end));
            let zapped = self.zap_range(cpu, &mut gather, space, start, end, ZapOf::Everything);
            before_flush();
            gather.finish(cpu);
            zapped
        })
    }

    /// Detaches the tables between `start` and `end` that have no entries left.
    pub(crate) fn free_tables(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        (space, mmap): (&AddressSpace<'m>, &MmapWrite<'_, P::Cpu>),
        start: VirtAddr,
        end: VirtAddr,
    ) {
        let root = self.protocols().mode.root_level();
        let mut parent = Level::Pmd;
        loop {
            // An entry of a root that is read at load must never go away while CPUs use it.
            if parent > root || parent == root && self.root_is_read_at_load() {
                return;
            }
            let mut at = start;
            while at < end {
                // Others walk tables of their own areas: zap by rmap holds no lock of this address space. So only tables into which no other
                // area reaches go (Linux: floor and ceiling of `free_pgd_range`). One into which other parts of the address space reach stays until its end, or until somebody
                // unmaps in all of them at once.
                let common = self.protocols().guards.common_tables();
                let is_free = space.is_free(cpu, (mmap, common), at.align_down(parent.size()), parent.size());
                let done = if is_free { self.free_table(cpu, gather, space, at, parent) } else { parent };
                at = done.next(at);
            }
            match parent.upper() {
                Some(upper) => parent = upper,
                None => return,
            }
        }
    }

    /// Detaches the table to which the entry of level `parent` for `at` points, if it is empty. Returns the level of the entry that has been dealt with: a greater
    /// one, if so much is missing.
    fn free_table(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        space: &AddressSpace<'m>,
        at: VirtAddr,
        parent: Level,
    ) -> Level {
        let level = parent;
        let Protocols { mode, write, guards, .. } = self.protocols();
        let tables = self.page_tables(space);
        let Some(child) = parent.lower() else { return level };
        // The mmap lock of all that the table translates is held for writing: nobody else adds or detaches it, or tables below it. What is not there, need not be freed.
        let (parent, child) = match (tables.find(cpu, at, parent), tables.find(cpu, at, child)) {
            (Ok(parent), Ok(child)) => (parent, child),
            (Err(WalkError::NotPresent { level, .. }), _) => return level,
            _ => return level,
        };
        let mut parent = parent.lock(cpu);
        let child = child.lock(cpu);
        if child.children() == 0 {
            guards.before_detach(cpu, self.tables(), parent.entry(mode, at).table_frame());
        }
        let detached = parent.detach(mode, self.tables(), write, at, &child);
        child.unlock();
        parent.unlock();
        if let Ok(table) = detached {
            gather.table(cpu, at, table);
        }
        level
    }
}
