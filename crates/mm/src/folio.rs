//! Folios and their counts.
//!
//! A folio is a power-of-two run of frames that is referenced, pinned, mapped and freed as one. Each frame has a [`Page`] record; the
//! record of the first frame (the *head*) carries the counts of the folio.
//!
//! # The counts, as Linux keeps them
//!
//! | count | small folio (order 0) | large folio |
//! |---|---|---|
//! | references | `refcount` | `refcount` |
//! | pins | `refcount`, [`PIN_BIAS`] each: false positives are possible, false negatives are not | `refcount` and `pincount`, exact |
//! | mappings | `mapcount` | `mapcount` |
//!
//! The zero page is exempt from pins: it is never freed, so nothing needs to hold it.
//!
//! # Taking a reference without a lock
//!
//! A walker that found a frame in an entry knows nothing about the folio but that its record exists. So it (1) reads which folio the frame belongs
//! to, (2) adds to the count *unless it is zero* (a free folio cannot be revived) or out of range, and (3) reads again which folio the
//! frame belongs to: a split in between would leave the reference on the wrong head (Linux c24d37322548). It asks the head, too: a frame that was
//! freed with its folio still names it, and the head may be in use again, alone.

use machine::addr::Frame;
use machine::{Access, Cpu, Word32, Word64};
use pagetable::Level;

use crate::file::FileId;
use crate::guard::{Guards, Sound};
use crate::gup::Term;

/// What one pin of a small folio adds to its reference count (Linux: `GUP_PIN_COUNTING_BIAS`).
pub const PIN_BIAS: u32 = 1024;

/// No reference makes a count greater than this: an `i32` would turn negative soon (CVE-2019-11487).
pub const COUNT_LIMIT: u32 = i32::MAX as u32 - PIN_BIAS;

/// What the memory map knows of one 4 KiB frame.
#[repr(C, align(32))]
pub struct Page {
    /// Which folio the frame belongs to: [`Membership`], packed.
    membership: Word64,
    /// Where the folio belongs: [`FolioMapping`], packed; 0 = nowhere. Only of the head.
    mapping: Word64,
    refcount: Word32,
    pincount: Word32,
    mapcount: Word32,
    flags: Word32,
}

/// Which folio a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The folio's first frame.
    pub head: Frame,
    /// The folio has `1 << order` frames.
    pub order: u8,
}

/// Which page of which file a folio is, so that its mappings can be found (Linux: `folio->mapping` and `folio->index`).
///
/// Anonymous folios have one, too: an anonymous area is part of a file that holds no pages and knows its areas (Linux: `anon_vma`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolioMapping {
    /// The file.
    pub file: FileId,
    /// The 4 KiB page of the file that the folio's first frame holds, below 2^47.
    pub page: u64,
}

impl FolioMapping {
    const PRESENT: u64 = 1 << 63;
    const PAGE_BITS: u32 = 47;

    const fn pack(mapping: Option<Self>) -> u64 {
        match mapping {
            Some(Self { file, page }) => {
                Self::PRESENT | (file.number() as u64) << Self::PAGE_BITS | page & ((1 << Self::PAGE_BITS) - 1)
            }
            None => 0,
        }
    }

    const fn unpack(word: u64) -> Option<Self> {
        if word & Self::PRESENT == 0 {
            return None;
        }
        let file = FileId::new((word >> Self::PAGE_BITS) as u16);
        Some(Self { file, page: word & ((1 << Self::PAGE_BITS) - 1) })
    }
}

/// Facts about a folio that walkers must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolioFlags(u32);

