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
