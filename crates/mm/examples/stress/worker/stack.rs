//! A thread's stack grows.

use std::sync::atomic::Ordering;

use machine::{Access, Word};
use mm::MapError;

use super::Worker;
use crate::contents::{Over, Word as Content, Zaps};
use crate::kernel::{Kernel, SHARED, STACK_PAGES, stack};
use crate::tally::Came;

impl Worker<'_> {
    /// The thread's stack is used some pages deeper, and what is above is as it was left; a stack that is as large as it gets is given back, and begins anew.
    pub(super) fn stack(&mut self) {
        let at = |worker: &Self, page: u64| worker.address(stack(worker.number, page), 0);
        for _ in 0..4 {
            self.stack_used = (self.stack_used + 1 + self.random.below(8)).min(STACK_PAGES);
            let (page, value) = (self.stack_used - 1, self.fresh());
            let store = |word: &machine::Word64| word.atomic_store(value, Ordering::SeqCst);
            let stored = self.kernel.access(&self.cpu, SHARED, at(self, page), Access::Write, store);
            assert!(stored.is_some(), "nothing is in the way of the thread's stack");
            self.stack[page as usize].stored(value, Over::default());
            let page = self.random.below(self.stack_used);
            let found = self.load_word(SHARED, at(self, page));
            self.stack[page as usize].loaded(found, &Zaps::default(), || format!("a load of page {page} of its stack"));
        }
        self.tally.count("growing stack", Came::Done);
        if self.stack_used < STACK_PAGES {
            return;
        }
        let start = stack(self.number, STACK_PAGES - 1);
        let unmapped = self.kernel.mm.munmap(&self.cpu, SHARED, start, STACK_PAGES);
        self.tally.count("munmap of a stack", Came::from(&unmapped));
        if unmapped.is_err() {
            return;
        }
        loop {
            match self.kernel.mm.mmap(&self.cpu, SHARED, Kernel::stack_area(self.number)) {
                Ok(()) => break,
                // Others may have taken the slots for pieces of theirs.
                Err(MapError::SpaceFull | MapError::FileFull) => {}
                Err(error) => panic!("a thread's stack at an address of its own: {error:?}"),
            }
        }
        self.stack_used = 0;
        self.stack.fill(Content::default());
    }
}
