//! The operation that a suspended agent asks for.

use std::panic::Location;

use machine::Word;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Load,
    Store,
    Swap,
    CompareExchange,
    FetchAdd,
    FetchAnd,
    FetchOr,
    Fence,
    /// `a` words from `address` on.
    Zero,
    AwaitUpdate,
    AwaitValue,
    IrqSave,
    /// `a`: 0 = on.
    IrqRestore,
    /// To the CPUs in `a`, vector `b`.
    SendIpi,
    /// To the CPUs in `a`, this one perhaps included.
    SendNmi,
    /// `a`, `b`: start and pages.
    TlbInvalidate,
    /// The same, on the CPUs in `c`.
    TlbParavirtual,
    TlbBroadcast,
    TlbBroadcastSync,
    /// CR3 is `a`; `b`: 1 = keep what is cached (bit 63).
    LoadRoot,
    /// `invpcid` of type `a`, for PCID `b` and address `c`.
    InvalidateContext,
    RcuReadLock,
    RcuReadUnlock,
    SynchronizeRcu,
    /// Which CPU is this? Where threads move only.
    Identify,
    /// The thread stays on its CPU from here on. Where threads move only.
    PreemptOff,
    /// At `a`; `b`: 1 = write, 2 = instruction fetch; `bytes`: 0 if only which frame is reached matters; `c`: the word to store, or that was loaded.
    UserAccess,
    /// Of frame `a`; `b`: 1 = write, of the word `c`.
    DeviceAccess,
    AllocFrame,
    FreeFrame,
    /// The interrupt handler has returned: `iret`.
    InterruptReturn,
}

impl Kind {
    /// The name in traces.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Swap => "xchg",
            Self::CompareExchange => "cmpxchg",
            Self::FetchAdd => "xadd",
            Self::FetchAnd => "lock and",
            Self::FetchOr => "lock or",
            Self::Fence => "mfence",
            Self::Zero => "zero",
            Self::AwaitUpdate => "acquire",
            Self::AwaitValue => "await",
            Self::IrqSave => "irq off",
            Self::IrqRestore => "irq restore",
            Self::SendIpi => "send IPI",
            Self::SendNmi => "send NMI",
            Self::TlbInvalidate => "flush TLB",
            Self::TlbParavirtual => "paravirtual flush",
            Self::TlbBroadcast => "broadcast flush",
            Self::TlbBroadcastSync => "tlbsync",
            Self::LoadRoot => "load cr3",
            Self::InvalidateContext => "invpcid",
            Self::RcuReadLock => "rcu_read_lock",
            Self::RcuReadUnlock => "rcu_read_unlock",
            Self::SynchronizeRcu => "synchronize_rcu",
            Self::Identify => "which CPU",
            Self::PreemptOff => "preempt off",
            Self::UserAccess => "user",
            Self::DeviceAccess => "device",
            Self::AllocFrame => "alloc frame",
            Self::FreeFrame => "free frame",
            Self::InterruptReturn => "iret",
        }
    }

    /// Whether it accesses the word at `address`, and if so whether it may write it.
    pub(crate) const fn accesses_word(self) -> Option<Effect> {
        match self {
            Self::Load | Self::AwaitValue => Some(Effect::Reads),
            Self::Store
            | Self::Swap
            | Self::CompareExchange
            | Self::FetchAdd
            | Self::FetchAnd
            | Self::FetchOr
            | Self::AwaitUpdate => Some(Effect::Writes),
            _ => None,
        }
    }

    /// Whether the CPU empties its store buffer first (MODEL.md, P5).
    pub(crate) const fn drains(self) -> bool {
        matches!(
            self,
            Self::Swap
                | Self::CompareExchange
                | Self::FetchAdd
                | Self::FetchAnd
                | Self::FetchOr
                | Self::Fence
                | Self::AwaitUpdate
                | Self::TlbInvalidate
                | Self::TlbParavirtual
                | Self::TlbBroadcastSync
                | Self::LoadRoot
                | Self::InvalidateContext
                | Self::SynchronizeRcu
                | Self::DeviceAccess
                | Self::AllocFrame
                | Self::FreeFrame
                | Self::InterruptReturn
        )
    }
}

/// Whether an access may change the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// Evaluates the closure of an await: the new value, or (for a wait that does not write) the old one; `None` = keep waiting.
pub(crate) type Test = unsafe fn(*const (), u64) -> Option<u64>;

