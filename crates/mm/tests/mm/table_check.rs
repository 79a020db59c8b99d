//! Counts of entries: what they are for each kind of page, and that mistakes are reported. That the engine makes none, every test with [`Kernel`] says at its end.

use hosted::ThreadCpu;
use machine::{CpuId, Frame, VirtAddr, Word};
use mm::table_check::{CheckedFrames, DoubleUse, FrameKind, Uses};
use mm::{Area, AreaRights, FolioFlags, Membership, SpaceId};
use pagetable::{Entry, Flags, Level, ZeroThenLink};

use crate::memory::{CACHED, CACHED_HUGE, Kernel, anonymous};

const ONE: SpaceId = SpaceId::new(0);
/// On a boundary of 2 MiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const TABLES: u64 = 48;

const fn page(number: u64) -> VirtAddr {
    AT.wrapping_add(number * 4096)
}

const fn uses(mappings: u32, writable: u32) -> Uses {
    Uses { mappings, writable }
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
}

impl World {
    fn new() -> Self {
        let kernel = Kernel::build(2, TABLES);
        let cpu = kernel.machine.attach_as(CpuId::new(0)).expect("a free CPU");
        kernel.mm.enter(&cpu, kernel.space(0));
        kernel.fill_file(&cpu);
        Self { kernel, cpu }
    }

    fn map(&self, area: Area) {
        self.kernel.mm.mmap(&self.cpu, ONE, area).expect("a good area");
    }

    fn store(&self, number: u64) -> Frame {
        self.kernel.store(&self.cpu, 0, page(number), 1).expect("memory");
        self.frame(number)
    }

    fn frame(&self, number: u64) -> Frame {
        self.kernel.frame_at(&self.cpu, 0, page(number)).expect("mapped")
    }

    /// How a frame is mapped: as anonymous memory, and as a file's.
    fn uses(&self, frame: Frame) -> (Uses, Uses) {
        self.kernel.checked.frame(frame).expect("a frame with data").uses.read(&self.cpu)
    }

    /// Changes an entry behind the engine's back, but not the checker's.
    fn change(&self, number: u64, change: impl Fn(Entry) -> Entry) {
        change_entry(&self.kernel, &self.cpu, page(number), change);
    }

    fn end(self) {
        self.kernel.mm.munmap(&self.cpu, ONE, AT, 1 << 12).expect("the tables are whole");
        self.kernel.empty_file(&self.cpu);
        self.kernel.assert_all_is_back(TABLES);
    }
}

fn change_entry(kernel: &Kernel, cpu: &ThreadCpu, at: VirtAddr, change: impl Fn(Entry) -> Entry) {
    let tables = kernel.page_tables(0);
    let position = tables.populate(cpu, kernel.tables, &ZeroThenLink, at, Level::Pte).expect("a table");
    let mut table = position.lock(cpu);
    let entry = table.entry(tables.mode, at);
    table.replace(tables.writer, at, change(entry));
    table.unlock();
}

#[test]
fn entries_are_counted_by_what_they_map_and_allow() {
    let w = World::new();
    w.map(anonymous(page(0), 4, 0));
    w.map(Area::shared(page(8), 4, AreaRights::ReadWrite, CACHED, 8));
    let none = uses(0, 0);
    let own = w.store(0);
    assert_eq!(w.uses(own), (uses(1, 1), none));
    w.kernel.load(&w.cpu, 0, page(1)).expect("the zero page");
    assert_eq!(w.uses(w.frame(1)), (none, none), "nobody counts the zero page");
    let cached = w.store(9);
    assert_eq!(w.uses(cached), (none, uses(1, 1)));
    // A child has it, too, and neither may write.
    let child = SpaceId::new(1);
    w.kernel.mm.fork(&w.cpu, ONE, child).expect("an empty space");
    assert_eq!(w.uses(own), (uses(2, 0), none));
    assert_eq!(w.kernel.load(&w.cpu, 1, page(9)), Ok(1));
    assert_eq!(w.uses(cached), (none, uses(2, 2)));
    // A copy for the child; the parent's is not writable until it is written.
    w.kernel.store(&w.cpu, 1, page(0), 2).expect("a copy");
    assert_eq!(w.uses(own), (uses(1, 0), none));
    w.kernel.mm.munmap(&w.cpu, child, AT, 16).expect("the tables are whole");
    assert_eq!(w.uses(cached), (none, uses(1, 1)));
    assert_eq!((w.store(0), w.uses(own)), (own, (uses(1, 1), none)), "it may write again, and has");
    // What nobody may access, or is on swap, is not mapped.
    w.kernel.mm.mprotect(&w.cpu, ONE, page(0), 4, AreaRights::None).expect("an area");
    assert_eq!(w.uses(own), (none, none));
    w.kernel.mm.mprotect(&w.cpu, ONE, page(0), 4, AreaRights::ReadWrite).expect("an area");
    assert_eq!(w.store(0), own);
    w.kernel.mm.swap_out(&w.cpu, own).expect("nobody else has it");
    assert_eq!(w.uses(own), (none, none));
    w.end();
}

