//! Guard regions: pages that nobody may access, without an area of their own (Linux 6.13: MADV_GUARD_INSTALL, MADV_GUARD_REMOVE; of files since 6.15).
//!
//! A guard is a marker in a page-table entry. It costs no area, so a thread's stack or an allocator's arena can have many.
//!
//! | who | and a guard |
//! |---|---|
//! | a fault, GUP | is refused ([`FaultError::Guarded`](crate::FaultError::Guarded)) |
//! | [`Mm::zap`], zap by rmap | leaves it |
//! | munmap | takes it away, with the area |
//! | mremap | moves it |
//! | fork | gives it to the child, also in shared areas, whose other entries faults bring back |
//! | mprotect, harvests, reclaim | passes over it |
//! | collapse, retracting and sharing a table | is refused |
//!
//! Behind the end of a file a fault in a shared area says that there is no page, guard or not: the file is asked before the entry. (Linux looks at the entry first. Both refuse.)
//!
//! # Installation
//!
//! 1. All tables are made, and huge leaves split. That is what can fail, and user code notices none of it.
//! 2. Table by table, under its lock, what is mapped is taken out and the guard put in its place, in *one exchange*. (Linux zaps first, and begins anew if it
//!    finds a page when it comes to install.)
//! 3. TLBs are flushed.
//!
//! A fault either has put its entry before step 2 comes there, and loses it, or finds the guard. So on return nothing is mapped in the range, and nothing can be.

use core::fmt;

use machine::Cpu;
use machine::addr::VirtAddr;
use pagetable::{Level, LockedTable, MapError, Marker, NonPresent, WalkError};