impl FolioFlags {
    /// Nothing special: a page of an ordinary file whose dirtying is tracked.
    pub const FILE: Self = Self(0);
    /// Of a file that lives in memory only, so that writes through a pin need no notice to a file system.
    pub const SHMEM: Self = Self(1 << 0);
    /// Of secret memory, which even the kernel does not map: fast GUP must never hand it out (CVE-2024-35872).
    pub const SECRET: Self = Self(1 << 1);
    /// The zero page: never freed, never counted.
    pub const ZERO: Self = Self(1 << 2);
    /// In a region that must stay movable: no long-term pins.
    pub const MOVABLE: Self = Self(1 << 3);
    /// No longer of its file: truncated.
    pub const TRUNCATED: Self = Self(1 << 4);
    /// Written since it was last cleaned.
    pub const DIRTY: Self = Self(1 << 5);
    /// Used since it was last aged.
    pub const REFERENCED: Self = Self(1 << 6);
    /// Anonymous: of no file that keeps pages; a copy, or memory that was never part of one (Linux: PageAnon).
    pub const ANON: Self = Self(1 << 7);
    /// Belongs to one address space alone, which may write to it without a copy (Linux: PageAnonExclusive). Kept per frame: in the record of every frame that a
    /// page-sized leaf maps, in that of the first frame of a huge leaf.
    pub const EXCLUSIVE: Self = Self(1 << 8);
    /// Peer-to-peer memory of a device: only who asks for it may have it (FOLL_PCI_P2PDMA).
    pub const PEER_TO_PEER: Self = Self(1 << 9);
    /// Its memory has failed.
    pub const POISONED: Self = Self(1 << 10);
    /// Somebody holds the folio's lock.
    pub const LOCKED: Self = Self(1 << 11);
    /// Its contents are also on swap, or on their way (Linux: swap cache).
    pub const SWAP_BACKED: Self = Self(1 << 12);

    /// Merged: address spaces map it at other places than its record says, too, and nobody writes to it ([`crate::Mm::merge`]; Linux: PageKsm).
    pub const KSM: Self = Self(1 << 13);

    /// One of the eight flags that are the platform's own, 0 to 7: the engine neither looks at them nor changes them, but that a new folio has none.
    ///
    /// # Panics
    /// There is no such flag; at compile time, if a constant is asked for.
    pub const fn platform(number: u32) -> Self {
        assert!(number < 8, "the platform has eight flags");
        Self(1 << (24 + number))
    }

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These, but none of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether references for this long and this access may be had at all (Linux: `gup_fast_folio_allowed`, `folio_is_longterm_pinnable`).
    pub const fn allow(self, term: Term, access: Access) -> bool {
        if self.intersects(Self::SECRET.and(Self::TRUNCATED).and(Self::POISONED)) {
            return false;
        }
        match (term, access) {
            (Term::Short, _) => true,
            (Term::Long, _) if self.contains(Self::MOVABLE) => false,
            (Term::Long, Access::Read) => true,
            // A file system that tracks dirtying must be told before every write; a long-term pin writes unannounced.
            (Term::Long, Access::Write) => self.contains(Self::SHMEM) || self.contains(Self::ANON),
        }
    }

    /// As the record holds them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Membership {
    const ORDER_BITS: u32 = 8;

    /// How many frames the folio has from `frame` on, which is one of its own.
    #[inline(always)]
    pub(crate) const fn frames_from(self, frame: Frame) -> u64 {
        let frames = match 1_u64.checked_shl(self.order as u32) {
            Some(frames) => frames,
            None => 0,
        };
        self.head.number().saturating_add(frames).saturating_sub(frame.number())
    }

    pub(crate) const fn pack(self) -> u64 {
        self.head.number() << Self::ORDER_BITS | self.order as u64
    }

    /// What the word of a record says: [`Page::membership_word`].
    pub const fn unpack(word: u64) -> Self {
        Self { head: Frame::new(word >> Self::ORDER_BITS), order: word as u8 }
    }
}

impl Page {
    /// The record of a frame that belongs to a folio with `references` references.
    ///
    /// Only the record of the head counts; the records of the other frames are made with 0 references.
    pub const fn new(membership: Membership, references: u32, flags: FolioFlags) -> Self {
        Self {
            membership: Word64::new(membership.pack()),
            mapping: Word64::new(0),
            refcount: Word32::new(references),
            pincount: Word32::new(0),
            mapcount: Word32::new(0),
            flags: Word32::new(flags.0),
        }
    }

    /// The same record, of a page of a file: so that reclaim and migration find where it is mapped.
    #[must_use]
    pub const fn of_file(self, mapping: FolioMapping) -> Self {
        Self { mapping: Word64::new(FolioMapping::pack(Some(mapping))), ..self }
    }

    /// Which folio the frame belongs to at this moment.
    #[inline]
    pub fn membership<C: Cpu>(&self, cpu: &C) -> Membership {
        Membership::unpack(cpu.load(&self.membership))
    }

    /// The word of the reference count, so that a monitor can watch it.
    pub const fn refcount_word(&self) -> &Word32 {
        &self.refcount
    }

