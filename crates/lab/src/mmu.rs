//! Hardware page walks.

use std::rc::Rc;

use machine::user::FaultCause;
use machine::{Access, ContextInvalidation, Frame, Invalidation, Pcid, PhysAddr, Retention, VirtAddr};

use crate::cells::{self, flag};
use crate::core::Core;
use crate::execute::Deed;
use crate::frames::Backing;
use crate::machine_config::{
    Caching, ExecuteDisable, FreedWalks, GlobalPages, Pcids, Pdptes, ProtectionKeys, ShadowStacks, Speculation,
    WalkerUpdates,
};
use crate::monitor::{Event, Writer};
use crate::paging::{Decoded, Paging};
use crate::tlb::{EXECUTABLE, Item, Life, Pointer, SHADOW_STACK, Tag, Tlb, USER, WRITABLE};
use crate::verdict::{MisuseKind, rule};

/// How a user access may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It reaches this 4 KiB frame.
    Reach { frame: u64, life: Life },
    /// A walk first sets these flags in the entry at this offset; the access is still to be made.
    SetFlags { offset: usize, flags: u64 },
    /// A walk that set out to do so before writes them.
    FinishUpdate,
    /// It faults.
    Fault(FaultCause),
    /// A walk reads a table that was freed.
    FreedTable { frame: u64 },
    /// A walk follows an entry to a frame that is no table.
    NoTable { frame: u64 },
}

/// What a walker does that no access of code asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unasked {
    /// It sets the accessed flag of the entry at this offset.
    SetsAccessed { offset: usize },
    /// It reads a table that was freed.
    ReadsFreedTable { frame: u64 },
}

/// Where the entry for an address in a table is.
enum Entry {
    /// In memory, at this offset.
    Memory(usize),
    /// In a PDPTE register.
    Register(u64),
    /// Nowhere: the frame has no words.
    Missing,
}

