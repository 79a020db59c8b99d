//! Secondary TLBs: devices and virtual machines that translate by a copy of the page table (Linux: mmu notifiers).

use machine::addr::VirtAddr;

use crate::space::AddressSpace;

/// Who is told before entries change.
///
/// Between [`Self::start`] and [`Self::end`] of a range nothing may be put into a secondary TLB for it: whoever wants to, waits or
/// counts invalidations and tries again (Linux: `mmu_interval_read_begin`, `mmu_interval_read_retry`).
pub trait Notify<C> {
    /// Entries of `start..end` are going to change: forget them. On return no secondary TLB uses them.
    ///
    /// Context: the mmap lock or an rmap lock held; no page-table lock; interrupts on.
    fn start(&self, cpu: &C, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr);

    /// Entries of `start..end` have changed, and TLBs are flushed.
    ///
    /// Context: as for [`Self::start`].
    fn end(&self, cpu: &C, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr);
}

/// There are no secondary TLBs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NobodyListens;

impl<C> Notify<C> for NobodyListens {
    #[inline(always)]
    fn start(&self, _: &C, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {}

    #[inline(always)]
    fn end(&self, _: &C, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {}
}
