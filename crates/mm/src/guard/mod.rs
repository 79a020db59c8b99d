//! Steps that kernels once did without.
//!
//! Each method is one step of a protocol, and its default is the sound one, with the bug that taught it. The engine calls these methods and has no
//! second way; the catalogue of races overrides one at a time and shows what happens then.

mod choices;

use machine::addr::{Frame, VirtAddr};
use machine::seqcount::Sequence;
use machine::{Access, Cpu, CpuSet, Pkru, ProtectionKey, SeqCount, Word64};
use pagetable::recheck::Atomic;
use pagetable::{
    Attributes, Entry, EntryWrite, Flags, FlushedTable, Level, LockedTable, Mode, Position, Recheck, Rechecked, Slot,
    TableSource, Unlinked,
};

use crate::batched_flush::Unflushed;
use crate::file::PageSlot;
use crate::folio::FolioFlags;
use crate::gup::Request;
use crate::lazy::LazyState;
use crate::lifetime::TableLifetime;
use crate::notify::{Invalidations, Seen};
use crate::order::FlushMoment;
use crate::shootdown::{Shootdown, Stale};
use crate::space::AddressSpace;
use crate::special::Attempt;

pub use choices::{
    CommonTables, DriverLock, FileForgets, KeptPageHold, MergeFlush, MergeLock, RmapRemoval, SwapPlaceHold, UserCount,
};

/// The steps. [`Sound`] keeps them all.
pub trait Guards {
    /// Fast GUP, after the pin: whether the entry that leads to the table of pages is unchanged.
    ///
    /// A collapse takes the whole table out and leaves the entries in it as they are (Linux 70cbc3cc78a9).
    #[inline(always)]
    #[track_caller]
    fn recheck_table<C: Cpu, K: Recheck>(&self, cpu: &C, recheck: &K, slot: Slot<'_>, seen: Entry) -> Rechecked {
        slot.recheck(cpu, recheck, seen)
    }

    /// Fast GUP: whether what the calling thread may do by an entry's protection key allows the access.
    ///
    /// The hardware asks for user code only. Without this, system calls would be a way around keys (Linux 33a709b25a76).
    #[inline(always)]
    fn key_allows(&self, pkru: Pkru, key: ProtectionKey, access: Access) -> bool {
        pkru.allows(key, access)
    }

    /// Whoever has taken a reference to the folio that a record names: whether the record names it still.
    ///
    /// A split in between leaves the reference on a folio to which the frame does not belong (Linux c24d37322548).
    #[inline(always)]
    #[track_caller]
    fn is_member_still<C: Cpu>(&self, cpu: &C, membership: &Word64, seen: u64) -> bool {
        cpu.unchanged(membership, seen)
    }

    /// Zap by rmap, of a file with huge pages: waits for faults that looked a page up before the file lost it, and have not mapped it yet.
    ///
    /// Without it the walk finds nothing, takes no lock there, and is past when the entry is written.
    #[inline(always)]
    fn wait_for_huge_faults(&self, wait: impl FnOnce()) {
        wait();
    }

    /// A fault on a file's page: the lock of the table with the leaf, if the entry that led there still does.
    ///
    /// The address space may leave a table that others share while a fault is on its way to it; what the fault then fills may be the others' or nobody's
    /// (Linux keeps faults out with the `hugetlb_vma_lock`, 40549ba8f8e0).
    ///
    /// # Errors
    /// It does not.
    #[inline(always)]
    #[track_caller]
    fn lock_if_linked<'t, C: Cpu>(&self, cpu: &'t C, position: &Position<'t>) -> Result<LockedTable<'t, C>, Unlinked> {
        position.lock_linked(cpu, &Atomic)
    }

    /// Split of a huge leaf: the entry becomes `invalid`, which the hardware does not use, and what it held comes back with the accessed and dirty
    /// bits as they were at that moment.
    ///
    /// A load followed by a store forgets the bits that the hardware set between the two (Linux: `pmdp_invalidate` until the series of 2017 that made
    /// `pmdp_establish` an exchange).
    #[inline(always)]
    #[track_caller]
    fn invalidate_leaf<C: Cpu, W: EntryWrite>(
        &self,
        table: &mut LockedTable<'_, C>,
        writer: &W,
        address: VirtAddr,
        invalid: Entry,
    ) -> Entry {
        table.replace(writer, address, invalid)
    }

