//! The buffer manager of one device: its objects, from first to last.

use machine::SpinLock;
use mm::{File, FileId, FileKind, Mm};
use pagetable::Mode;

use crate::driver::{CpuOf, Driver};
use crate::error::{CreateError, FenceError, MoveError, NoObject, ReserveError, SetupError};
use crate::extent::{Extent, Memory};
use crate::fence::{Fence, Timeline, TimelineId, Usage};
use crate::ghost::{Ghost, GhostSlot, Ghosts};
use crate::object::{Handle, Object, ObjectId, PagesState, Reserved, SlotState};
use crate::place::{Backing, Kind, Placed};
use crate::resource::Resource;
use crate::share::{AttachmentSlot, Attachments};
use crate::ww::{AcquireContext, Tickets, WwGuard};

/// What a device is made of, all of it the caller's.
pub struct Parts<'d, D: Driver> {
    /// The memory manager that maps its objects.
    pub mm: &'d Mm<'d, D::Platform>,
    /// The file that user space maps to reach them: of [`FileKind::PfnMapped`], and of nobody else.
    pub file: FileId,
    /// The driver.
    pub driver: &'d D,
    /// Room for objects.
    pub objects: &'d [Object<'d>],
    /// The kinds of memory; [`Kind`] is the index. The first is system memory.
    pub kinds: &'d [Resource<'d>],
    /// Its engines' timelines; [`TimelineId`] is the index.
    pub timelines: &'d [Timeline],
    /// Room for ranges that engines still copy out of. If it is short, evictions wait for engines.
    pub ghosts: &'d [GhostSlot],
    /// Room for attachments of importers.
    pub attachments: &'d [AttachmentSlot],
}

/// A buffer manager.
pub struct Device<'d, D: Driver> {
    pub(crate) parts: Parts<'d, D>,
    pub(crate) file: &'d File<'d>,
    pub(crate) ghosts: Ghosts<'d>,
    pub(crate) attachments: Attachments<'d>,
    pub(crate) table_lock: SpinLock,
    tickets: Tickets,
}

/// How many pages of the device's file each object has for itself: object `n` begins at page `n << SPAN_SHIFT`. That is as well aligned as the largest leaf wants.
pub(crate) const SPAN_SHIFT: u32 = 31;
/// What is above is behind the last page that an area can name.
const MAX_OBJECTS: usize = u16::MAX as usize;
const MAX_KINDS: usize = 8;

impl<'d, D: Driver> Device<'d, D> {
    /// A device without objects.
    ///
    /// # Errors
    /// What is wrong with the parts.
    pub fn new(parts: Parts<'d, D>) -> Result<Self, SetupError> {
        let file = parts.mm.file(parts.file).ok_or(SetupError::File)?;
        if file.kind() != FileKind::PfnMapped {
            return Err(SetupError::File);
        }
        if parts.objects.len() > MAX_OBJECTS || parts.kinds.len() > MAX_KINDS || parts.timelines.len() > MAX_OBJECTS {
            return Err(SetupError::TooMany);
        }
        if parts.kinds.is_empty() {
            return Err(SetupError::SystemFirst { kind: Kind::SYSTEM });
        }
        let frames = 1u64 << (parts.mm.protocols().mode.physical_width().bits() - machine::addr::PAGE_SHIFT);
        for (number, resource) in parts.kinds.iter().enumerate() {
            let kind = Kind::new(number as u8);
            let backing = resource.backing();
            if (backing == Backing::System) != (kind == Kind::SYSTEM) {
                return Err(SetupError::SystemFirst { kind });
            }
            let end = backing.first_frame().checked_add(backing.pages());
            if kind != Kind::SYSTEM && backing.pages() == 0 || end.is_none_or(|end| end > frames) {
                return Err(SetupError::Frames { kind });
            }
        }
        if let Some(object) = parts.objects.iter().position(|object| object.room.fences.len() != parts.timelines.len())
        {
            return Err(SetupError::FenceSlots { object });
        }
        let ghosts = Ghosts::new(parts.ghosts);
        let attachments = Attachments::new(parts.attachments);
        Ok(Self { parts, file, ghosts, attachments, table_lock: SpinLock::new(), tickets: Tickets::new() })
    }

    /// The memory manager.
    pub const fn mm(&self) -> &'d Mm<'d, D::Platform> {
        self.parts.mm
    }

