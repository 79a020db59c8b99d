//! A kernel on threads with memory of its own: spaces for parents, children and threads.

use std::sync::{Arc, OnceLock};

use hosted::{DataFrames, Failures, Fences, FrameArena, ThreadCpu, Threads};
use machine::user::FaultCause;
use machine::{Access, Cpu, Frame, PageFault, ReaderLock, VirtAddr};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, File, FileId, FileKind, Mapping, Mm, NoDrivers, NoSwap, NoUffd,
    NobodyListens, NobodyTraces, Parts, Platform, Protocols, Shootdown, Sound, SpaceId, SpacePart,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{FourLevel, Level, PhysicalWidth, ReadOnce, Root, TableMemory, Whole, Wide, ZeroThenLink};

/// The engine as a kernel for x86-64 would have it.
pub(super) struct OnThreads;

impl Platform for OnThreads {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FrameArena;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = NoDrivers;
    type Uffd = NoUffd;
    type Trace = NobodyTraces;
    type Read = ReadOnce<Wide>;
    type Write = Whole;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
}

const PROTOCOLS: Protocols<OnThreads> = Protocols {
    mode: FourLevel::new(PhysicalWidth::MAX),
    read: ReadOnce::new(),
    write: Whole,
    recheck: Atomic,
    publish: ZeroThenLink,
    flush_order: FlushAfterUnlock,
    remote_flush: ByIpi,
    lifetime: ByRcu,
    special: Softw1,
    guards: Sound,
};

pub(super) const PARENT: SpaceId = SpaceId::new(0);
pub(super) const CHILD: SpaceId = SpaceId::new(1);
pub(super) const SPACE_OF_ITS_OWN: [SpaceId; 2] = [SpaceId::new(2), SpaceId::new(3)];
/// What each thread works on, where two have one space.
pub(super) const HALVES: [VirtAddr; 2] = [VirtAddr::new(0x40_0000_0000), VirtAddr::new(0x41_0000_0000)];
/// Where the parts of an address space begin that have areas and locks of their own.
const PARTS: [VirtAddr; 2] = [VirtAddr::new(0), HALVES[1]];
/// For CPUs that have nothing to do.
pub(super) const IDLE: SpaceId = SpaceId::new(4);
const SPACES: u32 = 5;
/// Of every area that is measured: 4 MiB.
pub(super) const PAGES: u64 = 1024;
/// Of the areas that are large: 32 MiB.
pub(super) const LARGE_PAGES: u64 = 8 * PAGES;
/// Enough for two such areas, and what is zapped by one thread comes back while the other faults.
const FRAMES: u64 = 3 * LARGE_PAGES;
const TABLES: u64 = 256;
const CPUS: u32 = 2;
/// Room for areas in each space, and for mappings in each file: so many that the first of one do not share cache lines with those of its neighbour.
const SLOTS: u32 = 64;

pub(super) struct Kernel {
    pub(super) machine: Arc<Threads>,
    pub(super) mm: &'static Mm<'static, OnThreads>,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

/// Private anonymous memory of an address space. That of each thread has its own way back from folios to mappings, as processes that are not related have, and areas that are mapped one by one
/// (Linux: `anon_vma`).
pub(super) fn area(space: SpaceId, start: VirtAddr, pages: u64, offset: u64) -> Area {
    let part = PARTS.partition_point(|part| *part <= start) - 1;
    let file = space.number() * PARTS.len() as u16 + part as u16;
    Area::private(start, pages, AreaRights::ReadWrite, FileId::new(file), offset)
}

impl Kernel {
    /// Builds it, with such fences around sections, once per process: it is never given back.
    pub(super) fn build(fences: Fences) -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, OnThreads>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| mm.get().expect("interrupts come later").handle_ipi(cpu);
        let machine = Threads::with_fences(CPUS, fences, handler).expect("a small machine");
        let cpu = machine.attach().expect("a free CPU");
        let data =
            leak(DataFrames::new(Frame::new(1 << 28), FRAMES, Failures::none()).expect("address space for data"));
        data.populate().expect("memory for data");
        let tables = leak(FrameArena::new(Frame::new(0x100), TABLES).expect("address space for tables"));
        tables.populate(TABLES).expect("memory for tables");
        let part = |start| {
            let slots = leak_all((0..SLOTS).map(|_| AreaSlot::new()));
            SpacePart::new(start, slots).with_reader_locks(leak_all((0..CPUS).map(|_| ReaderLock::new())))
        };
        let space = |_| {
            let root = tables.allocate().expect("a frame for the root");
            cpu.zero(tables.table(root).expect("a frame of the arena").cells());
            let root = Root::new(&PROTOCOLS.mode, root.start()).expect("frames are aligned");
            AddressSpace::in_parts(root, leak_all(PARTS.map(part))).expect("sorted")
        };
        let spaces = leak_all((0..SPACES).map(space));
        let mappings = || leak_all((0..SLOTS).map(|_| Mapping::new()));
        let files = leak_all(
            (0..SPACES * PARTS.len() as u32).map(|_| File::new(FileKind::Anonymous, Level::Pte, &[], mappings())),
        );
        let parts = Parts {
            tables,
            map: data,
            frames: data,
            swap: &NoSwap,
            notify: &NobodyListens,
            drivers: &NoDrivers,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces,
            files,
            shootdown: leak(Shootdown::new()),
        };
        let engine: &'static Mm<_> = leak(Mm::new(PROTOCOLS, parts));
        assert!(mm.set(engine).is_ok(), "set once");
        drop(cpu);
        Self { machine, mm: engine }
    }

    pub(super) fn space(&self, id: SpaceId) -> &'static AddressSpace<'static> {
        self.mm.space(id).expect("there are so many")
    }

    /// Write faults on every `step`th of the pages.
    pub(super) fn touch(&self, cpu: &ThreadCpu, space: SpaceId, start: VirtAddr, pages: u64, step: usize) {
        for page in (0..pages).step_by(step) {
            let address = start.wrapping_add(page << 12);
            let fault = PageFault { address, access: Access::Write, cause: FaultCause::NotPresent };
            self.mm.handle_fault(cpu, self.space(space), fault).expect("a page in the area");
        }
    }
}
