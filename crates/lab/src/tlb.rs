//! What a CPU's TLB and paging-structure caches may hold.
//!
//! Hardware may fill them at any time from any entry that it can reach, and evict at any time (MODEL.md, F2, F3). Instead of trying
//! every moment to fill, the lab keeps *everything that may have been filled* since the last invalidation; an
//! access then picks one. Filling has no effect of its own that could be observed, so the sets stand for all choices.

use std::rc::Rc;

use machine::{ContextInvalidation, Invalidation, Pcid, VirtAddr};

use crate::hash::Chain;
use crate::paging::Paging;

pub(crate) const WRITABLE: u8 = 1;
pub(crate) const USER: u8 = 2;
pub(crate) const EXECUTABLE: u8 = 4;
/// Of a leaf alone: it is a page of a shadow stack.
pub(crate) const SHADOW_STACK: u8 = 8;

/// Whether what a cached translation names was freed after it was cached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Life {
    Valid,
    Dangling,
}

/// A translation of one page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Item {
    pub(crate) page: u64,
    pub(crate) level: u8,
    /// [`WRITABLE`], [`USER`], [`EXECUTABLE`]: of all entries on the way. [`SHADOW_STACK`].
    pub(crate) rights: u8,
    /// The protection key of the leaf.
    pub(crate) key: u8,
    /// The dirty flag was set when it was cached: stores need no walk.
    pub(crate) dirty: bool,
    pub(crate) life: Life,
    /// The first frame of the page.
    pub(crate) frame: u64,
    /// Under which identifier it was cached.
    pub(crate) tag: Tag,
}

/// Whose translation it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Tag {
    Of(Pcid),
    /// Of whoever runs.
    Global,
}

impl Tag {
    /// Whether it is used while this identifier is current.
    #[inline(always)]
    pub(crate) fn serves(self, pcid: Pcid) -> bool {
        self == Self::Global || self == Self::Of(pcid)
    }

    fn bits(self) -> u64 {
        match self {
            Self::Of(pcid) => u64::from(pcid.number()) << 32,
            Self::Global => 1 << 44,
        }
    }
}

/// A pointer to a table, from a paging-structure cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Pointer {
    /// Of the table pointed to.
    pub(crate) level: u8,
    /// The first address that the table translates.
    pub(crate) base: u64,
    pub(crate) rights: u8,
    pub(crate) life: Life,
    /// The table's frame.
    pub(crate) frame: u64,
    /// Under which identifier it was cached.
    pub(crate) pcid: Pcid,
}

/// The sets of one CPU, sorted.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Tlb {
    pub(crate) items: Vec<Item>,
    pub(crate) pointers: Vec<Pointer>,
}

impl Item {
    pub(crate) fn covers(&self, address: u64) -> bool {
        address & !(Paging::span(self.level) - 1) == self.page
    }

    fn term(&self, cpu: usize) -> u128 {
        let flags = self.tag.bits()
            | u64::from(self.key) << 48
            | u64::from(self.level) << 8
            | u64::from(self.rights) << 4
            | u64::from(self.dirty) << 1
            | self.life as u64;
        Chain::new(cpu as u64).with(self.page).with(flags).with(self.frame).term()
    }
}

impl Pointer {
    pub(crate) fn covers(&self, address: u64) -> bool {
        address & !(Paging::span(self.level + 1) - 1) == self.base
    }

    fn term(&self, cpu: usize) -> u128 {
        let flags = u64::from(self.pcid.number()) << 32
            | 1 << 16
            | u64::from(self.level) << 8
            | u64::from(self.rights) << 4
            | self.life as u64;
        Chain::new(cpu as u64).with(self.base).with(flags).with(self.frame).term()
    }
}

impl Tlb {
    /// Adds an item; whether it is new.
    pub(crate) fn add_item(self: &mut Rc<Self>, item: Item) -> bool {
        match self.items.binary_search(&item) {
            Ok(_) => false,
            Err(at) => {
                Rc::make_mut(self).items.insert(at, item);
                true
            }
        }
    }

    /// Adds a pointer; whether it is new.
    pub(crate) fn add_pointer(self: &mut Rc<Self>, pointer: Pointer) -> bool {
        match self.pointers.binary_search(&pointer) {
            Ok(_) => false,
            Err(at) => {
                Rc::make_mut(self).pointers.insert(at, pointer);
                true
            }
        }
    }