    /// Who has taken a table out of the tree and flushed, before it looks for references to what the table maps, and uses the table for something else.
    ///
    /// A flush that needs no IPI says nothing about lockless walkers: without the wait they read a table that is freed or used elsewhere (Linux
    /// 2ba99c5e0881).
    #[inline(always)]
    #[track_caller]
    fn wait_before_table_reuse<C: Cpu, L: TableLifetime>(
        &self,
        cpu: &C,
        lifetime: &L,
        shootdown: &Shootdown,
        cpus: CpuSet,
    ) {
        lifetime.wait(cpu, shootdown, cpus);
    }

    /// An address space has left a table that others share: the flush, before the others may take pages out of it without asking.
    ///
    /// Without it a stale TLB entry leads to a page that the last owner has freed (CVE-2021-4002; Linux a4a118f2eead).
    #[inline(always)]
    #[track_caller]
    fn flush_left_table<C: Cpu>(&self, cpu: &C, flush: impl FnOnce()) {
        let _ = cpu;
        flush();
    }

    /// The same, for lockless walkers that came by the entry that is gone.
    ///
    /// Without the wait they read what the last owner puts into the table, for itself alone (CVE-2025-38085; Linux 1013af4f585f).
    #[inline(always)]
    #[track_caller]
    fn wait_for_walkers_of_left_table<C: Cpu, L: TableLifetime>(
        &self,
        cpu: &C,
        lifetime: &L,
        shootdown: &Shootdown,
        cpus: CpuSet,
    ) {
        lifetime.wait(cpu, shootdown, cpus);
    }

    /// Who takes an exclusive page out of its entry: between clearing the entry and looking for pins.
    ///
    /// Without a full barrier the look may come first, and miss the pin of a walker that still saw the entry (Linux 088b8aa537c2). On x86 entries are
    /// cleared by a locked instruction, which is one already; the engine does not rely on how they are written.
    #[inline(always)]
    #[track_caller]
    fn order_clear_before_pin_check<C: Cpu>(&self, cpu: &C) {
        cpu.fence();
    }

    /// A write to an anonymous page that was shared: whether the entry that faulted is all that is left, so that no copy is needed.
    ///
    /// References decide, not mappings: a child that took a reference by GUP and unmapped the page would read what the parent writes from then on
    /// (CVE-2020-29374; Linux 09854ba94c6a, and 17839856fd58 before it).
    #[inline(always)]
    fn is_only_user(&self, references: u32, mappings: u32) -> bool {
        let _ = mappings;
        references == 1
    }

    /// Fast GUP, before the first pin: the state of the sequence that is odd while a fork shares pages; `None` while it is: then no pin is taken.
    #[inline(always)]
    #[track_caller]
    fn before_pins<C: Cpu>(&self, cpu: &C, fork: &SeqCount) -> Option<Sequence> {
        fork.try_begin(cpu)
    }

    /// Fast GUP, after a pin: whether a fork has begun since [`Self::before_pins`]. It may have looked for pins before this one was there, and
    /// given the child the page (Linux 57efa1fe5957).
    #[inline(always)]
    #[track_caller]
    fn fork_began<C: Cpu>(&self, cpu: &C, fork: &SeqCount, since: Sequence) -> bool {
        fork.changed(cpu, since)
    }

    /// Slow GUP, after the fault for a forced write has made a copy: what the next look asks for.
    ///
    /// The copy may be gone by then. Whoever asks for reading only, because the copy was made, is given the file's own page and writes to that (CVE-2016-5195,
    /// "Dirty COW"; Linux 19be0eaffa3a, and 5535be309971 without the flag that mended it).
    #[inline(always)]
    fn after_forced_fault(&self, request: Request) -> Request {
        request
    }

    /// A pin for reading of an anonymous page that may be shared: whether the page must be made this space's alone first.
    ///
    /// If not, the next write replaces the page in the address space, and the pin reads on in what is not its memory any more (Linux a7f226604170;
    /// before it, who wrote had to guess whether others' references were pins: 17839856fd58, 09854ba94c6a).
    #[inline(always)]
    fn pin_unshares(&self) -> bool {
        true
    }

