//! Guards that lack one step each.

mod merge;
mod uffd;

use machine::seqcount::Sequence;
use machine::{Access, Cpu, CpuSet, Frame, Pkru, ProtectionKey, SeqCount, VirtAddr, Word64};
use mm::batched_flush::Unflushed;
use mm::guard::{DriverLock, FileForgets, RmapRemoval};
use mm::gup::Request;
use mm::lazy::LazyState;
use mm::lifetime::TableLifetime;
use mm::notify::Seen;
use mm::order::FlushMoment;
use mm::shootdown::Shootdown;
use mm::{AddressSpace, FolioFlags, Guards, Invalidations, PageSlot, Stale};
use pagetable::{
    Attributes, Entry, EntryWrite, Flags, FlushedTable, Level, LockedTable, Mode, Position, Recheck, Rechecked, Slot,
    TableSource, Unlinked,
};

pub(in crate::kernel) use merge::{
    CountAfterClear, FlushBeforeCompare, ForkWait, KeptPageHold, KeptPageShared, MergeLock, MergedAskedLast,
    PoisonCheck, ReadOnlyFlush, ReferencesFirst,
};
pub(in crate::kernel) use uffd::{ExclusiveReuse, FillFirst, FlushBeforeCopy, HandedOverLook};

/// Fast GUP looks at the entry of the page again, and not at that of its table: before Linux 70cbc3cc78a9.
pub(in crate::kernel) struct TableRecheck;

impl Guards for TableRecheck {
    fn recheck_table<C: Cpu, K: Recheck>(&self, _: &C, _: &K, _: Slot<'_>, _: Entry) -> Rechecked {
        Rechecked::Unchanged
    }
}

/// Nothing orders clearing an entry before looking for pins: before Linux 088b8aa537c2.
pub(in crate::kernel) struct PinCheckBarrier;

impl Guards for PinCheckBarrier {
    fn order_clear_before_pin_check<C: Cpu>(&self, _: &C) {}
}

/// Mappings decide whether a written page must be copied, and references do not: Linux before 09854ba94c6a.
pub(in crate::kernel) struct ReferenceCheck;

impl Guards for ReferenceCheck {
    fn is_only_user(&self, _: u32, mappings: u32) -> bool {
        mappings == 1
    }
}

/// Nobody asks whether reclaim has cleared entries and not flushed: Linux before 3ea277194daa.
pub(in crate::kernel) struct BatchedFlush;

impl Guards for BatchedFlush {
    fn settle_batched_flush<C: Cpu>(&self, _: &C, _: &Unflushed, _: impl FnOnce()) {}
}

/// A flag says that reclaim has cleared entries and not flushed, and whoever has flushed resets it: Linux before 5ee2fa2f0636.
pub(in crate::kernel) struct FlushGenerations;

impl Guards for FlushGenerations {
    fn settle_batched_flush<C: Cpu>(&self, cpu: &C, unflushed: &Unflushed, flush: impl FnOnce()) {
        if cpu.load(unflushed.word()) != 0 {
            flush();
            cpu.store(unflushed.word(), 0);
        }
    }
}

/// What migrates of a range is flushed after the page-table lock is dropped: Linux before 60bae7370896.
pub(in crate::kernel) struct CollectedFlush;

impl Guards for CollectedFlush {
    fn collected_flush(&self) -> FlushMoment {
        FlushMoment::AfterUnlock
    }
}

/// A page whose entry is PROT_NONE moves without a flush, whoever may be about to flush that: Linux before 20841405940e.
pub(in crate::kernel) struct ProtNoneFlush;

impl Guards for ProtNoneFlush {
    fn prot_none_may_be_cached<C: Cpu>(&self, _: &C, _: &AddressSpace<'_>, _: VirtAddr) -> bool {
        false
    }
}

/// A fault does not look again whether the file still has the page: Linux before d00806b18315.
pub(in crate::kernel) struct SlotCheck;

impl Guards for SlotCheck {
    fn look_at_slot_again<C: Cpu>(&self, _: &C, _: &PageSlot, found: Frame) -> Option<Frame> {
        Some(found)
    }
}

/// The file forgets an area before TLBs are flushed: Linux before b67fbebd4cf9.
pub(in crate::kernel) struct FlushBeforeForgetting;

impl Guards for FlushBeforeForgetting {
    fn file_forgets(&self) -> FileForgets {
        FileForgets::BeforeFlush
    }
}

