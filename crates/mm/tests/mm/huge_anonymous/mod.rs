//! Huge pages of anonymous memory: by faults, split, collapsed, zapped in part; contents, counts and frames are exact.

mod collapse;

use crate::memory::{CACHED, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, CpuId, Frame, VirtAddr, Word};
use mm::{
    AddressSpace, Area, AreaRights, CollapseError, Event, FlushReason, FolioFlags, FolioSplitError, Foll, MemoryMap,
    MergeError, MergeInto, ReclaimError, Sharing, SpaceId, Unmergeable,
};
use pagetable::{Level, NonPresent, ProtNone};
use std::time::Duration;

const SPACE: SpaceId = SpaceId::new(0);
/// Three times 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 3 * 512;
const TABLES: u64 = 64;
/// Root tables of address spaces.
const ROOTS: u64 = 3;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

/// A kernel in whose first address space one area lies at [`AT`].
struct Huge {
    kernel: Kernel,
    space: &'static AddressSpace<'static>,
}

impl Huge {
    fn build(cpus: u32) -> Self {
        let kernel = Kernel::build(cpus, TABLES);
        let space = kernel.space(0);
        let huge = Self { kernel, space };
        huge.map(&huge.kernel.machine.attach().expect("a free CPU"));
        huge
    }

    fn map(&self, cpu: &ThreadCpu) {
        self.kernel.mm.mmap(cpu, SPACE, anonymous(AT, PAGES, 0).with_huge_pages()).expect("a good area");
    }

    fn attach(&self, number: u32) -> ThreadCpu {
        let cpu = self.kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
        self.kernel.mm.enter(&cpu, self.space);
        cpu
    }

    fn write(&self, cpu: &ThreadCpu, number: u64, value: u64) {
        self.kernel.store(cpu, 0, page(number), value).expect("a page of the area");
    }

    fn read(&self, cpu: &ThreadCpu, number: u64) -> u64 {
        self.kernel.load(cpu, 0, page(number)).expect("a page of the area")
    }

    fn frame(&self, cpu: &ThreadCpu, number: u64) -> Frame {
        self.kernel.frame_at(cpu, 0, page(number)).expect("mapped")
    }

    fn zap(&self, cpu: &ThreadCpu, number: u64, pages: u64) {
        self.kernel.mm.zap(cpu, self.space, page(number), pages).expect("frames enough");
    }

    /// Frames for data and for tables that are in use.
    fn in_use(&self) -> (u64, u64) {
        (self.kernel.data.in_use(), self.kernel.tables.arena.in_use() - ROOTS)
    }

    /// Unmaps everything, and checks that nothing is left.
    fn end(&self, cpu: &ThreadCpu) {
        self.kernel.mm.munmap(cpu, SPACE, AT, PAGES).expect("it is mapped");
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[test]
fn huge_leaves_beside_a_range_are_not_split() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    for first in [0, 512, 1024] {
        huge.write(&cpu, first, 1);
    }
    huge.zap(&cpu, 512, 512);
    for first in [0, 1024] {
        assert_eq!(huge.kernel.mm.split_leaf(&cpu, huge.space, page(first)), Ok(Level::Pmd), "it was whole");
    }
    huge.end(&cpu);
}

#[test]
fn to_write_protect_a_huge_leaf_leaves_the_way_to_a_table_beside_it() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    huge.write(&cpu, 0, 1);
    huge.write(&cpu, 512, 2);
    assert_eq!(huge.kernel.mm.split_leaf(&cpu, huge.space, page(512)), Ok(Level::Pmd));
    huge.kernel.mm.write_protect(&cpu, huge.space, AT, PAGES).expect("the tables are whole");
    let may_pin = |number| {
        let flags = Foll::PIN | Foll::WRITE | Foll::FAST_ONLY;
        let release = |run| huge.kernel.mm.release(&cpu, run, Access::Write).expect("pinned a moment ago");
        huge.kernel.mm.gup(&cpu, huge.space, page(number), 1, flags, release).expect("a good request") == 1
    };
    assert_eq!([0, 512].map(may_pin), [false; 2]);
    for number in [0, 512] {
        huge.write(&cpu, number, 3);
    }
    assert_eq!([0, 512].map(may_pin), [true; 2]);
    huge.end(&cpu);
}

