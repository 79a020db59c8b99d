//! What GUP touches and hands out.

use lab::{Ghost, Paging, Violation};
use machine::addr::PAGE_SIZE;
use machine::{CpuId, Frame};
use mm::Reference;

use super::told::{Caller, Told};
use super::walk::Walked;
use super::{HISTORY, Watch, held_shift};
use crate::kernel::setup::Owner;
use crate::rule;

impl Watch<'_> {
    /// Adds a leaf to a list of ghost words, if it is not there yet.
    fn remember(ghost: &mut Ghost<'_>, list: usize, level: u8, frame: Frame) {
        let packed = frame.number() << 8 | u64::from(level);
        for index in list..list + HISTORY {
            match ghost.get(index) {
                0 => return ghost.set(index, packed),
                known if known == packed => return,
                _ => {}
            }
        }
    }

    /// Whether a frame is mapped by one of the leaves in a list of ghost words.
    fn remembers(ghost: &Ghost<'_>, list: usize, frame: Frame) -> bool {
        (list..list + HISTORY).map(|index| ghost.get(index)).take_while(|&packed| packed != 0).any(|packed| {
            let frames = Paging::span((packed & 0xff) as u8) / PAGE_SIZE;
            frame.number().wrapping_sub(packed >> 8) < frames
        })
    }

    /// Whether one of the leaves in a list of ghost words begins in these frames.
    fn remembers_any(ghost: &Ghost<'_>, list: usize, first: Frame, frames: u64) -> bool {
        let leaves = (list..list + HISTORY).map(|index| ghost.get(index)).take_while(|&packed| packed != 0);
        leaves.map(|packed| (packed >> 8).wrapping_sub(first.number())).any(|index| index < frames)
    }

    /// Tables have changed: notes what is mapped now.
    pub(super) fn note_mappings(&self, ghost: &mut Ghost<'_>) {
        for (number, page) in self.pages.iter().enumerate() {
            let Some(Walked { level, leaf: Some(frame), .. }) = self.walk(page) else { continue };
            Self::remember(ghost, Self::ever(number), level, frame);
            for call in 0..self.calls() {
                if ghost.get(self.active(call)) >> number & 1 != 0 {
                    Self::remember(ghost, self.during(call, number), level, frame);
                }
            }
        }
    }

    pub(super) fn hear(
        &self,
        ghost: &mut Ghost<'_>,
        (cpu, caller): (CpuId, Caller),
        told: Told,
    ) -> Result<(), Violation> {
        let call = self.call(cpu, caller);
        match told {
            Told::GupBegins { pages } => {
                ghost.set(self.active(call), pages);
                self.note_mappings(ghost);
                Ok(())
            }
            Told::GupEnds => {
                ghost.set(self.active(call), 0);
                for page in 0..self.pages.len() {
                    (0..HISTORY).for_each(|index| ghost.set(self.during(call, page) + index, 0));
                }
                Ok(())
            }
            Told::LookedUp { frame } => self.looked_up(ghost, (cpu, call), frame),
            Told::Got { page, frame, reference } => self.got(ghost, (cpu, call), (page, frame), reference),
            Told::GaveBack { frame, pages, reference } => {
                if let Some(folio) = self.folio(frame) {
                    let held = ghost.get(self.held(folio));
                    ghost.set(self.held(folio), held.wrapping_sub(pages << held_shift(reference)));
                }
                Ok(())
            }
            Told::PutIntoFile { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.put_into_file(folio), 1);
                }
                Ok(())
            }
            Told::WrittenOut { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.written(folio), 0);
                }
                Ok(())
            }
            Told::DeviceWrote { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.written(folio), 1);
                }
                Ok(())
            }
            Told::RecordsGone { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.records_gone(folio), 1);
                }
                Ok(())
            }
            Told::DoubleUse { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.double_use(folio), 1);
                }
                Ok(())
            }
            Told::OutOfUse { frame } => {
                if let Some(folio) = self.folio(frame) {
                    ghost.set(self.out_of_use(folio), 1);
                    // Lost, and said to be.
                    ghost.set(self.written(folio), 0);
                }
                Ok(())
            }
            Told::Released { frame } => {
                let Some(folio) = self.folio(frame) else { return Ok(()) };
                ghost.set(self.written(folio), 0);
                match ghost.get(self.held(folio)) {
                    0 => Ok(()),
                    _ => self.broken(
                        rule::PINNED_FREED,
                        format!("{} is freed while a user of GUP holds a reference to it", self.name(frame)),
                    ),
                }
            }
        }
    }

    fn looked_up(&self, ghost: &Ghost<'_>, (cpu, call): (CpuId, usize), frame: Frame) -> Result<(), Violation> {
        let active = ghost.get(self.active(call));
        if active == 0 {
            return Ok(());
        }
        let mut asked = (0..self.pages.len()).filter(|page| active >> page & 1 != 0);
        let names: Vec<&str> = asked.clone().map(|page| self.pages[page].name.as_str()).collect();
        // Through a page's record it comes to that of the folio's first frame.
        let is_head_of = |page| {
            let folio = self.folio(frame).map(|folio| self.folios[folio].setup).filter(|setup| setup.first == frame);
            folio.is_some_and(|folio| Self::remembers_any(ghost, Self::ever(page), frame, 1 << folio.order))
        };
        if !asked.any(|page| Self::remembers(ghost, Self::ever(page), frame) || is_head_of(page)) {
            self.broken(
                rule::PHANTOM_FRAME,
                format!(
                    "{cpu} takes {} for a page of {}: no entry for that address ever held it, it is a mixture of two reads",
                    self.name(frame),
                    names.join(", "),
                ),
            )?;
        }
        match self.folio(frame).map(|folio| self.folios[folio].setup.owner) {
            Some(Owner::Driver | Owner::Device) => self.broken(
                rule::SPECIAL_PINNED,
                format!(
                    "{cpu} looks up the record of {}, which a driver mapped as special at {}",
                    self.name(frame),
                    names.join(", "),
                ),
            ),
            _ => Ok(()),
        }
    }

    fn got(
        &self,
        ghost: &mut Ghost<'_>,
        (cpu, call): (CpuId, usize),
        (page, frame): (usize, Frame),
        reference: Reference,
    ) -> Result<(), Violation> {
        if !Self::remembers(ghost, self.during(call, page), frame) {
            self.broken(
                rule::WRONG_PAGE,
                format!(
                    "{cpu} gets a reference to {} for {}, which was not mapped there at any moment of the call",
                    self.name(frame),
                    self.pages[page].name,
                ),
            )?;
        }
        if let Some(folio) = self.folio(frame) {
            let held = ghost.get(self.held(folio));
            ghost.set(self.held(folio), held + (1 << held_shift(reference)));
        }
        Ok(())
    }
}
