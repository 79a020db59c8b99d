//! A driver whose fault handler names a frame that it must not, at every level: the fault fails and says why, nothing is mapped or counted, and the next fault is
//! resolved as if nothing had been.

use std::sync::atomic::Ordering;

use crate::card::{Leaves, Machine, SPACE, STOLEN, VRAM, VRAM_PAGES};
use hosted::ThreadCpu;
use machine::user::FaultCause;
use machine::{Access, Frame, PageFault, VirtAddr, Word};
use mm::{FaultError, FolioFlags, InsertError, MemoryMap, PfnLeaf};
use pagetable::Level;
use ttm::{Handle, Kind, Usage};

/// On a boundary of 1 GiB.
const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
/// No memory is there.
const NOWHERE: Frame = Frame::new(1 << 36);
const LEVELS: [(Level, Kind); 3] = [(Level::Pte, VRAM), (Level::Pmd, VRAM), (Level::Pud, STOLEN)];

/// An object that a leaf of one level maps, with 7 in its first word.
struct Scene {
    machine: Machine,
    cpu: ThreadCpu,
    object: Handle,
    level: Level,
    kind: Kind,
}

impl Scene {
    fn new((level, kind): (Level, Kind)) -> Self {
        let machine = Machine::build(1, &[level.frames(), VRAM_PAGES], 4 * 512);
        let cpu = machine.threads.attach().expect("a free CPU");
        machine.mm.enter(&cpu, machine.space());
        let object = machine.device.create(&cpu, level.frames()).expect("a free slot");
        machine.place(&cpu, &object, kind).expect("an empty card");
        machine.map(&cpu, &object, AT, level.frames());
        let scene = Self { machine, cpu, object, level, kind };
        let store = |word: &machine::Word64| word.atomic_store(7, Ordering::SeqCst);
        scene.machine.access(&scene.cpu, AT, Access::Write, &mut Leaves::new(), store).expect("it is mapped");
        assert_eq!(scene.mapped(), Some((kind, level)));
        scene
    }

    fn mapped(&self) -> Option<(Kind, Level)> {
        self.machine.leaf_at(&self.cpu, AT)
    }

    /// The object is mapped nowhere: the next access faults.
    fn revoke(&self) {
        self.machine.mm.zap(&self.cpu, self.machine.space(), AT, self.level.frames()).expect("whole tables");
        assert_eq!(self.mapped(), None);
    }

    /// A fault that the driver resolves with a leaf for this frame.
    fn answered(&self, level: Level, frame: Frame) -> Result<(), FaultError> {
        self.machine.card.answer_faults(Some(Box::new(move |_| PfnLeaf::new(level, frame))));
        let fault = PageFault { address: AT, access: Access::Write, cause: FaultCause::NotPresent };
        let result = self.machine.mm.handle_fault(&self.cpu, self.machine.space(), fault);
        self.machine.card.answer_faults(None);
        result
    }

    /// References, pins and mappings of a folio with a record.
    fn counts(&self, frame: Frame) -> Option<[u32; 3]> {
        let page = self.machine.data.page(&self.cpu, frame)?;
        let words = [page.refcount_word(), page.pincount_word(), page.mapcount_word()];
        Some(words.map(|word| word.atomic_load(Ordering::SeqCst)))
    }

    /// The driver names this frame, and is told why not.
    fn is_refused(&self, frame: Frame, is_why: impl FnOnce(InsertError) -> bool) {
        self.revoke();
        let before = (self.counts(frame), self.machine.data.in_use());
        let result = self.answered(self.level, frame);
        assert!(matches!(result, Err(FaultError::Driver(error)) if is_why(error)), "{:?}: {result:?}", self.level);
        assert_eq!(self.mapped(), None, "{:?}: {result:?}", self.level);
        assert_eq!((self.counts(frame), self.machine.data.in_use()), before);
        self.is_whole();
    }

