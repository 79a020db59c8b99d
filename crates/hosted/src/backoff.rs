//! How a thread waits: a few pauses, then it lets others run.

use crate::sync::{spin_loop, yield_now};

/// One wait. The CPU waited for may be a thread that is not running, so pausing alone could burn a whole time slice.
#[derive(Default)]
pub(crate) struct Backoff {
    rounds: u32,
}

impl Backoff {
    /// About 5 microseconds of `pause` on a processor where one takes 40 ns.
    const PAUSES: u32 = 128;

    pub(crate) fn wait(&mut self) {
        if self.rounds < Self::PAUSES && !cfg!(any(miri, loom)) {
            self.rounds += 1;
            spin_loop();
        } else {
            yield_now();
        }
    }

    /// Waits until `ready` says so.
    #[cold]
    pub(crate) fn until(mut ready: impl FnMut() -> bool) {
        let mut backoff = Self::default();
        while !ready() {
            backoff.wait();
        }
    }
}
