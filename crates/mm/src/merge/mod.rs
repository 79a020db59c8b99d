//! Equal anonymous pages become one (Linux: KSM, `mm/ksm.c`).
//!
//! Who looks for equal pages is not the engine's business: a scanner calls [`Mm::merge`] with two places whose pages it believes equal.
//!
//! | module | what |
//! |---|---|
//! | `place` | the entry of a place, its folio, and a page that nobody can write to |
//! | `zero` | pages of zeros become the zero page |
//! | `unmerge` | pages of their own again |
//! | `error` | why pages were not merged |
//!
//! # Protocol
//!
//! 1. The page that *stays*: under the lock of its table the entry is cleared, and TLBs are flushed. If nobody has a reference that its mappings do not explain, the page
//!    stops being exclusive, and the entry comes back without the right to write. From here on nobody writes to it: a store finds that the page is not exclusive and,
//!    because this CPU has a reference, that it has other users, and goes to a copy.
//! 2. The page that *goes*: under the lock of its table the entry is cleared, and TLBs are flushed. If nobody has a reference that its mappings do not explain, neither user code nor
//!    a device can write to it. **Only now** contents are compared.
//! 3. If they are equal, the first page is marked as merged ([`FolioFlags::KSM`]), and mapped in the place of the other. Else the entry comes back as it was.
//! 4. The lock is dropped, and the page that went is given back.
//!
//! Linux write-protects the page that goes (`write_protect_page`), drops the lock, compares, takes the lock again, and replaces the entry if it is still the same (`replace_page`). Here the
//! lock is held all along, as where fork copies a pinned page: there is nothing to look at again, and where pages differ nothing has changed.
//!
//! # Users
//!
//! Fast GUP may take a reference at any moment. It pins first and looks at the entry again second, so the entry is cleared first and references are counted second
//! (`exclusive`).
//!
//! A page that a fork has shared has several mappings, and they come and go while they are counted. Each has a reference for as long as it counts. So references are counted first, and
//! mappings second, *which must not become more in between*: the folio is locked, so that nobody else maps it by merging or at the end of a migration, and the rmap lock keeps forks out. If the
//! numbers agree then, there was no other reference when the first was read. (Linux reads the two numbers with no such lock.)
//!
//! A merged page that goes once more may be mapped in areas of other files, too, whose forks nobody keeps out: a reference to it may be missed. Whoever has that only reads, and goes on reading
//! what nobody writes to.
//!
//! # A merged page
//!
//! is an anonymous page that is not exclusive, like one that a fork has shared: a store copies it, and a pin for reading unshares it first. But its mappings are not only where its record
//! says, so that nobody finds them by rmap. Hence reclaim leaves it where it is, as Linux 2.6.32 did; and if its memory fails, all areas are looked through ([`Mm::memory_failure`]). And its last user copies it all the same when he writes: the copy's record is right again.
//!
//! # Zeros
//!
//! A page that holds zeros need not be kept for anybody: [`MergeInto::ZeroPage`] maps the zero page in its place, as faults for reading do (Linux: `use_zero_pages`). Step 1 is left out. The zero
//! page is not counted, so such an entry has no other mark than its dirty bit, which faults for reading do not set (Linux since 6.6: `is_ksm_zero_pte`). By that [`Mm::unmerge`] knows it, and
//! how many there are is counted ([`AddressSpace::merged_zeros`]): whoever takes an entry out of a table that had the zero page, or copies it to a child's, looks at the mark.
//!
//! # Locks
//!
//! mmap lock (of one address space at a time), rmap lock, page-table lock. Folio locks are only tried for.

pub(crate) mod error;
mod place;
mod unmerge;
pub(crate) mod zero;

use machine::addr::{Frame, VirtAddr};

use crate::exclusive::share;
use crate::folio::{Folio, FolioFlags, Reference};
use crate::frames::FrameSource;
use crate::guard::{Guards, KeptPageHold};
use crate::merge::error::{MergeError, Unmergeable};
use crate::merge::place::At;
use crate::mm::Mm;
use crate::platform::Platform;
#[cfg(doc)]
use crate::space::AddressSpace;
use crate::space::SpaceId;

/// What takes the place of a page that goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeInto {
    /// The page that is mapped there, if both are equal.
    Page(SpaceId, VirtAddr),
    /// The zero page, if the page that goes holds zeros.
    ZeroPage,
}

