//! The kernel's own window of memory, and the paging mode that the engine is told.

use machine::{Cpu, Frame, PhysAddr};
use pagetable::mode::PhysicalWidth;
use pagetable::{Entry, TableMemory};

#[cfg(target_arch = "x86")]
mod choice {
    /// The mode of this image.
    pub(crate) type PagingMode = pagetable::Pae;
    /// How lockless walkers read entries: the only reader that is sound whatever writers do.
    pub(crate) type Read = pagetable::Cmpxchg8b;
    /// How entries are written.
    pub(crate) type Write = pagetable::TwoStep;
    /// A plain access.
    pub(crate) type Plain = pagetable::Split;
    /// Where physical address 0 is.
    pub(super) const WINDOW: u64 = 0xc000_0000;
    /// How much of it.
    pub(super) const REACH: u64 = 896 << 20;
    /// The entry of a root that leads to the kernel.
    pub(super) const KERNEL_ENTRY: usize = 3;
}

#[cfg(target_arch = "x86_64")]
mod choice {
    /// The mode of this image.
    #[cfg(not(feature = "la57"))]
    pub(crate) type PagingMode = pagetable::FourLevel;
    #[cfg(feature = "la57")]
    pub(crate) type PagingMode = pagetable::FiveLevel;
    /// How lockless walkers read entries.
    pub(crate) type Read = pagetable::ReadOnce<pagetable::Wide>;
    /// How entries are written.
    pub(crate) type Write = pagetable::Whole;
    /// A plain access.
    pub(crate) type Plain = pagetable::Wide;
    /// Where physical address 0 is.
    pub(super) const WINDOW: u64 = 0xffff_ff80_0000_0000;
    /// How much of it, without the devices' part.
    pub(super) const REACH: u64 = 0xc000_0000;
    /// The entry of a root that leads to the kernel.
    pub(super) const KERNEL_ENTRY: usize = 511;
}

pub(crate) use choice::{PagingMode, Plain, Read, Write};

/// What this image is called.
pub(crate) const MODE_NAME: &str = if cfg!(target_arch = "x86") {
    "pae"
} else if cfg!(feature = "la57") {
    "la57"
} else {
    "x86_64"
};

use choice::{KERNEL_ENTRY, REACH, WINDOW};

/// Where the kernel sees a physical address below [`reach`], or of the local APIC.
pub(crate) fn at_physical(address: u64) -> *mut u8 {
    let device = cfg!(target_arch = "x86") && address >= 0xfee0_0000;
    let virt = if device { address } else { WINDOW.wrapping_add(address) };
    core::ptr::with_exposed_provenance_mut(virt as usize)
}

/// How many bytes of memory the kernel sees.
pub(crate) const fn reach() -> u64 {
    REACH
}

/// The physical width of this machine, and the paging mode.
pub(crate) fn mode() -> PagingMode {
    PagingMode::new(PhysicalWidth::new(physical_bits()).unwrap_or(PhysicalWidth::MAX))
}

/// Whether a pud can be a leaf.
pub(crate) fn has_gigabyte_pages() -> bool {
    #[cfg(target_arch = "x86")]
    return false;
    #[cfg(target_arch = "x86_64")]
    return core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 != 0;
}

fn physical_bits() -> u32 {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::__cpuid;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::__cpuid;
    if __cpuid(0x8000_0000).eax >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xff } else { 36 }
}

#[cfg(target_arch = "x86")]
unsafe extern "C" {
    static boot_pmd: [u64; 512];
}
#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static boot_root: [u64; 512];
    static boot_pdpt: [u64; 512];
}

/// Where user code of the kernel's own lies, in every address space.
#[cfg(target_arch = "x86")]
pub(super) const USER_TEXT: u64 = 0xffe0_0000;
#[cfg(target_arch = "x86_64")]
pub(super) const USER_TEXT: u64 = 0xffff_ffff_4000_0000;

unsafe extern "C" {
    static user_stub: u8;
}

/// The physical address of a part of the image.
fn physical_of(symbol: *const u8) -> u64 {
    symbol as u64 & 0x3fff_ffff
}

const PRESENT_USER: u64 = 0b101;
const ACCESSED: u64 = 1 << 5;

