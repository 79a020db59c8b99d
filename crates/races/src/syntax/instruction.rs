//! x86 instructions, as far as litmus tests use them.

use std::fmt;

use super::condition::{Place, Value, write_number};
use super::write_table;
use crate::source::Spanned;

/// How instructions are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// `mov [x],$1`: destination first, registers without a sign. Herd's `X86`.
    Intel,
    /// `movl $1,(x)`: source first, registers with `%`. Herd's `X86_64`.
    Att,
}

/// The init block and the columns of a file of instructions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The init block, in order.
    pub init: Vec<Initial>,
    /// For each CPU its lines; empty cells are left out. The number of the column is the number of the CPU.
    pub columns: Vec<Vec<Line>>,
}

/// One statement of the init block: `[type] place [= value]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initial {
    /// The type, where one is written.
    pub ty: Option<Spanned<Type>>,
    /// The variable or register. [`Place::Element`] declares an array of so many elements.
    pub place: Spanned<Place>,
    /// What it holds at the start; zero if nothing is written.
    pub value: InitialValue,
}

/// What a variable or register holds at the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitialValue {
    /// Nothing is written: zero.
    Zero,
    /// One value.
    One(Spanned<Value>),
    /// One for each element of an array.
    Many(Vec<Spanned<Value>>),
}

/// A type of an init block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// A number.
    Scalar(Scalar),
    /// The address of one: `scalar *`.
    Pointer(Scalar),
}

/// A type of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scalar {
    /// `int8_t`.
    Int8,
    /// `uint8_t`.
    Uint8,
    /// `int16_t`.
    Int16,
    /// `uint16_t`.
    Uint16,
    /// `int32_t` or `int`.
    Int32,
    /// `uint32_t`.
    Uint32,
    /// `int64_t`.
    Int64,
    /// `uint64_t`.
    Uint64,
}

/// One cell that is not empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The labels before the instruction.
    pub labels: Vec<Spanned<Label>>,
    /// The instruction, if the cell has one.
    pub instruction: Option<Spanned<Instruction>>,
}

/// A place to jump to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Label(pub String);

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Whether it is written with `lock`.
    pub lock: Lock,
    /// What it does.
    pub mnemonic: Mnemonic,
    /// The suffix, where one is written.
    pub width: Option<Width>,
    /// Its operands, source first, however they are written.
    pub operands: Vec<Spanned<Operand>>,
}

/// The `lock` prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lock {
    /// Not written. Reading and writing memory are two accesses (except for `xchg`, which is always locked).
    Plain,
    /// Written: one atomic access and a full barrier.
    Locked,
}

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

/// How many bits an instruction reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Width {
    /// 8 bits, suffix `b`.
    Byte,
    /// 16 bits, suffix `w`.
    Word,
    /// 32 bits, suffix `l`.
    Long,
    /// 64 bits, suffix `q`.
    Quad,
}

/// What an instruction works on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// A number.
    Immediate(i128),
    /// The address of a variable, as a number: `$x`.
    Address(String),
    /// Memory.
    Memory(Memory),
    /// Where to jump.
    Target(Label),
}

/// A memory operand: the sum of its parts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// The address of this variable.
    pub symbol: Option<Spanned<String>>,
    /// So many bytes.
    pub displacement: i64,
    /// What this register holds.
    pub base: Option<Register>,
    /// What this register holds, times 1, 2, 4 or 8.
    pub index: Option<(Register, u8)>,
}

/// A general register or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Register {
    /// As instructions encode it: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 ... r15.
    pub number: u8,
    /// Which part.
    pub part: Part,
}

/// Which bits of a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// Bits 7:0: `al`.
    Low,
    /// Bits 15:8: `ah`.
    High,
    /// Bits 15:0: `ax`.
    Word,
    /// Bits 31:0: `eax`. Writing it clears bits 63:32 (SDM vol. 1, 3.4.1.1).
    Long,
    /// All of it: `rax`.
    Quad,
}

