//! Address spaces.
//!
//! | module | what |
//! |---|---|
//! | `part` | the areas of part of the addresses |
//! | `mmap_lock` | holding the locks of some parts |
//!
//! # Parts
//!
//! An address space has one mmap lock, or is given several, each for the areas between two addresses ([`AddressSpace::in_parts`]): then threads that map and unmap in different parts
//! do not wait for each other, as they do in Linux. Whoever does something to a range holds the locks of all parts into which it reaches, and takes them in the order of their addresses.
//!
//! Page tables are common to all parts. One into which two parts reach is taken out only by who holds the locks of both: else somebody might be filling it for an area
//! that the other does not see.

mod mmap_lock;
mod part;

use core::slice;

use machine::addr::VirtAddr;
use machine::{Cpu, CpuSet, Reader, SeqCount, Word32, Word64};
use pagetable::Root;

use crate::area::{Area, AreaSlot};
use crate::batched_flush::Unflushed;
use crate::guard::CommonTables;
use crate::gup::GatePage;
use crate::protection_keys::Keys;
use crate::stack::StackLimits;
use crate::tags::Tags;

pub use part::{PartsError, SpacePart};

use mmap_lock::{MmapGuard, Reading, Writing};
pub(crate) use mmap_lock::{MmapRead, MmapWrite};

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
    parts: Parts<'a>,
    /// The CPUs that may translate by this page table (Linux: `mm_cpumask`).
    active: Word64,
    /// Odd while a fork write-protects entries (Linux: `write_protect_seq`). Writers hold the mmap lock of all for writing.
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

/// The parts of an address space, lowest first.
#[expect(clippy::large_enum_variant, reason = "nothing allocates, so it lies here or at the caller's")]
enum Parts<'a> {
    One(SpacePart<'a>),
    Many(&'a [SpacePart<'a>]),
}

/// Where an area is, while the lock of its part is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AreaIndex {
    part: usize,
    slot: usize,
}

impl AreaIndex {
    /// Which part it is in.
    pub(crate) const fn part(self) -> usize {
        self.part
    }
}

/// A range of addresses: the first, and the one behind the last.
pub(crate) type AddressRange = (VirtAddr, VirtAddr);

/// All addresses.
pub(crate) const EVERYTHING: AddressRange = (VirtAddr::new(0), VirtAddr::new(u64::MAX));

/// Where an area would go among those that are there.
pub(crate) enum Placement {
    /// At this index: what follows moves on.
    At(AreaIndex),
    /// It overlaps this one.
    Overlaps(Area),
    /// All slots are in use.
    Full,
}

impl<'a> AddressSpace<'a> {
    /// An address space without areas. `root` is an empty root table; `slots` is the room for its areas.
    pub const fn new(root: Root, slots: &'a [AreaSlot]) -> Self {
        Self::of(root, Parts::One(SpacePart::new(VirtAddr::new(0), slots)))
    }

