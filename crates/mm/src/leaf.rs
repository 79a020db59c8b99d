//! What an entry holds: one answer for everybody who zaps, forks, protects, moves or looks.
//!
//! Counts follow from it. An entry that holds a [`Held::Page`] has one reference to the folio and one mapping of it, whatever its level and whether or
//! not the hardware may use it. A [`Held::Swap`] has one count of its place. Nothing else counts anything.

use machine::addr::Frame;
use pagetable::{Attributes, Entry, EntryWrite, Flags, Level, Marker, Migration, Mode, NonPresent, ProtNone, Swap};

use crate::frames::FrameSource;
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;

/// What an entry holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// Nothing.
    Nothing,
    /// The way to a table.
    Table,
    /// A page of a folio.
    Page(Leaf),
    /// The zero page: special, and not counted.
    Zero(Leaf),
    /// A driver's frame: special. Its record, if there is one, is the driver's.
    Special(Leaf),
    /// The place of a page on swap.
    Swap(Swap),
    /// A page on its way to another frame. The folio's counts do not know this entry.
    Migration(Migration),
    /// No page, but something to know about its place.
    Marker(Marker),
    /// Nothing that an encoding explains: the table was damaged. Zap clears it, everybody else lets it be.
    Unknown,
}

/// A leaf, for software.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// The first frame.
    pub(crate) frame: Frame,
    /// Rights, accessed and dirty, software bits. Of a PROT_NONE leaf: as they were before.
    pub(crate) attributes: Attributes,
    /// Whether the hardware uses it.
    pub(crate) presence: Presence,
}

/// Whether the hardware uses a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It does.
    Present,
    /// It must not for now: PROT_NONE.
    ProtNone,
}

impl Leaf {
    /// Whether the hardware would let user code write through it.
    pub(crate) fn is_writable(&self) -> bool {
        self.presence == Presence::Present && self.attributes.has(Flags::WRITE)
    }
}

impl Leaf {
    /// The entry that this leaf of `level` is; `None` if there is none, which cannot be if an entry of that level held it.
    pub(crate) fn entry(&self, level: Level) -> Option<Entry> {
        let Self { frame, attributes, presence } = *self;
        match presence {
            Presence::Present => Entry::leaf(level, frame, attributes).ok(),
            Presence::ProtNone => Some(NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level)),
        }
    }
}

impl<P: Platform> Mm<'_, P> {
    /// What an entry of this level holds. Decided on the value alone; only a special leaf's frame number is compared with that of the zero page.
    #[inline]
    pub(crate) fn held(&self, level: Level, entry: Entry) -> Held {
        if entry.is_none() {
            return Held::Nothing;
        }
        if entry.is_present() {
            if level != Level::Pte && self.protocols().mode.leads_to_table(level, entry) {
                return Held::Table;
            }
            if !entry.is_leaf(level) {
                return Held::Unknown;
            }
            // Who saves dirty in another bit has moved it there: what is told of a leaf is what it means.
            let attributes = self.protocols().write.as_read(entry).attributes(level);
            let frame = entry.leaf_frame(level);
            return self.held_leaf(Leaf { frame, attributes, presence: Presence::Present });
        }
        match entry.non_present(level) {
            Ok(Some(NonPresent::ProtNone(leaf))) => {
                let ProtNone { frame, attributes } = leaf;
                self.held_leaf(Leaf { frame, attributes, presence: Presence::ProtNone })
            }
            Ok(Some(NonPresent::Swap(swap))) => Held::Swap(swap),
            Ok(Some(NonPresent::Migration(migration))) => Held::Migration(migration),
            Ok(Some(NonPresent::Marker(marker))) => Held::Marker(marker),
            Ok(None) | Err(_) => Held::Unknown,
        }
    }

    fn held_leaf(&self, leaf: Leaf) -> Held {
        if !leaf.attributes.is_marked(self.protocols().special.mark()) {
            Held::Page(leaf)
        } else if self.frames().zero_page() == Some(leaf.frame) {
            Held::Zero(leaf)
        } else {
            Held::Special(leaf)
        }
    }
}
