//! HMM: pages of an address space for a device that has a page table of its own (Linux: `hmm_range_fault`, `Documentation/mm/hmm.rst`).
//!
//! The device has no references to what it maps. It may use a page until [`Notify::start`](crate::Notify::start) tells it to forget it, and it may begin to only if
//! nobody has told it to since the page was looked up. [`Mm::mirror`] is that protocol:
//!
//! 1. wait until no invalidation is under way, and note how many there have been ([`Invalidations::begin`]);
//! 2. under the mmap lock, look the pages up, and fault in what is wanted;
//! 3. take the device's lock, under which it forgets as well;
//! 4. if an invalidation has begun since step 1, drop the lock and begin again: what was looked up may be gone, and the device was told to forget it *before* it had it;
//! 5. put the pages into the device's page table, and drop the lock.
//!
//! Without step 4 the device translates to a frame that was freed, and nobody will ever tell it (race `mirror-zap`).
//!
//! Step 2 takes no page-table lock: an entry may change right after it was read, and step 4 notices. Entries are read with interrupts off, one walk at a time, as fast GUP reads them.
//!
//! # Who writes
//!
//! A device may write only through entries that are *dirty* already. Whoever cleans an entry says so first, like everybody who takes something away, so the device has forgotten it by then and
//! what it wrote was written while the entry said so (race `mirror-clean`). (Linux looks at the right to write only, and leaves it to drivers to call `set_page_dirty`.)

use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use machine::{Access, Cpu};
use pagetable::{Level, Marker, WalkError, walk};

use crate::area::{Area, AreaRights};
use crate::error::{FaultError, RangeError};
use crate::fault::Want;
use crate::file::FileKind;
use crate::guard::Guards;
use crate::leaf::{Held, Presence};
use crate::mm::Mm;
use crate::notify::{Invalidations, Seen};
use crate::platform::Platform;
use crate::protection_keys::Accessor;
use crate::space::AddressSpace;
use crate::special::Attempt;

/// What is wanted of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HmmRequest {
    /// To know what is there: nothing is faulted in.
    Snapshot,
    /// A page that can be read (HMM_PFN_REQ_FAULT).
    Fault,
    /// A page that can be written (HMM_PFN_REQ_WRITE).
    FaultForWrite,
}

/// What there is for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HmmPage {
    /// Nothing that could be used without a fault.
    None,
    /// A frame (HMM_PFN_VALID).
    Valid {
        /// The page's own, in the middle of a huge leaf too.
        frame: Frame,
        /// `Write` if the device may write, too (HMM_PFN_WRITE).
        access: Access,
        /// The leaf maps `1 << order` frames, of which the range need not hold all.
        order: u8,
    },
    /// A place of which nothing can be mirrored: no area, one that cannot be read, a driver's page (HMM_PFN_ERROR).
    Error,
}

/// Why pages were not mirrored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HmmError {
    /// The range cannot be meant.
    Range(RangeError),
    /// A driver's page is wanted, or any page of an area of a driver (-EFAULT).
    Special {
        /// The address.
        address: VirtAddr,
    },
    /// A page is wanted that no fault brings (-EFAULT, -EPERM).
    Fault(FaultError),
}

/// Something was taken away since the pages were looked up: they must not be put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfDate;

/// The device may put in what was looked up, as long as it keeps its lock: only [`MirrorCheck::check`] gives this out.
#[derive(Debug)]
#[must_use = "it is what the closure of `Mm::mirror` returns"]
pub struct UpToDate(());

/// The last question before pages are put into a device.
pub struct MirrorCheck<'c, P: Platform> {
    guards: &'c P::Guards,
    cpu: &'c P::Cpu,
    invalidations: &'c Invalidations,
    since: Seen,
}

