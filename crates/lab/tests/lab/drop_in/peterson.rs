// Peterson's lock, written for `std::sync::atomic`. Included where `AtomicBool`, `AtomicUsize`, `Ordering`, `fence` and `spin_loop` mean those of `std`, or those of the lab.

/// A lock for two.
pub(crate) struct Peterson {
    pub(crate) wants: [AtomicBool; 2],
    pub(crate) turn: AtomicUsize,
}

impl Peterson {
    pub(crate) const fn new() -> Self {
        Self { wants: [AtomicBool::new(false), AtomicBool::new(false)], turn: AtomicUsize::new(0) }
    }

    /// Waits while the other one wants in and it is his turn. Without the fence both stores may still wait in the store buffer when the other's are looked at.
    pub(crate) fn lock(&self, me: usize, fences: Fences) {
        let other = 1 - me;
        self.wants[me].store(true, Ordering::Release);
        self.turn.store(other, Ordering::Release);
        if fences == Fences::Kept {
            fence(Ordering::SeqCst);
        }
        while self.wants[other].load(Ordering::Acquire) && self.turn.load(Ordering::Acquire) == other {
            spin_loop();
        }
    }

    pub(crate) fn unlock(&self, me: usize) {
        self.wants[me].store(false, Ordering::Release);
    }
}
