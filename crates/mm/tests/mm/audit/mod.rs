//! An account of memory by reading tables and records as they lie there, without asking the engine: every count must be what the entries say, and two
//! accounts of the same memory are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;

use hosted::{FailingTables, ThreadCpu};
use machine::{Frame, VirtAddr, Word, Word32};
use mm::folio::PIN_BIAS;
use mm::{AddressSpace, Membership, MemoryMap, Reference, Run};
use pagetable::software::{LONG_MODE, Softw1, SpecialBit, UFFD_WP};
use pagetable::{Attributes, Entry, Flags, Level, NonPresent, TableMemory};

/// What is behind pages in a row, whatever the size of the leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behind {
    /// Frames in a row.
    Frames { first: Frame, attributes: Attributes, is_prot_none: bool },
    /// An entry that maps nothing, as it is.
    Other(Entry),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) space: usize,
    pub(crate) start: VirtAddr,
    pub(crate) pages: u64,
    pub(crate) behind: Behind,
}

impl Stretch {
    /// Whether `next` goes on where this one ends.
    fn goes_on(&self, next: &Self) -> bool {
        let is_next = self.space == next.space && self.start.wrapping_add(self.pages * 4096) == next.start;
        is_next
            && match (self.behind, next.behind) {
                (
                    Behind::Frames { first, attributes, is_prot_none },
                    Behind::Frames { first: next, attributes: others, is_prot_none: other },
                ) => first.wrapping_add(self.pages) == next && attributes == others && is_prot_none == other,
                _ => false,
            }
    }
}

impl Stretch {
    /// Whether a merge has put the zero page here: written, though nobody can write to it.
    fn is_merged_zero(&self, space: usize, zero: Frame) -> bool {
        let is_written_zero = |first, attributes: Attributes| {
            first == zero && attributes.is_marked(Softw1.mark()) && attributes.has(Flags::DIRTY)
        };
        self.space == space
            && matches!(self.behind, Behind::Frames { first, attributes, .. } if is_written_zero(first, attributes))
    }
}

impl fmt::Debug for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "space {} {} {} pages: {:?}", self.space, self.start, self.pages, self.behind)
    }
}

/// References that somebody besides the entries has to a folio.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// A frame of it.
    pub(crate) frame: Frame,
    /// To how many frames.
    pub(crate) pages: u32,
    pub(crate) reference: Reference,
}

impl Hold {
    /// One reference.
    pub(crate) const fn one(frame: Frame) -> Self {
        Self { frame, pages: 1, reference: Reference::Get }
    }

    pub(crate) const fn of_run(run: &Run) -> Self {
        Self { frame: run.frame(), pages: run.pages(), reference: run.reference() }
    }

    /// References and pins that it is of a folio of this order.
    const fn counts(&self, order: u8) -> (u32, u32) {
        match self.reference {
            Reference::Get => (self.pages, 0),
            Reference::Pin if order == 0 => (self.pages * PIN_BIAS, 0),
            Reference::Pin => (self.pages, self.pages),
        }
    }
}

/// The counts in a folio's record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Counts {
    references: u32,
    pins: u32,
    mappings: u32,
}

/// What the page tables of some address spaces hold.
#[derive(Default)]
pub(crate) struct Account {
    /// What user code can reach, or could before it was moved away.
    pub(crate) stretches: Vec<Stretch>,
    /// The tables, roots included.
    pub(crate) tables: BTreeSet<Frame>,
    /// How many entries hold each frame that a leaf begins with. Of a table that several spaces share each entry counts once.
    leaves: BTreeMap<Frame, u32>,
    /// How many entries name a place on swap.
    pub(crate) on_swap: u64,
}

