//! Address spaces.

use machine::addr::VirtAddr;
use machine::{Cpu, CpuSet, PerCpuRwLock, ReaderLock, SeqCount, Word32, Word64};
use pagetable::Root;

use crate::area::{Area, AreaSlot};
use crate::batched_flush::Unflushed;
use crate::gup::GatePage;
use crate::protection_keys::Keys;
use crate::stack::StackLimits;
use crate::tags::Tags;

/// The number of an address space: its index in the slice that [`crate::Mm`] was given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpaceId(u16);

impl SpaceId {
    /// The address space with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A page table and the areas that say what belongs into it.
///
/// Two cache lines' worth of alignment, as processors prefetch lines in pairs: CPUs that work in neighbours of a slice do not write each other's lines.
#[repr(align(128))]
pub struct AddressSpace<'a> {
    root: Root,
    tags: Tags,
    /// Protects the areas. Faults hold it for reading; whoever adds, cuts or moves areas for writing; zap by rmap does not hold it.
    mmap_lock: PerCpuRwLock<'a>,
    /// Sorted by address; the first [`Self::count`] are in use.
    slots: &'a [AreaSlot],
    count: Word64,
    /// The CPUs that may translate by this page table (Linux: `mm_cpumask`).
    active: Word64,
    /// How many gathers have begun and not ended (Linux: `tlb_flush_pending`).
    gathers: Word32,
    /// Odd while a fork write-protects entries (Linux: `write_protect_seq`). Writers hold the mmap lock for writing.
    write_protect: SeqCount,
    /// 1 once somebody has pinned a page (Linux: MMF_HAS_PINNED).
    has_pinned: Word32,
    /// 1 once somebody has installed a guard: then fork looks for them where else it copies nothing (Linux 6.18: VM_MAYBE_GUARD, of each area).
    has_guards: Word32,
    /// How many entries hold the zero page because a merge has put it there (Linux: `ksm_zero_pages`).
    merged_zeros: Word64,
    /// What reclaim has cleared and not flushed (Linux: `tlb_flush_batched`).
    unflushed: Unflushed,
    /// Which protection keys it has given out (Linux: `pkey_allocation_map`).
    keys: Keys,
    stack_limits: StackLimits,
    gate_page: Option<GatePage>,
}

/// Where an area would go among those that are there.
pub(crate) enum Placement {
    /// At this index: what follows moves on.
    At(usize),
    /// It overlaps this one.
    Overlaps(Area),
    /// All slots are in use.
    Full,
}

impl<'a> AddressSpace<'a> {
    /// An address space without areas. `root` is an empty root table; `slots` is the room for its areas.
    pub const fn new(root: Root, slots: &'a [AreaSlot]) -> Self {
        Self {
            root,
            tags: Tags::None,
            mmap_lock: PerCpuRwLock::new(&[]),
            slots,
            count: Word64::new(0),
            active: Word64::new(0),
            gathers: Word32::new(0),
            write_protect: SeqCount::new(),
            has_pinned: Word32::new(0),
            has_guards: Word32::new(0),
            merged_zeros: Word64::new(0),
            unflushed: Unflushed::new(),
            keys: Keys::new(),
            stack_limits: StackLimits::DEFAULT,
            gate_page: None,
        }
    }

    /// The same address space, whose mmap lock has these locks for readers: faults on different CPUs do not write the same line then, and whoever changes areas takes
    /// all. More of them than CPUs are of no use.
    #[must_use]
    pub const fn with_reader_locks(self, locks: &'a [ReaderLock]) -> Self {
        Self { mmap_lock: PerCpuRwLock::new(locks), ..self }
    }

    /// The same address space, whose user addresses have tags. The processor must have been told, too; and that of a child, by who forks.
    #[must_use]
    pub const fn with_tags(self, tags: Tags) -> Self {
        Self { tags, ..self }
    }

    /// What user addresses have for tags.
    pub const fn tags(&self) -> Tags {
        self.tags
    }

    /// The same with other limits for its stacks.
    #[must_use]
    pub const fn with_stack_limits(self, stack_limits: StackLimits) -> Self {
        Self { stack_limits, ..self }
    }

    /// The same with a page outside all areas that GUP can have.
    #[must_use]
    pub const fn with_gate_page(self, gate: GatePage) -> Self {
        Self { gate_page: Some(gate), ..self }
    }

    /// The page outside all areas that GUP can have.
    pub(crate) const fn gate_page(&self) -> Option<GatePage> {
        self.gate_page
    }

