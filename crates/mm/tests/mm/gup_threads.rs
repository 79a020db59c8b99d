//! GUP in every form on several CPUs, while pages are zapped, protected, moved and taken to swap. What is pinned stays what it is, and in the end every frame is back.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::{CACHED, FILE_PAGES, Kernel, anonymous};
use hosted::ThreadCpu;
use machine::{Access, Cpu, CpuId, Frame, VirtAddr};
use mm::{Area, AreaRights, FolioFlags, Foll, GupError, MemoryMap, Run, Signal, SpaceId};

const CPUS: u32 = 4;
const ROUNDS: u64 = 100_000;
const TABLES: u64 = 64;
const PAGES: u64 = 32;
const ANON: VirtAddr = VirtAddr::new(0x40_0000_0000);
const FILE: VirtAddr = VirtAddr::new(0x41_0000_0000);
const SPACE: SpaceId = SpaceId::new(0);

/// xorshift: the same choices in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct Work<'k> {
    kernel: &'k Kernel,
    cpu: &'k ThreadCpu,
    random: Random,
    held: Vec<Run>,
    /// Each CPU stores at its own place in a page.
    word: u64,
}

impl Work<'_> {
    fn gup(&mut self) {
        let page = self.random.below(PAGES);
        let pages = 1 + self.random.below(PAGES - page).min(6);
        let base = if self.random.below(2) == 0 { ANON } else { FILE };
        let start = base.wrapping_add(page * 4096);
        let kinds = [Foll::GET, Foll::PIN, Foll::PIN | Foll::LONGTERM];
        let mut flags = kinds[self.random.below(3) as usize];
        for flag in [Foll::WRITE, Foll::FORCE, Foll::INTERRUPTIBLE, Foll::NOFAULT, Foll::NOWAIT] {
            if self.random.below(3) == 0 {
                flags = flags | flag;
            }
        }
        let Self { kernel, cpu, held, .. } = self;
        let space = kernel.space(0);
        let mut taken = 0;
        let mut keep = |run: Run| {
            taken += u64::from(run.pages());
            held.push(run);
        };
        let got = match self.random.below(3) {
            0 => kernel.mm.gup_remote(cpu, space, (start, pages), flags, || Signal::None, &mut keep),
            _ => kernel.mm.gup(cpu, space, start, pages, flags, &mut keep),
        };
        match got {
            Ok(got) => assert_eq!(got, taken),
            Err(
                GupError::NotMapped { .. }
                | GupError::WouldBlock { .. }
                | GupError::NotMigrated { .. }
                | GupError::Fault(mm::FaultError::Forbidden { .. }),
            ) => assert_eq!(taken, 0),
            Err(error) => panic!("{error:?} with {flags:?}"),
        }
    }

    /// What is pinned for writing is the memory of whoever pinned it: what a device writes there is not lost while it is pinned.
    fn device(&mut self) {
        let at = ANON.wrapping_add(self.random.below(PAGES) * 4096);
        let mut runs = Vec::new();
        let got =
            self.kernel.mm.gup(self.cpu, self.kernel.space(0), at, 1, Foll::PIN | Foll::WRITE, |run| runs.push(run));
        if got == Ok(1) {
            let frame = runs[0].frame();
            let value = self.random.below(u64::MAX);
            self.kernel.data.write(frame, self.word, value);
            std::hint::spin_loop();
            assert_eq!(self.kernel.data.read(frame, self.word), value, "nobody else has the page");
        }
        self.kernel.mm.release_all(self.cpu, runs, Access::Write).expect("held");
    }

    fn give_back(&mut self) {
        let Self { kernel, cpu, held, .. } = self;
        match self.random.below(4) {
            0 => kernel.mm.release_all(cpu, held.drain(..), Access::Read).expect("held"),
            1 => held.drain(..).for_each(|run| kernel.mm.release(cpu, run, Access::Write).expect("held")),
            2 => {
                for run in held.drain(..) {
                    let pin = run.reference() == mm::Reference::Pin;
                    if pin {
                        let more = kernel.mm.add_pin(cpu, &run).expect("it is pinned");
                        kernel.mm.unpin_dirty_lock(cpu, more).expect("held");
                    }
                    kernel.mm.release(cpu, run, Access::Read).expect("held");
                }
            }
            _ => {
                for run in held.drain(..) {
                    let (first, rest) = run.split_at(1);
                    let parts = first.into_iter().chain(rest);
                    parts.for_each(|run| kernel.mm.release(cpu, run, Access::Read).expect("held"));
                }
            }
        }
    }

    /// The frame that is mapped somewhere, if there is one: it may be another's by the time that it is used.
    fn some_frame(&mut self) -> Option<Frame> {
        let base = if self.random.below(2) == 0 { ANON } else { FILE };
        self.kernel.frame_at(self.cpu, 0, base.wrapping_add(self.random.below(PAGES) * 4096))
    }

    fn disturb(&mut self) {
        let page = self.random.below(PAGES);
        let Self { kernel, cpu, .. } = *self;
        let (mm, space) = (kernel.mm, kernel.space(0));
        match self.random.below(7) {
            0 => mm.zap(cpu, space, ANON.wrapping_add(page * 4096), 1).expect("whole tables"),
            1 => mm.write_protect(cpu, space, ANON.wrapping_add(page * 4096), 1).expect("whole tables"),
            2 => {
                let file = mm.file(CACHED).expect("it is there");
                mm.unmap_mapping(cpu, file, page, 2).expect("whole tables");
            }
            3 => {
                let rights = if page.is_multiple_of(2) { AreaRights::Read } else { AreaRights::ReadWrite };
                mm.mprotect(cpu, SPACE, ANON, PAGES, rights).expect("a whole area");
            }
            4 => {
                if let Some(frame) = self.some_frame() {
                    let _ = mm.swap_out(self.cpu, frame);
                }
            }
            5 => {
                if let Some(frame) = self.some_frame() {
                    let _ = mm.migrate(self.cpu, frame);
                }
            }
            _ => {
                if let Some(frame) = self.some_frame()
                    && let Some(record) = kernel.data.page(self.cpu, frame)
                    && self.cpu.load(record.refcount_word()) > 0
                    && self.cpu.load(record.flags_word()) & FolioFlags::ZERO.bits() == 0
                {
                    self.cpu.fetch_or(record.flags_word(), FolioFlags::MOVABLE.bits());
                }
            }
        }
    }

    fn pin_file(&mut self) {
        let file = self.kernel.mm.file(CACHED).expect("it is there");
        let first = self.random.below(FILE_PAGES);
        let held = &mut self.held;
        // Pages that must stay movable and are held by somebody cannot be had.
        let _ = self.kernel.mm.pin_file(self.cpu, file, (first, 4), |run| held.push(run));
    }

    fn run(&mut self) {
        self.kernel.mm.enter(self.cpu, self.kernel.space(0));
        for _ in 0..ROUNDS {
            match self.random.below(10) {
                0..4 => self.gup(),
                4 => self.device(),
                5 => self.pin_file(),
                6 | 7 => self.give_back(),
                _ => self.disturb(),
            }
            if self.held.len() > 40 {
                self.give_back();
            }
        }
        self.give_back();
    }
}

