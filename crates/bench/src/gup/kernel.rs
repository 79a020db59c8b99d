//! A small kernel on threads: one address space, two files, all of it mapped.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use hosted::{FrameArena, ThreadCpu, Threads, TrustedArena};
use machine::user::FaultCause;
use machine::{Access, Cpu, Frame, PageFault, VirtAddr};
use mm::file::FileKind;
use mm::lifetime::ByRcu;
use mm::order::FlushBeforeUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, File, FileId, FolioFlags, Mapping, Membership, MemoryMap, Mm, NoDrivers,
    NoFrames, NoSwap, NoUffd, NobodyListens, NobodyTraces, Page, PageSlot, Parts, Platform, Protocols, Shootdown,
    Sound, SpaceId,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{FourLevel, Level, PhysicalWidth, ReadOnce, Root, TableMemory, Whole, Wide, ZeroThenLink};

/// The engine as a kernel for x86-64 would have it.
pub(super) struct OnThreads(PhantomData<()>);

impl Platform for OnThreads {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = TrustedArena<'static>;
    type Map = Records;
    type Read = ReadOnce<Wide>;
    type Write = Whole;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushBeforeUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
    type Frames = NoFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = NoDrivers;
    type Uffd = NoUffd;
    type Trace = NobodyTraces;
}

const PROTOCOLS: Protocols<OnThreads> = Protocols {
    mode: FourLevel::new(PhysicalWidth::MAX),
    read: ReadOnce::new(),
    write: Whole,
    recheck: Atomic,
    publish: ZeroThenLink,
    flush_order: FlushBeforeUnlock,
    remote_flush: ByIpi,
    lifetime: ByRcu,
    special: Softw1,
    guards: Sound,
};

/// The records of all frames with data.
pub(super) struct Records {
    first: Frame,
    pages: Vec<Page>,
}

impl MemoryMap<ThreadCpu> for Records {
    #[inline]
    fn page(&self, _: &ThreadCpu, frame: Frame) -> Option<&Page> {
        self.pages.get(frame.number().wrapping_sub(self.first.number()) as usize)
    }

    /// The files keep a reference to each of their pages, and nobody takes one out.
    fn release(&self, _: &ThreadCpu, folio: Membership) {
        unreachable!("the last reference to {folio:?} was dropped");
    }
}

/// The memory manager, and where its data lies.
pub(super) struct Kernel {
    pub(super) machine: Arc<Threads>,
    pub(super) mm: &'static Mm<'static, OnThreads>,
    pub(super) space: &'static AddressSpace<'static>,
}

/// Small pages: from here on.
pub(super) const SMALL: VirtAddr = VirtAddr::new(0x1234_5667_8000);
/// How many of them: 256 MiB.
pub(super) const SMALL_PAGES: u64 = 1 << 16;
/// Huge pages of 2 MiB: from here on.
pub(super) const HUGE: VirtAddr = VirtAddr::new(0x2345_6780_0000);
/// How many.
pub(super) const HUGE_PAGES: u64 = 64;
pub(super) const PAGES_PER_HUGE: u64 = 512;
/// The same huge pages, mapped by small leaves: from here on.
pub(super) const LARGE: VirtAddr = VirtAddr::new(0x3456_7800_0000);

const FIRST_TABLE: Frame = Frame::new(0x100);
const TABLES: u64 = 1024;
/// Data lies where no table does; aligned to the huge pages, which come first.
const FIRST_DATA: Frame = Frame::new(1 << 28);
const HUGE_ORDER: u8 = 9;
const CPUS: u32 = 2;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

impl Kernel {
    /// Builds it, once per process: it is never given back.
    pub(super) fn build() -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, OnThreads>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| mm.get().expect("interrupts come later").handle_ipi(cpu);
        let machine = Threads::new(CPUS, handler).expect("a small machine");
        let cpu = machine.attach().expect("a free CPU");

