//! Buffer objects in the lab: moves against fences, sharing against the end of an object, in every interleaving under TSO.
//!
//! The objects are not mapped, so there is no page table: faults and revokes against moves are in `lab_mapped`, and over `mm` alone in `ttm-evict.litmus`.

use std::marker::PhantomData;
use std::sync::OnceLock;

use lab::{Arena, Lab, LabCpu, Limits, Machine, MemoryOrder, Report};
use machine::{Cpu, CpuId, Frame, PhysAddr, Word64};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    DriverAnswer, DriverFault, DriverFaultContext, File, FileId, FileKind, Membership, MemoryMap, Mm, NoFrames, NoSwap,
    NoUffd, NobodyListens, NobodyTraces, Page, Platform, Protocols, Shootdown, Sound,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::table::{Pdpt, Table};
use pagetable::{
    FourLevel, Level, NotATable, OutOfFrames, PhysicalWidth, ReadOnce, TableMemory, TableSource, Whole, Wide,
    ZeroThenLink,
};
use ttm::{
    AcquireContext, AttachmentSlot, Backing, Device, Driver, Extent, FenceSlot, GhostSlot, Handle, Importer, Kind,
    MoveError, Object, ObjectId, Place, RangeSlot, Refused, Resource, Room, Timeline, TimelineId, Usage, Work,
};

struct InLab<'l>(PhantomData<&'l ()>);

impl<'l> Platform for InLab<'l> {
    type Cpu = LabCpu;
    type Mode = FourLevel;
    type Tables = Nothing;
    type Map = Nothing;
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
    type Guards = Sound;
}

/// No tables and no records.
struct Nothing;

impl TableMemory for Nothing {
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        Err(NotATable { address: frame.start() })
    }

    fn pdpt(&self, address: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        Err(NotATable { address })
    }

    fn holds_any(&self, _: Frame, _: u64) -> bool {
        false
    }
}

impl TableSource for Nothing {
    fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
        Err(OutOfFrames)
    }

    fn free_table<C: Cpu>(&self, _: &C, _: Frame) {}
}

impl MemoryMap<LabCpu> for Nothing {
    fn page(&self, _: &LabCpu, _: Frame) -> Option<&Page> {
        None
    }

    fn release(&self, _: &LabCpu, _: Membership) {}
}

/// Memory of the device that it reaches slowly.
const SLOW: Kind = Kind::new(1);
/// One page.
const VRAM: Kind = Kind::new(2);
const ENGINE: TimelineId = TimelineId::new(0);
const FIRST: u64 = 0x1000;
/// In the place of a job: the engine takes none any more.
const STOPPED: u64 = u64::MAX;

/// A driver whose engine is another CPU of the lab.
struct Card<'l> {
    device: OnceLock<&'l Device<'l, Card<'l>>>,
    /// Its fence is that of another device. Then there is one job, [`Self::jobs`] of 1, and the engine is reset after it, or before.
    confused: Option<&'l Device<'l, Card<'l>>>,
    /// Which frames hold an object, or are being copied from or to.
    occupied: [Word64; 3],
    /// What the engine is to vacate at each point, as an index plus one.
    jobs: [Word64; 4],
}

impl<'l> Card<'l> {
    fn device(&self) -> &'l Device<'l, Self> {
        self.device.get().expect("set before anybody runs")
    }

    fn index(cpu: &LabCpu, extent: &Extent<'_>) -> usize {
        (extent.run(cpu, 0).expect("one page").frame.number() - FIRST) as usize
    }

    fn enter(&self, cpu: &LabCpu, to: &Extent<'_>) {
        let before = cpu.swap(&self.occupied[Self::index(cpu, to)], 1);
        assert_eq!(before, 0, "room is given out while an engine still reads there");
    }

    /// The engine of a confused driver: does what it was told, if it was, and is reset.
    fn reset(&self, cpu: &LabCpu) {
        if let Some(to) = cpu.swap(&self.jobs[1], STOPPED).checked_sub(1) {
            // Until here the engine writes.
            cpu.store(&self.occupied[to as usize], 0);
        }
        self.device().after_reset(cpu);
    }

