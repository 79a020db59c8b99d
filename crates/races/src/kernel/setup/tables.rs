//! Where page tables lie.

use machine::Frame;

/// The most frames that page tables may use.
pub(super) const MOST_TABLES: u64 = 64;
/// Page tables lie from this frame on, unless `tables-at=` says otherwise; data frames must not.
pub(super) const FIRST_TABLE: u64 = 0x100;

/// Which frames page tables lie in: the root, which CR3 of PAE can only name below 4 GiB, in the first, and the others together.
#[derive(Clone, Copy)]
pub(in crate::kernel) struct TableFrames {
    /// Number 1 lies one frame after this, and so on.
    pub(super) others: u64,
}

impl TableFrames {
    /// The frame of the table with this number; 0 is the root.
    pub(in crate::kernel) const fn frame(self, number: u64) -> Frame {
        Frame::new(if number == 0 { FIRST_TABLE } else { self.others + number })
    }

    /// The number of the table in a frame, if it can be one.
    pub(in crate::kernel) fn number(self, frame: Frame) -> Option<u64> {
        match frame.number() {
            FIRST_TABLE => Some(0),
            frame => frame.checked_sub(self.others).filter(|number| (1..MOST_TABLES).contains(number)),
        }
    }

    /// Whether one of the `frames` frames from `first` on can hold a table.
    pub(in crate::kernel) fn any_in(self, first: Frame, frames: u64) -> bool {
        let range = first.number()..first.number().saturating_add(frames);
        (0..MOST_TABLES).any(|number| range.contains(&self.frame(number).number()))
    }
}
