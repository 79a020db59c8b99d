//! Every FOLL_ flag, its rule, and the errors.

use crate::memory::{ANONYMOUS, CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, Frame, VirtAddr, Word};
use mm::folio::PIN_BIAS;
use mm::gup::InvalidFlags;
use mm::{
    Area, AreaRights, FaultError, FolioFlags, Foll, GupError, Harvested, MemoryMap, Reference, Run, Signal, SpaceId,
    Usage,
};
use std::cell::Cell;

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 64;
const SPACE: SpaceId = SpaceId::new(0);

fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

fn gup(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, pages: u64, flags: Foll) -> (Result<u64, GupError>, Vec<Run>) {
    let mut runs = Vec::new();
    let result = kernel.mm.gup(cpu, kernel.space(0), at, pages, flags, |run| runs.push(run));
    let taken: u64 = runs.iter().map(|run| u64::from(run.pages())).sum();
    assert_eq!(taken, result.unwrap_or(0), "as many pages as were counted");
    (result, runs)
}

fn release(kernel: &Kernel, cpu: &ThreadCpu, runs: Vec<Run>) {
    runs.into_iter().for_each(|run| kernel.mm.release(cpu, run, Access::Read).expect("held"));
}

/// What GUP says, with everything given back.
fn ask(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, flags: Foll) -> Result<Frame, GupError> {
    let (got, runs) = gup(kernel, cpu, at, 1, flags);
    let frame = runs.first().map(Run::frame);
    release(kernel, cpu, runs);
    got.map(|_| frame.expect("one page"))
}

fn mark(kernel: &Kernel, cpu: &ThreadCpu, frame: Frame, flag: FolioFlags) {
    let record = MemoryMap::page(kernel.data, cpu, frame).expect("a frame with a record");
    record.flags_word().atomic_fetch_or(flag.bits());
}

fn end(kernel: &Kernel, cpu: &ThreadCpu) {
    kernel.mm.munmap(cpu, SPACE, AT, 1 << 20).expect("whole tables");
    kernel.empty_file(cpu);
    kernel.assert_all_is_back(TABLES);
}

/// The table in the module's documentation is about these flags, and right about whose they are and which path honours them.
#[test]
fn the_table_of_flags_is_true() {
    let source = include_str!("../../src/gup/flags.rs");
    let rows: Vec<Vec<&str>> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|row: &Vec<&str>| row[0] != "flag")
        .collect();
    assert_eq!(rows.len(), Foll::ALL.len(), "a row for each flag");
    for (flag, name) in Foll::ALL {
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no row for {name}"));
        assert_eq!(row[1] == "engine", Foll::INTERNAL.contains(flag), "{name}: whose");
        assert_eq!(row[2] == "yes", Foll::LOCKLESS.contains(flag), "{name}: lockless path");
        assert!(row[3].len() > 10, "{name}: a rule");
        assert_eq!(format!("{flag:?}"), format!("FOLL_{name}"));
    }
}

#[test]
fn combinations_are_checked() {
    for (flag, name) in Foll::ALL {
        let got = (Foll::PIN | flag).validate().err();
        let expected = match name {
            "GET" => Some(InvalidFlags::GetWithPin),
            _ if Foll::INTERNAL.contains(flag) => Some(InvalidFlags::Internal(flag)),
            _ => None,
        };
        assert_eq!(got, expected, "{name}");
        // Without the slow path there is none of what only that can do.
        let got = (Foll::PIN | Foll::FAST_ONLY | flag).validate().err();
        let expected = match expected {
            None if !Foll::LOCKLESS.contains(flag) => Some(InvalidFlags::SlowOnly(flag)),
            expected => expected,
        };
        assert_eq!(got, expected, "{name} with FAST_ONLY");
    }
    assert_eq!(Foll::WRITE.validate().err(), Some(InvalidFlags::NeitherGetNorPin));
    assert_eq!((Foll::GET | Foll::LONGTERM).validate().err(), Some(InvalidFlags::LongTermWithoutPin));
    let device = Foll::PIN | Foll::LONGTERM | Foll::PCI_P2PDMA;
    assert_eq!(device.validate().err(), Some(InvalidFlags::LongTermPeerToPeer));
}

