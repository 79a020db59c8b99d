//! One leaf, under its page-table lock: whether its pages can be had as they are.

use machine::Access;
use machine::addr::{PAGE_SIZE, VirtAddr};
use pagetable::recheck::Atomic;
use pagetable::{Entry, EntryWrite, Flags, Level, LockedTable, Marker, WalkError};

use crate::area::{Area, Sharing};
use crate::error::{FaultError, GupError};
use crate::exclusive::{Exclusivity, exclusivity};
use crate::fault::Want;
use crate::file::FileKind;
use crate::folio::{Folio, FolioFlags, NotGrabbed, Reference};
use crate::guard::Guards;
use crate::gup::Run;
use crate::gup::flags::{Foll, Request, Term};
use crate::gup::slow::{Followed, pages_of_leaf, poisoned};
use crate::leaf::{Held, Leaf, Presence};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;

/// A place that is looked at.
#[derive(Clone, Copy)]
struct Look<'a> {
    area: &'a Area,
    at: VirtAddr,
    /// Where the range or the area ends.
    end: VirtAddr,
    level: Level,
    request: Request,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Takes references to the pages from `at` on that one leaf maps, or says what is in the way. The caller holds the mmap lock.
    pub(super) fn follow(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        area: &Area,
        (at, end): (VirtAddr, VirtAddr),
        request: Request,
    ) -> Result<Followed, GupError> {
        let tables = self.page_tables(space);
        let level = match tables.find(cpu, at, Level::Pte) {
            Ok(_) => Level::Pte,
            Err(WalkError::Leaf { level, .. } | WalkError::NotPresent { level, .. }) => level,
            Err(error) => return Err(FaultError::from(error).into()),
        };
        let Ok(position) = tables.find(cpu, at, level) else { return Ok(Followed::Changed) };
        // A table that others share may be left although the mmap lock is held.
        let Ok(mut table) = position.lock_linked(cpu, &Atomic) else { return Ok(Followed::Changed) };
        let look = Look { area, at, end, level, request };
        let result = self.look(cpu, &mut table, look);
        table.unlock();
        result
    }

    fn look(&self, cpu: &P::Cpu, table: &mut LockedTable<'_, P::Cpu>, look: Look<'_>) -> Result<Followed, GupError> {
        let Look { at, request, .. } = look;
        let entry = table.entry(&self.protocols().mode, at);
        match self.held(look.level, entry) {
            Held::Nothing if request.has(Foll::DUMP) && self.has_no_file(look.area) => {
                Err(GupError::Hole { address: at })
            }
            Held::Nothing => Ok(Followed::Fault(look.want())),
            Held::Table => Ok(Followed::Changed),
            Held::Swap(_) | Held::Migration(_) if request.has(Foll::NOWAIT) => {
                Err(GupError::WouldBlock { address: at })
            }
            Held::Swap(_) | Held::Migration(_) => Ok(Followed::Fault(look.want())),
            Held::Marker(Marker::Poisoned) => Err(poisoned(at, request)),
            // The fault says what is wrong.
            Held::Marker(_) | Held::Unknown => Ok(Followed::Fault(look.want())),
            Held::Special(_) => Err(GupError::Special { address: at }),
            Held::Zero(_) if request.has(Foll::DUMP) => Err(GupError::Hole { address: at }),
            Held::Zero(leaf) if request.access == Access::Read && !look.must_leave_file() => {
                self.take(cpu, look, &leaf, entry)
            }
            Held::Zero(_) => Ok(Followed::Fault(look.want_own())),
            Held::Page(leaf) => {
                let followed = self.look_at_page(cpu, look, &leaf, entry)?;
                if matches!(followed, Followed::Run(_)) && request.access == Access::Write {
                    self.note_forced_write(table, look, &leaf);
                }
                Ok(followed)
            }
        }
    }

    /// Who has a page by force writes to it without a fault, so that it counts as written from now on, like all that can be written ([`crate::soft_dirty`]; Linux: `can_follow_write_pte` wants
    /// it so). User code gets no right by that, and nothing is to be flushed.
    fn note_forced_write(&self, table: &mut LockedTable<'_, P::Cpu>, look: Look<'_>, leaf: &Leaf) {
        let (write, soft_dirty) = (&self.protocols().write, Flags::soft_dirty(look.level));
        if leaf.attributes.has(soft_dirty) {
            return;
        }
        match leaf.presence {
            Presence::Present => {
                table.set_flags(write, look.at, soft_dirty);
            }
            Presence::ProtNone => {
                let noted = Leaf { attributes: leaf.attributes.with(soft_dirty), ..*leaf };
                if let Some(entry) = noted.entry(look.level) {
                    table.replace(write, look.at, entry);
                }
            }
        }
    }

    fn look_at_page(&self, cpu: &P::Cpu, look: Look<'_>, leaf: &Leaf, entry: Entry) -> Result<Followed, GupError> {
        let Look { area, request, .. } = look;
        if leaf.presence == Presence::ProtNone
            && request.has(Foll::HONOR_NUMA_FAULT)
            && area.rights.allow(request.access)
        {
            // The area does allow the access, so somebody wants to hear of it.
            return Ok(Followed::Fault(look.want()));
        }
        // The mapping's reference keeps the folio while the table is locked.
        let Some(folio) = Folio::held(self.map(), cpu, leaf.frame) else {
            return Err(GupError::NotAllowed { address: look.at });
        };
        let is_anon = folio.flags(cpu).contains(FolioFlags::ANON);
        let is_own = is_anon && exclusivity(self.map(), cpu, leaf.frame) == Exclusivity::Exclusive;
        match request.access {
            Access::Write if leaf.attributes.has(Flags::WRITE) => {}
            // What is protected is handed over, whoever writes (Linux: `can_follow_write_pte`).
            Access::Write if look.may_force(is_own) && !self.is_uffd_wp_leaf(leaf.attributes) => {}
            Access::Write => return Ok(Followed::Fault(look.want())),
            // Who may write through the entry shares the page with nobody.
            Access::Read if leaf.attributes.has(Flags::WRITE) || request.reference == Reference::Get => {}
            Access::Read
                if (is_anon && !is_own && self.protocols().guards.pin_unshares())
                    || (!is_anon && look.must_leave_file()) =>
            {
                return Ok(Followed::Fault(look.want_own()));
            }
            Access::Read => {}
        }
        if request.has(Foll::SPLIT_PMD) && look.level > Level::Pte {
            return Ok(Followed::Split);
        }
        self.take(cpu, look, leaf, entry)
    }

    /// Takes references to the pages, if their folio may be had like this.
    fn take(&self, cpu: &P::Cpu, look: Look<'_>, leaf: &Leaf, entry: Entry) -> Result<Followed, GupError> {
        let Look { at, end, level, request, .. } = look;
        let address = at;
        let frame = leaf.frame.wrapping_add((at.as_u64() & (level.size() - 1)) / PAGE_SIZE);
        let pages = pages_of_leaf(level, at, end);
        let folio = match Folio::try_grab(self.map(), cpu, frame, pages, request.reference) {
            Ok(folio) => folio,
            Err(NotGrabbed::CountLimit) => return Err(GupError::CountLimit { address }),
            Err(NotGrabbed::NoRecord | NotGrabbed::Free) => return Err(GupError::NotAllowed { address }),
        };
        let flags = folio.flags(cpu);
        let refused = if !folio.holds(frame, pages) || peer_to_peer_unasked(flags, request) {
            Some(Err(GupError::NotAllowed { address }))
        } else if flags.contains(FolioFlags::POISONED) {
            Some(Err(poisoned(address, request)))
        } else if request.term == Term::Long && flags.contains(FolioFlags::MOVABLE) {
            Some(Ok(Followed::Movable(frame)))
        } else if !flags.allow(request.term, request.access) {
            Some(Err(GupError::NotAllowed { address }))
        } else {
            None
        };
        if let Some(refused) = refused {
            // Taken a moment ago: this cannot underflow.
            let _ = folio.put(cpu, self.map(), pages, request.reference);
            return refused;
        }
        if request.has(Foll::TOUCH) {
            let written = request.access == Access::Write && !self.protocols().write.as_read(entry).has(Flags::DIRTY);
            let touched = FolioFlags::REFERENCED;
            folio.mark_seen(cpu, flags, if written { touched.and(FolioFlags::DIRTY) } else { touched });
        }
        Ok(Followed::Run(Run { frame, pages, reference: request.reference }))
    }

    fn has_no_file(&self, area: &Area) -> bool {
        self.file(area.file).is_some_and(|file| file.kind() == FileKind::Anonymous)
    }
}

