//! page_table_check: how often and how user code can reach each frame, counted at every change of an entry (Linux: `mm/page_table_check.c`).
//!
//! A memory manager that maps a frame twice by mistake gives one program another's memory, and nobody notices. Here the *entries* are counted, whoever writes them, and compared with what a frame may be:
//!
//! | rule | broken |
//! |---|---|
//! | what is anonymous and can be written is mapped once | [`DoubleUse::SharedWritable`] |
//! | a frame is not anonymous for one entry and a file's for another | [`DoubleUse::AnonymousAndFile`] |
//! | no entry goes that did not come | [`DoubleUse::Underflow`] |
//! | a frame is free only when no entry leads to it ([`CheckedFrames::check_free`]) | [`DoubleUse::StillMapped`] |
//!
//! Only what user code can use at once counts: present leaves with U/S. PROT_NONE, swap and migration entries do not; special leaves do not either, for nobody counts what they map.
//!
//! It is chosen by type: [`TableCheck`] is an [`EntryWrite`] around another one. Who does not choose it pays nothing. Who does pays one locked instruction for each page whenever an entry comes to map it, or ceases to.
//!
//! Unlike Linux's it counts those that may write apart. So it also sees the second mapping that cannot write beside a first one that can.
//!
//! # Protocol
//!
//! An entry is counted once it is there, and counted off once it is gone, with the page-table lock held. Two that map one frame have different locks: each adds to the count *first*, by a locked
//! instruction, and looks whether a rule is broken second. So whoever comes second sees it. (Linux looks whether the frame is mapped as the other kind *before* it counts: two at once can both miss it, `table-check`
//! in the catalogue of races.)

use machine::{Cpu, Frame, SeqCount, Word64};
use pagetable::{Entry, EntryWrite, Flags, Level, Mark, Rights};

use crate::folio::{FolioFlags, Membership, Page};
use crate::guard::{Guards, Sound};

/// What a checker has for each frame.
pub trait CheckedFrames {
    /// The frame's record, and its count; `None` if it has no record: then it is not checked. Any number may be asked for.
    fn frame(&self, frame: Frame) -> Option<CheckedFrame<'_>>;

    /// A rule is broken. What to do about it is the platform's choice; Linux stops.
    ///
    /// Context: a page-table lock is held. No waiting, no call of the engine.
    fn report(&self, broken: DoubleUse);

    /// The folio's frames go back to where they came from, or have just come: entries may not map them (Linux: `page_table_check_free`, `page_table_check_alloc`). For the
    /// platform's allocator, as in [`MemoryMap::release`](crate::MemoryMap::release).
    ///
    /// Context: any.
    fn check_free<C: Cpu>(&self, cpu: &C, folio: Membership) {
        for index in 0..1 << folio.order {
            let frame = folio.head.wrapping_add(index);
            if let Some(found) = self.frame(frame)
                && let (anonymous, file) = found.uses.read(cpu)
                && (anonymous, file) != (Uses::default(), Uses::default())
            {
                self.report(DoubleUse::StillMapped { frame, anonymous, file });
            }
        }
    }
}

impl<T: CheckedFrames> CheckedFrames for &T {
    fn frame(&self, frame: Frame) -> Option<CheckedFrame<'_>> {
        T::frame(self, frame)
    }

    fn report(&self, broken: DoubleUse) {
        T::report(self, broken);
    }
}

/// One frame, for a checker.
pub struct CheckedFrame<'f> {
    /// The record.
    pub page: &'f Page,
    /// The count of its uses.
    pub uses: &'f FrameUses,
}

/// How often, and how, entries map a frame (Linux: `struct page_table_check`, of each page).
///
/// Each word counts mappings in its lower half, and those of them that may write in its upper half.
pub struct FrameUses {
    anonymous: Word64,
    file: Word64,
}

impl FrameUses {
    /// No entry maps the frame.
    pub const fn new() -> Self {
        Self { anonymous: Word64::new(0), file: Word64::new(0) }
    }

    /// How it is mapped at this moment, as anonymous memory and as a file's.
    pub fn read<C: Cpu>(&self, cpu: &C) -> (Uses, Uses) {
        (Uses::unpack(cpu.load(&self.anonymous)), Uses::unpack(cpu.load(&self.file)))
    }

    /// The words that count uses as anonymous memory and as a file's: 0 if there are none.
    pub const fn words(&self) -> [&Word64; 2] {
        [&self.anonymous, &self.file]
    }

    const fn word(&self, kind: FrameKind) -> &Word64 {
        match kind {
            FrameKind::Anonymous => &self.anonymous,
            FrameKind::File => &self.file,
        }
    }
}

impl Default for FrameUses {
    fn default() -> Self {
        Self::new()
    }
}

/// How many entries map a frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Uses {
    /// All of them.
    pub mappings: u32,
    /// Those that user code may write through.
    pub writable: u32,
}

/// One writable mapping, in a word.
const WRITABLE: u64 = 1 << 32;

