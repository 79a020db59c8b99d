//! Fences of which one side pays for both.
//!
//! Sections (interrupts off, RCU) are entered often and waited for rarely. Both sides do the same dance: *store mine, then
//! load yours*, and the processor may let the load pass the store (x86-TSO: MODEL.md, F1). One full fence on either side
//! is not enough; it takes one on both. Linux can put a fence into the *other* threads of a process:
//! `membarrier(2)` with `MEMBARRIER_CMD_PRIVATE_EXPEDITED` returns after every running thread of the process has executed a full fence
//! (and a thread that is not running has executed one when it was switched out). So the frequent side keeps program
//! order by a compiler fence, and the rare side calls `membarrier`. Userspace RCU does the same (Desnoyers et al., "User-Level
//! Implementations of Read-Copy Update", IEEE TPDS 23(2), 2012, its `memb` flavour).

use crate::sync::{Ordering, fence};

/// Who executes the fences between entering a section and waiting for one. Chosen once, when a machine starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fences {
    /// The waiting side, for everybody, by `membarrier(2)`. Sections execute none.
    Asymmetric,
    /// Each side its own `mfence`. Works everywhere; entering and leaving a section costs some 5 to 10 ns more.
    Symmetric,
}

impl Fences {
    /// [`Self::Asymmetric`] where the system offers it (Linux 4.14 and later), else [`Self::Symmetric`].
    ///
    /// Registers the process with `membarrier(2)`; doing so again is harmless.
    pub fn best() -> Self {
        if register() { Self::Asymmetric } else { Self::Symmetric }
    }

    /// Orders the caller's earlier accesses before its later ones and, if asymmetric, does the same in every thread of the process at some
    /// moment during the call.
    pub(crate) fn heavy(self) {
        match self {
            Self::Asymmetric => fence_every_thread(),
            Self::Symmetric => fence(Ordering::SeqCst),
        }
    }
}

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
fn register() -> bool {
    use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
    membarrier_query().contains_command(MembarrierCommand::PrivateExpedited)
        && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
fn fence_every_thread() {
    use rustix::thread::{MembarrierCommand, membarrier};
    // Fails only if the process never registered (EPERM), which a forked child has not lost, or if the kernel lacks the
    // command: `Asymmetric` is only ever built by `best`, after both were found right.
    membarrier(MembarrierCommand::PrivateExpedited).expect("membarrier was registered when the machine started");
}

#[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
fn register() -> bool {
    false
}

#[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
fn fence_every_thread() {
    fence(Ordering::SeqCst);
}
