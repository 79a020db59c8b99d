//! Loads and stores made by user code.

use crate::addr::VirtAddr;
use crate::cpu::Cpu;

/// What user code does at an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Loads from it.
    Read,
    /// Stores to it.
    Write,
}

/// The hardware found no translation that allows the access (#PF).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The address accessed (CR2).
    pub address: VirtAddr,
    /// The access.
    pub access: Access,
    /// What forbade it (bits 0 and 5 of the error code).
    pub cause: FaultCause,
}

/// Bits 0 and 5 of the page-fault error code (SDM vol. 3A, 4.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultCause {
    /// An entry was not present.
    NotPresent,
    /// A translation exists and forbids the access. May be spurious: a stale TLB entry had fewer rights.
    Protection,
    /// A translation exists, and what the thread may do by the protection key of the page forbids the access, whatever the entries allow.
    ProtectionKey,
}

/// A CPU with an MMU, on which user code can run.
pub trait UserAccess: Cpu {
    /// Performs one user-mode access of the page table that is loaded, through the TLB.
    ///
    /// # Errors
    /// The page fault that the hardware raised; the access did not happen.
    #[track_caller]
    fn user_access(&self, address: VirtAddr, access: Access) -> Result<(), PageFault>;

    /// Loads a word from the page at `address`, as user code would.
    ///
    /// # Errors
    /// As for [`Self::user_access`].
    #[track_caller]
    fn user_load(&self, address: VirtAddr) -> Result<u64, PageFault>;

    /// Stores a word to the page at `address`, as user code would. It reaches the frame that the translation used now names, however long it
    /// waits in the store buffer (MODEL.md, F12).
    ///
    /// # Errors
    /// As for [`Self::user_access`].
    #[track_caller]
    fn user_store(&self, address: VirtAddr, value: u64) -> Result<(), PageFault>;
}
