//! The work of the kernel's load `bench` (`kernel/src/loads/bench.rs`), with the same numbers of everything.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::clock::{self, Clock};
use crate::linux::{self, Mapping, PAGE, Pipe, Refused, Registration};

const ROUNDS: usize = 200;
const CALLS: usize = 100;
const FAULTS: usize = 64;
const PROTECTED: usize = 256;
const UNMAPS: usize = 16;
const FORKED: usize = 1000;
const PINNED: usize = 512;
const HUGE_PAGES: usize = 8;
const HUGE: usize = 512 * PAGE;

static IS_BESIDE: AtomicBool = AtomicBool::new(false);

/// The second thread: stays on the second CPU, in the same address space, so that every flush has to ask it.
pub(crate) fn beside() -> ! {
    if linux::stay_on(1).is_ok() {
        IS_BESIDE.store(true, Ordering::Release);
    }
    loop {
        core::hint::spin_loop();
    }
}

/// Everything, by the names that the kernel has for it. GUP cannot be called alone: there are two system calls that do little else.
pub(crate) fn measure(clock: &Clock, cpus: usize) -> Result<[(&'static str, u64); 11], Refused> {
    linux::stay_on(0)?;
    if cpus > 1 {
        linux::start_thread()?;
        while !IS_BESIDE.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
    // The shortest of some rounds, for each of `items`.
    let best = |items: usize, round: &mut dyn FnMut() -> Result<u64, Refused>| {
        let mut shortest = u64::MAX;
        for _ in 0..ROUNDS {
            shortest = shortest.min(round()?);
        }
        Ok(clock.picoseconds(shortest) / items as u64)
    };
    let call = best(CALLS, &mut || ticks(|| (0..CALLS).try_for_each(|_| linux::empty_call())))?;
    let fork_alone = best(1, &mut fork)?;
    let fault = best(FAULTS, &mut || {
        let mapping = Mapping::small(FAULTS)?;
        let ticks = ticks(|| touch(&mapping, FAULTS))?;
        mapping.unmap()?;
        Ok(ticks)
    })?;
    let protect = best(PROTECTED, &mut || {
        let mapping = Mapping::small(PROTECTED)?;
        touch(&mapping, PROTECTED)?;
        let ticks = ticks(|| mapping.make_read_only())?;
        mapping.unmap()?;
        Ok(ticks)
    })?;
    let unmap = best(UNMAPS, &mut || {
        let mapping = Mapping::small(UNMAPS)?;
        touch(&mapping, UNMAPS)?;
        ticks(|| (0..UNMAPS).try_for_each(|page| mapping.unmap_page(page)))
    })?;
    let small = Mapping::small(FORKED)?;
    let fork_pages = best(1, &mut || {
        touch(&small, FORKED)?;
        fork()
    })?;
    touch(&small, FORKED)?;
    let small_gup = Gup::measure(&small, PINNED, &best)?;
    let huge = Mapping::huge(HUGE_PAGES * HUGE)?;
    let faults = linux::faults()?;
    touch(&huge, HUGE_PAGES * 512)?;
    // A huge leaf takes one fault where small ones take 512.
    let leaves = (HUGE_PAGES * 512).saturating_sub(linux::faults()? - faults) / 511;
    let huge_gup = Gup::measure(&huge, HUGE_PAGES * 512, &best)?;
    Ok([
        ("empty_call_ps", call),
        ("fault_ps", fault),
        ("mprotect_ps", protect),
        ("munmap_shootdown_ps", unmap),
        ("fork_ps", fork_alone),
        ("fork_1000_pages_ps", fork_pages),
        ("gup_4k_vmsplice_ps", small_gup.vmsplice / PINNED as u64),
        ("gup_4k_io_uring_ps", small_gup.io_uring / PINNED as u64),
        ("gup_2m_vmsplice_ps", huge_gup.vmsplice / HUGE_PAGES as u64),
        ("gup_2m_io_uring_ps", huge_gup.io_uring / HUGE_PAGES as u64),
        ("huge_leaves", leaves as u64),
    ])
}

fn ticks(body: impl FnOnce() -> Result<(), Refused>) -> Result<u64, Refused> {
    let start = clock::now();
    body()?;
    Ok(clock::now() - start)
}

/// Stores 8 bytes to each page.
fn touch(mapping: &Mapping, pages: usize) -> Result<(), Refused> {
    (0..pages).for_each(|page| mapping.store(page));
    Ok(())
}

/// Until the parent goes on; the child's end and the wait for it are not in the time.
fn fork() -> Result<u64, Refused> {
    let start = clock::now();
    let child = linux::fork()?;
    let ticks = clock::now() - start;
    linux::wait_for(child)?;
    Ok(ticks)
}

/// Taking all pages; giving them back is not in the times.
struct Gup {
    vmsplice: u64,
    io_uring: u64,
}

impl Gup {
    fn measure(
        mapping: &Mapping,
        pages: usize,
        best: &impl Fn(usize, &mut dyn FnMut() -> Result<u64, Refused>) -> Result<u64, Refused>,
    ) -> Result<Self, Refused> {
        let vmsplice = best(1, &mut || {
            let pipe = Pipe::with_slots(pages)?;
            ticks(|| pipe.splice_in(mapping, pages))
        })?;
        let io_uring = best(1, &mut || {
            let mut registration = Registration::prepare()?;
            ticks(|| registration.register(mapping, pages))
        })?;
        Ok(Self { vmsplice, io_uring })
    }
}
