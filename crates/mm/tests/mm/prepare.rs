//! PAE: the tables that must be there before a CPU loads the root, a lack of frames for them, and that they are nobody else's; and what its entries have no bit for.

use std::marker::PhantomData;
use std::sync::Arc;

use hosted::{DataFrames, FailingTables, Failures, FrameArena, ThreadCpu, Threads};
use machine::{Access, Cpu, Frame, ProtectionKey, VirtAddr};
use mm::error::KeyError;
use mm::lifetime::ByRcu;
use mm::order::FlushAfterUnlock;
use mm::shootdown::ByIpi;
use mm::{
    AddressSpace, Area, AreaRights, AreaSlot, FaultError, File, FileId, FileKind, MapError, Mapping, Mm, NoDrivers,
    NoSwap, NobodyListens, NobodyTraces, Parts, Platform, Protocols, ShareError, Shootdown, Sound, SpaceId, UffdFault,
    UffdHandler, UffdModes, UffdRegisterError,
};
use pagetable::recheck::Atomic;
use pagetable::software::Softw1;
use pagetable::{Cmpxchg8b, FourLevel, Level, Mode, Pae, PhysicalWidth, Root, TableMemory, Xchg64, ZeroThenLink};

/// Somebody who would be told of faults, if there were any.
struct Reader;

impl UffdHandler<ThreadCpu> for Reader {
    fn wait(&self, _: &ThreadCpu, _: &AddressSpace<'_>, fault: UffdFault, _: impl FnOnce() -> bool) {
        panic!("{fault:?}");
    }

    fn wake(&self, _: &ThreadCpu, _: &AddressSpace<'_>, _: VirtAddr, _: VirtAddr) {}
}

/// A platform with the protocols of PAE in whatever mode.
struct In<M>(PhantomData<M>);

impl<M: Mode> Platform for In<M> {
    type Cpu = ThreadCpu;
    type Mode = M;
    type Tables = FailingTables;
    type Map = DataFrames;
    type Frames = DataFrames;
    type Swap = NoSwap;
    type Notify = NobodyListens;
    type Drivers = NoDrivers;
    type Uffd = Reader;
    type Trace = NobodyTraces;
    type Read = Cmpxchg8b;
    type Write = Xchg64;
    type Recheck = Atomic;
    type Publish = ZeroThenLink;
    type FlushOrder = FlushAfterUnlock;
    type RemoteFlush = ByIpi;
    type Lifetime = ByRcu;
    type Special = Softw1;
    type Guards = Sound;
}

fn protocols<M: Mode>(mode: M) -> Protocols<In<M>> {
    Protocols {
        mode,
        read: Cmpxchg8b,
        write: Xchg64,
        recheck: Atomic,
        publish: ZeroThenLink,
        flush_order: FlushAfterUnlock,
        remote_flush: ByIpi,
        lifetime: ByRcu,
        special: Softw1,
        guards: Sound,
    }
}

/// A machine of one CPU with address spaces whose roots are empty.
struct World<'w, M: Mode> {
    mm: Mm<'w, In<M>>,
    cpu: ThreadCpu,
    spaces: &'w [AddressSpace<'w>],
    arena: &'w FrameArena,
}

/// The second of the files.
const ANONYMOUS: FileId = FileId::new(1);