        let arena = leak(FrameArena::new(FIRST_TABLE, TABLES).expect("address space for tables"));
        arena.populate(TABLES).expect("memory for tables");
        // SAFETY: roots come from the arena, as do tables, and nobody but the engine writes entries.
        let tables = leak(unsafe { TrustedArena::new(arena) });
        let root = arena.allocate().expect("a frame for the root");
        cpu.zero(tables.table(root).expect("a frame of the arena").cells());
        let root = Root::new(&PROTOCOLS.mode, root.start()).expect("frames are aligned");

        let spaces = leak_all([AddressSpace::new(root, leak_all((0..3).map(|_| AreaSlot::new())))]);
        let files = leak_all([
            File::new(FileKind::Cached, Level::Pte, slots(first_small(), SMALL_PAGES, 1), leak_all([Mapping::new()])),
            File::new(
                FileKind::Cached,
                Level::Pmd,
                slots(FIRST_DATA, HUGE_PAGES, PAGES_PER_HUGE),
                leak_all([Mapping::new()]),
            ),
            File::new(
                FileKind::Cached,
                Level::Pte,
                slots(FIRST_DATA, HUGE_PAGES * PAGES_PER_HUGE, 1),
                leak_all([Mapping::new()]),
            ),
        ]);
        let engine: &'static Mm<_> = leak(Mm::new(
            PROTOCOLS,
            Parts {
                tables,
                map: leak(records()),
                frames: &NoFrames,
                swap: &NoSwap,
                notify: &NobodyListens,
                drivers: &NoDrivers,
                uffd: &NoUffd,
                trace: &NobodyTraces,
                spaces,
                files,
                shootdown: leak(Shootdown::new()),
            },
        ));
        assert!(mm.set(engine).is_ok(), "set once");
        let kernel = Self { machine: Arc::clone(&machine), mm: engine, space: &spaces[0] };
        kernel.map(&cpu, SMALL, SMALL_PAGES, FileId::new(0), 1);
        kernel.map(&cpu, HUGE, HUGE_PAGES * PAGES_PER_HUGE, FileId::new(1), PAGES_PER_HUGE);
        kernel.map(&cpu, LARGE, HUGE_PAGES * PAGES_PER_HUGE, FileId::new(2), 1);
        kernel
    }

    /// Adds an area and faults all of it in.
    fn map(&self, cpu: &ThreadCpu, start: VirtAddr, pages: u64, file: FileId, pages_per_leaf: u64) {
        let area = Area::shared(start, pages, AreaRights::ReadWrite, file, 0);
        self.mm.mmap(cpu, SpaceId::new(0), area).expect("room for an area");
        for page in (0..pages).step_by(pages_per_leaf as usize) {
            let address = start.wrapping_add(page << 12);
            let fault = PageFault { address, access: Access::Write, cause: FaultCause::NotPresent };
            self.mm.handle_fault(cpu, self.space, fault).expect("a page in the area");
        }
    }
}

/// Small data lies behind the huge.
fn first_small() -> Frame {
    FIRST_DATA.wrapping_add(HUGE_PAGES * PAGES_PER_HUGE)
}

/// The pieces of a file whose frames follow each other.
fn slots(first: Frame, count: u64, frames_each: u64) -> &'static [PageSlot] {
    leak_all((0..count).map(|index| PageSlot::new(Some(first.wrapping_add(index * frames_each)))))
}

/// The file's reference keeps every folio.
fn records() -> Records {
    let huge = (0..HUGE_PAGES * PAGES_PER_HUGE).map(|index| {
        let head = FIRST_DATA.wrapping_add(index - index % PAGES_PER_HUGE);
        let references = u32::from(index % PAGES_PER_HUGE == 0);
        Page::new(Membership { head, order: HUGE_ORDER }, references, FolioFlags::SHMEM)
    });
    let small = (0..SMALL_PAGES).map(|index| {
        let head = first_small().wrapping_add(index);
        Page::new(Membership { head, order: 0 }, 1, FolioFlags::SHMEM)
    });
    Records { first: FIRST_DATA, pages: huge.chain(small).collect() }
}
