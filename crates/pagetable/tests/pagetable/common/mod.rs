//! A machine of one thread per CPU, memory for tables, and a page walker that shares no code with the crate.

pub(crate) mod interrupted;

use std::sync::Mutex;
use std::sync::atomic::{Ordering, fence};

use machine::{Cpu, CpuId, CpuSet, Frame, Invalidation, IrqState, PhysAddr, Vector, Word, Word64};
use pagetable::{OutOfFrames, TableArena, TableFrame, TableMeta, TableSource};

/// The plain instructions.
pub(crate) struct Bare;

impl Cpu for Bare {
    fn id(&self) -> CpuId {
        CpuId::new(0)
    }
    fn load<W: Word>(&self, word: &W) -> W::Value {
        word.atomic_load(Ordering::Acquire)
    }
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        word.atomic_store(value, Ordering::Release);
    }
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        word.atomic_swap(value)
    }
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        word.atomic_compare_exchange(old, new)
    }
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        word.atomic_fetch_add(addend)
    }
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_and(mask)
    }
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_or(mask)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn irq_save(&self) -> IrqState {
        IrqState::On
    }
    fn irq_restore(&self, _: IrqState) {}
    fn send_ipi(&self, _: CpuSet, _: Vector) {}
    fn tlb_invalidate(&self, _: Invalidation) {}
    fn tlb_invalidate_paravirtual(&self, _: CpuSet, _: Invalidation) {}
    fn tlb_broadcast(&self, _: Invalidation) {}
    fn tlb_broadcast_sync(&self) {}
    fn load_root(&self, _: PhysAddr) {}
    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn synchronize_rcu(&self) {}
}

/// The number of the first frame: tables lie somewhere in the middle of physical memory.
pub(crate) const FIRST: u64 = 0x3_4000;

/// Frames full of garbage, for tables.
pub(crate) struct Memory {
    frames: Vec<TableFrame>,
    metas: Vec<TableMeta>,
    free: Mutex<Vec<u64>>,
}

impl Memory {
    /// `count` frames; the first is zeroed and not in the pool: the root.
    pub(crate) fn new(count: usize) -> Self {
        let memory = Self {
            frames: (0..count).map(|_| TableFrame::new()).collect(),
            metas: (0..count).map(|_| TableMeta::new()).collect(),
            free: Mutex::new((1..count as u64).rev().map(|index| FIRST + index).collect()),
        };
        for frame in &memory.frames[1..] {
            for (index, cell) in frame.0.iter().enumerate() {
                // Looks like a present, well-formed entry to whoever reads it before it is zeroed.
                cell.atomic_store((index as u64) << 12 | 0x67, Ordering::Relaxed);
            }
        }
        memory
    }

    pub(crate) fn arena(&self) -> TableArena<'_> {
        TableArena::new(Frame::new(FIRST), &self.frames, &self.metas)
    }

    pub(crate) fn root_address(&self) -> PhysAddr {
        Frame::new(FIRST).start()
    }

    pub(crate) fn cell(&self, address: u64) -> Option<&Word64> {
        let index = (address >> 12).checked_sub(FIRST)?;
        Some(&self.frames.get(usize::try_from(index).ok()?)?.0[(address >> 3 & 511) as usize])
    }

    /// The eight bytes at a physical address.
    pub(crate) fn peek(&self, address: u64) -> Option<u64> {
        Some(self.cell(address)?.atomic_load(Ordering::Relaxed))
    }

    pub(crate) fn poke(&self, address: u64, value: u64) {
        self.cell(address).expect("an address of the test memory").atomic_store(value, Ordering::Relaxed);
    }

    /// What the hardware does on an access: sets flags in the leaf, by a locked instruction.
    pub(crate) fn touch(&self, paging: Paging, cr3: u64, address: u64, flags: u32) {
        let cell = self.leaf_cell(paging, cr3, address);
        cell.atomic_fetch_or(u64::from(flags));
    }

    /// The cell of the leaf for an address that is mapped.
    pub(crate) fn leaf_cell(&self, paging: Paging, cr3: u64, address: u64) -> &Word64 {
        let (mut shift, mut table) = (paging.root_shift(), cr3);
        loop {
            let mask = if paging == Paging::Pae && shift == 30 { 3 } else { 511 };
            let at = table + 8 * (address >> shift & mask);
            let entry = self.peek(at).expect("a well-formed table");
            if shift == 12 || entry & 0x80 != 0 {
                return self.cell(at).expect("it was read just now");
            }
            (shift, table) = (shift - 9, entry & 0x000f_ffff_ffff_f000);
        }
    }

    /// Counts the entries of every table that is reachable, and compares with the child counts.
    pub(crate) fn check_counts(&self, paging: Paging, cr3: u64) {
        let entries = if paging == Paging::Pae { 4 } else { 512 };
        self.check_counts_below(cr3, entries, paging.root_shift());
    }

    fn check_counts_below(&self, table: u64, entries: u64, shift: u32) {
        let mut children = 0;
        for index in 0..entries {
            let entry = self.peek(table + 8 * index).expect("a well-formed table");
            children += u32::from(entry != 0);
            if entry & 1 != 0 && shift > 12 && entry & 0x80 == 0 {
                self.check_counts_below(entry & 0x000f_ffff_ffff_f000, 512, shift - 9);
            }
        }
        assert_eq!(self.meta(table >> 12).children.atomic_load(Ordering::Relaxed), children, "table {table:#x}");
    }

    pub(crate) fn meta(&self, frame: u64) -> &TableMeta {
        &self.metas[(frame - FIRST) as usize]
    }

    pub(crate) fn frames_left(&self) -> usize {
        self.free.lock().unwrap().len()
    }
}

