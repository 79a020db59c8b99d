//! Stacks for agents, and the switch between them.
//!
//! An agent is ordinary blocking code on a stack of its own. A suspended agent is entirely described by the bytes of its
//! stack above its stack pointer: the switch pushes what the calling convention preserves.

use std::cell::RefCell;

use crate::mapping::{Mapping, PAGE_BYTES};

#[cfg(not(all(target_arch = "x86_64", unix)))]
compile_error!("the lab switches stacks by hand: only x86-64 unix hosts are supported");

/// Enough for an engine built without optimisation, formatting a panic message.
const STACK_BYTES: usize = 256 << 10;

/// Memory for one stack, with a guard page below.
pub(crate) struct Stack(Mapping);

impl Stack {
    fn map() -> Self {
        let mut memory = Mapping::new(PAGE_BYTES + STACK_BYTES);
        memory.guard_lowest_page();
        Self(memory)
    }

    /// One past the highest address; 16-byte aligned.
    pub(crate) fn top(&self) -> *mut u64 {
        self.0.base().wrapping_add(self.0.bytes()).cast()
    }
}

thread_local! {
    static POOL: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
}

/// A stack that nobody uses, fresh or used before.
pub(crate) fn take() -> Stack {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(Stack::map)
}

/// Gives a stack back for the next [`take`] on this thread. Frames on it are abandoned, not unwound.
pub(crate) fn give_back(stack: Stack) {
    const KEPT: usize = 64;
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT {
            pool.push(stack);
        }
    });
}

/// The function that a new agent begins with. It never returns.
pub(crate) type Entry = unsafe extern "sysv64" fn(*mut ()) -> !;

/// Prepares a stack so that switching to the returned stack pointer calls `entry(argument)`.
///
/// # Safety
/// `top` is the top of a stack that nobody uses.
pub(crate) unsafe fn prepare(top: *mut u64, entry: Entry, argument: *mut ()) -> *mut u64 {
    // Upwards, as `switch` pops them: r15 to r12, rbx, rbp, the address it returns to. Two words of padding make the stack
    // pointer a multiple of 16 where `begin` calls.
    let frame = [0, 0, entry as *const () as u64, argument as u64, 0, 0, begin as *const () as u64, 0, 0];
    let sp = top.wrapping_sub(frame.len());
    // SAFETY: the nine words below the top of an unused stack are the caller's to write.
    unsafe { sp.cast::<[u64; 9]>().write(frame) };
    sp
}

/// The first instructions of an agent: `r13` and `r12` were popped from what [`prepare`] wrote.
#[unsafe(naked)]
unsafe extern "sysv64" fn begin() {
    core::arch::naked_asm!("mov rdi, r12", "xor ebp, ebp", "call r13", "ud2")
}

/// Saves the caller's stack pointer in `*save` and continues where `load` was saved.
///
/// # Safety
/// `load` comes from [`prepare`] or from an earlier switch, and the words above it are as they were then.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn switch(save: *mut *mut u64, load: *mut u64) {
    core::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        outside: *mut u64,
        inside: *mut u64,
        told: u64,
    }

    unsafe extern "sysv64" fn counter(argument: *mut ()) -> ! {
        let pair = argument.cast::<Pair>();
        let mut count = 10;
        loop {
            count += 1;
            // SAFETY: the test keeps the pair alive and waits in its own switch.
            unsafe { leave(pair, count) };
        }
    }

    unsafe fn leave(pair: *mut Pair, told: u64) {
        // SAFETY: the caller's promise.
        let pair = unsafe { &mut *pair };
        pair.told = told;
        let (inside, outside) = (&raw mut pair.inside, pair.outside);
        // SAFETY: whoever saved `outside` waits there.
        unsafe { switch(inside, outside) };
    }

    unsafe fn enter(pair: *mut Pair) -> u64 {
        // SAFETY: the caller's promise: the pair lives.
        let inside = unsafe { (*pair).inside };
        // SAFETY: as above.
        let outside = unsafe { &raw mut (*pair).outside };
        // SAFETY: prepared, or saved by `leave`.
        unsafe { switch(outside, inside) };
        // SAFETY: as above.
        unsafe { (*pair).told }
    }

    #[test]
    fn a_stack_can_be_left_copied_and_restored() {
        let stack = take();
        let mut pair = Pair { outside: std::ptr::null_mut(), inside: std::ptr::null_mut(), told: 0 };
        let at = &raw mut pair;
        // SAFETY: nobody uses the stack yet.
        let sp = unsafe { prepare(stack.top(), counter, at.cast()) };
        // SAFETY: `pair` is a live local.
        unsafe { (*at).inside = sp };
        // SAFETY: `pair` outlives the agent, here and below.
        let resume = move || unsafe { enter(at) };
        assert_eq!(resume(), 11);
        // SAFETY: the agent is suspended.
        let sp = unsafe { (*at).inside };
        // SAFETY: both pointers are into the stack's one mapping.
        let live = unsafe { stack.top().offset_from(sp) } as usize;
        // SAFETY: the live part of a suspended stack.
        let copy = unsafe { std::slice::from_raw_parts(sp, live) }.to_vec();
        assert_eq!([resume(), resume()], [12, 13]);
        // SAFETY: the agent is suspended: its stack is ours to rewrite.
        unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr(), sp, live) };
        // SAFETY: as above.
        unsafe { (*at).inside = sp };
        assert_eq!(resume(), 12);
        give_back(stack);
    }
}
