//! What drivers and devices do.

use machine::{Access, Frame, VirtAddr};
use mm::special::KillError;
use mm::{AddressSpace, FileId, FrameSource, ZapError};
use pagetable::Mode;

use super::Runner;
use crate::checker::CheckedCpu;
use crate::kernel::drivers::forget;
use crate::kernel::operations::{Copy, Device};
use crate::kernel::platform::Records;
use crate::kernel::watch::Told;

impl<'m, M: Mode, C: CheckedCpu> Runner<'_, 'm, M, C> {
    /// A driver takes back what holds page `page` of its file, and gives `new` instead.
    pub(super) fn revoke(&self, file: FileId, page: u64, new: Option<Frame>) -> Result<(), ZapError> {
        let old = self.mm.revoke(self.cpu, self.file(file), page, 1, |frames| frames.set(page, new))?;
        self.use_elsewhere(old);
        Ok(())
    }

    /// The same, with what is in the page.
    pub(super) fn move_to(&self, file: FileId, page: u64, new: Frame, copy: Copy) -> Result<(), ZapError> {
        let Self { cpu, mm, .. } = *self;
        let file = self.file(file);
        let copy_from = |old: Option<Frame>| {
            if let Some(old) = old {
                mm.frames().copy(cpu, old, new, file.leaf().frames());
            }
        };
        if copy == Copy::Early {
            copy_from(file.slots()[(page / file.leaf().frames()) as usize].frame(cpu));
        }
        let old = mm.revoke(cpu, file, page, 1, |frames| {
            if copy == Copy::Revoked {
                copy_from(frames.get(page));
            }
            frames.set(page, Some(new))
        })?;
        self.use_elsewhere(old);
        Ok(())
    }

    /// A device goes, with its memory and the page records: something else lies there from then on.
    pub(super) fn kill(&self, id: FileId) -> Result<(), KillError> {
        let (cpu, file) = (self.cpu, self.file(id));
        let frames = self.setup.files[usize::from(id.number())].pages.iter().enumerate();
        for (slot, frame) in frames.filter_map(|(slot, frame)| Some((slot, (*frame)?))) {
            forget(cpu, file, slot);
            let Records { first, pages, device: Some(device), .. } = &self.records[frame] else { continue };
            self.mm.kill_device_pages(cpu, device, file)?;
            cpu.swap(pages[0].refcount_word(), 1);
            Told::RecordsGone { frame: *first }.tell(cpu);
        }
        Ok(())
    }

    /// Which frame a driver has mapped there, if it has; a device accesses it while that is so.
    pub(super) fn follow(&self, space: &AddressSpace<'m>, address: VirtAddr, device: Option<Device>) -> Option<Frame> {
        let followed = self.mm.follow_pfnmap(self.cpu, space, address).ok()?;
        let frame = followed.frame();
        if let Some(device) = device {
            self.device(frame, device);
        }
        followed.end();
        Some(frame)
    }

    /// A device accesses a frame. Returns what was in it.
    pub(in crate::kernel) fn device(&self, frame: Frame, device: Device) -> u64 {
        match device {
            Device::Load => self.cpu.device_access(frame, Access::Read, 0),
            Device::Store(word) => self.cpu.device_access(frame, Access::Write, word),
        }
    }

    /// A driver has got a frame back, and uses it for something else.
    fn use_elsewhere(&self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            Told::Released { frame }.tell(self.cpu);
            self.cpu.free_frame(frame);
        }
    }
}
