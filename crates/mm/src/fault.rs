//! From a page fault to an entry.

use machine::addr::{Frame, VirtAddr};
use machine::{Access, Cpu, PageFault};
use pagetable::{Attributes, Entry, Flags, Level, LockedTable, MapError, Rights, WalkError};

use crate::area::{Area, AreaRights};
use crate::error::FaultError;
use crate::file::{File, FileKind, PageSlot};
use crate::folio::{Folio, NotGrabbed, Reference};
use crate::mm::Mm;
use crate::order::SpecialCheck;
use crate::platform::{Platform, Protocols};
use crate::space::AddressSpace;

/// What came of an attempt to map a page.
enum Outcome {
    /// An entry allows the access now.
    Mapped,
    /// The file's page was replaced meanwhile: look again.
    Replaced,
}

impl<'m, P: Platform> Mm<'m, P> {
    /// Resolves a page fault: on return the access can be tried again.
    ///
    /// The entry may be gone again by then: then it faults again.
    ///
    /// Context: interrupts on, no lock.
    ///
    /// # Errors
    /// The access is not allowed there, or there are no frames for tables. Nothing has changed then but that tables may have been added.
    pub fn handle_fault(&self, cpu: &P::Cpu, space: &AddressSpace<'m>, fault: PageFault) -> Result<(), FaultError> {
        let mmap = space.mmap_lock().read(cpu);
        let result = self.fault_in(cpu, space, fault.address, fault.access);
        mmap.unlock();
        result
    }

    /// Maps the page that belongs at `address`. The caller holds the mmap lock.
    pub(crate) fn fault_in(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), FaultError> {
        let area = space.find(cpu, address).ok_or(FaultError::NoArea { address })?;
        if !area.rights.allow(access) {
            return Err(FaultError::Forbidden { address, access, area });
        }
        let page = area.file_page(address);
        let no_page = FaultError::NoPage { file: area.file, page };
        let file = self.file(area.file).ok_or(no_page)?;
        let slot = file.slot(page).ok_or(no_page)?;
        let fault = Fault { area, access, level: file.leaf(), address: address.align_down(file.leaf().size()) };
        let head = cpu.loop_head();
        match file.kind() {
            FileKind::Cached => loop {
                cpu.round(&head, 0);
                let frame = slot.get(cpu).ok_or(no_page)?;
                if let Outcome::Mapped = self.map_cached(cpu, space, &fault, slot, frame)? {
                    return Ok(());
                }
            },
            // Without copies and zeroed pages this engine maps no anonymous memory.
            FileKind::Anonymous => Err(no_page),
            FileKind::Driver => self.map_driver(cpu, space, &fault, file, slot, no_page),
        }
    }

    /// Maps a page of a cached file. The entry takes over a reference.
    fn map_cached(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        slot: &PageSlot,
        frame: Frame,
    ) -> Result<Outcome, FaultError> {
        let bad_frame = FaultError::BadFrame { file: fault.area.file, frame, level: fault.level };
        let entry = Entry::leaf(fault.level, frame, fault.attributes()).map_err(|_| bad_frame)?;
        let folio = match Folio::try_grab(self.map(), cpu, frame, 1, Reference::Get) {
            Ok(folio) => folio,
            Err(NotGrabbed::Free) if slot.get(cpu) != Some(frame) => return Ok(Outcome::Replaced),
            Err(_) => return Err(bad_frame),
        };
        let outcome = if folio.covers(frame, fault.level) {
            self.map_folio(cpu, space, fault, slot, entry, &folio)
        } else {
            Err(bad_frame)
        };
        if !matches!(outcome, Ok((Outcome::Mapped, Installed::New))) {
            // Taken above, and no entry took it over: this cannot underflow.
            let _ = folio.put(cpu, self.map(), 1, Reference::Get);
        }
        outcome.map(|(outcome, _)| outcome)
    }

    fn map_folio(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        slot: &PageSlot,
        entry: Entry,
        folio: &Folio<'_>,
    ) -> Result<(Outcome, Installed), FaultError> {
        let mut table = self.lock_leaf_table(cpu, space, fault)?;
        // Whoever replaces the page changes the slot first and zaps under this lock second. So if the slot still holds the frame now, a
        // zap that is to take it away comes after the entry is there.
        if slot.get(cpu) != Some(entry.leaf_frame(fault.level)) {
            return Ok((Outcome::Replaced, Installed::Nothing));
        }
        let installed = self.install(&mut table, fault, entry, |cpu| folio.add_rmap(cpu))?;
        Ok((Outcome::Mapped, installed))
    }

