//! The machine that a file describes, in a checker: what is placed, allocated and mapped before the start.

use lab::{Arena, End, Machine, Paging};
use machine::addr::PAGE_SIZE;
use machine::user::FaultCause;
use machine::{Cpu, CpuId, PageFault, PhysAddr, VirtAddr, Word};
use mm::{AddressSpace, MemoryMap, Mm, NobodyTraces, Parts, Sharing, SpaceId, UffdModes};
use pagetable::{FiveLevel, FourLevel, Level, Mode as PagingMode, Pae, PhysicalWidth, Root};

use super::choices::{self, Choices};
use super::drivers::LabDrivers;
use super::mirror::LabNotify;
use super::names::{FrameNames, name_tables};
use super::operations::Column;
use super::platform::{InLab, LabFrames, LabMap, LabTables, TABLES, protocols};
use super::run::Runner;
use super::setup::{AreaSetup, Mapped, MappedSize, Owner, Setup, Start};
use super::shared::{Shared, data_pool};
use super::swap_device::LabSwap;
use super::table_check::LabUses;
use super::uffd::LabUffd;
use super::watch::{NmiHandlers, Watch, WatchedFolio, WatchedPage};
use crate::checker::{CheckedCpu, Checker};
use crate::error::{Error, Problem};
use crate::race::Race;
use crate::report::MemoryOrder;
use crate::rule;
use crate::scenario::Explorer;
use crate::syntax::Mode;

/// A file of operations under one variant and one memory order.
pub(crate) struct Kernel {
    pub(super) mode: Mode,
    pub(super) memory: MemoryOrder,
    pub(super) choices: Choices,
    pub(super) setup: Setup,
    pub(super) columns: Vec<Column>,
    /// What the CPUs that are sent an NMI do then.
    pub(super) nmis: Vec<(usize, Column)>,
    /// What is asked for.
    pub(super) observed: Vec<Observed>,
}

