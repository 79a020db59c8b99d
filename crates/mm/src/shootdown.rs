//! TLB shootdown: making other CPUs forget translations.
//!
//! # The IPI protocol
//!
//! Every CPU has a *request* of its own, which says what it wants of others and who has not done it yet, and a set of the CPUs that *ask* it. So flushes of different CPUs
//! do not wait for each other (Linux: a `call_single_data` for each pair of CPUs, and a queue for each that is asked). The sender
//!
//! 1. stays on its CPU until the end, with interrupts *on*: two that asked each other with interrupts off would wait for ever. So its request is its own without a
//!    lock: no other thread comes to this CPU, and interrupt handlers send nothing that they would have to wait for;
//! 2. writes what to invalidate, and the set of CPUs that have to acknowledge. Nobody looks there yet, nor any more: who has acknowledged is done with it;
//! 3. puts itself into the set of those who ask each target, by a locked operation: who finds it there finds the request (MODEL.md, P5);
//! 4. interrupts the targets that nobody asked before it. The others have not answered yet whoever did, and who did interrupts them;
//! 5. invalidates its own TLB meanwhile;
//! 6. waits until the set of 2 is empty.
//!
//! A target empties the set of those who ask it *first*: who comes later finds it empty, and interrupts it again. Then it does what each of them asks, and takes itself out of the set of each
//! when *that* is done: when the set is empty, no CPU translates by what was invalidated any more.
//!
//! If the sender were moved after it has asked which CPU it is on, nobody would invalidate the TLB that it left, and it would wait for itself.
//!
//! CPUs that are lazy are not among the targets, unless tables are freed ([`crate::lazy`]).
//!
//! A target with interrupts off takes the IPI later. That is what fast GUP leaned on, and what paravirtual and broadcast flushes took away:
//! they complete without the target's consent.

use machine::addr::VirtAddr;
use machine::{Cpu, CpuId, CpuSet, Invalidation, Vector, Word64};

use crate::lazy::LazyState;

/// What has become stale in TLBs and paging-structure caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// Translations. A CPU that makes no accesses by them can forget them later.
    Leaves,
    /// Also the ways to tables that are freed, or used for something else, after the flush. A page walker may take them though no code makes an access
    /// (MODEL.md, F2), so every CPU must forget them now (Linux: `freed_tables`).
    Tables,
}

/// How TLBs of other CPUs are flushed.
pub trait RemoteFlush {
    /// Invalidates `what` on this CPU and on `cpus`, which this one may be among. Complete on return.
    ///
    /// Context: interrupts on. The thread may be moved until the call and after it.
    fn flush<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, cpus: CpuSet, what: Invalidation);
}

/// By interprocessor interrupts: needs the consent of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByIpi;

/// By a hypercall: completes whatever the target does (KVM, Hyper-V, Xen).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHypervisor;

/// By a broadcast of the hardware: completes whatever the target does (AMD INVLPGB and TLBSYNC).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByBroadcast;

/// What CPUs ask of each other, and which need no IPI now: one for a machine.
pub struct Shootdown {
    cpus: [OfCpu; CpuSet::CAPACITY as usize],
}

/// A CPU's part. Alone in a pair of cache lines: CPUs that flush do not write each other's.
#[repr(align(128))]
struct OfCpu {
    request: Request,
    /// Those who ask something of this CPU that it has not begun to do.
    asked_by: Word64,
    lazy: LazyState,
}

impl OfCpu {
    const fn new() -> Self {
        let request = Request { what: Word64::new(0), pending: Word64::new(0) };
        Self { request, asked_by: Word64::new(0), lazy: LazyState::new() }
    }
}

/// What a CPU asks of others. Written by that CPU only, but for `pending`.
///
/// In a cache line of its own: others come to the rest of [`OfCpu`] to ask, while this CPU waits here.
#[repr(align(64))]
struct Request {
    what: Word64,
    /// The CPUs that have not done it yet.
    pending: Word64,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// That the target forgets this.
    Invalidate(Invalidation),
    /// That it takes an interrupt.
    Interrupt,
}

impl Shootdown {
    /// Nobody asks anything. No CPU is lazy.
    pub const fn new() -> Self {
        Self { cpus: [const { OfCpu::new() }; CpuSet::CAPACITY as usize] }
    }

    /// Whether a CPU is lazy, and what has passed it over.
    pub const fn lazy(&self, cpu: CpuId) -> &LazyState {
        &self.cpus[cpu.index()].lazy
    }

    /// The word with what a CPU asks of others, so that a trace can name it.
    pub const fn request_word(&self, cpu: CpuId) -> &Word64 {
        &self.cpus[cpu.index()].request.what
    }

    /// The word with the set of CPUs that have not done yet what this one asks, so that a trace can name it.
    pub const fn pending_word(&self, cpu: CpuId) -> &Word64 {
        &self.cpus[cpu.index()].request.pending
    }

