//! What one step does to the machine.

use std::panic::Location;

use machine::user::FaultCause;
use machine::{Access, ContextInvalidation, CpuId, Invalidation, Pcid, PhysAddr, Retention, VirtAddr};

use crate::agent::{NMI, nmi_handler_of};
use crate::buffer::Waiting;
use crate::cells::{self, flag};
use crate::core::Core;
use crate::label::Weakening;
use crate::mmu::Outcome;
use crate::monitor::{Event, Writer};
use crate::op::{Kind, Op};
use crate::record::PRIVATE;
use crate::verdict::{MisuseKind, rule};

/// What becomes of the agent whose operation was performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// It goes on with this result.
    Resume(u64),
    /// The operation is still to be done.
    Stay,
    /// It is over: the interrupt handler has returned.
    Retire,
}

/// The frame number that says that there was none.
pub(crate) const NO_FRAME: u64 = u64::MAX;
/// Results of a user access.
pub(crate) const REACHED: u64 = 0;
pub(crate) const NOT_PRESENT: u64 = 1;
pub(crate) const PROTECTION: u64 = 2;
pub(crate) const PROTECTION_KEY: u64 = 3;

/// Bit of `RCU_WAITS`: the wait has begun.
pub(crate) const RCU_BEGUN: u64 = 1 << 63;

/// What user code does at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    Load,
    Store,
    Fetch,
    /// A store to a shadow stack.
    Push,
}

impl Deed {
    /// As the operation encodes it.
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::Load => 0,
            Self::Store => 1,
            Self::Fetch => 2,
            Self::Push => 3,
        }
    }

    /// As events tell it: who fetches reads.
    pub(crate) const fn access(self) -> Access {
        match self {
            Self::Load | Self::Fetch => Access::Read,
            Self::Store | Self::Push => Access::Write,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Fetch => "fetch",
            Self::Push => "push",
        }
    }
}

pub(crate) const fn deed_of(op: &Op) -> Deed {
    match op.b {
        0 => Deed::Load,
        1 => Deed::Store,
        2 => Deed::Fetch,
        _ => Deed::Push,
    }
}

pub(crate) const fn invalidation_of(start: u64, pages: u64) -> Invalidation {
    if pages == u64::MAX { Invalidation::All } else { Invalidation::Pages { start: VirtAddr::new(start), pages } }
}

/// What an `invpcid` invalidates. Numbers of identifiers were checked when the operation was asked for.
pub(crate) fn context_of(op: &Op) -> ContextInvalidation {
    let pcid = Pcid::new(op.b as u16).unwrap_or_default();
    match op.a {
        0 => ContextInvalidation::Address { pcid, address: VirtAddr::new(op.c) },
        1 => ContextInvalidation::Context { pcid },
        2 => ContextInvalidation::EverythingAndGlobal,
        _ => ContextInvalidation::Everything,
    }
}

