//! The rules that need to know what pages, pins and mappings are, held against everything that happens in the lab.
//!
//! Nothing here is the engine's: page tables are read with the lab's own decoder, and what *should* be is kept in words of its own.

use std::ops::Range;

use lab::{Arena, End, Event, Ghost, Lab, LabCpu, Monitor, Paging, Violation, Writer};
use machine::addr::PAGE_SIZE;
use machine::{Access, CpuId, Frame, PhysAddr, VirtAddr, Word, Word64};
use mm::folio::PIN_BIAS;
use mm::{FolioFlags, Page, Reference};

use super::names::{FrameNames, entry_words, high_words, low_words};
use super::setup::{FrameSetup, Owner};
use crate::rule;

/// What the glue tells the watch.
#[derive(Clone, Copy)]
pub(super) enum Told {
    /// A GUP of these pages begins on this CPU. (The set is a bit mask over the watched pages.)
    GupBegins { pages: u64 },
    /// Its lockless path looked up the record of a frame.
    LookedUp { frame: Frame },
    /// It got a reference to a frame, for the watched page with this number.
    Got { page: usize, frame: Frame, reference: Reference },
    /// It ended.
    GupEnds,
    /// References were given back.
    GaveBack { frame: Frame, pages: u64, reference: Reference },
    /// A frame was put into a file, with the reference that was kept for that.
    PutIntoFile { frame: Frame },
    /// The last reference of the folio that starts at this frame is gone.
    Released { frame: Frame },
}

impl Told {
    pub(super) fn tell(self, cpu: &LabCpu) {
        match self {
            Self::GupBegins { pages } => cpu.emit(0, &[pages]),
            Self::LookedUp { frame } => cpu.emit(1, &[frame.number()]),
            Self::Got { page, frame, reference } => {
                cpu.emit(2, &[page as u64, frame.number(), u64::from(reference == Reference::Pin)]);
            }
            Self::GupEnds => cpu.emit(3, &[]),
            Self::GaveBack { frame, pages, reference } => {
                cpu.emit(4, &[frame.number(), pages, u64::from(reference == Reference::Pin)]);
            }
            Self::PutIntoFile { frame } => cpu.emit(6, &[frame.number()]),
            Self::Released { frame } => cpu.emit(5, &[frame.number()]),
        }
    }

    fn hear(kind: u32, args: &[u64]) -> Option<Self> {
        let reference = |pin: u64| if pin == 0 { Reference::Get } else { Reference::Pin };
        Some(match (kind, args) {
            (0, &[pages]) => Self::GupBegins { pages },
            (1, &[frame]) => Self::LookedUp { frame: Frame::new(frame) },
            (2, &[page, frame, pin]) => {
                Self::Got { page: page as usize, frame: Frame::new(frame), reference: reference(pin) }
            }
            (3, &[]) => Self::GupEnds,
            (4, &[frame, pages, pin]) => Self::GaveBack { frame: Frame::new(frame), pages, reference: reference(pin) },
            (6, &[frame]) => Self::PutIntoFile { frame: Frame::new(frame) },
            (5, &[frame]) => Self::Released { frame: Frame::new(frame) },
            _ => return None,
        })
    }
}

/// A folio that the file names, with its records.
pub(super) struct WatchedFolio<'w> {
    pub(super) setup: &'w FrameSetup,
    pub(super) head: &'w Page,
    /// Whether a file holds it at the start. If not, its reference belongs to whoever is going to put it into one.
    pub(super) starts_in_file: bool,
}

/// Holds the rules.
pub(super) struct Watch<'w> {
    pub(super) arena: &'w Arena,
    /// The addresses of the words of all tables.
    pub(super) tables: Range<usize>,
    pub(super) paging: Paging,
    pub(super) root: PhysAddr,
    /// The virtual pages that the file speaks of, with their names.
    pub(super) pages: Vec<(VirtAddr, String)>,
    pub(super) folios: Vec<WatchedFolio<'w>>,
    /// The page slots of all cached files.
    pub(super) slots: Vec<&'w Word64>,
    pub(super) cpus: usize,
    /// Rules that are not held.
    pub(super) tolerated: Vec<&'static str>,
}

