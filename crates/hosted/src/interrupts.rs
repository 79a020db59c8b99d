//! Interrupts among threads: who runs a handler, and why never inside an interrupts-off section of its CPU.
//!
//! # Protocol
//!
//! Every CPU `t` has, in one cache line, the flag `off` (interrupts are off), written by its own thread only, and the word
//! `mailbox`: pending vectors, and a *claim*, the right to run `t`'s handlers.
//!
//! | who | does |
//! |---|---|
//! | `t` enters a section | **E1** `off := 1`; **E2** load `mailbox`; while it is claimed, wait |
//! | `t` leaves a section | **L1** `off := 0`; **L2** load `mailbox`; while it is claimed, wait; if something is pending: claim, run handlers, release |
//! | a sender | **S1** atomically set the vector pending and claim; if it was claimed already, done; **S2** [heavy fence](crate::fences); **S3** load `off`. If 0: run the handlers of everything pending until nothing is, and release (by a compare-exchange, so that nothing comes between). Else: release, leaving what is pending |
//!
//! # Why a handler never overlaps a section
//!
//! 1. Two handlers of `t` exclude each other by the claim, which is taken and released by atomic read-modify-writes.
//! 2. Let a sender run a handler, having claimed at S1, and having seen `off = 0` at S3. The heavy fence put a full fence into `t`'s thread at some point
//!    `f` between S1 and S3 (or `t` was not running, and was fenced when it was switched out). A section whose E2 lies after `f` sees the claim, and waits until it is released;
//!    a section that starts after that is no concern of this claim. A section whose E2 lies before `f` has its E1 before `f`, too, so the
//!    store is visible at S3. As S3 read 0, the section's L1 was visible as well: it had ended. With symmetric fences the same
//!    follows from the fences between E1 and E2, and between S1 and S3, in the single order of all `SeqCst` fences.
//! 3. A handler that `t` runs itself at L2 runs outside the section by program order, under the claim.
//! 4. What the section wrote is visible to the handler (`off := 0` is a release, S3 an acquire), and the other way round (releasing the claim,
//!    and E2).
//!
//! # Why no interrupt is lost
//!
//! A vector is left pending only by a release after an S3 that saw `off = 1`. The section that it saw had its L1 not yet visible, so its L2 comes after `f`
//! (else L1 would come before `f`, too, and have been visible). So this L2 sees the claim still held, waits for the release, and looks again; or
//! it comes after the release. Either way it sees every vector that was posted before the release, and takes it. A sender that finds the
//! mailbox claimed at S1 may go: its vector was posted before the holder's release, which therefore ran it or left it to that L2. (A vector
//! posted twice before it is taken is taken once, as in an APIC's IRR: SDM vol. 3A, 11.8.4.)
//!
//! # Why nobody waits for ever
//!
//! `t` waits at E2 and L2 only for a claim, and a claim is held only while handlers run, which wait for nothing (the rule for handlers in the
//! crate's documentation). Senders never wait.
//!
//! # Where this differs from hardware
//!
//! A handler runs *while* code of its own CPU that has interrupts on goes on, not between two of its instructions. The difference cannot be seen by
//! code that touches what it shares with handlers only with interrupts off, which is what hardware asks for, too. Before the handler runs, everything that its CPU stored
//! up to the fence is visible, as before a real interrupt.

use std::sync::Arc;

use machine::{CpuId, CpuSet, Vector};

use crate::backoff::Backoff;
use crate::line::Line;
use crate::thread_cpu::ThreadCpu;
use crate::threads::Threads;

impl Threads {
    /// Raises `vector` on each of `targets`; runs the handlers of those that have interrupts on.
    pub(crate) fn interrupt(self: &Arc<Self>, targets: CpuSet, vector: Vector) {
        let mut claimed = CpuSet::EMPTY;
        for target in targets.iter() {
            // An IPI to a CPU that does not exist is lost.
            let Some(slot) = self.slots().get(target.index()) else { continue };
            slot.statistics.count_ipi();
            if slot.line.post_and_claim(vector) {
                claimed = claimed.with(target);
            }
        }
        if claimed.is_empty() {
            return;
        }
        self.fences().heavy();
        for target in claimed.iter() {
            let line = &self.slot(target).line;
            if line.irqs_are_on() {
                self.run_handlers(target);
            } else {
                line.release();
            }
        }
    }

    /// Step L2, once it has seen that there is something: takes what is pending on `cpu`, the caller's own.
    #[cold]
    pub(crate) fn take_interrupts(self: &Arc<Self>, cpu: CpuId) {
        let line = &self.slot(cpu).line;
        line.fence_if_symmetric();
        let mut backoff = Backoff::default();
        loop {
            let seen = line.mailbox();
            if seen.is_claimed() {
                backoff.wait();
            } else if !seen.is_pending() {
                return;
            } else if line.claim(seen) {
                self.run_handlers(cpu);
            }
        }
    }

    /// Runs handlers of `cpu` until nothing is pending, and gives the claim back, which the caller holds.
    fn run_handlers(self: &Arc<Self>, cpu: CpuId) {
        let line = &self.slot(cpu).line;
        let claim = AbandonOnPanic(line);
        let as_handler = ThreadCpu::in_handler(Arc::clone(self), cpu);
        loop {
            for vector in line.take_pending().vectors() {
                (self.handler())(&as_handler, vector);
            }
            if line.release_if_nothing_pends() {
                break;
            }
        }
        std::mem::forget(claim);
    }
}

/// Gives the claim back when a handler panics: else its CPU would hang in its next section.
struct AbandonOnPanic<'l>(&'l Line);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
