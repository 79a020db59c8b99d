//! What an address space is, written page by page, without areas, tables or TLBs: what the engine is compared with.
//!
//! It knows nothing of how the engine does it. Areas are runs of pages with the same name; a change of part of a run gives that part another name.

use std::collections::{BTreeMap, BTreeSet};

use machine::Access;
use mm::AreaRights;

/// What lies behind a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backing {
    /// Zeros until it is written.
    Anonymous,
    /// A page of the file; stores are the file's.
    Shared(u64),
    /// A page of the file; stores are this space's.
    Private(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    area: u64,
    pub(crate) rights: AreaRights,
    backing: Backing,
    /// What was stored into this space's own page.
    own: Option<u64>,
    guard: Guard,
}

/// Whether anybody may access a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    None,
    /// Nobody, whatever its rights.
    Installed,
}

/// Why an access fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    NoArea,
    Forbidden,
    NoPage,
    Guarded,
}

/// An operation was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused;

/// An address space whose pages are numbered from 0.
pub(crate) struct Naive {
    pages: BTreeMap<u64, Page>,
    file: Vec<u64>,
    /// The first pages of parts of the address space; none has more areas than it has slots, and no area is of two.
    parts: Vec<u64>,
    slots: usize,
    names: u64,
    /// Pages that were stored to since soft-dirty was last cleared there.
    pub(crate) written: BTreeSet<u64>,
    /// Pages that may have been mapped since.
    pub(crate) touched: BTreeSet<u64>,
}

