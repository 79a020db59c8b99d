//! One simulated CPU, as the code under test sees it.

use std::sync::atomic::Ordering;

use machine::user::PageFault;
use machine::{Access, Cpu, CpuId, CpuSet, Frame, Invalidation, IrqState, PhysAddr, UserAccess, VirtAddr, Vector, Word, Word64};

use crate::frames::FrameKind;
use crate::lab::Lab;

/// One simulated CPU. Every operation of [`Cpu`] is a step that the explorer interleaves with those of the other CPUs.
pub struct LabCpu {
    id: CpuId,
}

impl LabCpu {
    pub(crate) fn boot(_lab: &Lab<'_>) -> Self {
        Self { id: CpuId::new(0) }
    }

    /// Takes the lowest free block of frames of a pool: one step. `None` if there is none. What is in the frames is garbage.
    #[track_caller]
    pub fn alloc_frame(&self, kind: FrameKind) -> Option<Frame> {
        let _ = kind;
        None
    }

    /// Gives a block of frames back: one step. Freeing what is free is a violation of `freed-table`.
    #[track_caller]
    pub fn free_frame(&self, first: Frame) {
        let _ = first;
    }

    /// The words of a frame that has some.
    pub fn table(&self, frame: Frame) -> Option<&[Word64; 512]> {
        let _ = frame;
        None
    }

    /// Notes a text in the trace. Not a step.
    pub fn mark(&self, text: impl std::fmt::Display) {
        let _ = text.to_string();
    }

    /// Tells the monitors that something happened. Not a step. At most 6 arguments.
    #[track_caller]
    pub fn emit(&self, kind: u32, args: &[u64]) {
        let _ = (kind, args);
    }

    /// Writes down a result for [`crate::End::reported`]. Not a step. Slots are below 16.
    #[track_caller]
    pub fn report(&self, slot: usize, value: u64) {
        let _ = (slot, value);
    }

    /// An operation of the test has returned: what this CPU does from here on depends only on memory, reports, this place in the code, and `digest`.
    ///
    /// Unlike [`Cpu::checkpoint`] it forgets everything that the CPU read before.
    #[track_caller]
    pub fn op_boundary(&self, digest: u64) {
        let _ = digest;
    }

    /// Breaks rule `user`, like a failed assertion.
    #[track_caller]
    pub fn fail(&self, sentence: impl std::fmt::Display) {
        panic!("{sentence}")
    }

    /// Breaks a rule.
    #[track_caller]
    pub fn violate(&self, rule: &str, sentence: impl std::fmt::Display) -> ! {
        panic!("{rule}: {sentence}")
    }
}

impl Cpu for LabCpu {
    fn id(&self) -> CpuId {
        self.id
    }
    fn load<W: Word>(&self, word: &W) -> W::Value {
        word.atomic_load(Ordering::Acquire)
    }
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        word.atomic_store(value, Ordering::Release);
    }
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        word.atomic_swap(value)
    }
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        word.atomic_compare_exchange(old, new)
    }
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        word.atomic_fetch_add(addend)
    }
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_and(mask)
    }
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_or(mask)
    }
    fn fence(&self) {}
    fn irq_save(&self) -> IrqState {
        IrqState::On
    }
    fn irq_restore(&self, _state: IrqState) {}
    fn send_ipi(&self, _targets: CpuSet, _vector: Vector) {}
    fn tlb_invalidate(&self, _what: Invalidation) {}
    fn tlb_invalidate_paravirtual(&self, _targets: CpuSet, _what: Invalidation) {}
    fn tlb_broadcast(&self, _what: Invalidation) {}
    fn tlb_broadcast_sync(&self) {}
    fn load_root(&self, _root: PhysAddr) {}
    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn synchronize_rcu(&self) {}
}

impl UserAccess for LabCpu {
    fn user_access(&self, _address: VirtAddr, _access: Access) -> Result<(), PageFault> {
        Ok(())
    }
}
