//! One CPU of the machine: the trait that engine code is written against.

use core::fmt;
use core::sync::atomic::Ordering;

use crate::addr::PhysAddr;
use crate::irq::IrqOff;
use crate::preempt::PreemptOff;
use crate::protection_key::Pkru;
use crate::tlb::Invalidation;
use crate::word::{Word, Word64};

/// The number of a CPU, from 0, below [`CpuSet::CAPACITY`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuId(u8);

impl CpuId {
    /// The CPU with this number.
    ///
    /// # Panics
    /// If `number` is not below [`CpuSet::CAPACITY`]: machines number their CPUs when they start.
    #[inline]
    pub const fn new(number: u32) -> Self {
        assert!(number < CpuSet::CAPACITY);
        Self(number as u8)
    }

    /// The number, as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU{}", self.0)
    }
}

/// A set of CPUs, as kept in one [`Word64`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct CpuSet(u64);

impl CpuSet {
    /// How many CPUs a machine may have.
    pub const CAPACITY: u32 = 64;
    /// No CPU.
    pub const EMPTY: Self = Self(0);

    /// The set that a word holds.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As a word holds it: bit `n` is CPU `n`.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Just this CPU.
    #[inline]
    pub const fn only(cpu: CpuId) -> Self {
        Self(1 << cpu.0)
    }

    /// The first `count` CPUs; all of them from [`Self::CAPACITY`] on.
    #[inline]
    pub const fn first(count: u32) -> Self {
        Self(if count >= Self::CAPACITY { u64::MAX } else { (1 << count) - 1 })
    }

    /// The set with this CPU in it.
    #[inline]
    #[must_use]
    pub const fn with(self, cpu: CpuId) -> Self {
        Self(self.0 | 1 << cpu.0)
    }

    /// The set with this CPU not in it.
    #[inline]
    #[must_use]
    pub const fn without(self, cpu: CpuId) -> Self {
        Self(self.0 & !(1 << cpu.0))
    }

    /// The CPUs that are not in the set.
    #[inline]
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(!self.0)
    }

    /// Whether the CPU is in the set.
    #[inline]
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 >> cpu.0 & 1 != 0
    }

    /// Whether no CPU is in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The CPUs in the set, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let number = rest.checked_ilog2().map(|_| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(CpuId::new(number))
        })
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(CpuId::index)).finish()
    }
}

/// Whether interrupts were on when they were turned off: what [`Cpu::irq_restore`] brings back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqState {
    /// They were on.
    On,
    /// They were off already: sections nest.
    Off,
}

/// What a CPU knew where it entered a loop. Only machines that simulate look inside.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LoopHead([u64; 2]);

impl LoopHead {
    /// For machines: what they are to remember.
    #[inline]
    pub const fn from_parts(parts: [u64; 2]) -> Self {
        Self(parts)
    }

    /// What was remembered.
    #[inline]
    pub const fn parts(&self) -> [u64; 2] {
        self.0
    }
}

/// Which interrupt an IPI raises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Vector {
    /// Invalidate TLB entries as the sender's request says, and acknowledge.
    TlbShootdown,
    /// Do nothing but acknowledge: its arrival proves that interrupts were on.
    Synchronise,
}

/// One CPU, as the code that runs on it sees it.
///
/// A value of this type is the right to act *as* that CPU. Machines hand it out once per CPU and never let two threads
/// use it at the same time.
///
/// # Contract
///
/// 1. Accesses follow x86-TSO (MODEL.md, P1 to P5). Loads acquire, plain stores release, read-modify-writes are full barriers.
/// 2. Everything that waits says for what, through [`Self::await_update`], [`Self::await_value`] or [`Self::synchronize_rcu`], so that a
///    machine may block instead of spinning. While a CPU waits with interrupts on, it takes interrupts.
/// 3. Words that only one CPU can reach at the time (freshly allocated, or behind a lock that is held) may be accessed with
///    [`Self::owned_load`] and [`Self::owned_store`], which are not points of interleaving. Saying so wrongly is a bug in the
///    engine; the lab checks it.
/// 4. Code that runs on a `Cpu` keeps no state that another CPU could see outside words.
///
/// Implementors mark the accesses `#[track_caller]`, so that a trace can name the line of the engine that made the access.
pub trait Cpu: Sized {
    /// Which CPU this is. Where threads are moved from CPU to CPU, the answer holds only as long as the thread stays ([`Self::preempt_off`]).
    #[track_caller]
    fn id(&self) -> CpuId;

