//! Locks of which one CPU may take many in any order (Linux: ww_mutex, in its wait-die form, which reservations use: `DEFINE_WD_CLASS(reservation_ww_class)`).
//!
//! # Protocol
//!
//! Whoever wants several locks draws a *ticket* first: an [`AcquireContext`]. The smaller ticket is the older. A context that finds a
//! lock taken
//!
//! * waits, if the holder is younger, or if it holds nothing itself: nobody can wait for it then;
//! * else gets [`LockError::BackOff`]: it gives back *all* that it holds, takes the contended lock first ([`WwMutex::lock_slow`]), and then the others.
//!
//! So a context that holds something waits for younger ones only, and no circle of waiting can close. A context that backs off
//! keeps its ticket, becomes the oldest some day, and backs off no more.
//!
//! Three ways need no ticket: [`WwMutex::try_lock`] never waits, so it may be used while anything is held. [`WwMutex::lock_alone`] waits,
//! so whoever uses it holds no other such lock and takes none until it has given this one back. For a holder without a ticket everybody waits.

use core::cell::Cell;
use core::fmt;
use core::mem::ManuallyDrop;

use machine::{Cpu, Word64};

const FREE: u64 = 0;
/// Held without a ticket.
const ALONE: u64 = u64::MAX;

/// How old a context is: smaller is older.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// Where tickets come from: one for all locks that may be taken together.
pub struct Tickets(Word64);

impl Tickets {
    /// No ticket has been drawn.
    pub const fn new() -> Self {
        Self(Word64::new(0))
    }

    fn draw<C: Cpu>(&self, cpu: &C) -> Ticket {
        // 2^64 tickets are not drawn in the life of a machine.
        Ticket(cpu.fetch_add(&self.0, 1) + 1)
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new()
    }
}

/// One attempt to take several locks (Linux: `ww_acquire_ctx`). It lies on the stack of its CPU and cannot go away while it holds locks.
pub struct AcquireContext<'c, C: Cpu> {
    cpu: &'c C,
    ticket: Ticket,
    held: Cell<u32>,
}

impl<'c, C: Cpu> AcquireContext<'c, C> {
    /// Draws a ticket.
    pub fn new(cpu: &'c C, tickets: &Tickets) -> Self {
        Self { cpu, ticket: tickets.draw(cpu), held: Cell::new(0) }
    }

    /// The ticket.
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// How many locks it holds.
    pub fn held(&self) -> u32 {
        self.held.get()
    }

    /// The CPU that it is of.
    pub const fn cpu(&self) -> &'c C {
        self.cpu
    }
}

/// Why a lock was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockError {
    /// An older context has it, and this one holds others: give them all back and begin with this lock (-EDEADLK).
    BackOff {
        /// The older context.
        holder: Ticket,
    },
    /// This context has it already (-EALREADY).
    Already,
    /// [`WwMutex::lock_slow`] is for contexts that hold nothing.
    HoldsOthers {
        /// How many locks this one holds.
        held: u32,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackOff { holder } => write!(f, "the older context {} has the lock: back off", holder.0),
            Self::Already => f.write_str("this context has the lock already"),
            Self::HoldsOthers { held } => {
                write!(f, "the slow path is for contexts that hold nothing, not {held} locks")
            }
        }
    }
}

impl core::error::Error for LockError {}

/// A lock that is taken together with others of its kind.
#[repr(transparent)]
pub struct WwMutex(Word64);

/// A [`WwMutex`] is held while this value lives.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct WwGuard<'l, C: Cpu> {
    mutex: &'l WwMutex,
    cpu: &'l C,
    held: Option<&'l Cell<u32>>,
}

/// What a context does about a lock that holds `state`: replaces it at once, or waits.
const fn decide(state: u64, ticket: u64, holds_others: Holding) -> Option<u64> {
    match (state, holds_others) {
        (FREE, _) => Some(ticket),
        // Left as it is: the caller finds out what it was.
        (state, _) if state == ticket => Some(state),
        (state, Holding::Something) if state < ticket => Some(state),
        _ => None,
    }
}

/// Whether somebody may be waiting for a context.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holding {
    Nothing,
    Something,
}

impl WwMutex {
    /// A free lock.
    pub const fn new() -> Self {
        Self(Word64::new(FREE))
    }

