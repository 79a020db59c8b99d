//! A CPU that others come between.

use std::cell::{Cell, RefCell};

use machine::{Cpu, CpuId, CpuSet, Invalidation, IrqState, PhysAddr, Vector, Word};

use super::Bare;

/// A CPU whose accesses are counted; before each, the script says what the others do.
pub(crate) struct Interrupted<'s> {
    accesses: Cell<usize>,
    interrupts: Cell<IrqState>,
    /// How many accesses were made with interrupts on.
    open: Cell<usize>,
    script: RefCell<Box<dyn FnMut(usize) + 's>>,
}

impl<'s> Interrupted<'s> {
    pub(crate) fn by(script: impl FnMut(usize) + 's) -> Self {
        Self {
            accesses: Cell::new(0),
            interrupts: Cell::new(IrqState::On),
            open: Cell::new(0),
            script: RefCell::new(Box::new(script)),
        }
    }

    /// Accesses, and those of them that were made with interrupts on.
    pub(crate) fn accesses(&self) -> (usize, usize) {
        (self.accesses.get(), self.open.get())
    }

    pub(crate) fn interrupts(&self) -> IrqState {
        self.interrupts.get()
    }

    fn access(&self) {
        let count = self.accesses.get();
        self.accesses.set(count + 1);
        self.open.set(self.open.get() + usize::from(self.interrupts() == IrqState::On));
        (self.script.borrow_mut())(count);
    }
}

impl Cpu for Interrupted<'_> {
    fn id(&self) -> CpuId {
        Bare.id()
    }
    fn load<W: Word>(&self, word: &W) -> W::Value {
        self.access();
        Bare.load(word)
    }
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        self.access();
        Bare.store(word, value);
    }
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        self.access();
        Bare.swap(word, value)
    }
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        self.access();
        Bare.compare_exchange(word, old, new)
    }
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        self.access();
        Bare.fetch_add(word, addend)
    }
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        self.access();
        Bare.fetch_and(word, mask)
    }
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        self.access();
        Bare.fetch_or(word, mask)
    }
    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        self.access();
        let value = Bare.load(word);
        assert!(until(value), "no writer stops half-way in these scripts");
        value
    }
    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        self.access();
        Bare.await_update(word, update)
    }
    fn fence(&self) {}
    fn irq_save(&self) -> IrqState {
        self.interrupts.replace(IrqState::Off)
    }
    fn irq_restore(&self, state: IrqState) {
        self.interrupts.set(state);
    }
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
