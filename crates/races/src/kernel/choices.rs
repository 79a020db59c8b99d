//! Protocol choices by name: what a `variant` line says.
//!
//! Each choice is an enum that implements the engine's trait by passing on to the engine's own types, or to those of [`super::historic`]. So one build of the
//! engine serves every variant, and what is explored is the engine's code.

use std::marker::PhantomData;

use machine::{Cpu, CpuSet, Invalidation, SeqCount, Word64};
use mm::lifetime::{ByInterrupt, ByRcu, TableLifetime};
use mm::order::{FlushMoment, FlushOrder, SpecialCheck};
use mm::shootdown::{ByBroadcast, ByHypervisor, ByIpi, RemoteFlush, Shootdown};
use pagetable::recheck::SequenceRecheck;
use pagetable::software::{Softw1, Softw5, SpecialBit};
use pagetable::table::{Slot, Table};
use pagetable::width::Width;
use pagetable::{
    Entry, EntryRead, EntryWrite, Flags, Level, LowHighLow, Mark, Publish, ReadOnce, Recheck, Rechecked, SavesDirty,
    SequenceRead, Sequenced, TwoStep, Whole, Xchg64, ZeroThenLink,
};

use super::guards::Without;
use super::historic::{
    AtOnce, EstablishHalves, HighLow, LinkThenZero, LowThenHigh, NotAtAll, Reread, SavesApart, TornHighLow, TornLowHigh,
};

/// A choice that has a name for each of its values.
pub(super) trait Named: Copy + 'static {
    /// The key in a `variant` line.
    const KEY: &'static str;
    /// Every value, by name.
    const VALUES: &'static [(&'static str, Self)];
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident $key:literal { $($(#[$value_doc:meta])* $word:literal $value:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum $name { $($(#[$value_doc])* $value,)* }

        impl Named for $name {
            const KEY: &'static str = $key;
            const VALUES: &'static [(&'static str, Self)] = &[$(($word, Self::$value)),*];
        }
    };
}

choice! {
    /// How lockless walkers read an entry.
    #[allow(clippy::enum_variant_names, reason = "the protocol is called ReadOnce")]
    Read "read" {
        /// A plain read: one access on a 64-bit machine, two on PAE.
        "read-once" ReadOnce,
        /// Low, high, low again.
        "low-high-low" LowHighLow,
        /// All 64 bits by one locked instruction.
        "cmpxchg8b" Cmpxchg8b,
        /// Between two reads of the table's sequence count, which writers bump.
        "sequence" Sequence,
        /// A plain read whose halves the compiler ordered the other way round.
        "high-low" HighLow,
        /// The high half only if the low one is not null.
        "low-then-high" LowThenHigh,
        /// Low and high, and both once more.
        "reread-1" RereadOnce,
        /// Low and high, and both twice more.
        "reread-2" RereadTwice,
        /// Low and high, and both three times more.
        "reread-3" RereadThrice,
    }
}

choice! {
    /// How fast GUP makes sure after the pin.
    Check "recheck" {
        /// All 64 bits at one moment.
        "atomic" Atomic,
        /// Between two reads of the sequence count.
        "sequence" Sequence,
        /// Low, then high.
        "torn-low-high" TornLowHigh,
        /// High, then low.
        "torn-high-low" TornHighLow,
        /// Not at all.
        "none" NotAtAll,
    }
}

choice! {
    /// How entries are written.
    Write "write" {
        /// One store (64-bit machines).
        "whole" Whole,
        /// High half, then low half, where nothing is present; locked instructions otherwise (PAE).
        "two-step" TwoStep,
        /// The same, and what is replaced by an entry that is not present is exchanged by halves (PAE).
        "establish-halves" EstablishHalves,
        /// Always all 64 bits by one locked instruction (PAE).
        "xchg64" Xchg64,
        /// One store, and what is not writable is dirty in a software bit (64-bit machines with shadow stacks).
        "saved-dirty" SavedDirty,
        /// The same, but the right to write goes by an instruction of its own if the entry was not dirty a moment ago.
        "saved-if-seen" SavedIfSeen,
        /// The same, but the right to write goes by an instruction of its own, and dirty moves after it.
        "saved-later" SavedLater,
        /// The same as `saved-dirty`, but who looks at an entry asks for the hardware's bit only.
        "saved-unasked" SavedUnasked,
    }
}

impl Write {
    /// Whether the machine writes an entry by one plain store.
    pub(super) const fn is_of_long_mode(self) -> bool {
        matches!(self, Self::Whole) || self.saves_dirty()
    }

    /// Whether dirty is kept in a software bit.
    pub(super) const fn saves_dirty(self) -> bool {
        matches!(self, Self::SavedDirty | Self::SavedIfSeen | Self::SavedLater | Self::SavedUnasked)
    }
}

choice! {
    /// When TLBs are flushed.
    FlushTime "flush" {
        /// After the page-table lock is dropped.
        "after-unlock" AfterUnlock,
        /// While it is held.
        "before-unlock" BeforeUnlock,
    }
}

