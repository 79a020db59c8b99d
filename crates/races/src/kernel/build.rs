//! The machine that a file describes, in the lab: what is placed, allocated and mapped before the start.

use lab::{Arena, End, FrameKind, Lab, LabCpu, Machine, Paging, Pool};
use machine::addr::PAGE_SIZE;
use machine::user::FaultCause;
use machine::{Cpu, CpuId, PageFault, PhysAddr, VirtAddr, Word};
use mm::{
    AddressSpace, AreaSlot, File, Mapping, Membership, Mm, NoDrivers, NoFrames, NoSwap, NobodyListens, Page, PageSlot,
    Parts, Shootdown, SpaceId,
};
use pagetable::{FiveLevel, FourLevel, Mode as PagingMode, Pae, PhysicalWidth, Root, TableMeta};

use super::choices::{self, Choices};
use super::names::{FrameNames, name_tables};
use super::operations::{Action, Column};
use super::platform::{InLab, LabMap, LabTables, Records, TABLES, protocols};
use super::run::Runner;
use super::setup::{FrameSetup, Owner, Setup, TableFrames};
use super::watch::{Watch, WatchedFolio};
use crate::report::MemoryOrder;
use crate::rule;
use crate::scenario::{Explorer, Scenario};
use crate::syntax::Mode;

/// A file of operations under one variant and one memory order.
pub(super) struct Kernel {
    pub(super) mode: Mode,
    pub(super) memory: MemoryOrder,
    pub(super) choices: Choices,
    pub(super) setup: Setup,
    pub(super) columns: Vec<Column>,
    /// The registers that are asked for.
    pub(super) observed: Vec<(CpuId, usize)>,
}

impl Scenario for Kernel {
    fn cpus(&self) -> usize {
        self.columns.len()
    }

    fn build(&self, explorer: &mut dyn Explorer) {
        match self.mode {
            // Only this choice needs a machine that ignores high bits; no x86 does (see there).
            Mode::MmPae if self.choices.special == choices::SpecialMark::High => {
                self.build_in(Pae::with_ignored_high_bits(PhysicalWidth::MAX), Paging::PAE, explorer);
            }
            Mode::MmPae => self.build_in(Pae::new(PhysicalWidth::MAX), Paging::PAE, explorer),
            Mode::MmLa57 => self.build_in(FiveLevel::new(PhysicalWidth::MAX), Paging::FIVE_LEVEL, explorer),
            _ => self.build_in(FourLevel::new(PhysicalWidth::MAX), Paging::FOUR_LEVEL, explorer),
        }
    }
}

/// Everything that the CPUs share, in the arena.
struct Shared<'l> {
    arena: &'l Arena,
    metas: &'l [TableMeta],
    frames_of_tables: TableFrames,
    records: &'l [Records<'l>],
    files: &'l [File<'l>],
    spaces: &'l [AddressSpace<'l>],
    shootdown: &'l Shootdown,
}

/// The engine, ready to run on any CPU.
struct Engine<'l, M> {
    shared: Shared<'l>,
    mode: M,
    choices: Choices,
}

impl<M: PagingMode> Engine<'_, M> {
    /// Runs `work` on a CPU, with the memory manager as that CPU sees it.
    fn on(&self, cpu: &LabCpu, work: impl for<'m> FnOnce(&Mm<'m, InLab<'m, M>>, &'m AddressSpace<'m>)) {
        let Shared { arena, metas, frames_of_tables, records, files, spaces, shootdown } = self.shared;
        let tables = LabTables { cpu, arena, metas, frames_of_tables };
        let map = LabMap { cpu, records };
        let parts = Parts {
            tables: &tables,
            map: &map,
            frames: &NoFrames,
            swap: &NoSwap,
            notify: &NobodyListens,
            drivers: &NoDrivers,
            spaces,
            files,
            shootdown,
        };
        let mm = Mm::new(protocols(self.mode, &self.choices), parts);
        work(&mm, &spaces[0]);
    }
}

