//! A kernel with one driver, whose fault handler each test provides, device memory with and without records, and a secondary TLB that counts invalidations.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use hosted::{DataFrames, FailingTables, Failures, FrameArena, ThreadCpu, Threads};
use machine::user::FaultCause;
use machine::{Access, Cpu, Frame, PageFault, VirtAddr, Word, Word32};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, DevicePages, DriverAnswer, DriverFault, DriverFaultContext, FaultError,
    File, FileId, FileKind, FolioFlags, FrameSource, Invalidations, Mapping, Membership, MemoryMap, Mm, NoSwap, NoUffd,
    NobodyTraces, Notify, Page, PageSlot, Parts, Platform, Protocols, Shootdown, Sound, SpaceId,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{
    Entry, FourLevel, Level, OutOfFrames, PhysicalWidth, ReadOnce, Root, TableMemory, Tables, WalkError, Whole, Wide,
    ZeroThenLink,
};

pub(crate) struct WithDriver;

impl Platform for WithDriver {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FailingTables;
    type Map = Memory;
    type Frames = Memory;
    type Swap = NoSwap;
    type Notify = Listener;
    type Drivers = Driver;
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

const PROTOCOLS: Protocols<WithDriver> = Protocols {
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

/// Ordinary memory, and a device's.
pub(crate) struct Memory {
    pub(crate) data: DataFrames,
    pub(crate) device: DevicePages<'static>,
    /// The folios of the device whose last reference went.
    pub(crate) given_back: Mutex<Vec<Frame>>,
    /// There is none unless a test says so.
    pub(crate) zero_page: OnceLock<Frame>,
}

impl MemoryMap<ThreadCpu> for Memory {
    fn page(&self, cpu: &ThreadCpu, frame: Frame) -> Option<&Page> {
        self.device.page(cpu, frame).or_else(|| self.data.page(cpu, frame))
    }

    fn release(&self, cpu: &ThreadCpu, folio: Membership) {
        if self.device.frames().contains(&folio.head) {
            self.given_back.lock().expect("nobody panicked").push(folio.head);
        } else {
            self.data.release(cpu, folio);
        }
    }
}

impl FrameSource<ThreadCpu> for Memory {
    fn allocate(&self, cpu: &ThreadCpu, order: u8) -> Result<Frame, OutOfFrames> {
        self.data.allocate(cpu, order)
    }

    fn zero(&self, cpu: &ThreadCpu, folio: Membership) {
        self.data.zero(cpu, folio);
    }

    fn copy(&self, cpu: &ThreadCpu, from: Frame, to: Frame, pages: u64) {
        self.data.copy(cpu, from, to, pages);
    }

    fn equal(&self, cpu: &ThreadCpu, one: Frame, other: Frame) -> bool {
        self.data.equal(cpu, one, other)
    }

    fn zero_page(&self) -> Option<Frame> {
        self.zero_page.get().copied()
    }
}

type Handler = dyn Fn(&DriverFaultContext<'_, '_, WithDriver>) -> DriverAnswer + Send + Sync;
type Wait = dyn Fn(FileId, u64) + Send + Sync;

/// What a test makes of faults.
pub(crate) struct Driver {
    handler: RwLock<Arc<Handler>>,
    wait: RwLock<Arc<Wait>>,
}

impl DriverFault<WithDriver> for Driver {
    fn fault(&self, context: &DriverFaultContext<'_, '_, WithDriver>) -> DriverAnswer {
        let handler = Arc::clone(&self.handler.read().expect("nobody panicked"));
        handler(context)
    }

    fn wait(&self, _: &ThreadCpu, file: FileId, page: u64) {
        let wait = Arc::clone(&self.wait.read().expect("nobody panicked"));
        wait(file, page);
    }
}

/// A secondary TLB that holds one translation.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) invalidations: Invalidations,
    pub(crate) entry: Mutex<Option<(VirtAddr, Frame)>>,
}

impl Notify<ThreadCpu> for Listener {
    fn start(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr) {
        self.invalidations.start(cpu);
        let mut entry = self.entry.lock().expect("nobody panicked");
        entry.take_if(|(address, _)| start <= *address && *address < end);
    }

