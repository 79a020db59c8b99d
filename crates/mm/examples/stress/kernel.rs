//! The machine under stress: one address space that all threads share, one for each thread's children, and files of every kind.

use std::io;
use std::sync::{Arc, OnceLock};

use hosted::{DataFrames, FailingTables, Failures, FrameArena, MemorySwap, ThreadCpu, Threads, UserMemory};
use machine::addr::PAGE_SIZE;
use machine::{Access, Cpu, Frame, VirtAddr, Word64};
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, FaultError, File, FileId, FileKind, Mapping, Mm, NoDrivers, NoUffd,
    NobodyListens, NobodyTraces, PageSlot, Parts, Platform, Protocols, Shootdown, Sound, SpaceId, SpacePart,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{FourLevel, Level, PhysicalWidth, ReadOnce, Root, TableMemory, Whole, Wide, ZeroThenLink};

use crate::contents::Zaps;

/// The engine with its defaults for x86-64.
pub(crate) struct OnThreads;

impl Platform for OnThreads {
    type Cpu = ThreadCpu;
    type Mode = FourLevel;
    type Tables = FailingTables;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = MemorySwap<'static>;
    type Drivers = NoDrivers;
    type Uffd = NoUffd;
    type Trace = NobodyTraces;
    type Notify = NobodyListens;
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

/// The address space that all threads share. That of thread `n`'s children is number `n + 1`.
pub(crate) const SHARED: SpaceId = SpaceId::new(0);
/// What anonymous areas are of.
const ANONYMOUS: FileId = FileId::new(0);
/// A file of small pages.
pub(crate) const CACHED: FileId = FileId::new(1);
/// A driver's file of one 2 MiB leaf.
pub(crate) const DRIVER: FileId = FileId::new(2);

/// Private anonymous memory, in which huge pages may come.
pub(crate) const PRIVATE: VirtAddr = VirtAddr::new(0x40_0000_0000);
pub(crate) const PRIVATE_PAGES: u64 = 4 * 512;
/// The file, shared.
pub(crate) const FILE: VirtAddr = VirtAddr::new(0x50_0000_0000);
pub(crate) const FILE_PAGES: u64 = 256;
/// The driver's memory.
pub(crate) const DEVICE: VirtAddr = VirtAddr::new(0x60_0000_0000);
/// Device memory has no records.
const DEVICE_FRAME: Frame = Frame::new(1 << 30);

/// So few that swap is full now and then.
const SWAP_PAGES: usize = 512;
const FIRST_DATA: Frame = Frame::new(1 << 28);
/// All addresses at which threads have pages for themselves, in pages.
const OWN_ADDRESSES: u64 = 16 << 20;
/// How many pages a thread has for itself.
pub(crate) const OWN_PAGES: u64 = 64;

/// Where a thread's own pages lie at first.
pub(crate) const fn own(thread: u32) -> VirtAddr {
    VirtAddr::new(0x70_0000_0000 + thread as u64 * 0x1_0000_0000)
}

/// How many pages a thread's stack has when it has grown as far as its thread uses it.
pub(crate) const STACK_PAGES: u64 = 128;
/// How many it begins with.
const STACK_BEGINS: u64 = 2;
/// All addresses at which threads have stacks, in pages.
const STACK_ADDRESSES: u64 = 16 << 12;

/// The page of a thread's stack that lies so many below the highest. Below all of them there is room for the gap.
pub(crate) const fn stack(thread: u32, page: u64) -> VirtAddr {
    let end = STACKS + (thread as u64 + 1) * (STACK_ADDRESSES / 16) * PAGE_SIZE;
    VirtAddr::new(end - (page + 1) * PAGE_SIZE)
}

const STACKS: u64 = 0x68_0000_0000;

/// Where the parts of address spaces begin that have locks of their own. They have tables in common, and one has the areas of several threads.
const PARTS: [VirtAddr; 5] = [VirtAddr::new(0), FILE, VirtAddr::new(STACKS), own(0), own(1)];

const FIRST_TABLE: Frame = Frame::new(0x1000);

/// The machine, the engine, and what all threads know about pages.
pub(crate) struct Kernel {
    pub(crate) machine: Arc<Threads>,
    pub(crate) mm: &'static Mm<'static, OnThreads>,
    pub(crate) data: &'static DataFrames,
    tables: &'static FailingTables,
    swap: &'static MemorySwap<'static>,
    spaces: &'static [AddressSpace<'static>],
    slots: &'static [PageSlot],
    user: UserMemory<'static, FourLevel, FailingTables>,
    /// Of the pages of the private area.
    pub(crate) zaps: Vec<Zaps>,
}

