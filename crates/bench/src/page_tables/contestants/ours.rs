//! Ourselves, on the machine of threads and on no machine at all.

use hosted::{ThreadCpu, Threads, TrustedArena};
use machine::{Cpu, Frame, PhysAddr, VirtAddr};
use pagetable::detach::NeverLoaded;
use pagetable::map::Mapper;
use pagetable::owner::{Live, Offline, Ownership};
use pagetable::{Attributes, FourLevel, Level, PhysicalWidth, ReadOnce, Rights, Root, TableMemory, Whole, walk};

use super::{Bare, Contestant, Ranges};
use crate::page_tables::frames;

/// A CPU to run on.
pub(crate) trait MakeCpu: Cpu {
    const LIVE: &'static str;
    const OFFLINE: &'static str;
    fn make() -> Self;
}

impl MakeCpu for ThreadCpu {
    const LIVE: &'static str = "fastgup";
    const OFFLINE: &'static str = "fastgup, offline";
    fn make() -> Self {
        let machine = Threads::new(1, |_, _| ()).expect("a machine of one CPU");
        machine.attach().expect("its only CPU is free")
    }
}

impl MakeCpu for Bare {
    const LIVE: &'static str = "fastgup, no machine";
    const OFFLINE: &'static str = "fastgup, offline, no machine";
    fn make() -> Self {
        Self
    }
}

/// Tables that hardware and lockless software walkers may be in.
pub(crate) type OursLive<C> = Ours<C, Live<Whole>>;

/// Tables that nobody else looks at: what the other crates assume.
pub(crate) type OursOffline<C> = Ours<C, Offline>;

pub(crate) struct Ours<C, O> {
    cpu: C,
    /// Tables are found as all others here find theirs: by an addition.
    memory: TrustedArena<'static>,
    root: Root,
    owner: O,
}

/// Everything below 2^47.
const EVERYTHING: (VirtAddr, u64) = (VirtAddr::new(0), 1 << 47);

impl<C: Cpu, O: Ownership + Copy + Default> Ours<C, O> {
    #[inline(always)]
    fn mapper(&mut self) -> Mapper<'_, C, FourLevel, TrustedArena<'static>, O> {
        Mapper::new(&self.cpu, MODE, &self.memory, self.root, self.owner)
    }

    fn empty(cpu: C) -> Self {
        // SAFETY: roots come from the arena, as do tables, and nobody else writes entries.
        let memory = unsafe { TrustedArena::new(frames::arena()) };
        let frame = memory.arena().allocate().expect("enough frames were reserved");
        cpu.zero(memory.table(frame).expect("a frame of the arena").cells());
        let root = Root::new(&MODE, frame.start()).expect("frames are aligned");
        Self { cpu, memory, root, owner: O::default() }
    }

    #[inline(always)]
    fn map_page(&mut self, virt: u64, phys: u64) {
        let source = self.memory;
        let frame = PhysAddr::new(phys).frame();
        self.mapper()
            .map(&source, VirtAddr::new(virt), Level::Pte, frame, ATTRIBUTES)
            .expect("the page is free, and there are frames for tables");
    }

    #[inline(always)]
    fn unmap_page(&mut self, virt: u64) -> Option<u64> {
        Some(self.mapper().unmap(VirtAddr::new(virt)).ok()?.frame().start().as_u64())
    }

    fn free_tables(mut self) {
        let (memory, mut detached) = (self.memory, Vec::new());
        self.mapper().prune(EVERYTHING, |table| detached.push(table)).expect("well-formed tables");
        for table in detached {
            table.after_flush(&NeverLoaded).free(&self.cpu, &memory);
        }
        memory.arena().free(self.root.address().frame());
    }
}

/// Known when the benchmark is compiled, as it would be in a kernel for one kind of machine.
const MODE: FourLevel = FourLevel::new(PhysicalWidth::MAX);

const ATTRIBUTES: Attributes = Attributes::new(Rights::WRITE.and(Rights::USER));

#[inline(always)]
fn address_of(virt: u64, frame: Frame) -> u64 {
    frame.start().as_u64() | virt & 0xfff
}

macro_rules! contestant {
    ($owner:ty, $name:ident) => {
        impl<C: MakeCpu> Contestant for Ours<C, $owner> {
            const NAME: &'static str = C::$name;

            fn new() -> Self {
                Self::empty(C::make())
            }
            #[inline]
            fn map(&mut self, virt: u64, phys: u64) {
                self.map_page(virt, phys);
            }
            /// Without a lock: what a walker with interrupts off calls.
            #[inline]
            fn translate(&self, virt: u64) -> Option<u64> {
                let found = walk::translate(
                    &self.cpu,
                    &MODE,
                    &self.memory,
                    &ReadOnce::<pagetable::Wide>::new(),
                    self.root,
                    VirtAddr::new(virt),
                );
                Some(address_of(virt, found.ok()?.frame))
            }
            #[inline]
            fn unmap(&mut self, virt: u64) -> Option<u64> {
                self.unmap_page(virt)
            }
            fn free(self) {
                self.free_tables();
            }
        }
    };
}

contestant!(Live<Whole>, LIVE);
contestant!(Offline, OFFLINE);

impl<C: Cpu, O: Ownership + Copy + Default> Ranges for Ours<C, O>
where
    Self: Contestant,
{
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64) {
        let source = self.memory;
        let frame = PhysAddr::new(phys).frame();
        self.mapper()
            .map_range(&source, (VirtAddr::new(virt), pages << 12), frame, Level::Pte, ATTRIBUTES)
            .expect("the range is free, and there are frames for tables");
    }

    fn protect_range(&mut self, virt: u64, pages: u64) {
        self.mapper()
            .protect_range((VirtAddr::new(virt), pages << 12), Rights::USER, |passed| {
                std::hint::black_box(passed.entry);
            })
            .expect("the range is mapped");
    }

    fn unmap_range(&mut self, virt: u64, pages: u64) {
        self.mapper()
            .unmap_range((VirtAddr::new(virt), pages << 12), |passed| {
                std::hint::black_box(passed.entry);
            })
            .expect("the range is mapped");
    }
}