#[test]
fn get_and_pin_count_as_they_should() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 8, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 7).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    let (got, gets) = gup(&kernel, &cpu, AT, 1, Foll::GET);
    assert_eq!((got, gets[0].reference(), kernel.counts(&cpu, frame).0), (Ok(1), Reference::Get, 2));
    let (got, pins) = gup(&kernel, &cpu, AT, 1, Foll::PIN | Foll::WRITE);
    assert_eq!((got, pins[0].reference(), kernel.counts(&cpu, frame).0), (Ok(1), Reference::Pin, 2 + PIN_BIAS));
    release(&kernel, &cpu, gets);
    release(&kernel, &cpu, pins);
    assert_eq!(kernel.counts(&cpu, frame), (1, 0, 1));
    end(&kernel, &cpu);
}

/// A pin for reading of a page that another space may write into, or that the next write would replace, makes the page this space's own first.
#[test]
fn pins_for_reading_unshare() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, Area::private(AT, 4, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, SPACE, anonymous(page(8), 4, 0)).expect("a good area");
    // The file's own page: fine for a while, and for a reference; for long it would be the wrong one after the next write.
    let of_file = kernel.file_frame(0).expect("filled");
    assert_eq!(ask(&kernel, &cpu, page(0), Foll::GET), Ok(of_file));
    assert_eq!(ask(&kernel, &cpu, page(0), Foll::PIN), Ok(of_file));
    let own = ask(&kernel, &cpu, page(0), Foll::PIN | Foll::LONGTERM).expect("a copy");
    assert_ne!(own, of_file);
    assert_eq!(kernel.data.read(own, 0), 0, "with the page's contents: its number");
    kernel.store(&cpu, 0, page(0), 99).expect("memory");
    assert_eq!(kernel.frame_at(&cpu, 0, page(0)), Some(own), "the write goes where the pin reads");
    // The zero page.
    assert_eq!(kernel.load(&cpu, 0, page(8)), Ok(0));
    let zero = kernel.frame_at(&cpu, 0, page(8)).expect("mapped");
    assert_eq!(ask(&kernel, &cpu, page(8), Foll::PIN), Ok(zero));
    assert_eq!(ask(&kernel, &cpu, page(8), Foll::GET), Ok(zero));
    let own = ask(&kernel, &cpu, page(8), Foll::PIN | Foll::LONGTERM).expect("a page of its own");
    assert_ne!(own, zero);
    assert_eq!(kernel.frame_at(&cpu, 0, page(8)), Some(own));
    let written = ask(&kernel, &cpu, page(9), Foll::PIN | Foll::WRITE).expect("a page of its own");
    assert_eq!(kernel.frame_at(&cpu, 0, page(9)), Some(written));
    end(&kernel, &cpu);
}

/// A reference for reading is no reason to copy what parent and child share; a pin is.
#[test]
fn references_for_reading_do_not_unshare() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    kernel.mm.fork(&cpu, SPACE, SpaceId::new(1)).expect("frames enough");
    let frame = kernel.frame_at(&cpu, 1, AT).expect("mapped");
    let take = |flags| {
        let mut runs = Vec::new();
        let got = kernel.mm.gup_remote(&cpu, kernel.space(0), (AT, 1), flags, || Signal::None, |run| runs.push(run));
        let taken = runs[0].frame();
        release(&kernel, &cpu, runs);
        got.map(|_| taken)
    };
    assert_eq!(take(Foll::GET), Ok(frame));
    assert_ne!(take(Foll::PIN), Ok(frame));
    assert_eq!(kernel.frame_at(&cpu, 1, AT), Some(frame), "the child's");
    kernel.mm.munmap(&cpu, SpaceId::new(1), AT, 1).expect("it is mapped");
    end(&kernel, &cpu);
}

