//! Bringing a page back from swap.
//!
//! # Protocol
//!
//! 1. A folio is allocated.
//! 2. Under the page-table lock, the entry is looked at again, and its place on swap *held* by one more count.
//! 3. The page is read, without a lock.
//! 4. Under the lock again, if the entry is still the same, the page is mapped in its place. Else somebody else was faster, and it is given back.
//! 5. The counts of the place are given back: that of the entry, and the one from step 2.
//!
//! The count in step 2 keeps the place from being freed and used again. Otherwise another CPU could bring the page in, write to it, and swap it out
//! again to the same place between steps 2 and 4: the entry would look the same, and step 4 map the old contents (Linux 13ddaf26be32,
//! CVE-2024-26759).
//!
//! # One folio for each entry
//!
//! Two address spaces may share a place: fork copies swap entries. Each that faults gets a folio of its own, which is exclusive from the start. Linux
//! lets them share one until one of them writes, by its swap cache; for private memory that is a matter of room alone, because nobody can tell. So a swap entry need not remember whether its page
//! was exclusive (Linux since 1493a1913e34): what comes back is written without a copy in any case.

use pagetable::{Entry, Position, Swap, SwapFlags};

use crate::error::FaultError;
use crate::fault::{Fault, Outcome, Want};
use crate::folio::{Folio, FolioFlags};
use crate::guard::{Guards, SwapPlaceHold};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::reclaim::SOFT_DIRTY;
use crate::swap::{SwapError, SwapPlace, SwapStore};

impl<P: Platform> Mm<'_, P> {
    /// Maps the page that `seen`, an entry that was read at `position` without a lock, says is on swap.
    ///
    /// # Errors
    /// There is no frame, or the page could not be read. The entry is as it was.
    pub(super) fn swap_in(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        position: &Position<'_>,
        seen: Entry,
        swap: Swap,
    ) -> Result<Outcome, FaultError> {
        let place = SwapPlace { device: swap.device, offset: swap.offset };
        let failed = |error: SwapError| FaultError::Swap { address: fault.address, error };
        let folio = self.allocate_anonymous(cpu, fault)?;
        let hold = self.protocols().guards.hold_swap_place();
        if hold == SwapPlaceHold::WhileReading {
            let held = match self.lock_unchanged(cpu, fault, position, seen) {
                // The entry has a count, so the place is in use.
                Some(table) => {
                    let held = self.swap().duplicate(cpu, place).map_err(failed);
                    table.unlock();
                    held.map(|()| Outcome::Mapped)
                }
                None => Ok(Outcome::Changed),
            };
            if held != Ok(Outcome::Mapped) {
                self.give_back(cpu, &folio);
                return held;
            }
        }
        let read = self.swap().read(cpu, place, folio.membership().head).map_err(failed);
        let outcome = match read {
            Ok(()) => self.map_read_in(cpu, fault, position, seen, swap, &folio),
            Err(error) => {
                self.give_back(cpu, &folio);
                Err(error)
            }
        };
        if hold == SwapPlaceHold::WhileReading {
            self.swap().free(cpu, place);
        }
        outcome
    }

    /// Step 4. The entry takes over the reference to the folio, or it is given back.
    fn map_read_in(
        &self,
        cpu: &P::Cpu,
        fault: &Fault,
        position: &Position<'_>,
        seen: Entry,
        swap: Swap,
        folio: &Folio<'_>,
    ) -> Result<Outcome, FaultError> {
        let frame = folio.membership().head;
        let soft_dirty = swap.flags.has(SwapFlags::SOFT_DIRTY);
        let mut attributes = match fault.want {
            // The first write must be noticed.
            Want::Read | Want::Unshare if !soft_dirty => fault.read_only(),
            _ => fault.attributes(),
        };
        if soft_dirty {
            attributes = attributes.with_mark(SOFT_DIRTY);
        }
        let attributes = self.bring_back_uffd_wp(attributes, swap.flags);
        let entry = match Entry::leaf(fault.level, frame, attributes) {
            Ok(entry) => entry,
            Err(_) => {
                self.give_back(cpu, folio);
                return Err(fault.bad_frame(frame));
            }
        };
        let Some(mut table) = self.lock_unchanged(cpu, fault, position, seen) else {
            self.give_back(cpu, folio);
            return Ok(Outcome::Changed);
        };
        // The only copy is in memory now.
        folio.mark(cpu, FolioFlags::DIRTY);
        folio.add_rmap(cpu);
        table.replace(&self.protocols().write, fault.address, entry);
        table.unlock();
        self.swap().free(cpu, SwapPlace { device: swap.device, offset: swap.offset });
        Ok(Outcome::Mapped)
    }
}
