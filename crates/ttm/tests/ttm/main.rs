//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod dirty;
mod engines;
mod frame_buffer;
mod lab;
mod lab_mapped;
mod objects;
mod pressure;
mod quarantine;
mod wrong_frames;
mod ww;

// What they share.
mod card;
