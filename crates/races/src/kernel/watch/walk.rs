//! Page tables as they are in memory, read with the lab's own decoder.

use lab::Paging;
use machine::addr::PAGE_SIZE;
use machine::{Frame, Word, Word64};

use super::{Watch, WatchedPage};
use crate::checker::Checker;
use crate::entry_words::{high_words, low_words};
use crate::kernel::names::{FrameNames, entry_words};

/// What hardware would find for a page if it walked now.
pub(super) struct Walked {
    /// The entry at which the walk ended.
    pub(super) cell: usize,
    pub(super) level: u8,
    /// The leaf's first frame.
    pub(super) leaf: Option<Frame>,
}

/// An entry; of PROT_NONE, what it was before. That is: present, bit 8 as any, the address not inverted (CVE-2018-3620 is why it is).
fn accessible(level: u8, entry: u64) -> u64 {
    const PRESENT: u64 = 1;
    const PROT_NONE: u64 = 1 << 8;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    if entry & (PRESENT | PROT_NONE) == PROT_NONE {
        (entry ^ (ADDRESS & !(Paging::span(level) - 1))) & !PROT_NONE | PRESENT
    } else {
        entry
    }
}

impl Watch<'_> {
    /// Walks the tables as they are in memory.
    pub(super) fn walk(&self, page: &WatchedPage) -> Option<Walked> {
        let mut level = self.paging.levels();
        let top = self.paging.table_of_root(self.roots[page.space]);
        let mut table: &[Word64] = &self.arena.table(top.frame())?[(top.as_u64() % PAGE_SIZE / 8) as usize..];
        loop {
            let word = table.get(self.paging.index(page.address, level))?;
            let entry = word.atomic_load(std::sync::atomic::Ordering::Relaxed);
            let decoded = self.paging.decode(level, entry);
            let walked = |leaf| Some(Walked { cell: word.address(), level, leaf });
            if !decoded.present {
                return walked(None);
            }
            if decoded.leaf {
                return walked(Some(decoded.frame));
            }
            match self.arena.table(decoded.frame) {
                Some(lower) => table = lower,
                None => return walked(None),
            }
            level -= 1;
        }
    }

    /// Visits every leaf in the tables of all address spaces, once, though tables may be shared: its level, its entry and its first frame. One that nobody may access for now holds its
    /// frame, too, and is shown as the hardware would see it if somebody could.
    pub(super) fn each_leaf(&self, mut visit: impl FnMut(u8, u64, Frame)) {
        let level = self.paging.levels();
        let mut tables = Vec::new();
        for root in &self.roots {
            let top = self.paging.table_of_root(*root);
            let first = (top.as_u64() % PAGE_SIZE / 8) as usize;
            // On PAE the root is four entries, wherever they are.
            let entries = if level == 3 { first..first + 4 } else { 0..512 };
            tables.push((top.frame(), level, entries));
        }
        let mut next = 0;
        while let Some((frame, level, entries)) = tables.get(next).cloned() {
            next += 1;
            let Some(words) = self.arena.table(frame) else { continue };
            for word in &words[entries] {
                let entry = accessible(level, word.atomic_load(std::sync::atomic::Ordering::Relaxed));
                let decoded = self.paging.decode(level, entry);
                if !decoded.present {
                    continue;
                }
                if decoded.leaf {
                    visit(level, entry, decoded.frame);
                } else if !tables.iter().any(|(known, ..)| *known == decoded.frame) {
                    tables.push((decoded.frame, level - 1, 0..512));
                }
            }
        }
    }

    /// Names the entries on the way to every watched page, as tables are now.
    pub(in crate::kernel) fn name_entries<'a, K: Checker<'a>>(&self, checker: &mut K, frames: &FrameNames) {
        const LEVELS: [&str; 6] = ["", "pte", "pmd", "pud", "p4d", "pgd"];
        for page in &self.pages {
            let name = &page.name;
            for level in 1..=self.paging.levels() {
                let Some(cell) = self.cell(page, level) else { continue };
                let (paging, frames) = (self.paging, frames.clone());
                let entry = format!("{}({name})", LEVELS[usize::from(level)]);
                checker.name_range(cell, 4, format!("{entry}.low"), Some(Box::new(low_words)));
                checker.name_range(cell + 4, 4, format!("{entry}.high"), Some(Box::new(high_words)));
                let show = move |bits| entry_words(paging, &frames, level, bits);
                checker.name_range(cell, 8, entry, Some(Box::new(show)));
            }
        }
    }

    /// The address of the entry of this level on the way to a page.
    fn cell(&self, page: &WatchedPage, wanted: u8) -> Option<usize> {
        let mut level = self.paging.levels();
        let top = self.paging.table_of_root(self.roots[page.space]);
        let mut table: &[Word64] = &self.arena.table(top.frame())?[(top.as_u64() % PAGE_SIZE / 8) as usize..];
        loop {
            let word = table.get(self.paging.index(page.address, level))?;
            if level == wanted {
                return Some(word.address());
            }
            let decoded = self.paging.decode(level, word.atomic_load(std::sync::atomic::Ordering::Relaxed));
            if !decoded.present || decoded.leaf {
                return None;
            }
            table = self.arena.table(decoded.frame)?;
            level -= 1;
        }
    }
}
