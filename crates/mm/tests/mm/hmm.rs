//! A device that mirrors an address space: what it is told of each kind of page, and that it never keeps what was taken away.

use std::collections::BTreeMap;
use std::sync::Mutex;

use hosted::ThreadCpu;
use machine::{Access, CpuId, VirtAddr};
use mm::{Area, AreaRights, FaultError, HmmError, HmmPage, HmmRequest, RangeError, SpaceId, Usage};
use pagetable::{Entry, Flags};

use crate::memory::{CACHED, CACHED_HUGE, Kernel, anonymous};

const ONE: SpaceId = SpaceId::new(0);
/// On a boundary of 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 48;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.fill_file(&cpu);
        Self { kernel, cpu }
    }

    fn map(&self, area: Area) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
    }

    /// Looks up `N` pages from `start` on.
    fn look<const N: usize>(&self, start: VirtAddr, request: HmmRequest) -> Result<[HmmPage; N], HmmError> {
        let invalidations = &self.kernel.shadow.invalidations;
        let mut pages = [HmmPage::None; N];
        let range = (start, &mut pages[..]);
        self.kernel.mm.mirror(
            &self.cpu,
            self.kernel.space(0),
            invalidations,
            range,
            |_| request,
            |_, check| check.check(),
        )?;
        Ok(pages)
    }

    /// One page.
    fn look_at(&self, at: VirtAddr, request: HmmRequest) -> Result<HmmPage, HmmError> {
        self.look::<1>(at, request).map(|[page]| page)
    }

    /// What the device may have of a small page that is mapped.
    fn valid(&self, at: VirtAddr, access: Access) -> HmmPage {
        HmmPage::Valid { frame: self.kernel.frame_at(&self.cpu, 0, at).expect("mapped"), access, order: 0 }
    }

    fn end(self) {
        self.kernel.mm.munmap(&self.cpu, ONE, AT, 1 << 20).expect("the tables are whole");
        self.kernel.empty_file(&self.cpu);
        self.kernel.assert_all_is_back(TABLES);
    }
}

#[test]
fn a_snapshot_faults_nothing_in() {
    let w = World::new();
    w.map(anonymous(page(0), 4, 0));
    w.map(Area::shared(page(5), 1, AreaRights::None, CACHED, 0));
    w.kernel.store(&w.cpu, 0, page(1), 1).expect("memory");
    w.kernel.load(&w.cpu, 0, page(2)).expect("the zero page");
    let frame = w.kernel.frame_at(&w.cpu, 0, page(1)).expect("mapped");
    let written = HmmPage::Valid { frame, access: Access::Write, order: 0 };
    let zero = w.valid(page(2), Access::Read);
    // Behind the area, and in one that cannot be read.
    let (none, error) = (HmmPage::None, HmmPage::Error);
    assert_eq!(w.look(page(0), HmmRequest::Snapshot), Ok([none, written, zero, none, error, error]));
    assert_eq!(w.kernel.frame_at(&w.cpu, 0, page(0)), None);
    // On swap there is nothing that a device could use.
    w.kernel.mm.swap_out(&w.cpu, frame).expect("nobody else has it");
    assert_eq!(w.look_at(page(1), HmmRequest::Snapshot), Ok(none));
    w.end();
}

