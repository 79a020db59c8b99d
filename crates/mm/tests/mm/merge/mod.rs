//! Equal pages become one, and their own again: contents, rights, marks and every count; who is refused; what fails without frames; random merges; and merges
//! while others write.

mod become_one;
mod fails;
mod model;
mod refused;
mod threads;
mod unmerge;
mod zero;

use std::sync::atomic::Ordering;

use hosted::ThreadCpu;
use machine::{Frame, VirtAddr, Word};
use mm::{FolioFlags, Foll, FrameSource, Harvested, Run, SpaceId, Usage};

use crate::audit::{Account, Hold};
use crate::memory::{FILE_PAGES, Kernel, SPACES, anonymous};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 32;
const ONE: SpaceId = SpaceId::new(0);
const TWO: SpaceId = SpaceId::new(1);
const THREE: SpaceId = SpaceId::new(2);
const EXCLUSIVE: u32 = FolioFlags::EXCLUSIVE.bits();
const KSM: u32 = FolioFlags::KSM.bits();

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// The first two address spaces have anonymous memory, in which each page holds this word.
fn two_spaces(word: u64, pages: u64) -> (Kernel, ThreadCpu) {
    let (kernel, cpu) = Kernel::alone(TABLES);
    for space in [0, 1] {
        let area = anonymous(AT, pages, 100 * u64::from(space));
        kernel.mm.mmap(&cpu, SpaceId::new(space), area).expect("a good area");
        (0..pages).for_each(|number| kernel.store(&cpu, space, page(number), word).expect("memory"));
    }
    (kernel, cpu)
}

fn frame(kernel: &Kernel, cpu: &ThreadCpu, space: u16, number: u64) -> Frame {
    kernel.frame_at(cpu, space, page(number)).expect("mapped")
}

fn zero_page(kernel: &Kernel) -> Frame {
    FrameSource::zero_page(kernel.data).expect("the first frame")
}

fn gup(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, flags: Foll) -> Run {
    let mut got = None;
    assert_eq!(kernel.mm.gup(cpu, kernel.space(0), at, 1, flags, |run| got = Some(run)), Ok(1));
    got.expect("one run")
}

/// Which of the first two pages of the first address space count as written. Then clears these marks of them.
fn written(kernel: &Kernel, cpu: &ThreadCpu, clear: Usage) -> Vec<VirtAddr> {
    let mut pages = Vec::new();
    let each = |found: Harvested| {
        if found.usage.contains(Usage::SOFT_DIRTY) {
            pages.push(found.address);
        }
    };
    kernel.mm.harvest(cpu, kernel.space(0), (AT, 2), clear, each).expect("whole tables");
    pages
}

/// Checks every count there is, besides what these runs and the file hold.
fn audit<'r>(kernel: &Kernel, cpu: &ThreadCpu, runs: impl IntoIterator<Item = &'r Run>) -> Account {
    let spaces: Vec<_> = (0..SPACES).map(|number| kernel.space(number)).collect();
    let zero = zero_page(kernel);
    let account = Account::of(kernel.tables, zero, &spaces);
    let files = (0..FILE_PAGES).filter_map(|page| kernel.file_frame(page)).chain([zero]).map(Hold::one);
    let runs = runs.into_iter().filter(|run| run.frame() != zero).map(Hold::of_run);
    let in_use: Vec<_> = kernel.data.leaks().into_iter().map(|leak| leak.frame).collect();
    account.check_counts(cpu, kernel.data, in_use, files.chain(runs));
    assert_eq!(kernel.swap.counts(), account.on_swap, "counts on swap");
    let under_way = kernel.shadow.invalidations.word().atomic_load(Ordering::SeqCst);
    assert_eq!(under_way as u32, 0, "an invalidation was begun and not ended");
    account
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    for space in 0..SPACES {
        kernel.mm.munmap(cpu, SpaceId::new(space), VirtAddr::new(0), 1 << 35).expect("whole tables");
    }
    kernel.assert_all_is_back(TABLES);
}
