//! `docs/software-bits.md` is generated from the layouts. `BLESS=1 cargo test -p fastgup-pagetable --test
//! pagetable software_bits` writes it.

use std::fmt::Write;
use std::path::Path;

use pagetable::software::{self, Available, Claim, Layout, On, SpecialBit};
use pagetable::{FiveLevel, FourLevel, Level, Mode, Pae, PhysicalWidth};

fn levels(claim: &Claim) -> String {
    let names: Vec<_> = Level::ALL.iter().filter(|&&level| claim.levels.contain(level)).map(Level::to_string).collect();
    names.join(", ")
}

fn section<const N: usize>(text: &mut String, layout: &Layout<N>) {
    let Available { mode, bits } = layout.available();
    writeln!(text, "\n## {mode}\n").unwrap();
    writeln!(text, "| bit | name | dword | whose | on | at | says |\n|---|---|---|---|---|---|---|").unwrap();
    let mut bit_names: Vec<(u32, Option<&Claim>)> = Vec::new();
    for bit in (0..64).filter(|bit| bits >> bit & 1 != 0) {
        let mut users = layout.claims().iter().filter(|claim| claim.bit == bit).peekable();
        if users.peek().is_none() {
            bit_names.push((bit, None));
        }
        bit_names.extend(users.map(|claim| (bit, Some(claim))));
    }
    for (bit, claim) in bit_names {
        let dword = if bit < 32 { "low" } else { "high" };
        match claim {
            None => writeln!(text, "| {bit} | | {dword} | free | | | |").unwrap(),
            Some(claim) => {
                let on = match claim.on {
                    On::Leaf => "leaves",
                    On::Table => "entries that point to tables",
                };
                let Claim { bit_name, name, meaning, .. } = claim;
                let levels = levels(claim);
                writeln!(text, "| {bit} | {bit_name} | {dword} | {name} | {on} | {levels} | {meaning} |").unwrap();
            }
        }
    }
}

fn document() -> String {
    let mut text = String::from(
        "# Whose is which software bit\n\n\
         Generated from `crates/pagetable/src/software.rs` by its test `software_bits`; do not edit.\n\n\
         \"dword\" says in which half of the 64-bit entry the bit lies. Where a CPU reads entries in halves (32-bit PAE), a bit of the low dword \
         is read together with present and PS; one of the high dword may be read from another moment.\n",
    );
    section(&mut text, &software::LONG_MODE);
    section(&mut text, &software::PAE);
    section(&mut text, &software::PAE_SPECIAL_HIGH);
    text
}

#[test]
fn the_table_in_the_docs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/software-bits.md");
    let expected = document();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is stale: run this test with BLESS=1", path.display());
}

#[test]
fn a_mark_is_the_bit_of_its_claim() {
    const UFFD: software::Mark = software::LONG_MODE.mark(software::UFFD_WP);
    assert_eq!(UFFD.bits(), 1 << 10);
    assert_eq!(UFFD.dword(), software::Dword::Low);
    let flag = FourLevel::new(PhysicalWidth::MAX).uffd_wp().expect("long mode has it");
    assert_eq!(u64::from(flag.bits()), UFFD.bits());
    assert_eq!(FiveLevel::new(PhysicalWidth::MAX).uffd_wp(), Some(flag));
    assert_eq!(Pae::new(PhysicalWidth::MAX).uffd_wp(), None, "its bit is saved-dirty's");
    assert_eq!(software::Softw1.mark().bits(), 1 << 9);
    assert_eq!(software::Softw5.mark().dword(), software::Dword::High);
}

/// The layouts only use what the modes leave to software, whatever the physical width.
#[test]
fn the_modes_agree_with_what_the_layouts_assume() {
    use pagetable::{FiveLevel, FourLevel, Mode, Pae, PhysicalWidth};
    for width in (32..=52).map(|bits| PhysicalWidth::new(bits).unwrap()) {
        assert_eq!(FourLevel::new(width).software_bits(), Available::LONG_MODE.bits);
        assert_eq!(FiveLevel::new(width).software_bits(), Available::LONG_MODE.bits);
        assert_eq!(Pae::new(width).software_bits(), Available::PAE.bits);
        assert_eq!(Pae::with_ignored_high_bits(width).software_bits(), Available::PAE_WITH_IGNORED_HIGH_BITS.bits);
        for mode_reserves in [
            FourLevel::new(width).reserved_always() & Available::LONG_MODE.bits,
            Pae::new(width).reserved_always() & Available::PAE.bits,
        ] {
            assert_eq!(mode_reserves, 0);
        }
    }
}
