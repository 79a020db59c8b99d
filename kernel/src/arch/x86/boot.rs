//! What the loader says (PVH: Xen's `hvm_start_info`), and the first steps of the first CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use super::paging::{at_physical, reach};
use super::{apic, cpu, descriptors, time, trap};

#[cfg(target_arch = "x86")]
core::arch::global_asm!(include_str!("boot32.s"), options(att_syntax, raw));
#[cfg(all(target_arch = "x86_64", not(feature = "la57")))]
core::arch::global_asm!(".set LEVELS, 4", include_str!("boot64.s"), options(att_syntax, raw));
#[cfg(all(target_arch = "x86_64", feature = "la57"))]
core::arch::global_asm!(".set LEVELS, 5", include_str!("boot64.s"), options(att_syntax, raw));

static START_INFO: AtomicU64 = AtomicU64::new(0);

const MAGIC: u32 = 0x336e_c578;
/// Longer command lines are taken for empty ones.
const LONGEST_LINE: usize = 2048;

/// `hvm_start_info`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    root_pointer: u64,
    memory_map: u64,
    memory_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MemoryEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// A run of usable memory, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

unsafe extern "C" {
    static image_end: u8;
}

fn start_info() -> &'static StartInfo {
    let address = START_INFO.load(Ordering::Relaxed);
    assert!(address != 0 && address < reach(), "no start information from the loader: use qemu -kernel");
    // SAFETY: the loader put it there, in memory that is mapped and that this kernel gives to nobody (below 1 MiB).
    let info = unsafe { &*at_physical(address).cast::<StartInfo>() };
    assert!(info.magic == MAGIC && info.version >= 1, "the start information is not PVH's: use qemu -kernel");
    info
}

pub(super) fn root_pointer() -> u64 {
    start_info().root_pointer
}

/// The command line.
pub(crate) fn command_line() -> &'static str {
    let address = start_info().command_line;
    if address == 0 || address >= reach() {
        return "";
    }
    // SAFETY: the loader put it there, in memory that is mapped and that nobody writes.
    let bytes = unsafe { core::slice::from_raw_parts(at_physical(address), LONGEST_LINE) };
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    core::str::from_utf8(&bytes[..length]).unwrap_or("")
}

/// The largest run of usable memory behind the kernel's image, as far as its window reaches.
pub(crate) fn boot_memory() -> Memory {
    let info = start_info();
    // SAFETY: the address of a symbol that the linker script defines; not what is there.
    let image = (&raw const image_end) as u64 & 0xffff_ffff;
    let mut best = Memory { start: 0, end: 0 };
    for index in 0..u64::from(info.memory_entries) {
        let at = info.memory_map + index * size_of::<MemoryEntry>() as u64;
        if at >= reach() {
            break;
        }
        // SAFETY: as for the start information.
        let entry = unsafe { &*at_physical(at).cast::<MemoryEntry>() };
        let start = entry.address.max(image);
        let end = (entry.address.saturating_add(entry.size)).min(reach());
        if entry.kind == 1 && end > start && end - start > best.end - best.start {
            best = Memory { start, end };
        }
    }
    best
}

/// The first CPU arrives here, with paging on and a stack.
///
/// # Safety
/// Called once, by `boot_entry`.
#[unsafe(no_mangle)]
unsafe extern "C" fn kernel_entry(info: usize) -> ! {
    START_INFO.store(info as u64, Ordering::Relaxed);
    trap::prepare();
    super::protection_keys::enable();
    descriptors::load(0);
    apic::enable(trap::SPURIOUS);
    cpu::name_apic(0, apic::id());
    // The old interrupt controllers stay silent.
    super::port::out8(0x21, 0xff);
    super::port::out8(0xa1, 0xff);
    time::calibrate();
    let cpu = cpu::this();
    cpu::interrupts_on();
    crate::main(cpu)
}
