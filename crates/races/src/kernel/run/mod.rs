//! Running the operations of one CPU: each is a call of the engine.

mod driver;
mod reclaim;
mod walk;

use machine::addr::PAGE_SIZE;
use machine::{Access, Frame, VirtAddr, Word32};
use mm::{
    AddressSpace, FaultError, File, FileId, Foll, GupError, Lazy, MemoryMap, MergeInto, Mm, Run, Signal, SpaceId,
};
use pagetable::Mode;

use super::historic::steps;
use super::operations::{Action, Repeat, Step, User, Whose};
use super::platform::{InLab, Records};
use super::setup::Setup;
use super::watch::{Told, WatchedPage};
use crate::checker::CheckedCpu;
use crate::rule;

/// The result of a `touch` that ended in a signal.
pub(super) const FAULT: u64 = u64::MAX;
/// How many pages may be missing where pages become a huge one: all but one.
const MOST_NONE: u32 = 511;
/// The most runs that the registers of one CPU hold at a time.
const MOST_RUNS: usize = 8;

/// One CPU at its work. Everything that it remembers from operation to operation is here, on its stack.
pub(super) struct Runner<'r, 'm, M: Mode, C: CheckedCpu> {
    pub(super) cpu: &'r C,
    pub(super) mm: &'r Mm<'m, InLab<'m, M, C>>,
    pub(super) setup: &'r Setup,
    /// The watched pages.
    pub(super) pages: &'r [WatchedPage],
    pub(super) records: &'r [Records<'r>],
    /// For each address space: 0 as long as a fork has not made it.
    pub(super) started: &'r [Word32],
    /// That of the CPU's own, if a fork makes it: the CPU begins then.
    pub(super) begins: Option<&'r Word32>,
}

/// Results of operations.
struct Results<'r, 'm, C: CheckedCpu> {
    /// Of a `gup` the number of the first frame, 0 for none; of a `touch` the word that was moved, or [`FAULT`]; of others 1 or 0: done or not.
    registers: [u64; 16],
    /// What is held, and by which register.
    runs: [Option<(usize, Run)>; MOST_RUNS],
    /// Between `enter_lazy` and `leave_lazy`.
    lazy: Option<Lazy<'r, 'm, C>>,
}