impl Core<'_> {
    /// A store of `cpu` becomes visible to all.
    pub(crate) fn commit(&mut self, cpu: usize, offset: usize, bytes: usize, value: u64, writer: Writer) {
        let old = self.get(offset, bytes);
        let block = self.block_at(offset);
        if let Some(block) = block {
            self.touch_table(cpu, block, "writes to", None);
        }
        self.note_written(offset, bytes);
        self.set(offset, bytes, value);
        if let Some(block) = block {
            self.table_written(block);
        }
        let address = self.arena.base().addr() + offset;
        self.event(&Event::Written { cpu: CpuId::new(cpu as u32), address, bytes, old, new: value, writer });
    }

    pub(crate) fn commit_zero(&mut self, cpu: usize, offset: usize, bytes: usize) {
        for at in (offset..offset + bytes).step_by(8) {
            if self.get(at, 8) != 0 {
                self.commit(cpu, at, 8, 0, Writer::Store);
            } else if let Some(block) = self.block_at(at) {
                self.touch_table(cpu, block, "writes to", None);
            }
        }
    }

    /// Code or a drain accesses a table frame.
    #[inline(always)]
    pub(crate) fn touch_table(
        &mut self,
        cpu: usize,
        block: usize,
        deed: &str,
        place: Option<&'static Location<'static>>,
    ) {
        if !self.is_allocated(block) && !self.booting {
            let frame = self.arena.blocks()[block].first;
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            self.violation(
                rule::FREED_TABLE,
                format!("CPU{cpu} {deed} the table in frame {frame}, which is free{place}"),
            );
        }
    }

    #[inline(always)]
    fn read_modify_write(&mut self, cpu: usize, op: &Op, new: impl FnOnce(u64) -> Option<u64>) -> After {
        let old = self.get(op.address, op.bytes as usize);
        if let Some(new) = new(old) {
            let new = if op.bytes == 4 { new & 0xffff_ffff } else { new };
            self.commit(cpu, op.address, op.bytes as usize, new, Writer::Update);
        } else {
            self.read_check(cpu, op);
        }
        After::Resume(old)
    }

    #[inline(always)]
    pub(crate) fn read_check(&mut self, cpu: usize, op: &Op) {
        if let Some(block) = self.block_at(op.address) {
            self.touch_table(cpu, block, "reads", Some(op.location));
        }
    }

    /// Whether an access to a word can be quiet if no other agent accesses the word: hardware does not either, it waits for nothing, and it
    /// does not empty the store buffer.
    pub(crate) fn may_be_private(&self, cpu: usize, op: &Op) -> bool {
        if self.block_at(op.address).is_some() || op.kind.drains() && self.buffered(cpu) != 0 {
            return false;
        }
        // An older, wider store of this CPU may wait, because other CPUs access its other half: it would overwrite a store that goes
        // to memory at once, and a load must see it.
        if self.buffered(cpu) != 0 && self.waits_for(cpu, op.address, usize::from(op.bytes)) {
            return false;
        }
        match op.kind {
            Kind::AwaitUpdate | Kind::AwaitValue => op.test(self.get(op.address, usize::from(op.bytes))).is_some(),
            _ => true,
        }
    }

    /// Performs an access to a word that no other agent accesses, and returns what the word held.
    ///
    /// A plain store does not go through the store buffer: nobody else looks, and this CPU sees it either way.
    pub(crate) fn access_quietly(&mut self, cpu: usize, op: &Op) -> u64 {
        let bytes = usize::from(op.bytes);
        let old = self.get(op.address, bytes);
        if let Some(new) = op.updated(old) {
            if let Some(recorder) = &mut self.recorder {
                let place = self.symbols.place(op.address, bytes);
                let (from, to) =
                    (self.symbols.value(op.address, bytes, old), self.symbols.value(op.address, bytes, new));
                recorder.mark(cpu, format!("{place}: {from} -> {to} {PRIVATE}"));
                self.touch(op.address, bytes);
            }
            let writer = if op.kind == Kind::Store { Writer::Store } else { Writer::Update };
            self.commit(cpu, op.address, bytes, new, writer);
        }
        if op.kind == Kind::Store { 0 } else { old }
    }

    /// Performs the operation that `agent` of `cpu` asks for.
    pub(crate) fn execute(&mut self, cpu: usize, agent: usize, argument: usize) -> After {
        let op = *self.op(agent);
        match op.kind {
            Kind::Load => {
                self.read_check(cpu, &op);
                After::Resume(self.forwarded(cpu, op.address, op.bytes as usize))
            }
            Kind::Store => {
                if self.buffers_stores() {
                    let store = Waiting::Store { offset: op.address, bytes: op.bytes as usize, value: op.a };
                    self.buffer_or_stop(cpu, store);
                } else {
                    self.commit(cpu, op.address, op.bytes as usize, op.a, Writer::Store);
                }
                After::Resume(0)
            }
            Kind::Zero => {
                let bytes = op.a as usize * 8;
                self.note_written(op.address, bytes);
                if self.buffers_stores() {
                    self.buffer_or_stop(cpu, Waiting::Zero { offset: op.address, bytes });
                } else {
                    self.commit_zero(cpu, op.address, bytes);
                }
                After::Resume(0)
            }
            Kind::Swap => self.read_modify_write(cpu, &op, |_| Some(op.a)),
            Kind::CompareExchange => self.read_modify_write(cpu, &op, |old| (old == op.a).then_some(op.b)),
            Kind::FetchAdd => self.read_modify_write(cpu, &op, |old| Some(old.wrapping_add(op.a))),
            Kind::FetchAnd => self.read_modify_write(cpu, &op, |old| Some(old & op.a)),
            Kind::FetchOr => self.read_modify_write(cpu, &op, |old| Some(old | op.a)),
            Kind::AwaitUpdate => self.read_modify_write(cpu, &op, |old| op.test(old)),
            Kind::AwaitValue => {
                self.read_check(cpu, &op);
                After::Resume(self.forwarded(cpu, op.address, op.bytes as usize))
            }
            Kind::Fence => After::Resume(0),
            Kind::IrqSave => {
                let off = self.interrupts_off(cpu);
                // In an NMI they are off anyway, and the flag belongs to what was interrupted.
                self.set_flag(
                    cpu,
                    flag::IRQ_OFF,
                    !self.has_flag(cpu, flag::IN_NMI) || self.has_flag(cpu, flag::IRQ_OFF),
                );
                After::Resume(off as u64)
            }
            Kind::IrqRestore => {
                self.restore_interrupts(cpu, &op);
                After::Resume(0)
            }
            Kind::SendIpi => {
                self.send_ipi(cpu, &op);
                After::Resume(0)
            }
            Kind::SendNmi => {
                if self.cpus() < 64 && op.a >> self.cpus() != 0 {
                    self.misuse(MisuseKind::Setup, format!("an NMI to a CPU that is not there ({})", op.location));
                }
                for target in self.programs_on(op.a) {
                    self.pend(target, NMI);
                }
                After::Resume(0)
            }
            Kind::TlbInvalidate => {
                self.invalidate(cpu, invalidation_of(op.a, op.b));
                After::Resume(0)
            }
            Kind::TlbParavirtual => {
                for target in self.programs_on(op.c) {
                    self.invalidate_everywhere(target, invalidation_of(op.a, op.b));
                }
                After::Resume(0)
            }
            Kind::TlbBroadcast => {
                for target in 0..self.cpus() {
                    self.send_broadcast(cpu, target, op.a, op.b);
                }
                After::Resume(0)
            }
            Kind::TlbBroadcastSync => After::Resume(0),
            Kind::LoadRoot => {
                let cached = if op.b == 0 { Retention::Drop } else { Retention::Keep };
                self.switch_root(cpu, PhysAddr::new(op.a), cached);
                After::Resume(0)
            }
            Kind::InvalidateContext => {
                self.invalidate_context(cpu, context_of(&op));
                After::Resume(0)
            }
            Kind::RcuReadLock => {
                let depth = self.reg(cpu, cells::RCU_DEPTH);
                self.set_reg(cpu, cells::RCU_DEPTH, depth + 1);
                After::Resume(0)
            }
            Kind::RcuReadUnlock => {
                match self.reg(cpu, cells::RCU_DEPTH) {
                    // Not entered, as was wanted.
                    0 if self.labels.as_ref().is_some_and(|labels| labels.has(Weakening::ReadSection)) => {}
                    0 => {
                        self.misuse(MisuseKind::Context, format!("rcu_read_unlock outside a section ({})", op.location))
                    }
                    depth => self.set_reg(cpu, cells::RCU_DEPTH, depth - 1),
                }
                self.quiesce(cpu);
                After::Resume(0)
            }
            Kind::SynchronizeRcu => self.synchronize_rcu(cpu, &op),
            Kind::Identify => After::Resume(self.number(cpu) as u64),
            Kind::PreemptOff => {
                self.set_reg(cpu, cells::PREEMPT_DEPTH, 1);
                After::Resume(0)
            }
            Kind::UserAccess => self.user_access(cpu, agent, &op, argument),
            Kind::DeviceAccess => After::Resume(self.device_access(cpu, agent, &op)),
            Kind::AllocFrame => After::Resume(self.alloc_frame(cpu, &op)),
            Kind::FreeFrame => {
                self.free_frame(cpu, &op);
                After::Resume(0)
            }
            Kind::InterruptReturn => {
                self.interrupt_return(cpu, agent);
                After::Retire
            }
        }
    }

    pub(crate) fn buffer_or_stop(&mut self, cpu: usize, store: Waiting) {
        if !self.push_store(cpu, store) {
            self.misuse(MisuseKind::Capacity, format!("CPU{cpu} has more stores in its buffer than it can hold"));
        }
    }

    fn restore_interrupts(&mut self, cpu: usize, op: &Op) {
        let on = op.a == 0;
        if self.has_flag(cpu, flag::IN_NMI) {
            if on {
                self.misuse(MisuseKind::Context, format!("an NMI handler turns interrupts on ({})", op.location));
            }
            return;
        }
        if on && self.has_flag(cpu, flag::IN_HANDLER) {
            self.misuse(MisuseKind::Context, format!("an interrupt handler turns interrupts on ({})", op.location));
        }
        // In a handler `irq_save` found them off, whatever the flag says: the hardware keeps them off until `iret`.
        self.set_flag(cpu, flag::IRQ_OFF, !on && !self.has_flag(cpu, flag::IN_HANDLER));
        self.quiesce(cpu);
    }

    fn send_ipi(&mut self, cpu: usize, op: &Op) {
        if self.cpus() < 64 && op.a >> self.cpus() != 0 {
            self.misuse(MisuseKind::Setup, format!("an IPI to a CPU that is not there ({})", op.location));
        }
        for target in self.programs_on(op.a).filter(|&target| target != cpu) {
            self.pend(target, op.b);
        }
    }

    /// The CPU has left a section that `synchronize_rcu` may wait for, if it is in no other.
    pub(crate) fn quiesce(&mut self, cpu: usize) {
        if self.in_rcu_section(cpu) {
            return;
        }
        for waiter in 0..self.cpus() {
            let waits = self.reg(waiter, cells::RCU_WAITS);
            if waits >> cpu & 1 != 0 {
                self.set_reg(waiter, cells::RCU_WAITS, waits & !(1 << cpu));
            }
        }
    }

    fn in_rcu_section(&self, cpu: usize) -> bool {
        self.interrupts_off(cpu) || self.reg(cpu, cells::RCU_DEPTH) != 0
    }

    fn synchronize_rcu(&mut self, cpu: usize, op: &Op) -> After {
        if self.in_rcu_section(cpu) {
            let sentence = format!("synchronize_rcu inside a read-side section of its own CPU ({})", op.location);
            self.misuse(MisuseKind::Context, sentence);
        }
        if self.reg(cpu, cells::PREEMPT_DEPTH) != 0 {
            self.misuse(MisuseKind::Context, format!("synchronize_rcu with preemption off ({})", op.location));
        }
        if self.reg(cpu, cells::RCU_WAITS) == 0 {
            let readers = (0..self.cpus()).filter(|&reader| reader != cpu && self.in_rcu_section(reader));
            let waits = readers.fold(0, |set, reader| set | 1 << reader);
            if waits != 0 {
                self.set_reg(cpu, cells::RCU_WAITS, waits | RCU_BEGUN);
                return After::Stay;
            }
        }
        self.set_reg(cpu, cells::RCU_WAITS, 0);
        After::Resume(0)
    }

    fn send_broadcast(&mut self, source: usize, target: usize, start: u64, pages: u64) {
        let count = self.reg(target, cells::ARRIVALS) as usize;
        if count == cells::MAX_ARRIVALS {
            return self
                .misuse(MisuseKind::Capacity, format!("more than {count} broadcasts are on their way to CPU{target}"));
        }
        // Kept sorted: they may arrive in any order, so the order in which they were sent is not part of the state.
        let mut all = self.arrivals(target);
        all.push([source as u64, start, pages]);
        all.sort_unstable();
        self.set_arrivals(target, &all);
    }

    /// A broadcast on its way to a CPU: source, start, pages.
    pub(crate) fn arrival(&self, target: usize, index: usize) -> [u64; 3] {
        [0, 1, 2].map(|field| self.reg(target, cells::ARRIVAL.plus(3 * index + field)))
    }

    /// All that are.
    pub(crate) fn arrivals(&self, target: usize) -> Vec<[u64; 3]> {
        (0..self.reg(target, cells::ARRIVALS) as usize).map(|index| self.arrival(target, index)).collect()
    }

    pub(crate) fn set_arrivals(&mut self, target: usize, all: &[[u64; 3]]) {
        for index in 0..cells::MAX_ARRIVALS {
            let arrival = all.get(index).copied().unwrap_or([0; 3]);
            for (field, value) in arrival.into_iter().enumerate() {
                self.set_reg(target, cells::ARRIVAL.plus(3 * index + field), value);
            }
        }
        self.set_reg(target, cells::ARRIVALS, all.len() as u64);
    }

    /// A broadcast takes place on its target.
    pub(crate) fn arrive(&mut self, target: usize, index: usize) {
        let mut all = self.arrivals(target);
        let [_, start, pages] = all.remove(index);
        self.set_arrivals(target, &all);
        self.invalidate_everywhere(target, invalidation_of(start, pages));
    }

    /// Whether a broadcast of `source` is still on its way somewhere.
    pub(crate) fn broadcasts(&self, source: usize) -> bool {
        (0..self.cpus()).any(|target| {
            (0..self.reg(target, cells::ARRIVALS) as usize).any(|index| self.arrival(target, index)[0] == source as u64)
        })
    }

    fn user_access(&mut self, cpu: usize, agent: usize, op: &Op, argument: usize) -> After {
        let deed = deed_of(op);
        let outcomes = self.outcomes(cpu, op.a, deed);
        let Some(&outcome) = outcomes.get(argument) else {
            self.misuse(MisuseKind::Setup, format!("a user access without a loaded page table ({})", op.location));
            return After::Stay;
        };
        self.fill_on_access(cpu, op.a);
        match outcome {
            Outcome::Reach { frame, life } => {
                self.reach(cpu, op.a, deed, frame, life);
                if op.bytes != 0 && self.stop.is_none() {
                    self.move_word(cpu, agent, op, frame);
                }
                After::Resume(REACHED)
            }
            Outcome::SetFlags { offset, flags } => {
                self.walker_finds(cpu, offset, flags);
                After::Stay
            }
            Outcome::FinishUpdate => {
                self.walker_finishes(cpu);
                After::Stay
            }
            Outcome::Fault(cause) => {
                self.fault(cpu, op.a, deed.access());
                After::Resume(match cause {
                    FaultCause::NotPresent => NOT_PRESENT,
                    FaultCause::Protection => PROTECTION,
                    FaultCause::ProtectionKey => PROTECTION_KEY,
                })
            }
            Outcome::FreedTable { frame } => {
                let address = VirtAddr::new(op.a);
                let sentence = format!(
                    "the page walker of CPU{cpu}, looking for {address}, reads the table in frame {frame:#x} after it was freed"
                );
                self.violation(rule::FREED_TABLE, sentence);
                After::Stay
            }
            Outcome::NoTable { frame } => {
                let address = VirtAddr::new(op.a);
                let sentence =
                    format!("the page walker of CPU{cpu}, looking for {address}, takes frame {frame:#x} for a table");
                self.violation(rule::PHANTOM_FRAME, sentence);
                After::Stay
            }
        }
    }

    fn alloc_frame(&mut self, cpu: usize, op: &Op) -> u64 {
        let blocks = self.arena.blocks();
        let pools = self.arena.pools();
        if !pools.iter().any(|pool| u64::from(pool.kind.0) == op.a) {
            self.misuse(MisuseKind::Setup, format!("there is no pool of frames {} ({})", op.a, op.location));
        }
        let wanted = |index: &usize| u64::from(pools[blocks[*index].pool].kind.0) == op.a && !self.is_allocated(*index);
        let Some(index) = (0..blocks.len()).find(wanted) else { return NO_FRAME };
        let block = blocks[index];
        self.set(cells::block_cell(index), 8, 1);
        self.changes_hands(index);
        let kind = pools[block.pool].kind;
        self.event(&Event::FrameAllocated { cpu: CpuId::new(cpu as u32), frame: block.first, kind });
        block.first.number()
    }

    fn free_frame(&mut self, cpu: usize, op: &Op) {
        let found = self.arena.block_of(machine::Frame::new(op.a)).filter(|(_, block)| block.first.number() == op.a);
        let Some((index, &block)) = found else {
            let sentence = format!("frame {:#x} is not the first of a block of the arena ({})", op.a, op.location);
            return self.misuse(MisuseKind::Setup, sentence);
        };
        if !self.is_allocated(index) {
            let rule = if block.words.is_some() { rule::FREED_TABLE } else { rule::LOST_COUNT };
            let sentence = format!("CPU{cpu} frees frame {}, which is free ({})", block.first, op.location);
            return self.violation(rule, sentence);
        }
        self.set(cells::block_cell(index), 8, 0);
        self.changes_hands(index);
        self.check_waiting_stores(block.first.number(), 1 << block.order);
        self.dangle(block.first.number(), 1 << block.order);
        let kind = self.arena.pools()[block.pool].kind;
        self.event(&Event::FrameFreed { cpu: CpuId::new(cpu as u32), frame: block.first, kind });
    }

    /// A block was handed out or given back: what its words hold has another meaning now.
    fn changes_hands(&mut self, block: usize) {
        if let Some(words) = self.arena.blocks()[block].words {
            self.note_written(words, 4096);
        }
    }

    /// `iret`: interrupts are on again, unless it is an NMI that ends while they were off.
    pub(crate) fn interrupt_return(&mut self, cpu: usize, agent: usize) {
        if agent == nmi_handler_of(cpu) {
            self.set_flag(cpu, flag::IN_NMI, false);
            return self.quiesce(cpu);
        }
        if self.reg(cpu, cells::FLAGS) & flag::IRQ_OFF != 0 {
            self.misuse(
                MisuseKind::Context,
                format!("the interrupt handler of CPU{cpu} returns with interrupts turned off"),
            );
        }
        self.set_flag(cpu, flag::IN_HANDLER, false);
        self.quiesce(cpu);
    }
}
