//! Random GUP, stores, loads, forks and zaps, compared with a model that knows contents and nothing of page tables: how many pages are handed out, what is in
//! them, and that a pin stays the memory of who pinned it. Allocations fail now and then. In the end every frame is back.

use crate::memory::{ANONYMOUS, CACHED, Kernel};
use hosted::ThreadCpu;
use machine::{Access, VirtAddr};
use mm::{Area, AreaRights, FaultError, Foll, GupError, Run, SpaceId};
use proptest::prelude::*;

const AT: u64 = 0x40_001f_c000;
/// Pages of each area: they lie across the end of a table.
const PAGES: usize = 8;
const AREAS: [Kind; 3] = [Kind::Anonymous, Kind::Copied, Kind::Shared];
/// Pages from the beginning of one area to that of the next: between them nothing is mapped.
const STEP: usize = PAGES + 2;
const ALL: usize = AREAS.len() * STEP;
const TABLES: u64 = 64;
const PARENT: SpaceId = SpaceId::new(0);
const CHILD: SpaceId = SpaceId::new(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Anonymous,
    /// A private area of the file.
    Copied,
    /// A shared area of the same pages of the file.
    Shared,
}

#[derive(Clone, Debug)]
enum Op {
    Gup {
        start: usize,
        pages: usize,
        flags: u8,
    },
    Release {
        which: usize,
    },
    Store {
        page: usize,
        child: Whose,
    },
    Load {
        page: usize,
        child: Whose,
    },
    /// The device writes to a page that it has pinned for that.
    Device {
        which: usize,
    },
    Zap {
        start: usize,
        pages: usize,
    },
    Protect {
        area: usize,
        rights: u8,
    },
    Fork,
    Exit,
    /// The next operation meets an allocation that fails.
    Fail {
        number: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Parent,
    Child,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let whose = || prop_oneof![3 => Just(Whose::Parent), 1 => Just(Whose::Child)];
    let op = prop_oneof![
        8 => (0..ALL, 1..6_usize, any::<u8>()).prop_map(|(start, pages, flags)| Op::Gup { start, pages, flags }),
        4 => (0..16_usize).prop_map(|which| Op::Release { which }),
        5 => (0..ALL, whose()).prop_map(|(page, child)| Op::Store { page, child }),
        4 => (0..ALL, whose()).prop_map(|(page, child)| Op::Load { page, child }),
        4 => (0..16_usize).prop_map(|which| Op::Device { which }),
        1 => (0..ALL, 1..6_usize).prop_map(|(start, pages)| Op::Zap { start, pages }),
        1 => (0..AREAS.len(), 0..3_u8).prop_map(|(area, rights)| Op::Protect { area, rights }),
        1 => Just(Op::Fork),
        1 => Just(Op::Exit),
        1 => (1..4_u64).prop_map(|number| Op::Fail { number }),
    ];
    prop::collection::vec(op, 1..80)
}

fn flags_of(bits: u8) -> Foll {
    let flag = |bit: u8, flag| if bits >> bit & 1 == 0 { Foll::NONE } else { flag };
    let kind = if bits & 1 == 0 { Foll::GET } else { Foll::PIN | flag(1, Foll::LONGTERM) };
    let path = if bits >> 6 == 3 { Foll::NOFAULT } else { flag(6, Foll::FAST_ONLY) };
    kind | flag(2, Foll::WRITE) | flag(3, Foll::FORCE) | path
}

/// What an address space has of its own.
#[derive(Clone, Default)]
struct Own([Option<u64>; ALL]);

struct Held {
    run: Run,
    /// The first page of the run, for each of its pages whether it is still the address space's memory, and what it holds if not.
    first: usize,
    pages: Vec<Page>,
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    /// What the address space sees, now and later.
    Memory,
    /// The file's page, and the address space may have a copy by now.
    File,
    /// A page that nobody else has to do with any more, or may have: not looked at.
    Detached,
}

struct Model {
    rights: [AreaRights; AREAS.len()],
    file: [u64; PAGES],
    parent: Own,
    child: Option<(Own, [AreaRights; AREAS.len()])>,
    next: u64,
}

/// The area of a page, and which of its pages.
fn place(page: usize) -> Option<(usize, usize)> {
    (page % STEP < PAGES).then_some((page / STEP, page % STEP))
}

fn address(page: usize) -> VirtAddr {
    VirtAddr::new(AT + page as u64 * 4096)
}

impl Model {
    fn value(&self, own: &Own, page: usize) -> u64 {
        let (area, within) = place(page).expect("a page of an area");
        match (AREAS[area], own.0[page]) {
            (Kind::Shared, _) | (Kind::Copied, None) => self.file[within],
            (_, Some(own)) => own,
            (Kind::Anonymous, None) => 0,
        }
    }

