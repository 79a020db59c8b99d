//! A small kernel on threads: two address spaces, a file of pages, and drivers' files with leaves at every level.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hosted::{FrameArena, ThreadCpu, Threads};
use machine::user::FaultCause;
use machine::{Access, Cpu, Frame, PageFault, VirtAddr, Word};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, FaultError, File, FileId, FileKind, FolioFlags, Mapping, Membership,
    MemoryMap, Mm, NoDrivers, NoFrames, NoSwap, NoUffd, NobodyListens, NobodyTraces, Page, PageSlot, Parts, Platform,
    Protocols, Shootdown, Sound, SpaceId,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{FourLevel, Level, PhysicalWidth, ReadOnce, Root, TableMemory, Whole, Wide, ZeroThenLink};

/// The engine with its defaults for x86-64.
pub(crate) struct OnThreads;

impl Platform for OnThreads {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FrameArena;
    type Map = Records;
    type Read = ReadOnce<Wide>;
    type Write = Whole;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
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
    flush_order: FlushAfterUnlock,
    remote_flush: ByIpi,
    lifetime: ByRcu,
    special: Softw1,
    guards: Sound,
};

/// The records of all frames with data, and how many folios were given back.
pub(crate) struct Records {
    pages: Vec<Page>,
    pub(crate) released: AtomicU64,
}

impl MemoryMap<ThreadCpu> for Records {
    fn page(&self, _: &ThreadCpu, frame: Frame) -> Option<&Page> {
        self.pages.get(frame.number().wrapping_sub(FIRST_DATA.number()) as usize)
    }

    fn release(&self, _: &ThreadCpu, _: Membership) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) const FIRST_DATA: Frame = Frame::new(1 << 28);
/// Small pages, at the start of the data; then one huge folio each for cached and driver files.
pub(crate) const PAGES: u64 = 512;
pub(crate) const HUGE: Frame = Frame::new(FIRST_DATA.number() + 512);
pub(crate) const SPACE: SpaceId = SpaceId::new(0);
/// A file of [`PAGES`] pages.
pub(crate) const CACHED: FileId = FileId::new(0);
/// A file of one 2 MiB folio.
pub(crate) const CACHED_HUGE: FileId = FileId::new(1);
/// Drivers' files of one leaf, at each level, in device memory without records (1 GiB) or with records.
pub(crate) const DRIVER: [(FileId, Level); 3] =
    [(FileId::new(2), Level::Pte), (FileId::new(3), Level::Pmd), (FileId::new(4), Level::Pud)];

pub(crate) struct Kernel {
    pub(crate) machine: Arc<Threads>,
    pub(crate) mm: &'static Mm<'static, OnThreads>,
    pub(crate) space: &'static AddressSpace<'static>,
    pub(crate) tables: &'static FrameArena,
    pub(crate) records: &'static Records,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

fn mappings() -> &'static [Mapping] {
    leak_all((0..8).map(|_| Mapping::new()))
}

fn slot(frame: u64) -> &'static [PageSlot] {
    leak_all([PageSlot::new(Some(Frame::new(frame)))])
}

impl Kernel {
    /// A kernel on `cpus` CPUs with room for `tables` tables; page 0 of [`CACHED`] has these flags.
    pub(crate) fn build(cpus: u32, tables: u64, first_page: FolioFlags) -> Self {
        Self::build_with(cpus, tables, first_page, |space| space)
    }

    /// The same, with the address space that `configure` makes of a plain one.
    pub(crate) fn build_with(
        cpus: u32,
        tables: u64,
        first_page: FolioFlags,
        configure: impl FnOnce(AddressSpace<'static>) -> AddressSpace<'static>,
    ) -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, OnThreads>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| mm.get().expect("interrupts come later").handle_ipi(cpu);
        let machine = Threads::new(cpus, handler).expect("a small machine");
        let cpu = machine.attach().expect("a free CPU");
        let arena = leak(FrameArena::new(Frame::new(0x100), tables).expect("address space for tables"));
        let root = arena.allocate().expect("a frame for the root");
        cpu.zero(arena.table(root).expect("a frame of the arena").cells());
        let root = Root::new(&PROTOCOLS.mode, root.start()).expect("frames are aligned");
        let space = AddressSpace::new(root, leak_all((0..8).map(|_| AreaSlot::new())));
        let spaces = leak_all([configure(space)]);
        let small = leak_all((0..PAGES).map(|page| PageSlot::new(Some(FIRST_DATA.wrapping_add(page)))));
        let files = leak_all([
            File::new(FileKind::Cached, Level::Pte, small, mappings()),
            File::new(FileKind::Cached, Level::Pmd, slot(HUGE.number()), mappings()),
            File::new(FileKind::Driver, Level::Pte, slot(HUGE.number() + 512), mappings()),
            File::new(FileKind::Driver, Level::Pmd, slot(HUGE.number() + 1024), mappings()),
            File::new(FileKind::Driver, Level::Pud, slot(1 << 30), mappings()),
        ]);
        let records = leak(Records { pages: records(first_page), released: AtomicU64::new(0) });
        let engine: &'static Mm<_> = leak(Mm::new(
            PROTOCOLS,
            Parts {
                tables: arena,
                map: records,
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
        engine.prepare(&cpu, &spaces[0]).expect("nothing to prepare in this mode");
        drop(cpu);
        Self { machine, mm: engine, space: &spaces[0], tables: arena, records }
    }

    pub(crate) fn fault(&self, cpu: &ThreadCpu, address: VirtAddr, access: Access) -> Result<(), FaultError> {
        self.mm.handle_fault(cpu, self.space, PageFault { address, access, cause: FaultCause::NotPresent })
    }

    /// Reference count, pin count and map count of a folio's first frame.
    pub(crate) fn counts(&self, cpu: &ThreadCpu, frame: Frame) -> (u64, u64, u64) {
        let page = self.records.page(cpu, frame).expect("a frame with a record");
        let read = |word: &machine::Word32| u64::from(word.atomic_load(Ordering::SeqCst));
        (read(page.refcount_word()), read(page.pincount_word()), read(page.mapcount_word()))
    }
}

pub(crate) fn area(start: u64, pages: u64, file: FileId) -> Area {
    Area::shared(VirtAddr::new(start), pages, AreaRights::ReadWrite, file, 0)
}

/// One reference each, of the file or the driver.
fn records(first_page: FolioFlags) -> Vec<Page> {
    let small = (0..PAGES).map(|page| {
        let flags = if page == 0 { first_page } else { FolioFlags::SHMEM };
        Page::new(Membership { head: FIRST_DATA.wrapping_add(page), order: 0 }, 1, flags)
    });
    let huge = |first: u64| {
        let head = Frame::new(first);
        (0..512).map(move |page| Page::new(Membership { head, order: 9 }, u32::from(page == 0), FolioFlags::SHMEM))
    };
    let first = HUGE.number();
    small.chain(huge(first)).chain(huge(first + 512)).chain(huge(first + 1024)).collect()
}
