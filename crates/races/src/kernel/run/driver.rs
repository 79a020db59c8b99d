//! What drivers and devices do.

use machine::{Access, Cpu, Frame, VirtAddr};
use mm::{AddressSpace, FileId, FrameSource, ZapError};
use pagetable::Mode;

use super::Runner;
use crate::kernel::operations::{Copy, Device};
use crate::kernel::watch::Told;

impl<'m, M: Mode> Runner<'_, 'm, M> {
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
    pub(super) fn device(&self, frame: Frame, device: Device) -> u64 {
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
