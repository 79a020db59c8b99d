//! Traps: interrupts of other CPUs, the end of user code, and what nobody expected.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use machine::Vector;

use super::cpu::{self, BareCpu, MAX_CPUS};
use super::descriptors::{Pointer, selector};
use super::{apic, user};

const SHOOTDOWN: u8 = 0x40;
const SYNCHRONISE: u8 = 0x41;
/// Whether this CPU is in an RCU section.
pub(super) const RCU: u8 = 0x42;
/// There is something to do.
pub(super) const WAKE: u8 = 0x43;
/// Nobody sent it.
pub(super) const SPURIOUS: u8 = 0xff;
pub(super) const PAGE_FAULT: u32 = 14;
const USER_RETURN: usize = 0x80;

/// What the entry code leaves on the stack.
#[cfg(target_arch = "x86")]
#[repr(C)]
#[derive(Debug)]
pub(super) struct Frame {
    edi: usize,
    esi: usize,
    ebp: usize,
    esp: usize,
    ebx: usize,
    edx: usize,
    ecx: usize,
    eax: usize,
    pub(super) vector: usize,
    pub(super) error: usize,
    eip: usize,
    cs: usize,
    eflags: usize,
}

#[cfg(target_arch = "x86_64")]
#[repr(C)]
#[derive(Debug)]
pub(super) struct Frame {
    r15: usize,
    r14: usize,
    r13: usize,
    r12: usize,
    r11: usize,
    r10: usize,
    r9: usize,
    r8: usize,
    rbp: usize,
    rdi: usize,
    rsi: usize,
    rdx: usize,
    rcx: usize,
    rbx: usize,
    rax: usize,
    pub(super) vector: usize,
    pub(super) error: usize,
    rip: usize,
    cs: usize,
    rflags: usize,
    rsp: usize,
    ss: usize,
}

impl Frame {
    #[cfg(target_arch = "x86")]
    pub(super) fn value(&self) -> u64 {
        (self.edx as u64) << 32 | self.eax as u64
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn value(&self) -> u64 {
        self.rax as u64
    }

    fn registers(&self) -> &[usize] {
        // SAFETY: the frame is made of registers only.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>() / size_of::<usize>()) }
    }
}

#[cfg(target_arch = "x86")]
const NAMES: &[&str] =
    &["edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax", "vector", "error", "eip", "cs", "eflags"];
#[cfg(target_arch = "x86_64")]
const NAMES: &[&str] = &[
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx", "rax", "vector",
    "error", "rip", "cs", "rflags", "rsp", "ss",
];

// A stub for each vector, 16 bytes apart: pushes an error code where the CPU does not, and the vector.
#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21
    pushl $0
    .endif
    pushl $vector
    jmp trap_common
    .set vector, vector + 1
    .endr
trap_common:
    pushal
    cld
    movl %esp, %ebx
    testl $3, 44(%esp)
    jnz 1f
    # Kernel code was interrupted, maybe with a value in a vector register.
    subl $528, %esp
    andl $-16, %esp
    fxsave (%esp)
    movl %esp, %esi
    subl $16, %esp
    movl %ebx, (%esp)
    call trap
    fxrstor (%esi)
    jmp 2f
1:  andl $-16, %esp
    subl $16, %esp
    movl %ebx, (%esp)
    call trap
2:  movl %ebx, %esp
    popal
    addl $8, %esp
    iretl
    "#,
    options(att_syntax)
);

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr
trap_common:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static trap_stubs: u8;
}

const STACK: usize = 16 << 10;

#[repr(C, align(16))]
struct Stack([u8; STACK]);

/// The stacks on which traps out of user code run.
pub(super) struct Stacks(UnsafeCell<[Stack; MAX_CPUS]>);

// SAFETY: nothing here but addresses; each stack is used by one CPU.
unsafe impl Sync for Stacks {}

impl Stacks {
    pub(super) fn top(&self, number: usize) -> usize {
        self.0.get() as usize + (number + 1) * STACK
    }
}

pub(super) static TRAP_STACKS: Stacks = Stacks(UnsafeCell::new([const { Stack([0; STACK]) }; MAX_CPUS]));

const GATE_WORDS: usize = if cfg!(target_arch = "x86") { 2 } else { 4 };

struct Gates(UnsafeCell<[u32; 256 * GATE_WORDS]>);

// SAFETY: written by the first CPU before there are others, and only read by the hardware then.
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([0; 256 * GATE_WORDS]));

/// Makes the table of gates; called once, by the first CPU.
pub(super) fn prepare() {
    let stubs = (&raw const trap_stubs) as u64;
    for vector in 0..256 {
        let at = stubs + 16 * vector as u64;
        let rights: u32 = if vector == USER_RETURN { 0xee00 } else { 0x8e00 };
        let gate = [
            (selector::KERNEL_CODE as u32) << 16 | at as u32 & 0xffff,
            at as u32 & 0xffff_0000 | rights,
            (at >> 32) as u32,
            0,
        ];
        for (index, word) in gate.iter().take(GATE_WORDS).enumerate() {
            // SAFETY: nobody else has the table yet; the index is within it.
            unsafe { GATES.0.get().cast::<u32>().add(vector * GATE_WORDS + index).write(*word) };
        }
    }
    load();
}

/// Makes this CPU use the table of gates.
pub(super) fn load() {
    let pointer = Pointer { limit: (256 * GATE_WORDS * 4 - 1) as u16, base: GATES.0.get() as usize };
    // SAFETY: the table is complete and lives for ever.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags)) };
}

pub(super) const fn vector_of(vector: Vector) -> u8 {
    match vector {
        Vector::TlbShootdown => SHOOTDOWN,
        Vector::Synchronise => SYNCHRONISE,
    }
}

/// What the memory manager does with an interrupt.
type Handler = fn(&BareCpu, Vector);

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Whom interrupts of other CPUs go to. Before this is called none may be sent.
pub(crate) fn set_handler(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::Release);
}

fn handle(cpu: &BareCpu, vector: Vector) {
    let handler = HANDLER.load(Ordering::Acquire);
    assert!(handler != 0, "an interrupt before there is anybody to handle it");
    // SAFETY: only `set_handler` writes it, and it takes a function of this type.
    let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
    handler(cpu, vector);
}

/// CR2.
pub(super) fn fault_address() -> u64 {
    let address: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address as u64
}

/// Every trap arrives here, with interrupts off.
///
/// # Safety
/// Called by the entry code, with what it left on the stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn trap(frame: *mut Frame) {
    // SAFETY: the caller's promise.
    let frame = unsafe { &*frame };
    let cpu = cpu::this();
    let vector = frame.vector as u8;
    match vector {
        SHOOTDOWN | SYNCHRONISE | RCU | WAKE => {
            match vector {
                SHOOTDOWN => handle(&cpu, Vector::TlbShootdown),
                SYNCHRONISE => handle(&cpu, Vector::Synchronise),
                RCU => cpu.rcu_asked(),
                _ => {}
            }
            let count = &cpu.state().interrupts;
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            apic::end_of_interrupt();
        }
        SPURIOUS => {}
        _ => {
            if frame.cs & 3 == 3
                && let Some(outcome) = user::outcome_of(frame)
            {
                cpu.state().user.leave(outcome);
            }
            let registers = NAMES.iter().copied().zip(frame.registers().iter().map(|register| *register as u64));
            let more = [("cr2", fault_address()), ("root", cpu.root())];
            crate::report::fault(&cpu, vector, fault_address(), cpu.root(), registers.chain(more));
        }
    }
}
