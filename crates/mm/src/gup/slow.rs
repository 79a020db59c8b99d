//! Slow GUP: under the mmap lock and page-table locks, with faults where a page is missing.
//!
//! The mmap lock is held from page to page, and dropped where a fault must wait for a driver or a userfaultfd; afterwards the address is looked at from the beginning, for even
//! the area may be another.

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu};
use pagetable::Level;

use crate::area::{Area, Sharing};
use crate::error::{FaultError, GupError, SplitError};
use crate::fault::Want;
use crate::file::FileKind;
use crate::guard::Guards;
use crate::gup::Run;
use crate::gup::flags::{Foll, Request, Signal};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::Attempt;

/// What was found at an address.
pub(super) enum Followed {
    /// Pages, and references to them.
    Run(Run),
    /// Nothing that can be had as it is: this fault may help.
    Fault(Want),
    /// A huge leaf that is to be split.
    Split,
    /// A frame whose folio must move before it is held for long.
    Movable(Frame),
    /// What was there has changed meanwhile.
    Changed,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes references on the pages of `start..end`, faulting in what is missing, and returns on how many.
    ///
    /// Context: interrupts on, no lock.
    pub(super) fn gup_slow(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        request: Request,
        signal: &impl Fn() -> Signal,
        sink: &mut impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let request = request.slow();
        // The address that a driver was waited for.
        let mut tried = None;
        let mut at = start;
        let mut result = Ok(());
        let head = cpu.loop_head();
        while at < end && result.is_ok() {
            // Pages begin at addresses whose lowest bit is clear.
            cpu.round(&head, at.as_u64() | u64::from(tried == Some(at)));
            let mmap = space.mmap_read(cpu, (at, end));
            while at < end && result.is_ok() {
                let request = if tried == Some(at) { request.tried() } else { request };
                result = self.run_under_lock(cpu, space, (at, end), request, signal).map(|run| {
                    at = at.wrapping_add(u64::from(run.pages) * PAGE_SIZE);
                    sink(run);
                });
            }
            mmap.unlock();
            if let Err(GupError::Fault(error)) = result
                && error.can_be_waited_for()
            {
                result = match signal() {
                    _ if request.has(Foll::NOWAIT) => Err(GupError::WouldBlock { address: at }),
                    Signal::Fatal => Err(GupError::Interrupted { address: at }),
                    Signal::Pending if request.has(Foll::INTERRUPTIBLE) => Err(GupError::Interrupted { address: at }),
                    Signal::Pending | Signal::None => {
                        tried = Some(at);
                        self.wait_for_resolution(cpu, space, error).map(drop).map_err(GupError::Fault)
                    }
                };
            }
        }
        match result {
            Err(error) if at == start => Err(error),
            _ => Ok((at.as_u64() - start.as_u64()) / PAGE_SIZE),
        }
    }

    /// The pages from `at` on that one leaf maps. The caller holds the mmap lock.
    fn run_under_lock(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (at, end): (VirtAddr, VirtAddr),
        mut request: Request,
        signal: &impl Fn() -> Signal,
    ) -> Result<Run, GupError> {
        let Some(area) = space.find(cpu, at) else {
            return self.gate_page(cpu, space, at, request);
        };
        self.check_request(cpu, &area, at, request)?;
        let end = end.min(area.end());
        let head = cpu.loop_head();
        loop {
            // What a forced fault may have changed.
            cpu.round(&head, u64::from(request.access == Access::Write));
            if signal() == Signal::Fatal {
                return Err(GupError::Interrupted { address: at });
            }
            match self.follow(cpu, space, &area, (at, end), request)? {
                Followed::Run(run) => return Ok(run),
                Followed::Fault(_) if request.has(Foll::NOFAULT) => return Err(GupError::NotMapped { address: at }),
                Followed::Fault(want) => {
                    let attempt = if request.has(Foll::TRIED) {
                        self.protocols().guards.attempt_after_wait()
                    } else {
                        Attempt::First
                    };
                    let resolved = self.fault_in(cpu, space, at, want, attempt, request.accessor());
                    resolved.map_err(|error| match error {
                        FaultError::Poisoned { .. } => poisoned(at, request),
                        error => error.into(),
                    })?;
                    if want == Want::ForcedWrite {
                        request = self.protocols().guards.after_forced_fault(request);
                    }
                }
                Followed::Split => match self.split_leaf_under_lock(cpu, space, at) {
                    Ok(_) | Err(SplitError::NotHuge { .. }) => {}
                    Err(SplitError::OutOfFrames) => return Err(FaultError::OutOfFrames.into()),
                    Err(SplitError::Malformed(error)) => return Err(FaultError::from(error).into()),
                },
                Followed::Movable(frame) => {
                    // On success another folio is there, on the next look.
                    self.migrate(cpu, frame).map_err(|error| GupError::NotMigrated { address: at, error })?;
                }
                Followed::Changed => {}
            }
        }
    }

    /// What the area says, whatever is mapped there (Linux: `check_vma_flags`).
    fn check_request(&self, cpu: &P::Cpu, area: &Area, address: VirtAddr, request: Request) -> Result<(), GupError> {
        let kind = self.file(area.file).map(|file| file.kind());
        // The fast path has only the special bit to tell a driver's page by; here the area says so (Linux: VM_PFNMAP).
        if kind.is_some_and(FileKind::is_pfn_mapped) {
            return Err(GupError::Special { address });
        }
        if request.has(Foll::ANON) && kind != Some(FileKind::Anonymous) {
            return Err(GupError::NotAnonymous { address });
        }
        let forced = request.has(Foll::FORCE)
            && match request.access {
                Access::Read => true,
                // The write goes into a copy. A shared area has none, and the pages of its file are not for debuggers.
                Access::Write => area.sharing == Sharing::Private,
            };
        if area.rights.allow(request.access) || forced {
            // Force is about what the area allows. What a thread has forbidden itself stays so.
            Ok(area.check_key(cpu, address, request.access, request.accessor())?)
        } else {
            Err(FaultError::Forbidden { address, access: request.access, area: *area }.into())
        }
    }
}

/// What to say of failed memory.
pub(super) const fn poisoned(address: VirtAddr, request: Request) -> GupError {
    if request.has(Foll::HWPOISON) { GupError::Poisoned { address } } else { GupError::NotAllowed { address } }
}

/// How many pages there are from `at` to the end of its leaf of `level`, or to `end`.
pub(super) fn pages_of_leaf(level: Level, at: VirtAddr, end: VirtAddr) -> u32 {
    let left = level.next(at).as_u64().wrapping_sub(at.as_u64());
    // A leaf has at most 2^18 pages.
    (left.min(end.as_u64() - at.as_u64()) / PAGE_SIZE) as u32
}