/// An unmap frees tables that areas of parts need whose lock it does not hold. No kernel did: Linux has one lock for all areas.
pub(in crate::kernel) struct CommonTables;

impl Guards for CommonTables {
    fn common_tables(&self) -> mm::guard::CommonTables {
        mm::guard::CommonTables::Go
    }
}

/// Gathers do not notice each other: Linux before 99baac21e458.
pub(in crate::kernel) struct GatherCount;

impl Guards for GatherCount {
    fn is_gather_alone<C: Cpu>(&self, _: &C, _: &AddressSpace<'_>, _: (VirtAddr, VirtAddr)) -> bool {
        true
    }
}

/// A driver zaps first and locks its fault handler out second.
pub(in crate::kernel) struct RevokeLock;

impl Guards for RevokeLock {
    fn driver_lock(&self) -> DriverLock {
        DriverLock::ChangeOnly
    }
}

/// A table goes back to the allocator first, and its parent's entry is cleared second: rmm, Redox' memory manager, in August 2026.
pub(in crate::kernel) struct ClearBeforeFree;

impl Guards for ClearBeforeFree {
    #[track_caller]
    fn before_detach<C: Cpu>(&self, cpu: &C, source: &impl TableSource, table: Frame) {
        source.free_table(cpu, table);
    }

    fn free_table<C: Cpu>(&self, _: &C, _: &impl TableSource, _: FlushedTable) {}
}

/// A folio is taken off its rmap before the flush: Linux before 5df397dec7c4.
pub(in crate::kernel) struct DelayedRmap;

impl Guards for DelayedRmap {
    fn rmap_removal(&self) -> RmapRemoval {
        RmapRemoval::BeforeFlush
    }
}

/// A huge leaf that is split is loaded first and overwritten second: Linux' `pmdp_invalidate` until 2017.
pub(in crate::kernel) struct InvalidateExchange;

impl Guards for InvalidateExchange {
    #[track_caller]
    fn invalidate_leaf<C: Cpu, W: EntryWrite>(
        &self,
        table: &mut LockedTable<'_, C>,
        writer: &W,
        address: VirtAddr,
        invalid: Entry,
    ) -> Entry {
        let cell = table.slot(address).cell();
        let held = Entry::from_bits(table.cpu().load(cell));
        table.replace(writer, address, invalid);
        held
    }
}

/// A fault reads from a place on swap that may be used again meanwhile: Linux before 13ddaf26be32.
pub(in crate::kernel) struct SwapPlaceHold;

impl Guards for SwapPlaceHold {
    fn hold_swap_place(&self) -> mm::guard::SwapPlaceHold {
        mm::guard::SwapPlaceHold::Never
    }
}

/// Who follows a driver's entry acts on what it read before it took the lock: Linux before ffef67b93aa3.
pub(in crate::kernel) struct EntryUnderLock;

impl Guards for EntryUnderLock {
    fn entry_under_lock(&self, seen: Entry, _: impl FnOnce() -> Entry) -> Entry {
        seen
    }
}

/// Records of device memory go away under lockless walkers.
pub(in crate::kernel) struct WalkersLeft;

impl Guards for WalkersLeft {
    fn walkers_left<C: Cpu, L: TableLifetime>(&self, _: &C, _: &L, _: &Shootdown, _: CpuSet) {}
}

/// A table that a collapse took out is used again while lockless walkers may be in it: Linux before 2ba99c5e0881.
pub(in crate::kernel) struct TableReuseWait;

impl Guards for TableReuseWait {
    fn wait_before_table_reuse<C: Cpu, L: TableLifetime>(&self, _: &C, _: &L, _: &Shootdown, _: CpuSet) {}
}

/// mremap drops the locks first and flushes second: Linux before eb66ae030829.
pub(in crate::kernel) struct MovedFlush;

impl Guards for MovedFlush {
    fn flush_moved(&self) -> FlushMoment {
        FlushMoment::AfterUnlock
    }
}

/// A walker goes on with what is there after it split a huge leaf, if there is anything: Linux before the mend of CVE-2026-31456.
pub(in crate::kernel) struct LeafCheckAfterSplit;

impl Guards for LeafCheckAfterSplit {
    fn is_table_after_split<M: Mode>(&self, _: &M, _: Level, entry: Entry) -> bool {
        !entry.is_none()
    }
}

