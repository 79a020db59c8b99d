//! What variables and registers hold at the start, and their types.

use std::fmt;

use super::condition::{Place, Value};
use super::register::Width;
use crate::source::Spanned;

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