/// Lives as long as the program, which ends with the run.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn leak_all<T>(values: impl IntoIterator<Item = T>) -> &'static [T] {
    Vec::leak(values.into_iter().collect())
}

impl Kernel {
    pub(crate) fn build(threads: u32) -> io::Result<Self> {
        let mm: &'static OnceLock<&'static Mm<'static, OnThreads>> = leak(OnceLock::new());
        let handler = move |cpu: &ThreadCpu, _| {
            if let Some(mm) = mm.get() {
                mm.handle_ipi(cpu);
            }
        };
        let machine = Threads::new(threads + 1, handler).expect("at most 17 CPUs");
        let failures = Failures::none();
        let frames = 2 * (PRIVATE_PAGES + STACK_PAGES) * (u64::from(threads) + 2) + FILE_PAGES;
        let data = leak(DataFrames::new(FIRST_DATA, frames.next_multiple_of(512), Arc::clone(&failures))?);
        let swap = leak(MemorySwap::new(data, SWAP_PAGES, Arc::clone(&failures)));
        let spaces = u64::from(threads) + 1;
        let arena = FrameArena::new(FIRST_TABLE, 64 * spaces)?;
        let tables: &FailingTables = leak(FailingTables { arena, failures });
        let cpu = machine.attach().expect("nobody has a CPU yet");
        let root = || {
            let root = tables.arena.allocate().expect("an empty arena");
            cpu.zero(tables.table(root).expect("a frame of the arena").cells());
            Root::new(&MODE, root.start()).expect("frames are aligned")
        };
        let part = |start| SpacePart::new(start, leak_all((0..64).map(|_| AreaSlot::new())));
        let space = || AddressSpace::in_parts(root(), leak_all(PARTS.map(part))).expect("sorted");
        let spaces = leak_all((0..spaces).map(|_| space()));
        let slots = leak_all((0..FILE_PAGES).map(|_| PageSlot::new(None)));
        let mappings = || leak_all((0..64 * (threads + 1)).map(|_| Mapping::new()));
        let files = leak_all([
            File::new(FileKind::Anonymous, Level::Pte, &[], mappings()),
            File::new(FileKind::Cached, Level::Pte, slots, mappings()),
            File::new(FileKind::Driver, Level::Pmd, leak_all([PageSlot::new(Some(DEVICE_FRAME))]), mappings()),
        ]);
        let parts = Parts {
            tables,
            map: data,
            frames: data,
            swap,
            drivers: &NoDrivers,
            uffd: &NoUffd,
            trace: &NobodyTraces,
            notify: &NobodyListens,
            spaces,
            files,
            shootdown: leak(Shootdown::new()),
        };
        let engine: &'static Mm<_> = leak(Mm::new(PROTOCOLS, parts));
        assert!(mm.set(engine).is_ok(), "set once");
        for space in spaces {
            engine.prepare(&cpu, space).expect("nothing to prepare in this mode");
        }
        for page in 0..FILE_PAGES {
            let frame = engine.allocate_folio(&cpu, 0).expect("there are frames enough");
            engine.replace_page(&cpu, &files[1], page, Some(frame)).expect("the file has this page");
        }
        let kernel = Self {
            mm: engine,
            data,
            tables,
            swap,
            spaces,
            slots,
            user: UserMemory { mode: MODE, tables, data },
            zaps: (0..PRIVATE_PAGES).map(|_| Zaps::default()).collect(),
            machine: Arc::clone(&machine),
        };
        for thread in 0..threads {
            engine.mmap(&cpu, SHARED, Self::own_area(thread, own(thread))).expect("a good area");
            engine.mmap(&cpu, SHARED, Self::stack_area(thread)).expect("a good area");
        }
        let private = Area::private(PRIVATE, PRIVATE_PAGES, AreaRights::ReadWrite, ANONYMOUS, 0).with_huge_pages();
        for area in [private, kernel.file_area(), Area::shared(DEVICE, 512, AreaRights::ReadWrite, DRIVER, 0)] {
            engine.mmap(&cpu, SHARED, area).expect("a good area");
        }
        drop(cpu);
        Ok(kernel)
    }

