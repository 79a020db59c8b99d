//! What a thread's words of pages must hold.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many zaps of a page have begun, and how many have ended.
#[derive(Default)]
pub(crate) struct Zaps {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Zaps {
    /// Runs `zap`, which may empty the page.
    pub(crate) fn during<R>(pages: &[Self], zap: impl FnOnce() -> R) -> R {
        for page in pages {
            page.begun.fetch_add(1, Ordering::SeqCst);
        }
        let result = zap();
        for page in pages {
            page.ended.fetch_add(1, Ordering::SeqCst);
        }
        result
    }

    /// To be taken before a store: which zaps cannot undo it any more.
    pub(crate) fn over(&self) -> Over {
        Over(self.ended.load(Ordering::SeqCst))
    }

    /// Whether a zap may have emptied the page since.
    pub(crate) fn since(&self, over: Over) -> bool {
        self.begun.load(Ordering::SeqCst) > over.0
    }
}

/// The zaps that were over at some moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Over(u64);

/// What one thread's word of one page must hold.
#[derive(Clone, Copy, Default)]
pub(crate) struct Word {
    value: u64,
    over: Over,
}

impl Word {
    /// The word was stored to; `over` was taken before.
    pub(crate) fn stored(&mut self, value: u64, over: Over) {
        *self = Self { value, over };
    }

    /// The word was loaded. `what` says where, if it is wrong.
    ///
    /// # Panics
    /// It holds what it cannot hold.
    pub(crate) fn loaded(&mut self, found: u64, zaps: &Zaps, what: impl FnOnce() -> String) {
        if found == self.value {
            return;
        }
        assert!(
            found == 0 && zaps.since(self.over),
            "{}: found {found:#x} where {:#x} was stored{}",
            what(),
            self.value,
            if zaps.since(self.over) { ", and a zap can only have left 0" } else { ", and nobody zapped it" },
        );
        self.value = 0;
    }

    /// What was stored last, as far as this thread knows.
    pub(crate) const fn value(&self) -> u64 {
        self.value
    }

    /// Which zaps were over before that.
    pub(crate) const fn over(&self) -> Over {
        self.over
    }
}
