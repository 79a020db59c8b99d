//! From a page fault to the driver's handler, level by level.

use machine::Access;
use machine::addr::VirtAddr;
use pagetable::{Flags, Level};

use crate::area::Area;
use crate::error::FaultError;
use crate::file::File;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::driver::{Attempt, DriverAnswer, DriverFault, DriverFaultContext};
use crate::zap::ZapOf;

impl<'m, P: Platform> Mm<'m, P> {
    /// Asks the driver of a PFN-mapped or mixed file. The caller holds the mmap lock, and has seen that the area allows the access.
    pub(crate) fn fault_special(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        file: &'m File<'m>,
        (address, access, attempt): (VirtAddr, Access, Attempt),
    ) -> Result<(), FaultError> {
        let address = address.align_down(Level::Pte.size());
        let page = area.file_page(address);
        let mut level = file.leaf();
        loop {
            if area.holds_leaf(address, level) {
                let context =
                    DriverFaultContext { mm: self, cpu, space, area: *area, file, address, access, level, attempt };
                match self.drivers().fault(&context) {
                    DriverAnswer::Mapped => return Ok(()),
                    DriverAnswer::NoPage => return Err(FaultError::NoPage { file: area.file, page }),
                    DriverAnswer::Retry => return Err(FaultError::DriverBusy { file: area.file, page }),
                    DriverAnswer::Failed(error) => return Err(FaultError::Driver(error)),
                    DriverAnswer::Fallback => self.make_room(cpu, space, address, level, access)?,
                }
            }
            level = level.lower().ok_or(FaultError::NoPage { file: area.file, page })?;
        }
    }

    /// The driver wants smaller leaves where a large one does not allow the store: the large one goes, and others come back by faults (Linux does the same where it splits
    /// a leaf of a file).
    fn make_room(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        level: Level,
        access: Access,
    ) -> Result<(), FaultError> {
        let Ok(found) = self.page_tables(space).translate(cpu, address) else { return Ok(()) };
        if access == Access::Read || found.level != level || level == Level::Pte || found.entry.has(Flags::WRITE) {
            return Ok(());
        }
        let start = address.align_down(level.size());
        let end = level.next(start);
        self.notify_of(cpu, space, (start, end), || self.zap_and_finish(cpu, space, start, end, ZapOf::FilePages))?;
        Ok(())
    }
}