    /// The driver.
    pub const fn driver(&self) -> &'d D {
        self.parts.driver
    }

    /// The kinds of memory.
    pub const fn kinds(&self) -> &'d [Resource<'d>] {
        self.parts.kinds
    }

    /// The number of the device's file.
    pub const fn file_id(&self) -> FileId {
        self.parts.file
    }

    /// Where tickets for [`AcquireContext`] come from.
    pub const fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// The timeline with this number.
    pub fn timeline(&self, id: TimelineId) -> Option<&'d Timeline> {
        self.parts.timelines.get(id.index())
    }

    /// A fence for work that an engine is going to be given: the next point of its timeline. `None` if there is no such timeline.
    pub fn fence(&self, cpu: &CpuOf<D>, id: TimelineId) -> Option<Fence> {
        Some(self.timeline(id)?.next(cpu, id))
    }

    /// Makes an object of `pages` pages of 4 KiB. It is in system memory and holds zeros; it has no frames until somebody needs them.
    ///
    /// Context: interrupts on, no lock but perhaps other reservations.
    ///
    /// # Errors
    /// Nothing was made.
    pub fn create(&self, cpu: &CpuOf<D>, pages: u64) -> Result<Handle, CreateError> {
        let fits = |object: &Object<'_>| pages <= object.room.pages.len() as u64 && pages <= 1 << SPAN_SHIFT;
        if pages == 0 || !self.parts.objects.iter().any(fits) {
            return Err(CreateError::Size { pages });
        }
        let guard = self.table_lock.lock(cpu);
        let mut slots = self.parts.objects.iter().enumerate();
        let found = slots.find(|(_, object)| fits(object) && object.slot(cpu) == SlotState::Free);
        if let Some((_, object)) = found {
            object.set_slot(cpu, SlotState::Making);
        }
        guard.unlock();
        let (index, object) = found.ok_or(CreateError::NoSlot)?;
        // A fault at an address from before may have it for a moment, to find that there is no object.
        let reserved = Reserved { object, index: index as u16, guard: object.lock.lock_alone(cpu) };
        let generation = object.begin(cpu, pages);
        reserved.unlock();
        Ok(Handle { index: index as u16, generation })
    }

    /// Another handle to an object, by its number.
    ///
    /// # Errors
    /// There is no such object any more.
    pub fn get(&self, cpu: &CpuOf<D>, id: ObjectId) -> Result<Handle, NoObject> {
        let object = self.parts.objects.get(id.index as usize).ok_or(NoObject(id))?;
        object.get(cpu, id.generation).map_err(|_| NoObject(id))?;
        Ok(Handle { index: id.index, generation: id.generation })
    }

    /// Gives a handle back. An object without handles exists for as long as it is mapped or an engine is at work on it; [`Self::reap`] finds that out later.
    ///
    /// Context: interrupts on, no spin lock, the object not reserved by this CPU.
    ///
    /// # Errors
    /// The handle is another device's: it still exists, there.
    pub fn put(&self, cpu: &CpuOf<D>, handle: Handle) -> Result<(), NoObject> {
        let object = self.object(cpu, &handle)?;
        if object.put(cpu) == 0 {
            self.destroy(cpu, handle.index);
        }
        Ok(())
    }

    /// The object of a handle. A handle keeps it from being another's, unless it is a handle of another device.
    pub(crate) fn object(&self, cpu: &CpuOf<D>, handle: &Handle) -> Result<&'d Object<'d>, NoObject> {
        let object = self.parts.objects.get(handle.index as usize);
        object.filter(|object| object.generation(cpu) == handle.generation).ok_or(NoObject(handle.id()))
    }

    /// Reserves an object as one of several.
    ///
    /// Context: interrupts on, no spin lock, no rmap lock. The mmap lock may be held, and must not be taken meanwhile.
    ///
    /// # Errors
    /// [`crate::ww::LockError::BackOff`]: give all others back and begin with this one.
    #[track_caller]
    pub fn reserve<'r>(
        &self,
        handle: &'r Handle,
        context: &'r AcquireContext<'_, CpuOf<D>>,
    ) -> Result<Reserved<'r, 'd, CpuOf<D>>, ReserveError>
    where
        'd: 'r,
    {
        let object = self.object(context.cpu(), handle)?;
        Ok(Reserved { object, index: handle.index, guard: object.lock.lock(context)? })
    }

    /// Reserves an object and no other: see [`crate::ww::WwMutex::lock_alone`].
    ///
    /// Context: as for [`Self::reserve`].
    ///
    /// # Errors
    /// There is no such object.
    #[track_caller]
    pub fn reserve_alone<'r>(
        &self,
        cpu: &'r CpuOf<D>,
        handle: &'r Handle,
    ) -> Result<Reserved<'r, 'd, CpuOf<D>>, NoObject>
    where
        'd: 'r,
    {
        let object = self.object(cpu, handle)?;
        Ok(Reserved { object, index: handle.index, guard: object.lock.lock_alone(cpu) })
    }

    /// Reserves an object if nobody else has it.
    ///
    /// # Errors
    /// There is no such object.
    #[track_caller]
    pub fn try_reserve<'r>(
        &self,
        cpu: &'r CpuOf<D>,
        handle: &'r Handle,
    ) -> Result<Option<Reserved<'r, 'd, CpuOf<D>>>, NoObject>
    where
        'd: 'r,
    {
        let object = self.object(cpu, handle)?;
        let guard: Option<WwGuard<'r, CpuOf<D>>> = object.lock.try_lock(cpu);
        Ok(guard.map(|guard| Reserved { object, index: handle.index, guard }))
    }

    /// Adds work of an engine to an object: who wants to use it otherwise waits for it first.
    ///
    /// # Errors
    /// The fence is not of this device. Nothing has changed.
    pub fn add_fence(
        &self,
        reserved: &mut Reserved<'_, 'd, CpuOf<D>>,
        fence: Fence,
        usage: Usage,
    ) -> Result<(), FenceError> {
        let timeline = self.timeline(fence.timeline()).ok_or(FenceError::NoTimeline(fence))?;
        let latest = timeline.latest(reserved.cpu());
        if fence.point() > latest {
            return Err(FenceError::NeverGiven { fence, latest });
        }
        reserved.object.room.fences[fence.timeline().index()].add(reserved.cpu(), usage, fence.point());
        Ok(())
    }

    /// Waits for the work of engines that must be over before the object can be used in this way ([`Usage::Kernel`]: moved).
    ///
    /// Context: interrupts on, no spin lock.
    pub fn wait(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, usage: Usage) {
        for (slot, timeline) in reserved.object.room.fences.iter().zip(self.parts.timelines) {
            timeline.wait(reserved.cpu(), slot.before(reserved.cpu(), usage));
        }
    }

    /// Whether [`Self::wait`] would wait.
    pub fn is_busy(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>, usage: Usage) -> bool {
        let cpu = reserved.cpu();
        let mut slots = reserved.object.room.fences.iter().zip(self.parts.timelines);
        slots.any(|(slot, timeline)| !timeline.is_reached(cpu, slot.before(cpu, usage)))
    }

    /// Waits until the object is where it is: until all moves of it are done.
    pub(crate) fn wait_for_moves(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) {
        for (slot, timeline) in reserved.object.room.fences.iter().zip(self.parts.timelines) {
            timeline.wait(reserved.cpu(), slot.moving(reserved.cpu()));
        }
    }

    /// Gives back what engines were still at work on when its object left it: ranges, frames and objects without handles. Returns how many
    /// objects went. To be called now and then (Linux: `ttm_bo_delayed_delete`); who needs room calls it anyway.
    ///
    /// Context: interrupts on, no spin lock, no rmap lock.
    pub fn reap(&self, cpu: &CpuOf<D>) -> usize {
        self.reap_ghosts(cpu);
        self.reap_pages(cpu, Patience::None);
        let mut gone = 0;
        for (index, object) in self.parts.objects.iter().enumerate() {
            if object.slot(cpu) == SlotState::Live && object.handles(cpu) == 0 {
                gone += usize::from(self.destroy(cpu, index as u16) == Destroyed::Now);
            }
        }
        gone
    }

    /// Gives frames back that their objects have left, if the engines that copied from them are done or are waited for. Returns whether there were any.
    pub(crate) fn reap_pages(&self, cpu: &CpuOf<D>, patience: Patience) -> Reaped {
        let mut reaped = Reaped::Nothing;
        for (index, object) in self.parts.objects.iter().enumerate() {
            if object.slot(cpu) != SlotState::Live {
                continue;
            }
            let Some(guard) = object.lock.try_lock(cpu) else { continue };
            let reserved = Reserved { object, index: index as u16, guard };
            let is_leaving = object.pages_state(cpu) == PagesState::Leaving;
            if is_leaving && (patience == Patience::Waits || !self.is_busy(&reserved, Usage::Kernel)) {
                self.wait_for_moves(&reserved);
                self.release_pages(&reserved);
                reaped = Reaped::Something;
            }
        }
        reaped
    }

    /// Gives ranges back whose engines are done.
    pub(crate) fn reap_ghosts(&self, cpu: &CpuOf<D>) {
        let is_done = |ghost: &Ghost| self.is_reached(cpu, ghost.fence);
        let free = |ghost: &Ghost| self.parts.kinds[ghost.placed.kind.index()].free(cpu, ghost.placed.start);
        self.ghosts.reap(cpu, is_done, free);
    }

    pub(crate) fn is_reached(&self, cpu: &CpuOf<D>, fence: Fence) -> bool {
        self.timeline(fence.timeline()).is_none_or(|timeline| timeline.is_reached(cpu, fence.point()))
    }

    pub(crate) fn wait_for(&self, cpu: &CpuOf<D>, fence: Fence) {
        if let Some(timeline) = self.timeline(fence.timeline()) {
            timeline.wait(cpu, fence.point());
        }
    }

    /// Ends an object without handles, unless something still needs it.
    pub(crate) fn destroy(&self, cpu: &CpuOf<D>, index: u16) -> Destroyed {
        let object = &self.parts.objects[index as usize];
        let Some(guard) = object.lock.try_lock(cpu) else { return Destroyed::Later };
        let reserved = Reserved { object, index, guard };
        // Somebody else may have ended it since, and made another one in the slot.
        let is_over = object.slot(cpu) == SlotState::Live && object.handles(cpu) == 0;
        let is_needed = || {
            reserved.is_quarantined()
                || self.is_busy(&reserved, Usage::Kernel)
                || self.parts.mm.is_mapped(cpu, self.file, self.offset(index), 1 << SPAN_SHIFT)
        };
        if !is_over || is_needed() {
            return Destroyed::Later;
        }
        let placed = reserved.placed();
        self.parts.kinds[placed.kind.index()].unlist(cpu, self.parts.objects, index, placed.kind);
        self.parts.kinds[placed.kind.index()].free(cpu, placed.start);
        self.release_pages(&reserved);
        object.set_slot(cpu, SlotState::Free);
        Destroyed::Now
    }

    /// The page of the device's file at which an object begins.
    pub(crate) fn offset(&self, index: u16) -> u64 {
        u64::from(index) << SPAN_SHIFT
    }

    pub(crate) fn resource(&self, kind: Kind) -> Option<&'d Resource<'d>> {
        self.parts.kinds.get(kind.index())
    }

    /// The object was used: it is evicted last. Objects that are pinned or in quarantine are in no list, nor is one in system memory without frames: there is nothing
    /// to gain from it. In an aperture it takes room, with frames or without.
    pub(crate) fn used_just_now(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) {
        let (cpu, kind) = (reserved.cpu(), reserved.placed().kind);
        let can_leave = reserved.pins() == 0 && !reserved.is_quarantined();
        if can_leave && (kind != Kind::SYSTEM || self.has_frames(reserved)) {
            self.parts.kinds[kind.index()].list(cpu, self.parts.objects, reserved.index, kind);
        }
    }

    /// Where the frames of an object are, if it were at `placed`.
    pub(crate) fn extent<'e>(&self, object: &'e Object<'d>, pages: u64, placed: Placed) -> Extent<'e> {
        let memory = match self.parts.kinds[placed.kind.index()].backing() {
            Backing::Device { first, .. } => Memory::Device { first: first.wrapping_add(placed.start) },
            Backing::System | Backing::Aperture { .. } => Memory::Pages(object.room.pages),
        };
        Extent { kind: placed.kind, pages, memory }
    }

    /// Where the object is, as frames. What an engine has yet to move there, is not there yet ([`Self::wait`]). Pages that are not in memory are brought in.
    ///
    /// # Errors
    /// There are no frames for them.
    pub fn frames<'e>(&self, reserved: &'e mut Reserved<'_, 'd, CpuOf<D>>) -> Result<Extent<'e>, MoveError> {
        self.populate(reserved)?;
        Ok(self.extent(reserved.object, reserved.pages(), reserved.placed()))
    }

    /// Whether the object has frames now: one in memory of the device always has.
    pub fn has_frames(&self, reserved: &Reserved<'_, 'd, CpuOf<D>>) -> bool {
        let is_pages = self.parts.kinds[reserved.placed().kind.index()].backing().is_pages();
        !is_pages || reserved.object.pages_state(reserved.cpu()) == PagesState::Populated
    }
}

/// Whether to wait for engines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Waits,
}

/// Whether anything was given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaped {
    Nothing,
    Something,
}

/// What came of an attempt to end an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destroyed {
    Now,
    Later,
}
