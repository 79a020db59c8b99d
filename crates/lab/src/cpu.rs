//! One simulated CPU, as the code under test sees it.

use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::Ordering;

use machine::{
    ContextInvalidation, Cpu, CpuId, CpuSet, Invalidation, IrqState, LoopHead, Pcid, PhysAddr, Pkru, ProcessContexts,
    Retention, Vector, Word, Word64,
};

use crate::agent::{Status, interrupt_return, vector_number, vector_of};
use crate::buffer::Waiting;
use crate::cells;
use crate::core::{Core, Stop};
use crate::debugger::fastgup_code;
use crate::hash::Chain;
use crate::label::Weakening;
use crate::machine_config::{Pcids, ProtectionKeys, Reduction, Threads};
use crate::monitor::Writer;
use crate::op::{Effect, Kind, Op, word_value};
use crate::owned::{ByteRange, OwnedAccess};
use crate::record::{OWNED, PRIVATE};
use crate::sync::Spin;
use crate::verdict::MisuseKind;

/// One simulated CPU. Every operation of [`Cpu`] is a step that the explorer interleaves with those of the other CPUs.
pub struct LabCpu {
    core: *mut Core<'static>,
    pub(crate) cpu: usize,
    pub(crate) agent: usize,
    /// What `sync::hint::spin_loop` waits for.
    pub(crate) spin: Cell<Spin>,
}

impl LabCpu {
    pub(crate) fn new(core: *mut Core<'static>, cpu: usize, agent: usize) -> Self {
        Self { core, cpu, agent, spin: Cell::default() }
    }

