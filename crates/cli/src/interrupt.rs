//! Ctrl-C: the first ends the search and lets what is decided be printed, the second ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// Why the search should end, if it should.
#[derive(Clone)]
pub(crate) struct Interrupt {
    /// Set by Ctrl-C.
    by_user: Arc<AtomicBool>,
    /// What the search looks at: set by Ctrl-C and when the output is closed.
    cancel: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for Ctrl-C from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self { by_user: Arc::default(), cancel: Arc::default() };
        let interrupted = i32::from(Exit::Interrupted.code());
        // The order matters: the second Ctrl-C finds the flag that the first has set.
        signal_hook::flag::register_conditional_shutdown(
            signal_hook::consts::SIGINT,
            interrupted,
            interrupt.by_user.clone(),
        )?;
        for flag in [&interrupt.by_user, &interrupt.cancel] {
            signal_hook::flag::register(signal_hook::consts::SIGINT, flag.clone())?;
        }
        Ok(interrupt)
    }

    /// Ends the search now.
    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// The flag that the search looks at.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    /// Whether it was Ctrl-C.
    pub(crate) fn is_by_user(&self) -> bool {
        self.by_user.load(Ordering::Relaxed)
    }
}
