//! The tests of the package from outside, in one program: each program compiles and links what it tests anew.

mod command_line;
mod debugger;
mod hosts;
mod long_work;
mod needed;
mod one_source;
mod page;
mod readme;
mod replay;
mod sweep;

// What they share.
mod program;
