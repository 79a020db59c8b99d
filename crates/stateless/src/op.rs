//! What the code of a CPU asks the machine to do.

use machine::{ContextInvalidation, Invalidation};

use crate::config::Config;
use crate::memory::Place;
use crate::schedule::Span;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Load(Place),
    Store(Place, u64),
    Swap(Place, u64),
    CompareExchange(Place, u64, u64),
    Add(Place, u64),
    And(Place, u64),
    Or(Place, u64),
    Fence,
    /// So many 8-byte words from an offset on become zero.
    Zero(usize, usize),
    AwaitUpdate(Place, Test),
    AwaitValue(Place, Test),
    InterruptsOff,
    InterruptsBack(InterruptFlag),
    Send(u64, Vector),
    Invalidate(Invalidation),
    Paravirtual(u64, Invalidation),
    Broadcast(Invalidation),
    BroadcastSync,
    LoadRoot(u64, machine::Retention),
    InvalidateContext(ContextInvalidation),
    EnterSection,
    LeaveSection,
    GracePeriod,
    User(User),
    Device {
        frame: u64,
        write: Option<u64>,
    },
    Allocate(u8),
    Free(u64),
    InterruptReturn,
    /// Which CPU this is. Where threads are moved only, as the next.
    Identify,
    PreemptOff,
}

/// IF: whether maskable interrupts are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptFlag {
    Set,
    Clear,
}

/// What interrupts a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vector {
    Maskable(machine::Vector),
    Nmi,
}

impl Vector {
    pub(crate) const ALL: [Self; 3] =
        [Self::Nmi, Self::Maskable(machine::Vector::TlbShootdown), Self::Maskable(machine::Vector::Synchronise)];

    pub(crate) const fn number(self) -> usize {
        match self {
            Self::Nmi => 0,
            Self::Maskable(machine::Vector::TlbShootdown) => 1,
            Self::Maskable(machine::Vector::Synchronise) => 2,
        }
    }
}

/// A user access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) address: u64,
    pub(crate) deed: Deed,
    pub(crate) data: Data,
}

/// What user code does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    Load,
    Store,
    Fetch,
    /// To a shadow stack.
    Push,
}

/// What it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    Nothing,
    Word(u64),
}

/// What is awaited: a closure on the stack of the code that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Test {
    call: unsafe fn(*const (), u64) -> Option<u64>,
    closure: *const (),
}

impl Test {
    /// # Safety
    /// As long as the operation is pending, that is until its CPU's code goes on, `closure` points to an `F` that nobody changes.
    pub(crate) unsafe fn new<F: Fn(u64) -> Option<u64>>(closure: &F) -> Self {
        unsafe fn call<F: Fn(u64) -> Option<u64>>(closure: *const (), value: u64) -> Option<u64> {
            // SAFETY: `Test::new` was given this `F`.
            let closure = unsafe { &*closure.cast::<F>() };
            closure(value)
        }
        Self { call: call::<F>, closure: std::ptr::from_ref(closure).cast() }
    }

    /// The new value if the wait is over where the word holds `value`.
    pub(crate) fn passes(self, value: u64) -> Option<u64> {
        // SAFETY: the promise to `new`: whoever asks has the operation, which is pending.
        unsafe { (self.call)(self.closure, value) }
    }
}

impl Op {
    /// Whether the CPU's store buffer is emptied first: locked and serialising instructions, calls of the hypervisor or an allocator, an uncached store to a
    /// device (SDM 9.2.3.9, 9.3).
    pub(crate) fn drains(&self) -> bool {
        !matches!(
            self,
            Self::Load(_)
                | Self::Store(..)
                | Self::Zero(..)
                | Self::AwaitValue(..)
                | Self::InterruptsOff
                | Self::InterruptsBack(_)
                | Self::Send(..)
                | Self::Broadcast(_)
                | Self::EnterSection
                | Self::LeaveSection
                | Self::User(_)
                | Self::Identify
                | Self::PreemptOff
        )
    }

    /// Whether it is the same on every CPU with an empty store buffer, which it leaves empty.
    pub(crate) fn is_same_anywhere(&self, config: &Config) -> bool {
        match self {
            Self::Load(_)
            | Self::AwaitValue(..)
            | Self::Swap(..)
            | Self::CompareExchange(..)
            | Self::Add(..)
            | Self::And(..)
            | Self::Or(..)
            | Self::AwaitUpdate(..)
            | Self::Fence
            | Self::Allocate(_)
            | Self::Free(_) => true,
            Self::Store(..) | Self::Zero(..) => !config.stores_wait(),
            _ => false,
        }
    }

    /// The words that it is on.
    pub(crate) fn span(&self) -> Option<Span> {
        match *self {
            Self::Load(place)
            | Self::Store(place, _)
            | Self::Swap(place, _)
            | Self::CompareExchange(place, ..)
            | Self::Add(place, _)
            | Self::And(place, _)
            | Self::Or(place, _)
            | Self::AwaitUpdate(place, _)
            | Self::AwaitValue(place, _) => Some(Span { offset: place.offset, bytes: place.bytes }),
            Self::Zero(offset, words) => Some(Span { offset, bytes: 8 * words }),
            _ => None,
        }
    }

    /// Whether it may put something into the store buffer.
    pub(crate) fn stores(&self) -> bool {
        match self {
            Self::Store(..) | Self::Zero(..) => true,
            Self::User(user) => user.deed == Deed::Store && user.data != Data::Nothing,
            _ => false,
        }
    }

    /// The word that is waited for, and what for.
    pub(crate) fn awaits(&self) -> Option<(Place, Test)> {
        match *self {
            Self::AwaitUpdate(place, test) | Self::AwaitValue(place, test) => Some((place, test)),
            _ => None,
        }
    }
}

/// The answer to an operation: a value, and for user accesses how it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) value: u64,
    pub(crate) outcome: Outcome,
}

/// How a user access went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done,
    NotPresent,
    Protection,
    ProtectionKey,
}

impl Answer {
    pub(crate) const fn value(value: u64) -> Self {
        Self { value, outcome: Outcome::Done }
    }
}
