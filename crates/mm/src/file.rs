//! Files: pages that address spaces map, and the way back from a file to its mappings (rmap).

use core::ops::Range;

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::{Cpu, RwLock, SpinLock, Word64};
use pagetable::Level;

use crate::area::Area;
use crate::space::SpaceId;

/// The number of a file: its index in the slice that [`crate::Mm`] was given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId(u16);

impl FileId {
    /// The file with this number.
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

/// What the frames of a file are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// Pages with counts: mapping, GUP and the file itself hold references.
    Cached,
    /// No pages: what private areas of it map is anonymous memory, which belongs to the address spaces. The file is the way from a folio back to them (Linux: `anon_vma`).
    /// A page of it is an address-independent name: it stays with the folio when the area moves, and children inherit it.
    Anonymous,
    /// Frames that belong to a driver, with or without page records. Entries are *special*: nobody takes references, and the driver
    /// gets its frames back by [`crate::Mm::revoke`] (Linux: VM_PFNMAP, `vmf_insert_pfn*`).
    Driver,
    /// The same, but the driver keeps no page slots here: it resolves faults itself ([`crate::special::DriverFault`]), with leaves of the sizes that it chooses.
    PfnMapped,
    /// As [`Self::PfnMapped`], but frames with records are mapped by ordinary entries, which hold references: GUP may have them (Linux: VM_MIXEDMAP).
    Mixed,
}

impl FileKind {
    /// Whether every entry is special, so that GUP refuses the whole area.
    pub const fn is_pfn_mapped(self) -> bool {
        matches!(self, Self::Driver | Self::PfnMapped)
    }

    /// Whether the driver resolves faults itself.
    pub const fn has_handler(self) -> bool {
        matches!(self, Self::PfnMapped | Self::Mixed)
    }
}

/// A file, and where it is mapped.
///
/// Aligned as [`AddressSpace`](crate::AddressSpace) is: who faults in one file does not write the lines of its neighbours.
#[repr(align(128))]
pub struct File<'a> {
    kind: FileKind,
    /// The level of the leaves that map the file: one page slot serves one leaf. With a handler, the level of the largest leaves that it is asked for.
    leaf: Level,
    /// What a driver said its frames are.
    frames: &'a [Range<Frame>],
    /// Which frame each leaf-sized piece of the file is in; see [`PageSlot`].
    pages: &'a [PageSlot],
    /// Held by the driver while it changes `pages` and revokes, and by faults while they read `pages` and insert. Of a driver's files only.
    driver_lock: SpinLock,
    /// Protects `mappings` (Linux: `i_mmap_rwsem`). Zap by rmap holds it for reading, and no lock of any address space.
    rmap_lock: RwLock,
    mappings: &'a [Mapping],
}

/// Room for one leaf-sized piece of a file: no frame, or one.
pub struct PageSlot(Word64);

/// Room for one mapping of a file.
pub struct Mapping {
    /// The address space plus one, or [`FREE`], or [`RESERVED`].
    space: Word64,
    start: Word64,
    pages: Word64,
    offset: Word64,
}

/// Where part of a file is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappedAt {
    pub(crate) space: SpaceId,
    pub(crate) start: VirtAddr,
    pub(crate) pages: u64,
    pub(crate) offset: u64,
}

impl MappedAt {
    pub(crate) const fn new(space: SpaceId, area: &Area) -> Self {
        Self { space, start: area.start, pages: area.pages, offset: area.offset }
    }

    /// The addresses at which pages of `first .. first + pages` of the file are mapped.
    pub(crate) fn addresses(&self, first: u64, pages: u64) -> Option<(VirtAddr, VirtAddr)> {
        let from = first.max(self.offset);
        let until = first.saturating_add(pages).min(self.offset + self.pages);
        let at = |page: u64| self.start.wrapping_add((page - self.offset) * PAGE_SIZE);
        (from < until).then(|| (at(from), at(until)))
    }
}

const PRESENT: u64 = 1 << 63;

impl PageSlot {
    /// A slot that holds `frame`.
    pub const fn new(frame: Option<Frame>) -> Self {
        Self(Word64::new(Self::pack(frame)))
    }

    const fn pack(frame: Option<Frame>) -> u64 {
        match frame {
            Some(frame) => PRESENT | frame.number(),
            None => 0,
        }
    }

    pub(crate) fn get<C: Cpu>(&self, cpu: &C) -> Option<Frame> {
        Self::unpack(cpu.load(&self.0))
    }