impl Watch<'_> {
    /// The rules that this watch holds; others are the lab's own.
    pub(super) const RULES: [&'static str; 7] = [
        rule::PHANTOM_FRAME,
        rule::WRONG_PAGE,
        rule::SPECIAL_PINNED,
        rule::PINNED_FREED,
        rule::LOST_DIRTY,
        rule::LOST_ACCESSED_DIRTY,
        rule::LOST_COUNT,
    ];

    /// A rule is broken, unless that is tolerated.
    fn broken(&self, rule: &'static str, sentence: String) -> Result<(), Violation> {
        if self.tolerated.contains(&rule) { Ok(()) } else { Err(Violation::new(rule, sentence)) }
    }
}

/// How many different frames are remembered for a page.
const HISTORY: usize = 8;

/// Where each thing is among the ghost words.
impl Watch<'_> {
    /// The frames that a page was ever mapped to.
    fn ever(page: usize) -> usize {
        page * HISTORY
    }

    /// The frames that a page was mapped to since the GUP of a CPU began.
    fn during(&self, cpu: CpuId, page: usize) -> usize {
        (self.pages.len() * (1 + cpu.index()) + page) * HISTORY
    }

    /// The pages of the GUP that runs on a CPU.
    fn active(&self, cpu: CpuId) -> usize {
        self.pages.len() * (1 + self.cpus) * HISTORY + cpu.index()
    }

    /// The references that GUP holds to a folio; pins in the upper half.
    fn held(&self, folio: usize) -> usize {
        self.pages.len() * (1 + self.cpus) * HISTORY + self.cpus + folio
    }

    /// Whether user code wrote to a folio that is not known to be dirty in any other way.
    fn written(&self, folio: usize) -> usize {
        self.held(self.folios.len()) + folio
    }

    /// Whether a folio that no file held at the start was put into one.
    fn put_into_file(&self, folio: usize) -> usize {
        self.written(self.folios.len()) + folio
    }

    pub(super) fn ghost_words(&self) -> usize {
        self.put_into_file(self.folios.len())
    }
}

/// What hardware would find for a page if it walked now.
struct Walked {
    /// The entry at which the walk ended.
    cell: usize,
    level: u8,
    entry: u64,
    /// The leaf's first frame.
    leaf: Option<Frame>,
}

