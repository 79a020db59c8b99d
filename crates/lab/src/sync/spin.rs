//! Loops that spin: a round that leaves a CPU as it was is forgotten.
//!
//! A loop that spins reads the same words until one changes. Each round would be another state, without end. A CPU that says twice in the same place that it spins, and whose stack and registers are then what
//! they were, knows nothing that it did not know before: what it has read in between is forgotten, as [`Cpu::round`] forgets it. Nothing is promised for that by whoever wrote the loop: a loop that counts its
//! rounds has another stack in each, and each is explored. If the round has only looked at one word, the CPU waits for that word: rounds in which it has not changed do nothing, and a word that never changes is a
//! deadlock.
//!
//! Words of the stack that nobody uses any more count as well. They can make a round look new, never old.

use std::hash::Hasher;
use std::panic::Location;

use machine::{Cpu, LoopHead, Word, Word64};
use xxhash_rust::xxh3::Xxh3Default;

use super::this_cpu;
use crate::cpu::LabCpu;
use crate::op::{Kind, Op};

/// What a CPU has done since it last span. Lies on the stack of its code, and is taken back with it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spin {
    /// Where it said so, and the digest of stack and registers there.
    place: Option<(&'static Location<'static>, u64)>,
    /// What it knew there.
    head: LoopHead,
    looked_at: LookedAt,
}

#[derive(Clone, Copy, Default)]
enum LookedAt {
    #[default]
    Nothing,
    /// A word: where it lies, how wide it is, and what it held.
    One { address: usize, bytes: usize, held: u64 },
    /// Several words, or it has changed one.
    More,
}

impl LabCpu {
    /// Code has read a word.
    pub(crate) fn noting_read<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        let mut spin = self.spin.get();
        let here = LookedAt::One { address: word.address(), bytes: W::BYTES, held: value.into() };
        spin.looked_at = match spin.looked_at {
            LookedAt::Nothing => here,
            LookedAt::One { address, .. } if address == word.address() => here,
            LookedAt::One { .. } | LookedAt::More => LookedAt::More,
        };
        self.spin.set(spin);
        value
    }

    /// Code has changed something.
    pub(crate) fn note_write(&self) {
        self.spin.set(Spin { looked_at: LookedAt::More, ..self.spin.get() });
    }

    /// Code has replaced what a word held, perhaps by the same.
    pub(crate) fn noting_update<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> W::Value {
        if old != new {
            self.note_write();
        }
        self.noting_read(word, old)
    }

    /// Waits until a word of so many bytes holds something else.
    fn await_change(&self, address: usize, bytes: usize, held: u64, location: &'static Location<'static>) {
        let Some(offset) = self.core().locate(address, bytes) else { return };
        let until = move |value: u64| value != held;
        let mut op = Op::new(Kind::AwaitValue);
        (op.address, op.bytes, op.location) = (offset, bytes as u8, location);
        op.wait_until::<Word64, _>(&until);
        self.access(op);
    }
}

/// `std::hint::spin_loop`.
///
/// # Panics
/// If no CPU of a lab runs on this thread.
#[inline(always)]
#[track_caller]
pub fn spin_loop() {
    let mut registers = Registers::default();
    // SAFETY: it writes all of `registers` and nothing else.
    unsafe { look_at_registers(&mut registers) };
    spin(registers, Location::caller());
}

/// The registers that a function preserves, where in the code the caller is, and its stack pointer.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Registers {
    preserved: [u64; 6],
    /// A loop that the compiler has unrolled counts its rounds by where it is.
    place: u64,
    stack: usize,
}

/// What the caller wants back after a call is on its stack or in the registers that calls preserve: this sees all of it.
#[unsafe(naked)]
unsafe extern "sysv64" fn look_at_registers(registers: *mut Registers) {
    core::arch::naked_asm!(
        "mov [rdi], rbp",
        "mov [rdi + 8], rbx",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        "mov rax, [rsp]",
        "mov [rdi + 48], rax",
        "lea rax, [rsp + 8]",
        "mov [rdi + 56], rax",
        "ret",
    )
}

/// What a CPU does next, which others cannot know from what it was told.
const GOES_ON: u64 = 0;
const WAITS: u64 = 1;

#[inline(never)]
fn spin(registers: Registers, here: &'static Location<'static>) {
    let cpu = this_cpu();
    assert!(!cpu.booting(), "while booting nobody else can make a wait end ({here})");
    // Words that nobody uses count as well, and they are not a matter of what the CPU was told since it last forgot.
    cpu.core().foresight.acts();
    let place = Some((here, private_state(registers, cpu)));
    let before = cpu.spin.get();
    let head = if before.place == place { before.head } else { cpu.loop_head() };
    match before.looked_at {
        LookedAt::One { address, bytes, held } if before.place == place => {
            cpu.round(&head, WAITS);
            cpu.await_change(address, bytes, held, here);
        }
        _ => cpu.round(&head, GOES_ON),
    }
    cpu.spin.set(Spin { place, head, looked_at: LookedAt::Nothing });
}

/// A digest of everything that code on this CPU has for itself: registers, where it is, and its stack up to where the lab's own begins.
fn private_state(registers: Registers, cpu: &LabCpu) -> u64 {
    let mut digest = Xxh3Default::new();
    registers.preserved.iter().chain([&registers.place]).for_each(|number| digest.write_u64(*number));
    let lowest = std::ptr::with_exposed_provenance::<u64>(registers.stack);
    let words = (std::ptr::from_ref(cpu).addr().saturating_sub(registers.stack)) / 8;
    for index in 0..words {
        // SAFETY: `cpu` lies at the beginning of the stack that runs, so the words between are of that stack and in use; whatever they hold is looked at as a number.
        digest.write_u64(unsafe { lowest.wrapping_add(index).read_volatile() });
    }
    digest.finish()
}
