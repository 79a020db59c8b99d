//! The code of one CPU, suspended between two operations.
//!
//! Each CPU has two agents: its program, and its interrupt handler, which starts afresh at each interrupt while the program is suspended.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Once;

use machine::Vector;

use crate::act::What;
use crate::cells::{self, flag};
use crate::core::{Core, Stop};
use crate::cpu::LabCpu;
use crate::foresee::NOTHING;
use crate::hash::{self, Chain};
use crate::op::{Kind, Op};
use crate::owned::{OwnedAccess, conflict};
use crate::stack::{self, Stack};
use crate::verdict::{MisuseKind, Violation, rule};

/// Whether an agent has something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// It was not started, or (a handler) has returned.
    Idle,
    /// Its code runs.
    Runs,
    /// It asks for an operation.
    Asks,
    /// The program has returned.
    Done,
}

/// What an agent that goes on is to be told.
#[derive(Clone, Copy, Default)]
pub(crate) struct Answer {
    pub(crate) result: u64,
    /// The word that a user access has loaded.
    pub(crate) loaded: Option<u64>,
}

/// What a step changes of an agent, apart from its stack.
#[derive(Clone, Copy)]
pub(crate) struct AgentState {
    pub(crate) sp: *mut u64,
    /// What it asks for: on its stack, unless it is ahead of its code (`foresee.rs`).
    pub(crate) op: *const Op,
    /// What its code asks for, on its stack; null if its code has not begun.
    pub(crate) asks: *mut Op,
    pub(crate) chain: Chain,
    /// The latest of what it is yet to be told.
    pub(crate) untold: u32,
    pub(crate) status: Status,
}

impl AgentState {
    /// Of an agent that was not started.
    pub(crate) fn idle(stack: &Stack) -> Self {
        let (op, asks) = (std::ptr::null(), std::ptr::null_mut());
        Self { sp: stack.top(), op, asks, chain: Chain::default(), untold: NOTHING, status: Status::Idle }
    }
}

/// What an agent is told when it starts. Behind a raw pointer of its own, so that it can be read while the machine is.
pub(crate) struct Start {
    pub(crate) core: *mut Core<'static>,
    pub(crate) cpu: usize,
    pub(crate) agent: usize,
}

pub(crate) struct Agent {
    pub(crate) stack: Stack,
    pub(crate) start: Box<Start>,
    pub(crate) state: AgentState,
    /// The CPU as its code sees it: on the stack, the same in every run.
    pub(crate) home: *const LabCpu,
}

/// The program of a CPU, its interrupt handler and its NMI handler each have a stack.
const AGENTS_PER_CPU: usize = 3;

pub(crate) const fn program_of(cpu: usize) -> usize {
    AGENTS_PER_CPU * cpu
}

pub(crate) const fn handler_of(cpu: usize) -> usize {
    AGENTS_PER_CPU * cpu + 1
}

pub(crate) const fn nmi_handler_of(cpu: usize) -> usize {
    AGENTS_PER_CPU * cpu + 2
}

/// Every agent of a CPU.
pub(crate) const fn agents_of(cpu: usize) -> std::ops::Range<usize> {
    AGENTS_PER_CPU * cpu..AGENTS_PER_CPU * (cpu + 1)
}

/// Whose agent it is.
pub(crate) const fn cpu_of(agent: usize) -> usize {
    agent / AGENTS_PER_CPU
}

/// The agent of another CPU that does what this one does on its own.
pub(crate) const fn neutral_agent(agent: usize, cpu: usize) -> usize {
    agent - AGENTS_PER_CPU * cpu_of(agent) + AGENTS_PER_CPU * cpu
}

const DONE: u64 = 0xd0e0;
const PROGRAM: u64 = 0x9a0;
const HANDLER: u64 = 0x4a00;
const NMI_HANDLER: u64 = 0x4b00;

impl Agent {
    pub(crate) fn new(core: *mut Core<'_>, agent: usize) -> Self {
        let start = Box::new(Start { core: core.cast(), cpu: cpu_of(agent), agent });
        let stack = stack::take();
        let state = AgentState::idle(&stack);
        Self { stack, start, state, home: std::ptr::null() }
    }
}

