//! Which pages of a file were written, by what page tables say: for drivers that keep a copy of them elsewhere (Linux: `mm/mapping_dirty_helpers.c`).
//!
//! Both helpers go by the file's rmap, like [`Mm::unmap_mapping`], and hold no lock of any address space. The caller holds faults off the pages,
//! or bears that they add entries meanwhile.

use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Entry, EntryWrite, Flags, Level};

use crate::error::ZapError;
use crate::file::{File, MappedAt};
use crate::gather::Gather;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes the right to write from every entry that maps one of `pages` pages of a file from `first` on. Returns from how many: the next store
    /// through each of them faults (Linux: `wp_shared_mapping_range`).
    ///
    /// Accessed and dirty bits stay as they are. On return no CPU can write through an entry from before.
    ///
    /// Context: interrupts on, no page-table lock.
    ///
    /// # Errors
    /// A page table was malformed: what lies behind was left as it was.
    pub fn write_protect_mapping(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        first: u64,
        pages: u64,
    ) -> Result<u64, ZapError> {
        self.take_flag(cpu, file, (first, pages), Flags::WRITE, |_, _| ())
    }

    /// Takes the dirty bit from every entry that maps one of `pages` pages of a file from `first` on, and tells `record` which pages (the first,
    /// and how many) had it. Returns from how many entries (Linux: `clean_record_shared_mapping_range`).
    ///
    /// On return every TLB has forgotten the entries, so that the next store sets the bit again. Stores until then may or may not be
    /// among the recorded: who must know them all takes the right to write first.
    ///
    /// Context: as for [`Self::write_protect_mapping`].
    ///
    /// # Errors
    /// A page table was malformed: what lies behind was left as it was. What was taken elsewhere is recorded.
    pub fn clean_mapping(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        first: u64,
        pages: u64,
        record: impl FnMut(u64, u64),
    ) -> Result<u64, ZapError> {
        self.take_flag(cpu, file, (first, pages), Flags::DIRTY, record)
    }

    fn take_flag(
        &self,
        cpu: &P::Cpu,
        file: &File<'m>,
        (first, pages): (u64, u64),
        flag: Flags,
        mut record: impl FnMut(u64, u64),
    ) -> Result<u64, ZapError> {
        let rmap = file.rmap_lock().read(cpu);
        let mut taken = 0;
        let mut result = Ok(());
        for mapping in file.mappings(cpu) {
            let Some(space) = self.space(mapping.space) else { continue };
            let Some(range) = mapping.addresses(first, pages) else { continue };
            let mut count = |page, pages| {
                taken += 1;
                record(page, pages);
            };
            let reach = self.reach_of_file(file, range);
            let done =
                self.notify_of(cpu, space, reach, || self.take_flag_at(cpu, space, &mapping, range, flag, &mut count));
            result = result.and(done);
        }
        rmap.unlock();
        result.map(|()| taken)
    }

    fn take_flag_at(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        mapping: &MappedAt,
        (start, end): (VirtAddr, VirtAddr),
        flag: Flags,
        record: &mut impl FnMut(u64, u64),
    ) -> Result<(), ZapError> {
        let mut gather = Gather::begin(cpu, self, space, (start, end));
        let result = self.for_each_table(cpu, space, start, end, |mut table, from, until| {
            let level = table.level();
            let mut at = from;
            while at < until {
                let entry = self.protocols().write.as_read(table.entry(&self.protocols().mode, at));
                if is_leaf_with(level, entry, flag) {
                    let old = table.clear_flags(&self.protocols().write, at, flag);
                    gather.changed(at, level, old, old.without(flag));
                    // A huge leaf goes whole. It lies inside its mapping, which need not begin where the leaf does in the file.
                    let leaf = at.align_down(level.size()).max(mapping.start);
                    let page = mapping.offset + (leaf.as_u64() - mapping.start.as_u64()) / PAGE_SIZE;
                    record(page, level.frames());
                }
                at = level.next(at);
            }
            gather.unlock(cpu, table);
        });
        gather.finish(cpu);
        result
    }

    /// Whether any address space has an area of these pages of the file.
    ///
    /// Who holds off new areas (and knows that areas are copied only while the first is there) learns by it when the last is gone.
    ///
    /// Context: interrupts on, rmap lock of the file not held.
    pub fn is_mapped(&self, cpu: &P::Cpu, file: &File<'m>, first: u64, pages: u64) -> bool {
        let rmap = file.rmap_lock().read(cpu);
        let found = file.mappings(cpu).any(|mapping| mapping.addresses(first, pages).is_some());
        rmap.unlock();
        found
    }
}

/// A PROT_NONE leaf may remember the flag, and give it back to the hardware (`crate::numa`).
const fn is_leaf_with(level: Level, entry: Entry, flag: Flags) -> bool {
    entry.holds_page() && entry.is_leaf(level) && entry.has(flag)
}
