//! A machine with one page, which is mapped.

use std::ptr::NonNull;

use machine::{Cpu, CpuId, Frame, PhysAddr, VirtAddr, Word64};
use stateless::{Block, Config, Memory, Order, Paging, Simulator};

/// Where the page is.
pub(crate) const PAGE: VirtAddr = VirtAddr::new(0x4000_0000);
/// Its frame.
pub(crate) const FRAME: Frame = Frame::new(0x20);
/// Its entry: the first of the last table.
pub(crate) const ENTRY: usize = 3 * 4096;
/// Present, writable, of a user; neither accessed nor dirty.
pub(crate) const UNUSED: u64 = 7;

const FIRST_TABLE: u64 = 0x10;
const TABLES: u8 = 0;
const DATA: u8 = 1;

/// A table of each level, the root first.
#[repr(C, align(4096))]
pub(crate) struct Tables([[Word64; 512]; 4]);

impl Tables {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self(std::array::from_fn(|_| std::array::from_fn(|_| Word64::new(0)))))
    }

    pub(crate) fn entry(&self) -> &Word64 {
        &self.0[3][0]
    }
}

struct Words<'t>(&'t Tables);

// SAFETY: four pages of atomics, which stay where they are while they are borrowed.
unsafe impl Memory for Words<'_> {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self.0).cast()
    }

    fn bytes(&self) -> usize {
        size_of::<Tables>()
    }
}

/// A machine on which programs are still missing.
pub(crate) fn machine(tables: &Tables) -> Simulator<'_> {
    let table = |number: usize| Block {
        first: Frame::new(FIRST_TABLE + number as u64),
        order: 0,
        pool: TABLES,
        words: Some(tables.0[number].as_ptr().addr()),
    };
    let mut blocks: Vec<Block> = (0..4).map(table).collect();
    blocks.push(Block { first: FRAME, order: 0, pool: DATA, words: None });
    let config =
        Config { paging: Some(Paging::FourLevel), pages: vec![PAGE], ..Config::new(Order::SequentiallyConsistent) };
    Simulator::new(config, Words(tables), blocks)
}

/// Maps the page, and loads the page table on all CPUs.
pub(crate) fn boot(simulator: &mut Simulator<'_>, tables: &Tables, cpus: u32) {
    simulator.boot(CpuId::new(0), |cpu| {
        for table in &tables.0 {
            cpu.allocate(TABLES).expect("there are four");
            cpu.zero(table);
        }
        cpu.allocate(DATA).expect("there is one");
        // A way down, whose entries are accessed.
        for (level, index) in [(0, 0), (1, 1), (2, 0)] {
            cpu.store(&tables.0[level][index], (FIRST_TABLE + level as u64 + 1) << 12 | UNUSED | 0x20);
        }
        cpu.store(tables.entry(), FRAME.number() << 12 | UNUSED);
    });
    for cpu in 0..cpus {
        simulator.boot(CpuId::new(cpu), |cpu| cpu.load_root(PhysAddr::new(FIRST_TABLE << 12)));
    }
}
