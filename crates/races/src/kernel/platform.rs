//! The engine's platform in the lab: where tables and records are, and which protocols are followed.

use std::marker::PhantomData;

use lab::{Arena, FrameKind};
use machine::{Cpu, Frame, PhysAddr, Word64};
use mm::folio::count_fits;
use mm::order::SpecialCheck;
use mm::special::DevicePages;
use mm::table_check::FrameUses;
use mm::{FrameSource, Membership, MemoryMap, NobodyTraces, NumaPlacement, Page, Platform, Protocols, TableCheck};
use pagetable::table::{Pdpt, Table};
use pagetable::{Mode, NotATable, OutOfFrames, TableMemory, TableMeta, TableSource};

use super::choices::{
    Bracket, Check, Choices, FlushTime, FreedTables, Lifetime, Link, Read, ReadBy, Remote, SpecialBy, WriteBy,
};
use super::drivers::LabDrivers;
use super::guards::{Step, Without};
use super::mirror::LabNotify;
use super::setup::{Owner, TableFrames};
use super::swap_device::LabSwap;
use super::table_check::LabUses;
use super::uffd::LabUffd;
use super::watch::Told;
use crate::checker::CheckedCpu;
use crate::rule;

/// The pool of frames that page tables come from.
pub(super) const TABLES: FrameKind = FrameKind(0);

/// The engine in the lab, in this paging mode.
pub(super) struct InLab<'l, M, C>(PhantomData<(&'l C, M)>);

impl<'l, M: Mode, C: CheckedCpu> Platform for InLab<'l, M, C> {
    type Cpu = C;
    type Mode = M;
    type Tables = LabTables<'l, C>;
    type Map = LabMap<'l, C>;
    type Read = ReadBy<M::Width>;
    type Write = TableCheck<WriteBy, LabUses<'l, C>, Without>;
    type Recheck = Check;
    type Publish = Link;
    type FlushOrder = FlushTime;
    type RemoteFlush = Remote;
    type Lifetime = Lifetime;
    type Special = SpecialBy;
    type Guards = Without;
    type Frames = LabFrames<'l>;
    type Swap = LabSwap<'l>;
    type Notify = LabNotify<'l>;
    type Drivers = LabDrivers;
    type Uffd = LabUffd<'l>;
    type Trace = NobodyTraces;
}

/// The protocols that a variant chooses.
pub(super) fn protocols<'l, M: Mode, C: CheckedCpu>(
    mode: M,
    choices: &Choices,
    frames: LabUses<'l, C>,
) -> Protocols<InLab<'l, M, C>> {
    let sequenced = choices.read == Read::Sequence || choices.recheck == Check::Sequence;
    let bracket = if sequenced { Bracket::Sequenced } else { Bracket::Plain };
    let special = SpecialBy { mark: choices.special, levels: choices.special_check };
    let write = WriteBy { write: choices.write, bracket };
    Protocols {
        mode,
        read: ReadBy(choices.read, PhantomData),
        write: TableCheck { write, frames, special: special.mark(), guards: choices.without },
        recheck: choices.recheck,
        publish: choices.publish,
        flush_order: choices.flush,
        remote_flush: choices.remote,
        lifetime: choices.lifetime,
        special,
        guards: choices.without,
    }
}

/// The page tables, as one CPU sees them: so that using a frame that holds no table is noticed as that CPU's doing.
pub(super) struct LabTables<'l, C> {
    /// The frame of a table that was put aside; 0 = none.
    pub(super) aside: &'l Word64,
    pub(super) freed: FreedTables,
    pub(super) cpu: &'l C,
    pub(super) arena: &'l Arena,
    pub(super) metas: &'l [TableMeta],
    pub(super) frames_of_tables: TableFrames,
}

impl<C: CheckedCpu> LabTables<'_, C> {
    fn phantom(&self, address: PhysAddr) -> NotATable {
        self.cpu.violate(
            rule::PHANTOM_FRAME,
            format_args!("{} takes {address} for a page table, and no table was ever there", self.cpu.id()),
        )
    }
}

impl<C: CheckedCpu> TableMemory for LabTables<'_, C> {
    fn table(&self, frame: Frame) -> Result<Table<'_>, NotATable> {
        let meta = self.frames_of_tables.number(frame).and_then(|index| self.metas.get(index as usize));
        match (self.arena.table(frame), meta) {
            (Some(words), Some(meta)) => Ok(Table::new(words, meta)),
            _ => Err(self.phantom(frame.start())),
        }
    }

    fn pdpt(&self, root: PhysAddr) -> Result<Pdpt<'_>, NotATable> {
        let table = self.table(root.frame())?;
        let first = (root.as_u64() % machine::addr::PAGE_SIZE / 8) as usize;
        match table.cells()[first..].first_chunk::<4>() {
            Some(cells) => Ok(Pdpt::new(cells, table.meta())),
            None => Err(self.phantom(root)),
        }
    }

    fn holds_any(&self, first: Frame, frames: u64) -> bool {
        self.frames_of_tables.any_in(first, frames)
    }
}

