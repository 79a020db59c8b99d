//! A graphics card on threads: memory of its own with real contents, a copy engine that takes its time, and user code that draws into mapped objects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hosted::{DataFrames, FailingTables, Failures, FrameArena, MemorySwap, ThreadCpu, Threads, UserMemory};
use machine::{Access, Cpu, Frame, VirtAddr, Word, Word64};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, AreaRights, AreaSlot, DriverAnswer, DriverFault, DriverFaultContext, FaultError, File, FileId,
    FileKind, FrameSource, Mapping, Mm, NoUffd, NobodyListens, NobodyTraces, PfnLeaf, Platform, Protocols, Shootdown,
    Sound, SpaceId,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{FourLevel, Level, PhysicalWidth, ReadOnce, Root, TableMemory, Whole, Wide, ZeroThenLink, walk};
use ttm::{
    AcquireContext, AttachmentSlot, Backing, Device, Driver, Extent, Fence, FenceSlot, GhostSlot, Handle, Kind,
    MoveError, Moved, Object, ObjectId, Place, RangeSlot, Refused, Resource, Room, Timeline, TimelineId, Work,
    for_each_pair,
};

/// The engine with its defaults for x86-64, and one driver.
pub(crate) struct OnThreads;

impl Platform for OnThreads {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FailingTables;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = MemorySwap<'static>;
    type Notify = NobodyListens;
    type Drivers = Card;
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

const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);
const PROTOCOLS: Protocols<OnThreads> = Protocols {
    mode: MODE,
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

pub(crate) const SPACE: SpaceId = SpaceId::new(0);
const CARD: FileId = FileId::new(0);
/// Pages of the system that the card reaches through an aperture.
pub(crate) const APERTURE: Kind = Kind::new(1);
/// The card's memory.
pub(crate) const VRAM: Kind = Kind::new(2);
/// Memory that the firmware keeps for the card: so large that 1 GiB leaves fit.
pub(crate) const STOLEN: Kind = Kind::new(3);
pub(crate) const VRAM_PAGES: u64 = 16 * 512;
pub(crate) const GIGABYTE_PAGES: u64 = 512 * 512;
pub(crate) const COPY_ENGINE: TimelineId = TimelineId::new(0);
/// Nobody is behind this one: see [`Manner::Later`].
pub(crate) const SLOW_ENGINE: TimelineId = TimelineId::new(1);
/// What [`Card::foreign_fence`]'s device has, and the card has not.
pub(crate) const NO_TIMELINE: TimelineId = TimelineId::new(2);

/// How many ranges can be on their way out.
pub(crate) const GHOSTS: u64 = 8;

const FIRST_TABLE: Frame = Frame::new(0x1000);
/// On a boundary of 1 GiB.
const FIRST_DATA: Frame = Frame::new(1 << 28);

/// What is copied: from a frame to a frame, and how many. From none: zeros.
type Pieces = Vec<(Option<Frame>, Frame, u64)>;

/// What the copy engine is told to do.
struct Job {
    pieces: Pieces,
    point: u64,
}

/// The leaf that a confused driver's handler inserts, whatever the object is.
pub(crate) type Answer = Box<dyn Fn(&DriverFaultContext<'_, '_, OnThreads>) -> PfnLeaf + Send>;

/// How the card does what it is told.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// By the copy engine: there is a fence.
    Fenced,
    /// Before it answers.
    AtOnce,
    /// When the test says so ([`Card::do_lost`]), and the fence is that of another device, from the timeline with this number: this device has not given it out, or has
    /// not even the timeline.
    Lost(TimelineId),
    /// When the test says so ([`Card::do_lost`]); then it signals the fence, which is [`SLOW_ENGINE`]'s.
    Later,
}

/// What the copy engine does not do: asked with where an object is and where it is to go.
pub(crate) type Refusal = fn(Kind, Kind) -> Option<Refused>;

/// The driver.
pub(crate) struct Card {
    device: OnceLock<&'static Device<'static, Card>>,
    data: &'static DataFrames,
    manner: Mutex<Manner>,
    refusal: Mutex<Option<Refusal>>,
    /// Work of which nobody knows when it is done.
    lost: Mutex<Vec<Pieces>>,
    answer: Mutex<Option<Answer>>,
    jobs: Mutex<Option<Sender<Job>>>,
    /// How many jobs the copy engine was given.
    pub(crate) copies: AtomicU64,
    /// How many faults had to wait, because the object was moving or reserved.
    pub(crate) waits: AtomicU64,
    /// Which importers were told of a move, in this order.
    pub(crate) notified: Mutex<Vec<u64>>,
}

impl Card {
    pub(crate) fn device(&self) -> &'static Device<'static, Self> {
        self.device.get().expect("faults come later")
    }

