//! Where frames for data come from, and how their contents are made.
//!
//! File pages are the caller's: it puts frames into slots. Everything else that a fault maps (anonymous memory, copies, pages brought back from swap)
//! the engine allocates here.

use machine::Cpu;
use machine::addr::Frame;
use pagetable::OutOfFrames;

use crate::folio::{Folio, FolioFlags, FolioMapping, Membership, MemoryMap};
use crate::numa::NumaPlacement;

/// Frames for data.
///
/// They come back by [`MemoryMap::release`], folio by folio as they were allocated or as they were split meanwhile.
pub trait FrameSource<C: Cpu> {
    /// A free run of `1 << order` frames, aligned to its size. Their records exist, and the reference counts in them are 0.
    ///
    /// The contents are whatever they are.
    ///
    /// # Errors
    /// There is none.
    fn allocate(&self, cpu: &C, order: u8) -> Result<Frame, OutOfFrames>;

    /// Fills a folio with zeros, before anybody else can reach it.
    fn zero(&self, cpu: &C, folio: Membership);

    /// Copies `pages` frames from `from` on to those from `to` on. Nobody else can reach the latter; the former may be *read* by others meanwhile, and
    /// are not written unless by a device that breaks the rules.
    fn copy(&self, cpu: &C, from: Frame, to: Frame, pages: u64);

    /// Whether two frames hold the same. Nobody writes to them meanwhile.
    ///
    /// Called with a page-table lock held: it must not wait.
    fn equal(&self, cpu: &C, one: Frame, other: Frame) -> bool;

    /// Whether the page in `frame`, which this CPU is about to use, had better move to a frame that [`Self::allocate`] gives this CPU (Linux: `mpol_misplaced`). Asked by a fault that has come
    /// upon a NUMA hint ([`crate::Mm::hint_numa`]); of a huge leaf about its first frame.
    ///
    /// Called with a page-table lock held: it must not wait.
    fn placement(&self, cpu: &C, frame: Frame) -> NumaPlacement {
        let _ = (cpu, frame);
        NumaPlacement::Stays
    }

    /// The zero page, whose record has [`FolioFlags::ZERO`]; `None` if there is none: reads of untouched memory allocate then.
    fn zero_page(&self) -> Option<Frame>;
}

/// No frames for data: for those who map files and drivers' memory only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFrames;

impl<C: Cpu> FrameSource<C> for NoFrames {
    fn allocate(&self, _: &C, _: u8) -> Result<Frame, OutOfFrames> {
        Err(OutOfFrames)
    }

    fn zero(&self, _: &C, _: Membership) {}

    fn copy(&self, _: &C, _: Frame, _: Frame, _: u64) {}

    fn equal(&self, _: &C, _: Frame, _: Frame) -> bool {
        false
    }

    fn zero_page(&self) -> Option<Frame> {
        None
    }
}

/// Allocates a folio and makes its records. It has one reference, the caller's, and nothing maps it yet. The contents are undefined.
///
/// # Errors
/// There is none, or the source gave a frame without a record.
pub(crate) fn allocate_folio<'m, C: Cpu, M: MemoryMap<C>>(
    map: &'m M,
    frames: &impl FrameSource<C>,
    cpu: &C,
    order: u8,
    flags: FolioFlags,
    mapping: Option<FolioMapping>,
) -> Result<Folio<'m>, OutOfFrames> {
    let head = frames.allocate(cpu, order)?;
    Folio::begin(map, cpu, Membership { head, order }, flags, mapping).ok_or(OutOfFrames)
}
