//! One simulated CPU, as the code under test sees it.

use std::fmt::Display;
use std::sync::atomic::Ordering;

use corosensei::Yielder;
use machine::user::{FaultCause, PageFault};
use machine::{
    Access, ContextInvalidation, Cpu, CpuId, CpuSet, Frame, Invalidation, IrqState, Pcid, PhysAddr, Pkru,
    ProcessContexts, ProtectionKeys, Retention, UserAccess, VirtAddr, Word, Word64,
};

use crate::config::Feature;
use crate::footprint::Use;
use crate::memory::Place;
use crate::op::{Answer, Data, Deed, InterruptFlag, Op, Outcome, Test, User, Vector};
use crate::paging::Paging;
use crate::state::{Machine, REPORTS, Stage, State, Stop, Waiting};
use crate::verdict::Violation;
use crate::watch::{Happening, Writer};

/// One simulated CPU. Each operation of [`Cpu`] is a step.
pub struct SimulatedCpu {
    machine: *const Machine<'static>,
    seat: Seat,
    /// To the search; null while the machine is set up.
    yielder: *const Yielder<Answer, Op>,
}

/// Where code runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat {
    /// A handler: on this CPU.
    Cpu(usize),
    /// This program: on whichever CPU it is.
    Program(usize),
}

impl SimulatedCpu {
    pub(crate) fn new(machine: *const Machine<'_>, seat: Seat, yielder: *const Yielder<Answer, Op>) -> Self {
        Self { machine: machine.cast(), seat, yielder }
    }

    /// The CPU that the code is on.
    fn cpu(&self) -> usize {
        match self.seat {
            Seat::Cpu(cpu) => cpu,
            Seat::Program(program) => self.with(|_, state| state.places[program]),
        }
    }

    /// Whether this thread may be moved while it runs.
    fn is_moved(&self) -> bool {
        self.machine().config.moves == Feature::Present && !self.is_setting_up() && !std::thread::panicking()
    }

