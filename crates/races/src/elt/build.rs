//! The machine, before the start.

use lab::{Arena, End, FrameKind, Machine, Paging, Pool};
use machine::{CpuId, Frame, VirtAddr, Word, Word64};

use super::entry::Part;
use super::operations::Column;
use super::run::Ground;
use super::setup::Setup;
use crate::checker::{CheckedCpu, Checker};
use crate::entry_words::{flag_names, high_words, low_words};
use crate::report::MemoryOrder;
use crate::scenario::Explorer;

/// Room that an arena has beside the words, in bytes.
const SPARE_BYTES: usize = 4096;
/// The pool of frames that page tables come from.
const TABLES: FrameKind = FrameKind(0);

/// A file of machine operations under one variant and one memory order.
pub(crate) struct Enhanced {
    pub(super) memory: MemoryOrder,
    pub(super) setup: Setup,
    pub(super) columns: Vec<Column>,
    pub(super) ipi: Column,
    pub(super) nmi: Column,
    /// What is asked for.
    pub(super) observed: Vec<Observed>,
}

/// Something that has a value at the end.
#[derive(Clone, Copy)]
pub(super) enum Observed {
    Register(CpuId, usize),
    /// What the frame with this index holds.
    Contents(usize),
    /// An element of a word.
    Word(usize, usize),
    /// The frame that a page's own entry maps, 0 if none.
    Mapped(usize),
    /// A bit of that entry.
    Bit(usize, u32),
}

impl Enhanced {
    pub(crate) fn cpus(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn build<E: Explorer>(&self, explorer: &mut E) {
        let setup = &self.setup;
        let elements: usize = setup.words.iter().map(|word| word.initial.len()).sum();
        let words = elements + setup.frames.len();
        let slices = setup.words.len() * size_of::<&[Word64]>();
        let arena = Arena::with_capacity(SPARE_BYTES + words * size_of::<Word64>() + slices, self.pools());
        let contents = arena.alloc_slice(setup.frames.len(), |index| Word64::new(setup.frames[index].holds));
        let words: &[&[Word64]] = arena.alloc_slice(setup.words.len(), |index| {
            let initial = &setup.words[index].initial;
            arena.alloc_slice(initial.len(), |element| Word64::new(initial[element]))
        });
        let mut watched: Vec<VirtAddr> = setup.pages.iter().map(|page| page.address).collect();
        watched.sort_unstable();
        watched.dedup();
        let mut machine = Machine::with_paging(self.memory.into(), setup.paging, watched);
        setup.options.apply(&mut machine);
        let mut checker = explorer.machine(&arena, machine);

        let arena = &arena;
        let ground = Ground { setup, arena, words };
        for (number, column) in self.columns.iter().enumerate() {
            checker.cpu(format!("P{number}"), move |cpu| ground.on(cpu).run(&column.steps));
        }
        if !self.ipi.steps.is_empty() {
            checker.interrupt_handler(move |cpu, _| ground.on(cpu).run(&self.ipi.steps));
        }
        if !self.nmi.steps.is_empty() {
            checker.nmi_handler(move |cpu| ground.on(cpu).run(&self.nmi.steps));
        }
        for number in 0..self.columns.len() {
            checker.boot(CpuId::new(number as u32), |cpu| {
                if number == 0 {
                    self.allocate(cpu, arena);
                }
                ground.on(cpu).load_root();
            });
        }
        for &number in &setup.nmis {
            checker.nmi(CpuId::new(number as u32));
        }
        self.name(&mut checker, arena, contents, words);
        for (frame, word) in setup.frames.iter().zip(contents) {
            checker.contents(frame.frame, std::slice::from_ref(word));
        }
        let read = move |end: &End<'_>| -> Vec<u64> {
            let entry = |page| {
                let slot = setup.layout.slot(setup, page, 1);
                arena.table(slot.table).map_or(0, |table| end.read(&table[slot.index]))
            };
            let value = |place: &Observed| match *place {
                Observed::Register(cpu, slot) => end.reported(cpu, slot),
                Observed::Contents(frame) => end.read(&contents[frame]),
                Observed::Word(word, element) => end.read(&words[word][element]),
                Observed::Mapped(page) => Part::Frame.of(entry(page)),
                Observed::Bit(page, bit) => entry(page) >> bit & 1,
            };
            self.observed.iter().map(value).collect()
        };
        explorer.explore(arena, checker, Box::new(read));
    }
}

impl Enhanced {
    fn pools(&self) -> Vec<Pool> {
        let tables = Pool::tables(TABLES, self.setup.layout.tables.iter().map(|frame| frame.number()));
        let frames = self.setup.frames.iter().enumerate();
        let data = frames.map(|(number, frame)| Pool::data(data_pool(number), 0, [frame.frame.number()]));
        std::iter::once(tables).chain(data).collect()
    }

    /// Takes every frame, and writes the page tables.
    fn allocate<C: CheckedCpu>(&self, cpu: &C, arena: &Arena) {
        for _ in &self.setup.layout.tables {
            if let Some(words) = cpu.alloc_frame(TABLES).and_then(|frame| arena.table(frame)) {
                cpu.zero(words);
            }
        }
        for initial in &self.setup.layout.entries {
            if let Some(words) = arena.table(initial.slot.table) {
                cpu.store(&words[initial.slot.index], initial.entry);
            }
        }
        for number in 0..self.setup.frames.len() {
            cpu.alloc_frame(data_pool(number));
        }
    }

    /// Names for traces.
    fn name<'a, K: Checker<'a>>(
        &'a self,
        checker: &mut K,
        arena: &'a Arena,
        contents: &'a [Word64],
        words: &'a [&'a [Word64]],
    ) {
        let setup = &self.setup;
        for (frame, word) in setup.frames.iter().zip(contents) {
            checker.name(word, format!("what {} holds", frame.name));
        }
        for (word, elements) in setup.words.iter().zip(words) {
            if let [first, ..] = elements {
                checker.name_range(first.address(), size_of_val(*elements), word.name.clone(), None);
            }
        }
        for initial in &setup.layout.entries {
            let Some(table) = arena.table(initial.slot.table) else { continue };
            let cell = table[initial.slot.index].address();
            let (paging, names) = (setup.paging, setup.frame_names());
            let level = setup.layout.level_of(setup, initial.slot.table);
            let format = move |entry| entry_words(paging, &names, level, entry);
            checker.name_range(cell, 8, initial.name.clone(), Some(Box::new(format)));
            checker.name_range(cell, 4, format!("{}.low", initial.name), Some(Box::new(low_words)));
            checker.name_range(cell + 4, 4, format!("{}.high", initial.name), Some(Box::new(high_words)));
        }
    }
}

fn data_pool(number: usize) -> FrameKind {
    FrameKind(1 + number as u8)
}

/// What an entry says, in words.
fn entry_words(paging: Paging, names: &[(String, u64)], level: u8, entry: u64) -> String {
    if entry == 0 {
        return "none".to_owned();
    }
    let decoded = paging.decode(level, entry);
    let frame: Frame = decoded.frame;
    let named = names.iter().find(|(_, number)| *number == frame.number());
    let mut words = vec![named.map_or_else(|| format!("table {frame}"), |(name, _)| name.clone())];
    words.extend(flag_names(entry));
    if decoded.global {
        words.push("global".to_owned());
    }
    if !decoded.present {
        words.push("not present".to_owned());
    }
    words.join(" ")
}