    /// The word of the pin count, so that a monitor can watch it.
    pub const fn pincount_word(&self) -> &Word32 {
        &self.pincount
    }

    /// The word of the map count, so that a monitor can watch it.
    pub const fn mapcount_word(&self) -> &Word32 {
        &self.mapcount
    }

    /// The word that says which folio the frame belongs to, so that a monitor can watch it.
    pub const fn membership_word(&self) -> &Word64 {
        &self.membership
    }

    /// The word that says where the folio belongs, so that a monitor can watch it.
    pub const fn mapping_word(&self) -> &Word64 {
        &self.mapping
    }

    /// The word of the flags, so that a monitor can watch it.
    pub const fn flags_word(&self) -> &Word32 {
        &self.flags
    }
}

/// Where the [`Page`] records are.
pub trait MemoryMap<C: Cpu> {
    /// The record of `frame`; `None` where no memory is, or memory without records (a device's).
    ///
    /// Fast GUP calls this with a frame number that it has *not yet re-checked*: the answer must be right for any number.
    fn page(&self, cpu: &C, frame: Frame) -> Option<&Page>;

    /// Takes back a folio whose last reference is gone.
    fn release(&self, cpu: &C, folio: Membership);

    /// Whether a reference count of `count` may grow by `more`. A count that wraps around comes to 0 while references are held: the folio would be freed under
    /// them (CVE-2019-11487).
    #[inline(always)]
    fn may_count(&self, count: u32, more: u32) -> bool {
        count_fits(count, more)
    }
}

/// Whether `more` references on top of `count` are within [`COUNT_LIMIT`].
#[inline(always)]
pub const fn count_fits(count: u32, more: u32) -> bool {
    // One comparison where `more` is a constant.
    more <= COUNT_LIMIT && count <= COUNT_LIMIT - more
}

/// Which kind of reference fast GUP takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// An ordinary reference: the folio stays allocated (FOLL_GET).
    Get,
    /// A pin: its contents will be accessed by a device or another CPU (FOLL_PIN).
    Pin,
}

/// Why no reference was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotGrabbed {
    /// The frame has no record: not memory that can be referenced.
    NoRecord,
    /// The reference count is zero: the folio is free.
    Free,
    /// The reference count is negative or near overflow.
    CountLimit,
}

/// A folio to which the holder of this value has a reference, or which something else keeps alive meanwhile.
#[derive(Clone, Copy)]
pub struct Folio<'m> {
    page: &'m Page,
    membership: Membership,
}

impl<'m> Folio<'m> {
    /// The folio that `frame` belongs to, for a caller that holds a reference to it already (so that it can neither split nor go away).
    #[inline]
    pub(crate) fn held<C: Cpu, M: MemoryMap<C>>(map: &'m M, cpu: &C, frame: Frame) -> Option<Self> {
        let membership = map.page(cpu, frame)?.membership(cpu);
        Some(Self { page: map.page(cpu, membership.head)?, membership })
    }

    /// The folio whose first frame is `head`, for a caller that holds a reference to it.
    #[inline]
    pub(crate) fn headed_by<C: Cpu, M: MemoryMap<C>>(map: &'m M, cpu: &C, head: Frame) -> Option<Self> {
        let page = map.page(cpu, head)?;
        Some(Self { page, membership: page.membership(cpu) })
    }

    /// Makes a folio of frames that nobody knows, with one reference, the caller's; `None` if the map has no record of one of them.
    ///
    /// A lockless walker may still come with the number of one of these frames, from before they were freed last. It finds the count 0 until the last
    /// step here, and what it read before that step it finds changed after it.
    pub(crate) fn begin<C: Cpu, M: MemoryMap<C>>(
        map: &'m M,
        cpu: &C,
        membership: Membership,
        flags: FolioFlags,
        mapping: Option<FolioMapping>,
    ) -> Option<Self> {
        let page = map.page(cpu, membership.head)?;
        for index in 1..1 << membership.order {
            let tail = map.page(cpu, membership.head.wrapping_add(index))?;
            cpu.store(&tail.membership, membership.pack());
            cpu.store(&tail.flags, 0);
        }
        cpu.store(&page.membership, membership.pack());
        cpu.store(&page.mapping, FolioMapping::pack(mapping));
        cpu.store(&page.pincount, 0);
        cpu.store(&page.mapcount, 0);
        cpu.store(&page.flags, flags.0);
        cpu.store(&page.refcount, 1);
        Some(Self { page, membership })
    }

