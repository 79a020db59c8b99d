//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod apart;
mod bad_input;
mod checkpoints;
mod contents;
mod drop_in;
mod interchangeable;
mod interrupts;
mod known_states;
mod litmus;
mod livelock;
mod locks;
mod monitors;
mod moves;
mod protection_keys;
mod protocol;
mod reduction;
mod replay;
mod rules;
mod sampling;
mod shortest;
mod together;
mod translation;
mod weaken;
