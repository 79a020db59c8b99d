//! Starting the other CPUs: INIT, SIPI, SIPI (SDM vol. 3A, 10.4.4).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::cpu::{self, BareCpu, MAX_CPUS};
use super::paging::at_physical;
use super::{acpi, apic, boot, descriptors, protection_keys, time, trap};

const STACK: usize = 64 << 10;
const TRAMPOLINE: u64 = 0x8000;

/// Nanoseconds from each SIPI to the next, and from the last to giving up. An emulated CPU is a thread that its host may leave waiting for long, and ignores a SIPI that it does not wait for.
const PATIENCE: [u64; 2] = [100_000_000, 20_000_000_000];

#[repr(C, align(16))]
struct Stack([u8; STACK]);

struct Stacks(UnsafeCell<[Stack; MAX_CPUS]>);

// SAFETY: nothing here but addresses; each stack is used by one CPU.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([const { Stack([0; STACK]) }; MAX_CPUS]));

core::arch::global_asm!(
    r#"
    .section .bss
    .balign 16
    .global kernel_stack0_end
    .skip 65536
kernel_stack0_end:
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
    static trampoline_stack: u8;
}

static STARTED: AtomicUsize = AtomicUsize::new(1);
static BODY: AtomicUsize = AtomicUsize::new(0);

/// Starts all other CPUs, each of which runs `body`, and returns how many there are now. No more than there is room for.
pub(crate) fn start_others(body: fn(BareCpu) -> !) -> usize {
    BODY.store(body as usize, Ordering::Release);
    let own = apic::id();
    let from = (&raw const trampoline).cast::<u8>() as usize;
    let length = (&raw const trampoline_end) as usize - from;
    let code = at_physical(from as u64 & 0x3fff_ffff);
    // SAFETY: the page below 1 MiB is free memory that nothing else uses; the trampoline is shorter.
    unsafe { core::ptr::copy_nonoverlapping(code, at_physical(TRAMPOLINE), length) };
    let stack_at = TRAMPOLINE + ((&raw const trampoline_stack) as usize - from) as u64;
    let found = acpi::for_each_cpu(boot::root_pointer(), |apic| {
        let number = STARTED.load(Ordering::Acquire);
        if apic == own || number == MAX_CPUS {
            return;
        }
        cpu::name_apic(number, apic);
        let stack = STACKS.0.get() as usize + (number + 1) * STACK;
        // SAFETY: inside the copy of the trampoline, which no CPU uses now.
        unsafe { at_physical(stack_at).cast::<usize>().write_volatile(stack) };
        apic::send(apic, apic::INIT);
        time::delay(200);
        for patience in PATIENCE {
            apic::send(apic, apic::START_UP);
            let start = time::now();
            while STARTED.load(Ordering::Acquire) == number && time::nanoseconds(time::now() - start) < patience {
                core::hint::spin_loop();
            }
            if STARTED.load(Ordering::Acquire) != number {
                return;
            }
        }
        panic!("CPU {number} (APIC {apic}) does not start");
    });
    if found.is_none() {
        crate::console::line!(
            "no ACPI tables within reach, so only one CPU is used; the pae image reaches 896 MiB: give the machine less (qemu -m 512)"
        );
    }
    STARTED.load(Ordering::Acquire)
}

/// Every other CPU arrives here, with paging on and a stack.
///
/// # Safety
/// Called once by each, by the trampoline.
#[unsafe(no_mangle)]
unsafe extern "C" fn cpu_entry() -> ! {
    let number = STARTED.load(Ordering::Acquire);
    trap::load();
    protection_keys::enable();
    descriptors::load(number);
    apic::enable(trap::SPURIOUS);
    cpu::set_online(number);
    cpu::interrupts_on();
    let body = BODY.load(Ordering::Acquire);
    // SAFETY: only `start_others` writes it, and it takes a function of this type.
    let body = unsafe { core::mem::transmute::<usize, fn(BareCpu) -> !>(body) };
    STARTED.store(number + 1, Ordering::Release);
    body(cpu::this())
}
