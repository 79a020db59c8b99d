//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod against_simulator;
mod catalogue;
mod deciding;
mod documents;
mod errors;
mod kernel;
mod malformed;
mod on_hardware;
mod published;
mod published_x86;
mod round_trip;
mod saved_runs;
mod scopes;
mod second_engine;
mod verdicts;
mod x86_semantics;

// What they share.
mod folder;
