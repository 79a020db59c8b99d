// A ring of one producer and one consumer, written for `std::sync::atomic`.

/// Two slots; `head` and `tail` count for ever.
pub(crate) struct Ring {
    pub(crate) slots: [AtomicU64; 2],
    pub(crate) head: AtomicUsize,
    pub(crate) tail: AtomicUsize,
}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [AtomicU64::new(0), AtomicU64::new(0)],
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    pub(crate) fn push(&self, value: u64, publication: Publication) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head.load(Ordering::Acquire)) == self.slots.len() {
            return false;
        }
        if publication == Publication::First {
            self.tail.store(tail + 1, Ordering::Release);
        }
        self.slots[tail % 2].store(value, Ordering::Relaxed);
        if publication == Publication::Last {
            self.tail.store(tail + 1, Ordering::Release);
        }
        true
    }

    pub(crate) fn pop(&self) -> Option<u64> {
        let head = self.head.load(Ordering::Relaxed);
        if head == self.tail.load(Ordering::Acquire) {
            return None;
        }
        let value = self.slots[head % 2].load(Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        Some(value)
    }
}