#[test]
fn force_writes_into_copies_and_never_into_files() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    let map = |first: u64, area: Area| {
        kernel.mm.mmap(&cpu, SPACE, Area { start: page(first), ..area }).expect("a good area");
    };
    map(0, Area::private(AT, 2, AreaRights::Read, CACHED, 0));
    map(4, Area::shared(AT, 2, AreaRights::Read, CACHED, 4));
    map(8, anonymous(AT, 2, 0));
    let forbidden = |number: u64, access| {
        matches!(
            ask(&kernel, &cpu, page(number), if access == Access::Write { Foll::PIN | Foll::WRITE } else { Foll::PIN }),
            Err(GupError::Fault(FaultError::Forbidden { .. }))
        )
    };
    let force = Foll::PIN | Foll::WRITE | Foll::FORCE;
    assert!(forbidden(0, Access::Write) && forbidden(4, Access::Write));
    // A private area: a copy, which user code may read and not write.
    let copy = ask(&kernel, &cpu, page(0), force).expect("a copy");
    assert_ne!(Some(copy), kernel.file_frame(0));
    assert_eq!(kernel.frame_at(&cpu, 0, page(0)), Some(copy));
    let store = kernel.store(&cpu, 0, page(0), 1);
    assert!(matches!(store, Err(FaultError::Forbidden { .. })), "{store:?}");
    assert_eq!(ask(&kernel, &cpu, page(0), force), Ok(copy), "the same one again");
    assert!(forbidden(0, Access::Write), "without force as before");
    // What is mapped for reading is replaced by a copy.
    assert_eq!(kernel.load(&cpu, 0, page(1)), Ok(1));
    let copy = ask(&kernel, &cpu, page(1), force).expect("a copy");
    assert_ne!(Some(copy), kernel.file_frame(1));
    // A shared area: never, mapped or not.
    assert_eq!(kernel.load(&cpu, 0, page(4)), Ok(4));
    for number in [4, 5] {
        let got = ask(&kernel, &cpu, page(number), force);
        assert!(matches!(got, Err(GupError::Fault(FaultError::Forbidden { .. }))), "{got:?}");
    }
    assert_eq!(ask(&kernel, &cpu, page(4), Foll::GET | Foll::FORCE), Ok(kernel.file_frame(4).expect("filled")));
    // Of an area that forbids everything, what is there may be read, and written into if it is the space's own.
    kernel.store(&cpu, 0, page(8), 3).expect("memory");
    let own = kernel.frame_at(&cpu, 0, page(8)).expect("mapped");
    kernel.mm.mprotect(&cpu, SPACE, page(8), 2, AreaRights::None).expect("a whole area");
    assert!(forbidden(8, Access::Read) && forbidden(8, Access::Write));
    assert_eq!(ask(&kernel, &cpu, page(8), Foll::GET | Foll::FORCE), Ok(own));
    assert_eq!(ask(&kernel, &cpu, page(8), force), Ok(own));
    for flags in [Foll::GET | Foll::FORCE, force] {
        let nothing = ask(&kernel, &cpu, page(9), flags);
        assert!(matches!(nothing, Err(GupError::Fault(FaultError::Forbidden { .. }))), "{nothing:?}");
    }
    end(&kernel, &cpu);
}

#[test]
fn a_forced_write_counts_as_a_write() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 3).expect("memory");
    let own = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    let written = |clear| {
        let mut written = false;
        let mut note = |page: Harvested| written |= page.usage.contains(Usage::SOFT_DIRTY);
        kernel.mm.harvest(&cpu, kernel.space(0), (AT, 1), clear, &mut note).expect("whole tables");
        written
    };
    for rights in [AreaRights::Read, AreaRights::None] {
        kernel.mm.mprotect(&cpu, SPACE, AT, 1, rights).expect("a whole area");
        written(Usage::DIRTY.and(Usage::SOFT_DIRTY));
        assert!(!written(Usage::NONE));
        assert_eq!(ask(&kernel, &cpu, AT, Foll::GET | Foll::FORCE), Ok(own));
        assert!(!written(Usage::NONE), "it was only read");
        assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE | Foll::FORCE), Ok(own));
        assert!(written(Usage::NONE), "{rights:?}");
        assert!(matches!(kernel.store(&cpu, 0, AT, 4), Err(FaultError::Forbidden { .. })));
        assert_eq!(kernel.frame_at(&cpu, 0, AT).is_some(), rights == AreaRights::Read);
    }
    end(&kernel, &cpu);
}

