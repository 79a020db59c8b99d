//! From text to [`Litmus`].

mod condition;
mod cursor;
mod frame;
mod initial;
mod instruction;
mod operand;
mod operation;
mod shape;

use crate::error::{Error, Problem};
use crate::source::{Source, Span};
use crate::syntax::Litmus;

/// Parses a litmus test.
///
/// # Errors
/// The first thing that is not as the grammar says, with its place.
pub fn parse(source: &Source) -> Result<Litmus, Error> {
    let bytes = source.text().len() as u64;
    if bytes > crate::MAX_FILE_BYTES {
        return Err(Error::new(source, Span::default(), Problem::TooLarge { found: bytes }));
    }
    frame::litmus(&mut cursor::Cursor::new(source))
}
