//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod accessed_dirty;
mod encodings;
mod flush;
mod interrupted;
mod locked;
mod malformed;
mod model;
mod protocols;
mod ptdump;
mod saved_dirty;
mod sdm;
mod software_bits;
mod visit;

// What they share.
mod common;