#[test]
fn what_is_wanted_is_faulted_in() {
    let w = World::new();
    w.map(anonymous(page(0), 4, 0));
    w.map(Area::shared(page(8), 4, AreaRights::Read, CACHED, 8));
    assert!(matches!(w.look_at(page(0), HmmRequest::Fault), Ok(HmmPage::Valid { access: Access::Read, .. })));
    let written = w.look_at(page(0), HmmRequest::FaultForWrite).expect("memory");
    assert_eq!(written, w.valid(page(0), Access::Write));
    // It comes back from swap.
    let frame = w.kernel.frame_at(&w.cpu, 0, page(0)).expect("mapped");
    w.kernel.mm.swap_out(&w.cpu, frame).expect("nobody else has it");
    assert!(matches!(w.look_at(page(0), HmmRequest::Fault), Ok(HmmPage::Valid { .. })));
    // Of a file that is mapped for reading: not for writing.
    let [first, second] = w.look::<2>(page(8), HmmRequest::Fault).expect("pages of the file");
    assert_eq!((first, second), (w.valid(page(8), Access::Read), w.valid(page(9), Access::Read)));
    assert!(matches!(
        w.look_at(page(8), HmmRequest::FaultForWrite),
        Err(HmmError::Fault(FaultError::Forbidden { address, access: Access::Write, .. })) if address == page(8)
    ));
    // Nothing is there, and nothing may be there.
    let no_area = Err(HmmError::Fault(FaultError::NoArea { address: page(4) }));
    assert_eq!(w.look_at(page(4), HmmRequest::Fault), no_area);
    w.kernel.mm.install_guards(&w.cpu, w.kernel.space(0), page(3), 1).expect("a table");
    let guarded = Err(HmmError::Fault(FaultError::Guarded { address: page(3) }));
    assert_eq!(w.look_at(page(3), HmmRequest::Fault), guarded);
    assert_eq!(w.look_at(page(3), HmmRequest::Snapshot), Ok(HmmPage::None));
    let misaligned = VirtAddr::new(0x10);
    let bad = Err(HmmError::Range(RangeError::Misaligned { address: misaligned }));
    assert_eq!(w.look_at(misaligned, HmmRequest::Fault), bad);
    w.end();
}

#[test]
fn each_page_has_a_wish_of_its_own() {
    let w = World::new();
    w.map(anonymous(page(0), 3, 0));
    let invalidations = &w.kernel.shadow.invalidations;
    let mut pages = [HmmPage::Error; 3];
    let request = |page| [HmmRequest::Snapshot, HmmRequest::FaultForWrite, HmmRequest::Snapshot][page];
    let range = (page(0), &mut pages[..]);
    let mirrored =
        w.kernel.mm.mirror(&w.cpu, w.kernel.space(0), invalidations, range, request, |_, check| check.check());
    assert_eq!(mirrored, Ok(()));
    assert_eq!(pages, [HmmPage::None, w.valid(page(1), Access::Write), HmmPage::None]);
    w.end();
}

#[test]
fn a_huge_leaf_says_its_order_and_each_page_its_frame() {
    let w = World::new();
    w.map(anonymous(page(0), 512, 0).with_huge_pages());
    let found = w.look::<3>(page(510), HmmRequest::Snapshot).expect("an area");
    assert_eq!(found, [HmmPage::None, HmmPage::None, HmmPage::Error]);
    w.kernel.store(&w.cpu, 0, page(0), 1).expect("memory");
    let head = w.kernel.frame_at(&w.cpu, 0, page(0)).expect("mapped");
    let at = |number| HmmPage::Valid { frame: head.wrapping_add(number), access: Access::Write, order: 9 };
    assert_eq!(w.look(page(510), HmmRequest::FaultForWrite).map(|[a, b]: [_; 2]| (a, b)), Ok((at(510), at(511))));
    w.end();
}

#[test]
fn what_was_taken_away_meanwhile_is_looked_up_again() {
    let w = World::new();
    w.map(anonymous(page(0), 1, 0));
    w.kernel.store(&w.cpu, 0, page(0), 1).expect("memory");
    let first = w.kernel.frame_at(&w.cpu, 0, page(0)).expect("mapped");
    let space = w.kernel.space(0);
    let invalidations = &w.kernel.shadow.invalidations;
    let mut pages = [HmmPage::None];
    let mut rounds = 0;
    let range = (page(0), &mut pages[..]);
    let mirrored = w.kernel.mm.mirror(
        &w.cpu,
        space,
        invalidations,
        range,
        |_| HmmRequest::Fault,
        |found, check| {
            rounds += 1;
            if rounds == 1 {
                assert_eq!(found, [HmmPage::Valid { frame: first, access: Access::Write, order: 0 }]);
                w.kernel.mm.zap(&w.cpu, space, page(0), 1).expect("whole tables");
            }
            check.check()
        },
    );
    assert_eq!((mirrored, rounds), (Ok(()), 2));
    // The zero page.
    assert_eq!(pages, [w.valid(page(0), Access::Read)]);
    w.end();
}