    /// The machine. References must not live across a suspension: every use here is one expression or one block without one.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn core(&self) -> &mut Core<'static> {
        // SAFETY: the machine outlives the code that runs on it; it is this thread's, and whoever else reaches it (the explorer)
        // waits until this code suspends itself.
        unsafe { &mut *self.core }
    }

    pub(crate) fn vector(&self) -> Vector {
        vector_of(self.core().reg(self.cpu, cells::FLAGS) >> 8)
    }

    /// Suspends this agent until the operation was performed, and returns its result.
    fn ask(&self, mut op: Op) -> u64 {
        self.ask_for(&mut op)
    }

    fn ask_for(&self, op: &mut Op) -> u64 {
        let core = self.core();
        if core.unwinding {
            // Guards dropped while a panic unwinds: the run is over already.
            return 0;
        }
        core.check_fairness(self.agent, op);
        self.stop_if_stopped();
        let state = &mut core.agents[self.agent].state;
        let op: *mut Op = op;
        (state.op, state.asks) = (op, op);
        state.status = Status::Asks;
        // SAFETY: this is the running agent's stack, and `core` is not used any more.
        unsafe { Core::suspend(self.core) };
        let step = self.core().replaying;
        if step != 0 {
            fastgup_code(step, self.cpu);
        }
        // The explorer wrote the result through the pointer, which the compiler cannot see past the switch.
        // SAFETY: the caller's, alive and not accessed otherwise meanwhile.
        let result = unsafe { &raw const (*op).result };
        // SAFETY: as above.
        unsafe { result.read_volatile() }
    }

    /// Ends the run and never comes back. The stack is abandoned.
    pub(crate) fn stop(&self, stop: Stop) -> ! {
        let core = self.core();
        core.halt(stop);
        loop {
            // SAFETY: this is the running agent's stack, and `core` is not used any more.
            unsafe { Core::suspend(self.core) };
        }
    }

    /// The agent's code is over.
    pub(crate) fn finish(&self) -> ! {
        if self.core().finished(self.agent) {
            self.ask(interrupt_return());
        }
        loop {
            // SAFETY: this is the running agent's stack.
            unsafe { Core::suspend(self.core) };
        }
    }

    #[track_caller]
    fn word_op<W: Word>(&self, kind: Kind, word: &W) -> Op {
        let mut op = Op::new(kind);
        op.bytes = W::BYTES as u8;
        op.address = self.offset_of(word.address(), W::BYTES);
        op
    }

    #[track_caller]
    fn offset_of(&self, address: usize, bytes: usize) -> usize {
        let location = Location::caller();
        match self.core().locate(address, bytes) {
            Some(offset) => offset,
            // Guards dropped while a panic unwinds: the run is over already, and nothing is done at this offset.
            None if self.core().unwinding => crate::arena::MACHINE_BYTES,
            None => {
                let sentence = format!("CPU{} accesses a word outside the arena ({location})", self.cpu);
                self.stop(Stop::Misuse(MisuseKind::OutsideArena, sentence))
            }
        }
    }

    pub(crate) fn booting(&self) -> bool {
        self.core().booting
    }

    /// Whether this CPU takes interrupts now. Not a step: nobody else can change it.
    pub fn interrupts_on(&self) -> bool {
        self.core().foresight.acts();
        !self.core().interrupts_off(self.cpu)
    }

    /// Sends an NMI to every CPU of `targets`: an IPI with the delivery mode of NMIs, as for a backtrace. Does not wait, and does not order earlier stores
    /// (MODEL.md, F7).
    #[track_caller]
    pub fn send_nmi(&self, targets: CpuSet) {
        let mut op = Op::new(Kind::SendNmi);
        op.a = targets.bits();
        self.perform(op);
    }

    /// Whether the NMI handler of this CPU runs. Not a step: nobody else can change it.
    pub fn in_nmi(&self) -> bool {
        self.core().foresight.acts();
        self.core().has_flag(self.cpu, cells::flag::IN_NMI)
    }

    /// What CR3 holds: the page table that this CPU walks, if it has loaded one, and the identifier. Not a step: nobody else can change it.
    pub fn root(&self) -> Option<(PhysAddr, Pcid)> {
        let core = self.core();
        let cr3 = core.has_flag(self.cpu, cells::flag::ROOT_LOADED).then(|| core.reg(self.cpu, cells::ROOT));
        if !core.booting {
            // A handler finds what the code has loaded that it interrupts.
            core.tell_agent(self.agent, cr3.unwrap_or(u64::MAX));
        }
        let number = (u64::from(Pcid::COUNT) - 1) * u64::from(core.machine.pcids == Pcids::Enabled);
        cr3.map(|cr3| (PhysAddr::new(cr3 & !number), Pcid::new((cr3 & number) as u16).unwrap_or_default()))
    }

    fn needs_pcids(&self, what: &str, location: &Location<'_>) {
        if self.core().machine.pcids == Pcids::Disabled {
            let sentence = format!("the machine has no PCIDs: {what} ({location})");
            self.stop(Stop::Misuse(MisuseKind::Setup, sentence));
        }
    }

    pub(crate) fn stop_if_stopped(&self) {
        if self.core().stop.is_some() && !self.core().unwinding && !self.booting() {
            loop {
                // SAFETY: this is the running agent's stack, and no reference to the machine is held.
                unsafe { Core::suspend(self.core) };
            }
        }
    }

    /// Accesses a word: quietly if the access commutes with everything else (see `quiet.rs`), else as a step.
    #[inline(always)]
    pub(crate) fn access(&self, op: Op) -> u64 {
        if self.core().labels.is_some() { self.weakened_access(op) } else { self.access_as_it_is(op) }
    }

    pub(crate) fn access_as_it_is(&self, op: Op) -> u64 {
        let core = self.core();
        core.check_fairness(self.agent, &op);
        self.stop_if_stopped();
        if !core.unwinding && core.machine.reduction == Reduction::QuietAccesses {
            let (offset, bytes) = (op.address, usize::from(op.bytes));
            core.note_accessed(self.agent, offset, bytes);
            if op.kind == Kind::Load && core.assume_constant(offset, bytes) {
                core.foresight.acts();
                core.record_unseen(self.cpu, &op);
                let value = core.get(offset, bytes);
                core.read_check(self.cpu, &op);
                self.stop_if_stopped();
                return value;
            }
            if core.may_be_private(self.cpu, &op) && core.assume_private(self.agent, offset, bytes) {
                core.record_unseen(self.cpu, &op);
                let value = core.access_quietly(self.cpu, &op);
                core.tell_value(self.agent, offset, bytes, value);
                self.stop_if_stopped();
                return value;
            }
        }
        self.ask(op)
    }

    /// Does what needs no word: as a step, or at once while booting.
    pub(crate) fn perform(&self, mut op: Op) -> u64 {
        self.perform_op(&mut op)
    }

    pub(crate) fn perform_op(&self, op: &mut Op) -> u64 {
        if self.booting() { self.core().execute_at_boot(self.cpu, op) } else { self.ask_for(op) }
    }

    fn owned<W: Word>(&self, offset: usize, effect: Effect, location: &'static Location<'static>) {
        let core = self.core();
        core.foresight.acts();
        core.check_owner(self.agent, offset, W::BYTES, location);
        core.note_accessed(self.agent, offset, W::BYTES);
        core.owned.push(self.cpu, OwnedAccess { bytes: ByteRange::new(offset, W::BYTES), effect, location });
        if let Some(block) = core.block_at(offset) {
            let deed = if effect == Effect::Reads { "reads" } else { "writes to" };
            core.touch_table(self.cpu, block, deed, Some(location));
            if effect == Effect::Writes && core.is_walked(offset) {
                let word = core.symbols.place(offset, W::BYTES);
                let sentence =
                    format!("CPU{} writes {word} as owned while hardware may walk it ({location})", self.cpu);
                core.misuse(MisuseKind::NotOwned, sentence);
            }
        }
        self.stop_if_stopped();
    }
}

