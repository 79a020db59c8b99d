//! Which changes of an entry need a flush, held against what code can do by a TLB that still has the old entry.

use machine::Frame;
use pagetable::software::{Softw1, SpecialBit};
use pagetable::{Attributes, Cache, Entry, Flags, Level, NonPresent, ProtNone, Rights};
use proptest::prelude::*;

/// An access, and what it takes of an entry.
const DEEDS: [Rights; 6] = [
    Rights::READ,
    Rights::WRITE,
    Rights::EXECUTE,
    Rights::USER,
    Rights::USER.and(Rights::WRITE),
    Rights::USER.and(Rights::EXECUTE),
];

/// An entry, field by field.
#[derive(Clone, Copy, Debug)]
struct Fields {
    kind: Kind,
    frame: u64,
    rights: u8,
    cache: u8,
    key: u64,
    flags: [bool; 3],
    special: bool,
    soft_dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Nothing,
    ProtNone,
    Leaf,
    Table,
}

impl Fields {
    fn entry(self, level: Level) -> Entry {
        let all = [Rights::WRITE, Rights::EXECUTE, Rights::USER];
        let rights = (0..3).filter(|bit| self.rights >> bit & 1 != 0).fold(Rights::READ, |set, bit| set.and(all[bit]));
        let flags = [Flags::ACCESSED, Flags::DIRTY, Flags::GLOBAL].into_iter().zip(self.flags);
        let attributes = Attributes::new(rights).with_cache(Cache::slot(self.cache).expect("below 8"));
        let mut attributes = flags.filter(|(_, set)| *set).fold(attributes, |set, (flag, _)| set.with(flag));
        if self.special {
            attributes = attributes.with_mark(SpecialBit::mark(&Softw1));
        }
        if self.soft_dirty {
            attributes = attributes.with(Flags::soft_dirty(level));
        }
        let frame = Frame::new(self.frame * level.frames());
        match self.kind {
            Kind::Nothing => Entry::NONE,
            Kind::ProtNone => NonPresent::ProtNone(ProtNone { frame, attributes }).encode(level),
            // Nothing hangs below the lowest level.
            Kind::Table if level != Level::Pte => Entry::table(frame),
            Kind::Leaf | Kind::Table => {
                let entry = Entry::leaf(level, frame, attributes).expect("an aligned frame");
                Entry::from_bits(entry.bits() | self.key << 59)
            }
        }
    }
}

/// Where an access ends up, and how.
#[derive(PartialEq, Eq, Debug)]
struct Reached {
    frame: Frame,
    is_leaf: bool,
    cache: Cache,
    key: u64,
    is_global: bool,
    /// A store: whether memory says dirty afterwards. Others: true.
    is_told: bool,
}

/// What an access does by `entry`, which is in memory, or in a TLB while memory has `now`. `None`: it faults, and the TLB forgets.
fn reached(level: Level, entry: Entry, now: Option<Entry>, deed: Rights) -> Option<Reached> {
    if !entry.is_present() || !entry.rights().allow(deed) {
        return None;
    }
    let is_leaf = entry.is_leaf(level);
    // A walk for a store sets dirty. So does one through a TLB that does not hold it: it walks.
    let is_told = match now {
        Some(now) if deed.allow(Rights::WRITE) && entry.has(Flags::DIRTY) => now.has(Flags::DIRTY),
        _ => true,
    };
    Some(Reached {
        frame: if is_leaf { entry.leaf_frame(level) } else { entry.table_frame() },
        is_leaf,
        cache: if is_leaf { entry.attributes(level).cache() } else { Cache::default() },
        key: entry.bits() >> 59 & 0xf,
        is_global: is_leaf && entry.has(Flags::GLOBAL),
        is_told,
    })
}

/// Whether some access by a TLB with the old entry does what by the new one no access can do.
fn makes_a_difference(level: Level, old: Entry, new: Entry) -> bool {
    DEEDS.into_iter().any(|deed| {
        let by_tlb = reached(level, old, Some(new), deed);
        by_tlb.is_some() && by_tlb != reached(level, new, None, deed)
    })
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let kind =
        prop::sample::select(vec![Kind::Leaf, Kind::Leaf, Kind::Leaf, Kind::Nothing, Kind::ProtNone, Kind::Table]);
    (kind, 0..3_u64, 0..8_u8, 0..8_u8, 0..3_u64, any::<[bool; 3]>(), any::<[bool; 2]>()).prop_map(
        |(kind, frame, rights, cache, key, flags, [special, soft_dirty])| Fields {
            kind,
            frame,
            rights,
            cache,
            key,
            flags,
            special,
            soft_dirty,
        },
    )
}

/// A change of some fields.
#[derive(Clone, Copy, Debug)]
struct Change {
    to: Fields,
    /// Which fields, a bit each.
    fields: u8,
}