impl Scalar {
    /// All of them, with their names; the first name of each is the one that is printed.
    pub(crate) const NAMES: [(&'static str, Self); 13] = [
        ("int8_t", Self::Int8),
        ("uint8_t", Self::Uint8),
        ("int16_t", Self::Int16),
        ("uint16_t", Self::Uint16),
        ("int32_t", Self::Int32),
        ("uint32_t", Self::Uint32),
        ("int64_t", Self::Int64),
        ("uint64_t", Self::Uint64),
        ("int", Self::Int32),
        ("char", Self::Int8),
        ("intptr_t", Self::Int64),
        ("uintptr_t", Self::Uint64),
        ("long", Self::Int64),
    ];

    /// Its size.
    pub const fn width(self) -> Width {
        match self {
            Self::Int8 | Self::Uint8 => Width::Byte,
            Self::Int16 | Self::Uint16 => Width::Word,
            Self::Int32 | Self::Uint32 => Width::Long,
            Self::Int64 | Self::Uint64 => Width::Quad,
        }
    }

    /// Whether it holds negative numbers.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64)
    }
}

impl Width {
    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
            Self::Quad => 8,
        }
    }

    /// How many bits.
    pub const fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// A number of that many ones.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The letter after a mnemonic.
    pub const fn suffix(self) -> char {
        match self {
            Self::Byte => 'b',
            Self::Word => 'w',
            Self::Long => 'l',
            Self::Quad => 'q',
        }
    }

    pub(crate) const fn from_suffix(letter: char) -> Option<Self> {
        match letter {
            'b' => Some(Self::Byte),
            'w' => Some(Self::Word),
            'l' => Some(Self::Long),
            'q' => Some(Self::Quad),
            _ => None,
        }
    }
}

impl Part {
    /// How wide the part is.
    pub const fn width(self) -> Width {
        match self {
            Self::Low | Self::High => Width::Byte,
            Self::Word => Width::Word,
            Self::Long => Width::Long,
            Self::Quad => Width::Quad,
        }
    }
}

impl Register {
    const LETTERS: [&'static str; 4] = ["a", "c", "d", "b"];
    const POINTERS: [&'static str; 4] = ["sp", "bp", "si", "di"];

    /// The register of this name, in upper or lower case, without `%`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        (0..16)
            .flat_map(|number| {
                [Part::Quad, Part::Long, Part::Word, Part::Low, Part::High].map(|part| Self { number, part })
            })
            .filter(|register| register.part != Part::High || register.number < 4)
            .find(|register| register.to_string() == name)
    }

    /// The names of the whole registers.
    pub(crate) fn names() -> Vec<String> {
        (0..16).map(|number| Self { number, part: Part::Quad }.to_string()).collect()
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, self.part) {
            (number @ 0..4, part) => {
                let letter = Self::LETTERS[usize::from(number)];
                match part {
                    Part::Low => write!(f, "{letter}l"),
                    Part::High => write!(f, "{letter}h"),
                    Part::Word => write!(f, "{letter}x"),
                    Part::Long => write!(f, "e{letter}x"),
                    Part::Quad => write!(f, "r{letter}x"),
                }
            }
            (number @ 4..8, part) => {
                let name = Self::POINTERS[usize::from(number) - 4];
                match part {
                    Part::Low | Part::High => write!(f, "{name}l"),
                    Part::Word => write!(f, "{name}"),
                    Part::Long => write!(f, "e{name}"),
                    Part::Quad => write!(f, "r{name}"),
                }
            }
            (number, part) => match part {
                Part::Low | Part::High => write!(f, "r{number}b"),
                Part::Word => write!(f, "r{number}w"),
                Part::Long => write!(f, "r{number}d"),
                Part::Quad => write!(f, "r{number}"),
            },
        }
    }
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

impl Instruction {
    /// How wide it says that it is: by its suffix, or else by a register that it works on.
    pub fn stated_width(&self) -> Option<Width> {
        self.width.or_else(|| {
            self.operands.iter().find_map(|operand| match &operand.node {
                Operand::Register(register) => Some(register.part.width()),
                _ => None,
            })
        })
    }

    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, dialect: Dialect) -> fmt::Result {
        if self.lock == Lock::Locked {
            f.write_str("lock ")?;
        }
        write!(f, "{}", self.mnemonic)?;
        if let Some(width) = self.width {
            write!(f, "{}", width.suffix())?;
        }
        let count = self.operands.len();
        for place in 0..count {
            f.write_str(if place == 0 { " " } else { "," })?;
            let operand = match dialect {
                Dialect::Att => &self.operands[place],
                Dialect::Intel => &self.operands[count - 1 - place],
            };
            operand.node.write(f, dialect)?;
        }
        Ok(())
    }

