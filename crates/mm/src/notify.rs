//! Secondary TLBs: devices and virtual machines that translate by a copy of the page table (Linux: mmu notifiers).

use machine::addr::VirtAddr;
use machine::{Cpu, Word64};
use pagetable::{Level, Mode};

use crate::area::{Area, HugePages};
use crate::file::{File, FileKind};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// Who is told before entries change.
///
/// Between [`Self::start`] and [`Self::end`] of a range nothing may be put into a secondary TLB for it: whoever wants to, waits or
/// counts invalidations and tries again. [`Invalidations`] does that.
///
/// Every operation calls them that takes entries or rights away: zaps by address and by rmap, `munmap`, `mprotect`, `mremap`, write protection, harvests that
/// clear more than accessed bits, copies on write, leaving a table that others share. Faults that only add do not.
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

/// How many invalidations have begun and not ended, and how many have ever begun: by this a secondary TLB knows whether what it looked up may be put in
/// (Linux: `mmu_interval_notifier`).
///
/// The one side, in [`Notify::start`]: [`Self::start`], *then* take the secondary TLB's lock and forget the range. In [`Notify::end`]: [`Self::end`].
///
/// The other side, to put something in: [`Self::begin`]; look the address up, by a walk or by GUP; take the secondary TLB's lock; if
/// [`Self::changed`], drop the lock and begin again; put it in; drop the lock.
///
/// Either the invalidation comes first, and the count has changed, or what was put in is there when the invalidation takes the lock. [`Mm::mirror`] is this side
/// for pages of memory.
pub struct Invalidations(Word64);

/// What [`Invalidations::begin`] saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen(u64);

/// The lower half counts those under way, the upper half those that have begun.
const UNDER_WAY: u64 = (1 << 32) - 1;

impl Invalidations {
    /// None so far.
    pub const fn new() -> Self {
        Self(Word64::new(0))
    }

    /// One begins.
    #[inline]
    #[track_caller]
    pub fn start<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.0, UNDER_WAY + 1 + 1);
    }

    /// One has ended.
    #[inline]
    #[track_caller]
    pub fn end<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.0, u64::MAX);
    }

    /// Waits until none is under way.
    ///
    /// Context: interrupts on; no lock that an invalidation may wait for, least of all that of the secondary TLB.
    #[inline]
    #[track_caller]
    pub fn begin<C: Cpu>(&self, cpu: &C) -> Seen {
        Seen(cpu.await_value(&self.0, |count| count & UNDER_WAY == 0))
    }

    /// Whether one has begun since [`Self::begin`] returned `since`: what was looked up meanwhile may be out of date.
    ///
    /// Context: the secondary TLB's lock is held.
    #[inline]
    #[track_caller]
    #[must_use]
    pub fn changed<C: Cpu>(&self, cpu: &C, since: Seen) -> bool {
        cpu.load(&self.0) != since.0
    }

    /// The word, so that a trace can name it.
    pub const fn word(&self) -> &Word64 {
        &self.0
    }
}

impl Default for Invalidations {
    fn default() -> Self {
        Self::new()
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Runs `change`, which takes entries or rights of the range away and flushes, between the two notices.
    pub(crate) fn notify_of<R>(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        change: impl FnOnce() -> R,
    ) -> R {
        self.notify().start(cpu, space, start, end);
        let result = change();
        self.notify().end(cpu, space, start, end);
        result
    }

    /// The range, and around it what huge leaves may map that reach into it: these may go whole. The caller holds the mmap lock.
    pub(crate) fn reach(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> (VirtAddr, VirtAddr) {
        let level = |at: VirtAddr| space.find(cpu, at).map_or(Level::Pte, |area| self.largest_leaf(&area));
        let first = start.align_down(level(start).size());
        match end.as_u64().checked_sub(1).map(VirtAddr::new) {
            Some(last) if last >= start => (first, level(last).next(last).min(self.protocols().mode.user_end())),
            _ => (start, end),
        }
    }

    pub(crate) fn largest_leaf(&self, area: &Area) -> Level {
        let of_file = self.file(area.file).map_or(Level::Pte, |file| file.leaf());
        if area.huge == HugePages::Allowed { of_file.max(Level::Pmd) } else { of_file }
    }

    /// As [`Self::reach`], for addresses at which a file is mapped, by a caller that knows no areas.
    pub(crate) fn reach_of_file(&self, file: &File<'_>, (start, end): (VirtAddr, VirtAddr)) -> (VirtAddr, VirtAddr) {
        let level = if file.kind() == FileKind::Anonymous { file.leaf().max(Level::Pmd) } else { file.leaf() };
        let last = VirtAddr::new(end.as_u64() - 1);
        (start.align_down(level.size()), level.next(last).min(self.protocols().mode.user_end()))
    }
}
