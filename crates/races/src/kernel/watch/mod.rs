//! The rules that need to know what pages, pins and mappings are, held against everything that happens in the lab.
//!
//! Nothing here is the engine's: page tables are read with the lab's own decoder, and what *should* be is kept in words of its own.
//!
//! | module | what |
//! |---|---|
//! | [`told`] | what the glue tells |
//! | [`walk`] | page tables as they are in memory |
//! | [`gup`] | what GUP touches and hands out |
//! | [`rest`] | counts, and what must not have been forgotten, when all is quiet |

mod gup;
mod rest;
mod told;
mod walk;

use std::ops::Range;

use lab::{Arena, End, Event, Ghost, Monitor, Paging, Violation, Writer};
use machine::{Access, CpuId, Frame, PhysAddr, VirtAddr, Word, Word64};
use mm::{FileKind, Page, Reference};
use pagetable::Level;

use told::Caller;
pub(super) use told::Told;

use super::choices::Write;
use super::setup::FrameSetup;
use super::table_check::TableChecks;
use crate::rule;

/// A virtual page that the file speaks of.
#[derive(Clone)]
pub(super) struct WatchedPage {
    /// Its address space.
    pub(super) space: usize,
    pub(super) address: VirtAddr,
    pub(super) name: String,
    /// If a shared area of a file is mapped there at the start: the slot of the file's page, and the level of its leaves.
    pub(super) slot: Option<(usize, Level)>,
}

/// A folio that the file names, with its records.
pub(super) struct WatchedFolio<'w> {
    pub(super) setup: &'w FrameSetup,
    /// The records of its frames, or the first 512 of them.
    pub(super) pages: &'w [Page],
    /// Whether a file holds it at the start. If not, its reference belongs to whoever is going to put it into one.
    pub(super) starts_in_file: bool,
}

impl WatchedFolio<'_> {
    /// Which of its frames this is.
    fn index(&self, frame: Frame) -> usize {
        frame.number().wrapping_sub(self.setup.first.number()) as usize
    }
}

/// Holds the rules.
pub(super) struct Watch<'w> {
    pub(super) arena: &'w Arena,
    /// The addresses of the words of all tables.
    pub(super) tables: Range<usize>,
    pub(super) paging: Paging,
    /// How the engine writes entries.
    pub(super) write: Write,
    /// Of each address space.
    pub(super) roots: Vec<PhysAddr>,
    /// The virtual pages that the file speaks of.
    pub(super) pages: Vec<WatchedPage>,
    pub(super) folios: Vec<WatchedFolio<'w>>,
    /// The page slots of all files, with whether they hold references.
    pub(super) slots: Vec<(&'w Word64, FileKind)>,
    /// Of each address space, how many entries are said to hold the zero page because of a merge.
    pub(super) merged_zeros: Vec<&'w Word64>,
    pub(super) cpus: usize,
    /// Whether an NMI handler may call GUP as well.
    pub(super) nmis: NmiHandlers,
    pub(super) table_checks: TableChecks,
    /// Rules that are not held.
    pub(super) tolerated: Vec<&'static str>,
}

impl Watch<'_> {
    /// The rules that this watch holds; others are the lab's own.
    pub(super) const RULES: [&'static str; 10] = [
        rule::PHANTOM_FRAME,
        rule::WRONG_PAGE,
        rule::SPECIAL_PINNED,
        rule::PINNED_FREED,
        rule::LOST_DIRTY,
        rule::LOST_ACCESSED_DIRTY,
        rule::LOST_COUNT,
        rule::STALE_ENTRY,
        rule::FAILED_MEMORY,
        rule::MISSED_DOUBLE_USE,
    ];

    /// A rule is broken, unless that is tolerated.
    fn broken(&self, rule: &'static str, sentence: String) -> Result<(), Violation> {
        if self.tolerated.contains(&rule) { Ok(()) } else { Err(Violation::new(rule, sentence)) }
    }
}

/// Whether there are NMI handlers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NmiHandlers {
    None,
    Some,
}

/// How many different frames are remembered for a page.
const HISTORY: usize = 8;

