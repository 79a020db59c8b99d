//! One CPU of the machine, as the engine sees it: `machine::Cpu`, where an operation is the instruction.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use machine::user::FaultCause;
use machine::{
    Access, Cpu, CpuId, CpuSet, Invalidation, IrqState, PageFault, PhysAddr, Pkru, ProtectionKeys, SpinLock,
    UserAccess, Vector, VirtAddr, Word, Word64,
};

use super::user::{Outcome, UserCall, UserExit};
use super::{apic, descriptors, protection_keys, trap};

/// How many CPUs this kernel has room for.
pub(crate) const MAX_CPUS: usize = 8;

/// What belongs to one CPU.
pub(crate) struct CpuState {
    apic: AtomicU8,
    /// How deep RCU read-side sections nest.
    rcu_depth: AtomicU32,
    /// Somebody waits for the end of the section that this CPU is in.
    rcu_owed: AtomicBool,
    /// The root that was loaded last.
    root: AtomicU64,
    pub(super) user: UserExit,
    /// Interrupts taken from other CPUs.
    pub(crate) interrupts: AtomicU64,
}

static STATES: [CpuState; MAX_CPUS] = [const {
    CpuState {
        apic: AtomicU8::new(0),
        rcu_depth: AtomicU32::new(0),
        rcu_owed: AtomicBool::new(false),
        root: AtomicU64::new(0),
        user: UserExit::new(),
        interrupts: AtomicU64::new(0),
    }
}; MAX_CPUS];

static ONLINE: AtomicU32 = AtomicU32::new(1);
/// Who waits for a grace period, one at a time.
static RCU_LOCK: SpinLock = SpinLock::new();
/// The CPUs that the grace period waits for.
static RCU_PENDING: AtomicU32 = AtomicU32::new(0);

/// How often a wait spins before it sleeps.
const SPINS: u32 = 40;
/// Then it sleeps for so long, in ticks of the bus.
const NAP: u32 = 20_000;

/// Waiting for another CPU, which under a hypervisor or an emulator may not be running just now, perhaps because this one waits: so not for long without sleeping.
#[derive(Default)]
pub(crate) struct Patience {
    spins: u32,
}

impl Patience {
    /// Waits for a moment. With interrupts on it takes some meanwhile.
    pub(crate) fn wait(&mut self) {
        self.spins += 1;
        if self.spins < SPINS || flags() & INTERRUPTS_ON == 0 {
            core::hint::spin_loop();
            return;
        }
        self.spins = 0;
        // SAFETY: interrupts were on; they are off while the timer is set, and `sti` holds them off for one more instruction, so that the timer's is not missed.
        unsafe { core::arch::asm!("cli", options(nostack)) };
        apic::wake_after(NAP, trap::WAKE);
        // SAFETY: as above.
        unsafe { core::arch::asm!("sti", "hlt", options(nostack)) };
    }
}

const INTERRUPTS_ON: usize = 1 << 9;

#[inline(always)]
fn flags() -> usize {
    let flags: usize;
    // SAFETY: reads the flags.
    #[cfg(target_arch = "x86")]
    unsafe {
        core::arch::asm!("pushfd", "pop {}", out(reg) flags);
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("pushfq", "pop {}", out(reg) flags);
    }
    flags
}

/// The right to act as one CPU: the one that the code runs on.
pub(crate) struct BareCpu {
    number: usize,
    state: &'static CpuState,
}

/// The CPU that this runs on.
pub(super) fn this() -> BareCpu {
    let number = descriptors::number();
    BareCpu { number, state: &STATES[number] }
}

/// Remembers the local APIC of a CPU.
pub(super) fn name_apic(number: usize, apic: u8) {
    STATES[number].apic.store(apic, Ordering::Relaxed);
}

/// The CPU with this number takes interrupts from now on.
pub(super) fn set_online(number: usize) {
    ONLINE.fetch_or(1 << number, Ordering::SeqCst);
}

pub(super) fn interrupts_on() {
    // SAFETY: every vector has a handler.
    unsafe { core::arch::asm!("sti", options(nomem, nostack)) };
}

