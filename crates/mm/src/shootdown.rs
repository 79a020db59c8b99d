//! TLB shootdown: making other CPUs forget translations.
//!
//! # The IPI protocol
//!
//! One request at a time, in one mailbox:
//!
//! 1. the sender takes the mailbox's lock, *with interrupts on*: two senders that waited for each other with interrupts off would
//!    wait for ever;
//! 2. writes what to invalidate, and the set of CPUs that have to acknowledge;
//! 3. fences, because sending an IPI does not order stores (SDM vol. 3A, 11.12.3), and sends;
//! 4. invalidates its own TLB meanwhile;
//! 5. waits until the set is empty. A target invalidates *first* and takes itself out of the set *then*: when the set is empty, no CPU
//!    translates by what was invalidated any more.
//!
//! The sender stays on its CPU from 1 to 5. If it were moved after it has asked which CPU it is on, nobody would invalidate the TLB that it left, and it would wait for
//! itself.
//!
//! CPUs that are lazy are not among the targets, unless tables are freed ([`crate::lazy`]).
//!
//! A target with interrupts off takes the IPI later. That is what fast GUP leaned on, and what paravirtual and broadcast flushes took away:
//! they complete without the target's consent.

use machine::addr::VirtAddr;
use machine::{Cpu, CpuId, CpuSet, Invalidation, SpinLock, Vector, Word64};

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
    fn flush<C: Cpu>(&self, cpu: &C, mailbox: &Shootdown, cpus: CpuSet, what: Invalidation);
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

/// The mailbox of the IPI protocol, and which CPUs need no IPI now: one for a machine.
pub struct Shootdown {
    lock: SpinLock,
    request: Word64,
    /// The CPUs that have not acknowledged yet.
    pending: Word64,
    lazy: [LazyState; CpuSet::CAPACITY as usize],
}

impl Shootdown {
    /// A mailbox without a request. No CPU is lazy.
    pub const fn new() -> Self {
        let lazy = [const { LazyState::new() }; CpuSet::CAPACITY as usize];
        Self { lock: SpinLock::new(), request: Word64::new(0), pending: Word64::new(0), lazy }
    }

    /// Whether a CPU is lazy, and what has passed it over.
    pub const fn lazy(&self, cpu: CpuId) -> &LazyState {
        &self.lazy[cpu.index()]
    }

    /// The lock that senders take, so that a trace can name it.
    pub const fn lock_word(&self) -> &machine::Word32 {
        self.lock.word()
    }

    /// The word with the request, so that a trace can name it.
    pub const fn request_word(&self) -> &Word64 {
        &self.request
    }

    /// The word with the set of CPUs that have not acknowledged yet, so that a trace can name it.
    pub const fn pending_word(&self) -> &Word64 {
        &self.pending
    }

    /// Waits until every CPU of `cpus`, which this one may be among, has taken an interrupt: none of them is in the interrupts-off section any more in which it may
    /// have been. This one is in none.
    ///
    /// Context: interrupts on.
    pub fn synchronise<C: Cpu>(&self, cpu: &C, cpus: CpuSet) {
        let _stays = cpu.preempt_off();
        let targets = cpus.without(cpu.id());
        if targets.is_empty() {
            return;
        }
        let guard = self.lock.lock(cpu);
        self.send(cpu, targets, Vector::Synchronise);
        self.wait(cpu);
        guard.unlock();
    }

    /// What a CPU does when it takes an IPI: `invalidate` what is asked for, if anything is, and acknowledge. Runs with interrupts off.
    pub fn handle<C: Cpu>(&self, cpu: &C, vector: Vector, invalidate: impl FnOnce(Invalidation)) {
        if vector == Vector::TlbShootdown {
            invalidate(unpack(cpu.load(&self.request)));
        }
        cpu.fetch_and(&self.pending, CpuSet::only(cpu.id()).complement().bits());
    }

    fn send<C: Cpu>(&self, cpu: &C, targets: CpuSet, vector: Vector) {
        cpu.store(&self.pending, targets.bits());
        cpu.fence();
        cpu.send_ipi(targets, vector);
    }

    fn wait<C: Cpu>(&self, cpu: &C) {
        cpu.await_value(&self.pending, |pending| pending == CpuSet::EMPTY.bits());
    }
}

impl Default for Shootdown {
    fn default() -> Self {
        Self::new()
    }
}

impl RemoteFlush for ByIpi {
    fn flush<C: Cpu>(&self, cpu: &C, mailbox: &Shootdown, cpus: CpuSet, what: Invalidation) {
        let _stays = cpu.preempt_off();
        let targets = cpus.without(cpu.id());
        if targets.is_empty() {
            cpu.tlb_invalidate(what);
            return;
        }
        let guard = mailbox.lock.lock(cpu);
        cpu.store(&mailbox.request, pack(what));
        mailbox.send(cpu, targets, Vector::TlbShootdown);
        cpu.tlb_invalidate(what);
        mailbox.wait(cpu);
        guard.unlock();
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

/// In one word, so that a request is never seen half: the first page's address, and in its low 12 bits the number of pages; 0 = all.
const fn pack(what: Invalidation) -> u64 {
    match what {
        Invalidation::All => 0,
        Invalidation::Pages { start, pages } => start.as_u64() | pages,
    }
}

const fn unpack(request: u64) -> Invalidation {
    match request & PAGES_MASK {
        0 => Invalidation::All,
        pages => Invalidation::Pages { start: VirtAddr::new(request & !PAGES_MASK), pages },
    }
}

const PAGES_MASK: u64 = machine::addr::PAGE_SIZE - 1;
const _: () = assert!(Invalidation::PAGES_CEILING <= PAGES_MASK);
