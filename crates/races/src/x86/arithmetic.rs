//! What instructions compute: a result and flags, from operands (SDM vol. 2). No memory here.

use super::registers::Flags;
use crate::syntax::{Mnemonic, Width};

/// A result of some width, and the flags that go with it.
pub(super) struct Outcome {
    pub(super) result: u64,
    pub(super) flags: Flags,
}

fn outcome(width: Width, result: u64, carry: bool, overflow: bool) -> Outcome {
    let result = result & width.mask();
    let flags = Flags {
        carry: carry.into(),
        zero: (result == 0).into(),
        sign: top_bit(width, result),
        overflow: overflow.into(),
        parity: (result as u8).count_ones().is_multiple_of(2).into(),
    };
    Outcome { result, flags }
}

fn top_bit(width: Width, value: u64) -> u64 {
    value >> (width.bits() - 1) & 1
}

fn add(width: Width, left: u64, right: u64) -> Outcome {
    let sum = left.wrapping_add(right) & width.mask();
    let overflow = top_bit(width, (left ^ sum) & (right ^ sum)) == 1;
    outcome(width, sum, sum < left & width.mask(), overflow)
}

/// `left - right`, as `sub` and `cmp` compute it.
pub(super) fn subtract(width: Width, left: u64, right: u64) -> Outcome {
    let difference = left.wrapping_sub(right) & width.mask();
    let overflow = top_bit(width, (left ^ right) & (left ^ difference)) == 1;
    outcome(width, difference, left & width.mask() < right & width.mask(), overflow)
}

/// What `mnemonic` makes of what its destination held and of its source. For instructions that compute nothing, the source.
pub(super) fn compute(mnemonic: Mnemonic, width: Width, before: u64, source: u64, flags: Flags) -> Outcome {
    let bit = 1 << (source & u64::from(width.bits() - 1));
    let set_carry = |result| Outcome { result, flags: Flags { carry: (before & bit != 0).into(), ..flags } };
    match mnemonic {
        Mnemonic::Add | Mnemonic::Xadd => add(width, before, source),
        Mnemonic::Sub | Mnemonic::Cmp => subtract(width, before, source),
        Mnemonic::And | Mnemonic::Test => outcome(width, before & source, false, false),
        Mnemonic::Or => outcome(width, before | source, false, false),
        Mnemonic::Xor => outcome(width, before ^ source, false, false),
        // `inc` and `dec` leave the carry as it was.
        Mnemonic::Inc => keep_carry(add(width, before, 1), flags),
        Mnemonic::Dec => keep_carry(subtract(width, before, 1), flags),
        Mnemonic::Neg => subtract(width, 0, before),
        Mnemonic::Not => Outcome { result: !before & width.mask(), flags },
        Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar => shift(mnemonic, width, before, source, flags),
        Mnemonic::Bt => set_carry(before),
        Mnemonic::Bts => set_carry(before | bit),
        Mnemonic::Btr => set_carry(before & !bit),
        Mnemonic::Btc => set_carry(before ^ bit),
        _ => Outcome { result: source & width.mask(), flags },
    }
}

fn keep_carry(mut outcome: Outcome, flags: Flags) -> Outcome {
    outcome.flags.carry = flags.carry;
    outcome
}

/// Shifts by 0 to 31 bits, of 64-bit operands by 0 to 63. Where the SDM leaves the overflow flag undefined, it is what a shift by one
/// would make it.
fn shift(mnemonic: Mnemonic, width: Width, before: u64, count: u64, flags: Flags) -> Outcome {
    let count = count & if width == Width::Quad { 63 } else { 31 };
    if count == 0 {
        return Outcome { result: before & width.mask(), flags };
    }
    let unused = 64 - width.bits();
    let value = before & width.mask();
    let signed = (value << unused) as i64 >> unused;
    let (wide, carry) = match mnemonic {
        Mnemonic::Shl => {
            let wide = u128::from(value) << count;
            (wide as u64, wide >> width.bits() & 1 == 1)
        }
        Mnemonic::Shr => (value >> count, value >> (count - 1) & 1 == 1),
        _ => ((signed >> count) as u64, signed >> (count - 1) & 1 == 1),
    };
    let overflow = match mnemonic {
        Mnemonic::Shl => (top_bit(width, wide) == 1) != carry,
        Mnemonic::Shr => top_bit(width, value) == 1,
        _ => false,
    };
    outcome(width, wide, carry, overflow)
}