impl<P: Platform> MirrorCheck<'_, P> {
    /// Whether the pages may be put in.
    ///
    /// Context: the device's lock is held, and stays held until they are in.
    ///
    /// # Errors
    /// They may not.
    #[track_caller]
    pub fn check(self) -> Result<UpToDate, OutOfDate> {
        let Self { guards, cpu, invalidations, since } = self;
        if guards.mirror_is_stale(cpu, invalidations, since) { Err(OutOfDate) } else { Ok(UpToDate(())) }
    }
}

/// Why a look-up ended.
enum Failed {
    /// Something was taken away meanwhile: begin again.
    Again,
    /// A wanted page cannot be had.
    For(HmmError),
}

/// Why a page cannot be had as it is.
enum Missing {
    /// It is a driver's.
    Special,
    /// This fault may help, or says what is wrong.
    Fault(Want),
}

/// What one leaf, or the lack of one, says of addresses.
#[derive(Clone, Copy)]
struct Look {
    /// The first address, and the level.
    first: VirtAddr,
    level: Level,
    held: Held,
}

impl Look {
    fn covers(&self, at: VirtAddr) -> bool {
        at.align_down(self.level.size()) == self.first
    }
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Mirrors the pages from `start` on, as many as `pages` has room for: looks them up, as `request` of the number of each says, and hands them to `put` when they may be put into the device.
    ///
    /// `put` takes the device's lock, asks [`MirrorCheck::check`], puts the pages in if it may, and drops the lock. If it may not, it returns the error, and everything begins again. `invalidations`
    /// are those that the device's [`Notify::start`](crate::Notify::start) counts; it forgets under the same lock. What the device maps beyond the range (the rest of a huge leaf) it must forget, too,
    /// when it is told of that.
    ///
    /// Context: interrupts on, no lock. With [`crate::lifetime::ByInterrupt`], `space` is active on this CPU ([`Mm::enter`]), as for [`Mm::gup`].
    ///
    /// # Errors
    /// Why a wanted page cannot be had. Nothing was put in then; `pages` says nothing.
    pub fn mirror(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        invalidations: &Invalidations,
        (start, pages): (VirtAddr, &mut [HmmPage]),
        request: impl Fn(usize) -> HmmRequest,
        mut put: impl FnMut(&[HmmPage], MirrorCheck<'_, P>) -> Result<UpToDate, OutOfDate>,
    ) -> Result<(), HmmError> {
        let (start, end) = self.tagged_range(space, start, pages.len() as u64)?;
        let mut attempt = Attempt::First;
        let head = cpu.loop_head();
        loop {
            cpu.round(&head, attempt as u64);
            let since = invalidations.begin(cpu);
            let mmap = space.mmap_read(cpu, (start, end));
            let result = self.look_up(cpu, space, (invalidations, since), (start, pages), &request, attempt);
            mmap.unlock();
            match result {
                Ok(()) => {}
                Err(Failed::Again) => continue,
                Err(Failed::For(HmmError::Fault(error))) => {
                    attempt = self.wait_for_resolution(cpu, space, error).map_err(HmmError::Fault)?;
                    continue;
                }
                Err(Failed::For(error)) => return Err(error),
            }
            let check = MirrorCheck { guards: &self.protocols().guards, cpu, invalidations, since };
            if let Ok(UpToDate(())) = put(pages, check) {
                return Ok(());
            }
        }
    }

    /// Looks the pages up, and faults in what is wanted. The caller holds the mmap lock.
    fn look_up(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        (invalidations, since): (&Invalidations, Seen),
        (start, pages): (VirtAddr, &mut [HmmPage]),
        request: impl Fn(usize) -> HmmRequest,
        attempt: Attempt,
    ) -> Result<(), Failed> {
        let mut area: Option<Area> = None;
        let mut look: Option<Look> = None;
        let mut next = 0;
        let head = cpu.loop_head();
        while let Some(page) = pages.get_mut(next) {
            cpu.round(&head, next as u64);
            let at = start.wrapping_add(next as u64 * PAGE_SIZE);
            let request = request(next);
            if !area.is_some_and(|area| area.contains(at)) {
                area = space.find(cpu, at);
            }
            match area {
                Some(area) if self.may_be_mirrored(&area) => {}
                _ if request == HmmRequest::Snapshot => {
                    *page = HmmPage::Error;
                    next += 1;
                    continue;
                }
                Some(area) if area.rights != AreaRights::None => return Err(HmmError::Special { address: at }.into()),
                Some(area) => {
                    return Err(FaultError::Forbidden { address: at, access: Access::Read, area }.into());
                }
                None => return Err(FaultError::NoArea { address: at }.into()),
            }
            let seen_leaf = match look {
                Some(look) if look.covers(at) => look,
                _ => self.look_at(cpu, space, at)?,
            };
            look = Some(seen_leaf);
            match self.page_of(&seen_leaf, at, request) {
                Ok(found) => {
                    *page = found;
                    next += 1;
                }
                Err(Missing::Special) => return Err(HmmError::Special { address: at }.into()),
                Err(Missing::Fault(want)) => {
                    self.fault_in(cpu, space, at, want, attempt, Accessor::Remote)?;
                    look = None;
                    // A copy on write takes something away itself; then the rest need not be looked at.
                    if invalidations.changed(cpu, since) {
                        return Err(Failed::Again);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the device may have pages of the area at all (Linux: `hmm_vma_walk_test`).
    fn may_be_mirrored(&self, area: &Area) -> bool {
        area.rights.allow(Access::Read)
            && self.file(area.file).is_some_and(|file| !FileKind::is_pfn_mapped(file.kind()))
    }

    /// What is mapped at an address. The caller holds the mmap lock.
    fn look_at(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, at: VirtAddr) -> Result<Look, FaultError> {
        let protocols = self.protocols();
        // A table that others share may be left although the mmap lock is held.
        let irq = cpu.irq_off();
        let found = walk::translate(cpu, &protocols.mode, self.tables(), &protocols.read, space.root(), at);
        drop(irq);
        let (level, entry) = match found {
            Ok(found) => (found.level, found.entry),
            Err(WalkError::NotPresent { level, entry, .. }) => (level, entry),
            Err(error) => return Err(error.into()),
        };
        Ok(Look { first: at.align_down(level.size()), level, held: self.held(level, entry) })
    }

    /// What the leaf has for a page, if that is enough.
    fn page_of(&self, look: &Look, at: VirtAddr, request: HmmRequest) -> Result<HmmPage, Missing> {
        let want = match request {
            HmmRequest::Snapshot => None,
            HmmRequest::Fault => Some(Want::Read),
            HmmRequest::FaultForWrite => Some(Want::Write),
        };
        let leaf = match look.held {
            Held::Page(leaf) | Held::Zero(leaf) if leaf.presence == Presence::Present => leaf,
            Held::Special(_) => return if want.is_none() { Ok(HmmPage::Error) } else { Err(Missing::Special) },
            Held::Page(_)
            | Held::Zero(_)
            | Held::Nothing
            | Held::Swap(_)
            | Held::Migration(_)
            | Held::Marker(Marker::UffdWriteProtect | Marker::Guard | Marker::Poisoned)
            | Held::Table
            | Held::Unknown => return want.map_or(Ok(HmmPage::None), |want| Err(Missing::Fault(want))),
        };
        let may_write = self.protocols().guards.device_may_write(leaf.attributes);
        if request == HmmRequest::FaultForWrite && !may_write {
            return Err(Missing::Fault(Want::Write));
        }
        let index = (at.as_u64() - look.first.as_u64()) / PAGE_SIZE;
        Ok(HmmPage::Valid {
            frame: leaf.frame.wrapping_add(index),
            access: if may_write { Access::Write } else { Access::Read },
            // 0, 9 or 18.
            order: look.level.frames().trailing_zeros() as u8,
        })
    }
}

impl From<RangeError> for HmmError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<HmmError> for Failed {
    fn from(error: HmmError) -> Self {
        Self::For(error)
    }
}

impl From<FaultError> for Failed {
    fn from(error: FaultError) -> Self {
        Self::For(HmmError::Fault(error))
    }
}