    /// The engine: does so many jobs.
    fn work(&self, cpu: &LabCpu, jobs: u64) {
        for point in 1..=jobs {
            let from = cpu.await_value(&self.jobs[point as usize], |from| from != 0) - 1;
            cpu.store(&self.occupied[from as usize], 0);
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
        self.enter(cpu, to);
        Ok(Work::Done)
    }

    fn copy(&self, cpu: &LabCpu, from: &Extent<'_>, to: &Extent<'_>) -> Result<Work, Refused> {
        self.enter(cpu, to);
        if let Some(other) = self.confused {
            let target = Self::index(cpu, to);
            if cpu.compare_exchange(&self.jobs[1], 0, target as u64 + 1).is_ok() {
                return Ok(Work::Until(other.fence(cpu, ENGINE).ok_or(Refused::Failed(0))?));
            }
            // Stopped, or at work: this CPU copies.
            cpu.store(&self.occupied[Self::index(cpu, from)], 0);
            return Ok(Work::Done);
        }
        let fence = self.device().fence(cpu, ENGINE).ok_or(Refused::Failed(0))?;
        cpu.store(&self.jobs[fence.point() as usize], Self::index(cpu, from) as u64 + 1);
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

fn device(arena: &Arena, objects: usize) -> &Device<'_, Card<'_>> {
    device_of(arena, objects, None)
}

fn device_of<'l>(
    arena: &'l Arena,
    objects: usize,
    confused: Option<&'l Device<'l, Card<'l>>>,
) -> &'l Device<'l, Card<'l>> {
    let card: &Card<'_> = arena.alloc(Card {
        device: OnceLock::new(),
        confused,
        occupied: [const { Word64::new(0) }; 3],
        jobs: [const { Word64::new(0) }; 4],
    });
    let mm = Mm::new(
        Protocols {
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
        },
        mm::Parts {
            tables: &Nothing,
            map: &Nothing,
            frames: &NoFrames,
            swap: &NoSwap,
            notify: &NobodyListens,
            drivers: card,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces: &[],
            files: arena.alloc_slice(1, |_| File::new(FileKind::PfnMapped, Level::Pte, &[], &[])),
            shootdown: arena.alloc(Shootdown::new()),
        },
    );
    let object = |_| {
        Object::new(Room {
            pages: arena.alloc_slice(1, |_| Word64::new(0)),
            swap: &[],
            fences: arena.alloc_slice(1, |_| FenceSlot::new()),
            dirty: &[],
        })
    };
    let memory = |first, pages| Backing::Device { first: Frame::new(first), pages };
    let kinds = [(Backing::System, 0), (memory(FIRST + 1, 2), 2), (memory(FIRST, 1), 1)];
    let resource = |index: usize| {
        let (backing, slots) = kinds[index];
        Resource::new(backing, arena.alloc_slice(slots, |_| RangeSlot::new()))
    };
    let device = Device::new(ttm::Parts {
        mm: arena.alloc(mm),
        file: FileId::new(0),
        driver: card,
        objects: arena.alloc_slice(objects, object),
        kinds: arena.alloc_slice(3, resource),
        timelines: arena.alloc_slice(1, |_| Timeline::new()),
        ghosts: arena.alloc_slice(2, |_| GhostSlot::new()),
        attachments: arena.alloc_slice(1, |_| AttachmentSlot::new()),
    });
    let device = arena.alloc(device.expect("good parts"));
    assert!(card.device.set(device).is_ok(), "set once");
    device
}

/// Runs each program on a CPU, after `boot`, in every interleaving.
fn explore<'l>(
    arena: &'l Arena,
    device: &'l Device<'l, Card<'l>>,
    boot: impl FnOnce(&LabCpu),
    programs: &[&'l (dyn Fn(&LabCpu) + Sync)],
) -> Report {
    let mut lab = Lab::new(arena, Machine::new(MemoryOrder::Tso));
    for (number, &program) in programs.iter().enumerate() {
        lab.cpu(format!("CPU{number}"), move |cpu| program(cpu));
    }
    lab.boot(CpuId::new(0), boot);
    let card = device.driver();
    lab.observe(|end| card.occupied.iter().map(|word| end.read(word)).collect());
    lab.explore(&Limits::default())
}

fn place(device: &Device<'_, Card<'_>>, cpu: &LabCpu, handle: &Handle, kind: Kind) {
    let context = AcquireContext::new(cpu, device.tickets());
    let mut reserved = device.reserve(handle, &context).expect("the first of a context");
    device.validate(&mut reserved, &[Place::anywhere(kind)], Some(&context)).expect("there is room for one");
    reserved.unlock();
}

