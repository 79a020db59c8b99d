//! The protocols by which entries are read and compared, with another CPU's writes placed between the accesses
//! by a script.
//!
//! Small and complete where the lab is general: every place in a read is tried.

use std::cell::RefCell;

use crate::common::interrupted::Interrupted;
use crate::common::{Bare, Memory};
use machine::{Cpu, Frame, SeqCount, VirtAddr, Word, Word64};
use pagetable::recheck::{Atomic, SequenceRecheck};
use pagetable::{
    Attributes, Cmpxchg8b, Entry, EntryRead, EntryWrite, Flags, FourLevel, Level, LowHighLow, Mode, NonPresent, Pae,
    PhysicalWidth, ProtNone, ReadOnce, Recheck, Rechecked, Rights, SequenceRead, Sequenced, Split, TableMemory,
    TableSource, TwoStep, Whole, Wide, Xchg64, walk,
};

const A: Entry = Entry::from_bits(0x1_0000_5067);
/// Another page, with the same low half: 4 GiB further on.
const B: Entry = Entry::from_bits(0x2_0000_5067);
/// Another page with another low half.
const C: Entry = Entry::from_bits(0x3_0000_6067);

/// Does each of `changes` before some access of a read of an entry that holds `A`, in every way to place them
/// in order, and returns what the reads returned that the entry never held.
fn mixtures(reader: &impl EntryRead, writer: &impl EntryWrite, changes: &[Entry]) -> Vec<u64> {
    let mut found = Vec::new();
    let limit = 8_usize;
    for code in 0..limit.pow(changes.len() as u32) {
        let places: Vec<usize> = (0..changes.len()).map(|at| code / limit.pow(at as u32) % limit).collect();
        if !places.is_sorted() {
            continue;
        }
        let (cell, sequence) = (Word64::new(A.bits()), SeqCount::new());
        let cpu = Interrupted::by(|access| {
            for (place, &change) in places.iter().zip(changes) {
                if *place == access {
                    if change.is_none() {
                        writer.get_and_clear(&Bare, &cell, &sequence);
                    } else {
                        writer.set(&Bare, &cell, &sequence, change);
                    }
                }
            }
        });
        let read = reader.read(&cpu, &cell, &sequence);
        drop(cpu);
        if read != A && !changes.contains(&read) {
            found.push(read.bits());
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

const ZAP: Entry = Entry::NONE;

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn one_transition_tears_a_plain_read_only() {
    assert_eq!(mixtures(&ReadOnce::<Split>::new(), &TwoStep, &[ZAP]), [A.low().into()]);
    assert_eq!(mixtures(&LowHighLow, &TwoStep, &[ZAP]), [0; 0]);
    assert_eq!(mixtures(&LowHighLow, &TwoStep, &[ZAP, C]), [0; 0]);
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn low_high_low_mixes_when_the_low_half_comes_back() {
    // Zapped and faulted back in: the seed. The high half was read while there was none.
    assert_eq!(mixtures(&LowHighLow, &TwoStep, &[ZAP, A]), [A.low().into()]);
    // Horn's four threads: A's low half with C's high half. Both were stored, but never together.
    let horn = [ZAP, C, ZAP, B];
    assert!(mixtures(&LowHighLow, &TwoStep, &horn).contains(&Entry::from_halves(A.low(), C.high()).bits()));
    // Atomic writers do not help.
    assert!(mixtures(&LowHighLow, &Xchg64, &horn).contains(&Entry::from_halves(A.low(), C.high()).bits()));
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn the_sound_readers_never_mix() {
    for changes in [&[ZAP, A][..], &[ZAP, B], &[ZAP, C, ZAP, B], &[ZAP, C, ZAP, A]] {
        assert_eq!(mixtures(&Cmpxchg8b, &TwoStep, changes), [0; 0]);
        assert_eq!(mixtures(&ReadOnce::<Wide>::new(), &Xchg64, changes), [0; 0]);
        assert_eq!(mixtures(&SequenceRead, &Sequenced(TwoStep), changes), [0; 0]);
    }
    // The count must be bumped: without, the reader is a plain one.
    assert_ne!(mixtures(&SequenceRead, &TwoStep, &[ZAP, A]), [0; 0]);
}

#[test]
fn a_recheck_compares_all_of_the_entry() {
    let (cell, sequence) = (Word64::new(A.bits()), SeqCount::new());
    assert_eq!(Atomic.recheck(&Bare, &cell, &sequence, A), Rechecked::Unchanged);
    assert_eq!(Atomic.recheck(&Bare, &cell, &sequence, B), Rechecked::Changed);
    assert_eq!(Atomic.recheck(&Bare, &cell, &sequence, C), Rechecked::Changed);
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn a_recheck_by_sequence_compares_all_of_the_entry() {
    let (cell, sequence) = (Word64::new(A.bits()), SeqCount::new());
    assert_eq!(SequenceRecheck.recheck(&Bare, &cell, &sequence, A), Rechecked::Unchanged);
    assert_eq!(SequenceRecheck.recheck(&Bare, &cell, &sequence, B), Rechecked::Changed);
}

/// What a hardware walker (which reads all 64 bits at once) sees at every moment of a change.
#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn a_hardware_walker_never_sees_a_mixture_that_is_present() {
    let moments = |before: Entry, change: &dyn Fn(&Interrupted<'_>, &Word64, &SeqCount) -> Entry| {
        let (cell, sequence) = (Word64::new(before.bits()), SeqCount::new());
        let seen = RefCell::new(Vec::new());
        let cpu = Interrupted::by(|_| seen.borrow_mut().push(cell.atomic_load(std::sync::atomic::Ordering::Relaxed)));
        change(&cpu, &cell, &sequence);
        drop(cpu);
        let mut seen = seen.into_inner();
        seen.push(Bare.load(&cell));
        seen.into_iter().map(Entry::from_bits).filter(|entry| entry.is_present()).collect::<Vec<_>>()
    };
    let set_to_a = |cpu: &Interrupted<'_>, cell: &Word64, sequence: &SeqCount| {
        TwoStep.set(cpu, cell, sequence, A);
        A
    };
    let only = |present: Vec<Entry>, allowed: &[Entry]| {
        assert!(present.iter().all(|entry| allowed.contains(entry)), "{present:?}");
    };
    only(moments(Entry::NONE, &set_to_a), &[A]);
    only(moments(A, &|cpu, cell, sequence| TwoStep.get_and_clear(cpu, cell, sequence)), &[A]);
    only(moments(A, &|cpu, cell, sequence| TwoStep.replace(cpu, cell, sequence, C)), &[A, C]);
    only(moments(A, &|cpu, cell, sequence| TwoStep.update(cpu, cell, sequence, |_| C)), &[A, C]);
    // An encoding that is not present, and has another high half, gives way to a leaf.
    let swapped = Entry::from_bits(0xffff_ffff_0000_0000);
    only(moments(swapped, &set_to_a), &[A]);
}

/// Whom a writer tells of changes.
#[derive(Default)]
struct Account(RefCell<Vec<(Level, Entry, Entry)>>);

/// Writes like [`TwoStep`], and keeps account.
impl EntryWrite for &Account {
    fn set<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) {
        TwoStep.set(cpu, cell, sequence, new);
    }
    fn get_and_clear<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount) -> Entry {
        TwoStep.get_and_clear(cpu, cell, sequence)
    }
    fn replace<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, new: Entry) -> Entry {
        TwoStep.replace(cpu, cell, sequence, new)
    }
    fn update<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, change: impl Fn(Entry) -> Entry) -> Entry {
        TwoStep.update(cpu, cell, sequence, change)
    }
    fn clear_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.clear_flags(cpu, cell, sequence, flags)
    }
    fn set_flags<C: Cpu>(&self, cpu: &C, cell: &Word64, sequence: &SeqCount, flags: Flags) -> Entry {
        TwoStep.set_flags(cpu, cell, sequence, flags)
    }
    fn changed<C: Cpu>(&self, _: &C, level: Level, old: Entry, new: Entry) {
        self.0.borrow_mut().push((level, old, new));
    }
}

