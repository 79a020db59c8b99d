//! Steps that a variant goes without: `without=`.

use machine::seqcount::Sequence;
use machine::{Access, Cpu, CpuSet, Frame, Pkru, ProtectionKey, SeqCount, VirtAddr, Word64};
use mm::batched_flush::Unflushed;
use mm::guard::{
    CommonTables, DriverLock, FileForgets, KeptPageHold, MergeFlush, MergeLock, RmapRemoval, SwapPlaceHold, UserCount,
};
use mm::gup::Request;
use mm::lazy::LazyState;
use mm::lifetime::TableLifetime;
use mm::notify::Seen;
use mm::order::FlushMoment;
use mm::shootdown::Shootdown;
use mm::{AddressSpace, FolioFlags, Guards, Invalidations, PageSlot, Sound, Stale};
use pagetable::{
    Attributes, Entry, EntryWrite, FlushedTable, Level, LockedTable, Mode, Position, Recheck, Rechecked, Slot,
    TableSource, Unlinked,
};

use super::historic::steps;

/// A step that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Step {
    TableRecheck,
    PinCheckBarrier,
    ReferenceCheck,
    BatchedFlush,
    SlotCheck,
    FlushBeforeForgetting,
    GatherCount,
    RevokeLock,
    ClearBeforeFree,
    DelayedRmap,
    InvalidateExchange,
    SwapPlaceHold,
    EntryUnderLock,
    WalkersLeft,
    TableReuseWait,
    MovedFlush,
    FlushGenerations,
    CollectedFlush,
    LeafCheckAfterSplit,
    ForkCheck,
    UnshareForPin,
    LeftTableFlush,
    LeftTableWait,
    ForcedWrite,
    MembershipCheck,
    HugeFaultWait,
    FaultTableCheck,
    CountLimit,
    SecretOffList,
    LateIdentity,
    LazyTables,
    LazySecondLook,
    LazyBarrier,
    LazyGeneration,
    RightsFlush,
    DirtyFlush,
    IdleFlush,
    CleanedFlush,
    KeptPageShared,
    KeptPageHold,
    CountAfterClear,
    FlushBeforeCompare,
    ReadOnlyFlush,
    ForkWait,
    ReferencesFirst,
    MergedAskedLast,
    MergeLock,
    PoisonCheck,
    CountFirst,
    GrowthCheck,
    MirrorCheck,
    LeftTableNotice,
    DeviceDirty,
    ProtNoneFlush,
    HandedOverLook,
    FillFirst,
    FlushBeforeCopy,
    ExclusiveReuse,
    KeyFlush,
    EntryKey,
    MigrationKey,
    CommonTables,
}

impl Step {
    /// Their names in files.
    pub(super) const NAMES: [(&'static str, Self); 62] = [
        ("table-recheck", Self::TableRecheck),
        ("pin-check-barrier", Self::PinCheckBarrier),
        ("reference-check", Self::ReferenceCheck),
        ("batched-flush-check", Self::BatchedFlush),
        ("slot-check", Self::SlotCheck),
        ("flush-before-forgetting", Self::FlushBeforeForgetting),
        ("gather-count", Self::GatherCount),
        ("revoke-lock", Self::RevokeLock),
        ("clear-before-free", Self::ClearBeforeFree),
        ("delayed-rmap", Self::DelayedRmap),
        ("invalidate-exchange", Self::InvalidateExchange),
        ("swap-place-hold", Self::SwapPlaceHold),
        ("read-under-lock", Self::EntryUnderLock),
        ("wait-for-walkers", Self::WalkersLeft),
        ("table-reuse-wait", Self::TableReuseWait),
        ("moved-flush", Self::MovedFlush),
        ("flush-generations", Self::FlushGenerations),
        ("collected-flush", Self::CollectedFlush),
        ("leaf-check-after-split", Self::LeafCheckAfterSplit),
        ("fork-check", Self::ForkCheck),
        ("unshare-for-pin", Self::UnshareForPin),
        ("left-table-flush", Self::LeftTableFlush),
        ("left-table-wait", Self::LeftTableWait),
        ("forced-write", Self::ForcedWrite),
        ("membership-check", Self::MembershipCheck),
        ("huge-fault-wait", Self::HugeFaultWait),
        ("fault-table-check", Self::FaultTableCheck),
        ("count-limit", Self::CountLimit),
        ("secret-off-list", Self::SecretOffList),
        ("late-identity", Self::LateIdentity),
        ("lazy-tables", Self::LazyTables),
        ("lazy-second-look", Self::LazySecondLook),
        ("lazy-barrier", Self::LazyBarrier),
        ("lazy-generation", Self::LazyGeneration),
        ("rights-flush", Self::RightsFlush),
        ("dirty-flush", Self::DirtyFlush),
        ("idle-flush", Self::IdleFlush),
        ("cleaned-flush", Self::CleanedFlush),
        ("kept-page-shared", Self::KeptPageShared),
        ("kept-page-hold", Self::KeptPageHold),
        ("count-after-clear", Self::CountAfterClear),
        ("flush-before-compare", Self::FlushBeforeCompare),
        ("read-only-flush", Self::ReadOnlyFlush),
        ("fork-wait", Self::ForkWait),
        ("references-first", Self::ReferencesFirst),
        ("merged-asked-last", Self::MergedAskedLast),
        ("merge-lock", Self::MergeLock),
        ("poison-check", Self::PoisonCheck),
        ("count-first", Self::CountFirst),
        ("growth-check", Self::GrowthCheck),
        ("mirror-check", Self::MirrorCheck),
        ("left-table-notice", Self::LeftTableNotice),
        ("device-dirty", Self::DeviceDirty),
        ("prot-none-flush", Self::ProtNoneFlush),
        ("handed-over-look", Self::HandedOverLook),
        ("fill-first", Self::FillFirst),
        ("flush-before-copy", Self::FlushBeforeCopy),
        ("exclusive-reuse", Self::ExclusiveReuse),
        ("key-flush", Self::KeyFlush),
        ("entry-key", Self::EntryKey),
        ("migration-key", Self::MigrationKey),
        ("common-tables", Self::CommonTables),
    ];
}

/// Every step but some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Without(u64);

impl Without {
    /// Nothing is left out.
    pub(super) const NOTHING: Self = Self(0);

