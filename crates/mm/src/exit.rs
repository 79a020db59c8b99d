//! The end of an address space.

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{CpuSet, Invalidation};

use crate::error::{AreaError, ZapError};
use crate::file::MappedAt;
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::{AddressRange, AddressSpace, EVERYTHING, MmapWrite, SpaceId, SpacePart};
use crate::zap::ZapOf;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes everything out of an address space: areas, entries, and all tables but the root (and those that [`Mm::prepare`] made). It is as new then
    /// (Linux: `exit_mmap`).
    ///
    /// CPUs that are lazy there go to the kernel's address space ([`crate::lazy`]), if flushes interrupt them: then no CPU but perhaps this one has the root loaded on return.
    ///
    /// Context: interrupts on, no lock. No CPU runs in the address space but perhaps this one, and nobody takes references to its pages meanwhile.
    ///
    /// # Errors
    /// There is no such address space. Or tables were malformed: then the areas are gone, but entries behind the malformed one stay.
    pub fn exit(&self, cpu: &P::Cpu, id: SpaceId) -> Result<(), AreaError> {
        let space = self.space(id).ok_or(AreaError::NoSpace(id))?;
        let mmap = space.mmap_write(cpu, EVERYTHING);
        let result = self.unmap_all(cpu, (id, space), &mmap);
        space.forget_pins(cpu);
        space.forget_guards(cpu);
        space.keys().forget(cpu);
        mmap.unlock();
        if space.active(cpu) != CpuSet::EMPTY {
            self.flush(cpu, space, Invalidation::All, Stale::Tables);
        }
        result.map_err(AreaError::Zap)
    }

    /// [`Self::exit`] for a caller that holds the mmap lock of all for writing.
    ///
    /// All entries go first and are flushed together; only then the files forget the areas (Linux b67fbebd4cf9, CVE-2022-39188).
    pub(crate) fn unmap_all(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        mmap: &MmapWrite<'_, P::Cpu>,
    ) -> Result<(), ZapError> {
        let mut areas = space.areas(cpu);
        let mut zapped = Ok(());
        if let Some(first) = areas.next() {
            let last = areas.last().unwrap_or(first);
            zapped = self.zap_all(cpu, space, (first.start, last.end()));
            self.forget_areas(cpu, (id, space), mmap);
        }
        self.free_common_tables(cpu, (space, mmap));
        zapped
    }

    /// Takes the entries of all areas away, which lie in this range.
    fn zap_all(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, range: AddressRange) -> Result<(), ZapError> {
        let all = self.reach(cpu, space, range);
        self.notify_of(cpu, space, all, || {
            let mut gather = Gather::begin(cpu, self, space, EVERYTHING);
            let mut zapped = Ok(());
            for area in space.areas(cpu) {
                let (start, end) = (area.start, area.end());
                zapped = zapped.and(self.zap_range(cpu, &mut gather, space, start, end, ZapOf::Everything));
            }
            gather.finish(cpu);
            zapped
        })
    }

    /// Takes the tables out into which several parts reach, and which nobody needs: those that parts were left with when their areas went one part after the other.
    fn free_common_tables(&self, cpu: &P::Cpu, (space, mmap): (&AddressSpace<'m>, &MmapWrite<'_, P::Cpu>)) {
        for start in space.parts()[1..].iter().map(SpacePart::start) {
            let mut gather = Gather::begin(cpu, self, space, EVERYTHING);
            self.free_tables(cpu, &mut gather, (space, mmap), start, start.wrapping_add(PAGE_SIZE));
            gather.finish(cpu);
        }
    }

    /// Takes all areas out, the last first, and with each the tables into which no other reaches any more.
    fn forget_areas(&self, cpu: &P::Cpu, (id, space): (SpaceId, &AddressSpace<'m>), mmap: &MmapWrite<'_, P::Cpu>) {
        let mut gather = Gather::begin(cpu, self, space, EVERYTHING);
        while let Some((index, area)) = space.indexed_areas(cpu).last() {
            if let Some(file) = self.file(area.file) {
                let rmap = file.rmap_lock().write(cpu);
                file.unlink(cpu, &MappedAt::new(id, &area));
                rmap.unlock();
            }
            space.splice(cpu, index, 1, &[]);
            let (start, end): (VirtAddr, VirtAddr) = (area.start, area.end());
            self.free_tables(cpu, &mut gather, (space, mmap), start, end);
        }
        gather.finish(cpu);
    }
}
