//! A card in the lab, and user code that reaches its objects through page tables: real tables, read by the lab's own MMU.

use std::sync::OnceLock;

use lab::{Arena, FrameKind, Lab, LabCpu, Limits, Machine, MemoryOrder, Paging, Pool, Report};
use machine::{Access, Cpu, CpuId, Frame, PageFault, PhysAddr, UserAccess, VirtAddr, Word64};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, AreaRights, AreaSlot, Attempt, DriverAnswer, DriverFault, DriverFaultContext, File, FileId, FileKind,
    Guards, Mapping, Membership, MemoryMap, Mm, NoFrames, NoSwap, NoUffd, NobodyListens, NobodyTraces, Page, Platform,
    Protocols, Shootdown, Sound, SpaceId,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::table::{Pdpt, Table};
use pagetable::{
    FourLevel, Level, NotATable, OutOfFrames, PhysicalWidth, ReadOnce, Root, TableMemory, TableMeta, TableSource,
    Whole, Wide, ZeroThenLink,
};
use ttm::{
    AcquireContext, Backing, Device, Driver, Extent, FenceSlot, GhostSlot, Handle, Kind, MoveError, Moved, Object,
    ObjectId, Place, RangeSlot, Refused, Resource, Room, Timeline, TimelineId, Work,
};

pub(crate) const AT: VirtAddr = VirtAddr::new(0x4000_0000);
/// Memory of the device that it reaches slowly: room for two objects.
pub(crate) const SLOW: Kind = Kind::new(1);
/// Room for one.
pub(crate) const VRAM: Kind = Kind::new(2);
const ENGINE: TimelineId = TimelineId::new(0);
const SPACE: SpaceId = SpaceId::new(0);
const CARD: FileId = FileId::new(0);

const TABLES: FrameKind = FrameKind(0);
const MEMORY: FrameKind = FrameKind(1);
const FIRST_TABLE: u64 = 0x100;
/// Those for one address.
const TABLE_COUNT: u64 = 4;
const FIRST: u64 = 0x1000;

/// How the card does what it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Before it answers.
    AtOnce,
    /// By an engine, which is another CPU of the lab.
    ByEngine,
}

/// The engine with its defaults for x86-64, on CPUs of the lab.
pub(crate) struct InLab<'l>(std::marker::PhantomData<&'l ()>);

impl<'l> Platform for InLab<'l> {
    type Cpu = LabCpu;
    type Mode = FourLevel;
    type Tables = LabTables<'l>;
    type Map = NoRecords;
    type Frames = NoFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = Card<'l>;
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
    type Guards = Retries;
}

/// What drivers are told of a fault that begins again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retries {
    /// That they were waited for.
    Told,
    /// Nothing: each attempt looks like the first.
    Untold,
}

impl Guards for Retries {
    fn attempt_after_wait(&self) -> Attempt {
        match self {
            Self::Told => Sound.attempt_after_wait(),
            Self::Untold => Attempt::First,
        }
    }
}

/// Tables that are made before the start, and stay.
pub(crate) struct LabTables<'l> {
    arena: &'l Arena,
    metas: &'l [TableMeta],
    /// How many are in use.
    used: &'l Word64,
}

impl TableMemory for LabTables<'_> {
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        let meta = frame.number().checked_sub(FIRST_TABLE).and_then(|index| self.metas.get(index as usize));
        match (self.arena.table(frame), meta) {
            (Some(words), Some(meta)) => Ok(Table::new(words, meta)),
            _ => Err(NotATable { address: frame.start() }),
        }
    }

    fn pdpt(&self, address: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        Err(NotATable { address })
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        first.number() < FIRST_TABLE + TABLE_COUNT && FIRST_TABLE < first.number() + frames
    }
}

impl TableSource for LabTables<'_> {
    fn allocate_table<C: Cpu>(&self, cpu: &C) -> Result<Frame, OutOfFrames> {
        match cpu.fetch_add(self.used, 1) {
            used @ ..TABLE_COUNT => Ok(Frame::new(FIRST_TABLE + used)),
            _ => Err(OutOfFrames),
        }
    }

    fn free_table<C: Cpu>(&self, cpu: &C, _: Frame) {
        unreachable!("{}: the areas stay, and so do their tables", cpu.id());
    }
}