    /// This step is left out as well.
    pub(super) fn add(&mut self, step: Step) {
        self.0 |= 1 << step as u32;
    }

    pub(super) const fn lacks(self, step: Step) -> bool {
        self.0 >> step as u32 & 1 != 0
    }
}

/// Calls the method of the engine's own guards, or of those that lack the step.
macro_rules! unless {
    ($self:ident lacks $step:ident, $method:ident($($argument:expr),*)) => {
        if $self.lacks(Step::$step) { steps::$step.$method($($argument),*) } else { Sound.$method($($argument),*) }
    };
}

impl Guards for Without {
    #[track_caller]
    fn recheck_table<C: Cpu, K: Recheck>(&self, cpu: &C, recheck: &K, slot: Slot<'_>, seen: Entry) -> Rechecked {
        unless!(self lacks TableRecheck, recheck_table(cpu, recheck, slot, seen))
    }

    #[track_caller]
    fn invalidate_leaf<C: Cpu, W: EntryWrite>(
        &self,
        table: &mut LockedTable<'_, C>,
        writer: &W,
        address: VirtAddr,
        invalid: Entry,
    ) -> Entry {
        unless!(self lacks InvalidateExchange, invalidate_leaf(table, writer, address, invalid))
    }

    #[track_caller]
    fn wait_before_table_reuse<C: Cpu, L: TableLifetime>(
        &self,
        cpu: &C,
        lifetime: &L,
        shootdown: &Shootdown,
        others: CpuSet,
    ) {
        unless!(self lacks TableReuseWait, wait_before_table_reuse(cpu, lifetime, shootdown, others));
    }

    #[track_caller]
    fn flush_left_table<C: Cpu>(&self, cpu: &C, flush: impl FnOnce()) {
        unless!(self lacks LeftTableFlush, flush_left_table(cpu, flush));
    }

    #[track_caller]
    fn wait_for_walkers_of_left_table<C: Cpu, L: TableLifetime>(
        &self,
        cpu: &C,
        lifetime: &L,
        shootdown: &Shootdown,
        others: CpuSet,
    ) {
        unless!(self lacks LeftTableWait, wait_for_walkers_of_left_table(cpu, lifetime, shootdown, others));
    }

    #[track_caller]
    fn is_member_still<C: Cpu>(&self, cpu: &C, membership: &Word64, seen: u64) -> bool {
        unless!(self lacks MembershipCheck, is_member_still(cpu, membership, seen))
    }

    #[track_caller]
    fn lock_if_linked<'t, C: Cpu>(&self, cpu: &'t C, position: &Position<'t>) -> Result<LockedTable<'t, C>, Unlinked> {
        unless!(self lacks FaultTableCheck, lock_if_linked(cpu, position))
    }

    fn wait_for_huge_faults(&self, wait: impl FnOnce()) {
        unless!(self lacks HugeFaultWait, wait_for_huge_faults(wait));
    }

    fn flush_moved(&self) -> FlushMoment {
        unless!(self lacks MovedFlush, flush_moved())
    }

    fn collected_flush(&self) -> FlushMoment {
        unless!(self lacks CollectedFlush, collected_flush())
    }