impl Core<'_> {
    /// The agent whose operation is the CPU's next, if there is one.
    #[inline(always)]
    pub(crate) fn active(&self, cpu: usize) -> Option<usize> {
        let flags = self.reg(cpu, cells::FLAGS);
        let agent = if flags & (flag::IN_HANDLER | flag::IN_NMI) == 0 {
            program_of(cpu)
        } else if flags & flag::IN_NMI == 0 {
            handler_of(cpu)
        } else {
            nmi_handler_of(cpu)
        };
        (self.agents.get(agent)?.state.status == Status::Asks).then_some(agent)
    }

    /// What a suspended agent asks for.
    #[inline(always)]
    pub(crate) fn op(&self, agent: usize) -> &Op {
        debug_assert!(self.agents[agent].state.status == Status::Asks);
        // SAFETY: an agent that asks is suspended in `LabCpu::ask`, which keeps the operation on its live stack; or it is ahead of its code, and the operation is kept by `Foresight`.
        unsafe { &*self.agents[agent].state.op }
    }

    pub(crate) fn set_chain(&mut self, agent: usize, chain: Chain) {
        let old = std::mem::replace(&mut self.agents[agent].state.chain, chain);
        self.replace_term(cpu_of(agent), old.term(), chain.term());
    }

    /// From now on an agent is known by nothing that it was told before.
    pub(crate) fn forget(&mut self, agent: usize, chain: Chain) {
        self.set_chain(agent, chain);
        self.forget_names(agent);
    }

    /// The agent was told something.
    #[inline(always)]
    pub(crate) fn tell_agent(&mut self, agent: usize, told: u64) {
        self.foresight.acts();
        let chain = self.agents[agent].state.chain.with(told);
        self.set_chain(agent, chain);
    }

    /// Makes an agent ready to start at the top of its stack.
    pub(crate) fn prepare(&mut self, agent: usize, seed: u64) {
        let cpu = cpu_of(agent);
        let kind = match agent - program_of(cpu) {
            0 => PROGRAM,
            1 => HANDLER,
            _ => NMI_HANDLER,
        };
        self.forget(agent, Chain::new(kind + self.neutral_cpu(cpu) as u64).with(seed));
        let state = &mut self.agents[agent].state;
        (state.asks, state.untold) = (std::ptr::null_mut(), NOTHING);
    }

    /// Writes what an agent finds on its stack when it goes on: the answer to what it asked for, or the frame that it begins with. Only an agent that runs then may be
    /// told so: what has changed of a stack is noted when its agent is suspended again.
    #[inline(always)]
    fn answer_on_stack(&mut self, agent: usize) {
        let Agent { stack, start, state, .. } = &mut self.agents[agent];
        if !state.asks.is_null() {
            // SAFETY: an agent that asks is suspended in `LabCpu::ask`, which keeps the operation on its live stack.
            let op = unsafe { &mut *state.asks };
            op.result = self.answer.result;
            if let Some(word) = self.answer.loaded {
                op.c = word;
            }
            return;
        }
        let entry = match agent - program_of(cpu_of(agent)) {
            0 => run_program,
            1 => run_handler,
            _ => run_nmi_handler,
        };
        let argument: *const Start = &**start;
        // SAFETY: a program is started once, a handler only when it has returned: nobody uses the stack.
        state.sp = unsafe { stack::prepare(stack.top(), entry, argument.cast_mut().cast()) };
    }

    /// Lets an agent run until it asks for something or is done.
    ///
    /// # Safety
    /// `core` is valid, and no reference to it exists. The agent is prepared or suspended.
    pub(crate) unsafe fn resume(core: *mut Self, agent: usize) {
        // SAFETY: the caller's promise; the reference is not used any more when the agent goes on.
        let me = unsafe { &mut *core };
        debug_assert!(me.has_stack_as_noted(agent), "somebody wrote to the stack of an agent that did not run");
        me.owned.begin(cpu_of(agent));
        let asked = me.asked(agent);
        if me.agents[agent].state.untold != NOTHING {
            // SAFETY: the caller's promise.
            unsafe { Self::catch_up(core, agent) };
        }
        // SAFETY: as above.
        let me = unsafe { &mut *core };
        let told = me.sets_out(agent);
        if me.stop.is_none() {
            // SAFETY: the caller's promise.
            unsafe { Self::go_on(core, agent) };
        }
        // SAFETY: the caller's promise; the agent is suspended again and holds no reference.
        let me = unsafe { &mut *core };
        me.note_stack(agent);
        me.arrived(agent, told, asked);
        me.audit(agent);
    }

    /// Whether nobody has written to what is live of an agent's stack since it was suspended.
    pub(crate) fn has_stack_as_noted(&self, agent: usize) -> bool {
        let Agent { stack, state, .. } = &self.agents[agent];
        // SAFETY: the agent is suspended at `sp` of its own stack.
        unsafe { stack.is_as_noted(state.sp) }
    }

    /// Lets an agent run that is told what its code waits for.
    ///
    /// # Safety
    /// As for [`Self::resume`].
    #[inline(always)]
    pub(crate) unsafe fn go_on(core: *mut Self, agent: usize) {
        // SAFETY: the caller's promise.
        let (outside, inside) = unsafe {
            let core = &mut *core;
            core.running = Some(agent);
            core.answer_on_stack(agent);
            core.agents[agent].state.status = Status::Runs;
            (&raw mut core.explorer_sp, core.agents[agent].state.sp)
        };
        // SAFETY: the agent's stack pointer was prepared or saved when it suspended itself; its stack is as it was then.
        unsafe { stack::switch(outside, inside) };
        // SAFETY: the caller's promise; the agent is suspended again and holds no reference.
        unsafe { (*core).running = None };
    }

    /// The running agent gives control back to the explorer, and gets it back when its operation was performed.
    ///
    /// # Safety
    /// Called on the running agent's own stack; `core` is valid, and no reference to it exists.
    pub(crate) unsafe fn suspend(core: *mut Self) {
        // SAFETY: the caller's promise.
        let (inside, outside) = unsafe {
            let core = &mut *core;
            let agent = core.running.expect("an agent runs");
            (&raw mut core.agents[agent].state.sp, core.explorer_sp)
        };
        // SAFETY: the explorer waits in `resume`.
        unsafe { stack::switch(inside, outside) };
    }

    /// After a step of an agent: did it do what its chain says, and were its owned accesses its own?
    fn audit(&mut self, agent: usize) {
        if self.stop.is_some() {
            return;
        }
        let cpu = cpu_of(agent);
        if self.agents[agent].state.status == Status::Asks {
            let op = *self.op(agent);
            let (address, [a, b, c]) = self.neutral_op(cpu, &op);
            let parts = [op.kind as u64, address as u64, a, b, c, u64::from(op.bytes), op.location.line().into()];
            let seen = parts.into_iter().fold(0, hash::blend);
            let chain = self.agents[agent].state.chain.term();
            let before = *self.known.entry(chain).or_insert(seen);
            if before != seen {
                self.misuse(
                    MisuseKind::HiddenState,
                    format!(
                        "{} does {} at {} although it once did something else after the same answers: it keeps state outside \
                         the arena, the digest of a round or boundary leaves something out, or CPUs that were declared interchangeable run other code",
                        self.programs[cpu].0,
                        op.kind.name(),
                        op.location
                    ),
                );
                return;
            }
        }
        self.audit_owned(cpu);
    }

    pub(crate) fn audit_owned(&mut self, cpu: usize) {
        if self.owned.len() == 0 {
            return;
        }
        for other in (0..self.cpus()).filter(|&other| other != cpu) {
            let (mine, theirs) = (self.owned.of(cpu), self.owned.of(other));
            if mine.is_empty() && theirs.is_empty() {
                continue;
            }
            let clash = mine
                .iter()
                .find_map(|access| {
                    let before_op = self.stands_before(other, access);
                    let owned =
                        theirs.iter().find(|it| it.bytes.overlaps(access.bytes) && conflict(it.effect, access.effect));
                    let place = before_op.or(owned.map(|it| it.location))?;
                    Some((cpu, access, other, place))
                })
                .or_else(|| {
                    theirs.iter().find_map(|access| Some((other, access, cpu, self.stands_before(cpu, access)?)))
                });
            if let Some((owner, access, intruder, place)) = clash {
                let word = self.symbols.place(access.bytes.offset as usize, access.bytes.len as usize);
                let sentence = format!(
                    "CPU{owner} accesses {word} as owned ({}) while CPU{intruder} accesses it without a lock in common ({place})",
                    access.location
                );
                self.misuse(MisuseKind::NotOwned, sentence);
                return;
            }
        }
    }

    /// Where the next operation of a CPU is asked for, if it clashes with an owned access of another.
    fn stands_before(&self, cpu: usize, access: &OwnedAccess) -> Option<&'static Location<'static>> {
        let op = self.op(self.active(cpu)?);
        access.clashes_with(op).then_some(op.location)
    }
}