#[test]
fn every_reference_is_given_back() {
    let kernel = Kernel::build(CPUS, TABLES);
    {
        let cpu = kernel.machine.attach().expect("a free CPU");
        kernel.fill_file(&cpu);
        kernel.mm.mmap(&cpu, SPACE, anonymous(ANON, PAGES, 0)).expect("a good area");
        let area = Area::shared(FILE, PAGES, AreaRights::ReadWrite, CACHED, 0);
        kernel.mm.mmap(&cpu, SPACE, area).expect("a good area");
    }
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let (kernel, done) = (&kernel, &done);
            scope.spawn(move || {
                let cpu = kernel.machine.attach_as(CpuId::new(number)).expect("nobody else has it");
                let random = Random(0x2545_f491_4f6c_dd1d ^ u64::from(number + 1) << 40);
                let word = 8 * u64::from(number + 1);
                Work { kernel, cpu: &cpu, random, held: Vec::new(), word }.run();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(done.load(Ordering::SeqCst), u64::from(CPUS));
    let cpu = kernel.machine.attach().expect("a free CPU");
    kernel.mm.munmap(&cpu, SPACE, ANON, PAGES).expect("whole tables");
    kernel.mm.munmap(&cpu, SPACE, FILE, PAGES).expect("whole tables");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}
