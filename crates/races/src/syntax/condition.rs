//! Final conditions: herd's boolean grammar over registers and named places.

use std::fmt;

use crate::source::Spanned;

/// A quantifier and what it speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Whether some, no or every final state should satisfy the proposition.
    pub quantifier: Spanned<Quantifier>,
    /// What a final state satisfies or not.
    pub proposition: Proposition,
}

/// How a [`Condition`] speaks of the set of final states.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Quantifier {
    /// `exists`: asks whether some final state satisfies it. A question, not a claim.
    Exists,
    /// `~exists`: claims that none does.
    NotExists,
    /// `forall`: claims that every one does.
    Forall,
}

impl Quantifier {
    /// As it is written in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::NotExists => "~exists",
            Self::Forall => "forall",
        }
    }
}

/// A boolean expression over one final state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposition {
    /// `true`.
    True,
    /// `false`.
    False,
    /// `place = value` or `place != value`.
    Compare {
        /// The register or location.
        place: Spanned<Place>,
        /// Equal or not.
        relation: Relation,
        /// What it is compared with.
        value: Spanned<Value>,
    },
    /// `~ p` or `not p`.
    Not(Box<Self>),
    /// `p /\ q /\ ...`: at least two.
    And(Vec<Self>),
    /// `p \/ q \/ ...`: at least two.
    Or(Vec<Self>),
    /// `p => q`.
    Implies(Box<Self>, Box<Self>),
}

/// How a place is compared with a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Relation {
    /// `=` (or `==`).
    Equal,
    /// `!=` (or `<>`).
    NotEqual,
}

impl Relation {
    /// Whether two things that are equal, or not, stand in this relation.
    pub const fn holds(self, equal: bool) -> bool {
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
        }
    }
}

/// Something whose value a final state has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// `0:rax`: a register of a CPU.
    Register {
        /// The CPU's number.
        cpu: u32,
        /// The register, as written, without `%`.
        name: String,
    },
    /// `x` or `[x]`: a variable.
    Location(String),
    /// `t[1]`: an element of an array, from 0.
    Element(String, u64),
}

/// What a place is compared with, or set to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    /// A number.
    Number(i128),
    /// A name: in a file of instructions the address of a variable, in one of operations whatever the key takes.
    Name(String),
    /// `x+0x1000`: so many bytes after what the name stands for.
    Offset(String, i128),
}

impl Proposition {
    /// Its truth, given the truth of each comparison.
    pub fn holds(&self, compare: &mut impl FnMut(&Place, Relation, &Value) -> bool) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Compare { place, relation, value } => compare(&place.node, *relation, &value.node),
            Self::Not(inner) => !inner.holds(compare),
            Self::And(parts) => parts.iter().all(|part| part.holds(compare)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(compare)),
            Self::Implies(left, right) => !left.holds(compare) || right.holds(compare),
        }
    }

    /// Every place that it names, from left to right, as often as it does.
    pub fn for_each_place<'p>(&'p self, visit: &mut impl FnMut(&'p Spanned<Place>)) {
        match self {
            Self::True | Self::False => {}
            Self::Compare { place, .. } => visit(place),
            Self::Not(inner) => inner.for_each_place(visit),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.for_each_place(visit)),
            Self::Implies(left, right) => {
                left.for_each_place(visit);
                right.for_each_place(visit);
            }
        }
    }

    /// Every comparison, from left to right.
    pub fn for_each_comparison<'p>(&'p self, visit: &mut impl FnMut(&'p Spanned<Place>, &'p Spanned<Value>)) {
        match self {
            Self::True | Self::False => {}
            Self::Compare { place, value, .. } => visit(place, value),
            Self::Not(inner) => inner.for_each_comparison(visit),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.for_each_comparison(visit)),
            Self::Implies(left, right) => {
                left.for_each_comparison(visit);
                right.for_each_comparison(visit);
            }
        }
    }

    /// How tightly the outermost operator binds: the larger, the tighter (as in herd).
    fn binding(&self) -> u8 {
        match self {
            Self::Or(..) => 0,
            Self::And(..) => 1,
            Self::Implies(..) => 2,
            Self::Not(_) => 3,
            Self::True | Self::False | Self::Compare { .. } => 4,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, context: u8) -> fmt::Result {
        let own = self.binding();
        let parenthesise = own < context;
        if parenthesise {
            f.write_str("(")?;
        }
        match self {
            Self::True => f.write_str("true")?,
            Self::False => f.write_str("false")?,
            Self::Compare { place, relation, value } => {
                let sign = match relation {
                    Relation::Equal => "=",
                    Relation::NotEqual => "!=",
                };
                write!(f, "{place}{sign}{value}")?;
            }
            Self::Not(inner) => {
                f.write_str("~")?;
                inner.write(f, own + 1)?;
            }
            Self::And(parts) => Self::write_parts(f, parts, " /\\ ", own + 1)?,
            Self::Or(parts) => Self::write_parts(f, parts, " \\/ ", own + 1)?,
            Self::Implies(left, right) => {
                left.write(f, own + 1)?;
                f.write_str(" => ")?;
                right.write(f, own)?;
            }
        }
        if parenthesise {
            f.write_str(")")?;
        }
        Ok(())
    }

    fn write_parts(f: &mut fmt::Formatter<'_>, parts: &[Self], sign: &str, context: u8) -> fmt::Result {
        for (number, part) in parts.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { sign })?;
            part.write(f, context)?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.quantifier.node.name(), self.proposition)
    }
}

impl fmt::Display for Proposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { cpu, name } => write!(f, "{cpu}:{name}"),
            Self::Location(name) => f.write_str(name),
            Self::Element(name, index) => write!(f, "{name}[{index}]"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write_number(f, *number),
            Self::Name(name) => f.write_str(name),
            Self::Offset(name, offset) => {
                write!(f, "{name}+")?;
                write_number(f, *offset)
            }
        }
    }
}

/// Small numbers in decimal, addresses in hexadecimal.
pub(super) fn write_number(f: &mut fmt::Formatter<'_>, number: i128) -> fmt::Result {
    if number < 0x1000 { write!(f, "{number}") } else { write!(f, "{number:#x}") }
}
