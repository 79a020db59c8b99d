//! Tracepoints: who wants to know what the engine does is told, with the names and fields that Linux's tracepoints have where there are such.
//!
//! | event | Linux |
//! |---|---|
//! | [`Event::TlbFlush`] | `tlb:tlb_flush` (reason, pages) |
//! | [`Event::PageFault`] | `exceptions:page_fault_user` (address, error_code) |
//! | [`Event::Zap`], [`Event::TableFree`] | none |
//!
//! Whether anybody is told is said by type: with [`NobodyTraces`] no code is left of it.

use machine::addr::{Frame, VirtAddr};
use machine::{Cpu, CpuSet, Invalidation, PageFault};
use pagetable::{FlushedTable, Level};

use crate::mm::Mm;
use crate::platform::Platform;

/// Who is told.
pub trait Trace<C> {
    /// Whether anybody is. If not, events are not even made.
    const ENABLED: bool = true;

    /// Something is about to happen on this CPU.
    ///
    /// Context: any lock may be held, interrupts may be off; no waiting, no call of the engine.
    fn event(&self, cpu: &C, event: Event);
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct NobodyTraces;

impl<C> Trace<C> for NobodyTraces {
    const ENABLED: bool = false;

    #[inline(always)]
    fn event(&self, _: &C, _: Event) {}
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A TLB is flushed, or others are told to flush theirs.
    TlbFlush {
        /// Why.
        reason: FlushReason,
        /// Of how many pages; `None` of all (TLB_FLUSH_ALL).
        pages: Option<u64>,
    },
    /// User code faulted.
    PageFault(PageFault),
    /// The entries of a range are cleared: by address, by area or by rmap.
    Zap {
        /// The first address.
        start: VirtAddr,
        /// The first one behind.
        end: VirtAddr,
    },
    /// A page table goes back to where it came from.
    TableFree {
        /// Its frame.
        frame: Frame,
        /// The level of its entries.
        level: Level,
    },
}

/// Why a TLB is flushed (Linux: `enum tlb_flush_reason`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlushReason {
    /// This CPU loads another address space (TLB_FLUSH_ON_TASK_SWITCH).
    TaskSwitch,
    /// Another CPU told this one to (TLB_REMOTE_SHOOTDOWN).
    RemoteShootdown,
    /// This CPU flushes for several address spaces at once (TLB_LOCAL_SHOOTDOWN).
    LocalShootdown,
    /// This CPU flushes for one address space (TLB_LOCAL_MM_SHOOTDOWN).
    LocalMmShootdown,
    /// This CPU tells others to, by IPI or whatever the platform has instead (TLB_REMOTE_SEND_IPI).
    RemoteSendIpi,
}

impl Event {
    /// Of a flush of this.
    pub(crate) const fn flush(reason: FlushReason, what: Invalidation) -> Self {
        let pages = match what {
            Invalidation::All => None,
            Invalidation::Pages { pages, .. } => Some(pages),
        };
        Self::TlbFlush { reason, pages }
    }
}

impl<P: Platform> Mm<'_, P> {
    /// Tells who wants to know.
    #[inline(always)]
    pub(crate) fn trace(&self, cpu: &P::Cpu, event: impl FnOnce() -> Event) {
        if P::Trace::ENABLED {
            self.tracer().event(cpu, event());
        }
    }

    /// Tells of a flush on this CPU and on `cpus`, which this one may be among.
    #[inline(always)]
    pub(crate) fn trace_flush(&self, cpu: &P::Cpu, reason: FlushReason, cpus: CpuSet, what: Invalidation) {
        if P::Trace::ENABLED {
            if !cpus.without(cpu.id()).is_empty() {
                self.tracer().event(cpu, Event::flush(FlushReason::RemoteSendIpi, what));
            }
            self.tracer().event(cpu, Event::flush(reason, what));
        }
    }

    /// Tells of a table that nobody can reach any more.
    #[inline(always)]
    pub(crate) fn trace_free(&self, cpu: &P::Cpu, table: &FlushedTable) {
        self.trace(cpu, || Event::TableFree { frame: table.frame(), level: table.level() });
    }
}