/// A page that had two users and has one is made that one's own by the forced write.
#[test]
fn a_forced_write_gives_user_code_no_right_to_write() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 3).expect("memory");
    let own = kernel.frame_at(&cpu, 0, AT);
    kernel.mm.mprotect(&cpu, SPACE, AT, 1, AreaRights::Read).expect("a whole area");
    let child = SpaceId::new(1);
    kernel.mm.fork(&cpu, SPACE, child).expect("room for a child");
    kernel.mm.exit(&cpu, child).expect("whole tables");
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE | Foll::FORCE).ok(), own, "no copy is needed");
    let store = kernel.store(&cpu, 0, AT, 4);
    assert!(matches!(store, Err(FaultError::Forbidden { .. })), "{store:?}");
    end(&kernel, &cpu);
}

#[test]
fn nofault_and_fast_only_take_what_is_there() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 8, 0)).expect("a good area");
    for number in 0..3 {
        kernel.store(&cpu, 0, page(number), number).expect("memory");
    }
    let not_mapped = GupError::NotMapped { address: page(3) };
    for flags in [Foll::PIN, Foll::PIN | Foll::WRITE, Foll::GET] {
        let (got, runs) = gup(&kernel, &cpu, AT, 8, flags | Foll::NOFAULT);
        assert_eq!(got, Ok(3), "short, and what was had stays");
        release(&kernel, &cpu, runs);
        assert_eq!(ask(&kernel, &cpu, page(3), flags | Foll::NOFAULT), Err(not_mapped));
        let (got, runs) = gup(&kernel, &cpu, AT, 8, flags | Foll::FAST_ONLY);
        assert_eq!(got, Ok(3));
        release(&kernel, &cpu, runs);
    }
    assert_eq!(kernel.frame_at(&cpu, 0, page(3)), None, "nothing was faulted in");
    end(&kernel, &cpu);
}

#[test]
fn dumps_pass_over_holes() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 8, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, SPACE, Area::shared(page(20), 2, AreaRights::None, CACHED, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, SPACE, Area::shared(page(30), 2, AreaRights::Read, CACHED, 5)).expect("a good area");
    kernel.store(&cpu, 0, page(2), 22).expect("memory");
    kernel.store(&cpu, 0, page(5), 55).expect("memory");
    assert_eq!(kernel.load(&cpu, 0, page(6)), Ok(0), "the zero page");
    let in_use = kernel.data.in_use();
    let hole = page(600);
    kernel.mm.mmap(&cpu, SPACE, anonymous(hole, 2, 600)).expect("a good area");
    let tables = kernel.tables.arena.in_use();
    let mut dumped = Vec::new();
    let dump = kernel.mm.dump(&cpu, kernel.space(0), (AT, 1000), || Signal::None, |at, run| dumped.push((at, run)));
    dump.expect("nobody interrupted");
    let addresses: Vec<_> = dumped.iter().map(|(at, run)| (*at, run.pages())).collect();
    assert_eq!(addresses, [(page(2), 1), (page(5), 1), (page(30), 1), (page(31), 1)]);
    assert_eq!(kernel.data.read(dumped[1].1.frame(), 0), 55);
    assert_eq!(kernel.data.in_use(), in_use, "nothing was allocated");
    assert_eq!(kernel.tables.arena.in_use(), tables, "nor was a table, where nothing is mapped");
    assert_eq!([page(0), page(1), hole].map(|at| kernel.frame_at(&cpu, 0, at)), [None; 3], "holes stay holes");
    release(&kernel, &cpu, dumped.into_iter().map(|(_, run)| run).collect());
    for number in [0, 6] {
        let got = ask(&kernel, &cpu, page(number), Foll::GET | Foll::DUMP);
        assert_eq!(got, Err(GupError::Hole { address: page(number) }));
    }
    let dump = kernel.mm.dump(&cpu, kernel.space(0), (AT, 8), || Signal::Fatal, |_, _| panic!("killed"));
    assert_eq!(dump, Err(GupError::Interrupted { address: AT }));
    end(&kernel, &cpu);
}

