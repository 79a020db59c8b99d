//! One thread: it does something at random, and checks what it can.

mod guards;
mod stack;

use std::sync::atomic::{AtomicU64, Ordering};

use hosted::ThreadCpu;
use machine::addr::PAGE_SIZE;
use machine::{Access, CpuId, Frame, VirtAddr, Word};
use mm::{AreaRights, Foll, ForkError, MapError, Run, SpaceId, Usage};

use crate::contents::{Over, Word as Content, Zaps};
use crate::kernel::{
    CACHED, DEVICE, DRIVER, FILE, FILE_PAGES, Kernel, OWN_PAGES, PRIVATE, PRIVATE_PAGES, SHARED, STACK_PAGES, own,
};
use crate::random::Random;
use crate::tally::{Came, Tally};

/// How many operations a thread does between two looks at how many are left.
const BATCH: u64 = 1024;
/// How many runs a thread holds before it gives some back.
const MOST_HELD: usize = 24;

/// Only these are pinned, so that others can be moved, split and collapsed.
const PINNED_PAGES: u64 = PRIVATE_PAGES / 2;

/// A page that this thread has pinned.
struct Held {
    run: Run,
    /// Of the private area.
    page: u64,
    /// The zaps that were over when it was pinned.
    over: Over,
}

struct Worker<'k> {
    kernel: &'k Kernel,
    cpu: ThreadCpu,
    number: u32,
    random: Random,
    /// The next value to store: never 0, never the same twice.
    next: u64,
    private: Vec<Content>,
    file: Vec<Content>,
    /// Its own pages, which nobody else knows.
    own: Vec<Content>,
    /// Where they lie now.
    own_at: VirtAddr,
    /// The pages of its stack, the highest first.
    stack: Vec<Content>,
    /// How many of them its stack has grown to have, as far as the thread has used it.
    stack_used: u64,
    held: Vec<Held>,
    tally: Tally,
}

/// Works until all threads together have done `operations`.
pub(crate) fn run(kernel: &Kernel, number: u32, seed: u64, operations: u64, done: &AtomicU64) -> Tally {
    let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has this CPU");
    let mut worker = Worker {
        kernel,
        cpu,
        number,
        random: Random::new(seed, number),
        next: (u64::from(number) + 1) << 56,
        private: vec![Content::default(); PRIVATE_PAGES as usize],
        file: vec![Content::default(); FILE_PAGES as usize],
        own: vec![Content::default(); OWN_PAGES as usize],
        own_at: own(number),
        stack: vec![Content::default(); STACK_PAGES as usize],
        stack_used: 0,
        held: Vec::new(),
        tally: Tally::default(),
    };
    kernel.mm.enter(&worker.cpu, kernel.space(SHARED));
    while done.fetch_add(BATCH, Ordering::Relaxed) < operations {
        for _ in 0..BATCH {
            worker.step();
        }
    }
    worker.release(0);
    worker.tally
}