impl Kernel {
    pub(crate) fn cpus(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn build<E: Explorer>(&self, explorer: &mut E) {
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

/// Something that has a value at the end.
#[derive(Clone, Copy)]
pub(super) enum Observed {
    Register(CpuId, usize),
    /// What the frame with this index holds.
    Contents(usize),
}

/// The engine, ready to run on any CPU.
struct Engine<'l, M> {
    shared: Shared<'l>,
    mode: M,
    choices: Choices,
}

impl<M: PagingMode> Engine<'_, M> {
    /// Runs `work` on a CPU, with the memory manager as that CPU sees it.
    fn on<C: CheckedCpu>(&self, cpu: &C, work: impl for<'m> FnOnce(&Mm<'m, InLab<'m, M, C>>)) {
        self.on_with(cpu, MappedSize::Any, work);
    }

    /// The same, where perhaps only small pages can be allocated.
    fn on_with<C: CheckedCpu>(&self, cpu: &C, size: MappedSize, work: impl for<'m> FnOnce(&Mm<'m, InLab<'m, M, C>>)) {
        let Shared {
            arena,
            metas,
            aside,
            frames_of_tables,
            records,
            spare,
            zero_page,
            swap,
            files,
            spaces,
            shootdown,
            mirror,
            wakes,
            ..
        } = self.shared;
        let tables = LabTables { cpu, arena, metas, frames_of_tables, aside, freed: self.choices.freed_tables };
        let map = LabMap { cpu, records, without: self.choices.without };
        let small = || spare.partition_point(|frames| frames.order == 0);
        let spare = if size == MappedSize::Small { &spare[..small()] } else { spare };
        let frames = LabFrames { records, spare, zero_page };
        let parts = Parts {
            tables: &tables,
            map: &map,
            frames: &frames,
            swap: &LabSwap { places: swap, frames: &frames },
            notify: &LabNotify { mirror, spaces },
            drivers: &LabDrivers,
            uffd: &LabUffd { wakes },
            trace: &NobodyTraces,
            spaces,
            files,
            shootdown,
        };
        let mm = Mm::new(protocols(self.mode, &self.choices, LabUses { cpu, records }), parts);
        work(&mm);
    }
}

impl Kernel {
    fn build_in<M: PagingMode, E: Explorer>(&self, mode: M, paging: Paging, explorer: &mut E) {
        let setup = &self.setup;
        let arena = Arena::with_capacity(self.object_bytes(), self.pools());
        // The lowest frames of their pool: the first that are handed out.
        let addresses = (0..setup.spaces.len()).map(|space| setup.frames_of_tables.frame(space as u64).start());
        let addresses: Vec<PhysAddr> = addresses.collect();
        let roots: Result<Vec<Root>, _> = addresses.iter().map(|address| Root::new(&mode, *address)).collect();
        let Ok(roots) = roots else { return };
        let engine = Engine { shared: self.place(&arena, &roots), mode, choices: self.choices };
        let shared = &engine.shared;
        let pages = self.watched();
        let mut watched: Vec<VirtAddr> = pages.iter().map(|page| page.address).collect();
        watched.dedup();
        let mut machine = Machine::with_paging(self.memory.into(), paging, watched);
        setup.machine.apply(&mut machine);
        let mut checker = explorer.machine(&arena, machine);

        for (number, column) in self.columns.iter().enumerate() {
            let (engine, pages) = (&engine, &pages);
            // A column is headed by what the CPU does first.
            let name = column.steps.first().map_or("idle", |step| step.word.as_str());
            let name = if setup.spaces.len() == 1 {
                name.to_owned()
            } else {
                format!("{name} in {}", setup.spaces[setup.space_of(number)].name)
            };
            let own = setup.space_of(number);
            let forked = self.columns.iter().flat_map(Column::children).any(|(_, child)| child == own);
            checker.cpu(name, move |cpu| {
                let Shared { records, started, .. } = engine.shared;
                let begins = forked.then(|| &started[own]);
                engine.on(cpu, |mm| {
                    let runner = Runner { cpu, mm, setup, pages, records, started, begins };
                    runner.run(&column.steps, self.choices.rounds);
                });
            });
        }
        checker.interrupt_handler(|cpu, _| engine.on(cpu, |mm| mm.handle_ipi(cpu)));
        if !self.nmis.is_empty() {
            let (engine, pages) = (&engine, &pages);
            checker.nmi_handler(move |cpu| {
                let Shared { records, started, .. } = engine.shared;
                let own = self.nmis.iter().find(|(of, _)| *of == cpu.id().index());
                engine.on(cpu, |mm| {
                    let runner = Runner { cpu, mm, setup, pages, records, started, begins: None };
                    runner.run(own.map_or(&[][..], |(_, handler)| &handler.steps), self.choices.rounds);
                });
            });
        }
        for number in 0..self.columns.len() {
            checker.boot(CpuId::new(number as u32), |cpu| {
                if number == 0 {
                    self.allocate(cpu, &arena);
                    engine.on(cpu, |mm| self.populate(cpu, mm));
                    self.map(cpu, &engine);
                    engine.on(cpu, |mm| self.register(cpu, mm));
                }
                engine.on(cpu, |mm| {
                    if let Some(space) = mm.space(SpaceId::new(setup.space_of(number) as u16)) {
                        mm.enter(cpu, space);
                    }
                });
            });
        }

        for (number, _) in &self.nmis {
            checker.nmi(CpuId::new(*number as u32));
        }

        let frames = FrameNames::new(setup);
        name_tables(&mut checker, &arena, shared.metas, setup.frames_of_tables);
        shared.name_objects(&mut checker, (setup, self.columns.len()), &frames);
        for records in shared.records {
            checker.contents(records.first, records.contents);
        }
        let watch = self.watch(&arena, paging, addresses, shared, &pages);
        watch.name_entries(&mut checker, &frames);
        checker.monitor(watch.ghost_words(), watch);
        let observed = &self.observed;
        let read = |end: &End<'_>| {
            let value = |place: &Observed| match *place {
                Observed::Register(cpu, slot) => end.reported(cpu, slot),
                Observed::Contents(frame) => shared.records[frame].contents.first().map_or(0, |word| end.read(word)),
            };
            observed.iter().map(value).collect()
        };
        explorer.explore(&arena, checker, Box::new(read));
    }

