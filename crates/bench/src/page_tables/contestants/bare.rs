//! A machine that is nothing at all: the control for what the boundary between engine and machine costs.

use std::sync::atomic::{Ordering, fence};

use machine::{Cpu, CpuId, CpuSet, Invalidation, IrqState, PhysAddr, Vector, Word};

/// A CPU without identity, interrupts, TLB or sections. Accesses are the plain instructions.
pub(crate) struct Bare;

impl Cpu for Bare {
    fn id(&self) -> CpuId {
        CpuId::new(0)
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
        word.atomic_swap(value)
    }
    #[inline(always)]
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        word.atomic_compare_exchange(old, new)
    }
    #[inline(always)]
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        word.atomic_fetch_add(addend)
    }
    #[inline(always)]
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_and(mask)
    }
    #[inline(always)]
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_or(mask)
    }
    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn irq_save(&self) -> IrqState {
        IrqState::Off
    }
    fn irq_restore(&self, _: IrqState) {}
    fn send_ipi(&self, _: CpuSet, _: Vector) {}
    fn tlb_invalidate(&self, _: Invalidation) {}
    fn tlb_invalidate_paravirtual(&self, _: CpuSet, _: Invalidation) {}
    fn tlb_broadcast(&self, _: Invalidation) {}
    fn tlb_broadcast_sync(&self) {}
    fn load_root(&self, _: PhysAddr) {}
    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn synchronize_rcu(&self) {}
}
