//! What a CPU has cached of page tables: entries that are there because a walk put them there.

use machine::{ContextInvalidation, Invalidation, VirtAddr};

use crate::paging::{Paging, Rights};

/// Whether the frame that is named was freed since the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// It was not.
    Current,
    /// It was.
    FreedSince,
}

/// Under which identifier something is cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Identifier(u16),
    Everybody,
}

/// A TLB entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// The first address of the page.
    pub(crate) page: u64,
    pub(crate) level: u8,
    pub(crate) frame: u64,
    pub(crate) rights: Rights,
    /// The protection key.
    pub(crate) key: u32,
    pub(crate) dirty: bool,
    pub(crate) age: Age,
    pub(crate) owner: Owner,
}

/// An entry of a paging-structure cache: where the table for some addresses is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pointer {
    /// The first address that the table translates.
    pub(crate) first: u64,
    /// The level of the table.
    pub(crate) level: u8,
    pub(crate) frame: u64,
    pub(crate) rights: Rights,
    pub(crate) age: Age,
    pub(crate) identifier: u16,
}

impl Translation {
    pub(crate) fn is_of(&self, address: u64, identifier: u16) -> bool {
        Paging::align(address, self.level) == self.page
            && (self.owner == Owner::Everybody || self.owner == Owner::Identifier(identifier))
    }

    fn is_in(&self, what: Invalidation) -> bool {
        what.covers(VirtAddr::new(self.page), 1 << Paging::shift(self.level))
    }
}

impl Pointer {
    pub(crate) fn is_of(&self, address: u64, identifier: u16) -> bool {
        Paging::align(address, self.level + 1) == self.first && self.identifier == identifier
    }
}

/// Everything that a CPU has cached.
#[derive(Clone, Default, Debug)]
pub(crate) struct Translations {
    pub(crate) pages: Vec<Translation>,
    pub(crate) tables: Vec<Pointer>,
}

impl Translations {
    pub(crate) fn add_page(&mut self, new: Translation) {
        if !self.pages.contains(&new) {
            self.pages.push(new);
        }
    }

    pub(crate) fn add_table(&mut self, new: Pointer) {
        if !self.tables.contains(&new) {
            self.tables.push(new);
        }
    }

    /// INVLPG of each page named, global or not, with all paging-structure caches of the identifier; or what MOV to CR3 drops, which spares global
    /// translations (SDM 4.10.4.1).
    pub(crate) fn invalidate(&mut self, what: Invalidation, identifier: u16) {
        let by_page = what != Invalidation::All;
        self.pages.retain(|page| match page.owner {
            Owner::Identifier(owner) => owner != identifier || !page.is_in(what),
            Owner::Everybody => !by_page || !page.is_in(what),
        });
        self.tables.retain(|table| table.identifier != identifier);
    }

    /// The same under every identifier: a hypervisor's flush, or a broadcast.
    pub(crate) fn invalidate_all_identifiers(&mut self, what: Invalidation) {
        let by_page = what != Invalidation::All;
        self.pages.retain(|page| page.owner == Owner::Everybody && !by_page || !page.is_in(what));
        self.tables.clear();
    }

    /// INVPCID by its type (SDM 4.10.4.1).
    pub(crate) fn invalidate_context(&mut self, what: ContextInvalidation) {
        match what {
            ContextInvalidation::Address { pcid, address } => {
                let (identifier, address) = (pcid.number(), address.as_u64());
                self.pages
                    .retain(|page| page.owner != Owner::Identifier(identifier) || !page.is_of(address, identifier));
                self.tables.retain(|table| !table.is_of(address, identifier));
            }
            ContextInvalidation::Context { pcid } => {
                self.pages.retain(|page| page.owner != Owner::Identifier(pcid.number()));
                self.tables.retain(|table| table.identifier != pcid.number());
            }
            ContextInvalidation::EverythingAndGlobal => *self = Self::default(),
            ContextInvalidation::Everything => {
                self.pages.retain(|page| page.owner == Owner::Everybody);
                self.tables.clear();
            }
        }
    }

    /// A page fault drops what would be used for its address (SDM 4.10.4.1).
    pub(crate) fn fault(&mut self, address: u64, identifier: u16) {
        self.pages.retain(|page| !page.is_of(address, identifier));
        self.tables.retain(|table| !table.is_of(address, identifier));
    }

    /// Frames are free from now on.
    pub(crate) fn freed(&mut self, first: u64, count: u64) {
        for page in &mut self.pages {
            let frames = 1 << (Paging::shift(page.level) - 12);
            if page.frame < first + count && first < page.frame + frames {
                page.age = Age::FreedSince;
            }
        }
        for table in &mut self.tables {
            if table.frame.wrapping_sub(first) < count {
                table.age = Age::FreedSince;
            }
        }
    }
}