/// Whether the folio is a device's peer-to-peer memory and the caller did not say that it can cope (FOLL_PCI_P2PDMA).
#[inline(always)]
pub(super) const fn peer_to_peer_unasked(flags: FolioFlags, request: Request) -> bool {
    flags.contains(FolioFlags::PEER_TO_PEER) && !request.has(Foll::PCI_P2PDMA)
}

impl Look<'_> {
    /// The fault that makes the access possible.
    fn want(&self) -> Want {
        match self.request.access {
            Access::Read => Want::Read,
            Access::Write if self.area.rights.allow(Access::Write) => Want::Write,
            // `check_request` has let nothing else come this far.
            Access::Write => Want::ForcedWrite,
        }
    }

    /// The fault that makes the page this address space's own, and the access possible.
    fn want_own(&self) -> Want {
        match self.request.access {
            Access::Read => Want::Unshare,
            Access::Write => self.want(),
        }
    }

    /// A forced write: into the address space's own copy, though the entry does not allow it (Linux: `can_follow_write_pte`).
    fn may_force(&self, is_own: bool) -> bool {
        is_own
            && self.request.has(Foll::FORCE)
            && self.area.sharing == Sharing::Private
            && !self.area.rights.allow(Access::Write)
    }

    /// A pin for long of what is not the address space's own, in an area whose next write would replace it (Linux: `gup_must_unshare`).
    fn must_leave_file(&self) -> bool {
        self.request.term == Term::Long && self.area.sharing == Sharing::Private
    }
}
