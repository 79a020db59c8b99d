//! Runs on machines that are put together here, word by word.

mod following;
mod paged;
mod random;
