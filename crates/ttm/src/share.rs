//! Objects that other drivers use (Linux: dma-buf).
//!
//! The exporter *attaches* an importer to an object, and tells it the object's frames when asked ([`Device::map_attachment`]). What happens when the object has to
//! move is decided when it is attached:
//!
//! * a **dynamic** importer is told before ([`crate::Driver::move_notify`]), forgets the frames and asks again;
//! * a **static** one cannot follow: the object is pinned for it where the driver says ([`crate::Driver::export_to`]), until it is detached.

use machine::{Cpu, SpinLock, Word32, Word64};

use crate::device::Device;
use crate::driver::{CpuOf, Driver};
use crate::error::ShareError;
use crate::extent::Extent;
use crate::object::{Handle, Reserved};
use crate::place::Place;

/// Who imports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Importer {
    /// It follows moves. The number is given to [`crate::Driver::move_notify`].
    Dynamic(u64),
    /// It cannot follow moves.
    Static,
}

/// Room for one attachment.
pub struct AttachmentSlot {
    /// [`FREE`], [`DYNAMIC`] or [`STATIC`]; under the lock of all slots.
    mode: Word32,
    /// Index of the object.
    object: Word32,
    /// What the importer is called.
    importer: Word64,
    /// 1 while the importer may use the frames that it was told. Who has the object reserved writes it.
    told: Word32,
}

const FREE: u32 = 0;
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;

impl AttachmentSlot {
    /// A slot that is not in use.
    pub const fn new() -> Self {
        Self { mode: Word32::new(FREE), object: Word32::new(0), importer: Word64::new(0), told: Word32::new(0) }
    }
}

impl Default for AttachmentSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The slots, and their lock.
pub(crate) struct Attachments<'d> {
    lock: SpinLock,
    slots: &'d [AttachmentSlot],
}

/// An importer is attached to an object while this exists. It keeps the object; given back by [`Device::detach`].
#[must_use = "an attachment that is lost keeps its object for ever"]
#[derive(Debug)]
pub struct Attachment {
    slot: usize,
    importer: Importer,
    handle: Handle,
}

impl Attachment {
    /// A handle of the object, for as long as it is attached: to reserve it.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Who imports.
    pub const fn importer(&self) -> Importer {
        self.importer
    }
}

impl<'d> Attachments<'d> {
    pub(crate) const fn new(slots: &'d [AttachmentSlot]) -> Self {
        Self { lock: SpinLock::new(), slots }
    }

    fn claim<C: Cpu>(&self, cpu: &C, object: u16, importer: Importer) -> Option<usize> {
        let guard = self.lock.lock(cpu);
        let found = self.slots.iter().position(|slot| cpu.owned_load(&slot.mode) == FREE);
        if let Some(slot) = found.map(|index| &self.slots[index]) {
            let (mode, name) = match importer {
                Importer::Dynamic(name) => (DYNAMIC, name),
                Importer::Static => (STATIC, 0),
            };
            cpu.owned_store(&slot.object, u32::from(object));
            cpu.owned_store(&slot.importer, name);
            cpu.store(&slot.told, 0);
            cpu.owned_store(&slot.mode, mode);
        }
        guard.unlock();
        found
    }

    fn release<C: Cpu>(&self, cpu: &C, index: usize) {
        let guard = self.lock.lock(cpu);
        cpu.owned_store(&self.slots[index].mode, FREE);
        guard.unlock();
    }

    /// How many static importers are attached to an object. Each has pinned it once.
    pub(crate) fn count_static<C: Cpu>(&self, cpu: &C, object: u16) -> u32 {
        let guard = self.lock.lock(cpu);
        let is_one = |slot: &&AttachmentSlot| {
            cpu.owned_load(&slot.mode) == STATIC && cpu.owned_load(&slot.object) == u32::from(object)
        };
        let count = self.slots.iter().filter(is_one).count();
        guard.unlock();
        count as u32
    }