    fn end(&self, cpu: &ThreadCpu, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {
        self.invalidations.end(cpu);
    }
}

const FIRST_TABLE: Frame = Frame::new(0x200);
pub(crate) const TABLES: u64 = 64;
const FIRST_DATA: Frame = Frame::new(1 << 20);
const DATA_FRAMES: u64 = 1 << 12;
/// Device memory without records.
pub(crate) const VRAM: Frame = Frame::new(1 << 24);
pub(crate) const VRAM_FRAMES: u64 = 1 << 20;
/// Device memory with records: one folio of 512 frames and 512 small ones.
pub(crate) const RECORDED: Frame = Frame::new(1 << 26);
pub(crate) const RECORDED_SMALL: Frame = Frame::new(RECORDED.number() + 512);

pub(crate) const SPACE: SpaceId = SpaceId::new(0);
/// Declares [`VRAM`].
pub(crate) const PFN: FileId = FileId::new(0);
/// Declares nothing.
pub(crate) const WILD: FileId = FileId::new(1);
/// Declares [`VRAM`].
pub(crate) const MIXED: FileId = FileId::new(2);
/// A driver's file with a page slot.
pub(crate) const SLOTTED: FileId = FileId::new(3);
pub(crate) const CACHED: FileId = FileId::new(4);

pub(crate) struct Kernel {
    pub(crate) machine: Arc<Threads>,
    pub(crate) mm: &'static Mm<'static, WithDriver>,
    pub(crate) space: &'static AddressSpace<'static>,
    pub(crate) memory: &'static Memory,
    pub(crate) tables: &'static FailingTables,
    pub(crate) driver: &'static Driver,
    pub(crate) listener: &'static Listener,
    pub(crate) failures: Arc<Failures>,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

impl Kernel {
    pub(crate) fn build(cpus: u32) -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, WithDriver>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| mm.get().expect("interrupts come later").handle_ipi(cpu);
        let machine = Threads::new(cpus, handler).expect("a small machine");
        let cpu = machine.attach().expect("a free CPU");
        let failures = Failures::none();
        let arena = FrameArena::new(FIRST_TABLE, TABLES).expect("address space for tables");
        let tables = leak(FailingTables { arena, failures: failures.clone() });
        let data = DataFrames::new(FIRST_DATA, DATA_FRAMES, failures.clone()).expect("address space for data");
        let huge = (0..512)
            .map(|index| Page::new(Membership { head: RECORDED, order: 9 }, u32::from(index == 0), FolioFlags::SHMEM));
        let small = (0..512).map(|index| {
            Page::new(Membership { head: RECORDED_SMALL.wrapping_add(index), order: 0 }, 1, FolioFlags::SHMEM)
        });
        let device = DevicePages::new(RECORDED, leak_all(huge.chain(small)));
        let memory = leak(Memory { data, device, given_back: Mutex::default(), zero_page: OnceLock::new() });
        let root = tables.arena.allocate().expect("a frame for the root");
        cpu.zero(tables.arena.table(root).expect("a frame of the arena").cells());
        let root = Root::new(&PROTOCOLS.mode, root.start()).expect("frames are aligned");
        let spaces = leak_all([AddressSpace::new(root, leak_all((0..16).map(|_| AreaSlot::new())))]);
        let mappings = || leak_all((0..16).map(|_| Mapping::new()));
        let vram = leak_all([VRAM..VRAM.wrapping_add(VRAM_FRAMES)]);
        let slot = |frame| leak_all([PageSlot::new(Some(frame))]);
        let files = leak_all([
            File::new(FileKind::PfnMapped, Level::Pud, &[], mappings()).with_frames(vram),
            File::new(FileKind::PfnMapped, Level::Pud, &[], mappings()),
            File::new(FileKind::Mixed, Level::Pmd, &[], mappings()).with_frames(vram),
            File::new(FileKind::Driver, Level::Pte, slot(VRAM), mappings()),
            File::new(FileKind::Cached, Level::Pte, leak_all([PageSlot::new(None)]), mappings()),
        ]);
        let driver = leak(Driver {
            handler: RwLock::new(Arc::new(|_: &DriverFaultContext<'_, '_, WithDriver>| DriverAnswer::NoPage)),
            wait: RwLock::new(Arc::new(|_, _| ())),
        });
        let listener = leak(Listener::default());
        let parts = Parts {
            tables,
            map: memory,
            frames: memory,
            swap: &NoSwap,
            notify: listener,
            drivers: driver,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces,
            files,
            shootdown: leak(Shootdown::new()),
        };
        let engine: &'static Mm<_> = leak(Mm::new(PROTOCOLS, parts));
        assert!(mm.set(engine).is_ok(), "set once");
        drop(cpu);
        Self { machine, mm: engine, space: &spaces[0], memory, tables, driver, listener, failures }
    }

