//! Lazy TLB: a CPU that idles, or runs a kernel thread, keeps the page table of the last address space loaded without being in it (Linux: `enter_lazy_tlb`, `is_lazy`).
//!
//! If it comes back to the same address space, CR3 need not be loaded twice; and flushes pass it over, so that nobody waits for it and it is not woken.
//!
//! # Protocol
//!
//! Every CPU has its own words: whether it is lazy; its *generation*, how many flushes have passed it over; and up to which generation it has flushed.
//!
//! | who flushes, once the entries are changed | who leaves lazy mode |
//! |---|---|
//! | the CPU is not lazy: interrupts it | is lazy no more |
//! | else one generation more, by a locked operation | **full barrier** |
//! | the CPU is still lazy: passes it over; else interrupts it | looks at the generation, and flushes everything if it has not flushed up to it |
//!
//! So who leaves sees the generation, or who flushes sees a CPU that is not lazy, or both. Without the barrier the store that ends lazy mode can wait while the generation is read,
//! and neither sees the other (Linux: `switch_mm_irqs_off` had none between `loaded_mm` and `tlb_gen` until 83b0177a6c48).
//!
//! Entering needs no barrier. The store comes behind the stores of user code, so who sees the CPU lazy sees those (MODEL.md, P3): no store waits for a page that a flush which passes the CPU
//! over takes away. Who sees it late interrupts the CPU without need.
//!
//! # Tables
//!
//! A lazy CPU makes no access by what it has cached. But its page walker may walk unasked, from cached pointers to tables as well (MODEL.md, F2). So a flush after which tables are
//! freed interrupts lazy CPUs, too ([`Stale::Tables`]; Linux 2ff6ddf19c0e and 145f573b89a6; 3ef938c35035 of a collapse). One that is interrupted loads the kernel's own page table and
//! leaves the address space: it is not interrupted for it again, and not left in the set of an address space that ends (Linux: `flush_tlb_func`, `init_mm`).
//!
//! A hypervisor's flush and a broadcast reach the TLBs of lazy CPUs all the same, and leave the page table loaded.

use machine::{Cpu, CpuSet, Invalidation, Word64};

use crate::guard::Guards;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::shootdown::Stale;
use crate::space::{AddressSpace, SpaceId};
use crate::trace::{Event, FlushReason};

/// Of one CPU: whether it is lazy, and which flushes have passed it over.
pub struct LazyState {
    /// 0, or the address space that is loaded and the kernel's. Written by this CPU only.
    lazy: Word64,
    /// How many flushes have passed this CPU over.
    generation: Word64,
    /// Up to which generation it has flushed. Only this CPU's business.
    flushed: Word64,
}

impl LazyState {
    const LAZY: u64 = 1 << 32;

    /// A CPU that is not lazy, and was never passed over.
    pub const fn new() -> Self {
        Self { lazy: Word64::new(0), generation: Word64::new(0), flushed: Word64::new(0) }
    }

    /// The word that says whether the CPU is lazy, so that a trace can name it.
    pub const fn lazy_word(&self) -> &Word64 {
        &self.lazy
    }

    /// The word that counts the flushes that have passed it over, so that a trace can name it.
    pub const fn generation_word(&self) -> &Word64 {
        &self.generation
    }

    /// Whether the CPU is lazy.
    #[inline(always)]
    #[track_caller]
    pub fn is_lazy<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.lazy) != 0
    }

    /// Whether this CPU has not made up for all flushes that have passed it over. The caller makes up for them now: asked again, the answer is no.
    ///
    /// Context: interrupts off; this CPU's own.
    #[track_caller]
    pub fn take_missed<C: Cpu>(&self, cpu: &C) -> bool {
        let generation = cpu.load(&self.generation);
        let missed = generation != cpu.owned_load(&self.flushed);
        if missed {
            cpu.owned_store(&self.flushed, generation);
        }
        missed
    }

    /// Whether a flush passes the CPU over: then the CPU flushes before it is not lazy any more. Entries were changed, by whatever is not later than this.
    fn pass_over<C: Cpu, G: Guards>(&self, cpu: &C, guards: &G) -> bool {
        // CPUs that work have nothing to remember.
        if !self.is_lazy(cpu) {
            return false;
        }
        cpu.fetch_add(&self.generation, 1);
        guards.is_lazy_still(cpu, self)
    }

    /// The address space that the CPU has loaded lazily, and the kernel's.
    fn spaces<C: Cpu>(&self, cpu: &C) -> Option<(SpaceId, SpaceId)> {
        let word = cpu.load(&self.lazy);
        (word & Self::LAZY != 0).then(|| (SpaceId::new((word >> 16) as u16), SpaceId::new(word as u16)))
    }

    const fn pack(space: SpaceId, kernel: SpaceId) -> u64 {
        Self::LAZY | (space.number() as u64) << 16 | kernel.number() as u64
    }
}

