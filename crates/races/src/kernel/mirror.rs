//! A device that mirrors address spaces: its own page table, and the lock of that.

use lab::Arena;
use machine::addr::PAGE_SHIFT;
use machine::{Access, Cpu, Frame, SpinLock, VirtAddr, Word64};
use mm::{AddressSpace, HmmError, HmmPage, HmmRequest, Invalidations, Notify};
use pagetable::Mode;

use super::operations::{Action, Column, Device};
use super::run::{FAULT, Runner};
use super::watch::Told;
use crate::checker::CheckedCpu;

/// The device.
pub(super) struct Mirror<'l> {
    pub(super) lock: SpinLock,
    pub(super) invalidations: Invalidations,
    pub(super) pages: &'l [MirroredPage],
}

/// One page of an address space that the device can have.
pub(super) struct MirroredPage {
    pub(super) space: usize,
    pub(super) address: VirtAddr,
    /// What the device translates to: the frame's address, and in its low bits [`VALID`] and [`WRITABLE`]; 0 = nothing.
    pub(super) entry: Word64,
}

const VALID: u64 = 1;
const WRITABLE: u64 = 2;

impl<'l> Mirror<'l> {
    /// A device for the pages that the columns' operations mirror; `None` if they mirror none.
    pub(super) fn place(arena: &'l Arena, columns: &[Column]) -> Option<&'l Self> {
        let mut pages: Vec<(usize, VirtAddr)> = Vec::new();
        for step in columns.iter().flat_map(|column| &column.steps) {
            if let Action::Mirror { space, address, .. } = step.action {
                pages.push((usize::from(space.number()), address));
            }
        }
        pages.sort_unstable();
        pages.dedup();
        (!pages.is_empty()).then(|| {
            let place = |index: usize| {
                let (space, address) = pages[index];
                MirroredPage { space, address, entry: Word64::new(0) }
            };
            let pages = arena.alloc_slice(pages.len(), place);
            arena.alloc(Self { lock: SpinLock::new(), invalidations: Invalidations::new(), pages })
        })
    }

    fn page(&self, space: usize, address: VirtAddr) -> Option<&MirroredPage> {
        self.pages.iter().find(|page| page.space == space && page.address == address)
    }
}

/// The device, as the engine's invalidations find it.
pub(super) struct LabNotify<'l> {
    pub(super) mirror: Option<&'l Mirror<'l>>,
    pub(super) spaces: &'l [AddressSpace<'l>],
}

impl<'l> LabNotify<'l> {
    /// The pages of a range that the device can have, if there are any.
    fn mirrored(
        &self,
        space: &AddressSpace<'_>,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Option<(&'l Mirror<'l>, impl Iterator<Item = &'l MirroredPage>)> {
        let mirror = self.mirror?;
        let is_own = |own: &AddressSpace<'_>| std::ptr::eq(own.active_word(), space.active_word());
        let space = self.spaces.iter().position(is_own)?;
        let within = move |page: &&MirroredPage| page.space == space && (start..end).contains(&page.address);
        mirror.pages.iter().any(|page| within(&page)).then(|| (mirror, mirror.pages.iter().filter(within)))
    }
}

impl<C: Cpu> Notify<C> for LabNotify<'_> {
    fn start(&self, cpu: &C, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr) {
        if let Some((mirror, pages)) = self.mirrored(space, start, end) {
            mirror.invalidations.start(cpu);
            let lock = mirror.lock.lock(cpu);
            for page in pages {
                cpu.owned_store(&page.entry, 0);
            }
            lock.unlock();
        }
    }

    fn end(&self, cpu: &C, space: &AddressSpace<'_>, start: VirtAddr, end: VirtAddr) {
        if let Some((mirror, _)) = self.mirrored(space, start, end) {
            mirror.invalidations.end(cpu);
        }
    }
}

impl<'m, M: Mode, C: CheckedCpu> Runner<'_, 'm, M, C> {
    /// The device gets the page, faulted in for this access.
    pub(super) fn mirror(
        &self,
        number: usize,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), HmmError> {
        let Some(mirror) = self.mm.notify().mirror else { return Ok(()) };
        let Some(own) = mirror.page(number, address) else { return Ok(()) };
        let request = match access {
            Access::Read => HmmRequest::Fault,
            Access::Write => HmmRequest::FaultForWrite,
        };
        let mut found = [HmmPage::None];
        let pages = (address, &mut found[..]);
        self.mm.mirror(
            self.cpu,
            space,
            &mirror.invalidations,
            pages,
            |_| request,
            |pages, check| {
                let lock = mirror.lock.lock(self.cpu);
                let checked = check.check();
                if let (Ok(_), [HmmPage::Valid { frame, access, .. }]) = (&checked, pages) {
                    let writable = if *access == Access::Write { WRITABLE } else { 0 };
                    self.cpu.owned_store(&own.entry, frame.start().as_u64() | VALID | writable);
                }
                lock.unlock();
                checked
            },
        )
    }

    /// The device accesses an address, by what its page table says. Whoever tells it to forget waits for the access: it is made under the device's lock. Returns what was in the frame.
    pub(super) fn mirrored_access(&self, number: usize, address: VirtAddr, device: Device) -> u64 {
        let Some(mirror) = self.mm.notify().mirror else { return FAULT };
        let Some(page) = mirror.page(number, address) else { return FAULT };
        let lock = mirror.lock.lock(self.cpu);
        let entry = self.cpu.owned_load(&page.entry);
        let frame = Frame::new(entry >> PAGE_SHIFT);
        let held = match device {
            Device::Load if entry & VALID != 0 => self.device(frame, device),
            Device::Store(_) if entry & WRITABLE != 0 => {
                let held = self.device(frame, device);
                Told::DeviceWrote { frame }.tell(self.cpu);
                held
            }
            Device::Load | Device::Store(_) => FAULT,
        };
        lock.unlock();
        held
    }
}
