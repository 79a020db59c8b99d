//! Stacks for agents, and the switch between them.
//!
//! An agent is ordinary blocking code on a stack of its own. A suspended agent is entirely described by the bytes of its
//! stack above its stack pointer: the switch pushes what the calling convention preserves.

use std::cell::RefCell;
use std::ptr;

use crate::mapping::{Mapping, PAGE_BYTES};

#[cfg(not(all(target_arch = "x86_64", unix)))]
compile_error!("the lab switches stacks by hand: only x86-64 unix hosts are supported");

/// Enough for an engine built without optimisation, formatting a panic message.
const STACK_BYTES: usize = 256 << 10;

/// Memory for one stack, with a guard page below, and a copy of what was live on it when its agent was last suspended.
///
/// The copy is what makes undoing cheap: of the kilobytes that are live, a step changes a few words, and only these have to be remembered.
pub(crate) struct Stack {
    memory: Mapping,
    copy: Mapping,
}

/// Pieces of stacks as they were before steps: the words of a piece, then where it was and how long it is.
pub(crate) type StackLog = Vec<u64>;

impl Stack {
    fn map() -> Self {
        let mut memory = Mapping::new(PAGE_BYTES + STACK_BYTES);
        memory.guard_lowest_page();
        Self { memory, copy: Mapping::new(PAGE_BYTES + STACK_BYTES) }
    }

    /// One past the highest address; 16-byte aligned.
    pub(crate) fn top(&self) -> *mut u64 {
        self.memory.base().wrapping_add(self.memory.bytes()).cast()
    }

    fn index_of(&self, word: *mut u64) -> usize {
        (word.addr() - self.memory.base().addr()) / 8
    }

    /// The agent was suspended at `before` and is now at `now`: notes the words that were live and have changed, or may change unnoticed from now
    /// on because they are no longer live. Brings the copy up to date.
    ///
    /// # Safety
    /// Both are stack pointers of this stack, nobody runs on it, and the copy is that of `before`.
    pub(crate) unsafe fn note_changes(&mut self, before: *mut u64, now: *mut u64, log: &mut StackLog) {
        let (stack, copy) = (self.memory.base().cast::<u64>(), self.copy.base().cast::<u64>());
        let (before, now, top) = (self.index_of(before), self.index_of(now), self.memory.bytes() / 8);
        if top - before <= SMALL {
            if before < top {
                self.save(before, top - before, log);
            }
            // SAFETY: both mappings reach from index 0 to `top`.
            unsafe { ptr::copy_nonoverlapping(stack.wrapping_add(now), copy.wrapping_add(now), top - now) };
            return;
        }
        if now < before {
            // SAFETY: both mappings reach from index 0 to `top`, and `before` is not above it.
            unsafe { ptr::copy_nonoverlapping(stack.wrapping_add(now), copy.wrapping_add(now), before - now) };
        } else if before < now {
            self.save(before, now - before, log);
        }
        let mut index = before.max(now);
        while index < top {
            // SAFETY: as many words are inside both mappings; they are looked at as integers only.
            index += unsafe { equal_words(stack.wrapping_add(index), copy.wrapping_add(index), top - index) };
            if top - index >= CHUNK {
                // Of constant length, so that no copy is a call.
                self.save(index, CHUNK, log);
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(stack.wrapping_add(index), copy.wrapping_add(index), CHUNK) };
                index += CHUNK;
            } else if index < top {
                self.save(index, top - index, log);
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(stack.wrapping_add(index), copy.wrapping_add(index), top - index) };
                index = top;
            }
        }
    }

    /// Whether everything that was live when the agent was suspended at `now` is still as it was then: nobody writes to the stack of an agent that does not run.
    ///
    /// # Safety
    /// `now` is a stack pointer of this stack, and nobody runs on it.
    pub(crate) unsafe fn is_as_noted(&self, now: *mut u64) -> bool {
        let (stack, copy) = (self.memory.base().cast::<u64>(), self.copy.base().cast::<u64>());
        let (now, top) = (self.index_of(now), self.memory.bytes() / 8);
        (now..top).all(|index| {
            // SAFETY: both mappings reach from index 0 to `top`; the words are looked at as integers only.
            let noted = unsafe { copy.wrapping_add(index).read() };
            // SAFETY: as above.
            noted == unsafe { stack.wrapping_add(index).read() }
        })
    }

    /// Writes down a piece of the copy.
    #[inline(always)]
    fn save(&self, index: usize, count: usize, log: &mut StackLog) {
        // SAFETY: callers pass pieces inside the mapping, whose words are initialised: it is zeroed memory, and integers were copied to it.
        let words = unsafe { std::slice::from_raw_parts(self.copy.base().cast::<u64>().wrapping_add(index), count) };
        log.extend_from_slice(words);
        log.push((index as u64) << 32 | count as u64);
    }

    /// Undoes what [`Self::note_changes`] noted: everything in the log beyond its first `until` words.
    ///
    /// # Safety
    /// That was noted of this stack, in its latest step that was not undone, and nobody runs on it.
    pub(crate) unsafe fn put_back(&mut self, log: &mut StackLog, until: usize) {
        let (stack, copy) = (self.memory.base().cast::<u64>(), self.copy.base().cast::<u64>());
        while log.len() > until {
            let Some(place) = log.pop() else { unreachable!("longer than `until`") };
            let (index, count) = ((place >> 32) as usize, place as u32 as usize);
            let words = log[log.len() - count..].as_ptr();
            let (stack, copy) = (stack.wrapping_add(index), copy.wrapping_add(index));
            if count == CHUNK {
                // SAFETY: the piece was inside the mapping when it was noted; the log is elsewhere.
                unsafe { ptr::copy_nonoverlapping(words, stack, CHUNK) };
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(words, copy, CHUNK) };
            } else {
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(words, stack, count) };
                // SAFETY: as above.
                unsafe { ptr::copy_nonoverlapping(words, copy, count) };
            }
            log.truncate(log.len() - count);
        }
    }
}