impl<'r, 'm, M: Mode, C: CheckedCpu> Runner<'r, 'm, M, C> {
    /// Runs the operations; `rounds` is how often those that are to be repeated are.
    pub(super) fn run(&self, steps: &[Step], rounds: u32) {
        let mut results = Results { registers: [0; 16], runs: [const { None }; MOST_RUNS], lazy: None };
        if let Some(started) = self.begins {
            self.cpu.await_value(started, |started| started != 0);
        }
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
                    self.step(step, &mut results);
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

    fn step(&self, step: &Step, results: &mut Results<'r, 'm, C>) {
        let Self { cpu, mm, .. } = *self;
        let into = step.into;
        match step.action {
            Action::Gup { space, start, pages, flags, whose, into } => {
                self.gup(space, (start, pages), flags, whose, into, results);
            }
            Action::Release { from, done } => self.release(from, done, results),
            Action::Touch { address, user } => {
                let value = self.touch(address, user).unwrap_or(FAULT);
                if let Some(into) = into {
                    results.registers[into] = value;
                }
            }
            Action::Push { address } => {
                // No area is a shadow stack, so that a fault of such an access is a signal whatever the areas say, and the engine is not asked.
                let value = if cpu.user_push(address).is_ok() { 1 } else { FAULT };
                if let Some(into) = into {
                    results.registers[into] = value;
                }
            }
            Action::Zap { space, start, pages } => {
                self.done(into, results, mm.zap(cpu, self.space(space), start, pages));
            }
            Action::Guard { space, start, pages } => {
                self.done(into, results, mm.install_guards(cpu, self.space(space), start, pages));
            }
            Action::Unguard { space, start, pages } => {
                self.done(into, results, mm.remove_guards(cpu, self.space(space), start, pages));
            }
            Action::WriteProtect { space, start, pages } => {
                self.done(into, results, mm.write_protect(cpu, self.space(space), start, pages));
            }
            Action::UffdCopy { space, start, pages, word, protection } => {
                self.done(into, results, self.uffd_copy(space, (start, pages), (word, protection)));
            }
            Action::UffdProtect { space, start, pages } => {
                self.done(into, results, mm.uffd_write_protect(cpu, self.space(space), start, pages));
            }
            Action::UffdUnprotect { space, start, pages } => {
                self.done(into, results, mm.uffd_write_unprotect(cpu, self.space(space), start, pages));
            }
            Action::Harvest { space, start, pages, clear } => {
                let used = self.harvest(space, (start, pages), clear);
                if let (Some(into), Ok(used)) = (into, &used) {
                    results.registers[into] = u64::from(*used);
                }
                self.done(None, results, used);
            }
            Action::EnterLazy { space, kernel } => {
                results.lazy = mm.enter_lazy(cpu, space, kernel);
                let entered = results.lazy.as_ref().map(drop).ok_or("there is no such address space");
                self.done(into, results, entered);
            }
            Action::LeaveLazy { space } => {
                let left = results.lazy.take().map(|lazy| mm.leave_lazy(lazy, self.space(space)));
                self.done(into, results, left.ok_or("the CPU is not lazy"));
            }
            Action::SwapOut { space, start, pages } => self.done(into, results, self.swap_out(space, start, pages)),
            Action::Fail { space, address } => self.done(into, results, self.fail(space, address)),
            Action::Migrate { space, address } => self.done(into, results, self.migrate(space, address)),
            Action::MigrateRange { space, start, pages } => {
                self.done(into, results, self.migrate_range(space, start, pages));
            }
            Action::NumaHint { space, start, pages } => {
                self.done(into, results, self.numa_hint(space, start, pages));
            }
            Action::WriteBack { file, page } => self.done(into, results, self.write_back(file, page)),
            Action::DropPage { file, page } => self.done(into, results, mm.drop_page(cpu, self.file(file), page)),
            Action::Drain { frame } => {
                if let Some(record) = mm.map().page(cpu, self.setup.frames[frame].first) {
                    cpu.fetch_or(record.flags_word(), steps::ON_LIST.bits());
                }
            }
            Action::Mmap { space, area } => self.done(into, results, mm.mmap(cpu, space, area)),
            Action::Fork { space, child } => {
                let forked = mm.fork(cpu, space, child);
                // Those that run in the child may begin, even if there is nothing in it.
                cpu.swap(&self.started[usize::from(child.number())], 1);
                self.done(into, results, forked);
            }
            Action::ShareTable { to, from } => self.done(into, results, mm.share_table(cpu, to, from)),
            Action::Merge { into: stays, from } => self.done(into, results, mm.merge(cpu, stays, from)),
            Action::MergeZeros { from } => self.done(into, results, mm.merge(cpu, MergeInto::ZeroPage, from)),
            Action::Unmerge { space, start, pages } => {
                self.done(into, results, mm.unmerge(cpu, self.space(space), start, pages));
            }
            Action::Mprotect { space, start, pages, rights, key } => {
                let changed = match key {
                    None => mm.mprotect(cpu, space, start, pages, rights),
                    Some(key) => mm.pkey_mprotect(cpu, space, start, pages, rights, key),
                };
                self.done(into, results, changed);
            }
            Action::WritePkru(write) => write.run(cpu, self.setup.machine),
            Action::Mremap { space, from, pages, to } => {
                self.done(into, results, mm.mremap(cpu, space, (from, pages), (to, pages)));
            }
            Action::Collapse { space, address } => {
                self.done(into, results, mm.collapse(cpu, self.space(space), address, MOST_NONE));
            }
            Action::SplitLeaf { space, address } => {
                self.done(into, results, mm.split_leaf(cpu, self.space(space), address));
            }
            Action::SplitFolio { space, address } => self.done(into, results, self.split_folio(space, address)),
            Action::Munmap { space, start, pages } => {
                self.done(into, results, mm.munmap(cpu, space, start, pages));
            }
            Action::UnmapMapping { file, first, pages } => {
                self.done(into, results, mm.unmap_mapping(cpu, self.file(file), first, pages));
            }
            Action::Replace { file, page, frame } => {
                let new = frame.map(|index| self.setup.frames[index].first);
                if let Some(frame) = new {
                    Told::PutIntoFile { frame }.tell(cpu);
                }
                self.done(into, results, mm.replace_page(cpu, self.file(file), page, new));
            }
            Action::Revoke { file, page, frame } => {
                let new = frame.map(|index| self.setup.frames[index].first);
                self.done(into, results, self.revoke(file, page, new));
            }
            Action::Move { file, page, frame, copy } => {
                let new = self.setup.frames[frame].first;
                self.done(into, results, self.move_to(file, page, new, copy));
            }
            Action::Follow { space, start, device } => {
                let frame = self.follow(self.space(space), start, device);
                if let Some(into) = into {
                    results.registers[into] = frame.map_or(0, Frame::number);
                }
            }
            Action::Walk { space, address } => {
                let frame = self.walk(self.space(space), address);
                if let Some(into) = into {
                    results.registers[into] = frame.map_or(0, Frame::number);
                }
            }
            Action::Dump { space, address, section } => {
                let frame = self.dump(self.space(space), address, section);
                if let Some(into) = into {
                    results.registers[into] = frame.map_or(0, Frame::number);
                }
            }
            Action::Ptdump { space, start, pages } => {
                let mapped = self.ptdump(self.space(space), (start, pages));
                if let Some(into) = into {
                    results.registers[into] = mapped;
                }
            }
            Action::Kill { file } => self.done(into, results, self.kill(file)),
            Action::Mirror { space, address, access } => {
                let number = usize::from(space.number());
                self.done(into, results, self.mirror(number, self.space(space), address, access));
            }
            Action::Device { space, address, device } => {
                let held = self.mirrored_access(usize::from(space.number()), address, device);
                if let Some(into) = into {
                    results.registers[into] = held;
                }
            }
            Action::Io { from, device } => {
                let frame = Some(results.registers[from]).filter(|frame| *frame != 0).map(Frame::new);
                let held = frame.map(|frame| self.device(frame, device));
                if let Some(into) = into {
                    results.registers[into] = held.unwrap_or(FAULT);
                }
            }
        }
    }

    pub(in crate::kernel) fn space(&self, id: SpaceId) -> &'m AddressSpace<'m> {
        match self.mm.space(id) {
            Some(space) => space,
            None => self.cpu.violate(rule::USER, "there is no such address space"),
        }
    }

    fn file(&self, id: FileId) -> &'m File<'m> {
        match self.mm.file(id) {
            Some(file) => file,
            None => self.cpu.violate(rule::USER, "there is no such file"),
        }
    }

    /// An operation is over: the register says whether it did what it is for. Without one it must have: files are well formed, so that an error
    /// means that a table was destroyed.
    fn done<T, E: std::fmt::Debug>(&self, into: Option<usize>, results: &mut Results<'_, '_, C>, result: Result<T, E>) {
        match (into, result) {
            (Some(into), result) => results.registers[into] = result.is_ok().into(),
            (None, Ok(_)) => {}
            (None, Err(error)) => self.cpu.violate(rule::USER, format_args!("{error:?}")),
        }
    }

    fn gup(
        &self,
        id: SpaceId,
        (start, pages): (VirtAddr, u64),
        flags: Foll,
        whose: Whose,
        into: usize,
        results: &mut Results<'_, '_, C>,
    ) {
        let Self { cpu, mm, .. } = *self;
        let own = |page: &WatchedPage| page.space == usize::from(id.number());
        let within = |page: &WatchedPage| {
            own(page) && page.address >= start && page.address < start.wrapping_add(pages * PAGE_SIZE)
        };
        let asked =
            (0..self.pages.len()).filter(|&page| within(&self.pages[page])).fold(0, |set, page| set | 1 << page);
        Told::GupBegins { pages: asked }.tell(cpu);
        let mut at = start;
        let mut first = 0;
        // What cannot be had is no error of the test: the register says 0.
        let sink = |run: Run| {
            if first == 0 {
                first = run.frame().number();
            }
            for page in 0..u64::from(run.pages()) {
                let address = at.wrapping_add(page * PAGE_SIZE);
                if let Some(number) = self.pages.iter().position(|page| own(page) && page.address == address) {
                    let frame = run.frame().wrapping_add(page);
                    Told::Got { page: number, frame, reference: run.reference() }.tell(cpu);
                }
            }
            at = at.wrapping_add(u64::from(run.pages()) * PAGE_SIZE);
            match results.runs.iter_mut().find(|slot| slot.is_none()) {
                Some(slot) => *slot = Some((into, run)),
                None => cpu.violate(rule::USER, format_args!("more than {MOST_RUNS} runs are held")),
            }
        };
        let got = match whose {
            Whose::Own => mm.gup(cpu, self.space(id), start, pages, flags, sink),
            Whose::Another => mm.gup_remote(cpu, self.space(id), (start, pages), flags, || Signal::None, sink),
        };
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

    fn release(&self, from: usize, done: Access, results: &mut Results<'_, '_, C>) {
        for slot in &mut results.runs {
            if slot.as_ref().is_some_and(|(register, _)| *register == from)
                && let Some((_, run)) = slot.take()
            {
                Told::GaveBack { frame: run.frame(), pages: u64::from(run.pages()), reference: run.reference() }
                    .tell(self.cpu);
                if let Err(error) = self.mm.release(self.cpu, run, done) {
                    self.cpu.violate(rule::USER, format_args!("{error:?}"));
                }
            }
        }
    }

    /// User code: accesses, and faults, until the access succeeds or the fault cannot be resolved (a signal, which ends the program). Returns the word
    /// that was moved.
    fn touch(&self, address: VirtAddr, user: User) -> Option<u64> {
        let Self { cpu, mm, .. } = *self;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, 0);
            let moved = match user {
                User::Access(access) => cpu.user_access(address, access).map(|()| 0),
                User::Load => cpu.user_load(address),
                User::Store(word) => cpu.user_store(address, word).map(|()| word),
            };
            let fault = match moved {
                Ok(word) => return Some(word),
                Err(fault) => fault,
            };
            let own = SpaceId::new(self.setup.space_of(cpu.id().index()) as u16);
            match mm.handle_fault(cpu, self.space(own), fault) {
                Ok(()) => {}
                Err(FaultError::OutOfFrames) => self.out_of_frames(),
                Err(_) => return None,
            }
            // The handler returns by IRET, which is serialising (SDM vol. 3A, 9.3).
            cpu.fence();
        }
    }
}

impl<C: CheckedCpu> Results<'_, '_, C> {
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