#[test]
fn a_fault_maps_a_huge_page_and_part_of_it_can_go() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    huge.write(&cpu, 600, 6);
    assert_eq!(huge.in_use(), (512, 2), "one huge page, and no table of pages");
    assert_eq!(huge.read(&cpu, 1000), 0, "zeroed");
    huge.write(&cpu, 1000, 10);
    let head = huge.frame(&cpu, 512);
    let before = (huge.kernel.counts(&cpu, head), huge.kernel.flags(&cpu, head));
    assert_eq!(huge.kernel.mm.swap_out(&cpu, head), Err(ReclaimError::Large { order: 9 }), "split it first");
    assert_eq!((huge.kernel.counts(&cpu, head), huge.kernel.flags(&cpu, head)), before);

    // What GUP faults in is no smaller.
    let mut runs = Vec::new();
    let got = huge.kernel.mm.gup(&cpu, huge.space, page(3), 1, Foll::PIN | Foll::WRITE, |run| runs.push(run));
    assert_eq!((got, huge.in_use()), (Ok(1), (1024, 2)));
    runs.into_iter().for_each(|run| huge.kernel.mm.release(&cpu, run, Access::Read).expect("held"));
    // Nor does a change of rights make it so where it begins or ends.
    for rights in [AreaRights::Read, AreaRights::ReadWrite] {
        huge.kernel.mm.mprotect(&cpu, SPACE, page(512), 512, rights).expect("it is mapped");
        assert_eq!(huge.in_use(), (1024, 2), "{rights:?}");
    }
    huge.zap(&cpu, 0, 512);
    assert_eq!(huge.in_use(), (512, 2));

    // Part of it goes: the rest keeps its contents.
    huge.zap(&cpu, 512, 100);
    assert_eq!((huge.read(&cpu, 600), huge.read(&cpu, 1000)), (0, 10));
    assert_eq!(huge.in_use().1, 3, "it is a table of pages now");
    huge.end(&cpu);
}

#[test]
fn what_reaches_beyond_the_area_is_not_huge() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let mm = huge.kernel.mm;
    mm.munmap(&cpu, SPACE, page(1000), PAGES - 1000).expect("it is mapped");
    huge.write(&cpu, 900, 1);
    huge.write(&cpu, 3, 1);
    let level = |number| huge.kernel.leaf_at(&cpu, 0, page(number)).map(|leaf| leaf.level);
    assert_eq!((level(3), level(900)), (Some(Level::Pmd), Some(Level::Pte)), "nor is it mapped huge");
    assert_eq!(level(1000), None, "nothing is mapped behind the area");
    assert_eq!(
        mm.collapse(&cpu, huge.space, page(900), 512),
        Err(CollapseError::Area { address: page(900) }),
        "the area ends in the middle of the second huge page"
    );
    mm.munmap(&cpu, SPACE, AT, 1000).expect("it is mapped");
}

#[test]
fn part_of_a_huge_page_that_nobody_may_use_can_go() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    for number in [600, 1000] {
        huge.write(&cpu, number, number);
    }
    let mprotect = |rights| huge.kernel.mm.mprotect(&cpu, SPACE, AT, PAGES, rights).expect("it is mapped");
    mprotect(AreaRights::None);
    huge.zap(&cpu, 512, 100);
    mprotect(AreaRights::ReadWrite);
    assert_eq!((huge.read(&cpu, 600), huge.read(&cpu, 1000)), (0, 1000), "the rest keeps its contents");
    huge.end(&cpu);
}

