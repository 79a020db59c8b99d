//! The cache line that says what a CPU is in the middle of.

use machine::{IrqState, Vector};

use crate::backoff::Backoff;
use crate::fences::Fences;
use crate::sync::{AtomicU64, Ordering, compiler_fence, fence};

/// What a CPU's thread writes when it enters and leaves sections, and where others leave word for it.
///
/// Two cache lines' worth of alignment: processors prefetch lines in pairs.
#[repr(align(128))]
pub(crate) struct Line {
    /// See [`Sections`]. Written by the CPU's own thread only.
    sections: AtomicU64,
    /// See [`Mailbox`].
    mailbox: AtomicU64,
}

/// The sections that a CPU is in: 0, or the [epoch](crate::grace) at which it entered the first of them, whether one of them has interrupts off, and
/// how deep RCU sections nest.
///
/// One word, because a thread may leave one kind while it is in the other, and stays in *a* section all the time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sections(u64);

impl Sections {
    const NONE: Self = Self(0);
    const DEPTH: u64 = 0xffff;
    const IRQS_OFF: u64 = 1 << 16;
    const EPOCH_SHIFT: u32 = 17;

    const fn irqs_are_off(self) -> bool {
        self.0 & Self::IRQS_OFF != 0
    }

    const fn rcu_depth(self) -> u64 {
        self.0 & Self::DEPTH
    }

    const fn is_older_than(self, epoch: u64) -> bool {
        self.0 != 0 && self.0 >> Self::EPOCH_SHIFT < epoch
    }

    /// In one more section, of the kind that `bits` stand for.
    #[inline(always)]
    fn entered(self, bits: u64, epoch: impl FnOnce() -> u64) -> Self {
        if self.0 == 0 { Self(epoch() << Self::EPOCH_SHIFT | bits) } else { Self(self.0 + bits) }
    }

    /// Out of a section of the kind that `bits` stand for, in which it is.
    ///
    /// A branch and not a selection: so the store that follows waits for nothing, and sections back to back do not form a chain through memory.
    #[inline(always)]
    fn left(self, bits: u64) -> Self {
        if self.0 & (Self::IRQS_OFF | Self::DEPTH) == bits { Self::NONE } else { self.left_inner(bits) }
    }

    #[cold]
    #[inline(never)]
    fn left_inner(self, bits: u64) -> Self {
        Self(self.0 - bits)
    }
}

/// What a CPU's mailbox holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mailbox(u64);

impl Mailbox {
    /// Interrupts raised and not yet taken.
    const PENDING: u64 = 0b011;
    /// Somebody has the right to run this CPU's handlers.
    const CLAIMED: u64 = 0b100;
    /// Sections execute fences ([`crate::Fences::Symmetric`]). Never changes. Here because sections look here anyway.
    const FENCED: u64 = 0b1000;
    /// Counts the claims that ended.
    const CLAIM: u64 = 1 << 32;
    /// Added while the claim is held: gives it back and counts it.
    const RELEASE: u64 = Self::CLAIM - Self::CLAIMED;

    const fn bit(vector: Vector) -> u64 {
        match vector {
            Vector::TlbShootdown => 0b01,
            Vector::Synchronise => 0b10,
        }
    }

    pub(crate) const fn is_pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    pub(crate) const fn is_claimed(self) -> bool {
        self.0 & Self::CLAIMED != 0
    }

    /// Whether both show the same claim, still held.
    pub(crate) const fn is_same_claim(self, other: Self) -> bool {
        self.is_claimed() && other.is_claimed() && self.0 / Self::CLAIM == other.0 / Self::CLAIM
    }

    pub(crate) fn vectors(self) -> impl Iterator<Item = Vector> {
        [Vector::TlbShootdown, Vector::Synchronise].into_iter().filter(move |vector| self.0 & Self::bit(*vector) != 0)
    }
}

impl Line {
    /// Of a CPU with interrupts on, outside any section.
    pub(crate) fn at_rest(fences: Fences) -> Self {
        let mailbox = match fences {
            Fences::Asymmetric => 0,
            Fences::Symmetric => Mailbox::FENCED,
        };
        Self { sections: AtomicU64::new(Sections::NONE.0), mailbox: AtomicU64::new(mailbox) }
    }

    /// Of a CPU while it runs a handler: interrupts are off and stay so, and nobody leaves word.
    ///
    /// Who waits for a grace period looks at the claim instead (`Mailbox::CLAIMED`), which was taken by a full barrier.
    pub(crate) fn in_handler() -> Self {
        Self { sections: AtomicU64::new(Sections::IRQS_OFF), mailbox: AtomicU64::new(0) }
    }

    // ---- by the CPU's own thread ----

