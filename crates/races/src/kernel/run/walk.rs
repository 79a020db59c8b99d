//! Walkers that are neither hardware nor fast GUP.

use std::ops::ControlFlow;

use machine::addr::PAGE_SIZE;
use machine::{Frame, VirtAddr};
use mm::AddressSpace;
use pagetable::ptdump::What;
use pagetable::{Level, Mode, walk};

use super::Runner;
use crate::checker::CheckedCpu;
use crate::kernel::operations::Section;
use crate::rule;

impl<'m, M: Mode, C: CheckedCpu> Runner<'_, 'm, M, C> {
    /// The frame of the small page that is mapped there, of a walker that knows no others.
    pub(super) fn walk(&self, space: &AddressSpace<'m>, address: VirtAddr) -> Option<Frame> {
        match self.mm.small_entry(self.cpu, space, address) {
            Ok(entry) => entry.map(|entry| entry.leaf_frame(Level::Pte)),
            Err(error) => self.cpu.violate(rule::USER, format_args!("{error:?}")),
        }
    }

    /// How many pages of the range are mapped, by the engine's dump.
    pub(super) fn ptdump(&self, space: &AddressSpace<'m>, range: (VirtAddr, u64)) -> u64 {
        let mut mapped = 0;
        let told = self.mm.ptdump(self.cpu, space, range, |run| {
            mapped += if matches!(run.what, What::Leaf { .. }) { run.bytes / PAGE_SIZE } else { 0 };
            ControlFlow::<()>::Continue(())
        });
        match told {
            Ok(_) => mapped,
            Err(error) => self.cpu.violate(rule::USER, format_args!("{error:?}")),
        }
    }

    /// The frame that is mapped there, of a walker without locks.
    pub(super) fn dump(&self, space: &AddressSpace<'m>, address: VirtAddr, section: Section) -> Option<Frame> {
        let cpu = self.cpu;
        let look = || {
            let protocols = self.mm.protocols();
            let found = walk::translate(cpu, &protocols.mode, self.mm.tables(), &protocols.read, space.root(), address);
            found.ok().map(|found| found.frame)
        };
        match section {
            Section::None => look(),
            Section::Rcu => {
                cpu.rcu_read_lock();
                let frame = look();
                cpu.rcu_read_unlock();
                frame
            }
            Section::IrqOff => {
                let _irq = cpu.irq_off();
                look()
            }
        }
    }
}
