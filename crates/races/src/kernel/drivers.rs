//! The drivers of files with handlers of their own: each maps what its file's slots hold, with leaves of the file's size.

use machine::Cpu;
use mm::special::{DriverAnswer, DriverFault, DriverFaultContext, PfnLeaf};
use pagetable::Mode;

use super::platform::InLab;
use crate::checker::CheckedCpu;

/// All of them.
pub(super) struct LabDrivers;

impl<'l, M: Mode, C: CheckedCpu> DriverFault<InLab<'l, M, C>> for LabDrivers {
    fn fault(&self, context: &DriverFaultContext<'_, '_, InLab<'l, M, C>>) -> DriverAnswer {
        let (cpu, file) = (context.cpu(), context.file());
        if context.level() != file.leaf() {
            return DriverAnswer::NoPage;
        }
        // Held until the entry is there, as the engine's rules for drivers ask for.
        let lock = file.driver_lock().lock(cpu);
        let slot = file.slots().get((context.leaf_page() / file.leaf().frames()) as usize);
        let answer = match slot.and_then(|slot| slot.frame(cpu)) {
            Some(frame) => context.insert(&PfnLeaf::new(context.level(), frame)).into(),
            None => DriverAnswer::NoPage,
        };
        lock.unlock();
        answer
    }
}

/// A driver takes what it has in a slot out of its file: from here on it maps it no more.
pub(super) fn forget<C: Cpu>(cpu: &C, file: &mm::File<'_>, slot: usize) {
    let lock = file.driver_lock().lock(cpu);
    cpu.swap(file.slots()[slot].word(), 0);
    lock.unlock();
}