/// A large folio that parent and child have is split: it stays copy-on-write for both. Each of its pages is found where it is mapped from then on.
#[test]
fn a_folio_that_is_shared_with_a_child_splits_and_stays_shared() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let (kernel, mm) = (&huge.kernel, huge.kernel.mm);
    for number in [512, 600] {
        huge.write(&cpu, number, number);
    }
    let child = SpaceId::new(1);
    mm.fork(&cpu, SPACE, child).expect("frames enough");
    mm.split_folio(&cpu, huge.frame(&cpu, 512)).expect("nobody else uses it");
    let frame = huge.frame(&cpu, 600);
    assert_eq!((kernel.frame_at(&cpu, 1, page(600)), kernel.counts(&cpu, frame)), (Some(frame), (2, 0, 2)));
    assert_eq!(mm.swap_out(&cpu, frame), Ok(()), "its record says where it is mapped");
    assert_eq!((kernel.load(&cpu, 1, page(600)), huge.read(&cpu, 600)), (Ok(600), 600));
    for number in [512, 600] {
        huge.write(&cpu, number, 1);
        assert_eq!(kernel.load(&cpu, 1, page(number)), Ok(number), "the parent wrote to a copy");
    }
    mm.munmap(&cpu, child, AT, PAGES).expect("it is mapped");
    huge.end(&cpu);
}

/// A pin for reading is of the page that the next store will find. A huge page that is the address space's own fast GUP may take though its entry is not
/// writable; once a child has it, too, it may not.
#[test]
fn fast_gup_pins_read_only_huge_pages_of_the_spaces_own() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let mm = huge.kernel.mm;
    for number in [100, 600] {
        huge.write(&cpu, number, number);
    }
    mm.mprotect(&cpu, SPACE, AT, PAGES, AreaRights::Read).expect("it is mapped");
    let pin = |number| {
        let mut runs = Vec::new();
        let got = mm.gup(&cpu, huge.space, page(number), 4, Foll::PIN | Foll::FAST_ONLY, |run| runs.push(run));
        runs.into_iter().for_each(|run| mm.release(&cpu, run, Access::Read).expect("held"));
        got
    };
    assert_eq!(pin(600), Ok(4));
    // By leaves of one page each, each page's own record decides.
    mm.split_leaf(&cpu, huge.space, page(600)).expect("a huge leaf");
    assert_eq!(pin(600), Ok(4));
    let third = MemoryMap::page(huge.kernel.data, &cpu, huge.frame(&cpu, 602)).expect("a record").flags_word();
    let flags = third.atomic_fetch_and(!FolioFlags::EXCLUSIVE.bits());
    assert_eq!(pin(600), Ok(2), "short before the page that is not its own");
    third.atomic_swap(flags);
    let child = SpaceId::new(1);
    mm.fork(&cpu, SPACE, child).expect("frames enough");
    assert_eq!(huge.kernel.frame_at(&cpu, 1, page(600)), Some(huge.frame(&cpu, 600)), "they share it");
    assert_eq!([pin(100), pin(600)], [Ok(0); 2], "the next store may be into a copy");
    mm.munmap(&cpu, child, AT, PAGES).expect("it is mapped");
    huge.end(&cpu);
}

#[test]
fn a_huge_page_moves_with_its_contents() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    for number in [512, 600, 1023] {
        huge.write(&cpu, number, number);
    }
    let before = huge.frame(&cpu, 512);
    huge.kernel.mm.migrate(&cpu, before).expect("nobody else uses it");
    assert_ne!(huge.frame(&cpu, 512), before);
    assert_eq!(huge.in_use(), (512, 2), "by one huge leaf");
    assert_eq!([512, 600, 1023].map(|number| huge.read(&cpu, number)), [512, 600, 1023]);
    huge.end(&cpu);
}

#[test]
fn a_huge_folio_splits_and_what_is_not_mapped_is_freed() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    for number in 512..1024 {
        huge.write(&cpu, number, number);
    }
    let head = huge.frame(&cpu, 512);
    let mm = huge.kernel.mm;
    huge.zap(&cpu, 512, 100);
    assert_eq!(huge.in_use().0, 512, "the folio is one still");

    let mut pins = Vec::new();
    mm.gup(&cpu, huge.space, page(700), 2, Foll::PIN | Foll::WRITE, |run| pins.push(run)).expect("pages");
    let refused = mm.split_folio(&cpu, head.wrapping_add(5));
    assert!(matches!(refused, Err(FolioSplitError::Stays(ReclaimError::Pinned))), "{refused:?}");
    for run in pins {
        mm.release(&cpu, run, Access::Write).expect("held");
    }
    mm.split_folio(&cpu, head.wrapping_add(5)).expect("nobody else uses it");
    assert_eq!(huge.in_use().0, 412, "pages without a mapping are free");
    let small = head.wrapping_add(188);
    assert_eq!(huge.frame(&cpu, 700), small, "the same frames at the same addresses");
    assert_eq!(huge.kernel.counts(&cpu, small), (1, 0, 1));
    for number in 612..1024 {
        huge.write(&cpu, number, huge.read(&cpu, number) + 1);
        assert_eq!(huge.read(&cpu, number), number + 1);
        assert_eq!(huge.frame(&cpu, number), head.wrapping_add(number - 512), "not a copy: it is exclusive still");
    }
    assert_eq!(mm.split_folio(&cpu, small), Err(FolioSplitError::Small { frame: small }));
    // And together again.
    mm.collapse(&cpu, huge.space, page(512), 100).expect("nothing is in the way");
    assert_eq!((huge.read(&cpu, 512), huge.read(&cpu, 1023)), (0, 1024));
    huge.end(&cpu);
}

