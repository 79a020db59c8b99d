//! Random changes of keys and rights among everything that moves pages: every leaf has the key of its page, and who is kept out is told by arithmetic.

use std::ops::{ControlFlow, Range};

use hosted::ThreadCpu;
use machine::{Access, Pkru, ProtectionKey, ProtectionKeys, VirtAddr};
use mm::{Area, AreaError, AreaRights, FaultError, Foll, GupError, SpaceId};
use pagetable::ptdump::What;
use proptest::prelude::*;

use super::{AT, ONE, TABLES, TWO, end, give_keys, gup, gup_remote, key, page};
use crate::memory::{CACHED, FILE_PAGES, Kernel, anonymous};

/// Anonymous memory in which huge pages fit, and pages of a file behind it.
const ANONYMOUS_PAGES: u64 = 1024;
const PAGES: u64 = ANONYMOUS_PAGES + FILE_PAGES;
/// Keys that are given out.
const LAST_KEY: u8 = 4;

#[derive(Clone, Debug)]
enum Op {
    Protect(Range<u64>, AreaRights, Option<u8>),
    /// Under this PKRU.
    Access(u64, Access, u32),
    Gup(u64, Access, u32),
    Migrate(u64),
    SwapOut(u64),
    Collapse(u64),
    SplitLeaf(u64),
    SplitFolio(u64),
    Zap(Range<u64>),
    Merge(u64, u64),
    Unmerge(Range<u64>),
    ForkAndExit,
}

fn ranges() -> impl Strategy<Value = Range<u64>> {
    // Near the edges of huge leaves, and whole ones.
    let first = prop_oneof![0..8_u64, 508..516_u64, 1020..PAGES];
    let count = prop_oneof![4 => 1..8_u64, 1 => Just(512)];
    (first, count).prop_map(|(first, count)| first..(first + count).min(PAGES))
}

fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![0..8_u64, 508..516_u64, 1020..PAGES]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write)]
}

fn pkru() -> impl Strategy<Value = u32> {
    // Of the keys that are in use, key 0 among them.
    0..1_u32 << (2 * (LAST_KEY + 1))
}

fn op() -> impl Strategy<Value = Op> {
    let rights =
        prop_oneof![1 => Just(AreaRights::None), 2 => Just(AreaRights::Read), 4 => Just(AreaRights::ReadWrite)];
    let key = prop_oneof![1 => Just(None), 4 => (0..=LAST_KEY).prop_map(Some)];
    prop_oneof![
        6 => (ranges(), rights, key).prop_map(|(range, rights, key)| Op::Protect(range, rights, key)),
        8 => (pages(), access(), prop_oneof![Just(0), pkru()]).prop_map(|(page, access, pkru)| Op::Access(page, access, pkru)),
        4 => (pages(), access(), pkru()).prop_map(|(page, access, pkru)| Op::Gup(page, access, pkru)),
        2 => pages().prop_map(Op::Migrate),
        2 => pages().prop_map(Op::SwapOut),
        2 => pages().prop_map(Op::Collapse),
        1 => pages().prop_map(Op::SplitLeaf),
        1 => pages().prop_map(Op::SplitFolio),
        1 => ranges().prop_map(Op::Zap),
        2 => (pages(), pages()).prop_map(|(into, from)| Op::Merge(into, from)),
        1 => ranges().prop_map(Op::Unmerge),
        1 => Just(Op::ForkAndExit),
    ]
}

struct World {
    kernel: Kernel,
    cpu: ThreadCpu,
    /// What each page has.
    pages: Vec<(AreaRights, ProtectionKey)>,
}

impl World {
    fn new() -> Self {
        let (kernel, cpu) = Kernel::alone(TABLES);
        kernel.fill_file(&cpu);
        give_keys(&kernel, &cpu, LAST_KEY);
        kernel.mm.mmap(&cpu, ONE, anonymous(AT, ANONYMOUS_PAGES, 0).with_huge_pages()).expect("a good area");
        let file = Area::shared(page(ANONYMOUS_PAGES), FILE_PAGES, AreaRights::ReadWrite, CACHED, 0);
        kernel.mm.mmap(&cpu, ONE, file).expect("a good area");
        let pages = vec![(AreaRights::ReadWrite, ProtectionKey::DEFAULT); PAGES as usize];
        Self { kernel, cpu, pages }
    }

    /// What an access of the thread comes to; rights are asked after keys by the hardware and by faults.
    fn forbidden(&self, number: u64, access: Access, pkru: Pkru) -> (bool, bool) {
        let (rights, key) = self.pages[number as usize];
        let bits = pkru.bits() >> (2 * key.number()) & 3;
        let by_key = bits & 1 != 0 || access == Access::Write && bits & 2 != 0;
        (by_key, !rights.allow(access))
    }

    fn frame(&self, number: u64) -> Option<machine::Frame> {
        self.kernel.frame_at(&self.cpu, 0, page(number))
    }