impl TableSource for Memory {
    fn allocate_table<C: Cpu>(&self, _: &C) -> Result<Frame, OutOfFrames> {
        self.free.lock().unwrap().pop().map(Frame::new).ok_or(OutOfFrames)
    }

    fn free_table<C: Cpu>(&self, _: &C, frame: Frame) {
        let mut free = self.free.lock().unwrap();
        assert!(!free.contains(&frame.number()), "table {frame} was given back twice");
        free.push(frame.number());
    }
}

/// What the independent walker knows of a mode: written down from the tables of SDM vol. 3A, chapter 4, as
/// shifts and masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paging {
    Pae,
    Four,
    Five,
}

impl Paging {
    fn root_shift(self) -> u32 {
        match self {
            Self::Pae => 30,
            Self::Four => 39,
            Self::Five => 48,
        }
    }
}

/// What the hardware would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Physical address of the byte.
    Page(u64),
    NotPresent,
    ReservedBits,
    /// An entry points to memory that is not there.
    NoMemory,
}

/// Walks as SDM vol. 3A, 4.4 and 4.5 say, for MAXPHYADDR = `width`.
pub(crate) fn hardware_walk(memory: &Memory, paging: Paging, width: u32, cr3: u64, address: u64) -> Outcome {
    let too_wide = (1_u64 << 52) - (1_u64 << width);
    // (shift, reserved in every entry, whether bit 7 may make it a page)
    let levels: &[(u32, u64, bool)] = match paging {
        Paging::Pae => {
            &[(30, 0xfff0_0000_0000_01e6, false), (21, 0x7ff0_0000_0000_0000, true), (12, 0x7ff0_0000_0000_0000, true)]
        }
        Paging::Four => &[(39, 0x80, false), (30, 0, true), (21, 0, true), (12, 0, true)],
        Paging::Five => &[(48, 0x80, false), (39, 0x80, false), (30, 0, true), (21, 0, true), (12, 0, true)],
    };
    let mut table = if paging == Paging::Pae { cr3 & 0xffff_ffe0 } else { cr3 & 0x000f_ffff_ffff_f000 };
    for &(shift, reserved, may_be_page) in levels {
        let index_mask = if paging == Paging::Pae && shift == 30 { 3 } else { 511 };
        let Some(entry) = memory.peek(table + 8 * (address >> shift & index_mask)) else { return Outcome::NoMemory };
        if entry & 1 == 0 {
            return Outcome::NotPresent;
        }
        if entry & (reserved | too_wide) != 0 {
            return Outcome::ReservedBits;
        }
        let is_page = shift == 12 || may_be_page && entry & 0x80 != 0;
        if is_page {
            let in_page = (1_u64 << shift) - 1;
            // Below the frame number and above bit 12, which is PAT, everything must be zero.
            if entry & in_page & !0x1fff != 0 {
                return Outcome::ReservedBits;
            }
            return Outcome::Page(entry & 0x000f_ffff_ffff_f000 & !in_page | address & in_page);
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    unreachable!("the lowest level is a page")
}