    #[inline(always)]
    fn own_sections(&self) -> Sections {
        Sections(self.sections.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set_sections(&self, sections: Sections) {
        self.sections.store(sections.0, Ordering::Release);
        // "Store mine, then load yours": the processor's side of it is up to who waits, or to `fence_if_symmetric`.
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn mailbox_has(&self, bits: u64) -> bool {
        self.mailbox.load(Ordering::Acquire) & bits != 0
    }

    #[inline(always)]
    pub(crate) fn irq_save(&self, epoch: impl FnOnce() -> u64) -> IrqState {
        let sections = self.own_sections();
        if sections.irqs_are_off() {
            return IrqState::Off;
        }
        self.set_sections(sections.entered(Sections::IRQS_OFF, epoch));
        if self.mailbox_has(Mailbox::CLAIMED | Mailbox::FENCED) {
            self.wait_for_handler();
        }
        IrqState::On
    }

    /// Somebody may be running this CPU's handlers: a section begins after they ended.
    #[cold]
    fn wait_for_handler(&self) {
        self.fence_if_symmetric();
        Backoff::until(|| !self.mailbox().is_claimed());
    }

    /// Turns interrupts on. Returns whether some may have to be taken now.
    #[inline(always)]
    pub(crate) fn irq_on(&self) -> bool {
        let sections = self.own_sections();
        if sections.irqs_are_off() {
            self.set_sections(sections.left(Sections::IRQS_OFF));
        }
        self.mailbox_has(Mailbox::CLAIMED | Mailbox::FENCED | Mailbox::PENDING)
    }

    #[inline(always)]
    pub(crate) fn rcu_enter(&self, epoch: impl FnOnce() -> u64) {
        let sections = self.own_sections();
        debug_assert!(sections.rcu_depth() != Sections::DEPTH, "RCU sections nest too deep");
        self.set_sections(sections.entered(1, epoch));
        if self.mailbox_has(Mailbox::FENCED) {
            fence(Ordering::SeqCst);
        }
    }

    #[inline(always)]
    pub(crate) fn rcu_leave(&self) {
        let sections = self.own_sections();
        debug_assert!(sections.rcu_depth() != 0, "rcu_read_unlock without rcu_read_lock");
        compiler_fence(Ordering::SeqCst);
        self.set_sections(sections.left(1));
    }

    /// Ends the RCU sections that are open.
    pub(crate) fn rcu_leave_all(&self) {
        while self.own_sections().rcu_depth() != 0 {
            self.rcu_leave();
        }
    }

    pub(crate) fn fence_if_symmetric(&self) {
        if self.mailbox_has(Mailbox::FENCED) {
            fence(Ordering::SeqCst);
        }
    }

    // ---- by anybody ----

    fn sections(&self) -> Sections {
        Sections(self.sections.load(Ordering::Acquire))
    }

    pub(crate) fn irqs_are_on(&self) -> bool {
        !self.sections().irqs_are_off()
    }

    pub(crate) fn is_in_section(&self) -> bool {
        self.sections() != Sections::NONE
    }

    /// Whether the CPU is inside a section that began before `epoch`, or in one that overlaps one that did.
    pub(crate) fn is_in_section_older_than(&self, epoch: u64) -> bool {
        self.sections().is_older_than(epoch)
    }

    pub(crate) fn mailbox(&self) -> Mailbox {
        Mailbox(self.mailbox.load(Ordering::Acquire))
    }

    /// Raises an interrupt, and claims the right to run the handlers. Whether that was free.
    pub(crate) fn post_and_claim(&self, vector: Vector) -> bool {
        let before = self.mailbox.fetch_or(Mailbox::bit(vector) | Mailbox::CLAIMED, Ordering::SeqCst);
        !Mailbox(before).is_claimed()
    }

    /// Claims the right to run the handlers, if the mailbox still holds `seen`, which shows that it is free.
    pub(crate) fn claim(&self, seen: Mailbox) -> bool {
        debug_assert!(!seen.is_claimed());
        self.mailbox.compare_exchange(seen.0, seen.0 | Mailbox::CLAIMED, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    // ---- by who holds the claim ----

    /// What is pending, and is not from here on.
    pub(crate) fn take_pending(&self) -> Mailbox {
        Mailbox(self.mailbox.fetch_and(!Mailbox::PENDING, Ordering::SeqCst))
    }

    /// Gives the claim back, unless something is pending. Whether it did.
    pub(crate) fn release_if_nothing_pends(&self) -> bool {
        let seen = self.mailbox();
        !seen.is_pending()
            && self
                .mailbox
                .compare_exchange(seen.0, seen.0.wrapping_add(Mailbox::RELEASE), Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }

    /// Gives the claim back, and leaves what is pending.
    pub(crate) fn release(&self) {
        self.mailbox.fetch_add(Mailbox::RELEASE, Ordering::SeqCst);
    }
}
