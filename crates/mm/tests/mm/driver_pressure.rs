//! What drivers map, when frames or slots run out: every allocation fails, alone and with all that follow. The operation fails whole, no count is off, the same
//! operation succeeds afterwards, and in the end nothing is lost.

use std::fmt::Debug;

use crate::driver::{Kernel, MIXED, PFN, RECORDED, RECORDED_SMALL, SPACE, VRAM};
use hosted::{Failures, ThreadCpu};
use machine::{Access, Frame, VirtAddr};
use mm::{Area, AreaError, AreaRights, DriverAnswer, FaultError, FileId, InsertError, Inserted, MapError, PfnLeaf};
use pagetable::{Entry, Level};

/// On a boundary of 1 GiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const ELSEWHERE: VirtAddr = VirtAddr::new(0x50_0000_0000);
const GIGABYTE: u64 = 1 << 18;

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

/// What is mapped at an address.
type Mapped = Option<(Level, Entry)>;

/// All that must be the same after a failure: entries at the edges of tables and leaves, and the counts of the device's folios.
type Seen = (Vec<Mapped>, [(u32, u32, u32); 2]);

impl World {
    fn new() -> Self {
        let kernel = Kernel::build(1);
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space);
        Self { kernel, cpu }
    }

    fn see(&self) -> Seen {
        let pages = [0, 1, 2, 3, 7, 511, 512, 513, 1023, 1024, 2047, GIGABYTE - 1];
        let places = [AT, ELSEWHERE].into_iter().flat_map(|start| pages.map(|page| start.wrapping_add(page * 4096)));
        let entries = places.map(|at| self.kernel.entry(&self.cpu, at)).collect();
        let counts = [RECORDED, RECORDED_SMALL].map(|frame| self.kernel.counts(&self.cpu, frame));
        (entries, counts)
    }

    fn map(&self, pages: u64, file: FileId) {
        self.kernel.map(&self.cpu, AT, pages, file);
    }

    fn insert(&self, level: Level, frame: Frame, page: u64) -> Result<(), String> {
        let (mm, space) = (self.kernel.mm, self.kernel.space);
        said(mm.insert_pfn(&self.cpu, space, AT.wrapping_add(page * 4096), &PfnLeaf::new(level, frame), Access::Write))
    }

    /// The handler maps as large as it is asked to, up to this level.
    fn largest(&self, largest: Level) {
        self.kernel.on_fault(move |context| match context.level() {
            level if level > largest => DriverAnswer::Fallback,
            level => context.insert(&PfnLeaf::new(level, VRAM.wrapping_add(context.leaf_page()))).into(),
        });
    }

    fn fault(&self) -> Result<(), String> {
        said(self.kernel.fault(&self.cpu, AT, Access::Write).map_err(|error| match error {
            FaultError::Driver(error) => error,
            error => panic!("{error:?}"),
        }))
    }
}

fn said<T, E: Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{error:?}"))
}

struct Case {
    name: &'static str,
    prepare: fn(&World),
    operate: fn(&World) -> Result<(), String>,
}

fn gigabyte(w: &World) {
    w.map(GIGABYTE, PFN);
}