choice! {
    /// How other CPUs' TLBs are flushed.
    Remote "remote" {
        /// By IPI.
        "ipi" Ipi,
        /// By the hypervisor.
        "paravirtual" Paravirtual,
        /// By a broadcast of the hardware.
        "broadcast" Broadcast,
    }
}

choice! {
    /// When a detached table is freed.
    Lifetime "lifetime" {
        /// After an RCU grace period.
        "rcu" Rcu,
        /// After every CPU has taken an IPI.
        "interrupt" Interrupt,
        /// At once.
        "at-once" AtOnce,
    }
}

choice! {
    /// What becomes of tables that are freed.
    FreedTables "freed-tables" {
        /// Their frames are free.
        "given-back" GivenBack,
        /// One is put aside for whoever needs a table next: what Linux does with the table that a collapse leaves over (`pgtable_trans_huge_deposit`).
        "put-aside" PutAside,
    }
}

choice! {
    /// How a new table becomes reachable.
    Link "publish" {
        /// Emptied first, linked second.
        "zero-then-link" ZeroThenLink,
        /// Linked first, emptied second.
        "link-then-zero" LinkThenZero,
    }
}

choice! {
    /// Which bit marks special entries.
    SpecialMark "special" {
        /// Bit 9, in the low dword.
        "softw1" Low,
        /// Bit 58, in the high dword.
        "softw5" High,
    }
}

choice! {
    /// At which levels fast GUP looks for it.
    SpecialLevels "special-check" {
        /// At all.
        "all" All,
        /// At pte only: Linux before 6.12.
        "pte-only" PteOnly,
        /// At none.
        "none" None,
    }
}

/// Everything that a variant can choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choices {
    pub(super) read: Read,
    pub(super) recheck: Check,
    pub(super) write: Write,
    pub(super) flush: FlushTime,
    pub(super) remote: Remote,
    pub(super) lifetime: Lifetime,
    pub(super) freed_tables: FreedTables,
    pub(super) publish: Link,
    pub(super) special: SpecialMark,
    pub(super) special_check: SpecialLevels,
    /// The steps that are left out.
    pub(super) without: Without,
    /// How often each CPU repeats the operations that are marked `rounds`.
    pub(super) rounds: u32,
}

impl Choices {
    /// What is sound and usual on a 64-bit machine.
    pub(super) const LONG_MODE: Self = Self {
        read: Read::ReadOnce,
        recheck: Check::Atomic,
        write: Write::Whole,
        flush: FlushTime::AfterUnlock,
        remote: Remote::Ipi,
        lifetime: Lifetime::Rcu,
        freed_tables: FreedTables::GivenBack,
        publish: Link::ZeroThenLink,
        special: SpecialMark::Low,
        special_check: SpecialLevels::All,
        without: Without::NOTHING,
        rounds: 1,
    };

    /// What is sound on PAE.
    pub(super) const PAE: Self = Self { read: Read::Cmpxchg8b, write: Write::TwoStep, ..Self::LONG_MODE };
}

/// [`Read`] on a machine whose plain accesses are this wide.
#[derive(Clone, Copy)]
pub(super) struct ReadBy<W>(pub(super) Read, pub(super) PhantomData<W>);

impl<W: Width> EntryRead for ReadBy<W> {
    fn read<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        match self.0 {
            Read::ReadOnce => ReadOnce::<W>::new().read(cpu, cell, sequence),
            Read::LowHighLow => LowHighLow.read(cpu, cell, sequence),
            Read::Cmpxchg8b => pagetable::Cmpxchg8b.read(cpu, cell, sequence),
            Read::Sequence => SequenceRead.read(cpu, cell, sequence),
            Read::HighLow => HighLow.read(cpu, cell, sequence),
            Read::LowThenHigh => LowThenHigh.read(cpu, cell, sequence),
            Read::RereadOnce => Reread { times: 1 }.read(cpu, cell, sequence),
            Read::RereadTwice => Reread { times: 2 }.read(cpu, cell, sequence),
            Read::RereadThrice => Reread { times: 3 }.read(cpu, cell, sequence),
        }
    }
}

impl Recheck for Check {
    fn recheck<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, seen: Entry) -> Rechecked {
        match self {
            Self::Atomic => pagetable::recheck::Atomic.recheck(cpu, cell, sequence, seen),
            Self::Sequence => SequenceRecheck.recheck(cpu, cell, sequence, seen),
            Self::TornLowHigh => TornLowHigh.recheck(cpu, cell, sequence, seen),
            Self::TornHighLow => TornHighLow.recheck(cpu, cell, sequence, seen),
            Self::NotAtAll => NotAtAll.recheck(cpu, cell, sequence, seen),
        }
    }
}

/// [`Write`], bracketed by the sequence count where readers use it.
#[derive(Clone, Copy)]
pub(super) struct WriteBy {
    pub(super) write: Write,
    pub(super) bracket: Bracket,
}

/// Whether writers bump the sequence count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Plain,
    Sequenced,
}

