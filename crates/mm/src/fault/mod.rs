//! From a page fault to an entry.
//!
//! | module | what |
//! |---|---|
//! | `file` | shared areas: the file's own pages, a driver's frames |
//! | `private` | private areas: what is there decides what is to be done |
//! | `missing` | nothing is there: zero page, zeroed page, page of the file, copy of it |
//! | `cow` | a page is there that may not be written, or is not this space's alone |
//! | `numa_hint` | a page is there, and somebody wants to know who uses it |
//! | `non_present` | no page is there, but something else: PROT_NONE, migration, a marker |
//! | `swap_in` | the page is on swap |
//! | `huge` | huge pages of anonymous memory |
//! | `uffd` | faults that are handed over, and the pages that come for them |
//!
//! # Protocol for private areas
//!
//! 1. The entry is read without a lock. What it holds says what to prepare: a folio, with contents, referenced once.
//! 2. The page-table lock is taken and the entry compared with what was read. If it changed, what was prepared is given back, and the fault looks again.
//! 3. The entry is changed. One that was present for another frame is cleared, *flushed*, and only then replaced, all under the lock: no CPU may still
//!    read the old page while another writes the new one.
//!
//! So everything that can fail comes before anything changes.

mod cow;
mod file;
mod huge;
mod missing;
mod non_present;
mod numa_hint;
mod private;
mod swap_in;
mod uffd;

use machine::addr::{Frame, VirtAddr};
use machine::user::FaultCause;
use machine::{Access, Cpu, PageFault};
use pagetable::{Attributes, Entry, Flags, Level, LockedTable, MapError, Position, Rights, WalkError};

use crate::area::{Area, AreaRights, Sharing};
use crate::error::{FaultError, ReclaimError};
use crate::fault::numa_hint::Hints;
use crate::file::FileKind;
use crate::guard::Guards;
use crate::leaf::Presence;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::protection_keys::Accessor;
use crate::reclaim::Migrated;
use crate::space::AddressSpace;
use crate::special::Attempt;
use crate::trace::Event;

/// What the entry is to allow after the fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// A load.
    Read,
    /// A store.
    Write,
    /// A store by the kernel, by request of a debugger, whatever the area allows: never into a page of a file (FOLL_FORCE).
    ForcedWrite,
    /// A load from a page that stays this space's: what a pin for reading needs (Linux: FAULT_FLAG_UNSHARE).
    Unshare,
}

impl Want {
    /// Whether the area allows it.
    pub(crate) fn allowed_in(self, area: &Area) -> bool {
        match self {
            // Into a copy of what may be read anyway.
            Self::ForcedWrite => {
                area.rights.allow(Access::Write) || area.sharing == Sharing::Private && area.rights.allow(Access::Read)
            }
            Self::Read | Self::Unshare | Self::Write => area.rights.allow(self.access()),
        }
    }

    /// What is done to the page.
    pub(crate) const fn access(self) -> Access {
        match self {
            Self::Read | Self::Unshare => Access::Read,
            Self::Write | Self::ForcedWrite => Access::Write,
        }
    }
}

impl From<Access> for Want {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

/// What came of an attempt to resolve a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// An entry allows the access now.
    Mapped,
    /// What was there has changed meanwhile: look again.
    Changed,
    /// A table is where the leaf should go: map a smaller one.
    Smaller,
    /// By a NUMA hint, the page that is in this frame is to move first.
    Misplaced(Frame),
}

/// How many bits of a loop's digest say which level is tried.
const LEVEL_BITS: u32 = 8;

