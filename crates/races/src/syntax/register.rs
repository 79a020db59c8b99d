//! Registers, their parts, and how wide things are.

use std::fmt;

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