unsafe extern "sysv64" fn run_program(argument: *mut ()) -> ! {
    // SAFETY: `prepare` passed the agent's `Start`, which lives as long as the agent.
    let start = unsafe { &*argument.cast::<Start>() };
    // SAFETY: the machine lives; the reference ends with this statement, the boxed program stays where it is.
    let program: *const _ = unsafe { &*(&*start.core).programs[start.cpu].1 };
    // SAFETY: as above; programs are not changed while they run.
    run(start, |cpu| unsafe { (*program)(cpu) })
}

unsafe extern "sysv64" fn run_handler(argument: *mut ()) -> ! {
    // SAFETY: as in `run_program`.
    let start = unsafe { &*argument.cast::<Start>() };
    // SAFETY: as in `run_program`.
    let handler: *const _ =
        unsafe { (&*start.core).handler.as_deref().expect("interrupts are only taken with a handler") };
    // SAFETY: as in `run_program`.
    run(start, |cpu| unsafe { (*handler)(cpu, cpu.vector()) })
}

unsafe extern "sysv64" fn run_nmi_handler(argument: *mut ()) -> ! {
    // SAFETY: as in `run_program`.
    let start = unsafe { &*argument.cast::<Start>() };
    // SAFETY: as in `run_program`.
    let handler: *const _ =
        unsafe { (&*start.core).nmi_handler.as_deref().expect("NMIs are only taken with a handler") };
    // SAFETY: as in `run_program`.
    run(start, |cpu| unsafe { (*handler)(cpu) })
}