impl Naive {
    /// With a file of these pages, and in parts that begin at these pages, each with room for so many areas.
    pub(crate) fn new(file: Vec<u64>, parts: &[u64], slots: usize) -> Self {
        let parts = parts.to_vec();
        Self {
            pages: BTreeMap::new(),
            file,
            parts,
            slots,
            names: 0,
            written: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// How many runs of the same name begin in a part; `None` if one reaches into it from below.
    fn areas(&self, pages: &BTreeMap<u64, Page>, part: usize) -> Option<usize> {
        let end = self.parts.get(part + 1).copied().unwrap_or(u64::MAX);
        let mut areas = 0;
        for (number, page) in pages.range(self.parts[part]..end) {
            match number.checked_sub(1).and_then(|before| pages.get(&before)) {
                Some(before) if before.area == page.area && *number == self.parts[part] => return None,
                Some(before) if before.area == page.area => {}
                _ => areas += 1,
            }
        }
        Some(areas)
    }

    /// Takes over what the pages would become, if there are slots for it.
    fn commit(&mut self, pages: BTreeMap<u64, Page>) -> Result<(), Refused> {
        let fits = |part| self.areas(&pages, part).is_some_and(|areas| areas <= self.slots);
        if !(0..self.parts.len()).all(fits) {
            return Err(Refused);
        }
        self.pages = pages;
        Ok(())
    }

    fn is_free(&self, start: u64, count: u64) -> bool {
        self.pages.range(start..start + count).next().is_none()
    }

    fn forget_use(&mut self, start: u64, count: u64) {
        self.written.retain(|page| !(start..start + count).contains(page));
        self.touched.retain(|page| !(start..start + count).contains(page));
    }

    pub(crate) fn mmap(
        &mut self,
        start: u64,
        count: u64,
        rights: AreaRights,
        backing: impl Fn(u64) -> Backing,
    ) -> Result<(), Refused> {
        if count == 0 || !self.is_free(start, count) {
            return Err(Refused);
        }
        let area = self.name();
        let mut pages = self.pages.clone();
        pages.extend(
            (0..count).map(|page| {
                (start + page, Page { area, rights, backing: backing(page), own: None, guard: Guard::None })
            }),
        );
        self.commit(pages)
    }

    pub(crate) fn munmap(&mut self, start: u64, count: u64) -> Result<(), Refused> {
        if count == 0 {
            return Err(Refused);
        }
        let mut pages = self.pages.clone();
        pages.retain(|page, _| !(start..start + count).contains(page));
        self.commit(pages)?;
        self.forget_use(start, count);
        Ok(())
    }

    pub(crate) fn mprotect(&mut self, start: u64, count: u64, rights: AreaRights) -> Result<(), Refused> {
        let mut pages = self.pages.clone();
        let mut names = BTreeMap::new();
        for number in start..start + count {
            let page = pages.get_mut(&number).ok_or(Refused)?;
            if page.rights != rights {
                page.rights = rights;
                let fresh = self.names + 1 + names.len() as u64;
                page.area = *names.entry(page.area).or_insert(fresh);
            }
        }
        self.names += names.len() as u64;
        self.commit(pages)
    }

    pub(crate) fn mremap(&mut self, from: u64, count: u64, to: u64, new_count: u64) -> Result<(), Refused> {
        if count == 0 || new_count == 0 {
            return Err(Refused);
        }
        let first = *self.pages.get(&from).ok_or(Refused)?;
        if (from..from + count).any(|page| self.pages.get(&page).is_none_or(|page| page.area != first.area)) {
            return Err(Refused);
        }
        let (kept, added) = (count.min(new_count), new_count.saturating_sub(count));
        let place = if from == to { to + count } else { to };
        let needed = if from == to { added } else { new_count };
        if !self.is_free(place, needed) {
            return Err(Refused);
        }
        let mut pages = self.pages.clone();
        pages.retain(|page, _| !(from..from + count).contains(page));
        let area = if from == to { first.area } else { self.name() };
        let file_page = |page: u64| match first.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::Shared(first) => Backing::Shared(first + page),
            Backing::Private(first) => Backing::Private(first + page),
        };
        for page in 0..new_count {
            let old = self.pages.get(&(from + page)).filter(|_| page < kept);
            let (own, guard) = old.map_or((None, Guard::None), |old| (old.own, old.guard));
            pages.insert(to + page, Page { area, own, guard, backing: file_page(page), ..first });
        }
        self.commit(pages)?;
        if from != to {
            let written: Vec<u64> = self.written.range(from..from + kept).map(|page| page - from + to).collect();
            self.forget_use(from, count);
            self.written.extend(written);
            // What moves may count as written at its new place.
            self.touched.extend(to..to + kept);
        } else {
            self.forget_use(from + kept, count - kept);
        }
        Ok(())
    }

    /// Copies and anonymous pages are forgotten.
    pub(crate) fn zap(&mut self, start: u64, count: u64) {
        self.pages.range_mut(start..start + count).for_each(|(_, page)| page.own = None);
        self.forget_use(start, count);
    }

    /// Nobody may access the pages any more, and what was in them is forgotten.
    pub(crate) fn install_guards(&mut self, start: u64, count: u64) -> Result<(), Refused> {
        self.set_guards(start, count, Guard::Installed)?;
        self.zap(start, count);
        Ok(())
    }

    pub(crate) fn remove_guards(&mut self, start: u64, count: u64) -> Result<(), Refused> {
        self.set_guards(start, count, Guard::None)
    }

    fn set_guards(&mut self, start: u64, count: u64, guard: Guard) -> Result<(), Refused> {
        if (start..start + count).any(|page| !self.pages.contains_key(&page)) {
            return Err(Refused);
        }
        self.pages.range_mut(start..start + count).for_each(|(_, page)| page.guard = guard);
        Ok(())
    }

    fn accessible(&self, page: u64, allowed: impl Fn(AreaRights) -> bool) -> Result<Page, Signal> {
        let found = self.pages.get(&page).ok_or(Signal::NoArea)?;
        if !allowed(found.rights) {
            return Err(Signal::Forbidden);
        }
        match found.backing {
            Backing::Shared(number) if number >= self.file.len() as u64 => Err(Signal::NoPage),
            _ if found.guard == Guard::Installed => Err(Signal::Guarded),
            Backing::Private(number) if number >= self.file.len() as u64 => Err(Signal::NoPage),
            _ => Ok(*found),
        }
    }

    pub(crate) fn load(&mut self, page: u64) -> Result<u64, Signal> {
        let found = self.accessible(page, |rights| rights != AreaRights::None)?;
        self.touched.insert(page);
        Ok(match (found.own, found.backing) {
            (Some(own), _) => own,
            (None, Backing::Anonymous) => 0,
            (None, Backing::Shared(number) | Backing::Private(number)) => self.file[number as usize],
        })
    }

    pub(crate) fn store(&mut self, page: u64, value: u64) -> Result<(), Signal> {
        let found = self.accessible(page, |rights| rights == AreaRights::ReadWrite)?;
        match found.backing {
            Backing::Shared(number) => self.file[number as usize] = value,
            Backing::Anonymous | Backing::Private(_) => {
                self.pages.entry(page).and_modify(|page| page.own = Some(value));
            }
        }
        self.written.insert(page);
        self.touched.insert(page);
        Ok(())
    }

    /// As if each page was accessed: how many were before the first that cannot be.
    pub(crate) fn populate(&mut self, start: u64, count: u64, access: Access) -> Result<(), u64> {
        for page in start..start + count {
            // A write of what is there makes a copy, like any other.
            let done = match access {
                Access::Read => self.load(page).map(|_| ()),
                Access::Write => self.load(page).and_then(|value| self.store(page, value)),
            };
            done.map_err(|_| page - start)?;
        }
        Ok(())
    }

    pub(crate) fn clear_soft_dirty(&mut self, start: u64, count: u64) {
        self.forget_use(start, count);
    }
}
