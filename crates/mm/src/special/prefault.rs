//! Neighbouring pages, one lock a table: what a fault handler maps along with the page that was asked for.

use machine::Access;
use machine::addr::{Frame, PAGE_SIZE, VirtAddr};
use pagetable::{Entry, Level, LockedTable};

use crate::area::Area;
use crate::folio::{FolioFlags, Reference};
use crate::mm::Mm;
use crate::platform::Platform;
use crate::space::AddressSpace;
use crate::special::frames::MappedAs;
use crate::special::insert::{InsertError, Inserted, Place};
use crate::special::leaf::PfnLeaf;

/// How far an insertion of several pages came, and what ended it.
pub(super) struct Progress {
    /// How many pages are behind it.
    pub(super) pages: u64,
    /// Why it ended early.
    pub(super) ended: Result<(), InsertError>,
}

/// Pages to be inserted.
#[derive(Clone, Copy)]
pub(super) struct Pages<'a> {
    pub(super) area: &'a Area,
    /// Rights and caching.
    pub(super) like: &'a PfnLeaf,
    /// What the first page is inserted for.
    pub(super) access: Access,
    pub(super) start: VirtAddr,
    pub(super) populated: Populated,
}

/// What to do where something is mapped already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Populated {
    /// Pass over it, unless it is the first page.
    PassOver,
    /// End there, even if it is the same frame.
    Refuse,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Inserts `pages` pages, which lie in the area, until `frame_of` has none for one, or one is refused. The caller holds the mmap lock.
    pub(super) fn insert_run(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        what: Pages<'_>,
        pages: u64,
        mut frame_of: impl FnMut(u64) -> Option<Frame>,
    ) -> Progress {
        let Pages { area, like, access, start, .. } = what;
        let end = start.wrapping_add(pages * PAGE_SIZE);
        let mut at = start;
        let mut ended =
            if like.allows(area, access) { Ok(()) } else { Err(InsertError::Forbidden { address: start, access }) };
        while at < end && ended.is_ok() {
            let until = Level::Pmd.next(at).min(end);
            let first = at;
            ended = match self.lock_place(cpu, space, at, &like.page(Frame::new(u64::MAX)), access) {
                Ok(Place::Table(mut table)) => {
                    let ended = self.fill_table(&mut table, what, &mut at, until, &mut frame_of);
                    table.unlock();
                    ended
                }
                // The frame asked for above is none, so no leaf maps it.
                Ok(Place::Covered) => Err(InsertError::Fallback { level: Level::Pte }),
                Err(error) => Err(error),
            };
            if ended.is_ok() && at < until {
                // There is no frame for the next page.
                break;
            }
            debug_assert!(at > first || ended.is_err(), "every round comes further");
        }
        Progress { pages: (at.as_u64() - start.as_u64()) / PAGE_SIZE, ended }
    }

    /// The part of the pages that one table translates: `at` moves on to the first page that was not inserted.
    fn fill_table(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        what: Pages<'_>,
        at: &mut VirtAddr,
        until: VirtAddr,
        frame_of: &mut impl FnMut(u64) -> Option<Frame>,
    ) -> Result<(), InsertError> {
        while *at < until {
            let Some(frame) = frame_of(what.area.file_page(*at)) else { return Ok(()) };
            match (self.insert_page(table, what, *at, frame), what.populated) {
                (Ok(Inserted::New), _) | (Ok(Inserted::Already), Populated::PassOver) => {}
                (Ok(Inserted::Already), Populated::Refuse) => {
                    return Err(InsertError::Occupied {
                        address: *at,
                        found: table.entry(&self.protocols().mode, *at),
                    });
                }
                // What is there ahead of the fault may be right: that is for the fault on it to say.
                (Err(InsertError::Occupied { .. }), Populated::PassOver) if *at != what.start => {}
                (Err(error), _) => return Err(error),
            }
            *at = at.wrapping_add(PAGE_SIZE);
        }
        Ok(())
    }

    fn insert_page(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        what: Pages<'_>,
        at: VirtAddr,
        frame: Frame,
    ) -> Result<Inserted, InsertError> {
        let cpu = table.cpu();
        let Pages { area, start, .. } = what;
        let leaf = what.like.page(frame);
        // A page ahead of the fault is not dirty, whatever the fault was.
        let access = if at == start { what.access } else { Access::Read };
        let file = self.special_file(area)?;
        self.check_frame(&leaf)?;
        match self.mapped_as(cpu, (area.file, file), &leaf)? {
            MappedAs::Special => {
                let entry = self.special_entry(&leaf, leaf.attributes(area, access))?;
                self.install_locked(table, (at, Level::Pte), entry, access, |_| ())
            }
            MappedAs::Counted => {
                let entry = Entry::leaf(Level::Pte, frame, leaf.attributes(area, access));
                let entry = entry.map_err(|_| InsertError::BadFrame { frame, level: Level::Pte })?;
                let folio = self.grab_for_entry(cpu, &leaf)?;
                let result = if folio.flags(cpu).contains(FolioFlags::TRUNCATED) {
                    Err(InsertError::Foreign { frame })
                } else {
                    self.install_locked(table, (at, Level::Pte), entry, access, |cpu| folio.add_rmap(cpu))
                };
                if result != Ok(Inserted::New) {
                    // Taken above, and no entry took it over: this cannot underflow.
                    let _ = folio.put(cpu, self.map(), 1, Reference::Get);
                }
                result
            }
        }
    }
}