impl Uses {
    const fn unpack(word: u64) -> Self {
        Self { mappings: word as u32, writable: (word >> 32) as u32 }
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// It belongs to address spaces.
    Anonymous,
    /// It is a file's, or a driver's with a record.
    File,
}

impl FrameKind {
    const fn other(self) -> Self {
        match self {
            Self::Anonymous => Self::File,
            Self::File => Self::Anonymous,
        }
    }
}

/// Which rule is broken, and by which frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoubleUse {
    /// Anonymous memory that can be written is mapped more than once.
    SharedWritable {
        /// The frame.
        frame: Frame,
        /// How.
        uses: Uses,
    },
    /// A frame is mapped as anonymous memory and as a file's.
    AnonymousAndFile {
        /// The frame.
        frame: Frame,
    },
    /// An entry has gone that never came, or that could not be written when it came.
    Underflow {
        /// The frame.
        frame: Frame,
        /// What it is now.
        kind: FrameKind,
    },
    /// A frame is free, or begins a new life, while entries map it.
    StillMapped {
        /// The frame.
        frame: Frame,
        /// As anonymous memory.
        anonymous: Uses,
        /// As a file's.
        file: Uses,
    },
}

/// Entries are written by `W`, and counted.
pub struct TableCheck<W, F, G = Sound> {
    /// How they are written.
    pub write: W,
    /// What is counted where.
    pub frames: F,
    /// Which bit says that a leaf is special.
    pub special: Mark,
    /// The step that must not be left out: [`Guards::count_then_look`].
    pub guards: G,
}

impl<W, F: CheckedFrames, G: Guards> TableCheck<W, F, G> {
    /// What user code may do through an entry, if it counts: the first frame, and one mapping as a word.
    fn counted(&self, level: Level, entry: Entry) -> Option<(Frame, u64)> {
        let counts = entry.is_present()
            && entry.is_leaf(level)
            && entry.rights().allow(Rights::USER)
            && !entry.is_marked(self.special);
        counts.then(|| (entry.leaf_frame(level), if entry.has(Flags::WRITE) { WRITABLE + 1 } else { 1 }))
    }

    /// What the frame is whose record this is: its folio's head knows.
    fn kind<C: Cpu>(&self, cpu: &C, frame: Frame, page: &Page) -> FrameKind {
        let head = page.membership(cpu).head;
        let is_anonymous = |page: &Page| cpu.load(page.flags_word()) & FolioFlags::ANON.bits() != 0;
        let of_head = || self.frames.frame(head).is_some_and(|head| is_anonymous(head.page));
        let anonymous = if head == frame { is_anonymous(page) } else { of_head() };
        if anonymous { FrameKind::Anonymous } else { FrameKind::File }
    }

    fn came<C: Cpu>(&self, cpu: &C, frame: Frame, mapping: u64) {
        let Some(CheckedFrame { page, uses }) = self.frames.frame(frame) else { return };
        let kind = self.kind(cpu, frame, page);
        let count = || cpu.fetch_add(uses.word(kind), mapping).wrapping_add(mapping);
        let (now, other) = self.guards.count_then_look(count, || cpu.load(uses.word(kind.other())));
        let now = Uses::unpack(now);
        if kind == FrameKind::Anonymous && now.mappings > 1 && now.writable > 0 {
            self.frames.report(DoubleUse::SharedWritable { frame, uses: now });
        }
        if other != 0 {
            self.frames.report(DoubleUse::AnonymousAndFile { frame });
        }
    }

    fn went<C: Cpu>(&self, cpu: &C, frame: Frame, mapping: u64) {
        let Some(CheckedFrame { page, uses }) = self.frames.frame(frame) else { return };
        let kind = self.kind(cpu, frame, page);
        let before = Uses::unpack(cpu.fetch_add(uses.word(kind), mapping.wrapping_neg()));
        let gone = Uses::unpack(mapping);
        if before.mappings < gone.mappings || before.writable < gone.writable {
            self.frames.report(DoubleUse::Underflow { frame, kind });
        }
    }
}

impl<W: EntryWrite, F: CheckedFrames, G: Guards> EntryWrite for TableCheck<W, F, G> {
    #[inline]
    #[track_caller]
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        self.write.set(cpu, cell, sequence, new);
    }

    #[inline]
    #[track_caller]
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        self.write.get_and_clear(cpu, cell, sequence)
    }

    #[inline]
    #[track_caller]
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        self.write.replace(cpu, cell, sequence, new)
    }

    #[inline]
    #[track_caller]
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        self.write.update(cpu, cell, sequence, change)
    }

    #[inline]
    #[track_caller]
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        self.write.clear_flags(cpu, cell, sequence, flags)
    }

    #[inline]
    #[track_caller]
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        self.write.set_flags(cpu, cell, sequence, flags)
    }

    #[inline]
    fn as_read(&self, entry: Entry) -> Entry {
        self.write.as_read(entry)
    }

    #[inline]
    fn as_stored(&self, entry: Entry) -> Entry {
        self.write.as_stored(entry)
    }

    /// What goes, goes first: an entry that keeps its frame never counts twice.
    fn changed<C: Cpu>(&self, cpu: &C, level: Level, old: Entry, new: Entry) {
        let (old, new) = (self.counted(level, old), self.counted(level, new));
        if old == new {
            return;
        }
        let frames = |first: Frame| (0..level.frames()).map(move |index| first.wrapping_add(index));
        if let Some((first, mapping)) = old {
            frames(first).for_each(|frame| self.went(cpu, frame, mapping));
        }
        if let Some((first, mapping)) = new {
            frames(first).for_each(|frame| self.came(cpu, frame, mapping));
        }
    }
}
