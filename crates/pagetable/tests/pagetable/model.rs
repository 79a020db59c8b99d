//! The single-owner mapper against a map from pages to leaves, with a page walker that shares no code with it
//! as the judge.

use std::collections::BTreeMap;

use crate::common::{Bare, FIRST, Memory, Outcome, Paging, hardware_walk};
use machine::{Cpu, Frame, PhysAddr, VirtAddr};
use pagetable::{
    Attributes, FiveLevel, Flags, FourLevel, Level, Live, MapError, Mapper, Mode, NeverLoaded, Offline, Ownership, Pae,
    Passed, PhysicalWidth, Rights, Root, TwoStep, WalkError, Whole, Xchg64,
};
use proptest::prelude::*;

const WIDTH: u32 = 46;

#[derive(Clone, Debug)]
enum Action {
    Map {
        page: u64,
        level: Level,
        frame: u64,
        rights: Rights,
    },
    MapRange {
        page: u64,
        pages: u64,
        frame: u64,
        largest: Level,
    },
    Unmap {
        page: u64,
    },
    UnmapRange {
        page: u64,
        pages: u64,
    },
    Protect {
        page: u64,
        rights: Rights,
    },
    ProtectRange {
        page: u64,
        pages: u64,
        rights: Rights,
    },
    /// The hardware uses a page.
    Touch {
        page: u64,
        flags: Flags,
    },
    Harvest {
        page: u64,
        pages: u64,
        flags: Flags,
    },
    Split {
        page: u64,
    },
    Prune {
        page: u64,
        pages: u64,
    },
}

/// Pages near each other, so that actions meet: around two 1 GiB borders, all of them within a 32-bit address space.
fn any_page() -> impl Strategy<Value = u64> {
    let border = prop_oneof![Just(1_u64 << 18), Just(2_u64 << 18)];
    let distance = prop_oneof![0..4_u64, 508..516_u64, 1020..1028_u64];
    (border, distance, any::<bool>()).prop_map(
        |(border, distance, above)| {
            if above { border + distance } else { border - 1 - distance }
        },
    )
}

fn any_rights() -> impl Strategy<Value = Rights> {
    (0..8_u32).prop_map(|bits| {
        [Rights::WRITE, Rights::EXECUTE, Rights::USER]
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 != 0)
            .fold(Rights::READ, |rights, (_, right)| rights.and(right))
    })
}

fn any_flags() -> impl Strategy<Value = Flags> {
    prop_oneof![Just(Flags::ACCESSED), Just(Flags::DIRTY), Just(Flags::ACCESSED_DIRTY)]
}

fn any_level() -> impl Strategy<Value = Level> {
    prop_oneof![3 => Just(Level::Pte), 2 => Just(Level::Pmd), 1 => Just(Level::Pud)]
}