impl BareCpu {
    /// What belongs to this CPU.
    pub(crate) fn state(&self) -> &'static CpuState {
        self.state
    }

    /// The root that was loaded last; 0 before the first.
    pub(crate) fn root(&self) -> u64 {
        self.state.root.load(Ordering::Relaxed)
    }

    /// The CPUs that run.
    pub(crate) fn online() -> CpuSet {
        CpuSet::from_bits(u64::from(ONLINE.load(Ordering::SeqCst)))
    }

    /// Somebody asks whether this CPU is in a read-side section. Runs with interrupts off.
    pub(super) fn rcu_asked(&self) {
        if self.state.rcu_depth.load(Ordering::Relaxed) == 0 {
            self.rcu_answer();
        } else {
            self.state.rcu_owed.store(true, Ordering::Relaxed);
        }
    }

    fn rcu_answer(&self) {
        RCU_PENDING.fetch_and(!(1 << self.number), Ordering::SeqCst);
    }

    fn interrupt(&self, targets: CpuSet, vector: u8) {
        let irq = self.irq_save();
        for target in targets.without(self.id()).iter() {
            apic::send(STATES[target.index()].apic.load(Ordering::Relaxed), 0x4000 | u32::from(vector));
        }
        self.irq_restore(irq);
    }

    /// Runs a piece of user code, and says how it ended.
    pub(crate) fn user(&self, call: &UserCall) -> Outcome {
        let irq = self.irq_save();
        let outcome = super::user::run(&self.state.user, call);
        self.irq_restore(irq);
        outcome
    }
}

impl Cpu for BareCpu {
    #[inline(always)]
    fn id(&self) -> CpuId {
        CpuId::new(self.number as u32)
    }

    /// In the 32-bit image a word of 8 bytes takes one `movq` by way of a vector register, which traps save.
    #[inline(always)]
    fn load<W: Word>(&self, word: &W) -> W::Value {
        word.atomic_load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store<W: Word>(&self, word: &W, value: W::Value) {
        word.atomic_store(value, Ordering::Release);
    }

    #[inline(always)]
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value {
        word.atomic_swap(value)
    }

    #[inline(always)]
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value> {
        word.atomic_compare_exchange(old, new)
    }

    #[inline(always)]
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value {
        word.atomic_fetch_add(addend)
    }

    #[inline(always)]
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_and(mask)
    }

    #[inline(always)]
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value {
        word.atomic_fetch_or(mask)
    }

    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn zero(&self, words: &[Word64]) {
        // SAFETY: the destination is exactly the words that the caller lent, all of whose bytes are inside atomics. `rep stos` stores aligned
        // pieces in any order among themselves, and none passes an earlier or later store (SDM vol. 3A, 9.2.4).
        #[cfg(target_arch = "x86")]
        unsafe {
            core::arch::asm!(
                "rep stosd",
                inout("edi") words.as_ptr() => _,
                inout("ecx") words.len() * 2 => _,
                in("eax") 0,
                options(nostack, preserves_flags)
            );
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rdi") words.as_ptr() => _,
                inout("rcx") words.len() => _,
                in("rax") 0_u64,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline]
    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        let mut patience = Patience::default();
        let mut seen = word.atomic_load(Ordering::Relaxed);
        loop {
            match update(seen) {
                Some(new) => match word.atomic_compare_exchange(seen, new) {
                    Ok(old) => return old,
                    Err(found) => seen = found,
                },
                None => {
                    patience.wait();
                    seen = word.atomic_load(Ordering::Relaxed);
                }
            }
        }
    }

