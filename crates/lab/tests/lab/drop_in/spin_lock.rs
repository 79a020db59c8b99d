// A spin lock that tests before it sets, written for `std::sync::atomic`.

pub(crate) struct SpinLock {
    pub(crate) held: AtomicBool,
}

impl SpinLock {
    pub(crate) const fn new() -> Self {
        Self { held: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) {
        while self.held.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.held.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
    }

    pub(crate) fn unlock(&self) {
        self.held.store(false, Ordering::Release);
    }
}