    fn machine(&self) -> &Machine<'static> {
        // SAFETY: the machine is borrowed for as long as code runs on it (`Code::start`, `Simulator::boot`), and code gets a reference to this value only.
        unsafe { &*self.machine }
    }

    fn with<R>(&self, work: impl FnOnce(&Machine<'static>, &mut State<'static>) -> R) -> R {
        let machine = self.machine();
        work(machine, &mut machine.state.borrow_mut())
    }

    fn ask(&self, op: Op) -> Answer {
        if std::thread::panicking() {
            // Guards that are dropped while a panic unwinds: the run is over.
            return Answer::value(0);
        }
        // SAFETY: null, or that of the coroutine that this code runs in, which lives as long as the code.
        match unsafe { self.yielder.as_ref() } {
            Some(yielder) => yielder.suspend(op),
            None => self.machine().perform_at_once(self.cpu(), op),
        }
    }

    /// Ends the run.
    fn end(&self, stop: Stop) -> ! {
        self.with(|_, state| state.halt(stop.clone()));
        // SAFETY: as in `ask`.
        let Some(yielder) = (unsafe { self.yielder.as_ref() }) else { panic!("while setting up: {stop:?}") };
        loop {
            // Nobody answers: the run is over.
            yielder.suspend(Op::Fence);
        }
    }

    fn end_if_stopped(&self) {
        let stopped = self.with(|_, state| state.stop.clone());
        if let Some(stop) = stopped
            && !std::thread::panicking()
        {
            self.end(stop);
        }
    }

    fn place<W: Word>(&self, word: &W) -> Place {
        self.place_at(word.address(), W::BYTES)
    }

    fn place_at(&self, address: usize, bytes: usize) -> Place {
        match self.with(|_, state| state.words.locate(address, bytes)) {
            Some(offset) => Place { offset, bytes },
            None => self.end(Stop::Misuse(format!("CPU{} accesses a word outside the memory", self.cpu()))),
        }
    }

    fn value<W: Word>(bits: u64) -> W::Value {
        W::Value::try_from(bits).ok().expect("a word holds what fits into it")
    }

    /// Tells the watchers something. Not a step.
    pub fn tell(&self, kind: u32, args: &[u64]) {
        let cpu = CpuId::new(self.cpu() as u32);
        self.with(|machine, state| machine.tell(state, &Happening::Told { cpu, kind, args }));
        self.end_if_stopped();
    }

    /// Writes down a result. Not a step.
    ///
    /// # Panics
    /// If `slot` is not below 16.
    pub fn report(&self, slot: usize, value: u64) {
        assert!(slot < REPORTS, "results have slots below {REPORTS}");
        let cpu = CpuId::new(self.cpu() as u32);
        self.with(|_, state| {
            let program = state.program_on(cpu).index();
            state.cpus[program].reports[slot] = value;
        });
    }

    /// Breaks a rule: the run ends here.
    pub fn violate(&self, rule: &str, sentence: impl Display) -> ! {
        self.end(Stop::Violation(Violation::new(rule, sentence.to_string())))
    }

    /// Whether this CPU takes interrupts now. Not a step.
    pub fn interrupts_on(&self) -> bool {
        let cpu = self.cpu();
        self.with(|_, state| state.cpus[cpu].interrupt_flag == InterruptFlag::Set)
    }

    /// Whether its NMI handler runs. Not a step.
    pub fn in_nmi(&self) -> bool {
        let cpu = self.cpu();
        self.with(|_, state| state.cpus[cpu].in_nmi())
    }

    /// What CR3 holds, if it was loaded. Not a step.
    pub fn root(&self) -> Option<(PhysAddr, Pcid)> {
        let cpu = self.cpu();
        self.with(|machine, state| {
            let cr3 = state.cpus[cpu].cr3?;
            let identifier = machine.identifier(state, cpu);
            Some((PhysAddr::new(cr3 - u64::from(identifier)), Pcid::new(identifier)?))
        })
    }

    /// Sends an NMI to each of these CPUs, this one included if it is among them.
    pub fn send_nmi(&self, targets: CpuSet) {
        self.ask(Op::Send(targets.bits(), Vector::Nmi));
    }

    /// Takes the lowest free block of a pool: one step, and a full barrier.
    pub fn allocate(&self, pool: u8) -> Option<Frame> {
        let answer = self.ask(Op::Allocate(pool));
        (answer.outcome == Outcome::Done).then(|| Frame::new(answer.value))
    }

    /// Gives a block back: one step, and a full barrier.
    pub fn free(&self, first: Frame) {
        self.ask(Op::Free(first.number()));
    }

    /// A device accesses a frame by its number. Returns what the frame held.
    pub fn device_access(&self, frame: Frame, access: Access, word: u64) -> u64 {
        let write = (access == Access::Write).then_some(word);
        self.ask(Op::Device { frame: frame.number(), write }).value
    }

    fn user(&self, address: VirtAddr, deed: Deed, data: Data) -> Result<u64, FaultCause> {
        let page = address.align_down(machine::addr::PAGE_SIZE);
        let known = self.machine().config.pages.iter().any(|known| known.align_down(machine::addr::PAGE_SIZE) == page);
        if !known {
            self.end(Stop::Misuse(format!("a user access at {address}, which is not among the pages of the test")));
        }
        let answer = self.ask(Op::User(User { address: address.as_u64(), deed, data }));
        match answer.outcome {
            Outcome::Done => Ok(answer.value),
            Outcome::NotPresent => Err(FaultCause::NotPresent),
            Outcome::Protection => Err(FaultCause::Protection),
            Outcome::ProtectionKey => Err(FaultCause::ProtectionKey),
        }
    }

    /// Fetches an instruction from the page at `address`, and returns the page's word.
    ///
    /// # Errors
    /// What the code of the page fault says.
    pub fn user_fetch(&self, address: VirtAddr) -> Result<u64, FaultCause> {
        self.user(address, Deed::Fetch, Data::Word(0))
    }

    /// Stores something to the page at `address` as to a shadow stack.
    ///
    /// # Errors
    /// What the code of the page fault says, besides bit 6.
    pub fn user_push(&self, address: VirtAddr) -> Result<(), FaultCause> {
        self.user(address, Deed::Push, Data::Nothing).map(drop)
    }

    fn nmis_come(machine: &Machine<'_>, state: &State<'_>, cpu: usize) -> bool {
        machine.nmi_handler.is_some() && !state.cpus[cpu].in_nmi()
    }

    /// Whether the CPU's owned accesses may be interrupted, so that they are steps.
    fn is_interruptible(&self) -> bool {
        let cpu = self.cpu();
        self.with(|machine, state| Self::nmis_come(machine, state, cpu))
    }

    fn is_setting_up(&self) -> bool {
        self.with(|_, state| state.stage == Stage::SettingUp)
    }
}

