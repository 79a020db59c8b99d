//! Private areas: what is there decides what is to be done.

use pagetable::{Entry, Level, MapError, Marker, Position, WalkError};

use crate::area::HugePages;
use crate::error::FaultError;
use crate::fault::{Fault, Outcome};
use crate::file::{File, FileKind};
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::uffd::{UffdModes, UffdReason};

impl<'m, P: Platform> Mm<'m, P> {
    /// One attempt to resolve a fault in a private area.
    pub(super) fn fault_private(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        file: &File<'m>,
    ) -> Result<Outcome, FaultError> {
        if fault.area.huge == HugePages::Allowed
            && !fault.area.uffd.is_registered()
            && file.kind() == FileKind::Anonymous
            && let Some(outcome) = self.fault_huge(cpu, space, fault)?
        {
            return Ok(outcome);
        }
        let tables = self.page_tables(space);
        let publish = &self.protocols().publish;
        let position = match tables.populate(cpu, self.tables(), publish, fault.address, Level::Pte) {
            Ok(position) => position,
            Err(MapError::Walk(WalkError::Leaf { .. } | WalkError::NotPresent { .. })) => {
                return self.fault_on_huge(cpu, space, fault);
            }
            Err(error) => return Err(error.into()),
        };
        // Perhaps torn, on a machine that reads halves: all that is done with it is checked under the lock.
        let seen = position.slot().read(cpu, &self.protocols().read);
        match self.held(Level::Pte, seen) {
            Held::Nothing if fault.is_for_uffd(UffdReason::Missing) => Err(fault.handed_over(UffdReason::Missing)),
            Held::Nothing => self.fault_missing(cpu, fault, file, (&position, seen)),
            Held::Marker(Marker::UffdWriteProtect) if fault.area.uffd.has(UffdModes::WRITE_PROTECT) => {
                match self.hands_over_write(fault, Held::Marker(Marker::UffdWriteProtect)) {
                    true => Err(fault.handed_over(UffdReason::WriteProtected)),
                    false => self.fault_missing(cpu, fault, file, (&position, seen)),
                }
            }
            Held::Page(_) | Held::Zero(_) => self.fault_on_page(cpu, space, fault, &position, seen),
            Held::Swap(swap) => self.swap_in(cpu, fault, &position, seen, swap),
            held => match self.lock_unchanged(cpu, fault, &position, seen) {
                Some(table) => self.non_present(table, fault, seen, held),
                None => Ok(Outcome::Changed),
            },
        }
    }

    /// Takes the page-table lock; gives it back if the entry is no longer what was `seen`.
    pub(super) fn lock_unchanged<'t>(
        &self,
        cpu: &'t P::Cpu,
        fault: &Fault,
        position: &Position<'t>,
        seen: Entry,
    ) -> Option<pagetable::LockedTable<'t, P::Cpu>> {
        // The mmap lock is held: no table is detached.
        let table = position.lock(cpu);
        (table.entry(&self.protocols().mode, fault.address) == seen).then_some(table)
    }
}
