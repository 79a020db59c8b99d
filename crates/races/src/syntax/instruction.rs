//! x86 instructions, as far as litmus tests use them.

use std::fmt;

use super::condition::write_number;
use super::initial::Initial;
use super::mnemonic::Mnemonic;
use super::register::{Register, Width};
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