/// Where each thing is among the ghost words.
impl Watch<'_> {
    /// The frames that a page was ever mapped to.
    fn ever(page: usize) -> usize {
        page * HISTORY
    }

    /// How many calls of GUP may run at a time.
    fn calls(&self) -> usize {
        match self.nmis {
            NmiHandlers::None => self.cpus,
            NmiHandlers::Some => 2 * self.cpus,
        }
    }

    /// The number of the call that a CPU's program makes, or its NMI handler.
    fn call(&self, cpu: CpuId, caller: Caller) -> usize {
        match caller {
            Caller::Program => cpu.index(),
            Caller::NmiHandler => self.cpus + cpu.index(),
        }
    }

    /// The frames that a page was mapped to since a call of GUP began.
    fn during(&self, call: usize, page: usize) -> usize {
        (self.pages.len() * (1 + call) + page) * HISTORY
    }

    /// The pages of a call that runs.
    fn active(&self, call: usize) -> usize {
        self.pages.len() * (1 + self.calls()) * HISTORY + call
    }

    /// The references that GUP holds to a folio; pins in the upper half.
    fn held(&self, folio: usize) -> usize {
        self.active(self.calls()) + folio
    }

    /// Whether user code or a device without a reference wrote to a folio that is not known to be dirty in any other way.
    fn written(&self, folio: usize) -> usize {
        self.held(self.folios.len()) + folio
    }

    /// Whether a folio that no file held at the start was put into one.
    fn put_into_file(&self, folio: usize) -> usize {
        self.written(self.folios.len()) + folio
    }

    /// Whether the folio's records are gone.
    fn records_gone(&self, folio: usize) -> usize {
        self.put_into_file(self.folios.len()) + folio
    }

    /// Whether the folio's memory has failed, and it was taken out of use.
    fn out_of_use(&self, folio: usize) -> usize {
        self.records_gone(self.folios.len()) + folio
    }

    /// Whether page_table_check has said that a folio is used in two ways.
    fn double_use(&self, folio: usize) -> usize {
        self.out_of_use(self.folios.len()) + folio
    }

    pub(super) fn ghost_words(&self) -> usize {
        self.double_use(self.folios.len())
    }
}

impl Watch<'_> {
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

    /// A count changes where a record was and something else is now.
    fn record_written(&self, ghost: &Ghost<'_>, cpu: CpuId, address: usize) -> Result<(), Violation> {
        let counts = |folio: &WatchedFolio<'_>| {
            [folio.pages[0].refcount_word().address(), folio.pages[0].pincount_word().address()].contains(&address)
        };
        match self.folios.iter().position(counts) {
            Some(folio) if ghost.get(self.records_gone(folio)) != 0 => {
                let name = &self.folios[folio].setup.name;
                let sentence = format!(
                    "{cpu} changes a count in the record of {name}, which is gone: something else lies there now"
                );
                self.broken(rule::PHANTOM_FRAME, sentence)
            }
            _ => Ok(()),
        }
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
        let Some(page) = self.pages.iter().find(|page| self.walk(page).is_some_and(|walked| walked.cell == address))
        else {
            return Ok(());
        };
        let name = &page.name;
        let bit = if lost & 1 << 6 != 0 { "dirty" } else { "accessed" };
        self.broken(
            rule::LOST_ACCESSED_DIRTY,
            format!("a plain store to the entry of {name} overwrites the {bit} bit that is set in it"),
        )
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
            Event::Written { cpu, address, bytes, old, new, writer } => {
                if old != new && self.tables.contains(&address) {
                    self.note_mappings(ghost);
                    if matches!(writer, Writer::Store | Writer::Owned) {
                        return self.overwritten(address, bytes, old, new);
                    }
                }
                self.record_written(ghost, cpu, address)
            }
            Event::Accessed { cpu, access, frame, .. } => {
                let Some(folio) = self.folio(frame) else { return Ok(()) };
                if ghost.get(self.out_of_use(folio)) != 0 {
                    let name = self.name(frame);
                    let sentence = format!("{cpu} accesses {name}, whose memory has failed and was taken out of use");
                    return self.broken(rule::FAILED_MEMORY, sentence);
                }
                if access == Access::Write {
                    ghost.set(self.written(folio), 1);
                }
                Ok(())
            }
            Event::Emitted { cpu, kind, args } => match Told::hear(kind, args) {
                Some((caller, told)) => self.hear(ghost, (cpu, caller), told),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn at_rest(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        self.entries(end)?;
        self.double_uses(ghost)?;
        self.merged_zeros(end)?;
        self.counts(ghost, end)
    }
}