fn any_action() -> impl Strategy<Value = Action> {
    let length = || prop_oneof![1..6_u64, 500..530_u64, Just(512), Just(1536)];
    let frame = prop_oneof![Just(0x20_0000_u64), 0x10_0000..0x10_0600_u64];
    prop_oneof![
        3 => (any_page(), any_level(), frame.clone(), any_rights()).prop_map(|(page, level, frame, rights)| {
            // Mostly aligned, so that it often succeeds.
            let mask = level.frames() - 1;
            let keep = if frame & 7 == 7 { u64::MAX } else { !mask };
            Action::Map { page: page & keep, level, frame: frame & keep, rights }
        }),
        2 => (any_page(), length(), frame, any_level())
            .prop_map(|(page, pages, frame, largest)| {
                // Often with the alignment of the address, so that huge leaves are possible.
                Action::MapRange { page, pages, frame: frame + (page & 511), largest }
            }),
        2 => any_page().prop_map(|page| Action::Unmap { page }),
        2 => (any_page(), length()).prop_map(|(page, pages)| Action::UnmapRange { page, pages }),
        1 => (any_page(), any_rights()).prop_map(|(page, rights)| Action::Protect { page, rights }),
        1 => (any_page(), length(), any_rights())
            .prop_map(|(page, pages, rights)| Action::ProtectRange { page, pages, rights }),
        3 => (any_page(), any_flags()).prop_map(|(page, flags)| Action::Touch { page, flags }),
        1 => (any_page(), length(), any_flags()).prop_map(|(page, pages, flags)| Action::Harvest { page, pages, flags }),
        1 => any_page().prop_map(|page| Action::Split { page }),
        1 => (any_page(), length()).prop_map(|(page, pages)| Action::Prune { page, pages }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leaf {
    level: Level,
    frame: u64,
    rights: Rights,
    accessed: bool,
    dirty: bool,
}

/// First page of each leaf -> the leaf.
#[derive(Default)]
struct Model(BTreeMap<u64, Leaf>);

impl Model {
    fn leaf_at(&self, page: u64) -> Option<(u64, Leaf)> {
        let (&first, &leaf) = self.0.range(..=page).next_back()?;
        (page < first + leaf.level.frames()).then_some((first, leaf))
    }

    fn is_free(&self, page: u64, pages: u64) -> bool {
        self.leaf_at(page).is_none() && self.0.range(page..page + pages).next().is_none()
    }

    /// Leaves that touch the range; `Err` if one of them sticks out.
    fn leaves(&self, page: u64, pages: u64) -> (Vec<(u64, Leaf)>, bool) {
        let mut found = Vec::new();
        let mut at = page;
        while at < page + pages {
            match self.leaf_at(at) {
                Some((first, leaf)) => {
                    if first < page || first + leaf.level.frames() > page + pages {
                        return (found, true);
                    }
                    found.push((first, leaf));
                    at = first + leaf.level.frames();
                }
                None => at += 1,
            }
        }
        (found, false)
    }
}

struct Check<'m, M, O> {
    memory: &'m Memory,
    mode: M,
    owner: O,
    paging: Paging,
    has_huge_pud: bool,
    root: Root,
    model: Model,
}

fn address(page: u64) -> VirtAddr {
    VirtAddr::new(page << 12)
}

fn leaf_of(passed: Passed) -> (u64, Leaf) {
    let Passed { address, level, entry } = passed;
    let leaf = Leaf {
        level,
        frame: entry.leaf_frame(level).number(),
        rights: entry.rights(),
        accessed: entry.has(Flags::ACCESSED),
        dirty: entry.has(Flags::DIRTY),
    };
    (address.as_u64() >> 12, leaf)
}

impl<M: Mode, O: Ownership + Copy> Check<'_, M, O> {
    fn run(&mut self, action: &Action) {
        let arena = self.memory.arena();
        let mut mapper = Mapper::new(&Bare, self.mode, &arena, self.root, self.owner);
        let model = &mut self.model;
        match *action {
            Action::Map { page, level, frame, rights } => {
                let result = mapper.map(self.memory, address(page), level, Frame::new(frame), Attributes::new(rights));
                let aligned = (page | frame) & (level.frames() - 1) == 0;
                let exists = level != Level::Pud || self.has_huge_pud;
                // A table, even an empty one, is in the way of a huge leaf.
                let blocked_by_table = matches!(
                    result,
                    Err(MapError::AlreadyMapped { entry, level: at, .. })
                        if at == level && entry.is_present() && !entry.is_leaf(at)
                );
                if aligned && exists && model.is_free(page, level.frames()) && !blocked_by_table {
                    assert_eq!(result, Ok(()));
                    model.0.insert(page, Leaf { level, frame, rights, accessed: false, dirty: false });
                } else {
                    assert!(result.is_err(), "{action:?}");
                }
            }
            Action::MapRange { page, pages, frame, largest } => {
                let largest = if self.has_huge_pud { largest } else { largest.min(Level::Pmd) };
                let range = (address(page), pages << 12);
                let attributes = Attributes::new(Rights::USER);
                let result = mapper.map_range(self.memory, range, Frame::new(frame), largest, attributes);
                let mapped = match result {
                    Ok(()) => pages,
                    Err(MapError::AlreadyMapped { address, .. }) => (address.as_u64() >> 12) - page,
                    Err(error) => panic!("{action:?}: {error}"),
                };
                if result.is_ok() {
                    assert!(model.is_free(page, pages));
                }
                let mut at = page;
                while at < page + mapped {
                    // Whatever sizes were chosen, what the addresses translate to is fixed; the sizes are read back.
                    let level = mapper.translate(address(at)).expect("it was mapped").level;
                    assert!(level <= largest && at & (level.frames() - 1) == 0);
                    assert!(model.is_free(at, level.frames()), "{action:?} mapped over something at {at:#x}");
                    let leaf =
                        Leaf { level, frame: frame + (at - page), rights: Rights::USER, accessed: false, dirty: false };
                    model.0.insert(at, leaf);
                    at += level.frames();
                }
                assert_eq!(at, page + mapped);
            }
            Action::Unmap { page } => match (mapper.unmap(address(page)), model.leaf_at(page)) {
                (Ok(unmapped), Some((first, leaf))) => {
                    let passed = Passed { address: address(first), level: unmapped.level, entry: unmapped.entry };
                    assert_eq!(leaf_of(passed), (first, leaf));
                    model.0.remove(&first);
                }
                (Err(WalkError::NotPresent { .. }), None) => {}
                (found, expected) => panic!("{action:?}: {found:?}, expected {expected:?}"),
            },
            Action::UnmapRange { page, pages } => {
                let mut gathered = Vec::new();
                let result = mapper.unmap_range((address(page), pages << 12), |passed| gathered.push(leaf_of(passed)));
                let (expected, sticks_out) = model.leaves(page, pages);
                assert_eq!(gathered, expected);
                assert_eq!(result.is_err(), sticks_out, "{action:?}: {result:?}");
                for (first, _) in expected {
                    model.0.remove(&first);
                }
            }
            Action::Protect { page, rights } => match (mapper.protect(address(page), rights), model.leaf_at(page)) {
                (Ok(before), Some((first, leaf))) => {
                    let passed = Passed { address: address(first), level: before.level, entry: before.entry };
                    assert_eq!(leaf_of(passed), (first, leaf));
                    model.0.insert(first, Leaf { rights, ..leaf });
                }
                (Err(WalkError::NotPresent { .. }), None) => {}
                (found, expected) => panic!("{action:?}: {found:?}, expected {expected:?}"),
            },
            Action::ProtectRange { page, pages, rights } => {
                let mut passed = Vec::new();
                let range = (address(page), pages << 12);
                let result = mapper.protect_range(range, rights, |leaf| passed.push(leaf_of(leaf)));
                let (expected, sticks_out) = model.leaves(page, pages);
                assert_eq!(passed, expected);
                assert_eq!(result.is_err(), sticks_out, "{action:?}: {result:?}");
                for (first, leaf) in expected {
                    model.0.insert(first, Leaf { rights, ..leaf });
                }
            }
            Action::Touch { page, flags } => {
                if let Some((first, leaf)) = model.leaf_at(page) {
                    self.memory.touch(self.paging, self.root.address().as_u64(), page << 12, flags.bits());
                    let (accessed, dirty) = (flags != Flags::DIRTY, flags != Flags::ACCESSED);
                    let leaf = Leaf { accessed: leaf.accessed | accessed, dirty: leaf.dirty | dirty, ..leaf };
                    model.0.insert(first, leaf);
                }
            }
            Action::Harvest { page, pages, flags } => {
                let mut harvested = Vec::new();
                let range = (address(page), pages << 12);
                let result = mapper.harvest(range, flags, |leaf| harvested.push(leaf_of(leaf)));
                let (all, sticks_out) = model.leaves(page, pages);
                let (accessed, dirty) = (flags != Flags::DIRTY, flags != Flags::ACCESSED);
                let expected: Vec<_> =
                    all.into_iter().filter(|(_, leaf)| leaf.accessed & accessed | leaf.dirty & dirty).collect();
                assert_eq!(harvested, expected);
                assert_eq!(result.is_err(), sticks_out, "{action:?}: {result:?}");
                for (first, leaf) in expected {
                    let leaf = Leaf { accessed: leaf.accessed & !accessed, dirty: leaf.dirty & !dirty, ..leaf };
                    model.0.insert(first, leaf);
                }
            }
            Action::Split { page } => {
                let mut mapper = Mapper::new(&Bare, self.mode, &arena, self.root, Offline);
                let result = mapper.split(self.memory, address(page));
                match model.leaf_at(page) {
                    Some((first, leaf)) if leaf.level > Level::Pte => {
                        assert_eq!(result, Ok(()));
                        model.0.remove(&first);
                        let level = leaf.level.lower().unwrap();
                        for index in 0..512 {
                            let offset = index * level.frames();
                            model.0.insert(first + offset, Leaf { level, frame: leaf.frame + offset, ..leaf });
                        }
                    }
                    _ => assert!(result.is_err()),
                }
            }
            Action::Prune { page, pages } => {
                let mut detached = Vec::new();
                mapper.prune((address(page), pages << 12), |table| detached.push(table)).unwrap();
                for table in detached {
                    let meta = self.memory.meta(table.frame().number());
                    assert_eq!(Bare.load(&meta.children), 0);
                    table.after_flush(&NeverLoaded).free(&Bare, self.memory);
                }
            }
        }
    }

    /// Every page that the model knows of, and its neighbours, against the independent walker.
    fn compare(&self) {
        let root = self.root.address().as_u64();
        let arena = self.memory.arena();
        let mapper = Mapper::new(&Bare, self.mode, &arena, self.root, self.owner);
        for (&first, leaf) in &self.model.0 {
            let last = first + leaf.level.frames() - 1;
            for page in [first.saturating_sub(1), first, (first + last) / 2, last, last + 1] {
                let walked = hardware_walk(self.memory, self.paging, WIDTH, root, page << 12 | 0x123);
                let ours = mapper.translate(VirtAddr::new(page << 12 | 0x123));
                match self.model.leaf_at(page) {
                    Some((first, leaf)) => {
                        let frame = leaf.frame + (page - first);
                        assert_eq!(walked, Outcome::Page(frame << 12 | 0x123), "page {page:#x}");
                        let found = ours.unwrap();
                        assert_eq!((found.frame.number(), found.level), (frame, leaf.level));
                        assert_eq!(found.entry.rights(), leaf.rights);
                        assert_eq!(found.entry.has(Flags::ACCESSED), leaf.accessed);
                        assert_eq!(found.entry.has(Flags::DIRTY), leaf.dirty);
                    }
                    None => {
                        assert_eq!(walked, Outcome::NotPresent, "page {page:#x}");
                        assert!(matches!(ours, Err(WalkError::NotPresent { .. })));
                    }
                }
            }
        }
        self.memory.check_counts(self.paging, root);
    }

    /// Everything unmapped and pruned: every table must be back.
    fn tear_down(&mut self, frames: usize) {
        let everything = (VirtAddr::new(0), 1 << 32);
        let arena = self.memory.arena();
        let mut mapper = Mapper::new(&Bare, self.mode, &arena, self.root, self.owner);
        let mut left = std::mem::take(&mut self.model.0);
        mapper
            .unmap_range(everything, |passed| {
                let (first, leaf) = leaf_of(passed);
                assert_eq!(left.remove(&first), Some(leaf));
            })
            .unwrap();
        assert!(left.is_empty());
        let mut pud_tables = 0;
        mapper.prune(everything, |table| table.after_flush(&NeverLoaded).free(&Bare, self.memory)).unwrap();
        if self.paging == Paging::Pae {
            pud_tables =
                (0..4).filter(|index| self.memory.peek(self.root.address().as_u64() + 8 * index) != Some(0)).count();
        }
        assert_eq!(self.memory.frames_left() + pud_tables, frames);
    }
}

fn check<M: Mode, O: Ownership + Copy>(mode: M, owner: O, paging: Paging, actions: &[Action]) {
    let memory = Memory::new(64);
    let frames = memory.frames_left();
    let offset = if paging == Paging::Pae { 0x20 } else { 0 };
    let root = Root::new(&mode, PhysAddr::new((FIRST << 12) + offset)).unwrap();
    let has_huge_pud = paging != Paging::Pae;
    let mut check = Check { memory: &memory, mode, owner, paging, has_huge_pud, root, model: Model::default() };
    for action in actions {
        check.run(action);
        check.compare();
    }
    check.tear_down(frames);
}

fn width() -> PhysicalWidth {
    PhysicalWidth::new(WIDTH).unwrap()
}

/// Miri is slow: it sees a few, for what it looks at that is enough.
const CASES: u32 = if cfg!(miri) { 2 } else { 128 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn four_levels_offline(actions in prop::collection::vec(any_action(), 1..24)) {
        check(FourLevel::new(width()), Offline, Paging::Four, &actions);
    }

    #[test]
    fn four_levels_live(actions in prop::collection::vec(any_action(), 1..24)) {
        check(FourLevel::new(width()), Live(Whole), Paging::Four, &actions);
    }

    #[test]
    fn five_levels_live(actions in prop::collection::vec(any_action(), 1..16)) {
        check(FiveLevel::new(width()), Live(Whole), Paging::Five, &actions);
    }

    #[test]
    fn pae_offline(actions in prop::collection::vec(any_action(), 1..24)) {
        check(Pae::new(width()), Offline, Paging::Pae, &actions);
    }

    #[test]
    fn pae_live_in_two_steps(actions in prop::collection::vec(any_action(), 1..24)) {
        check(Pae::new(width()), Live(TwoStep), Paging::Pae, &actions);
    }

    #[test]
    fn pae_live_with_atomic_writers(actions in prop::collection::vec(any_action(), 1..16)) {
        check(Pae::new(width()), Live(Xchg64), Paging::Pae, &actions);
    }
}

#[test]
fn an_empty_pool_is_an_error_and_leaves_no_harm() {
    let memory = Memory::new(3);
    let mode = FourLevel::new(width());
    let arena = memory.arena();
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, Offline);
    let attributes = Attributes::new(Rights::USER);
    let page = VirtAddr::new(0x1000);
    let refused = mapper.map(&memory, page, Level::Pte, Frame::new(1), attributes);
    assert_eq!(refused, Err(MapError::OutOfFrames { address: page, level: Level::Pmd }));
    assert_eq!(memory.frames_left(), 0);
    mapper.prune((page, 0x1000), |table| table.after_flush(&NeverLoaded).free(&Bare, &memory)).unwrap();
    assert_eq!(memory.frames_left(), 2);
    memory.check_counts(Paging::Four, root.address().as_u64());
}

