//! Threads that change CPUs while they run (MODEL.md, F15).
//!
//! A program and its CPU are one here. So a move exchanges what belongs to the hardware between two of them: the program that goes on, and one that is over and stands
//! for a CPU that idles. The thread then has another number, another TLB, and other interrupts pending; and in the idle place is what it left.

use crate::agent::{Status, program_of};
use crate::cells::{self, CpuCell, flag};
use crate::choice::{Choice, Turn};
use crate::core::Core;
use crate::machine_config::Threads;
use crate::verdict::MisuseKind;

/// What a move exchanges, but for TLBs, numbers and broadcasts.
const HARDWARE: [CpuCell; 6] =
    [cells::PENDING, cells::ROOT, cells::PDPTES, cells::PDPTES.plus(1), cells::PDPTES.plus(2), cells::PDPTES.plus(3)];

impl Core<'_> {
    /// Ends a run that asks of moving threads what is not defined for them.
    pub(crate) fn check_moves(&mut self) {
        if self.machine.threads == Threads::Move && self.replicas.is_some() {
            self.misuse(MisuseKind::Setup, "threads that move make CPUs differ: they are not interchangeable");
        }
    }

    /// Which CPU runs this program now.
    #[inline(always)]
    pub(crate) fn number(&self, program: usize) -> usize {
        self.reg(program, cells::NUMBER) as usize ^ program
    }

    /// The programs that run on these CPUs.
    #[inline(always)]
    pub(crate) fn programs_on(&self, cpus: u64) -> impl Iterator<Item = usize> + use<> {
        let programs = if self.machine.threads == Threads::Stay {
            cpus
        } else {
            let is_there = |&program: &usize| cpus >> self.number(program) & 1 != 0;
            (0..self.cpus()).filter(is_there).fold(0, |set, program| set | 1 << program)
        };
        (0..self.cpus()).filter(move |program| programs >> program & 1 != 0)
    }

    /// Adds the moves that the scheduler may make to the choices from `first` on. Where nothing else can happen it makes none: what a thread waits for does not
    /// depend on where it waits.
    pub(crate) fn moves(&self, choices: &mut Vec<Choice>, first: usize) {
        if choices.len() == first {
            return;
        }
        for thread in (0..self.cpus()).filter(|&cpu| self.may_leave(cpu)) {
            let idle = (0..self.cpus()).filter(|&cpu| self.may_take(cpu, thread));
            choices.extend(idle.map(|idle| Choice::new(Turn::Move, thread, idle)));
        }
    }

    /// Whether the scheduler may take the thread off its CPU: it is preemptible, and its stores have reached memory (the scheduler uses locked instructions; a move that waits for
    /// them is one that comes later). What it has broadcast may still be on its way.
    fn may_leave(&self, cpu: usize) -> bool {
        self.active(cpu) == Some(program_of(cpu))
            && !self.has_flag(cpu, flag::IRQ_OFF)
            && [cells::PREEMPT_DEPTH, cells::RCU_DEPTH, cells::RCU_WAITS].iter().all(|&cell| self.reg(cpu, cell) == 0)
            && self.is_settled(cpu)
    }

    /// Whether the CPU of this program, which is over, may take the thread: it has loaded the same page table.
    fn may_take(&self, cpu: usize, thread: usize) -> bool {
        self.agents[program_of(cpu)].state.status == Status::Done
            && !self.has_flag(cpu, flag::IN_HANDLER | flag::IN_NMI)
            && self.has_flag(cpu, flag::ROOT_LOADED) == self.has_flag(thread, flag::ROOT_LOADED)
            && self.reg(cpu, cells::ROOT) == self.reg(thread, cells::ROOT)
            && self.is_settled(cpu)
    }

    /// No store of this CPU is on its way to memory, and no walk is half done.
    fn is_settled(&self, cpu: usize) -> bool {
        self.buffered(cpu) == 0 && self.reg(cpu, cells::WALK) == 0
    }

    /// The thread goes on where `idle` was.
    pub(crate) fn move_thread(&mut self, thread: usize, idle: usize) {
        let (from, to) = (self.number(thread), self.number(idle));
        self.set_reg(thread, cells::NUMBER, (to ^ thread) as u64);
        self.set_reg(idle, cells::NUMBER, (from ^ idle) as u64);
        for cell in HARDWARE {
            let (left, found) = (self.reg(thread, cell), self.reg(idle, cell));
            self.set_reg(thread, cell, found);
            self.set_reg(idle, cell, left);
        }
        let (left, found) = (self.tlbs[thread].clone(), self.tlbs[idle].clone());
        self.set_tlb(thread, found);
        self.set_tlb(idle, left);
        self.move_broadcasts(thread, idle);
    }

    /// Broadcasts are from one CPU to others, whatever runs there: `tlbsync` waits for those of the CPU that executes it.
    fn move_broadcasts(&mut self, thread: usize, idle: usize) {
        let now_at = |program: usize| match program {
            _ if program == thread => idle,
            _ if program == idle => thread,
            _ => program,
        };
        let on_their_way: Vec<_> = (0..self.cpus()).map(|target| self.arrivals(target)).collect();
        for (target, mut arrivals) in on_their_way.into_iter().enumerate() {
            for [source, ..] in &mut arrivals {
                *source = now_at(*source as usize) as u64;
            }
            arrivals.sort_unstable();
            self.set_arrivals(now_at(target), &arrivals);
        }
    }
}
