//! The machine when all is quiet: counts, and what must not have been forgotten.

use lab::{End, Ghost, Paging, Violation};
use machine::addr::PAGE_SIZE;
use machine::{Frame, Word64};
use mm::folio::PIN_BIAS;
use mm::{FileKind, FolioFlags, Membership};
use pagetable::Entry;
use pagetable::software::{LONG_MODE, SAVED_DIRTY};

use super::walk::Walked;
use super::{Watch, WatchedFolio, WatchedPage};
use crate::kernel::setup::Owner;
use crate::kernel::table_check::TableChecks;
use crate::rule;

/// A page slot that holds a frame.
const PRESENT: u64 = 1 << 63;

/// The leaves that map a folio.
struct Mappings {
    /// How many there are of each small folio that it was split into, by index; of one that is whole, of the first.
    of_heads: Vec<u64>,
    dirty: bool,
}

impl Mappings {
    fn none(records: usize) -> Self {
        Self { of_heads: vec![0; records], dirty: false }
    }
}

impl Watch<'_> {
    /// What shared areas of files map is what their files have there.
    pub(super) fn entries(&self, end: &End<'_>) -> Result<(), Violation> {
        for page in &self.pages {
            let Some((slot, level)) = page.slot else { continue };
            let Some(Walked { level: found, leaf: Some(frame), .. }) = self.walk(page) else { continue };
            let has = end.read(self.slots[slot].0);
            // Which of its 4 KiB pages, where the leaf found is smaller than the file's.
            let leaf_pages = |level: u8| Paging::span(level) / PAGE_SIZE;
            let number = page.address.as_u64() / PAGE_SIZE;
            let within = number % level.frames() / leaf_pages(found) * leaf_pages(found);
            if has & PRESENT == 0 || (has & !PRESENT) + within != frame.number() {
                let (name, frame) = (&page.name, self.name(frame));
                let sentence =
                    format!("when all is quiet {name} maps {frame}, which is no longer that page of its file");
                self.broken(rule::STALE_ENTRY, sentence)?;
            }
        }
        Ok(())
    }

    /// What is mapped in two ways was reported, where that is checked. Pages of shared areas of files have slots; no other area of such a file maps the file's own page.
    pub(super) fn double_uses(&self, ghost: &Ghost<'_>) -> Result<(), Violation> {
        if self.table_checks == TableChecks::None {
            return Ok(());
        }
        let mapped = |page: &WatchedPage| self.walk(page).and_then(|walked| walked.leaf);
        for of_file in self.pages.iter().filter(|page| page.slot.is_some()) {
            let Some(frame) = mapped(of_file) else { continue };
            let mut anonymous = self.pages.iter().filter(|page| page.slot.is_none() && mapped(page) == Some(frame));
            let (Some(other), Some(folio)) = (anonymous.next(), self.folio(frame)) else { continue };
            if ghost.get(self.double_use(folio)) == 0 {
                let sentence = format!(
                    "when all is quiet {} and {} map {}, as a file's page and as anonymous memory, and page_table_check has said nothing",
                    of_file.name,
                    other.name,
                    self.name(frame),
                );
                self.broken(rule::MISSED_DOUBLE_USE, sentence)?;
            }
        }
        Ok(())
    }

    /// Whether a leaf is dirty, by the hardware's bit or by the one where the engine saves it.
    fn is_dirty(&self, level: u8, entry: u64) -> bool {
        let saved = Entry::from_bits(entry).is_marked(LONG_MODE.mark(SAVED_DIRTY));
        self.paging.decode(level, entry).dirty || self.write.saves_dirty() && saved
    }

    /// The leaves that map each folio now: how many map what is of its head still, and whether any is dirty.
    fn mappings(&self, end: &End<'_>) -> Vec<Mappings> {
        let mut counts: Vec<Mappings> = self.folios.iter().map(|folio| Mappings::none(folio.pages.len())).collect();
        self.each_leaf(|level, entry, frame| {
            let Some(number) = self.folio(frame) else { return };
            let folio = &self.folios[number];
            counts[number].dirty |= self.is_dirty(level, entry);
            let head = folio
                .pages
                .get(folio.index(frame))
                .map(|page| Membership::unpack(end.read(page.membership_word())).head);
            if let Some(count) = head.and_then(|head| counts[number].of_heads.get_mut(folio.index(head))) {
                *count += 1;
            }
        });
        counts
    }

    pub(super) fn counts(&self, ghost: &Ghost<'_>, end: &End<'_>) -> Result<(), Violation> {
        for (number, (folio, mappings)) in self.folios.iter().zip(self.mappings(end)).enumerate() {
            let setup = folio.setup;
            // Nobody counts who maps the zero page.
            let is_zero_page = setup.flags.contains(FolioFlags::ZERO);
            let (mapped, dirty) = (if is_zero_page { 0 } else { mappings.of_heads[0] }, mappings.dirty);
            if setup.owner == Owner::Device || ghost.get(self.records_gone(number)) != 0 {
                continue;
            }
            let allocated = end.is_allocated(setup.first) == Some(true);
            let held = ghost.get(self.held(number));
            let (pins, gets) = (held >> 32, held & u64::from(u32::MAX));
            let kept = u64::from(!folio.starts_in_file && ghost.get(self.put_into_file(number)) == 0);
            let pin_weight = if setup.order == 0 { u64::from(PIN_BIAS) } else { 1 };
            let expected = match setup.owner {
                Owner::Cache => kept + self.in_files(setup.first, end) + mapped + gets + pins * pin_weight,
                Owner::Pagemap => 1 + mapped + gets + pins * pin_weight,
                Owner::Spare => self.in_files(setup.first, end) + mapped + gets + pins * pin_weight,
                // The driver's own reference, which is none of the engine's business.
                Owner::Driver | Owner::Device => 1,
            };
            let out_of_use = ghost.get(self.out_of_use(number));
            if out_of_use != 0 && mapped > 0 {
                let name = &setup.name;
                let sentence =
                    format!("when all is quiet {name} is mapped, whose memory has failed and was taken out of use");
                self.broken(rule::FAILED_MEMORY, sentence)?;
            }
            // That of whoever took it out of use stays.
            let expected = expected + out_of_use;
            // It may have come round to 0, where nothing keeps it from that.
            let expected = u64::from((expected as u32).wrapping_add(setup.elsewhere));
            let found = end.read(folio.pages[0].refcount_word());
            if found != expected {
                self.lost_count(&setup.name, "reference", found, expected)?;
            }
            let counted = matches!(setup.owner, Owner::Cache | Owner::Pagemap | Owner::Spare);
            let expected_mappings = if counted { mapped } else { 0 };
            let found = end.read(folio.pages[0].mapcount_word());
            if found != expected_mappings {
                self.lost_count(&setup.name, "map", found, expected_mappings)?;
            }
            if held == 0 && counted {
                self.small_folios(folio, &mappings, end)?;
            }
            let marked = end.read(folio.pages[0].flags_word()) as u32 & FolioFlags::DIRTY.bits() != 0;
            if counted && allocated && ghost.get(self.written(number)) != 0 && !dirty && !marked {
                self.broken(
                    rule::LOST_DIRTY,
                    format!(
                        "user code or a device wrote to {}, and neither an entry nor the folio is dirty",
                        setup.name
                    ),
                )?;
            }
        }
        Ok(())
    }

    /// What a large folio was split into: each has the references of its mappings.
    fn small_folios(&self, folio: &WatchedFolio<'_>, mappings: &Mappings, end: &End<'_>) -> Result<(), Violation> {
        for (index, page) in folio.pages.iter().enumerate().skip(1) {
            let head = Membership::unpack(end.read(page.membership_word())).head;
            let (found, expected) = (end.read(page.refcount_word()), mappings.of_heads[index]);
            if folio.index(head) == index && found != expected {
                let name = format!("{}+{index:#x}", folio.setup.name);
                self.lost_count(&name, "reference", found, expected)?;
            }
        }
        Ok(())
    }

    /// Where the zero page counts as written, a merge has put it.
    pub(super) fn merged_zeros(&self, end: &End<'_>) -> Result<(), Violation> {
        let mut expected = 0;
        self.each_leaf(|level, entry, frame| {
            let folio = self.folio(frame).map(|number| &self.folios[number]);
            let is_zero_page = folio.is_some_and(|folio| folio.setup.flags.contains(FolioFlags::ZERO));
            expected += u64::from(is_zero_page && self.is_dirty(level, entry));
        });
        let found = self.merged_zeros.iter().fold(0_u64, |sum, word| sum.wrapping_add(end.read(*word)));
        if found == expected { Ok(()) } else { self.lost_count("the zero page", "merge", found, expected) }
    }

    fn lost_count(&self, name: &str, what: &str, found: u64, expected: u64) -> Result<(), Violation> {
        let sentence = format!("when all is quiet the {what} count of {name} is {found} and should be {expected}");
        self.broken(rule::LOST_COUNT, sentence)
    }

    /// How many files hold the folio.
    fn in_files(&self, frame: Frame, end: &End<'_>) -> u64 {
        let holds =
            |slot: &&(&Word64, FileKind)| slot.1 == FileKind::Cached && end.read(slot.0) == PRESENT | frame.number();
        self.slots.iter().filter(holds).count() as u64
    }
}
