//! The engine on this machine: which parts and protocols it is made of.

use core::sync::atomic::{AtomicPtr, Ordering};

use machine::{Cpu, PhysAddr, ReaderLock, UserAccess, Vector, VirtAddr, Word64};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, FaultError, File, FileId, FileKind, Mapping, Mm, NoSwap, NoUffd,
    NobodyListens, NobodyTraces, Parts, Platform, Protocols, Shootdown, Sound, SpaceId, SpacePart,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{Level, Root, TableSource, ZeroThenLink, walk};
use ttm::{Backing, Device, GhostSlot, Object, RangeSlot, Resource, Room};

use crate::arch::{self, BareCpu, PagingMode, Read, Write, boot_memory, install_kernel};
use crate::card::{Card, OBJECT_PAGES, VRAM_PAGES};
use crate::data_frames::DataFrames;
use crate::memory::Bump;
use crate::report;
use crate::table_frames::TableFrames;

/// The engine as a kernel of this machine has it.
pub(crate) struct Bare;

impl Platform for Bare {
    type Cpu = BareCpu;
    type Mode = PagingMode;
    type Tables = TableFrames;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = Card;
    type Uffd = NoUffd;
    type Trace = NobodyTraces;
    type Read = Read;
    type Write = Write;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
}

/// Anonymous memory.
pub(crate) const ANONYMOUS: FileId = FileId::new(0);
/// The card's objects.
const CARD: FileId = FileId::new(1);
/// How many address spaces there are: one that is shared, and two for each CPU.
const SPACES: usize = 1 + 2 * arch::MAX_CPUS;
const AREAS: usize = 640;
const TABLES: usize = 4096;
const OBJECTS: usize = 2;
const LEAST_MEMORY: u64 = 120 << 20;

/// Everything that lasts as long as the machine.
pub(crate) struct System {
    pub(crate) mm: Mm<'static, Bare>,
    pub(crate) tables: &'static TableFrames,
    pub(crate) data: &'static DataFrames,
    pub(crate) card: &'static Card,
    pub(crate) memory: u64,
    /// Roots without areas, for who changes tables alone.
    pub(crate) bare_roots: &'static [Root],
}

static SYSTEM: AtomicPtr<System> = AtomicPtr::new(core::ptr::null_mut());

/// What there is, once it is.
pub(crate) fn system() -> Option<&'static System> {
    // SAFETY: only `build` writes it, a reference that lives for ever.
    unsafe { SYSTEM.load(Ordering::Acquire).as_ref() }
}

fn handle(cpu: &BareCpu, _: Vector) {
    if let Some(system) = system() {
        system.mm.handle_ipi(cpu);
    }
}