    /// Reads a word, all of it at once.
    ///
    /// On a 32-bit machine a [`Word64`] is read by `movq` through a vector register, or, where those are not to be touched, by `cmpxchg8b`: a locked read-modify-write
    /// that stores what it read. The engine counts on no more than the first gives: no barrier (MODEL.md, P2, P5).
    #[track_caller]
    fn load<W: Word>(&self, word: &W) -> W::Value;

    /// Writes a word, all of it at once. Other CPUs may see it later than this CPU's following loads (MODEL.md, F1).
    #[track_caller]
    fn store<W: Word>(&self, word: &W, value: W::Value);

    /// Writes a word and returns what it held: `xchg`. A full barrier.
    #[track_caller]
    fn swap<W: Word>(&self, word: &W, value: W::Value) -> W::Value;

    /// Writes `new` if the word holds `old`: `lock cmpxchg`. A full barrier either way.
    ///
    /// # Errors
    /// The value found, if it was not `old`.
    #[track_caller]
    fn compare_exchange<W: Word>(&self, word: &W, old: W::Value, new: W::Value) -> Result<W::Value, W::Value>;

    /// Adds, wrapping, and returns what the word held before: `lock xadd`. A full barrier.
    #[track_caller]
    fn fetch_add<W: Word>(&self, word: &W, addend: W::Value) -> W::Value;

    /// Clears the bits that are not in `mask` and returns what the word held before. A full barrier.
    #[track_caller]
    fn fetch_and<W: Word>(&self, word: &W, mask: W::Value) -> W::Value;

    /// Sets the bits of `mask` and returns what the word held before. A full barrier.
    #[track_caller]
    fn fetch_or<W: Word>(&self, word: &W, mask: W::Value) -> W::Value;

    /// Makes every earlier store visible before any later load: `mfence`.
    #[track_caller]
    fn fence(&self);

    /// Reads a word that no other CPU writes meanwhile, because of a lock or because nobody else knows it.
    #[inline(always)]
    #[track_caller]
    fn owned_load<W: Word>(&self, word: &W) -> W::Value {
        word.atomic_load(Ordering::Relaxed)
    }

    /// Writes a word that no other CPU accesses meanwhile, because of a lock or because nobody else knows it.
    #[inline(always)]
    #[track_caller]
    fn owned_store<W: Word>(&self, word: &W, value: W::Value) {
        word.atomic_store(value, Ordering::Relaxed);
    }

    /// Writes zero to every word of a table that is (or should be) not yet published. One operation, so that a
    /// machine may do it in bulk; ordered like one [`Self::store`].
    #[inline]
    #[track_caller]
    fn zero(&self, words: &[Word64]) {
        for word in words {
            word.atomic_store(0, Ordering::Release);
        }
    }

    /// Waits until `update` returns a new value for what the word holds, replaces it atomically, and returns the old one. A
    /// full barrier. This is how locks are taken: `update` is `|held| (held == 0).then_some(1)`.
    ///
    /// `update` must be a pure function of its argument.
    #[inline]
    #[track_caller]
    fn await_update<W: Word>(&self, word: &W, update: impl Fn(W::Value) -> Option<W::Value>) -> W::Value {
        let mut seen = word.atomic_load(Ordering::Relaxed);
        loop {
            match update(seen) {
                Some(new) => match word.atomic_compare_exchange(seen, new) {
                    Ok(old) => return old,
                    Err(found) => seen = found,
                },
                None => {
                    self.relax();
                    seen = word.atomic_load(Ordering::Relaxed);
                }
            }
        }
    }

    /// Waits until what the word holds satisfies `until`, and returns it. An acquire load, not a barrier.
    ///
    /// `until` must be a pure function of its argument.
    #[inline]
    #[track_caller]
    fn await_value<W: Word>(&self, word: &W, until: impl Fn(W::Value) -> bool) -> W::Value {
        loop {
            let seen = word.atomic_load(Ordering::Acquire);
            if until(seen) {
                return seen;
            }
            self.relax();
        }
    }

    /// A hint that this CPU spins: `pause`. Not a point of interleaving; loops that use it directly must
    /// say that they repeat ([`Self::round`]).
    #[inline(always)]
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Whether a word still holds what it held when it was [loaded](Self::load) before: a re-check. The same as comparing by hand, but a machine
    /// that explores can leave it out, to see whether it is needed.
    #[inline(always)]
    #[track_caller]
    fn unchanged<W: Word>(&self, word: &W, seen: W::Value) -> bool {
        self.load(word) == seen
    }