    /// Puts another frame in, and returns the one that was there. A full barrier: zaps that follow find whatever was mapped by the old one.
    pub(crate) fn replace<C: Cpu>(&self, cpu: &C, frame: Option<Frame>) -> Option<Frame> {
        Self::unpack(cpu.swap(&self.0, Self::pack(frame)))
    }

    /// Puts a frame in, where there is none.
    pub(crate) fn fill<C: Cpu>(&self, cpu: &C, frame: Option<Frame>) -> Result<(), SlotTaken> {
        cpu.compare_exchange(&self.0, Self::pack(None), Self::pack(frame)).map(drop).map_err(|_| SlotTaken)
    }

    /// The frame that it holds at this moment.
    pub fn frame<C: Cpu>(&self, cpu: &C) -> Option<Frame> {
        self.get(cpu)
    }

    /// The word, so that a trace can name it.
    pub const fn word(&self) -> &Word64 {
        &self.0
    }

    fn unpack(word: u64) -> Option<Frame> {
        (word & PRESENT != 0).then(|| Frame::new(word & !PRESENT))
    }
}

impl Mapping {
    /// A free slot.
    pub const fn new() -> Self {
        Self { space: Word64::new(0), start: Word64::new(0), pages: Word64::new(0), offset: Word64::new(0) }
    }
}

impl Default for Mapping {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> File<'a> {
    /// A file whose pieces of the size of a leaf at `leaf` are in `pages`. `mappings` is the room for its rmap: that many areas can map it.
    pub const fn new(kind: FileKind, leaf: Level, pages: &'a [PageSlot], mappings: &'a [Mapping]) -> Self {
        Self { kind, leaf, frames: &[], pages, driver_lock: SpinLock::new(), rmap_lock: RwLock::new(), mappings }
    }

    /// The same, of a driver whose own frames are these. It may map them as it likes. Of other frames it may map only such as have records, in folios that belong to nobody
    /// else (a driver's own allocations). A file that declares nothing may map any frame without a record, too.
    #[must_use]
    pub const fn with_frames(self, frames: &'a [Range<Frame>]) -> Self {
        Self { frames, ..self }
    }

    /// Whether all of these frames were declared.
    pub(crate) fn declares(&self, first: Frame, frames: u64) -> bool {
        let Some(last) = first.number().checked_add(frames.saturating_sub(1)).map(Frame::new) else { return false };
        self.frames.iter().any(|range| range.contains(&first) && range.contains(&last))
    }

    /// Whether the driver said which frames are its own.
    pub(crate) const fn declares_any(&self) -> bool {
        !self.frames.is_empty()
    }

    /// What areas of the file must be aligned to. With a handler any page will do: leaves are as large as fits.
    pub const fn alignment(&self) -> Level {
        if self.kind.has_handler() { Level::Pte } else { self.leaf }
    }

    /// What the file's frames are.
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// The level of the leaves that map the file; with a handler, of the largest ones.
    pub const fn leaf(&self) -> Level {
        self.leaf
    }

