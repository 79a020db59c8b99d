//! The steps of `cargo xtask test`, one file per kind.

mod failures;
pub(crate) mod kernel;
pub(crate) mod lint;
mod listen;
pub(crate) mod loom;
pub(crate) mod miri;
pub(crate) mod no_std;
pub(crate) mod runners;
pub(crate) mod seed;
pub(crate) mod stress;

use std::process::Command;

use anyhow::Result;
use boot::Mode;

use crate::tally::{Counts, Tally};
use failures::failures_in;
use listen::listen;

/// The packages that must build without the standard library.
pub(crate) const ENGINE: [&str; 4] = ["fastgup-machine", "fastgup-pagetable", "fastgup-mm", "fastgup-ttm"];

/// Runs a command that either succeeds or fails as a whole.
fn whole(command: &mut Command) -> Result<Tally> {
    let heard = listen(command)?;
    if heard.status.success() {
        return Ok(Tally { counts: Counts::PASSED, failures: Vec::new() });
    }
    Ok(Tally { counts: Counts::FAILED, failures: failures_in(&heard, &words_of(command)) })
}

/// Does something with the compiler for every image, side by side: most of it is to compile `core`, one crate for each target, which takes one core.
fn for_each_mode<R: Send>(work: impl Fn(Mode) -> R + Sync) -> Vec<(Mode, R)> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads = Mode::ALL.map(|mode| (mode, scope.spawn(move || work(mode))));
        threads.into_iter().map(|(mode, thread)| (mode, thread.join().expect("no step panics"))).collect()
    })
}

/// The command as it is typed.
fn words_of(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