impl Worker<'_> {
    fn step(&mut self) {
        let page = self.random.below(PRIVATE_PAGES);
        match self.random.below(1000) {
            0..250 => self.store(page),
            250..500 => self.load(page),
            500..560 => self.store_to_file(),
            560..620 => self.load_from_file(),
            620..740 => self.pin(page % PINNED_PAGES, Access::Write),
            740..820 => self.pin(page % PINNED_PAGES, Access::Read),
            820..900 => self.by_device(),
            900..940 => self.release(MOST_HELD / 2),
            940..969 => self.zap(page),
            969..970 => self.zap_huge(page),
            970..976 => self.write_protect(page),
            976..980 => self.split(page),
            980..981 => self.collapse(page),
            981..983 => self.reclaim(),
            983..986 => self.own_stores(),
            986..990 => self.own_loads(),
            990..992 => self.unmap_mapping(),
            992..994 => self.driver(),
            994..995 => self.remap_file(),
            995..996 => self.own_moves(),
            996..997 => self.own_rights(),
            997 if self.random.below(2) == 0 => self.fork(),
            997 => self.harvest(page),
            998 if self.random.below(2) == 0 => self.stack(),
            998 => self.guards(page),
            _ => self.fail_an_allocation(),
        }
        if self.held.len() > MOST_HELD {
            self.release(MOST_HELD / 2);
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Where this thread's word of a page lies.
    const fn offset(&self) -> u64 {
        self.number as u64 * 8
    }

    fn address(&self, area: VirtAddr, page: u64) -> VirtAddr {
        area.wrapping_add(page * PAGE_SIZE + self.offset())
    }

    fn store(&mut self, page: u64) {
        let value = self.fresh();
        let over = self.kernel.zaps[page as usize].over();
        let at = self.address(PRIVATE, page);
        let stored =
            self.kernel.access(&self.cpu, SHARED, at, Access::Write, |word| word.atomic_store(value, Ordering::SeqCst));
        assert!(stored.is_some(), "the private area is always there");
        self.private[page as usize].stored(value, over);
        self.tally.count("store", Came::Done);
    }

    fn load(&mut self, page: u64) {
        let at = self.address(PRIVATE, page);
        let found = self.kernel.access(&self.cpu, SHARED, at, Access::Read, |word| word.atomic_load(Ordering::SeqCst));
        let found = found.expect("the private area is always there");
        self.private[page as usize]
            .loaded(found, &self.kernel.zaps[page as usize], || format!("a load of private page {page}"));
        self.tally.count("load", Came::Done);
    }

    fn store_to_file(&mut self) {
        let page = self.random.below(FILE_PAGES);
        let value = self.fresh();
        let at = self.address(FILE, page);
        let stored =
            self.kernel.access(&self.cpu, SHARED, at, Access::Write, |word| word.atomic_store(value, Ordering::SeqCst));
        if stored.is_some() {
            self.file[page as usize].stored(value, Over::default());
        }
        self.tally.count("store to a file", if stored.is_some() { Came::Done } else { Came::Refused });
    }

    fn load_from_file(&mut self) {
        let page = self.random.below(FILE_PAGES);
        let at = self.address(FILE, page);
        let found = self.kernel.access(&self.cpu, SHARED, at, Access::Read, |word| word.atomic_load(Ordering::SeqCst));
        if let Some(found) = found {
            // Nobody takes a page out of the file: its contents stay, mapped or not.
            self.file[page as usize].loaded(found, &Zaps::default(), || format!("a load of file page {page}"));
        }
        self.tally.count("load from a file", if found.is_some() { Came::Done } else { Came::Refused });
    }

    /// Pins some pages, and accesses the first of each run as a device would.
    fn pin(&mut self, page: u64, access: Access) {
        let pages = 1 + self.random.below(8).min(PINNED_PAGES - page - 1);
        let over: Vec<Over> = (page..page + pages).map(|page| self.kernel.zaps[page as usize].over()).collect();
        let start = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let flags = match access {
            Access::Read => Foll::PIN,
            Access::Write => Foll::PIN | Foll::WRITE,
        };
        let mut runs = Vec::new();
        let got = self.kernel.mm.gup(&self.cpu, self.kernel.space(SHARED), start, pages, flags, |run| runs.push(run));
        self.tally.count(if access == Access::Write { "pin to write" } else { "pin to read" }, Came::from(&got));
        let mut next = page;
        for run in runs {
            let held = Held { page: next, over: over[(next - page) as usize], run };
            next += u64::from(held.run.pages());
            self.device_access(&held, access);
            self.held.push(held);
        }
        assert_eq!(next - page, got.unwrap_or(0), "as many pages are handed out as are reported");
    }

    /// A device writes the page, or reads it: it sees what user code stored, and user code will see what it wrote, unless the page was zapped since it was pinned.
    fn device_access(&mut self, held: &Held, access: Access) {
        let (zaps, page) = (&self.kernel.zaps[held.page as usize], held.page);
        let (frame, offset) = (held.run.frame(), self.offset());
        if self.kernel.data.frames().start == frame.number() {
            // The zero page: a store replaces it, and a short pin for reading does not ask for more (Linux: only FOLL_LONGTERM does).
            return;
        }
        if zaps.since(held.over) {
            // The pinned page may no longer be the one that is mapped.
            return;
        }
        match access {
            Access::Write => {
                let value = self.fresh();
                self.kernel.data.write(frame, offset, value);
                self.private[page as usize].stored(value, held.over);
            }
            Access::Read => {
                let found = self.kernel.data.read(frame, offset);
                let content = &mut self.private[page as usize];
                let before = content.over();
                // The page may be from before a zap of which this thread's word knows nothing yet.
                if zaps.since(held.over) || zaps.since(before) {
                    return;
                }
                assert_eq!(found, content.value(), "a device reads private page {page} through a pin");
            }
        }
    }

    /// A device accesses a page that was pinned earlier.
    fn by_device(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.below(self.held.len() as u64) as usize;
        let held = self.held.swap_remove(index);
        self.device_access(&held, Access::Read);
        self.held.push(held);
        self.tally.count("device access", Came::Done);
    }

    /// Gives runs back until `keep` are left.
    fn release(&mut self, keep: usize) {
        while self.held.len() > keep {
            let index = self.random.below(self.held.len() as u64) as usize;
            let held = self.held.swap_remove(index);
            let released = self.kernel.mm.release(&self.cpu, held.run, Access::Write);
            released.expect("what was pinned can be released");
            self.tally.count("release", Came::Done);
        }
    }

    fn zap(&mut self, page: u64) {
        let pages = 1 + self.random.below(4).min(PRIVATE_PAGES - page - 1);
        self.zap_pages(page, pages);
    }

    /// All pages that one huge leaf can map: the next fault there maps one.
    fn zap_huge(&mut self, page: u64) {
        self.zap_pages(page / 512 * 512, 512);
    }

    fn zap_pages(&mut self, page: u64, pages: u64) {
        let start = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let zaps = &self.kernel.zaps[page as usize..(page + pages) as usize];
        let space = self.kernel.space(SHARED);
        let zapped = Zaps::during(zaps, || self.kernel.mm.zap(&self.cpu, space, start, pages));
        self.tally.count("zap", Came::from(&zapped));
    }

    fn write_protect(&mut self, page: u64) {
        let start = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let done = self.kernel.mm.write_protect(&self.cpu, self.kernel.space(SHARED), start, 1);
        self.tally.count("write-protect", Came::from(&done));
    }

    fn split(&mut self, page: u64) {
        let at = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let split = self.kernel.mm.split_leaf(&self.cpu, self.kernel.space(SHARED), at);
        self.tally.count("split a huge leaf", Came::from(&split));
    }

    fn unmap_mapping(&mut self) {
        let first = self.random.below(FILE_PAGES);
        let pages = 1 + self.random.below(16);
        if let Some(file) = self.kernel.mm.file(CACHED) {
            let done = self.kernel.mm.unmap_mapping(&self.cpu, file, first, pages);
            self.tally.count("zap by rmap", Came::from(&done));
        }
    }

    /// A driver's page: mapped, refused to GUP, revoked.
    fn driver(&mut self) {
        let space = self.kernel.space(SHARED);
        let fault =
            machine::PageFault { address: DEVICE, access: Access::Write, cause: machine::user::FaultCause::NotPresent };
        let faulted = self.kernel.mm.handle_fault(&self.cpu, space, fault);
        self.tally.count("driver's fault", Came::from(&faulted));
        let got = self.kernel.mm.gup(&self.cpu, space, DEVICE, 1, Foll::PIN | Foll::FAST_ONLY, |_| ());
        assert_eq!(got, Ok(0), "fast GUP takes no driver's page");
        let Some(file) = self.kernel.mm.file(DRIVER) else { return };
        let revoked = self.kernel.mm.revoke(&self.cpu, file, 0, 512, |frames| frames.get(0));
        self.tally.count("revoke", Came::from(&revoked));
    }

    fn remap_file(&mut self) {
        let unmapped = self.kernel.mm.munmap(&self.cpu, SHARED, FILE, FILE_PAGES);
        self.tally.count("munmap", Came::from(&unmapped));
        let mapped = self.kernel.mm.mmap(&self.cpu, SHARED, self.kernel.file_area());
        self.tally.count("mmap", Came::from(&mapped));
    }

    fn collapse(&mut self, page: u64) {
        let at = PRIVATE.wrapping_add(page / 512 * 512 * PAGE_SIZE);
        let collapsed = self.kernel.mm.collapse(&self.cpu, self.kernel.space(SHARED), at, 511);
        self.tally.count("collapse", Came::from(&collapsed));
    }

    /// A folio somewhere, whoever has it, is swapped out, moved to other frames or split.
    fn reclaim(&mut self) {
        let frames = self.kernel.data.frames();
        let frame = Frame::new(frames.start + self.random.below(frames.end - frames.start));
        match self.random.below(3) {
            0 => self.tally.count("swap out", Came::from(&self.kernel.mm.swap_out(&self.cpu, frame))),
            1 => self.tally.count("migrate", Came::from(&self.kernel.mm.migrate(&self.cpu, frame))),
            _ => self.tally.count("split a folio", Came::from(&self.kernel.mm.split_folio(&self.cpu, frame))),
        }
    }

    fn own_stores(&mut self) {
        for _ in 0..8 {
            let page = self.random.below(OWN_PAGES);
            let value = self.fresh();
            let at = self.address(self.own_at, page);
            let store = |word: &machine::Word64| word.atomic_store(value, Ordering::SeqCst);
            let stored = self.kernel.access(&self.cpu, SHARED, at, Access::Write, store);
            assert!(stored.is_some(), "the thread's own area is there");
            self.own[page as usize].stored(value, Over::default());
        }
        self.tally.count("stores to its own", Came::Done);
    }

    fn own_loads(&mut self) {
        for _ in 0..8 {
            let page = self.random.below(OWN_PAGES);
            let at = self.address(self.own_at, page);
            let found =
                self.kernel.access(&self.cpu, SHARED, at, Access::Read, |word| word.atomic_load(Ordering::SeqCst));
            let found = found.expect("the thread's own area is there");
            self.own[page as usize].loaded(found, &Zaps::default(), || format!("a load of its own page {page}"));
        }
        self.tally.count("loads from its own", Came::Done);
    }

    /// The thread's own pages move to other addresses, with what is in them.
    fn own_moves(&mut self) {
        let to = own(self.number).wrapping_add(self.random.below(1 << 8) * OWN_PAGES * PAGE_SIZE);
        let moved = self.kernel.mm.mremap(&self.cpu, SHARED, (self.own_at, OWN_PAGES), (to, OWN_PAGES));
        self.tally.count("mremap", Came::from(&moved));
        if moved.is_ok() {
            self.own_at = to;
            return;
        }
        // A change of rights has cut the area in pieces, which do not move as one. It begins anew.
        let unmapped = self.kernel.mm.munmap(&self.cpu, SHARED, self.own_at, OWN_PAGES);
        self.tally.count("munmap", Came::from(&unmapped));
        if unmapped.is_ok() {
            // Others may have taken the slots for pieces of theirs. They give them back here, too.
            loop {
                let mapped = self.kernel.mm.mmap(&self.cpu, SHARED, Kernel::own_area(self.number, to));
                self.tally.count("mmap", Came::from(&mapped));
                match mapped {
                    Ok(()) => break,
                    Err(MapError::SpaceFull | MapError::FileFull) => {}
                    Err(error) => panic!("a thread's own area at an address of its own: {error:?}"),
                }
            }
            self.own_at = to;
            self.own.fill(Content::default());
        }
    }

    /// Part of the thread's own pages loses its rights, and gets them back.
    fn own_rights(&mut self) {
        let first = self.random.below(OWN_PAGES);
        let pages = 1 + self.random.below(OWN_PAGES - first);
        let start = self.own_at.wrapping_add(first * PAGE_SIZE);
        let rights = [AreaRights::None, AreaRights::Read][self.random.below(2) as usize];
        let taken = self.kernel.mm.mprotect(&self.cpu, SHARED, start, pages, rights);
        self.tally.count("mprotect", Came::from(&taken));
        loop {
            let given = self.kernel.mm.mprotect(&self.cpu, SHARED, start, pages, AreaRights::ReadWrite);
            self.tally.count("mprotect", Came::from(&given));
            if given.is_ok() {
                return;
            }
        }
    }

    /// A child sees what this thread stored; what it stores itself the parent does not see.
    fn fork(&mut self) {
        let Kernel { mm, .. } = *self.kernel;
        let child = SpaceId::new(self.number as u16 + 1);
        let forked = mm.fork(&self.cpu, SHARED, child);
        self.tally.count("fork", Came::from(&forked));
        match forked {
            Ok(()) => {}
            Err(ForkError::OutOfFrames | ForkError::Swap { .. }) => return,
            Err(error) => panic!("a fork of the shared address space: {error:?}"),
        }
        mm.switch(&self.cpu, self.kernel.space(SHARED), self.kernel.space(child));
        let first = self.random.below(PRIVATE_PAGES);
        for index in 0..8 {
            // Another one each time: the child changes it.
            let page = (first + index * 251) % PRIVATE_PAGES;
            let at = self.address(PRIVATE, page);
            let mut content = self.private[page as usize];
            let found = self.load_word(child, at);
            content.loaded(found, &self.kernel.zaps[page as usize], || {
                format!("a load of private page {page} in a child")
            });
            let value = self.fresh();
            self.kernel.access(&self.cpu, child, at, Access::Write, |word| word.atomic_store(value, Ordering::SeqCst));
            assert_eq!(self.load_word(child, at), value, "a child's page {page}");
            let page = self.random.below(OWN_PAGES);
            let found = self.load_word(child, self.address(self.own_at, page));
            self.own[page as usize]
                .loaded(found, &Zaps::default(), || format!("a load of its own page {page} in a child"));
        }
        mm.switch(&self.cpu, self.kernel.space(child), self.kernel.space(SHARED));
        mm.exit(&self.cpu, child).expect("the child is there, and its tables are whole");
        for _ in 0..4 {
            let page = self.random.below(PRIVATE_PAGES);
            self.load(page);
        }
    }

    fn load_word(&self, space: SpaceId, at: VirtAddr) -> u64 {
        let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
        self.kernel.access(&self.cpu, space, at, Access::Read, load).expect("the area is there")
    }

    /// Which pages were accessed or written; half of the time the marks are cleared.
    fn harvest(&mut self, page: u64) {
        let pages = 1 + self.random.below(64).min(PRIVATE_PAGES - page - 1);
        let clear = [Usage::NONE, Usage::ACCESSED][self.random.below(2) as usize];
        let start = PRIVATE.wrapping_add(page * PAGE_SIZE);
        let mut found = 0_u64;
        let space = self.kernel.space(SHARED);
        let done = self.kernel.mm.harvest(&self.cpu, space, (start, pages), clear, |_| found += 1);
        assert!(found <= pages, "an entry is told of once");
        self.tally.count("harvest", Came::from(&done));
    }

    /// One of the allocations to come fails, whoever makes it.
    fn fail_an_allocation(&mut self) {
        self.kernel.failures().fail_at(1 + self.random.below(8));
        self.tally.count("failing allocation", Came::Done);
    }
}