    /// Who is going to trust the entries of a table, with its lock held: flushes what reclaim has cleared and not flushed yet.
    ///
    /// Without it munmap returns while a stale TLB entry still leads to the page (Linux 3ea277194daa).
    #[inline(always)]
    #[track_caller]
    fn settle_batched_flush<C: Cpu>(&self, cpu: &C, unflushed: &Unflushed, flush: impl FnOnce()) {
        unflushed.settle(cpu, flush);
    }

    /// Whether the place of a page on swap is kept from being used again while a fault reads it.
    #[inline(always)]
    fn hold_swap_place(&self) -> SwapPlaceHold {
        SwapPlaceHold::WhileReading
    }

    /// A fault below a stack, with the mmap lock just taken for writing: what to act on. `seen` is what was found with the lock held for reading.
    ///
    /// In between somebody may have mapped something into the gap. The stack would grow next to it, or over it, and one that is written behind its end writes to that
    /// (CVE-2017-1000364, "Stack Clash", is of stacks without such a gap).
    #[inline(always)]
    fn growth_under_lock<R>(&self, seen: R, look_again: impl FnOnce() -> R) -> R {
        let _ = seen;
        look_again()
    }

    /// Who follows a driver's entry, with the page-table lock just taken: what to act on. `seen` is what led to this lock.
    ///
    /// Until the lock was held, the entry could be zapped and its frame given to somebody else (Linux ffef67b93aa3, of huge entries).
    #[inline(always)]
    fn entry_under_lock(&self, seen: Entry, read_again: impl FnOnce() -> Entry) -> Entry {
        let _ = seen;
        read_again()
    }

    /// Who takes a device's page records away, when no entry and no reference leads to them any more: waits for lockless walkers that read an entry before.
    ///
    /// They look at the record before they look at the entry again. `cpus` are those that may be at it.
    #[inline(always)]
    #[track_caller]
    fn walkers_left<C: Cpu, L: TableLifetime>(&self, cpu: &C, lifetime: &L, shootdown: &Shootdown, cpus: CpuSet) {
        lifetime.wait(cpu, shootdown, cpus);
    }

    /// mremap, after it moved entries from one table to another, with the locks of both held: when TLBs are flushed.
    ///
    /// With the locks dropped first, another CPU can take a page away from its new place, flush that alone, and free the page; the TLB entry for the old
    /// place still leads there (Linux eb66ae030829, CVE-2018-18281).
    #[inline(always)]
    fn flush_moved(&self) -> FlushMoment {
        FlushMoment::BeforeUnlock
    }

    /// When the entries of a range that migrates are flushed.
    ///
    /// After the lock is dropped, a zap finds migration entries and nothing to flush, and returns while a TLB still leads to the pages (Linux 60bae7370896).
    #[inline(always)]
    fn collected_flush(&self) -> FlushMoment {
        FlushMoment::BeforeUnlock
    }

    /// A walker that has just split a huge leaf: whether what it finds in its place is a table that it may go on with.
    ///
    /// A fault may have mapped a huge leaf again. Whoever only looks whether there is something takes the leaf's frame for a table (CVE-2026-31456).
    #[inline(always)]
    fn is_table_after_split<M: Mode>(&self, mode: &M, level: Level, entry: Entry) -> bool {
        mode.leads_to_table(level, entry)
    }

    /// A fault on a file, with the lock of the table held: what the file has now where `found` was found before. If it is not the same, the fault looks again.
    ///
    /// Whoever takes a page out of its file changes the slot first and zaps under this lock second. A fault that does not look puts the page back after the zap,
    /// and it stays mapped though the file lost it: truncated data that can be read and written for ever (Linux
    /// d00806b18315, where the page's lock does what looking again does here).
    #[inline(always)]
    #[track_caller]
    fn look_at_slot_again<C: Cpu>(&self, cpu: &C, slot: &PageSlot, found: Frame) -> Option<Frame> {
        let _ = found;
        slot.get(cpu)
    }

    /// When a file forgets an area that is unmapped.
    #[inline(always)]
    fn file_forgets(&self) -> FileForgets {
        FileForgets::AfterFlush
    }