    fn set(&mut self, whose: Whose, page: usize, value: u64) {
        let (area, within) = place(page).expect("a page of an area");
        match (AREAS[area], whose) {
            (Kind::Shared, _) => self.file[within] = value,
            (_, Whose::Parent) => self.parent.0[page] = Some(value),
            (_, Whose::Child) => self.child.as_mut().expect("there is one").0.0[page] = Some(value),
        }
    }

    fn allows(rights: AreaRights, access: Access) -> bool {
        match access {
            Access::Read => rights != AreaRights::None,
            Access::Write => rights == AreaRights::ReadWrite,
        }
    }

    /// Whether GUP may hand out a page; `None` if that depends on what is mapped.
    fn gup_may(&self, page: usize, flags: Foll) -> Option<bool> {
        let Some((area, _)) = place(page) else { return Some(false) };
        let access = if flags.contains(Foll::WRITE) { Access::Write } else { Access::Read };
        if Self::allows(self.rights[area], access) {
            return Some(true);
        }
        match (flags.contains(Foll::FORCE), access, AREAS[area], self.rights[area]) {
            (false, ..) | (true, Access::Write, Kind::Shared, _) => Some(false),
            (true, Access::Write, _, AreaRights::Read) => Some(true),
            // Only what is there already.
            (true, ..) => None,
        }
    }
}

struct Test<'k> {
    kernel: &'k Kernel,
    cpu: &'k ThreadCpu,
    model: Model,
    held: Vec<Held>,
}