/// Gives a root that nobody uses yet the kernel's part, with tables out of `new_table` where it needs its own.
///
/// On PAE a pmd table of its own, the same for all roots, which the engine takes for one of its tables; in long mode what the boot made.
pub(crate) fn install_kernel<C: Cpu, T: TableMemory>(
    cpu: &C,
    memory: &T,
    root: PhysAddr,
    shared: &mut Option<Frame>,
    mut new_table: impl FnMut() -> Frame,
) {
    let shared = *shared.get_or_insert_with(|| {
        let pages = new_table();
        let table = memory.table(pages).expect("a frame for tables");
        cpu.zero(table.cells());
        cpu.store(&table.cells()[0], physical_of(&raw const user_stub) | PRESENT_USER | ACCESSED);
        let leaf_table = pages.start().as_u64() | PRESENT_USER | ACCESSED;
        let middle = new_table();
        let table = memory.table(middle).expect("a frame for tables");
        cpu.zero(table.cells());
        #[cfg(target_arch = "x86")]
        {
            for (index, cell) in table.cells().iter().enumerate() {
                // SAFETY: written once, before any Rust code ran.
                cpu.store(cell, unsafe { boot_pmd[index] });
            }
            cpu.store(&table.cells()[511], leaf_table);
            cpu.store(&table.meta().children, 512);
        }
        #[cfg(target_arch = "x86_64")]
        {
            cpu.store(&table.cells()[0], leaf_table);
            let pdpt = (&raw const boot_pdpt).cast::<u64>() as u64;
            // SAFETY: nobody else has the boot tables yet but this CPU's walker, which takes the entry whole.
            unsafe {
                at_physical(pdpt + 509 * 8)
                    .cast::<u64>()
                    .write_volatile(middle.start().as_u64() | PRESENT_USER | ACCESSED)
            };
        }
        middle
    });
    #[cfg(target_arch = "x86")]
    {
        let pdpt = memory.pdpt(root).expect("a frame for tables");
        cpu.store(&pdpt.cells()[KERNEL_ENTRY], Entry::pae_pdpte(shared).bits());
        cpu.store(&pdpt.meta().children, 1);
    }
    #[cfg(target_arch = "x86_64")]
    {
        let _ = (shared, Entry::NONE);
        let root = memory.table(root.frame()).expect("a frame for tables");
        // SAFETY: written once, before any Rust code ran.
        cpu.store(&root.cells()[KERNEL_ENTRY], unsafe {
            (&raw const boot_root).cast::<u64>().add(KERNEL_ENTRY).read()
        });
        cpu.store(&root.meta().children, 1);
    }
}

/// What CR3 leads to on PAE, for each CPU: its own copy of the four PDPTEs of the root that it was given.
///
/// Hardware copies them into registers when CR3 is loaded (SDM vol. 3A, 4.4.1), and never writes them. QEMU's software emulation (7.2) walks them in memory
/// and sets their accessed bit, which is reserved there: real hardware would refuse to load such a root, and the engine's walker refuses it, too. With a copy made
/// when the root is loaded both machines behave as the manual says.
#[cfg(target_arch = "x86")]
mod loaded {
    use super::super::cpu::MAX_CPUS;
    use super::{at_physical, physical_of};

    #[repr(C, align(32))]
    struct Pdptes(core::cell::UnsafeCell<[[u64; 4]; MAX_CPUS]>);

    // SAFETY: every CPU touches only its own.
    unsafe impl Sync for Pdptes {}

    static PDPTES: Pdptes = Pdptes(core::cell::UnsafeCell::new([[0; 4]; MAX_CPUS]));

    /// What to put into CR3 of this CPU for the root.
    pub(in super::super) fn register_for(cpu: usize, root: u64) -> usize {
        let own = PDPTES.0.get().cast::<[u64; 4]>().wrapping_add(cpu);
        for index in 0..4 {
            // SAFETY: this CPU's own copy, and a root of the engine, which is memory that the kernel sees. The kernel's own entry is the same in all roots, so the code that runs stays where
            // it is, and user code does not run meanwhile.
            unsafe {
                own.cast::<u64>().add(index).write_volatile(at_physical(root).cast::<u64>().add(index).read_volatile())
            };
        }
        physical_of(own.cast()) as usize
    }
}

#[cfg(target_arch = "x86_64")]
mod loaded {
    /// What to put into CR3 of this CPU for the root.
    pub(in super::super) fn register_for(_: usize, root: u64) -> usize {
        root as usize
    }
}

pub(super) use loaded::register_for;