impl Cpu for LabCpu {
    #[inline(always)]
    #[track_caller]
    fn id(&self) -> CpuId {
        if self.core().machine.threads == Threads::Stay || self.booting() {
            return CpuId::new(self.cpu as u32);
        }
        CpuId::new(self.perform(Op::new(Kind::Identify)) as u32)
    }

    #[track_caller]
    fn load<W: Word>(&self, word: &W) -> W::Value {
        if self.booting() {
            return word.atomic_load(Ordering::Acquire);
        }
        let op = self.word_op(Kind::Load, word);
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        if self.booting() {
            return word.atomic_store(value, Ordering::Release);
        }
        let mut op = self.word_op(Kind::Store, word);
        op.a = value.into();
        self.access(op);
    }

    #[track_caller]
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        if self.booting() {
            return word.atomic_swap(value);
        }
        let mut op = self.word_op(Kind::Swap, word);
        op.a = value.into();
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        if self.booting() {
            return word.atomic_compare_exchange(old, new);
        }
        let mut op = self.word_op(Kind::CompareExchange, word);
        op.a = old.into();
        op.b = new.into();
        let found = word_value::<W>(self.access(op));
        if found == old { Ok(found) } else { Err(found) }
    }

    #[track_caller]
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        if self.booting() {
            return word.atomic_fetch_add(addend);
        }
        let mut op = self.word_op(Kind::FetchAdd, word);
        op.a = addend.into();
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        if self.booting() {
            return word.atomic_fetch_and(mask);
        }
        let mut op = self.word_op(Kind::FetchAnd, word);
        op.a = mask.into();
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        if self.booting() {
            return word.atomic_fetch_or(mask);
        }
        let mut op = self.word_op(Kind::FetchOr, word);
        op.a = mask.into();
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn fence(&self) {
        if self.weakens(Weakening::Fence, Location::caller()) {
            return;
        }
        self.perform(Op::new(Kind::Fence));
    }

    #[track_caller]
    fn owned_load<W: Word>(&self, word: &W) -> W::Value {
        if self.booting() {
            return word.atomic_load(Ordering::Relaxed);
        }
        let offset = self.offset_of(word.address(), W::BYTES);
        if self.core().unwinding {
            return word_value::<W>(0);
        }
        self.owned::<W>(offset, Effect::Reads, Location::caller());
        let core = self.core();
        if core.nmis_come(self.cpu) {
            return self.load(word);
        }
        let value = core.forwarded(self.cpu, offset, W::BYTES);
        core.tell_value(self.agent, offset, W::BYTES, value);
        word_value::<W>(value)
    }

    /// A word that is this CPU's own is not its NMI handler's: where there is one, owned accesses are steps like others.
    ///
    /// The store reaches memory at once, though a real CPU would buffer it. Nobody can tell: the word is this CPU's alone until a later store
    /// or locked operation of this CPU gives it away, and that leaves the buffer after this store would have (P3). Only this CPU's own earlier
    /// stores to the same word could still be in the buffer; then this store queues up behind them.
    #[track_caller]
    fn owned_store<W: Word>(&self, word: &W, value: W::Value) {
        if self.booting() {
            return word.atomic_store(value, Ordering::Relaxed);
        }
        let offset = self.offset_of(word.address(), W::BYTES);
        if self.core().unwinding {
            return;
        }
        let location = Location::caller();
        let mut op = self.word_op(Kind::Store, word);
        op.a = value.into();
        self.core().check_fairness(self.agent, &op);
        self.owned::<W>(offset, Effect::Writes, location);
        let core = self.core();
        if core.nmis_come(self.cpu) {
            return self.store(word, value);
        }
        if let Some(recorder) = &mut core.recorder {
            let place = core.symbols.place(offset, W::BYTES);
            let value = core.symbols.value(offset, W::BYTES, value.into());
            recorder.mark(self.cpu, format!("{place} := {value} {OWNED}"));
            core.touch(offset, W::BYTES);
        }
        if core.waits_for(self.cpu, offset, W::BYTES) {
            if !core.push_store(self.cpu, Waiting::Store { offset, bytes: W::BYTES, value: value.into() }) {
                core.misuse(
                    MisuseKind::Capacity,
                    format!("too many stores wait in the buffer of CPU{} ({location})", self.cpu),
                );
            }
        } else {
            core.commit(self.cpu, offset, W::BYTES, value.into(), Writer::Owned);
        }
        self.stop_if_stopped();
    }

    #[track_caller]
    fn unchanged<W: Word>(&self, word: &W, seen: W::Value) -> bool {
        self.weakens(Weakening::Recheck, Location::caller()) || self.load(word) == seen
    }

    #[track_caller]
    fn zero(&self, words: &[Word64]) {
        if self.booting() {
            return words.iter().for_each(|word| word.atomic_store(0, Ordering::Release));
        }
        let mut op = Op::new(Kind::Zero);
        if let [first, ..] = words {
            op.address = self.offset_of(first.address(), size_of_val(words));
            op.a = words.len() as u64;
            self.ask(op);
        }
    }

    #[track_caller]
    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        if self.booting() {
            let old = word.atomic_load(Ordering::Relaxed);
            let new = update(old).expect("while booting nobody else can make a wait end");
            return word.atomic_swap(new);
        }
        let mut op = self.word_op(Kind::AwaitUpdate, word);
        op.wait_to_update::<W, _>(&update);
        word_value::<W>(self.access(op))
    }

    #[track_caller]
    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        if self.booting() {
            let value = word.atomic_load(Ordering::Acquire);
            assert!(until(value), "while booting nobody else can make a wait end");
            return value;
        }
        let mut op = self.word_op(Kind::AwaitValue, word);
        op.wait_until::<W, _>(&until);
        word_value::<W>(self.access(op))
    }

    fn loop_head(&self) -> LoopHead {
        let core = self.core();
        if core.booting || core.unwinding {
            return LoopHead::default();
        }
        let (low, high) = core.agents[self.agent].state.chain.parts();
        LoopHead::from_parts([low, high])
    }

    fn round(&self, head: &LoopHead, digest: u64) {
        self.spin.take();
        let core = self.core();
        if !core.booting && !core.unwinding {
            let [low, high] = head.parts();
            core.set_chain(self.agent, Chain::from_parts(low, high).with(digest));
        }
    }

    #[track_caller]
    fn irq_save(&self) -> IrqState {
        if self.weakens(Weakening::InterruptsOff, Location::caller()) {
            return if self.interrupts_on() { IrqState::On } else { IrqState::Off };
        }
        if self.perform(Op::new(Kind::IrqSave)) == 0 { IrqState::On } else { IrqState::Off }
    }

    #[track_caller]
    fn irq_restore(&self, state: IrqState) {
        let mut op = Op::new(Kind::IrqRestore);
        op.a = (state == IrqState::Off) as u64;
        self.perform(op);
    }

    /// A step only where the section begins: before it the thread may be moved, and behind its end there is another operation before which it may.
    #[track_caller]
    fn preempt_disable(&self) {
        let core = self.core();
        if core.machine.threads == Threads::Stay || core.booting || core.unwinding {
            return;
        }
        if self.weakens(Weakening::PreemptOff, Location::caller()) {
            return;
        }
        // How deep is a matter of the state that the code is in, not of what it was told.
        core.foresight.acts();
        match core.reg(self.cpu, cells::PREEMPT_DEPTH) {
            0 => drop(self.perform(Op::new(Kind::PreemptOff))),
            depth => core.set_reg(self.cpu, cells::PREEMPT_DEPTH, depth + 1),
        }
    }

    fn preempt_enable(&self) {
        let core = self.core();
        if core.machine.threads == Threads::Move && !core.booting && !core.unwinding {
            // A section that was left out has an end all the same.
            let depth = core.reg(self.cpu, cells::PREEMPT_DEPTH).saturating_sub(1);
            core.set_reg(self.cpu, cells::PREEMPT_DEPTH, depth);
        }
    }

    #[track_caller]
    fn send_ipi(&self, targets: CpuSet, vector: Vector) {
        if self.weakens(Weakening::Ipi, Location::caller()) {
            return;
        }
        let mut op = Op::new(Kind::SendIpi);
        op.a = targets.bits();
        op.b = vector_number(vector);
        self.perform(op);
    }

    #[track_caller]
    fn tlb_invalidate(&self, what: Invalidation) {
        if self.weakens(Weakening::Flush, Location::caller()) {
            return;
        }
        self.perform(invalidation(Op::new(Kind::TlbInvalidate), what));
    }

    #[track_caller]
    fn tlb_invalidate_paravirtual(&self, targets: CpuSet, what: Invalidation) {
        if self.weakens(Weakening::Flush, Location::caller()) {
            return;
        }
        let mut op = invalidation(Op::new(Kind::TlbParavirtual), what);
        op.c = targets.bits();
        self.perform(op);
    }

    #[track_caller]
    fn tlb_broadcast(&self, what: Invalidation) {
        if self.weakens(Weakening::Flush, Location::caller()) {
            return;
        }
        self.perform(invalidation(Op::new(Kind::TlbBroadcast), what));
    }

    #[track_caller]
    fn tlb_broadcast_sync(&self) {
        if self.weakens(Weakening::Flush, Location::caller()) {
            return;
        }
        self.perform(Op::new(Kind::TlbBroadcastSync));
    }

    #[track_caller]
    fn load_root(&self, root: PhysAddr) {
        let mut op = Op::new(Kind::LoadRoot);
        op.a = root.as_u64();
        self.perform(op);
    }

    fn pkru(&self) -> Pkru {
        let core = self.core();
        if core.machine.protection_keys == ProtectionKeys::Disabled {
            return Pkru::ALLOW_ALL;
        }
        let bits = core.reg(self.cpu, cells::PKRU);
        if !core.booting && !core.unwinding {
            // A handler finds what the code has set that it interrupts, and an operation what an earlier one has.
            core.tell_agent(self.agent, bits);
        }
        Pkru::from_bits(bits as u32)
    }

    #[track_caller]
    fn rcu_read_lock(&self) {
        if self.weakens(Weakening::ReadSection, Location::caller()) {
            return;
        }
        self.perform(Op::new(Kind::RcuReadLock));
    }

    #[track_caller]
    fn rcu_read_unlock(&self) {
        self.perform(Op::new(Kind::RcuReadUnlock));
    }

    #[track_caller]
    fn synchronize_rcu(&self) {
        if self.weakens(Weakening::GracePeriod, Location::caller()) {
            return;
        }
        self.perform(Op::new(Kind::SynchronizeRcu));
    }
}