    /// The word with the set of CPUs that ask something of this one, so that a trace can name it.
    pub const fn asked_by_word(&self, cpu: CpuId) -> &Word64 {
        &self.cpus[cpu.index()].asked_by
    }

    /// Waits until every CPU of `cpus`, which this one may be among, has taken an interrupt: none of them is in the interrupts-off section any more in which it may
    /// have been. This one is in none.
    ///
    /// Context: interrupts on.
    pub fn synchronise<C: Cpu>(&self, cpu: &C, cpus: CpuSet) {
        let _stays = cpu.preempt_off();
        let targets = cpus.without(cpu.id());
        if !targets.is_empty() {
            self.ask(cpu, targets, Asked::Interrupt, Vector::Synchronise);
            self.wait(cpu);
        }
    }

    /// What a CPU does when it takes an IPI: `invalidate` what others ask it to, and acknowledge. Runs with interrupts off.
    ///
    /// Whichever the IPI: another one may be on its way for whoever asked second.
    pub fn handle<C: Cpu>(&self, cpu: &C, mut invalidate: impl FnMut(Invalidation)) {
        let asking = CpuSet::from_bits(cpu.swap(&self.cpus[cpu.id().index()].asked_by, CpuSet::EMPTY.bits()));
        for sender in asking.iter() {
            let request = &self.cpus[sender.index()].request;
            if let Asked::Invalidate(what) = Asked::unpack(cpu.owned_load(&request.what)) {
                invalidate(what);
            }
            cpu.fetch_and(&request.pending, CpuSet::only(cpu.id()).complement().bits());
        }
    }

    /// Asks the targets, which are not none, for something. The thread stays on its CPU until they have done it.
    fn ask<C: Cpu>(&self, cpu: &C, targets: CpuSet, what: Asked, vector: Vector) {
        let this = cpu.id();
        let request = &self.cpus[this.index()].request;
        cpu.owned_store(&request.what, what.pack());
        cpu.owned_store(&request.pending, targets.bits());
        let me = CpuSet::only(this).bits();
        let is_first = |target: &CpuId| cpu.fetch_or(&self.cpus[target.index()].asked_by, me) == CpuSet::EMPTY.bits();
        let interrupted = targets.iter().filter(is_first).fold(CpuSet::EMPTY, CpuSet::with);
        if !interrupted.is_empty() {
            cpu.send_ipi(interrupted, vector);
        }
    }

    /// Waits until the targets have done it.
    fn wait<C: Cpu>(&self, cpu: &C) {
        let pending = &self.cpus[cpu.id().index()].request.pending;
        cpu.await_value(pending, |pending| pending == CpuSet::EMPTY.bits());
    }
}

impl Default for Shootdown {
    fn default() -> Self {
        Self::new()
    }
}

impl RemoteFlush for ByIpi {
    fn flush<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, cpus: CpuSet, what: Invalidation) {
        let _stays = cpu.preempt_off();
        let targets = cpus.without(cpu.id());
        if targets.is_empty() {
            cpu.tlb_invalidate(what);
            return;
        }
        shootdown.ask(cpu, targets, Asked::Invalidate(what), Vector::TlbShootdown);
        cpu.tlb_invalidate(what);
        shootdown.wait(cpu);
    }
}

impl RemoteFlush for ByHypervisor {
    fn flush<C: Cpu>(&self, cpu: &C, _: &Shootdown, cpus: CpuSet, what: Invalidation) {
        let _stays = cpu.preempt_off();
        let targets = cpus.without(cpu.id());
        cpu.tlb_invalidate(what);
        if !targets.is_empty() {
            cpu.tlb_invalidate_paravirtual(targets, what);
        }
    }
}

impl RemoteFlush for ByBroadcast {
    fn flush<C: Cpu>(&self, cpu: &C, _: &Shootdown, cpus: CpuSet, what: Invalidation) {
        let _stays = cpu.preempt_off();
        if cpus.without(cpu.id()).is_empty() {
            cpu.tlb_invalidate(what);
            return;
        }
        cpu.tlb_broadcast(what);
        cpu.tlb_broadcast_sync();
    }
}

impl Asked {
    /// In one word, so that a request is never seen half: the first page's address, and in its low 12 bits the number of pages; 0 = all.
    const fn pack(self) -> u64 {
        match self {
            Self::Invalidate(Invalidation::All) => 0,
            Self::Invalidate(Invalidation::Pages { start, pages }) => start.as_u64() | pages,
            Self::Interrupt => INTERRUPT,
        }
    }

    const fn unpack(word: u64) -> Self {
        match word & PAGES_MASK {
            0 => Self::Invalidate(Invalidation::All),
            INTERRUPT => Self::Interrupt,
            pages => Self::Invalidate(Invalidation::Pages { start: VirtAddr::new(word & !PAGES_MASK), pages }),
        }
    }
}

const PAGES_MASK: u64 = machine::addr::PAGE_SIZE - 1;
/// More pages than an invalidation names.
const INTERRUPT: u64 = PAGES_MASK;
const _: () = assert!(Invalidation::PAGES_CEILING < INTERRUPT);