/// Lets `act` have an address space for each of `areas`, with files of which the first has leaves of this level.
fn in_world<M: Mode + Copy, R>(
    mode: M,
    failures: &Arc<Failures>,
    areas: &[&[AreaSlot]],
    leaf: Level,
    act: impl FnOnce(&World<'_, M>) -> R,
) -> R {
    let arena = FrameArena::new(Frame::new(0x100), 16).expect("address space for tables");
    let tables = FailingTables { arena, failures: Arc::clone(failures) };
    let data = DataFrames::new(Frame::new(0x10000), 16, Failures::none()).expect("address space for data");
    let machine = Threads::new(1, |_, _| ()).expect("a small machine");
    let cpu = machine.attach().expect("a free CPU");
    let space = |areas| {
        let root = tables.arena.allocate().expect("a frame for the root");
        cpu.zero(tables.arena.table(root).expect("a frame of the arena").cells());
        AddressSpace::new(Root::new(&mode, root.start()).expect("aligned, and low enough"), areas)
    };
    let spaces: Vec<_> = areas.iter().copied().map(space).collect();
    let mappings = [Mapping::new(), Mapping::new()];
    let anonymous = [Mapping::new()];
    let files = [
        File::new(FileKind::Cached, leaf, &[], &mappings),
        File::new(FileKind::Anonymous, Level::Pte, &[], &anonymous),
    ];
    let shootdown = Shootdown::new();
    let parts = Parts {
        tables: &tables,
        map: &data,
        frames: &data,
        swap: &NoSwap,
        notify: &NobodyListens,
        drivers: &NoDrivers,
        uffd: &Reader,
        trace: &NobodyTraces,
        spaces: &spaces,
        files: &files,
        shootdown: &shootdown,
    };
    let mm = Mm::new(protocols(mode), parts);
    act(&World { mm, cpu, spaces: &spaces, arena: &tables.arena })
}

/// Four PDPTEs, of which user code may have addresses below each.
const PDPTES: u64 = 4;

/// Every allocation fails, alone and with all that follow: it is said, tables that were made stay, and the next attempt makes the rest.
#[test]
fn frames_run_out() {
    for fail in [Failures::fail_at, Failures::fail_from] {
        for number in 1..=PDPTES + 1 {
            let failures = Failures::none();
            in_world(Pae::new(PhysicalWidth::MAX), &failures, &[&[]], Level::Pte, |world| {
                let prepare = || world.mm.prepare(&world.cpu, &world.spaces[0]);
                fail(&failures, number);
                let prepared = prepare();
                failures.fail_at(0);
                if number <= PDPTES {
                    assert_eq!(prepared, Err(FaultError::OutOfFrames), "table {number}");
                    assert_eq!(world.arena.in_use(), 1 + number - 1, "those before stay");
                }
                assert_eq!(prepare(), Ok(()), "again");
                assert_eq!(world.arena.in_use(), 1 + PDPTES);
            });
        }
    }
}

/// What two address spaces are told that want to share a table with leaves of this level, below their roots.
fn share_below_the_root<M: Mode + Copy>(mode: M, leaf: Level) -> Result<(), ShareError> {
    let areas = [[AreaSlot::new()], [AreaSlot::new()]];
    in_world(mode, &Failures::none(), &areas.each_ref().map(|areas| &areas[..]), leaf, |world| {
        let upper = leaf.upper().expect("a level above");
        assert_eq!(upper, mode.root_level());
        let at = VirtAddr::new(upper.size());
        let ids = [0, 1].map(SpaceId::new);
        for (id, space) in ids.into_iter().zip(world.spaces) {
            world.mm.prepare(&world.cpu, space).expect("frames enough");
            let area = Area::shared(at, upper.frames(), AreaRights::ReadWrite, FileId::new(0), 0);
            world.mm.mmap(&world.cpu, id, area).expect("a good area");
        }
        world.mm.share_table(&world.cpu, (ids[1], at), (ids[0], at))
    })
}

/// A CPU reads the PDPTEs when it loads the root, so they cannot come to lead to another table. Where it reads the root at every walk they can.
#[test]
fn tables_below_pdptes_are_not_shared() {
    let pae = share_below_the_root(Pae::new(PhysicalWidth::MAX), Level::Pmd);
    assert_eq!(pae, Err(ShareError::Area { address: VirtAddr::new(Level::Pud.size()) }));
    let four = share_below_the_root(FourLevel::new(PhysicalWidth::MAX), Level::Pud);
    let no_table = ShareError::NoTable { address: VirtAddr::new(Level::P4d.size()) };
    assert_eq!(four, Err(no_table), "nothing is mapped yet");
}

/// What a CPU reads when it loads the root stays; the tables below go with their last area.
#[test]
fn only_the_tables_below_those_of_pdptes_are_freed() {
    let area = [AreaSlot::new()];
    in_world(Pae::new(PhysicalWidth::MAX), &Failures::none(), &[&area], Level::Pte, |world| {
        let (cpu, space, id) = (&world.cpu, &world.spaces[0], SpaceId::new(0));
        let at = VirtAddr::new(Level::Pud.size());
        world.mm.prepare(cpu, space).expect("frames enough");
        for _ in 0..2 {
            world.mm.mmap(cpu, id, Area::private(at, 1, AreaRights::ReadWrite, ANONYMOUS, 0)).expect("a good area");
            world.mm.populate(cpu, space, at, 1, Access::Write).expect("a frame");
            assert_eq!(world.arena.in_use(), 1 + PDPTES + 1, "one page table");
            world.mm.munmap(cpu, id, at, 1).expect("an area");
            assert_eq!(world.arena.in_use(), 1 + PDPTES);
        }
    });
}

/// What comes of registering anonymous memory for faults of these modes.
fn register<M: Mode + Copy>(mode: M, modes: UffdModes) -> Result<(), UffdRegisterError> {
    let area = [AreaSlot::new()];
    in_world(mode, &Failures::none(), &[&area], Level::Pte, |world| {
        let at = VirtAddr::new(Level::Pud.size());
        let area = Area::private(at, 1, AreaRights::ReadWrite, ANONYMOUS, 0);
        world.mm.mmap(&world.cpu, SpaceId::new(0), area).expect("a good area");
        world.mm.uffd_register(&world.cpu, SpaceId::new(0), at, 1, modes)
    })
}

/// The bit that says that userfaultfd protects a page is another's on PAE.
#[test]
fn stores_are_handed_over_in_long_mode_only() {
    let both = UffdModes::MISSING.and(UffdModes::WRITE_PROTECT);
    let pae = Pae::new(PhysicalWidth::MAX);
    assert_eq!(register(pae, UffdModes::MISSING), Ok(()));
    assert_eq!(register(pae, both), Err(UffdRegisterError::Unsupported { modes: both }));
    assert_eq!(register(FourLevel::new(PhysicalWidth::MAX), both), Ok(()));
}

/// The bits are reserved there: no address space gives keys out, so that no area has one.
#[test]
fn entries_of_pae_have_no_protection_keys() {
    let slots: [AreaSlot; 1] = [const { AreaSlot::new() }; 1];
    let key = ProtectionKey::new(1).expect("a key");
    in_world(Pae::new(PhysicalWidth::MAX), &Failures::none(), &[&slots], Level::Pte, |world| {
        assert_eq!(world.mm.pkey_alloc(&world.cpu, SpaceId::new(0)), Err(KeyError::NoKeys));
        let area = Area::private(VirtAddr::new(0x4000), 1, AreaRights::ReadWrite, ANONYMOUS, 0).with_key(key);
        assert_eq!(world.mm.mmap(&world.cpu, SpaceId::new(0), area), Err(MapError::NoKey(key)));
    });
    let four = in_world(FourLevel::new(PhysicalWidth::MAX), &Failures::none(), &[&slots], Level::Pte, |world| {
        world.mm.pkey_alloc(&world.cpu, SpaceId::new(0))
    });
    assert_eq!(four, Ok(key));
}
