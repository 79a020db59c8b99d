//! Random merges among everything else, compared with a model that knows contents and nothing of pages.

use hosted::ThreadCpu;
use machine::Access;
use mm::{Area, AreaRights, FaultError, Foll, MergeError, MergeInto, Run, SpaceId, Unmergeable};
use proptest::prelude::*;

use super::{AT, EXCLUSIVE, KSM, ONE, TABLES, TWO, audit, page};
use crate::memory::{CACHED, Kernel, anonymous};

const PARENT: u16 = 0;
const CHILD: u16 = 1;
const PAGES: u64 = 6;
/// How many of them are a file's until they are written; the others are zeros.
const COPIES: u64 = 2;

#[derive(Clone, Debug)]
enum Op {
    Store { space: u16, page: u64, word: u64 },
    Load { space: u16, page: u64 },
    Merge { into: (u16, u64), from: (u16, u64) },
    MergeZeros { from: (u16, u64) },
    Unmerge { space: u16, start: u64, pages: u64 },
    Pin { page: u64, flags: u8 },
    Device { which: usize, word: u64 },
    Release { which: usize },
    Protect { page: u64, rights: u8 },
    Zap { page: u64 },
    SwapOut { page: u64 },
    Migrate { page: u64 },
    Fork,
    Exit,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let page = || 0..PAGES;
    // Few different words, so that many pages are equal.
    let word = || 0..3_u64;
    let place = || (prop_oneof![2 => Just(PARENT), 1 => Just(CHILD)], 0..PAGES);
    let op = prop_oneof![
        8 => (place(), word()).prop_map(|((space, page), word)| Op::Store { space, page, word }),
        4 => place().prop_map(|(space, page)| Op::Load { space, page }),
        16 => (place(), place()).prop_map(|(into, from)| Op::Merge { into, from }),
        6 => place().prop_map(|from| Op::MergeZeros { from }),
        1 => (place(), page()).prop_map(|((space, start), pages)| Op::Unmerge { space, start, pages }),
        3 => (page(), 0..4_u8).prop_map(|(page, flags)| Op::Pin { page, flags }),
        3 => (0..4_usize, word()).prop_map(|(which, word)| Op::Device { which, word }),
        3 => (0..4_usize).prop_map(|which| Op::Release { which }),
        2 => (page(), 0..5_u8).prop_map(|(page, rights)| Op::Protect { page, rights }),
        1 => page().prop_map(|page| Op::Zap { page }),
        1 => page().prop_map(|page| Op::SwapOut { page }),
        1 => page().prop_map(|page| Op::Migrate { page }),
        1 => Just(Op::Fork),
        1 => Just(Op::Exit),
    ];
    prop::collection::vec(op, 1..60)
}

/// What a page holds: its first word, and all the others.
type Contents = (u64, u64);

struct Held {
    run: Run,
    /// The page that it is, for as long as it is the parent's memory.
    page: Option<u64>,
    /// Whether a device may write to it.
    writes: bool,
}

struct Test<'k> {
    kernel: &'k Kernel,
    cpu: &'k ThreadCpu,
    parent: [Contents; PAGES as usize],
    child: Option<[Contents; PAGES as usize]>,
    rights: [AreaRights; PAGES as usize],
    held: Vec<Held>,
}

const fn untouched(page: u64) -> Contents {
    if page < COPIES { (page, page) } else { (0, 0) }
}

