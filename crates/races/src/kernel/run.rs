//! Running the operations of one CPU: each is a call of the engine.

use lab::LabCpu;
use machine::addr::PAGE_SIZE;
use machine::{Access, Cpu, UserAccess, VirtAddr};
use mm::{AddressSpace, FaultError, Foll, GupError, Mm, Run};
use pagetable::Mode;

use super::operations::{Action, Repeat, Step};
use super::platform::InLab;
use super::setup::Setup;
use super::watch::Told;
use crate::rule;

/// The most runs that the registers of one CPU hold at a time.
const MOST_RUNS: usize = 8;

/// One CPU at its work. Everything that it remembers from operation to operation is here, on its stack.
pub(super) struct Runner<'r, 'm, M: Mode> {
    pub(super) cpu: &'r LabCpu,
    pub(super) mm: &'r Mm<'m, InLab<'m, M>>,
    pub(super) space: &'r AddressSpace<'m>,
    pub(super) setup: &'r Setup,
    /// The watched pages.
    pub(super) pages: &'r [(VirtAddr, String)],
}

/// Results of operations.
struct Results {
    /// The number of the first frame that a `gup` into this register got; 0 for none.
    registers: [u64; 16],
    /// What is held, and by which register.
    runs: [Option<(usize, Run)>; MOST_RUNS],
}

impl<'m, M: Mode> Runner<'_, 'm, M> {
    /// Runs the operations; `rounds` is how often those that are to be repeated are.
    pub(super) fn run(&self, steps: &[Step], rounds: u32) {
        let mut results = Results { registers: [0; 16], runs: [const { None }; MOST_RUNS] };
        let mut next = 0;
        while let Some(step) = steps.get(next) {
            let together = match step.repeat {
                Repeat::Once => 1,
                Repeat::Rounds => steps[next..].iter().take_while(|step| step.repeat == Repeat::Rounds).count(),
            };
            let times = if step.repeat == Repeat::Rounds { rounds } else { 1 };
            for round in 0..times {
                for (index, step) in steps[next..next + together].iter().enumerate() {
                    self.cpu.mark(&step.text);
                    self.step(&step.action, &mut results);
                    let place = u64::from(round) << 32 | (next + index) as u64;
                    self.cpu.op_boundary(results.digest(place));
                }
            }
            next += together;
        }
        for (slot, value) in results.registers.iter().enumerate() {
            if *value != 0 {
                self.cpu.report(slot, *value);
            }
        }
    }

    fn step(&self, action: &Action, results: &mut Results) {
        let Self { cpu, mm, space, .. } = *self;
        match *action {
            Action::Gup { start, pages, flags, into } => self.gup(start, pages, flags, into, results),
            Action::Release { from, done } => self.release(from, done, results),
            Action::Touch { address, access } => self.touch(address, access),
            // The files are well formed, so these errors mean a table was destroyed: that is worth stopping at.
            Action::Zap { start, pages } => self.expect(mm.zap(cpu, space, start, pages)),
            Action::WriteProtect { start, pages } => self.expect(mm.write_protect(cpu, space, start, pages)),
            Action::Munmap { space, start, pages } => self.expect(mm.munmap(cpu, space, start, pages)),
            Action::UnmapMapping { file, first, pages } => {
                if let Some(file) = mm.file(file) {
                    self.expect(mm.unmap_mapping(cpu, file, first, pages));
                }
            }
            Action::Replace { file, page, frame } => {
                let new = frame.map(|index| self.setup.frames[index].first);
                if let Some(frame) = new {
                    Told::PutIntoFile { frame }.tell(cpu);
                }
                if let Some(file) = mm.file(file) {
                    self.expect(mm.replace_page(cpu, file, page, new));
                }
            }
            Action::Revoke { file, page, frame } => {
                let new = frame.map(|index| self.setup.frames[index].first);
                let Some(file) = mm.file(file) else { return };
                let old = mm.revoke(cpu, file, page, 1, |frames| frames.set(page, new));
                match old {
                    // Nobody can reach it any more: the driver uses it for something else.
                    Ok(Some(old)) => cpu.free_frame(old),
                    Ok(None) => {}
                    Err(error) => self.expect(Err(error)),
                }
            }
        }
    }

    fn expect<E: std::fmt::Debug>(&self, result: Result<(), E>) {
        if let Err(error) = result {
            self.cpu.violate(rule::USER, format_args!("{error:?}"));
        }
    }

    fn gup(&self, start: VirtAddr, pages: u64, flags: Foll, into: usize, results: &mut Results) {
        let Self { cpu, mm, space, .. } = *self;
        let within = |page: VirtAddr| page >= start && page < start.wrapping_add(pages * PAGE_SIZE);
        let asked =
            (0..self.pages.len()).filter(|&page| within(self.pages[page].0)).fold(0, |set, page| set | 1 << page);
        Told::GupBegins { pages: asked }.tell(cpu);
        let mut at = start;
        let mut first = 0;
        // What cannot be had is no error of the test: the register says 0.
        let got = mm.gup(cpu, space, start, pages, flags, |run| {
            if first == 0 {
                first = run.frame().number();
            }
            for page in 0..u64::from(run.pages()) {
                let address = at.wrapping_add(page * PAGE_SIZE);
                if let Some(number) = self.pages.iter().position(|(known, _)| *known == address) {
                    let frame = run.frame().wrapping_add(page);
                    Told::Got { page: number, frame, reference: run.reference() }.tell(cpu);
                }
            }
            at = at.wrapping_add(u64::from(run.pages()) * PAGE_SIZE);
            match results.runs.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some((into, run)),
                None => cpu.violate(rule::USER, format_args!("more than {MOST_RUNS} runs are held")),
            }
        });
        Told::GupEnds.tell(cpu);
        if got == Err(GupError::Fault(FaultError::OutOfFrames)) {
            self.out_of_frames();
        }
        results.registers[into] = first;
    }

    /// The file gives the machine too few frames for what it does: no verdict would mean anything.
    fn out_of_frames(&self) -> ! {
        self.cpu.violate(rule::USER, "no frame is left for a page table: set tables= to more")
    }

    fn release(&self, from: usize, done: Access, results: &mut Results) {
        for slot in &mut results.runs {
            if slot.as_ref().is_some_and(|(register, _)| *register == from)
                && let Some((_, run)) = slot.take()
            {
                Told::GaveBack { frame: run.frame(), pages: u64::from(run.pages()), reference: run.reference() }
                    .tell(self.cpu);
                self.expect(self.mm.release(self.cpu, run, done));
            }
        }
    }

    /// User code: accesses, and faults, until the access succeeds or the fault cannot be resolved (a signal).
    fn touch(&self, address: VirtAddr, access: Access) {
        let Self { cpu, mm, space, .. } = *self;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let Err(fault) = cpu.user_access(address, access) else { return };
            match mm.handle_fault(cpu, space, fault) {
                Ok(()) => {}
                Err(FaultError::OutOfFrames) => self.out_of_frames(),
                // A signal ends the program.
                Err(_) => return,
            }
            // The handler returns by IRET, which is serialising (SDM vol. 3A, 9.3).
            cpu.fence();
        }
    }
}

impl Results {
    /// What the rest of the program can depend on.
    fn digest(&self, place: u64) -> u64 {
        let runs = self
            .runs
            .iter()
            .flatten()
            .map(|(register, run)| (*register as u64) << 56 ^ run.frame().number() << 16 ^ u64::from(run.pages()));
        self.registers
            .iter()
            .copied()
            .chain(runs)
            .fold(place, |digest, value| (digest.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