    #[inline]
    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        let mut patience = Patience::default();
        loop {
            let seen = word.atomic_load(Ordering::Acquire);
            if until(seen) {
                return seen;
            }
            patience.wait();
        }
    }

    #[inline(always)]
    fn irq_save(&self) -> IrqState {
        let flags = flags();
        // SAFETY: holds interrupts off; not `nomem`, so that accesses stay on their side.
        unsafe { core::arch::asm!("cli", options(nostack)) };
        if flags & INTERRUPTS_ON != 0 { IrqState::On } else { IrqState::Off }
    }

    #[inline(always)]
    fn irq_restore(&self, state: IrqState) {
        if state == IrqState::On {
            // SAFETY: they were on before; not `nomem`, so that accesses stay on their side.
            unsafe { core::arch::asm!("sti", options(nostack)) };
        }
    }

    fn send_ipi(&self, targets: CpuSet, vector: Vector) {
        self.interrupt(targets, trap::vector_of(vector));
    }

    fn tlb_invalidate(&self, what: Invalidation) {
        match what {
            Invalidation::Pages { start, pages } => {
                for page in 0..pages {
                    let address = start.wrapping_add(page * machine::addr::PAGE_SIZE).as_u64() as usize;
                    // SAFETY: forgets a translation.
                    unsafe { core::arch::asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
                }
            }
            Invalidation::All => self.load_root(PhysAddr::new(self.root())),
        }
    }

    /// # Panics
    /// Always: this kernel runs under any hypervisor, or none, and asks none for anything.
    fn tlb_invalidate_paravirtual(&self, _: CpuSet, _: Invalidation) {
        panic!("a flush by the hypervisor, which this kernel never asks for: its flushes go by IPI")
    }

    /// # Panics
    /// Always: QEMU emulates no `invlpgb`.
    fn tlb_broadcast(&self, _: Invalidation) {
        panic!("invlpgb, which QEMU does not emulate: flushes of this kernel go by IPI")
    }

    /// # Panics
    /// Always.
    fn tlb_broadcast_sync(&self) {
        panic!("tlbsync, which QEMU does not emulate: flushes of this kernel go by IPI")
    }

    fn load_root(&self, root: PhysAddr) {
        if root.as_u64() == 0 {
            // Still on the table of the boot, which nobody changes.
            return;
        }
        let irq = self.irq_save();
        self.state.root.store(root.as_u64(), Ordering::Relaxed);
        let register = super::paging::register_for(self.number, root.as_u64());
        // SAFETY: every root that this kernel makes has the kernel's own part (`paging::install_kernel`), so code and stack stay where they are.
        unsafe { core::arch::asm!("mov cr3, {}", in(reg) register, options(nostack, preserves_flags)) };
        self.irq_restore(irq);
    }

    #[inline]
    fn pkru(&self) -> Pkru {
        protection_keys::read()
    }

    fn rcu_read_lock(&self) {
        let depth = self.state.rcu_depth.load(Ordering::Relaxed);
        self.state.rcu_depth.store(depth + 1, Ordering::Release);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    fn rcu_read_unlock(&self) {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let depth = self.state.rcu_depth.load(Ordering::Relaxed);
        self.state.rcu_depth.store(depth - 1, Ordering::Release);
        // An interrupt between these two answers by itself, or finds the section open and leaves word.
        if depth == 1 && self.state.rcu_owed.swap(false, Ordering::Relaxed) {
            self.rcu_answer();
        }
    }

    /// By asking: an interrupt is taken where interrupts are on, and there the CPU knows whether it is in a section.
    fn synchronize_rcu(&self) {
        fence(Ordering::SeqCst);
        let others = Self::online().without(self.id());
        if others.is_empty() {
            return;
        }
        let guard = RCU_LOCK.lock(self);
        RCU_PENDING.store(others.bits() as u32, Ordering::SeqCst);
        self.interrupt(others, trap::RCU);
        let mut patience = Patience::default();
        while RCU_PENDING.load(Ordering::SeqCst) != 0 {
            patience.wait();
        }
        guard.unlock();
    }
}

impl ProtectionKeys for BareCpu {
    fn set_pkru(&self, pkru: Pkru) {
        protection_keys::write(pkru);
    }
}

impl UserAccess for BareCpu {
    fn user_access(&self, address: VirtAddr, access: Access) -> Result<(), PageFault> {
        let call = match access {
            Access::Read => UserCall::load(address),
            // Adds nothing by a locked instruction: a store that changes nothing.
            Access::Write => UserCall::touch(address),
        };
        as_fault(self.user(&call), access).map(drop)
    }

    fn user_load(&self, address: VirtAddr) -> Result<u64, PageFault> {
        as_fault(self.user(&UserCall::load(address)), Access::Read)
    }

    fn user_store(&self, address: VirtAddr, value: u64) -> Result<(), PageFault> {
        as_fault(self.user(&UserCall::store(address, value)), Access::Write).map(drop)
    }
}

fn as_fault(outcome: Outcome, access: Access) -> Result<u64, PageFault> {
    match outcome {
        Outcome::Done(value) => Ok(value),
        Outcome::Fault { address, error } => {
            let cause = if error & super::fault_bits::PROTECTION == 0 {
                FaultCause::NotPresent
            } else if error & super::fault_bits::PROTECTION_KEY != 0 {
                FaultCause::ProtectionKey
            } else {
                FaultCause::Protection
            };
            Err(PageFault { address, access, cause })
        }
    }
}

/// Copies a frame, in aligned pieces of 4 bytes.
pub(crate) fn copy_words(from: &[Word64; 512], to: &[Word64; 512]) {
    // SAFETY: both are a frame long and inside atomics, so others may access them meanwhile; the stores are of aligned pieces.
    #[cfg(target_arch = "x86")]
    unsafe {
        core::arch::asm!(
            "xchg {from}, esi", "rep movsd", "xchg {from}, esi",
            from = inout(reg) from.as_ptr() => _, inout("edi") to.as_ptr() => _, inout("ecx") 1024 => _,
            options(nostack, preserves_flags)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rsi") from.as_ptr() => _, inout("rdi") to.as_ptr() => _, inout("rcx") 512 => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Waits for an interrupt, unless `ready` already.
pub(crate) fn sleep_unless(ready: impl Fn() -> bool) {
    // SAFETY: interrupts are off between the question and the wait, so that none is missed; they are on afterwards.
    unsafe { core::arch::asm!("cli", options(nostack)) };
    if ready() {
        interrupts_on();
    } else {
        // SAFETY: `sti` holds interrupts off for one more instruction.
        unsafe { core::arch::asm!("sti", "hlt", options(nostack)) };
    }
}

/// Wakes other CPUs out of [`sleep_unless`].
pub(crate) fn wake(cpu: &BareCpu, targets: CpuSet) {
    cpu.interrupt(targets, trap::WAKE);
}