    /// From here on the driver answers faults like this.
    pub(crate) fn on_fault(
        &self,
        handler: impl Fn(&DriverFaultContext<'_, '_, WithDriver>) -> DriverAnswer + Send + Sync + 'static,
    ) {
        *self.driver.handler.write().expect("nobody panicked") = Arc::new(handler);
    }

    /// What the driver does when it is to wait.
    pub(crate) fn on_wait(&self, wait: impl Fn(FileId, u64) + Send + Sync + 'static) {
        *self.driver.wait.write().expect("nobody panicked") = Arc::new(wait);
    }

    pub(crate) fn map(&self, cpu: &ThreadCpu, start: VirtAddr, pages: u64, file: FileId) -> Area {
        let area = Area::shared(start, pages, AreaRights::ReadWrite, file, 0);
        self.mm.mmap(cpu, SPACE, area).expect("a good area");
        area
    }

    pub(crate) fn fault(&self, cpu: &ThreadCpu, address: VirtAddr, access: Access) -> Result<(), FaultError> {
        self.mm.handle_fault(cpu, self.space, PageFault { address, access, cause: FaultCause::NotPresent })
    }

    /// What is mapped at an address: the level and the entry.
    pub(crate) fn entry(&self, cpu: &ThreadCpu, address: VirtAddr) -> Option<(Level, Entry)> {
        let tables = Tables {
            mode: &PROTOCOLS.mode,
            memory: self.tables,
            reader: &PROTOCOLS.read,
            writer: &PROTOCOLS.write,
            root: self.space.root(),
        };
        match tables.translate(cpu, address) {
            Ok(found) => Some((found.level, found.entry)),
            Err(WalkError::NotPresent { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// References, pins and mappings of a folio.
    pub(crate) fn counts(&self, cpu: &ThreadCpu, frame: Frame) -> (u32, u32, u32) {
        let page = self.memory.page(cpu, frame).expect("a frame with a record");
        let read = |word: &Word32| word.atomic_load(Ordering::SeqCst);
        (read(page.refcount_word()), read(page.pincount_word()), read(page.mapcount_word()))
    }

    /// Unmaps everything between 256 and 512 GiB, where tests map, and makes sure that tables and frames are back.
    pub(crate) fn assert_all_is_back(&self, cpu: &ThreadCpu) {
        self.mm.munmap(cpu, SPACE, VirtAddr::new(1 << 38), 1 << 26).expect("the tables are whole");
        self.failures.fail_at(0);
        assert_eq!(self.memory.data.leaks(), [], "frames are in use or counted");
        let left = std::iter::from_fn(|| self.tables.arena.allocate().ok()).count() as u64;
        assert_eq!(left, TABLES - 1, "every table but the root is back");
    }
}
