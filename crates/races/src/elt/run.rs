//! What a CPU does: each operation is one of the machine's.

use std::hash::{DefaultHasher, Hash, Hasher};

use lab::Arena;
use machine::user::FaultCause;
use machine::{Invalidation, IrqState, Pcid, Retention, Vector, Word64};

use super::entry::Part;
use super::layout::Slot;
use super::operations::{Action, Half, Number, Registers, Step, WordPlace};
use super::setup::Setup;
use crate::checker::CheckedCpu;
use crate::rule;

/// The result of an access that ended in a page fault.
pub(super) const FAULT: u64 = u64::MAX;

/// What all CPUs share.
#[derive(Clone, Copy)]
pub(super) struct Ground<'l> {
    pub(super) setup: &'l Setup,
    pub(super) arena: &'l Arena,
    /// For each word of the file its elements.
    pub(super) words: &'l [&'l [Word64]],
}

impl<'l> Ground<'l> {
    pub(super) fn on<'c, C: CheckedCpu>(self, cpu: &'c C) -> Runner<'c, C>
    where
        'l: 'c,
    {
        Runner { cpu, ground: self }
    }
}

/// One CPU at its work, or in a handler. What it remembers from operation to operation is on its stack.
pub(super) struct Runner<'r, C> {
    cpu: &'r C,
    ground: Ground<'r>,
}

