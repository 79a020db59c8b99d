//! Slow GUP: under the mmap lock and page-table locks, with faults where a page is missing.

use machine::Cpu;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::{Level, WalkError};

use crate::error::{FaultError, GupError};
use crate::folio::{Folio, NotGrabbed};
use crate::gup::Run;
use crate::gup::fast::{needed, subframe};
use crate::gup::flags::Request;
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;
use crate::space::AddressSpace;

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes references on the pages of `start..end`, faulting in what is missing, and returns on how many.
    ///
    /// Context: interrupts on, no lock.
    pub(super) fn gup_slow(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        end: VirtAddr,
        request: Request,
        sink: &mut impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let mmap = space.mmap_lock().read(cpu);
        let mut at = start;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            match self.page_under_lock(cpu, space, at, request) {
                Ok(run) => {
                    sink(run);
                    at = at.wrapping_add(PAGE_SIZE);
                }
                Err(error) => result = Err(error),
            }
        }
        mmap.unlock();
        match result {
            Err(error) if at == start => Err(error),
            _ => Ok((at.as_u64() - start.as_u64()) / PAGE_SIZE),
        }
    }

    /// One page. The caller holds the mmap lock.
    fn page_under_lock(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        at: VirtAddr,
        request: Request,
    ) -> Result<Run, GupError> {
        let area = space.find(cpu, at).ok_or(FaultError::NoArea { address: at })?;
        // The fast path has only the special bit to tell a driver's page by; here the area says so (Linux: VM_PFNMAP in `check_vma_flags`).
        if self.file(area.file).is_some_and(|file| file.kind().is_pfn_mapped()) {
            return Err(GupError::Special { address: at });
        }
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            if let Some(run) = self.follow(cpu, space, at, request)? {
                return Ok(run);
            }
            self.fault_in(cpu, space, at, request.access.into())?;
        }
    }

    /// Takes a reference on the page that is mapped at `at` with the rights asked for; `None` if there is none.
    fn follow(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        at: VirtAddr,
        request: Request,
    ) -> Result<Option<Run>, GupError> {
        let protocols = self.protocols();
        let tables = self.page_tables(space);
        let level = match tables.find(cpu, at, Level::Pte) {
            Ok(_) => Level::Pte,
            Err(WalkError::Leaf { level, .. }) => level,
            Err(WalkError::NotPresent { .. }) => return Ok(None),
            Err(error) => return Err(FaultError::from(error).into()),
        };
        let Ok(position) = tables.find(cpu, at, level) else { return Ok(None) };
        let table = position.lock(cpu);
        let entry = table.entry(&protocols.mode, at);
        if !entry.is_present() || !entry.is_leaf(level) || !entry.rights().allow(needed(request.access)) {
            return Ok(None);
        }
        if entry.is_marked(protocols.special.mark()) {
            return Err(GupError::Special { address: at });
        }
        let frame = subframe(level, entry, at);
        let folio = match Folio::try_grab(self.map(), cpu, frame, 1, request.reference) {
            Ok(folio) => folio,
            Err(NotGrabbed::CountLimit) => return Err(GupError::CountLimit { address: at }),
            Err(NotGrabbed::NoRecord | NotGrabbed::Free) => return Err(GupError::NotAllowed { address: at }),
        };
        if !folio.flags(cpu).allow(request.term, request.access) {
            // Taken a moment ago: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, request.reference);
            return Err(GupError::NotAllowed { address: at });
        }
        Ok(Some(Run { frame, pages: 1, reference: request.reference }))
    }
}