impl Cpu for SimulatedCpu {
    fn id(&self) -> CpuId {
        let cpu = if self.is_moved() { self.ask(Op::Identify).value as usize } else { self.cpu() };
        CpuId::new(cpu as u32)
    }

    fn load<W: Word>(&self, word: &W) -> W::Value {
        Self::value::<W>(self.ask(Op::Load(self.place(word))).value)
    }

    fn store<W: Word>(&self, word: &W, value: W::Value) {
        self.ask(Op::Store(self.place(word), value.into()));
    }

    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        Self::value::<W>(self.ask(Op::Swap(self.place(word), value.into())).value)
    }

    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        let answer = self.ask(Op::CompareExchange(self.place(word), old.into(), new.into()));
        let found = Self::value::<W>(answer.value);
        if found == old { Ok(found) } else { Err(found) }
    }

    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        Self::value::<W>(self.ask(Op::Add(self.place(word), addend.into())).value)
    }

    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        Self::value::<W>(self.ask(Op::And(self.place(word), mask.into())).value)
    }

    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        Self::value::<W>(self.ask(Op::Or(self.place(word), mask.into())).value)
    }

    fn fence(&self) {
        self.ask(Op::Fence);
    }

    /// Part of the step before it.
    fn owned_load<W: Word>(&self, word: &W) -> W::Value {
        if self.is_setting_up() {
            return word.atomic_load(Ordering::Relaxed);
        }
        let place = self.place(word);
        if self.is_interruptible() {
            return self.load(word);
        }
        let cpu = self.cpu();
        let value = self.with(|machine, state| {
            machine.check_table(state, cpu, place, "reads");
            state.uses_place(place, Use::Loads);
            state.view(cpu, place)
        });
        self.end_if_stopped();
        Self::value::<W>(value)
    }

    /// Part of the step before it. It is visible at once: nobody looks before a later store or locked instruction of this CPU says that they may,
    /// and that store would leave the buffer after this one. Where an earlier store of this CPU to the word waits, this one waits behind it.
    fn owned_store<W: Word>(&self, word: &W, value: W::Value) {
        if self.is_setting_up() {
            return word.atomic_store(value, Ordering::Relaxed);
        }
        let place = self.place(word);
        if self.is_interruptible() {
            return self.store(word, value);
        }
        let cpu = self.cpu();
        self.with(|machine, state| {
            let waits = state.cpus[cpu].buffer.iter().any(|store| store.places().any(|it| it.overlaps(place)));
            if waits {
                let since = state.now;
                let store = Waiting { place, value: value.into(), words: 1, user_frame: None, since };
                state.cpus[cpu].buffer.push_back(store);
            } else {
                machine.commit(state, cpu, place, value.into(), (Writer::Owned, Use::Writes));
            }
        });
        self.end_if_stopped();
    }

    fn zero(&self, words: &[Word64]) {
        if let [first, ..] = words {
            let place = self.place_at(first.address(), size_of_val(words));
            self.ask(Op::Zero(place.offset, words.len()));
        }
    }

    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        let update = |value| update(Self::value::<W>(value)).map(Into::into);
        // SAFETY: the closure lives until `ask` has returned.
        let test = unsafe { Test::new(&update) };
        Self::value::<W>(self.ask(Op::AwaitUpdate(self.place(word), test)).value)
    }

    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        let until = |value| until(Self::value::<W>(value)).then_some(value);
        // SAFETY: as above.
        let test = unsafe { Test::new(&until) };
        Self::value::<W>(self.ask(Op::AwaitValue(self.place(word), test)).value)
    }

    fn irq_save(&self) -> IrqState {
        if self.ask(Op::InterruptsOff).value == 1 { IrqState::On } else { IrqState::Off }
    }

    fn irq_restore(&self, state: IrqState) {
        let flag = if state == IrqState::On { InterruptFlag::Set } else { InterruptFlag::Clear };
        self.ask(Op::InterruptsBack(flag));
    }

    /// A step only where the section begins.
    fn preempt_disable(&self) {
        if self.is_moved() {
            let cpu = self.cpu();
            match self.with(|_, state| state.cpus[cpu].preempt_off) {
                0 => drop(self.ask(Op::PreemptOff)),
                depth => self.with(|_, state| state.cpus[cpu].preempt_off = depth + 1),
            }
        }
    }

    fn preempt_enable(&self) {
        if self.is_moved() {
            let cpu = self.cpu();
            self.with(|_, state| state.cpus[cpu].preempt_off = state.cpus[cpu].preempt_off.saturating_sub(1));
        }
    }

    fn send_ipi(&self, targets: CpuSet, vector: machine::Vector) {
        self.ask(Op::Send(targets.bits(), Vector::Maskable(vector)));
    }

    fn tlb_invalidate(&self, what: Invalidation) {
        self.ask(Op::Invalidate(what));
    }

    fn tlb_invalidate_paravirtual(&self, targets: CpuSet, what: Invalidation) {
        self.ask(Op::Paravirtual(targets.bits(), what));
    }

    fn tlb_broadcast(&self, what: Invalidation) {
        self.ask(Op::Broadcast(what));
    }

    fn tlb_broadcast_sync(&self) {
        self.ask(Op::BroadcastSync);
    }

    fn load_root(&self, root: PhysAddr) {
        self.ask(Op::LoadRoot(root.as_u64(), Retention::Drop));
    }

    fn pkru(&self) -> Pkru {
        let cpu = self.cpu();
        self.with(|_, state| Pkru::from_bits(state.cpus[cpu].pkru))
    }

    fn rcu_read_lock(&self) {
        self.ask(Op::EnterSection);
    }

    fn rcu_read_unlock(&self) {
        self.ask(Op::LeaveSection);
    }

    fn synchronize_rcu(&self) {
        self.ask(Op::GracePeriod);
    }
}