/// A page on swap comes back by a fault that waits for the device. Who must not wait is told so; whoever does not say so waits.
#[test]
fn nowait_leaves_what_is_on_swap_there() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 7).expect("memory");
    kernel.mm.swap_out(&cpu, kernel.frame_at(&cpu, 0, AT).expect("mapped")).expect("nobody else uses it");
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::NOWAIT), Err(GupError::WouldBlock { address: AT }));
    assert_eq!(kernel.swap.counts(), 1, "it is there still");
    let frame = ask(&kernel, &cpu, AT, Foll::PIN).expect("it comes back");
    assert_eq!((kernel.swap.counts(), kernel.data.read(frame, 0)), (0, 7));
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::NOWAIT), Ok(frame), "nothing to wait for");
    end(&kernel, &cpu);
}

#[test]
fn failed_memory_is_told_apart_on_request() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 2, 0)).expect("a good area");
    for number in 0..2 {
        kernel.store(&cpu, 0, page(number), 1).expect("memory");
    }
    // One is taken out of use, and leaves a marker; of the other only the record says so yet.
    let failed = kernel.frame_at(&cpu, 0, page(0)).expect("mapped");
    kernel.mm.memory_failure(&cpu, failed).expect("it can be taken out");
    mark(&kernel, &cpu, kernel.frame_at(&cpu, 0, page(1)).expect("mapped"), FolioFlags::POISONED);
    for number in 0..2 {
        let address = page(number);
        assert_eq!(ask(&kernel, &cpu, address, Foll::PIN), Err(GupError::NotAllowed { address }), "page {number}");
        let poisoned = Err(GupError::Poisoned { address });
        assert_eq!(ask(&kernel, &cpu, address, Foll::PIN | Foll::HWPOISON), poisoned, "page {number}");
        assert_eq!(gup(&kernel, &cpu, address, 1, Foll::PIN | Foll::FAST_ONLY).0, Ok(0));
    }
    kernel.mm.munmap(&cpu, SPACE, AT, 2).expect("whole tables");
}

#[test]
fn anon_wants_no_files() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.mm.mmap(&cpu, SPACE, Area::private(page(1), 1, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    kernel.store(&cpu, 0, page(1), 1).expect("memory");
    ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE | Foll::ANON).expect("anonymous memory");
    let refused = Err(GupError::NotAnonymous { address: page(1) });
    assert_eq!(ask(&kernel, &cpu, page(1), Foll::PIN | Foll::ANON), refused, "though the page is a copy by now");
    let (got, runs) = gup(&kernel, &cpu, AT, 2, Foll::GET | Foll::ANON);
    assert_eq!(got, Ok(1), "short");
    release(&kernel, &cpu, runs);
    end(&kernel, &cpu);
}

/// An entry that became PROT_NONE although its area allows the access: followed, unless somebody wants to hear of it.
#[test]
fn hints_are_honoured_on_request() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 1, 0)).expect("a good area");
    kernel.store(&cpu, 0, AT, 1).expect("memory");
    let frame = kernel.frame_at(&cpu, 0, AT).expect("mapped");
    assert_eq!(kernel.mm.hint_numa(&cpu, kernel.space(0), AT, 1), Ok(1));
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE), Ok(frame));
    assert_eq!(kernel.frame_at(&cpu, 0, AT), None, "followed without a fault");
    assert_eq!(gup(&kernel, &cpu, AT, 1, Foll::PIN | Foll::FAST_ONLY).0, Ok(0), "the lockless path never does");
    let nofault = Foll::PIN | Foll::HONOR_NUMA_FAULT | Foll::NOFAULT;
    assert_eq!(ask(&kernel, &cpu, AT, nofault), Err(GupError::NotMapped { address: AT }));
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE | Foll::HONOR_NUMA_FAULT), Ok(frame));
    assert_eq!(kernel.frame_at(&cpu, 0, AT), Some(frame), "somebody has heard of it");
    // An area that forbids every access is no hint.
    kernel.mm.mprotect(&cpu, SPACE, AT, 1, AreaRights::None).expect("a whole area");
    assert_eq!(kernel.frame_at(&cpu, 0, AT), None);
    let forced = Foll::GET | Foll::FORCE | Foll::HONOR_NUMA_FAULT;
    assert_eq!(ask(&kernel, &cpu, AT, forced), Ok(frame));
    assert_eq!(kernel.frame_at(&cpu, 0, AT), None, "no fault");
    assert_eq!(gup(&kernel, &cpu, AT, 1, Foll::GET | Foll::FAST_ONLY | Foll::FORCE).0, Ok(0), "never without the area");
    end(&kernel, &cpu);
}