    /// `invlpg` and `mov cr3` while this identifier is current: drops what is covered, and every pointer. Where a page is named, its global
    /// translations go, too, else they stay (SDM vol. 3A, 4.10.4.1).
    pub(crate) fn invalidate(self: &mut Rc<Self>, what: Invalidation, pcid: Pcid) {
        let names_pages = matches!(what, Invalidation::Pages { .. });
        let tlb = Rc::make_mut(self);
        tlb.items.retain(|item| {
            let meant = item.tag == Tag::Of(pcid) || names_pages && item.tag == Tag::Global;
            !(meant && what.covers(VirtAddr::new(item.page), Paging::span(item.level)))
        });
        tlb.pointers.retain(|pointer| pointer.pcid != pcid);
    }

    /// The same under every identifier, as a hypervisor or a broadcast does it.
    pub(crate) fn invalidate_everywhere(self: &mut Rc<Self>, what: Invalidation) {
        let names_pages = matches!(what, Invalidation::Pages { .. });
        let tlb = Rc::make_mut(self);
        tlb.items.retain(|item| {
            let meant = names_pages || item.tag != Tag::Global;
            !(meant && what.covers(VirtAddr::new(item.page), Paging::span(item.level)))
        });
        tlb.pointers.clear();
    }

    /// `invpcid` (SDM vol. 3A, 4.10.4.1).
    pub(crate) fn invalidate_context(self: &mut Rc<Self>, what: ContextInvalidation) {
        let tlb = Rc::make_mut(self);
        match what {
            ContextInvalidation::Address { pcid, address } => {
                let address = address.as_u64();
                tlb.items.retain(|item| item.tag != Tag::Of(pcid) || !item.covers(address));
                tlb.pointers.retain(|pointer| pointer.pcid != pcid || !pointer.covers(address));
            }
            ContextInvalidation::Context { pcid } => {
                tlb.items.retain(|item| item.tag != Tag::Of(pcid));
                tlb.pointers.retain(|pointer| pointer.pcid != pcid);
            }
            ContextInvalidation::EverythingAndGlobal => {
                tlb.items.clear();
                tlb.pointers.clear();
            }
            ContextInvalidation::Everything => {
                tlb.items.retain(|item| item.tag == Tag::Global);
                tlb.pointers.clear();
            }
        }
    }

    /// Drops what a page fault at `address` drops while this identifier is current (SDM vol. 3A, 4.10.4.1).
    pub(crate) fn fault(self: &mut Rc<Self>, address: u64, pcid: Pcid) {
        let tlb = Rc::make_mut(self);
        tlb.items.retain(|item| !item.tag.serves(pcid) || !item.covers(address));
        tlb.pointers.retain(|pointer| pointer.pcid != pcid || !pointer.covers(address));
    }

    /// Marks what names one of these frames as dangling; whether anything did.
    pub(crate) fn free(self: &mut Rc<Self>, first: u64, count: u64) -> bool {
        let freed = first..first + count;
        let names = |frame, size: u64| frame < freed.end && freed.start < frame + size;
        let item_dangles = |item: &Item| {
            item.life == Life::Valid && names(item.frame, Paging::span(item.level) >> machine::addr::PAGE_SHIFT)
        };
        let pointer_dangles = |pointer: &Pointer| pointer.life == Life::Valid && names(pointer.frame, 1);
        if !self.items.iter().any(item_dangles) && !self.pointers.iter().any(pointer_dangles) {
            return false;
        }
        let tlb = Rc::make_mut(self);
        for item in &mut tlb.items {
            if item_dangles(item) {
                item.life = Life::Dangling;
            }
        }
        for pointer in &mut tlb.pointers {
            if pointer_dangles(pointer) {
                pointer.life = Life::Dangling;
            }
        }
        tlb.items.sort();
        tlb.items.dedup();
        tlb.pointers.sort();
        tlb.pointers.dedup();
        true
    }

    /// The fingerprint's term of the sets of a CPU.
    pub(crate) fn term(&self, cpu: usize) -> u128 {
        let items = self.items.iter().fold(0u128, |sum, item| sum.wrapping_add(item.term(cpu)));
        self.pointers.iter().fold(items, |sum, pointer| sum.wrapping_add(pointer.term(cpu)))
    }
}