#[test]
fn frames_and_attributes_that_the_machine_cannot_have_are_refused() {
    let memory = Memory::new(8);
    let mode = Pae::new(width());
    let arena = memory.arena();
    let root = Root::new(&mode, memory.root_address()).unwrap();
    let mut mapper = Mapper::new(&Bare, mode, &arena, root, Offline);
    let user = Attributes::new(Rights::USER);
    let page = VirtAddr::new(0x20_0000);
    let wide = Frame::new(1 << (WIDTH - 12));
    assert_eq!(mapper.map(&memory, page, Level::Pte, wide, user), Err(MapError::TooWide { frame: wide, width: WIDTH }));
    // A range whose last page would be too wide maps nothing of that table.
    let range = (page, 0x4000);
    let first = Frame::new(wide.number() - 2);
    assert!(matches!(mapper.map_range(&memory, range, first, Level::Pte, user), Err(MapError::TooWide { .. })));
    assert!(mapper.translate(page).is_err());
    // Bit 58 is software's on x86-64 and reserved on PAE.
    let high = user.with_mark(pagetable::software::SpecialBit::mark(&pagetable::software::Softw5));
    let refused = mapper.map(&memory, page, Level::Pte, Frame::new(1), high);
    assert!(matches!(refused, Err(MapError::Walk(WalkError::Malformed(found))) if found.reserved == 1 << 58));
    assert!(matches!(mapper.map(&memory, page, Level::Pud, Frame::new(0), user), Err(MapError::Walk(_))));
    assert!(matches!(
        mapper.map(&memory, VirtAddr::new(0), Level::P4d, Frame::new(0), user),
        Err(MapError::BadLeaf(_))
    ));
    memory.check_counts(Paging::Pae, root.address().as_u64());
}