    /// The text of the instruction.
    pub fn to_text(&self, dialect: Dialect) -> String {
        struct Text<'i>(&'i Instruction, Dialect);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, self.1)
            }
        }
        Text(self, dialect).to_string()
    }
}

impl Operand {
    fn write(&self, f: &mut fmt::Formatter<'_>, dialect: Dialect) -> fmt::Result {
        let sign = match dialect {
            Dialect::Att => "%",
            Dialect::Intel => "",
        };
        match self {
            Self::Register(register) => write!(f, "{sign}{register}"),
            Self::Immediate(number) => {
                f.write_str("$")?;
                write_number(f, *number)
            }
            Self::Address(name) => write!(f, "${name}"),
            Self::Target(label) => f.write_str(&label.0),
            Self::Memory(memory) => match dialect {
                Dialect::Att => memory.write_att(f),
                Dialect::Intel => memory.write_intel(f),
            },
        }
    }
}

impl Memory {
    fn write_att(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.symbol, self.displacement) {
            (Some(symbol), 0) if self.base.is_none() && self.index.is_none() => return write!(f, "({symbol})"),
            (Some(symbol), bytes) if self.base.is_none() && self.index.is_none() => {
                return write!(f, "{bytes}({symbol})");
            }
            (Some(symbol), 0) => write!(f, "{symbol}")?,
            (Some(symbol), bytes) => write!(f, "{symbol}{bytes:+}")?,
            (None, 0) => {}
            (None, bytes) => write!(f, "{bytes}")?,
        }
        f.write_str("(")?;
        if let Some(base) = self.base {
            write!(f, "%{base}")?;
        }
        if let Some((index, scale)) = self.index {
            write!(f, ",%{index},{scale}")?;
        }
        f.write_str(")")
    }

    fn write_intel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.symbol.as_ref().map(ToString::to_string));
        parts.extend(self.base.as_ref().map(ToString::to_string));
        parts.extend(self.index.as_ref().map(|(index, scale)| format!("{index}*{scale}")));
        write!(f, "[{}", parts.join("+"))?;
        if self.displacement != 0 {
            write!(f, "{:+}", self.displacement)?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scalar, star) = match self {
            Self::Scalar(scalar) => (scalar, ""),
            Self::Pointer(scalar) => (scalar, "*"),
        };
        let name = Scalar::NAMES.iter().find(|(_, known)| known == scalar).map_or("", |(name, _)| name);
        write!(f, "{name}{star}")
    }
}

impl fmt::Display for Initial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ty) = &self.ty {
            write!(f, "{ty} ")?;
        }
        write!(f, "{}", self.place)?;
        match &self.value {
            InitialValue::Zero => {}
            InitialValue::One(value) => write!(f, "={value}")?,
            InitialValue::Many(values) => {
                let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "={{{}}}", texts.join(","))?;
            }
        }
        f.write_str(";")
    }
}

impl Line {
    fn to_text(&self, dialect: Dialect) -> String {
        let labels = self.labels.iter().map(|label| format!("{label}: ")).collect::<String>();
        let instruction = self.instruction.as_ref().map(|one| one.node.to_text(dialect)).unwrap_or_default();
        format!("{labels}{instruction}").trim_end().to_owned()
    }
}

impl Program {
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, dialect: Dialect) -> fmt::Result {
        writeln!(f, "{{")?;
        for initial in &self.init {
            writeln!(f, "  {initial}")?;
        }
        writeln!(f, "}}")?;
        let cells: Vec<Vec<String>> = self
            .columns
            .iter()
            .enumerate()
            .map(|(number, column)| {
                std::iter::once(format!("P{number}")).chain(column.iter().map(|line| line.to_text(dialect))).collect()
            })
            .collect();
        write_table(f, &cells)
    }
}
