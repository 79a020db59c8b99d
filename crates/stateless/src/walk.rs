//! Page walks, and what they leave in the caches of a CPU.
//!
//! # When walks that nobody asked for are explored
//!
//! A CPU may walk and cache at any time (MODEL.md, F2). What a walk finds depends on the entries that it reads, on CR3 and on the cached pointers that it starts
//! from; having one translation more in the caches takes no possibility away from anybody. So a walk can be put off until one of those is about to change: it finds the same.
//! And if no access uses what it left before that is dropped, leaving it out makes no difference. So these walks are made just before steps that change
//! entries, CR3 or pointers ([`Step::last_chance`]), and only for accesses that come later in a run that was seen. A walk that is made then caches all that
//! the CPU can reach, which allows whatever caching a part of it would allow.

use machine::user::FaultCause;
use machine::{CpuId, Frame, Pcid, VirtAddr};

use crate::config::{Caches, Feature};
use crate::footprint::{ANY_BLOCK, Use, path, translations};
use crate::memory::Place;
use crate::op::Deed;
use crate::paging::{ACCESSED, DIRTY, Entry, Paging, Rights};
use crate::state::{Machine, State, Step};
use crate::translation::{Age, Owner, Pointer, Translation, Translations};
use crate::verdict::rule;
use crate::watch::Writer;

/// How a user access may go on.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// It reaches a frame, and leaves something in the caches.
    Reach { frame: u64, age: Age, leaves: Translations },
    /// A walk finds an entry without these flags and sets them.
    SetFlags { offset: usize, flags: u64 },
    /// The walker stores the flags that it found missing.
    FinishUpdate,
    /// It faults.
    Fault(FaultCause),
    /// A walk reads a table whose frame was freed.
    FreedTable(u64),
    /// A walk takes a frame for a table that holds none.
    NoTable(u64),
}

impl Way {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reach { frame: a, age: b, .. }, Self::Reach { frame: c, age: d, .. }) => a == c && b == d,
            (Self::SetFlags { offset: a, flags: b }, Self::SetFlags { offset: c, flags: d }) => a == c && b == d,
            (Self::Fault(a), Self::Fault(b)) => a == b,
            (Self::FreedTable(a), Self::FreedTable(b)) | (Self::NoTable(a), Self::NoTable(b)) => a == b,
            _ => false,
        }
    }
}

/// One entry that a walk reads.
enum Read {
    Memory(usize, u64),
    Register(u64),
    Nowhere,
}

fn needed(deed: Deed) -> Rights {
    Rights { user: true, write: deed == Deed::Store, execute: deed == Deed::Fetch, push: deed == Deed::Push }
}

/// Whether the protection key of a page keeps the thread out: two bits a key, the lower one for all data accesses, the upper one for stores (SDM 4.6.2). That shows in the error code before
/// rights do (SDM 4.7).
fn forbidden_by_key(pkru: u32, page: &Translation, deed: Deed) -> bool {
    let bits = pkru >> (2 * page.key) & 3;
    page.rights.user
        && match deed {
            Deed::Fetch => false,
            Deed::Load => matches!(bits, 1 | 3),
            Deed::Store | Deed::Push => bits != 0,
        }
}