#[test]
fn room_is_given_out_again_when_the_engine_is_done() {
    let arena = Arena::new();
    let device = device(&arena, 2);
    let handles: OnceLock<[Handle; 2]> = OnceLock::new();
    let boot = |cpu: &LabCpu| {
        let made = [VRAM, SLOW].map(|kind| {
            let handle = device.create(cpu, 1).expect("a free slot");
            place(device, cpu, &handle, kind);
            handle
        });
        assert!(handles.set(made).is_ok(), "once");
    };
    let handles_of = || handles.get().expect("set at boot");
    // Evicts the one to make room for the other, and waits until it is out.
    let evict = |cpu: &LabCpu| place(device, cpu, &handles_of()[1], VRAM);
    let engine = |cpu: &LabCpu| device.driver().work(cpu, 2);
    // A fault that was given up because the object was on its way.
    let fault = |cpu: &LabCpu| {
        let object = &handles_of()[0];
        device.wait_for_fault(cpu, device.mmap_offset(object));
        let reserved = device.reserve_alone(cpu, object).expect("it exists");
        device.wait(&reserved, Usage::Kernel);
        assert!(!device.is_busy(&reserved, Usage::Kernel));
        reserved.unlock();
    };
    let report = explore(&arena, device, boot, &[&evict, &engine, &fault]);
    report.expect_safe();
    assert_eq!(report.observations.into_iter().collect::<Vec<_>>(), [[1, 0, 1]], "each object is in one place");
}

#[test]
fn an_object_is_shared_or_gone() {
    // Numbers are the same in every run: this is that of the first object.
    let id = {
        let arena = Arena::new();
        let device = device(&arena, 1);
        let mut lab = Lab::new(&arena, Machine::new(MemoryOrder::Tso));
        let cpu = lab.cpu("CPU0", |_| ());
        lab.boot(cpu, |cpu| device.create(cpu, 1).expect("a free slot").id())
    };
    let arena = Arena::new();
    let device = device(&arena, 1);
    let owner = |cpu: &LabCpu| {
        let handle = device.create(cpu, 1).expect("nobody else makes one before");
        assert_eq!(handle.id(), id);
        device.put(cpu, handle).expect("of this device");
        device.reap(cpu);
    };
    let importer = |cpu: &LabCpu| {
        let Ok(handle) = device.get(cpu, id) else { return };
        let mut reserved = device.reserve_alone(cpu, &handle).expect("a handle keeps it");
        let attachment = device.attach(&mut reserved, Importer::Dynamic(1)).expect("a free slot");
        assert_eq!(reserved.id(), id, "nobody else's");
        reserved.unlock();
        device.put(cpu, handle).expect("of this device");
        device.detach(cpu, attachment).expect("of this device");
        cpu.swap(&device.driver().occupied[0], 1);
    };
    let report = explore(&arena, device, |_| (), &[&owner, &importer]);
    report.expect_safe();
    assert_eq!(report.observations.len(), 2, "it comes to both");
}

#[test]
fn room_that_an_engine_may_write_is_given_out_after_the_reset() {
    let arena = Arena::new();
    let other = device(&arena, 0);
    let device = device_of(&arena, 2, Some(other));
    let handles: OnceLock<[Handle; 2]> = OnceLock::new();
    // Both are in slow memory, where new objects go without the engine, and want the one page of fast memory.
    let boot = |cpu: &LabCpu| {
        cpu.store(&device.driver().jobs[1], STOPPED);
        let made = [0, 1].map(|_| {
            let handle = device.create(cpu, 1).expect("a free slot");
            place(device, cpu, &handle, SLOW);
            handle
        });
        cpu.store(&device.driver().jobs[1], 0);
        assert!(handles.set(made).is_ok(), "once");
    };
    let want = |cpu: &LabCpu, number: usize| {
        let handle = &handles.get().expect("set at boot")[number];
        let mut reserved = device.reserve_alone(cpu, handle).expect("it exists");
        let only_free = [Place::anywhere(VRAM).if_free()];
        match device.validate(&mut reserved, &only_free, None) {
            Ok(_) => assert!(!reserved.is_quarantined(), "it has arrived"),
            Err(MoveError::BadFence(_)) => assert_eq!(reserved.placed().kind, SLOW, "it stays where it was"),
            Err(MoveError::NoRoom { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        reserved.unlock();
    };
    let first = |cpu: &LabCpu| want(cpu, 0);
    let second = |cpu: &LabCpu| want(cpu, 1);
    let reset = |cpu: &LabCpu| device.driver().reset(cpu);
    let report = explore(&arena, device, boot, &[&first, &second, &reset]);
    report.expect_safe();
    let ends: Vec<_> = report.observations.into_iter().collect();
    assert_eq!(ends, [[0, 1, 1], [1, 0, 1], [1, 1, 0]], "one of them is there, or neither: it came before the reset");
}
