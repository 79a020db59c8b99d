//! Protection keys: what PKRU keeps user code from, what is cached of a key, and whose the register is.

use lab::{
    Arena, FrameKind, Lab, LabCpu, Limits, Machine, MemoryOrder, MisuseKind, Paging, Pool, ProtectionKeys, Report,
    Threads, Verdict,
};
use machine::user::FaultCause;
use machine::{
    Access, Cpu, CpuId, Frame, KeyRights, Pkru, ProtectionKey, ProtectionKeys as _, UserAccess, VirtAddr, Word64,
};

const TABLES: FrameKind = FrameKind(0);
const DATA: FrameKind = FrameKind(1);
const VA: VirtAddr = VirtAddr::new(0x4020_3000);
/// The page's.
const FRAME: Frame = Frame::new(0x12_3450);

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const USABLE: u64 = P | RW | US | A | D;
/// In bits 62:59.
const KEY: u8 = 5;

const fn with_key(flags: u64) -> u64 {
    flags | (KEY as u64) << 59
}

fn pkru(rights: KeyRights) -> Pkru {
    Pkru::ALLOW_ALL.with(ProtectionKey::new(KEY).expect("a key"), rights)
}

fn arena() -> Arena {
    Arena::with_frames(vec![Pool::tables(TABLES, 0x100..0x108), Pool::data(DATA, 0, [FRAME.number()])])
}

fn machine(paging: Paging) -> Machine {
    let machine = Machine::with_paging(MemoryOrder::Tso, paging, [VA]);
    Machine { protection_keys: ProtectionKeys::Enabled, ..machine }
}

/// Maps [`VA`] with these flags in the last entry, loads the table on all CPUs, and returns that entry.
fn map<'a>(lab: &mut Lab<'a>, arena: &'a Arena, paging: Paging, flags: u64) -> &'a Word64 {
    let (root, leaf) = lab.boot(CpuId::new(0), |cpu| {
        let mut above: Option<&Word64> = None;
        let mut root = None;
        for level in (1..=paging.levels()).rev() {
            let frame = cpu.alloc_frame(TABLES).expect("a table frame");
            let words = arena.table(frame).expect("tables have words");
            cpu.zero(words);
            root.get_or_insert(frame);
            if let Some(above) = above {
                let is_register = level + 1 == paging.levels() && paging.has_registers();
                cpu.store(above, frame.start().as_u64() | if is_register { P } else { P | RW | US | A });
            }
            above = Some(&words[paging.index(VA, level)]);
        }
        let page: Frame = cpu.alloc_frame(DATA).expect("a data frame");
        let leaf = above.expect("there are levels");
        cpu.store(leaf, page.start().as_u64() | flags);
        (root.expect("there are levels"), leaf)
    });
    lab.load_root(root.start());
    leaf
}

/// 0: the access was made; else why not.
fn told(result: Result<(), FaultCause>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(FaultCause::NotPresent) => 1,
        Err(FaultCause::Protection) => 2,
        Err(FaultCause::ProtectionKey) => 3,
    }
}

/// What a load, a store and a fetch come to, in every run.
fn outcomes(machine: Machine, flags: u64, set: Option<Pkru>) -> [u64; 3] {
    let arena = arena();
    let word = arena.alloc(Word64::new(0));
    let paging = machine.paging.expect("an MMU");
    let mut lab = Lab::new(&arena, machine);
    lab.cpu("user", move |cpu| {
        if let Some(pkru) = set {
            cpu.set_pkru(pkru);
        }
        let accesses =
            [Access::Read, Access::Write].map(|access| cpu.user_access(VA, access).map_err(|fault| fault.cause));
        accesses.into_iter().enumerate().for_each(|(slot, result)| cpu.report(slot, told(result)));
        cpu.report(2, told(cpu.user_fetch(VA).map(drop)));
    });
    map(&mut lab, &arena, paging, flags);
    // A fetch tells what it found.
    lab.contents(FRAME, std::slice::from_ref(word));
    lab.observe(|end| [0, 1, 2].map(|slot| end.reported(CpuId::new(0), slot)).to_vec());
    let report = lab.explore(&Limits::default());
    let observed: Vec<_> = report.expect_safe().observations.iter().cloned().collect();
    let [only] = &observed[..] else { panic!("{observed:?}") };
    [only[0], only[1], only[2]]
}

