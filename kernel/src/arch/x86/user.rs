//! User code: small pieces in ring 3 that load, store or only arrive, and come back by `int 0x80` or by a page fault.

use core::cell::UnsafeCell;

use machine::VirtAddr;

use super::descriptors::selector;
use super::paging::USER_TEXT;
use super::trap::Frame;

#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    r#"
    .section .user, "ax"
    .balign 4096
    .global user_stub, user_load, user_store, user_touch
user_stub:
user_load:
    movl (%esi), %eax
    movl 4(%esi), %edx
    int $0x80
user_store:
    movl %eax, (%esi)
    movl %edx, 4(%esi)
    int $0x80
user_touch:
    lock addl $0, (%esi)
    int $0x80

    .text
    .global enter_user, leave_user
enter_user:
    pushl %ebp
    pushl %ebx
    pushl %esi
    pushl %edi
    movl 20(%esp), %ecx
    movl 24(%esp), %edx
    movl %esp, (%edx)
    pushl ${user_data}
    pushl $0
    pushl $0x202
    pushl ${user_code}
    pushl (%ecx)
    movl 4(%ecx), %esi
    movl 8(%ecx), %eax
    movl 12(%ecx), %edx
    iretl
leave_user:
    movl 4(%esp), %esp
    popl %edi
    popl %esi
    popl %ebx
    popl %ebp
    ret
    "#,
    user_data = const selector::USER_DATA,
    user_code = const selector::USER_CODE,
    options(att_syntax)
);

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    r#"
    .section .user, "ax"
    .balign 4096
    .global user_stub, user_load, user_store, user_touch
user_stub:
user_load:
    movq (%rsi), %rax
    int $0x80
user_store:
    movq %rax, (%rsi)
    int $0x80
user_touch:
    lock addq $0, (%rsi)
    int $0x80

    .text
    .global enter_user, leave_user
enter_user:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rsi)
    pushq ${user_data}
    pushq $0
    pushq $0x202
    pushq ${user_code}
    pushq (%rdi)
    movq 8(%rdi), %rsi
    movq 16(%rdi), %rax
    iretq
leave_user:
    movq %rdi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    "#,
    user_data = const selector::USER_DATA,
    user_code = const selector::USER_CODE,
    options(att_syntax)
);

unsafe extern "C" {
    static user_stub: u8;
    static user_load: u8;
    static user_store: u8;
    static user_touch: u8;
    fn enter_user(call: *const UserCall, saved: *mut usize);
    fn leave_user(saved: usize) -> !;
}

/// The bits of a page fault's error code (SDM vol. 3A, 4.7).
pub(crate) mod fault_bits {
    /// A translation exists and forbids the access.
    pub(crate) const PROTECTION: u32 = 1 << 0;
    /// The access was a store.
    pub(crate) const WRITE: u32 = 1 << 1;
    /// By user code.
    pub(crate) const USER: u32 = 1 << 2;
    /// An entry has reserved bits set.
    pub(crate) const RESERVED: u32 = 1 << 3;
    /// An instruction was fetched.
    pub(crate) const FETCH: u32 = 1 << 4;
    /// PKRU forbids it for the key of the page.
    pub(crate) const PROTECTION_KEY: u32 = 1 << 5;
}

/// What user code is to do: where it begins, and the registers that it finds.
#[repr(C)]
pub(crate) struct UserCall {
    at: usize,
    address: usize,
    value: [u32; 2],
}

impl UserCall {
    fn stub(code: *const u8, address: VirtAddr, value: u64) -> Self {
        let offset = code as usize - &raw const user_stub as usize;
        let at = USER_TEXT as usize + offset;
        Self { at, address: address.as_u64() as usize, value: [value as u32, (value >> 32) as u32] }
    }

    /// Loads 8 bytes; on a 32-bit CPU in two halves.
    pub(crate) fn load(address: VirtAddr) -> Self {
        Self::stub(&raw const user_load, address, 0)
    }

    /// Stores 8 bytes; on a 32-bit CPU in two halves.
    pub(crate) fn store(address: VirtAddr, value: u64) -> Self {
        Self::stub(&raw const user_store, address, value)
    }

    /// Adds 0 to 4 or 8 bytes.
    pub(crate) fn touch(address: VirtAddr) -> Self {
        Self::stub(&raw const user_touch, address, 0)
    }

    /// Runs what is at the address, which must be an `int 0x80` ([`RETURN`]).
    pub(crate) fn fetch(address: VirtAddr) -> Self {
        Self { at: address.as_u64() as usize, address: 0, value: [0; 2] }
    }

    /// `int 0x80`, as the first bytes of a word.
    pub(crate) const RETURN: u64 = 0x80cd;
}

/// How a piece of user code ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It came to its end, with this value.
    Done(u64),
    /// By a page fault.
    Fault {
        /// CR2.
        address: VirtAddr,
        /// The error code.
        error: u32,
    },
}

/// Where a CPU's user code goes back to, and how it ended. Touched by that CPU alone, with interrupts off.
pub(super) struct UserExit {
    saved: UnsafeCell<usize>,
    outcome: UnsafeCell<Outcome>,
}

// SAFETY: see `UserExit`.
unsafe impl Sync for UserExit {}

impl UserExit {
    pub(super) const fn new() -> Self {
        Self { saved: UnsafeCell::new(0), outcome: UnsafeCell::new(Outcome::Done(0)) }
    }

    /// From a trap out of ring 3: back to who called [`run`].
    pub(super) fn leave(&self, outcome: Outcome) -> ! {
        // SAFETY: this CPU's own, interrupts are off.
        unsafe { *self.outcome.get() = outcome };
        // SAFETY: as above; `enter_user` has put there where its frame is, and nobody has returned through it since.
        unsafe { leave_user(*self.saved.get()) }
    }
}

/// What a trap out of ring 3 means.
pub(super) fn outcome_of(frame: &Frame) -> Option<Outcome> {
    match frame.vector as u32 {
        0x80 => Some(Outcome::Done(frame.value())),
        super::trap::PAGE_FAULT => {
            Some(Outcome::Fault { address: VirtAddr::new(super::trap::fault_address()), error: frame.error as u32 })
        }
        _ => None,
    }
}

/// Runs user code. Called with interrupts off; they are on while it runs.
pub(super) fn run(exit: &UserExit, call: &UserCall) -> Outcome {
    // SAFETY: user code can do what page tables let it, which is what they are tested for; it comes back by `UserExit::leave`, on this CPU, which restores
    // the stack and what calls must preserve.
    unsafe { enter_user(call, exit.saved.get()) };
    // SAFETY: this CPU's own, interrupts are off.
    unsafe { *exit.outcome.get() }
}