    /// A gather of a range ends: whether it is the only one of the parts of its address space into which the range reaches. If not, it flushes everything, because it may have come upon entries that another one has
    /// cleared and not flushed yet (Linux 99baac21e458).
    #[inline(always)]
    #[track_caller]
    fn is_gather_alone<C: Cpu>(&self, cpu: &C, space: &AddressSpace<'_>, range: (VirtAddr, VirtAddr)) -> bool {
        space.gather_is_alone(cpu, range)
    }

    /// For how long a driver that revokes keeps its own faults out.
    #[inline(always)]
    fn driver_lock(&self) -> DriverLock {
        DriverLock::WholeRevoke
    }

    /// What an unmap does with a table that no area of the locked parts of its address space needs, and into which other parts reach, too.
    #[inline(always)]
    fn common_tables(&self) -> CommonTables {
        CommonTables::Stay
    }

    /// An empty table is about to be taken out of the table above it.
    ///
    /// It must not be given back here: its parent's entry still leads to it.
    #[inline(always)]
    #[track_caller]
    fn before_detach<C: Cpu>(&self, cpu: &C, source: &impl TableSource, table: Frame) {
        let _ = (cpu, source, table);
    }

    /// Gives a table back that was taken out, flushed, and is walked by nobody.
    #[inline(always)]
    #[track_caller]
    fn free_table<C: Cpu>(&self, cpu: &C, source: &impl TableSource, table: FlushedTable) {
        table.free(cpu, source);
    }

    /// Fast GUP, after the pin: which of a folio's flags decide whether it may be had.
    ///
    /// All of them, whatever lists the folio is on: a test for secret memory that left folios out that were not on the LRU list yet let those be pinned
    /// (CVE-2024-35872; Linux 65291dcfcf89).
    #[inline(always)]
    fn flags_that_decide(&self, flags: FolioFlags) -> FolioFlags {
        flags
    }

    /// Who flushes: the CPUs whose TLBs are to be invalidated, of those that may translate by the address space.
    ///
    /// All of them: which one the thread runs on is known only once it cannot be moved any more ([`Cpu::preempt_off`]), and the flush itself sees to that. Whoever takes "this
    /// CPU" out before may be on another when it invalidates: the TLB that it left keeps the translation (Linux asks with preemption off: `get_cpu` in `flush_tlb_mm_range`).
    #[inline(always)]
    #[track_caller]
    fn cpus_to_flush<C: Cpu>(&self, cpu: &C, active: CpuSet) -> CpuSet {
        let _ = cpu;
        active
    }

    /// Whether a flush may pass CPUs over that are lazy.
    ///
    /// Not if tables are freed after it: a walker needs no access of code to come by them (Linux 2ff6ddf19c0e; of a collapse 3ef938c35035, CVE-2025-22045).
    #[inline(always)]
    fn may_pass_over_lazy(&self, stale: Stale) -> bool {
        stale == Stale::Leaves
    }

    /// Who flushes, once it has counted a generation of a CPU that was lazy: whether it is so still.
    ///
    /// If not, it may have looked at its generation before, and must be interrupted.
    #[inline(always)]
    #[track_caller]
    fn is_lazy_still<C: Cpu>(&self, cpu: &C, target: &LazyState) -> bool {
        target.is_lazy(cpu)
    }

    /// Who leaves lazy mode, between saying so and looking at its generation.
    ///
    /// Without a full barrier the store can wait until the look is over, and who flushes meanwhile sees a CPU that is lazy (Linux 83b0177a6c48).
    #[inline(always)]
    #[track_caller]
    fn order_leaving_lazy<C: Cpu>(&self, cpu: &C) {
        cpu.fence();
    }

    /// Who leaves lazy mode: whether flushes have passed this CPU over that it has to make up for.
    #[inline(always)]
    #[track_caller]
    fn has_missed_flushes<C: Cpu>(&self, cpu: &C, own: &LazyState) -> bool {
        own.take_missed(cpu)
    }

    /// When TLBs must have forgotten an entry of a file's page that has lost its dirty bit.
    ///
    /// Once the page-table lock is dropped, write-back may find it clean and flush nothing, write the page out, and a store through a TLB that still
    /// holds the entry writable and dirty is known to nobody (Linux 1cf35d47712d, of a zap).
    #[inline(always)]
    fn flush_of_cleaned(&self) -> FlushMoment {
        FlushMoment::BeforeUnlock
    }