/// Who cleans an entry tells devices to forget the page first. So one that writes only through dirty entries never writes after it.
#[test]
fn a_device_may_write_only_where_the_entry_says_that_somebody_does() {
    let w = World::new();
    w.map(Area::shared(page(0), 1, AreaRights::ReadWrite, CACHED, 0));
    w.kernel.load(&w.cpu, 0, page(0)).expect("a page of the file");
    assert!(w.kernel.leaf_at(&w.cpu, 0, page(0)).expect("mapped").entry.has(Flags::WRITE));
    assert_eq!(w.look_at(page(0), HmmRequest::Snapshot), Ok(w.valid(page(0), Access::Read)));
    assert_eq!(w.look_at(page(0), HmmRequest::FaultForWrite), Ok(w.valid(page(0), Access::Write)));
    assert!(w.kernel.leaf_at(&w.cpu, 0, page(0)).expect("mapped").entry.has(Flags::DIRTY));
    let forgotten = || w.kernel.shadow.invalidations.begin(&w.cpu);
    let before = forgotten();
    w.kernel.mm.harvest(&w.cpu, w.kernel.space(0), (page(0), 1), Usage::DIRTY, |_| ()).expect("whole tables");
    assert_ne!(forgotten(), before);
    assert_eq!(w.look_at(page(0), HmmRequest::Snapshot), Ok(w.valid(page(0), Access::Read)));
    w.end();
}

/// The table goes with all that it maps, though only one page is taken away; the others are the other address space's, which will not tell.
#[test]
fn what_goes_with_a_shared_table_is_forgotten() {
    let w = World::new();
    let (mm, other) = (w.kernel.mm, SpaceId::new(1));
    let area = Area::shared(AT, 512, AreaRights::ReadWrite, CACHED, 0);
    w.map(area);
    mm.mmap(&w.cpu, other, area).expect("a good area");
    w.kernel.load(&w.cpu, 1, page(5)).expect("a page of the file");
    mm.share_table(&w.cpu, (ONE, AT), (other, AT)).expect("the same pages of one file");
    let mut pages = [HmmPage::None];
    let range = (page(5), &mut pages[..]);
    let invalidations = &w.kernel.shadow.invalidations;
    let mirrored = mm.mirror(
        &w.cpu,
        w.kernel.space(0),
        invalidations,
        range,
        |_| HmmRequest::Snapshot,
        |_, check| {
            let entry = w.kernel.leaf_at(&w.cpu, 0, page(5)).expect("mapped").entry;
            w.kernel.shadow.pages.lock().expect("nobody panics with it").insert(page(5), entry);
            check.check()
        },
    );
    assert_eq!((mirrored, pages), (Ok(()), [w.valid(page(5), Access::Read)]));
    mm.zap(&w.cpu, w.kernel.space(0), page(0), 1).expect("whole tables");
    assert_eq!(w.kernel.frame_at(&w.cpu, 0, page(5)), None);
    assert!(w.kernel.shadow.pages.lock().expect("nobody panics with it").is_empty(), "nothing is mapped");
    mm.munmap(&w.cpu, other, AT, 512).expect("the tables are whole");
    w.end();
}

/// Of a file of one huge page, in an area without leave to write.
#[test]
fn a_huge_page_of_a_file_is_mirrored_for_reading() {
    let w = World::new();
    let head = w.kernel.fill_huge_file(&w.cpu);
    w.map(Area::shared(AT, 512, AreaRights::Read, CACHED_HUGE, 0));
    let found = w.look_at(page(7), HmmRequest::Fault);
    assert_eq!(found, Ok(HmmPage::Valid { frame: head.wrapping_add(7), access: Access::Read, order: 9 }));
    w.kernel.mm.munmap(&w.cpu, ONE, AT, 512).expect("the tables are whole");
    let file = w.kernel.mm.file(CACHED_HUGE).expect("it is there");
    w.kernel.mm.replace_page(&w.cpu, file, 0, None).expect("a page of the file");
    w.end();
}

const PAGES: u64 = 16;
const ROUNDS: u64 = 10_000;

/// xorshift: the same work in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Whether a device may write where this is mapped.
fn may_write(entry: &Entry) -> bool {
    entry.has(Flags::WRITE) && entry.has(Flags::DIRTY)
}

