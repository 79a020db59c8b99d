//! The proof that interrupts are off.

use crate::cpu::{Cpu, IrqState};

/// Interrupts of one CPU are off while this value lives.
///
/// Functions that are only right with interrupts off take a reference to it. Drop turns them back to what they were.
#[must_use = "interrupts are on again as soon as this is dropped"]
pub struct IrqOff<'c, C: Cpu> {
    cpu: &'c C,
    before: IrqState,
}

impl<'c, C: Cpu> IrqOff<'c, C> {
    #[inline]
    #[track_caller]
    pub(crate) fn new(cpu: &'c C) -> Self {
        Self { cpu, before: cpu.irq_save() }
    }

    /// The CPU whose interrupts are off.
    #[inline]
    pub const fn cpu(&self) -> &'c C {
        self.cpu
    }
}

impl<C: Cpu> Drop for IrqOff<'_, C> {
    #[inline]
    #[track_caller]
    fn drop(&mut self) {
        self.cpu.irq_restore(self.before);
    }
}
