//! How wide the plain accesses of the CPU are: all of an entry, or half of it.

use core::fmt;

use machine::{Cpu, Word64};

use crate::entry::Entry;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Wide {}
    impl Sealed for super::Split {}
}

/// How the CPU accesses an entry with plain loads and stores.
///
/// An entry has 64 bits on every mode. A 64-bit CPU reads and writes it with one `mov`. On a 32-bit CPU a plain
/// access of the same C object is two accesses, and another CPU may come between them; only `cmpxchg8b`
/// and moves through vector registers take all 64 bits at once. Modes name their width ([`crate::Mode::Width`]), so that "a plain
/// access" means on each mode what a compiler would make of it.
pub trait Width: sealed::Sealed + Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// A plain load.
    #[track_caller]
    fn load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry;

    /// A plain load by the holder of the table's page-table lock: only accessed and dirty, in the low half, may
    /// change meanwhile.
    #[track_caller]
    fn locked_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry;

    /// A plain load that nobody else interferes with.
    #[track_caller]
    fn owned_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry;

    /// A plain store that nobody else can see.
    #[track_caller]
    fn owned_store<C: Cpu>(cpu: &C, cell: &Word64, entry: Entry);

    /// Clears bits of the low half with one locked instruction and returns the entry as it was.
    ///
    /// Of the returned entry the low half is exact. The high half is what a plain load finds: the caller
    /// excludes writers that change it.
    #[track_caller]
    fn fetch_clear_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry;

    /// Sets bits of the low half, otherwise as [`Self::fetch_clear_low`].
    #[track_caller]
    fn fetch_set_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry;
}

/// One instruction accesses the whole entry: x86-64.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wide;

/// A plain access takes two instructions, the low half first: 32-bit PAE.
///
/// The order is the compiler's choice in C. Low first is what GCC and clang emit for x86, and what a walker
/// wants: bit 0, present, decides whether the rest means anything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Split;

impl Width for Wide {
    #[inline(always)]
    fn load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        Entry::from_bits(cpu.load(cell))
    }

    #[inline(always)]
    fn locked_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        Self::load(cpu, cell)
    }

    #[inline(always)]
    fn owned_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        Entry::from_bits(cpu.owned_load(cell))
    }

    #[inline(always)]
    fn owned_store<C: Cpu>(cpu: &C, cell: &Word64, entry: Entry) {
        cpu.owned_store(cell, entry.bits());
    }

    #[inline(always)]
    fn fetch_clear_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry {
        Entry::from_bits(cpu.fetch_and(cell, !u64::from(bits)))
    }

    #[inline(always)]
    fn fetch_set_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry {
        Entry::from_bits(cpu.fetch_or(cell, u64::from(bits)))
    }
}

impl Width for Split {
    #[inline(always)]
    fn load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        let low = cpu.load(cell.low());
        let high = cpu.load(cell.high());
        Entry::from_halves(low, high)
    }

    #[inline(always)]
    fn locked_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        Entry::from_halves(cpu.load(cell.low()), cpu.owned_load(cell.high()))
    }

    #[inline(always)]
    fn owned_load<C: Cpu>(cpu: &C, cell: &Word64) -> Entry {
        Entry::from_halves(cpu.owned_load(cell.low()), cpu.owned_load(cell.high()))
    }

    #[inline(always)]
    fn owned_store<C: Cpu>(cpu: &C, cell: &Word64, entry: Entry) {
        cpu.owned_store(cell.high(), entry.high());
        cpu.owned_store(cell.low(), entry.low());
    }

    #[inline(always)]
    fn fetch_clear_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry {
        let low = cpu.fetch_and(cell.low(), !bits);
        Entry::from_halves(low, cpu.load(cell.high()))
    }

    #[inline(always)]
    fn fetch_set_low<C: Cpu>(cpu: &C, cell: &Word64, bits: u32) -> Entry {
        let low = cpu.fetch_or(cell.low(), bits);
        Entry::from_halves(low, cpu.load(cell.high()))
    }
}