/// The card's memory has none.
pub(crate) struct NoRecords;

impl MemoryMap<LabCpu> for NoRecords {
    fn page(&self, _: &LabCpu, _: Frame) -> Option<&Page> {
        None
    }

    fn release(&self, _: &LabCpu, _: Membership) {}
}

/// The driver.
pub(crate) struct Card<'l> {
    device: OnceLock<&'l Device<'l, Card<'l>>>,
    copies: Copies,
    /// For each point of the engine's timeline the frames from and to which it copies, each plus one.
    jobs: [[Word64; 2]; 4],
}

impl<'l> Card<'l> {
    fn device(&self) -> &'l Device<'l, Self> {
        self.device.get().expect("set before anybody runs")
    }

    /// One word of each object stands for all of it.
    fn frame(cpu: &LabCpu, extent: &Extent<'_>) -> Frame {
        extent.run(cpu, 0).expect("an object has a page").frame
    }

    fn copy_word(cpu: &LabCpu, from: Frame, to: Frame) {
        let word = cpu.device_access(from, Access::Read, 0);
        cpu.device_access(to, Access::Write, word);
    }

    /// The engine: does so many jobs.
    pub(crate) fn work(&self, cpu: &LabCpu, jobs: u64) {
        for point in 1..=jobs {
            let [from, to] = &self.jobs[point as usize];
            let to = cpu.await_value(to, |to| to != 0) - 1;
            Self::copy_word(cpu, Frame::new(cpu.load(from) - 1), Frame::new(to));
            self.device().timeline(ENGINE).expect("there is one").signal(cpu, point);
        }
    }
}

impl<'l> Driver for Card<'l> {
    type Platform = InLab<'l>;

    fn evict_to(&self, _: &LabCpu, _: ObjectId, _: Kind) -> Kind {
        SLOW
    }

    fn clear(&self, cpu: &LabCpu, to: &Extent<'_>) -> Result<Work, Refused> {
        cpu.device_access(Self::frame(cpu, to), Access::Write, 0);
        Ok(Work::Done)
    }

    fn copy(&self, cpu: &LabCpu, from: &Extent<'_>, to: &Extent<'_>) -> Result<Work, Refused> {
        let (from, to) = (Self::frame(cpu, from), Self::frame(cpu, to));
        if self.copies == Copies::AtOnce {
            Self::copy_word(cpu, from, to);
            return Ok(Work::Done);
        }
        let fence = self.device().fence(cpu, ENGINE).ok_or(Refused::Failed(0))?;
        let job = &self.jobs[fence.point() as usize];
        cpu.store(&job[0], from.number() + 1);
        cpu.store(&job[1], to.number() + 1);
        Ok(Work::Until(fence))
    }
}

impl<'l> DriverFault<InLab<'l>> for Card<'l> {
    fn fault(&self, context: &DriverFaultContext<'_, '_, InLab<'l>>) -> DriverAnswer {
        self.device().fault(context)
    }

    fn wait(&self, cpu: &LabCpu, _: FileId, page: u64) {
        self.device().wait_for_fault(cpu, page);
    }
}

/// Memory for a machine whose objects have so many pages.
pub(crate) fn arena(level: Level) -> Arena {
    let order = level.frames().ilog2();
    let blocks = (0..3).map(|index| FIRST << order | index << order);
    Arena::with_frames(vec![
        Pool::tables(TABLES, FIRST_TABLE..FIRST_TABLE + TABLE_COUNT),
        Pool::data(MEMORY, order, blocks),
    ])
}

/// What a CPU does.
pub(crate) type Program<'l> = dyn Fn(&Scene<'l>, &LabCpu) + Sync + 'l;

