//! Where page tables lie.

use machine::Frame;

/// The most frames that page tables may use.
pub(super) const MOST_TABLES: u64 = 64;
/// Page tables lie from this frame on, unless `tables-at=` says otherwise; data frames must not.
pub(super) const FIRST_TABLE: u64 = 0x100;

/// Which frames page tables lie in: the roots, which CR3 of PAE can only name below 4 GiB, in the first, and the others together.
#[derive(Clone, Copy)]
pub(in crate::kernel) struct TableFrames {
    /// How many address spaces there are.
    pub(super) roots: u64,
    /// The tables that are not roots lie in this frame and those that follow, by their numbers.
    pub(super) others: u64,
}

impl TableFrames {
    /// The frame of the table with this number; the first are the roots.
    pub(in crate::kernel) const fn frame(self, number: u64) -> Frame {
        Frame::new(if number < self.roots { FIRST_TABLE + number } else { self.others + number })
    }

    /// The number of the table in a frame, if it can be one.
    pub(in crate::kernel) fn number(self, frame: Frame) -> Option<u64> {
        let frame = frame.number();
        match frame.checked_sub(FIRST_TABLE).filter(|number| *number < self.roots) {
            Some(number) => Some(number),
            None => frame.checked_sub(self.others).filter(|number| (self.roots..MOST_TABLES).contains(number)),
        }
    }

    /// Whether a table may lie in one of these frames.
    pub(super) fn meets(self, first: u64, end: u64) -> bool {
        let meets = |start: u64, count: u64| first < start + count && start < end;
        meets(FIRST_TABLE, self.roots) || meets(self.others, MOST_TABLES)
    }

    /// Whether one of the `frames` frames from `first` on can hold a table.
    pub(in crate::kernel) fn any_in(self, first: Frame, frames: u64) -> bool {
        self.meets(first.number(), first.number().saturating_add(frames))
    }
}
