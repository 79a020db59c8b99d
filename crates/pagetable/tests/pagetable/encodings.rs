//! Non-present entries: both ways, and harmless to a speculating CPU.

use machine::{Frame, ProtectionKey};
use pagetable::{
    Attributes, Cache, Entry, Flags, FourLevel, Level, Marker, Migration, MigrationAccess, Mode, NonPresent, Pae,
    PhysicalWidth, ProtNone, Rights, Swap, SwapDevice, SwapFlags, SwapOffset,
};
use proptest::prelude::*;

fn any_flags() -> impl Strategy<Value = SwapFlags> {
    let all = [SwapFlags::SOFT_DIRTY, SwapFlags::UFFD_WP, SwapFlags::YOUNG, SwapFlags::DIRTY, SwapFlags::PROT_NONE];
    (0..32_u32).prop_map(move |bits| {
        let set = all.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
        set.fold(SwapFlags::default(), |flags, (_, flag)| flags.and(flag))
    })
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let rights = (0..8_u32).prop_map(|bits| {
        let all = [Rights::WRITE, Rights::EXECUTE, Rights::USER].into_iter().enumerate();
        all.filter(|(bit, _)| bits >> bit & 1 != 0).fold(Rights::READ, |rights, (_, right)| rights.and(right))
    });
    let flags = prop::sample::select(vec![Flags::ACCESSED, Flags::DIRTY, Flags::ACCESSED_DIRTY]);
    (rights, 0..8_u8, flags, any_key()).prop_map(|(rights, slot, flags, key)| {
        Attributes::new(rights).with_cache(Cache::slot(slot).unwrap()).with(flags).with_protection_key(key)
    })
}

fn any_key() -> impl Strategy<Value = ProtectionKey> {
    (0..ProtectionKey::COUNT).prop_map(|number| ProtectionKey::new(number).unwrap())
}

fn any_level() -> impl Strategy<Value = Level> {
    prop::sample::select(vec![Level::Pte, Level::Pmd, Level::Pud])
}

/// The greatest number of a 4 KiB frame at 52 physical bits.
const LAST_FRAME: u64 = (1 << 40) - 1;

fn any_non_present(level: Level) -> impl Strategy<Value = NonPresent> {
    let offset = prop_oneof![0..16_u64, Just((1 << 50) - 2), 0..(1_u64 << 50) - 1];
    let access = vec![MigrationAccess::Read, MigrationAccess::ReadExclusive, MigrationAccess::Write];
    let markers = vec![Marker::UffdWriteProtect, Marker::Poisoned, Marker::Guard];
    prop_oneof![
        (0..28_u8, offset, any_flags()).prop_map(|(device, offset, flags)| NonPresent::Swap(Swap {
            device: SwapDevice::new(device).unwrap(),
            offset: SwapOffset::new(offset).unwrap(),
            flags,
        })),
        (0..=LAST_FRAME, prop::sample::select(access), any_key(), any_flags()).prop_map(
            |(from, access, key, flags)| {
                NonPresent::Migration(Migration { from: Frame::new(from), access, key, flags })
            }
        ),
        prop::sample::select(markers).prop_map(NonPresent::Marker),
        (0..=LAST_FRAME, any_attributes()).prop_map(move |(frame, attributes)| NonPresent::ProtNone(ProtNone {
            frame: Frame::new(frame & !(level.frames() - 1)),
            attributes,
        })),
    ]
}

const CASES: u32 = if cfg!(miri) { 16 } else { 4096 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded((level, what) in any_level().prop_flat_map(|level| (Just(level), any_non_present(level)))) {
        let entry = what.encode(level);
        prop_assert!(!entry.is_present());
        prop_assert!(!entry.is_none());
        prop_assert_eq!(entry.non_present(level), Ok(Some(what)));
        prop_assert_eq!(entry.holds_page(), matches!(what, NonPresent::ProtNone(_)));
        prop_assert_eq!(entry.is_prot_none(), matches!(what, NonPresent::ProtNone(_)));
    }

    #[test]
    fn what_is_decoded_encodes_as_it_was(bits: u64, level in any_level()) {
        let entry = Entry::from_bits(bits & !1);
        if let Ok(Some(what)) = entry.non_present(level) {
            prop_assert_eq!(what.encode(level), entry);
        }
    }

    /// L1 terminal fault: the address bits of a non-present entry must not name cacheable memory. What is
    /// small, as frames of RAM and offsets of swap are, must therefore look high: above half of a 52-bit space.
    /// (A machine has at most half of that: Linux, `l1tf_pfn_limit`.)
    #[test]
    fn a_speculating_cpu_finds_no_memory(
        number in 0..1_u64 << 39,
        flags in any_flags(),
        key in any_key(),
        attributes in any_attributes(),
        level in any_level(),
    ) {
        let device = SwapDevice::new(3).unwrap();
        let all = [
            NonPresent::Swap(Swap { device, offset: SwapOffset::new(number).unwrap(), flags }),
            NonPresent::Migration(Migration { from: Frame::new(number), access: MigrationAccess::Write, key, flags }),
            NonPresent::Marker(Marker::Guard),
            NonPresent::ProtNone(ProtNone { frame: Frame::new(number & !(level.frames() - 1)), attributes }),
        ];
        for what in all {
            prop_assert_ne!(what.encode(level).bits() & 1 << 51, 0, "{:?}", what);
        }
    }

    #[test]
    fn a_key_is_changed_and_nothing_else(attributes in any_attributes(), key in any_key(), level in any_level()) {
        let other = attributes.with_protection_key(key);
        prop_assert_eq!(other.protection_key(), key);
        prop_assert_eq!(other.with_protection_key(attributes.protection_key()), attributes);
        let (leaf, changed) = (Entry::leaf(level, Frame::new(0), attributes), Entry::leaf(level, Frame::new(0), other));
        prop_assert_eq!(leaf.unwrap().with_protection_key(key), changed.unwrap());
    }

    #[test]
    fn attributes_survive_a_leaf_of_any_size(attributes in any_attributes(), level in any_level(), frame in 0..=LAST_FRAME) {
        let frame = Frame::new(frame & !(level.frames() - 1));
        let other = Cache::slot(7 - attributes.cache().number()).unwrap();
        prop_assert_eq!(attributes.with_cache(other).cache(), other);
        prop_assert_eq!(attributes.with_cache(other).with_cache(attributes.cache()), attributes);
        let leaf = Entry::leaf(level, frame, attributes).unwrap();
        prop_assert_eq!(leaf.attributes(level), attributes);
        prop_assert_eq!(leaf.leaf_frame(level), frame);
        prop_assert!(leaf.is_leaf(level) && leaf.is_present());
    }
}