#[test]
fn peer_to_peer_memory_is_for_those_who_ask() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, Area::shared(AT, 1, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    let frame = kernel.file_frame(0).expect("filled");
    mark(&kernel, &cpu, frame, FolioFlags::PEER_TO_PEER);
    kernel.load(&cpu, 0, AT).expect("mapped");
    let fast = |flags| {
        let (got, runs) = gup(&kernel, &cpu, AT, 1, flags | Foll::FAST_ONLY);
        release(&kernel, &cpu, runs);
        got
    };
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN), Err(GupError::NotAllowed { address: AT }));
    assert_eq!(fast(Foll::PIN), Ok(0));
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::PCI_P2PDMA), Ok(frame));
    assert_eq!(fast(Foll::PIN | Foll::PCI_P2PDMA), Ok(1));
    assert_eq!(kernel.counts(&cpu, frame), (2, 0, 1));
    end(&kernel, &cpu);
}

#[test]
fn folios_move_before_they_are_held_for_long() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 3, 0)).expect("a good area");
    for number in 0..3 {
        kernel.store(&cpu, 0, page(number), 70 + number).expect("memory");
        mark(&kernel, &cpu, kernel.frame_at(&cpu, 0, page(number)).expect("mapped"), FolioFlags::MOVABLE);
    }
    let frames: Vec<_> = (0..3).map(|number| kernel.frame_at(&cpu, 0, page(number)).expect("mapped")).collect();
    let long = Foll::PIN | Foll::WRITE | Foll::LONGTERM;
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE), Ok(frames[0]), "not for long: where it is");
    // Somebody else's pin keeps the second one where it is.
    let (_, pins) = gup(&kernel, &cpu, page(1), 1, Foll::PIN | Foll::WRITE);
    let (got, runs) = gup(&kernel, &cpu, AT, 3, long);
    assert_eq!(got, Ok(1), "short");
    assert_ne!(runs[0].frame(), frames[0]);
    assert_eq!(kernel.data.read(runs[0].frame(), 0), 70, "with its contents");
    let refused = gup(&kernel, &cpu, page(1), 1, long).0;
    assert!(matches!(refused, Err(GupError::NotMigrated { address, .. }) if address == page(1)), "{refused:?}");
    release(&kernel, &cpu, pins);
    let (got, more) = gup(&kernel, &cpu, page(1), 2, long);
    assert_eq!(got, Ok(2));
    for (run, number) in more.iter().zip(1..) {
        assert_ne!(run.frame(), frames[number as usize]);
        assert_eq!(kernel.data.read(run.frame(), 0), 70 + number);
        assert_eq!(kernel.frame_at(&cpu, 0, page(number)), Some(run.frame()));
    }
    release(&kernel, &cpu, runs);
    release(&kernel, &cpu, more);
    end(&kernel, &cpu);
}