/// Puts a few pages into the device, and compares those that it has already with the page table.
fn mirror(kernel: &Kernel, cpu: &ThreadCpu, random: &mut Random, compared: &mut u64) {
    let (shadow, space) = (kernel.shadow, kernel.space(0));
    let first = random.below(PAGES - 3);
    let write = random.below(2) == 0;
    let request = |number| match (number, write) {
        (0, _) => HmmRequest::Snapshot,
        (_, false) => HmmRequest::Fault,
        (_, true) => HmmRequest::FaultForWrite,
    };
    let mut found = [HmmPage::None; 4];
    let range = (page(first), &mut found[..]);
    let mirrored = kernel.mm.mirror(cpu, space, &shadow.invalidations, range, request, |found, check| {
        let mut pages = shadow.pages.lock().expect("nobody panics with it");
        let checked = check.check()?;
        for (number, found) in found.iter().enumerate() {
            let at = page(first + number as u64);
            let leaf = kernel.leaf_at(cpu, 0, at).map(|found| found.entry);
            if let Some(had) = pages.get(&at) {
                let now = leaf.expect("what the device has is mapped");
                let frame = |entry: &Entry| entry.leaf_frame(pagetable::Level::Pte);
                assert_eq!(frame(had), frame(&now), "{at}: another page");
                // What was told says whether the device may write: only with both bits. Nobody has taken one of them.
                assert!(may_write(&now) || !may_write(had), "{at}: the device may write, others not");
                *compared += 1;
            }
            match found {
                HmmPage::Valid { frame, access, .. } => {
                    let entry = leaf.expect("it may be put in, so it is mapped");
                    assert_eq!(entry.leaf_frame(pagetable::Level::Pte), *frame, "{at}: another page");
                    assert!(*access == Access::Read || may_write(&entry), "{at}");
                    pages.insert(at, entry);
                }
                HmmPage::None | HmmPage::Error => {}
            }
        }
        Ok(checked)
    });
    match mirrored {
        Ok(()) | Err(HmmError::Fault(FaultError::NoArea { .. } | FaultError::Forbidden { .. })) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// Takes something away.
fn change(kernel: &Kernel, cpu: &ThreadCpu, random: &mut Random) {
    let (mm, space) = (kernel.mm, kernel.space(0));
    let first = random.below(PAGES);
    let count = 1 + random.below((PAGES - first).min(4));
    match random.below(7) {
        0 => mm.zap(cpu, space, page(first), count).expect("whole tables"),
        1 => mm.write_protect(cpu, space, page(first), count).expect("whole tables"),
        2 => {
            mm.munmap(cpu, ONE, page(0), PAGES / 2).expect("whole tables");
            let _ = mm.mmap(cpu, ONE, anonymous(page(0), PAGES / 2, 0));
        }
        3 => {
            let file = mm.file(CACHED).expect("it is there");
            mm.unmap_mapping(cpu, file, random.below(PAGES / 2), count).expect("whole tables");
        }
        4 => {
            if let Some(frame) = kernel.frame_at(cpu, 0, page(first)) {
                let _ = mm.swap_out(cpu, frame);
            }
        }
        5 => mm.harvest(cpu, space, (page(first), count), Usage::DIRTY, |_| ()).expect("whole tables"),
        _ => {
            let _ = kernel.increment(cpu, 0, page(first));
        }
    }
}

#[test]
fn a_mirror_never_keeps_what_was_taken_away() {
    let kernel = Kernel::build(3, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
        kernel.mm.mmap(&cpu, ONE, anonymous(page(0), PAGES / 2, 0)).expect("a good area");
        let shared = Area::shared(page(PAGES / 2), PAGES / 2, AreaRights::ReadWrite, CACHED, 0);
        kernel.mm.mmap(&cpu, ONE, shared).expect("a good area");
    }
    let compared = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (kernel, compared) = (&kernel, &compared);
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                kernel.mm.enter(&cpu, kernel.space(0));
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number + 1) << 40);
                let mut count = 0;
                for _ in 0..ROUNDS {
                    match number {
                        0 | 1 => mirror(kernel, &cpu, &mut random, &mut count),
                        _ => change(kernel, &cpu, &mut random),
                    }
                }
                // In the end nobody changes anything.
                while number < 2 && count == 0 {
                    mirror(kernel, &cpu, &mut random, &mut count);
                }
                compared.lock().expect("nobody panics with it").insert(number, count);
            });
        }
    });
    let compared = compared.into_inner().expect("nobody panicked");
    assert!(compared[&0] > 0 && compared[&1] > 0, "nothing was compared");
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, ONE, VirtAddr::new(0), 1 << 35).expect("everything");
    assert!(kernel.shadow.pages.lock().expect("nobody panics with it").is_empty(), "nothing is mapped");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