impl Test<'_> {
    fn gup(&mut self, start: usize, pages: usize, flags: Foll, fails: bool) {
        let pages = pages.min(ALL - start);
        let mut runs = Vec::new();
        let got = self.kernel.mm.gup(self.cpu, self.kernel.space(0), address(start), pages as u64, flags, |run| {
            runs.push(run);
        });
        let count = runs.iter().map(|run| run.pages() as usize).sum::<usize>();
        match got {
            Ok(got) => assert_eq!(got, count as u64),
            Err(error) => {
                assert_eq!(count, 0, "{error:?}");
                self.check_error(error, start, flags, fails);
            }
        }
        let partial = fails || flags.contains(Foll::FAST_ONLY) || flags.contains(Foll::NOFAULT);
        let may: Vec<_> = (start..start + pages).map(|page| self.model.gup_may(page, flags)).collect();
        let at_most = may.iter().take_while(|may| **may != Some(false)).count();
        let at_least = may.iter().take_while(|may| **may == Some(true)).count();
        assert!(count <= at_most, "{count} of at most {at_most} pages from {start} on, {flags:?}");
        assert!(partial || count >= at_least, "{count} of at least {at_least} pages from {start} on, {flags:?}");
        let mut page = start;
        for run in runs {
            self.hold(run, &mut page, flags);
        }
    }

    fn check_error(&self, error: GupError, start: usize, flags: Foll, fails: bool) {
        let expected = match error {
            GupError::Fault(FaultError::NoArea { .. }) => place(start).is_none(),
            GupError::Fault(FaultError::Forbidden { .. }) => self.model.gup_may(start, flags) != Some(true),
            GupError::Fault(FaultError::OutOfFrames) => fails,
            GupError::NotMapped { .. } => flags.contains(Foll::NOFAULT),
            _ => false,
        };
        assert!(expected, "{error:?} for page {start}, {flags:?}");
    }

    fn hold(&mut self, run: Run, page: &mut usize, flags: Foll) {
        let first = *page;
        let pin = flags.contains(Foll::PIN);
        let write = flags.contains(Foll::WRITE);
        let mut pages = Vec::new();
        for index in 0..run.pages() as usize {
            let page = first + index;
            let (area, _) = place(page).expect("only areas have pages");
            let frame = run.frame().wrapping_add(index as u64);
            let value = self.model.value(&self.model.parent, page);
            assert_eq!(self.kernel.data.read(frame, 0), value, "page {page}, {flags:?}");
            let makes_own = write || flags.contains(Foll::LONGTERM);
            if makes_own && AREAS[area] != Kind::Shared {
                self.model.parent.0[page] = Some(value);
            }
            pages.push(match AREAS[area] {
                Kind::Shared => Page::Memory,
                _ if self.model.parent.0[page].is_some() && pin => Page::Memory,
                Kind::Copied if self.model.parent.0[page].is_none() => Page::File,
                _ => Page::Detached,
            });
        }
        *page = first + pages.len();
        self.held.push(Held { run, first, pages, write: write && pin });
    }

    /// Every page that is held holds what it should.
    fn check_held(&self) {
        for held in &self.held {
            for (index, kind) in held.pages.iter().enumerate() {
                let page = held.first + index;
                let (_, within) = place(page).expect("only areas have pages");
                let expected = match kind {
                    Page::Memory => self.model.value(&self.model.parent, page),
                    Page::File => self.model.file[within],
                    Page::Detached => continue,
                };
                let frame = held.run.frame().wrapping_add(index as u64);
                assert_eq!(self.kernel.data.read(frame, 0), expected, "page {page}: {kind:?}");
            }
        }
    }

    fn release(&mut self, which: usize) {
        if !self.held.is_empty() {
            let held = self.held.swap_remove(which % self.held.len());
            self.kernel.mm.release(self.cpu, held.run, Access::Read).expect("held");
        }
    }

    fn access(&mut self, page: usize, whose: Whose, access: Access, fails: bool) {
        let (own, rights, space) = match (whose, &self.model.child) {
            (Whose::Parent, _) => (self.model.parent.clone(), self.model.rights, 0),
            (Whose::Child, Some((own, rights))) => (own.clone(), *rights, 1),
            (Whose::Child, None) => return,
        };
        let value = self.model.next;
        self.model.next += 1;
        let at = address(page);
        let got = match access {
            Access::Read => self.kernel.load(self.cpu, space, at),
            Access::Write => self.kernel.store(self.cpu, space, at, value).map(|()| value),
        };
        match got {
            Ok(found) => {
                let (area, _) = place(page).expect("only areas are accessed");
                assert!(Model::allows(rights[area], access));
                match access {
                    Access::Read => assert_eq!(found, self.model.value(&own, page), "page {page} of {whose:?}"),
                    Access::Write => self.model.set(whose, page, value),
                }
            }
            Err(FaultError::NoArea { .. }) => assert_eq!(place(page), None),
            Err(FaultError::Forbidden { .. }) => {
                assert!(!Model::allows(rights[place(page).expect("an area").0], access))
            }
            Err(FaultError::OutOfFrames) => assert!(fails),
            Err(error) => panic!("{error}"),
        }
    }

    fn device(&mut self, which: usize) {
        let writable: Vec<usize> = (0..self.held.len()).filter(|index| self.held[*index].write).collect();
        let Some(index) = (!writable.is_empty()).then(|| writable[which % writable.len()]) else { return };
        let (page, frame, kind) = {
            let held = &self.held[index];
            let within = which % held.pages.len();
            (held.first + within, held.run.frame().wrapping_add(within as u64), held.pages[within])
        };
        let value = self.model.next;
        self.model.next += 1;
        self.kernel.data.write(frame, 0, value);
        if kind == Page::Memory {
            self.model.set(Whose::Parent, page, value);
        }
    }

    fn zap(&mut self, start: usize, pages: usize) {
        let pages = pages.min(ALL - start);
        self.kernel.mm.zap(self.cpu, self.kernel.space(0), address(start), pages as u64).expect("whole tables");
        let gone = |page: usize| {
            (start..start + pages).contains(&page) && place(page).is_some_and(|(area, _)| AREAS[area] != Kind::Shared)
        };
        for page in (0..ALL).filter(|page| gone(*page)) {
            self.model.parent.0[page] = None;
        }
        for held in &mut self.held {
            for (index, kind) in held.pages.iter_mut().enumerate() {
                if *kind == Page::Memory && gone(held.first + index) {
                    *kind = Page::Detached;
                }
            }
        }
    }

    fn protect(&mut self, area: usize, rights: u8) {
        let rights = [AreaRights::None, AreaRights::Read, AreaRights::ReadWrite][usize::from(rights)];
        let start = address(area * STEP);
        if self.kernel.mm.mprotect(self.cpu, PARENT, start, PAGES as u64, rights).is_ok() {
            self.model.rights[area] = rights;
        }
    }

    fn fork(&mut self, fails: bool) {
        if self.model.child.is_none() {
            match self.kernel.mm.fork(self.cpu, PARENT, CHILD) {
                Ok(()) => self.model.child = Some((self.model.parent.clone(), self.model.rights)),
                Err(error) => assert!(fails, "{error:?}"),
            }
        }
    }

    fn exit(&mut self) {
        if self.model.child.take().is_some() {
            self.kernel.mm.exit(self.cpu, CHILD).expect("whole tables");
        }
    }
}