    /// Who takes a PROT_NONE leaf away to move its page, with the page-table lock held: whether a TLB may still translate by what the leaf was.
    ///
    /// Whoever made it PROT_NONE flushes at the end of its gather. A page that moves before that and without a flush is written in its old place by who has not faulted, and the store is lost (Linux 20841405940e:
    /// `tlb_flush_pending`, `pte_accessible`).
    #[inline(always)]
    #[track_caller]
    fn prot_none_may_be_cached<C: Cpu>(&self, cpu: &C, space: &AddressSpace<'_>, address: VirtAddr) -> bool {
        space.has_gathers(cpu, address)
    }

    /// Whether TLBs must forget an entry that has become another one ([`pagetable::flush`]).
    #[inline(always)]
    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        old.needs_flush(new)
    }

    /// pkey_mprotect, of a page on its way to another frame: the key of the leaf that the page comes back as. `before` is what the migration entry has.
    ///
    /// Nobody looks at the area again when the page comes back. (Linux does: there the key is the area's.)
    #[inline(always)]
    fn key_after_migration(&self, before: ProtectionKey, area: ProtectionKey) -> ProtectionKey {
        let _ = before;
        area
    }

    /// Merge, of a page that may be shared from here on: it stops being exclusive, under the page-table lock and with its entry cleared.
    ///
    /// Else its owner goes on writing to what others map by now, and fast GUP pins for writing what is not its address space's alone (Linux: `folio_try_share_anon_rmap_pte` in
    /// `write_protect_page`).
    #[inline(always)]
    #[track_caller]
    fn share_kept_page(&self, share: impl FnOnce()) {
        share();
    }

    /// Merge: for how long the page that stays is held.
    #[inline(always)]
    fn hold_kept_page(&self) -> KeptPageHold {
        KeptPageHold::UntilMapped
    }

    /// Merge: when references that mappings do not explain are looked for.
    #[inline(always)]
    fn user_count(&self) -> UserCount {
        UserCount::AfterClear
    }

    /// Merge, with an entry cleared that was like this: when TLBs are flushed.
    ///
    /// In any case before contents are compared. That the entry was read-only already says nothing: who took the right to write away may not have flushed yet (Linux b3a81d0841a9).
    #[inline(always)]
    fn merge_flush(&self, cleared: Entry) -> MergeFlush {
        let _ = cleared;
        MergeFlush::BeforeComparing
    }

    /// Merge: whether forks of address spaces that may have the page wait while its references and mappings are counted. One in between adds to both.
    #[inline(always)]
    fn forks_wait_for_count(&self) -> bool {
        true
    }

    /// Merge: how many references and mappings a page has.
    ///
    /// References first. A page that is unmapped by another address space loses a mapping and a reference: counted the other way round, that makes up for a reference of a device.
    #[inline(always)]
    #[track_caller]
    fn count_users(&self, references: impl FnOnce() -> u32, mappings: impl FnOnce() -> u32) -> (u32, u32) {
        let references = references();
        (references, mappings())
    }

    /// Merge: whether the folio locks of both pages are held while one is mapped in the place of the other.
    #[inline(always)]
    fn merge_lock(&self) -> MergeLock {
        MergeLock::Held
    }

    /// Merge, of a folio that is locked: which of its flags decide whether its page may be merged.
    ///
    /// All of them, those of the page that stays, too, which were looked at before: if its memory has failed since then, it was taken out wherever it was mapped, and nobody will take it out where it is
    /// mapped next.
    #[inline(always)]
    fn flags_against_merge(&self, flags: FolioFlags) -> FolioFlags {
        flags
    }

    /// page_table_check, of an entry that has come: counts the mapping, and looks how often the frame is mapped as what it is not. Returns both counts.
    ///
    /// Counts first. Two that map one frame, as anonymous memory and as a file's, have different locks: if both look first, neither sees the other.
    #[inline(always)]
    fn count_then_look(&self, count: impl FnOnce() -> u64, look: impl FnOnce() -> u64) -> (u64, u64) {
        let counted = count();
        (counted, look())
    }

    /// A write to an anonymous page that was shared: whether this space is its only user, and it was never merged. A merged page is copied in any case: its record does not say where this space
    /// maps it, and who merges it once more takes for granted that nobody can write to it (Linux 9a840895147b).
    ///
    /// The mark is looked at last. Who merges a page has a reference from before he marks it until the mark is there: whoever finds no such reference, and looks afterwards, finds the mark.
    #[inline(always)]
    #[track_caller]
    fn is_only_user_of_unmerged(&self, is_only_user: impl FnOnce() -> bool, is_merged: impl FnOnce() -> bool) -> bool {
        is_only_user() && !is_merged()
    }

    /// Whether a device that has no reference may write to what a present leaf with these attributes maps.
    ///
    /// Only if the leaf is dirty. Else nobody knows that the device has written: write-back takes the page for clean. (Linux leaves that to drivers, which call
    /// `set_page_dirty`.)
    #[inline(always)]
    fn device_may_write(&self, attributes: Attributes) -> bool {
        attributes.has(Flags::WRITE.and(Flags::DIRTY))
    }

    /// Whether secondary TLBs are told of all that goes when an address space leaves a table that others share.
    ///
    /// If they are told only of what the operation is about, a device keeps the table's other pages, and nobody will tell it when those go: they are others' now, and this address space maps
    /// them no more (Linux: `adjust_range_if_pmd_sharing_possible`, since 017b1660df89).
    #[inline(always)]
    fn tells_of_left_table(&self) -> bool {
        true
    }

    /// Who puts pages into a device's page table, with the lock of that held: whether something was taken away since they were looked up.
    ///
    /// If so, the device was told to forget pages that it did not have yet, and nobody will tell it again: it would use frames that are freed (Linux:
    /// `mmu_interval_read_retry`, which `Documentation/mm/hmm.rst` asks every driver for).
    #[inline(always)]
    #[track_caller]
    fn mirror_is_stale<C: Cpu>(&self, cpu: &C, invalidations: &Invalidations, since: Seen) -> bool {
        invalidations.changed(cpu, since)
    }

    /// A fault begins again after a wait for a driver: what the driver is told.
    ///
    /// That it was waited for. A driver that only tries its lock each time may find it held by others each time, whose faults have just waited for it as well (Linux: FAULT_FLAG_TRIED,
    /// `fault_flag_allow_retry_first` since 4064b9827063; `ttm_bo_vm_reserve` waits with the mmap lock held from the second attempt on).
    #[inline(always)]
    fn attempt_after_wait(&self) -> Attempt {
        Attempt::AfterWait
    }

    /// A fault that was handed over and is known to whoever resolves it, before it waits: whether it still must (Linux: `userfaultfd_must_wait`).
    ///
    /// It may have been resolved before it was known. Whoever does not look again waits for a wake-up that was before.
    #[inline(always)]
    fn still_unresolved(&self, look: impl FnOnce() -> bool) -> bool {
        look()
    }

    /// Who resolves a fault: puts contents into a page, and maps it.
    ///
    /// In this order, else others see a page that is not whole: the reason for which there is UFFDIO_COPY, and user code does not map the page and fill it itself.
    #[inline(always)]
    fn fill_then_map<E>(&self, fill: impl FnOnce(), map: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        fill();
        map()
    }

    /// A store to a page that was write-protected by userfaultfd, perhaps a moment ago, before it is decided whether the page is copied: flushes, if somebody has taken something away and not flushed yet.
    ///
    /// That one holds the mmap lock for reading, too, so that another CPU may still write to the page by its TLB. What it writes after the copy is lost (Linux 6ce64428d620).
    #[inline(always)]
    #[track_caller]
    fn flush_before_copy(&self, flush_if_pending: impl FnOnce()) {
        flush_if_pending();
    }

    /// Whether a page that is the address space's alone is written without a copy, however many references there are.
    ///
    /// If references decide instead, somebody who has one gets the old page and everybody else the copy: pins are no use, and entries of which TLBs know that they can be written lead to pages that
    /// are copied (Linux until 6c287605fd56, 5.19).
    #[inline(always)]
    fn exclusive_needs_no_copy(&self) -> bool {
        true
    }

    /// When a zap takes a folio off its rmap.
    #[inline(always)]
    fn rmap_removal(&self) -> RmapRemoval {
        RmapRemoval::AfterFlush
    }
}

/// Every step as it is meant to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound;

impl Guards for Sound {}