#[test]
fn a_key_decides_before_rights_for_data_of_user_pages_alone() {
    for paging in [Paging::FOUR_LEVEL, Paging::FIVE_LEVEL] {
        let of = |flags, rights| outcomes(machine(paging), flags, Some(pkru(rights)));
        assert_eq!(of(with_key(USABLE), KeyRights::All), [0, 0, 0]);
        assert_eq!(of(with_key(USABLE), KeyRights::Load), [0, 3, 0]);
        assert_eq!(of(with_key(USABLE), KeyRights::None), [3, 3, 0]);
        assert_eq!(of(USABLE, KeyRights::None), [0, 0, 0], "another key");
        assert_eq!(of(with_key(USABLE & !RW), KeyRights::Load), [0, 3, 0], "forbidden by both");
        assert_eq!(of(with_key(USABLE & !RW), KeyRights::All), [0, 2, 0], "a key gives nothing");
        assert_eq!(of(with_key(USABLE & !US), KeyRights::None), [2, 2, 2], "no user page");
        assert_eq!(of(with_key(USABLE & !P), KeyRights::None), [1, 1, 1], "no page");
        // What is refused was not used.
        assert_eq!(of(with_key(USABLE & !(A | D)), KeyRights::None), [3, 3, 0]);
    }
}

#[test]
fn bits_62_to_59_mean_nothing_without_keys() {
    let plain = |paging| Machine { protection_keys: ProtectionKeys::Disabled, ..machine(paging) };
    for paging in [Paging::PAE, Paging::FOUR_LEVEL] {
        assert_eq!(outcomes(plain(paging), with_key(USABLE), None), [0, 0, 0]);
    }
    // PAE has no keys however the machine was asked for.
    assert_eq!(outcomes(machine(Paging::PAE), with_key(USABLE), None), [0, 0, 0]);
    for machine in [plain(Paging::FOUR_LEVEL), machine(Paging::PAE)] {
        let arena = arena();
        let mut lab = Lab::new(&arena, machine);
        lab.cpu("user", |cpu| cpu.set_pkru(Pkru::ALLOW_ALL));
        let report = lab.explore(&Limits::default());
        let Verdict::Error(misuse) = &report.verdict else { panic!("{:?}", report.verdict) };
        assert_eq!(misuse.kind, MisuseKind::Setup, "{misuse:?}");
    }
}

/// Two CPUs that differ in PKRU alone are in different states: what is explored of one is not taken for what becomes of the other.
#[test]
fn what_pkru_holds_is_part_of_the_state() {
    let arena = arena();
    let gate = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
    let user = lab.cpu("user", move |cpu: &LabCpu| {
        // Which of the two it was, nothing remembers but the register.
        let rights = if cpu.load(gate) == 0 { KeyRights::All } else { KeyRights::None };
        cpu.set_pkru(pkru(rights));
        cpu.op_boundary(0);
        cpu.report(0, told(cpu.user_access(VA, Access::Read).map_err(|fault| fault.cause)));
    });
    lab.cpu("other", move |cpu| cpu.store(gate, 1));
    map(&mut lab, &arena, Paging::FOUR_LEVEL, with_key(USABLE));
    lab.observe(move |end| vec![end.reported(user, 0)]);
    let report = lab.explore(&Limits::default());
    let observed: Vec<u64> = report.expect_safe().observations.iter().flatten().copied().collect();
    assert_eq!(observed, [0, 3]);
}

/// And code that reads it is known by what it read.
#[test]
fn what_was_set_is_what_is_read() {
    let arena = arena();
    let gate = arena.alloc(Word64::new(0));
    let mut lab = Lab::new(&arena, machine(Paging::FOUR_LEVEL));
    let user = lab.cpu("user", move |cpu: &LabCpu| {
        let rights = if cpu.load(gate) == 0 { KeyRights::All } else { KeyRights::Load };
        cpu.set_pkru(pkru(rights));
        cpu.op_boundary(0);
        let held = cpu.pkru();
        cpu.fence();
        cpu.report(0, u64::from(held.bits()) + 1);
    });
    lab.cpu("other", move |cpu| cpu.store(gate, 1));
    lab.observe(move |end| vec![end.reported(user, 0)]);
    let report: Report = lab.explore(&Limits::default());
    let observed: Vec<u64> = report.expect_safe().observations.iter().flatten().copied().collect();
    assert_eq!(observed, [1, u64::from(pkru(KeyRights::Load).bits()) + 1]);
}

/// The register is the thread's: wherever it goes on, it is kept out.
#[test]
fn pkru_moves_with_the_thread() {
    let arena = arena();
    let moving = Machine { threads: Threads::Move, ..machine(Paging::FOUR_LEVEL) };
    let mut lab = Lab::new(&arena, moving);
    let user = lab.cpu("user", move |cpu: &LabCpu| {
        cpu.set_pkru(pkru(KeyRights::None));
        let at_first = cpu.id().index() as u64;
        let result = told(cpu.user_access(VA, Access::Read).map_err(|fault| fault.cause));
        cpu.report(0, 100 * at_first + 10 * cpu.id().index() as u64 + result);
    });
    lab.cpu("idle", |_| ());
    map(&mut lab, &arena, Paging::FOUR_LEVEL, with_key(USABLE));
    lab.observe(move |end| vec![end.reported(user, 0)]);
    let report = lab.explore(&Limits::default());
    let observed: Vec<u64> = report.expect_safe().observations.iter().flatten().copied().collect();
    assert_eq!(observed, [3, 13, 103, 113], "on either CPU, and on the way");
}