    fn run(&mut self, op: Op) {
        let Self { kernel, cpu, .. } = self;
        let (mm, space) = (kernel.mm, kernel.space(0));
        match op {
            Op::Protect(range, rights, number) => {
                let (start, count) = (page(range.start), range.end - range.start);
                let changed = match number {
                    None => mm.mprotect(cpu, ONE, start, count, rights),
                    Some(number) => mm.pkey_mprotect(cpu, ONE, start, count, rights, key(number)),
                };
                match changed {
                    Ok(()) => {
                        for of_page in &mut self.pages[range.start as usize..range.end as usize] {
                            *of_page = (rights, number.map_or(of_page.1, key));
                        }
                    }
                    Err(AreaError::SpaceFull | AreaError::FileFull) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            Op::Access(number, access, bits) => {
                let (pkru, at) = (Pkru::from_bits(bits), page(number));
                cpu.set_pkru(pkru);
                let got = match access {
                    Access::Read => kernel.load(cpu, 0, at).map(drop),
                    Access::Write => kernel.store(cpu, 0, at, 1),
                };
                cpu.set_pkru(Pkru::ALLOW_ALL);
                match self.forbidden(number, access, pkru) {
                    (true, _) => {
                        let key = self.pages[number as usize].1;
                        assert_eq!(got, Err(FaultError::KeyForbids { address: at, access, key }));
                    }
                    (false, true) => assert!(matches!(got, Err(FaultError::Forbidden { .. })), "{got:?}"),
                    (false, false) => assert_eq!(got, Ok(())),
                }
            }
            Op::Gup(number, access, bits) => {
                let (pkru, at) = (Pkru::from_bits(bits), page(number));
                let flags = if access == Access::Write { Foll::PIN | Foll::WRITE } else { Foll::GET };
                cpu.set_pkru(pkru);
                let fast = gup(kernel, cpu, at, flags | Foll::FAST_ONLY);
                let slow = gup(kernel, cpu, at, flags);
                let remote = gup_remote(kernel, cpu, at, flags);
                cpu.set_pkru(Pkru::ALLOW_ALL);
                let forbidden =
                    |got: &Result<u64, GupError>| matches!(got, Err(GupError::Fault(FaultError::Forbidden { .. })));
                let (by_key, by_rights) = self.forbidden(number, access, pkru);
                assert!(fast == Ok(0) || fast == Ok(1) && !by_key && !by_rights, "{fast:?}");
                match (by_key, by_rights) {
                    (_, true) => assert!(forbidden(&slow) && forbidden(&remote), "{slow:?} {remote:?}"),
                    (true, false) => {
                        let key = self.pages[number as usize].1;
                        let error = FaultError::KeyForbids { address: at, access, key };
                        assert_eq!((slow, remote), (Err(GupError::Fault(error)), Ok(1)));
                    }
                    (false, false) => assert_eq!((slow, remote), (Ok(1), Ok(1))),
                }
            }
            // These need not succeed. What they must not do is to lose a key.
            Op::Migrate(number) => {
                let _ = self.frame(number).map(|frame| mm.migrate(&self.cpu, frame));
            }
            Op::SwapOut(number) => {
                let _ = self.frame(number).map(|frame| mm.swap_out(&self.cpu, frame));
            }
            Op::SplitFolio(number) => {
                let _ = self.frame(number).map(|frame| mm.split_folio(&self.cpu, frame));
            }
            Op::Collapse(number) => {
                let _ = mm.collapse(cpu, space, page(number), 511);
            }
            Op::SplitLeaf(number) => {
                let _ = mm.split_leaf(cpu, space, page(number));
            }
            Op::Zap(range) => {
                mm.zap(cpu, space, page(range.start), range.end - range.start).expect("well-formed tables");
            }
            Op::Merge(into, from) => {
                let _ = mm.merge(cpu, (ONE, page(into)), (ONE, page(from)));
            }
            Op::Unmerge(range) => {
                let _ = mm.unmerge(cpu, space, page(range.start), range.end - range.start);
            }
            Op::ForkAndExit => {
                if mm.fork(cpu, ONE, TWO).is_ok() {
                    self.check(TWO);
                }
                self.kernel.mm.exit(&self.cpu, TWO).expect("well-formed tables");
            }
        }
    }

    /// Every leaf, for the hardware or for software only, has the key of its page.
    fn check(&self, space: SpaceId) {
        let mut leaves = 0;
        let told = self.kernel.mm.ptdump(&self.cpu, self.kernel.space(space.number()), (AT, PAGES), |run| {
            if let What::Leaf { attributes, .. } | What::ProtNone(attributes) = run.what {
                for number in 0..run.bytes / 4096 {
                    let at: VirtAddr = run.start.wrapping_add(number * 4096);
                    let place = (at.as_u64() - AT.as_u64()) / 4096;
                    assert_eq!(attributes.protection_key(), self.pages[place as usize].1, "page {place} of {space:?}");
                    leaves += 1;
                }
            }
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(told, Ok(ControlFlow::Continue(())));
        assert!(leaves <= PAGES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_leaf_has_the_key_of_its_page(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.check(ONE);
        }
        end(&world.kernel, &world.cpu);
    }
}
