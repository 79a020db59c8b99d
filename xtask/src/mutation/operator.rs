//! What is written around an operator so that it can be another one, and before a field.

use syn::{BinOp, Ident};

use super::list::Mutant;
use super::rewrite::on;
use super::splice::Text;

/// How an operator treats its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    /// Takes their values.
    Values,
    /// Borrows them, and orders them.
    Order,
    /// Borrows them, and says whether they are equal.
    Equality,
    /// Evaluates the second only if it must.
    Lazy,
    /// Changes the first.
    Compound,
}

/// What comes before, in place of the operator, and after.
pub(super) struct Parts {
    pub(super) open: Text,
    pub(super) operator: Option<Text>,
    pub(super) close: Text,
}

impl Operator {
    pub(super) fn of(operator: &BinOp) -> Self {
        match operator {
            BinOp::And(_) | BinOp::Or(_) => Self::Lazy,
            BinOp::Eq(_) | BinOp::Ne(_) => Self::Equality,
            BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => Self::Order,
            BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::Div(_) | BinOp::Rem(_) => Self::Values,
            BinOp::BitXor(_) | BinOp::BitAnd(_) | BinOp::BitOr(_) | BinOp::Shl(_) | BinOp::Shr(_) => Self::Values,
            _ => Self::Compound,
        }
    }

    /// The text that chooses between the original and `mutants`. For a compound assignment see [`compound`].
    pub(super) fn parts(self, original: &str, mutants: &[&Mutant]) -> Parts {
        match self {
            Self::Values | Self::Compound => by_values(("", ""), original, mutants),
            Self::Order => by_values(("&", "*"), original, mutants),
            Self::Equality => equality(mutants),
            Self::Lazy => lazy(original, mutants),
        }
    }
}

/// `if` one is active, its text, else the next; the original last.
fn choice(mutants: &[&Mutant], original: &str, of: impl Fn(&Mutant) -> String) -> Text {
    let chosen = mutants.iter().fold(Text::default(), |text, mutant| {
        let text = text.push(&format!("if {} {{ ", on(mutant.id)));
        text.push_of(mutant.id, &of(mutant)).push(" } else ")
    });
    chosen.push(&format!("{{ {original} }}"))
}

/// A `match` on the operands: they are evaluated as they were, and what they borrow from lives on to the end of the statement.
fn by_values((borrow, value): (&str, &str), original: &str, mutants: &[&Mutant]) -> Parts {
    let result = |operator: &str| format!("{value}mutant_l {operator} {value}mutant_r");
    let chosen = choice(mutants, &result(original), |mutant| result(&mutant.replacement));
    Parts {
        open: format!("(match ({borrow}(").as_str().into(),
        operator: Some(format!("), {borrow}(").as_str().into()),
        close: Text::from(")) { (mutant_l, mutant_r) => ").then(chosen).push(" })"),
    }
}

/// `==` and `!=` have but one mutant, the other: `^` makes it from the result.
fn equality(mutants: &[&Mutant]) -> Parts {
    let turned =
        mutants.iter().fold(Text::from(")"), |text, mutant| text.push_of(mutant.id, &format!(" ^ {}", on(mutant.id))));
    Parts { open: "((".into(), operator: None, close: turned.push(")") }
}

/// `&&` and `||` have but one mutant, the other: by De Morgan it is the same operator between turned operands, with its result turned.
fn lazy(original: &str, mutants: &[&Mutant]) -> Parts {
    let turn: String = mutants.iter().map(|mutant| format!("{} ^ ", on(mutant.id))).collect();
    Parts {
        open: format!("({turn}(({turn}(").as_str().into(),
        operator: Some(format!(")) {original} ({turn}(").as_str().into()),
        close: "))))".into(),
    }
}

/// A compound assignment, with copies for the mutants.
pub(super) fn compound((left, right): (&str, &str), mutants: &[&Mutant]) -> Parts {
    let copies = mutants.iter().fold(Text::from("{ "), |text, mutant| {
        let copy = format!("{left} {} {right}", mutant.replacement);
        text.push(&format!("if {} {{ ", on(mutant.id))).push_of(mutant.id, &copy).push(" } else ")
    });
    Parts { open: copies.push("{ "), operator: None, close: " } }".into() }
}

/// `!` or `-`, or nothing.
pub(super) fn unary(original: &str, mutants: &[&Mutant]) -> Parts {
    let chosen = choice(mutants, &format!("{original}mutant_v"), |_| "mutant_v".into());
    Parts {
        open: "(match (".into(),
        operator: Some(" ".into()),
        close: Text::from(") { mutant_v => ").then(chosen).push(" })"),
    }
}

/// What comes before the value of a field: another one, from the base of the struct.
pub(super) fn from_base(base: &str, path: &str, field: &Ident, mutant: &Mutant) -> Text {
    let is_place = base.chars().all(|c| c.is_alphanumeric() || "_*.".contains(c));
    let rest = if is_place { format!("({base})") } else { format!("{path} {{ ..{base} }}") };
    let asked = Text::default().push("if ").push(&on(mutant.id)).push(" { ");
    asked.push_of(mutant.id, &format!("{rest}.{field}")).push(" } else { ")
}