fn run(ops: &[Op]) {
    let (kernel, cpu) = Kernel::alone(TABLES);
    kernel.fill_file(&cpu);
    for (number, kind) in AREAS.into_iter().enumerate() {
        let start = address(number * STEP);
        let pages = PAGES as u64;
        kernel
            .mm
            .mmap(
                &cpu,
                PARENT,
                match kind {
                    Kind::Anonymous => Area::private(start, pages, AreaRights::ReadWrite, ANONYMOUS, 0),
                    Kind::Copied => Area::private(start, pages, AreaRights::ReadWrite, CACHED, 0),
                    Kind::Shared => Area::shared(start, pages, AreaRights::ReadWrite, CACHED, 0),
                },
            )
            .expect("a good area");
    }
    let model = Model {
        rights: [AreaRights::ReadWrite; AREAS.len()],
        file: std::array::from_fn(|page| page as u64),
        parent: Own::default(),
        child: None,
        next: 1000,
    };
    let mut test = Test { kernel: &kernel, cpu: &cpu, model, held: Vec::new() };
    let mut fails = false;
    for op in ops {
        match *op {
            Op::Gup { start, pages, flags } => test.gup(start, pages, flags_of(flags), fails),
            Op::Release { which } => test.release(which),
            Op::Store { page, child } => test.access(page, child, Access::Write, fails),
            Op::Load { page, child } => test.access(page, child, Access::Read, fails),
            Op::Device { which } => test.device(which),
            Op::Zap { start, pages } => test.zap(start, pages),
            Op::Protect { area, rights } => test.protect(area, rights),
            Op::Fork => test.fork(fails),
            Op::Exit => test.exit(),
            Op::Fail { number } => {
                kernel.failures.fail_at(number);
                fails = true;
                continue;
            }
        }
        kernel.failures.fail_at(0);
        fails = false;
        test.check_held();
    }
    while !test.held.is_empty() {
        test.release(0);
    }
    test.exit();
    kernel.mm.munmap(&cpu, PARENT, address(0), ALL as u64).expect("whole tables");
    kernel.empty_file(&cpu);
    kernel.assert_all_is_back(TABLES);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gup_gives_what_the_model_says(ops in ops()) {
        run(&ops);
    }
}
