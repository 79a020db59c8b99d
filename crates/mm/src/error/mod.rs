//! What can go wrong, with what a caller needs to mend it.
//!
//! | module | errors |
//! |---|---|
//! | `range` | of ranges, and of what is done entry by entry |
//! | `fault` | of faults |
//! | `gup` | of references: got, added and given back |
//! | `areas` | of areas and address spaces |
//! | `keys` | of protection keys |
//! | `reclaim` | of folios that are to leave their frames |

mod areas;
mod fault;
mod gup;
mod keys;
mod range;
mod reclaim;

pub use areas::{AreaError, ForkError, MapError, PopulateError};
pub use fault::FaultError;
pub use gup::{AddPinError, GupError, PinFileError, ReleaseError};
pub use keys::KeyError;
pub use range::{RangeError, ZapError};
pub use reclaim::ReclaimError;

pub use crate::huge::error::{CollapseError, FolioSplitError, RetractError, ShareError, SplitError};