/// Every operation of a writer, one after the other, and by how much each has moved the sequence count: what an entry holds and what is returned is the same for all writers.
fn steps_of_the_count(writer: &impl EntryWrite) -> [u32; 6] {
    let (cell, sequence) = (Word64::new(0), SeqCount::new());
    let mut before = 0;
    let mut holds = |entry: Entry| {
        assert_eq!(Entry::from_bits(Bare.load(&cell)), entry);
        let count = Bare.load(sequence.word());
        count - std::mem::replace(&mut before, count)
    };
    writer.set(&Bare, &cell, &sequence, A);
    let set = holds(A);
    assert_eq!(writer.replace(&Bare, &cell, &sequence, C), A);
    let replace = holds(C);
    assert_eq!(writer.set_flags(&Bare, &cell, &sequence, Flags::DIRTY), C);
    let set_flags = holds(C.with(Flags::DIRTY));
    assert_eq!(writer.clear_flags(&Bare, &cell, &sequence, Flags::ACCESSED_DIRTY), C.with(Flags::DIRTY));
    let clear_flags = holds(C.without(Flags::ACCESSED_DIRTY));
    let update = |entry: Entry| Entry::from_halves(entry.low() | 0x10, B.high());
    assert_eq!(writer.update(&Bare, &cell, &sequence, update), C.without(Flags::ACCESSED_DIRTY));
    let updated = update(C.without(Flags::ACCESSED_DIRTY));
    let update = holds(updated);
    assert_eq!(writer.get_and_clear(&Bare, &cell, &sequence), updated);
    [set, replace, update, holds(Entry::NONE), set_flags, clear_flags]
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn every_writer_does_the_same_to_an_entry_at_rest() {
    assert_eq!(steps_of_the_count(&Whole), [0; 6]);
    assert_eq!(steps_of_the_count(&TwoStep), [0; 6]);
    assert_eq!(steps_of_the_count(&Xchg64), [0; 6]);
    // Flags change by one instruction, so that no reader need notice. To whatever else is done a reader begins again.
    assert_eq!(steps_of_the_count(&Sequenced(Whole)), [2, 2, 2, 2, 0, 0]);
    assert_eq!(steps_of_the_count(&Sequenced(TwoStep)), [2, 2, 2, 2, 0, 0]);
    assert_eq!(steps_of_the_count(&Sequenced(Xchg64)), [2, 2, 2, 2, 0, 0]);
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn who_keeps_account_of_entries_is_told_in_a_bracket_too() {
    let account = Account::default();
    Sequenced(&account).changed(&Bare, Level::Pmd, A, C);
    assert_eq!(*account.0.borrow(), [(Level::Pmd, A, C)]);
}

#[test]
fn the_parts_of_a_leaf_map_what_it_mapped_and_are_told() {
    let memory = Memory::new(2);
    let arena = memory.arena();
    let table = arena.table(memory.allocate_table(&Bare).unwrap()).unwrap();
    let frame = Frame::new(0x1_2345_6600);
    let attributes = Attributes::new(Rights::USER.and(Rights::WRITE)).with(Flags::ACCESSED_DIRTY);
    let none = |level, frame| NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level);
    let leaf = |level, frame| Entry::leaf(level, frame, attributes).unwrap();
    let kinds: [&dyn Fn(Level, Frame) -> Entry; 2] = [&leaf, &none];
    for entry in kinds {
        let account = Account::default();
        table.fill_from_leaf::<FourLevel, _, _>(&Bare, &&account, Level::Pmd, Level::Pte, entry(Level::Pmd, frame));
        let parts: Vec<Entry> = (0..512).map(|index| entry(Level::Pte, frame.wrapping_add(index))).collect();
        let cells = table.cells().iter().map(|cell| Entry::from_bits(Bare.load(cell)));
        assert_eq!(cells.collect::<Vec<_>>(), parts);
        assert_eq!(Bare.load(&table.meta().children), 512);
        let told: Vec<_> = parts.into_iter().map(|part| (Level::Pte, Entry::NONE, part)).collect();
        assert_eq!(*account.0.borrow(), told);
    }
}

/// How many accesses that others may come between it takes to read an entry of a level.
fn accesses(mode: &impl Mode, level: Level, reader: &impl EntryRead) -> usize {
    let memory = Memory::new(1);
    let arena = memory.arena();
    let root = arena.table(memory.root_address().frame()).unwrap();
    let cpu = Interrupted::by(|_| ());
    walk::read(&cpu, mode, level, root.slot(level, VirtAddr::new(0)), reader);
    cpu.accesses().0
}

#[cfg_attr(miri, ignore = "accesses of two sizes to one atomic")]
#[test]
fn every_entry_is_read_by_the_protocol_but_the_pdptes_of_pae_which_nobody_changes() {
    let (four, pae) = (FourLevel::new(PhysicalWidth::MAX), Pae::new(PhysicalWidth::MAX));
    for level in [Level::Pte, Level::Pmd, Level::Pud, four.root_level()] {
        assert_eq!(accesses(&four, level, &ReadOnce::<Wide>::new()), 1, "{level}");
    }
    for level in [Level::Pte, Level::Pmd] {
        assert_eq!(accesses(&pae, level, &LowHighLow), 3, "{level}");
        assert_eq!(accesses(&pae, level, &Cmpxchg8b), 1, "{level}");
    }
    assert_eq!(accesses(&pae, pae.root_level(), &LowHighLow), 0);
}