use crate::area::Area;
use crate::error::{RangeError, SplitError, ZapError};
use crate::file::FileKind;
use crate::gather::Gather;
use crate::guard::Guards;
use crate::leaf::Held;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// Why guards were not installed or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardRegionError {
    /// The range cannot be meant.
    Range(RangeError),
    /// No area holds the address.
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area is a driver's, or its file is mapped by huge leaves only: a guard has no place there.
    Unsuitable {
        /// The area.
        area: Area,
    },
    /// No frame for a page table.
    OutOfFrames,
    /// A page table holds what it must not.
    Malformed(MapError),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Makes `pages` pages from `start` on such that every access faults for good, and forgets what was in them (Linux: MADV_GUARD_INSTALL).
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed that user code could notice. But behind a malformed table nothing was done.
    pub fn install_guards(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), GuardRegionError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let result = self
            .check_guardable(cpu, space, (start, end))
            .and_then(|()| self.for_each_small_table(cpu, space, (start, end), |table, _, _| table.unlock()))
            .and_then(|()| {
                // Fork holds the lock for writing, so it sees this before it looks for guards.
                space.set_has_guards(cpu);
                self.notify_of(cpu, space, (start, end), || {
                    let mut gather = Gather::begin(cpu, self, space, (start, end));
                    let installed = self.for_each_small_table(cpu, space, (start, end), |mut table, from, until| {
                        self.guard_entries(cpu, &mut gather, &mut table, (from, until));
                        gather.unlock(cpu, table);
                    });
                    gather.finish(cpu);
                    installed
                })
            });
        mmap.unlock();
        result
    }

    /// Takes the guards of `pages` pages from `start` on away, and nothing else (Linux: MADV_GUARD_REMOVE). The next access faults a page in.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Nothing has changed. But behind a malformed table nothing was done.
    pub fn remove_guards(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), GuardRegionError> {
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mmap = space.mmap_read(cpu, (start, end));
        let result = self.check_guardable(cpu, space, (start, end)).and_then(|()| {
            let removed = self.for_each_table(cpu, space, start, end, |mut table, from, until| {
                let level = table.level();
                let mut at = from;
                while at < until && table.children() > 0 {
                    if self.is_guard(&table, at) {
                        // No TLB holds an entry that is not present (SDM vol. 3A, 4.10.2.3).
                        table.get_and_clear(&self.protocols().write, at);
                    }
                    at = level.next(at);
                }
                table.unlock();
            });
            removed.map_err(GuardRegionError::from)
        });
        mmap.unlock();
        result
    }

    /// Whether every page of the range is in an area where guards can be. The caller holds the mmap lock.
    fn check_guardable(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
    ) -> Result<(), GuardRegionError> {
        let mut at = start;
        while at < end {
            let area = space.find(cpu, at).ok_or(GuardRegionError::NoArea { address: at })?;
            let suits = self.file(area.file).is_some_and(|file| match file.kind() {
                FileKind::Anonymous => true,
                FileKind::Cached => file.leaf() == Level::Pte,
                FileKind::Driver | FileKind::PfnMapped | FileKind::Mixed => false,
            });
            if !suits {
                return Err(GuardRegionError::Unsuitable { area });
            }
            at = area.end();
        }
        Ok(())
    }

    /// Calls `visit` with every table of pages for the range, locked and this address space's own, with the part of the range that it translates. Tables that are
    /// missing are made, huge leaves split.
    ///
    /// Context: mmap lock held.
    pub(crate) fn for_each_small_table<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        mut visit: impl FnMut(LockedTable<'t, P::Cpu>, VirtAddr, VirtAddr),
    ) -> Result<(), GuardRegionError> {
        let tables = self.page_tables(space);
        let mut at = start;
        let head = cpu.loop_head();
        while at < end {
            cpu.round(&head, at.as_u64());
            match tables.populate(cpu, self.tables(), &self.protocols().publish, at, Level::Pte) {
                Ok(position) => {
                    let Ok(table) = self.protocols().guards.lock_if_linked(cpu, &position) else { continue };
                    if cpu.load(&table.meta().sharers) != 0 {
                        table.unlock();
                        self.leave_table(cpu, space, at, Level::Pte);
                        continue;
                    }
                    self.settle_batched_flush(cpu, space);
                    let until = Level::Pmd.next(at).min(end);
                    visit(table, at, until);
                    at = until;
                }
                Err(MapError::Walk(WalkError::NotPresent { level, entry, .. })) if !entry.is_prot_none() => {
                    // A huge page is on its way elsewhere: whoever moves it needs no lock that is held here.
                    if let Ok(position) = tables.find(cpu, at, level) {
                        cpu.await_value(position.slot().cell(), |found| found != entry.bits());
                    }
                }
                Err(MapError::Walk(WalkError::NotPresent { .. } | WalkError::Leaf { .. })) => {
                    match self.split_leaf_under_lock(cpu, space, at) {
                        // Gone meanwhile, and what may have come since is looked at again.
                        Ok(_) | Err(SplitError::NotHuge { .. }) => {}
                        Err(SplitError::OutOfFrames) => return Err(GuardRegionError::OutOfFrames),
                        Err(SplitError::Malformed(error)) => return Err(ZapError::Malformed(error).into()),
                    }
                }
                Err(MapError::OutOfFrames { .. }) => return Err(GuardRegionError::OutOfFrames),
                Err(error) => return Err(GuardRegionError::Malformed(error)),
            }
        }
        Ok(())
    }

    /// Step 2, of one table.
    fn guard_entries(
        &self,
        cpu: &P::Cpu,
        gather: &mut Gather<'_, 'm, P>,
        table: &mut LockedTable<'_, P::Cpu>,
        (from, until): (VirtAddr, VirtAddr),
    ) {
        let level = table.level();
        let guard = NonPresent::Marker(Marker::Guard).encode(level);
        let write = &self.protocols().write;
        let mut at = from;
        while at < until {
            match self.held(level, table.entry(&self.protocols().mode, at)) {
                Held::Nothing => table.fill(write, at, guard),
                Held::Marker(Marker::Guard) => {}
                _ => {
                    let cleared = table.replace(write, at, guard);
                    gather.entry(cpu, level, at, cleared);
                }
            }
            at = level.next(at);
        }
    }

    /// Whether the entry of `at` is a guard.
    pub(crate) fn is_guard(&self, table: &LockedTable<'_, P::Cpu>, at: VirtAddr) -> bool {
        let held = self.held(table.level(), table.entry(&self.protocols().mode, at));
        held == Held::Marker(Marker::Guard)
    }

    /// The first guard in a table of pages that translates from `start` on, if the address space ever had one. The table's lock is held.
    pub(crate) fn first_guard(
        &self,
        space: &AddressSpace<'m>,
        table: &LockedTable<'_, P::Cpu>,
        start: VirtAddr,
    ) -> Option<VirtAddr> {
        let level = table.level();
        if level != Level::Pte || !space.has_guards(table.cpu()) {
            return None;
        }
        let mut pages = (0..Level::Pmd.frames()).map(|page| start.wrapping_add(page * level.size()));
        pages.find(|&at| self.is_guard(table, at))
    }
}

impl From<RangeError> for GuardRegionError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<ZapError> for GuardRegionError {
    fn from(error: ZapError) -> Self {
        match error {
            ZapError::Range(error) => Self::Range(error),
            // A walk over tables neither looks into files nor makes tables.
            ZapError::OutOfFrames | ZapError::NoPage { .. } => Self::OutOfFrames,
            ZapError::Malformed(error) => Self::Malformed(MapError::Walk(error)),
        }
    }
}

impl fmt::Display for GuardRegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => write!(f, "{error:?}"),
            Self::NoArea { address } => write!(f, "no area holds {address}"),
            Self::Unsuitable { area } => {
                write!(f, "the area at {} is a driver's or has huge leaves only: it can have no guards", area.start)
            }
            Self::OutOfFrames => f.write_str("no frame for a page table"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for GuardRegionError {}