/// So many live words are saved faster than they are compared.
const SMALL: usize = 96;

/// Words compared at a time.
const CHUNK: usize = 8;

/// How many words, in whole chunks, are the same at the beginning of two places.
///
/// # Safety
/// There are `count` words at each.
#[inline(always)]
unsafe fn equal_words(one: *const u64, other: *const u64, count: usize) -> usize {
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2; the rest is the caller's promise.
        unsafe { equal_words_avx2(one, other, count) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { equal_words_plain(one, other, count) }
    }
}

/// The same code, compiled to wider instructions: this is most of what a step costs.
#[target_feature(enable = "avx2")]
unsafe fn equal_words_avx2(one: *const u64, other: *const u64, count: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { equal_words_plain(one, other, count) }
}

#[inline(always)]
unsafe fn equal_words_plain(one: *const u64, other: *const u64, count: usize) -> usize {
    let mut index = 0;
    while index + CHUNK <= count {
        // SAFETY: `CHUNK` words from `index` on are among the `count`.
        let one = unsafe { one.wrapping_add(index).cast::<[u64; CHUNK]>().read() };
        // SAFETY: as above.
        let other = unsafe { other.wrapping_add(index).cast::<[u64; CHUNK]>().read() };
        // Folded by hand: comparing arrays would call `memcmp` each time.
        if one.iter().zip(&other).fold(0, |differences, (one, other)| differences | (one ^ other)) != 0 {
            break;
        }
        index += CHUNK;
    }
    index
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
    fn a_stack_can_be_left_and_put_back() {
        let mut stack = take();
        let mut pair = Pair { outside: ptr::null_mut(), inside: ptr::null_mut(), told: 0 };
        let at = &raw mut pair;
        // SAFETY: nobody uses the stack yet.
        let sp = unsafe { prepare(stack.top(), counter, at.cast()) };
        // SAFETY: `pair` is a live local.
        unsafe { (*at).inside = sp };
        // SAFETY: `pair` outlives the agent, here and below.
        let resume = move || unsafe { enter(at) };
        assert_eq!(resume(), 11);
        let mut changes = Vec::new();
        // SAFETY: the agent is suspended.
        let first = unsafe { (*at).inside };
        // SAFETY: the agent was at the top and is suspended at `first`.
        unsafe { stack.note_changes(stack.top(), first, &mut changes) };
        assert!(changes.is_empty(), "nothing was live before");
        assert_eq!([resume(), resume()], [12, 13]);
        // SAFETY: the agent is suspended again.
        let later = unsafe { (*at).inside };
        // SAFETY: as above.
        unsafe { stack.note_changes(first, later, &mut changes) };
        assert!(!changes.is_empty());
        // SAFETY: these are the changes since `first`.
        unsafe { stack.put_back(&mut changes, 0) };
        // SAFETY: as above.
        unsafe { (*at).inside = first };
        assert_eq!(resume(), 12);
        give_back(stack);
    }
}