impl Machine<'_> {
    /// The current process-context identifier.
    pub(crate) fn identifier(&self, state: &State<'_>, cpu: usize) -> u16 {
        match (self.config.identifiers, state.cpus[cpu].cr3) {
            (Feature::Present, Some(cr3)) => (cr3 % u64::from(Pcid::COUNT)) as u16,
            _ => 0,
        }
    }

    fn has_registers(&self) -> bool {
        self.config.paging == Some(Paging::Pae) && self.config.pdpte_registers == Feature::Present
    }

    /// Where walks begin that use no cached pointer.
    fn root(&self, state: &State<'_>, cpu: usize) -> Option<(Paging, Pointer)> {
        let paging = self.config.paging?;
        let frame = paging.root(state.cpus[cpu].cr3?) >> 12;
        let is_gone = !self.has_registers() && self.is_free(state, frame);
        let age = if is_gone { Age::FreedSince } else { Age::Current };
        let identifier = self.identifier(state, cpu);
        Some((paging, Pointer { first: 0, level: paging.top(), frame, rights: Rights::ALL, age, identifier }))
    }

    /// Where walks for an address may begin.
    fn starts(&self, state: &State<'_>, cpu: usize, address: u64) -> Option<(Paging, Vec<Pointer>)> {
        let (paging, root) = self.root(state, cpu)?;
        let identifier = root.identifier;
        let mut starts = vec![root];
        if matches!(self.config.caches, Caches::Everything | Caches::OfAccesses) {
            let cached = &state.cpus[cpu].translations.tables;
            starts.extend(cached.iter().filter(|table| table.is_of(address, identifier)));
        }
        Some((paging, starts))
    }

    fn read_entry(&self, state: &State<'_>, cpu: usize, paging: Paging, table: &Pointer, address: u64) -> Read {
        let mut index = paging.index(VirtAddr::new(address), table.level);
        if paging == Paging::Pae && table.level == paging.top() {
            if self.has_registers() {
                return Read::Register(state.cpus[cpu].pdptes[index]);
            }
            index += (state.cpus[cpu].cr3.unwrap_or(0) & 0xfe0) as usize / 8;
        }
        match self.words_of(state, table.frame) {
            Some(words) => {
                let place = Place::whole(words + 8 * index);
                Read::Memory(place.offset, state.words.read(place))
            }
            None => Read::Nowhere,
        }
    }

    fn rights(&self, rights: Rights) -> Rights {
        let execute = rights.execute || self.config.execute_disable == Feature::Absent;
        Rights { execute, ..rights }
    }

    /// One level further: the pointer or translation that an entry gives.
    fn step_down(
        &self,
        state: &State<'_>,
        table: &Pointer,
        entry: Entry,
        address: u64,
    ) -> Option<Result<Pointer, Translation>> {
        let age = |frame| if self.is_free(state, frame) { Age::FreedSince } else { Age::Current };
        let first = Paging::align(address, table.level);
        match entry {
            Entry::Absent => None,
            Entry::Table { frame, rights, .. } => {
                let rights = table.rights.and(self.rights(rights));
                Some(Ok(Pointer { first, level: table.level - 1, frame, rights, age: age(frame), ..*table }))
            }
            Entry::Page { frame, rights, dirty, global, key, .. } => {
                // SDM 4.6: a shadow-stack page has R/W clear and D set in its own entry, and R/W set in every one above.
                let push =
                    self.config.shadow_stacks == Feature::Present && table.rights.write && !rights.write && dirty;
                let rights = Rights { push, ..table.rights.and(self.rights(rights)) };
                let global = global && self.config.global_pages == Feature::Present;
                let owner = if global { Owner::Everybody } else { Owner::Identifier(table.identifier) };
                let level = table.level;
                let key = if self.config.protection_keys == Feature::Present { key } else { 0 };
                Some(Err(Translation { page: first, level, frame, rights, key, dirty, age: age(frame), owner }))
            }
        }
    }

    /// Every way in which a user access may go on, each once.
    pub(crate) fn ways(&self, state: &State<'_>, cpu: usize, address: u64, deed: Deed) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        let mut add = |way: Way| {
            if !ways.iter().any(|known| known.is_same(&way)) {
                ways.push(way);
            }
        };
        let Some((paging, starts)) = self.starts(state, cpu, address) else { return ways };
        if state.cpus[cpu].update.is_some() {
            return vec![Way::FinishUpdate];
        }
        let (identifier, needed) = (starts[0].identifier, needed(deed));
        for table in starts {
            add(self.walk(state, cpu, (paging, table), address, (deed, needed)));
        }
        if self.config.caches != Caches::Nothing {
            for page in state.cpus[cpu].translations.pages.iter().filter(|page| page.is_of(address, identifier)) {
                if forbidden_by_key(state.cpus[cpu].pkru, page, deed) {
                    add(Way::Fault(FaultCause::ProtectionKey));
                } else if !page.rights.include(needed) {
                    add(Way::Fault(FaultCause::Protection));
                } else if deed != Deed::Store || page.dirty {
                    let frame = page.frame + (address - page.page) / machine::addr::PAGE_SIZE;
                    add(Way::Reach { frame, age: page.age, leaves: Translations::default() });
                }
            }
        }
        ways
    }

    fn walk(
        &self,
        state: &State<'_>,
        cpu: usize,
        (paging, mut table): (Paging, Pointer),
        address: u64,
        (deed, needed): (Deed, Rights),
    ) -> Way {
        let mut leaves = Translations::default();
        loop {
            if table.age == Age::FreedSince {
                return Way::FreedTable(table.frame);
            }
            let (offset, bits) = match self.read_entry(state, cpu, paging, &table, address) {
                Read::Memory(offset, bits) => (Some(offset), bits),
                Read::Register(bits) => (None, bits),
                Read::Nowhere => return Way::NoTable(table.frame),
            };
            let entry = paging.read(table.level, bits);
            let mut flags = 0;
            if let Entry::Table { accessed: false, .. } | Entry::Page { accessed: false, .. } = entry {
                flags |= ACCESSED;
            }
            if let (Entry::Page { dirty: false, .. }, Deed::Store) = (entry, deed) {
                flags |= DIRTY;
            }
            let Some(next) = self.step_down(state, &table, entry, address) else {
                return Way::Fault(FaultCause::NotPresent);
            };
            if let Err(page) = next {
                if forbidden_by_key(state.cpus[cpu].pkru, &page, deed) {
                    return Way::Fault(FaultCause::ProtectionKey);
                }
                if !page.rights.include(needed) {
                    return Way::Fault(FaultCause::Protection);
                }
            }
            if let (Some(offset), 1..) = (offset, flags) {
                return Way::SetFlags { offset, flags };
            }
            match next {
                Ok(pointer) => {
                    leaves.add_table(pointer);
                    table = pointer;
                }
                Err(page) => {
                    leaves.add_page(page);
                    let frame = page.frame + (address - page.page) / machine::addr::PAGE_SIZE;
                    return Way::Reach { frame, age: page.age, leaves };
                }
            }
        }
    }

    /// Everything that walks for a page can cache now, with the entries that they read on the way.
    fn cacheable(
        &self,
        state: &State<'_>,
        cpu: usize,
        page: VirtAddr,
    ) -> Vec<(Vec<usize>, Result<Pointer, Translation>)> {
        let mut found = Vec::new();
        if !matches!(self.config.caches, Caches::Everything | Caches::Translations) {
            return found;
        }
        let address = page.as_u64();
        let Some((paging, starts)) = self.starts(state, cpu, address) else { return found };
        for mut table in starts {
            let mut entries = Vec::new();
            while table.age == Age::Current {
                let bits = match self.read_entry(state, cpu, paging, &table, address) {
                    Read::Memory(offset, bits) => {
                        entries.push(offset);
                        bits
                    }
                    Read::Register(bits) => bits,
                    Read::Nowhere => break,
                };
                let entry = paging.read(table.level, bits);
                // Nothing is cached of an entry before its accessed flag is set (SDM 4.10.2.3).
                if let Entry::Table { accessed: false, .. } | Entry::Page { accessed: false, .. } = entry {
                    break;
                }
                let Some(next) = self.step_down(state, &table, entry, address) else { break };
                found.push((entries.clone(), next));
                match next {
                    Ok(pointer) => table = pointer,
                    Err(_) => break,
                }
            }
        }
        found
    }

    /// The entries, by their offsets, in which a walker of the CPU may set the accessed flag unasked.
    pub(crate) fn unasked(&self, state: &State<'_>, cpu: usize) -> Vec<usize> {
        let mut offsets = Vec::new();
        if self.config.unasked_flags == Feature::Absent {
            return offsets;
        }
        for page in &self.config.pages {
            let address = page.as_u64();
            let Some((paging, starts)) = self.starts(state, cpu, address) else { continue };
            for mut table in starts {
                while table.age == Age::Current {
                    let (offset, bits) = match self.read_entry(state, cpu, paging, &table, address) {
                        Read::Memory(offset, bits) => (Some(offset), bits),
                        Read::Register(bits) => (None, bits),
                        Read::Nowhere => break,
                    };
                    let entry = paging.read(table.level, bits);
                    if let Entry::Table { accessed: false, .. } | Entry::Page { accessed: false, .. } = entry {
                        offsets.extend(offset);
                        break;
                    }
                    let Some(Ok(next)) = self.step_down(state, &table, entry, address) else { break };
                    table = next;
                }
            }
        }
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }

    /// A walker of the CPU sets one of these flags.
    pub(crate) fn set_unasked(&self, state: &mut State<'_>, cpu: usize, which: usize) {
        let place = Place::whole(self.unasked(state, cpu)[which]);
        for number in 0..self.config.pages.len() {
            state.uses(path(number), Use::Reads);
        }
        state.uses(translations(cpu), Use::Reads);
        state.uses(ANY_BLOCK, Use::Reads);
        let bits = state.words.read(place);
        self.commit(state, cpu, place, bits | ACCESSED, (Writer::Walker, Use::Writes));
    }

    /// Whether a walker of the CPU can come to this table although it was freed.
    pub(crate) fn reaches_freed(&self, state: &State<'_>, cpu: usize, frame: Frame) -> bool {
        self.config.pages.iter().any(|page| {
            let ways = self.ways(state, cpu, page.as_u64(), Deed::Load);
            ways.iter().any(|way| matches!(way, Way::FreedTable(freed) if *freed == frame.number()))
        })
    }

    /// A walker of the CPU reads a table that was freed.
    pub(crate) fn read_freed(&self, state: &mut State<'_>, cpu: usize, frame: Frame) {
        let id = CpuId::new(cpu as u32);
        state.violation(
            rule::FREED_TABLE,
            format!("the walker of {id} reads the table in frame {frame}, which was freed"),
        );
    }

    fn holds(&self, cached: &Translations, one: &Result<Pointer, Translation>) -> bool {
        match one {
            Ok(pointer) => self.config.caches == Caches::Translations || cached.tables.contains(pointer),
            Err(page) => cached.pages.contains(page),
        }
    }

    fn keep(&self, cached: &mut Translations, more: &Translations) {
        if self.config.caches == Caches::Nothing {
            return;
        }
        more.pages.iter().for_each(|page| cached.add_page(*page));
        if self.config.caches != Caches::Translations {
            more.tables.iter().for_each(|table| cached.add_table(*table));
        }
    }

    /// The walk of an access leaves something behind.
    pub(crate) fn leave(&self, state: &mut State<'_>, cpu: usize, leaves: &Translations) {
        let mut cached = std::mem::take(&mut state.cpus[cpu].translations);
        self.keep(&mut cached, leaves);
        state.cpus[cpu].translations = cached;
    }

    /// The CPU walks for every page, and caches what it finds.
    pub(crate) fn fill(&self, state: &mut State<'_>, cpu: usize) {
        let mut more = Translations::default();
        for (number, page) in self.config.pages.iter().enumerate() {
            state.uses(path(number), Use::Reads);
            for (_, one) in self.cacheable(state, cpu, *page) {
                match one {
                    Ok(pointer) => more.add_table(pointer),
                    Err(page) => more.add_page(page),
                }
            }
        }
        state.uses(translations(cpu), Use::Writes);
        state.uses(ANY_BLOCK, Use::Reads);
        self.leave(state, cpu, &more);
    }

    /// The entry at this offset is about to be written: notes who can cache what it gives for the last time.
    pub(crate) fn note_last_chances(&self, state: &mut State<'_>, offset: usize) {
        let cell = offset / 8 * 8;
        let mut chances = Vec::new();
        for cpu in 0..state.cpus.len() {
            for (number, page) in self.config.pages.iter().enumerate() {
                let cached = &state.cpus[cpu].translations;
                let is_new = |(entries, one): &(Vec<usize>, _)| entries.contains(&cell) && !self.holds(cached, one);
                if self.cacheable(state, cpu, *page).iter().any(is_new) {
                    chances.push((cpu, number));
                }
            }
        }
        state.step.last_chance.extend(chances);
    }

    /// CR3 or pointers of a CPU are about to change.
    pub(crate) fn note_last_chances_of(&self, state: &mut State<'_>, cpu: usize) {
        let pointers = !state.cpus[cpu].translations.tables.is_empty();
        let survives = self.config.identifiers == Feature::Present || self.config.global_pages == Feature::Present;
        if !pointers && !survives {
            return;
        }
        let mut chances = Vec::new();
        for (number, page) in self.config.pages.iter().enumerate() {
            let cached = &state.cpus[cpu].translations;
            if self.cacheable(state, cpu, *page).iter().any(|(_, one)| !self.holds(cached, one)) {
                chances.push((cpu, number));
            }
        }
        let Step { last_chance, .. } = &mut state.step;
        last_chance.extend(chances);
    }
}
