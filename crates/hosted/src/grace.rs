//! Grace periods: waiting until every CPU has left the section it is in.
//!
//! # Protocol
//!
//! The machine has an *epoch*, a number that only grows. A thread that enters a section (interrupts off, or RCU) writes the epoch that it last
//! saw into its CPU's line, unless it is in one already, and 0 when it leaves the last. Who waits (**W1**) advances the epoch to `e`, (**W2**) executes the
//! [heavy fence](crate::fences), and (**W3**) waits, CPU by CPU, until the line shows 0 or an epoch of at least `e`.
//!
//! # Why that is a grace period
//!
//! Let a section have loaded something that was unlinked before W1. Then that load came before the fence `f` that W2 put into its thread (after
//! `f` it would have found the thing unlinked), so the store that entered the section came before `f`, too, and W3 sees it, or
//! what followed it. What it wrote is less than `e`, or it entered with an epoch loaded after W1 and then, the load being ordered after
//! W1, everything unlinked before is invisible to it. So W3 waits for it, until the store of 0 or of a later section, which are releases:
//! everything that the section did happened before W3 returns.
//!
//! A thread that loads the epoch and stops before writing it writes an old one later: then W3 waits for longer than it must, not shorter.
//!
//! Sections that begin after W1 carry the new epoch, so a CPU that enters sections back to back holds nobody up; and waiters need no
//! lock among each other. (Userspace RCU alternates a phase bit instead and waits twice: a 64-bit count that never wraps saves that.)
//!
//! A handler runs with its CPU's interrupts off, so it is a section as well. It shows as the claim in the CPU's mailbox.

use machine::CpuId;

use crate::backoff::Backoff;
use crate::sync::{AtomicU64, Ordering};
use crate::threads::Threads;

/// The machine's epoch, in a line of its own: every CPU reads it at each section, and only [`Threads::grace_period`] writes it.
#[repr(align(128))]
pub(crate) struct Epoch(AtomicU64);

impl Epoch {
    pub(crate) fn first() -> Self {
        Self(AtomicU64::new(1))
    }

    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn advance(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Threads {
    /// Waits until every CPU but `waiting` has left the section, if any, that it is in.
    pub(crate) fn grace_period(&self, waiting: CpuId) {
        let epoch = self.epoch().advance();
        self.fences().heavy();
        for (number, slot) in self.slots().iter().enumerate() {
            if number == waiting.index() {
                continue;
            }
            let line = &slot.line;
            Backoff::until(|| !line.is_in_section_older_than(epoch));
            let handling = line.mailbox();
            Backoff::until(|| !line.mailbox().is_same_claim(handling));
        }
    }
}