/// One operation. It lies on the stack of the agent that asks, so that restoring the stack restores it.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// Width of the word: 4 or 8.
    pub(crate) bytes: u8,
    /// The word's address, where there is one.
    pub(crate) address: usize,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
    pub(crate) result: u64,
    pub(crate) test: Option<Test>,
    pub(crate) data: *const (),
    /// `test` does not look at `data`.
    pub(crate) captures_nothing: bool,
    pub(crate) location: &'static Location<'static>,
    /// It is no barrier, though its kind is one (see `weaken.rs`).
    pub(crate) is_unordered: bool,
}

impl Op {
    #[track_caller]
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            bytes: 8,
            address: 0,
            a: 0,
            b: 0,
            c: 0,
            result: 0,
            test: None,
            data: std::ptr::null(),
            captures_nothing: false,
            location: Location::caller(),
            is_unordered: false,
        }
    }

    /// Waits until this closure knows what the word becomes. It lives as long as the operation is asked for.
    pub(crate) fn wait_to_update<W: Word, F: Fn(W::Value) -> Option<W::Value>>(&mut self, update: &F) {
        self.wait(update, update_test::<W, F>);
    }

    /// Waits until this closure says so of what the word holds. It lives as long as the operation is asked for.
    pub(crate) fn wait_until<W: Word, F: Fn(W::Value) -> bool>(&mut self, until: &F) {
        self.wait(until, value_test::<W, F>);
    }

    fn wait<F>(&mut self, closure: &F, test: Test) {
        self.test = Some(test);
        self.data = (&raw const *closure).cast();
        self.captures_nothing = size_of::<F>() == 0;
    }

    /// Whether the same is asked for, by the same line of code.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let parts = |op: &Self| (op.kind, op.bytes, op.address, [op.a, op.b, op.c], op.is_unordered, op.location);
        parts(self) == parts(other)
    }

    /// What a word becomes that held `old`, if the operation writes it.
    pub(crate) fn updated(&self, old: u64) -> Option<u64> {
        let new = match self.kind {
            Kind::Store | Kind::Swap => Some(self.a),
            Kind::CompareExchange => (old == self.a).then_some(self.b),
            Kind::FetchAdd => Some(old.wrapping_add(self.a)),
            Kind::FetchAnd => Some(old & self.a),
            Kind::FetchOr => Some(old | self.a),
            Kind::AwaitUpdate => self.test(old),
            _ => None,
        };
        new.map(|new| if self.bytes == 4 { new & 0xffff_ffff } else { new })
    }

    /// What an await's closure says about a value.
    pub(crate) fn test(&self, value: u64) -> Option<u64> {
        let test = self.test.expect("an await has a test");
        // SAFETY: `data` is the closure that `test` was made for; it lies on the stack of the agent that waits in this very
        // operation, so it is alive and not borrowed. Of one that captures nothing there are no bytes, and the address is that of a stack, which stays mapped.
        unsafe { test(self.data, value) }
    }
}

unsafe fn update_test<W: Word, F: Fn(W::Value) -> Option<W::Value>>(data: *const (), value: u64) -> Option<u64> {
    // SAFETY: `data` is the `F` that this was made for (see `Op::test`).
    let update = unsafe { &*data.cast::<F>() };
    update(word_value::<W>(value)).map(Into::into)
}

unsafe fn value_test<W: Word, F: Fn(W::Value) -> bool>(data: *const (), value: u64) -> Option<u64> {
    // SAFETY: as above.
    let until = unsafe { &*data.cast::<F>() };
    until(word_value::<W>(value)).then_some(value)
}

/// What a word holds whose bits are these.
pub(crate) fn word_value<W: Word>(bits: u64) -> W::Value {
    W::Value::try_from(bits).ok().expect("a word holds what fits into it")
}

/// Bytes of a line of source that tell it from others, the same in every copy of the code.
pub(crate) fn place_seed(location: &Location<'_>) -> u64 {
    let file = location.file().as_bytes();
    let mut seed = (location.line() as u64) << 32 | (location.column() as u64) << 16 | file.len() as u64;
    for &byte in &file[file.len().saturating_sub(12)..] {
        seed = seed.rotate_left(5) ^ (byte as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    seed
}