    fn is_table_after_split<M: Mode>(&self, mode: &M, level: Level, entry: Entry) -> bool {
        unless!(self lacks LeafCheckAfterSplit, is_table_after_split(mode, level, entry))
    }

    #[track_caller]
    fn before_pins<C: Cpu>(&self, cpu: &C, fork: &SeqCount) -> Option<Sequence> {
        unless!(self lacks ForkCheck, before_pins(cpu, fork))
    }

    #[track_caller]
    fn fork_began<C: Cpu>(&self, cpu: &C, fork: &SeqCount, since: Sequence) -> bool {
        unless!(self lacks ForkCheck, fork_began(cpu, fork, since))
    }

    fn after_forced_fault(&self, request: Request) -> Request {
        unless!(self lacks ForcedWrite, after_forced_fault(request))
    }

    fn pin_unshares(&self) -> bool {
        unless!(self lacks UnshareForPin, pin_unshares())
    }

    fn hold_swap_place(&self) -> SwapPlaceHold {
        unless!(self lacks SwapPlaceHold, hold_swap_place())
    }

    fn growth_under_lock<R>(&self, seen: R, look_again: impl FnOnce() -> R) -> R {
        unless!(self lacks GrowthCheck, growth_under_lock(seen, look_again))
    }

    fn entry_under_lock(&self, seen: Entry, read_again: impl FnOnce() -> Entry) -> Entry {
        unless!(self lacks EntryUnderLock, entry_under_lock(seen, read_again))
    }

    #[track_caller]
    fn walkers_left<C: Cpu, L: TableLifetime>(&self, cpu: &C, lifetime: &L, shootdown: &Shootdown, others: CpuSet) {
        unless!(self lacks WalkersLeft, walkers_left(cpu, lifetime, shootdown, others));
    }

    #[track_caller]
    fn order_clear_before_pin_check<C: Cpu>(&self, cpu: &C) {
        unless!(self lacks PinCheckBarrier, order_clear_before_pin_check(cpu));
    }

    fn is_only_user(&self, references: u32, mappings: u32) -> bool {
        unless!(self lacks ReferenceCheck, is_only_user(references, mappings))
    }

    #[track_caller]
    fn settle_batched_flush<C: Cpu>(&self, cpu: &C, unflushed: &Unflushed, flush: impl FnOnce()) {
        if self.lacks(Step::FlushGenerations) {
            return steps::FlushGenerations.settle_batched_flush(cpu, unflushed, flush);
        }
        unless!(self lacks BatchedFlush, settle_batched_flush(cpu, unflushed, flush));
    }

    #[track_caller]
    fn look_at_slot_again<C: Cpu>(&self, cpu: &C, slot: &PageSlot, found: Frame) -> Option<Frame> {
        unless!(self lacks SlotCheck, look_at_slot_again(cpu, slot, found))
    }

    #[track_caller]
    fn cpus_to_flush<C: Cpu>(&self, cpu: &C, active: CpuSet) -> CpuSet {
        unless!(self lacks LateIdentity, cpus_to_flush(cpu, active))
    }

    fn may_pass_over_lazy(&self, stale: Stale) -> bool {
        unless!(self lacks LazyTables, may_pass_over_lazy(stale))
    }

    #[track_caller]
    fn is_lazy_still<C: Cpu>(&self, cpu: &C, target: &LazyState) -> bool {
        unless!(self lacks LazySecondLook, is_lazy_still(cpu, target))
    }

    #[track_caller]
    fn order_leaving_lazy<C: Cpu>(&self, cpu: &C) {
        unless!(self lacks LazyBarrier, order_leaving_lazy(cpu));
    }

    #[track_caller]
    fn has_missed_flushes<C: Cpu>(&self, cpu: &C, own: &LazyState) -> bool {
        unless!(self lacks LazyGeneration, has_missed_flushes(cpu, own))
    }

    fn needs_flush(&self, old: Entry, new: Entry) -> bool {
        // Each does without some flushes; all that are left out do without all of theirs.
        unless!(self lacks RightsFlush, needs_flush(old, new))
            && unless!(self lacks DirtyFlush, needs_flush(old, new))
            && unless!(self lacks IdleFlush, needs_flush(old, new))
            && unless!(self lacks KeyFlush, needs_flush(old, new))
    }

    fn key_allows(&self, pkru: Pkru, key: ProtectionKey, access: Access) -> bool {
        unless!(self lacks EntryKey, key_allows(pkru, key, access))
    }

    fn key_after_migration(&self, before: ProtectionKey, area: ProtectionKey) -> ProtectionKey {
        unless!(self lacks MigrationKey, key_after_migration(before, area))
    }

    fn flush_of_cleaned(&self) -> FlushMoment {
        unless!(self lacks CleanedFlush, flush_of_cleaned())
    }

