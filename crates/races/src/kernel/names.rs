//! Names and words for traces.

use lab::{Arena, Paging};
use machine::{Frame, Word};
use pagetable::TableMeta;

use super::setup::{Setup, TableFrames};
use crate::checker::Checker;
use crate::entry_words::flag_names;

/// Results from here on are printed as addresses and frames are.
const LEAST_FRAME: u64 = 0x100;

/// The frames that a file names, for printing.
#[derive(Clone)]
pub(super) struct FrameNames {
    named: Vec<(String, Frame, u8)>,
    tables: TableFrames,
}

impl FrameNames {
    pub(super) fn new(setup: &Setup) -> Self {
        let named = setup.frames.iter().map(|frame| (frame.name.clone(), frame.first, frame.order)).collect();
        Self { named, tables: setup.frames_of_tables }
    }

    /// A frame, with the name that the file gives it.
    pub(super) fn show(&self, frame: Frame) -> String {
        let named =
            self.named.iter().find(|(_, first, order)| frame.number().wrapping_sub(first.number()) < 1 << order);
        match named {
            Some((name, first, _)) if *first == frame => name.clone(),
            Some((name, first, _)) => format!("{name}+{:#x}", frame.number() - first.number()),
            None if self.tables.number(frame).is_some() => format!("table {:#x}", frame.number()),
            None => format!("frame {:#x}", frame.number()),
        }
    }
}

impl FrameNames {
    /// What a register holds: a frame that the file names, or a number.
    pub(super) fn show_result(&self, number: u64) -> String {
        let named = self.named.iter().any(|(_, first, order)| number.wrapping_sub(first.number()) < 1 << order);
        if named {
            self.show(Frame::new(number))
        } else if number < LEAST_FRAME {
            number.to_string()
        } else {
            format!("{number:#x}")
        }
    }
}

/// What an entry of this level says, in words.
pub(super) fn entry_words(paging: Paging, frames: &FrameNames, level: u8, entry: u64) -> String {
    if entry == 0 {
        return "none".to_owned();
    }
    let decoded = paging.decode(level, entry);
    let mut words = vec![frames.show(decoded.frame)];
    words.extend(flag_names(entry));
    if level > 1 && decoded.leaf {
        words.push("huge".to_owned());
    }
    if !decoded.present {
        words.push("not present".to_owned());
    }
    words.join(" ")
}

/// Names the words of every table: its entries, its lock, its sequence count.
pub(super) fn name_tables<'a, K: Checker<'a>>(
    checker: &mut K,
    arena: &Arena,
    metas: &[TableMeta],
    frames: TableFrames,
) {
    for (index, meta) in metas.iter().enumerate() {
        let frame = frames.frame(index as u64);
        let number = frame.number();
        checker.name(meta.lock.word(), format!("PTL of table {number:#x}"));
        checker.name(&meta.children, format!("children of table {number:#x}"));
        checker.name(meta.sequence.word(), format!("sequence of table {number:#x}"));
        if let Some(words) = arena.table(frame) {
            checker.name_range(words[0].address(), 4096, format!("table {number:#x}"), None);
        }
    }
}
