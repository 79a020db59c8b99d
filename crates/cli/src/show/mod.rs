//! How answers look as text.

pub(crate) mod columns;
pub(crate) mod number;
pub(crate) mod palette;
pub(crate) mod scopes;
pub(crate) mod states;
pub(crate) mod step;
pub(crate) mod verdict;
pub(crate) mod width;
