//! Huge pages: how they become small ones and small ones become huge.
//!
//! | module | what |
//! |---|---|
//! | `split_leaf` | a huge leaf becomes a table of smaller ones; the folio stays as it is |
//! | `collapse` | small pages become a huge one |
//! | `retract` | a table of a file's pages goes |
//! | `share` | two address spaces use one table |
//! | `counts` | what that does to the folio's counts |

mod collapse;
mod counts;
pub(crate) mod error;
mod retract;
mod share;
mod split_leaf;

use pagetable::Level;

/// The order of a folio that a leaf of 2 MiB maps.
pub(crate) const HUGE_ORDER: u8 = Level::Pmd.frames().trailing_zeros() as u8;