#[test]
fn each_page_of_a_huge_leaf_is_counted_and_a_split_changes_nothing() {
    let w = World::new();
    w.map(anonymous(page(0), 512, 0).with_huge_pages());
    w.store(7);
    let head = w.frame(0);
    let all = |expected: Uses| (0..512).all(|page| w.uses(head.wrapping_add(page)) == (expected, uses(0, 0)));
    assert!(all(uses(1, 1)));
    w.kernel.mm.split_leaf(&w.cpu, w.kernel.space(0), AT).expect("a huge leaf");
    assert!(all(uses(1, 1)));
    w.kernel.mm.zap(&w.cpu, w.kernel.space(0), page(3), 1).expect("whole tables");
    assert_eq!(w.uses(head.wrapping_add(3)), (uses(0, 0), uses(0, 0)));
    assert_eq!(w.uses(head.wrapping_add(4)), (uses(1, 1), uses(0, 0)));
    w.kernel.mm.munmap(&w.cpu, ONE, AT, 512).expect("the tables are whole");
    assert!(all(uses(0, 0)));
    // Of a file.
    let head = w.kernel.fill_huge_file(&w.cpu);
    w.map(Area::shared(AT, 512, AreaRights::Read, CACHED_HUGE, 0));
    w.kernel.load(&w.cpu, 0, page(7)).expect("a page of the file");
    assert_eq!(w.uses(head.wrapping_add(511)), (uses(0, 0), uses(1, 0)));
    w.kernel.mm.munmap(&w.cpu, ONE, AT, 512).expect("the tables are whole");
    let file = w.kernel.mm.file(CACHED_HUGE).expect("it is there");
    w.kernel.mm.replace_page(&w.cpu, file, 0, None).expect("a page of the file");
    w.end();
}

#[test]
fn anonymous_memory_that_can_be_written_is_mapped_once() {
    let w = World::new();
    w.map(anonymous(page(0), 4, 0));
    let frame = w.store(0);
    let entry = w.kernel.leaf_at(&w.cpu, 0, page(0)).expect("mapped").entry;
    let twice = |writable| [DoubleUse::SharedWritable { frame, uses: uses(2, writable) }];
    // A second mapping, of whichever kind, beside the one that can be written.
    for (second, writable) in [(entry, 2), (entry.without(Flags::WRITE), 1)] {
        w.change(2, |_| second);
        assert_eq!(w.kernel.checked.take_reports(), twice(writable));
        w.change(2, |_| Entry::NONE);
        assert_eq!(w.kernel.checked.take_reports(), []);
    }
    // Two that cannot are a fork's; then one can.
    w.change(0, |entry| entry.without(Flags::WRITE));
    w.change(2, |_| entry.without(Flags::WRITE));
    assert_eq!(w.kernel.checked.take_reports(), []);
    w.change(0, |entry| entry.with(Flags::WRITE));
    assert_eq!(w.kernel.checked.take_reports(), twice(1));
    w.change(2, |_| Entry::NONE);
    w.end();
}

#[test]
fn a_frame_is_not_both_and_not_free_while_it_is_mapped() {
    let w = World::new();
    w.map(anonymous(page(0), 4, 0));
    w.map(Area::shared(page(8), 4, AreaRights::Read, CACHED, 8));
    w.kernel.load(&w.cpu, 0, page(8)).expect("a page of the file");
    let frame = w.frame(8);
    let entry = w.kernel.leaf_at(&w.cpu, 0, page(8)).expect("mapped").entry;
    // It changes its kind while it is mapped, and somebody maps it.
    let flags = w.kernel.checked.frame(frame).expect("a frame with data").page.flags_word();
    flags.atomic_fetch_or(FolioFlags::ANON.bits());
    w.change(2, |_| entry);
    assert_eq!(w.kernel.checked.take_reports(), [DoubleUse::AnonymousAndFile { frame }]);
    w.change(2, |_| Entry::NONE);
    assert_eq!(w.kernel.checked.take_reports(), []);
    // The file's mapping goes from where it did not come.
    w.change(8, |_| Entry::NONE);
    let kind = FrameKind::Anonymous;
    assert_eq!(w.kernel.checked.take_reports(), [DoubleUse::Underflow { frame, kind }]);
    w.change(8, |_| entry);
    assert_eq!(w.kernel.checked.take_reports(), [DoubleUse::AnonymousAndFile { frame }]);
    flags.atomic_fetch_and(!FolioFlags::ANON.bits());
    // It is given back.
    w.kernel.checked.check_free(&w.cpu, Membership { head: frame, order: 0 });
    let still = DoubleUse::StillMapped { frame, anonymous: uses(0, 0), file: uses(1, 0) };
    assert_eq!(w.kernel.checked.take_reports(), [still]);
    w.end();
}
