//! Who resolves what is handed over.

use machine::addr::VirtAddr;
use machine::{Access, Cpu};

use crate::space::AddressSpace;
use crate::uffd::UffdModes;

/// A fault that is handed over (Linux: `UFFD_EVENT_PAGEFAULT`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UffdFault {
    /// The page: 4 KiB aligned.
    pub address: VirtAddr,
    /// What was tried.
    pub access: Access,
    /// Why it is handed over.
    pub reason: UffdReason,
}

/// Why a fault is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UffdReason {
    /// Nothing is mapped there.
    Missing,
    /// A store, and the page is write-protected.
    WriteProtected,
}

impl UffdReason {
    /// The mode in which an area must be registered for it.
    pub const fn mode(self) -> UffdModes {
        match self {
            Self::Missing => UffdModes::MISSING,
            Self::WriteProtected => UffdModes::WRITE_PROTECT,
        }
    }
}

/// The other end of the kernel's userfaultfds: tells whoever reads them of faults, and lets those who faulted wait.
///
/// # No wake-up is lost
///
/// Whoever resolves a fault changes the entry first and wakes second. So [`Self::wait`] makes the fault known first, asks `must_wait` second, and goes to sleep only if it must and nobody has woken
/// anybody at this address since the fault was made known (Linux: `userfaultfd_must_wait`, asked with the fault on the queue already).
pub trait UffdHandler<C: Cpu> {
    /// Which faults somebody may want. Areas are registered for no others.
    const MODES: UffdModes = UffdModes::MISSING.and(UffdModes::WRITE_PROTECT);

    /// Makes the fault known, and waits until its address is woken, if it `must_wait`. To return early costs no more than that the access faults again.
    ///
    /// Context: no lock, interrupts on. `must_wait` takes the mmap lock for reading.
    fn wait(&self, cpu: &C, space: &AddressSpace<'_>, fault: UffdFault, must_wait: impl FnOnce() -> bool);

    /// Ends the waits for addresses of `start..end`.
    ///
    /// Context: no lock, interrupts on.
    fn wake(&self, cpu: &C, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr);
}

/// There are no userfaultfds.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoUffd;

impl<C: Cpu> UffdHandler<C> for NoUffd {
    const MODES: UffdModes = UffdModes::NONE;

    fn wait(&self, _: &C, _: &AddressSpace<'_>, _: UffdFault, _: impl FnOnce() -> bool) {}

    fn wake(&self, _: &C, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {}
}