/// A walker that takes a reference to a folio which was split a moment ago gives it back to what is left of that, and leaves that in use.
#[test]
fn a_folio_that_splits_under_a_walker_keeps_its_head() {
    let huge = Huge::build(2);
    // The walker has interrupts off when the other splits, who would wait for its flush if it translated by the address space.
    let cpu = huge.kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
    let other = huge.attach(1);
    let (mm, space) = (huge.kernel.mm, huge.space);
    for number in [0, 188] {
        huge.write(&cpu, number, 7 + number);
    }
    assert_eq!(mm.split_leaf(&cpu, space, AT), Ok(Level::Pmd));
    let head = huge.frame(&cpu, 0);
    huge.kernel.checked.between_looks(move || mm.split_folio(&other, head).expect("nobody else uses it"));
    let mut pins = Vec::new();
    let flags = Foll::PIN | Foll::WRITE | Foll::FAST_ONLY;
    assert_eq!(mm.gup(&cpu, space, page(188), 1, flags, |run| pins.push(run)), Ok(1));
    assert_eq!(huge.kernel.counts(&cpu, head), (1, 0, 1), "a page of its own now, that is mapped");
    pins.into_iter().for_each(|run| mm.release(&cpu, run, Access::Write).expect("held"));
    assert_eq!([0, 188].map(|number| huge.read(&cpu, number)), [7, 195]);
    assert_eq!(huge.in_use().0, 512);
    huge.end(&cpu);
}

/// Lets every allocation of an operation fail, one after the other: it fails whole.
#[test]
fn without_frames_everything_fails_whole() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let (mm, failures) = (huge.kernel.mm, &huge.kernel.failures);
    let prepare = || {
        mm.munmap(&cpu, SPACE, AT, PAGES).expect("it is mapped");
        huge.map(&cpu);
        for number in [1, 511, 1023] {
            huge.write(&cpu, number, number);
        }
        huge.zap(&cpu, 600, 1);
        mm.split_folio(&cpu, huge.frame(&cpu, 1023)).expect("nobody else uses it");
    };
    let operations: [(&str, &dyn Fn() -> bool); 4] = [
        ("split of a leaf", &|| mm.split_leaf(&cpu, huge.space, AT).is_ok()),
        ("zap of part", &|| mm.zap(&cpu, huge.space, page(2), 100).is_ok()),
        ("split of a folio", &|| mm.split_folio(&cpu, huge.frame(&cpu, 1)).is_ok()),
        ("collapse", &|| mm.collapse(&cpu, huge.space, page(512), 512).is_ok()),
    ];
    for (name, operation) in operations {
        for number in 1.. {
            prepare();
            let (in_use, failed) = (huge.in_use(), failures.failed());
            failures.fail_at(number);
            let done = operation();
            failures.fail_at(0);
            if failures.failed() == failed {
                assert!(done && number > 1, "{name} allocates something, and works with all frames");
                break;
            }
            assert!(!done, "{name} needs allocation {number}");
            assert_eq!(huge.in_use(), in_use, "{name}: nothing is lost");
            assert_eq!([1, 511, 1023].map(|number| huge.read(&cpu, number)), [1, 511, 1023]);
        }
    }
    huge.end(&cpu);
}