    /// The name of the dynamic importer in a slot, if it is attached to this object.
    fn dynamic_importer<C: Cpu>(&self, cpu: &C, slot: &AttachmentSlot, object: u16) -> Option<u64> {
        let guard = self.lock.lock(cpu);
        let is_it = cpu.owned_load(&slot.mode) == DYNAMIC && cpu.owned_load(&slot.object) == u32::from(object);
        let name = is_it.then(|| cpu.owned_load(&slot.importer));
        guard.unlock();
        name
    }
}

impl<'d, D: Driver> Device<'d, D> {
    /// Attaches an importer to an object.
    ///
    /// Context: as for [`Self::validate`], without a context.
    ///
    /// # Errors
    /// Nothing is attached, nothing is pinned.
    pub fn attach(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        importer: Importer,
    ) -> Result<Attachment, ShareError> {
        let cpu = reserved.cpu();
        let handle = self.get(cpu, reserved.id())?;
        match self.attach_slot(reserved, importer) {
            Ok(slot) => Ok(Attachment { slot, importer, handle }),
            Err(error) => {
                // Not the last: somebody had one to reserve the object by.
                reserved.object.put(cpu);
                Err(error)
            }
        }
    }

    fn attach_slot(&self, reserved: &mut Reserved<'_, 'd, CpuOf<D>>, importer: Importer) -> Result<usize, ShareError> {
        let cpu = reserved.cpu();
        let slot = self.attachments.claim(cpu, reserved.index, importer).ok_or(ShareError::NoSlot)?;
        if importer == Importer::Static
            && let Err(error) = self.pin(reserved, &[Place::anywhere(self.driver().export_to())], None)
        {
            self.attachments.release(cpu, slot);
            return Err(error.into());
        }
        Ok(slot)
    }

    /// Detaches an importer. It has forgotten the frames that it was told.
    ///
    /// Context: interrupts on, no spin lock, no reservation.
    ///
    /// # Errors
    /// It is an attachment of another device.
    pub fn detach(&self, cpu: &CpuOf<D>, attachment: Attachment) -> Result<(), ShareError> {
        let mut reserved = self.reserve_alone(cpu, &attachment.handle)?;
        let unpinned = match attachment.importer {
            Importer::Static => self.take_pin(&mut reserved),
            Importer::Dynamic(_) => Ok(()),
        };
        self.attachments.release(cpu, attachment.slot);
        reserved.unlock();
        self.put(cpu, attachment.handle)?;
        Ok(unpinned?)
    }

    /// Tells an importer where the object's frames are. They may be filled only once its moves are done: the importer's engine waits for what
    /// [`Self::wait`] waits for.
    ///
    /// A dynamic importer may use them until it is told of a move, with the object reserved, or by work that has a fence in the object.
    ///
    /// Context: as for [`Self::validate`].
    ///
    /// # Errors
    /// `reserved` is another object, or there are no frames.
    pub fn map_attachment<'e>(
        &self,
        attachment: &Attachment,
        reserved: &'e mut Reserved<'_, 'd, CpuOf<D>>,
    ) -> Result<Extent<'e>, ShareError> {
        if reserved.id() != attachment.handle.id() {
            return Err(ShareError::OtherObject);
        }
        let slot = self.attachments.slots.get(attachment.slot).ok_or(ShareError::OtherObject)?;
        self.populate(reserved)?;
        reserved.cpu().store(&slot.told, 1);
        Ok(self.frames(reserved)?)
    }

    /// Whether the importer may use the frames that it was told last.
    pub fn is_told(&self, cpu: &CpuOf<D>, attachment: &Attachment) -> bool {
        self.attachments.slots.get(attachment.slot).is_some_and(|slot| cpu.load(&slot.told) == 1)
    }

    /// The object is going to leave its frames. Attachments of an object come and go only while it is reserved.
    pub(crate) fn notify_importers(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) {
        let cpu = reserved.cpu();
        for slot in self.attachments.slots {
            if let Some(name) = self.attachments.dynamic_importer(cpu, slot, reserved.index) {
                cpu.store(&slot.told, 0);
                self.driver().move_notify(cpu, name, reserved.id());
            }
        }
    }
}
