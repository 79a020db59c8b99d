//! The proof that the thread stays on its CPU.

use core::mem::ManuallyDrop;

use crate::cpu::Cpu;

/// The thread is not moved to another CPU while this value lives.
///
/// Code that asks which CPU it runs on, and acts on the answer, holds one from before it asks until it is done. Sections with interrupts off, RCU read-side sections and
/// spin locks do the same. Sections nest.
#[must_use = "the thread may be moved as soon as this is dropped"]
pub struct PreemptOff<'c, C: Cpu> {
    cpu: &'c C,
}

impl<'c, C: Cpu> PreemptOff<'c, C> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new(cpu: &'c C) -> Self {
        cpu.preempt_disable();
        Self { cpu }
    }

    /// Ends the section: the same as dropping the value, but a trace then names the caller's line.
    #[inline(always)]
    #[track_caller]
    pub fn end(self) {
        ManuallyDrop::new(self).cpu.preempt_enable();
    }
}

impl<C: Cpu> Drop for PreemptOff<'_, C> {
    #[inline(always)]
    #[track_caller]
    fn drop(&mut self) {
        self.cpu.preempt_enable();
    }
}