/// The processor on which the tests run is the judge.
#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::asm;

    use super::*;

    /// Carry and overflow, as `pushf` shows them (SDM vol. 1, figure 3-8); parity, zero and sign lie between.
    const CARRY: u64 = 1 << 0;
    const PARITY: u64 = 1 << 2;
    const ZERO: u64 = 1 << 6;
    const SIGN: u64 = 1 << 7;
    const OVERFLOW: u64 = 1 << 11;

    /// Runs one instruction with its destination in `{v}` and its source in `cl` to `rcx`.
    macro_rules! run {
        ($text:expr, $before:expr, $source:expr, $flags:expr) => {{
            let mut value: u64 = $before;
            let after: u64;
            // SAFETY: the instruction works on the two registers named; what is pushed is popped again; only status flags
            // are changed, and `asm!` takes them for clobbered.
            unsafe {
                asm!("push {f}", "popfq", $text, "pushfq", "pop {f}",
                    v = inout(reg) value, f = inout(reg) $flags => after, in("rcx") $source);
            }
            (value, after)
        }};
    }

    macro_rules! native {
        ($mnemonic:expr, $width:expr, $arguments:tt, { $($one:ident $one_text:literal,)* } { $($two:ident $two_text:literal,)* }
            { $($shift:ident $shift_text:literal,)* } { $($bit:ident $bit_text:literal,)* }) => {
            match ($mnemonic, $width) {
                $((Mnemonic::$one, Width::Byte) => native!(@ $arguments concat!($one_text, " {v:l}")),
                (Mnemonic::$one, Width::Word) => native!(@ $arguments concat!($one_text, " {v:x}")),
                (Mnemonic::$one, Width::Long) => native!(@ $arguments concat!($one_text, " {v:e}")),
                (Mnemonic::$one, Width::Quad) => native!(@ $arguments concat!($one_text, " {v:r}")),)*
                $((Mnemonic::$two, Width::Byte) => native!(@ $arguments concat!($two_text, " {v:l}, cl")),
                (Mnemonic::$two, Width::Word) => native!(@ $arguments concat!($two_text, " {v:x}, cx")),
                (Mnemonic::$two, Width::Long) => native!(@ $arguments concat!($two_text, " {v:e}, ecx")),
                (Mnemonic::$two, Width::Quad) => native!(@ $arguments concat!($two_text, " {v:r}, rcx")),)*
                $((Mnemonic::$shift, Width::Byte) => native!(@ $arguments concat!($shift_text, " {v:l}, cl")),
                (Mnemonic::$shift, Width::Word) => native!(@ $arguments concat!($shift_text, " {v:x}, cl")),
                (Mnemonic::$shift, Width::Long) => native!(@ $arguments concat!($shift_text, " {v:e}, cl")),
                (Mnemonic::$shift, Width::Quad) => native!(@ $arguments concat!($shift_text, " {v:r}, cl")),)*
                $((Mnemonic::$bit, Width::Word) => native!(@ $arguments concat!($bit_text, " {v:x}, cx")),
                (Mnemonic::$bit, Width::Long) => native!(@ $arguments concat!($bit_text, " {v:e}, ecx")),
                (Mnemonic::$bit, Width::Quad) => native!(@ $arguments concat!($bit_text, " {v:r}, rcx")),)*
                _ => return None,
            }
        };
        (@ ($before:expr, $source:expr, $flags:expr) $text:expr) => { run!($text, $before, $source, $flags) };
    }

    /// What the processor makes of it: the destination, cut to its width, and all flags. `None` if there is no such instruction.
    fn native(mnemonic: Mnemonic, width: Width, before: u64, source: u64, flags: u64) -> Option<(u64, u64)> {
        let (value, flags) = native!(mnemonic, width, (before, source, flags),
            { Inc "inc", Dec "dec", Neg "neg", Not "not", }
            { Add "add", Sub "sub", And "and", Or "or", Xor "xor", Cmp "cmp", Test "test", }
            { Shl "shl", Shr "shr", Sar "sar", }
            { Bt "bt", Bts "bts", Btr "btr", Btc "btc", });
        Some((value & width.mask(), flags))
    }

    /// The flags that the SDM defines after the instruction.
    fn defined(mnemonic: Mnemonic, width: Width, source: u64) -> u64 {
        let all = CARRY | PARITY | ZERO | SIGN | OVERFLOW;
        let count = source & if width == Width::Quad { 63 } else { 31 };
        match mnemonic {
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => CARRY,
            Mnemonic::Shl | Mnemonic::Shr if count >= u64::from(width.bits()) => all & !(OVERFLOW | CARRY),
            Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar if count > 1 => all & !OVERFLOW,
            _ => all,
        }
    }

    fn bits(flags: Flags) -> u64 {
        let Flags { carry, parity, zero, sign, overflow, .. } = flags;
        [carry * CARRY, parity * PARITY, zero * ZERO, sign * SIGN, overflow * OVERFLOW].into_iter().sum()
    }

    #[test]
    fn results_and_flags_are_those_of_the_processor() {
        const VALUES: [u64; 18] = [
            0,
            1,
            2,
            3,
            7,
            8,
            31,
            32,
            63,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0x8000_0000,
            0xffff_ffff,
            0x8000_0000_0000_0000,
            u64::MAX,
        ];
        let mut compared = 0;
        for (_, mnemonic) in Mnemonic::NAMES {
            for width in [Width::Byte, Width::Word, Width::Long, Width::Quad] {
                for before in VALUES {
                    for source in VALUES {
                        for carry in [0, CARRY] {
                            let Some((value, flags)) = native(mnemonic, width, before, source, carry) else { continue };
                            let start = Flags { carry, ..Flags::default() };
                            let masked = (before & width.mask(), source & width.mask());
                            let found = compute(mnemonic, width, masked.0, masked.1, start);
                            let what = format!("{mnemonic} {width:?} {before:#x} {source:#x} {carry}");
                            if !mnemonic.only_tests() {
                                assert_eq!(found.result, value, "{what}");
                            }
                            let mask = defined(mnemonic, width, source);
                            assert_eq!(bits(found.flags) & mask, flags & mask, "flags of {what}");
                            compared += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(compared, (14 * 4 + 4 * 3) * VALUES.len() * VALUES.len() * 2);
    }
}
