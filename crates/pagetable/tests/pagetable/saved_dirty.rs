//! No entry becomes a shadow-stack page, and none forgets that it is dirty.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::Bare;
use machine::{Frame, SeqCount, Word, Word64};
use pagetable::{
    Attributes, Entry, EntryWrite, Flags, Level, NonPresent, ProtNone, Rights, SavesDirty, Sequenced, Whole,
};

const SAVED: u64 = 1 << 58;
const ROUNDS: u64 = if cfg!(miri) { 50 } else { 50_000 };

fn leaf(rights: Rights, flags: Flags) -> Entry {
    let attributes = Attributes::new(rights.and(Rights::USER)).with(flags);
    Entry::leaf(Level::Pte, Frame::new(0x123), attributes).unwrap()
}

fn in_memory(cell: &Word64) -> Entry {
    Entry::from_bits(cell.atomic_load(Ordering::Relaxed))
}

#[test]
fn what_a_shadow_stack_page_is() {
    assert!(leaf(Rights::READ, Flags::DIRTY).is_shadow_stack());
    for other in [
        leaf(Rights::READ, Flags::NONE),
        leaf(Rights::READ, Flags::ACCESSED),
        leaf(Rights::WRITE, Flags::DIRTY),
        Entry::from_bits(leaf(Rights::READ, Flags::DIRTY).bits() & !1),
        Entry::from_bits(leaf(Rights::READ, Flags::DIRTY).bits() & !4),
        Entry::NONE,
    ] {
        assert!(!other.is_shadow_stack(), "{other}");
    }
}

/// Every operation on every entry: what it returns and leaves means the same as with [`Whole`], and memory has no shadow-stack page.
#[test]
fn entries_mean_the_same_as_elsewhere() {
    let flags = [Flags::NONE, Flags::WRITE, Flags::DIRTY, Flags::ACCESSED, Flags::WRITE.and(Flags::DIRTY)];
    let prot_none = |entry: Entry| {
        let (frame, attributes) = (entry.leaf_frame(Level::Pte), entry.attributes(Level::Pte));
        NonPresent::ProtNone(ProtNone { frame, attributes }).encode(Level::Pte)
    };
    let leaves = [Rights::READ, Rights::WRITE]
        .into_iter()
        .flat_map(|rights| [Flags::NONE, Flags::DIRTY, Flags::ACCESSED_DIRTY].map(|flags| leaf(rights, flags)));
    let entries: Vec<Entry> = leaves.flat_map(|leaf| [leaf, prot_none(leaf)]).chain([Entry::NONE]).collect();
    let sequence = SeqCount::new();
    for &entry in &entries {
        for flags in flags {
            for operation in 0..6 {
                let run = |writer: &dyn Fn(&Word64) -> Entry, set: &dyn Fn(&Word64)| {
                    let cell = Word64::new(0);
                    set(&cell);
                    let old = writer(&cell);
                    (old, in_memory(&cell))
                };
                let with = |entry: Entry| entry.with(flags);
                let new = entry.with(flags);
                let expected = run(
                    &|cell| match operation {
                        0 => Whole.get_and_clear(&Bare, cell, &sequence),
                        1 => Whole.replace(&Bare, cell, &sequence, new),
                        2 => Whole.update(&Bare, cell, &sequence, with),
                        3 => Whole.clear_flags(&Bare, cell, &sequence, flags),
                        4 => Whole.set_flags(&Bare, cell, &sequence, flags),
                        _ => in_memory(cell),
                    },
                    &|cell| Whole.set(&Bare, cell, &sequence, entry),
                );
                let (old, left) = run(
                    &|cell| match operation {
                        0 => SavesDirty.get_and_clear(&Bare, cell, &sequence),
                        1 => SavesDirty.replace(&Bare, cell, &sequence, new),
                        2 => SavesDirty.update(&Bare, cell, &sequence, with),
                        3 => SavesDirty.clear_flags(&Bare, cell, &sequence, flags),
                        4 => SavesDirty.set_flags(&Bare, cell, &sequence, flags),
                        _ => SavesDirty.as_read(in_memory(cell)),
                    },
                    &|cell| SavesDirty.set(&Bare, cell, &sequence, entry),
                );
                assert!(!left.is_shadow_stack(), "{operation}: {entry} became {left}");
                assert_eq!((old, SavesDirty.as_read(left)), expected, "{operation} of {entry} with {flags:?}");
                assert_eq!(SavesDirty.as_stored(left), left);
                assert_eq!(SavesDirty.as_read(SavesDirty.as_read(left)), SavesDirty.as_read(left));
            }
        }
    }
    let saved = Entry::from_bits(leaf(Rights::READ, Flags::NONE).bits() | SAVED);
    assert_eq!(Sequenced(SavesDirty).as_stored(leaf(Rights::READ, Flags::DIRTY)), saved);
    assert_eq!(Sequenced(SavesDirty).as_read(saved), leaf(Rights::READ, Flags::DIRTY));
}

/// The hardware sets dirty whenever the entry is writable, and somebody looks all the time.
#[test]
fn at_no_moment_is_there_a_shadow_stack_page() {
    let cell = Word64::new(leaf(Rights::WRITE, Flags::NONE).bits());
    let (sequence, stop) = (SeqCount::new(), AtomicBool::new(false));
    let (told, set) = thread::scope(|scope| {
        let hardware = scope.spawn(|| {
            let mut set = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let seen = in_memory(&cell);
                assert!(!seen.is_shadow_stack(), "{seen}");
                if seen.has(Flags::WRITE) && !seen.has(Flags::DIRTY) {
                    let dirty = seen.with(Flags::ACCESSED_DIRTY);
                    set += u64::from(cell.atomic_compare_exchange(seen.bits(), dirty.bits()).is_ok());
                }
            }
            set
        });
        let mut told = 0;
        for round in 0..ROUNDS {
            SavesDirty.clear_flags(&Bare, &cell, &sequence, Flags::WRITE);
            if round % 3 == 0 {
                told += u64::from(SavesDirty.clear_flags(&Bare, &cell, &sequence, Flags::DIRTY).has(Flags::DIRTY));
            }
            SavesDirty.set_flags(&Bare, &cell, &sequence, Flags::WRITE);
            if round % 64 == 0 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        (told, hardware.join().unwrap())
    });
    assert_eq!(told + u64::from(SavesDirty.as_read(in_memory(&cell)).has(Flags::DIRTY)), set);
}
