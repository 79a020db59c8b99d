//! An entry without a page: wait, or say why there will be none.

use machine::Cpu;
use pagetable::{Entry, LockedTable, Marker};

use crate::error::FaultError;
use crate::fault::{Fault, Outcome};
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;

impl<P: Platform> Mm<'_, P> {
    /// What to do about an entry at the fault's address and level that holds neither nothing nor the page that belongs there. Drops the lock.
    ///
    /// # Errors
    /// It stays: a marker, something else that is mapped, a table.
    pub(super) fn non_present(
        &self,
        table: LockedTable<'_, P::Cpu>,
        fault: &Fault,
        found: Entry,
        held: Held,
    ) -> Result<Outcome, FaultError> {
        match held {
            Held::Migration(_) => {
                self.wait_for_migration(table, fault, found);
                Ok(Outcome::Changed)
            }
            Held::Marker(Marker::UffdWriteProtect) => {
                // Nobody listens for it any more.
                let mut table = table;
                table.get_and_clear(&self.protocols().write, fault.address);
                Ok(Outcome::Changed)
            }
            Held::Marker(Marker::Poisoned) => Err(FaultError::Poisoned { address: fault.address }),
            Held::Marker(Marker::Guard) => Err(FaultError::Guarded { address: fault.address }),
            _ => Err(fault.occupied()),
        }
    }

    /// Waits until the migration entry at the fault's address has changed (Linux: `migration_entry_wait`). Drops the lock.
    ///
    /// The mmap lock is held meanwhile: it keeps the table, and who migrates does without it.
    fn wait_for_migration(&self, table: LockedTable<'_, P::Cpu>, fault: &Fault, found: Entry) {
        let cpu = table.cpu();
        let slot = table.slot(fault.address);
        table.unlock();
        cpu.await_value(slot.cell(), |entry| entry != found.bits());
    }
}
