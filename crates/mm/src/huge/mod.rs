//! Huge pages: how they become small ones and small ones become huge.
//!
//! | module | what |
//! |---|---|
//! | `split_leaf` | a huge leaf becomes a table of smaller ones; the folio stays as it is |
//! | `counts` | what that does to the folio's counts |

mod counts;
mod split_leaf;
