//! GUP: from user addresses to references on the pages behind them.
//!
//! | module | what |
//! |---|---|
//! | `flags` | what a caller may ask for |
//! | `fast` | the lockless path |
//! | `slow` | the path that takes locks and faults |
//! | `release` | giving references back |

mod fast;
mod flags;
mod release;
mod slow;

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};

pub(crate) use fast::{needed, subframe};
pub use flags::{Fallback, Foll, InvalidFlags, Request, Term};

use crate::error::GupError;
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
    pub fn gup(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        start: VirtAddr,
        pages: u64,
        flags: Foll,
        mut sink: impl FnMut(Run),
    ) -> Result<u64, GupError> {
        let request = flags.validate()?;
        let end = self.page_range(start, pages)?;
        let fast = self.gup_fast(cpu, space, start, end, request, &mut sink);
        if fast == pages || request.fallback == Fallback::None {
            return Ok(fast);
        }
        match self.gup_slow(cpu, space, start.wrapping_add(fast * PAGE_SIZE), end, request, &mut sink) {
            Err(error) if fast == 0 => Err(error),
            Err(_) => Ok(fast),
            Ok(slow) => Ok(fast + slow),
        }
    }
}