    pub(crate) fn set_manner(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// From here on some copies are refused, or none.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// From here on faults are answered like this, or again as they should be.
    pub(crate) fn answer_faults(&self, answer: Option<Answer>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The engine does what it was told without a fence. Returns how many jobs.
    pub(crate) fn do_lost(&self) -> usize {
        let jobs = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        jobs.iter().for_each(|pieces| copy(self.data, pieces));
        jobs.len()
    }

    /// A fence of another device, which has a timeline more.
    pub(crate) fn foreign_fence(&self, cpu: &ThreadCpu, timeline: TimelineId) -> Fence {
        let other = Device::new(ttm::Parts {
            mm: self.device().mm(),
            file: CARD,
            driver: self.device().driver(),
            objects: &[],
            kinds: leak_all([Resource::new(Backing::System, &[])]),
            timelines: leak_all([Timeline::new(), Timeline::new(), Timeline::new()]),
            ghosts: &[],
            attachments: &[],
        });
        let other = other.expect("good parts");
        let behind = self.device().timeline(COPY_ENGINE).expect("there is one").latest(cpu);
        for _ in 0..behind {
            let _ = other.fence(cpu, timeline);
        }
        other.fence(cpu, timeline).expect("it has three timelines")
    }

    fn give(&self, cpu: &ThreadCpu, pieces: Pieces) -> Result<Work, Refused> {
        let manner = *self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        match manner {
            Manner::Fenced => {}
            Manner::AtOnce => {
                copy(self.data, &pieces);
                return Ok(Work::Done);
            }
            Manner::Lost(timeline) => {
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(pieces);
                return Ok(Work::Until(self.foreign_fence(cpu, timeline)));
            }
            Manner::Later => {
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(pieces);
                return Ok(Work::Until(self.device().fence(cpu, SLOW_ENGINE).ok_or(Refused::Failed(0))?));
            }
        }
        let fence = self.device().fence(cpu, COPY_ENGINE).ok_or(Refused::Failed(0))?;
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(Job { pieces, point: fence.point() }).is_ok());
        self.copies.fetch_add(1, Ordering::Relaxed);
        if sent { Ok(Work::Until(fence)) } else { Err(Refused::Failed(1)) }
    }
}

impl Driver for Card {
    type Platform = OnThreads;

    fn evict_to(&self, _: &ThreadCpu, _: ObjectId, _: Kind) -> Kind {
        Kind::SYSTEM
    }

    fn clear(&self, cpu: &ThreadCpu, to: &Extent<'_>) -> Result<Work, Refused> {
        if to.kind() == STOLEN {
            // Nobody has written to it since the machine started.
            return Ok(Work::Done);
        }
        let mut pieces = Vec::new();
        to.for_each_run(cpu, |run| pieces.push((None, run.frame, run.pages)));
        self.give(cpu, pieces)
    }

    fn copy(&self, cpu: &ThreadCpu, from: &Extent<'_>, to: &Extent<'_>) -> Result<Work, Refused> {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = refusal.and_then(|refusal| refusal(from.kind(), to.kind())) {
            return Err(refused);
        }
        let mut pieces = Vec::new();
        for_each_pair(cpu, from, to, |from, to, pages| pieces.push((Some(from), to, pages)));
        self.give(cpu, pieces)
    }

    fn move_notify(&self, _: &ThreadCpu, importer: u64, _: ObjectId) {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).push(importer);
    }
}

impl DriverFault<OnThreads> for Card {
    fn fault(&self, context: &DriverFaultContext<'_, '_, OnThreads>) -> DriverAnswer {
        match &*self.answer.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(answer) => context.insert(&answer(context)).into(),
            None => self.device().fault(context),
        }
    }

    fn wait(&self, cpu: &ThreadCpu, _: FileId, page: u64) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.device().wait_for_fault(cpu, page);
    }
}

/// Which leaves map an object, by where it is: kind and level, and how often a fault found it so.
pub(crate) type Leaves = BTreeMap<(u8, Level), u64>;

/// The machine.
pub(crate) struct Machine {
    pub(crate) threads: Arc<Threads>,
    pub(crate) mm: &'static Mm<'static, OnThreads>,
    pub(crate) card: &'static Card,
    pub(crate) device: &'static Device<'static, Card>,
    pub(crate) data: &'static DataFrames,
    pub(crate) swap: &'static MemorySwap<'static>,
    pub(crate) failures: Arc<Failures>,
    vram: Frame,
    stolen: Frame,
    /// How many frames are kept from the system.
    spare: u64,
    user: UserMemory<'static, FourLevel, FailingTables>,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

fn words(count: u64) -> &'static [Word64] {
    leak_all((0..count).map(|_| Word64::new(0)))
}

