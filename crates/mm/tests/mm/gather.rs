//! How often a zap flushes, and what it takes to flush less often.

use hosted::ThreadCpu;
use machine::{Access, Cpu, CpuId, VirtAddr};
use mm::{AreaRights, SpaceId};

use crate::memory::{Kernel, anonymous};

const AT: VirtAddr = VirtAddr::new(0x40_0000_0000);
const PAGES: u64 = 700;
const TABLES: u64 = 32;
const SPACE: SpaceId = SpaceId::new(0);

/// So many folios wait for one flush without a frame that holds more.
const ON_STACK: u64 = 48;

/// What came of a zap of all pages.
#[derive(PartialEq, Eq, Debug)]
struct Zapped {
    /// How many interrupts the other CPU has taken.
    ipis: u64,
    /// How many frames were asked for in vain.
    refused: u64,
}

/// Zaps pages by CPU 0. CPU 1 translates by the same address space if it has `entered`. From the allocation with the number `fail_from` on, all fail; 0: none does.
fn zap(entered: &[u32], fail_from: u64) -> Zapped {
    let kernel = Kernel::build(2, TABLES);
    let cpus: [ThreadCpu; 2] = [0, 1].map(|cpu| kernel.machine.attach_as(CpuId::new(cpu)).expect("a free CPU"));
    let cpu = &cpus[0];
    kernel.mm.mmap(cpu, SPACE, anonymous(AT, PAGES, 0)).expect("a good area");
    entered.iter().for_each(|&cpu| kernel.mm.enter(&cpus[cpu as usize], kernel.space(0)));
    kernel.mm.populate(cpu, kernel.space(0), AT, PAGES, Access::Write).expect("memory");
    let ipis = || kernel.machine.statistics(cpus[1].id()).ipis;
    let before = ipis();
    kernel.failures.fail_from(fail_from);
    kernel.mm.zap(cpu, kernel.space(0), AT, PAGES).expect("the tables are whole");
    let zapped = Zapped { ipis: ipis() - before, refused: kernel.failures.failed() };
    kernel.failures.fail_at(0);
    kernel.mm.exit(cpu, SPACE).expect("the tables are whole");
    kernel.assert_all_is_back(TABLES);
    zapped
}

#[test]
fn others_are_interrupted_once_for_all_pages() {
    assert_eq!(zap(&[0, 1], 0), Zapped { ipis: 1, refused: 0 });
}

#[test]
fn without_frames_others_are_interrupted_whenever_the_stack_is_full() {
    let flushes = PAGES.div_ceil(ON_STACK);
    // Each time one was asked for, but for the last flush, which had room.
    assert_eq!(zap(&[0, 1], 1), Zapped { ipis: flushes, refused: flushes - 1 });
}

#[test]
fn frames_that_are_there_are_used_when_no_more_can_be_had() {
    // One frame holds 512 more; then it is used again.
    assert_eq!(zap(&[0, 1], 2), Zapped { ipis: 2, refused: 1 });
}

#[test]
fn who_interrupts_nobody_takes_no_frame() {
    assert_eq!(zap(&[0], 1), Zapped { ipis: 0, refused: 0 });
}

/// How many interrupts CPU 1 takes when CPU 0 unmaps an area of so many page tables, with a page in each.
fn munmap(page_tables: u64) -> u64 {
    const TABLE: u64 = 512;
    let kernel = Kernel::build(2, TABLES);
    let cpus: [ThreadCpu; 2] = [0, 1].map(|cpu| kernel.machine.attach_as(CpuId::new(cpu)).expect("a free CPU"));
    let cpu = &cpus[0];
    kernel.mm.mmap(cpu, SPACE, anonymous(AT, page_tables * TABLE, 0)).expect("a good area");
    cpus.iter().for_each(|cpu| kernel.mm.enter(cpu, kernel.space(0)));
    for table in 0..page_tables {
        let page = AT.wrapping_add(table * TABLE * 4096);
        kernel.mm.populate(cpu, kernel.space(0), page, 1, Access::Write).expect("memory");
    }
    let ipis = || kernel.machine.statistics(cpus[1].id()).ipis;
    let before = ipis();
    kernel.mm.munmap(cpu, SPACE, AT, page_tables * TABLE).expect("the tables are whole");
    let taken = ipis() - before;
    kernel.mm.exit(cpu, SPACE).expect("the tables are whole");
    kernel.assert_all_is_back(TABLES);
    taken
}

#[test]
fn tables_are_freed_after_one_flush_for_all() {
    // Those above them are freed with them: eight in all, as many as wait for one flush.
    assert_eq!(munmap(6), munmap(1));
}

#[test]
fn to_give_rights_interrupts_nobody_and_to_take_them_does() {
    let kernel = Kernel::build(2, TABLES);
    let cpus: [ThreadCpu; 2] = [0, 1].map(|cpu| kernel.machine.attach_as(CpuId::new(cpu)).expect("a free CPU"));
    let cpu = &cpus[0];
    kernel.mm.mmap(cpu, SPACE, anonymous(AT, PAGES, 0)).expect("a good area");
    cpus.iter().for_each(|cpu| kernel.mm.enter(cpu, kernel.space(0)));
    kernel.mm.populate(cpu, kernel.space(0), AT, PAGES, Access::Write).expect("memory");
    let ipis = || kernel.machine.statistics(cpus[1].id()).ipis;
    let protect = |rights| {
        let before = ipis();
        kernel.mm.mprotect(cpu, SPACE, AT, PAGES, rights).expect("an area");
        ipis() - before
    };
    assert_eq!(protect(AreaRights::Read), 1);
    assert_eq!(protect(AreaRights::ReadWrite), 0, "a TLB that knows fewer rights lets the access fault");
}
