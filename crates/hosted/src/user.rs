//! What user code does: loads and stores by virtual address, as an MMU without a TLB makes them.

use machine::user::FaultCause;
use machine::{Access, Cpu, Frame, PageFault, VirtAddr, Word, Word64};
use pagetable::walk::{self, Step};
use pagetable::{Entry, Flags, Mode, ReadOnce, Rights, Root, TableMemory, Wide};

use crate::data_frames::DataFrames;
use crate::thread_cpu::ThreadCpu;

/// The memory that user code sees through page tables.
///
/// An access walks the tables, asks the leaf's protection key and the CPU's PKRU, sets accessed and dirty in the leaf by a locked instruction, and touches the data, all with interrupts off: so a
/// shootdown *by IPI* returns only when every access by an older entry is over, as on hardware. Other ways to flush promise nothing here. The CPU must be
/// in the address space's set ([`mm::Mm::enter`]), or nobody asks it.
#[derive(Clone, Copy, Debug)]
pub struct UserMemory<'a, M, T> {
    /// The paging mode.
    pub mode: M,
    /// Where page tables are.
    pub tables: &'a T,
    /// Where the data is.
    pub data: &'a DataFrames,
}

impl<M: Mode, T: TableMemory> UserMemory<'_, M, T> {
    /// Lets `access` use the word at `address`, which is aligned to 8 bytes, for what `kind` says.
    ///
    /// # Errors
    /// The page fault that the hardware would raise: nothing happened.
    ///
    /// # Panics
    /// The tables map a frame that holds no data.
    pub fn access<R>(
        &self,
        cpu: &ThreadCpu,
        root: Root,
        address: VirtAddr,
        kind: Access,
        access: impl FnOnce(&Word64) -> R,
    ) -> Result<R, PageFault> {
        let irq = cpu.irq_off();
        let frame = self.translate(irq.cpu(), root, address, kind)?;
        let words = self.data.words(frame).unwrap_or_else(|| panic!("{address} is mapped to frame {frame}, no data"));
        Ok(access(&words[(address.as_u64() % machine::addr::PAGE_SIZE / 8) as usize]))
    }

    /// The frame that an access of this kind goes to.
    fn translate(&self, cpu: &ThreadCpu, root: Root, address: VirtAddr, kind: Access) -> Result<Frame, PageFault> {
        let fault = |cause| PageFault { address, access: kind, cause };
        let missing = |_| fault(FaultCause::NotPresent);
        'again: loop {
            let mut slot = walk::root_slot(&self.mode, self.tables, root, address).map_err(missing)?;
            let mut level = self.mode.root_level();
            loop {
                let entry = walk::read(cpu, &self.mode, level, slot, &ReadOnce::<Wide>::new());
                match (walk::step(&self.mode, self.tables, level, entry, address).map_err(missing)?, level.lower()) {
                    (Step::Lower(next), Some(lower)) => (slot, level) = (next, lower),
                    _ => {
                        let (needed, flags) = match kind {
                            Access::Read => (Rights::USER, Flags::ACCESSED),
                            Access::Write => (Rights::USER.and(Rights::WRITE), Flags::ACCESSED_DIRTY),
                        };
                        if entry.rights().allow(Rights::USER) && !cpu.pkru().allows(entry.protection_key(), kind) {
                            return Err(fault(FaultCause::ProtectionKey));
                        }
                        if !entry.rights().allow(needed) {
                            return Err(fault(FaultCause::Protection));
                        }
                        if !set_flags(slot.cell(), entry, flags) {
                            continue 'again;
                        }
                        let within = (address.as_u64() & (level.size() - 1)) / machine::addr::PAGE_SIZE;
                        return Ok(entry.leaf_frame(level).wrapping_add(within));
                    }
                }
            }
        }
    }
}

/// Sets the flags in the entry if it is still what was read; whether it was.
fn set_flags(cell: &Word64, entry: Entry, flags: Flags) -> bool {
    entry.has(flags) || cell.atomic_compare_exchange(entry.bits(), entry.with(flags).bits()).is_ok()
}