impl<C: CheckedCpu> Runner<'_, C> {
    pub(super) fn run(&self, steps: &[Step]) {
        let mut registers = [0; Registers::MOST];
        let mut interrupts = IrqState::On;
        for (place, step) in steps.iter().enumerate() {
            self.cpu.mark(&step.text);
            let result = self.step(step.action, &registers, &mut interrupts);
            match step.into {
                Some(into) => {
                    registers[into] = result;
                    self.cpu.report(into, result);
                }
                None if result == FAULT => {
                    self.cpu.violate(rule::USER, format_args!("{} ends in a page fault", step.text));
                }
                None => {}
            }
            let mut digest = DefaultHasher::new();
            (place, registers, interrupts == IrqState::On).hash(&mut digest);
            self.cpu.op_boundary(digest.finish());
        }
        if interrupts == IrqState::Off {
            self.cpu.irq_restore(IrqState::On);
        }
    }

    fn word(&self, place: WordPlace, registers: &[u64]) -> &Word64 {
        let elements = self.ground.words[place.word];
        let index = match place.index {
            Number::Fixed(index) => index,
            Number::Register(register) => registers[register],
        };
        match elements.get(index as usize) {
            Some(word) => word,
            None => {
                let name = &self.ground.setup.words[place.word].name;
                self.cpu.violate(rule::USER, format_args!("{name} has no element {index}"))
            }
        }
    }

    fn entry(&self, slot: Slot) -> &Word64 {
        match self.ground.arena.table(slot.table) {
            Some(words) => &words[slot.index],
            None => self.cpu.violate(rule::USER, format_args!("there is no table in frame {}", slot.table)),
        }
    }

    /// Returns the result, 0 where there is none.
    fn step(&self, action: Action, registers: &[u64], interrupts: &mut IrqState) -> u64 {
        let cpu = self.cpu;
        let loaded = |result: Result<u64, FaultCause>| result.unwrap_or(FAULT);
        match action {
            Action::UserLoad { page } => return loaded(cpu.user_load(page).map_err(|fault| fault.cause)),
            Action::UserStore { page, value } => {
                return if cpu.user_store(page, value).is_ok() { 0 } else { FAULT };
            }
            Action::UserFetch { page } => return loaded(cpu.user_fetch(page)),
            Action::UserPush { page } => return if cpu.user_push(page).is_ok() { 0 } else { FAULT },
            Action::Load { place } => return cpu.load(self.word(place, registers)),
            Action::Store { place, value } => {
                let value = match value {
                    Number::Fixed(value) => value,
                    Number::Register(register) => registers[register],
                };
                cpu.store(self.word(place, registers), value);
            }
            Action::Exchange { place, value } => return cpu.swap(self.word(place, registers), value),
            Action::Add { place, value } => {
                let word = self.word(place, registers);
                cpu.store(word, cpu.load(word).wrapping_add(value));
            }
            Action::Await { place, value } => {
                cpu.await_value(self.word(place, registers), |found| found == value);
            }
            Action::LoadEntry { slot, part, half } => {
                let word = self.entry(slot);
                let entry = match half {
                    Half::Both => cpu.load(word),
                    Half::Low => u64::from(cpu.load(word.low())),
                    Half::High => u64::from(cpu.load(word.high())) << 32,
                };
                return part.of(entry);
            }
            Action::StoreEntry { slot, entry, half } => {
                let word = self.entry(slot);
                match half {
                    Half::Both => cpu.store(word, entry),
                    Half::Low => cpu.store(word.low(), entry as u32),
                    Half::High => cpu.store(word.high(), (entry >> 32) as u32),
                }
            }
            Action::ExchangeEntry { slot, entry, part } => return Part::of(part, cpu.swap(self.entry(slot), entry)),
            Action::Walk { page } => return self.walk(page),
            Action::Fence => cpu.fence(),
            Action::Reload => match cpu.root() {
                Some((root, pcid)) if self.ground.setup.options.has_pcids() => {
                    cpu.load_root_as(root, pcid, Retention::Drop);
                }
                Some((root, _)) => cpu.load_root(root),
                None => {}
            },
            Action::Invalidate(what) => cpu.tlb_invalidate(what),
            Action::LoadRoot { space, pcid, cached } => {
                self.switch_to(space, pcid, cached);
            }
            Action::InvalidateContext(_) if !self.ground.setup.options.has_pcids() => {
                cpu.tlb_invalidate(Invalidation::All);
            }
            Action::InvalidateContext(what) => cpu.invalidate_context(what),
            Action::Broadcast(what) => cpu.tlb_broadcast(what),
            Action::BroadcastSync => cpu.tlb_broadcast_sync(),
            Action::Paravirtual { targets, what } => cpu.tlb_invalidate_paravirtual(targets, what),
            Action::Ipi { targets } => cpu.send_ipi(targets, Vector::Synchronise),
            Action::Nmi { targets } => cpu.send_nmi(targets),
            Action::InterruptsOff => {
                if *interrupts == IrqState::On {
                    cpu.irq_save();
                    *interrupts = IrqState::Off;
                }
            }
            Action::InterruptsOn => {
                if *interrupts == IrqState::Off {
                    cpu.irq_restore(IrqState::On);
                    *interrupts = IrqState::On;
                }
            }
            Action::WritePkru(write) => write.run(cpu, self.ground.setup.options),
            Action::PreemptOff => cpu.preempt_disable(),
            Action::PreemptOn => cpu.preempt_enable(),
            Action::Free { frame } => cpu.free_frame(frame),
        }
        0
    }

    /// The frame that is mapped at a page, 0 if none: what the entries say one after the other.
    fn walk(&self, page: usize) -> u64 {
        let setup = self.ground.setup;
        let address = setup.pages[page].address;
        let mut table = setup.layout.root(setup, setup.pages[page].space);
        for level in (1..=setup.paging.levels()).rev() {
            let entry = self.cpu.load(self.entry(Slot { table, index: setup.paging.index(address, level) }));
            let decoded = setup.paging.decode(level, entry);
            if !decoded.present {
                return 0;
            }
            table = decoded.frame;
        }
        table.number()
    }

    /// Loads the page table of the CPU, before the start.
    pub(super) fn load_root(&self) {
        let space = self.ground.setup.space_of(self.cpu.id().index());
        self.switch_to(space, self.ground.setup.spaces[space].pcid, Retention::Drop);
    }

    /// On a machine without PCIDs a kernel loads none, and keeps nothing.
    fn switch_to(&self, space: usize, pcid: Pcid, cached: Retention) {
        let setup = self.ground.setup;
        let root = setup.layout.root(setup, space).start();
        if setup.options.has_pcids() {
            self.cpu.load_root_as(root, pcid, cached);
        } else {
            self.cpu.load_root(root);
        }
    }
}