impl From<(SpaceId, VirtAddr)> for MergeInto {
    fn from((space, address): (SpaceId, VirtAddr)) -> Self {
        Self::Page(space, address)
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Maps the page at `into`, or the zero page, at `from` as well, where an equal page is mapped, which is given back. Returns the frame of the page that stays.
    ///
    /// The two places may be of one address space or of two. User code sees the same contents there, and gets a copy when it writes. Who accesses them meanwhile waits.
    ///
    /// Context: interrupts on, no lock. The caller has no reference of its own to the pages.
    ///
    /// # Errors
    /// Why not, and of which of the two places. Nothing has changed then but that the page at `into` may have become read-only; faults make it writable again.
    pub fn merge(
        &self,
        cpu: &P::Cpu,
        into: impl Into<MergeInto>,
        from: (SpaceId, VirtAddr),
    ) -> Result<Frame, MergeError> {
        match into.into() {
            MergeInto::Page(space, address) => self.merge_into_page(cpu, (space, address), from),
            MergeInto::ZeroPage => self.merge_into_zero_page(cpu, from),
        }
    }

    fn merge_into_page(
        &self,
        cpu: &P::Cpu,
        into: (SpaceId, VirtAddr),
        from: (SpaceId, VirtAddr),
    ) -> Result<Frame, MergeError> {
        let kept = self.at_place(cpu, into, |at| self.keep(cpu, at)).map_err(MergeError::Into)?;
        let hold = self.protocols().guards.hold_kept_page();
        if hold == KeptPageHold::Never {
            self.drop_own_reference(cpu, &kept);
        }
        match self.at_place(cpu, from, |at| self.replace(cpu, at, &kept, hold)) {
            Ok(gone) => {
                self.give_back_gone(cpu, &gone);
                Ok(kept.membership().head)
            }
            Err(error) => {
                if hold == KeptPageHold::UntilMapped {
                    self.drop_own_reference(cpu, &kept);
                }
                Err(MergeError::From(error))
            }
        }
    }

    /// Gives back a page that nothing is mapped to any more in its place.
    fn give_back_gone(&self, cpu: &P::Cpu, gone: &Folio<'m>) {
        gone.remove_rmap(cpu, 1);
        // The entry's, and this CPU's own: this cannot underflow.
        let _ = gone.put(cpu, self.map(), 2, Reference::Get);
    }

    /// Step 1. The caller has a reference to the folio then.
    fn keep(&self, cpu: &P::Cpu, at: &mut At<'_, 'm, '_, P>) -> Result<Folio<'m>, Unmergeable> {
        let leaf = self.mergeable_leaf(at)?;
        self.with_folio(cpu, leaf.frame, |folio, flags| {
            if flags.contains(FolioFlags::KSM) {
                // Not exclusive, and nobody can write to it.
                return Ok(());
            }
            if flags.contains(FolioFlags::MOVABLE) {
                return Err(Unmergeable::Movable);
            }
            let isolated = self.isolate(cpu, at, folio, &leaf)?;
            self.protocols().guards.share_kept_page(|| share(self.map(), cpu, leaf.frame));
            self.put_back(cpu, at, &isolated, isolated.read_only(leaf.frame));
            Ok(())
        })
    }

    /// Steps 2 and 3. The caller has two references to the folio then: its own, and the entry's, which has that to `kept` now.
    fn replace(
        &self,
        cpu: &P::Cpu,
        at: &mut At<'_, 'm, '_, P>,
        kept: &Folio<'m>,
        hold: KeptPageHold,
    ) -> Result<Folio<'m>, Unmergeable> {
        let leaf = self.mergeable_leaf(at)?;
        let frame = kept.membership().head;
        if leaf.frame == frame {
            return Err(Unmergeable::Same);
        }
        self.with_folio(cpu, leaf.frame, |folio, _| {
            // Locked, and looked at once more: nobody finds out whether it may leave its frame, or takes it out of use because its memory has failed, while it gets a mapping that its record does not
            // tell of; and who has done so before is noticed.
            self.with_locked(cpu, kept, |kept, _| {
                let isolated = self.isolate(cpu, at, folio, &leaf)?;
                if !self.frames().equal(cpu, frame, leaf.frame) {
                    self.put_back(cpu, at, &isolated, isolated.entry);
                    return Err(Unmergeable::Different);
                }
                if hold == KeptPageHold::Never {
                    kept.get_held(cpu);
                }
                kept.mark(cpu, FolioFlags::KSM);
                kept.add_rmap(cpu);
                self.put_back(cpu, at, &isolated, isolated.read_only(frame));
                Ok(())
            })
        })
    }
}