const CASES: &[Case] = &[
    Case { name: "a page inserted", prepare: gigabyte, operate: |w| w.insert(Level::Pte, VRAM, 3) },
    Case { name: "2 MiB inserted", prepare: gigabyte, operate: |w| w.insert(Level::Pmd, VRAM, 512) },
    Case { name: "1 GiB inserted", prepare: gigabyte, operate: |w| w.insert(Level::Pud, VRAM, 0) },
    Case {
        name: "a page with a record inserted",
        prepare: |w| w.map(4, MIXED),
        operate: |w| w.insert(Level::Pte, RECORDED_SMALL, 3),
    },
    Case {
        name: "2 MiB with records inserted",
        prepare: |w| w.map(512, MIXED),
        operate: |w| w.insert(Level::Pmd, RECORDED, 0),
    },
    Case {
        name: "a fault for a page",
        prepare: |w| {
            gigabyte(w);
            w.largest(Level::Pte);
        },
        operate: World::fault,
    },
    Case {
        name: "a fault for 2 MiB",
        prepare: |w| {
            gigabyte(w);
            w.largest(Level::Pmd);
        },
        operate: World::fault,
    },
    Case {
        name: "a fault for 1 GiB",
        prepare: |w| {
            gigabyte(w);
            w.largest(Level::Pud);
        },
        operate: World::fault,
    },
    Case {
        name: "a fault for a page in a mixed file",
        prepare: |w| {
            w.map(4, MIXED);
            w.kernel.on_fault(|context| context.insert(&PfnLeaf::new(Level::Pte, RECORDED_SMALL)).into());
        },
        operate: World::fault,
    },
    Case {
        name: "a range of small pages over several tables",
        prepare: gigabyte,
        operate: |w| {
            let leaf = PfnLeaf::new(Level::Pte, VRAM.wrapping_add(1));
            said(w.kernel.mm.remap_pfn_range(&w.cpu, w.kernel.space, (AT, 2048), &leaf))
        },
    },
    Case {
        name: "a range in leaves of both sizes",
        prepare: gigabyte,
        operate: |w| {
            let leaf = PfnLeaf::new(Level::Pmd, VRAM.wrapping_add(1));
            said(w.kernel.mm.remap_pfn_range(&w.cpu, w.kernel.space, (AT.wrapping_add(4096), 1600), &leaf))
        },
    },
    Case {
        name: "munmap of part of 2 MiB",
        prepare: |w| {
            gigabyte(w);
            w.insert(Level::Pmd, VRAM, 0).expect("a free place");
        },
        operate: |w| said(w.kernel.mm.munmap(&w.cpu, SPACE, AT.wrapping_add(3 * 4096), 4)),
    },
    Case {
        name: "mprotect of part of 1 GiB",
        prepare: |w| {
            gigabyte(w);
            w.insert(Level::Pud, VRAM, 0).expect("a free place");
        },
        operate: |w| said(w.kernel.mm.mprotect(&w.cpu, SPACE, AT.wrapping_add(3 * 4096), 4, AreaRights::Read)),
    },
    Case {
        name: "mremap of pages",
        prepare: |w| {
            gigabyte(w);
            w.insert(Level::Pte, VRAM, 0).expect("a free place");
            w.insert(Level::Pte, VRAM, 513).expect("a free place");
        },
        operate: |w| said(w.kernel.mm.mremap(&w.cpu, SPACE, (AT, GIGABYTE), (ELSEWHERE, GIGABYTE))),
    },
];

/// Returns how many allocations the operation needs.
fn each_fails(case: &Case, fail: impl Fn(&Failures, u64)) -> u64 {
    for number in 1.. {
        let w = World::new();
        (case.prepare)(&w);
        let before = w.see();
        fail(&w.kernel.failures, number);
        let result = (case.operate)(&w);
        w.kernel.failures.fail_at(0);
        let has_failed = w.kernel.failures.failed() > 0;
        if has_failed {
            assert_eq!(result, Err("OutOfFrames".to_owned()), "{} needs allocation {number}", case.name);
            assert!(same(&w.see(), &before), "{}, allocation {number}: {:?}", case.name, w.see());
            assert_eq!((case.operate)(&w), Ok(()), "{} again, after allocation {number} failed", case.name);
        } else {
            assert_eq!(result, Ok(()), "{} with all frames", case.name);
        }
        assert_ne!(w.see(), before, "{} changes something", case.name);
        w.kernel.assert_all_is_back(&w.cpu);
        if !has_failed {
            return number - 1;
        }
    }
    unreachable!("operations have an end")
}

/// Whether user code can do the same. A huge leaf that was split maps the same in smaller ones.
fn same(after: &Seen, before: &Seen) -> bool {
    let is_same = |(after, before): (&Mapped, &Mapped)| match (after, before) {
        (Some((level, entry)), Some((was, old))) => {
            level == was && entry == old || level < was && entry.rights() == old.rights()
        }
        (after, before) => after == before,
    };
    after.0.iter().zip(&before.0).all(is_same) && after.1 == before.1
}