    /// The object is found by the next fault, with its contents.
    fn is_whole(&self) {
        let load = |word: &machine::Word64| word.atomic_load(Ordering::SeqCst);
        let found = self.machine.access(&self.cpu, AT, Access::Read, &mut Leaves::new(), load);
        assert_eq!((found, self.mapped()), (Ok(7), Some((self.kind, self.level))));
        // The handler let go of the object: it moves, if it is small enough.
        if self.level < Level::Pud {
            for kind in [Kind::SYSTEM, self.kind] {
                self.machine.place(&self.cpu, &self.object, kind).expect("there is room");
            }
            let found = self.machine.access(&self.cpu, AT, Access::Read, &mut Leaves::new(), load);
            assert_eq!(found, Ok(7));
        }
    }

    fn end(self) {
        let (machine, cpu) = (&self.machine, &self.cpu);
        machine.mm.munmap(cpu, SPACE, AT, self.level.frames()).expect("it is mapped");
        let reserved = machine.device.reserve_alone(cpu, &self.object).expect("it exists");
        machine.device.wait(&reserved, Usage::Kernel);
        reserved.unlock();
        machine.device.put(cpu, self.object).expect("the last handle");
        machine.device.reap(cpu);
        let used: Vec<u64> = machine.device.kinds().iter().map(|kind| kind.used(cpu)).collect();
        assert_eq!((machine.system_frames_in_use(), used), (0, vec![0; 4]));
    }
}

#[test]
fn frames_that_no_such_leaf_can_begin_at() {
    for (level, kind) in LEVELS {
        let scene = Scene::new((level, kind));
        let bad = |frame| move |error| error == InsertError::BadFrame { frame, level };
        // No x86 has more bits of a physical address.
        let beyond = Frame::new(1 << 40);
        scene.is_refused(beyond, bad(beyond));
        if level > Level::Pte {
            let askew = scene.machine.vram().wrapping_add(level.frames() / 2);
            scene.is_refused(askew, bad(askew));
        }
        scene.end();
    }
}

#[test]
fn frames_of_page_tables() {
    for (level, kind) in LEVELS {
        let scene = Scene::new((level, kind));
        let tables = scene.machine.first_table();
        let frame = Frame::new(tables.number() & !(level.frames() - 1));
        scene.is_refused(frame, |error| error == InsertError::TableFrame { frame });
        scene.end();
    }
}

#[test]
fn frames_that_the_file_did_not_declare() {
    for (level, kind) in LEVELS {
        let scene = Scene::new((level, kind));
        scene.is_refused(NOWHERE, |error| error == InsertError::OutsideDeclared { frame: NOWHERE });
        scene.end();
    }
}

#[test]
fn frames_of_somebody_else() {
    for (level, kind) in LEVELS {
        let scene = Scene::new((level, kind));
        let data = scene.machine.data;
        // A leaf of 1 GiB would cover all memory of the system, much of it free.
        let order = if level == Level::Pud { 0 } else { level.frames().ilog2() as u8 };
        let mine = scene.machine.mm.allocate_folio(&scene.cpu, order).expect("so much is free");
        let frame = Frame::new(mine.number() & !(level.frames() - 1));
        let foreign = |error| matches!(error, InsertError::Foreign { frame: found } if (frame..frame.wrapping_add(level.frames())).contains(&found));
        let page = data.page(&scene.cpu, mine).expect("a frame with a record");
        for flag in [FolioFlags::ANON, FolioFlags::TRUNCATED, FolioFlags::POISONED] {
            page.flags_word().atomic_fetch_or(flag.bits());
            scene.is_refused(frame, foreign);
            page.flags_word().atomic_fetch_and(!flag.bits());
        }
        scene.machine.mm.free_folio(&scene.cpu, mine).expect("it is ours");
        scene.is_refused(frame, foreign);
        scene.end();
    }
}

#[test]
fn a_place_that_something_else_is_in() {
    for (level, kind) in LEVELS {
        let scene = Scene::new((level, kind));
        // The card's own memory, but not the object's. There is one frame of 1 GiB only, but smaller ones are not put into its place either.
        let answer = level.min(Level::Pmd);
        let result = scene.answered(answer, scene.machine.vram().wrapping_add(VRAM_PAGES - answer.frames()));
        let is_occupied = matches!(result, Err(FaultError::Driver(InsertError::Occupied { address: AT, .. })));
        assert!(is_occupied, "{level}: {result:?}");
        assert_eq!(scene.mapped(), Some((kind, level)), "what was there is there");
        scene.is_whole();
        scene.end();
    }
}
