//! Guards come and go in memory that all threads access.

use machine::addr::PAGE_SIZE;

use super::Worker;
use crate::contents::Zaps;
use crate::kernel::{PRIVATE, PRIVATE_PAGES, SHARED};
use crate::tally::Came;

impl Worker<'_> {
    /// Some pages are guarded, which empties them, and are not any more. Who accesses them meanwhile waits; who pins them is refused.
    pub(super) fn guards(&mut self, page: u64) {
        let pages = 1 + self.random.below(8).min(PRIVATE_PAGES - page - 1);
        let start = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let zaps = &self.kernel.zaps[page as usize..(page + pages) as usize];
        let (mm, space) = (self.kernel.mm, self.kernel.space(SHARED));
        let installed = Zaps::during(zaps, || mm.install_guards(&self.cpu, space, start, pages));
        self.tally.count("install guards", Came::from(&installed));
        let removed = mm.remove_guards(&self.cpu, space, start, pages);
        self.tally.count("remove guards", Came::from(&removed));
        removed.expect("the tables are whole, and removing needs no frame");
    }
}
