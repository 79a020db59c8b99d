//! Taking rights from entries while CPUs use them.

use machine::ProtectionKey;
use machine::addr::VirtAddr;
use pagetable::{Entry, Flags, Level, LockedTable, NonPresent, ProtNone};

use crate::error::ZapError;
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the right to write from the entries of `pages` pages from `start` on: the next store to each faults (dirty tracking; Linux: `folio_mkclean`
    /// without the cleaning). The areas keep their rights, so the fault gives it back.
    ///
    /// Accessed and dirty bits that the hardware sets meanwhile stay. On return no CPU can write through an entry from before.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing was done if the range is wrong. Behind a malformed table nothing was.
    pub fn write_protect(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), ZapError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let reach = self.reach(cpu, space, (start, end));
        let result = self.notify_of(cpu, space, reach, || self.write_protect_range(cpu, space, (start, end)));
        mmap.unlock();
        result
    }

    /// The present leaf of `at` becomes PROT_NONE: the hardware uses it no more, and it says all that it said, but for this protection key. Accessed and dirty bits that the hardware sets meanwhile stay.
    pub(crate) fn forbid_leaf(
        &self,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        at: VirtAddr,
        key: ProtectionKey,
    ) {
        let level = table.level();
        let without = |entry: Entry| {
            let (frame, attributes) = (entry.leaf_frame(level), entry.attributes(level).with_protection_key(key));
            NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level)
        };
        let old = table.update(&self.protocols().write, at, without);
        gather.changed(at, level, old, without(old));
    }

    fn write_protect_range(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), ZapError> {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let result = self.for_each_table(cpu, space, start, end, |mut table, from, until| {
            let level = table.level();
            let mut at = from;
            while at < until {
                let entry = table.entry(&self.protocols().mode, at);
                if is_writable_leaf(level, entry) {
                    let old = table.update(&self.protocols().write, at, |entry| entry.without(Flags::WRITE));
                    gather.changed(at, level, old, old.without(Flags::WRITE));
                }
                at = level.next(at);
            }
            gather.unlock(cpu, table);
        });
        gather.finish(cpu);
        result
    }
}

/// A PROT_NONE leaf may remember the right, and give it back to the hardware (`crate::numa`).
const fn is_writable_leaf(level: Level, entry: Entry) -> bool {
    entry.holds_page() && entry.is_leaf(level) && entry.has(Flags::WRITE)
}
