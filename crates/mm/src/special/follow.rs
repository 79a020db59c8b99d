//! Reading what a driver has mapped, for those who translate by a copy of the page table (Linux: `follow_pfnmap_start`, `follow_pfnmap_end`).
//!
//! # Protocol
//!
//! Nobody holds references to a driver's frame, so what was read is right only as long as nobody can take the entry away: under the page-table lock. The entry
//! that leads to the lock is read without it, and may be gone by the time the lock is held; so it is read *again* under the lock, and only that copy counts
//! (Linux ffef67b93aa3).
//!
//! A virtual machine or a device that keeps the frame beyond that needs [`crate::Notify`]: it counts invalidations before it asks, puts the frame into its table
//! under the lock that its `start` takes, and only if there was none since. Then a revoke either comes first, and it asks again, or second, and
//! tells it to forget the frame.

use core::fmt;

use machine::addr::{Frame, VirtAddr};
use machine::{Access, Cpu};
use pagetable::{Entry, Level, LockedTable, MapError, Position, Rights, WalkError};

use crate::file::FileId;
use crate::guard::Guards;
use crate::gup::subframe;
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;
use crate::space::{AddressSpace, MmapRead};

/// What is mapped at an address, and the locks that keep it so. It ends with the value ([`Self::end`]).
///
/// Context: the holder has a page-table lock. It does not wait, faults nothing in and calls nothing of the engine that takes locks.
#[must_use = "the entry may go as soon as this is dropped"]
pub struct FollowedPfn<'t, C: Cpu> {
    frame: Frame,
    level: Level,
    rights: Rights,
    special: Special,
    // In the order in which they are dropped.
    table: LockedTable<'t, C>,
    mmap: MmapRead<'t, C>,
}

/// Whether an entry is special.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// It is: no reference keeps the frame.
    Yes,
    /// It is an ordinary one.
    No,
}

/// Why there is nothing to follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowError {
    /// No area holds the address.
    NoArea {
        /// The address.
        address: VirtAddr,
    },
    /// The area's file is not PFN-mapped: its pages have references, to be had by GUP.
    NotPfnMapped {
        /// The file.
        file: FileId,
    },
    /// Nothing is mapped there now: fault it in ([`Mm::handle_fault`]) and try again.
    NotMapped {
        /// The address.
        address: VirtAddr,
    },
    /// A page table holds what it must not.
    Malformed(MapError),
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Looks up what is mapped at `address` of an area of a PFN-mapped file, and holds it.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// Why there is nothing. No lock is held then.
    pub fn follow_pfnmap<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &'t AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<FollowedPfn<'t, P::Cpu>, FollowError> {
        let mmap = space.mmap_read(cpu, (address, address));
        match self.follow_locked(cpu, space, address) {
            Ok((table, level, entry)) => Ok(FollowedPfn {
                frame: subframe(level, entry, address),
                level,
                rights: entry.rights(),
                special: if entry.is_marked(self.protocols().special.mark()) { Special::Yes } else { Special::No },
                table,
                mmap,
            }),
            Err(error) => {
                mmap.unlock();
                Err(error)
            }
        }
    }

    /// The caller holds the mmap lock.
    fn follow_locked<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &'t AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(LockedTable<'t, P::Cpu>, Level, Entry), FollowError> {
        let area = space.find(cpu, address).ok_or(FollowError::NoArea { address })?;
        if !self.file(area.file).is_some_and(|file| file.kind().is_pfn_mapped()) {
            return Err(FollowError::NotPfnMapped { file: area.file });
        }
        let mode = &self.protocols().mode;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let (position, seen) = self.leaf_position(cpu, space, address)?;
            let level = position.level();
            let table = position.lock(cpu);
            let entry = self.protocols().guards.entry_under_lock(seen, || table.entry(mode, address));
            if !entry.is_present() {
                table.unlock();
                return Err(FollowError::NotMapped { address });
            }
            if entry.is_leaf(level) {
                return Ok((table, level, entry));
            }
            // A table has taken the place of the leaf.
            table.unlock();
        }
    }

    /// The table that holds the leaf for `address`, and what was read from it, without a lock.
    fn leaf_position<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &'t AddressSpace<'m>,
        address: VirtAddr,
    ) -> Result<(Position<'t>, Entry), FollowError> {
        let tables = self.page_tables(space);
        let mut level = Level::Pte;
        loop {
            match tables.find(cpu, address, level) {
                Ok(position) => {
                    let seen = position.slot().read(cpu, &self.protocols().read);
                    return Ok((position, seen));
                }
                Err(WalkError::Leaf { level: found, .. }) if found > level => level = found,
                Err(WalkError::NotPresent { .. }) => return Err(FollowError::NotMapped { address }),
                Err(error) => return Err(FollowError::Malformed(error.into())),
            }
        }
    }
}

impl<C: Cpu> FollowedPfn<'_, C> {
    /// The frame that holds the address.
    pub const fn frame(&self) -> Frame {
        self.frame
    }

    /// The size of the leaf.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// What the leaf allows.
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// Whether the entry allows user code this access.
    pub const fn allows(&self, access: Access) -> bool {
        self.rights.allow(crate::gup::needed(access))
    }

    /// Whether the entry is special.
    pub const fn special(&self) -> Special {
        self.special
    }

    /// Lets go: the same as dropping this, but a trace then names the caller's line.
    #[track_caller]
    pub fn end(self) {
        let Self { table, mmap, .. } = self;
        table.unlock();
        mmap.unlock();
    }
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArea { address } => write!(f, "no area holds {address}"),
            Self::NotPfnMapped { file } => write!(f, "file {} is not PFN-mapped", file.number()),
            Self::NotMapped { address } => write!(f, "nothing is mapped at {address}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FollowError {}