    /// Takes the lock for a context.
    ///
    /// Context: interrupts on, no spin lock.
    ///
    /// # Errors
    /// [`LockError::BackOff`], [`LockError::Already`].
    #[track_caller]
    pub fn lock<'l, C: Cpu>(&'l self, context: &'l AcquireContext<'_, C>) -> Result<WwGuard<'l, C>, LockError> {
        let ticket = context.ticket.0;
        let holding = if context.held() == 0 { Holding::Nothing } else { Holding::Something };
        let found = context.cpu.await_update(&self.0, |state| decide(state, ticket, holding));
        match found {
            FREE => {
                context.held.set(context.held.get() + 1);
                Ok(WwGuard { mutex: self, cpu: context.cpu, held: Some(&context.held) })
            }
            holder if holder == ticket => Err(LockError::Already),
            holder => Err(LockError::BackOff { holder: Ticket(holder) }),
        }
    }

    /// Takes the lock for a context that has backed off: waits as long as it takes.
    ///
    /// Context: interrupts on, no spin lock.
    ///
    /// # Errors
    /// [`LockError::HoldsOthers`]: it has not backed off.
    #[track_caller]
    pub fn lock_slow<'l, C: Cpu>(&'l self, context: &'l AcquireContext<'_, C>) -> Result<WwGuard<'l, C>, LockError> {
        match context.held() {
            0 => self.lock(context),
            held => Err(LockError::HoldsOthers { held }),
        }
    }

    /// Takes the lock if it is free.
    #[track_caller]
    pub fn try_lock<'l, C: Cpu>(&'l self, cpu: &'l C) -> Option<WwGuard<'l, C>> {
        cpu.compare_exchange(&self.0, FREE, ALONE).ok()?;
        Some(WwGuard { mutex: self, cpu, held: None })
    }

    /// Waits for the lock and takes it, without a ticket.
    ///
    /// Context: interrupts on, no spin lock, no other lock of this kind, and none taken until this one is given back but by [`Self::try_lock`].
    #[track_caller]
    pub fn lock_alone<'l, C: Cpu>(&'l self, cpu: &'l C) -> WwGuard<'l, C> {
        cpu.await_update(&self.0, |state| (state == FREE).then_some(ALONE));
        WwGuard { mutex: self, cpu, held: None }
    }

    /// Whether the context has the lock: nobody else can change that.
    pub fn is_held_by<C: Cpu>(&self, context: &AcquireContext<'_, C>) -> bool {
        context.cpu.load(&self.0) == context.ticket.0
    }

    /// The lock's own word, so that a machine or a trace can name it.
    pub const fn word(&self) -> &Word64 {
        &self.0
    }
}

impl Default for WwMutex {
    fn default() -> Self {
        Self::new()
    }
}

impl<'l, C: Cpu> WwGuard<'l, C> {
    /// The CPU that holds the lock.
    pub const fn cpu(&self) -> &'l C {
        self.cpu
    }

    /// Releases the lock: the same as dropping the guard, but a trace then names the caller's line.
    #[track_caller]
    pub fn unlock(self) {
        ManuallyDrop::new(self).release();
    }

    #[track_caller]
    fn release(&mut self) {
        if let Some(held) = self.held {
            held.set(held.get() - 1);
        }
        // A plain store: on x86 a release needs no more (MODEL.md, P3).
        self.cpu.store(&self.mutex.0, FREE);
    }
}

impl<C: Cpu> Drop for WwGuard<'_, C> {
    #[track_caller]
    fn drop(&mut self) {
        self.release();
    }
}

/// Locks that were taken together, in the order in which they were asked for.
pub struct LockedAll<'l, C: Cpu, const N: usize> {
    guards: [Option<WwGuard<'l, C>>; N],
}

impl<'l, C: Cpu, const N: usize> LockedAll<'l, C, N> {
    /// The guards.
    pub fn guards(self) -> impl Iterator<Item = WwGuard<'l, C>> {
        self.guards.into_iter().flatten()
    }
}

/// Takes all of `mutexes`, backing off as often as it must (Linux: `drm_exec`, `ttm_eu_reserve_buffers`).
///
/// Context: interrupts on, no spin lock. The context holds nothing.
///
/// # Errors
/// [`LockError::Already`] if one of them is asked for twice, [`LockError::HoldsOthers`]. None is held then.
#[track_caller]
pub fn lock_all<'l, C: Cpu, const N: usize>(
    context: &'l AcquireContext<'_, C>,
    mutexes: [&'l WwMutex; N],
) -> Result<LockedAll<'l, C, N>, LockError> {
    let mut contended = None;
    let head = context.cpu.loop_head();
    loop {
        context.cpu.round(&head, contended.map_or(0, |index: usize| index as u64 + 1));
        let mut guards = [const { None }; N];
        match take(context, &mutexes, &mut guards, contended) {
            Ok(()) => return Ok(LockedAll { guards }),
            Err((index, LockError::BackOff { .. })) => contended = Some(index),
            Err((_, error)) => return Err(error),
        }
    }
}

/// Takes `first` and then the others; says at which it failed.
#[track_caller]
fn take<'l, C: Cpu, const N: usize>(
    context: &'l AcquireContext<'_, C>,
    mutexes: &[&'l WwMutex; N],
    guards: &mut [Option<WwGuard<'l, C>>; N],
    first: Option<usize>,
) -> Result<(), (usize, LockError)> {
    if let Some(index) = first {
        guards[index] = Some(mutexes[index].lock_slow(context).map_err(|error| (index, error))?);
    } else if context.held() != 0 {
        return Err((0, LockError::HoldsOthers { held: context.held() }));
    }
    for (index, (mutex, guard)) in mutexes.iter().zip(guards.iter_mut()).enumerate() {
        if first != Some(index) {
            *guard = Some(mutex.lock(context).map_err(|error| (index, error))?);
        }
    }
    Ok(())
}