/// A fault, as far as it has been understood.
struct Fault {
    area: Area,
    want: Want,
    /// The level of the leaf that is to be mapped.
    level: Level,
    /// The first address that the leaf covers.
    address: VirtAddr,
    hints: Hints,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Resolves a page fault of user code: on return the access can be tried again. Below a stack, the stack grows. Where an area is registered for it, somebody else resolves the fault, and this
    /// waits for that ([`crate::uffd::UffdHandler`]).
    ///
    /// The entry may be gone again by then: then it faults again.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The access is not allowed there, or there are no frames. Nothing has changed then but that tables may have been added.
    pub fn handle_fault(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, fault: PageFault) -> Result<(), FaultError> {
        self.trace(cpu, || Event::PageFault(fault));
        let mut attempt = Attempt::First;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, attempt as u64);
            let here = (fault.address, fault.address);
            let mmap = space.mmap_read(cpu, here);
            let result = match fault.cause {
                FaultCause::ProtectionKey => Err(self.key_fault(cpu, space, fault.address, fault.access)),
                FaultCause::NotPresent | FaultCause::Protection => {
                    self.fault_in(cpu, space, fault.address, fault.access.into(), attempt, Accessor::ThisThread)
                }
            };
            let stack = matches!(result, Err(FaultError::NoArea { .. }))
                .then(|| self.stack_above(cpu, space, fault.address, here));
            mmap.unlock();
            match (result, stack) {
                (_, Some(stack)) => self.grow_stack(cpu, space, fault.address, stack?)?,
                (Ok(()), None) => return Ok(()),
                (Err(error), None) => attempt = self.wait_for_resolution(cpu, space, error)?,
            }
        }
    }

    /// Maps the page that belongs at `address`. The caller holds the mmap lock, and says whether it has dropped it to wait for a driver.
    pub(crate) fn fault_in(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        want: Want,
        attempt: Attempt,
        accessor: Accessor,
    ) -> Result<(), FaultError> {
        let area = space.find(cpu, address).ok_or(FaultError::NoArea { address })?;
        area.check_key(cpu, address, want.access(), accessor)?;
        if !want.allowed_in(&area) {
            return Err(FaultError::Forbidden { address, access: want.access(), area });
        }
        let page = area.file_page(address);
        let no_page = FaultError::NoPage { file: area.file, page };
        let file = self.file(area.file).ok_or(no_page)?;
        if file.kind().has_handler() {
            return self.fault_special(cpu, space, &area, file, (address, want.access(), attempt));
        }
        let mut level = file.leaf();
        let mut hints = Hints::Ask;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, level as u64 | u64::from(hints == Hints::Ignore) << LEVEL_BITS);
            let fault = |level: Level| Fault { area, want, level, address: address.align_down(level.size()), hints };
            let outcome = match (file.kind(), area.sharing) {
                (FileKind::Cached, Sharing::Shared) => self.fault_cached(cpu, space, &fault(level), file),
                (FileKind::Driver, Sharing::Shared) => self.fault_driver(cpu, space, &fault(level), file),
                (FileKind::Cached | FileKind::Anonymous, Sharing::Private) => {
                    self.fault_private(cpu, space, &fault(Level::Pte), file)
                }
                // A file without pages has none to share, and of a driver's frames no copies are made.
                (FileKind::Anonymous, Sharing::Shared)
                | (FileKind::Driver, Sharing::Private)
                | (FileKind::PfnMapped | FileKind::Mixed, _) => Err(no_page),
            };
            match outcome? {
                Outcome::Mapped => return Ok(()),
                Outcome::Changed => {}
                // Tables stay while the mmap lock is held, so it never grows again.
                Outcome::Smaller => level = level.lower().unwrap_or(level),
                Outcome::Misplaced(frame) => {
                    // If it must stay, it is used where it is; so it is if it is misplaced even then.
                    let _: Result<Migrated, ReclaimError> = self.migrate(cpu, frame);
                    hints = Hints::Ignore;
                }
            }
        }
    }

    /// One attempt to give an address space a page of its own where it maps one that others may have, too: `seen`, which was in the entry of `address` in this table. The area need not
    /// allow an access. The caller holds the mmap lock.
    pub(crate) fn unshare_page(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        position: &Position<'_>,
        (address, seen): (VirtAddr, Entry),
    ) -> Result<Outcome, FaultError> {
        let area = space.find(cpu, address).ok_or(FaultError::NoArea { address })?;
        let fault = Fault { area, want: Want::Unshare, level: Level::Pte, address, hints: Hints::Ignore };
        self.fault_on_page(cpu, space, &fault, position, seen)
    }

    /// Locks the table that is to hold the leaf, and makes it and those above if they are missing.
    fn lock_leaf_table<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
    ) -> Result<LockedTable<'t, P::Cpu>, FaultError> {
        let tables = self.page_tables(space);
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let position = tables
                .populate(cpu, self.tables(), &self.protocols().publish, fault.address, fault.level)
                .map_err(|error| match error {
                MapError::Walk(WalkError::Leaf { .. }) => fault.occupied(),
                error => error.into(),
            })?;
            // The mmap lock is held: no table is detached. But this address space may leave one that others share.
            if let Ok(table) = self.protocols().guards.lock_if_linked(cpu, &position) {
                return Ok(table);
            }
        }
    }
}

impl Fault {
    const fn is_write(&self) -> bool {
        matches!(self.want, Want::Write | Want::ForcedWrite)
    }

    /// Accessed, and dirty for a write: software sets them here, to save the hardware a locked access a moment later.
    const fn flags(&self) -> Flags {
        match self.want {
            Want::Read | Want::Unshare => Flags::ACCESSED,
            Want::Write | Want::ForcedWrite => Flags::ACCESSED_DIRTY.and(Flags::soft_dirty(self.level)),
        }
    }

    /// What an entry needs so that it can be written: see `soft_dirty`.
    const fn writable(&self) -> Flags {
        Flags::WRITE.and(Flags::soft_dirty(self.level))
    }

    /// Of an entry that allows all that the area does.
    const fn attributes(&self) -> Attributes {
        match self.area.rights {
            AreaRights::None | AreaRights::Read => self.read_only(),
            AreaRights::ReadWrite => self.read_only().with(self.writable()),
        }
    }

    /// Whether the hardware may use the entry. Only who unmerges comes to a page that nobody may access: faults are refused there.
    const fn presence(&self) -> Presence {
        match self.area.rights {
            AreaRights::None => Presence::ProtNone,
            AreaRights::Read | AreaRights::ReadWrite => Presence::Present,
        }
    }

    /// Of an entry that allows no writing.
    const fn read_only(&self) -> Attributes {
        Attributes::new(Rights::USER).with_protection_key(self.area.key).with(self.flags())
    }

    /// The page of the area's file that belongs at the address.
    const fn file_page(&self) -> u64 {
        self.area.file_page(self.address)
    }

    const fn no_page(&self) -> FaultError {
        FaultError::NoPage { file: self.area.file, page: self.file_page() }
    }

    const fn bad_frame(&self, frame: Frame) -> FaultError {
        FaultError::BadFrame { file: self.area.file, frame, level: self.level }
    }

    const fn occupied(&self) -> FaultError {
        FaultError::Occupied { address: self.address, level: self.level }
    }
}
