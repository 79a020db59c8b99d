//! The memory manager: everything that address spaces share.

use machine::addr::{PAGE_SIZE, VirtAddr};
use machine::{Cpu, CpuSet, Invalidation};
use pagetable::{Mode, Tables};

use crate::error::RangeError;
use crate::file::{File, FileId};
use crate::guard::Guards;
use crate::platform::{Platform, Protocols};
use crate::shootdown::{RemoteFlush, Shootdown, Stale};
use crate::space::{AddressSpace, SpaceId};
use crate::trace::{Event, FlushReason};

/// The memory manager of one machine.
///
/// It owns nothing and allocates nothing but frames for tables: address spaces and files are slices that the caller provides, and areas and rmap
/// entries live in slots of those. Any CPU may call any method at any time; each method says in which context.
pub struct Mm<'m, P: Platform> {
    protocols: Protocols<P>,
    parts: Parts<'m, P>,
}

/// What a memory manager is made of, all of it the caller's.
pub struct Parts<'m, P: Platform> {
    /// Where page tables are.
    pub tables: &'m P::Tables,
    /// Where the records of frames are.
    pub map: &'m P::Map,
    /// Where frames for data come from.
    pub frames: &'m P::Frames,
    /// Where pages go that are taken out of memory.
    pub swap: &'m P::Swap,
    /// Who is told before entries change.
    pub notify: &'m P::Notify,
    /// What drivers make of faults on their files.
    pub drivers: &'m P::Drivers,
    /// Who resolves faults of areas that are registered.
    pub uffd: &'m P::Uffd,
    /// Who is told what happens.
    pub trace: &'m P::Trace,
    /// The address spaces; [`SpaceId`] is the index.
    pub spaces: &'m [AddressSpace<'m>],
    /// The files; [`FileId`] is the index.
    pub files: &'m [File<'m>],
    /// What the CPUs of the machine ask of each other.
    pub shootdown: &'m Shootdown,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// A memory manager of these parts, that follows these protocols.
    pub const fn new(protocols: Protocols<P>, parts: Parts<'m, P>) -> Self {
        Self { protocols, parts }
    }

    /// The protocols that it follows.
    #[inline(always)]
    pub const fn protocols(&self) -> &Protocols<P> {
        &self.protocols
    }

    /// Where page tables are.
    #[inline(always)]
    pub const fn tables(&self) -> &'m P::Tables {
        self.parts.tables
    }

    /// Where the records of frames are.
    #[inline(always)]
    pub const fn map(&self) -> &'m P::Map {
        self.parts.map
    }

    /// Where frames for data come from.
    #[inline(always)]
    pub const fn frames(&self) -> &'m P::Frames {
        self.parts.frames
    }

    /// Where pages go that are taken out of memory.
    #[inline(always)]
    pub const fn swap(&self) -> &'m P::Swap {
        self.parts.swap
    }

    /// Who is told before entries change.
    #[inline(always)]
    pub const fn notify(&self) -> &'m P::Notify {
        self.parts.notify
    }

    /// What drivers make of faults on their files.
    #[inline(always)]
    pub const fn drivers(&self) -> &'m P::Drivers {
        self.parts.drivers
    }

    /// Who resolves faults of areas that are registered.
    #[inline(always)]
    pub const fn uffd(&self) -> &'m P::Uffd {
        self.parts.uffd
    }

    /// Who is told what happens.
    #[inline(always)]
    pub const fn tracer(&self) -> &'m P::Trace {
        self.parts.trace
    }

    /// All address spaces.
    pub(crate) const fn spaces(&self) -> &'m [AddressSpace<'m>] {
        self.parts.spaces
    }

    /// The address space with this number.
    #[inline]
    pub fn space(&self, id: SpaceId) -> Option<&'m AddressSpace<'m>> {
        self.parts.spaces.get(id.index())
    }

    /// All files.
    pub(crate) const fn files(&self) -> &'m [File<'m>] {
        self.parts.files
    }

    /// The file with this number.
    #[inline]
    pub fn file(&self, id: FileId) -> Option<&'m File<'m>> {
        self.parts.files.get(id.index())
    }

    /// Makes this CPU translate by the address space.
    ///
    /// Context: interrupts off or pinned to the CPU; `space` is not active on this CPU yet.
    pub fn enter(&self, cpu: &P::Cpu, space: &AddressSpace<'_>) {
        // First into the set, then into CR3: between the two a shootdown is superfluous, the other way round it would be missed.
        space.enter(cpu);
        self.trace(cpu, || Event::flush(FlushReason::TaskSwitch, Invalidation::All));
        cpu.load_root(space.root().address());
    }

    /// Makes this CPU translate by `to`, where it translated by `from`.
    ///
    /// Context: interrupts off or pinned to the CPU.
    pub fn switch(&self, cpu: &P::Cpu, from: &AddressSpace<'_>, to: &AddressSpace<'_>) {
        if from.is(to) {
            // The same: leaving it would take this CPU out of the set of those that are flushed.
            return;
        }
        self.enter(cpu, to);
        // Only now: until CR3 was loaded, this CPU could hold translations of `from`.
        from.leave(cpu);
    }

    /// What a CPU does when it takes an IPI, whichever. Runs with interrupts off.
    pub fn handle_ipi(&self, cpu: &P::Cpu) {
        self.parts.shootdown.handle(cpu, |what| self.invalidate_on_interrupt(cpu, what));
    }

    pub(crate) const fn shootdown(&self) -> &'m Shootdown {
        self.parts.shootdown
    }

    /// Makes every CPU that may translate by the address space forget `what`: now, or if nothing but leaves is stale, before its next access.
    ///
    /// Context: interrupts on. Page-table locks may be held.
    #[inline]
    pub(crate) fn flush(&self, cpu: &P::Cpu, space: &AddressSpace<'_>, what: Invalidation, stale: Stale) {
        self.flush_for(cpu, FlushReason::LocalMmShootdown, space.active(cpu), what, stale);
    }

    /// The same for these CPUs, and this one, whichever address spaces they translate by.
    #[inline]
    pub(crate) fn flush_on(&self, cpu: &P::Cpu, cpus: CpuSet, what: Invalidation, stale: Stale) {
        self.flush_for(cpu, FlushReason::LocalShootdown, cpus, what, stale);
    }

    #[inline]
    fn flush_for(&self, cpu: &P::Cpu, reason: FlushReason, cpus: CpuSet, what: Invalidation, stale: Stale) {
        let cpus = self.without_lazy(cpu, self.protocols().guards.cpus_to_flush(cpu, cpus), stale);
        self.trace_flush(cpu, reason, cpus, what);
        self.protocols().remote_flush.flush(cpu, self.shootdown(), cpus, what);
    }

    /// The page tables of an address space.
    pub(crate) fn page_tables(&self, space: &AddressSpace<'_>) -> Tables<'_, P::Mode, P::Tables, P::Read, P::Write> {
        Tables {
            mode: &self.protocols.mode,
            memory: self.parts.tables,
            reader: &self.protocols.read,
            writer: &self.protocols.write,
            root: space.root(),
        }
    }

    /// `pages` pages from `start` on, as user code names them: the first address without its tag ([`crate::Tags`]), and that behind them.
    #[inline]
    pub(crate) fn tagged_range(
        &self,
        space: &AddressSpace<'_>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(VirtAddr, VirtAddr), RangeError> {
        let start = space.tags().drop_from(start);
        Ok((start, self.page_range(start, pages)?))
    }

    /// The first address behind `pages` pages from `start` on, all of which user code can have.
    pub(crate) fn page_range(&self, start: VirtAddr, pages: u64) -> Result<VirtAddr, RangeError> {
        if !start.is_aligned(PAGE_SIZE) {
            return Err(RangeError::Misaligned { address: start });
        }
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(RangeError::Overflow { address: start, pages })?;
        let end = start.checked_add(bytes).ok_or(RangeError::Overflow { address: start, pages })?;
        match self.protocols.mode.check_user(start, bytes) {
            Ok(()) => Ok(end),
            Err(_) => Err(RangeError::OutsideUser { address: start, pages }),
        }
    }
}
