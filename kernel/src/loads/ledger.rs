//! What must be as it was before a load, when it is over.

use mm::SpaceId;

use crate::arch::BareCpu;
use crate::report::Verdict;
use crate::system::System;

/// Frames in use.
#[derive(Clone, Copy)]
pub(super) struct Ledger {
    tables: u64,
    data: u64,
}

impl Ledger {
    /// What is in use now.
    pub(super) fn open(cpu: &BareCpu, system: &System) -> Self {
        Self { tables: system.tables.in_use(cpu), data: system.data.in_use(cpu) }
    }

    /// Ends these address spaces, and compares: frames of tables and of data that did not come back, and records of free frames that still count.
    pub(super) fn close(
        self,
        cpu: &BareCpu,
        system: &System,
        spaces: impl Iterator<Item = usize>,
    ) -> (Verdict, [(&'static str, u64); 3]) {
        for space in spaces {
            system.mm.exit(cpu, SpaceId::new(space as u16)).expect("an address space that can end");
        }
        let now = Self::open(cpu, system);
        let counted = system.data.counted(cpu);
        let holds = now.tables == self.tables && now.data == self.data && counted == 0;
        let lost = |before: u64, after: u64| after.wrapping_sub(before);
        (
            Verdict::of(holds),
            [
                ("lost_tables", lost(self.tables, now.tables)),
                ("lost_frames", lost(self.data, now.data)),
                ("lost_counts", counted),
            ],
        )
    }
}