impl ProcessContexts for SimulatedCpu {
    fn load_root_as(&self, root: PhysAddr, pcid: Pcid, cached: Retention) {
        if self.machine().config.identifiers == Feature::Absent {
            self.end(Stop::Misuse("the machine has no process-context identifiers".to_owned()));
        }
        let below = u64::from(Pcid::COUNT) - 1;
        self.ask(Op::LoadRoot(root.as_u64() & !below | u64::from(pcid.number()), cached));
    }

    fn invalidate_context(&self, what: ContextInvalidation) {
        self.ask(Op::InvalidateContext(what));
    }
}

impl ProtectionKeys for SimulatedCpu {
    fn set_pkru(&self, pkru: Pkru) {
        let config = &self.machine().config;
        if config.protection_keys == Feature::Absent || matches!(config.paging, None | Some(Paging::Pae)) {
            self.end(Stop::Misuse("the machine has no protection keys".to_owned()));
        }
        let cpu = self.cpu();
        self.with(|_, state| state.cpus[cpu].pkru = pkru.bits());
    }
}

impl UserAccess for SimulatedCpu {
    fn user_access(&self, address: VirtAddr, access: Access) -> Result<(), PageFault> {
        let deed = if access == Access::Write { Deed::Store } else { Deed::Load };
        self.user(address, deed, Data::Nothing).map(drop).map_err(|cause| PageFault { address, access, cause })
    }

    fn user_load(&self, address: VirtAddr) -> Result<u64, PageFault> {
        let fault = |cause| PageFault { address, access: Access::Read, cause };
        self.user(address, Deed::Load, Data::Word(0)).map_err(fault)
    }

    fn user_store(&self, address: VirtAddr, value: u64) -> Result<(), PageFault> {
        let fault = |cause| PageFault { address, access: Access::Write, cause };
        self.user(address, Deed::Store, Data::Word(value)).map(drop).map_err(fault)
    }
}