impl Account {
    /// `zero` is the zero page.
    ///
    /// # Panics
    /// A table is malformed or locked, or its count of entries is wrong; or tables are in use that nobody can reach; or a space counts other zeros than a merge has left.
    pub(crate) fn of(memory: &FailingTables, zero: Frame, spaces: &[&AddressSpace<'_>]) -> Self {
        let mut account = Self::default();
        for (number, space) in spaces.iter().enumerate() {
            let read = |word: &Word32| word.atomic_load(Ordering::SeqCst);
            for part in space.parts() {
                let (start, mut locks) = (part.start(), part.mmap_lock().words());
                assert!(locks.all(|word| read(word) == 0), "the mmap lock of space {number} at {start} is held");
                assert_eq!(read(part.gathers_word()), 0, "a gather of space {number} at {start} has not ended");
            }
            assert_eq!(read(space.write_protect().word()) % 2, 0, "a fork of space {number} has not ended");
            let root = Frame::new(space.root().address().as_u64() / 4096);
            account.read_table(memory, number, root, Level::Pgd.lower().expect("four levels"), VirtAddr::new(0));
            let merged_zeros = account.stretches.iter().filter(|stretch| stretch.is_merged_zero(number, zero)).count();
            let counted = space.merged_zeros_word().atomic_load(Ordering::SeqCst);
            assert_eq!(counted, merged_zeros as u64, "zeros that merges have left in space {number}");
        }
        assert_eq!(memory.arena.in_use(), account.tables.len() as u64, "tables in use, tables that can be reached");
        account
    }

    fn read_table(&mut self, memory: &FailingTables, space: usize, frame: Frame, level: Level, start: VirtAddr) {
        let table = memory.table(frame).unwrap_or_else(|error| panic!("{error} is a {level} table for {start}"));
        let meta = table.meta();
        let read = |word: &Word32| word.atomic_load(Ordering::SeqCst);
        assert_eq!(read(meta.lock.word()), 0, "the {level} table for {start} is locked");
        let is_first = self.tables.insert(frame);
        let mut used = 0;
        for (index, cell) in table.cells().iter().enumerate() {
            let entry = Entry::from_bits(cell.atomic_load(Ordering::SeqCst));
            if entry.is_none() {
                continue;
            }
            used += 1;
            let at = start.wrapping_add(index as u64 * level.size());
            if level != Level::Pte && entry.is_present() && !entry.is_leaf(level) {
                let lower = level.lower().expect("not the lowest");
                self.read_table(memory, space, entry.table_frame(), lower, at);
            } else {
                self.read_leaf(space, at, level, entry, is_first);
            }
        }
        assert_eq!(read(&meta.children), used, "entries of the {level} table for {start}");
    }

    fn read_leaf(&mut self, space: usize, start: VirtAddr, level: Level, entry: Entry, counts: bool) {
        let behind = if entry.is_present() {
            let (first, attributes) = (entry.leaf_frame(level), entry.attributes(level));
            Behind::Frames { first, attributes, is_prot_none: false }
        } else {
            match entry.non_present(level).unwrap_or_else(|_| panic!("{start}: {entry:?}")) {
                Some(NonPresent::ProtNone(leaf)) => {
                    Behind::Frames { first: leaf.frame, attributes: leaf.attributes, is_prot_none: true }
                }
                Some(NonPresent::Migration(away)) => panic!("{start}: {away:?}, and nobody is at work"),
                Some(NonPresent::Swap(_)) => {
                    self.on_swap += 1;
                    Behind::Other(entry)
                }
                _ => Behind::Other(entry),
            }
        };
        if let Behind::Frames { attributes, .. } = behind {
            let is_protected = attributes.is_marked(LONG_MODE.mark(UFFD_WP));
            assert!(!(is_protected && attributes.has(Flags::WRITE)), "{start} is protected, and can be written");
        }
        if let Behind::Frames { first, attributes, .. } = behind
            && counts
            && !attributes.is_marked(Softw1.mark())
        {
            *self.leaves.entry(first).or_default() += 1;
        }
        let next = Stretch { space, start, pages: level.frames(), behind };
        match self.stretches.last_mut() {
            Some(last) if last.goes_on(&next) => last.pages += next.pages,
            _ => self.stretches.push(next),
        }
    }

    /// Compares the counts of every folio with what the entries say, and with what somebody else `holds`. `in_use` are the frames that the allocator has
    /// handed out.
    ///
    /// # Panics
    /// A count is wrong, or a frame is in use that nobody has.
    pub(crate) fn check_counts(
        &self,
        cpu: &ThreadCpu,
        map: &impl MemoryMap<ThreadCpu>,
        in_use: impl IntoIterator<Item = Frame>,
        holds: impl IntoIterator<Item = Hold>,
    ) {
        let folio = |frame: Frame| {
            let page = map.page(cpu, frame).unwrap_or_else(|| panic!("frame {frame} has no record"));
            Membership::unpack(page.membership_word().atomic_load(Ordering::SeqCst))
        };
        let mut expected: BTreeMap<Frame, Counts> =
            in_use.into_iter().map(|frame| (folio(frame).head, Counts::default())).collect();
        for (frame, count) in &self.leaves {
            let counts = expected.entry(folio(*frame).head).or_default();
            counts.mappings += count;
            counts.references += count;
        }
        for hold in holds {
            let Membership { head, order } = folio(hold.frame);
            let counts = expected.entry(head).or_default();
            let (references, pins) = hold.counts(order);
            counts.references += references;
            counts.pins += pins;
        }
        for (head, counts) in expected {
            let read = |word: &Word32| word.atomic_load(Ordering::SeqCst);
            let page = map.page(cpu, head).expect("asked for above");
            assert!(counts.references > 0, "frame {head} is in use, and nobody has it");
            let found = Counts {
                references: read(page.refcount_word()),
                pins: read(page.pincount_word()),
                mappings: read(page.mapcount_word()),
            };
            assert_eq!(found, counts, "folio {head}");
            let locked = mm::FolioFlags::LOCKED.bits();
            assert_eq!(read(page.flags_word()) & locked, 0, "folio {head} is locked");
        }
    }
}
