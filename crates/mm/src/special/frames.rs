//! Which frames a driver may map.
//!
//! A driver that names a wrong frame would give user code somebody else's memory, and at worst page tables. The engine cannot know which frames are the
//! driver's, but it knows some that are not.

use machine::Cpu;
use machine::addr::Frame;
use pagetable::{Level, TableMemory};

use crate::file::{File, FileId, FileKind};
use crate::folio::{Folio, FolioFlags, MemoryMap};
use crate::frames::FrameSource;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::special::insert::InsertError;
use crate::special::leaf::PfnLeaf;

/// How frames are mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MappedAs {
    /// By a special entry.
    Special,
    /// By an ordinary entry, which holds a reference.
    Counted,
}

/// Flags of folios that belong to somebody, or will soon belong to nobody.
const NOT_FOR_DRIVERS: [FolioFlags; 4] =
    [FolioFlags::ANON, FolioFlags::ZERO, FolioFlags::TRUNCATED, FolioFlags::POISONED];

impl<P: Platform> Mm<'_, P> {
    /// Whether a driver may map these frames in this file, and how.
    ///
    /// | the frames | |
    /// |---|---|
    /// | may hold page tables | refused |
    /// | hold the zero page that the engine maps, whatever the file declared | refused |
    /// | lie in what the file declared ([`File::with_frames`]) | special |
    /// | have no records, and the file declared others | refused |
    /// | have no records | special |
    /// | have records, of a folio that is free, anonymous, truncated, poisoned, the zero page, or of another file | refused |
    /// | have records of another folio | special, or counted in a mixed file |
    pub(super) fn mapped_as(
        &self,
        cpu: &P::Cpu,
        (id, file): (FileId, &File<'_>),
        leaf: &PfnLeaf,
    ) -> Result<MappedAs, InsertError> {
        let PfnLeaf { frame: first, level, .. } = *leaf;
        let frames = level.frames();
        if self.tables().holds_any(first, frames) {
            return Err(InsertError::TableFrame { frame: first });
        }
        let end = first.wrapping_add(frames);
        // Entries are told apart by that frame: to zaps and forks, one that may be written would look like zeros that were merged.
        if let Some(frame) = self.frames().zero_page().filter(|zero| (first..end).contains(zero)) {
            return Err(InsertError::Foreign { frame });
        }
        let declared = file.declares(first, frames);
        if file.kind() == FileKind::Mixed {
            return self.mapped_in_mixed(cpu, (id, file), leaf);
        }
        if declared {
            return Ok(MappedAs::Special);
        }
        let mut frame = first;
        while frame < end {
            frame = match self.check_record(cpu, id, frame)? {
                Some(next) => next,
                None if file.declares_any() => return Err(InsertError::OutsideDeclared { frame }),
                None => frame.wrapping_add(1),
            };
        }
        Ok(MappedAs::Special)
    }

    fn mapped_in_mixed(
        &self,
        cpu: &P::Cpu,
        (id, file): (FileId, &File<'_>),
        leaf: &PfnLeaf,
    ) -> Result<MappedAs, InsertError> {
        let PfnLeaf { frame: first, level, .. } = *leaf;
        if self.check_record(cpu, id, first)?.is_some() {
            let folio = Folio::held(self.map(), cpu, first);
            return match folio.filter(|folio| folio.covers(first, level)) {
                Some(_) => Ok(MappedAs::Counted),
                None => Err(InsertError::Fallback { level }),
            };
        }
        if file.declares_any() && !file.declares(first, level.frames()) {
            return Err(InsertError::OutsideDeclared { frame: first });
        }
        // One leaf is special or not as a whole.
        let mixture = (1..level.frames()).any(|index| self.map().page(cpu, first.wrapping_add(index)).is_some());
        if mixture { Err(InsertError::Fallback { level }) } else { Ok(MappedAs::Special) }
    }

    /// The first frame behind the folio of `frame`, if a driver may map that folio; `None` if the frame has no record.
    fn check_record(&self, cpu: &P::Cpu, id: FileId, frame: Frame) -> Result<Option<Frame>, InsertError> {
        let Some(folio) = Folio::held(self.map(), cpu, frame) else { return Ok(None) };
        let membership = folio.membership();
        let flags = folio.flags(cpu);
        let free = self.map().page(cpu, membership.head).is_none_or(|page| cpu.load(page.refcount_word()) == 0);
        if free || NOT_FOR_DRIVERS.iter().any(|flag| flags.contains(*flag)) {
            return Err(InsertError::Foreign { frame });
        }
        match folio.mapping(cpu) {
            Some(mapping) if mapping.file != id => Err(InsertError::Foreign { frame }),
            _ => Ok(Some(membership.head.wrapping_add(1 << membership.order))),
        }
    }

    /// Whether the frame suits the level and the machine.
    pub(super) fn check_frame(&self, leaf: &PfnLeaf) -> Result<(), InsertError> {
        let PfnLeaf { frame, level, .. } = *leaf;
        let mode = &self.protocols().mode;
        let last = frame.number().checked_add(level.frames() - 1).map(Frame::new);
        let fits = last.is_some_and(|last| pagetable::Mode::physical_width(mode).holds(last));
        // Where the root is a table of leaves' level, it has none of its own: PAE's PDPTEs.
        let has_leaves = level.may_be_leaf() && level < pagetable::Mode::root_level(mode);
        if !fits || !has_leaves || !frame.number().is_multiple_of(level.frames()) {
            return Err(InsertError::BadFrame { frame, level });
        }
        Ok(())
    }
}

impl PfnLeaf {
    /// The same for one page of it.
    pub(super) const fn page(&self, frame: Frame) -> Self {
        Self { level: Level::Pte, frame, ..*self }
    }
}