    fn common_tables(&self) -> CommonTables {
        unless!(self lacks CommonTables, common_tables())
    }

    fn file_forgets(&self) -> FileForgets {
        unless!(self lacks FlushBeforeForgetting, file_forgets())
    }

    #[track_caller]
    fn is_gather_alone<C: Cpu>(&self, cpu: &C, space: &AddressSpace<'_>, range: (VirtAddr, VirtAddr)) -> bool {
        unless!(self lacks GatherCount, is_gather_alone(cpu, space, range))
    }

    fn driver_lock(&self) -> DriverLock {
        unless!(self lacks RevokeLock, driver_lock())
    }

    #[track_caller]
    fn before_detach<C: Cpu>(&self, cpu: &C, source: &impl TableSource, table: Frame) {
        unless!(self lacks ClearBeforeFree, before_detach(cpu, source, table));
    }

    #[track_caller]
    fn free_table<C: Cpu>(&self, cpu: &C, source: &impl TableSource, table: FlushedTable) {
        unless!(self lacks ClearBeforeFree, free_table(cpu, source, table));
    }

    fn flags_that_decide(&self, flags: FolioFlags) -> FolioFlags {
        unless!(self lacks SecretOffList, flags_that_decide(flags))
    }

    #[track_caller]
    fn share_kept_page(&self, share: impl FnOnce()) {
        unless!(self lacks KeptPageShared, share_kept_page(share));
    }

    fn hold_kept_page(&self) -> KeptPageHold {
        unless!(self lacks KeptPageHold, hold_kept_page())
    }

    fn user_count(&self) -> UserCount {
        unless!(self lacks CountAfterClear, user_count())
    }

    fn merge_flush(&self, cleared: Entry) -> MergeFlush {
        if self.lacks(Step::ReadOnlyFlush) {
            return steps::ReadOnlyFlush.merge_flush(cleared);
        }
        unless!(self lacks FlushBeforeCompare, merge_flush(cleared))
    }

    fn forks_wait_for_count(&self) -> bool {
        unless!(self lacks ForkWait, forks_wait_for_count())
    }

    #[track_caller]
    fn count_users(&self, references: impl FnOnce() -> u32, mappings: impl FnOnce() -> u32) -> (u32, u32) {
        unless!(self lacks ReferencesFirst, count_users(references, mappings))
    }

    #[track_caller]
    fn is_only_user_of_unmerged(&self, is_only_user: impl FnOnce() -> bool, is_merged: impl FnOnce() -> bool) -> bool {
        unless!(self lacks MergedAskedLast, is_only_user_of_unmerged(is_only_user, is_merged))
    }

    fn merge_lock(&self) -> MergeLock {
        unless!(self lacks MergeLock, merge_lock())
    }

    fn flags_against_merge(&self, flags: FolioFlags) -> FolioFlags {
        unless!(self lacks PoisonCheck, flags_against_merge(flags))
    }

    fn count_then_look(&self, count: impl FnOnce() -> u64, look: impl FnOnce() -> u64) -> (u64, u64) {
        unless!(self lacks CountFirst, count_then_look(count, look))
    }

    fn device_may_write(&self, attributes: Attributes) -> bool {
        unless!(self lacks DeviceDirty, device_may_write(attributes))
    }

    fn tells_of_left_table(&self) -> bool {
        unless!(self lacks LeftTableNotice, tells_of_left_table())
    }

    #[track_caller]
    fn mirror_is_stale<C: Cpu>(&self, cpu: &C, invalidations: &Invalidations, since: Seen) -> bool {
        unless!(self lacks MirrorCheck, mirror_is_stale(cpu, invalidations, since))
    }

    #[track_caller]
    fn prot_none_may_be_cached<C: Cpu>(&self, cpu: &C, space: &AddressSpace<'_>, address: VirtAddr) -> bool {
        unless!(self lacks ProtNoneFlush, prot_none_may_be_cached(cpu, space, address))
    }

    fn still_unresolved(&self, look: impl FnOnce() -> bool) -> bool {
        unless!(self lacks HandedOverLook, still_unresolved(look))
    }

    fn fill_then_map<E>(&self, fill: impl FnOnce(), map: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        unless!(self lacks FillFirst, fill_then_map(fill, map))
    }

    #[track_caller]
    fn flush_before_copy(&self, flush_if_pending: impl FnOnce()) {
        unless!(self lacks FlushBeforeCopy, flush_before_copy(flush_if_pending));
    }

    fn exclusive_needs_no_copy(&self) -> bool {
        unless!(self lacks ExclusiveReuse, exclusive_needs_no_copy())
    }

    fn rmap_removal(&self) -> RmapRemoval {
        unless!(self lacks DelayedRmap, rmap_removal())
    }
}
