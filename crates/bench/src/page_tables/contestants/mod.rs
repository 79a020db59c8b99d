//! Everybody behind one trait, so that all run the very same loop.

mod aarch64_paging;
mod bare;
mod hand;
mod ours;
mod page_table_generic;
mod page_table_multiarch;
mod x86_64;

pub(crate) use aarch64_paging::{Inactive, LivePaging};
pub(crate) use bare::Bare;
pub(crate) use hand::Hand;
pub(crate) use ours::{OursLive, OursOffline};
pub(crate) use page_table_generic::Generic;
pub(crate) use page_table_multiarch::Multiarch;
pub(crate) use x86_64::X86_64;

/// An implementation of page tables, with 4 levels and 4 KiB pages. All addresses are page-aligned, and mapped at most once.
pub(crate) trait Contestant: Sized {
    /// Who it is, with the version.
    const NAME: &'static str;

    /// An empty tree. Its tables come from [`crate::page_tables::frames`].
    fn new() -> Self;

    /// Maps a page.
    fn map(&mut self, virt: u64, phys: u64);

    /// The physical address that a virtual one is mapped to.
    fn translate(&self, virt: u64) -> Option<u64>;

    /// Takes a page away and returns where it was mapped to.
    fn unmap(&mut self, virt: u64) -> Option<u64>;

    /// Gives all tables back. Nothing is mapped.
    fn free(self);
}

/// One with operations on ranges.
pub(crate) trait Ranges: Contestant {
    /// Maps `pages` pages to frames in a row.
    fn map_range(&mut self, virt: u64, pages: u64, phys: u64);

    /// Makes `pages` pages read-only.
    fn protect_range(&mut self, virt: u64, pages: u64);

    /// Takes `pages` pages away.
    fn unmap_range(&mut self, virt: u64, pages: u64);
}
