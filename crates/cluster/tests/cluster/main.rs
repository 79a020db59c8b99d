//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod processes;
mod search;

// What they share.
mod common;