/// A card, and one address space with an object at [`AT`] that a leaf of one size can map.
pub(crate) struct Scene<'l> {
    arena: &'l Arena,
    pub(crate) mm: &'l Mm<'l, InLab<'l>>,
    pub(crate) space: &'l AddressSpace<'l>,
    pub(crate) device: &'l Device<'l, Card<'l>>,
    level: Level,
    /// The first of [`VRAM`], then [`SLOW`].
    words: [&'l [Word64]; 3],
    handles: OnceLock<[Handle; 2]>,
}

impl<'l> Scene<'l> {
    pub(crate) fn new(arena: &'l Arena, level: Level, copies: Copies) -> Self {
        Self::new_with(arena, level, copies, Retries::Told)
    }

    pub(crate) fn new_with(arena: &'l Arena, level: Level, copies: Copies, retries: Retries) -> Self {
        let pages = level.frames();
        let card: &Card<'_> =
            arena.alloc(Card { device: OnceLock::new(), copies, jobs: [const { [const { Word64::new(0) }; 2] }; 4] });
        let protocols = Protocols {
            mode: FourLevel::new(PhysicalWidth::MAX),
            read: ReadOnce::new(),
            write: Whole,
            recheck: Atomic,
            publish: ZeroThenLink,
            flush_order: FlushAfterUnlock,
            remote_flush: ByIpi,
            lifetime: ByRcu,
            special: Softw1,
            guards: retries,
        };
        let tables = LabTables {
            arena,
            metas: arena.alloc_slice(TABLE_COUNT as usize, |_| TableMeta::new()),
            used: arena.alloc(Word64::new(1)),
        };
        let root = Root::new(&protocols.mode, Frame::new(FIRST_TABLE).start()).expect("frames are aligned");
        let spaces = arena.alloc_slice(1, |_| AddressSpace::new(root, arena.alloc_slice(2, |_| AreaSlot::new())));
        let first = Frame::new(FIRST * pages);
        let own = arena.alloc_slice(1, |_| first..first.wrapping_add(3 * pages));
        let mappings = arena.alloc_slice(2, |_| Mapping::new());
        let parts = mm::Parts {
            tables: arena.alloc(tables),
            map: arena.alloc(NoRecords),
            frames: &NoFrames,
            swap: &NoSwap,
            notify: &NobodyListens,
            drivers: card,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces,
            files: arena.alloc_slice(1, |_| File::new(FileKind::PfnMapped, level, &[], mappings).with_frames(own)),
            shootdown: arena.alloc(Shootdown::new()),
        };
        let mm = arena.alloc(Mm::new(protocols, parts));
        let object = |_| {
            Object::new(Room {
                pages: arena.alloc_slice(pages as usize, |_| Word64::new(0)),
                swap: &[],
                fences: arena.alloc_slice(1, |_| FenceSlot::new()),
                dirty: arena.alloc_slice(pages.div_ceil(64) as usize, |_| Word64::new(0)),
            })
        };
        let memory = |first, pages| Backing::Device { first, pages };
        let kinds =
            [(Backing::System, 0), (memory(first.wrapping_add(pages), 2 * pages), 2), (memory(first, pages), 1)];
        let device = Device::new(ttm::Parts {
            mm,
            file: CARD,
            driver: card,
            objects: arena.alloc_slice(2, object),
            kinds: arena.alloc_slice(3, |index| {
                let (backing, slots) = kinds[index];
                Resource::new(backing, arena.alloc_slice(slots, |_| RangeSlot::new()))
            }),
            timelines: arena.alloc_slice(1, |_| Timeline::new()),
            ghosts: arena.alloc_slice(2, |_| GhostSlot::new()),
            attachments: &[],
        });
        let device = arena.alloc(device.expect("good parts"));
        assert!(card.device.set(device).is_ok(), "set once");
        let words = [0, 1, 2].map(|_| arena.alloc_slice(1, |_| Word64::new(0)));
        Self { arena, mm, space: &spaces[0], device, level, words, handles: OnceLock::new() }
    }

    pub(crate) fn object(&self, number: usize) -> &Handle {
        &self.handles.get().expect("set at boot")[number]
    }

