//! When a page table that was detached and flushed may be freed.
//!
//! A walker that holds no lock may still be reading a table that is reachable no more. Flushing TLBs says nothing about it: only the two kinds of wait here do.

use machine::{Cpu, CpuSet};

use crate::shootdown::Shootdown;

/// How long a detached table must stay.
///
/// A walker with interrupts off must be held off by [`Self::wait`], however TLBs are flushed.
pub trait TableLifetime {
    /// Returns when no lockless walker can be reading a table that was detached and flushed before the call.
    ///
    /// `cpus` are those that may walk the address space, this one perhaps among them.
    ///
    /// Context: interrupts on, no spin lock held, outside RCU read-side sections.
    fn wait<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, cpus: CpuSet);
}

/// Until every other CPU has taken an IPI: walkers have interrupts off (Linux: `tlb_remove_table_sync_one`).
///
/// Sound by itself, whether or not the flush used IPIs; a flush by IPI that *all* walkers had to take would make it superfluous.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByInterrupt;

/// Until an RCU grace period has passed: a walker with interrupts off is a reader (Linux: MMU_GATHER_RCU_TABLE_FREE,
/// unconditional on x86 since a37259732a7d).
#[derive(Clone, Copy, Debug, Default)]
pub struct ByRcu;

impl TableLifetime for ByInterrupt {
    fn wait<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, cpus: CpuSet) {
        shootdown.synchronise(cpu, cpus);
    }
}

impl TableLifetime for ByRcu {
    fn wait<C: Cpu>(&self, cpu: &C, _: &Shootdown, _: CpuSet) {
        cpu.synchronize_rcu();
    }
}
