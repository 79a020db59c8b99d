//! A frame buffer that moves between the card's memory and the system's, while three CPUs draw into it and a fourth wants to do direct I/O from it.
//!
//! ```text
//! cargo run --release -p fastgup-ttm --example frame_buffer
//! ```
//!
//! Nothing that was drawn may be lost, and fast GUP must refuse the pages of the card, whatever the size of the leaf that maps them: without a page record, or with
//! one that is nobody's to count, a pin would be worth nothing the next time that the buffer moves.

#[path = "../../tests/ttm/card/mod.rs"]
#[allow(dead_code, reason = "tests use the rest of it")]
mod card;
mod show;

use std::process::ExitCode;

fn main() -> ExitCode {
    let report = show::show(60);
    for line in &report.lines {
        println!("{line}");
    }
    for broken in &report.broken {
        println!("NOT TRUE: {broken}");
    }
    if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