impl<M: CheckedCpu> TableSource for LabTables<'_, M> {
    fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
        if self.freed == FreedTables::PutAside {
            match self.cpu.swap(self.aside, 0) {
                0 => {}
                frame => return Ok(Frame::new(frame)),
            }
        }
        self.cpu.alloc_frame(TABLES).ok_or(OutOfFrames)
    }

    fn free_table<C: Cpu>(&self, _: &C, frame: Frame) {
        let goes = match self.freed {
            FreedTables::GivenBack => frame.number(),
            FreedTables::PutAside => self.cpu.swap(self.aside, frame.number()),
        };
        if goes != 0 {
            self.cpu.free_frame(Frame::new(goes));
        }
    }
}

/// A larger folio than of this order has the records of its first frames only.
pub(super) const MOST_RECORDS_ORDER: u8 = 9;

/// The records of the frames of one folio that the file names.
pub(super) struct Records<'l> {
    pub(super) first: Frame,
    pub(super) pages: &'l [Page],
    /// How entries map them; empty where nobody counts that.
    pub(super) uses: &'l [FrameUses],
    /// What is in them; empty where contents do not matter.
    pub(super) contents: &'l [Word64],
    /// Of a device's memory, which goes with its records.
    pub(super) device: Option<DevicePages<'l>>,
    pub(super) owner: Owner,
    /// The CPU that moves a page away from there when it comes upon its NUMA hint.
    pub(super) far_from: Option<usize>,
}

/// The memory map, as one CPU sees it.
pub(super) struct LabMap<'l, C> {
    pub(super) cpu: &'l C,
    pub(super) records: &'l [Records<'l>],
    pub(super) without: Without,
}

impl<C: CheckedCpu> MemoryMap<C> for LabMap<'_, C> {
    fn page(&self, cpu: &C, frame: Frame) -> Option<&Page> {
        // Only the lockless path runs with interrupts off, and only it looks up frames that it has not re-checked.
        if !self.cpu.interrupts_on() {
            Told::LookedUp { frame }.tell(cpu);
        }
        let records = self.records.iter().find(|records| {
            frame.number().checked_sub(records.first.number()).is_some_and(|index| index < records.pages.len() as u64)
        })?;
        if records.owner == Owner::Device {
            return None;
        }
        if let Some(device) = &records.device {
            return device.page(cpu, frame);
        }
        records.pages.get((frame.number() - records.first.number()) as usize)
    }

    fn release(&self, cpu: &C, folio: Membership) {
        let is_whole = |records: &Records<'_>| {
            records.first == folio.head && records.pages.len() == 1 << folio.order.min(MOST_RECORDS_ORDER)
        };
        // The pool hands frames out as the file names them. Pieces of a folio that was split stay out of it, and the watch knows whole folios only.
        if self.records.iter().any(is_whole) {
            Told::Released { frame: folio.head }.tell(cpu);
            cpu.free_frame(folio.head);
        }
    }

    /// References were taken without a look at how many there are: Linux before the merge 6b3a70773630.
    fn may_count(&self, count: u32, more: u32) -> bool {
        self.without.lacks(Step::CountLimit) || count_fits(count, more)
    }
}

/// Folios of one order that the engine may allocate.
pub(super) struct SpareFrames {
    pub(super) order: u8,
    pub(super) pool: FrameKind,
}

/// Where the engine allocates, and what is in the frames.
pub(super) struct LabFrames<'l> {
    pub(super) records: &'l [Records<'l>],
    pub(super) spare: &'l [SpareFrames],
    pub(super) zero_page: Option<Frame>,
}

impl<'l> LabFrames<'l> {
    /// The words of `pages` frames from `first` on; none where contents do not matter.
    pub(super) fn contents(&self, first: Frame, pages: u64) -> &'l [Word64] {
        let from = |records: &Records<'l>| {
            let index = first.number().checked_sub(records.first.number())?;
            records.contents.get(index as usize..).filter(|words| !words.is_empty())
        };
        let words = self.records.iter().find_map(from).unwrap_or_default();
        &words[..words.len().min(pages as usize)]
    }
}

impl<C: CheckedCpu> FrameSource<C> for LabFrames<'_> {
    fn allocate(&self, cpu: &C, order: u8) -> Result<Frame, OutOfFrames> {
        let spare = self.spare.iter().find(|spare| spare.order == order).ok_or(OutOfFrames)?;
        cpu.alloc_frame(spare.pool).ok_or(OutOfFrames)
    }

    fn zero(&self, cpu: &C, folio: Membership) {
        cpu.zero(self.contents(folio.head, 1 << folio.order));
    }

    fn copy(&self, cpu: &C, from: Frame, to: Frame, pages: u64) {
        for (from, to) in self.contents(from, pages).iter().zip(self.contents(to, pages)) {
            let word = cpu.load(from);
            cpu.owned_store(to, word);
        }
    }

    /// Where contents do not matter, all are.
    fn equal(&self, cpu: &C, one: Frame, other: Frame) -> bool {
        self.contents(one, 1).iter().zip(self.contents(other, 1)).all(|(one, other)| cpu.load(one) == cpu.load(other))
    }

    fn placement(&self, cpu: &C, frame: Frame) -> NumaPlacement {
        let is_far = |records: &Records<'_>| {
            let index = frame.number().checked_sub(records.first.number());
            index.is_some_and(|index| index < records.pages.len() as u64) && records.far_from == Some(cpu.id().index())
        };
        if self.records.iter().any(is_far) { NumaPlacement::Moves } else { NumaPlacement::Stays }
    }

    fn zero_page(&self) -> Option<Frame> {
        self.zero_page
    }
}
