//! GUP: from user addresses to references on the pages behind them.
//!
//! | module | what |
//! |---|---|
//! | `flags` | what a caller may ask for |
//! | `fast` | the lockless path |
//! | `slow`, `follow` | the path that takes locks and faults; one leaf on it |
//! | `gate` | the one page outside all areas |
//! | `file_pages` | the pages of a file, mapped or not |
//! | `release` | giving references back |

mod fast;
mod file_pages;
mod flags;
mod follow;
mod gate;
mod release;
mod slow;

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};

pub(crate) use fast::{needed, subframe};
pub use flags::{Fallback, Foll, InvalidFlags, Request, Signal, Term};
pub use gate::GatePage;

use crate::error::{FaultError, GupError};
use crate::folio::Reference;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// Frames of one folio to which the holder of this value has references, one a frame.
///
/// Not `Copy`: giving it to [`Mm::release`] consumes it, so that references are not given back twice.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "references that are not released keep their pages for ever"]
pub struct Run {
    pub(crate) frame: Frame,
    pub(crate) pages: u32,
    pub(crate) reference: Reference,
}

impl Run {
    /// The first frame.
    pub const fn frame(&self) -> Frame {
        self.frame
    }

    /// How many frames, one after the other.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Which kind of references.
    pub const fn reference(&self) -> Reference {
        self.reference
    }

    /// The first `pages` pages, and the others; `None` for a part that would be empty.
    pub fn split_at(self, pages: u32) -> (Option<Self>, Option<Self>) {
        let first = self.pages.min(pages);
        let part = |frame, pages| (pages > 0).then_some(Self { frame, pages, reference: self.reference });
        (part(self.frame, first), part(self.frame.wrapping_add(u64::from(first)), self.pages - first))
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes references on `pages` pages from `start` on, and hands them to `sink` in the order of their addresses, in runs. Returns how many
    /// pages those are.
    ///
    /// Tries the lockless path first; where that stops, faults the rest in, unless [`Foll::FAST_ONLY`] forbids it.
    ///
    /// Context: any with [`Foll::FAST_ONLY`]; else interrupts on, no spin lock, and the mmap lock of `space` not held. With
    /// [`crate::lifetime::ByInterrupt`], `space` is active on this CPU ([`Mm::enter`]): only such CPUs are waited for before a table is freed.
    ///
    /// # Errors
    /// If `pages` is not 0 and not a single page could be had. An error after the first page is not reported: the count is short then, and no reference is lost.
    #[inline]
    pub fn gup(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
        flags: Foll,
        sink: impl FnMut(Run),
    ) -> Result<u64, GupError> {
        self.gup_until(cpu, space, (start, pages), flags, || Signal::None, sink)
    }

    /// [`Self::gup`] for a caller that may be told to stop: `signal` is asked before every page that takes the slow path, and before every wait.
    ///
    /// A fatal signal ends it in both cases, another one a wait with [`Foll::INTERRUPTIBLE`].
    ///
    /// Context: as for [`Self::gup`].
    ///
    /// # Errors
    /// As for [`Self::gup`].
    #[inline]
    pub fn gup_until(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        flags: Foll,
        signal: impl Fn() -> Signal,
        mut sink: impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let request = flags.validate()?;
        let (start, end) = self.tagged_range(space, start, pages)?;
        self.note_pins(cpu, space, request);
        let fast = if request.is_lockless() { self.gup_fast(cpu, space, start, end, request, &mut sink) } else { 0 };
        if fast == pages || request.fallback == Fallback::None {
            return Ok(fast);
        }
        self.gup_rest(cpu, space, (start, end), fast, request, &signal, &mut sink)
    }

    /// What the fast path has left over of `start..end`, behind `fast` pages. Out of the way: with flags known to the compiler, all of the rest is one function.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "what the fast path knows")]
    fn gup_rest(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, end): (VirtAddr, VirtAddr),
        fast: u64,
        request: Request,
        signal: &impl Fn() -> Signal,
        sink: &mut impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let rest = (start.wrapping_add(fast * PAGE_SIZE), end);
        match self.gup_slow(cpu, space, rest, request, signal, sink) {
            Err(error) if fast == 0 => Err(error),
            Err(_) => Ok(fast),
            Ok(slow) => Ok(fast + slow),
        }
    }

    /// [`Self::gup`] for the address space of somebody else, which need not be active on this CPU (Linux: `get_user_pages_remote`, `pin_user_pages_remote`).
    ///
    /// Only the slow path is taken: it holds the mmap lock, so that no table is freed. Protection keys are not asked: the caller's PKRU means nothing there. Alone, the [gate page](GatePage) can be had here even if it lies above what user code can have.
    ///
    /// Context: interrupts on, no spin lock, and the mmap lock of `space` not held.
    ///
    /// # Errors
    /// As for [`Self::gup`]. [`Foll::FAST_ONLY`] is refused.
    pub fn gup_remote(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        flags: Foll,
        signal: impl Fn() -> Signal,
        mut sink: impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let request = flags.validate()?;
        if request.fallback == Fallback::None {
            return Err(InvalidFlags::SlowOnly(Foll::REMOTE).into());
        }
        let (start, end) = self.range_or_gate(space, start, pages)?;
        let request = request.remote();
        self.note_pins(cpu, space, request);
        self.gup_slow(cpu, space, (start, end), request, &signal, &mut sink)
    }

    /// Calls `sink` for the pages of a range that a core dump needs, with their addresses. Holes are passed over: pages that nobody has touched, and pages that cannot
    /// be had (Linux: `get_dump_page` for each).
    ///
    /// Context: as for [`Self::gup_remote`].
    ///
    /// # Errors
    /// The range cannot be meant, or a signal came: what was handed over before is the caller's.
    pub fn dump(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (start, pages): (VirtAddr, u64),
        signal: impl Fn() -> Signal,
        mut sink: impl FnMut(VirtAddr, Run),
    ) -> Result<(), GupError> {
        let request = (Foll::GET | Foll::DUMP | Foll::FORCE).validate()?.remote();
        let (start, end) = self.tagged_range(space, start, pages)?;
        let mut at = start;
        while at < end {
            let mut next = at;
            let got = self.gup_slow(cpu, space, (at, end), request, &signal, &mut |run: Run| {
                let address = next;
                next = next.wrapping_add(u64::from(run.pages) * PAGE_SIZE);
                sink(address, run);
            });
            at = match got {
                Ok(pages) => at.wrapping_add(pages * PAGE_SIZE),
                Err(error @ GupError::Interrupted { .. }) => return Err(error),
                Err(GupError::Fault(FaultError::NoArea { .. })) => self.next_area(cpu, space, at, end),
                Err(_) => at.wrapping_add(PAGE_SIZE),
            };
        }
        Ok(())
    }

    /// Where the next area begins, or the gate page is, at `end` at the latest.
    fn next_area(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, at: VirtAddr, end: VirtAddr) -> VirtAddr {
        let mmap = space.mmap_read(cpu, (at, end));
        let area = space.first_in(cpu, at, end).map_or(end, |(_, area)| area.start.max(at));
        mmap.unlock();
        space.gate_page().filter(|gate| gate.address >= at).map_or(area, |gate| area.min(gate.address))
    }

    /// A fork that comes after this looks for pins.
    #[inline]
    fn note_pins(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, request: Request) {
        if request.reference == Reference::Pin {
            space.set_has_pinned(cpu);
        }
    }
}