    /// The slots of its pieces, so that a trace can name them.
    pub const fn slots(&self) -> &'a [PageSlot] {
        self.pages
    }

    /// The lock that faults on a driver's file and its revoke take, so that a trace can name it.
    pub const fn driver_lock(&self) -> &SpinLock {
        &self.driver_lock
    }

    /// The lock of the file's rmap, so that a trace can name it.
    pub const fn rmap_lock(&self) -> &RwLock {
        &self.rmap_lock
    }

    /// The slot of the piece that holds 4 KiB page `page` of the file.
    pub(crate) fn slot(&self, page: u64) -> Option<&'a PageSlot> {
        let piece = page / self.leaf.frames();
        self.pages.get(usize::try_from(piece).ok()?)
    }

    /// Enters a mapping into the rmap. The caller holds [`Self::rmap_lock`] for writing.
    pub(crate) fn link<C: Cpu>(&self, cpu: &C, at: &MappedAt) -> Result<(), NoRoom> {
        let slot = self.mappings.iter().find(|slot| cpu.owned_load(&slot.space) == FREE).ok_or(NoRoom)?;
        Self::write(cpu, slot, at);
        Ok(())
    }

    /// Enters a mapping into the rmap to which pages of another one are going to move, behind that one if there is room. The caller holds
    /// [`Self::rmap_lock`] for writing.
    pub(crate) fn link_new_place<C: Cpu>(&self, cpu: &C, old: &MappedAt, new: &MappedAt) -> Result<Found, NoRoom> {
        let is_old = |slot: &Mapping| Self::read(cpu, slot) == Some(*old);
        let behind = self.mappings.iter().skip_while(|slot| !is_old(slot));
        match behind.into_iter().find(|slot| cpu.owned_load(&slot.space) == FREE) {
            Some(slot) => {
                Self::write(cpu, slot, new);
                Ok(Found::AfterTheOld)
            }
            None => self.link(cpu, new).map(|()| Found::BeforeTheOld),
        }
    }

    /// Takes a mapping out of the rmap. The caller holds [`Self::rmap_lock`] for writing.
    pub(crate) fn unlink<C: Cpu>(&self, cpu: &C, at: &MappedAt) {
        self.relink(cpu, at, []);
    }

    /// Sets free slots aside for [`Self::relink`]. The caller holds [`Self::rmap_lock`] for writing.
    pub(crate) fn reserve<C: Cpu>(&self, cpu: &C, slots: usize) -> Result<(), NoRoom> {
        let free = || self.mappings.iter().filter(|slot| cpu.owned_load(&slot.space) == FREE);
        if free().take(slots).count() < slots {
            return Err(NoRoom);
        }
        free().take(slots).for_each(|slot| cpu.owned_store(&slot.space, RESERVED));
        Ok(())
    }

    /// Frees slots that were set aside. The caller holds [`Self::rmap_lock`] for writing.
    pub(crate) fn cancel<C: Cpu>(&self, cpu: &C, slots: usize) {
        let reserved = self.mappings.iter().filter(|slot| cpu.owned_load(&slot.space) == RESERVED);
        reserved.take(slots).for_each(|slot| cpu.owned_store(&slot.space, FREE));
    }

    /// Puts other mappings in the place of one. All but the first of them need slots that were [set aside](Self::reserve) by the caller, who holds
    /// [`Self::rmap_lock`] for writing.
    pub(crate) fn relink<C: Cpu>(&self, cpu: &C, from: &MappedAt, to: impl IntoIterator<Item = MappedAt>) {
        let Some(slot) = self.mappings.iter().find(|slot| Self::read(cpu, slot) == Some(*from)) else { return };
        cpu.owned_store(&slot.space, FREE);
        let reserved = self.mappings.iter().filter(|slot| cpu.owned_load(&slot.space) == RESERVED);
        // The mappings first: a `zip` asks its left side first, and with one mapping there is no reason to look for a second slot among all.
        for (at, slot) in to.into_iter().zip(core::iter::once(slot).chain(reserved)) {
            Self::write(cpu, slot, &at);
        }
    }

    /// The mappings. The caller holds [`Self::rmap_lock`].
    pub(crate) fn mappings<C: Cpu>(&self, cpu: &C) -> impl Iterator<Item = MappedAt> {
        self.mappings.iter().filter_map(move |slot| Self::read(cpu, slot))
    }

    fn write<C: Cpu>(cpu: &C, slot: &Mapping, at: &MappedAt) {
        cpu.owned_store(&slot.space, u64::from(at.space.number()) + 1);
        cpu.owned_store(&slot.start, at.start.as_u64());
        cpu.owned_store(&slot.pages, at.pages);
        cpu.owned_store(&slot.offset, at.offset);
    }

    fn read<C: Cpu>(cpu: &C, slot: &Mapping) -> Option<MappedAt> {
        let space = match cpu.owned_load(&slot.space) {
            FREE | RESERVED => return None,
            space => space - 1,
        };
        Some(MappedAt {
            space: SpaceId::new(space as u16),
            start: VirtAddr::new(cpu.owned_load(&slot.start)),
            pages: cpu.owned_load(&slot.pages),
            offset: cpu.owned_load(&slot.offset),
        })
    }
}

/// When a walk by rmap comes to the new place of pages that move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// After the old one: it finds a page at one of the two.
    AfterTheOld,
    /// Before the old one: a page that moves between the two looks is missed.
    BeforeTheOld,
}

/// What [`Mapping::space`] holds of a slot without a mapping.
const FREE: u64 = 0;
/// What it holds of a slot that is set aside.
const RESERVED: u64 = u64::MAX;

/// The slot holds a frame already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotTaken;

/// The caller-provided slots are all in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRoom;
