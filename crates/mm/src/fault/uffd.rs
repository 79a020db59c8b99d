//! Faults that are handed over, and the pages that come for them.

use machine::addr::{Frame, VirtAddr};
use pagetable::{Entry, Level, MapError, WalkError};

use crate::area::Area;
use crate::error::FaultError;
use crate::fault::numa_hint::Hints;
use crate::fault::{Fault, Want};
use crate::folio::Folio;
use crate::frames::FrameSource;
use crate::guard::Guards;
use crate::leaf::{Held, Leaf};
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::uffd::{UffdContents, UffdError, UffdFault, UffdModes, UffdProtection, UffdReason};

impl Fault {
    /// Whether it is one of these, and the area is registered for them.
    pub(super) fn is_for_uffd(&self, reason: UffdReason) -> bool {
        let is_one = match reason {
            UffdReason::Missing => true,
            UffdReason::WriteProtected => self.is_write(),
        };
        is_one && self.area.uffd.has(reason.mode())
    }

    /// It is handed over.
    pub(super) const fn handed_over(&self, reason: UffdReason) -> FaultError {
        FaultError::HandedOver(UffdFault { address: self.address, access: self.want.access(), reason })
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Whether this fault of a protected leaf, or of what remembers one, is handed over.
    pub(super) fn hands_over_write(&self, fault: &Fault, held: Held) -> bool {
        fault.is_for_uffd(UffdReason::WriteProtected) && self.is_uffd_wp(held)
    }

    /// Maps a new page of anonymous memory where nothing is. The caller holds the mmap lock, and has seen that the area is registered.
    ///
    /// # Errors
    /// Something is there, or no frame. Nothing has changed, but that tables may have been added.
    pub(crate) fn uffd_fill_page(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        address: VirtAddr,
        protection: UffdProtection,
        contents: UffdContents<impl FnOnce(Frame)>,
    ) -> Result<(), UffdError> {
        let protect = match protection {
            UffdProtection::None => None,
            UffdProtection::WriteProtected if !area.uffd.has(UffdModes::WRITE_PROTECT) => {
                return Err(UffdError::NotRegistered { address });
            }
            UffdProtection::WriteProtected => self.uffd_wp(),
        };
        match contents {
            UffdContents::Zeros if let Some(zero) = self.frames().zero_page() => {
                let fault = Fault { area: *area, want: Want::Read, level: Level::Pte, address, hints: Hints::Ignore };
                let attributes = fault.read_only().with_mark(self.protocols().special.mark());
                let attributes = protect.map_or(attributes, |mark| attributes.with(mark));
                self.uffd_install(
                    cpu,
                    space,
                    &fault,
                    Leaf { frame: zero, attributes, presence: fault.presence() },
                    None,
                )
            }
            contents => {
                // As if it had been written: the contents are nowhere else.
                let fault = Fault { area: *area, want: Want::Write, level: Level::Pte, address, hints: Hints::Ignore };
                let folio = self.allocate_anonymous(cpu, &fault)?;
                let frame = folio.membership().head;
                let put_in = || match contents {
                    UffdContents::From(fill) => fill(frame),
                    UffdContents::Zeros => self.frames().zero(cpu, folio.membership()),
                };
                let attributes = match protect {
                    Some(mark) => fault.read_only().with(mark),
                    None => fault.attributes(),
                };
                let leaf = Leaf { frame, attributes, presence: fault.presence() };
                let installed = self
                    .protocols()
                    .guards
                    .fill_then_map(put_in, || self.uffd_install(cpu, space, &fault, leaf, Some(&folio)));
                if installed.is_err() {
                    self.give_back(cpu, &folio);
                }
                installed
            }
        }
    }

    /// Writes the leaf, if nothing is there. The entry takes over the caller's reference to the folio.
    fn uffd_install(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        leaf: Leaf,
        folio: Option<&Folio<'m>>,
    ) -> Result<(), UffdError> {
        let address = fault.address;
        let entry = leaf.entry(fault.level).ok_or(UffdError::OutOfFrames)?;
        let tables = self.page_tables(space);
        let position = match tables.populate(cpu, self.tables(), &self.protocols().publish, address, fault.level) {
            Ok(position) => position,
            // A huge page, from before the area was registered.
            Err(MapError::Walk(WalkError::Leaf { .. } | WalkError::NotPresent { .. })) => {
                return Err(UffdError::Exists { address });
            }
            Err(error) => return Err(error.into()),
        };
        // Faults of other CPUs, and others who resolve this one, may have been faster.
        let mut table = self.lock_unchanged(cpu, fault, &position, Entry::NONE).ok_or(UffdError::Exists { address })?;
        if let Some(folio) = folio {
            folio.add_rmap(cpu);
        }
        table.fill(&self.protocols().write, address, entry);
        table.unlock();
        Ok(())
    }
}