    /// Runs each program on a CPU, in every interleaving under TSO. Before that object 0 is in fast memory and mapped at [`AT`], all tables are there, and the other
    /// object is in slow memory and holds `other`. Observed are the words of fast memory and of both places in slow memory.
    pub(crate) fn explore(&self, other: u64, programs: &[&'l Program<'l>]) -> Report {
        self.built(other, programs).explore(&Limits::default())
    }

    /// The same, and a run that never ends breaks a rule, too.
    pub(crate) fn explore_livelocks(&self, other: u64, programs: &[&'l Program<'l>]) -> Report {
        self.built(other, programs).explore_livelocks(&Limits::default(), &mut |_| ())
    }

    fn built<'s>(&'s self, other: u64, programs: &[&'s Program<'l>]) -> Lab<'s> {
        let machine = Machine::with_paging(MemoryOrder::Tso, Paging::FOUR_LEVEL, [AT]);
        let mut lab = Lab::new(self.arena, machine);
        for (number, &program) in programs.iter().enumerate() {
            lab.cpu(format!("CPU{number}"), move |cpu| program(self, cpu));
        }
        lab.interrupt_handler(|cpu, _| self.mm.handle_ipi(cpu));
        for (index, words) in self.words.iter().enumerate() {
            let pages = self.level.frames();
            lab.contents(Frame::new(FIRST * pages + index as u64 * pages), words);
        }
        lab.boot(CpuId::new(0), |cpu| {
            (0..TABLE_COUNT).for_each(|_| assert!(cpu.alloc_frame(TABLES).is_some()));
            (0..3).for_each(|_| assert!(cpu.alloc_frame(MEMORY).is_some()));
            cpu.zero(self.arena.table(Frame::new(FIRST_TABLE)).expect("the root"));
            self.boot(cpu);
            cpu.store(&self.words[1][0], other);
        });
        for number in 0..programs.len() {
            lab.boot(CpuId::new(number as u32), |cpu| self.mm.enter(cpu, self.space));
        }
        let words = self.words;
        lab.observe(move |end| words.iter().map(|word| end.read(&word[0])).collect());
        lab
    }

    fn boot(&self, cpu: &LabCpu) {
        let pages = self.level.frames();
        let made = [VRAM, SLOW].map(|kind| {
            let handle = self.device.create(cpu, pages).expect("a free slot");
            self.place(cpu, &handle, kind).expect("there is room");
            handle
        });
        let mapped = self.device.mmap(cpu, &made[0], (0, pages), (SPACE, AT), AreaRights::ReadWrite);
        mapped.expect("nothing else is there");
        // The tables are made now, and the leaf goes again.
        let fault = PageFault { address: AT, access: Access::Read, cause: machine::user::FaultCause::NotPresent };
        self.mm.handle_fault(cpu, self.space, fault).expect("the object is there");
        let mut reserved = self.device.reserve_alone(cpu, &made[0]).expect("it exists");
        self.device.track_writes(&mut reserved, ttm::Method::DirtyBits).expect("there are bits");
        self.device.stop_tracking(&mut reserved);
        reserved.unlock();
        assert!(self.handles.set(made).is_ok(), "once");
    }

    pub(crate) fn place(&self, cpu: &LabCpu, handle: &Handle, kind: Kind) -> Result<Moved, MoveError> {
        let context = AcquireContext::new(cpu, self.device.tickets());
        let mut reserved = self.device.reserve(handle, &context).expect("the first of a context");
        let moved = self.device.validate(&mut reserved, &[Place::anywhere(kind)], Some(&context));
        reserved.unlock();
        moved
    }

    fn user<R>(&self, cpu: &LabCpu, access: impl Fn() -> Result<R, PageFault>) -> R {
        loop {
            match access() {
                Ok(result) => return result,
                Err(fault) => self.mm.handle_fault(cpu, self.space, fault).expect("the object is mapped"),
            }
        }
    }

    /// User code stores to the object, and faults until it can.
    pub(crate) fn store(&self, cpu: &LabCpu, word: u64) {
        self.user(cpu, || cpu.user_store(AT, word));
    }

    /// User code loads from it.
    pub(crate) fn load(&self, cpu: &LabCpu) -> u64 {
        self.user(cpu, || cpu.user_load(AT))
    }
}