impl ProcessContexts for LabCpu {
    #[track_caller]
    fn load_root_as(&self, root: PhysAddr, pcid: Pcid, cached: Retention) {
        self.needs_pcids("CR3 with a PCID", Location::caller());
        let mut op = Op::new(Kind::LoadRoot);
        op.a = root.as_u64() & !u64::from(Pcid::COUNT - 1) | u64::from(pcid.number());
        op.b = (cached == Retention::Keep) as u64;
        self.perform(op);
    }

    #[track_caller]
    fn invalidate_context(&self, what: ContextInvalidation) {
        if self.weakens(Weakening::Flush, Location::caller()) {
            return;
        }
        self.needs_pcids("invpcid", Location::caller());
        let mut op = Op::new(Kind::InvalidateContext);
        let (kind, pcid, address) = match what {
            ContextInvalidation::Address { pcid, address } => (0, pcid, address.as_u64()),
            ContextInvalidation::Context { pcid } => (1, pcid, 0),
            ContextInvalidation::EverythingAndGlobal => (2, Pcid::ZERO, 0),
            ContextInvalidation::Everything => (3, Pcid::ZERO, 0),
        };
        (op.a, op.b, op.c) = (kind, u64::from(pcid.number()), address);
        self.perform(op);
    }
}

impl machine::ProtectionKeys for LabCpu {
    /// No step: only this CPU's own accesses look at the register, and they look at it when they are made.
    #[track_caller]
    fn set_pkru(&self, pkru: Pkru) {
        let core = self.core();
        let has_keys = core.machine.paging.is_some_and(|paging| !paging.has_registers());
        if core.machine.protection_keys == ProtectionKeys::Disabled || !has_keys {
            let sentence = format!("the machine has no protection keys: wrpkru ({})", Location::caller());
            self.stop(Stop::Misuse(MisuseKind::Setup, sentence));
        }
        if let Some(recorder) = &mut core.recorder {
            recorder.mark(self.cpu, format!("pkru := {:#x} {PRIVATE}", pkru.bits()));
        }
        core.set_reg(self.cpu, cells::PKRU, u64::from(pkru.bits()));
    }
}

fn invalidation(mut op: Op, what: Invalidation) -> Op {
    (op.a, op.b) = match what {
        Invalidation::All => (0, u64::MAX),
        Invalidation::Pages { start, pages } => (start.as_u64(), pages),
    };
    op
}