impl Machine {
    /// A machine of `cpus` CPUs for its user and one for the copy engine, with a slot for an object of each of these sizes, in pages, and so many pages of
    /// memory besides the card's.
    pub(crate) fn build(cpus: u32, objects: &[u64], system_pages: u64) -> Self {
        let mm: &'static OnceLock<&'static Mm<'static, OnThreads>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| {
            if let Some(mm) = mm.get() {
                mm.handle_ipi(cpu);
            }
        };
        let threads = Threads::new(cpus + 1, handler).expect("a machine of few CPUs");
        let cpu = threads.attach().expect("a free CPU");
        let failures = Failures::none();
        // The card's memory is taken out of the same stretch, so that user code finds contents in it.
        let frames = 2 * GIGABYTE_PAGES + VRAM_PAGES + system_pages;
        let data = leak(DataFrames::new(FIRST_DATA, frames, failures.clone()).expect("address space for data"));
        let stolen = data.allocate(&cpu, GIGABYTE_PAGES.ilog2() as u8).expect("a gigabyte of address space");
        let vram = data.allocate(&cpu, VRAM_PAGES.ilog2() as u8).expect("room for the card's memory");
        // What is left of the first gigabyte is not for the system, or memory would never be short.
        let mut order = GIGABYTE_PAGES.ilog2() as u8;
        let spare = frames - GIGABYTE_PAGES - VRAM_PAGES - 1 - system_pages;
        let mut left = spare;
        while left > 0 {
            while 1 << order > left || data.allocate(&cpu, order).is_err() {
                order = order.checked_sub(1).expect("there is so much");
            }
            left -= 1 << order;
        }
        let arena = FrameArena::new(FIRST_TABLE, 256).expect("address space for tables");
        let tables = leak(FailingTables { arena, failures: failures.clone() });
        let swap = leak(MemorySwap::new(data, 1 << 14, failures.clone()));
        let root = tables.arena.allocate().expect("a frame for the root");
        cpu.zero(tables.arena.table(root).expect("a frame of the arena").cells());
        let root = Root::new(&MODE, root.start()).expect("frames are aligned");
        let spaces = leak_all([AddressSpace::new(root, leak_all((0..32).map(|_| AreaSlot::new())))]);
        let own = leak_all([vram..vram.wrapping_add(VRAM_PAGES), stolen..stolen.wrapping_add(GIGABYTE_PAGES)]);
        let mappings = leak_all((0..64).map(|_| Mapping::new()));
        let files = leak_all([File::new(FileKind::PfnMapped, Level::Pud, &[], mappings).with_frames(own)]);
        let (sender, jobs) = channel();
        let card = leak(Card {
            device: OnceLock::new(),
            data,
            manner: Mutex::new(Manner::Fenced),
            refusal: Mutex::new(None),
            lost: Mutex::new(Vec::new()),
            answer: Mutex::new(None),
            jobs: Mutex::new(Some(sender)),
            copies: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            notified: Mutex::new(Vec::new()),
        });
        let parts = mm::Parts {
            tables,
            map: data,
            frames: data,
            swap,
            notify: &NobodyListens,
            drivers: card,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces,
            files,
            shootdown: leak(Shootdown::new()),
        };
        let engine: &'static Mm<_> = leak(Mm::new(PROTOCOLS, parts));
        assert!(mm.set(engine).is_ok(), "set once");
        let ranges = || leak_all((0..32).map(|_| RangeSlot::new()));
        let room = |&pages: &u64| Room {
            pages: words(pages),
            swap: words(if pages < GIGABYTE_PAGES { pages } else { 0 }),
            fences: leak_all([FenceSlot::new(), FenceSlot::new()]),
            dirty: words(pages.div_ceil(64)),
        };
        let device = Device::new(ttm::Parts {
            mm: engine,
            file: CARD,
            driver: card,
            objects: leak_all(objects.iter().map(|pages| Object::new(room(pages)))),
            kinds: leak_all([
                Resource::new(Backing::System, &[]),
                Resource::new(Backing::Aperture { pages: 1 << 14 }, ranges()),
                Resource::new(Backing::Device { first: vram, pages: VRAM_PAGES }, ranges()),
                Resource::new(Backing::Device { first: stolen, pages: GIGABYTE_PAGES }, ranges()),
            ]),
            timelines: leak_all([Timeline::new(), Timeline::new()]),
            ghosts: leak_all((0..GHOSTS).map(|_| GhostSlot::new())),
            attachments: leak_all((0..8).map(|_| AttachmentSlot::new())),
        });
        let device: &'static Device<'static, Card> = leak(device.expect("good parts"));
        assert!(card.device.set(device).is_ok(), "set once");
        let engine_cpu = threads.attach().expect("a CPU for the copy engine");
        drop(cpu);
        std::thread::spawn(move || copy_engine(&engine_cpu, data, device, &jobs));
        let user = UserMemory { mode: MODE, tables, data };
        Self { threads, mm: engine, card, device, data, swap, failures, vram, stolen, spare, user }
    }

    /// The first frame of the card's memory.
    pub(crate) fn vram(&self) -> Frame {
        self.vram
    }

    /// A frame for page tables.
    pub(crate) fn first_table(&self) -> Frame {
        FIRST_TABLE
    }

    pub(crate) fn space(&self) -> &'static AddressSpace<'static> {
        self.mm.space(SPACE).expect("there is one")
    }

    /// Maps an object at an address, shared and for writing.
    pub(crate) fn map(&self, cpu: &ThreadCpu, handle: &Handle, at: VirtAddr, pages: u64) {
        let mapped = self.device.mmap(cpu, handle, (0, pages), (SPACE, at), AreaRights::ReadWrite);
        mapped.expect("nothing else is there");
    }

    /// Moves an object where it is wanted; an engine may have yet to bring it there. With a ticket, so that what somebody else has reserved can be waited for instead of
    /// passed over.
    ///
    /// # Errors
    /// It stays where it is.
    pub(crate) fn place(&self, cpu: &ThreadCpu, handle: &Handle, kind: Kind) -> Result<Moved, MoveError> {
        loop {
            let context = AcquireContext::new(cpu, self.device.tickets());
            // The first of a context never has to back off.
            let Ok(mut reserved) = self.device.reserve(handle, &context) else { continue };
            let moved = self.device.validate(&mut reserved, &[Place::anywhere(kind)], Some(&context));
            reserved.unlock();
            if !matches!(moved, Err(MoveError::Lock(_))) {
                return moved;
            }
        }
    }

    /// User code accesses a word, and faults until it can. What faults mapped is entered into `leaves`.
    ///
    /// # Errors
    /// The fault that does not pass.
    pub(crate) fn access<R>(
        &self,
        cpu: &ThreadCpu,
        at: VirtAddr,
        kind: Access,
        leaves: &mut Leaves,
        access: impl Fn(&Word64) -> R,
    ) -> Result<R, FaultError> {
        let space = self.space();
        loop {
            match self.user.access(cpu, space.root(), at, kind, &access) {
                Ok(result) => return Ok(result),
                Err(fault) => {
                    self.mm.handle_fault(cpu, space, fault)?;
                    if let Some((kind, level)) = self.leaf_at(cpu, at) {
                        *leaves.entry((kind.number(), level)).or_default() += 1;
                    }
                }
            }
        }
    }

    /// What maps an address now: memory of which kind, by a leaf of which size.
    pub(crate) fn leaf_at(&self, cpu: &ThreadCpu, at: VirtAddr) -> Option<(Kind, Level)> {
        let irq = cpu.irq_off();
        let reader = ReadOnce::<Wide>::new();
        let found = walk::translate(irq.cpu(), &MODE, self.mm.tables(), &reader, self.space().root(), at).ok()?;
        Some((self.kind_of(found.frame), found.level))
    }

    fn kind_of(&self, frame: Frame) -> Kind {
        if (self.vram..self.vram.wrapping_add(VRAM_PAGES)).contains(&frame) {
            VRAM
        } else if (self.stolen..self.stolen.wrapping_add(GIGABYTE_PAGES)).contains(&frame) {
            STOLEN
        } else {
            Kind::SYSTEM
        }
    }

    /// How many frames of the system are handed out.
    pub(crate) fn system_frames_in_use(&self) -> u64 {
        let all = self.data.frames();
        let is_own = |frame: Frame| self.kind_of(frame) == Kind::SYSTEM;
        self.data.leaks().iter().filter(|leak| is_own(leak.frame) && all.contains(&leak.frame.number())).count() as u64
            - self.spare
    }
}

/// Does one job after the other, and says so. Ends when the card does.
fn copy_engine(cpu: &ThreadCpu, data: &DataFrames, device: &Device<'_, Card>, jobs: &Receiver<Job>) {
    let timeline = device.timeline(COPY_ENGINE).expect("the engine has a timeline");
    while let Ok(job) = jobs.recv() {
        copy(data, &job.pieces);
        timeline.signal(cpu, job.point);
    }
}

fn copy(data: &DataFrames, pieces: &Pieces) {
    for &(from, to, pages) in pieces {
        for page in 0..pages {
            let to = data.words(to.wrapping_add(page)).expect("frames with contents");
            let from = from.map(|from| data.words(from.wrapping_add(page)).expect("frames with contents"));
            for (index, word) in to.iter().enumerate() {
                let value = from.map_or(0, |from| from[index].atomic_load(Ordering::Relaxed));
                word.atomic_store(value, Ordering::Relaxed);
            }
        }
    }
}
