//! The page outside all areas.

use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr, Word};
use mm::error::RangeError;
use mm::folio::PIN_BIAS;
use mm::{FaultError, FolioFlags, Foll, GatePage, GupError, MemoryMap, Run, Signal};

use crate::common::{CACHED, FIRST_DATA, Kernel, PAGES, SPACE, area};

/// x86-64's vsyscall page.
const VSYSCALL: VirtAddr = VirtAddr::new(0xffff_ffff_ff60_0000);
/// A gate where an area could be.
const BELOW: VirtAddr = VirtAddr::new(0x40_0000_2000);
const FRAME: Frame = Frame::new(FIRST_DATA.number() + PAGES - 1);

fn build(address: VirtAddr) -> (Kernel, ThreadCpu) {
    let gate = GatePage { address, frame: FRAME };
    let kernel = Kernel::build_with(1, 32, FolioFlags::SHMEM, |space| space.with_gate_page(gate));
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space);
    (kernel, cpu)
}

/// What GUP of somebody else's pages says, with everything given back.
fn remote(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, pages: u64, flags: Foll) -> Result<Vec<Frame>, GupError> {
    let mut runs = Vec::new();
    let range = (at, pages);
    kernel.mm.gup_remote(cpu, kernel.space, range, flags, || Signal::None, |run| runs.push(run))?;
    let frames = runs.iter().map(Run::frame).collect();
    runs.into_iter().for_each(|run| kernel.mm.release(cpu, run, Access::Read).expect("held"));
    Ok(frames)
}

#[test]
fn it_can_be_read_and_pinned_and_not_written() {
    let (kernel, cpu) = build(VSYSCALL);
    for flags in [Foll::GET, Foll::PIN, Foll::PIN | Foll::LONGTERM, Foll::GET | Foll::FORCE, Foll::GET | Foll::NOFAULT]
    {
        assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, flags), Ok(vec![FRAME]), "{flags:?}");
    }
    let mut pin = None;
    let range = (VSYSCALL, 1);
    let pinned = kernel.mm.gup_remote(&cpu, kernel.space, range, Foll::PIN, || Signal::None, |run| pin = Some(run));
    assert_eq!((pinned, kernel.counts(&cpu, FRAME)), (Ok(1), (1 + u64::from(PIN_BIAS), 0, 0)));
    kernel.mm.release(&cpu, pin.expect("a run"), Access::Read).expect("held");
    let read_only = Err(GupError::ReadOnlyGate { address: VSYSCALL });
    for flags in [Foll::GET | Foll::WRITE, Foll::PIN | Foll::WRITE | Foll::FORCE] {
        assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, flags), read_only);
    }
    let anonymous = Err(GupError::NotAnonymous { address: VSYSCALL });
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, Foll::GET | Foll::ANON), anonymous);
    assert_eq!(kernel.counts(&cpu, FRAME), (1, 0, 0), "the kernel's");
}

#[test]
fn above_what_user_code_can_have_it_is_had_alone() {
    let (kernel, cpu) = build(VSYSCALL);
    let outside = |address, pages| Err(GupError::Range(RangeError::OutsideUser { address, pages }));
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 2, Foll::GET), outside(VSYSCALL, 2));
    let next = VSYSCALL.wrapping_add(4096);
    assert_eq!(remote(&kernel, &cpu, next, 1, Foll::GET), outside(next, 1));
    let own = kernel.mm.gup(&cpu, kernel.space, VSYSCALL, 1, Foll::GET, |_| ());
    assert_eq!(own, Err(GupError::Range(RangeError::OutsideUser { address: VSYSCALL, pages: 1 })), "as in Linux");
}

#[test]
fn what_its_folio_says_counts() {
    let (kernel, cpu) = build(VSYSCALL);
    let mark = |flags: FolioFlags| {
        kernel.records.page(&cpu, FRAME).expect("a record").flags_word().atomic_fetch_or(flags.bits());
    };
    mark(FolioFlags::MOVABLE);
    let not_allowed = Err(GupError::NotAllowed { address: VSYSCALL });
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, Foll::PIN | Foll::LONGTERM), not_allowed);
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, Foll::PIN), Ok(vec![FRAME]));
    mark(FolioFlags::POISONED);
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, Foll::PIN), not_allowed);
    let poisoned = Err(GupError::Poisoned { address: VSYSCALL });
    assert_eq!(remote(&kernel, &cpu, VSYSCALL, 1, Foll::GET | Foll::HWPOISON), poisoned);
    assert_eq!(kernel.counts(&cpu, FRAME), (1, 0, 0), "what was refused was given back");
}

#[test]
fn among_areas_it_is_one_page_of_a_range() {
    let (kernel, cpu) = build(BELOW);
    let start = VirtAddr::new(BELOW.as_u64() - 0x2000);
    kernel.mm.mmap(&cpu, SPACE, area(start.as_u64(), 2, CACHED)).expect("a good area");
    let frames = vec![FIRST_DATA, FIRST_DATA.wrapping_add(1), FRAME];
    assert_eq!(remote(&kernel, &cpu, start, 3, Foll::GET), Ok(frames.clone()));
    assert_eq!(remote(&kernel, &cpu, start, 4, Foll::GET), Ok(frames.clone()), "and short behind it");
    let no_area = FaultError::NoArea { address: BELOW.wrapping_add(4096) };
    assert_eq!(remote(&kernel, &cpu, BELOW.wrapping_add(4096), 1, Foll::GET), Err(GupError::Fault(no_area)));
    let mut own = Vec::new();
    assert_eq!(kernel.mm.gup(&cpu, kernel.space, start, 3, Foll::GET, |run| own.push(run)), Ok(3));
    assert_eq!(own.iter().map(Run::frame).collect::<Vec<_>>(), frames);
    let fast = kernel.mm.gup(&cpu, kernel.space, start, 3, Foll::GET | Foll::FAST_ONLY, |run| own.push(run));
    assert_eq!(fast, Ok(2), "no entry leads to it");
    own.into_iter().for_each(|run| kernel.mm.release(&cpu, run, Access::Read).expect("held"));
    // A dump finds it though no area leads there.
    kernel.mm.munmap(&cpu, SPACE, start, 2).expect("the tables are whole");
    let mut dumped = Vec::new();
    let dump = |start, pages, dumped: &mut Vec<_>| {
        let each = |at, run: Run| {
            dumped.push((at, run.frame()));
            kernel.mm.release(&cpu, run, Access::Read).expect("held");
        };
        kernel.mm.dump(&cpu, kernel.space, (start, pages), || Signal::None, each).expect("a good range");
    };
    dump(VirtAddr::new(start.as_u64() - 0x8000_0000), 1 << 24, &mut dumped);
    assert_eq!(dumped, [(BELOW, FRAME)]);
    dump(BELOW.wrapping_add(4096), 1 << 8, &mut dumped);
    assert_eq!(dumped.len(), 1, "nothing is behind it");
    // An area that holds the address goes first.
    kernel.mm.mmap(&cpu, SPACE, area(start.as_u64(), 4, CACHED)).expect("a good area");
    assert_eq!(remote(&kernel, &cpu, BELOW, 1, Foll::GET), Ok(vec![FIRST_DATA.wrapping_add(2)]));
    kernel.mm.munmap(&cpu, SPACE, start, 4).expect("the tables are whole");
}