impl Watch<'_> {
    /// Walks the tables as they are in memory.
    fn walk(&self, page: VirtAddr) -> Option<Walked> {
        let mut level = self.paging.levels();
        let top = self.paging.table_of_root(self.root);
        let mut table: &[Word64] = &self.arena.table(top.frame())?[(top.as_u64() % PAGE_SIZE / 8) as usize..];
        loop {
            let word = table.get(self.paging.index(page, level))?;
            let entry = word.atomic_load(std::sync::atomic::Ordering::Relaxed);
            let decoded = self.paging.decode(level, entry);
            let walked = |leaf| Some(Walked { cell: word.address(), level, entry, leaf });
            if !decoded.present {
                return walked(None);
            }
            if decoded.leaf {
                return walked(Some(decoded.frame));
            }
            match self.arena.table(decoded.frame) {
                Some(lower) => table = lower,
                None => return walked(None),
            }
            level -= 1;
        }
    }

    /// Names the entries on the way to every watched page, as tables are now.
    pub(super) fn name_entries(&self, lab: &mut Lab<'_>, frames: &FrameNames) {
        const LEVELS: [&str; 6] = ["", "pte", "pmd", "pud", "p4d", "pgd"];
        for (page, name) in &self.pages {
            for level in 1..=self.paging.levels() {
                let Some(cell) = self.cell(*page, level) else { continue };
                let (paging, frames) = (self.paging, frames.clone());
                let entry = format!("{}({name})", LEVELS[usize::from(level)]);
                lab.name_range(cell, 4, format!("{entry}.low"), Some(Box::new(low_words)));
                lab.name_range(cell + 4, 4, format!("{entry}.high"), Some(Box::new(high_words)));
                let show = move |bits| entry_words(paging, &frames, level, bits);
                lab.name_range(cell, 8, entry, Some(Box::new(show)));
            }
        }
    }

    /// The address of the entry of this level on the way to a page.
    fn cell(&self, page: VirtAddr, wanted: u8) -> Option<usize> {
        let mut level = self.paging.levels();
        let top = self.paging.table_of_root(self.root);
        let mut table: &[Word64] = &self.arena.table(top.frame())?[(top.as_u64() % PAGE_SIZE / 8) as usize..];
        loop {
            let word = table.get(self.paging.index(page, level))?;
            if level == wanted {
                return Some(word.address());
            }
            let decoded = self.paging.decode(level, word.atomic_load(std::sync::atomic::Ordering::Relaxed));
            if !decoded.present || decoded.leaf {
                return None;
            }
            table = self.arena.table(decoded.frame)?;
            level -= 1;
        }
    }

    /// The index of the folio that a frame belongs to.
    fn folio(&self, frame: Frame) -> Option<usize> {
        self.folios.iter().position(|folio| {
            let index = frame.number().wrapping_sub(folio.setup.first.number());
            index < 1 << folio.setup.order
        })
    }

    fn name(&self, frame: Frame) -> String {
        match self.folio(frame) {
            Some(folio) => format!("frame {frame} ({})", self.folios[folio].setup.name),
            None => format!("frame {frame}"),
        }
    }

    /// Adds a leaf to a list of ghost words, if it is not there yet.
    fn remember(ghost: &mut Ghost<'_>, list: usize, level: u8, frame: Frame) {
        let packed = frame.number() << 8 | u64::from(level);
        for index in list..list + HISTORY {
            match ghost.get(index) {
                0 => return ghost.set(index, packed),
                known if known == packed => return,
                _ => {}
            }
        }
    }

    /// Whether a frame is mapped by one of the leaves in a list of ghost words.
    fn remembers(ghost: &Ghost<'_>, list: usize, frame: Frame) -> bool {
        (list..list + HISTORY).map(|index| ghost.get(index)).take_while(|&packed| packed != 0).any(|packed| {
            let frames = Paging::span((packed & 0xff) as u8) / PAGE_SIZE;
            frame.number().wrapping_sub(packed >> 8) < frames
        })
    }

    /// Tables have changed: notes what is mapped now.
    fn note_mappings(&self, ghost: &mut Ghost<'_>) {
        for (number, (page, _)) in self.pages.iter().enumerate() {
            let Some(Walked { level, leaf: Some(frame), .. }) = self.walk(*page) else { continue };
            Self::remember(ghost, Self::ever(number), level, frame);
            for cpu in (0..self.cpus).map(|cpu| CpuId::new(cpu as u32)) {
                if ghost.get(self.active(cpu)) >> number & 1 != 0 {
                    Self::remember(ghost, self.during(cpu, number), level, frame);
                }
            }
        }
    }

    fn hear(&self, ghost: &mut Ghost<'_>, cpu: CpuId, told: Told) -> Result<(), Violation> {
        match told {
            Told::GupBegins { pages } => {
                ghost.set(self.active(cpu), pages);
                self.note_mappings(ghost);
                Ok(())
            }
            Told::GupEnds => {
                ghost.set(self.active(cpu), 0);
                for page in 0..self.pages.len() {
                    (0..HISTORY).for_each(|index| ghost.set(self.during(cpu, page) + index, 0));
                }
                Ok(())
            }
            Told::LookedUp { frame } => self.looked_up(ghost, cpu, frame),
            Told::Got { page, frame, reference } => self.got(ghost, cpu, page, frame, reference),
            Told::GaveBack { frame, pages, reference } => {
                if let Some(folio) = self.folio(frame) {
                    let held = ghost.get(self.held(folio));
                    ghost.set(self.held(folio), held.wrapping_sub(pages << held_shift(reference)));
                }
                Ok(())
            }
            Told::PutIntoFile { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.put_into_file(folio), 1);
                }
                Ok(())
            }
            Told::Released { frame } => {
                let Some(folio) = self.folio(frame) else { return Ok(()) };
                ghost.set(self.written(folio), 0);
                match ghost.get(self.held(folio)) {
                    0 => Ok(()),
                    _ => self.broken(
                        rule::PINNED_FREED,
                        format!("{} is freed while a user of GUP holds a reference to it", self.name(frame)),
                    ),
                }
            }
        }
    }

    fn looked_up(&self, ghost: &Ghost<'_>, cpu: CpuId, frame: Frame) -> Result<(), Violation> {
        let active = ghost.get(self.active(cpu));
        if active == 0 {
            return Ok(());
        }
        let mut asked = (0..self.pages.len()).filter(|page| active >> page & 1 != 0);
        let names: Vec<&str> = asked.clone().map(|page| self.pages[page].1.as_str()).collect();
        if !asked.any(|page| Self::remembers(ghost, Self::ever(page), frame)) {
            self.broken(
                rule::PHANTOM_FRAME,
                format!(
                    "{cpu} takes {} for a page of {}: no entry for that address ever held it, it is a mixture of two reads",
                    self.name(frame),
                    names.join(", "),
                ),
            )?;
        }
        match self.folio(frame).map(|folio| self.folios[folio].setup.owner) {
            Some(Owner::Driver | Owner::Device) => self.broken(
                rule::SPECIAL_PINNED,
                format!(
                    "{cpu} looks up the record of {}, which a driver mapped as special at {}",
                    self.name(frame),
                    names.join(", "),
                ),
            ),
            _ => Ok(()),
        }
    }

    fn got(
        &self,
        ghost: &mut Ghost<'_>,
        cpu: CpuId,
        page: usize,
        frame: Frame,
        reference: Reference,
    ) -> Result<(), Violation> {
        if !Self::remembers(ghost, self.during(cpu, page), frame) {
            self.broken(
                rule::WRONG_PAGE,
                format!(
                    "{cpu} gets a reference to {} for {}, which was not mapped there at any moment of the call",
                    self.name(frame),
                    self.pages[page].1,
                ),
            )?;
        }
        if let Some(folio) = self.folio(frame) {
            let held = ghost.get(self.held(folio));
            ghost.set(self.held(folio), held + (1 << held_shift(reference)));
        }
        Ok(())
    }

    /// Whether a plain store has overwritten accessed or dirty bits of an entry in use.
    fn overwritten(&self, address: usize, bytes: usize, old: u64, new: u64) -> Result<(), Violation> {
        const PRESENT: u64 = 1;
        const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
        let lost = old & !new & ACCESSED_DIRTY;
        let whole_or_low = bytes == 8 || address.is_multiple_of(8);
        if !whole_or_low || old & PRESENT == 0 || lost == 0 {
            return Ok(());
        }
        let Some((_, name)) =
            self.pages.iter().find(|(page, _)| self.walk(*page).is_some_and(|walked| walked.cell == address))
        else {
            return Ok(());
        };
        let bit = if lost & 1 << 6 != 0 { "dirty" } else { "accessed" };
        self.broken(
            rule::LOST_ACCESSED_DIRTY,
            format!("a plain store to the entry of {name} overwrites the {bit} bit that is set in it"),
        )
    }

    /// The leaves that map each folio now: one count a folio.
    fn mappings(&self) -> Vec<(u64, bool)> {
        let mut counts = vec![(0, false); self.folios.len()];
        let mut cells = Vec::new();
        for (page, _) in &self.pages {
            let Some(Walked { cell, level, entry, leaf: Some(frame) }) = self.walk(*page) else { continue };
            if cells.contains(&cell) {
                continue;
            }
            cells.push(cell);
            if let Some(folio) = self.folio(frame) {
                counts[folio].0 += 1;
                counts[folio].1 |= self.paging.decode(level, entry).dirty;
            }
        }
        counts
    }

    fn counts(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        for (number, (folio, (mapped, dirty))) in self.folios.iter().zip(self.mappings()).enumerate() {
            let setup = folio.setup;
            if setup.owner == Owner::Device {
                continue;
            }
            let allocated = end.is_allocated(setup.first) == Some(true);
            let held = ghost.get(self.held(number));
            let (pins, gets) = (held >> 32, held & u64::from(u32::MAX));
            let kept = u64::from(!folio.starts_in_file && ghost.get(self.put_into_file(number)) == 0);
            let pin_weight = if setup.order == 0 { u64::from(PIN_BIAS) } else { 1 };
            let expected = match setup.owner {
                Owner::Cache => kept + self.in_files(setup.first, end) + mapped + gets + pins * pin_weight,
                // The driver's own reference, which is none of the engine's business.
                Owner::Driver | Owner::Device => 1,
            };
            let found = end.read(folio.head.refcount_word());
            if found != expected {
                self.lost_count(&setup.name, "reference", found, expected)?;
            }
            let expected_mappings = if setup.owner == Owner::Cache { mapped } else { 0 };
            let found = end.read(folio.head.mapcount_word());
            if found != expected_mappings {
                self.lost_count(&setup.name, "map", found, expected_mappings)?;
            }
            let marked = end.read(folio.head.flags_word()) as u32 & FolioFlags::DIRTY.bits() != 0;
            if setup.owner == Owner::Cache && allocated && ghost.get(self.written(number)) != 0 && !dirty && !marked {
                self.broken(
                    rule::LOST_DIRTY,
                    format!("user code wrote to {}, and neither an entry nor the folio is dirty", setup.name),
                )?;
            }
        }
        Ok(())
    }

    fn lost_count(&self, name: &str, what: &str, found: u64, expected: u64) -> Result<(), Violation> {
        let sentence = format!("when all is quiet the {what} count of {name} is {found} and should be {expected}");
        self.broken(rule::LOST_COUNT, sentence)
    }

    /// How many files hold the folio.
    fn in_files(&self, frame: Frame, end: &End<'_>) -> u64 {
        const PRESENT: u64 = 1 << 63;
        self.slots.iter().filter(|slot| end.read(**slot) == PRESENT | frame.number()).count() as u64
    }
}

/// Where a kind of reference is counted in its ghost word.
const fn held_shift(reference: Reference) -> u32 {
    match reference {
        Reference::Get => 0,
        Reference::Pin => 32,
    }
}

impl Monitor for Watch<'_> {
    fn on_event(&self, ghost: &mut Ghost<'_>, event: &Event<'_>) -> Result<(), Violation> {
        match *event {
            Event::Written { address, bytes, old, new, writer, .. } => {
                if old != new && self.tables.contains(&address) {
                    self.note_mappings(ghost);
                    if matches!(writer, Writer::Store | Writer::Owned) {
                        return self.overwritten(address, bytes, old, new);
                    }
                }
                Ok(())
            }
            Event::Accessed { access: Access::Write, frame, .. } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.written(folio), 1);
                }
                Ok(())
            }
            Event::Emitted { cpu, kind, args } => match Told::hear(kind, args) {
                Some(told) => self.hear(ghost, cpu, told),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn at_rest(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        self.counts(ghost, end)
    }
}
