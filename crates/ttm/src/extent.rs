//! The frames of an object in one place.

use machine::addr::Frame;
use machine::{Cpu, Word64};
use pagetable::Level;

use crate::page::PageWord;
use crate::place::Kind;

/// Where an object is, or is going to be, as frames.
pub struct Extent<'e> {
    pub(crate) kind: Kind,
    pub(crate) pages: u64,
    pub(crate) memory: Memory<'e>,
}

pub(crate) enum Memory<'e> {
    /// Frames of the device, one after the other.
    Device {
        /// The first.
        first: Frame,
    },
    /// Pages of the system, one word each.
    Pages(&'e [Word64]),
}

/// Frames that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRun {
    /// The first.
    pub frame: Frame,
    /// How many.
    pub pages: u64,
}

impl Extent<'_> {
    /// The kind of memory.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many 4 KiB pages the object has.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// The frame of page `page`, and how many are known to follow it without looking further; `None` behind the end of the object.
    pub fn run<C: Cpu>(&self, cpu: &C, page: u64) -> Option<FrameRun> {
        let left = self.pages.checked_sub(page).filter(|&left| left > 0)?;
        match self.memory {
            Memory::Device { first } => Some(FrameRun { frame: first.wrapping_add(page), pages: left }),
            Memory::Pages(words) => {
                let (frame, order) = PageWord::load(cpu, words.get(page as usize)?).frame()?;
                let in_folio = (1 << order) - (frame.number() & ((1 << order) - 1));
                Some(FrameRun { frame, pages: left.min(in_folio) })
            }
        }
    }

    /// Calls `each` for all its frames, in runs as long as can be.
    pub fn for_each_run<C: Cpu>(&self, cpu: &C, mut each: impl FnMut(FrameRun)) {
        let mut pending: Option<FrameRun> = None;
        let mut page = 0;
        while let Some(run) = self.run(cpu, page) {
            page += run.pages;
            pending = Some(match pending {
                Some(before) if before.frame.wrapping_add(before.pages) == run.frame => {
                    FrameRun { pages: before.pages + run.pages, ..before }
                }
                Some(before) => {
                    each(before);
                    run
                }
                None => run,
            });
        }
        pending.into_iter().for_each(each);
    }

    /// The frame of page `first` if one leaf of `level` can map it and what follows.
    pub(crate) fn leaf<C: Cpu>(&self, cpu: &C, first: u64, level: Level) -> Option<Frame> {
        let start = self.run(cpu, first)?;
        if start.frame.number() & (level.frames() - 1) != 0 {
            return None;
        }
        let mut pages = start.pages;
        while pages < level.frames() {
            let next = self.run(cpu, first + pages)?;
            if next.frame != start.frame.wrapping_add(pages) {
                return None;
            }
            pages += next.pages;
        }
        Some(start.frame)
    }
}

/// Calls `each` for what is to be copied from one extent to the other: a frame, the one that it goes to, and how many follow. For engines that are CPUs
/// (Linux: `ttm_bo_move_memcpy`), and to make the list for one that is not.
pub fn for_each_pair<C: Cpu>(cpu: &C, from: &Extent<'_>, to: &Extent<'_>, mut each: impl FnMut(Frame, Frame, u64)) {
    let mut page = 0;
    while let (Some(source), Some(target)) = (from.run(cpu, page), to.run(cpu, page)) {
        let pages = source.pages.min(target.pages);
        each(source.frame, target.frame, pages);
        page += pages;
    }
}