#[test]
fn a_huge_page_moves_whole_where_it_can_be_one() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let (mm, to) = (huge.kernel.mm, VirtAddr::new(0x50_0000_0000));
    for number in [512, 600, 1023] {
        huge.write(&cpu, number, number);
    }
    let frame = huge.frame(&cpu, 512);
    let places = [(to, Level::Pmd), (to.wrapping_add(PAGES * 4096 + 4096), Level::Pte)];
    let mut from = page(512);
    for (to, level) in places {
        mm.mremap(&cpu, SPACE, (from, 512), (to, 512)).expect("nothing is there");
        let leaf = huge.kernel.leaf_at(&cpu, 0, to).expect("mapped");
        assert_eq!((leaf.level, leaf.frame), (level, frame));
        for number in [512, 600, 1023] {
            assert_eq!(huge.kernel.load(&cpu, 0, to.wrapping_add((number - 512) * 4096)), Ok(number));
        }
        from = to;
    }
    mm.munmap(&cpu, SPACE, from, 512).expect("it is mapped");
    huge.end(&cpu);
}

#[test]
fn a_child_has_huge_pages_that_nobody_may_use_for_now() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let (kernel, child) = (&huge.kernel, SpaceId::new(1));
    for number in [512, 600, 1023] {
        huge.write(&cpu, number, number);
    }
    kernel.mm.mprotect(&cpu, SPACE, AT, PAGES, AreaRights::None).expect("an area");
    kernel.mm.fork(&cpu, SPACE, child).expect("frames enough");
    assert!(kernel.load(&cpu, 1, page(512)).is_err(), "forbidden there, too");
    for space in [SPACE, child] {
        kernel.mm.mprotect(&cpu, space, AT, PAGES, AreaRights::ReadWrite).expect("an area");
    }
    huge.write(&cpu, 600, 7);
    assert_eq!([512, 600, 1023].map(|number| kernel.load(&cpu, 1, page(number))), [Ok(512), Ok(600), Ok(1023)]);
    assert_eq!([512, 600, 1023].map(|number| huge.read(&cpu, number)), [512, 7, 1023]);
    kernel.mm.exit(&cpu, child).expect("whole tables");
    huge.end(&cpu);
}

#[test]
fn a_child_gets_no_tables_for_what_is_not_there() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let child = SpaceId::new(1);
    huge.write(&cpu, 600, 6);
    huge.zap(&cpu, 0, PAGES);
    let before = huge.in_use();
    assert!(before.1 > 0, "the parent's tables stay");
    huge.kernel.mm.fork(&cpu, SPACE, child).expect("frames enough");
    assert_eq!(huge.in_use(), before);
    huge.kernel.mm.exit(&cpu, child).expect("whole tables");
    huge.end(&cpu);
}

/// Between the moment when a zap splits what lies across its edges and when it clears entries, another CPU maps a huge page there and stores into it, outside the range.
#[test]
fn a_huge_page_that_comes_meanwhile_goes_in_part_only() {
    for (zapped, (stays, goes)) in [((0, 100), (300, 50)), ((100, 412), (50, 300)), ((100, 100), (300, 150))] {
        let huge = Huge::build(2);
        // No CPU translates by the address space, so that none has to be interrupted.
        let cpu = huge.kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
        let kernel = huge.kernel.clone();
        huge.kernel.recorder.before(
            |event| matches!(event, Event::Zap { .. }),
            move || {
                let other = kernel.machine.attach_as(CpuId::new(1)).expect("nobody else has it");
                for number in [stays, goes] {
                    kernel.store(&other, 0, page(512 + number), number).expect("a page of the area");
                }
                assert_eq!(kernel.leaf_at(&other, 0, page(512)).map(|leaf| leaf.level), Some(Level::Pmd));
            },
        );
        huge.zap(&cpu, 512 + zapped.0, zapped.1);
        assert!(huge.kernel.recorder.has_acted());
        assert_eq!((huge.read(&cpu, 512 + stays), huge.read(&cpu, 512 + goes)), (stays, 0), "{zapped:?}");
        huge.end(&cpu);
    }
}

