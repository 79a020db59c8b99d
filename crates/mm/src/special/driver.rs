//! A driver's own fault handler, and what it may do.

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu};
use pagetable::Level;

use crate::area::Area;
use crate::file::{File, FileId};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::insert::{InsertError, Inserted};
use crate::special::leaf::PfnLeaf;
use crate::special::prefault::{Pages, Populated};

/// What a driver makes of a fault on one of its files (Linux: `vm_operations_struct`, `fault` and `huge_fault`).
///
/// # Locks
///
/// [`Self::fault`] is called with the mmap lock of the address space held for reading, and no other lock. Order: mmap lock, the driver's locks, the rmap lock of the
/// file, page-table locks. So:
///
/// 1. The lock under which the driver revokes ([`Mm::unmap_mapping`]) is held from the decision for a frame until the insertion has returned. Otherwise a
///    revoke in between finds nothing to take away, and the frame is mapped after it. [`File::driver_lock`] will do, and so will a lock of the driver's own.
/// 2. The first time that a fault asks ([`DriverFaultContext::attempt`]), the driver tries its lock. If that is held, it answers [`DriverAnswer::Retry`] and waits in
///    [`Self::wait`], so that nobody who wants the mmap lock waits for both (Linux: VM_FAULT_RETRY, as TTM does with a buffer's reservation).
/// 3. When it has waited, the fault asks again, and the driver gets on: it waits for its lock there and then, and maps the page or fails (Linux: FAULT_FLAG_TRIED,
///    `fault_flag_allow_retry_first`). If it tried once more, others whose faults wait for the same lock could keep it from that for ever.
/// 4. It takes no mmap lock, and calls nothing that does; nor does whoever else holds that lock of the driver's.
pub trait DriverFault<P: Platform> {
    /// Maps what belongs at the address, or says why not.
    ///
    /// Asked first for the largest leaf of the file ([`File::leaf`]) whose place lies inside the area; after [`DriverAnswer::Fallback`] for the next
    /// smaller one. It may insert at another level than it was asked for.
    ///
    /// Context: see [the trait](Self); interrupts on.
    fn fault(&self, context: &DriverFaultContext<'_, '_, P>) -> DriverAnswer;

    /// Waits for what made [`Self::fault`] answer [`DriverAnswer::Retry`]. The fault starts again from the beginning afterwards: even the area may be another.
    ///
    /// Context: no lock, interrupts on.
    fn wait(&self, cpu: &P::Cpu, file: FileId, page: u64) {
        let _ = (file, page);
        cpu.relax();
    }
}

/// Whether a fault has been given up before, to wait for a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// It has not: the driver may answer [`DriverAnswer::Retry`].
    First,
    /// It has, and this driver has waited: see rule 3 of [`DriverFault`].
    AfterWait,
}

/// What a driver made of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverAnswer {
    /// An entry is there.
    Mapped,
    /// Not with a leaf of this level: ask for a smaller one.
    Fallback,
    /// There is no page (SIGBUS).
    NoPage,
    /// Not now: wait without the mmap lock ([`DriverFault::wait`]), and ask again. For the first attempt; who answers so later waits once more, perhaps in vain.
    Retry,
    /// The insertion was refused.
    Failed(InsertError),
}

impl From<Result<Inserted, InsertError>> for DriverAnswer {
    fn from(result: Result<Inserted, InsertError>) -> Self {
        match result {
            Ok(_) => Self::Mapped,
            Err(InsertError::Fallback { .. }) => Self::Fallback,
            Err(error) => Self::Failed(error),
        }
    }
}

/// There are no drivers with fault handlers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDrivers;

impl<P: Platform> DriverFault<P> for NoDrivers {
    fn fault(&self, _: &DriverFaultContext<'_, '_, P>) -> DriverAnswer {
        DriverAnswer::NoPage
    }
}

/// A fault that a driver is asked to resolve.
pub struct DriverFaultContext<'f, 'm, P: Platform> {
    pub(super) mm: &'f Mm<'m, P>,
    pub(super) cpu: &'f P::Cpu,
    pub(super) space: &'f AddressSpace<'m>,
    pub(super) area: Area,
    pub(super) file: &'m File<'m>,
    pub(super) address: VirtAddr,
    pub(super) access: Access,
    pub(super) level: Level,
    pub(super) attempt: Attempt,
}

impl<'f, 'm, P: Platform> DriverFaultContext<'f, 'm, P> {
    /// The memory manager.
    pub const fn mm(&self) -> &'f Mm<'m, P> {
        self.mm
    }

    /// The CPU that faulted.
    pub const fn cpu(&self) -> &'f P::Cpu {
        self.cpu
    }

    /// The file.
    pub const fn file(&self) -> &'m File<'m> {
        self.file
    }

    /// The area, which stays as it is for as long as the driver has not answered.
    pub const fn area(&self) -> &Area {
        &self.area
    }

    /// The 4 KiB page that faulted.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// The page of the file that lies there.
    pub const fn page(&self) -> u64 {
        self.area.file_page(self.address)
    }

    /// The page of the file at which the leaf of [`Self::level`] begins that would hold [`Self::page`].
    pub const fn leaf_page(&self) -> u64 {
        self.area.file_page(self.address.align_down(self.level.size()))
    }

    /// What was tried.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// The size of leaf that is asked for. Its place lies inside the area.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Whether the driver may have the fault given up.
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Inserts a leaf that covers the address (Linux: `vmf_insert_pfn_prot`, `_pmd`, `_pud`, `vmf_insert_mixed`). The rules are those of [`Mm::insert_pfn`].
    ///
    /// # Errors
    /// Why nothing was inserted.
    pub fn insert(&self, leaf: &PfnLeaf) -> Result<Inserted, InsertError> {
        let address = self.address.align_down(leaf.level.size());
        self.mm.insert_in_area(self.cpu, self.space, &self.area, address, leaf, self.access)
    }

    /// Inserts 4 KiB leaves from the address on, one page after the other, at most `pages` and not beyond the area: `frame_of` has the frame for
    /// each page of the file, or none. Only the first is taken for accessed; pages that are mapped already are passed over. Returns how many pages it came to.
    ///
    /// `like` gives rights and caching.
    ///
    /// # Errors
    /// Why the first page was not inserted. What is wrong with a later one only ends the run.
    pub fn insert_pages(
        &self,
        pages: u64,
        like: &PfnLeaf,
        frame_of: impl FnMut(u64) -> Option<Frame>,
    ) -> Result<u64, InsertError> {
        let left = (self.area.end().as_u64() - self.address.as_u64()) / PAGE_SIZE;
        let what =
            Pages { area: &self.area, like, access: self.access, start: self.address, populated: Populated::PassOver };
        let progress = self.mm.insert_run(self.cpu, self.space, what, pages.min(left), frame_of);
        match progress.ended {
            Err(error) if progress.pages == 0 => Err(error),
            _ => Ok(progress.pages),
        }
    }
}