    /// The frames that are in use at the start: the root tables, and those that the file names.
    fn allocate<C: CheckedCpu>(&self, cpu: &C, arena: &Arena) {
        for _ in &self.setup.spaces {
            if let Some(words) = cpu.alloc_frame(TABLES).and_then(|root| arena.table(root)) {
                cpu.zero(words);
            }
        }
        for (number, frame) in self.setup.frames.iter().enumerate() {
            if frame.owner != Owner::Spare {
                cpu.alloc_frame(data_pool(number));
            }
        }
    }

    /// The areas.
    fn populate<'m, M: PagingMode, C: CheckedCpu>(&self, cpu: &C, mm: &Mm<'m, InLab<'m, M, C>>) {
        let spaces: Vec<_> = (0..self.setup.spaces.len() as u16).filter_map(|id| mm.space(SpaceId::new(id))).collect();
        for space in &spaces {
            if let Err(error) = mm.prepare(cpu, space) {
                cpu.violate(rule::USER, format_args!("the tables of the address space: {error}"));
            }
        }
        // They are given out lowest first.
        let keys = self.setup.areas.iter().map(|area| area.area.key);
        let last = keys.chain(self.columns.iter().flat_map(Column::keys)).max().unwrap_or_default();
        for id in (0..spaces.len() as u16).map(SpaceId::new) {
            for _ in 0..last.number() {
                if let Err(error) = mm.pkey_alloc(cpu, id) {
                    cpu.violate(rule::USER, format_args!("protection keys: {error:?}"));
                }
            }
        }
        for area in self.setup.areas.iter().filter(|area| area.start == Start::There) {
            if let Err(error) = mm.mmap(cpu, SpaceId::new(area.space as u16), area.area) {
                cpu.violate(rule::USER, format_args!("area {}: {error:?}", area.name));
            }
        }
    }

    /// What is mapped at the start.
    fn map<M: PagingMode, C: CheckedCpu>(&self, cpu: &C, engine: &Engine<'_, M>) {
        for &Mapped { space, address, access, size } in &self.setup.mapped {
            let fault = PageFault { address, access, cause: FaultCause::NotPresent };
            engine.on_with(cpu, size, |mm| {
                let id = SpaceId::new(space as u16);
                if let MappedSize::TableOf(other) = size {
                    let other = &self.setup.areas[other];
                    let other = (SpaceId::new(other.space as u16), other.area.start);
                    if let Err(error) = mm.share_table(cpu, (id, address), other) {
                        cpu.violate(rule::USER, format_args!("mapped: {error:?}"));
                    }
                    return;
                }
                let space = mm.space(id);
                if let Some(Err(error)) = space.map(|space| mm.handle_fault(cpu, space, fault)) {
                    cpu.violate(rule::USER, format_args!("mapped: {error}"));
                }
                if let (MappedSize::Part(pages), Some(space)) = (size, space) {
                    let rest = address.wrapping_add(pages * PAGE_SIZE);
                    if let Err(error) = mm.zap(cpu, space, rest, Level::Pmd.frames() - pages) {
                        cpu.violate(rule::USER, format_args!("mapped: {error:?}"));
                    }
                }
            });
        }
        engine.on(cpu, |mm| {
            for frame in self.setup.frames.iter().filter(|frame| frame.elsewhere != 0) {
                if let Some(record) = mm.map().page(cpu, frame.first) {
                    cpu.fetch_add(record.refcount_word(), frame.elsewhere);
                }
            }
        });
    }

    /// The areas whose faults are handed over: registered when all is mapped, so that nobody waits before the race.
    fn register<'m, M: PagingMode, C: CheckedCpu>(&self, cpu: &C, mm: &Mm<'m, InLab<'m, M, C>>) {
        for AreaSetup { name, space, area, uffd, .. } in &self.setup.areas {
            if *uffd == UffdModes::NONE {
                continue;
            }
            let registered = mm.uffd_register(cpu, SpaceId::new(*space as u16), area.start, area.pages, *uffd);
            if let Err(error) = registered {
                cpu.violate(rule::USER, format_args!("area {name}: {error}"));
            }
        }
    }

    /// The rules keep the pages of a call in one word.
    pub(super) fn check_page_count(&self, race: &Race) -> Result<(), Error> {
        let pages = self.watched().len();
        if pages <= MOST_PAGES {
            return Ok(());
        }
        let why = format!("the file speaks of {pages} pages, counted in each address space");
        let right = format!("at most {MOST_PAGES}: map fewer before the race");
        Err(Error::new(&race.source, race.litmus.name.span, Problem::Impossible { why, right }))
    }

    /// The pages that the file speaks of: those that leaves start at, those that are mapped at the start, and those that operations name.
    fn watched(&self) -> Vec<WatchedPage> {
        let leaves = self.setup.areas.iter().flat_map(|area| {
            let leaf = self.setup.files[area.file].leaf;
            // The machine's TLBs and the watch know so many; others must be named by an operation.
            let leaves = 0..(area.area.pages / leaf.frames()).min(MOST_WATCHED);
            leaves.map(move |piece| (area.area.start.wrapping_add(piece * leaf.size()), area.space))
        });
        let mapped = self.setup.mapped.iter().map(|mapped| (mapped.address, mapped.space));
        let handlers = self.nmis.iter().map(|(number, handler)| (*number, handler));
        let named = self.columns.iter().enumerate().chain(handlers).flat_map(|(number, column)| {
            let own = self.setup.space_of(number);
            column.steps.iter().filter_map(move |step| step.action.page(own))
        });
        let mut pages: Vec<(VirtAddr, usize)> =
            leaves.chain(mapped).chain(named).map(|(address, space)| (address.align_down(PAGE_SIZE), space)).collect();
        // What the parent has, the child has.
        for (parent, child) in self.columns.iter().flat_map(Column::children) {
            let theirs: Vec<_> =
                pages.iter().filter(|(_, space)| *space == parent).map(|(at, _)| (*at, child)).collect();
            pages.extend(theirs);
        }
        pages.sort_unstable();
        pages.dedup();
        let watched = |(address, space)| WatchedPage {
            space,
            address,
            name: self.setup.page_name(space, address),
            slot: self.slot_of(space, address),
        };
        pages.into_iter().map(watched).collect()
    }

    /// If a shared area of a file is at this address: the number of the file's slot for it among those of all files, and the level of its leaves.
    fn slot_of(&self, space: usize, address: VirtAddr) -> Option<(usize, Level)> {
        let mut areas = self.setup.areas.iter().filter(|area| area.space == space && area.area.contains(address));
        // With two at the address it depends on what was done.
        let area = areas.next().filter(|_| areas.next().is_none())?;
        let file = &self.setup.files[area.file];
        let before: usize = self.setup.files[..area.file].iter().map(|file| file.pages.len()).sum();
        let piece = (area.area.file_page(address) / file.leaf.frames()) as usize;
        (area.area.sharing == Sharing::Shared && piece < file.pages.len()).then_some((before + piece, file.leaf))
    }

    fn watch<'w>(
        &'w self,
        arena: &'w Arena,
        paging: Paging,
        roots: Vec<PhysAddr>,
        shared: &Shared<'w>,
        pages: &[WatchedPage],
    ) -> Watch<'w> {
        let folios =
            self.setup.frames.iter().zip(shared.records).map(|(setup, records)| WatchedFolio {
                setup,
                pages: records.pages,
                starts_in_file: self.setup.files.iter().any(|file| {
                    file.pages.iter().flatten().any(|index| self.setup.frames[*index].first == setup.first)
                }),
            });
        let slots = shared.files.iter().flat_map(|file| file.slots().iter().map(|slot| (slot.word(), file.kind())));
        let first = arena.table(self.setup.frames_of_tables.frame(0)).map_or(0, |words| words[0].address());
        Watch {
            arena,
            tables: first..first + self.setup.tables as usize * PAGE_SIZE as usize,
            paging,
            write: self.choices.write,
            roots,
            pages: pages.to_vec(),
            folios: folios.collect(),
            slots: slots.collect(),
            merged_zeros: shared.spaces.iter().map(AddressSpace::merged_zeros_word).collect(),
            cpus: self.columns.len(),
            nmis: if self.nmis.is_empty() { NmiHandlers::None } else { NmiHandlers::Some },
            table_checks: self.setup.table_checks,
            tolerated: self.setup.tolerated.clone(),
        }
    }
}

/// How many leaves of an area are watched though no operation names them.
const MOST_WATCHED: u64 = 8;

/// How many pages a file may speak of.
const MOST_PAGES: usize = u64::BITS as usize;
