//! Segments and task states. A CPU knows its number by the task state that is loaded on it: `str` is cheap and needs no memory.

use core::cell::UnsafeCell;

use super::cpu::MAX_CPUS;
use super::trap::TRAP_STACKS;

/// Selectors.
pub(super) mod selector {
    #[cfg(target_arch = "x86")]
    pub(in super::super) const USER_CODE: usize = 0x1b;
    #[cfg(target_arch = "x86_64")]
    pub(in super::super) const USER_CODE: usize = 0x2b;
    pub(in super::super) const USER_DATA: usize = 0x23;
    pub(in super::super) const KERNEL_CODE: usize = 0x08;
    pub(super) const FIRST_TASK: usize = 0x40;
}

/// Slots of a task state in the table.
const TASK_SLOTS: usize = if cfg!(target_arch = "x86") { 1 } else { 2 };

#[repr(C, align(64))]
struct Task([u32; 28]);

struct Tables {
    gdt: UnsafeCell<[u64; 8 + 2 * MAX_CPUS]>,
    tasks: UnsafeCell<[Task; MAX_CPUS]>,
}

// SAFETY: every CPU writes only what belongs to its own number, once, before it uses it.
unsafe impl Sync for Tables {}

#[cfg(target_arch = "x86")]
const SEGMENTS: [u64; 8] =
    [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff, 0, 0, 0];
#[cfg(target_arch = "x86_64")]
const SEGMENTS: [u64; 8] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0, 0];

static TABLES: Tables = Tables {
    gdt: UnsafeCell::new({
        let mut gdt = [0; 8 + 2 * MAX_CPUS];
        let mut index = 0;
        while index < 8 {
            gdt[index] = SEGMENTS[index];
            index += 1;
        }
        gdt
    }),
    tasks: UnsafeCell::new([const { Task([0; 28]) }; MAX_CPUS]),
};

#[repr(C, packed)]
pub(super) struct Pointer {
    pub(super) limit: u16,
    pub(super) base: usize,
}

/// Makes this CPU the one with this number.
pub(super) fn load(number: usize) {
    let stack = TRAP_STACKS.top(number);
    let gdt = TABLES.gdt.get().cast::<u64>();
    let task = TABLES.tasks.get().cast::<Task>().wrapping_add(number);
    let base = task as u64;
    let limit = size_of::<Task>() as u64 - 1;
    // SAFETY: this CPU's own task state and descriptor; see `Tables`.
    unsafe {
        let words = task.cast::<u32>();
        words.add(1).write(stack as u32);
        words.add(2).write(if cfg!(target_arch = "x86") { 0x10 } else { (stack as u64 >> 32) as u32 });
        words.add(25).write((limit as u32 + 1) << 16);
        let at = gdt.add(8 + number * TASK_SLOTS);
        at.write(limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56);
        if TASK_SLOTS == 2 {
            at.add(1).write(base >> 32);
        }
    }
    let pointer = Pointer { limit: (size_of::<[u64; 8 + 2 * MAX_CPUS]>() - 1) as u16, base: gdt as usize };
    let selector = selector::FIRST_TASK + number * 8 * TASK_SLOTS;
    // SAFETY: the table is complete, its kernel segments are flat like those that are loaded, and lives for ever. Data segments of user code are flat, too,
    // and stay loaded in the kernel, so that traps need not change them.
    unsafe {
        core::arch::asm!(
            "lgdt [{pointer}]",
            "mov ds, {user:e}",
            "mov es, {user:e}",
            "ltr {task:x}",
            pointer = in(reg) &raw const pointer,
            user = in(reg) selector::USER_DATA,
            task = in(reg) selector,
            options(nostack, preserves_flags)
        );
        #[cfg(target_arch = "x86")]
        core::arch::asm!(
            "mov ss, {stack:e}", "push {code:e}", "lea {scratch:e}, [2f]", "push {scratch:e}", "retf", "2:",
            stack = in(reg) 0x10, code = in(reg) selector::KERNEL_CODE, scratch = out(reg) _
        );
    }
}

/// The number of this CPU.
pub(super) fn number() -> usize {
    let selector: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("str {0:e}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    ((selector & 0xffff) - selector::FIRST_TASK) / (8 * TASK_SLOTS)
}