/// SDM vol. 3A, tables 4-15, 4-17 and 4-20: bits 62:59. PAE reserves them.
#[test]
fn the_key_of_a_leaf_lies_in_its_bits_62_to_59() {
    let key = ProtectionKey::new(0b1010).unwrap();
    for level in [Level::Pte, Level::Pmd, Level::Pud] {
        let attributes = Attributes::new(Rights::USER.and(Rights::EXECUTE));
        let plain = Entry::leaf(level, Frame::new(0), attributes).unwrap();
        let leaf = Entry::leaf(level, Frame::new(0), attributes.with_protection_key(key)).unwrap();
        assert_eq!(leaf.bits(), plain.bits() | 0b1010 << 59);
        assert_eq!((plain.protection_key(), leaf.protection_key()), (ProtectionKey::DEFAULT, key));
        let width = PhysicalWidth::new(40).unwrap();
        let reserved = |mode: &dyn Fn(Entry) -> u64| (mode(plain), mode(leaf));
        assert_eq!(reserved(&|entry| FourLevel::new(width).reserved(level, entry)), (0, 0));
        if level < Level::Pud {
            assert_eq!(reserved(&|entry| Pae::new(width).reserved(level, entry)), (0, 0b1010 << 59));
        }
    }
    assert!(!Pae::new(PhysicalWidth::new(40).unwrap()).has_protection_keys());
}

/// The key of a migration entry lies above what a load could take for an address, and no bit between the two means anything.
#[test]
fn a_migration_entry_has_room_for_a_frame_and_a_key() {
    let encode = |from, key| {
        let (access, flags) = (MigrationAccess::Read, SwapFlags::default());
        let key = ProtectionKey::new(key).unwrap();
        NonPresent::Migration(Migration { from: Frame::new(from), access, key, flags }).encode(Level::Pte)
    };
    assert_eq!(encode(0x1234, 0).bits() ^ encode(0x1234, 15).bits(), 0xf << 52);
    for stray in (49..52).chain(56..59) {
        let entry = Entry::from_bits(encode(0x1234, 5).bits() ^ 1 << stray);
        assert!(entry.non_present(Level::Pte).is_err(), "bit {stray}");
    }
}

#[test]
fn the_limits_of_swap() {
    assert_eq!(SwapDevice::new(28), None);
    assert_eq!(SwapOffset::new((1 << 50) - 1), None);
    let last = Swap {
        device: SwapDevice::new(0).unwrap(),
        offset: SwapOffset::new((1 << 50) - 2).unwrap(),
        flags: SwapFlags::default(),
    };
    assert_eq!(NonPresent::Swap(last).encode(Level::Pte).bits(), 1 << 9);
}

#[test]
fn none_and_present_entries_remember_nothing_and_garbage_is_an_error() {
    assert_eq!(Entry::NONE.non_present(Level::Pte), Ok(None));
    assert_eq!(Entry::from_bits(0x1234_5067).non_present(Level::Pte), Ok(None));
    // Bit 6 belongs to no encoding; a marker of an unknown number; PROT_NONE without PS in a pmd.
    for (bits, level) in [(1 << 6, Level::Pte), (28 << 59, Level::Pte), (1 << 8, Level::Pmd)] {
        let error = Entry::from_bits(bits).non_present(level).unwrap_err();
        assert_eq!((error.entry.bits(), error.level), (bits, level));
    }
}

#[test]
fn the_pat_bit_moves_with_the_size_of_the_page() {
    let attributes = Attributes::new(Rights::READ).with_cache(Cache::slot(5).unwrap());
    let bits = |level| Entry::leaf(level, Frame::new(0), attributes).unwrap().bits();
    // PAT = bit 7 in a 4 KiB leaf, bit 12 in others; PWT = bit 3; PS = bit 7. XD, since execute was not asked for.
    assert_eq!(bits(Level::Pte), 1 << 63 | 0x89);
    assert_eq!(bits(Level::Pmd), 1 << 63 | 0x1089);
    assert_eq!(bits(Level::Pud), 1 << 63 | 0x1089);
}
