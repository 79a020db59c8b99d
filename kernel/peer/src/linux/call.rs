//! The instruction that calls Linux, and the process's first ones.

use core::arch::global_asm;

/// The number of a system call.
#[derive(Clone, Copy)]
pub(super) struct Number(usize);

/// Each with its number in a 32-bit process and in a 64-bit one.
macro_rules! numbers {
    ($($name:ident $narrow:literal $wide:literal)*) => {
        impl Number {
            $(pub(super) const $name: Self = Self(if cfg!(target_arch = "x86") { $narrow } else { $wide });)*
        }
    };
}

numbers! {
    EXIT 1 60
    FORK 2 57
    WRITE 4 1
    CLOSE 6 3
    IOCTL 54 16
    FCNTL 55 72
    GETPPID 64 110
    GETRUSAGE 77 98
    MMAP 90 9
    MUNMAP 91 11
    IOPERM 101 173
    WAIT4 114 61
    SYSINFO 116 99
    MPROTECT 125 10
    MADVISE 219 28
    SCHED_SETAFFINITY 241 203
    SCHED_GETAFFINITY 242 204
    CLOCK_GETTIME 265 228
    VMSPLICE 316 278
    PIPE2 331 293
    IO_URING_SETUP 425 425
    IO_URING_REGISTER 427 427
}

unsafe extern "C" {
    fn system_call(number: usize, arguments: *const usize) -> isize;
    fn clone_thread(flags: usize, stack: usize) -> isize;
}

/// Calls Linux.
///
/// # Safety
/// As of the call: what it does to this process's memory.
pub(super) unsafe fn call(number: Number, arguments: [usize; 6]) -> isize {
    // SAFETY: the caller's promise.
    unsafe { system_call(number.0, arguments.as_ptr()) }
}

/// Starts a thread on a stack of its own; it runs [`crate::work::beside`].
///
/// # Safety
/// The stack is the thread's for ever, and `flags` share the address space.
pub(super) unsafe fn start(flags: usize, stack: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { clone_thread(flags, stack) }
}

/// A new thread begins here.
///
/// # Safety
/// Called by `clone_thread`, on the new stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn peer_thread() -> ! {
    crate::work::beside()
}

// Five arguments are enough in a 32-bit process: there `mmap` takes a pointer to its six.
#[cfg(target_arch = "x86")]
global_asm!(
    r#"
    .text
    .global _start, system_call, clone_thread
_start:
    xorl %ebp, %ebp
    andl $-16, %esp
    call peer_main
system_call:
    pushl %ebx
    pushl %esi
    pushl %edi
    movl 16(%esp), %eax
    movl 20(%esp), %edi
    movl (%edi), %ebx
    movl 4(%edi), %ecx
    movl 8(%edi), %edx
    movl 12(%edi), %esi
    movl 16(%edi), %edi
    int $0x80
    popl %edi
    popl %esi
    popl %ebx
    ret
clone_thread:
    pushl %ebx
    movl 8(%esp), %ebx
    movl 12(%esp), %ecx
    movl $120, %eax
    int $0x80
    testl %eax, %eax
    jnz 1f
    xorl %ebp, %ebp
    call peer_thread
1:  popl %ebx
    ret
    "#,
    options(att_syntax, raw)
);

#[cfg(target_arch = "x86_64")]
global_asm!(
    r#"
    .text
    .global _start, system_call, clone_thread
_start:
    xorl %ebp, %ebp
    andq $-16, %rsp
    call peer_main
system_call:
    movq %rdi, %rax
    movq %rsi, %r11
    movq (%r11), %rdi
    movq 8(%r11), %rsi
    movq 16(%r11), %rdx
    movq 24(%r11), %r10
    movq 32(%r11), %r8
    movq 40(%r11), %r9
    syscall
    ret
clone_thread:
    movl $56, %eax
    xorl %edx, %edx
    xorl %r10d, %r10d
    xorl %r8d, %r8d
    syscall
    testq %rax, %rax
    jnz 1f
    xorl %ebp, %ebp
    call peer_thread
1:  ret
    "#,
    options(att_syntax, raw)
);