/// Fast GUP does not look whether a fork shares pages meanwhile: Linux before 57efa1fe5957.
pub(in crate::kernel) struct ForkCheck;

impl Guards for ForkCheck {
    fn before_pins<C: Cpu>(&self, _: &C, _: &SeqCount) -> Option<Sequence> {
        Some(Sequence::default())
    }

    fn fork_began<C: Cpu>(&self, _: &C, _: &SeqCount, _: Sequence) -> bool {
        false
    }
}

/// A pin for reading takes a page that may be shared as it is: Linux before a7f226604170.
pub(in crate::kernel) struct UnshareForPin;

impl Guards for UnshareForPin {
    fn pin_unshares(&self) -> bool {
        false
    }
}

/// Who leaves a shared table does not flush: Linux before a4a118f2eead.
pub(in crate::kernel) struct LeftTableFlush;

impl Guards for LeftTableFlush {
    fn flush_left_table<C: Cpu>(&self, _: &C, _: impl FnOnce()) {}
}

/// Who leaves a shared table does not wait for lockless walkers: Linux before 1013af4f585f.
pub(in crate::kernel) struct LeftTableWait;

impl Guards for LeftTableWait {
    fn wait_for_walkers_of_left_table<C: Cpu, L: TableLifetime>(&self, _: &C, _: &L, _: &Shootdown, _: CpuSet) {}
}

/// Who flushes takes its own CPU out of the set while it may still be moved. No kernel is known to have done so on x86.
pub(in crate::kernel) struct LateIdentity;

impl Guards for LateIdentity {
    #[track_caller]
    fn cpus_to_flush<C: Cpu>(&self, cpu: &C, active: CpuSet) -> CpuSet {
        active.without(cpu.id())
    }
}

/// Flushes pass lazy CPUs over whatever follows: of a collapse's, Linux before 3ef938c35035.
pub(in crate::kernel) struct LazyTables;

impl Guards for LazyTables {
    fn may_pass_over_lazy(&self, _: Stale) -> bool {
        true
    }
}

/// Who flushes looks once whether a CPU is lazy, and tells it afterwards. No kernel is known to have done so.
pub(in crate::kernel) struct LazySecondLook;

impl Guards for LazySecondLook {
    fn is_lazy_still<C: Cpu>(&self, _: &C, _: &LazyState) -> bool {
        true
    }
}

/// Nothing orders the end of lazy mode before the look at what was missed: Linux before 83b0177a6c48, of the page table that a CPU says it has loaded.
pub(in crate::kernel) struct LazyBarrier;

impl Guards for LazyBarrier {
    fn order_leaving_lazy<C: Cpu>(&self, _: &C) {}
}

/// Who leaves lazy mode takes its TLB for up to date.
pub(in crate::kernel) struct LazyGeneration;

impl Guards for LazyGeneration {
    fn has_missed_flushes<C: Cpu>(&self, _: &C, _: &LazyState) -> bool {
        false
    }
}

/// An entry that keeps its frame is not flushed, whatever rights it loses.
pub(in crate::kernel) struct RightsFlush;

impl Guards for RightsFlush {
    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        old.is_present() && new.is_present() && old.without(Flags::WRITE).needs_flush(new)
    }
}

/// Neither is one that loses its dirty bit alone.
pub(in crate::kernel) struct DirtyFlush;

impl Guards for DirtyFlush {
    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        old.without(Flags::DIRTY).needs_flush(new)
    }
}

/// What is not accessed is taken for not cached, as the SDM seems to say (4.10.2.3).
pub(in crate::kernel) struct IdleFlush;

impl Guards for IdleFlush {
    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        old.has(Flags::ACCESSED) && old.needs_flush(new)
    }
}

/// Neither is one that gets another protection key: it leads where it led, and takes no right away. No kernel is known to have done so.
pub(in crate::kernel) struct KeyFlush;

impl Guards for KeyFlush {
    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        old.with_protection_key(new.protection_key()).needs_flush(new)
    }
}

/// Fast GUP leaves protection keys to the hardware, which asks for user code only: what Linux 33a709b25a76 closed before keys were offered.
pub(in crate::kernel) struct EntryKey;

impl Guards for EntryKey {
    fn key_allows(&self, _: Pkru, _: ProtectionKey, _: Access) -> bool {
        true
    }
}

/// A page that moves to another frame comes back with the key that it left with. No kernel is known to have done so: Linux takes that of the area when the page comes back.
pub(in crate::kernel) struct MigrationKey;