impl Kernel {
    fn build_in<M: PagingMode>(&self, mode: M, paging: Paging, explorer: &mut dyn Explorer) {
        let setup = &self.setup;
        let arena = Arena::with_capacity(self.object_bytes(), self.pools());
        // The lowest frame of its pool: the first that is handed out.
        let root_address = setup.frames_of_tables.frame(0).start();
        let Ok(root) = Root::new(&mode, root_address) else { return };
        let engine = Engine { shared: self.place(&arena, root), mode, choices: self.choices };
        let shared = &engine.shared;
        let pages = self.watched();
        let mut lab =
            Lab::new(&arena, Machine::with_paging(self.memory.into(), paging, pages.iter().map(|(page, _)| *page)));

        for column in &self.columns {
            let (engine, pages) = (&engine, &pages);
            // A column is headed by what the CPU does first.
            let name = column.steps.first().map_or("idle", |step| step.word.as_str());
            lab.cpu(name, move |cpu| {
                engine.on(cpu, |mm, space| {
                    Runner { cpu, mm, space, setup, pages }.run(&column.steps, self.choices.rounds);
                });
            });
        }
        lab.interrupt_handler(|cpu, vector| engine.on(cpu, |mm, _| mm.handle_ipi(cpu, vector)));
        for number in 0..self.columns.len() as u32 {
            lab.boot(CpuId::new(number), |cpu| {
                if number == 0 {
                    self.allocate(cpu, &arena);
                }
                engine.on(cpu, |mm, space| {
                    if number == 0 {
                        self.populate(cpu, mm, space);
                    }
                    mm.enter(cpu, space);
                });
            });
        }

        let frames = FrameNames::new(setup);
        name_tables(&mut lab, &arena, shared.metas, setup.frames_of_tables);
        shared.name_objects(&mut lab, setup, &frames);
        let watch = self.watch(&arena, paging, root_address, shared, &pages);
        watch.name_entries(&mut lab, &frames);
        lab.monitor(watch.ghost_words(), watch);
        let observed = &self.observed;
        let read = |end: &End<'_>| observed.iter().map(|(cpu, slot)| end.reported(*cpu, *slot)).collect();
        explorer.explore(lab, Box::new(read));
    }

    /// The frames that are in use at the start: the root table, and those that the file names.
    fn allocate(&self, cpu: &LabCpu, arena: &Arena) {
        if let Some(words) = cpu.alloc_frame(TABLES).and_then(|root| arena.table(root)) {
            cpu.zero(words);
        }
        for number in 0..self.setup.frames.len() {
            cpu.alloc_frame(data_pool(number));
        }
    }

    /// The areas, and what is mapped at the start.
    fn populate<'m, M: PagingMode>(&self, cpu: &LabCpu, mm: &Mm<'m, InLab<'m, M>>, space: &AddressSpace<'m>) {
        if let Err(error) = mm.prepare(cpu, space) {
            cpu.violate(rule::USER, format_args!("the tables of the address space: {error}"));
        }
        for area in &self.setup.areas {
            if let Err(error) = mm.mmap(cpu, SpaceId::new(0), area.area) {
                cpu.violate(rule::USER, format_args!("area {}: {error:?}", area.name));
            }
        }
        for &(address, access) in &self.setup.mapped {
            let fault = PageFault { address, access, cause: FaultCause::NotPresent };
            if let Err(error) = mm.handle_fault(cpu, space, fault) {
                cpu.violate(rule::USER, format_args!("mapped: {error}"));
            }
        }
    }

    fn pools(&self) -> Vec<Pool> {
        let tables = Pool::tables(
            TABLES,
            (0..self.setup.tables).map(|number| self.setup.frames_of_tables.frame(number).number()),
        );
        let data = self
            .setup
            .frames
            .iter()
            .enumerate()
            .map(|(number, frame)| Pool::data(data_pool(number), u32::from(frame.order), [frame.first.number()]));
        std::iter::once(tables).chain(data).collect()
    }

    fn object_bytes(&self) -> usize {
        let records: usize = self.setup.frames.iter().map(records_of).sum();
        let slots: usize = self.setup.files.iter().map(|file| file.pages.len()).sum();
        SPARE_BYTES
            + records * size_of::<Page>()
            + slots * size_of::<PageSlot>()
            + self.setup.tables as usize * size_of::<TableMeta>()
            + self.setup.areas.len() * (size_of::<AreaSlot>() + size_of::<Mapping>()) * 2
    }

    /// Puts everything that CPUs share into the arena.
    fn place<'l>(&self, arena: &'l Arena, root: Root) -> Shared<'l> {
        let setup = &self.setup;
        let metas = arena.alloc_slice(setup.tables as usize, |_| TableMeta::new());
        let records = arena.alloc_slice(setup.frames.len(), |number| {
            let frame = &setup.frames[number];
            let membership = Membership { head: frame.first, order: frame.order };
            // One reference is the file's, the driver's, or that of whoever is going to put the frame into a file.
            let pages =
                arena.alloc_slice(records_of(frame), |index| Page::new(membership, u32::from(index == 0), frame.flags));
            Records { first: frame.first, pages, owner: frame.owner }
        });
        let files = arena.alloc_slice(setup.files.len(), |number| {
            let file = &setup.files[number];
            let pages = arena.alloc_slice(file.pages.len(), |page| {
                PageSlot::new(file.pages[page].map(|index| setup.frames[index].first))
            });
            let mappings = arena.alloc_slice(setup.areas.len(), |_| Mapping::new());
            File::new(file.kind, file.leaf, pages, mappings)
        });
        let slots = arena.alloc_slice(setup.areas.len(), |_| AreaSlot::new());
        let spaces = arena.alloc_slice(1, |_| AddressSpace::new(root, slots));
        Shared {
            arena,
            metas,
            frames_of_tables: setup.frames_of_tables,
            records,
            files,
            spaces,
            shootdown: arena.alloc(Shootdown::new()),
        }
    }

    /// The pages that the file speaks of: those that leaves start at, and those that operations name.
    fn watched(&self) -> Vec<(VirtAddr, String)> {
        let leaves = self.setup.areas.iter().flat_map(|area| {
            let leaf = self.setup.files[area.file].leaf;
            (0..area.area.pages / leaf.frames()).map(move |piece| area.area.start.wrapping_add(piece * leaf.size()))
        });
        let named = self.columns.iter().flat_map(|column| &column.steps).filter_map(|step| match step.action {
            Action::Gup { start, .. } => Some(start),
            Action::Touch { address, .. } => Some(address),
            _ => None,
        });
        let mut pages: Vec<VirtAddr> = leaves.chain(named).map(|address| address.align_down(PAGE_SIZE)).collect();
        pages.sort_unstable();
        pages.dedup();
        pages.into_iter().map(|page| (page, self.setup.page_name(page))).collect()
    }

    fn watch<'w>(
        &'w self,
        arena: &'w Arena,
        paging: Paging,
        root: PhysAddr,
        shared: &Shared<'w>,
        pages: &[(VirtAddr, String)],
    ) -> Watch<'w> {
        let folios =
            self.setup.frames.iter().zip(shared.records).map(|(setup, records)| WatchedFolio {
                setup,
                head: &records.pages[0],
                starts_in_file: self.setup.files.iter().any(|file| {
                    file.pages.iter().flatten().any(|index| self.setup.frames[*index].first == setup.first)
                }),
            });
        let slots = shared.files.iter().filter(|file| file.kind() == mm::FileKind::Cached);
        let first = arena.table(self.setup.frames_of_tables.frame(0)).map_or(0, |words| words[0].address());
        Watch {
            arena,
            tables: first..first + self.setup.tables as usize * PAGE_SIZE as usize,
            paging,
            root,
            pages: pages.to_vec(),
            folios: folios.collect(),
            slots: slots.flat_map(|file| file.slots().iter().map(PageSlot::word)).collect(),
            cpus: self.columns.len(),
            tolerated: self.setup.tolerated.clone(),
        }
    }
}