impl Core<'_> {
    /// Fills the tables' frames that nobody uses yet with entries as an earlier life might have left them, where a walk for a watched page would look.
    pub(crate) fn poison_tables(&mut self) {
        let Some(paging) = self.machine.paging else { return };
        let data = self.arena.pools().iter().filter(|pool| pool.backing == Backing::Number);
        let frame = data.flat_map(|pool| pool.blocks.last()).next_back().copied().unwrap_or(Frame::new(0xdead));
        let mut indices: Vec<usize> = Vec::new();
        for &page in &self.machine.watched {
            indices.extend((1..=paging.levels()).map(|level| paging.index(page, level)));
        }
        indices.sort_unstable();
        indices.dedup();
        let tables: Vec<usize> = self.arena.blocks().iter().filter_map(|block| block.words).collect();
        for table in tables {
            for &index in &indices {
                self.set(table + 8 * index, 8, Paging::garbage(frame));
            }
        }
        self.forget_history();
    }

    /// The table that a CPU's walks begin with.
    fn root(&self, cpu: usize, paging: Paging) -> Option<Pointer> {
        self.has_flag(cpu, flag::ROOT_LOADED).then(|| {
            let table = paging.table_of_root(PhysAddr::new(self.reg(cpu, cells::ROOT)));
            let frame = table.frame().number();
            let dangles = !self.has_registers(paging) && self.frame_is_free(frame);
            let life = if dangles { Life::Dangling } else { Life::Valid };
            let rights = WRITABLE | USER | EXECUTABLE;
            Pointer { level: paging.levels(), base: 0, rights, life, frame, pcid: self.pcid(cpu) }
        })
    }

    /// Whether the top table is registers.
    pub(crate) fn has_registers(&self, paging: Paging) -> bool {
        paging.has_registers() && self.machine.pdptes == Pdptes::Registers
    }

    /// The identifier that is current on a CPU.
    fn pcid(&self, cpu: usize) -> Pcid {
        match self.machine.pcids {
            Pcids::Disabled => Pcid::ZERO,
            Pcids::Enabled => Pcid::new(self.reg(cpu, cells::ROOT) as u16 % Pcid::COUNT).unwrap_or_default(),
        }
    }

    /// The rights that an entry leaves.
    fn rights(&self, decoded: &Decoded) -> u8 {
        let executable = decoded.executable || self.machine.execute_disable == ExecuteDisable::Disabled;
        let bit = |has: bool, right: u8| if has { right } else { 0 };
        bit(decoded.writable, WRITABLE) | bit(decoded.user, USER) | bit(executable, EXECUTABLE)
    }

    /// The rights of a page: those that the entries above left, as far as its leaf has them. Dirty and not writable, below entries that are, it is a shadow stack's (SDM vol. 3A, 4.6).
    fn rights_of_page(&self, above: u8, leaf: &Decoded) -> u8 {
        let is_shadow_stack = self.machine.shadow_stacks == ShadowStacks::Enabled
            && above & WRITABLE != 0
            && leaf.dirty
            && !leaf.writable;
        above & self.rights(leaf) | if is_shadow_stack { SHADOW_STACK } else { 0 }
    }

    /// The protection key of a leaf, where the machine knows keys.
    fn key(&self, decoded: &Decoded) -> u8 {
        match self.machine.protection_keys {
            ProtectionKeys::Disabled => 0,
            ProtectionKeys::Enabled => decoded.protection_key,
        }
    }

    /// Whether PKRU, as it is now, forbids an access to a page with these rights and this key. Fetches, and pages that are not user code's, have no business with keys (SDM vol. 3A, 4.6.2).
    fn key_forbids(&self, cpu: usize, rights: u8, key: u8, deed: Deed) -> bool {
        let bits = self.reg(cpu, cells::PKRU) >> (2 * key);
        let (access_disable, write_disable) = (bits & 0b01 != 0, bits & 0b10 != 0);
        rights & USER != 0
            && match deed {
                Deed::Load => access_disable,
                Deed::Store | Deed::Push => access_disable || write_disable,
                Deed::Fetch => false,
            }
    }

    fn entry(&self, cpu: usize, paging: Paging, table: &Pointer, address: VirtAddr) -> Entry {
        let mut index = paging.index(address, table.level);
        if table.level == paging.levels() && paging.has_registers() {
            match self.machine.pdptes {
                Pdptes::Registers => return Entry::Register(self.reg(cpu, cells::PDPTES.plus(index))),
                // The table need not begin where its frame does.
                Pdptes::Memory => index += (self.reg(cpu, cells::ROOT) as usize & 0xfe0) / 8,
            }
        }
        match self.arena.block_of(Frame::new(table.frame)).and_then(|(_, block)| block.words) {
            Some(words) => Entry::Memory(words + 8 * index),
            None => Entry::Missing,
        }
    }

    fn covers(paging: Paging, table: &Pointer, address: u64) -> bool {
        table.level == paging.levels() || table.covers(address)
    }

    /// Adds to the sets everything that walks for watched pages may find now.
    pub(crate) fn saturate(&mut self, cpu: usize) {
        let tlb = self.saturated(cpu, self.tlbs[cpu].clone());
        self.set_tlb(cpu, tlb);
    }

    fn saturated(&self, cpu: usize, tlb: Rc<Tlb>) -> Rc<Tlb> {
        match self.machine.caching {
            Caching::Everything => self.reachable(cpu, &self.machine.watched, tlb),
            Caching::TlbOnly => {
                let mut all = self.reachable(cpu, &self.machine.watched, tlb);
                Rc::make_mut(&mut all).pointers.clear();
                all
            }
            Caching::OnAccess | Caching::Nothing => tlb,
        }
    }

    /// The sets, and everything that walks for `pages` may find now.
    fn reachable(&self, cpu: usize, pages: &[VirtAddr], mut tlb: Rc<Tlb>) -> Rc<Tlb> {
        let Some(paging) = self.machine.paging else { return tlb };
        let Some(root) = self.root(cpu, paging) else { return tlb };
        let mut tables = vec![root];
        tables.extend(tlb.pointers.iter().filter(|pointer| pointer.pcid == root.pcid));
        while let Some(table) = tables.pop() {
            if table.life == Life::Dangling {
                continue;
            }
            for &page in pages {
                if !Self::covers(paging, &table, page.as_u64()) {
                    continue;
                }
                let entry = match self.entry(cpu, paging, &table, page) {
                    Entry::Memory(offset) => self.get(offset, 8),
                    Entry::Register(value) => value,
                    Entry::Missing => continue,
                };
                let decoded = paging.decode(table.level, entry);
                if !decoded.present {
                    continue;
                }
                let base = page.as_u64() & !(Paging::span(table.level) - 1);
                let frame = decoded.frame.number();
                let life = if self.frame_is_free(frame) { Life::Dangling } else { Life::Valid };
                if decoded.leaf {
                    let (level, rights) = (table.level, self.rights_of_page(table.rights, &decoded));
                    let global = decoded.global && self.machine.global_pages == GlobalPages::Enabled;
                    let tag = if global { Tag::Global } else { Tag::Of(root.pcid) };
                    let (key, dirty) = (self.key(&decoded), decoded.dirty);
                    tlb.add_item(Item { page: base, level, rights, key, dirty, life, frame, tag });
                } else {
                    let rights = table.rights & self.rights(&decoded);
                    let pointer = Pointer { level: table.level - 1, base, rights, life, frame, pcid: root.pcid };
                    if tlb.add_pointer(pointer) {
                        tables.push(pointer);
                    }
                }
            }
        }
        tlb
    }

    /// What an access to `address` may use on a machine that does not keep everything.
    #[cold]
    fn found_by_access(&self, cpu: usize, address: u64) -> Rc<Tlb> {
        let kept = if self.machine.caching == Caching::Nothing { Rc::default() } else { self.tlbs[cpu].clone() };
        self.reachable(cpu, &[VirtAddr::new(address)], kept)
    }

    /// An access to `address` goes on: where only accesses fill, this is when.
    #[inline(always)]
    pub(crate) fn fill_on_access(&mut self, cpu: usize, address: u64) {
        if self.machine.caching == Caching::OnAccess {
            let tlb = self.found_by_access(cpu, address);
            self.set_tlb(cpu, tlb);
        }
    }

    /// An entry of a table frame may have changed: walkers may see it from now on.
    #[inline(always)]
    pub(crate) fn table_written(&mut self, block: usize) {
        if self.machine.paging.is_some() {
            let frame = self.arena.blocks()[block].first.number();
            for cpu in 0..self.cpus() {
                // Without pointers nobody knows whether a walk would come here.
                if self.machine.caching == Caching::TlbOnly || self.walks(cpu, frame) {
                    self.saturate(cpu);
                }
            }
        }
    }

    /// Whether a walker of the CPU may read this frame.
    fn walks(&self, cpu: usize, frame: u64) -> bool {
        let Some(paging) = self.machine.paging else { return false };
        let root = self.root(cpu, paging).is_some_and(|root| !self.has_registers(paging) && root.frame == frame);
        root || self.tlbs[cpu].pointers.iter().any(|pointer| pointer.frame == frame && pointer.life == Life::Valid)
    }

    /// Whether the walker of any CPU may read the table at this offset.
    pub(crate) fn is_walked(&self, offset: usize) -> bool {
        let Some(block) = self.block_at(offset) else { return false };
        let frame = self.arena.blocks()[block].first.number();
        (0..self.cpus()).any(|cpu| self.walks(cpu, frame))
    }

    /// An invalidation takes place on a CPU.
    pub(crate) fn invalidate(&mut self, cpu: usize, what: Invalidation) {
        let pcid = self.pcid(cpu);
        self.drop_translations(cpu, |tlb| tlb.invalidate(what, pcid));
    }

    /// An invalidation from outside takes place on a CPU.
    pub(crate) fn invalidate_everywhere(&mut self, cpu: usize, what: Invalidation) {
        self.drop_translations(cpu, |tlb| tlb.invalidate_everywhere(what));
    }

    /// An `invpcid` takes place.
    pub(crate) fn invalidate_context(&mut self, cpu: usize, what: ContextInvalidation) {
        self.drop_translations(cpu, |tlb| tlb.invalidate_context(what));
    }

    /// Translations are dropped; what is found at once when one looks again is there again.
    fn drop_translations(&mut self, cpu: usize, drop: impl FnOnce(&mut Rc<Tlb>)) {
        let mut tlb = self.tlbs[cpu].clone();
        drop(&mut tlb);
        let tlb = self.saturated(cpu, tlb);
        self.set_tlb(cpu, tlb);
    }

    /// A CPU loads CR3.
    pub(crate) fn switch_root(&mut self, cpu: usize, root: PhysAddr, cached: Retention) {
        let Some(paging) = self.machine.paging else {
            return self.misuse(MisuseKind::Setup, "the machine has no MMU to load a page table");
        };
        self.set_reg(cpu, cells::ROOT, root.as_u64());
        self.set_flag(cpu, flag::ROOT_LOADED, true);
        let table = paging.table_of_root(root);
        let Some(words) = self.arena.block_of(table.frame()).and_then(|(_, block)| block.words) else {
            return self.misuse(
                MisuseKind::Setup,
                format!("the page table at {root} is not in a frame of the arena with words"),
            );
        };
        if paging.has_registers() {
            for index in 0..4 {
                let entry = self.get(words + (table.as_u64() as usize & 0xfff) + 8 * index, 8);
                self.set_reg(cpu, cells::PDPTES.plus(index), entry);
            }
        }
        match cached {
            Retention::Drop => self.invalidate(cpu, Invalidation::All),
            Retention::Keep => self.saturate(cpu),
        }
    }

    /// Every way in which a user access may go on now, each once.
    pub(crate) fn outcomes(&self, cpu: usize, address: u64, deed: Deed) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let Some(paging) = self.machine.paging else { return outcomes };
        let Some(root) = self.root(cpu, paging) else { return outcomes };
        if self.machine.walker_updates != WalkerUpdates::Locked && self.update_under_way(cpu).is_some() {
            return vec![Outcome::FinishUpdate];
        }
        let write = deed == Deed::Store;
        let needed = match deed {
            Deed::Load => USER,
            Deed::Store => WRITABLE | USER,
            Deed::Fetch => EXECUTABLE | USER,
            Deed::Push => SHADOW_STACK | USER,
        };
        let mut add = |outcome| {
            if !outcomes.contains(&outcome) {
                outcomes.push(outcome);
            }
        };
        let found;
        let tlb = if self.machine.caching == Caching::Everything {
            &self.tlbs[cpu]
        } else {
            found = self.found_by_access(cpu, address);
            &found
        };
        for item in tlb.items.iter().filter(|item| item.covers(address) && item.tag.serves(root.pcid)) {
            if self.key_forbids(cpu, item.rights, item.key, deed) {
                // Before the rights: the error code has PK, whatever these say (SDM vol. 3A, 4.7). The key is the cached one.
                add(Outcome::Fault(FaultCause::ProtectionKey));
            } else if item.rights & needed != needed {
                // A stale translation with fewer rights: a spurious fault (SDM vol. 3A, 4.10.4.3).
                add(Outcome::Fault(FaultCause::Protection));
            } else if !write || item.dirty {
                let frame = item.frame + ((address - item.page) >> machine::addr::PAGE_SHIFT);
                add(Outcome::Reach { frame, life: item.life });
            }
        }
        for table in std::iter::once(&root).chain(&tlb.pointers) {
            if !Self::covers(paging, table, address) || table.pcid != root.pcid {
                continue;
            }
            if table.life == Life::Dangling {
                add(Outcome::FreedTable { frame: table.frame });
                continue;
            }
            let (entry, offset) = match self.entry(cpu, paging, table, VirtAddr::new(address)) {
                Entry::Memory(offset) => (self.get(offset, 8), Some(offset)),
                Entry::Register(value) => (value, None),
                Entry::Missing => {
                    add(Outcome::NoTable { frame: table.frame });
                    continue;
                }
            };
            let decoded = paging.decode(table.level, entry);
            let rights = self.rights_of_page(table.rights, &decoded);
            if !decoded.present {
                add(Outcome::Fault(FaultCause::NotPresent));
            } else if decoded.leaf && self.key_forbids(cpu, rights, self.key(&decoded), deed) {
                add(Outcome::Fault(FaultCause::ProtectionKey));
            } else if decoded.leaf && rights & needed != needed {
                add(Outcome::Fault(FaultCause::Protection));
            } else if let (flags @ 1.., Some(offset)) = (Paging::walker_flags(&decoded, write), offset) {
                add(Outcome::SetFlags { offset, flags });
            }
            // Else the page, or the next table, is in the sets already: they are saturated.
        }
        outcomes
    }

    /// What walkers may do unasked that shows, each once.
    pub(crate) fn speculations(&self, cpu: usize) -> Vec<Unasked> {
        let mut found = Vec::new();
        let Some(paging) = self.machine.paging else { return found };
        let Some(root) = self.root(cpu, paging) else { return found };
        let mut add = |what| {
            if !found.contains(&what) {
                found.push(what);
            }
        };
        for table in std::iter::once(&root).chain(&self.tlbs[cpu].pointers) {
            for &page in &self.machine.watched {
                if table.pcid != root.pcid || !Self::covers(paging, table, page.as_u64()) {
                    continue;
                }
                if table.life == Life::Dangling {
                    if self.machine.freed_walks == FreedWalks::Unasked {
                        add(Unasked::ReadsFreedTable { frame: table.frame });
                    }
                } else if self.machine.speculation == Speculation::SetsAccessed
                    && let Entry::Memory(offset) = self.entry(cpu, paging, table, page)
                {
                    let decoded = paging.decode(table.level, self.get(offset, 8));
                    if decoded.present && !decoded.accessed {
                        add(Unasked::SetsAccessed { offset });
                    }
                }
            }
        }
        found
    }

    /// A walker does it.
    pub(crate) fn speculate(&mut self, cpu: usize, what: Unasked) {
        match what {
            Unasked::SetsAccessed { offset } => self.walker_sets(cpu, offset, crate::paging::ACCESSED),
            Unasked::ReadsFreedTable { frame } => {
                let sentence = format!(
                    "the page walker of CPU{cpu}, unasked, reads the table in frame {frame:#x} after it was freed"
                );
                self.violation(rule::FREED_TABLE, sentence);
            }
        }
    }

    /// A walker sets flags in an entry, by a locked read-modify-write (SDM vol. 3A, 9.1.2.1).
    pub(crate) fn walker_sets(&mut self, cpu: usize, offset: usize, flags: u64) {
        let old = self.get(offset, 8);
        self.commit(cpu, offset, 8, old | flags, Writer::Walker);
    }

    /// The walk of a user access finds flags to be set in an entry that it uses.
    pub(crate) fn walker_finds(&mut self, cpu: usize, offset: usize, flags: u64) {
        if self.machine.walker_updates == WalkerUpdates::Locked {
            return self.walker_sets(cpu, offset, flags);
        }
        let read = self.get(offset, 8);
        for (index, value) in [offset as u64 | 1, flags, read].into_iter().enumerate() {
            self.set_reg(cpu, cells::WALK.plus(index), value);
        }
    }

    /// The update of flags that a walk of the CPU has begun: of which entry, and what it would leave there now.
    pub(crate) fn update_under_way(&self, cpu: usize) -> Option<(usize, u64)> {
        let place = self.reg(cpu, cells::WALK);
        let offset = (place & !1) as usize;
        (place != 0).then(|| {
            let before = match self.machine.walker_updates {
                WalkerUpdates::Plain => self.reg(cpu, cells::WALK.plus(2)),
                WalkerUpdates::Locked | WalkerUpdates::Stray => self.get(offset, 8),
            };
            (offset, before | self.reg(cpu, cells::WALK.plus(1)))
        })
    }

    /// It is written.
    pub(crate) fn walker_finishes(&mut self, cpu: usize) {
        let Some((offset, after)) = self.update_under_way(cpu) else { return };
        for index in 0..3 {
            self.set_reg(cpu, cells::WALK.plus(index), 0);
        }
        self.commit(cpu, offset, 8, after, Writer::Walker);
    }

    /// A user access reaches a frame.
    pub(crate) fn reach(&mut self, cpu: usize, address: u64, deed: Deed, frame: u64, life: Life) {
        let id = machine::CpuId::new(cpu as u32);
        let (address, frame_number) = (VirtAddr::new(address), Frame::new(frame));
        self.event(&Event::Accessed { cpu: id, address, access: deed.access(), frame: frame_number });
        let deed = match deed {
            Deed::Load => "loads from",
            Deed::Store => "stores to",
            Deed::Fetch => "fetches from",
            Deed::Push => "pushes to",
        };
        if self.frame_is_free(frame) {
            self.violation(
                rule::STALE_TLB,
                format!("{id} {deed} {address} and reaches frame {frame_number}, which is free"),
            );
        } else if life == Life::Dangling {
            self.violation(
                rule::STALE_TLB,
                format!("{id} {deed} {address} through a translation to frame {frame_number} from before the frame was freed"),
            );
        }
    }

    /// A user access faults.
    pub(crate) fn fault(&mut self, cpu: usize, address: u64, access: Access) {
        let id = machine::CpuId::new(cpu as u32);
        let pcid = self.pcid(cpu);
        self.drop_translations(cpu, |tlb| tlb.fault(address, pcid));
        self.event(&Event::Faulted { cpu: id, address: VirtAddr::new(address), access });
    }

    /// A block of frames was freed: what TLBs hold of it dangles.
    pub(crate) fn dangle(&mut self, first: u64, count: u64) {
        for cpu in 0..self.cpus() {
            let mut tlb = self.tlbs[cpu].clone();
            if tlb.free(first, count) {
                self.set_tlb(cpu, tlb);
            }
        }
    }
}