    /// An address space without areas, with a mmap lock for each of these parts. `root` is an empty root table.
    ///
    /// # Errors
    /// They do not follow each other from address 0 on.
    pub fn in_parts(root: Root, parts: &'a [SpacePart<'a>]) -> Result<Self, PartsError> {
        SpacePart::check(parts)?;
        Ok(Self::of(root, Parts::Many(parts)))
    }

    const fn of(root: Root, parts: Parts<'a>) -> Self {
        Self {
            root,
            tags: Tags::None,
            parts,
            active: Word64::new(0),
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

    /// Its parts, lowest first.
    #[inline]
    pub const fn parts(&self) -> &[SpacePart<'a>] {
        match &self.parts {
            Parts::One(part) => slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// The index of the part that holds an address.
    #[inline]
    fn part_of(&self, address: VirtAddr) -> usize {
        match &self.parts {
            Parts::One(_) => 0,
            // The first begins at 0.
            Parts::Many(parts) => parts.partition_point(|part| part.start() <= address).saturating_sub(1),
        }
    }

    /// The parts that hold one of the addresses from `first` to `last`.
    #[inline]
    fn parts_from_to(&self, first: VirtAddr, last: VirtAddr) -> &[SpacePart<'a>] {
        &self.parts()[self.part_of(first)..=self.part_of(last.max(first))]
    }

    /// The parts that hold an address of the range, or the one at which it would begin.
    #[inline]
    fn parts_in(&self, (start, end): AddressRange) -> &[SpacePart<'a>] {
        self.parts_from_to(start, VirtAddr::new(end.as_u64().saturating_sub(1)))
    }

    /// Where the first part begins that begins in the range, but at its start.
    pub(crate) fn boundary_in(&self, (start, end): AddressRange) -> Option<VirtAddr> {
        self.parts_in((start, end)).get(1).map(SpacePart::start)
    }

    /// Whether two addresses belong to one part.
    pub(crate) fn are_together(&self, one: VirtAddr, other: VirtAddr) -> bool {
        self.part_of(one) == self.part_of(other)
    }

    /// Takes the mmap lock of a range for reading. The area that begins at its end can be looked at, too.
    ///
    /// Context: interrupts on, no lock but a mmap lock of an address space with a lower number.
    #[inline]
    #[track_caller]
    pub(crate) fn mmap_read<'s, C: Cpu>(&'s self, cpu: &'s C, (start, end): AddressRange) -> MmapRead<'s, C> {
        MmapGuard::take(cpu, self.parts_from_to(start, end), Reading(Reader::here(cpu)))
    }

    /// The same for writing.
    #[inline]
    #[track_caller]
    pub(crate) fn mmap_write<'s, C: Cpu>(&'s self, cpu: &'s C, (start, end): AddressRange) -> MmapWrite<'s, C> {
        MmapGuard::take(cpu, self.parts_from_to(start, end), Writing)
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

    /// A gather of this range begins. The full barrier orders this before every entry that it clears.
    pub(crate) fn gather_begins<C: Cpu>(&self, cpu: &C, range: AddressRange) {
        self.parts_in(range).iter().for_each(|part| part.gather_begins(cpu));
    }

    /// Whether the caller's, of this range, is the only gather there that has begun and not ended.
    pub(crate) fn gather_is_alone<C: Cpu>(&self, cpu: &C, range: AddressRange) -> bool {
        self.parts_in(range).iter().all(|part| part.gathers(cpu) == 1)
    }

    /// Whether a gather has begun and not ended that may have taken away what an entry of this address says, or made it PROT_NONE, and not flushed it yet. The caller holds the lock of
    /// the entry's table.
    pub(crate) fn has_gathers<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> bool {
        self.parts()[self.part_of(address)].gathers(cpu) != 0
    }

    /// A gather of this range has ended: what it took away is flushed.
    pub(crate) fn gather_ends<C: Cpu>(&self, cpu: &C, range: AddressRange) {
        self.parts_in(range).iter().for_each(|part| part.gather_ends(cpu));
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

    /// Nobody has pages of this address space any more. The caller holds the mmap lock of all for writing.
    pub(crate) fn forget_pins<C: Cpu>(&self, cpu: &C) {
        cpu.store(&self.has_pinned, 0);
    }

    /// Whether there may be guards. The caller holds a mmap lock.
    pub(crate) fn has_guards<C: Cpu>(&self, cpu: &C) -> bool {
        cpu.load(&self.has_guards) != 0
    }

    /// Somebody is about to install a guard. The caller holds a mmap lock.
    pub(crate) fn set_has_guards<C: Cpu>(&self, cpu: &C) {
        if !self.has_guards(cpu) {
            cpu.fetch_or(&self.has_guards, 1);
        }
    }

    /// There are no entries any more. The caller holds the mmap lock of all for writing.
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

    /// Which protection keys it has given out. The caller holds a mmap lock.
    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The word that says whether somebody has ever pinned a page, so that a trace can name it.
    pub const fn has_pinned_word(&self) -> &Word32 {
        &self.has_pinned
    }

    /// The area that holds `address`. The caller holds its mmap lock.
    pub(crate) fn find<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> Option<Area> {
        let part = &self.parts()[self.part_of(address)];
        let area = part.area(cpu, part.first_ending_behind(cpu, address))?;
        area.contains(address).then_some(area)
    }

    /// The area before `address`, which none holds, and the one behind it, if they reach between `low` and `high`. (Others may be found, too.) The caller holds the mmap lock of that range.
    pub(crate) fn neighbours<C: Cpu>(
        &self,
        cpu: &C,
        address: VirtAddr,
        (low, high): AddressRange,
    ) -> (Option<Area>, Option<Area>) {
        let here = self.part_of(address);
        let part = &self.parts()[here];
        let index = part.first_ending_behind(cpu, address);
        let below = index.checked_sub(1).and_then(|index| part.area(cpu, index));
        let above = part.area(cpu, index);
        let lower = || self.parts()[self.part_of(low)..here].iter().rev().find_map(|part| part.used(cpu).last());
        let upper = || self.parts()[here + 1..=self.part_of(high)].iter().find_map(|part| part.used(cpu).first());
        (below.or_else(|| lower().map(|slot| slot.get(cpu))), above.or_else(|| upper().map(|slot| slot.get(cpu))))
    }

    /// Whether no area reaches into the `bytes` bytes from `start` on, and none can come before the mmap lock is dropped that the caller holds for writing.
    ///
    /// With [`CommonTables::Go`] only of the parts that are held.
    pub(crate) fn is_free<C: Cpu>(
        &self,
        cpu: &C,
        (mmap, common): (&MmapWrite<'_, C>, CommonTables),
        start: VirtAddr,
        bytes: u64,
    ) -> bool {
        let parts = self.parts_from_to(start, VirtAddr::new(start.as_u64().saturating_add(bytes - 1)));
        (common == CommonTables::Go || mmap.holds(parts))
            && parts.iter().filter(|part| mmap.holds(slice::from_ref(*part))).all(|part| {
                let next = part.area(cpu, part.first_ending_behind(cpu, start));
                // Compared by distance: the range may end at the very end of the address space.
                next.is_none_or(|area| area.start.as_u64().saturating_sub(start.as_u64()) >= bytes)
            })
    }

    /// The areas, lowest first. The caller holds the mmap lock of all.
    pub(crate) fn areas<C: Cpu>(&self, cpu: &C) -> impl Iterator<Item = Area> {
        self.indexed_areas(cpu).map(|(_, area)| area)
    }

    /// The areas, lowest first, and where they are. The caller holds the mmap lock of all.
    pub(crate) fn indexed_areas<C: Cpu>(&self, cpu: &C) -> impl Iterator<Item = (AreaIndex, Area)> {
        self.parts().iter().enumerate().flat_map(move |(part, own)| {
            let slots = own.used(cpu).iter().enumerate();
            slots.map(move |(slot, area)| (AreaIndex { part, slot }, area.get(cpu)))
        })
    }

    /// How many areas can be added at an address. The caller holds its mmap lock.
    pub(crate) fn free_slots<C: Cpu>(&self, cpu: &C, address: VirtAddr) -> usize {
        self.parts()[self.part_of(address)].free_slots(cpu)
    }

    /// Whether its parts begin where those of the other do.
    pub(crate) fn has_parts_of(&self, other: &AddressSpace<'_>) -> bool {
        self.parts().iter().map(SpacePart::start).eq(other.parts().iter().map(SpacePart::start))
    }

    /// Whether it has free slots for all areas of another that has the same parts. The caller holds the mmap locks of all of both.
    pub(crate) fn has_slots_for<C: Cpu>(&self, cpu: &C, other: &AddressSpace<'_>) -> bool {
        self.parts().iter().zip(other.parts()).all(|(own, other)| own.free_slots(cpu) >= other.count(cpu))
    }

    /// The first area that reaches into `start..end`, and its index. The caller holds the mmap lock of that range.
    pub(crate) fn first_in<C: Cpu>(&self, cpu: &C, start: VirtAddr, end: VirtAddr) -> Option<(AreaIndex, Area)> {
        let first = self.part_of(start);
        self.parts_in((start, end)).iter().zip(first..).find_map(|(own, part)| {
            let slot = own.first_ending_behind(cpu, start);
            let area = own.area(cpu, slot)?;
            (area.start < end).then_some((AreaIndex { part, slot }, area))
        })
    }

    /// Where `area` would go. The caller holds its mmap lock for writing.
    pub(crate) fn place<C: Cpu>(&self, cpu: &C, area: &Area) -> Placement {
        if let Some((_, other)) = self.first_in(cpu, area.start, area.end()) {
            return Placement::Overlaps(other);
        }
        let part = self.part_of(area.start);
        let own = &self.parts()[part];
        if own.free_slots(cpu) == 0 {
            return Placement::Full;
        }
        Placement::At(AreaIndex { part, slot: own.first_ending_behind(cpu, area.start) })
    }

    /// Puts `area` at `index`, where [`Self::place`] said it goes. The caller has held its mmap lock for writing since.
    pub(crate) fn insert<C: Cpu>(&self, cpu: &C, index: AreaIndex, area: &Area) {
        self.splice(cpu, index, 0, &[*area]);
    }

    /// Puts `new` in the place of `old` areas of one part from `index` on. There are slots enough, and the order stays. The caller holds the part's mmap lock for writing.
    pub(crate) fn splice<C: Cpu>(&self, cpu: &C, index: AreaIndex, old: usize, new: &[Area]) {
        self.parts()[index.part].splice(cpu, index.slot, old, new);
    }
}
