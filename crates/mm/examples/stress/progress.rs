//! How far the run is, for who looks at a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Says every second how many of `all` operations are done, until the run is over.
pub(crate) fn show(done: &AtomicU64, all: u64, is_over: &AtomicBool) {
    let mut terminal = stderr();
    if !terminal.is_terminal() {
        return;
    }
    while !is_over.load(Ordering::Relaxed) {
        let done = done.load(Ordering::Relaxed).min(all);
        // A terminal that has gone away is no reason to end the run.
        let _ = write!(terminal, "\r{done} of {all} operations, {} %", done * 100 / all.max(1));
        thread::park_timeout(Duration::from_secs(1));
    }
    let _ = write!(terminal, "\r{:60}\r", "");
}