impl Change {
    fn of(self, old: Fields) -> Fields {
        let Self { to, fields } = self;
        let changes = |bit: u32| fields >> bit & 1 != 0;
        Fields {
            kind: if changes(0) { to.kind } else { old.kind },
            frame: if changes(1) { to.frame } else { old.frame },
            rights: if changes(2) { to.rights } else { old.rights },
            cache: if changes(3) { to.cache } else { old.cache },
            key: if changes(4) { to.key } else { old.key },
            flags: if changes(5) { to.flags } else { old.flags },
            special: if changes(6) { to.special } else { old.special },
            soft_dirty: if changes(7) { to.soft_dirty } else { old.soft_dirty },
        }
    }
}

/// Most fields stay.
fn any_change() -> impl Strategy<Value = Change> {
    (any_fields(), any::<u8>(), any::<u8>()).prop_map(|(to, one, two)| Change { to, fields: one & two })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// In one case more than need be: an entry that cannot be written loses its dirty bit. Shadow stacks are such entries.
    #[test]
    fn a_flush_is_needed_where_a_tlb_with_the_old_entry_makes_a_difference(
        level in prop::sample::select(vec![Level::Pte, Level::Pmd, Level::Pud]),
        old in any_fields(),
        change in any_change(),
    ) {
        let (old, new) = (old.entry(level), change.of(old).entry(level));
        let loses_dirty_only = old.is_present()
            && !old.has(Flags::WRITE)
            && old.has(Flags::DIRTY)
            && !new.has(Flags::DIRTY);
        prop_assert_eq!(
            old.needs_flush(new),
            makes_a_difference(level, old, new) || loses_dirty_only,
            "{:?} to {:?}", old, new
        );
    }

    #[test]
    fn what_needs_no_flush_needs_none_in_two_steps(first in any_fields(), one in any_change(), two in any_change()) {
        let second = one.of(first);
        let [a, b, c] = [first, second, two.of(second)].map(|fields| fields.entry(Level::Pmd));
        // Except through an entry that is not present: nothing is cached of that, but of what was there before it.
        if a.is_present() && b.is_present() && !a.needs_flush(b) && !b.needs_flush(c) {
            prop_assert!(!a.needs_flush(c), "{a:?}, {b:?}, {c:?}");
        }
    }
}

/// The table of the module, row by row.
#[test]
fn each_row_of_the_table() {
    let leaf = |rights, flags| {
        Entry::leaf(Level::Pte, Frame::new(0x1234), Attributes::new(rights).with(flags)).expect("a frame")
    };
    let rw = Rights::USER.and(Rights::WRITE);
    let all = rw.and(Rights::EXECUTE);
    let plain = leaf(rw, Flags::ACCESSED_DIRTY);
    let prot_none = {
        let attributes = plain.attributes(Level::Pte);
        NonPresent::ProtNone(ProtNone { frame: Frame::new(0x1234), attributes }).encode(Level::Pte)
    };
    let other = Entry::leaf(Level::Pte, Frame::new(0x1235), plain.attributes(Level::Pte)).expect("a frame");
    for (old, new, needed) in [
        (Entry::NONE, plain, false),
        (prot_none, plain, false),
        (prot_none, Entry::NONE, false),
        (plain, Entry::NONE, true),
        (plain, prot_none, true),
        (plain, other, true),
        (plain, plain.without(Flags::WRITE), true),
        (plain, leaf(Rights::WRITE, Flags::ACCESSED_DIRTY), true),
        (leaf(all, Flags::NONE), leaf(rw, Flags::NONE), true),
        (plain.without(Flags::WRITE), plain, false),
        (leaf(Rights::READ, Flags::NONE), leaf(Rights::USER, Flags::NONE), false),
        (leaf(rw, Flags::NONE), leaf(all, Flags::NONE), false),
        (plain, plain.without(Flags::DIRTY), true),
        (plain.without(Flags::DIRTY), plain, false),
        (plain, plain.without(Flags::ACCESSED), false),
        (plain.without(Flags::ACCESSED), plain, false),
        // Not accessed proves nothing.
        (plain.without(Flags::ACCESSED), plain.without(Flags::ACCESSED_DIRTY), true),
        (plain.without(Flags::ACCESSED), Entry::NONE, true),
        (plain, plain.with(Flags::GLOBAL), true),
        (plain, Entry::from_bits(plain.bits() | 1 << 59), true),
        (plain, Entry::from_bits(plain.bits() | 1 << 4), true),
        (plain, plain.with(Flags::soft_dirty(Level::Pte)), false),
        (plain.with(Flags::soft_dirty(Level::Pte)), plain, false),
        (plain, plain, false),
    ] {
        assert_eq!(old.needs_flush(new), needed, "{old:?} to {new:?}");
    }
    let huge = Entry::leaf(Level::Pmd, Frame::new(0x200), plain.attributes(Level::Pte)).expect("an aligned frame");
    assert!(huge.needs_flush(Entry::table(Frame::new(0x200))), "a table in the place of a leaf");
}