#[test]
fn fatal_signals_end_it_between_pages() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 8, 0)).expect("a good area");
    for (signal, flags, expected) in [
        (Signal::Fatal, Foll::PIN, 4),
        (Signal::Pending, Foll::PIN, 8),
        // Between pages nothing is waited for.
        (Signal::Pending, Foll::PIN | Foll::INTERRUPTIBLE, 8),
    ] {
        let asked = Cell::new(0);
        let mut runs = Vec::new();
        let told = || {
            asked.set(asked.get() + 1);
            // Each page that is missing is looked at twice.
            if asked.get() > 8 { signal } else { Signal::None }
        };
        let space = kernel.space(0);
        let flags = flags | Foll::WRITE;
        let got = kernel.mm.gup_until(&cpu, space, (AT, 8), flags, told, |run| runs.push(run));
        assert_eq!(got, Ok(expected), "{signal:?}");
        release(&kernel, &cpu, runs);
        kernel.mm.zap(&cpu, space, AT, 8).expect("whole tables");
    }
    let got = kernel.mm.gup_until(&cpu, kernel.space(0), (AT, 1), Foll::GET, || Signal::Fatal, |_| panic!("killed"));
    assert_eq!(got, Err(GupError::Interrupted { address: AT }));
    end(&kernel, &cpu);
}

/// Another's address space, which no CPU runs.
#[test]
fn remote_needs_no_active_space() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.enter(&cpu, kernel.space(1));
    kernel.mm.mmap(&cpu, SPACE, anonymous(AT, 4, 0)).expect("a good area");
    let mut runs = Vec::new();
    let remote = |flags, runs: &mut Vec<Run>| {
        kernel.mm.gup_remote(&cpu, kernel.space(0), (AT, 4), flags, || Signal::None, |run| runs.push(run))
    };
    assert_eq!(remote(Foll::PIN | Foll::WRITE, &mut runs), Ok(4));
    let flags = Foll::PIN | Foll::FAST_ONLY;
    assert_eq!(remote(flags, &mut runs), Err(GupError::Flags(InvalidFlags::SlowOnly(Foll::REMOTE))));
    assert_eq!(runs.len(), 4);
    for (number, run) in runs.iter().enumerate() {
        assert_eq!(kernel.frame_at(&cpu, 0, page(number as u64)), Some(run.frame()));
    }
    release(&kernel, &cpu, runs);
    end(&kernel, &cpu);
}

/// What the slow path takes it marks as used, and as written if it will be.
#[test]
fn what_is_taken_is_touched() {
    let kernel = Kernel::build(1, TABLES);
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.fill_file(&cpu);
    kernel.mm.mmap(&cpu, SPACE, Area::shared(AT, 2, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
    let touched = FolioFlags::REFERENCED.bits();
    let dirty = FolioFlags::DIRTY.bits();
    let take = |number, flags| {
        let mut runs = Vec::new();
        let got = kernel.mm.gup_remote(
            &cpu,
            kernel.space(0),
            (page(number), 1),
            flags,
            || Signal::None,
            |run| {
                runs.push(run);
            },
        );
        assert_eq!(got, Ok(1));
        let frame = runs[0].frame();
        release(&kernel, &cpu, runs);
        kernel.flags(&cpu, frame) & (touched | dirty)
    };
    assert_eq!(take(0, Foll::GET), touched);
    // The fault for writing has made the entry dirty: the folio will hear of it from there. Taken again after a cleaning, the folio must.
    assert_eq!(take(1, Foll::GET | Foll::WRITE) & touched, touched);
    let file = kernel.mm.file(CACHED).expect("it is there");
    kernel.mm.clean_mapping(&cpu, file, 1, 1, |_, _| ()).expect("whole tables");
    assert_eq!(take(1, Foll::GET | Foll::WRITE), touched | dirty);
    end(&kernel, &cpu);
}

#[test]
fn the_kinds_of_areas_are_told_apart() {
    let (kernel, cpu) = Kernel::alone(TABLES);
    let read_only = Area::private(AT, 1, AreaRights::Read, ANONYMOUS, 0);
    kernel.mm.mmap(&cpu, SPACE, read_only).expect("a good area");
    let refused = FaultError::Forbidden { address: AT, access: Access::Write, area: read_only };
    assert_eq!(ask(&kernel, &cpu, AT, Foll::PIN | Foll::WRITE), Err(GupError::Fault(refused)));
    ask(&kernel, &cpu, AT, Foll::PIN).expect("readable");
    let nowhere = page(100);
    let refused = FaultError::NoArea { address: nowhere };
    assert_eq!(ask(&kernel, &cpu, nowhere, Foll::PIN), Err(GupError::Fault(refused)));
    end(&kernel, &cpu);
}