impl System {
    /// Builds it, once.
    pub(crate) fn build(cpu: &BareCpu) -> &'static Self {
        let memory = boot_memory();
        let mut bump = Bump::new(memory);
        if bump.bytes() < LEAST_MEMORY {
            let found = bump.bytes() >> 20;
            report::refuse(format_args!(
                "too little memory, {found} MiB behind the kernel: give the machine 128 MiB at least (qemu -m 128)"
            ));
        }
        let mode = arch::mode();
        let tables = TableFrames::new(&mut bump, TABLES);
        let tables = bump.one(tables);
        let mut shared = None;
        let mut new_root = || {
            let table = || tables.allocate_table(cpu).expect("frames for the first tables");
            let frame = table();
            cpu.zero(pagetable::TableMemory::table(tables, frame).expect("a frame for tables").cells());
            install_kernel(cpu, tables, frame.start(), &mut shared, table);
            Root::new(&mode, frame.start()).expect("frames are aligned, and low enough")
        };
        let bare_roots = bump.all(arch::MAX_CPUS, |_| new_root());
        let slots = bump.all(SPACES * AREAS, |_| AreaSlot::new());
        let reader_locks = bump.all(SPACES * arch::MAX_CPUS, |_| ReaderLock::new());
        let parts = bump.all(SPACES, |index| {
            SpacePart::new(VirtAddr::new(0), &slots[index * AREAS..][..AREAS])
                .with_reader_locks(&reader_locks[index * arch::MAX_CPUS..][..arch::MAX_CPUS])
        });
        let spaces = bump.all(SPACES, |index| {
            AddressSpace::in_parts(new_root(), &parts[index..=index]).expect("one part, from address 0 on")
        });
        let mappings = bump.all(SPACES * AREAS, |_| Mapping::new());
        let vram = bump.frames(VRAM_PAGES, 512);
        let own = bump.all(1, |_| vram..vram.wrapping_add(VRAM_PAGES));
        let card_mappings = bump.all(8, |_| Mapping::new());
        let files = bump.all(2, |index| match index {
            0 => File::new(FileKind::Anonymous, Level::Pte, &[], mappings),
            _ => File::new(FileKind::PfnMapped, Level::Pmd, &[], card_mappings).with_frames(own),
        });
        let card = bump.one(Card::new());
        let room = [0; OBJECTS].map(|_| Room {
            pages: bump.all(OBJECT_PAGES as usize, |_| Word64::new(0)),
            swap: &[],
            fences: &[],
            dirty: bump.all(OBJECT_PAGES as usize / 64, |_| Word64::new(0)),
        });
        let mut room = room.into_iter();
        let objects = bump.all(OBJECTS, |_| Object::new(room.next().expect("one for each")));
        let ranges = bump.all(8, |_| RangeSlot::new());
        let kinds = bump.all(2, |index| match index {
            0 => Resource::new(Backing::System, &[]),
            _ => Resource::new(Backing::Device { first: vram, pages: VRAM_PAGES }, ranges),
        });
        let ghosts = bump.all(4, |_| GhostSlot::new());
        let shootdown = bump.one(Shootdown::new());
        let data = DataFrames::new(cpu, &mut bump);
        let data = bump.one(data);
        let protocols = Protocols {
            mode,
            read: Read::default(),
            write: Write::default(),
            recheck: Atomic,
            publish: ZeroThenLink,
            flush_order: FlushAfterUnlock,
            remote_flush: ByIpi,
            lifetime: ByRcu,
            special: Softw1,
            guards: Sound,
        };
        let parts = Parts {
            tables,
            map: data,
            frames: data,
            swap: &NoSwap,
            notify: &NobodyListens,
            drivers: card,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            spaces,
            files,
            shootdown,
        };
        let mm = Mm::new(protocols, parts);
        let system = bump.one(Self { mm, tables, data, card, memory: memory.end, bare_roots });
        let device = Device::new(ttm::Parts {
            mm: &system.mm,
            file: CARD,
            driver: card,
            objects,
            kinds,
            timelines: &[],
            ghosts,
            attachments: &[],
        });
        card.set_device(bump.one(device.expect("good parts")));
        SYSTEM.store(core::ptr::from_ref(system).cast_mut(), Ordering::Release);
        arch::set_handler(handle);
        for number in 0..SPACES {
            system.mm.prepare(cpu, system.space(number)).expect("frames for the first tables");
        }
        system
    }

    /// The address space with this number.
    pub(crate) fn space(&self, number: usize) -> &'static AddressSpace<'static> {
        self.mm.space(SpaceId::new(number as u16)).expect("there are so many")
    }

    /// Adds private anonymous memory.
    pub(crate) fn map(&self, cpu: &BareCpu, space: usize, start: VirtAddr, pages: u64) {
        let area = Area::private(start, pages, AreaRights::ReadWrite, ANONYMOUS, start.as_u64() / 4096);
        self.mm.mmap(cpu, SpaceId::new(space as u16), area).expect("room for an area");
    }

    /// User code loads 8 bytes, and faults until it can.
    pub(crate) fn load(&self, cpu: &BareCpu, space: usize, at: VirtAddr) -> Result<u64, FaultError> {
        loop {
            match cpu.user_load(at) {
                Ok(value) => return Ok(value),
                Err(fault) => self.mm.handle_fault(cpu, self.space(space), fault)?,
            }
        }
    }

    /// User code stores 8 bytes, and faults until it can.
    pub(crate) fn store(&self, cpu: &BareCpu, space: usize, at: VirtAddr, value: u64) -> Result<(), FaultError> {
        loop {
            match cpu.user_store(at, value) {
                Ok(()) => return Ok(()),
                Err(fault) => self.mm.handle_fault(cpu, self.space(space), fault)?,
            }
        }
    }

    /// Whether a leaf of 2 MiB or more translates the address.
    pub(crate) fn is_huge(&self, cpu: &BareCpu, space: usize, address: VirtAddr) -> bool {
        let irq = cpu.irq_off();
        let root = self.space(space).root();
        let found = walk::translate(irq.cpu(), &arch::mode(), self.tables, &Read::default(), root, address);
        found.is_ok_and(|found| found.level > Level::Pte)
    }
}

/// A root's address as the engine wants it.
pub(crate) fn root_at(address: u64) -> Option<Root> {
    let whole = if cfg!(target_arch = "x86") { address & !31 } else { address & !4095 };
    Root::new(&arch::mode(), PhysAddr::new(whole)).ok()
}