    /// What this CPU knows where a retry loop is entered: for [`Self::round`].
    #[inline(always)]
    fn loop_head(&self) -> LoopHead {
        LoopHead::default()
    }

    /// A round of the loop that was entered at `head` begins. Promises that what this CPU does from here on depends only on shared memory, on what it
    /// knew at `head`, and on `digest`: what earlier rounds read is forgotten. What callers know is not, so `digest` names only
    /// what the loop itself carries from round to round. Real machines ignore it.
    ///
    /// Called at the head of the loop, in the first round as well.
    #[inline(always)]
    fn round(&self, head: &LoopHead, digest: u64) {
        let _ = (head, digest);
    }

    /// Turns this CPU's maskable interrupts off: `pushf; cli`. Orders no memory access.
    #[track_caller]
    fn irq_save(&self) -> IrqState;

    /// Brings back what [`Self::irq_save`] found. An interrupt that became pending meanwhile is taken now.
    #[track_caller]
    fn irq_restore(&self, state: IrqState);

    /// [`Self::irq_save`] as a value that restores on drop, and that functions can ask for as proof.
    #[inline]
    #[track_caller]
    fn irq_off(&self) -> IrqOff<'_, Self> {
        IrqOff::new(self)
    }

    /// From here on the thread stays on this CPU, until [`Self::preempt_enable`] was called as often as this. Orders no memory access.
    ///
    /// A machine whose threads stay where they are, as long as they run code on it, has nothing to do.
    #[inline(always)]
    #[track_caller]
    fn preempt_disable(&self) {}

    /// Ends what [`Self::preempt_disable`] began.
    #[inline(always)]
    #[track_caller]
    fn preempt_enable(&self) {}

    /// [`Self::preempt_disable`] as a value that ends the section on drop.
    #[inline(always)]
    #[track_caller]
    fn preempt_off(&self) -> PreemptOff<'_, Self> {
        PreemptOff::new(self)
    }

    /// Raises `vector` on every CPU of `targets`, this one excepted. Each takes it once its interrupts are on.
    ///
    /// Does not wait, and does **not** order earlier stores (an x2APIC send may pass them: SDM vol. 3A, 11.12.3):
    /// the sender puts a [`Self::fence`] before.
    #[track_caller]
    fn send_ipi(&self, targets: CpuSet, vector: Vector);

    /// Drops what this CPU's TLB and paging-structure caches hold for `what`: `invlpg`, or `mov cr3`. Complete, and a full
    /// barrier, on return.
    #[track_caller]
    fn tlb_invalidate(&self, what: Invalidation);

    /// Asks the hypervisor to invalidate on `targets`. On return the invalidation has completed there
    /// *without their consent*: interrupts that are off do not hold it up (MODEL.md, F8).
    #[track_caller]
    fn tlb_invalidate_paravirtual(&self, targets: CpuSet, what: Invalidation);

    /// Broadcasts an invalidation to all CPUs: AMD `invlpgb`. Completes at some later time, without their consent.
    #[track_caller]
    fn tlb_broadcast(&self, what: Invalidation);

    /// Waits until every broadcast of this CPU has completed on every CPU: AMD `tlbsync`.
    #[track_caller]
    fn tlb_broadcast_sync(&self);

    /// Makes `root` the page table that this CPU walks: `mov cr3`. Drops non-global translations. On PAE this is the moment at which
    /// the four PDPTEs are read (SDM vol. 3A, 4.4.1).
    #[track_caller]
    fn load_root(&self, root: PhysAddr);

    /// What the running thread may do by the protection keys of user pages: `rdpkru`. Not a point of interleaving: the register is the thread's own.
    ///
    /// A CPU without keys allows everything; one with keys is a [`crate::ProtectionKeys`], too.
    #[inline(always)]
    fn pkru(&self) -> Pkru {
        Pkru::ALLOW_ALL
    }

    /// Begins an RCU read-side section. Sections nest. Having interrupts off is one, too.
    #[track_caller]
    fn rcu_read_lock(&self);

    /// Ends an RCU read-side section.
    #[track_caller]
    fn rcu_read_unlock(&self);

    /// Waits until every CPU that is inside an RCU read-side section now has left it. A full barrier.
    ///
    /// Context: interrupts on, not inside a read-side section: else it waits for itself.
    #[track_caller]
    fn synchronize_rcu(&self);
}