#[test]
fn every_allocation_fails() {
    for case in CASES {
        let alone = each_fails(case, Failures::fail_at);
        let lasting = each_fails(case, Failures::fail_from);
        assert!(alone > 0 && alone == lasting, "{}: {alone} allocations, {lasting} with all that follow", case.name);
    }
}

/// A handler that maps ahead does with less: the page that faulted is what the fault is about.
#[test]
fn mapping_ahead_ends_where_frames_do() {
    for number in 1.. {
        let w = World::new();
        gigabyte(&w);
        w.kernel.on_fault(|context| match context.level() {
            Level::Pte => {
                let like = PfnLeaf::new(Level::Pte, VRAM);
                let inserted = context.insert_pages(16, &like, |page| Some(VRAM.wrapping_add(page)));
                inserted.map(|_| Inserted::New).into()
            }
            _ => DriverAnswer::Fallback,
        });
        let at = AT.wrapping_add(504 * 4096);
        w.kernel.failures.fail_from(number);
        let result = w.kernel.fault(&w.cpu, at, Access::Read);
        w.kernel.failures.fail_at(0);
        let is_mapped = |page: u64| w.kernel.entry(&w.cpu, AT.wrapping_add(page * 4096)).is_some();
        let mapped = (500..524).filter(|page| is_mapped(*page)).count();
        let failed = w.kernel.failures.failed();
        match (result, mapped) {
            (Err(FaultError::Driver(InsertError::OutOfFrames)), 0) => {}
            // To the end of the first table.
            (Ok(()), 8) if failed > 0 => {}
            (Ok(()), 16) if failed == 0 => {
                w.kernel.assert_all_is_back(&w.cpu);
                return;
            }
            other => panic!("allocation {number}: {other:?}"),
        }
        assert_eq!(w.kernel.fault(&w.cpu, at, Access::Read), Ok(()), "again");
        w.kernel.assert_all_is_back(&w.cpu);
    }
}

#[test]
fn slots_run_out() {
    let w = World::new();
    let area =
        |number: u64| Area::shared(AT.wrapping_add(number * 8 * 4096), 4, AreaRights::ReadWrite, PFN, number * 8);
    let mut count = 0;
    let refused = loop {
        match w.kernel.mm.mmap(&w.cpu, SPACE, area(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, MapError::SpaceFull | MapError::FileFull), "{refused:?}");
    w.insert(Level::Pte, VRAM, 1).expect("a free place");
    let before = w.see();
    // What would cut an area in two needs a slot, and is refused whole.
    let middle = AT.wrapping_add(4096);
    let unmapped = w.kernel.mm.munmap(&w.cpu, SPACE, middle, 1);
    assert!(matches!(unmapped, Err(AreaError::SpaceFull | AreaError::FileFull)), "{unmapped:?}");
    let protected = w.kernel.mm.mprotect(&w.cpu, SPACE, middle, 1, AreaRights::Read);
    assert!(matches!(protected, Err(AreaError::SpaceFull | AreaError::FileFull)), "{protected:?}");
    assert_eq!(w.see(), before);
    // With one area less it works.
    w.kernel.mm.munmap(&w.cpu, SPACE, area(count - 1).start, 4).expect("an area");
    w.kernel.mm.munmap(&w.cpu, SPACE, area(count - 2).start, 4).expect("an area");
    w.kernel.mm.mprotect(&w.cpu, SPACE, middle, 1, AreaRights::Read).expect("there are slots");
    // Both slots of each area are given back: as many fit again.
    w.kernel.mm.munmap(&w.cpu, SPACE, AT, 8 * count).expect("areas");
    (0..count).for_each(|number| w.kernel.mm.mmap(&w.cpu, SPACE, area(number)).expect("as before"));
    assert_eq!(w.kernel.mm.mmap(&w.cpu, SPACE, area(count)), Err(refused));
    w.kernel.assert_all_is_back(&w.cpu);
}
