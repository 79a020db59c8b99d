//! page_table_check in the lab: of files that say `check=page-tables`.

use machine::Frame;
use mm::table_check::{CheckedFrame, CheckedFrames, DoubleUse};

use super::platform::Records;
use super::watch::Told;
use crate::checker::CheckedCpu;

/// Whether entries are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TableChecks {
    /// No: nothing of the checker is run.
    None,
    /// Those that map frames which the file names.
    Counted,
}

/// The counts, as one CPU sees them.
pub(super) struct LabUses<'l, C> {
    pub(super) cpu: &'l C,
    pub(super) records: &'l [Records<'l>],
}

impl<C: CheckedCpu> CheckedFrames for LabUses<'_, C> {
    fn frame(&self, frame: Frame) -> Option<CheckedFrame<'_>> {
        self.records.iter().find_map(|records| {
            let index = frame.number().checked_sub(records.first.number())? as usize;
            Some(CheckedFrame { page: records.pages.get(index)?, uses: records.uses.get(index)? })
        })
    }

    fn report(&self, broken: DoubleUse) {
        let (DoubleUse::SharedWritable { frame, .. }
        | DoubleUse::AnonymousAndFile { frame }
        | DoubleUse::Underflow { frame, .. }
        | DoubleUse::StillMapped { frame, .. }) = broken;
        Told::DoubleUse { frame }.tell(self.cpu);
    }
}
