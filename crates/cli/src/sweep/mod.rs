//! A race at every scope of a range.

mod range;
mod row;

pub(crate) use range::{Job, Range};
pub(crate) use row::{Row, Sweep, bits};