    /// The area that this thread alone accesses, at this place.
    pub(crate) const fn own_area(thread: u32, at: VirtAddr) -> Area {
        Area::private(at, OWN_PAGES, AreaRights::ReadWrite, ANONYMOUS, 0x1_0000 * (thread as u64 + 1))
    }

    /// A thread's stack as it begins.
    pub(crate) const fn stack_area(thread: u32) -> Area {
        let start = stack(thread, STACK_BEGINS - 1);
        let offset = 0x100_0000 + 0x1_0000 * (thread as u64 + 1);
        Area::private(start, STACK_BEGINS, AreaRights::ReadWrite, ANONYMOUS, offset).as_stack()
    }

    pub(crate) fn file_area(&self) -> Area {
        Area::shared(FILE, FILE_PAGES, AreaRights::ReadWrite, CACHED, 0)
    }

    pub(crate) fn space(&self, id: SpaceId) -> &'static AddressSpace<'static> {
        &self.spaces[id.number() as usize]
    }

    /// Which allocations fail.
    pub(crate) fn failures(&self) -> &Failures {
        &self.tables.failures
    }

    /// User code accesses the word at `address`, and faults until it can. Nothing if there is no area.
    ///
    /// # Panics
    /// A fault failed for a reason that does not pass.
    pub(crate) fn access<R>(
        &self,
        cpu: &ThreadCpu,
        id: SpaceId,
        address: VirtAddr,
        kind: Access,
        access: impl Fn(&Word64) -> R,
    ) -> Option<R> {
        let space = self.space(id);
        loop {
            match self.user.access(cpu, space.root(), address, kind, &access) {
                Ok(result) => return Some(result),
                Err(fault) => match self.mm.handle_fault(cpu, space, fault) {
                    // Out of frames on purpose, or because children hold them: they will be back.
                    Ok(()) | Err(FaultError::OutOfFrames | FaultError::Swap { .. }) => {}
                    // Who has guarded it takes the guards away again. A child has those of others, whom nobody tells of it.
                    Err(FaultError::Guarded { .. }) if id == SHARED => std::thread::yield_now(),
                    Err(FaultError::Guarded { address }) => {
                        let start = address.align_down(PAGE_SIZE);
                        self.mm.remove_guards(cpu, space, start, 1).expect("whole tables");
                    }
                    Err(FaultError::NoArea { .. }) => return None,
                    Err(error) => panic!("{kind:?} at {address}: {error}"),
                },
            }
        }
    }

    /// Takes everything apart.
    ///
    /// # Errors
    /// What is not back, in a sentence.
    pub(crate) fn close(&self) -> Result<(), String> {
        let cpu = self.machine.attach().map_err(|error| error.to_string())?;
        self.failures().fail_at(0);
        for (start, pages) in [
            (PRIVATE, PRIVATE_PAGES),
            (FILE, FILE_PAGES),
            (DEVICE, 512),
            (VirtAddr::new(0x70_0000_0000), OWN_ADDRESSES),
            (VirtAddr::new(STACKS), STACK_ADDRESSES),
        ] {
            self.mm.munmap(&cpu, SHARED, start, pages).map_err(|error| format!("munmap: {error:?}"))?;
        }
        // Now nothing is left but tables that parts have in common.
        self.mm.exit(&cpu, SHARED).map_err(|error| format!("exit: {error:?}"))?;
        let file = self.mm.file(CACHED).ok_or("the file is gone")?;
        for page in 0..self.slots.len() as u64 {
            self.mm.replace_page(&cpu, file, page, None).map_err(|error| format!("truncate: {error:?}"))?;
        }
        if self.swap.counts() != 0 {
            return Err(format!("{} places on swap are not back", self.swap.in_use()));
        }
        let leaks = self.data.leaks();
        if !leaks.is_empty() {
            return Err(format!("{} frames are not back: {:?}", leaks.len(), &leaks[..leaks.len().min(8)]));
        }
        let left = std::iter::from_fn(|| self.tables.arena.allocate().ok()).count() as u64;
        let all = 64 * self.spaces.len() as u64 - self.spaces.len() as u64;
        if left != all {
            return Err(format!("{} page tables are not back", all - left));
        }
        Ok(())
    }
}