impl Default for LazyState {
    fn default() -> Self {
        Self::new()
    }
}

/// A CPU that is lazy: it has the page table of an address space loaded and is not in it. No user code runs on it, and no lockless walk of that address space.
#[must_use = "a CPU stays lazy until `leave_lazy`"]
pub struct Lazy<'c, 'm, C: Cpu> {
    cpu: &'c C,
    space: &'m AddressSpace<'m>,
    kernel: &'m AddressSpace<'m>,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// From here on this CPU, which translates by the address space, makes no access by it until [`Self::leave_lazy`]: flushes may pass it over. `kernel` is an address
    /// space without areas that lives as long as the machine (Linux: `init_mm`): the CPU goes there if the tables that it has loaded are freed. If it is `space` itself, it stays.
    ///
    /// `None`: there is no such address space, and the CPU is not lazy.
    ///
    /// Context: interrupts off or pinned to the CPU, which is not lazy.
    pub fn enter_lazy<'c>(&self, cpu: &'c P::Cpu, space: SpaceId, kernel: SpaceId) -> Option<Lazy<'c, 'm, P::Cpu>> {
        let lazy = Lazy { cpu, space: self.space(space)?, kernel: self.space(kernel)? };
        cpu.store(&self.shootdown().lazy(cpu.id()).lazy, LazyState::pack(space, kernel));
        Some(lazy)
    }

    /// Makes this CPU translate by `to`, and up to date: no flush passes it over any more, and what it missed it has made up for on return.
    ///
    /// Context: interrupts off or pinned to the CPU.
    pub fn leave_lazy(&self, lazy: Lazy<'_, 'm, P::Cpu>, to: &AddressSpace<'_>) {
        let Lazy { cpu, space, kernel } = lazy;
        let guards = &self.protocols().guards;
        // The handler may take the CPU to the kernel's address space.
        let _irq = cpu.irq_off();
        let state = self.shootdown().lazy(cpu.id());
        let loaded = if state.is_lazy(cpu) { space } else { kernel };
        cpu.store(&state.lazy, 0);
        guards.order_leaving_lazy(cpu);
        let missed = guards.has_missed_flushes(cpu, state);
        if !loaded.is(to) {
            // A flush of everything.
            self.switch(cpu, loaded, to);
        } else if missed {
            self.trace(cpu, || Event::flush(FlushReason::TaskSwitch, Invalidation::All));
            cpu.tlb_invalidate(Invalidation::All);
        }
    }

    /// What a CPU does that was interrupted for a flush. Interrupts are off.
    pub(crate) fn invalidate_on_interrupt(&self, cpu: &P::Cpu, what: Invalidation) {
        let state = self.shootdown().lazy(cpu.id());
        let spaces = state.spaces(cpu).and_then(|(space, kernel)| Some((self.space(space)?, self.space(kernel)?)));
        match spaces {
            Some((space, kernel)) if !space.is(kernel) => {
                self.switch(cpu, space, kernel);
                cpu.store(&state.lazy, 0);
            }
            _ => {
                self.trace(cpu, || Event::flush(FlushReason::RemoteShootdown, what));
                cpu.tlb_invalidate(what);
            }
        }
    }

    /// Of `cpus`, those that must be told of a flush.
    pub(crate) fn without_lazy(&self, cpu: &P::Cpu, cpus: CpuSet, stale: Stale) -> CpuSet {
        let guards = &self.protocols().guards;
        if !guards.may_pass_over_lazy(stale) {
            return cpus;
        }
        let is_told = |target| !self.shootdown().lazy(target).pass_over(cpu, guards);
        cpus.iter().filter(|target| is_told(*target)).fold(CpuSet::EMPTY, CpuSet::with)
    }
}