    /// Which page of which file this is; `None` for memory of nobody.
    #[inline]
    pub fn mapping<C: Cpu>(&self, cpu: &C) -> Option<FolioMapping> {
        FolioMapping::unpack(cpu.load(&self.page.mapping))
    }

    /// Takes `references` references of the given kind to the folio that `frame` belongs to, without a lock.
    #[inline]
    pub(crate) fn try_grab<C: Cpu, M: MemoryMap<C>>(
        map: &'m M,
        cpu: &C,
        frame: Frame,
        references: u32,
        kind: Reference,
    ) -> Result<Self, NotGrabbed> {
        Self::try_grab_some(&Sound, map, cpu, frame, kind, |_| references).map(|(folio, _)| folio)
    }

    /// Takes references of the given kind to the folio that `frame` belongs to, without a lock, and returns how many: as many as
    /// `references` says, once it is known which folio that may be; perhaps none. It is asked again if the folio turns out to be another.
    #[inline]
    pub(crate) fn try_grab_some<C: Cpu, M: MemoryMap<C>>(
        guards: &impl Guards,
        map: &'m M,
        cpu: &C,
        frame: Frame,
        kind: Reference,
        references: impl Fn(Membership) -> u32,
    ) -> Result<(Self, u32), NotGrabbed> {
        let record = map.page(cpu, frame).ok_or(NotGrabbed::NoRecord)?;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let word = cpu.load(&record.membership);
            let membership = Membership::unpack(word);
            let page = if membership.head == frame {
                record
            } else {
                map.page(cpu, membership.head).ok_or(NotGrabbed::NoRecord)?
            };
            let folio = Self { page, membership };
            let references = references(membership);
            if references == 0 || kind == Reference::Pin && folio.flags(cpu).contains(FolioFlags::ZERO) {
                return Ok((folio, references));
            }
            let weight = folio.weight(references, kind).ok_or(NotGrabbed::CountLimit)?;
            folio.add_unless_zero(cpu, map, weight)?;
            let is_member = guards.is_member_still(cpu, &record.membership, word);
            // The record of a free frame still names the folio that it was part of last. Its head may be in use again, alone: the head knows.
            if is_member && (membership.head == frame || guards.is_member_still(cpu, &page.membership, word)) {
                if kind == Reference::Pin && membership.order > 0 {
                    cpu.fetch_add(&page.pincount, references);
                }
                return Ok((folio, references));
            }
            Self::drop_references(page, cpu, map, weight);
            if is_member {
                return Err(NotGrabbed::Free);
            }
        }
    }

    /// What `references` references add to the reference count; `None` if no count holds so many.
    const fn weight(&self, references: u32, kind: Reference) -> Option<u32> {
        match kind {
            Reference::Pin if self.membership.order == 0 => references.checked_mul(PIN_BIAS),
            Reference::Pin | Reference::Get => Some(references),
        }
    }

    #[inline]
    fn add_unless_zero<C: Cpu, M: MemoryMap<C>>(&self, cpu: &C, map: &M, weight: u32) -> Result<(), NotGrabbed> {
        let mut count = cpu.load(&self.page.refcount);
        loop {
            if count == 0 {
                return Err(NotGrabbed::Free);
            }
            if !map.may_count(count, weight) {
                return Err(NotGrabbed::CountLimit);
            }
            match cpu.compare_exchange(&self.page.refcount, count, count.wrapping_add(weight)) {
                Ok(_) => return Ok(()),
                Err(found) => count = found,
            }
        }
    }

    /// Gives back `references` references of the given kind; frees the folio if they were the last.
    ///
    /// # Errors
    /// If the folio does not have that many: nothing is changed then.
    #[inline]
    pub(crate) fn put<C: Cpu, M: MemoryMap<C>>(
        self,
        cpu: &C,
        map: &M,
        references: u32,
        kind: Reference,
    ) -> Result<(), CountUnderflow> {
        if kind == Reference::Pin && self.flags(cpu).contains(FolioFlags::ZERO) {
            return Ok(());
        }
        let Some(weight) = self.weight(references, kind) else {
            let held = self.references(cpu);
            return Err(CountUnderflow { folio: self.membership, held, given_back: references });
        };
        if kind == Reference::Pin && self.membership.order > 0 {
            let pins = cpu.fetch_add(&self.page.pincount, references.wrapping_neg());
            if pins < references {
                cpu.fetch_add(&self.page.pincount, references);
                return Err(CountUnderflow { folio: self.membership, held: pins, given_back: references });
            }
        }
        let before = cpu.fetch_add(&self.page.refcount, weight.wrapping_neg());
        if before < weight {
            cpu.fetch_add(&self.page.refcount, weight);
            return Err(CountUnderflow { folio: self.membership, held: before, given_back: weight });
        }
        if before == weight {
            map.release(cpu, self.membership);
        }
        Ok(())
    }

    /// Takes `weight` off the count of the folio whose head has this record, which is not the folio that the caller took it for.
    fn drop_references<C: Cpu, M: MemoryMap<C>>(page: &Page, cpu: &C, map: &M, weight: u32) {
        // While this CPU has a reference, the folio is not split, and so stays what the head says now.
        let membership = page.membership(cpu);
        if cpu.fetch_add(&page.refcount, weight.wrapping_neg()) == weight {
            map.release(cpu, membership);
        }
    }

    /// Whether a leaf of `level` that starts at `frame` maps nothing but this folio.
    pub(crate) const fn covers(&self, frame: Frame, level: Level) -> bool {
        let first = self.membership.head.number();
        let end = first + (1 << self.membership.order);
        first <= frame.number() && frame.number() + level.frames() <= end
    }

    /// Whether `pages` frames from `frame` on are the folio's.
    #[inline(always)]
    pub(crate) const fn holds(&self, frame: Frame, pages: u32) -> bool {
        let first = self.membership.head.number();
        let end = first + (1 << self.membership.order);
        first <= frame.number() && frame.number() + pages as u64 <= end
    }

    /// The record of the folio's first frame, which has its counts and its lock.
    pub(crate) const fn head_page(&self) -> &'m Page {
        self.page
    }

    /// Which folio this is.
    pub const fn membership(&self) -> Membership {
        self.membership
    }

    /// The folio's flags at this moment.
    #[inline]
    pub fn flags<C: Cpu>(&self, cpu: &C) -> FolioFlags {
        FolioFlags(cpu.load(&self.page.flags))
    }

    /// Sets flags that are not set yet. Looks first: setting what is set would take the cache line from others for nothing.
    #[inline]
    pub fn mark<C: Cpu>(&self, cpu: &C, flags: FolioFlags) {
        self.mark_seen(cpu, self.flags(cpu), flags);
    }

    /// [`Self::mark`] for a caller that has just read the flags.
    #[inline]
    pub(crate) fn mark_seen<C: Cpu>(&self, cpu: &C, seen: FolioFlags, flags: FolioFlags) {
        if !seen.contains(flags) {
            cpu.fetch_or(&self.page.flags, flags.0);
        }
    }

    /// Whether a device may be accessing the folio. May say yes for a small folio with very many references, never wrongly no.
    #[inline]
    pub fn maybe_dma_pinned<C: Cpu>(&self, cpu: &C) -> bool {
        if self.membership.order > 0 {
            cpu.load(&self.page.pincount) > 0
        } else {
            cpu.load(&self.page.refcount) >= PIN_BIAS
        }
    }

    /// How many references there are at this moment, those of pins and mappings among them.
    pub(crate) fn references<C: Cpu>(&self, cpu: &C) -> u32 {
        cpu.load(&self.page.refcount)
    }

    /// How many entries map the folio at this moment.
    pub(crate) fn mappings<C: Cpu>(&self, cpu: &C) -> u32 {
        cpu.load(&self.page.mapcount)
    }

    /// One more entry maps the folio.
    #[inline]
    pub(crate) fn add_rmap<C: Cpu>(&self, cpu: &C) {
        cpu.fetch_add(&self.page.mapcount, 1);
    }

    /// `entries` entries fewer map the folio.
    #[inline]
    pub(crate) fn remove_rmap<C: Cpu>(&self, cpu: &C, entries: u32) {
        cpu.fetch_add(&self.page.mapcount, entries.wrapping_neg());
    }
}

/// More references were given back than are held: given back twice, or of the wrong kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountUnderflow {
    /// The folio.
    pub folio: Membership,
    /// What the count was.
    pub held: u32,
    /// What was to be taken off.
    pub given_back: u32,
}