impl Test<'_> {
    fn of(&mut self, space: u16) -> Option<&mut [Contents; PAGES as usize]> {
        if space == CHILD { self.child.as_mut() } else { Some(&mut self.parent) }
    }

    fn step(&mut self, op: &Op) {
        let Self { kernel, cpu, .. } = *self;
        match *op {
            Op::Store { space, page: number, word } => match kernel.store(cpu, space, page(number), word) {
                Ok(()) => self.of(space).expect("it has memory")[number as usize].0 = word,
                Err(FaultError::NoArea { .. }) => assert_eq!((space, self.child), (CHILD, None)),
                Err(error) => {
                    assert!(matches!(error, FaultError::Forbidden { .. }), "{error}");
                    assert!(space == CHILD || self.rights[number as usize] != AreaRights::ReadWrite);
                }
            },
            Op::Load { space, page: number } => {
                let Some(contents) = self.of(space).map(|pages| pages[number as usize]) else { return };
                match kernel.load(cpu, space, page(number)) {
                    Ok(word) => assert_eq!(word, contents.0),
                    Err(error) => assert!(matches!(error, FaultError::Forbidden { .. }), "{error}"),
                }
            }
            Op::Merge { into, from } => self.merge(into, from),
            Op::MergeZeros { from } => self.merge_zeros(from),
            Op::Unmerge { space, start, pages } => {
                let pages = pages.min(PAGES - start);
                kernel.mm.unmerge(cpu, kernel.space(space), page(start), pages).expect("enough frames");
                for number in start..start + pages {
                    let frame = kernel.frame_at(cpu, space, page(number));
                    assert!(frame.is_none_or(|frame| kernel.flags(cpu, frame) & KSM == 0), "page {number}");
                }
            }
            Op::Pin { page: number, flags } => {
                let flag = |bit: u8, flag| if flags >> bit & 1 == 0 { Foll::NONE } else { flag };
                let writes = flags & 1 != 0;
                let (flags, mut got) = (Foll::PIN | flag(0, Foll::WRITE) | flag(1, Foll::LONGTERM), None);
                let _ = kernel.mm.gup(cpu, kernel.space(PARENT), page(number), 1, flags, |run| got = Some(run));
                let Some(run) = got else { return };
                // A file's page that is only looked at is not the parent's own.
                let own = kernel.flags(cpu, run.frame()) & EXCLUSIVE != 0;
                self.held.push(Held { run, page: own.then_some(number), writes });
            }
            Op::Device { which, word } => {
                let Some(held) = self.held.get(which).filter(|held| held.writes) else { return };
                kernel.data.write(held.run.frame(), 0, word);
                if let Some(number) = held.page {
                    self.parent[number as usize].0 = word;
                }
            }
            Op::Release { which } => {
                if which < self.held.len() {
                    kernel.mm.release(cpu, self.held.remove(which).run, Access::Read).expect("held");
                }
            }
            Op::Protect { page: number, rights } => {
                let all = [AreaRights::None, AreaRights::Read, AreaRights::ReadWrite];
                let rights = all[usize::from(rights).min(2)];
                if kernel.mm.mprotect(cpu, ONE, page(number), 1, rights).is_ok() {
                    self.rights[number as usize] = rights;
                }
            }
            Op::Zap { page: number } => {
                kernel.mm.zap(cpu, kernel.space(PARENT), page(number), 1).expect("whole tables");
                self.parent[number as usize] = untouched(number);
                self.held.iter_mut().filter(|held| held.page == Some(number)).for_each(|held| held.page = None);
            }
            Op::SwapOut { page: number } => {
                if let Some(frame) = kernel.frame_at(cpu, PARENT, page(number)) {
                    let _ = kernel.mm.swap_out(cpu, frame);
                }
            }
            Op::Migrate { page: number } => {
                if let Some(frame) = kernel.frame_at(cpu, PARENT, page(number)) {
                    let _ = kernel.mm.migrate(cpu, frame);
                }
            }
            Op::Fork => {
                if self.child.is_none() && kernel.mm.fork(cpu, ONE, TWO).is_ok() {
                    self.child = Some(self.parent);
                }
            }
            Op::Exit => {
                if self.child.take().is_some() {
                    kernel.mm.exit(cpu, TWO).expect("whole tables");
                }
            }
        }
    }

    /// Merges two pages, and says why they may be merged or not.
    fn merge(&mut self, into: (u16, u64), from: (u16, u64)) {
        let place = |(space, number): (u16, u64)| (SpaceId::new(space), page(number));
        let contents =
            |test: &mut Self, (space, number): (u16, u64)| test.of(space).map(|pages| pages[number as usize]);
        let equal = contents(self, into) == contents(self, from);
        let pinned =
            |(space, number): (u16, u64)| space == PARENT && self.held.iter().any(|held| held.page == Some(number));
        match self.kernel.mm.merge(self.cpu, place(into), place(from)) {
            Ok(frame) => {
                assert!(equal && !pinned(into) && !pinned(from), "{into:?}, {from:?}");
                assert_eq!(self.kernel.flags(self.cpu, frame) & (KSM | EXCLUSIVE), KSM);
                for (space, number) in [into, from] {
                    let mapped = self.kernel.frame_at(self.cpu, space, page(number));
                    assert!(mapped.is_none_or(|mapped| mapped == frame), "only PROT_NONE hides it");
                }
            }
            Err(MergeError::From(Unmergeable::Different)) => assert!(!equal, "{into:?}, {from:?}"),
            Err(MergeError::From(Unmergeable::Same)) => assert!(equal, "{into:?}, {from:?}"),
            Err(MergeError::Into(Unmergeable::Pinned)) => assert!(pinned(into), "{into:?}"),
            Err(MergeError::From(Unmergeable::Pinned)) => assert!(pinned(from), "{from:?}"),
            Err(MergeError::Into(why) | MergeError::From(why)) => {
                let is_known = [Unmergeable::NotMapped, Unmergeable::NotAnonymous, Unmergeable::Special].contains(&why);
                assert!(is_known, "{into:?}, {from:?}: {why}");
            }
        }
    }

    /// Puts the zero page in the place of a page, if that holds zeros.
    fn merge_zeros(&mut self, (space, number): (u16, u64)) {
        let zeros = self.of(space).map(|pages| pages[number as usize]) == Some((0, 0));
        let pinned = space == PARENT && self.held.iter().any(|held| held.page == Some(number));
        match self.kernel.mm.merge(self.cpu, MergeInto::ZeroPage, (SpaceId::new(space), page(number))) {
            Ok(frame) => {
                assert!(zeros && !pinned, "{space} {number}");
                let mapped = self.kernel.frame_at(self.cpu, space, page(number));
                assert!(mapped.is_none_or(|mapped| mapped == frame), "only PROT_NONE hides it");
            }
            Err(MergeError::From(Unmergeable::Different)) => assert!(!zeros, "{space} {number}"),
            Err(MergeError::From(Unmergeable::Pinned)) => assert!(pinned, "{space} {number}"),
            Err(error) => {
                let known = [Unmergeable::NotMapped, Unmergeable::NotAnonymous, Unmergeable::Special];
                assert!(known.map(MergeError::From).contains(&error), "{space} {number}: {error}");
            }
        }
    }

    /// What is mapped, and what is pinned, holds what it should; and every count is right.
    fn check(&mut self) {
        let Self { kernel, cpu, .. } = *self;
        for space in [PARENT, CHILD] {
            let Some(pages) = self.of(space).copied() else { continue };
            for (number, contents) in pages.into_iter().enumerate() {
                let frame = kernel.frame_at(cpu, space, page(number as u64));
                let found = frame.map(|frame| (kernel.data.read(frame, 0), kernel.data.read(frame, 8)));
                assert!(found.is_none_or(|found| found == contents), "{space} {number}: {found:?}, not {contents:?}");
            }
        }
        for held in &self.held {
            if let Some(number) = held.page {
                assert_eq!(kernel.data.read(held.run.frame(), 0), self.parent[number as usize].0, "pin of {number}");
            }
        }
        audit(kernel, cpu, self.held.iter().map(|held| &held.run));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merges_change_nothing_that_can_be_seen(ops in ops()) {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.fill_file(&cpu);
        kernel.mm.mmap(&cpu, ONE, Area::private(AT, COPIES, AreaRights::ReadWrite, CACHED, 0)).expect("a good area");
        kernel.mm.mmap(&cpu, ONE, anonymous(page(COPIES), PAGES - COPIES, 0)).expect("a good area");
        let parent = std::array::from_fn(|number| untouched(number as u64));
        let rights = [AreaRights::ReadWrite; PAGES as usize];
        let mut test = Test { kernel: &kernel, cpu: &cpu, parent, child: None, rights, held: Vec::new() };
        for op in &ops {
            test.step(op);
            test.check();
        }
        while !test.held.is_empty() {
            test.step(&Op::Release { which: 0 });
        }
        test.step(&Op::Exit);
        kernel.mm.munmap(&cpu, ONE, AT, PAGES).expect("whole tables");
        kernel.empty_file(&cpu);
        kernel.assert_all_is_back(TABLES);
    }
}
