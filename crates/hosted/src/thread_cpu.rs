//! A CPU, as the thread that has taken it sees it.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use machine::{Cpu, CpuId, CpuSet, Invalidation, IrqState, PhysAddr, Pkru, ProtectionKeys, Vector, Word, Word64};

use crate::backoff::Backoff;
use crate::line::Line;
use crate::threads::{Slot, Threads};

/// The right to act as one CPU of a machine of threads.
///
/// May be sent to another thread, not shared: two threads never act as one CPU at the same time. Dropping it gives the CPU
/// back, with interrupts on and outside any section.
pub struct ThreadCpu {
    line: Arc<Line>,
    machine: Arc<Threads>,
    id: CpuId,
    /// What its user code may do by protection keys. Not `Sync`, and so the CPU is not.
    pkru: Cell<Pkru>,
}

/// Read-modify-writes are full barriers on x86; elsewhere `SeqCst` ones are not quite (they order later loads after their own load only).
#[inline(always)]
fn full_barrier_after_rmw() {
    if cfg!(not(any(target_arch = "x86_64", target_arch = "x86"))) {
        fence(Ordering::SeqCst);
    }
}

impl ThreadCpu {
    pub(crate) fn in_thread(machine: Arc<Threads>, id: CpuId) -> Self {
        let line = Arc::clone(&machine.slot(id).line);
        Self { line, machine, id, pkru: Cell::default() }
    }

    /// The same CPU as its interrupt handlers see it: interrupts are off, and restoring what was found leaves them so.
    pub(crate) fn in_handler(machine: Arc<Threads>, id: CpuId) -> Self {
        let line = Arc::clone(&machine.slot(id).handler_line);
        Self { line, machine, id, pkru: Cell::default() }
    }

    /// The machine that this is a CPU of.
    pub fn machine(&self) -> &Arc<Threads> {
        &self.machine
    }

    fn slot(&self) -> &Slot {
        self.machine.slot(self.id)
    }

    fn is_in_handler(&self) -> bool {
        !Arc::ptr_eq(&self.line, &self.slot().line)
    }

    #[inline(always)]
    fn irq_on(&self) {
        if self.line.irq_on() {
            self.machine.take_interrupts(self.id);
        }
    }
}

impl Cpu for ThreadCpu {
    #[inline(always)]
    fn id(&self) -> CpuId {
        self.id
    }

    #[inline(always)]
    fn load<W: Word>(&self, word: &W) -> W::Value {
        word.atomic_load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        word.atomic_store(value, Ordering::Release);
    }

    #[inline(always)]
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        let before = word.atomic_swap(value);
        full_barrier_after_rmw();
        before
    }

    #[inline(always)]
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        let result = word.atomic_compare_exchange(old, new);
        full_barrier_after_rmw();
        result
    }

    #[inline(always)]
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        let before = word.atomic_fetch_add(addend);
        full_barrier_after_rmw();
        before
    }

    #[inline(always)]
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        let before = word.atomic_fetch_and(mask);
        full_barrier_after_rmw();
        before
    }

    #[inline(always)]
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        let before = word.atomic_fetch_or(mask);
        full_barrier_after_rmw();
        before
    }

    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn zero(&self, words: &[Word64]) {
        crate::zero::zero(words);
    }

    #[inline]
    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        let mut backoff = Backoff::default();
        let mut seen = word.atomic_load(Ordering::Relaxed);
        loop {
            match update(seen) {
                Some(new) => match self.compare_exchange(word, seen, new) {
                    Ok(old) => return old,
                    Err(found) => seen = found,
                },
                None => {
                    backoff.wait();
                    seen = word.atomic_load(Ordering::Relaxed);
                }
            }
        }
    }

    #[inline]
    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        let mut backoff = Backoff::default();
        loop {
            let seen = word.atomic_load(Ordering::Acquire);
            if until(seen) {
                return seen;
            }
            backoff.wait();
        }
    }

    #[inline(always)]
    fn irq_save(&self) -> IrqState {
        self.line.irq_save(|| self.machine.epoch().now())
    }

    #[inline(always)]
    fn irq_restore(&self, state: IrqState) {
        if state == IrqState::On {
            self.irq_on();
        }
    }

    fn send_ipi(&self, targets: CpuSet, vector: Vector) {
        self.machine.interrupt(targets.without(self.id), vector);
    }

    fn tlb_invalidate(&self, _: Invalidation) {
        self.slot().statistics.count_local_invalidation();
        fence(Ordering::SeqCst);
    }

    fn tlb_invalidate_paravirtual(&self, _: CpuSet, _: Invalidation) {
        self.slot().statistics.count_paravirtual_invalidation();
        fence(Ordering::SeqCst);
    }

    fn tlb_broadcast(&self, _: Invalidation) {
        self.slot().statistics.count_broadcast_invalidation();
    }

    fn tlb_broadcast_sync(&self) {
        self.slot().statistics.count_broadcast_sync();
        fence(Ordering::SeqCst);
    }

    fn load_root(&self, root: PhysAddr) {
        let slot = self.slot();
        slot.root.store(root.as_u64(), Ordering::SeqCst);
        slot.statistics.count_root_loaded();
    }

    #[inline(always)]
    fn pkru(&self) -> Pkru {
        self.pkru.get()
    }

    #[inline(always)]
    fn rcu_read_lock(&self) {
        self.line.rcu_enter(|| self.machine.epoch().now());
    }

    #[inline(always)]
    fn rcu_read_unlock(&self) {
        self.line.rcu_leave();
    }

    /// # Panics
    /// Inside a section of this CPU: it would wait for itself.
    fn synchronize_rcu(&self) {
        assert!(
            !self.line.is_in_section(),
            "{} waits for a grace period inside a read-side section or with interrupts off",
            self.id
        );
        self.slot().statistics.count_grace_period();
        self.machine.grace_period(self.id);
    }
}

impl Drop for ThreadCpu {
    fn drop(&mut self) {
        if self.is_in_handler() {
            return;
        }
        self.line.rcu_leave_all();
        self.irq_on();
        self.slot().give_back();
    }
}

impl fmt::Debug for ThreadCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadCpu({})", self.id)
    }
}

/// User code of threads obeys keys where it accesses memory through [`crate::UserMemory`].
impl ProtectionKeys for ThreadCpu {
    #[inline]
    fn set_pkru(&self, pkru: Pkru) {
        self.pkru.set(pkru);
    }
}