    /// Inserts a special entry for a driver's frame (Linux: `vmf_insert_pfn`, `_pmd`, `_pud`). No reference is taken: the driver
    /// revokes before it takes the frame back.
    fn map_driver(
        &self,
        cpu: &P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
        file: &File<'m>,
        slot: &PageSlot,
        no_page: FaultError,
    ) -> Result<(), FaultError> {
        // Held until the entry is there: the driver does not move the frame while it is being mapped.
        let driver = file.driver_lock().lock(cpu);
        let result = slot.get(cpu).ok_or(no_page).and_then(|frame| {
            let bad_frame = FaultError::BadFrame { file: fault.area.file, frame, level: fault.level };
            let attributes = fault.attributes().with_mark(self.protocols().special.mark());
            let entry = Entry::leaf(fault.level, frame, attributes).map_err(|_| bad_frame)?;
            let mut table = self.lock_leaf_table(cpu, space, fault)?;
            self.install(&mut table, fault, entry, |_| ()).map(|_| ())
        });
        driver.unlock();
        result
    }

    /// Locks the table that is to hold the leaf, and makes it and those above if they are missing.
    fn lock_leaf_table<'t>(
        &'t self,
        cpu: &'t P::Cpu,
        space: &AddressSpace<'m>,
        fault: &Fault,
    ) -> Result<LockedTable<'t, P::Cpu>, FaultError> {
        let tables = self.page_tables(space);
        let position = tables
            .populate(cpu, self.tables(), &self.protocols().publish, fault.address, fault.level)
            .map_err(|error| match error {
                MapError::Walk(WalkError::Leaf { .. }) => fault.occupied(),
                error => error.into(),
            })?;
        // The mmap lock is held: no table is detached.
        Ok(position.lock(cpu))
    }

    /// Writes the leaf, or gives one that is there already the rights and flags that are missing. `before` runs before a new one is written.
    fn install(
        &self,
        table: &mut LockedTable<'_, P::Cpu>,
        fault: &Fault,
        entry: Entry,
        before: impl FnOnce(&P::Cpu),
    ) -> Result<Installed, FaultError> {
        let Protocols { mode, write, .. } = self.protocols();
        let found = table.entry(mode, fault.address);
        if found.is_none() {
            before(table.cpu());
            table.fill(write, fault.address, entry);
            return Ok(Installed::New);
        }
        if !found.is_present()
            || !found.is_leaf(fault.level)
            || found.leaf_frame(fault.level) != entry.leaf_frame(fault.level)
        {
            return Err(fault.occupied());
        }
        // Somebody else was faster, or the entry lacks rights. More rights need no flush: at worst a CPU faults once more (SDM vol. 3A, 4.10.4.3).
        let more = if entry.has(Flags::WRITE) { Flags::WRITE } else { Flags::ACCESSED };
        let missing = more.and(fault.flags());
        if !found.has(missing) {
            table.set_flags(write, fault.address, missing);
        }
        Ok(Installed::Nothing)
    }
}

/// Whether an entry was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Installed {
    New,
    Nothing,
}

/// A fault, as far as it has been understood.
struct Fault {
    area: Area,
    access: Access,
    /// The level of the leaf that is to be mapped.
    level: Level,
    /// The first address that the leaf covers.
    address: VirtAddr,
}

impl Fault {
    /// Accessed, and dirty for a write: software sets them here, to save the hardware a locked access a moment later.
    const fn flags(&self) -> Flags {
        match self.access {
            Access::Read => Flags::ACCESSED,
            Access::Write => Flags::ACCESSED_DIRTY,
        }
    }

    const fn attributes(&self) -> Attributes {
        let rights = match self.area.rights {
            // No access is allowed there, so no fault comes this far.
            AreaRights::None | AreaRights::Read => Rights::USER,
            AreaRights::ReadWrite => Rights::USER.and(Rights::WRITE),
        };
        Attributes::new(rights).with(self.flags())
    }

    const fn occupied(&self) -> FaultError {
        FaultError::Occupied { address: self.address, level: self.level }
    }
}