/// Room for objects beside those that are counted.
const SPARE_BYTES: usize = 4096;

/// The pool that holds just the data frame with this number.
fn data_pool(number: usize) -> FrameKind {
    FrameKind(number as u8 + 1)
}

/// How many records a folio has. One of a gigabyte has those of its first 2 MiB only: they are all that tests reach.
fn records_of(frame: &FrameSetup) -> usize {
    match frame.owner {
        Owner::Device => 1,
        _ => 1 << frame.order.min(9),
    }
}

impl<'l> Shared<'l> {
    fn name_objects(&self, lab: &mut Lab<'l>, setup: &Setup, frames: &FrameNames) {
        for (frame, records) in setup.frames.iter().zip(self.records) {
            if frame.owner == Owner::Device {
                continue;
            }
            let page = &records.pages[0];
            let name = &frame.name;
            lab.name(page.refcount_word(), format!("refcount of {name}"));
            lab.name(page.pincount_word(), format!("pincount of {name}"));
            lab.name(page.mapcount_word(), format!("mapcount of {name}"));
            lab.name(page.flags_word(), format!("flags of {name}"));
            lab.name(page.membership_word(), format!("folio of {name}"));
        }
        for (file, words) in setup.files.iter().zip(self.files) {
            let name = &file.name;
            lab.name(words.rmap_lock().word(), format!("rmap lock of {name}"));
            lab.name(words.driver_lock().word(), format!("driver lock of {name}"));
            for (index, slot) in words.slots().iter().enumerate() {
                let frames = frames.clone();
                let show = move |bits: u64| match bits {
                    0 => "none".to_owned(),
                    bits => frames.show(machine::Frame::new(bits & !(1 << 63))),
                };
                lab.name_range(slot.word().address(), 8, format!("{name}[{index}]"), Some(Box::new(show)));
            }
        }
        let space = &self.spaces[0];
        lab.name(space.mmap_lock().word(), "mmap lock");
        lab.name(space.active_word(), "active CPUs");
        lab.name(space.gathers_word(), "gathers");
        lab.name(self.shootdown.lock_word(), "shootdown lock");
        lab.name(self.shootdown.request_word(), "shootdown request");
        lab.name(self.shootdown.pending_word(), "shootdown pending");
    }
}