/// Runs an agent's code and never returns.
fn run(start: &Start, code: impl Fn(&LabCpu)) -> ! {
    let cpu = LabCpu::new(start.core, start.cpu, start.agent);
    cpu.core().agents[start.agent].home = &cpu;
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| code(&cpu))) {
        // The hook has recorded it.
        drop(payload);
    }
    cpu.finish()
}

impl Core<'_> {
    /// The code of the running agent has returned, or was unwound. Returns whether an `iret` is still to be done.
    pub(crate) fn finished(&mut self, agent: usize) -> bool {
        let cpu = cpu_of(agent);
        if std::mem::take(&mut self.unwinding) {
            self.forget(agent, Chain::default());
            self.agents[agent].state.status = Status::Done;
            return false;
        }
        if agent != program_of(cpu) {
            if self.buffered(cpu) != 0 {
                return true;
            }
            // Nobody could tell whether `iret` came a moment later: it touches only this CPU, and from now on the interrupt may
            // be taken, not must. So it needs no step of its own.
            self.did(cpu, What::Return);
            self.interrupt_return(cpu, agent);
            self.retire(agent);
            return false;
        }
        if self.interrupts_off(cpu) || self.reg(cpu, cells::RCU_DEPTH) != 0 {
            let what = if self.interrupts_off(cpu) { "interrupts off" } else { "an RCU section open" };
            self.misuse(MisuseKind::Context, format!("the program of {} ends with {what}", self.programs[cpu].0));
        }
        self.forget(agent, Chain::new(DONE + self.neutral_cpu(cpu) as u64));
        self.agents[agent].state.status = Status::Done;
        false
    }

    /// The interrupt handler is no more.
    pub(crate) fn retire(&mut self, agent: usize) {
        self.forget(agent, Chain::default());
        self.agents[agent].state.status = Status::Idle;
    }
}

/// The bit of an NMI among the pending vectors.
pub(crate) const NMI: u64 = 2;

/// The number of a vector.
pub(crate) const fn vector_number(vector: Vector) -> u64 {
    match vector {
        Vector::TlbShootdown => 0,
        Vector::Synchronise => 1,
    }
}

pub(crate) const fn vector_of(number: u64) -> Vector {
    if number == 0 { Vector::TlbShootdown } else { Vector::Synchronise }
}

thread_local! {
    /// The machine whose code this thread runs: its panics are verdicts, not messages.
    static CURRENT: Cell<*mut Core<'static>> = const { Cell::new(std::ptr::null_mut()) };
}

/// Panics of code on `core` are recorded while this lives.
pub(crate) struct Attending(*mut Core<'static>);

impl Attending {
    pub(crate) fn new(core: *mut Core<'_>) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !record_panic(info) {
                    previous(info);
                }
            }));
        });
        Self(CURRENT.replace(core.cast()))
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// The CPU whose code runs on this thread, if one does.
pub(crate) fn running() -> Option<*const LabCpu> {
    let core = CURRENT.get();
    if core.is_null() {
        return None;
    }
    // SAFETY: `Attending` keeps the machine valid. If its code runs, nobody holds a reference to it; if not, this is no code of the lab's own either, which would hold one.
    let core = unsafe { &*core };
    core.running.map(|agent| core.agents[agent].home)
}

fn record_panic(info: &std::panic::PanicHookInfo<'_>) -> bool {
    let core = CURRENT.get();
    if core.is_null() {
        return false;
    }
    // SAFETY: `Attending` keeps the machine valid; code that runs on it panics, so nobody holds a reference to it.
    let core = unsafe { &mut *core };
    if core.running.is_none() {
        return false;
    }
    let place =
        info.location().map(|location| format!(" ({}:{})", location.file(), location.line())).unwrap_or_default();
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("panic");
    core.halt(Stop::Violation(Violation::new(rule::USER, format!("{message}{place}"))));
    core.unwinding = true;
    true
}

/// What `op` of kind [`Kind::InterruptReturn`] looks like.
pub(crate) fn interrupt_return() -> Op {
    Op::new(Kind::InterruptReturn)
}