impl Guards for MigrationKey {
    fn key_after_migration(&self, before: ProtectionKey, _: ProtectionKey) -> ProtectionKey {
        before
    }
}

/// An entry that has lost its dirty bit is flushed when its page-table lock is dropped, like others: harvest in this engine until `harvest-write-back` was written.
pub(in crate::kernel) struct CleanedFlush;

impl Guards for CleanedFlush {
    fn flush_of_cleaned(&self) -> FlushMoment {
        FlushMoment::AfterUnlock
    }
}

/// A stack grows by what was found before the lock was held for writing. No kernel is known to have done so: Linux grew stacks under the lock for reading until
/// 8d7071af8907, and kept those that grow one stack apart by the lock of its rmap.
pub(in crate::kernel) struct GrowthCheck;

impl Guards for GrowthCheck {
    fn growth_under_lock<R>(&self, seen: R, _: impl FnOnce() -> R) -> R {
        seen
    }
}

/// A driver puts pages into its device's page table without asking whether they were taken away since it looked them up: what Linux's
/// `Documentation/mm/hmm.rst` warns of.
pub(in crate::kernel) struct MirrorCheck;

impl Guards for MirrorCheck {
    fn mirror_is_stale<C: Cpu>(&self, _: &C, _: &Invalidations, _: Seen) -> bool {
        false
    }
}

/// A device may write wherever user code may: what `hmm_range_fault` says in Linux, where drivers then call `set_page_dirty`, or forget to.
pub(in crate::kernel) struct DeviceDirty;

impl Guards for DeviceDirty {
    fn device_may_write(&self, attributes: Attributes) -> bool {
        attributes.has(Flags::WRITE)
    }
}

/// Who leaves a shared table tells devices of its own range only: Linux before 017b1660df89, and this engine before `mirror-unshare`.
pub(in crate::kernel) struct LeftTableNotice;

impl Guards for LeftTableNotice {
    fn tells_of_left_table(&self) -> bool {
        false
    }
}

/// A forced write asks for reading only once the fault has made a copy: Linux before 19be0eaffa3a.
pub(in crate::kernel) struct ForcedWrite;

impl Guards for ForcedWrite {
    fn after_forced_fault(&self, mut request: Request) -> Request {
        request.access = Access::Read;
        request
    }
}

/// Who has taken a reference does not look at the record again: Linux before c24d37322548.
pub(in crate::kernel) struct MembershipCheck;

impl Guards for MembershipCheck {
    fn is_member_still<C: Cpu>(&self, _: &C, _: &Word64, _: u64) -> bool {
        true
    }
}

/// Zap by rmap trusts an empty entry of a huge page although it has not taken the lock of its table. No kernel is known to have done so: Linux holds
/// the folio's lock here.
pub(in crate::kernel) struct HugeFaultWait;

impl Guards for HugeFaultWait {
    fn wait_for_huge_faults(&self, _: impl FnOnce()) {}
}

/// page_table_check looks at the other count before it counts: Linux (`page_table_check_set`).
pub(in crate::kernel) struct CountFirst;

impl Guards for CountFirst {
    fn count_then_look(&self, count: impl FnOnce() -> u64, look: impl FnOnce() -> u64) -> (u64, u64) {
        let found = look();
        (count(), found)
    }
}

/// Of the kernel's list of used pages. A page that was faulted in waits in a batch of its CPU before it comes there.
pub(in crate::kernel) const ON_LIST: FolioFlags = FolioFlags::platform(0);

/// Only folios on the list are tested for secret memory: Linux before 65291dcfcf89.
pub(in crate::kernel) struct SecretOffList;

impl Guards for SecretOffList {
    fn flags_that_decide(&self, flags: FolioFlags) -> FolioFlags {
        if flags.contains(ON_LIST) { flags } else { flags.without(FolioFlags::SECRET) }
    }
}

/// A fault fills the table that it came to, although its address space may have left that meanwhile: hugetlb before 40549ba8f8e0 (6.1), where faults and
/// unsharing had no lock in common.
pub(in crate::kernel) struct FaultTableCheck;

impl Guards for FaultTableCheck {
    fn lock_if_linked<'t, C: Cpu>(&self, cpu: &'t C, position: &Position<'t>) -> Result<LockedTable<'t, C>, Unlinked> {
        Ok(position.lock(cpu))
    }
}