/// Calls the same method of the type that is chosen.
macro_rules! by_choice {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match ($self.bracket, $self.write) {
            (Bracket::Plain, Write::Whole) => Whole.$method($($argument),*),
            (Bracket::Plain, Write::TwoStep) => TwoStep.$method($($argument),*),
            (Bracket::Plain, Write::EstablishHalves) => EstablishHalves.$method($($argument),*),
            (Bracket::Plain, Write::Xchg64) => Xchg64.$method($($argument),*),
            (Bracket::Plain, Write::SavedDirty) => SavesDirty.$method($($argument),*),
            (Bracket::Plain, Write::SavedIfSeen) => SavesApart::IfSeen.$method($($argument),*),
            (Bracket::Plain, Write::SavedLater) => SavesApart::Later.$method($($argument),*),
            (Bracket::Plain, Write::SavedUnasked) => SavesApart::Unasked.$method($($argument),*),
            (Bracket::Sequenced, Write::Whole) => Sequenced(Whole).$method($($argument),*),
            (Bracket::Sequenced, Write::TwoStep) => Sequenced(TwoStep).$method($($argument),*),
            (Bracket::Sequenced, Write::EstablishHalves) => Sequenced(EstablishHalves).$method($($argument),*),
            (Bracket::Sequenced, Write::Xchg64) => Sequenced(Xchg64).$method($($argument),*),
            (Bracket::Sequenced, Write::SavedDirty) => Sequenced(SavesDirty).$method($($argument),*),
            (Bracket::Sequenced, Write::SavedIfSeen) => Sequenced(SavesApart::IfSeen).$method($($argument),*),
            (Bracket::Sequenced, Write::SavedLater) => Sequenced(SavesApart::Later).$method($($argument),*),
            (Bracket::Sequenced, Write::SavedUnasked) => Sequenced(SavesApart::Unasked).$method($($argument),*),
        }
    };
}

impl EntryWrite for WriteBy {
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        by_choice!(self.set(cpu, cell, sequence, new));
    }

    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        by_choice!(self.get_and_clear(cpu, cell, sequence))
    }

    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        by_choice!(self.replace(cpu, cell, sequence, new))
    }

    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        by_choice!(self.update(cpu, cell, sequence, change))
    }

    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        by_choice!(self.clear_flags(cpu, cell, sequence, flags))
    }

    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        by_choice!(self.set_flags(cpu, cell, sequence, flags))
    }

    fn as_read(&self, entry: Entry) -> Entry {
        by_choice!(self.as_read(entry))
    }

    fn as_stored(&self, entry: Entry) -> Entry {
        by_choice!(self.as_stored(entry))
    }
}

impl FlushOrder for FlushTime {
    fn moment(&self) -> FlushMoment {
        match self {
            Self::AfterUnlock => FlushMoment::AfterUnlock,
            Self::BeforeUnlock => FlushMoment::BeforeUnlock,
        }
    }
}

impl RemoteFlush for Remote {
    fn flush<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, targets: CpuSet, what: Invalidation) {
        match self {
            Self::Ipi => ByIpi.flush(cpu, shootdown, targets, what),
            Self::Paravirtual => ByHypervisor.flush(cpu, shootdown, targets, what),
            Self::Broadcast => ByBroadcast.flush(cpu, shootdown, targets, what),
        }
    }
}

impl TableLifetime for Lifetime {
    fn wait<C: Cpu>(&self, cpu: &C, shootdown: &Shootdown, others: CpuSet) {
        match self {
            Self::Rcu => ByRcu.wait(cpu, shootdown, others),
            Self::Interrupt => ByInterrupt.wait(cpu, shootdown, others),
            Self::AtOnce => AtOnce.wait(cpu, shootdown, others),
        }
    }
}

impl Publish for Link {
    fn publish<C: Cpu, W: EntryWrite>(&self, cpu: &C, writer: &W, parent: Slot<'_>, table: Table<'_>, link: Entry) {
        match self {
            Self::ZeroThenLink => ZeroThenLink.publish(cpu, writer, parent, table, link),
            Self::LinkThenZero => LinkThenZero.publish(cpu, writer, parent, table, link),
        }
    }
}

/// [`SpecialMark`] and [`SpecialLevels`].
#[derive(Clone, Copy)]
pub(super) struct SpecialBy {
    pub(super) mark: SpecialMark,
    pub(super) levels: SpecialLevels,
}

impl SpecialCheck for SpecialBy {
    fn mark(&self) -> Mark {
        match self.mark {
            SpecialMark::Low => SpecialBit::mark(&Softw1),
            SpecialMark::High => SpecialBit::mark(&Softw5),
        }
    }

    fn refuses(&self, level: Level, entry: Entry) -> bool {
        let looks = match self.levels {
            SpecialLevels::All => true,
            SpecialLevels::PteOnly => level == Level::Pte,
            SpecialLevels::None => false,
        };
        // The engine's own check, at the levels where this protocol makes it.
        looks
            && match self.mark {
                SpecialMark::Low => Softw1.refuses(level, entry),
                SpecialMark::High => Softw5.refuses(level, entry),
            }
    }
}
