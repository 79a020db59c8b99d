//! The code of the CPUs: coroutines that ask for one operation after the other.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};

use crate::cpu::{Seat, SimulatedCpu};
use crate::op::{Answer, InterruptFlag, Op, Vector};
use crate::state::{Machine, Stop};
use crate::verdict::{Violation, rule};

/// Enough for an engine built without optimisation.
const STACK_BYTES: usize = 256 << 10;

type Routine = Coroutine<Answer, Op, (), DefaultStack>;

/// A program, or a handler.
struct Thread {
    routine: Routine,
    /// What it asks for, if it is not over.
    asks: Option<Op>,
}

/// Code in the midst of a run: for each CPU its program, and the handlers that interrupt it.
pub(crate) struct Code<'m, 'a> {
    machine: &'m Machine<'a>,
    threads: Vec<Vec<Thread>>,
    stacks: Vec<DefaultStack>,
}

impl<'m, 'a> Code<'m, 'a> {
    pub(crate) fn new(machine: &'m Machine<'a>) -> Self {
        quieten_panics();
        let threads = machine.programs.iter().map(|_| Vec::new()).collect();
        Self { machine, threads, stacks: Vec::new() }
    }

    /// Starts all programs anew, each up to its first operation.
    pub(crate) fn start(&mut self) {
        self.abandon();
        for cpu in 0..self.threads.len() {
            self.begin(cpu, None);
        }
    }

    /// Forgets the run. Stacks are left as they are: what is on them is not dropped.
    fn abandon(&mut self) {
        for thread in self.threads.iter_mut().flat_map(|threads| threads.drain(..)) {
            give_back(&mut self.stacks, thread.routine);
        }
    }

    fn begin(&mut self, cpu: usize, vector: Option<Vector>) {
        let stack = match self.stacks.pop() {
            Some(stack) => stack,
            None => DefaultStack::new(STACK_BYTES).unwrap_or_else(|error| panic!("no memory for a stack: {error}")),
        };
        let machine = std::ptr::from_ref(self.machine).cast::<Machine<'static>>();
        let routine = Coroutine::with_stack(stack, move |yielder, _: Answer| {
            let seat = if vector.is_some() { Seat::Cpu(cpu) } else { Seat::Program(cpu) };
            let handle = SimulatedCpu::new(machine, seat, yielder);
            // SAFETY: `Code` borrows the machine, and routines run in methods of `Code` only.
            let machine = unsafe { &*machine };
            let code = || match (vector, &machine.handler, &machine.nmi_handler) {
                (None, ..) => machine.programs[cpu](&handle),
                (Some(Vector::Maskable(vector)), Some(handler), _) => handler(&handle, vector),
                (Some(Vector::Nmi), _, Some(handler)) => handler(&handle),
                _ => {}
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(code)) {
                let sentence = format!("CPU{cpu} panics: {}", words_of(&*panic));
                machine.state.borrow_mut().halt(Stop::Violation(Violation::new(rule::USER, sentence)));
            }
        });
        self.threads[cpu].push(Thread { routine, asks: None });
        self.go_on(cpu, Answer::value(0));
    }

    /// Runs the code of a CPU up to its next operation.
    fn go_on(&mut self, cpu: usize, answer: Answer) {
        let Some(thread) = self.threads[cpu].last_mut() else { return };
        let before = RUNNING.replace(true);
        let result = thread.routine.resume(answer);
        RUNNING.set(before);
        let asks = match result {
            CoroutineResult::Yield(op) => Some(op),
            CoroutineResult::Return(()) if self.threads[cpu].len() > 1 => Some(Op::InterruptReturn),
            CoroutineResult::Return(()) => {
                let mut state = self.machine.state.borrow_mut();
                let processor = &state.cpus[cpu];
                let ends_badly = processor.interrupt_flag == InterruptFlag::Clear || processor.sections != 0;
                if ends_badly && state.stop.is_none() {
                    state.misuse(format!("the program of CPU{cpu} ends with interrupts off or in a read-side section"));
                }
                None
            }
        };
        if let Some(thread) = self.threads[cpu].last_mut() {
            thread.asks = asks;
        }
    }

    /// What a CPU asks for.
    pub(crate) fn asks(&self, cpu: usize) -> Option<Op> {
        self.threads[cpu].last()?.asks
    }

    /// An operation was made.
    pub(crate) fn answer(&mut self, cpu: usize, answer: Answer) {
        self.go_on(cpu, answer);
    }

    /// A handler begins.
    pub(crate) fn interrupt(&mut self, cpu: usize, vector: Vector) {
        self.begin(cpu, Some(vector));
    }

    /// A handler has returned.
    pub(crate) fn return_from_handler(&mut self, cpu: usize) {
        if let Some(thread) = self.threads[cpu].pop() {
            give_back(&mut self.stacks, thread.routine);
        }
    }

    /// Whether a handler interrupts the program on a CPU.
    pub(crate) fn is_interrupted(&self, cpu: usize) -> bool {
        self.threads[cpu].len() > 1
    }

    /// Whether the program on a CPU is over, and no handler runs there.
    pub(crate) fn is_idle(&self, cpu: usize) -> bool {
        !self.is_interrupted(cpu) && self.asks(cpu).is_none()
    }

    /// Whether every program is over.
    pub(crate) fn is_over(&self) -> bool {
        (0..self.threads.len()).all(|cpu| self.is_idle(cpu))
    }

    /// The programs on two CPUs take each other's place.
    pub(crate) fn exchange(&mut self, one: usize, other: usize) {
        self.threads.swap(one, other);
    }
}

impl Drop for Code<'_, '_> {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn give_back(stacks: &mut Vec<DefaultStack>, mut routine: Routine) {
    if !routine.done() {
        // SAFETY: the frames on the stack are never run again. They own nothing that somebody else points to: code under test keeps everything
        // that others see in words of the machine's memory.
        unsafe { routine.force_reset() };
    }
    stacks.push(routine.into_stack());
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

thread_local! {
    /// Code under test runs on this thread: its panics are answers, not messages.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

fn quieten_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !RUNNING.get() {
                previous(info);
            }
        }));
    });
}