#[test]
fn huge_pages_that_nobody_may_use_for_now_move_and_do_not_merge() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let (mm, kernel) = (huge.kernel.mm, &huge.kernel);
    huge.write(&cpu, 600, 6);
    let merged = |number| mm.merge(&cpu, MergeInto::ZeroPage, (SPACE, page(number)));
    let refused = [Err(MergeError::From(Unmergeable::NotMapped)), Err(MergeError::From(Unmergeable::Large))];
    assert_eq!([3, 600].map(merged), refused);
    mm.mprotect(&cpu, SPACE, AT, PAGES, AreaRights::None).expect("an area");
    assert_eq!([3, 600].map(merged), refused);
    // To where huge pages can be, and to where they cannot: with what is not mapped before and behind it.
    let mut from = AT;
    for to in [VirtAddr::new(0x50_0000_0000), VirtAddr::new(0x60_0000_1000)] {
        mm.mremap(&cpu, SPACE, (from, PAGES), (to, PAGES)).expect("nothing is there");
        assert!(kernel.load(&cpu, 0, to.wrapping_add(600 * 4096)).is_err(), "still forbidden");
        from = to;
    }
    mm.mprotect(&cpu, SPACE, from, PAGES, AreaRights::ReadWrite).expect("an area");
    assert_eq!(
        [3, 600, 1500].map(|number| kernel.load(&cpu, 0, from.wrapping_add(number * 4096))),
        [Ok(0), Ok(6), Ok(0)]
    );
    mm.munmap(&cpu, SPACE, from, PAGES).expect("it is mapped");
    huge.end(&cpu);
}

#[test]
fn the_last_user_of_a_huge_page_writes_to_it_without_a_copy() {
    let huge = Huge::build(1);
    let cpu = huge.attach(0);
    let child = SpaceId::new(1);
    huge.write(&cpu, 600, 6);
    let frame = huge.frame(&cpu, 600);
    huge.kernel.mm.fork(&cpu, SPACE, child).expect("frames enough");
    huge.kernel.mm.exit(&cpu, child).expect("whole tables");
    huge.write(&cpu, 600, 7);
    let leaf = huge.kernel.leaf_at(&cpu, 0, page(600)).expect("mapped");
    assert_eq!((leaf.level, leaf.frame, huge.read(&cpu, 600)), (Level::Pmd, frame, 7));
    huge.end(&cpu);
}

/// As before, but when the zap comes to it the huge page is on its way elsewhere: the zap waits, and splits it then.
#[test]
fn a_huge_page_that_comes_and_moves_meanwhile_goes_in_part_only() {
    let huge = Huge::build(3);
    let cpu = huge.kernel.machine.attach_as(CpuId::new(0)).expect("nobody else has it");
    let (kernel, mover) = (huge.kernel.clone(), huge.kernel.clone());
    let (zapped, is_zapped) = std::sync::mpsc::channel();
    let (ended, has_ended) = std::sync::mpsc::channel();
    huge.kernel.recorder.before(
        |event| matches!(event, Event::Zap { .. }),
        move || {
            let other = kernel.machine.attach_as(CpuId::new(1)).expect("nobody else has it");
            for number in [50, 300] {
                kernel.store(&other, 0, page(512 + number), number).expect("a page of the area");
            }
            let frame = kernel.frame_at(&other, 0, page(512)).expect("mapped");
            let (away, is_away) = std::sync::mpsc::channel();
            kernel.recorder.before(
                |event| matches!(event, Event::TlbFlush { reason: FlushReason::LocalShootdown, .. }),
                move || {
                    away.send(()).expect("the zap waits for it");
                    // Time for a zap that does not wait.
                    let early = is_zapped.recv_timeout(Duration::from_millis(50));
                    assert!(early.is_err(), "the zap has not waited");
                },
            );
            std::thread::spawn(move || {
                let cpu = mover.machine.attach_as(CpuId::new(2)).expect("nobody else has it");
                let moved = mover.mm.migrate(&cpu, frame).map(|moved| moved.to.head);
                ended.send(moved).expect("somebody waits for it");
            });
            is_away.recv().expect("it flushes");
        },
    );
    huge.zap(&cpu, 512, 100);
    // Nobody may wait for it any more.
    let _ = zapped.send(());
    has_ended.recv().expect("it ends").expect("nobody else uses it");
    assert_eq!((huge.read(&cpu, 512 + 300), huge.read(&cpu, 512 + 50)), (300, 0));
    huge.end(&cpu);
}