    /// How far its stacks may grow.
    pub(crate) const fn stack_limits(&self) -> StackLimits {
        self.stack_limits
    }

    /// The root table.
    pub const fn root(&self) -> Root {
        self.root
    }

    /// The mmap lock, so that a trace can name it.
    pub const fn mmap_lock(&self) -> &PerCpuRwLock<'a> {
        &self.mmap_lock
    }

    /// The word with the set of CPUs that may translate by this page table, so that a trace can name it.
    pub const fn active_word(&self) -> &Word64 {
        &self.active
    }

    /// Whether this is the same address space.
    pub(crate) fn is(&self, other: &AddressSpace<'_>) -> bool {
        core::ptr::eq(&raw const self.active, &raw const other.active)
    }

    /// The CPUs that may translate by this page table.
    #[inline]
    pub(crate) fn active<C: Cpu>(&self, cpu: &C) -> CpuSet {
        CpuSet::from_bits(cpu.load(&self.active))
    }

    /// The caller is about to load [`Self::root`] on its CPU.
    pub(crate) fn enter<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_or(&self.active, CpuSet::only(cpu.id()).bits());
    }

    /// The caller has loaded another root on its CPU.
    pub(crate) fn leave<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_and(&self.active, CpuSet::only(cpu.id()).complement().bits());
    }

    /// A gather begins. The full barrier orders this before every entry that it clears.
    pub(crate) fn gather_begins<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.gathers, 1);
    }

    /// Whether the caller's is the only gather that has begun and not ended.
    pub(crate) fn gather_is_alone<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.gathers) == 1
    }

    /// Whether a gather has begun and not ended: what it took away, or made PROT_NONE, may not be flushed yet. The caller holds the lock of the table that it asks about.
    pub(crate) fn has_gathers<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.gathers) != 0
    }

    /// A gather has ended: what it took away is flushed.
    pub(crate) fn gather_ends<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.gathers, u32::MAX);
    }

    /// The count that is odd while a fork write-protects entries, so that a trace can name it.
    pub const fn write_protect(&self) -> &SeqCount {
        &self.write_protect
    }

    /// Whether somebody has ever pinned a page of this address space.
    pub(crate) fn has_pinned<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.has_pinned) != 0
    }

    /// Somebody is about to pin a page. Looks first: the line is shared by all who pin.
    #[inline]
    pub(crate) fn set_has_pinned<C: Cpu>(&self, cpu: &C) {
        if !self.has_pinned(cpu) {
            cpu.fetch_or(&self.has_pinned, 1);
        }
    }

    /// Nobody has pages of this address space any more. The caller holds [`Self::mmap_lock`] for writing.
    pub(crate) fn forget_pins<C: Cpu>(&self, cpu: &C) {
        cpu.store(&self.has_pinned, 0);
    }

    /// Whether there may be guards. The caller holds [`Self::mmap_lock`].
    pub(crate) fn has_guards<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.has_guards) != 0
    }

    /// Somebody is about to install a guard. The caller holds [`Self::mmap_lock`].
    pub(crate) fn set_has_guards<C: Cpu>(&self, cpu: &C) {
        if !self.has_guards(cpu) {
            cpu.fetch_or(&self.has_guards, 1);
        }
    }

    /// There are no entries any more. The caller holds [`Self::mmap_lock`] for writing.
    pub(crate) fn forget_guards<C: Cpu>(&self, cpu: &C) {
        cpu.store(&self.has_guards, 0);
    }

    /// In how many places of the address space a merge has put the zero page that are still so ([`crate::MergeInto::ZeroPage`]): pages that it does without. Of all address
    /// spaces together, their sum.
    ///
    /// Exact at a moment at which nobody changes entries.
    pub fn merged_zeros<C: Cpu>(&self, cpu: &C) -> u64 {
        cpu.load(&self.merged_zeros)
    }

    /// The word with [`Self::merged_zeros`], so that a trace can name it.
    pub const fn merged_zeros_word(&self) -> &Word64 {
        &self.merged_zeros
    }

    /// What reclaim has cleared and not flushed.
    #[inline]
    pub const fn unflushed(&self) -> &Unflushed {
        &self.unflushed
    }

    /// Which protection keys it has given out. The caller holds [`Self::mmap_lock`].
    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The word that says whether somebody has ever pinned a page, so that a trace can name it.
    pub const fn has_pinned_word(&self) -> &Word32 {
        &self.has_pinned
    }

    /// The word that counts gathers, so that a trace can name it.
    pub const fn gathers_word(&self) -> &Word32 {
        &self.gathers
    }

    /// How many areas there are. The caller holds [`Self::mmap_lock`].
    fn count<C: Cpu>(&self, cpu: &C) -> usize {
        (cpu.owned_load(&self.count) as usize).min(self.slots.len())
    }

    /// The index of the first area that ends behind `address`. The caller holds [`Self::mmap_lock`].
    fn first_ending_behind<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> usize {
        self.slots[..self.count(cpu)].partition_point(|slot| slot.get(cpu).end() <= address)
    }

    /// The area that holds `address`. The caller holds [`Self::mmap_lock`].
    pub(crate) fn find<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> Option<Area> {
        let index = self.first_ending_behind(cpu, address);
        let area = self.slots[..self.count(cpu)].get(index)?.get(cpu);
        area.contains(address).then_some(area)
    }

    /// The area before `address`, which none holds, and the one behind it. The caller holds [`Self::mmap_lock`].
    pub(crate) fn neighbours<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> (Option<Area>, Option<Area>) {
        let slots = &self.slots[..self.count(cpu)];
        let index = self.first_ending_behind(cpu, address);
        let area = |index: usize| slots.get(index).map(|slot| slot.get(cpu));
        (index.checked_sub(1).and_then(area), area(index))
    }

    /// Whether no area reaches into the `bytes` bytes from `start` on. The caller holds [`Self::mmap_lock`].
    pub(crate) fn is_free<C: Cpu>(&self, cpu: &C, start: VirtAddr, bytes: u64) -> bool {
        let next = self.slots[..self.count(cpu)].get(self.first_ending_behind(cpu, start));
        // Compared by distance: the range may end at the very end of the address space.
        next.is_none_or(|slot| slot.get(cpu).start.as_u64().saturating_sub(start.as_u64()) >= bytes)
    }

    /// The areas, lowest first. The caller holds [`Self::mmap_lock`].
    pub(crate) fn areas<C: Cpu>(&self, cpu: &C) -> impl Iterator<Item = Area> {
        self.slots[..self.count(cpu)].iter().map(|slot| slot.get(cpu))
    }

    /// How many areas can be added. The caller holds [`Self::mmap_lock`].
    pub(crate) fn free_slots<C: Cpu>(&self, cpu: &C) -> usize {
        self.slots.len() - self.count(cpu)
    }

    /// The first area that reaches into `start..end`, and its index. The caller holds [`Self::mmap_lock`].
    pub(crate) fn first_in<C: Cpu>(&self, cpu: &C, start: VirtAddr, end: VirtAddr) -> Option<(usize, Area)> {
        let index = self.first_ending_behind(cpu, start);
        let area = self.slots[..self.count(cpu)].get(index)?.get(cpu);
        (area.start < end).then_some((index, area))
    }

    /// Where `area` would go. The caller holds [`Self::mmap_lock`] for writing.
    pub(crate) fn place<C: Cpu>(&self, cpu: &C, area: &Area) -> Placement {
        if let Some((_, other)) = self.first_in(cpu, area.start, area.end()) {
            return Placement::Overlaps(other);
        }
        if self.free_slots(cpu) == 0 {
            return Placement::Full;
        }
        Placement::At(self.first_ending_behind(cpu, area.start))
    }

    /// Puts `area` at `index`, where [`Self::place`] said it goes. The caller has held [`Self::mmap_lock`] for writing since.
    pub(crate) fn insert<C: Cpu>(&self, cpu: &C, index: usize, area: &Area) {
        self.splice(cpu, index, 0, &[*area]);
    }

    /// Puts `new` in the place of `old` areas from `index` on. There are slots enough, and the order stays. The caller holds
    /// [`Self::mmap_lock`] for writing.
    ///
    /// Costs three loads and three stores for every area behind, if the number of areas changes: a sorted array, so that a fault finds its area in few cache lines.
    pub(crate) fn splice<C: Cpu>(&self, cpu: &C, index: usize, old: usize, new: &[Area]) {
        let count = self.count(cpu);
        let moved = |from: usize, to: usize| self.slots[to].set(cpu, &self.slots[from].get(cpu));
        if new.len() > old {
            (index + old..count).rev().for_each(|slot| moved(slot, slot + (new.len() - old)));
        } else if new.len() < old {
            (index + old..count).for_each(|slot| moved(slot, slot - (old - new.len())));
        }
        for (slot, area) in self.slots[index..].iter().zip(new) {
            slot.set(cpu, area);
        }
        cpu.owned_store(&self.count, (count + new.len() - old) as u64);
    }
}
