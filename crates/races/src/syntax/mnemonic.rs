//! What x86 instructions are called.

use std::fmt;

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "each is the instruction of that name in the SDM, vol. 2")]
pub enum Mnemonic {
    Mov,
    Lea,
    Add,
    Sub,
    And,
    Or,
    Xor,
    Cmp,
    Test,
    Shl,
    Shr,
    Sar,
    Inc,
    Dec,
    Neg,
    Not,
    Xchg,
    Xadd,
    Cmpxchg,
    Bt,
    Bts,
    Btr,
    Btc,
    Fence(Fence),
    Jump(Jump),
    Set(Test),
    Cmov(Test),
    Nop,
    Ret,
}

/// A fence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fence {
    /// `mfence`: earlier stores are visible before later loads.
    Mfence,
    /// `lfence`: orders loads, which x86-TSO does anyway.
    Lfence,
    /// `sfence`: orders stores, which x86-TSO does anyway.
    Sfence,
}

/// Whether a jump is taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Jump {
    /// `jmp`.
    Always,
    /// `jcc`.
    If(Test),
}

/// A condition on the flags (SDM vol. 1, appendix B).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names of the SDM's table, spelt out")]
pub enum Test {
    Overflow,
    NoOverflow,
    Below,
    AboveEqual,
    Equal,
    NotEqual,
    BelowEqual,
    Above,
    Sign,
    NoSign,
    Parity,
    NoParity,
    Less,
    GreaterEqual,
    LessEqual,
    Greater,
}

impl Test {
    /// The letters after `j`, `set` and `cmov`; the first of each is the one that is printed. `lt` and `gt` are herd's.
    pub(crate) const NAMES: [(&'static str, Self); 32] = [
        ("o", Self::Overflow),
        ("no", Self::NoOverflow),
        ("b", Self::Below),
        ("c", Self::Below),
        ("nae", Self::Below),
        ("ae", Self::AboveEqual),
        ("nb", Self::AboveEqual),
        ("nc", Self::AboveEqual),
        ("e", Self::Equal),
        ("z", Self::Equal),
        ("ne", Self::NotEqual),
        ("nz", Self::NotEqual),
        ("be", Self::BelowEqual),
        ("na", Self::BelowEqual),
        ("a", Self::Above),
        ("nbe", Self::Above),
        ("s", Self::Sign),
        ("ns", Self::NoSign),
        ("p", Self::Parity),
        ("pe", Self::Parity),
        ("np", Self::NoParity),
        ("po", Self::NoParity),
        ("l", Self::Less),
        ("lt", Self::Less),
        ("nge", Self::Less),
        ("ge", Self::GreaterEqual),
        ("nl", Self::GreaterEqual),
        ("le", Self::LessEqual),
        ("ng", Self::LessEqual),
        ("g", Self::Greater),
        ("gt", Self::Greater),
        ("nle", Self::Greater),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, test)| *test == self).map_or("", |(name, _)| name)
    }
}

impl Mnemonic {
    /// Those that have one name; jumps, `set` and `cmov` are made from [`Test::NAMES`].
    pub(crate) const NAMES: [(&'static str, Self); 31] = [
        ("mov", Self::Mov),
        ("lea", Self::Lea),
        ("add", Self::Add),
        ("sub", Self::Sub),
        ("and", Self::And),
        ("or", Self::Or),
        ("xor", Self::Xor),
        ("cmp", Self::Cmp),
        ("test", Self::Test),
        ("shl", Self::Shl),
        ("shr", Self::Shr),
        ("sar", Self::Sar),
        ("inc", Self::Inc),
        ("dec", Self::Dec),
        ("neg", Self::Neg),
        ("not", Self::Not),
        ("xchg", Self::Xchg),
        ("xadd", Self::Xadd),
        ("cmpxchg", Self::Cmpxchg),
        ("bt", Self::Bt),
        ("bts", Self::Bts),
        ("btr", Self::Btr),
        ("btc", Self::Btc),
        ("mfence", Self::Fence(Fence::Mfence)),
        ("lfence", Self::Fence(Fence::Lfence)),
        ("sfence", Self::Fence(Fence::Sfence)),
        ("jmp", Self::Jump(Jump::Always)),
        ("nop", Self::Nop),
        ("pause", Self::Nop),
        ("endbr64", Self::Nop),
        ("ret", Self::Ret),
    ];

    /// Whether it may carry a suffix that says its width.
    pub(crate) const fn takes_suffix(self) -> bool {
        !matches!(self, Self::Fence(_) | Self::Jump(_) | Self::Set(_) | Self::Ret)
    }

    /// Whether it reads its destination and does not write it.
    pub(crate) const fn only_tests(self) -> bool {
        matches!(self, Self::Cmp | Self::Test | Self::Bt)
    }

    /// Whether its source is the number of a bit.
    pub(crate) const fn is_bit_test(self) -> bool {
        matches!(self, Self::Bt | Self::Bts | Self::Btr | Self::Btc)
    }

    /// Whether `lock` may stand before it, with a destination in memory (SDM vol. 2, LOCK).
    pub(crate) const fn takes_lock(self) -> bool {
        matches!(
            self,
            Self::Add
                | Self::Sub
                | Self::And
                | Self::Or
                | Self::Xor
                | Self::Inc
                | Self::Dec
                | Self::Neg
                | Self::Not
                | Self::Xchg
                | Self::Xadd
                | Self::Cmpxchg
                | Self::Bts
                | Self::Btr
                | Self::Btc
        )
    }
}

impl fmt::Display for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(Jump::If(test)) => write!(f, "j{}", test.name()),
            Self::Set(test) => write!(f, "set{}", test.name()),
            Self::Cmov(test) => write!(f, "cmov{}", test.name()),
            other => {
                f.write_str(Self::NAMES.iter().find(|(_, mnemonic)| mnemonic == other).map_or("", |(name, _)| name))
            }
        }
    }
}
