//! Changing the part of areas that lies in a range. What lies outside is cut off and stays.
//!
//! In two steps, so that a lack of slots is noticed before anything changes: [`Mm::room_for_cut`] and [`Mm::cut`]. The caller holds the mmap lock for
//! writing over both. At most two areas are cut, those at the ends of the range.

use machine::addr::VirtAddr;

use crate::area::Area;
use crate::error::AreaError;
use crate::file::{File, MappedAt};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::{AddressSpace, SpaceId};

/// Mapping slots of files that are set aside for a cut.
pub(crate) struct Room<'m> {
    files: [Option<(&'m File<'m>, usize)>; 2],
}

/// What an area becomes: up to three areas, lowest first.
struct Pieces {
    areas: [Area; 3],
    count: usize,
}

impl Pieces {
    fn as_slice(&self) -> &[Area] {
        &self.areas[..self.count]
    }
}

/// What becomes of `area` when `edit` changes its part in `start..end`; `None` if nothing does.
fn pieces(area: &Area, start: VirtAddr, end: VirtAddr, edit: &impl Fn(&Area) -> Option<Area>) -> Option<Pieces> {
    let part = area.part(start, end)?;
    let new = edit(&part);
    if new == Some(part) {
        return None;
    }
    let mut pieces = Pieces { areas: [*area; 3], count: 0 };
    let before = area.part(area.start, part.start);
    let behind = area.part(part.end(), area.end());
    for piece in [before, new, behind].into_iter().flatten() {
        pieces.areas[pieces.count] = piece;
        pieces.count += 1;
    }
    Some(pieces)
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Checks that [`Self::cut`] with the same arguments can be done, and sets aside what it takes.
    pub(crate) fn room_for_cut(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        edit: &impl Fn(&Area) -> Option<Area>,
    ) -> Result<Room<'m>, AreaError> {
        let mut room = Room { files: [None; 2] };
        let mut files = room.files.iter_mut();
        // Of the part that was looked at last.
        let (mut free, mut part) = (0, None);
        let mut at = start;
        while let Some((index, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            if part.replace(index.part()) != Some(index.part()) {
                free = space.free_slots(cpu, area.start);
            }
            let Some(file) = self.file(area.file) else { continue };
            let Some(pieces) = pieces(&area, start, end, edit) else { continue };
            let level = file.alignment();
            let is_cut = |edge: VirtAddr| area.start < edge && edge < area.end() && !edge.is_aligned(level.size());
            if is_cut(start) || is_cut(end) {
                return Err(AreaError::NotLeafAligned { area, level });
            }
            free = (free + 1).checked_sub(pieces.count).ok_or(AreaError::SpaceFull)?;
            if pieces.count > 1
                && let Some(slot) = files.next()
            {
                *slot = Some((file, pieces.count - 1));
            }
        }
        self.set_aside(cpu, &room)?;
        Ok(room)
    }

    fn set_aside(&self, cpu: &P::Cpu, room: &Room<'m>) -> Result<(), AreaError> {
        let mut done: Option<(&File<'_>, usize)> = None;
        for (file, slots) in room.files.iter().flatten().copied() {
            let rmap = file.rmap_lock().write(cpu);
            let reserved = file.reserve(cpu, slots);
            rmap.unlock();
            if reserved.is_err() {
                if let Some((file, slots)) = done {
                    Self::cancel_slots(cpu, file, slots);
                }
                return Err(AreaError::FileFull);
            }
            done = Some((file, slots));
        }
        Ok(())
    }

    /// The cut will not take place.
    pub(crate) fn cancel_cut(&self, cpu: &P::Cpu, room: &Room<'m>) {
        for (file, slots) in room.files.iter().flatten().copied() {
            Self::cancel_slots(cpu, file, slots);
        }
    }

    fn cancel_slots(cpu: &P::Cpu, file: &File<'_>, slots: usize) {
        let rmap = file.rmap_lock().write(cpu);
        file.cancel(cpu, slots);
        rmap.unlock();
    }

    /// Replaces every part of an area that lies in the range by `edit` of it, or takes it out, and keeps the files' rmaps in step.
    pub(crate) fn cut(
        &self,
        cpu: &P::Cpu,
        (id, space): (SpaceId, &AddressSpace<'m>),
        (start, end): (VirtAddr, VirtAddr),
        edit: &impl Fn(&Area) -> Option<Area>,
        room: Room<'m>,
    ) {
        // Its slots are used up here.
        let Room { files: _ } = room;
        let mut at = start;
        while let Some((index, area)) = space.first_in(cpu, at, end) {
            at = area.end();
            let Some(pieces) = pieces(&area, start, end, edit) else { continue };
            if let Some(file) = self.file(area.file) {
                let rmap = file.rmap_lock().write(cpu);
                let linked = pieces.as_slice().iter().map(|piece| MappedAt::new(id, piece));
                file.relink(cpu, &MappedAt::new(id, &area), linked);
                rmap.unlock();
            }
            space.splice(cpu, index, 1, pieces.as_slice());
        }
    }
}
